"""The set of a text's shingles, and the exact Jaccard similarity of two sets: what MinHash estimates.

Sets are sorted arrays of 64-bit numbers, laid end to end. Two different shingles share a number about once in 10^19
pairs, so a set is exact for all practical purposes. On a busy core sets are made of 86 MB of text a
second, where signing does 110, and two are compared in 4 ns a shingle of either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .shingles import Words64, roll, start_text
from .simplify import GROWTH, Bytes, Offsets, simplify_text


@kernel
def set_rows(
    offsets: Offsets, data: Bytes, table: NDArray[np.uint32], pool: Bytes, characters: bool, ngram: int
) -> tuple[Offsets, Words64]:
    """Give every text's shingles, sorted and distinct: offsets (n + 1,), numbers."""
    rows = len(offsets) - 1
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    text = np.empty(GROWTH * longest + 8, np.uint8)
    state, window, block = np.empty(3, np.int64), np.empty(ngram + 2, np.uint64), np.empty(256, np.uint64)
    ends, values = np.zeros(rows + 1, np.int64), np.empty(1024, np.uint64)
    spare, counts = np.empty(1024, np.uint64), np.empty(256, np.int64)
    for row in range(rows):
        end = simplify_text(data, offsets[row], offsets[row + 1], table, pool, text, 0)
        start_text(text, end, ngram, state, window)
        first = size = ends[row]
        count = roll(text, end, characters, ngram, state, window, block)
        while count:
            if size + count > len(values):
                grown = np.empty(2 * len(values) + count, np.uint64)
                _move(values, 0, size, grown, 0)
                values = grown
            _move(block, 0, count, values, size)
            size += count
            count = roll(text, end, characters, ngram, state, window, block)
        if size - first > len(spare):
            spare = np.empty(2 * (size - first), np.uint64)
        ends[row + 1] = first + _distinct(values[first:size], spare, counts)
    found = np.empty(ends[rows], np.uint64)
    _move(values, 0, len(found), found, 0)
    return ends, found


@kernel
def _move(source: Words64, first: int, end: int, target: Words64, place: int) -> None:
    """Copy source[first:end] to target[place:]: of an assignment between slices numba compiles far more."""
    for at in range(first, end):
        target[place + at - first] = source[at]


@kernel
def _distinct(values: Words64, spare: Words64, counts: NDArray[np.int64]) -> int:
    """Sort numbers and move the different ones to the front; give how many they are.

    Numbers are hashes: when they are dealt by as many of their first bits as tell about all of them apart, few are left
    to move, and each a short way.
    """
    passes = 0
    while len(values) > 16 and 1 << (8 * passes) < len(values):
        passes += 1
    for shift in range(64 - 8 * passes, 64, 8):
        _deal(values, spare, counts, np.uint64(shift))
        _move(spare, 0, len(values), values, 0)
    for at in range(1, len(values)):
        value, place = values[at], at
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value
    kept = 0
    for value in values:
        if kept == 0 or value != values[kept - 1]:
            values[kept] = value
            kept += 1
    return kept


@kernel
def _deal(values: Words64, spare: Words64, counts: NDArray[np.int64], shift: np.uint64) -> None:
    """Sort numbers by eight of their bits into `spare`, equal ones in the order they had."""
    counts[:] = 0
    for value in values:
        counts[(value >> shift) & np.uint64(255)] += 1
    before = 0
    for digit in range(256):
        counts[digit], before = before, before + counts[digit]
    for value in values:
        digit = (value >> shift) & np.uint64(255)
        spare[counts[digit]] = value
        counts[digit] += 1


@kernel
def common(a: Words64, b: Words64) -> int:
    """Count what two sets share; both sorted and distinct."""
    i = j = shared = 0
    while i < len(a) and j < len(b):
        left, right = a[i], b[j]
        shared += left == right
        i += left <= right
        j += right <= left
    return shared


def jaccard(a: Words64, b: Words64) -> float:
    """Give the Jaccard similarity of two sets, sorted and distinct; that of two empty sets is 0."""
    shared = common(a, b)
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0


@kernel
def jaccard_pairs(
    offsets: Offsets, values: Words64, pairs: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Compare pairs (m, 2) of the sets laid end to end: sizes of intersection and union, two arrays (m,)."""
    shared, union = np.empty(len(pairs), np.int64), np.empty(len(pairs), np.int64)
    for pair in range(len(pairs)):
        one, two = pairs[pair, 0], pairs[pair, 1]
        left = values[offsets[one] : offsets[one + 1]]
        right = values[offsets[two] : offsets[two + 1]]
        shared[pair] = common(left, right)
        union[pair] = len(left) + len(right) - shared[pair]
    return shared, union
