"""Tokens placed in their texts, byte by byte: where each lies, and which text they do not join to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import Int

Bounds = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@kernel
def place_tokens(
    bounds: Bounds, ids: NDArray[np.int32], starts: Bounds, body: Bytes, offsets: Bounds, data: Bytes
) -> tuple[Bounds, Int]:
    """Place tokens one behind the other: spans (m, 2) in data, and the first row where that fails, else -1.

    bounds (texts + 1,) into ids (m,). What a token spells is body[starts[id] : starts[id + 1]].
    """
    spans = np.empty((len(ids), 2), np.int64)
    for row in range(len(bounds) - 1):
        at, end = offsets[row], offsets[row + 1]
        for number in range(bounds[row], bounds[row + 1]):
            first = starts[ids[number]]
            size = starts[ids[number] + 1] - first
            if at + size > end:
                return spans, row
            for step in range(size):
                if data[at + step] != body[first + step]:
                    return spans, row
            spans[number, 0], spans[number, 1] = at, at + size
            at += size
        if at != end:
            return spans, row
    return spans, -1
