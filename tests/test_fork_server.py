"""Forks run in the place of their client, their ends are told, and none outlives the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path

import fork_jobs
import pytest

import penstock
from penstock import RunError
from penstock.pipelines.compiling import load_kernels
from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.fork_server import ForkServer, boot, fork_server, forking
from penstock.pipelines.recipe import Recipe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux alone")


@pytest.fixture
def server() -> Iterator[ForkServer]:
    made = ForkServer(fork_jobs.__name__)
    yield made
    made.close()


def gone(pid: int) -> bool:
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_a_fork_works_in_the_place_of_its_client(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAMED", "after the server started")
    monkeypatch.syspath_prepend(str(tmp_path))
    server.prepare(fork_jobs.note_process)
    told = []
    for number in range(2):
        assert server.fork("tell", f"{number}.json").wait(60) == 0
        told.append(json.loads(Path(f"{number}.json").read_text()))
    parent = told[0]["parent"]
    assert parent != os.getpid()
    for one in told:
        assert one == {
            "folder": str(tmp_path), "path": sys.path, "named": "after the server started", "prepared": [parent],
            "parent": parent, "threads": [],
        }  # fmt: skip


def test_ends_are_told_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(ForkServer(fork_jobs.__name__)) as server:
        forks = [server.fork(what) for what in ("exit", "raise", "kill", "nothing")]
        assert [fork.wait(60) for fork in forks] == [3, 1, -signal.SIGKILL, 0]
        assert [fork.poll() for fork in forks] == [3, 1, -signal.SIGKILL, 0]
    assert "ValueError: told on stderr" in capfd.readouterr().err


def test_a_fork_can_be_waited_for_and_killed(server: ForkServer) -> None:
    fork = server.fork("sleep")
    assert fork.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.1)
    fork.kill()
    assert fork.wait(60) == -signal.SIGKILL
    fork.kill()
    assert gone(fork.pid)


def test_no_fork_outlives_the_close_of_its_server(server: ForkServer) -> None:
    fork = server.fork("sleep")
    server.close()
    assert gone(fork.pid)
    assert fork.poll() == -signal.SIGKILL


GONE = "forked from has ended with code {}; what is committed stays"


def test_a_server_that_was_killed_is_told_in_words(server: ForkServer, tmp_path: Path) -> None:
    assert server.fork("tell", str(tmp_path / "told")).wait(60) == 0
    os.kill(json.loads((tmp_path / "told").read_text())["parent"], signal.SIGKILL)
    with pytest.raises(RunError, match=GONE.format(-9)):
        server.fork("nothing")


def test_a_server_that_cannot_be_prepared_is_told_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(ForkServer(fork_jobs.__name__)) as server:
        server.prepare(fork_jobs.fail)
        with pytest.raises(RunError, match=GONE.format(1)):
            server.fork("nothing")
    assert "ZeroDivisionError: not today" in capfd.readouterr().err


def test_a_server_takes_no_module_from_the_folder_it_starts_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a checkout or a script lies, which the client did not import: `python -c` would take it first."""
    (tmp_path / "queue.py").write_text("raise SystemExit(7)")
    (tmp_path / "penstock").mkdir()
    (tmp_path / "penstock" / "__init__.py").write_text("raise SystemExit(8)")
    monkeypatch.chdir(tmp_path)
    with closing(ForkServer(fork_jobs.__name__)) as server:
        assert server.fork("tell", "told.json").wait(60) == 0
    here = penstock.__file__
    started = [sys.executable, "-c", boot("json", "dumps"), "x"]
    assert subprocess.run(started, check=False).returncode == 0
    assert penstock.__file__ == here


def test_ends_are_told_where_the_client_ignores_its_children(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with closing(ForkServer(fork_jobs.__name__)) as server:
            assert server.fork("exit").wait(60) == 3
            assert server.fork("tell", str(tmp_path / "told")).wait(60) == 0
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_server_that_cannot_read_a_file_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    """An OSError of what it prepares is no sign that the client is gone."""
    with closing(ForkServer(fork_jobs.__name__)) as server:
        server.prepare(partial(open, "/no/such/file"))
        with pytest.raises(RunError, match=GONE.format(1)):
            server.fork("nothing")
    assert "FileNotFoundError" in capfd.readouterr().err


def test_a_fork_of_the_client_has_no_server() -> None:
    with forking(fork_jobs.__name__):
        assert fork_server() is not None
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert fork_server() is None
                # It would wait for gRPC's threads, which are in the parent, for ever.
                with pytest.raises(RunError, match=r"forked from one that had run worker processes.*workers=1"):
                    forking(fork_jobs.__name__).__enter__()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert fork_server() is not None


def test_blocks_share_a_server_and_the_last_one_ends_it(tmp_path: Path) -> None:
    assert fork_server() is None
    with forking(fork_jobs.__name__):
        held = fork_server()
        with forking("no.such.module"):
            assert fork_server() is held
        assert held is not None
        assert held.fork("tell", str(tmp_path / "told")).wait(60) == 0
    assert fork_server() is None
    assert gone(json.loads((tmp_path / "told").read_text())["parent"])


@pytest.mark.long
def test_loading_every_kernel_leaves_no_thread_in_the_server(server: ForkServer, tmp_path: Path) -> None:
    """A fork takes one thread along, and what another held stays locked for ever: but jemalloc's, which knows forks."""
    steps = ["extract_html", "language_id", "gopher_repetition", "gopher_quality", "c4_quality", "fineweb_quality"]
    recipe = Recipe.from_value({"inputs": {"web": {"path": "unread"}}, "steps": steps, "text": {}})
    server.prepare(partial(import_module, "penstock.pipelines.workers"))
    server.prepare(partial(import_module, "apache_beam.runners.worker.sdk_worker"))
    server.prepare(partial(load_kernels, recipe.steps, Dedup()))
    assert server.fork("tell", str(tmp_path / "told")).wait(270) == 0
    assert set(json.loads((tmp_path / "told").read_text())["threads"]) <= {"jemalloc_bg_thd"}
