"""Counts behind Gopher's quality rules and FineWeb's own, each in one pass: Gopher 330, FineWeb 580 MB/s a core.

Kernels count; they never divide. The shares and thresholds stand in `transforms/gopher.py` and `transforms/fineweb.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import ALPHA, BREAK, SPACE, SYMBOL, TERMINAL, Int, after_break, code_point, repeated, table_size

#: Columns of `gopher_counts`.
GOPHER = (
    "words",
    "nonsymbol_words",
    "nonsymbol_characters",
    "alpha_words",
    "hashes",
    "ellipses",
    "lines",
    "bullet_lines",
    "ellipsis_lines",
    "stop_words",
)
#: Columns of `fineweb_counts`.
FINEWEB = ("words", "lines", "ended_lines", "short_lines", "repeated_characters", "characters", "newlines")

#: Sorted stop words: those of first byte b are `first[b]` to `first[b + 1]`, word i is `marks[start[i] : start[i +
#: 1]]`.
StopWords = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]

_HASH, _DOT, _DASH, _NEWLINE, _ELLIPSIS = 35, 46, 45, 10, 0x2026
_NONSYMBOL = 256  # beside the class bits: a word has a code point that is no SYMBOL


@kernel
def _stop_word(data: NDArray[np.uint8], at: Int, length: Int, stop_words: StopWords) -> Int:
    """Find a word among the stop words: its number, or -1."""
    buckets, spans, marks = stop_words
    first = data[at]
    for number in range(buckets[first], buckets[first + 1]):
        start = spans[number]
        if spans[number + 1] - start == length:
            step = 1
            while step < length and marks[start + step] == data[at + step]:
                step += 1
            if step == length:
                return number
    return -1


@kernel
def _end_line(data: NDArray[np.uint8], first: Int, last: Int, end: Int, counts: NDArray[np.int64]) -> None:
    """Count a line whose first word begins at `first` (-1: it has none), its last at `last` and ends at `end`."""
    counts[6] += 1
    if first < 0:
        return
    counts[7] += data[first] == _DASH
    if end - first >= 3:
        counts[7] += data[first] == 0xE2 and data[first + 1] == 0x80 and data[first + 2] == 0xA2  # a bullet
    if end - last >= 3:
        one, two, three = data[end - 3], data[end - 2], data[end - 1]
        counts[8] += (one == two == three == _DOT) or (one == 0xE2 and two == 0x80 and three == 0xA6)  # an ellipsis


@kernel
def _gopher_row(
    data: NDArray[np.uint8],
    at: Int,
    end: Int,
    classes: NDArray[np.uint8],
    stop_words: StopWords,
    seen: NDArray[np.uint8],
    counts: NDArray[np.int64],
) -> None:
    """Count one document."""
    line, first, start, stop = at, np.int64(-1), at, at  # this line, its first word, its last word's first byte and end
    flags: Int = 0  # of this word
    hashes = ellipses = words = alpha_words = nonsymbol_words = nonsymbol_characters = 0
    while at < end:
        code, width = code_point(data, at, end)
        if classes[code] & SPACE:
            at += width
            if classes[code] & BREAK:
                _end_line(data, first, start, stop, counts)
                at = line = after_break(data, at, end, code)
                first = np.int64(-1)
            continue
        start, characters, dots, flags = at, 0, 0, 0
        first = at if first < 0 else first
        while at < end:
            code, width = np.int64(data[at]), 1
            if code >= 0x80:
                code, width = code_point(data, at, end)
            kind = classes[code]
            if kind & SPACE:
                break
            at, characters = at + width, characters + 1
            dots = dots + 1 if code == _DOT else 0
            if kind & SYMBOL:
                ellipses += (dots > 0 and dots % 3 == 0) or code == _ELLIPSIS
                hashes += code == _HASH
            else:  # no letter is a symbol
                flags |= kind | _NONSYMBOL
        stop = at
        words += 1
        alpha_words += flags // ALPHA & 1
        nonsymbol_words += flags // _NONSYMBOL
        nonsymbol_characters += characters * (flags // _NONSYMBOL)
        number = _stop_word(data, start, stop - start, stop_words)
        if number >= 0:
            seen[number] = 1
    if line < end:
        _end_line(data, first, start, stop, counts)
    counts[0], counts[1], counts[2] = words, nonsymbol_words, nonsymbol_characters
    counts[3], counts[4], counts[5] = alpha_words, hashes, ellipses


@kernel
def gopher_counts(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], stop_words: StopWords
) -> NDArray[np.int64]:
    """Count what Gopher's quality rules look at: (rows, len(GOPHER))."""
    rows = len(offsets) - 1
    counts = np.zeros((rows, 10), np.int64)
    seen = np.empty(len(stop_words[1]) - 1, np.uint8)  # scratch: a flag a stop word
    for row in range(rows):
        seen[:] = 0
        _gopher_row(data, offsets[row], offsets[row + 1], classes, stop_words, seen, counts[row])
        counts[row, 9] = seen.sum()
    return counts


@kernel
def _most_newlines(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Int:
    """Count the newlines of the row that has most: what scratch for lines must hold."""
    most = 0
    for row in range(len(offsets) - 1):
        count = 0
        for at in range(offsets[row], offsets[row + 1]):
            count += data[at] == _NEWLINE
        most = max(most, count)
    return most


@kernel
def _fineweb_row(
    data: NDArray[np.uint8],
    at: Int,
    end: Int,
    classes: NDArray[np.uint8],
    short: Int,
    spans: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> Int:
    """Count one document but its repeated lines, and list its lines: first byte, end, code points."""
    words: Int = 0
    lines = ended = shorts = characters = newlines = 0
    while at < end:
        start, length, last = at, 0, np.int64(0)
        space = blank = np.int64(1)
        while at < end:  # one line
            code, width = np.int64(data[at]), 1
            if code >= 0x80:
                code, width = code_point(data, at, end)
            elif code == _NEWLINE:
                break
            last = np.int64(classes[code])
            here = last & SPACE
            words += space & (here ^ 1)
            blank &= here
            space = here
            length += 1
            at += width
        characters += length
        if not blank:
            spans[lines, 0], spans[lines, 1], spans[lines, 2] = start, at, length
            lines += 1
            ended += last & TERMINAL != 0
            shorts += length <= short
        if at < end:
            newlines += 1
            at += 1
    counts[0], counts[1], counts[2], counts[3] = words, lines, ended, shorts
    counts[5], counts[6] = characters, newlines
    return lines


@kernel
def fineweb_counts(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], short: Int
) -> NDArray[np.int64]:
    """Count what FineWeb's rules look at: (rows, len(FINEWEB)).

    Lines are cut at newlines alone; blank ones do not count; those of at most `short` code points are short.
    """
    rows = len(offsets) - 1
    counts = np.zeros((rows, 7), np.int64)
    scratch = _most_newlines(offsets, data) + 1
    spans = np.empty((scratch, 3), np.int64)
    hashes = np.empty(scratch, np.uint64)
    slots = np.empty(table_size(scratch), np.int32)
    for row in range(rows):
        lines = _fineweb_row(data, offsets[row], offsets[row + 1], classes, short, spans, counts[row])
        counts[row, 4] = repeated(data, spans, lines, hashes, slots)[1]
    return counts
