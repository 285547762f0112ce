"""Characters to take out of texts, line ends to make one, spaces before them: found in one pass over the bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .pii_scan import find_byte, grown
from .text import Int

#: What to do, as bits: make every line end a newline; take out controls, byte order marks, characters of no width.
NEWLINES, CONTROLS, MARKS, WIDTHS = 1, 2, 4, 8
#: What to put in the place of a cut.
NOTHING, NEWLINE = 0, 1
#: Bytes that may begin something to change: controls, DEL, the leads of C1 and U+00AD, U+2028 and U+200B, U+FEFF.
ODD = np.zeros(256, np.bool_)
ODD[:32] = True
ODD[[0x7F, 0xC2, 0xE2, 0xEF]] = True
ODD[[0x09, 0x0A]] = False
ODD.flags.writeable = False


@kernel
def _odd(data: NDArray[np.uint8], at: Int, end: Int, what: Int) -> tuple[Int, Int]:
    """Judge the character at an odd byte: (bytes to cut, what comes in their place); 0 bytes, it stays."""
    byte = data[at]
    if byte < 0x80:
        if what & NEWLINES and 0x0B <= byte <= 0x0D:
            return 2 if byte == 0x0D and at + 1 < end and data[at + 1] == 0x0A else 1, NEWLINE
        return (1, NOTHING) if what & CONTROLS and byte != 0x0D else (0, NOTHING)
    if byte == 0xC2 and at + 1 < end:
        if data[at + 1] == 0x85:
            return (2, NEWLINE) if what & NEWLINES else (0, NOTHING)
        cut = (what & CONTROLS and data[at + 1] < 0xA0) or (what & WIDTHS and data[at + 1] == 0xAD)
        return (2, NOTHING) if cut else (0, NOTHING)
    if at + 2 >= end:
        return 0, NOTHING
    code = np.int64(byte) << 16 | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2])
    if code == 0xE280A8 or code == 0xE280A9:
        return (3, NEWLINE) if what & NEWLINES else (0, NOTHING)
    cut = (what & MARKS and code == 0xEFBBBF) or (what & WIDTHS and (code == 0xE2808B or code == 0xE281A0))
    return (3, NOTHING) if cut else (0, NOTHING)


@kernel
def _row(
    data: NDArray[np.uint8], at: Int, end: Int, what: Int, odd: NDArray[np.bool_], held: NDArray[np.int64], count: Int
) -> tuple[Int, Int]:
    """Add the cuts of one row from a byte on, until they fill what holds them: (where it stopped, how many)."""
    while at < end and count < len(held):
        if odd[data[at]]:
            width, place = _odd(data, at, end, what)
            if width:
                held[count, 1], held[count, 2], held[count, 3] = at, at + width, place
                count += 1
                at += width
                continue
        at += 1
    return at, count


@kernel
def odd_characters(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], what: Int, odd: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Find what to cut: (n, 4) row, first byte, end, what comes in its place."""
    held = np.empty((64, 4), np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        at = offsets[row]
        while at < offsets[row + 1]:
            held, before = grown(held, count), count
            at, count = _row(data, at, offsets[row + 1], what, odd, held, count)
            held[before:count, 0] = row
    return held[:count]


@kernel
def trailing_spaces(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find spaces and tabs before a newline or the end of a text: (n, 3) row, first byte, end."""
    held = np.empty((64, 3), np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        first, end = offsets[row], offsets[row + 1]
        while first < end:
            stop = find_byte(data, first, end, 0x0A)
            at = stop
            while at > first and (data[at - 1] == 0x20 or data[at - 1] == 0x09):
                at -= 1
            if at < stop:
                held = grown(held, count)
                held[count, 0], held[count, 1], held[count, 2] = row, at, stop
                count += 1
            first = stop + 1
    return held[:count]


@kernel
def rows_reaching(offsets: NDArray[np.int64], data: NDArray[np.uint8], least: Int) -> NDArray[np.bool_]:
    """Say which texts hold a byte of at least `least`."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(offsets) - 1):
        most = np.uint8(0)
        for at in range(np.uint64(offsets[row]), np.uint64(offsets[row + 1])):
            most = max(most, data[at])
        found[row] = most >= least
    return found
