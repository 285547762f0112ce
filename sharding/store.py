"""Where data sets and runs lie: a local folder, or a prefix of an object store reached through fsspec.

Three kinds of write, and no other:

    put, put_named   a data object under a name that contains a hash of it: written once, idempotent
    create           an object that appears whole, once, for one writer only: receipts, plans, generations
    replace          an atomic overwrite, for the few pages that point at what is current

And one deletion, `remove`, for what has been taken out and must be gone; garbage is left to whoever owns the folder.

A store that cannot create exclusively is refused in words when it is asked to. Listings are never cached. A killed
local writer leaves at most a hidden temporary file that no listing shows.
"""

from __future__ import annotations

import errno
import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from os import fstat
from pathlib import Path
from typing import Any, BinaryIO

from .. import StoreError
from .crash import CRASH_POINTS, crash_point, register_crash_points
from .roots import Folder, Objects, Root

__all__ = ["CRASH_POINTS", "MissingObjectError", "Store", "crash_point", "mapped", "register_crash_points", "sha256"]
_CHUNK = 1 << 20


class MissingObjectError(StoreError, FileNotFoundError):
    """A name that the store does not hold."""


def sha256(body: bytes | Path) -> str:
    """SHA-256 of bytes or of a local file, in hex; a file is read in pieces."""
    if isinstance(body, bytes):
        return hashlib.sha256(body).hexdigest()
    digest = hashlib.sha256()
    with body.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def mapped(path: Path) -> memoryview:
    """Map a whole file to read it; costs a fifth of np.memmap, and is shared with other processes."""
    with path.open("rb") as file:
        empty = not fstat(file.fileno()).st_size  # which cannot be mapped
        return memoryview(b"" if empty else mmap(file.fileno(), 0, access=ACCESS_READ))


