"""C4's line rules as its own code has them: counts and the text that is left, 260 MB/s a core; mC4's paragraph rule.

Differs from `c4.py`, which follows datatrove, in three places: ' is no end mark, the words of a line are counted after
its citation marks are gone, and only . ? ! end a sentence, which are the marks that C4's Punkt looks at.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .blocks import ONE, PAST, WIDTH, Bare, bare, lowest, readable, spare
from .c4 import LineRules, _append, _stays, _without_citations
from .c4_masks import BRACKETS, FIELDS, LINES, LONG, WORDS, inked_part, scan, total
from .text import FULL_WIDTH_END, NEWLINE, TERMINAL, Int, code_point_classes, stripped

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
def _stays_in_c4(
    data: Bare, start: Int, end: Int, masks: Bare, place: Int, words: Int, rules: LineRules, counts: Bare
) -> Any:
    """Say whether a line stays, as `c4._stays`, but that ' is no end mark."""
    if rules[1] and end > start and data[end - 1] == _QUOTE:
        counts[2] += 1
        return False
    return _stays(data, start, end, masks, place, words, rules, counts)


@kernel
def _clean_page(
    data: Bare, at: Int, end: Int, classes: Bare, rules: LineRules, masks: Bare, others: Bare, out: Bare, size: Int,
    counts: Bare,
) -> Int:  # fmt: skip
    """Write the lines of a page that stay to `out`, from `size` on, each with a newline: where they end."""
    scan(data, at, end, classes, rules[3], masks)
    start = np.int64(0)
    first = last = np.int64(-1)  # what stays and is not yet copied
    for block in range((end - at) // WIDTH + 1):
        cuts = masks[block * FIELDS + LINES]
        while cuts:
            stop = block * WIDTH + lowest(cuts)
            cuts &= cuts - ONE
            line, after = inked_part(masks, start, stop)
            long_ = total(masks, LONG, start, stop + 1)
            start = stop + 1
            counts[0] += 1
            if long_:
                counts[1] += 1
                continue
            if rules[0] and total(masks, BRACKETS, line, after):
                size = _append(data, first, last, out, size)
                first = np.int64(-1)
                stop, removed = _without_citations(data, at + line, at + after, classes, out, size)
                counts[7] += removed
                scan(out, size, stop, classes, rules[3], others)
                words = total(others, WORDS, np.int64(0), stop - size)
                if _stays_in_c4(out, size, stop, others, np.int64(0), words, rules, counts):
                    out[stop] = NEWLINE
                    size = stop + 1
                continue
            words = total(masks, WORDS, line, after)
            if _stays_in_c4(data, at + line, at + after, masks, line, words, rules, counts):
                if first < 0 or at + line != last + 1 or data[last] != NEWLINE:
                    size = _append(data, first, last, out, size)
                    first = at + line
                last = at + after
    return _append(data, first, last, out, size)


@kernel
def c4_reference_clean(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], rules: LineRules
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Apply the line rules: counts (rows, len(C4_REFERENCE)), and the text that is left as offsets and bytes."""
    rows = len(offsets) - 1
    counts, room = np.zeros((rows, 12), np.int64), spare(offsets, data)
    starts = np.zeros(rows + 1, np.int64)
    out = np.empty(offsets[rows] - offsets[0] + rows + PAST, np.uint8)
    longest = np.int64(0)
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
        for at in range(offsets[row], offsets[row + 1]):
            counts[row, 11] += (data[at] & 0xC0) != 0x80
    masks = np.empty((longest // WIDTH + 2) * FIELDS, np.uint64)
    others = np.empty(len(masks), np.uint64)  # of a line without its citations
    begin = np.int64(0)
    for row in range(rows):
        text, at, end = readable(data, offsets[row], offsets[row + 1], room)
        size = _clean_page(
            text, at, end, bare(classes), rules, bare(masks), bare(others), bare(out), begin, bare(counts[row:])
        )
        first, last = stripped(bare(out), begin, size, bare(classes))
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
