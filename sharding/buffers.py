"""Memory for batches, used again once nobody looks at it: fresh pages cost more than copying tokens into them."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """Arrays of int32 whose memory comes back when the last view of it has gone. Shared by threads.

    keep: arrays kept for the next batches.
    """

    def __init__(self, keep: int) -> None:
        self._free: deque[NDArray[np.int32]] = deque(maxlen=keep)

    def take(self, rows: int, columns: int) -> NDArray[np.int32]:
        """Give a C-contiguous array (rows, columns) of unset values."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, np.int32)
        if memory.size != rows * columns:
            memory = np.empty(rows * columns, np.int32)
        # Every view of `owner` keeps it as its base; the memory below it is ours.
        owner = np.frombuffer(memory.data, np.int32)
        weakref.finalize(owner, self._free.append, memory).atexit = False
        return owner.reshape(rows, columns)
