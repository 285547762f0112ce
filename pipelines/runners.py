"""Where a job runs: in this process, in worker processes on this machine, on Spark, Flink, Dataflow or any Beam runner.

Beam distributes; penstock writes no scheduler. What Beam leaves open on one machine is closed here and in `workers`:
the error of a task arrives as it was raised, a worker or job server that dies ends the job, and all end with their
client. Starting two local workers costs 1 to 4 s, a Spark job server 2 to 10 s and its first job 5 s more.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from queue import Empty, Queue
from typing import Any

from .. import PenstockError, RunError
from .beam_graph import Job, build
from .beam_quiet import quietly
from .failures import Desk, marked, original
from .fork_server import forking
from .job_server import ENGINES, SPARK, reachable, serve, tell
from .runners_preflight import RunnerOptions, cores, given, missing, preflight

__all__ = ["Job", "RunnerOptions", "cores", "missing", "preflight", "run_job", "session"]


@contextmanager
def session(options: RunnerOptions, say: Callable[[str], None] = tell) -> Iterator[RunnerOptions]:
    """Start what the jobs of one run share, and end it after them: what local workers are forked from, a job server.

    Jobs run with the options this gives. What is missing is refused before anything starts.
    """
    preflight(options)
    with _workers(options):
        if options.runner not in ENGINES or options.job_endpoint is not None:
            yield options
            return
        engine = ENGINES[options.runner]
        master = (options.spark_master or f"local[{options.processes()}]") if engine is SPARK else "[local]"
        with serve(engine, master, say) as endpoint:
            yield replace(options, job_endpoint=endpoint)


def _desk() -> tempfile.TemporaryDirectory[str]:
    """Make the folder that a job's processes share; what a killed one was writing there is no error."""
    return tempfile.TemporaryDirectory(prefix="penstock-", ignore_cleanup_errors=True)


def _workers(options: RunnerOptions) -> AbstractContextManager[None]:
    """Have the workers forked from one process, where this machine runs them."""
    elsewhere = options.runner not in ENGINES or given(options.beam_options, "environment_type")
    if options.processes() == 1 or (elsewhere and options.runner != "local"):
        return nullcontext()
    return forking(f"{__package__}.workers")


def run_job(job: Job, options: RunnerOptions | None = None) -> None:
    """Run a job to its end; the error of a task comes back in the class and with the message it was raised with."""
    options = options or RunnerOptions()
    if not job.tasks:
        return None
    if options.runner in ENGINES and options.job_endpoint is None:
        with session(options) as options:
            return run_job(job, options)
    with quietly(), _workers(options), _desk() as path:
        desk, line = Desk(path).reserve(), None
        try:
            _local(job, options, desk) if options.runner == "local" else _elsewhere(job, options, desk)
        except PenstockError:
            raise
        except Exception as error:
            line = marked(error)
        line = desk.failure() or line
    if line is not None:
        raise original(job.name, line)
    return None


def _local(job: Job, options: RunnerOptions, desk: Desk) -> None:
    """Run on Beam's local runner, by name: the one that Beam picks by itself starts with a download."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from .workers import WorkerEnvironment

    workers = options.processes()
    environment = None if workers == 1 else WorkerEnvironment(desk.path)
    flags = [f"--direct_num_workers={workers}", *options.beam_options]
    with beam.Pipeline(FnApiRunner(environment), PipelineOptions(flags)) as pipeline:
        build(pipeline, job, desk, spread=workers > 1)


def _elsewhere(job: Job, options: RunnerOptions, desk: Desk) -> None:
    """Run where another program distributes the work: a job server, Dataflow, any of Beam's runners."""
    if options.runner not in ENGINES:
        name = "DataflowRunner" if options.runner == "dataflow" else options.runner
        _submit(job, [f"--runner={name}", *options.beam_options], None)
        return
    flags = ["--runner=PortableRunner", f"--job_endpoint={options.job_endpoint}", *options.beam_options]
    if options.runner == "flink" and not given(flags, "parallelism"):
        flags.append(f"--parallelism={options.processes()}")
    if given(flags, "environment_type"):
        _submit(job, flags, None, options.job_endpoint)
    elif (workers := options.processes()) == 1:  # LOOPBACK: the job server hands all work back to this process
        _submit(job, [*flags, "--environment_type=LOOPBACK"], desk, options.job_endpoint)
    else:
        from .workers import WorkerPool

        with WorkerPool(desk) as pool:
            flags += ["--environment_type=EXTERNAL", f"--environment_config={pool.address}"]
            _submit(job, [*flags, f"--sdk_worker_parallelism={workers}"], desk, options.job_endpoint)


def _submit(job: Job, flags: Sequence[str], desk: Desk | None, endpoint: str | None = None) -> None:
    """Send a job and wait for its end; who is interrupted cancels it."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from grpc import RpcError

    if endpoint is not None and not reachable(endpoint):  # Beam would wait for it, 5 minutes
        raise RunError(f"{job.name}: no job server answers at {endpoint}; what is committed stays")
    pipeline = beam.Pipeline(options=PipelineOptions(list(flags)))
    build(pipeline, job, desk)
    result = None
    try:
        result = pipeline.run()
        _wait(result, endpoint)
    except RpcError as error:
        why = f"the job server at {endpoint} went away ({getattr(error, 'details', str)()})"
        raise RunError(f"{job.name}: {why}; what is committed stays: run again to go on") from error
    except KeyboardInterrupt:
        if result is not None:
            result.cancel()
        raise


def _wait(result: Any, endpoint: str | None) -> None:
    """Wait for a job, but not for a job server that three calls, 10 s apart, do not reach: its machine is gone."""
    ended: Queue[BaseException | None] = Queue()

    def wait() -> None:
        try:
            result.wait_until_finish()
            ended.put(None)
        except BaseException as error:
            ended.put(error)

    threading.Thread(target=wait, daemon=True).start()
    missed = 0
    while missed < 3:
        try:
            error = ended.get(timeout=10)
        except Empty:
            missed = missed + 1 if endpoint is not None and not reachable(endpoint) else 0
            continue
        if error is not None:
            raise error
        return
    raise RunError(f"the job server at {endpoint} is out of reach; what is committed stays: run again to go on")
