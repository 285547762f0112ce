"""A job gives the same result wherever it runs, its errors arrive as they were raised, and nothing is left behind."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import apache_beam as beam
import pytest

from penstock import InputError, RequestError, RunError
from penstock.pipelines.beam_graph import CHUNK, Job, build
from penstock.pipelines.runners import RunnerOptions, missing, preflight, run_job, session

HERE = Path(__file__).parent
IN_PROCESS = RunnerOptions(in_process=True)
TWO_WORKERS = RunnerOptions(workers=2)
EVERYWHERE = pytest.mark.parametrize("options", [IN_PROCESS, TWO_WORKERS], ids=["in_process", "two_workers"])


@pytest.fixture(scope="module", autouse=True)
def one_session() -> Iterator[None]:
    """What the workers of all these tests are forked from: to start it takes 2 s."""
    with session(TWO_WORKERS):
        yield


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The jobs, imported from a folder that only this process's `sys.path` names, as a user's script's folder is."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("runner_jobs")


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_runs_every_task_once_and_groups_the_same_everywhere(jobs: ModuleType, tmp_path: Path) -> None:
    results = []
    for name, options in (("one", IN_PROCESS), ("two", TWO_WORKERS)):
        out = tmp_path / name
        out.mkdir()
        tasks = [jobs.Number(n) for n in range(2 * CHUNK + 1)]  # more than one element of the graph holds
        run_job(Job("numbers", tasks, partial(jobs.remainder, str(out)), partial(jobs.write_sorted, str(out))), options)
        results.append({path.name: path.read_text() for path in out.glob("mod *")})
        workers = {path.read_text() for path in out.glob("task-*")}
        assert len(list(out.glob("task-*"))) == len(tasks)
        assert (workers == {str(os.getpid())}) is (name == "one")
        assert len(workers) == (1 if name == "one" else 2)
    expected = {f"mod {m}": " ".join(str(n) for n in range(2 * CHUNK + 1) if n % 7 == m) for m in range(7)}
    assert results == [expected, expected]


@EVERYWHERE
def test_expands_chunks_of_the_plan_in_a_worker(jobs: ModuleType, tmp_path: Path, options: RunnerOptions) -> None:
    run_job(Job("chunks", [(0, 3), (3, 5)], partial(jobs.touch, str(tmp_path)), expand=jobs.numbers), options)
    assert sorted(path.name for path in tmp_path.iterdir()) == list("01234")


@pytest.mark.long
def test_workers_start_one_by_one_where_forks_are_not_safe(
    jobs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pipelines.workers.fork_server", lambda: None)
    run_job(Job("few", [jobs.Number(3)], partial(jobs.remainder, str(tmp_path))), TWO_WORKERS)
    assert (tmp_path / "task-3").read_text() != str(os.getpid())
    with pytest.raises(RunError, match="a worker process was killed by SIGKILL while at number 1;"):
        run_job(Job("read", [jobs.Number(1)], jobs.kill_self), TWO_WORKERS)


def test_no_tasks_is_no_job() -> None:
    run_job(Job("nothing", [], print), RunnerOptions(runner="no such runner"))


@EVERYWHERE
def test_an_error_comes_back_in_its_class_with_its_message(
    jobs: ModuleType, options: RunnerOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as caught:
        run_job(Job("read", [jobs.Number(3)], jobs.refuse), options)
    assert str(caught.value) == "file 3 is müde\nand has two lines"
    assert "in refuse" in str(caught.value.__cause__)
    assert capfd.readouterr() == ("", "")


@EVERYWHERE
def test_an_error_of_a_reduce_comes_back(jobs: ModuleType, tmp_path: Path, options: RunnerOptions) -> None:
    with pytest.raises(InputError, match=r"^group mod 3 is refused$"):
        run_job(Job("read", [jobs.Number(3)], partial(jobs.remainder, str(tmp_path)), jobs.refuse_group), options)


@EVERYWHERE
def test_an_unexpected_error_names_job_task_and_error(jobs: ModuleType, options: RunnerOptions) -> None:
    with pytest.raises(RunError, match=r"^read: ZeroDivisionError: cannot divide 3 \(while at number 3\)$") as caught:
        run_job(Job("read", [jobs.Number(3)], jobs.divide), options)
    assert "in divide" in str(caught.value.__cause__)


def test_a_job_that_cannot_be_sent_is_a_run_error() -> None:
    with pytest.raises(RunError, match=r"^read: TypeError: .*pickle"):
        run_job(Job("read", [(n for n in "ab")], print), IN_PROCESS)


def test_the_other_worker_stops_after_the_task_it_is_at(jobs: ModuleType, tmp_path: Path) -> None:
    tasks = [jobs.Number(n) for n in range(40)]
    with pytest.raises(InputError, match="task 0 is refused"):
        run_job(Job("read", tasks, partial(jobs.fail_first_then_touch, str(tmp_path))), TWO_WORKERS)
    assert len(list(tmp_path.iterdir())) < 5


def test_a_killed_worker_is_a_run_error_that_names_its_task(
    jobs: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError, match=r"a worker process was killed by SIGKILL while at number 1;"):
        run_job(Job("read", [jobs.Number(n) for n in range(4)], jobs.kill_self), TWO_WORKERS)
    assert capfd.readouterr() == ("", "")


def test_a_killed_worker_leaves_no_scratch(jobs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(RunError, match="was killed by SIGKILL"):
        run_job(Job("read", [jobs.Number(n) for n in range(2)], jobs.write_and_die), TWO_WORKERS)
    assert not list(tmp_path.iterdir())


CLIENT = """
    import signal
    import sys
    from functools import partial
    sys.path.insert(0, sys.argv[1])
    import runner_jobs as jobs
    from penstock.pipelines.runners import Job, RunnerOptions, run_job
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what they run in the background ignore it
    run_job(Job("sleep", [jobs.Number(0), jobs.Number(1)], partial(jobs.sleep, sys.argv[2])), RunnerOptions(workers=2))
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A client whose two workers are in the middle of a task."""
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CLIENT), str(HERE), str(out)], stderr=subprocess.DEVNULL
    )
    assert wait_until(lambda: len(list(out.iterdir())) == 2, 60)
    yield process
    process.kill()
    process.wait()


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_workers_end_with_their_client(client: subprocess.Popen[bytes], how: signal.Signals, tmp_path: Path) -> None:
    workers = [int(path.name.removeprefix("pid-")) for path in (tmp_path / "out").iterdir()]
    assert all(map(alive, workers))
    client.send_signal(how)
    assert client.wait(30) != 0
    assert wait_until(lambda: not any(map(alive, workers)), 30)


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with neither Java nor Maven nor jars."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("JAVA_HOME", "PENSTOCK_SPARK_JARS", "PENSTOCK_FLINK_JARS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (RunnerOptions("spak"), "runner 'spak' is unknown: use local, spark, flink, dataflow"),
        (RunnerOptions("no.such.Runner"), "runner no.such.Runner cannot be imported: No module named 'no'"),
        (RunnerOptions("apache_beam.Nothing"), "runner apache_beam.Nothing cannot be imported: module 'apache_beam'"),
        (RunnerOptions("spark"), "install a Java runtime"),
        (RunnerOptions(job_endpoint="localhost:1"), "--job-endpoint is for --runner spark or flink, not for local"),
        (RunnerOptions("flink", spark_master="local"), "--spark-master is for --runner spark, not for flink"),
        (RunnerOptions(beam_options=("--direct_num_workers=x",)), "Beam refuses its options --direct_num_workers=x: "),
        (RunnerOptions(beam_options=("--help",)), "--help behind -- shows Beam's options and runs nothing"),
        (RunnerOptions("flink"), "set PENSTOCK_FLINK_JARS to a folder that holds org.apache.beam:beam-runners-flink"),
        (RunnerOptions("spark", job_endpoint="localhost:1"), "no job server answers at localhost:1"),
        (RunnerOptions("spark", spark_master="spark://head:7077"), "--environment_type=EXTERNAL"),
        (RunnerOptions("dataflow", beam_options=("--project=p",)), "runner dataflow needs region: give it after --"),
    ],
    ids=str,
)
def test_says_what_a_runner_lacks_before_anything_starts(options: RunnerOptions, says: str) -> None:
    with pytest.raises(RequestError) as caught, session(options):
        pytest.fail("the session began")
    assert says in str(caught.value)
    assert not any("\n" in sentence for sentence in missing(options))


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    "options",
    [
        RunnerOptions(),
        RunnerOptions("PrismRunner"),
        RunnerOptions("apache_beam.runners.portability.fn_api_runner.FnApiRunner"),
    ],
    ids=str,
)
def test_lacks_nothing(options: RunnerOptions) -> None:
    assert missing(options) == []
    with session(options) as same:
        assert same is options


def test_refuses_no_workers() -> None:
    with pytest.raises(RequestError, match="workers is 0; it must be 1 or more"):
        preflight(RunnerOptions(workers=0))


def test_runs_on_any_runner_of_beam(jobs: ModuleType, tmp_path: Path) -> None:
    options = RunnerOptions("BundleBasedDirectRunner")
    run_job(Job("any", [jobs.Number(1), jobs.Number(8)], partial(jobs.touch, str(tmp_path))), options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "8"]
    with pytest.raises(InputError, match=r"file 1 is müde"):
        run_job(Job("any", [jobs.Number(1)], jobs.refuse), options)


def test_translates_for_dataflow(jobs: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("google.cloud.dataflow", reason="apache-beam[gcp] is not installed")
    flags = ["--runner=DataflowRunner", "--dry_run=True", "--project=penstock-dry-run", "--region=europe-west1"]
    flags += ["--temp_location=gs://penstock/tmp", "--staging_location=gs://penstock/staging"]
    flags += ["--sdk_container_image=penstock:test"]
    pipeline = beam.Pipeline(
        options=importlib.import_module("apache_beam.options.pipeline_options").PipelineOptions(flags)
    )
    build(pipeline, Job("numbers", [jobs.Number(1)], partial(jobs.remainder, "out"), partial(jobs.write_sorted, "out")))
    job = pipeline.run().job.proto
    assert job.type_ == type(job.type_).JOB_TYPE_BATCH
    graph = pipeline.runner.proto_pipeline.components
    assert {"numbers: map", "numbers: group", "numbers: reduce"} <= {t.unique_name for t in graph.transforms.values()}
