"""The one place that hands work to Apache Beam: a `Job` is tasks mapped and, where it has a reduce, grouped and reduced.

    Create(names of plan chunks) | Expand | Reshuffle | Map(task) [| GroupByKey | Reduce]

Beam distributes; what a task did stands in its receipt, never in Beam's metrics or outputs. Text and tokens never cross a
shuffle: Beam's local runner takes about 6 bytes of memory per shuffled byte and cannot spill. Starting worker processes
costs 4 s or more, so small jobs run in this one.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import PenstockError, RequestError, RunError, require

Pair = tuple[str, bytes]
LOCAL = ("local", "direct")
CHUNK = 500  # tasks in one element of the graph: a graph is a message, and job servers refuse large ones
_MARK = "penstock-error "


@dataclass(frozen=True)
class RunnerOptions:
    """Where a job runs.

    `runner`: `local` (worker processes on this machine), `spark`, `flink`, `dataflow`, or any Beam runner's name.
    `workers`: local worker processes, one a core by default. `in_process`: no worker processes at all (small jobs).
    `spark_master`: the master that a job server started here works for. `job_endpoint`: `host:port` of a job server that
    already runs. `beam_options`: handed to Beam as they are.
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

    `tasks` are picklable values. With `expand` they are names of plan chunks instead, and `expand(name)` gives the tasks in
    a worker, so that the graph never holds the list of files. `map` commits its own receipt; what it yields is
    (key, small value). `reduce` gets a key and its values, in no order, and commits too. Both must be importable or
    picklable: a `functools.partial` of a module's function is.
    """

    name: str
    tasks: Sequence[Any]
    map: Callable[[Any], Iterable[Pair] | None]
    reduce: Callable[[str, Iterable[bytes]], None] | None = None
    expand: Callable[[Any], Iterable[Any]] | None = None


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_job(job: Job, options: RunnerOptions = RunnerOptions()) -> None:  # noqa: B008 - frozen
    """Run a job to its end; the error of a task comes back as it was raised, in the class it was raised in."""
    if not job.tasks:
        return
    require("apache_beam", "curate")
    with _quiet():
        try:
            _run(job, options)
        except PenstockError:
            raise
        except Exception as error:
            raise _original(job, str(error)) from error


def _run(job: Job, options: RunnerOptions) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    if options.runner not in LOCAL:
        raise RequestError(f"runner {options.runner!r} is not there yet: use local")
    workers = options.processes()
    mode = "in_memory" if workers == 1 else "multi_processing"
    flags = [f"--direct_running_mode={mode}", f"--direct_num_workers={workers}", *options.beam_options]
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(flags)) as pipeline:
        build(pipeline, job)


def build(pipeline: Any, job: Job) -> None:
    """Wire a job into a Beam pipeline."""
    import apache_beam as beam
    from apache_beam.internal import pickler

    per = CHUNK if job.expand is None else 1
    chunks = [pickler.dumps(list(job.tasks[at : at + per])) for at in range(0, len(job.tasks), per)]
    mapped = (
        pipeline
        | f"{job.name}: plan" >> beam.Create(chunks, reshuffle=False).with_output_types(bytes)
        | f"{job.name}: expand" >> beam.FlatMap(_Expand(job.name, job.expand)).with_output_types(bytes)
        | f"{job.name}: spread" >> beam.Reshuffle()
        | f"{job.name}: map" >> beam.FlatMap(_Map(job.name, job.map)).with_output_types(tuple[str, bytes])
    )
    if job.reduce is not None:
        (
            mapped
            | f"{job.name}: group" >> beam.GroupByKey()
            | f"{job.name}: reduce" >> beam.FlatMap(_Reduce(job.name, job.reduce)).with_output_types(bytes)
        )


@dataclass(frozen=True)
class _Expand:
    """Pickled chunk → pickled tasks."""

    job: str
    expand: Callable[[Any], Iterable[Any]] | None

    def __call__(self, chunk: bytes) -> Iterator[bytes]:
        from apache_beam.internal import pickler

        with _carried():
            for item in pickler.loads(chunk):
                for task in [item] if self.expand is None else self.expand(item):
                    yield pickler.dumps(task)


@dataclass(frozen=True)
class _Map:
    """Pickled task → its pairs."""

    job: str
    map: Callable[[Any], Iterable[Pair] | None]

    def __call__(self, task: bytes) -> Iterator[Pair]:
        from apache_beam.internal import pickler

        with _carried():
            yield from self.map(pickler.loads(task)) or ()


@dataclass(frozen=True)
class _Reduce:
    """(key, values) → nothing: the reduce commits."""

    job: str
    reduce: Callable[[str, Iterable[bytes]], None]

    def __call__(self, group: tuple[str, Iterable[bytes]]) -> Iterator[bytes]:
        with _carried():
            self.reduce(*group)
        return iter(())


class TaskFailure(Exception):
    """Carries an error through a runner, which hands on only text: one marked line that `run_job` reads back."""


@contextmanager
def _carried() -> Iterator[None]:
    try:
        yield
    except TaskFailure:
        raise
    except Exception as error:
        body = {"class": type(error).__name__, "message": str(error), "ours": isinstance(error, PenstockError)}
        raise TaskFailure(_MARK + json.dumps(body)) from error


def _original(job: Job, text: str) -> PenstockError:
    """Read the error back from what the runner says; the runner's own text where nothing of ours is in it."""
    at = text.find(_MARK)
    if at < 0:
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
        return RunError(f"{job.name}: {last}")
    body, _ = json.JSONDecoder().raw_decode(text, at + len(_MARK))
    if body["ours"]:
        return _classes().get(body["class"], RunError)(body["message"])
    return RunError(f"{job.name}: {body['class']}: {body['message']}")


def _classes() -> dict[str, type[PenstockError]]:
    """Name every class of penstock's exception tree."""
    known: dict[str, type[PenstockError]] = {}
    below = [PenstockError]
    while below:
        cls = below.pop()
        known[cls.__name__] = cls
        below += cls.__subclasses__()
    return known


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Beam's log to errors while a job runs: two tiny jobs write 228 lines otherwise."""
    logger = logging.getLogger("apache_beam")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
