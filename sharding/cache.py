"""Blocks of remote shards on local disk, shared by all processes of a machine and safe to kill at any moment.

A block is a file named by its content's identity (payload hash and byte range), so it is never stale and two jobs on
the same data share it. The protocol holds no state but files and `flock`s, which the kernel frees with their process:

    fill     the writer locks `.NAME.part`, writes it, renames it to NAME; others wait for the name or for the lock
    lease    a reader opens NAME, takes a shared lock and maps it; the bytes outlive even a deletion
    evict    oldest use first, down to nine tenths of the cap; what cannot be locked alone is in use and stays

A dead writer's part has no lock: the next who wants the block takes it over, and eviction removes it. Where the disk is
full, the folder another user's, no descriptor left or another process stuck, a block is read past the cache. Local data
never comes through here.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

Fetch = Callable[[], bytes]
# Well above the 2 to 4 GiB that the order keeps in flight over all ranks (`order.BLOCKS_IN_FLIGHT`).
CACHE_BYTES = 16 << 30
# Blocks a process keeps open for whoever asks again; the usual limit on open files is 1,024.
_OPEN_BLOCKS = 256
#: What a process holds open cannot be evicted: the cache here, and the loader's blocks, each at most this share of it.
HELD_SHARE = 8
# Seconds to wait for another process that fetches the same block.
_PATIENCE = 60.0
_POLL = 0.01
# What makes a block be read past the cache: a full disk, a folder of another user's, no file descriptor left.
_UNUSABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE,
}  # fmt: skip


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
        self._written = limit

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
                del self._busy[name]
                if future.exception() is None:
                    self._keep(name, future.result())

    def _keep(self, name: str, view: memoryview) -> None:
        """Hold a block open, and let go of those asked for longest ago."""
        self._open[name] = view
        self._open_bytes += len(view)
        while len(self._open) > _OPEN_BLOCKS or self._open_bytes > self.limit // HELD_SHARE:
            self._open_bytes -= len(self._open.popitem(last=False)[1])

    def drop(self, prefix: str) -> None:
        """Forget blocks whose bytes turned out wrong, by how their names begin; the next `get` fetches them anew."""
        with self._lock:
            for name in [name for name in self._open if name.startswith(prefix)]:
                self._open_bytes -= len(self._open.pop(name))
        for path in self.folder.glob(f"{prefix[:2]}/{prefix}*"):
            with suppress(OSError):  # another user's: who finds damage in it reads past the cache
                path.unlink()

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _load(self, name: str, fetch: Fetch) -> memoryview:
        path = self._path(name)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                if (found := _lease(path)) is not None:
                    return found
                with _part(path) as writer:
                    if writer is not None:
                        return self._fill(path, writer, fetch)
            except OSError as error:
                if error.errno not in _UNUSABLE:
                    raise
                break
            time.sleep(_POLL)
        return memoryview(fetch())

    def _fill(self, path: Path, writer: int, fetch: Fetch) -> memoryview:
        """Write a block through its locked part; the writer's lock becomes its lease."""
        if (found := _lease(path)) is not None:
            return found
        body = fetch()
        self._make_room(len(body))
        try:
            os.ftruncate(writer, 0)
            with os.fdopen(os.dup(writer), "wb") as file:
                file.write(body)
            os.rename(_part_path(path), path)
        except OSError as error:
            if error.errno not in _UNUSABLE:
                raise
            os.ftruncate(writer, 0)
            return memoryview(body)
        fcntl.flock(writer, fcntl.LOCK_SH)
        return _mapped(writer)

    def _make_room(self, size: int) -> None:
        """Count what this process wrote, and look at the whole folder each time that is a sixteenth of the cap."""
        with self._lock:
            self._written += size
            due = self._written >= self.limit // 16
            if due:
                self._written = 0
        if due:
            self.trim(self.limit - size)

    def trim(self, limit: int | None = None) -> int:
        """Evict down to nine tenths of the cap if above it; returns the bytes left. One process at a time does it."""
        limit = self.limit if limit is None else limit
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "trim.lock").open("wb") as guard, suppress(BlockingIOError):
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    goal = total if total <= limit else limit * 9 // 10
    for _, size, path in sorted(files):
        part = path.name.startswith(".")
        if (part or total > goal) and _remove_unused(path):
            total -= size
    return total


def _remove_unused(path: Path) -> bool:
    """Delete a file that nobody holds a lock on."""
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False


def _lease(path: Path) -> memoryview | None:
    """Map a block and hold a shared lock on it until the map is gone; None where there is no such block."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not os.fstat(descriptor).st_size:  # what a power cut leaves of a file that was not yet on disk
            path.unlink()
            return None
        with suppress(OSError):  # another user's: it only looks older than it is
            os.utime(descriptor)
        return _mapped(descriptor)
    finally:
        os.close(descriptor)


def _mapped(descriptor: int) -> memoryview:
    """Map a file. The map holds a duplicate of the descriptor, and so its lock, while anyone looks at the bytes."""
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def _part_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


@contextmanager
def _part(path: Path) -> Iterator[int | None]:
    """The block's part, locked for this process alone; None where another has it."""
    part = _part_path(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have renamed or removed the file between our open and our lock.
            held = os.stat(part).st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        yield descriptor if held else None
    finally:
        os.close(descriptor)
