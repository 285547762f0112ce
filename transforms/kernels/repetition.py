"""Counts behind Gopher's repetition rules: repeated lines, paragraphs and n-grams of words.

The words of a document are laid out without the space between them, numbered, and joined to n-grams. Few positions
need a look: a 3-gram can only stand twice where both its 2-grams do; an n-gram of 5 to 10 words only where its first
16 bytes do. Tables are sized to what is left: 80 to 100 MB/s a core on documentation. Hashes find candidates, bytes
decide. Scratch is laid out once a batch for its largest document: at most about 50 bytes a byte of it, touched only
as far as a document needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .blocks import (
    ALL,
    NONE,
    ONE,
    PAST,
    TOP,
    WIDTH,
    Bare,
    bare,
    below,
    count,
    lowest,
    move,
    read,
    readable,
    spare,
    within,
)
from .grams import PREFIX, join_grams, lay_out_words, number_words, slot_of, top_joined
from .text import GOLDEN, MIX, NEWLINE, Int, load64, repeated, same_bytes, stripped, table_size

#: Columns of `repetition_counts`.
REPETITION = (
    "characters",
    "paragraphs",
    "repeated_paragraphs",
    "repeated_paragraph_characters",
    "lines",
    "repeated_lines",
    "repeated_line_characters",
    *(f"top_{n}_gram_characters" for n in range(2, 5)),
    *(f"repeated_{n}_gram_characters" for n in range(5, 11)),
)


@kernel
def _word_hash(data: Bare, start: Int, end: Int) -> Any:
    """Hash a word; up to seven bytes past its end are read, and left out."""
    length = np.uint64(end - start)
    at = start
    value = length * GOLDEN
    while end - at > 8:
        value = (value ^ load64(data, at)) * MIX
        value ^= value >> np.uint64(32)
        at += 8
    return (value ^ load64(data, at) & ALL >> np.uint64(64 - 8 * (end - at))) * MIX


@kernel
def _lay_out(
    data: Bare, at: Int, end: Int, classes: Bare, stream: Bare, starts: Bare, characters: Bare, hashes: Bare
) -> Int:
    """Write the words one after the other into `stream`; count them.

    starts and characters: bytes and code points before each word, and in all. hashes: of each word.
    """
    words = size = total = spill = first = np.int64(0)
    open_ = NONE
    while at <= end:  # past the last byte all is space, so that every word ends
        white, _, _, _, tails, _, _, _, _, _, _, _, _, spill = read(data, at, end, spill, classes)
        ink = ~white
        heads, bounds = ink & ~tails, ink ^ (ink << ONE | open_)
        inside = open_ != NONE
        while bounds:
            place = at + lowest(bounds)
            if inside:
                for step in range(0, place - first, WIDTH):
                    move(data, first + step, stream, size + step)
                hashes[words] = _word_hash(data, first, place)
                size += place - first
                words += 1
            else:
                first = place
                starts[words], characters[words] = size, total + count(heads & (bounds ^ bounds - ONE) >> ONE)
            inside = not inside
            bounds &= bounds - ONE
        total += count(heads)
        open_ = ink >> TOP
        at += WIDTH
    starts[words], characters[words] = size, total
    for step in range(PREFIX):
        stream[size + step] = 0
    return words


@kernel
def _candidates(
    stream: Bare,
    starts: Bare,
    words: Int,
    keys: Bare,
    slots: Bare,
    chosen: Bare,
) -> Int:
    """List, in order, the words at which an n-gram of five words or more may begin that stands twice.

    Two equal n-grams of at least 16 bytes begin with the same 16 bytes (not with the same words: words are compared
    joined), so a word may be left out where five words make 16 bytes and these stand nowhere else.
    """
    first = words - 4
    size = table_size(first)
    for slot in range(size):
        slots[slot] = 0
    for word in range(first):
        start = starts[word]
        key = (load64(stream, start) * MIX ^ load64(stream, start + 8)) * GOLDEN
        key ^= key >> np.uint64(32)
        keys[word] = key
        slot = slot_of(key, size)
        while slots[slot] != 0 and keys[slots[slot] - 1] != key:
            slot = (slot + 1) & (size - 1)
        chosen[word] = starts[word + 5] - start < PREFIX
        if slots[slot] == 0:
            slots[slot] = word + 1
        else:
            chosen[word] = 1
            chosen[slots[slot] - 1] = 1
    count = 0
    for word in range(first):
        keep = chosen[word]
        chosen[count] = word
        count += keep
    return count


@kernel
def _scan(
    stream: Bare,
    starts: Bare,
    characters: Bare,
    words: Int,
    n: Int,
    values: Bare,
    chosen: Bare,
    count: Int,
    slots: Bare,
) -> Int:
    """Add up the code points of repeated n-grams: go from left to right, and past a repeated n-gram at its end.

    values: the hash of the n-gram at each of the chosen words.
    """
    size = table_size(count)
    for slot in range(size):
        slots[slot] = 0
    free = total = 0
    for item in range(count):
        word = np.int64(chosen[item])
        if word + n > words:
            break
        if word < free:
            continue
        value, start = values[item], starts[word]
        length = starts[word + n] - start
        slot = slot_of(value, size)
        while slots[slot] != 0:
            other = np.int64(slots[slot]) - 1
            begin = starts[chosen[other]]
            alike = values[other] == value and starts[chosen[other] + n] - begin == length
            if alike and same_bytes(stream, begin, start, length):
                break
            slot = (slot + 1) & (size - 1)
        if slots[slot] == 0:
            slots[slot] = item + 1
        else:
            total += characters[word + n] - characters[word]
            free = word + n
    return total


@kernel
def _top_grams(
    characters: NDArray[np.int64],
    words: Int,
    ids: NDArray[np.int32],
    counts: NDArray[np.int32],
    joined: NDArray[np.int32],
    where: NDArray[np.int32],
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    result: NDArray[np.int64],
) -> None:
    """For n of 2, 3, 4: the length (words and single spaces) of the most frequent n-gram, times how often it stands."""
    for n in range(2, min(words, 4) + 1):
        known = join_grams(ids, counts, words - n + 1, joined, where, keys, slots)
        counts, joined = joined, counts
        times: Int = 1  # where none stands twice, the first is the most frequent
        begin: Int = 0
        for gram in range(known):
            if counts[gram] > times:
                times, begin = np.int64(counts[gram]), np.int64(where[gram])
        result[n - 2] = times * (characters[begin + n] - characters[begin] + n - 1)


@kernel
def _sum_words(
    stream: Bare, starts: Bare, words: Int, hashes: Bare, powers: Bare, chosen: Bare, count: Int, n: Int
) -> None:
    """Work out what the n-grams at the chosen words are hashed from.

    hashes: the polynomial in MIX, modulo 2**64, whose coefficients are a word's bytes; powers: MIX to the word's
    length; so that hash(ab) = hash(a) * power(b) + hash(b).
    """
    done = np.int64(0)
    for item in range(count):
        word = max(done, np.int64(chosen[item]))
        done = max(done, min(np.int64(chosen[item]) + n, words))
        while word < done:
            value, power = np.uint64(0), np.uint64(1)
            for at in range(starts[word], starts[word + 1]):
                value = value * MIX + np.uint64(stream[at])
                power *= MIX
            hashes[word], powers[word] = value, power
            word += 1


@kernel
def _repeated_grams(
    stream: Bare,
    starts: Bare,
    characters: Bare,
    words: Int,
    hashes: Bare,
    powers: Bare,
    keys: Bare,
    slots: Bare,
    chosen: Bare,
    result: Bare,
) -> None:
    """For n of 5 to 10: the code points of repeated n-grams; hashes, powers, keys, slots and chosen are scratch."""
    count = _candidates(stream, starts, words, keys, slots, chosen)
    _sum_words(stream, starts, words, hashes, powers, chosen, count, np.int64(10))
    for item in range(count):
        word = np.int64(chosen[item])
        value = hashes[word]
        for step in range(1, 4):
            value = value * powers[word + step] + hashes[word + step]
        keys[item] = value
    for n in range(5, 11):
        for item in range(count):
            word = np.int64(chosen[item]) + n - 1
            if word < words:
                keys[item] = keys[item] * powers[word] + hashes[word]
        result[n - 5] = _scan(stream, starts, characters, words, n, keys, chosen, count, slots)


@kernel
def _segments(data: Bare, at: Int, end: Int, least: Int, spans: Bare) -> tuple[Int, Int]:
    """Cut at runs of at least so many newlines, as `re.split` does: a newline at an end leaves an empty segment.

    Give how many there are, and the code points of all; spans: three numbers each, first byte, end, code points.
    """
    found = points = begun = np.int64(0)  # segments; code points before this block, before this segment
    start, first, after = at, at, at - 1  # of this segment, of this run of newlines, the byte behind it
    while at < end:
        live = below(end - at)
        heads = ~within(data, at, 0x80, 0xBF) & live
        newlines = within(data, at, NEWLINE, NEWLINE) & live
        while newlines:
            place = at + lowest(newlines)
            if place != after:
                first = place
            after = place + 1
            here = points + count(heads & (newlines ^ newlines - ONE))
            if after - first == least:
                spans[3 * found], spans[3 * found + 1], spans[3 * found + 2] = start, first, here - least - begun
                found += 1
            if after - first >= least:
                start, begun = after, here
            newlines &= newlines - ONE
        points += count(heads)
        at += WIDTH
    spans[3 * found], spans[3 * found + 1], spans[3 * found + 2] = start, end, points - begun
    return found + 1, points


@kernel
def _count_segments(
    data: Bare,
    at: Int,
    end: Int,
    classes: Bare,
    spans: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    slots: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    """Count a document's code points, and its repeated paragraphs and lines."""
    first, last = stripped(data, at, end, classes)
    counts[1], _ = _segments(data, first, last, np.int64(2), bare(spans))
    counts[2], counts[3] = repeated(data, spans, counts[1], hashes, slots)
    counts[4], counts[0] = _segments(data, at, end, np.int64(1), bare(spans))
    counts[5], counts[6] = repeated(data, spans, counts[4], hashes, slots)


