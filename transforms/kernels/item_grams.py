"""n-grams of normalised text, laid out to be looked up: hashes by words, equal ones made one, a bitmap and a table.

A hash finds candidates, the bytes decide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .simplify import Bytes, Offsets
from .text import GOLDEN, MIX, Int

Ints = NDArray[np.int64]

#: Grams by keys of one number of words: bits (2^k,) uint64, two set for each; slots (2^m,) uint64, 0 where free, else
#: 32 bits of the key's hash over the gram's number + 1.
Grams = tuple[NDArray[np.uint64], NDArray[np.uint64]]

#: The hash of a word, FNV-1a, and its low half.
FNV_START = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
LOW = np.uint64(0xFFFFFFFF)


@kernel
def weight_of(length: Int) -> np.uint64:
    """The weight with which a word leaves a sum over so many words."""
    weight = np.uint64(1)
    for _ in range(length):
        weight *= MIX
    return weight


@kernel
def mixed(total: np.uint64) -> np.uint64:
    """Make a key's hash of its sum."""
    return np.uint64((total ^ (total >> np.uint64(29))) * GOLDEN)


@kernel
def gram_hashes(text: Bytes, starts: Ints, ends: Ints, lengths: NDArray[np.int32], key: Int) -> NDArray[np.uint64]:
    """Hash grams (stretches of normalised text) by their first `key` words, or by all where `key` is 0."""
    hashes = np.empty(len(starts), np.uint64)
    for gram in range(len(starts)):
        total, at = np.uint64(0), starts[gram]
        for _ in range(key if key else np.int64(lengths[gram])):
            word = FNV_START
            while at < ends[gram] and text[at] != 32:
                word = (word ^ np.uint64(text[at])) * FNV_PRIME
                at += 1
            at += 1
            total = total * MIX + word
        hashes[gram] = mixed(total)
    return hashes


@kernel
def different_words(text: Bytes, starts: Ints, ends: Ints) -> NDArray[np.int32]:
    """Count the different words of grams, up to a collision of hashes, which the words alone decide."""
    counts, seen = np.zeros(len(starts), np.int32), np.empty(256, np.uint64)
    for gram in range(len(starts)):
        at, count = starts[gram], 0
        while at < ends[gram]:
            word = FNV_START
            while at < ends[gram] and text[at] != 32:
                word = (word ^ np.uint64(text[at])) * FNV_PRIME
                at += 1
            at += 1
            known = 0
            while known < count and seen[known] != word:
                known += 1
            if known == count and count < len(seen):
                seen[count] = word
                count += 1
        counts[gram] = count
    return counts


@kernel
def word_starts(offsets: Offsets, text: Bytes) -> tuple[Ints, Ints]:
    """Find the words of normalised texts: first bytes, and for each text the number of its first word (n + 1,)."""
    rows = len(offsets) - 1
    starts, first = np.empty(len(text) // 2 + rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    count = 0
    for row in range(rows):
        inside = False
        for at in range(offsets[row], offsets[row + 1]):
            if text[at] != 32 and not inside:
                starts[count] = at
                count += 1
            inside = text[at] != 32
        first[row + 1] = count
    return starts[:count].copy(), first


@kernel
def equal_runs(text: Bytes, starts: Ints, ends: Ints, hashes: NDArray[np.uint64], order: Ints) -> Ints:
    """Number grams so that equal ones have one number: `order` sorts their hashes; hashes find, bytes decide.

    Gives for each gram the first of `order` that is equal to it.
    """
    same = np.empty(len(order), np.int64)
    begin = 0
    for place in range(len(order)):
        gram = order[place]
        if place == 0 or hashes[gram] != hashes[order[place - 1]]:
            begin = place
        same[gram] = gram
        for other in range(begin, place):
            earlier = order[other]
            if same[earlier] == earlier and same_stretch(
                text, starts[earlier], ends[earlier], text, starts[gram], ends[gram]
            ):
                same[gram] = earlier
                break
    return same


@kernel
def same_stretch(one: Bytes, start: Int, end: Int, other: Bytes, first: Int, last: Int) -> bool:
    """Say whether two stretches hold the same bytes."""
    if end - start != last - first:
        return False
    step = 0
    while step < end - start and one[start + step] == other[first + step]:
        step += 1
    return bool(step == end - start)


@kernel
def two_bits(value: np.uint64) -> np.uint64:
    """Give the two bits that a key sets in its word of the bitmap."""
    return np.uint64(np.uint64(1) << (value & np.uint64(63)) | np.uint64(1) << (value >> np.uint64(6) & np.uint64(63)))


@kernel
def build_grams(hashes: NDArray[np.uint64], numbers: Ints) -> Grams:
    """Lay out grams by the hashes of their keys; several may share a key."""
    size = 64
    while size < 2 * len(numbers):
        size *= 2
    bits, slots = np.zeros(size // 8, np.uint64), np.zeros(size, np.uint64)
    for place in range(len(numbers)):
        value = hashes[place]
        bits[np.int64(value >> np.uint64(20)) & (len(bits) - 1)] |= two_bits(value)
        slot = np.int64(value >> np.uint64(32)) & (size - 1)
        while slots[slot] != 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = (value & LOW) << np.uint64(32) | np.uint64(numbers[place] + 1)
    return bits, slots
