"""The one place that hands work to Apache Beam: a `Job` is tasks mapped and, where it has a reduce, grouped, reduced.

    Create(names of plan chunks) | Expand | Reshuffle | Map(task) [| GroupByKey | Reduce]

Beam distributes; what a task did stands in its receipt, never in Beam's metrics or outputs. Text and tokens never cross
a shuffle: Beam's local runner takes about 6 bytes of memory per shuffled byte and cannot spill. Starting worker
processes costs 2 to 4 s, so small jobs run in this one.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import PenstockError, RequestError, require
from .failures import Desk, carried, marked, original, stopped, title

Pair = tuple[str, bytes]
CHUNK = 500  # tasks in one element of the graph: a graph is one message, and job servers refuse large ones


@dataclass(frozen=True)
class RunnerOptions:
    """Where a job runs.

    `runner`: `local` (worker processes on this machine), `spark`, `flink`, `dataflow`, or any Beam runner's name.
    `workers`: local worker processes, one a core by default. `in_process`: no worker processes at all (small jobs).
    `spark_master`: the master that a job server started here works for. `job_endpoint`: `host:port` of a job server
    that already runs. `beam_options`: handed to Beam as they are.
    """

    runner: str = "local"
    workers: int | None = None
    in_process: bool = False
    spark_master: str | None = None
    job_endpoint: str | None = None
    beam_options: tuple[str, ...] = ()

    def processes(self) -> int:
        """Count the local worker processes; 1 means none beside this one."""
        if self.workers is not None and self.workers < 1:
            raise RequestError(f"workers is {self.workers}; it must be 1 or more")
        return 1 if self.in_process else self.workers or cores()


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


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_job(job: Job, options: RunnerOptions | None = None) -> None:
    """Run a job to its end; the error of a task comes back in the class and with the message it was raised with."""
    options = options or RunnerOptions()
    if not job.tasks:
        return
    with _quiet(), tempfile.TemporaryDirectory(prefix="penstock-") as path:
        desk, line = Desk(path), None
        try:
            _run_local(job, options, desk)
        except PenstockError:
            raise
        except Exception as error:
            line = marked(error)
        line = desk.failure() or line
    if line is not None:
        raise original(job.name, line)


def _run_local(job: Job, options: RunnerOptions, desk: Desk) -> None:
    """Run on Beam's local runner, by name: the one that Beam picks by itself starts with a download."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from .workers import WorkerEnvironment

    workers = options.processes()
    environment = None if workers == 1 else WorkerEnvironment(desk.path)
    flags = [f"--direct_num_workers={workers}", *options.beam_options]
    with beam.Pipeline(FnApiRunner(environment), PipelineOptions(flags)) as pipeline:
        build(pipeline, job, desk)


def build(pipeline: Any, job: Job, desk: Desk | None = None) -> None:
    """Wire a job into a Beam pipeline."""
    import apache_beam as beam
    from apache_beam.internal import pickler

    per = CHUNK if job.expand is None else 1
    chunks = [pickler.dumps(list(job.tasks[at : at + per])) for at in range(0, len(job.tasks), per)]
    mapped = (
        pipeline
        | f"{job.name}: plan" >> beam.Create(chunks, reshuffle=False).with_output_types(bytes)
        | f"{job.name}: expand" >> beam.FlatMap(_Expand(job.expand, desk)).with_output_types(bytes)
        | f"{job.name}: spread" >> beam.Reshuffle()
        | f"{job.name}: map" >> beam.FlatMap(_Map(job.map, desk)).with_output_types(tuple[str, bytes])
    )
    if job.reduce is not None:
        (
            mapped
            | f"{job.name}: group" >> beam.GroupByKey()
            | f"{job.name}: reduce" >> beam.FlatMap(_Reduce(job.reduce, desk)).with_output_types(bytes)
        )


@dataclass(frozen=True)
class _Expand:
    """Pickled chunk → pickled tasks."""

    expand: Callable[[Any], Iterable[Any]] | None
    desk: Desk | None

    def __call__(self, chunk: bytes) -> Iterator[bytes]:
        from apache_beam.internal import pickler

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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Beam silent while a job runs: two tiny jobs write 228 lines otherwise, and what matters is raised."""
    logging.disable(logging.WARNING)  # while Beam is imported: it logs to the root logger
    try:
        require("apache_beam", "curate")
    finally:
        logging.disable(logging.NOTSET)
    logger = logging.getLogger("apache_beam")
    level, hook = logger.level, threading.excepthook
    logger.setLevel(logging.CRITICAL + 1)
    threading.excepthook = _ignore_broken_connections(hook)
    try:
        yield
    finally:
        logger.setLevel(level)
        threading.excepthook = hook


def _ignore_broken_connections(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Keep Beam's reader threads from printing a traceback for a worker whose death has been reported."""
    grpc = require("grpc", "curate")
    return lambda thread: None if isinstance(thread.exc_value, grpc.RpcError) else hook(thread)
