"""Memory for batches, used again once nobody looks at it: fresh pages cost more than copying tokens into them."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """Arrays of int32 whose memory comes back when the last view of it has gone. Shared by threads.

    keep: arrays kept for the next batches. allocate: makes one of so many numbers, e.g. in pinned memory.
    """

    def __init__(self, keep: int, allocate: Callable[[int], NDArray[np.int32]] | None = None) -> None:
        self._free: deque[NDArray[np.int32]] = deque(maxlen=keep)
        self._allocate = allocate or (lambda size: np.empty(size, np.int32))

    def take(self, rows: int, columns: int) -> NDArray[np.int32]:
        """Give a C-contiguous array (rows, columns) of unset values."""
        memory: NDArray[np.int32] | None
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        if memory is None or memory.size != rows * columns:
            memory = self._allocate(rows * columns)
        # Every view of `owner` keeps it as its base; the memory below it is ours.
        owner = np.frombuffer(memory.data, np.int32)
        weakref.finalize(owner, self._free.append, memory).atexit = False
        return owner.reshape(rows, columns)
