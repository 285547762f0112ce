"""A `Job` as a Beam graph: tasks mapped and, where it has a reduce, what they emit grouped by key and reduced.

    Impulse | Expand(names of plan chunks) [| Reshuffle] | Map(task) [| GroupByKey | Reduce]

Where one process does all the work nothing is spread: a reshuffle is half of what a small job costs, 0.1 to 0.2 s.

What a task did stands in its receipt, never in Beam's metrics or outputs. Text and tokens never cross a shuffle: Beam's
local runner takes about 6 bytes of memory per shuffled byte and cannot spill. No Beam source or sink is used: its reads
run as one task on Spark, and none of its sinks resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .failures import Desk, carried, stopped, title

Pair = tuple[str, bytes]
CHUNK = 500  # tasks in one element of the graph: a graph is one message, and job servers refuse large ones


@dataclass(frozen=True)
class Job:
    """One Beam job: `map` runs once a task; where there is a `reduce`, it gets what they emitted, grouped by key.

    `tasks` are picklable values; an error names one by its `name`, or its text. With `expand` they are names of plan
    chunks instead, and `expand(name)` gives the tasks in a worker, so that the graph never holds the list of files.
    `map` commits its own receipt; what it yields is (key, small value). `reduce` gets a key and its values, in no
    order, and commits too. Both are picklable: a `functools.partial` of a module's function is.
    """

    name: str
    tasks: Sequence[Any]
    map: Callable[[Any], Iterable[Pair] | None]
    reduce: Callable[[str, Iterable[bytes]], None] | None = None
    expand: Callable[[Any], Iterable[Any]] | None = None


def build(pipeline: Any, job: Job, desk: Desk | None = None, *, spread: bool = True) -> None:
    """Wire a job into a Beam pipeline; `spread` deals the tasks to workers."""
    import apache_beam as beam
    from apache_beam.internal import pickler

    per = CHUNK if job.expand is None else 1
    chunks = tuple(pickler.dumps(list(job.tasks[at : at + per])) for at in range(0, len(job.tasks), per))
    tasks = (
        pipeline
        | f"{job.name}: plan" >> beam.Impulse()
        | f"{job.name}: expand" >> beam.FlatMap(_Expand(chunks, job.expand, desk)).with_output_types(bytes)
    )
    if spread:
        tasks = tasks | f"{job.name}: spread" >> beam.Reshuffle()
    mapped = tasks | f"{job.name}: map" >> beam.FlatMap(_Map(job.map, desk)).with_output_types(tuple[str, bytes])
    if job.reduce is not None:
        (
            mapped
            | f"{job.name}: group" >> beam.GroupByKey()
            | f"{job.name}: reduce" >> beam.FlatMap(_Reduce(job.reduce, desk)).with_output_types(bytes)
        )


@dataclass(frozen=True)
class _Expand:
    """Impulse → pickled tasks, from pickled chunks."""

    chunks: tuple[bytes, ...]
    expand: Callable[[Any], Iterable[Any]] | None
    desk: Desk | None

    def __call__(self, _: bytes) -> Iterator[bytes]:
        from apache_beam.internal import pickler

        for chunk in self.chunks:
            if stopped(self.desk):
                return
            with carried("the plan", self.desk):
                for item in pickler.loads(chunk):
                    for task in [item] if self.expand is None else self.expand(item):
                        yield pickler.dumps(task)


@dataclass(frozen=True)
class _Map:
    """Pickled task → its pairs."""

    map: Callable[[Any], Iterable[Pair] | None]
    desk: Desk | None

    def __call__(self, pickled: bytes) -> Iterator[Pair]:
        from apache_beam.internal import pickler

        if stopped(self.desk):
            return
        task = pickler.loads(pickled)
        with carried(title(task), self.desk):
            yield from self.map(task) or ()


@dataclass(frozen=True)
class _Reduce:
    """(key, values) → nothing: the reduce commits."""

    reduce: Callable[[str, Iterable[bytes]], None]
    desk: Desk | None

    def __call__(self, group: tuple[str, Iterable[bytes]]) -> tuple[bytes, ...]:
        key, values = group
        if not stopped(self.desk):
            with carried(key, self.desk):
                self.reduce(key, values)
        return ()
