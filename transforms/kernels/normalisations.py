"""What each normalisation does to each code point: tables for `simplify.py`, of Unicode 14.0, whatever Python runs.

fineweb      datatrove's `simplify_text`, as `simplify.py` says
slimpajama   lower case (`str.lower`), then ASCII's 32 punctuation marks deleted, then each run of white space
             (`str.isspace`) one space and none at the ends: `get_features` of SlimPajama's `to_hash.py`; duplodocus
             has the same but for U+001C to U+001F, which are no white space to it
none         nothing; where words are asked for, what `str.split` gives, one space between
"""

from __future__ import annotations

import string
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .characters import characters
from .simplify import DROPPED, REPLACED, SEPARATOR, SIGMA
from .text import SPACE, code_point_classes

#: One uint32 a code point, and the pool of replacements.
Table = tuple[NDArray[np.uint32], NDArray[np.uint8]]

_CASE_BITS = 16 | 32
_DATA = Path(__file__).parent.parent / "data" / "simplify.npz"


@lru_cache(maxsize=1)
def fineweb_table() -> Table:
    """Unfold FineWeb's table from the file."""
    with np.load(_DATA) as stored:
        return stored["blocks"][stored["index"]].reshape(-1), stored["pool"]


@lru_cache(maxsize=1)
def slimpajama_table() -> Table:
    """Make SlimPajama's table; which code points are cased stands in FineWeb's."""
    table = fineweb_table()[0] & np.uint32(_CASE_BITS)
    lower = characters()[1]
    changed = np.flatnonzero(lower != np.arange(len(lower)))
    becomes = {int(code): chr(lower[code]) for code in changed} | {0x130: "i\u0307"}
    del becomes[ord("ς")]  # `characters` reads it as σ; `str.lower` leaves it
    pool, size = [], 0
    for code, text in becomes.items():
        body = text.encode()
        table[code] |= np.uint32(REPLACED | len(body) << 8 | size << 13)
        pool.append(body)
        size += len(body)
    table[ord("Σ")] = table[ord("Σ")] & np.uint32(_CASE_BITS) | np.uint32(SIGMA)
    table[[ord(mark) for mark in string.punctuation]] |= np.uint32(DROPPED)
    table[(code_point_classes() & SPACE) != 0] |= np.uint32(SEPARATOR)
    return table, np.frombuffer(b"".join(pool), np.uint8).copy()  # writable, as the others: one type to compile for


@lru_cache(maxsize=2)
def plain_table(words: bool) -> Table:
    """Make the table that changes nothing, or joins words by one space."""
    table = np.zeros(0x110000, np.uint32)
    if words:
        table[(code_point_classes() & SPACE) != 0] = SEPARATOR
    return table, np.zeros(1, np.uint8)


def table_of(normalisation: str, words: bool) -> Table:
    """Give the table of a normalisation by name; `words` says whether `none` joins words by one space."""
    if normalisation == "fineweb":
        return fineweb_table()
    return slimpajama_table() if normalisation == "slimpajama" else plain_table(words)
