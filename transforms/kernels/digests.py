"""128-bit digests of stretches of bytes, and which rows of many repeat another: what finding repeats rests on.

MurmurHash3 x64 128 (Appleby, public domain) over the bytes as they lie; repeats by an open hash table of row numbers,
16 to 32 bytes a row, at some 10 M rows a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inlined, kernel
from .minhash import _fmix64, _rotate
from .text import GOLDEN, Int, load64, table_size

Words = NDArray[np.uint64]

#: What `flag_repeats` says of a row.
REPEAT = 1  # an equal digest has a smaller address
SHARED = 2  # no repeat, and its high half is that of another digest too

_C1, _C2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)


@inlined
def _tail(data: NDArray[np.uint8], start: Int, end: Int) -> np.uint64:
    """Read up to eight bytes as one little-endian number."""
    word = np.uint64(0)
    for at in range(end - 1, start - 1, -1):
        word = word << np.uint64(8) | np.uint64(data[at])
    return word


@kernel
def murmur128(data: NDArray[np.uint8], start: Int, end: Int) -> tuple[np.uint64, np.uint64]:
    """Digest data[start:end] with seed 0."""
    h1 = h2 = np.uint64(0)
    at = np.int64(start)
    while at + 16 <= end:
        h1 ^= _rotate(load64(data, at) * _C1, 31) * _C2
        h1 = (_rotate(h1, 27) + h2) * np.uint64(5) + np.uint64(0x52DCE729)
        h2 ^= _rotate(load64(data, at + 8) * _C2, 33) * _C1
        h2 = (_rotate(h2, 31) + h1) * np.uint64(5) + np.uint64(0x38495AB5)
        at += 16
    if at + 8 < end:
        h2 ^= _rotate(_tail(data, at + 8, end) * _C2, 33) * _C1
    if at < end:
        h1 ^= _rotate(_tail(data, at, min(at + 8, end)) * _C1, 31) * _C2
    length = np.uint64(end - start)
    h1, h2 = h1 ^ length, h2 ^ length
    h1 += h2
    h2 += h1
    h1, h2 = _fmix64(h1), _fmix64(h2)
    h1 += h2
    return h1, h2 + h1


@kernel
def digest_spans(data: NDArray[np.uint8], spans: NDArray[np.int64]) -> Words:
    """Digest stretches (n, 2) of first byte and end: (n, 2)."""
    digests = np.empty((len(spans), 2), np.uint64)
    for number in range(len(spans)):
        digests[number, 0], digests[number, 1] = murmur128(data, spans[number, 0], spans[number, 1])
    return digests


@kernel
def flag_repeats(digests: Words, addresses: Words) -> NDArray[np.uint8]:
    """Flag each row REPEAT, SHARED or 0: digests (n, 2), addresses (n,) all different, in any order."""
    rows = len(addresses)
    size = table_size(rows)
    table, halves = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    flags = np.zeros(rows, np.uint8)
    for row in range(rows):
        high, low = digests[row, 0], digests[row, 1]
        slot = np.int64(((high ^ _rotate(low, 32)) * GOLDEN) >> np.uint64(20)) & (size - 1)
        while table[slot] >= 0 and (digests[table[slot], 0] != high or digests[table[slot], 1] != low):
            slot = (slot + 1) & (size - 1)
        held = table[slot]
        if held >= 0 and addresses[held] < addresses[row]:
            flags[row] = REPEAT
            continue
        table[slot] = row
        if held >= 0:
            flags[held] = REPEAT
    for row in range(rows):
        if flags[row] == REPEAT:
            continue
        high = digests[row, 0]
        slot = np.int64((high * GOLDEN) >> np.uint64(20)) & (size - 1)
        while halves[slot] >= 0 and digests[halves[slot], 0] != high:
            slot = (slot + 1) & (size - 1)
        if halves[slot] < 0:
            halves[slot] = row
        else:
            flags[row] = flags[halves[slot]] = SHARED
    return flags
