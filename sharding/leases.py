"""The files of the block cache: filled once, leased by readers, evicted when nobody has a lease. Safe to kill anywhere.

The protocol holds no state but files and `flock`s, which the kernel frees with their process:

    fill     the writer locks `.NAME.part`, writes it, renames it to NAME; others wait for the name or for the lock
    lease    a reader opens NAME, takes a shared lock and maps it; the bytes outlive even a deletion
    evict    what cannot be locked alone is in use and stays; a file is deleted under that lock, and only if its name
             still is the file's: a part may have been renamed and another begun since it was opened

A dead writer's part has no lock: the next who wants the block takes it over. Nobody waits for a lock, and nobody waits
for another process for longer than `PATIENCE`: then, or where the disk is full or broken, the folder another user's or
no descriptor left, a block is read past the cache. `tests/test_cache_protocol.py` runs these functions through every
interleaving of their system calls by two and three processes, kills among them.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Body = bytes | memoryview
Fetch = Callable[[], Body]
# Seconds to wait for another process that fetches the same block.
PATIENCE = 60.0
_POLL = 0.01
# What makes a block be read past the cache.
_UNUSABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE,
    errno.EIO, errno.ESTALE, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.ENOMEM,
}  # fmt: skip
_log = logging.getLogger("penstock.cache")
_told: set[int | None] = set()


class _BusyError(Exception):
    """Another process is at this block this moment, or has just removed it."""


class _UnusableError(Exception):
    """The disk does not take this block, or does not give it."""


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except (BlockingIOError, FileNotFoundError) as error:
        raise _BusyError from error
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        if error.errno not in _told:  # once a process: a full disk stays full for thousands of blocks
            _told.add(error.errno)
            _log.warning("the block cache cannot be used, blocks are read past it: %s", error)
        raise _UnusableError from error


def obtain(path: Path, fetch: Fetch, make_room: Callable[[int], None]) -> memoryview:
    """Give the bytes of a block: leased, or fetched and put there. `make_room` is told the size before it is written.

    Errors of `fetch` are raised as they are; those of the disk are not: then the fetched bytes are given.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if (found := lease(path)) is not None:
                return found
            with part(path) as writer:
                if writer is not None:
                    return _fill(path, writer, fetch, make_room)
        except _BusyError:
            pass
        except _UnusableError:
            break
        time.sleep(_POLL)
    return memoryview(fetch())


def lease(path: Path) -> memoryview | None:
    """Map a block and hold a shared lock on it until the map is gone; None where there is no such block."""
    with _on_disk():
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if not os.fstat(descriptor).st_size:  # what a power cut leaves of a file that was not yet on disk
                _unlink(path)
                return None
            with suppress(PermissionError):  # another user's: it only looks older than it is
                os.utime(descriptor)
            return _mapped(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def part(path: Path) -> Iterator[int | None]:
    """The block's part, open and locked for this process alone; None where another has it."""
    name = _part_path(path)
    with _on_disk():
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            os.makedirs(name.parent, exist_ok=True)
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with _on_disk():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have renamed or removed the file between our open and our lock.
            held = _names(name, descriptor)
        yield descriptor if held else None
    finally:
        os.close(descriptor)


def _fill(path: Path, writer: int, fetch: Fetch, make_room: Callable[[int], None]) -> memoryview:
    """Write a block through its locked part; the writer's lock becomes its lease."""
    if (found := lease(path)) is not None:
        return found
    body = fetch()
    try:
        with _on_disk():
            make_room(len(body))
            _publish(path, writer, body)
            with suppress(BlockingIOError):  # being evicted at once: the bytes outlive it
                fcntl.flock(writer, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return _mapped(writer)
    except (_BusyError, _UnusableError):
        return memoryview(body)


def _publish(path: Path, writer: int, body: Body) -> None:
    """Write a block and give it its name; what cannot be finished takes no room."""
    view, done = memoryview(body), 0
    os.ftruncate(writer, 0)
    try:
        while done < len(view):
            done += os.pwrite(writer, view[done:], done)
        os.rename(_part_path(path), path)
    except OSError:
        os.ftruncate(writer, 0)
        raise


def remove_unused(path: Path) -> bool:
    """Delete a file that nobody holds a lock on; say whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    except OSError:  # another user's, or no descriptor left: it stays
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _names(path, descriptor):
            return False
        _unlink(path)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _names(path: Path, descriptor: int) -> bool:
    """Say whether a name is that of an open file."""
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _unlink(path: Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _mapped(descriptor: int) -> memoryview:
    """Map a file. The map holds a duplicate of the descriptor, and so its lock, while anyone looks at the bytes."""
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def _part_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
