"""The same job on the real Spark and Flink runners, behind a job server that penstock starts."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

from penstock import InputError, RunError
from penstock.pipelines.job_server import ENGINES, SPARK, reachable, serve
from penstock.pipelines.runners import Job, RunnerOptions, run_job, session

pytestmark = pytest.mark.spark
HERE = Path(__file__).parent
EXPECTED = {f"mod {m}": " ".join(str(n) for n in range(30) if n % 7 == m) for m in range(7)}


@pytest.fixture(scope="module")
def jobs() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        yield importlib.import_module("runner_jobs")


@pytest.fixture(scope="module", params=sorted(ENGINES))
def running(request: pytest.FixtureRequest) -> Iterator[RunnerOptions]:
    """A job server for two workers, shared by the tests of one engine, as the jobs of one run share it."""
    engine = ENGINES[request.param]
    if missing := engine.missing():
        pytest.skip("; ".join(missing))
    if not any(engine.jars.glob("*.jar")):
        pytest.skip(f"{engine.jars} holds no jars: python -m penstock.pipelines.job_server {engine.name} fetches them")
    with session(RunnerOptions(runner=engine.name, workers=2)) as options:
        yield options


def numbers_job(jobs: ModuleType, out: Path) -> Job:
    tasks = [jobs.Number(n) for n in range(30)]
    return Job("numbers", tasks, partial(jobs.remainder, str(out)), partial(jobs.write_sorted, str(out)))


def test_groups_as_the_local_runner_does_in_two_processes(
    running: RunnerOptions, jobs: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_job(numbers_job(jobs, tmp_path), running)
    assert {path.name: path.read_text() for path in tmp_path.glob("mod *")} == EXPECTED
    workers = {path.read_text() for path in tmp_path.glob("task-*")}
    assert len(workers) == 2
    assert str(os.getpid()) not in workers
    assert capfd.readouterr() == ("", "")


def test_one_worker_is_this_process(running: RunnerOptions, jobs: ModuleType, tmp_path: Path) -> None:
    run_job(numbers_job(jobs, tmp_path), RunnerOptions(running.runner, workers=1, job_endpoint=running.job_endpoint))
    assert {path.name: path.read_text() for path in tmp_path.glob("mod *")} == EXPECTED
    assert {path.read_text() for path in tmp_path.glob("task-*")} == {str(os.getpid())}


def test_an_error_comes_back_in_its_class_with_its_message(running: RunnerOptions, jobs: ModuleType) -> None:
    with pytest.raises(InputError) as caught:
        run_job(Job("read", [jobs.Number(3)], jobs.refuse), running)
    assert str(caught.value) == "file 3 is müde\nand has two lines"


def test_an_error_comes_back_through_java_from_workers_elsewhere(running: RunnerOptions, jobs: ModuleType) -> None:
    address, pool = BeamFnExternalWorkerPoolServicer.start()  # Beam's own pool stands for the workers of a cluster
    flags = ("--environment_type=EXTERNAL", f"--environment_config={address}")
    options = RunnerOptions(running.runner, job_endpoint=running.job_endpoint, beam_options=flags)
    with pytest.raises(InputError) as caught:
        run_job(Job("read", [jobs.Number(3)], jobs.refuse), options)
    pool.stop(0)
    assert str(caught.value) == "file 3 is müde\nand has two lines"


def test_a_killed_worker_is_a_run_error_that_names_its_task(running: RunnerOptions, jobs: ModuleType) -> None:
    with pytest.raises(RunError, match=r"a worker process was killed by SIGKILL while at number 1;"):
        run_job(Job("read", [jobs.Number(n) for n in range(4)], jobs.kill_self), running)


def test_a_killed_job_server_is_a_run_error(running: RunnerOptions, jobs: ModuleType, tmp_path: Path) -> None:
    if running.runner != "spark":
        pytest.skip("the same path as Spark's, and the slowest test here")
    with serve(SPARK, "local[1]") as endpoint:

        def kill_when_at_work() -> None:
            while not any(tmp_path.iterdir()):
                time.sleep(0.1)
            for pid in server_processes(endpoint):
                os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_when_at_work)
        killer.start()
        options = RunnerOptions(running.runner, workers=1, job_endpoint=endpoint)
        with pytest.raises(RunError, match=rf"the job server at {endpoint} went away"):
            run_job(Job("sleep", [jobs.Number(0)], partial(jobs.sleep, str(tmp_path))), options)
        killer.join()
        with pytest.raises(RunError, match=rf"no job server answers at {endpoint}"):
            run_job(Job("sleep", [jobs.Number(0)], jobs.refuse), options)


def server_processes(endpoint: str) -> list[int]:
    flag = f"--job-port={endpoint.rpartition(':')[2]}"
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile
            if flag in (entry / "cmdline").read_bytes().decode(errors="replace").split("\0"):
                found.append(int(entry.name))
    return found


def test_a_job_server_ends_with_its_session(running: RunnerOptions) -> None:
    with serve(ENGINES[running.runner], "[local]") as endpoint:
        assert reachable(endpoint)
        assert server_processes(endpoint)
    assert not reachable(endpoint)
    assert not server_processes(endpoint)
