"""128-bit digests of stretches of bytes, and which rows of many repeat another: what finding repeats rests on.

MurmurHash3 x64 128 (Appleby, public domain) over the bytes as they lie; repeats by sorting entries, some 20 M a second
and core, 72 bytes of memory each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inlined, kernel
from .entries import Entries, join_entries, sort_entries
from .minhash import _rotate, finish128
from .text import Int, load64

Words = NDArray[np.uint64]

#: What `flag_entries` says of an entry.
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
    return finish128(h1, h2, np.uint64(end - start))


@kernel
def digest_spans(data: NDArray[np.uint8], spans: NDArray[np.int64]) -> Words:
    """Digest stretches (n, 2) of first byte and end: (n, 2)."""
    digests = np.empty((len(spans), 2), np.uint64)
    for number in range(len(spans)):
        digests[number, 0], digests[number, 1] = murmur128(data, spans[number, 0], spans[number, 1])
    return digests


def group_entries(digests: Words, addresses: Words) -> tuple[Entries, NDArray[np.uint8]]:
    """Sort digests (n, 2) and addresses (n,) as entries (n, 3), and flag each REPEAT, SHARED or 0: (n,)."""
    return flag_entries(sort_entries(join_entries(digests, addresses)))


@kernel
def flag_entries(entries: Entries) -> tuple[Entries, NDArray[np.uint8]]:
    """Flag sorted entries; give them too."""
    flags = np.zeros(len(entries), np.uint8)
    first = 0  # the last one that is no repeat
    for row in range(1, len(entries)):
        if entries[row, 0] != entries[first, 0]:
            first = row
        elif entries[row, 1] == entries[first, 1]:
            flags[row] = REPEAT
        else:
            flags[row] = flags[first] = SHARED
            first = row
    return entries, flags
