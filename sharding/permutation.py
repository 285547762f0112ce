"""Keyed permutations of [0, n) by arithmetic: nothing stored, any index at the same cost, and an inverse.

A hash-Feistel network: alternating halves, the splitmix64 finaliser as round function, cycle walking back into the
domain. Closed-form shuffles with weaker rounds are measurably not random; this one is held against a true permutation
in the tests. It costs about 100 ns an index in arrays of thousands.

These functions are part of the format: a change of one bit is a new major version; `tests/test_order.py` pins them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

# Half-rounds. Statistics are those of a true permutation from 3 on; 6 leaves room for domains of a few bits.
ROUNDS = 6
LARGEST_DOMAIN = 1 << 62
# Increment and finaliser of splitmix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_POWERS = np.left_shift(np.uint64(1), np.arange(63, dtype=np.uint64))


def mix(words: Words) -> Words:
    """Scramble 64-bit words: the finaliser of splitmix64, a bijection."""
    words = words.copy()
    _mix(words, np.empty_like(words))
    return words


def _mix(words: Words, room: Words) -> None:
    """Scramble words where they are: arrays made anew at each of eight steps cost as much as the arithmetic."""
    for shift, factor in ((_30, _MIX_1), (_27, _MIX_2)):
        np.right_shift(words, shift, out=room)
        np.bitwise_xor(words, room, out=words)
        np.multiply(words, factor, out=words)
    np.right_shift(words, _31, out=room)
    np.bitwise_xor(words, room, out=words)


def _words(values: ArrayLike | int) -> Words:
    """As an array of at least one dimension: NumPy warns when scalars overflow, and hashing lives by overflow."""
    if isinstance(values, int):
        values = values & 0xFFFFFFFFFFFFFFFF
    return np.atleast_1d(np.asarray(values)).astype(np.uint64, copy=False)


def derive(key: ArrayLike | int, *parts: ArrayLike | int) -> Words:
    """Make a new key from a key and numbers; broadcasts, so that each element may have a key of its own."""
    words = _words(key)
    for part in parts:
        words = mix(words ^ mix(_words(part) + np.uint64(_GAMMA)))
    return words


def permute(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> Ints:
    """Where `index` goes under the keyed permutation of [0, n).

    All three broadcast: each index may have its own domain and key. 1 <= n <= 2^62, 0 <= index < n.
    """
    return _walk(index, n, key, _forward)


def unpermute(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> Ints:
    """What goes to `index` under the keyed permutation of [0, n): the inverse of `permute`."""
    return _walk(index, n, key, _backward)


def _walk(index: ArrayLike, n: ArrayLike, key: ArrayLike, network: Callable[[Words, Words, Words], Words]) -> Ints:
    """Apply the network until the value is back in [0, n): its own domain is under 2n, so under twice on average."""
    values, sizes, keys = (_words(part) for part in (index, n, key))
    shape = np.broadcast_shapes(values.shape, sizes.shape, keys.shape)
    values = np.broadcast_to(values, shape).ravel()
    sizes, keys = (np.broadcast_to(part, shape).ravel() if part.size > 1 else part.ravel() for part in (sizes, keys))
    bits = np.searchsorted(_POWERS, sizes).astype(np.uint64)
    out = network(values, bits, keys)
    (outside,) = np.nonzero(out >= sizes)
    while outside.size:
        narrow = (part[outside] if part.size > 1 else part for part in (bits, keys))
        out[outside] = network(out[outside], *narrow)
        limit = sizes[outside] if sizes.size > 1 else sizes
        outside = outside[out[outside] >= limit]
    return out.reshape(shape).astype(np.int64)


class _Network:
    """The halves of an array of values, which the rounds change in place."""

    def __init__(self, values: Words, bits: Words, keys: Words) -> None:
        one = np.uint64(1)
        self.width = bits - (bits >> one)
        self.low_mask, self.high_mask = (one << self.width) - one, (one << (bits >> one)) - one
        self.high, self.low = values >> self.width, values & self.low_mask
        self._keys, self._word, self._room = keys, np.empty_like(self.low), np.empty_like(self.low)

    def turn_high(self, turn: int) -> None:
        """Change the high half by the low one."""
        self._turn(turn, self.low, self.high, self.high_mask)

    def turn_low(self, turn: int) -> None:
        """Change the low half by the high one."""
        self._turn(turn, self.high, self.low, self.low_mask)

    def _turn(self, turn: int, by: Words, half: Words, mask: Words) -> None:
        word = self._word
        np.add(self._keys, _STEPS[turn], out=word)
        np.bitwise_xor(word, by, out=word)
        _mix(word, self._room)
        np.bitwise_and(word, mask, out=word)
        np.bitwise_xor(half, word, out=half)

    def joined(self) -> Words:
        """Put the halves together."""
        words: Words = self.high << self.width | self.low
        return words


def _forward(values: Words, bits: Words, keys: Words) -> Words:
    network = _Network(values, bits, keys)
    for turn in range(0, ROUNDS, 2):
        network.turn_high(turn)
        network.turn_low(turn + 1)
    return network.joined()


def _backward(values: Words, bits: Words, keys: Words) -> Words:
    network = _Network(values, bits, keys)
    for turn in range(ROUNDS - 2, -1, -2):
        network.turn_low(turn + 1)
        network.turn_high(turn)
    return network.joined()


# What each round adds to the key, as arrays: NumPy warns when scalars overflow.
_STEPS = [np.array([(turn + 1) * _GAMMA & 0xFFFFFFFFFFFFFFFF], np.uint64) for turn in range(ROUNDS)]
