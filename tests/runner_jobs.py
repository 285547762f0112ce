"""What the jobs of the runner tests do; a module of its own, for workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock import InputError
from penstock.pipelines.stage import spool


@dataclass(frozen=True)
class Number:
    value: int

    @property
    def name(self) -> str:
        return f"number {self.value}"


def numbers(chunk: tuple[int, int]) -> Iterator[Number]:
    return map(Number, range(*chunk))


def remainder(out: str, task: Number) -> Iterator[tuple[str, bytes]]:
    Path(out, f"task-{task.value}").write_text(str(os.getpid()))
    yield f"mod {task.value % 7}", str(task.value).encode()


def write_sorted(out: str, key: str, values: Iterable[bytes]) -> None:
    Path(out, key).write_text(" ".join(map(str, sorted(map(int, values)))))


def touch(out: str, task: Number) -> None:
    Path(out, str(task.value)).touch()


def refuse(task: Number) -> None:
    raise InputError(f"file {task.value} is müde\nand has two lines")


def refuse_group(key: str, values: Iterable[bytes]) -> None:
    raise InputError(f"group {key} is refused")


def divide(task: Number) -> None:
    raise ZeroDivisionError(f"cannot divide {task.value}")


def fail_first_then_touch(out: str, task: Number) -> None:
    """The first task fails at once; the others, one after another in their worker, leave a file."""
    if task.value == 0:
        raise InputError("task 0 is refused")
    time.sleep(0.5)
    touch(out, task)


def kill_self(task: Number) -> None:
    if task.value == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)  # longer than a test may take: who waits for this fails


def write_and_die(task: Number) -> None:
    with spool() as folder:
        (folder / "part").write_bytes(b"x" * 1000)
        os.kill(os.getpid(), signal.SIGKILL)


def sleep(out: str, task: Number) -> None:
    Path(out, f"pid-{os.getpid()}").touch()
    time.sleep(600)
