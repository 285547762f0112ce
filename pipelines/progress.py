"""Progress on every runner, from receipts and signs of life: stage, parts, documents, MB/s, what is left.

Start-up and compiling are told apart from work. On a terminal one line is redrawn; elsewhere a line is written now
and then.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from .heartbeat import heartbeats
from .stage import Stage

LOCAL_SECONDS, REMOTE_SECONDS, PLAIN_SECONDS = 0.5, 10.0, 5.0


class Progress:
    """Shows what a run is at, on `out` (stderr by default); silent where `quiet`."""

    def __init__(self, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr or io.StringIO()  # a process may have been started without one
        self._quiet = quiet
        self._live = not quiet and self._out.isatty()
        self._last = 0.0

    @contextmanager
    def phase(self, what: str) -> Iterator[None]:
        """Show a phase that has no parts: compiling, planning, merging."""
        started = time.perf_counter()
        self._draw(f"{what} …", final=False, force=True)
        yield
        self._draw(f"{what:<12} {time.perf_counter() - started:.1f} s", final=True)

    @contextmanager
    def stage(self, stage: Stage, what: str, keys: Sequence[str]) -> Iterator[None]:
        """Follow a stage's tasks until the block ends."""
        watch = _Watch(stage, what, keys, self)
        already = watch.look()
        if already == len(keys):
            self._draw(f"{what:<12} {len(keys)} parts committed before, nothing to do", final=True)
            yield
            return
        watch.start()
        try:
            yield
        finally:
            watch.stop()
        watch.look()
        self._draw(watch.line(done=True), final=True)

    def say(self, line: str) -> None:
        """Write a line."""
        self._draw(line, final=True)

    def _draw(self, line: str, *, final: bool, force: bool = False) -> None:
        if self._quiet:
            return
        if self._live:
            self._out.write(f"\r\x1b[2K{line}" + ("\n" if final else ""))
        elif final or force or time.monotonic() - self._last >= PLAIN_SECONDS:
            self._last = time.monotonic()
            self._out.write(line + "\n")
        self._out.flush()


class _Watch(threading.Thread):
    """Reads receipts as they appear, and the signs of life of local tasks."""

    def __init__(self, stage: Stage, what: str, keys: Sequence[str], progress: Progress) -> None:
        super().__init__(daemon=True)
        self._stage, self._what, self._keys, self._progress = stage, what, set(keys), progress
        self._seen: dict[str, Any] = {}
        self._since = time.perf_counter()
        self._working: float | None = None
        self._before = 0
        self._ended = threading.Event()
        self._every = LOCAL_SECONDS if stage.run.local("x") is not None else REMOTE_SECONDS
        self._alive: list[dict[str, Any]] = []
        self._most = 0

    def look(self) -> int:
        """Read the receipts that are new; count the tasks that are done."""
        for key in sorted((self._stage.committed() & self._keys) - set(self._seen)):
            self._seen[key] = self._stage.receipt(key)
        if not self.is_alive() and self._working is None:
            self._before = len(self._seen)
        return len(self._seen)

    def run(self) -> None:
        """Look and draw until told to stop."""
        while not self._ended.wait(self._every):
            self.look()
            self._alive = heartbeats(self._stage.run)
            if self._working is None and (self._alive or len(self._seen) > self._before):
                self._working = time.perf_counter()
            self._progress._draw(self.line(), final=False)

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()

    def line(self, *, done: bool = False) -> str:
        """Say how far the stage is."""
        now = time.perf_counter()
        if self._working is None and not done:
            return f"{self._what:<12} starting workers, {now - self._since:.0f} s"
        receipts = [receipt for receipt in self._seen.values() if receipt]
        documents = sum(_documents(receipt) for receipt in receipts)
        size = sum(_bytes(receipt) for receipt in receipts)
        if not done:
            size += sum(beat["bytes"] for beat in self._alive)
            documents += sum(beat["records"] for beat in self._alive)
            documents = self._most = max(self._most, documents)  # a sign that is just being written is not seen
        start = self._since if done else self._working or self._since
        took = max(now - start, 1e-6)
        line = f"{self._what:<12} {len(self._seen)}/{len(self._keys)} parts  {documents:,} documents"
        if size:
            line += f"  {size / took / 1e6:.1f} MB/s"
        new = len(self._seen) - self._before
        if done:
            return f"{line}  {took:.1f} s"
        if new:
            line += f"  about {took / new * (len(self._keys) - len(self._seen)):.0f} s left"
        return line


def _documents(receipt: dict[str, Any]) -> int:
    return int(receipt["tally"]["documents_in"] if "tally" in receipt else receipt.get("documents") or 0)


def _bytes(receipt: dict[str, Any]) -> int:
    return int(receipt.get("input_bytes") or 0)
