"""What the scans for personal data share: classes of bytes, a search for one byte, windows that grow in number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import Int, load64

_ONES, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
CONTEXT = 4  # bytes that a pattern looks at beside a match

DIGIT, LETTER, HEX, TOKEN, GAP, CAPITAL, NAME = 1, 2, 4, 8, 16, 32, 64
CLASSES = np.zeros(256, np.uint8)
for _marks, _bit in (
    (b"0123456789", DIGIT | HEX | TOKEN),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", LETTER | TOKEN | CAPITAL),
    (b"abcdefghijklmnopqrstuvwxyz", LETTER | TOKEN),
    (b"ABCDEFabcdef", HEX),
    (b"_-.", TOKEN),
    (b" -.()/", GAP),
    (b"_%+'-", NAME),
):
    CLASSES[np.frombuffer(_marks, np.uint8)] |= np.uint8(_bit)
CLASSES.flags.writeable = False


@kernel
def find_byte(data: NDArray[np.uint8], at: Int, end: Int, byte: Int) -> Int:
    """Find a byte: its first place in [at, end), or `end`."""
    pattern = np.uint64(byte) * _ONES
    while at + 8 <= end:
        word = load64(data, at) ^ pattern
        if (word - _ONES) & ~word & _HIGH:
            break
        at += 8
    while at < end and data[at] != byte:
        at += 1
    return at


@kernel
def grown(held: NDArray[np.int64], count: Int) -> NDArray[np.int64]:
    """Give room for one row more: the array itself, or a copy of twice its size."""
    if count < len(held):
        return held
    larger = np.empty((2 * len(held), held.shape[1]), np.int64)
    larger[:count] = held[:count]
    return larger


@kernel
def add_window(held: NDArray[np.int64], count: Int, row: Int, first: Int, end: Int) -> Int:
    """Add a window, or make the last one longer where they touch; give the count."""
    if count and held[count - 1, 0] == row and held[count - 1, 2] >= first:
        held[count - 1, 2] = max(end, held[count - 1, 2])
        return count
    held[count, 0], held[count, 1], held[count, 2] = row, first, end
    return count + 1
