"""A sign of life from inside a long task: records and bytes done, and the record at hand (local runs only).

A task that meets the sign of one that died goes through the same batch row by row first, each row named before it is
touched; so the second death names the record that kills, which the recipe's `quarantine` can then set aside.

It lies beside the run, is no part of any result, and is gone when the task ends; after a crash it names where it
happened.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
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
        self._said: dict[str, Any] = {"stage": stage, "records": 0, "bytes": 0, "at": None, "process": _this_process()}
        self._last = 0.0
        self._left: dict[str, Any] | None = None

    def __enter__(self) -> Heartbeat:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            left = [beat for beat in dead(heartbeats_in(self._path.parent)) if beat["task"] == self._path.stem]
            self._left = left[0]["at"] if left else None
        return self

    def at(self, source: str, path: str, batch: pa.RecordBatch) -> None:
        """Say which records are at hand, before they are touched."""
        self._said["records"] += len(batch)
        self._name(source, path, batch)

    def rehearse(self, source: str, path: str, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Give a batch row by row, each named first, where an earlier process died in it; else nothing."""
        if self._left is None or not len(batch) or (source, path) != (self._left["source"], self._left["path"]):
            return
        places = batch.column("place")
        if places[0].as_py() <= self._left["last"] and places[len(batch) - 1].as_py() >= self._left["first"]:
            for row in range(len(batch)):
                self._name(source, path, batch.slice(row, 1))
                yield batch.slice(row, 1)

    def _name(self, source: str, path: str, batch: pa.RecordBatch) -> None:
        if len(batch):
            places = batch.column("place")
            first, last = places[0].as_py(), places[len(batch) - 1].as_py()
            self._said["at"] = {"source": source, "path": path, "first": first, "last": last}
            self._last = 0.0
        self._write()

    def add(self, records: int, size: int) -> None:
        """Count records and bytes done."""
        self._said["records"] += records
        self._said["bytes"] += size
        self._write()

    def file_done(self, size: int) -> None:
        """Count the bytes of a file, or of a range of one."""
        self._said["bytes"] += size
        self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk or a store out of reach is no record's doing.
        if self._path is not None and (kind is None or issubclass(kind, OSError)):
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        now = time.monotonic()
        if self._path is None or now - self._last < EVERY_SECONDS:
            return
        self._last = now
        # Written in place: a torn reading is shown for half a second and decides nothing.
        with suppress(OSError):  # on a full disk the commit will say so, and better
            self._path.write_text(json.dumps(self._said), encoding="utf-8")


def heartbeats(run: Store) -> list[dict[str, Any]]:
    """Read the signs of life of tasks now running."""
    folder = run.local(FOLDER)
    return heartbeats_in(folder) if folder is not None and folder.is_dir() else []


def heartbeats_in(folder: Path) -> list[dict[str, Any]]:
    """Read the signs of life in a folder."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append({**json.loads(path.read_text(encoding="utf-8")), "task": path.stem})
        except (OSError, ValueError):  # gone or half written: the next look will tell
            continue
    return found


def _this_process() -> list[Any]:
    return [socket.gethostname(), os.getpid()]


def dead(beats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the signs of life of processes that live no more, as far as this machine can tell."""
    return [beat for beat in beats if not _lives(*beat.get("process") or ("", 0))]


def _lives(host: str, process: int) -> bool:
    if host != socket.gethostname() or process == os.getpid():  # one that took up the same number is this one
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def deaths(run: Store) -> list[str]:
    """Say, of each task that ended without an end, what it was at; a single record is one that can be set aside."""
    said = []
    for beat in dead(heartbeats(run)):
        at = beat.get("at")
        if at is None:
            continue
        name = f"{at['source']}/{at['path']}#{at['first']}"
        if at["first"] == at["last"]:
            said.append(f"a process ended while at {name}; `quarantine: [{name}]` in the recipe sets that record aside")
        else:
            said.append(
                f"a process ended between {name} and #{at['last']}; should one end there again, the record is named"
            )
    return said


def forget(run: Store) -> None:
    """Remove the signs that tasks of unfinished runs left, once a run is complete."""
    folder = run.local(FOLDER)
    for path in folder.glob("*.json") if folder is not None and folder.is_dir() else ():
        path.unlink(missing_ok=True)
