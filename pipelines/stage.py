"""A stage, a task, a commit: the idea that carries everything.

A stage is a folder addressed by the hash of all that decides its content: its slice of the recipe, the stage before
it, the versions of what computes it; never paths, times, runner or workers. A task is a plain function from a task to
a receipt. It writes data objects under names that hold a hash of their content, then puts one small JSON receipt,
only if there is none, under a name that depends on the task alone. A task whose receipt stands is skipped. Who loses
the race reads the winner's receipt: equal content is success, other content a broken promise. What no receipt names
is garbage.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import CommitConflictError, CorruptDataError, RunError, __version__
from ..sharding.store import Store, crash_point, register_crash_points
from .recipe import digest

register_crash_points(
    "task-started", "task-computed", "receipt-about-to-be-put", "stage-done", "manifest-about-to-be-put"
)

Receipt = dict[str, Any]
#: What a receipt may say beyond its content: two runs of one task need not agree on it.
COST = "cost"
THREADS = 16


def package_versions(*names: str) -> dict[str, str]:
    """Name the versions of the packages that decide a stage's bytes."""
    return {"penstock": __version__, **{name: metadata.version(name) for name in names}}


@dataclass(frozen=True)
class Stage:
    """One stage of a run: where it lies and what it was computed with."""

    name: str
    hash: str
    run: Store
    versions: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, run: Store, name: str, slice_of_recipe: Any, versions: dict[str, str]) -> Stage:
        """Address a stage by what decides its content."""
        return cls(
            name,
            digest({"stage": name, "recipe": slice_of_recipe, "versions": versions}),
            run,
            tuple(sorted(versions.items())),
        )

    @property
    def store(self) -> Store:
        """The stage's own folder."""
        return self.run.child(f"{self.name}/{self.hash}")

    def check_versions(self) -> None:
        """Refuse to compute with other versions than the stage's hash covers."""
        for name, wanted in self.versions:
            here = __version__ if name == "penstock" else metadata.version(name)
            if here != wanted:
                raise RunError(
                    f"this worker has {name} {here}, but the run was planned with {wanted}: "
                    f"install {name}=={wanted} on every worker"
                )

    def receipt(self, key: str) -> Receipt | None:
        """Read a task's receipt; None where the task is not committed."""
        try:
            return self._parsed(self.store.read(receipt_name(key)), key)
        except FileNotFoundError:
            return None

    def _parsed(self, body: bytes, key: str) -> Receipt:
        try:
            receipt = json.loads(body)
            if not isinstance(receipt, dict) or COST not in receipt:
                raise ValueError("it is no receipt")
            return receipt
        except ValueError as error:
            raise self.damaged(key, error) from error

    def damaged(self, key: str, why: object) -> CorruptDataError:
        """Say that a task's receipt cannot be used, and what to do."""
        return CorruptDataError(
            f"{self.store.url}/{receipt_name(key)} is damaged: {why}; remove it and run the same command again, which "
            "runs its task anew"
        )

    def commit(self, key: str, receipt: Receipt) -> Receipt:
        """Put a task's receipt if there is none; give the one that stands."""
        crash_point("receipt-about-to-be-put")
        body = json.dumps(receipt, sort_keys=True, separators=(",", ":")).encode()
        standing = self._parsed(self.store.commit_once(receipt_name(key), body), key)
        if without_cost(standing) != without_cost(json.loads(body)):
            raise CommitConflictError(
                f"task {key} of stage {self.name}/{self.hash} gave other content than what is committed there: "
                "a step is not deterministic, or a package changed under one version; use another --output, or remove "
                "that folder"
            )
        return standing

    def committed(self) -> set[str]:
        """Name the tasks whose receipts stand."""
        return {name.removeprefix("receipts/").removesuffix(".json") for name in self.store.list("receipts/")}

    def require(self, names: Iterable[str]) -> None:
        """Refuse to call a stage finished where objects that its receipts name are gone."""
        lost = sorted(set(names) - set(self.store.list()))
        if lost:
            more = f" and {len(lost) - 1} more objects" if len(lost) > 1 else ""
            raise CorruptDataError(
                f"{self.store.url} has lost {lost[0]}{more}: restore from a copy, or remove that folder and run the "
                "same command again"
            )

    def receipts(self, keys: Sequence[str]) -> list[Receipt]:
        """Read the receipts of these tasks, in this order; one that is missing fails the run."""
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(self.receipt, keys))
        for key, receipt in zip(keys, found, strict=True):
            if receipt is None:
                raise RunError(
                    f"task {key} of stage {self.name}/{self.hash} left no receipt: run the same command again"
                )
        return [receipt for receipt in found if receipt is not None]


def receipt_name(key: str) -> str:
    """Place a task's receipt."""
    return f"receipts/{key}.json"


def without_cost(receipt: Receipt) -> Receipt:
    """Leave out what two runs of one task need not agree on."""
    return {name: value for name, value in receipt.items() if name != COST}


@contextmanager
def spool() -> Iterator[Path]:
    """Give a scratch folder on local disk (`TMPDIR` says where), gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        yield Path(folder)


class Meter:
    """CPU and wall seconds of a task by what they were spent on, and its peak memory."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Charge the CPU time of a block to `what`."""
        before = time.process_time()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.process_time() - before

    def through(self, what: str, items: Iterable[Any]) -> Iterator[Any]:
        """Charge to `what` the CPU time that an iterator takes to give each item."""
        iterator = iter(items)
        while True:
            with self.on(what):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def cost(self) -> dict[str, Any]:
        """Give the account as JSON."""
        wall, cpu = self._started
        return {
            "wall": round(time.perf_counter() - wall, 4),
            "cpu": round(time.process_time() - cpu, 4),
            "by": {name: round(value, 4) for name, value in self.seconds.items()},
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "pid": os.getpid(),
        }


def run_task(stage: Stage, key: str, compute: Callable[[Path, Meter], Receipt]) -> Receipt:
    """Run one task unless its receipt stands: compute in a scratch folder, then commit."""
    standing = stage.receipt(key)
    if standing is not None:
        return standing
    crash_point("task-started")
    stage.check_versions()
    meter = Meter()
    with spool() as folder:
        receipt = compute(folder, meter)
        crash_point("task-computed")
        return stage.commit(key, {**receipt, COST: meter.cost()})
