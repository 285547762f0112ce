"""A trie of byte strings, to find which of them stands at a place: one look-up a byte, and none where none begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: (class of each byte (256,), next state (states, classes), number from 1 of the string that ends in a state, or 0).
#: The root is state 0, which no other leads to; class 0 is of bytes that no string has.
Trie = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]


def build_trie(words: Sequence[bytes]) -> Trie:
    """Build a trie; arrays are read-only. Empty strings are passed over; of equal ones the first counts."""
    classes = np.zeros(256, np.uint8)
    used = sorted({byte for word in words for byte in word})[:255]  # UTF-8 has at most 243 different bytes
    classes[used] = np.arange(1, len(used) + 1, dtype=np.uint8)
    steps: list[dict[int, int]] = [{}]
    final = [0]
    for number, word in enumerate(words, 1):
        state = 0
        for byte in word:
            if byte not in steps[state]:
                steps[state][byte] = len(steps)
                steps.append({})
                final.append(0)
            state = steps[state][byte]
        final[state] = final[state] or (number if state else 0)
    table = np.zeros((len(steps), len(used) + 1), np.int32)
    for state, moves in enumerate(steps):
        for byte, target in moves.items():
            table[state, classes[byte]] = target
    ends = np.array(final, np.int32)
    for array in (classes, table, ends):
        array.flags.writeable = False
    return classes, table, ends
