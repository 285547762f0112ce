"""Counts behind Gopher's repetition rules outside FineWeb's.

On a busy core on which FineWeb's (`repetition.py`) does 45 MB/s, n-grams do 93 to 105, the words given, and lines 166.
Lines and paragraphs: every copy of what stands more than once counts. N-grams are compared word by word; one that
stands once is no repetition. Scratch is laid out once a batch for its largest document.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .gopher_variants import NO_BLANKS, RUNS
from .grams import number_words, slot_of
from .text import GOLDEN, MIX, NEWLINE, SPACE, Int, code_point, hash_bytes, load64, same_bytes, table_size

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
BLANK_COPIES = 2048  # lines of nothing but space are copies where they are the same
#: Ways to count n-grams.
COVER, LONGEST, FIRST = 0, 1, 2
_ALL, _HIGH, _ONES = np.uint64(2**64 - 1), np.uint64(0x8080808080808080), np.uint64(0x0101010101010101)


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
            blank = first < 0 and not ways & BLANK_COPIES
            lines[many, 0], lines[many, 1], lines[many, 2] = line, line if blank else at, place - begin
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
    empty = ways & BLANK_COPIES
    for row in range(rows):
        many, blocks = _segments(data, offsets[row], offsets[row + 1], classes, ways, lines, paragraphs)
        _copies(data, lines, many, empty, hashes, slots, counts[row, :4])
        _copies(data, paragraphs, blocks, empty, hashes, slots, counts[row, 4:])
    return counts


@kernel
def _repeating(ids: NDArray[np.int32], counts: NDArray[np.int32], chosen: NDArray[np.int32], count: Int) -> Int:
    """Leave, of `count` chosen words, those whose n-gram stands more than once; give their count."""
    left = 0
    for item in range(count):
        word = chosen[item]
        chosen[left] = word
        left += counts[ids[word]] > 1
    return left


@kernel
def _join(
    ids: NDArray[np.int32],
    chosen: NDArray[np.int32],
    count: Int,
    joined: NDArray[np.int32],
    where: NDArray[np.int32],
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
) -> tuple[Int, Int]:
    """Number the (n + 1)-grams whose two n-grams both stand more than once: how many differ, how many words are left.

    ids: the number of the n-gram at each chosen word, in place. chosen: `count` rising words whose n-grams stand more
    than once; those at which the (n + 1)-grams begin are left. joined: counts. The pair of numbers is the key, so equal
    keys are equal n-grams.
    """
    left = 0
    for item in range(count - 1):
        word = chosen[item]
        chosen[left] = word
        left += chosen[item + 1] == word + 1
    size = table_size(np.int64(left))
    slots[:size] = 0
    known = 0
    for item in range(left):
        word = np.int64(chosen[item])
        key = np.uint64(ids[word]) << np.uint64(32) | np.uint64(ids[word + 1])
        slot = slot_of(key * MIX, size)
        while slots[slot] != 0 and keys[slots[slot] - 1] != key:
            slot = (slot + 1) & (size - 1)
        if slots[slot] == 0:
            keys[known], where[known], joined[known] = key, word, 0
            known += 1
            slots[slot] = known
        ids[word] = slots[slot] - 1
        joined[slots[slot] - 1] += 1
    return known, left


@kernel
def _top(
    ids: NDArray[np.int32],
    counts: NDArray[np.int32],
    where: NDArray[np.int32],
    known: Int,
    before: NDArray[np.int64],
    n: Int,
    chosen: NDArray[np.int32],
    count: Int,
    way: Int,
    covered: NDArray[np.int64],
    free: NDArray[np.int32],
) -> Int:
    """Give the code points of the most frequent n-gram: 0 where none stands twice.

    FIRST: the first of the most frequent, times its count; LONGEST: the longest of them, times its count; COVER: of
    what each of them covers, overlaps once, the most. before: code points before each word.
    """
    times = np.int64(1)
    most: Int = np.int64(0)
    for gram in range(known):
        times = max(times, np.int64(counts[gram]))
    if times < 2:
        return most
    for gram in range(known):
        if counts[gram] == times:
            length = before[where[gram] + n] - before[where[gram]]
            if way == FIRST:
                return length * times
            most = max(most, length * times)
            covered[gram] = free[gram] = 0
    if way == LONGEST:
        return most
    most = np.int64(0)
    for item in range(count):
        word = np.int64(chosen[item])
        one = ids[word]
        if counts[one] == times:
            covered[one] += before[word + n] - before[max(word, np.int64(free[one]))]
            free[one] = word + n
            most = max(most, covered[one])
    return most


@kernel
def _repeated(before: NDArray[np.int64], n: Int, chosen: NDArray[np.int32], count: Int, way: Int) -> Int:
    """Add up the code points of n-grams that stand more than once: each code point once, or (FIRST) each n-gram."""
    total: Int = 0
    free: Int = np.int64(0)
    for item in range(count):
        word = np.int64(chosen[item])
        total += before[word + n] - before[word if way == FIRST else max(word, free)]
        free = word + n
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
    """Hash the words of a document, and count the code points before each; those of 8 bytes and less in one go."""
    total = np.int64(0)
    for word in range(len(starts)):
        before[word] = total
        start, length = starts[word], ends[word] - starts[word]
        if length > 8 or start + 8 > len(data):
            for at in range(start, start + length):
                total += (data[at] & 0xC0) != 0x80
        if length > 8:
            hashes[word] = hash_bytes(data, start, start + length)
            continue
        value = np.uint64(0)
        if start + 8 > len(data):
            for step in range(length):
                value |= np.uint64(data[start + step]) << np.uint64(8 * step)
        elif length > 0:
            value = load64(data, start) & (_ALL >> np.uint64(64 - 8 * length))
            hanging = value & ~(value << np.uint64(1)) & _HIGH  # bytes that begin no code point
            total += length - np.int64(((hanging >> np.uint64(7)) * _ONES) >> np.uint64(56))
        value = (value ^ np.uint64(length) * GOLDEN) * MIX
        hashes[word] = value ^ (value >> np.uint64(32))
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
    these, joined, chosen = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    for row in range(len(rows) - 1):
        words, result = rows[row + 1] - rows[row], counts[row]
        first, last = starts[rows[row] : rows[row + 1]], ends[rows[row] : rows[row + 1]]
        _lay_out(data, first, last, before, hashes)
        result[0] = before[words]
        if way == FIRST:
            _all_grams(before, words, result[10:])
        number_words(data, first, last, hashes, words, ids, these, where, slots)
        for word in range(words):
            chosen[word] = word
        count = _repeating(ids, these, chosen, words)
        for n in range(2, 11):
            if count < 2:
                break
            known, count = _join(ids, chosen, count, joined, where, keys, slots)
            these, joined = joined, these
            count = _repeating(ids, these, chosen, count)
            if n < 5:
                result[n - 1] = _top(ids, these, where, known, before, n, chosen, count, way, covered, free)
            else:
                result[n - 1] = _repeated(before, n, chosen, count, way)
    return counts
