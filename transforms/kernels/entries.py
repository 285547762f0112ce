"""Sorted entries: a 128-bit digest and an address in three words, dealt into buckets by hash and sorted in the cache.

Digests are hashes, so two rounds of dealing leave a few entries a bucket; a Shell sort ends each, and bounds what
digests that are no hashes cost. 15 to 20 M entries a second and core, 48 bytes of memory each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inner, kernel

Entries = NDArray[np.uint64]  # (n, 3): the digest's words, the first of them the higher; the address


def join_entries(digests: NDArray[np.uint64], addresses: NDArray[np.uint64]) -> Entries:
    """Join digests (n, 2) and addresses (n,) to entries; a third of what NumPy's strided copies take."""
    return _join(np.require(digests, np.uint64, ["C", "W"]), np.require(addresses, np.uint64, ["C", "W"]))


@kernel
def _join(digests: NDArray[np.uint64], addresses: NDArray[np.uint64]) -> Entries:
    entries = np.empty((len(addresses), 3), np.uint64)
    for row in range(len(addresses)):
        entries[row, 0], entries[row, 1], entries[row, 2] = digests[row, 0], digests[row, 1], addresses[row]
    return entries


@kernel
def sort_entries(entries: Entries) -> Entries:
    """Sort by digest, then by address: (n, 3) → (n, 3)."""
    rows = len(entries)
    lowest, highest = ~np.uint64(0), np.uint64(0)
    for row in range(rows):
        lowest, highest = min(lowest, entries[row, 0]), max(highest, entries[row, 0])
    buckets = 1
    while 2048 * buckets < rows and buckets < 1 << 16:
        buckets *= 2
    shift = np.uint64(0)
    while shift < np.uint64(63) and (highest - lowest) >> shift >= np.uint64(buckets):
        shift += np.uint64(1)
    dealt, result = np.empty((rows, 3), np.uint64), np.empty((rows, 3), np.uint64)
    ends, within = np.empty(buckets, np.int64), np.empty(1024, np.int64)
    _deal(entries, dealt, 0, rows, lowest, shift, ends)
    start = 0
    for bucket in range(buckets):
        end = ends[bucket]
        some, finer = 1, shift
        while 4 * some < end - start and some < 1024 and finer > np.uint64(0):
            some *= 2
            finer -= np.uint64(1)
        _deal(dealt, result, start, end, lowest + (np.uint64(bucket) << shift), finer, within[:some])
        first, most = start, 0
        for few in range(some):
            most = max(most, within[few] - first)
            first = within[few]
        first = start
        if most <= 32:  # one pass over all, for none is far from its place
            _shell_sort(result, start, end, 1)
        else:
            for few in range(some):
                _shell_sort(result, first, within[few], within[few] - first)
                first = within[few]
        start = end
    return result


@kernel
def fold_entries(entries: Entries, foreign: np.uint64) -> tuple[Entries, NDArray[np.uint64]]:
    """Part sorted entries, which are scratch: the first of each digest, and edges (m, 2) from it to the others.

    n addresses of a digest give n - 1 edges; digests whose addresses are all `foreign` or above give none.
    """
    rows = len(entries)
    found = np.empty((max(16, rows // 8), 2), np.uint64)
    edges = firsts = 0
    last = np.uint64(0)  # address of the row before
    for row in range(rows):
        high, low, address = entries[row, 0], entries[row, 1], entries[row, 2]
        if firsts == 0 or high != entries[firsts - 1, 0] or low != entries[firsts - 1, 1]:
            entries[firsts, 0], entries[firsts, 1], entries[firsts, 2] = high, low, address
            firsts += 1
        elif address != last and entries[firsts - 1, 2] < foreign:
            if edges == len(found):
                longer = np.empty((2 * edges, 2), np.uint64)
                longer[:edges] = found
                found = longer
            found[edges, 0], found[edges, 1] = entries[firsts - 1, 2], address
            edges += 1
        last = address
    return entries[:firsts], found[:edges].copy()


@kernel
def repeated_entries(entries: Entries) -> Entries:
    """Leave out most entries that no other has the digest of, by a sketch of two bits for each: (n, 3) → (k, 3)."""
    rows = len(entries)
    size = 64
    while size < 8 * rows:
        size *= 2
    once, twice = np.zeros(size >> 3, np.uint8), np.zeros(size >> 3, np.uint8)
    mask = np.uint64(size - 1)
    for row in range(rows):
        place = (entries[row, 1] ^ (entries[row, 0] >> np.uint64(32))) & mask
        byte, bit = np.int64(place >> np.uint64(3)), np.uint8(1 << np.int64(place & np.uint64(7)))
        twice[byte] |= once[byte] & bit
        once[byte] |= bit
    kept = 0
    found = np.empty((max(16, rows // 2), 3), np.uint64)
    for row in range(rows):
        place = (entries[row, 1] ^ (entries[row, 0] >> np.uint64(32))) & mask
        if twice[np.int64(place >> np.uint64(3))] & np.uint8(1 << np.int64(place & np.uint64(7))):
            if kept == len(found):
                longer = np.empty((rows, 3), np.uint64)
                longer[:kept] = found
                found = longer
            found[kept, 0], found[kept, 1], found[kept, 2] = entries[row, 0], entries[row, 1], entries[row, 2]
            kept += 1
    return found[:kept].copy()


@inner
def _deal(
    source: Entries, target: Entries, start: int, end: int, lowest: np.uint64, shift: np.uint64, ends: NDArray[np.int64]
) -> None:
    """Move rows [start, end) into as many buckets as `ends` has, by how far above `lowest` they are; say their ends."""
    last = len(ends) - 1
    ends[:] = 0
    for row in range(start, end):
        ends[_bucket(source[row, 0] - lowest, shift, last)] += 1
    before = start
    for bucket in range(len(ends)):
        before, ends[bucket] = before + ends[bucket], before
    for row in range(start, end):
        bucket = _bucket(source[row, 0] - lowest, shift, last)
        place = ends[bucket]
        target[place, 0], target[place, 1], target[place, 2] = source[row, 0], source[row, 1], source[row, 2]
        ends[bucket] = place + 1


@inner
def _bucket(above: np.uint64, shift: np.uint64, last: int) -> int:
    bucket = np.int64(above >> shift)
    return last if bucket > last else int(bucket)


@inner
def _shell_sort(entries: Entries, start: int, end: int, reach: int) -> None:
    """Sort rows [start, end), none of which is further than `reach` from its place."""
    gap = 1
    while gap < reach // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for row in range(start + gap, end):
            high, low, address = entries[row, 0], entries[row, 1], entries[row, 2]
            place = row
            while place >= start + gap and _after(entries, place - gap, high, low, address):
                for word in range(3):
                    entries[place, word] = entries[place - gap, word]
                place -= gap
            entries[place, 0], entries[place, 1], entries[place, 2] = high, low, address
        gap //= 3


@inner
def _after(entries: Entries, row: int, high: np.uint64, low: np.uint64, address: np.uint64) -> bool:
    """Whether an entry belongs behind another."""
    if entries[row, 0] != high:
        return bool(entries[row, 0] > high)
    if entries[row, 1] != low:
        return bool(entries[row, 1] > low)
    return bool(entries[row, 2] > address)
