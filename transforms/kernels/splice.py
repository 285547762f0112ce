"""Cut stretches out of texts and put others in their place: one pass, a copy of what stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import Int


@kernel
def _copy(data: NDArray[np.uint8], start: Int, end: Int, out: NDArray[np.uint8], size: Int) -> Int:
    """Copy bytes; give where the copy ends."""
    source, target = np.uint64(start), np.uint64(size)
    for step in range(np.uint64(end - start)):  # unsigned, so that the compiler takes many bytes at a time
        out[target + step] = data[source + step]
    return size + end - start


@kernel
def splice(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    rows: NDArray[np.int64],
    spans: NDArray[np.int64],
    inserted_offsets: NDArray[np.int64],
    inserted: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Replace cuts: the texts that are left as offsets (rows + 1) and bytes.

    rows: (cuts,) rising; spans: (cuts, 2) first byte and end in `data`, rising in each row, none over another;
    inserted: one text a cut.
    """
    count = len(offsets) - 1
    starts = np.zeros(count + 1, np.int64)
    out = np.empty(offsets[count] - offsets[0] + inserted_offsets[len(rows)] - inserted_offsets[0], np.uint8)
    size = cut = np.int64(0)
    for row in range(count):
        at = offsets[row]
        while cut < len(rows) and rows[cut] == row:
            size = _copy(data, at, spans[cut, 0], out, size)
            size = _copy(inserted, inserted_offsets[cut], inserted_offsets[cut + 1], out, size)
            at = spans[cut, 1]
            cut += 1
        size = _copy(data, at, offsets[row + 1], out, size)
        starts[row + 1] = size
    return starts, out[:size]


@kernel
def code_points(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], rows: NDArray[np.int64], spans: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give cuts in code points from the start of their texts: (cuts, 2)."""
    found = np.empty((len(rows), 2), np.int64)
    row = np.int64(-1)
    at = points = np.int64(0)
    for cut in range(len(rows)):
        if rows[cut] != row:
            row = rows[cut]
            at, points = offsets[row], np.int64(0)
        for side in range(2):
            while at < spans[cut, side]:
                points += (data[at] & 0xC0) != 0x80
                at += 1
            found[cut, side] = points
    return found


@kernel
def taken(data: NDArray[np.uint8], spans: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Copy out stretches: offsets (spans + 1) and bytes."""
    starts = np.zeros(len(spans) + 1, np.int64)
    for number in range(len(spans)):
        starts[number + 1] = starts[number] + spans[number, 1] - spans[number, 0]
    out = np.empty(starts[len(spans)], np.uint8)
    size = np.int64(0)
    for number in range(len(spans)):
        size = _copy(data, spans[number, 0], spans[number, 1], out, size)
    return starts, out
