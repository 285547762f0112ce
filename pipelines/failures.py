"""How an error travels from a task to the client: as one marked line of text, for runners hand on nothing else.

On one machine a `Desk`, a directory, adds what no runner tells: which task a worker that died was at, and that another
worker has failed, so that the rest stop after the task they are at.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import PenstockError, RunError

_MARK = "penstock-error "


class TaskFailure(Exception):
    """An error on its way through a runner; its text is the marked line."""


def marked(error: Exception, name: str = "") -> str:
    """Write an error as one line of ASCII that survives tracebacks, Java and logs."""
    return _MARK + json.dumps({"class": type(error).__name__, "message": str(error), "at": name})


def original(job: str, text: str) -> PenstockError:
    """Read an error back: penstock's own in its class; any other as a `RunError` that names the job, the task and it."""
    at = text.find(_MARK)
    if at < 0:
        return RunError(f"{job}: {_last_line(text)}")
    body, _ = json.JSONDecoder().raw_decode(text, at + len(_MARK))
    if (known := _classes().get(body["class"])) is not None:
        return known(body["message"])
    return RunError(f"{job}: {body['class']}: {body['message']} (while at {body['at']})")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "the runner gave no reason")


def _classes() -> dict[str, type[PenstockError]]:
    known: dict[str, type[PenstockError]] = {}
    below = [PenstockError]
    while below:
        cls = below.pop()
        known[cls.__name__] = cls
        below += cls.__subclasses__()
    return known


@dataclass(frozen=True)
class Desk:
    """A directory that the client and its workers on this machine share for the length of a job."""

    path: str

    @property
    def failed(self) -> Path:
        """Where the first failure is written, as its marked line."""
        return Path(self.path, "failed")

    def fail(self, line: str) -> None:
        """Report a failure; the first one stands."""
        with suppress(FileExistsError), open(self.failed, "x", encoding="utf-8") as file:
            file.write(line)

    def failure(self) -> str | None:
        """Read the failure; None where there is none."""
        try:
            return self.failed.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def note(self, name: str) -> None:
        """Note what this process is at."""
        Path(self.path, str(os.getpid())).write_text(name, encoding="utf-8")

    def noted(self, pid: int) -> str:
        """Read what a process is at, or was."""
        try:
            return Path(self.path, str(pid)).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def bury(self, pid: int, code: int) -> None:
        """Report that a worker process has died, by the code that it ended with; the other workers are ended then."""
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        at = self.noted(pid)
        self.fail(marked(RunError(
            f"a worker process {how}{' while at ' + at if at else ''}; where memory ran out, fewer workers need less. "
            "What is committed stays: run again to go on"
        )))  # fmt: skip
        Path(self.path, "dead").touch()

    def deserted(self) -> bool:
        """Tell whether a worker process has died."""
        return Path(self.path, "dead").exists()


@contextmanager
def carried(name: str, desk: Desk | None) -> Iterator[None]:
    """Turn an error inside into a `TaskFailure`; with a desk, note what is being done and stop where another failed."""
    if desk is not None:
        if (line := desk.failure()) is not None:
            raise TaskFailure(line)
        desk.note(name)
    try:
        yield
    except TaskFailure:
        raise
    except Exception as error:
        line = marked(error, name)
        if desk is not None:
            desk.fail(line)
        raise TaskFailure(line) from error
    finally:
        if desk is not None:
            desk.note("")


def title(task: Any) -> str:
    """Name a task in an error: its `name` where it has one, else its text, cut."""
    name = str(getattr(task, "name", task))
    return name if len(name) <= 200 else name[:197] + "..."
