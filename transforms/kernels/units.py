"""Words as units of windows: where each begins, where the next one does, and the digest that stands for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .digests import murmur128
from .text import SPACE, code_point

Bounds = NDArray[np.int64]


@kernel
def find_words(
    offsets: Bounds, data: NDArray[np.uint8], classes: NDArray[np.uint8]
) -> tuple[Bounds, Bounds, NDArray[np.uint64]]:
    """Find what space separates: bounds (texts + 1,) into spans (words, 2), and digests (words, 2).

    A span is a word and the space behind it.
    """
    bounds, count = np.zeros(len(offsets), np.int64), np.int64(0)
    most = (offsets[len(offsets) - 1] - offsets[0]) // 2 + len(offsets)
    spans, digests = np.empty((most, 2), np.int64), np.empty((most, 2), np.uint64)
    for row in range(len(offsets) - 1):
        at, end, start = offsets[row], offsets[row + 1], np.int64(-1)
        while at <= end:
            code, width = np.int64(32), np.int64(1)
            if at < end:
                code, width = np.int64(data[at]), np.int64(1)
                if code >= 0x80:
                    code, width = code_point(data, at, end)
            if classes[code] & SPACE:
                if start >= 0:
                    digests[count, 0], digests[count, 1] = murmur128(data, start, at)
                    count += 1
                    start = np.int64(-1)
            elif start < 0:
                start = np.int64(at)
                spans[count, 0] = start
                if count > bounds[row]:
                    spans[count - 1, 1] = start
            at += width
        if count > bounds[row]:
            spans[count - 1, 1] = end
        bounds[row + 1] = count
    return bounds, spans[:count].copy(), digests[:count].copy()
