"""How an error travels from a task to the client: runners hand on text at best, so as one marked line of text.

On one machine the line goes by a `Desk`, a directory, past the runner. The desk also tells what no runner does: which
task a worker that died was at, and that another worker has failed, so that the rest stop after the task they are at.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import PenstockError, RunError

_MARK = "penstock-error "
RESERVED = 1 << 16  # bytes; a marked line has at most 20,000 characters of traceback


class TaskFailure(Exception):
    """An error on its way through a runner, as its marked line; or the traceback behind an error that has arrived."""


def marked(error: BaseException, name: str = "") -> str:
    """Write an error as one line of ASCII that survives tracebacks, Java and logs; one that is already, as it is."""
    if _MARK in str(error):
        return str(error)
    trace = "".join(traceback.format_exception(error))[-20_000:]
    full = full_disk(error)
    said = {"class": "StoreError" if full else type(error).__name__, "message": full or str(error)}
    return _MARK + json.dumps({**said, "at": name, "trace": trace})


def full_disk(error: BaseException) -> str | None:
    """Say that a disk is full, and which; None where the error is another, or penstock's own."""
    if not isinstance(error, OSError) or isinstance(error, PenstockError):
        return None
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    where = error.filename or f"the scratch folder {tempfile.gettempdir()}, or of what is printed to"
    return (
        f"no space left on the disk of {where}; make room (TMPDIR moves the scratch folder) and run the same command "
        "again, what is committed is kept"
    )


def original(job: str, text: str) -> PenstockError:
    """Read an error back: penstock's own in its class; any other as a `RunError` that names the job, the task and it.

    `text` holds a marked line somewhere. The traceback is the text of the error's `__cause__`.
    """
    at = text.find(_MARK)
    body = {"class": "RunError", "message": f"{job}: the runner gave no reason", "trace": text}
    if at >= 0:
        body, _ = json.JSONDecoder().raw_decode(text, at + len(_MARK))
    if (known := _classes().get(body["class"])) is not None:
        error = known(body["message"])
    else:
        while_at = f" (while at {body['at']})" if body["at"] else ""
        error = RunError(f"{job}: {body['class']}: {body['message']}{while_at}")
    error.__cause__ = TaskFailure(body["trace"])
    return error


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

    @property
    def spare(self) -> Path:
        """Where room is kept for a failure's line, for the failure may be that the disk is full."""
        return Path(self.path, "spare")

    def reserve(self) -> Desk:
        """Take the room that a failure's line needs, before work starts."""
        self.spare.write_bytes(bytes(RESERVED))
        return self

    def fail(self, line: str) -> None:
        """Report a failure; the first one stands."""
        try:
            with open(self.failed, "x", encoding="utf-8") as file:
                file.write(line)
        except FileExistsError:
            return
        except OSError:  # the disk is full: half a line would hide that
            self.failed.unlink(missing_ok=True)
            with suppress(FileNotFoundError), self.spare.open("r+b") as reserved:
                reserved.write(line.encode())
                reserved.truncate()
                self.spare.rename(self.failed)

    def failure(self) -> str | None:
        """Read the first failure's marked line; None where nothing has failed."""
        try:
            return self.failed.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def note(self, name: str) -> None:
        """Note what this process is at; not on a full disk, where the task itself fails and says so."""
        with suppress(OSError):
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


def stopped(desk: Desk | None) -> bool:
    """Tell whether another task has failed, so that there is no sense in starting one more."""
    return desk is not None and desk.failed.exists()


@contextmanager
def carried(name: str, desk: Desk | None) -> Iterator[None]:
    """Bring an error inside to the client: by the desk where there is one, else through the runner.

    Nothing is raised where there is a desk, for Beam would print each error four times over; `run_job` raises it.
    """
    try:
        if desk is not None:
            desk.note(name)
        yield
        if desk is not None:
            desk.note("")
    except Exception as error:
        line = marked(error, name)
        if desk is None:
            raise TaskFailure(line) from error
        desk.fail(line)


def title(task: Any) -> str:
    """Name a task in an error: its `name` where it has one, else its text, cut."""
    name = str(getattr(task, "name", task))
    return name if len(name) <= 200 else name[:197] + "..."
