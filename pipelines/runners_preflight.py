"""What a job needs of where it runs, checked and said in words before anything starts."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from .. import RequestError
from .beam_quiet import quietly
from .job_server import ENGINES, reachable

RUNNERS = ("local", "spark", "flink", "dataflow")


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


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def missing(options: RunnerOptions) -> list[str]:
    """Say what a runner lacks, a sentence each; an empty list where a job can be sent."""
    name, flags = options.runner, options.beam_options
    options.processes()
    if says := _misplaced(options) + _refused_flags(flags):
        return says
    if name in ENGINES:
        if options.job_endpoint is None:
            says = ENGINES[name].missing()
        else:
            says = [] if reachable(options.job_endpoint) else [f"no job server answers at {options.job_endpoint}"]
        if not _on_this_machine(options) and not given(flags, "environment_type"):
            says.append(
                f"runner {name} works on other machines: say where its Python workers are, as in "
                "-- --environment_type=EXTERNAL --environment_config=localhost:50000"
            )
        return says
    if name == "dataflow":
        says = [
            f"runner dataflow needs {flag}: give it after --, as in -- --{flag}=..."
            for flag in ("project", "region", "temp_location")
            if not given(flags, flag)
        ]
        if (
            find_spec("google") is None
            or find_spec("google.cloud") is None
            or find_spec("google.cloud.dataflow") is None
        ):
            says.append("runner dataflow needs Google's client: pip install 'apache-beam[gcp]' 'penstock[gcp]'")
        return says
    if name == "local" or name in _beam_runners():
        return []
    if "." in name:
        return _unimportable(name)
    return [f"runner {name!r} is unknown: use {', '.join(RUNNERS)} or the name of one of Beam's"]


def preflight(options: RunnerOptions) -> None:
    """Refuse, before anything starts, a runner that lacks something; the RequestError says all that it lacks."""
    if lacks := missing(options):
        raise RequestError("; ".join(lacks))


def _misplaced(options: RunnerOptions) -> list[str]:
    """Name options that the runner would not look at."""
    says = []
    if options.job_endpoint is not None and options.runner not in ENGINES:
        says.append(f"--job-endpoint is for --runner spark or flink, not for {options.runner}")
    if options.spark_master is not None and options.runner != "spark":
        says.append(f"--spark-master is for --runner spark, not for {options.runner}")
    return says


def _refused_flags(flags: Sequence[str]) -> list[str]:
    """Say what Beam refuses in its own options: it would print pages and end the process."""
    if not flags:
        return []
    said = io.StringIO()
    with quietly():
        from apache_beam.options.pipeline_options import PipelineOptions

        try:
            with redirect_stdout(said), redirect_stderr(said):
                PipelineOptions(list(flags)).get_all_options()
        except SystemExit as stop:
            if not stop.code:
                return ["--help behind -- shows Beam's options and runs nothing: leave it out"]
            last = [line for line in said.getvalue().splitlines() if line.strip()][-1]
            return [f"Beam refuses its options {' '.join(flags)}: {last.partition('error: ')[2] or last}"]
    return []


def _unimportable(name: str) -> list[str]:
    module, _, attribute = name.rpartition(".")
    try:
        getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        return [f"runner {name} cannot be imported: {error}"]
    return []


def _on_this_machine(options: RunnerOptions) -> bool:
    """Tell whether a job server's workers can be processes started here."""
    host = (options.job_endpoint or "localhost").rpartition(":")[0]
    return (options.spark_master or "local").startswith("local") and host in ("", "localhost", "127.0.0.1", "[::1]")


def given(flags: Sequence[str], name: str) -> bool:
    """Tell whether one of Beam's options is given."""
    return any(flag.split("=")[0] == f"--{name}" for flag in flags)


def _beam_runners() -> set[str]:
    from apache_beam.options.pipeline_options import StandardOptions

    return {path.rpartition(".")[2] for path in StandardOptions.ALL_KNOWN_RUNNERS}