@kernel
def repetition_counts(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Count what Gopher's repetition rules look at in words between white space: (rows, len(REPETITION))."""
    rows = len(offsets) - 1
    counts = np.zeros((rows, 16), np.int64)
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    most = longest // 2 + 2  # words, and no less than lines
    spans = np.empty((most, 3), np.int64)
    slots = np.empty(table_size(most), np.int32)
    stream, room = np.empty(longest + PAST, np.uint8), spare(offsets, data)
    starts, characters = np.empty(most, np.int64), np.empty(most, np.int64)
    hashes, powers, keys = np.empty(most, np.uint64), np.empty(most, np.uint64), np.empty(most, np.uint64)
    ids, where = np.empty(most, np.int32), np.empty(most, np.int32)
    one, other = np.empty(most, np.int32), np.empty(most, np.int32)
    for row in range(rows):
        text, at, end = readable(data, offsets[row], offsets[row + 1], room)
        _count_segments(text, at, end, bare(classes), spans, hashes, slots, counts[row])
        words = _lay_out(text, at, end, bare(classes), bare(stream), bare(starts), bare(characters), bare(hashes))
        if words > 1:
            number_words(stream, starts, starts[1:], hashes, words, ids, one, where, slots)
            _top_grams(characters, words, ids, one, other, where, keys, slots, counts[row, 7:10])
        if words > 4:
            _repeated_grams(
                bare(stream),
                bare(starts),
                bare(characters),
                words,
                bare(hashes),
                bare(powers),
                bare(keys),
                bare(slots),
                bare(ids),
                bare(counts[row, 10:]),
            )
    return counts


@kernel
def repetition_counts_of(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    rows: NDArray[np.int64],
    firsts: NDArray[np.int64],
    ends: NDArray[np.int64],
    body: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Count what Gopher's repetition rules look at in given words (see `words.Words`): (rows, len(REPETITION))."""
    counts = np.zeros((len(offsets) - 1, 16), np.int64)
    longest = size = most = np.int64(0)
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
        most = max(most, rows[row + 1] - rows[row])
        own = np.int64(0)
        for word in range(rows[row], rows[row + 1]):
            own += ends[word] - firsts[word]
        size = max(size, own)
    most = max(most, longest) + 2  # words, and no less than lines
    spans = np.empty((most, 3), np.int64)
    slots = np.empty(table_size(most), np.int32)
    stream, room = np.empty(size + PREFIX, np.uint8), spare(offsets, data)
    starts, characters = np.empty(most, np.int64), np.empty(most, np.int64)
    hashes, powers, keys = np.empty(most, np.uint64), np.empty(most, np.uint64), np.empty(most, np.uint64)
    ids, where = np.empty(most, np.int32), np.empty(most, np.int32)
    one, other = np.empty(most, np.int32), np.empty(most, np.int32)
    for row in range(len(offsets) - 1):
        text, at, end = readable(data, offsets[row], offsets[row + 1], room)
        _count_segments(text, at, end, bare(classes), spans, hashes, slots, counts[row])
        words, first = rows[row + 1] - rows[row], rows[row]
        spaced = lay_out_words(
            body, firsts[first : first + words], ends[first : first + words], stream, starts, characters, hashes
        )
        if words > 1 and spaced:
            top_joined(stream, starts, characters, words, keys, slots, counts[row, 7:10])
        elif words > 1:
            number_words(stream, starts, starts[1:], hashes, words, ids, one, where, slots)
            _top_grams(characters, words, ids, one, other, where, keys, slots, counts[row, 7:10])
        if words > 4:
            _repeated_grams(
                bare(stream),
                bare(starts),
                bare(characters),
                words,
                bare(hashes),
                bare(powers),
                bare(keys),
                bare(slots),
                bare(ids),
                bare(counts[row, 10:]),
            )
    return counts
