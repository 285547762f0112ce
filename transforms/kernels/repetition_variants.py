"""Counts behind Gopher's repetition rules outside FineWeb's: 60 to 90 MB/s a core with the words given.

Lines and paragraphs: every copy of what stands more than once counts. N-grams are compared word by word; one that
stands once is no repetition. Scratch is laid out once a batch for its largest document.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .gopher_variants import NO_BLANKS, RUNS
from .grams import join_grams, number_words, slot_of
from .text import NEWLINE, SPACE, Int, code_point, hash_bytes, same_bytes, table_size

#: Columns of `segment_counts`: lines and paragraphs in all, those that stand more than once, and code points of both.
SEGMENTS = (
    "lines",
    "line_characters",
    "repeated_lines",
    "repeated_line_characters",
    "paragraphs",
    "paragraph_characters",
    "repeated_paragraphs",
    "repeated_paragraph_characters",
)
#: Columns of `gram_counts`: code points of all words; of the most frequent 2-, 3- and 4-gram; of repeated n-grams of 5
#: to 10 words; of all n-grams, each counted whole.
GRAMS = (
    "characters",
    *(f"top_{n}_gram_characters" for n in range(2, 5)),
    *(f"repeated_{n}_gram_characters" for n in range(5, 11)),
    *(f"{n}_gram_characters" for n in range(5, 11)),
)
#: Ways to read a text's segments, beside NO_BLANKS (lines and paragraphs are stripped, blank ones do not count) and
#: RUNS (a run of newlines is one cut).
SPACED_BLANKS = 1024  # a line of nothing but space parts paragraphs as an empty one does
EMPTY_COPIES = 2048  # empty lines are copies of one another
#: Ways to count n-grams.
COVER, LONGEST, FIRST = 0, 1, 2


@kernel
def _segments(
    data: NDArray[np.uint8],
    at: Int,
    end: Int,
    classes: NDArray[np.uint8],
    ways: Int,
    lines: NDArray[np.int64],
    paragraphs: NDArray[np.int64],
) -> tuple[Int, Int]:
    """List a document's lines and, of those that are stripped, its paragraphs: first byte, end, code points."""
    many = blocks = place = block_place = 0  # place: code points before this one
    open_block = False
    while True:  # a line
        line, begin, first, stop, stop_place, first_place = at, place, np.int64(-1), at, place, place
        while at < end and data[at] != NEWLINE:
            code, width = np.int64(data[at]), 1
            if code >= 0x80:
                code, width = code_point(data, at, end)
            at += width
            place += 1
            if not classes[code] & SPACE:
                if first < 0:
                    first, first_place = at - width, place - 1
                stop, stop_place = at, place
        if not ways & NO_BLANKS:
            lines[many, 0], lines[many, 1], lines[many, 2] = line, at, place - begin
            many += 1
        elif first >= 0:
            lines[many, 0], lines[many, 1], lines[many, 2] = first, stop, stop_place - first_place
            many += 1
            if not open_block:
                paragraphs[blocks, 0], block_place = first, first_place
                blocks += 1
            open_block = True
            paragraphs[blocks - 1, 1], paragraphs[blocks - 1, 2] = stop, stop_place - block_place
        elif at == line or ways & SPACED_BLANKS:
            open_block = False
        if at >= end:
            return many, blocks
        at += 1
        place += 1
        while ways & RUNS and at < end and data[at] == NEWLINE:
            at += 1
            place += 1


@kernel
def _copies(
    data: NDArray[np.uint8],
    spans: NDArray[np.int64],
    count: Int,
    empty: Int,
    hashes: NDArray[np.uint64],
    slots: NDArray[np.int32],
    result: NDArray[np.int64],
) -> None:
    """Count stretches of text, those that stand more than once, and the code points of both: into result (4)."""
    size = table_size(count)
    slots[:size] = 0
    for item in range(count):
        start, length, characters = spans[item, 0], spans[item, 1] - spans[item, 0], spans[item, 2]
        result[0] += 1
        result[1] += characters
        if length == 0 and not empty:
            continue
        value = hash_bytes(data, start, start + length)
        hashes[item] = value
        slot = slot_of(value, size)
        while slots[slot] != 0:
            other = np.int64(abs(slots[slot])) - 1
            begin = spans[other, 0]
            alike = hashes[other] == value and spans[other, 1] - begin == length
            if alike and same_bytes(data, begin, start, length):
                both = 2 if slots[slot] > 0 else 1  # the first copy counts once another is met
                result[2] += both
                result[3] += both * characters
                slots[slot] = -abs(slots[slot])
                break
            slot = (slot + 1) & (size - 1)
        if slots[slot] == 0:
            slots[slot] = item + 1


