"""The set of a text's shingles, and the exact Jaccard similarity of two sets: what MinHash estimates.

Sets are sorted arrays of 64-bit numbers, laid end to end. Two different shingles share a number about once in 10^19
pairs, so a set is exact for all practical purposes. Making sets takes about as long as signing; comparing two takes
2 ns a shingle.
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
    for row in range(rows):
        end = simplify_text(data, offsets[row], offsets[row + 1], table, pool, text, 0)
        start_text(text, end, ngram, state, window)
        first = size = ends[row]
        count = roll(text, end, characters, ngram, state, window, block)
        while count:
            if size + count > len(values):
                grown = np.empty(2 * len(values) + count, np.uint64)
                grown[:size] = values[:size]
                values = grown
            values[size : size + count] = block[:count]
            size += count
            count = roll(text, end, characters, ngram, state, window, block)
        ends[row + 1] = first + _distinct(values[first:size])
    return ends, values[: ends[rows]].copy()


@kernel
def _distinct(values: Words64) -> int:
    """Sort numbers and move the different ones to the front; give how many they are."""
    values.sort()
    kept = 0
    for value in values:
        if kept == 0 or value != values[kept - 1]:
            values[kept] = value
            kept += 1
    return kept


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
