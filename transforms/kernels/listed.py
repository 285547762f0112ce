"""Listed words and phrases in lower-cased text: how many places hold one, and the first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .characters import WORD, lowered
from .text import NEWLINE, Int, code_point
from .trie import Trie

#: How a phrase must stand: between word boundaries of the text, anywhere, or between code points of its line that are
#: none of a to z.
FLANKED, ANYWHERE, IN_LINE = 0, 1, 2


@kernel
def _is_letter(byte: Int) -> bool:
    return bool(97 <= byte <= 122)


@kernel
def _ends_well(data: NDArray[np.uint8], at: Int, end: Int, bits: NDArray[np.uint8], mode: Int) -> bool:
    """Say whether a phrase may end at a byte."""
    if mode == ANYWHERE:
        return True
    if at >= end:
        return bool(mode == FLANKED)
    if mode == IN_LINE:
        return data[at] != NEWLINE and not _is_letter(data[at])
    code, _ = code_point(data, at, end)
    return not bits[code] & WORD


@kernel
def _longest(data: NDArray[np.uint8], at: Int, end: Int, phrases: Trie, bits: NDArray[np.uint8], mode: Int) -> Int:
    """Give the number, from 1, of the longest phrase that stands at a byte; 0 for none."""
    classes, table, ends = phrases
    state = found = np.int64(0)
    while at < end:
        state = np.int64(table[state, classes[data[at]]])
        if state == 0:
            break
        at += 1
        if ends[state] and _ends_well(data, at, end, bits, mode):
            found = np.int64(ends[state])
    return found


@kernel
def find_phrases(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    rows: NDArray[np.int64],
    phrases: Trie,
    bits: NDArray[np.uint8],
    lower: NDArray[np.int32],
    mode: Int,
) -> NDArray[np.int64]:
    """Count the places of some rows at which a phrase stands, and name the first's longest: (len(rows), 2), 0 for none.

    Scratch is three times the largest row. A phrase is given in lower case; it may begin inside another.
    """
    most = np.int64(0)
    for row in rows:
        most = max(most, offsets[row + 1] - offsets[row])
    text = np.empty(3 * most + 1, np.uint8)
    found = np.zeros((len(rows), 2), np.int64)
    first_step = phrases[1][0]
    for number in range(len(rows)):
        row = rows[number]
        end = lowered(data, offsets[row], offsets[row + 1], lower, text)
        at = np.int64(0)
        open_ = mode != IN_LINE  # a phrase may begin here
        while at < end:
            byte = text[at]
            if open_ and first_step[phrases[0][byte]]:
                phrase = _longest(text, at, end, phrases, bits, mode)
                if phrase:
                    found[number, 1] = found[number, 1] or phrase
                    found[number, 0] += 1
            if byte < 0x80:
                at += 1
                if mode == FLANKED:
                    open_ = not bits[byte] & WORD
                elif mode == IN_LINE:
                    open_ = byte != NEWLINE and not _is_letter(byte)
                continue
            code, width = code_point(text, at, end)
            at += width
            open_ = mode != FLANKED or not bits[code] & WORD
    return found
