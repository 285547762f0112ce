"""A sign of life from inside a long task: records and bytes done, and the record at hand (local runs only).

It lies beside the run, is no part of any result, and is gone when the task ends; after a crash it names where it
happened.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from ..sharding.store import Store

FOLDER = ".heartbeat"
EVERY_SECONDS = 0.5


class Heartbeat:
    """Write `.heartbeat/<task>.json` now and then while a task runs; nothing on an object store."""

    def __init__(self, run: Store, key: str, stage: str) -> None:
        self._path: Path | None = run.local(f"{FOLDER}/{key}.json")
        self._said: dict[str, Any] = {"stage": stage, "records": 0, "bytes": 0, "at": None}
        self._last = 0.0

    def __enter__(self) -> Heartbeat:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def at(self, source: str, path: str, batch: pa.RecordBatch) -> None:
        """Say which records are at hand."""
        self._said["records"] += len(batch)
        if len(batch):
            self._said["at"] = f"{source}/{path}#{batch.column('place')[0]}..{batch.column('place')[len(batch) - 1]}"
        self._write()

    def add(self, records: int, size: int) -> None:
        """Count records and bytes done."""
        self._said["records"] += records
        self._said["bytes"] += size
        self._write()

    def file_done(self, size: int) -> None:
        """Count a file's bytes."""
        self._said["bytes"] += size
        self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None and kind is None:
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        now = time.monotonic()
        if self._path is None or now - self._last < EVERY_SECONDS:
            return
        self._last = now
        # Written in place: a torn reading is shown for half a second and decides nothing.
        self._path.write_text(json.dumps(self._said), encoding="utf-8")


def heartbeats(run: Store) -> list[dict[str, Any]]:
    """Read the signs of life of tasks now running."""
    folder = run.local(FOLDER)
    found = []
    for path in sorted(folder.glob("*.json")) if folder is not None and folder.is_dir() else ():
        try:
            found.append({**json.loads(path.read_text(encoding="utf-8")), "task": path.stem})
        except (OSError, ValueError):  # gone or half written: the next look will tell
            continue
    return found
