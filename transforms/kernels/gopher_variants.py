"""Counts behind Gopher's quality rules for any words and in any variant: about 120 MB/s a core with the words given.

Two passes: one over the words, one over the text for its marks and lines. What a line is, which marks begin and end
one, is said by the bits of `ways`. Kernels count; the shares and thresholds stand in `transforms/gopher.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import ALPHA, BREAK, NEWLINE, SPACE, SYMBOL, Int, after_break, code_point
from .words import lower_case

#: Columns of `word_counts`. A marked word has a # or an ellipsis character in it; `stop_words` counts each time that
#: one stands, `different_stop_words` each once.
WORD_COUNTS = (
    "words",
    "characters",
    "nonsymbol_words",
    "nonsymbol_characters",
    "alpha_words",
    "marked_words",
    "twice_median_length",
    "stop_words",
    "different_stop_words",
)
#: Columns of `line_marks`: "#"; "..." and "…" together; ". . ."; lines, those that begin with a bullet, those that end
#: in an ellipsis.
LINE_MARKS = ("hashes", "ellipses", "spaced_ellipses", "lines", "bullet_lines", "ellipsis_lines")

#: What a line is. Without a bit: what newlines cut, as it stands; the last one counts even where it is empty.
BREAKS = 1  # the lines of `str.splitlines`
STRIPPED = 2  # looked at without the space at its ends
NO_BLANKS = 4  # lines of nothing but space do not count
RUNS = 8  # a run of newlines is one cut
#: Marks that begin a bulleted line.
BULLET, DISC, STAR, DASH = 16, 32, 64, 128  # • ● * -
#: Marks that end a line in an ellipsis, beside "…".
DOTS, SPACED_DOTS = 256, 512  # "..." and ". . ."

_HASH, _DOT, _STAR, _DASH, _ELLIPSIS, _FINAL, _SIGMA = 35, 46, 42, 45, 0x2026, 0x3C2, 0x3A3

#: Stop words as code points: those whose first is b modulo 256 are `first[b]` to `first[b + 1]`; word i is
#: `codes[starts[i] : starts[i + 1]]`; a table of lower case to look words up in, empty where case counts.
StopWordCodes = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]


@lru_cache(maxsize=16)
def stop_word_codes(words: Sequence[str], ignore_case: bool) -> StopWordCodes:
    """Lay stop words out for the kernel; in lower case where case does not count."""
    table = lower_case() if ignore_case else np.empty(0, np.int32)
    table.flags.writeable = False
    codes = {tuple(int(table[ord(char)]) if ignore_case else ord(char) for char in word) for word in words}
    ordered = sorted(codes, key=lambda word: (word[0] & 255, word))
    first = np.searchsorted(np.array([word[0] & 255 for word in ordered], np.int64), np.arange(257)).astype(np.int64)
    starts = np.cumsum([0, *map(len, ordered)], dtype=np.int64)
    return first, starts, np.array([code for word in ordered for code in word], np.int32), table


@kernel
def _stop_word(data: NDArray[np.uint8], start: Int, end: Int, stop_words: StopWordCodes) -> Int:
    """Find a word among the stop words: its number, or -1. A capital sigma at the end becomes the final one."""
    first, starts, codes, lower = stop_words
    code, width = code_point(data, start, end)
    if len(lower):
        code = np.int64(lower[code])
    bucket = code & 255
    for number in range(first[bucket], first[bucket + 1]):
        at, place, stop = start, starts[number], starts[number + 1]
        while at < end and place < stop:
            code, width = code_point(data, at, end)
            if len(lower):
                last = code == _SIGMA and at + width == end and at > start
                code = np.int64(_FINAL) if last else np.int64(lower[code])
            if code != codes[place]:
                break
            at, place = at + width, place + 1
        if at == end and place == stop:
            return number
    return -1


@kernel
def _twice_median(lengths: NDArray[np.int32], longest: Int, words: Int) -> Int:
    """Add the two middle lengths of a histogram (the middle one twice), and clear it."""
    low, high = (words - 1) // 2, words // 2  # places of the middle ones
    seen = total = 0
    for length in range(longest + 1):
        after = seen + lengths[length]
        total += length * ((seen <= low < after) + (seen <= high < after))
        seen = after
        lengths[length] = 0
    return total


@kernel
def _count_words(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    classes: NDArray[np.uint8],
    stop_words: StopWordCodes,
    seen: NDArray[np.uint8],
    lengths: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    """Count the words of one document."""
    most = 4 * np.int64(len(seen) and np.diff(stop_words[1]).max())  # bytes of the longest stop word, at most
    longest = np.int64(0)
    for word in range(len(starts)):
        at, end = starts[word], ends[word]
        flags, symbols, marks, length = 0, 0, 0, 0
        while at < end:
            code, width = np.int64(data[at]), 1
            if code >= 0x80:
                code, width = code_point(data, at, end)
            kind = np.int64(classes[code])
            flags |= kind
            symbols += kind // SYMBOL & 1
            marks |= (code == _HASH) | (code == _ELLIPSIS)
            length += 1
            at += width
        counts[1] += length
        counts[2] += symbols < length
        counts[3] += length * (symbols < length)
        counts[4] += flags // ALPHA & 1
        counts[5] += marks
        lengths[length] += 1
        longest = max(longest, length)
        if end - starts[word] <= most:
            number = _stop_word(data, starts[word], end, stop_words)
            if number >= 0:
                counts[7] += 1
                counts[8] += seen[number] == 0
                seen[number] = 1
    counts[0] = len(starts)
    counts[6] = _twice_median(lengths, longest, counts[0])


@kernel
def word_counts(
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    data: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    stop_words: StopWordCodes,
) -> NDArray[np.int64]:
    """Count what Gopher's quality rules look at in words: (rows, len(WORD_COUNTS))."""
    counts = np.zeros((len(rows) - 1, 9), np.int64)
    longest = np.int64(0)
    for word in range(len(starts)):
        longest = max(longest, ends[word] - starts[word])
    seen = np.zeros(len(stop_words[1]) - 1, np.uint8)
    lengths = np.zeros(longest + 1, np.int32)
    for row in range(len(rows) - 1):
        first, last = rows[row], rows[row + 1]
        _count_words(data, starts[first:last], ends[first:last], classes, stop_words, seen, lengths, counts[row])
        seen[:] = 0
    return counts


