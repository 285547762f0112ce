"""Capitals, digits, word characters and lower case of code points, as Python's `str` and `re` have them.

Two tables, for the rules that ask more than `text.py` tells: a byte of bits (1.1 MB) and the lower case (4.5 MB) of
each code point. Both are those of Unicode 14.0 (`transforms/data/unicode-14*.txt`), whatever Python runs.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import ALPHA, DIGIT, SPACE, Int, code_point, code_point_classes

#: Bits of a code point.
UPPER = 1  # `str.isupper`
FIGURE = 2  # `str.isdigit`: decimals, and ² or ① as well
ALNUM = 4  # `str.isalnum`
WORD = 8  # `\w` of a regular expression: ALNUM and the underscore
BLANK = 16  # `str.isspace`
SPLIT = 32  # where fastText's tokenizer ends a word

_TABLE = Path(__file__).parent.parent / "data" / "unicode-14-case.txt"
_DOTTED_I = 0x130  # its lower case is two code points: i and a dot above


@lru_cache(maxsize=1)
def characters() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Give the bits and the lower case of every code point: two arrays (1114112,), read-only.

    Final sigma reads as sigma, so that no lower case depends on what stands around.
    """
    bits, lower = np.zeros(0x110000, np.uint8), np.arange(0x110000, dtype=np.int32)
    classes = code_point_classes()
    bits[(classes & ALPHA) != 0] |= np.uint8(ALNUM | WORD)
    bits[(classes & DIGIT) != 0] |= np.uint8(ALNUM | WORD | FIGURE)
    bits[(classes & SPACE) != 0] |= np.uint8(BLANK)
    bits[list(b" \t\n\v\f\r\0")] |= np.uint8(SPLIT)
    bits[ord("_")] |= np.uint8(WORD)
    marks = {"upper": UPPER, "digit": ALNUM | WORD | FIGURE, "numeric": ALNUM | WORD}
    for line in _TABLE.read_text("ascii").splitlines():
        if line.startswith("#"):
            continue
        span, kind, *by = line.split()
        codes, _, step = span.partition("/")
        first, last = (int(code, 16) for code in codes.split(".."))
        if kind == "lower":
            lower[first : last + 1 : int(step)] += int(by[0])
        else:
            bits[first : last + 1] |= np.uint8(marks[kind])
    lower[ord("ς")] = ord("σ")
    bits.flags.writeable = lower.flags.writeable = False
    return bits, lower


@kernel
def put_code_point(code: Int, out: NDArray[np.uint8], size: Int) -> Int:
    """Write a code point as UTF-8; give where it ends."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size] = 0xC0 | code >> 6
    else:
        if code < 0x10000:
            out[size] = 0xE0 | code >> 12
        else:
            out[size] = 0xF0 | code >> 18
            size += 1
            out[size] = 0x80 | (code >> 12 & 0x3F)
        size += 1
        out[size] = 0x80 | (code >> 6 & 0x3F)
    out[size + 1] = 0x80 | (code & 0x3F)
    return size + 2


@kernel
def lowered(data: NDArray[np.uint8], at: Int, end: Int, lower: NDArray[np.int32], out: NDArray[np.uint8]) -> Int:
    """Write a stretch in lower case to `out`, which needs 3 bytes for each; give the size."""
    size = np.int64(0)
    while at < end:
        byte = np.int64(data[at])
        if byte < 0x80:
            out[size] = byte + 32 if 65 <= byte <= 90 else byte
            at, size = at + 1, size + 1
            continue
        code, width = code_point(data, at, end)
        at += width
        if code == _DOTTED_I:
            out[size] = 105
            size = put_code_point(0x307, out, size + 1)
        else:
            size = put_code_point(np.int64(lower[code]), out, size)
    return size
