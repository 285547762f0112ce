"""Batches to be: which positions a rank gets at a step, and where their rows lie. Arithmetic alone, nothing is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

import numpy as np

from .. import RequestError
from .permutation import Ints
from .plan import Plan
from .positions import Places, Positions

Tail = Literal["drop", "short", "pad"]
# Rows worked out at once: arithmetic on arrays of thousands costs a third, a row, of what it does on hundreds.
_ROWS_AT_ONCE = 4096
_POSITIONS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Job:
    """A batch to be: it covers positions [start, end); `positions` are this rank's, -1 for padding.

    places: of the rows that are not padding, in the order of `positions`, in which padding comes last.
    """

    step: int
    start: int
    end: int
    positions: Ints
    places: Places


@dataclass(frozen=True)
class Schedule:
    """A rank's share of every batch. end: position at which the data ends, None if never; tail: what then becomes of
    a batch that is not full."""

    positions: Positions
    rank: int
    world_size: int
    end: int | None
    tail: Tail

    def steps(self, plan: Plan) -> int | None:
        """Batches from the first to the end; None where there is none."""
        if not self.end:
            return self.end
        last = plan.step(self.end - 1)
        return last if self.tail == "drop" and plan.extent(last)[1] > self.end else last + 1

    def step(self, plan: Plan, position: int) -> int:
        """Number of the batch that comes at a position; where the data has ended, of the batches that came."""
        ended = self.end is not None and position >= self.end
        return (self.steps(plan) or 0) if ended else plan.step(position)

    def job(self, plan: Plan, step: int) -> Job:
        """Work out one step's batch."""
        steps = self.steps(plan)
        if steps is not None and step >= steps:
            raise RequestError(f"there is no step {step}: {steps} batches end the data; raise epochs=")
        start, end = plan.extent(step)
        return next(self._run(step, [start], end - start))

    def jobs(self, plan: Plan, position: int) -> Iterator[Job]:
        """Work out the batches from a position on, in order, many at once where they are of one size."""
        step, steps = self.step(plan, position), self.steps(plan)
        while steps is None or step < steps:
            first, end = plan.extent(step)
            size = end - first
            whole = max(1, min(_ROWS_AT_ONCE * self.world_size, _POSITIONS_AT_ONCE) // size)
            last = step + whole if steps is None else min(step + whole, steps)
            starts = _alike(plan, step, last)
            if self.end is not None and len(starts) > 1 and starts[-1] + size > self.end:
                starts.pop()
            yield from self._run(step, starts, size)
            step += len(starts)

    def _run(self, step: int, starts: list[int], size: int) -> Iterator[Job]:
        """Work out successive batches of one size; only a single one may reach beyond the end."""
        real = size if self.end is None else min(size, self.end - starts[0])
        batches = self.positions.sorted_by_lane(np.array(starts, np.int64)[:, None] + np.arange(real))
        if self.tail == "pad":
            batches = np.pad(batches, ((0, 0), (0, size - real)), constant_values=-1)
        rows = batches.shape[1]
        mine = batches[:, self.rank * rows // self.world_size : (self.rank + 1) * rows // self.world_size]
        places = self.positions.places(mine[mine >= 0])
        held = 0
        for number, (start, positions) in enumerate(zip(starts, mine, strict=True)):
            count = int(np.count_nonzero(positions >= 0))
            yield Job(step + number, start, start + real, positions, places[held : held + count])
            held += count


def _alike(plan: Plan, step: int, last: int) -> list[int]:
    """Where the batches from `step` on start, as long as they are of one size, `last` not among them."""
    first, end = plan.extent(step)
    extents = takewhile(lambda extent: extent[1] - extent[0] == end - first, map(plan.extent, range(step, last)))
    return [start for start, _ in extents]