@kernel
def _end_line(
    data: NDArray[np.uint8], start: Int, end: Int, first: Int, stop: Int, ways: Int, counts: NDArray[np.int64]
) -> None:
    """Count the line of these bytes, which without the space at its ends is `first` (-1: nothing) to `stop`."""
    if first < 0 and ways & NO_BLANKS:
        return
    counts[3] += 1
    if ways & STRIPPED:
        start, end = (first, stop) if first >= 0 else (0, 0)
    if start == end:
        return
    lead = data[start]
    bullet = (lead == _STAR and ways & STAR) or (lead == _DASH and ways & DASH)
    if lead == 0xE2 and end - start >= 3:
        second, third = data[start + 1], data[start + 2]
        bullet = (second == 0x80 and third == 0xA2 and ways & BULLET) or (
            second == 0x97 and third == 0x8F and ways & DISC
        )
    counts[4] += 1 if bullet else 0
    if end - start < 3:
        return
    one, two, three = data[end - 3], data[end - 2], data[end - 1]
    dots = three == _DOT and two == _DOT and one == _DOT and ways & DOTS
    spaced = three == _DOT and two == 32 and one == _DOT and ways & SPACED_DOTS and end - start >= 5
    if spaced:
        spaced = data[end - 4] == 32 and data[end - 5] == _DOT
    counts[5] += 1 if dots or spaced or (one == 0xE2 and two == 0x80 and three == 0xA6) else 0


@kernel
def _mark_lines(
    data: NDArray[np.uint8], at: Int, end: Int, classes: NDArray[np.uint8], ways: Int, counts: NDArray[np.int64]
) -> None:
    """Count the marks and lines of one document."""
    line, first, stop = at, np.int64(-1), at
    dots = spaced = np.int64(0)  # dots in a row; how much of ". . ." stands before
    while at < end:
        code, width = np.int64(data[at]), 1
        if code >= 0x80:
            code, width = code_point(data, at, end)
        kind = classes[code]
        at += width
        if kind & SPACE:
            dots = 0
            spaced = spaced + 1 if code == 32 and (spaced == 1 or spaced == 3) else 0
            if code == NEWLINE or (ways & BREAKS and kind & BREAK):
                _end_line(data, line, at - width, first, stop, ways, counts)
                if ways & BREAKS:
                    at = after_break(data, at, end, code)
                while ways & RUNS and at < end and data[at] == NEWLINE:
                    at += 1
                line, first = at, np.int64(-1)
            continue
        first = at - width if first < 0 else first
        stop = at
        if kind & SYMBOL:
            dots = dots + 1 if code == _DOT else 0
            spaced = (spaced + 1 if spaced & 1 == 0 else 1) if code == _DOT else 0
            counts[0] += code == _HASH
            counts[1] += (dots > 0 and dots % 3 == 0) or code == _ELLIPSIS
            if spaced == 5:
                counts[2] += 1
                spaced = 0
        else:
            dots = spaced = np.int64(0)
    if line < end or not ways & BREAKS:
        _end_line(data, line, end, first, stop, ways, counts)


@kernel
def line_marks(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], ways: Int
) -> NDArray[np.int64]:
    """Count what Gopher's quality rules look at in a text itself: (rows, len(LINE_MARKS))."""
    counts = np.zeros((len(offsets) - 1, 6), np.int64)
    for row in range(len(offsets) - 1):
        _mark_lines(data, offsets[row], offsets[row + 1], classes, ways, counts[row])
    return counts
