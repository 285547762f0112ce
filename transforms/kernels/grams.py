"""Words and n-grams as numbers: equal numbers are equal words, equal n-grams; hashes find, bytes decide.

A 3-gram can only stand twice where both its 2-grams do, and so on: each length looks only at what the one before left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import GOLDEN, MIX, Int, hash_bytes, same_bytes, table_size

PREFIX = 16  # bytes that a stream of words has behind its end
_SPACE = 32


@kernel
def slot_of(value: Any, size: Int) -> Int:
    """Choose where in a table of `size` slots the search for a hash begins."""
    return np.int64(((value ^ (value >> np.uint64(29))) * GOLDEN) >> np.uint64(32)) & (size - 1)


@kernel
def number_words(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    words: Int,
    ids: NDArray[np.int32],
    counts: NDArray[np.int32],
    where: NDArray[np.int32],
    slots: NDArray[np.int32],
) -> Int:
    """Give equal words equal numbers, in the order in which they first appear, and count them; say how many differ.

    hashes: of each word. where: a word of each number. slots: scratch.
    """
    size = table_size(words)
    slots[:size] = 0
    known = 0
    for word in range(words):
        value, start = hashes[word], starts[word]
        length = ends[word] - start
        slot = slot_of(value, size)
        while slots[slot] != 0:
            other = np.int64(where[slots[slot] - 1])
            begin = starts[other]
            alike = hashes[other] == value and ends[other] - begin == length
            if alike and same_bytes(data, begin, start, length):
                break
            slot = (slot + 1) & (size - 1)
        if slots[slot] == 0:
            where[known], counts[known] = word, 0
            known += 1
            slots[slot] = known
        ids[word] = slots[slot] - 1
        counts[slots[slot] - 1] += 1
    return known


@kernel
def join_grams(
    ids: NDArray[np.int32],
    counts: NDArray[np.int32],
    grams: Int,
    joined: NDArray[np.int32],
    where: NDArray[np.int32],
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
) -> Int:
    """Number the (n + 1)-grams whose two n-grams both stand more than once, in place; -1 elsewhere; count to `joined`.

    ids[i] is the number of the n-gram at word i or -1, `grams` how many (n + 1)-grams there are. The pair of numbers is
    the key, so equal keys are equal n-grams.
    """
    candidates = np.int64(0)  # not a bare 0: `table_size` would be compiled once more
    twice = ids[0] >= 0 and counts[ids[0]] > 1
    for word in range(grams):
        before = twice
        twice = ids[word + 1] >= 0 and counts[ids[word + 1]] > 1
        candidates += before and twice
    size = table_size(candidates)
    slots[:size] = 0
    known = 0
    twice = ids[0] >= 0 and counts[ids[0]] > 1
    for word in range(grams):
        before = twice
        twice = ids[word + 1] >= 0 and counts[ids[word + 1]] > 1
        if not (before and twice):
            ids[word] = -1
            continue
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
    return known


@kernel
def lay_out_words(
    data: NDArray[np.uint8],
    firsts: NDArray[np.int64],
    ends: NDArray[np.int64],
    stream: NDArray[np.uint8],
    starts: NDArray[np.int64],
    characters: NDArray[np.int64],
    hashes: NDArray[np.uint64],
) -> bool:
    """Write given words one after the other into `stream`; say whether there is a space in one.

    starts and characters: bytes and code points before each word, and in all. hashes: of each word.
    """
    size = total = spaces = 0
    for word in range(len(firsts)):
        starts[word], characters[word] = size, total
        for at in range(firsts[word], ends[word]):
            byte = data[at]
            stream[size] = byte
            size += 1
            total += (byte & 0xC0) != 0x80
            spaces += byte == _SPACE
        hashes[word] = hash_bytes(data, firsts[word], ends[word])
    starts[len(firsts)], characters[len(firsts)] = size, total
    stream[size : size + PREFIX] = 0
    return spaces > 0


@kernel
def _letter(stream: NDArray[np.uint8], starts: NDArray[np.int64], at: Int, word: Int) -> tuple[Int, Int, Int]:
    """Read a byte of words joined by spaces: it, and where the next one is; `word` is the one that `at` is in."""
    if at == starts[word + 1]:
        return np.int64(_SPACE), at, word + 1
    return np.int64(stream[at]), at + 1, word


@kernel
def _same_joined(
    stream: NDArray[np.uint8], starts: NDArray[np.int64], one: Int, other: Int, n: Int, length: Int
) -> bool:
    """Say whether two n-grams are the same bytes with their words joined by spaces; both have `length` bytes."""
    at, there = starts[one], starts[other]
    for _ in range(length):
        byte, at, one = _letter(stream, starts, at, one)
        mate, there, other = _letter(stream, starts, there, other)
        if byte != mate:
            return False
    return True


@kernel
def top_joined(
    stream: NDArray[np.uint8],
    starts: NDArray[np.int64],
    characters: NDArray[np.int64],
    words: Int,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    result: NDArray[np.int64],
) -> None:
    """For n of 2, 3, 4: the length of the most frequent n-gram times its count, words being compared joined by spaces.

    For words with a space in them, which may join to one n-gram in several ways.
    """
    times = np.empty(words, np.int64)
    for n in range(2, min(words, 4) + 1):
        size = table_size(words)
        slots[:size] = 0
        for gram in range(words - n + 1):
            length = starts[gram + n] - starts[gram] + n - 1
            value, at, word = np.uint64(length), starts[gram], gram
            for _ in range(length):
                byte, at, word = _letter(stream, starts, at, word)
                value = value * MIX + np.uint64(byte)
            keys[gram], times[gram] = value, 0
            slot = slot_of(value, size)
            while slots[slot] != 0:
                other = np.int64(slots[slot]) - 1
                alike = keys[other] == value and starts[other + n] - starts[other] + n - 1 == length
                if alike and _same_joined(stream, starts, other, gram, n, length):
                    break
                slot = (slot + 1) & (size - 1)
            if slots[slot] == 0:
                slots[slot] = gram + 1
            times[slots[slot] - 1] += 1
        best = np.argmax(times[: words - n + 1])  # the first of the most frequent
        result[n - 2] = times[best] * (characters[best + n] - characters[best] + n - 1)
