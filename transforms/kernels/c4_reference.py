"""C4's line rules as its own code has them: counts and the text that is left, 220 MB/s a core; mC4's paragraph rule.

Differs from `c4.py`, which follows datatrove, in three places: ' is no end mark, the words of a line are counted after
its citation marks are gone, and only . ? ! end a sentence, which are the marks that C4's Punkt looks at.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .c4 import _CURLY, _JAVASCRIPT, _LOREM, _POLICY, LineRules, _copy, _ends, _inspect, _scan_line, _sentences
from .text import FULL_WIDTH_END, NEWLINE, SPACE, TERMINAL, Int, code_point, code_point_classes, stripped

#: Columns of `c4_reference_clean`'s counts: those of `c4.C4`, and the code points of the page before the rules.
C4_REFERENCE = (
    "lines",
    "long_word_lines",
    "no_end_mark_lines",
    "few_word_lines",
    "javascript_lines",
    "policy_lines",
    "kept_lines",
    "citations",
    "sentences",
    "lorem_ipsum_line",
    "curly_bracket_line",
    "characters",
)
_QUOTE = 39


@lru_cache(maxsize=1)
def reference_classes() -> NDArray[np.uint8]:
    """Give the class bits of every code point, with no marks but . ? ! that end a sentence."""
    table = code_point_classes().copy()
    table &= np.uint8(255 - TERMINAL - FULL_WIDTH_END)
    table[[ord(mark) for mark in ".?!"]] |= np.uint8(TERMINAL)
    table.flags.writeable = False
    return table


@kernel
def _words(data: NDArray[np.uint8], at: Int, end: Int, classes: NDArray[np.uint8]) -> Int:
    """Count the words of a stretch."""
    words = np.int64(0)
    space = np.int64(1)
    while at < end:
        code, width = code_point(data, at, end)
        here = np.int64(classes[code]) & SPACE
        words += space & (here ^ 1)
        space = here
        at += width
    return words


@kernel
def _clean_page(
    data: NDArray[np.uint8],
    at: Int,
    end: Int,
    classes: NDArray[np.uint8],
    rules: LineRules,
    out: NDArray[np.uint8],
    size: Int,
    counts: NDArray[np.int64],
) -> Int:
    """Write the lines of a page that stay to `out`, from `size` on, each with a newline: where they end."""
    citations, end_marks, min_words, max_length, javascript, policy = rules
    while at < end:
        at, first, last, words, longest = _scan_line(data, at, end, classes)
        counts[0] += 1
        if longest > max_length:
            counts[1] += 1
            continue
        stop, removed = _copy(data, first, last, out, size, classes, citations)
        counts[7] += removed
        if end_marks and (not _ends(out, size, stop) or out[stop - 1] == _QUOTE):
            counts[2] += 1
            continue
        if removed:
            words = _words(out, size, stop, classes)
        if words < min_words:
            counts[3] += 1
            continue
        found = _inspect(out, size, stop)
        if found & _LOREM and counts[9] == 0:
            counts[9] = counts[0]
        if javascript and found & _JAVASCRIPT:
            counts[4] += 1
            continue
        if found & _CURLY and counts[10] == 0:
            counts[10] = counts[0]
        if policy and found & _POLICY:
            counts[5] += 1
            continue
        counts[6] += 1
        counts[8] += _sentences(out, size, stop, classes)
        out[stop] = NEWLINE
        size = stop + 1
    return size


@kernel
def c4_reference_clean(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], rules: LineRules
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Apply the line rules: counts (rows, len(C4_REFERENCE)), and the text that is left as offsets and bytes."""
    rows = len(offsets) - 1
    counts = np.zeros((rows, 12), np.int64)
    starts = np.zeros(rows + 1, np.int64)
    out = np.empty(offsets[rows] - offsets[0] + rows, np.uint8)
    begin: Int = np.int64(0)
    for row in range(rows):
        for at in range(offsets[row], offsets[row + 1]):
            counts[row, 11] += (data[at] & 0xC0) != 0x80
        size = _clean_page(data, offsets[row], offsets[row + 1], classes, rules, out, begin, counts[row])
        first, last = stripped(out, begin, size, classes)
        if first > begin:
            for step in range(last - first):
                out[begin + step] = out[first + step]
        begin += last - first
        starts[row + 1] = begin
    return counts, starts, out[:begin]


@kernel
def paragraph_counts(offsets: NDArray[np.int64], data: NDArray[np.uint8], nth: Int) -> NDArray[np.int64]:
    """Count lines (what newlines separate) and the code points of the n-th longest, 0 where there are fewer: (rows, 2).

    nth: from 1; scratch is one number for each of so many.
    """
    rows = len(offsets) - 1
    counts = np.zeros((rows, 2), np.int64)
    longest = np.empty(nth, np.int64)  # descending
    for row in range(rows):
        longest[:] = 0
        length = np.int64(0)
        for at in range(offsets[row], offsets[row + 1] + 1):
            if at < offsets[row + 1] and data[at] != NEWLINE:
                length += (data[at] & 0xC0) != 0x80
                continue
            counts[row, 0] += 1
            place = nth - 1
            if length > longest[place]:
                while place > 0 and longest[place - 1] < length:
                    longest[place] = longest[place - 1]
                    place -= 1
                longest[place] = length
            length = np.int64(0)
        counts[row, 1] = longest[nth - 1]
    return counts
