"""Blocks of remote shards on local disk, shared by all processes and jobs of a machine and safe to kill at any moment.

A block is a file named by its content's identity (payload hash and byte range), so it is never stale and two jobs on
the same data share it; how it is filled, leased and evicted is told in `leases`. The cap is for all processes together:
each adds what it writes to one count, and whoever brings that to a sixteenth of the cap looks at the folder and evicts,
the oldest use first, from fourteen sixteenths of the cap down to thirteen; at two sixteenths all wait for that. What a
process has open cannot be evicted, so what a loader's look-ahead has asked for stays; that too is a share of the cap,
the smaller the more processes there are. Local data never comes through here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Lock

from .leases import Fetch, obtain, remove_unused

# Well above the 2 to 4 GiB that the order keeps in flight over all ranks (`order.BLOCKS_IN_FLIGHT`).
CACHE_BYTES = 16 << 30
# Blocks a process keeps open for whoever asks again; the usual limit on open files is 1,024.
_OPEN_BLOCKS = 256
# What processes hold open cannot be evicted: of their shares of the cap, the cache here and the loader's blocks each at
# most this part.
_HELD_SHARE = 8
# Bytes written are counted in pages, a byte of the file `written` for each: appending is one call, and is atomic.
_PAGE = 4096
# Seconds to wait for a process that evicts, and between two looks at how far it is.
_PATIENCE, _POLL = 5.0, 0.01
# Seconds between two looks at how many processes share the folder.
_LOOK = 1.0


def cache_folder() -> Path:
    """Where blocks lie unless told: $PENSTOCK_CACHE, else penstock/ under $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("PENSTOCK_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


class BlockCache:
    """A folder of blocks of at most `limit` bytes. Shared by threads and processes; picklable as its two arguments."""

    def __init__(self, folder: Path, limit: int = CACHE_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self._lock = Lock()
        self._open: OrderedDict[str, memoryview] = OrderedDict()
        self._open_bytes = 0
        self._busy: dict[str, Future[memoryview]] = {}
        self._looked = -_LOOK
        self._users, self._trimmed = 1, False
        self._pass: Path | None = None

    def __reduce__(self) -> tuple[type[BlockCache], tuple[Path, int]]:
        return BlockCache, (self.folder, self.limit)

    def get(self, name: str, fetch: Fetch) -> memoryview:
        """Give the bytes of a block, fetching them if no process of this machine has; threads share one fetch."""
        with self._lock:
            if (held := self._open.get(name)) is not None:
                self._open.move_to_end(name)
                return held
            mine = name not in self._busy
            future = self._busy.setdefault(name, Future())
        if not mine:
            return future.result()
        try:
            view = self._load(name, fetch)
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            future.set_result(view)
            return view
        finally:
            with self._lock:
                if self._busy.get(name) is future:
                    del self._busy[name]
                if future.exception() is None:
                    self._keep(name, future.result())

    def start_over(self) -> None:
        """Let nobody who asks from now on be told what becomes of a fetch that is under way."""
        with self._lock:
            self._busy.clear()

    def _keep(self, name: str, view: memoryview) -> None:
        """Hold a block open, and let go of those asked for longest ago."""
        self._open_bytes += len(view) - len(self._open.pop(name, b""))
        self._open[name] = view
        while self._open and (len(self._open) > _OPEN_BLOCKS or self._open_bytes > self.held_bytes):
            self._open_bytes -= len(self._open.popitem(last=False)[1])

    def drop(self, prefix: str) -> None:
        """Forget blocks whose bytes turned out wrong, by how their names begin; the next `get` fetches them anew."""
        with self._lock:
            for name in [name for name in self._open if name.startswith(prefix)]:
                self._open_bytes -= len(self._open.pop(name))
        for path in self.folder.glob(f"{prefix[:2]}/{prefix}*"):
            with suppress(OSError):  # another user's: who finds damage in it reads past the cache
                path.unlink()

    @property
    def held_bytes(self) -> int:
        """Bytes that one holder of this process may keep open, and so from being evicted."""
        return self.limit // _HELD_SHARE // self._users

    def holds(self, name: str) -> bool:
        """Say whether a block is here, for now."""
        return name in self._open or self._path(name).exists()

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _load(self, name: str, fetch: Fetch) -> memoryview:
        if time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            with suppress(OSError):  # a folder that takes no files: then nothing is held in it either
                self._users = self._look()
        return obtain(self._path(name), fetch, self._make_room)

    def _look(self) -> int:
        """Count the processes that share the folder: each has a locked file there; those of the dead are removed."""
        users = self.folder / "users"
        if self._pass is None or not self._pass.exists():  # another may have taken it for a dead one's, before our lock
            users.mkdir(parents=True, exist_ok=True)
            self._pass = users / uuid.uuid4().hex
            held = os.open(self._pass, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            weakref.finalize(self, _leave, os.getpid(), held, self._pass)
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return max(1, sum(not remove_unused(path) for path in users.iterdir()))

    def _make_room(self, size: int) -> None:
        """Count what is about to be written, for all processes; look at the whole folder each time it is due."""
        written, deadline = self._count(size), time.monotonic() + _PATIENCE
        while not self._trimmed or written >= self.limit // 16:
            self._trimmed = True
            self.trim(self.limit - size)  # which does nothing while another process is at it
            if (written := self._count(0)) < self.limit // 8 or time.monotonic() > deadline:
                break
            time.sleep(_POLL)

    def _count(self, size: int) -> int:
        """Add to the bytes that all processes have written since the folder was last looked at; give their number."""
        counter = os.open(self.folder / "written", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(counter, bytes(-(-size // _PAGE)))
            return os.fstat(counter).st_size * _PAGE
        finally:
            os.close(counter)

    def trim(self, limit: int | None = None) -> int:
        """Evict if above fourteen sixteenths of the cap; returns the bytes left. One process at a time does it."""
        limit = self.limit if limit is None else limit
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "trim.lock").open("wb") as guard, suppress(BlockingIOError):
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self.folder / "written").write_bytes(b"")
            return _evict(self.folder, limit)
        return limit


def _evict(folder: Path, limit: int) -> int:
    files = []
    for path in folder.glob("??/*"):
        with suppress(FileNotFoundError):
            stat = path.stat()
            files.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    # A sixteenth of the cap stays free on the disk for others.
    limit = min(limit, total + shutil.disk_usage(folder).free - limit // 16)
    goal = total if total <= limit * 14 // 16 else limit * 13 // 16
    for _, size, path in sorted(files):
        begun = path.name.startswith(".")
        if (begun or total > goal) and remove_unused(path):
            total -= size
    return total


def _leave(process: int, held: int, path: Path) -> None:
    """Give back the pass of a cache that is gone; a fork's copy of it is its parent's."""
    os.close(held)
    if os.getpid() == process:
        path.unlink(missing_ok=True)
