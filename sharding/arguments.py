"""What a loader may be asked: numbers that fit together, refused in words where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from .. import RequestError
from .permutation import Ints
from .plan import LARGEST_POSITION
from .schedule import Tail


def whole_numbers(*numbers: int | None) -> tuple[Any, ...]:
    """Give whole numbers, NumPy's among them, as Python's own, which a state in JSON can hold; None stays."""
    try:
        return tuple(None if number is None else index(number) for number in numbers)
    except TypeError:
        raise RequestError(f"batch_size, seed, rank, world_size and epochs are whole numbers, not {numbers}") from None


def check_share(batch_size: int, rank: int, world_size: int, epochs: int | None, tail: str) -> None:
    """Refuse a batch without rows, a rank the world does not have, epochs and tails that are none."""
    if batch_size < 1:
        raise RequestError(f"batch_size is {batch_size}; a global batch has at least 1 row")
    if world_size < 1 or not 0 <= rank < world_size:
        raise RequestError(f"rank is {rank} of {world_size}; ranks go from 0 to world_size - 1")
    if epochs is not None and epochs < 1:
        raise RequestError(f"epochs is {epochs}; pass 1 or more, or None to go on for ever")
    if tail not in get_args(Tail):
        raise RequestError(f"tail is {tail!r}; it is one of {', '.join(get_args(Tail))}")


def check_reading(prefetch: int, threads: int, stall: float) -> None:
    """Refuse to read ahead by less than nothing, with no thread, or to wait no time."""
    if prefetch < 0:
        raise RequestError(f"prefetch is {prefetch}; so many batches are made ahead, 0 or more")
    if threads < 1:
        raise RequestError(f"threads is {threads}; blocks are read by 1 or more")
    if not stall > 0:
        raise RequestError(f"stall is {stall}; a block is waited for above 0 s")


def checked_positions(positions: NDArray[np.int64] | Sequence[int]) -> Ints:
    """Give positions as an array (n,) of int64; RequestError where they are none."""
    asked = np.asarray(positions)
    whole = asked.dtype.kind in "iu" or not asked.size
    if not whole or asked.ndim != 1 or (asked.size and not 0 <= asked.min() <= asked.max() < LARGEST_POSITION):
        raise RequestError(f"positions are whole numbers from 0 to 2^62, in one dimension, not {positions!r}")
    return asked.astype(np.int64)
