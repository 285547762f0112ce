"""XXH64 and SHA-1 of stretches of bytes, as MinHash libraries hash an n-gram: datatrove's default, datasketch's.

On a busy core an n-gram of five words takes 30 ns by XXH64 and 400 ns by SHA-1: `affine32` signs 59 and 14 MB of text a
second by them, and 110 by the rolling sum of `shingles.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inner
from .simplify import Bytes, decode
from .text import load64

Words32 = NDArray[np.uint32]
Words64 = NDArray[np.uint64]

_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)
_SPACE = 32
SHA1_SCRATCH = 86  # uint32: 80 words of the schedule, 5 of the state, one that is free


@inner
def hash_spans(
    text: Bytes,
    end: int,
    characters: bool,
    sha1: bool,
    ngram: int,
    state: NDArray[np.int64],
    window: Words64,
    scratch: Words32,
    out: Words64,
) -> int:
    """Write the hashes of the text's next n-grams to `out`, as many as fit; give their number: 0 behind the last.

    As `shingles.roll`, but over the bytes of the n-gram as it stands in the normalised text. `window` keeps where units
    begin. SHA-1 gives its first eight bytes as a little-endian number.
    """
    here, units, place = state[0], state[1], state[2]
    count = 0
    while here < end and count < len(out):
        window[place] = here
        place = place + 1 if place + 1 < ngram else 0
        if characters:
            here += 1 if text[here] < 128 else decode(text, here, end)[1]
            stop = here
        else:
            while text[here] != _SPACE:
                here += 1
            stop = here
            here += 1
        units += 1
        if units >= ngram:
            start = int(np.int64(window[place]))
            out[count] = _sha1(text, start, stop, scratch) if sha1 else _xxh64(text, start, stop)
            count += 1
    state[0], state[1], state[2] = here, units, place
    return count


@inner
def _rotate(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inner
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(lane + word * _P2, 31) * _P1


@inner
def _xxh64(data: Bytes, start: int, end: int) -> np.uint64:
    """XXH64 with seed 0 (xxHash fast digest algorithm, specification 0.1.1)."""
    at, value = start, _P5
    if end - start >= 32:
        v1, v2, v3, v4 = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while at + 32 <= end:
            v1, v2 = _round(v1, load64(data, at)), _round(v2, load64(data, at + 8))
            v3, v4 = _round(v3, load64(data, at + 16)), _round(v4, load64(data, at + 24))
            at += 32
        value = _rotate(v1, 1) + _rotate(v2, 7) + _rotate(v3, 12) + _rotate(v4, 18)
        for lane in (v1, v2, v3, v4):
            value = (value ^ _round(np.uint64(0), lane)) * _P1 + _P4
    value += np.uint64(end - start)
    while at + 8 <= end:
        value = _rotate(value ^ _round(np.uint64(0), load64(data, at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        word = np.uint64(0)
        for place in range(4):
            word |= np.uint64(data[at + place]) << np.uint64(8 * place)
        value = _rotate(value ^ word * _P1, 23) * _P2 + _P3
        at += 4
    while at < end:
        value = _rotate(value ^ np.uint64(data[at]) * _P5, 11) * _P1
        at += 1
    value = (value ^ (value >> np.uint64(33))) * _P2
    value = (value ^ (value >> np.uint64(29))) * _P3
    return value ^ (value >> np.uint64(32))


@inner
def _turn(value: np.uint32, bits: int) -> np.uint32:
    return np.uint32(np.uint32(value << np.uint32(bits)) | np.uint32(value >> np.uint32(32 - bits)))


@inner
def _sha1(data: Bytes, start: int, end: int, scratch: Words32) -> np.uint64:
    """SHA-1 (FIPS 180-4): the first eight bytes of the digest, little-endian. `scratch`: (86,)."""
    words, state = scratch[:80], scratch[80:85]
    state[0], state[1], state[2] = np.uint32(0x67452301), np.uint32(0xEFCDAB89), np.uint32(0x98BADCFE)
    state[3], state[4] = np.uint32(0x10325476), np.uint32(0xC3D2E1F0)
    length = end - start
    for block in range((length + 8) // 64 + 1):
        first = start + 64 * block
        for word in range(16):
            value = np.uint32(0)
            for place in range(first + 4 * word, first + 4 * word + 4):
                byte = np.uint32(0)
                if place < end:
                    byte = np.uint32(data[place])
                elif place == end:
                    byte = np.uint32(0x80)
                value = np.uint32(np.uint32(value << np.uint32(8)) | byte)
            words[word] = value
        if length - 64 * block <= 55:  # the last block ends with the length in bits
            words[14], words[15] = np.uint32((8 * length) >> 32), np.uint32(8 * length)
        _sha1_block(words, state)
    return np.uint64(_swapped(state[0])) | np.uint64(_swapped(state[1])) << np.uint64(32)


@inner
def _swapped(value: np.uint32) -> np.uint32:
    """Turn the order of the four bytes round."""
    return np.uint32(_turn(value, 8) & np.uint32(0x00FF00FF)) | np.uint32(_turn(value, 24) & np.uint32(0xFF00FF00))


@inner
def _sha1_block(words: Words32, state: Words32) -> None:
    for at in range(16, 80):
        words[at] = _turn(np.uint32(words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]), 1)
    a, b, c, d, e = state[0], state[1], state[2], state[3], state[4]
    for at in range(80):
        if at < 20:
            mixed, constant = np.uint32(d ^ (b & np.uint32(c ^ d))), np.uint32(0x5A827999)
        elif at < 40:
            mixed, constant = np.uint32(b ^ c ^ d), np.uint32(0x6ED9EBA1)
        elif at < 60:
            mixed, constant = np.uint32((b & c) | (d & np.uint32(b | c))), np.uint32(0x8F1BBCDC)
        else:
            mixed, constant = np.uint32(b ^ c ^ d), np.uint32(0xCA62C1D6)
        fresh = np.uint32(_turn(a, 5) + mixed + e + constant + words[at])
        a, b, c, d, e = fresh, a, _turn(b, 30), c, d
    state[0], state[1] = np.uint32(state[0] + a), np.uint32(state[1] + b)
    state[2], state[3], state[4] = np.uint32(state[2] + c), np.uint32(state[3] + d), np.uint32(state[4] + e)
