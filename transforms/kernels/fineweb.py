"""Counts behind FineWeb's quality rules, in one pass over blocks of 64 bytes and one over the lines: XXX MB/s a core.

Kernels count; they never divide. The shares and thresholds stand in `transforms/fineweb.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .blocks import NONE, ONE, TOP, WIDTH, Bare, bare, below, count, leading, lowest, read, readable, spare, within
from .text import NEWLINE, TERMINAL, Int, code_point, repeated, table_size

#: Columns of `fineweb_counts`.
FINEWEB = ("words", "lines", "ended_lines", "short_lines", "repeated_characters", "characters", "newlines")


@kernel
def _newlines(data: Bare, at: Int, end: Int) -> Int:
    """Count newlines."""
    found = np.int64(0)
    for block in range(at, end, WIDTH):
        found += count(within(data, block, NEWLINE, NEWLINE) & below(end - block))
    return found


@kernel
def _line(
    data: Bare,
    start: Int,
    end: Int,
    characters: Int,
    last: Int,
    short: Int,
    classes: Bare,
    spans: Bare,
    lines: Int,
    counts: Bare,
) -> None:
    """List a line that is not blank, whose last code point begins at `last`."""
    spans[3 * lines], spans[3 * lines + 1], spans[3 * lines + 2] = start, end, characters
    counts[2] += classes[code_point(data, last, end)[0]] & TERMINAL != 0
    counts[3] += characters <= short


@kernel
def _fineweb_row(
    data: Bare,
    start: Int,
    end: Int,
    classes: Bare,
    short: Int,
    spans: Bare,
    counts: Bare,
) -> Int:
    """Count one document but its repeated lines, and list its lines: first byte, end, code points."""
    at = start
    spill = lines = points = np.int64(0)
    ink = NONE
    inked, last, begun = start - 1, start, np.int64(0)  # the last byte of ink, the last head, points before the line
    while at <= end:
        white, _, _, newline, tails, _, _, _, _, _, _, _, _, spill = read(data, at, end, spill, classes)
        live = below(end - at)
        heads = live & ~tails
        counts[0] += count(white & (~white << ONE | ink))
        counts[6] += count(newline)
        cuts = newline
        if at + WIDTH > end:
            cuts |= ONE << np.uint64(end - at)
        while cuts:
            under = (cuts & (NONE - cuts)) - ONE
            place = at + lowest(cuts)
            if ~white & under:
                inked = at + 63 - leading(~white & under)
            if heads & under:
                last = at + 63 - leading(heads & under)
            here = points + count(heads & under)
            if inked >= start:
                _line(data, start, place, here - begun, last, short, classes, spans, lines, counts)
                lines += 1
            begun, start = here + 1, place + 1
            cuts &= cuts - ONE
        if ~white:
            inked = at + 63 - leading(~white)
        if heads:
            last = at + 63 - leading(heads)
        points += count(heads)
        ink = ~white >> TOP
        at += WIDTH
    counts[1], counts[5] = lines, points - counts[6]
    return lines


@kernel
def fineweb_counts(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], short: Int
) -> NDArray[np.int64]:
    """Count what FineWeb's rules look at: (rows, len(FINEWEB)).

    Lines are cut at newlines alone; blank ones do not count; those of at most `short` code points are short.
    """
    rows = len(offsets) - 1
    counts, room = np.zeros((rows, 7), np.int64), spare(offsets, data)
    scratch = np.int64(0)
    for row in range(rows):
        text, start, end = readable(data, offsets[row], offsets[row + 1], room)
        scratch = max(scratch, _newlines(text, start, end) + 1)
    spans = np.empty((scratch, 3), np.int64)
    hashes = np.empty(scratch, np.uint64)
    slots = np.empty(table_size(scratch), np.int32)
    for row in range(rows):
        text, start, end = readable(data, offsets[row], offsets[row + 1], room)
        lines = _fineweb_row(text, start, end, bare(classes), short, bare(spans), bare(counts[row:]))
        counts[row, 4] = repeated(text, spans, lines, hashes, slots)[1]
    return counts
