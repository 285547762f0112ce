"""Signatures as other libraries have them: their hash of an n-gram, their permutations, the same values from a text.

    affine32     datasketch 2: as `minhash.py`, of the low 32 bits of the n-gram's hash
    mersenne64   datatrove: (a·h + b mod 2^64) mod p, p = 2^61 − 1; the product wraps there too
    mersenne32   datasketch before 2.0, its scheme `legacy`: the same of the low 32 bits, and of the result the low 32

Of the rolling sum, whose high bits are the good ones, the high 32 bits serve in the place of the low. AVX2 has no
64-bit product: on a busy core `mersenne64` signs 27 MB of text a second, `affine32` 110.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inner, kernel
from .minhash import Words32, permute
from .shingles import Words64, roll, start_text
from .simplify import GROWTH, Bytes, Offsets, simplify_text
from .span_hashes import SHA1_SCRATCH, hash_spans

#: Families and hashes by number.
AFFINE32, MERSENNE64, MERSENNE32 = 0, 1, 2
ROLLING, XXH64, SHA1 = 0, 1, 2
FAMILIES = {"affine32": AFFINE32, "mersenne64": MERSENNE64, "mersenne32": MERSENNE32}
HASHES = {"rolling": ROLLING, "xxh64": XXH64, "sha1": SHA1}

_P = np.uint64((1 << 61) - 1)
_LOW = np.uint64(0xFFFFFFFF)
_PENDING = 256  # shingles that wait together for the permutations; a multiple of 4


@kernel
def sign_family(
    offsets: Offsets,
    data: Bytes,
    table: Words32,
    pool: Bytes,
    a: Words64,
    b: Words64,
    family: int,
    hashed: int,
    characters: bool,
    ngram: int,
) -> tuple[Words64, NDArray[np.bool_]]:
    """Sign every text: the least value of each permutation (n, len(a)), and whether it has a shingle (n,).

    A text without one has all bits set; those of 32-bit families lie in the low half.
    """
    rows = len(offsets) - 1
    nothing = np.int64(-1) if family == MERSENNE64 else np.int64(0xFFFFFFFF)
    signatures = np.full((rows, len(a)), nothing, np.int64)
    long_enough = np.zeros(rows, np.bool_)
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    text = np.empty(GROWTH * longest + 8, np.uint8)
    state, window = np.empty(3, np.int64), np.empty(ngram + 2, np.uint64)
    block, pending = np.empty(_PENDING, np.uint64), np.empty(_PENDING, np.uint32)
    small_a, small_b, small = a.astype(np.uint32), b.astype(np.uint32), np.empty(len(a), np.uint32)
    scratch = np.empty(SHA1_SCRATCH, np.uint32)
    for row in range(rows):
        end = simplify_text(data, offsets[row], offsets[row + 1], table, pool, text, 0)
        start_text(text, end, ngram, state, window)
        small[:] = 0xFFFFFFFF
        while True:
            count = _next(text, end, hashed, characters, family != MERSENNE64, ngram, state, window, scratch, block)
            if count == 0:
                break
            if not long_enough[row]:
                long_enough[row] = True
                signatures[row] = 0x7FFFFFFFFFFFFFFF  # the greatest: values of all families are below
            if family == AFFINE32:
                for at in range(count):
                    pending[at] = np.uint32(block[at])
                permute(pending, count, small_a, small_b, small)
                signatures[row] = small
            elif family == MERSENNE64:
                _permute64(block, count, a, b, signatures[row])
            else:
                _permute32(block, count, a, b, signatures[row])
    return signatures.view(np.uint64), long_enough


@inner
def _next(
    text: Bytes,
    end: int,
    hashed: int,
    characters: bool,
    halved: bool,
    ngram: int,
    state: NDArray[np.int64],
    window: Words64,
    scratch: Words32,
    block: Words64,
) -> int:
    """Write the next shingles' hashes, the last repeated to a multiple of 4, 32-bit ones in the low half."""
    if hashed == ROLLING:
        count = roll(text, end, characters, ngram, state, window, block)
    else:
        count = hash_spans(text, end, characters, hashed == SHA1, ngram, state, window, scratch, block)
    if count and halved:
        for at in range(count):
            block[at] = block[at] >> np.uint64(32) if hashed == ROLLING else block[at] & _LOW
    if count:
        for extra in range(count, (count + 3) // 4 * 4):
            block[extra] = block[count - 1]
    return count


@inner
def _modulo(value: np.uint64) -> np.int64:
    """Take any 64-bit number modulo p, without a division or a branch."""
    value = (value & _P) + (value >> np.uint64(61))  # below p + 8
    return np.int64((value + ((value + np.uint64(1)) >> np.uint64(61))) & _P)


@inner
def _permute64(block: Words64, count: int, a: Words64, b: Words64, signature: NDArray[np.int64]) -> None:
    for at in range(0, count, 4):
        h0, h1, h2, h3 = block[at], block[at + 1], block[at + 2], block[at + 3]
        for k in range(len(signature)):
            p0, p1 = _modulo(a[k] * h0 + b[k]), _modulo(a[k] * h1 + b[k])
            p2, p3 = _modulo(a[k] * h2 + b[k]), _modulo(a[k] * h3 + b[k])
            signature[k] = min(signature[k], min(min(p0, p1), min(p2, p3)))


@inner
def _permute32(block: Words64, count: int, a: Words64, b: Words64, signature: NDArray[np.int64]) -> None:
    low = np.int64(0xFFFFFFFF)
    for at in range(0, count, 4):
        h0, h1, h2, h3 = block[at] & _LOW, block[at + 1] & _LOW, block[at + 2] & _LOW, block[at + 3] & _LOW
        for k in range(len(signature)):
            p0, p1 = _modulo(a[k] * h0 + b[k]) & low, _modulo(a[k] * h1 + b[k]) & low
            p2, p3 = _modulo(a[k] * h2 + b[k]) & low, _modulo(a[k] * h3 + b[k]) & low
            signature[k] = min(signature[k], min(min(p0, p1), min(p2, p3)))
