"""What the tests of the fork server fork; a module of its own, for the server imports it by name."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from penstock.pipelines.fork_server import serve_forks

PREPARED: list[int] = []


def serve_workers(pipe: str) -> None:
    serve_forks(pipe, work)


def note_process() -> None:
    PREPARED.append(os.getpid())


def fail() -> None:
    raise ZeroDivisionError("not today")


def work(what: str, out: str = "") -> None:
    if what == "tell":
        told = {"folder": os.getcwd(), "path": sys.path, "named": os.environ.get("NAMED"), "prepared": PREPARED}
        tasks = Path(f"/proc/{os.getppid()}/task").iterdir()
        threads = [task.joinpath("comm").read_text().strip() for task in tasks]
        Path(out).write_text(json.dumps({**told, "parent": os.getppid(), "threads": threads[1:]}))
    elif what == "exit":
        sys.exit(3)
    elif what == "raise":
        raise ValueError("told on stderr")
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "sleep":
        time.sleep(600)
