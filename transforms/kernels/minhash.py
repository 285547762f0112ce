"""Texts to MinHash signatures and band digests, compiled; every operation is exact integer arithmetic.

Shingles are those of `shingles.py`; a signature's 32-bit hash is the high half. Then datasketch 2's scheme `affine32`:
MurmurHash3's 32-bit finalizer once, and (a·h + b) mod 2^32 a permutation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import inlined, kernel
from .shingles import K
from .simplify import Bytes, Offsets
from .word_hashes import hash_words

Words32 = NDArray[np.uint32]

_PENDING = 256  # shingles that wait together for the permutations; a multiple of 4


@kernel
def sign_rows(
    offsets: Offsets, data: Bytes, table: Words32, pool: Bytes, a: Words32, b: Words32, ngram: int
) -> tuple[Words32, NDArray[np.bool_]]:
    """Sign every text by its words: the least value of each permutation (n, len(a)), and whether it has a shingle (n,).

    What `minhash_families.sign_family` does for every family, unit and hash, for the ones most used.
    """
    rows = len(offsets) - 1
    signatures = np.full((rows, len(a)), 0xFFFFFFFF, np.uint32)
    long_enough = np.zeros(rows, np.bool_)
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    words = np.empty(longest // 2 + 2, np.uint64)
    pending = np.empty(_PENDING, np.uint32)
    leaving = np.uint64(1)
    for _ in range(ngram):
        leaving *= K
    for row in range(rows):
        count = hash_words(data, offsets[row], offsets[row + 1], table, pool, words)
        long_enough[row] = count >= ngram
        total = np.uint64(0)
        for at in range(min(ngram - 1, count)):
            total = total * K + words[at]
        waiting = 0
        for at in range(ngram - 1, count):
            total = total * K + words[at]
            if at >= ngram:
                total -= words[at - ngram] * leaving
            pending[waiting] = np.uint32(((total ^ (total >> np.uint64(29))) * K) >> np.uint64(32))
            waiting += 1
            if waiting == _PENDING or at + 1 == count:
                permute(pending, waiting, a, b, signatures[row])
                waiting = 0
    return signatures, long_enough


@kernel
def _fmix32(value: np.uint32) -> np.uint32:
    """MurmurHash3's finalizer; the casts keep the arithmetic at 32 bits."""
    value = np.uint32(value ^ (value >> np.uint32(16)))
    value = np.uint32(value * np.uint32(0x85EBCA6B))
    value = np.uint32(value ^ (value >> np.uint32(13)))
    value = np.uint32(value * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@kernel
def permute(hashes: Words32, count: int, a: Words32, b: Words32, signature: Words32) -> None:
    """Lower the signature by the first `count` hashes, four for each load of it; overwrites them, the last fills up."""
    for at in range(count):
        hashes[at] = _fmix32(hashes[at])
    for extra in range(count, (count + 3) // 4 * 4):
        hashes[extra] = hashes[count - 1]
    for at in range(0, count, 4):
        h0, h1, h2, h3 = hashes[at], hashes[at + 1], hashes[at + 2], hashes[at + 3]
        for k in range(len(signature)):
            p0, p1 = np.uint32(a[k] * h0 + b[k]), np.uint32(a[k] * h1 + b[k])
            p2, p3 = np.uint32(a[k] * h2 + b[k]), np.uint32(a[k] * h3 + b[k])
            signature[k] = min(signature[k], min(min(p0, p1), min(p2, p3)))


def digest_bands(signatures: NDArray[Any], bands: int) -> NDArray[np.uint64]:
    """Digest each band of each signature (n, bands · rows), uint32 or uint64, to 128 bits → (bands, n, 2).

    MurmurHash3 x64 128 of the band's rows as little-endian numbers, with the band's number as seed.
    """
    return _digest_bands(np.ascontiguousarray(signatures).view(np.uint32), bands)


@kernel
def _digest_bands(signatures: Words32, bands: int) -> NDArray[np.uint64]:
    n, values = signatures.shape
    rows, flat = values // bands, signatures.reshape(-1)
    digests = np.empty((bands, n, 2), np.uint64)
    for row in range(n):  # outside, so that a signature is read once
        for band in range(bands):
            low, high = _murmur128(flat, row * values + band * rows, rows, np.uint64(band))
            digests[band, row, 0] = low
            digests[band, row, 1] = high
    return digests


@inlined
def _murmur128(words: Words32, first: int, count: int, seed: np.uint64) -> tuple[np.uint64, np.uint64]:
    c1, c2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
    h1 = h2 = seed
    whole, tail = first + count // 4 * 4, first + count
    for at in range(first, whole, 4):
        k1 = np.uint64(words[at]) | np.uint64(words[at + 1]) << np.uint64(32)
        k2 = np.uint64(words[at + 2]) | np.uint64(words[at + 3]) << np.uint64(32)
        h1 ^= _rotate(k1 * c1, 31) * c2
        h1 = (_rotate(h1, 27) + h2) * np.uint64(5) + np.uint64(0x52DCE729)
        h2 ^= _rotate(k2 * c2, 33) * c1
        h2 = (_rotate(h2, 31) + h1) * np.uint64(5) + np.uint64(0x38495AB5)
    if whole < tail:  # the tail is mixed in and not stirred
        k1, k2 = np.uint64(words[whole]), np.uint64(0)
        if whole + 1 < tail:
            k1 |= np.uint64(words[whole + 1]) << np.uint64(32)
        if whole + 2 < tail:
            k2 |= np.uint64(words[whole + 2])
        h1 ^= _rotate(k1 * c1, 31) * c2
        h2 ^= _rotate(k2 * c2, 33) * c1
    return finish128(h1, h2, np.uint64(4 * count))


@inlined
def finish128(h1: np.uint64, h2: np.uint64, length: np.uint64) -> tuple[np.uint64, np.uint64]:
    """End MurmurHash3 x64 128 of so many bytes."""
    h1, h2 = h1 ^ length, h2 ^ length
    h1 += h2
    h2 += h1
    h1, h2 = _fmix64(h1), _fmix64(h2)
    h1 += h2
    return h1, h2 + h1


@inlined
def _rotate(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inlined
def _fmix64(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))
