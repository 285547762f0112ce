"""What a loader may be asked: numbers that fit together, refused in words where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from .. import RequestError
from .cohorts import cohort_of, means
from .format import PackOrder
from .mixture import mixture
from .permutation import Ints
from .plan import LARGEST_POSITION, Plan, Segment, Weights
from .schedule import Tail

#: Streams and their weights; or such by the position from which each holds, the first from 0.
Mixing = Mapping[str, float] | Sequence[tuple[int, Mapping[str, float]]]


def whole_numbers(*numbers: int | None) -> tuple[Any, ...]:
    """Give whole numbers, NumPy's among them, as Python's own, which a state in JSON can hold; None stays."""
    try:
        return tuple(None if number is None else index(number) for number in numbers)
    except TypeError:
        raise RequestError(
            f"batch_size, seed, rank, world_size, epochs and ids are whole numbers, not {numbers}"
        ) from None


def check_share(batch_size: int, rank: int, world_size: int, tail: str, shuffle: str | None) -> None:
    """Refuse a batch without rows, a rank the world does not have, tails and shuffles that are none."""
    if batch_size < 1:
        raise RequestError(f"batch_size is {batch_size}; a global batch has at least 1 row")
    if world_size < 1 or not 0 <= rank < world_size:
        raise RequestError(f"rank is {rank} of {world_size}; ranks go from 0 to world_size - 1")
    if tail not in get_args(Tail):
        raise RequestError(f"tail is {tail!r}; it is one of {', '.join(get_args(Tail))}")
    if shuffle not in ("block", "full", None):
        raise RequestError(f"shuffle is {shuffle!r}; it is 'block', 'full' or None")


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


def epochs_asked(
    epochs: int | Mapping[str, int] | None, weights: Mixing | None, caps: Mapping[str, int] | None, order: PackOrder
) -> tuple[int | None, Mixing | None, Mapping[str, int] | None]:
    """Give epochs, weights and caps; epochs by stream are weights by their rows and caps that end them to the row."""
    if not isinstance(epochs, Mapping):
        (whole,) = whole_numbers(epochs)
        if whole is not None and whole < 1:
            raise RequestError(f"epochs is {epochs}; pass 1 or more, or None to go on for ever")
        return whole, weights, caps
    if weights is not None or caps is not None:
        raise RequestError("epochs by stream are weights and caps at once: pass epochs, or weights and caps")
    held: dict[str, float] = {}
    for stream, times in caps_asked(epochs):
        rows = sum(shape.rows for name, shape in order.streams.items() if means(stream, name))
        if not rows:
            raise RequestError(f"there is no stream {stream} with rows: streams are {', '.join(sorted(order.streams))}")
        held[stream] = times * rows
    return None, held, epochs


def first_plan(
    batch_size: int, generation: int, pack: str, split: str, weights: Mixing | None, caps: Mapping[str, int] | None
) -> Plan:
    """Give the plan that a new loader starts with; orders are not told yet."""
    mixtures, told = mixtures_asked(split, weights), caps_asked(caps)
    return Plan(tuple(Segment(start, batch_size, generation, pack, mixed, "", told) for start, mixed in mixtures))


def mixtures_asked(split: str | None, weights: Mixing | None, first: int = 0) -> list[tuple[int, str | Weights]]:
    """Give mixtures by the position from which each holds; RequestError where positions do not rise from the first."""
    if weights is None:
        return [(first, split or "train")]
    given = [(first, weights)] if isinstance(weights, Mapping) else list(weights)
    starts = [start for start, _ in given]
    if not given or starts[0] != first or sorted(set(starts)) != starts:
        raise RequestError(
            f"weights that change are given as (position, weights), positions rising from {first}, not {starts}"
        )
    return [(index(start), _smallest(mixed)) for start, mixed in given]


def _smallest(weights: Mapping[str, float]) -> Weights:
    """Give the smallest whole numbers of this ratio; a cohort that is left out by name stays so beside its name."""
    held = dict(mixture(weights).weights)
    out = {name: 0 for name, weight in weights.items() if not weight and cohort_of(name)[0] in held}
    return tuple(sorted({**held, **out}.items()))


def caps_asked(caps: Mapping[str, int] | None) -> Weights:
    """Give caps in epochs by stream, sorted; RequestError where one is no whole number above 0."""
    try:
        found = tuple(sorted((name, index(cap)) for name, cap in (caps or {}).items()))
    except TypeError:
        raise RequestError(f"caps are whole numbers of epochs by stream, not {caps!r}") from None
    if any(cap < 1 for _, cap in found):
        raise RequestError(f"a cap is 1 epoch or more, these are {caps!r}; leave a stream out by its weight")
    return found


def steps_asked(steps: range | tuple[int, int]) -> tuple[int, int]:
    """Give steps [first, past) that are to be skipped; RequestError where they are none."""
    first, past = (steps.start, steps.stop) if isinstance(steps, range) else steps
    if (isinstance(steps, range) and steps.step != 1) or not 0 <= first < past:
        raise RequestError(f"steps to skip are range(first, past), not {steps!r}")
    return first, past
