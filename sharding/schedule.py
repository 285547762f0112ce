"""Batches to be: which positions a rank gets at a step, and where their rows lie. Arithmetic alone, nothing is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .. import RequestError
from .course import Course, Reading
from .permutation import Ints
from .positions import Places

#: What becomes of the last batch where it is not full: left out for good; given short; given with rows of padding; left
#: for whoever goes on.
Tail = Literal["drop", "short", "pad", "carry"]
# Rows worked out at once: arithmetic on arrays of thousands costs a quarter, a row, of what it does on hundreds. The
# first batch does not wait for many: the number doubles from the first to the most.
_FIRST_ROWS, _ROWS_AT_ONCE = 1024, 16_384
_POSITIONS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Job:
    """A batch to be: it covers positions [start, end); `positions` are this rank's, -1 for padding.

    places: of the rows that are not padding, in the order of `positions`, in which padding comes last. reading: what
    they are read from.
    """

    step: int
    start: int
    end: int
    positions: Ints
    places: Places
    reading: Reading


@dataclass(frozen=True)
class Schedule:
    """A rank's share of every batch of a course. end: position at which the data ends, None if never; tail: what then
    becomes of a batch that is not full."""

    course: Course
    rank: int
    world_size: int
    end: int | None
    tail: Tail

    @property
    def steps(self) -> int | None:
        """Batches from the first to the end; None where there is none."""
        if not self.end:
            return self.end
        plan = self.course.plan
        last = plan.step(self.end - 1)
        start, end = plan.extent(last)
        if start >= self.end:  # what comes before is skipped
            return last
        return last if self.tail in ("drop", "carry") and end > self.end else last + 1

    def step(self, position: int) -> int:
        """Number of the batch that comes at a position; where the data has ended, of the batches that came."""
        ended = self.end is not None and position >= self.end
        return (self.steps or 0) if ended else self.course.plan.step(position)

    def job(self, step: int) -> Job:
        """Work out one step's batch."""
        if self.steps is not None and step >= self.steps:
            raise RequestError(f"there is no step {step}: {self.steps} batches end the data; raise epochs=")
        start, end = self.course.plan.extent(step)
        return next(self._run(step, [start], end - start))

    def jobs(self, position: int) -> Iterator[Job]:
        """Work out the batches from a position on, in order, many at once where they are of one size."""
        step, steps, plan, rows = self.step(position), self.steps, self.course.plan, _FIRST_ROWS
        while steps is None or step < steps:
            first, end = plan.extent(step)
            size = end - first
            whole = max(1, min(rows * self.world_size, _POSITIONS_AT_ONCE) // size)
            rows = min(2 * rows, _ROWS_AT_ONCE)
            starts = plan.alike(step, step + whole if steps is None else min(step + whole, steps))
            if self.end is not None and len(starts) > 1 and starts[-1] + size > self.end:
                starts.pop()
            yield from self._run(step, starts, size)
            step += len(starts)

    def _run(self, step: int, starts: list[int], size: int) -> Iterator[Job]:
        """Work out successive batches of one size; only a single one may reach beyond the end."""
        real = size if self.end is None else min(size, self.end - starts[0])
        reading = self.course.at(starts[0])
        batches = reading.positions.sorted_by_lane(np.array(starts, np.int64)[:, None] + np.arange(real))
        if self.tail == "pad":
            batches = np.pad(batches, ((0, 0), (0, size - real)), constant_values=-1)
        rows = batches.shape[1]
        mine = batches[:, self.rank * rows // self.world_size : (self.rank + 1) * rows // self.world_size]
        places = reading.positions.places(mine[mine >= 0])
        held = 0
        for number, (start, positions) in enumerate(zip(starts, mine, strict=True)):
            count = int(np.count_nonzero(positions >= 0))
            yield Job(step + number, start, start + real, positions, places[held : held + count], reading)
            held += count