@kernel
def segment_counts(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], ways: Int
) -> NDArray[np.int64]:
    """Count repeated lines and paragraphs: (rows, len(SEGMENTS)); no paragraphs where lines are not stripped."""
    rows = len(offsets) - 1
    counts = np.zeros((rows, 8), np.int64)
    most = np.int64(0)
    for row in range(rows):
        newlines = np.int64(1)
        for at in range(offsets[row], offsets[row + 1]):
            newlines += data[at] == NEWLINE
        most = max(most, newlines)
    lines, paragraphs = np.empty((most, 3), np.int64), np.empty((most, 3), np.int64)
    hashes, slots = np.empty(most, np.uint64), np.empty(table_size(most), np.int32)
    empty = ways & EMPTY_COPIES
    for row in range(rows):
        many, blocks = _segments(data, offsets[row], offsets[row + 1], classes, ways, lines, paragraphs)
        _copies(data, lines, many, empty, hashes, slots, counts[row, :4])
        _copies(data, paragraphs, blocks, empty, hashes, slots, counts[row, 4:])
    return counts


@kernel
def _top(
    ids: NDArray[np.int32],
    counts: NDArray[np.int32],
    where: NDArray[np.int32],
    known: Int,
    before: NDArray[np.int64],
    n: Int,
    grams: Int,
    way: Int,
    covered: NDArray[np.int64],
    free: NDArray[np.int32],
) -> Int:
    """Give the code points of the most frequent n-gram: 0 where none stands twice.

    FIRST: the first of the most frequent, times its count; LONGEST: the longest of them, times its count; COVER: of
    what each of them covers, overlaps once, the most. before: code points before each word.
    """
    times = np.int64(1)
    for gram in range(known):
        times = max(times, np.int64(counts[gram]))
    most = np.int64(0)
    if times < 2:
        return most
    for gram in range(known):
        if counts[gram] == times:
            word = np.int64(where[gram])
            length = before[word + n] - before[word]
            if way == FIRST:
                return length * times
            most = max(most, length * times)
            covered[gram], free[gram] = 0, 0
    if way == LONGEST:
        return most
    most = 0
    for word in range(grams):
        gram = np.int64(ids[word])
        if gram >= 0 and counts[gram] == times:
            covered[gram] += before[word + n] - before[max(word, np.int64(free[gram]))]
            free[gram] = word + n
            most = max(most, covered[gram])
    return most


@kernel
def _repeated(
    ids: NDArray[np.int32], counts: NDArray[np.int32], before: NDArray[np.int64], n: Int, grams: Int, way: Int
) -> Int:
    """Add up the code points of n-grams that stand more than once: each code point once, or (FIRST) each n-gram."""
    total = free = np.int64(0)
    for word in range(grams):
        gram = ids[word]
        if gram >= 0 and counts[gram] > 1:
            total += before[word + n] - before[word if way == FIRST else max(word, free)]
            free = np.int64(word + n)
    return total


@kernel
def _all_grams(before: NDArray[np.int64], words: Int, result: NDArray[np.int64]) -> None:
    """For n of 5 to 10: add up the code points of all n-grams."""
    for n in range(5, min(words, 10) + 1):
        for word in range(words - n + 1):
            result[n - 5] += before[word + n] - before[word]


@kernel
def _lay_out(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    before: NDArray[np.int64],
    hashes: NDArray[np.uint64],
) -> None:
    """Hash the words of a document, and count the code points before each."""
    total = np.int64(0)
    for word in range(len(starts)):
        before[word] = total
        for at in range(starts[word], ends[word]):
            total += (data[at] & 0xC0) != 0x80
        hashes[word] = hash_bytes(data, starts[word], ends[word])
    before[len(starts)] = total


@kernel
def gram_counts(
    rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], data: NDArray[np.uint8], way: Int
) -> NDArray[np.int64]:
    """Count repeated n-grams: (rows, len(GRAMS)); of all n-grams only for the way FIRST."""
    counts = np.zeros((len(rows) - 1, 16), np.int64)
    most = np.diff(rows).max() if len(rows) > 1 else np.int64(0)
    slots = np.empty(table_size(most), np.int32)
    before, covered = np.empty(most + 1, np.int64), np.empty(most, np.int64)
    hashes, keys = np.empty(most, np.uint64), np.empty(most, np.uint64)
    ids, where, free = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    these, joined = np.empty(most, np.int32), np.empty(most, np.int32)
    for row in range(len(rows) - 1):
        words, result = rows[row + 1] - rows[row], counts[row]
        first, last = starts[rows[row] : rows[row + 1]], ends[rows[row] : rows[row + 1]]
        _lay_out(data, first, last, before, hashes)
        result[0] = before[words]
        if way == FIRST:
            _all_grams(before, words, result[10:])
        known = number_words(data, first, last, hashes, words, ids, these, where, slots)
        for n in range(2, min(words, 10) + 1):
            if known == 0:
                break
            grams = words - n + 1
            known = join_grams(ids, these, grams, joined, where, keys, slots)
            these, joined = joined, these
            if n < 5:
                result[n - 1] = _top(ids, these, where, known, before, n, grams, way, covered, free)
            else:
                result[n - 1] = _repeated(ids, these, before, n, grams, way)
    return counts