class Store:
    """A root under which objects have names with '/' between their parts.

    `url` is a path or an fsspec URL; `options` go to its fsspec client (endpoint_url, …). Picklable, safe after a fork,
    shared by threads. What fails raises StoreError in words, a missing name MissingObjectError.
    """

    def __init__(self, url: str | Path, **options: Any) -> None:
        text = str(url)
        for scheme in ("file://", "local://"):
            text = text.removeprefix(scheme)
        self.options = options
        self._root: Root = Objects(text.rstrip("/"), options) if "://" in text else Folder(Path(text).absolute())
        self.url = self._root.url

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.url, self.options)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and (self.url, self.options) == (other.url, other.options)

    def __hash__(self) -> int:
        return hash(self.url)

    def child(self, name: str) -> Store:
        """Root the same store deeper."""
        return Store(f"{self.url}/{name.strip('/')}", **self.options)

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Give the bytes of an object, or those of the range [start, end)."""
        with _in_words("read", self, name):
            return self._root.read(name, start, end)

    def exists(self, name: str) -> bool:
        """Say whether there is an object of this name; folders are not objects."""
        with _in_words("look for", self, name):
            return self._root.size(name) is not None

    def size(self, name: str) -> int:
        """Give an object's size in bytes."""
        with _in_words("look for", self, name):
            size = self._root.size(name)
        if size is None:
            raise MissingObjectError(f"{self.url} holds no {name}")
        return size

    def list(self, prefix: str = "") -> list[str]:
        """Give the names that begin with `prefix`, at every depth, sorted, as they are now."""
        with _in_words("list", self, prefix or "everything"):
            return sorted(name for name in self._root.names(prefix.rpartition("/")[0]) if name.startswith(prefix))

    def put(self, body: bytes | Path, prefix: str, suffix: str) -> str:
        """Write a data object named after its content; give its name: `prefix`, 32 hex digits of SHA-256, `suffix`."""
        name = f"{prefix}{sha256(body)[:32]}{suffix}"
        self.put_named(body, name)
        return name

    def put_named(self, body: bytes | Path, name: str) -> None:
        """Write a data object under a name that already contains a hash of it; one that stands is left alone."""
        size = _weigh(body, name)
        with _in_words("write", self, name):
            standing = self._root.size(name)
            if standing is None:
                self._root.write(name, body)
                standing = self._root.size(name)
        if standing != size:
            raise StoreError(
                f"{self.url}/{name} has {standing} bytes where its content has {size}: "
                "the object was damaged, or not written by penstock; remove it and run the same command again"
            )
        crash_point("object-written")

    def link_named(self, source: Path, name: str) -> bool:
        """Give a local file one more name under this root, as `put_named`; False where it must be copied instead."""
        size = _weigh(source, name)
        with _in_words("write", self, name):
            linked = self._root.link(name, source)
            standing = self._root.size(name) if linked else size
        if standing != size:
            raise StoreError(
                f"{self.url}/{name} has {standing} bytes where its content has {size}: "
                "the object was damaged, or not written by penstock; remove it and run the same command again"
            )
        crash_point("object-written")
        return linked

    def create(self, name: str, body: bytes) -> bool:
        """Write an object only if there is none of this name; say whether it was written.

        Of any number of writers one gets True. A client that repeats a request after a lost reply can meet its own
        object; so, on an object store, True is also the answer where an equal body stands. Put something unique into
        the body where that matters.
        """
        _weigh(body, name)
        self.require_exclusive()
        with _in_words("write", self, name):
            created = self._root.create(name, body)
        crash_point("receipt-committed")
        return created

    def commit_once(self, name: str, body: bytes) -> bytes:
        """Write an object if there is none of this name; give the body that stands, ours or the earlier one's."""
        return body if self.create(name, body) else self.read(name)

    def replace(self, name: str, body: bytes) -> None:
        """Put an object in place of the one that stands, if any; a reader sees the old one or the new one, whole."""
        _weigh(body, name)
        with _in_words("write", self, name):
            self._root.replace(name, body)

    def remove(self, name: str) -> None:
        """Delete an object; one that another process deleted meanwhile is gone all the same."""
        with _in_words("delete", self, name), suppress(FileNotFoundError):
            self._root.remove(name)

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading from any place."""
        with _in_words("open", self, name):
            return self._root.open(name)

    def local(self, name: str) -> Path | None:
        """Give an object's path; None where the store is not a local folder."""
        return self._root.path(name)

    def require_exclusive(self) -> None:
        """Refuse, in words, a store that cannot create an object only if it is absent."""
        if reason := self._root.shortcoming():
            raise StoreError(f"{self.url} cannot hold a run: {reason}; use a local folder, s3://, gs:// or az://")

    def probe(self) -> None:
        """Prove that creation is exclusive here by creating one object twice; costs five small requests.

        Some servers that speak S3 take the condition and ignore it (s3rver, `rclone serve s3`).
        """
        name = f".probe-{uuid.uuid4().hex}"
        first = self.create(name, b"first")
        second = self.create(name, b"second")
        stands = self.read(name)
        with _in_words("remove", self, name):
            self._root.remove(name)
        if not first or second or stands != b"first":
            raise StoreError(
                f"{self.url} let a second writer replace an object: a run there could lose its commits; "
                "use a local folder or a store that honours If-None-Match"
            )


def _rebuild(url: str, options: dict[str, Any]) -> Store:
    return Store(url, **options)


def _weigh(body: bytes | Path, name: str) -> int:
    size = body.stat().st_size if isinstance(body, Path) else len(body)
    if size == 0:
        # A conditional write of nothing can wipe the object that stands (s3fs), and no object of ours is empty.
        raise ValueError(f"{name} would be empty: an object has at least one byte")
    return size


@contextmanager
def _in_words(verb: str, store: Store, name: str) -> Iterator[None]:
    place = f"{store.url}/{name}"
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise MissingObjectError(
            f"cannot {verb} {place}: there is no such object; where a run's folder has lost it, restore it from a "
            "copy, or remove the stage's folder and run the same command again"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"cannot {verb} {place}: the disk or the quota is full; make room and run the same "
                "command again, what is committed is kept"
            ) from error
        raise StoreError(f"cannot {verb} {place}: {error.strerror or error or type(error).__name__}") from error
    except Exception as error:
        if "://" not in store.url:
            raise
        # Clients of object stores raise their own classes for credentials, names and timeouts, not OSError.
        raise StoreError(f"cannot {verb} {place}: {type(error).__name__}: {error}") from error
