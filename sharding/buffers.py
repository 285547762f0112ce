"""Memory for batches, used again once nobody looks at it: fresh pages cost more than copying tokens into them."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Buffers:
    """Arrays of int32, or of another `kind`, whose memory comes back when the last view of it has gone.

    keep: arrays kept for the next batches. allocate: makes one of so many numbers, e.g. in pinned memory. Shared by
    threads.
    """

    def __init__(
        self, keep: int, allocate: Callable[[int], NDArray[Any]] | None = None, kind: DTypeLike = np.int32
    ) -> None:
        self._free: deque[NDArray[Any]] = deque(maxlen=keep)
        self._kind, self._allocate = np.dtype(kind), allocate or (lambda size: np.empty(size, kind))

    def take(self, rows: int, columns: int) -> NDArray[Any]:
        """Give a C-contiguous array (rows, columns) of unset values."""
        memory: NDArray[Any] | None
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        if memory is None or memory.size != rows * columns:
            memory = self._allocate(rows * columns)
        # Every view of `owner` keeps it as its base; the memory below it is ours.
        owner = np.frombuffer(memory.data, self._kind)
        weakref.finalize(owner, self._free.append, memory).atexit = False
        return owner.reshape(rows, columns)
