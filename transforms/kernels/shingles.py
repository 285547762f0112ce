"""The n-grams of a normalised text as 64-bit numbers, in blocks, so that a text of any length needs one small buffer.

A unit is a word, between single spaces, or a code point. A rolling sum serves all n-grams, whatever n is:

    unit(u)      FNV-1a, 64 bits, of the unit's UTF-8 bytes
    sum          unit(u1)·K^(n-1) + … + unit(un) mod 2^64,  K = 0x9E3779B97F4A7C15
    shingle      (sum ^ sum >> 29)·K mod 2^64, which tells any two sums apart
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .simplify import Bytes, decode

Words64 = NDArray[np.uint64]

K = np.uint64(0x9E3779B97F4A7C15)
FNV_START = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
_SPACE = 32


@kernel
def start_text(text: Bytes, end: int, ngram: int, state: NDArray[np.int64], window: Words64) -> None:
    """Begin the text [:end], of which the byte behind it is overwritten by a space.

    `state` (3,) becomes the byte to read next, the units read, the place of the oldest in `window` (ngram + 2,): units,
    their sum, and the weight with which one leaves it.
    """
    text[end] = _SPACE
    state[:] = 0
    window[:] = 0
    leaving = np.uint64(1)
    for _ in range(ngram):
        leaving *= K
    window[ngram + 1] = leaving


@kernel
def roll(
    text: Bytes, end: int, characters: bool, ngram: int, state: NDArray[np.int64], window: Words64, out: Words64
) -> int:
    """Write the text's next shingles to `out`, as many as fit, and give their number; 0 behind the last."""
    here, units, place = state[0], state[1], state[2]
    total, leaving = window[ngram], window[ngram + 1]
    count = 0
    while here < end and count < len(out):
        unit = FNV_START
        if characters:
            width = 1 if text[here] < 128 else decode(text, here, end)[1]
            for byte in range(here, here + width):
                unit = (unit ^ np.uint64(text[byte])) * FNV_PRIME
            here += width
        else:
            while text[here] != _SPACE:
                unit = (unit ^ np.uint64(text[here])) * FNV_PRIME
                here += 1
            here += 1
        total = total * K + unit - window[place] * leaving
        window[place] = unit
        place = place + 1 if place + 1 < ngram else 0
        units += 1
        if units >= ngram:
            out[count] = (total ^ (total >> np.uint64(29))) * K
            count += 1
    state[0], state[1], state[2] = here, units, place
    window[ngram] = total
    return count
