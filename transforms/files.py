"""Find input files and open them, on disk or in any store that fsspec knows.

A listing is always fresh, complete or refused: a folder that may not be entered is an error, never an empty data set.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs

from .. import InputError, StoreError
from .globs import WILD, split_root

#: Extensions that a folder is searched for, and the format each means. Longest first.
EXTENSIONS = {
    ".warc.gz": "warc",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".ndjson.gz": "jsonl",
    ".ndjson.zst": "jsonl",
    ".json.gz": "jsonl",
    ".json.zst": "jsonl",
    ".parquet": "parquet",
    ".ndjson": "jsonl",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".wet.gz": "wet",
    ".warc": "warc",
    ".txt": "text",
    ".wet": "wet",
    ".pq": "parquet",
}
#: Where stores tell a file's version, the best first.
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "mtime", "created")
_TEMPORARY = re.compile(
    r"\..*|_temporary|_SUCCESS|_(common_)?metadata|_(committed|started)_.*|.*(\.(tmp|temp|part|partial|crdownload|swp)|~)"
)


@dataclass(frozen=True)
class FileEntry:
    """One input file: where it lies, its path below the input's root ('/' separators), its size, its version mark."""

    url: str
    path: str
    size: int
    etag: str


def detect_format(path: str) -> str:
    """Tell 'warc', 'wet', 'jsonl', 'parquet' or 'text' by the file's name.

    Raises InputError, naming the extensions that are known.
    """
    name = path.lower()
    for extension, kind in EXTENSIONS.items():
        if name.endswith(extension):
            return kind
    known = ", ".join(sorted(EXTENSIONS))
    raise InputError(f"{path!r} has no extension that says its format; give the format, or use one of {known}")


def list_files(pattern: str) -> list[FileEntry]:
    """List the files that a path, folder, glob (`*`, `?`, `[…]`, `**`) or fsspec URL means, sorted by path.

    A folder is searched below and gives the files with a known extension. Hidden and temporary files are left out
    unless named outright. Raises InputError where nothing matches, or something may not be read.
    """
    if not pattern:
        raise InputError("an input is empty: name a file, a folder, a glob or a URL")
    if "::" in pattern:
        raise InputError(f"{pattern!r} chains file systems, which is not supported; give one path or URL")
    local = _local_path(pattern)
    found = _list_local(local, pattern) if local is not None else _list_store(pattern)
    if not found:
        raise InputError(f"no input file matches {pattern!r}; a folder is searched for {', '.join(sorted(EXTENSIONS))}")
    return sorted(found, key=lambda entry: entry.path)


def reads_from(pattern: str, output: str, written: Iterable[str]) -> bool:
    """Whether a pattern lists what is written into a folder, local or in a store: paths below it; or lies among it."""
    local, folder = _local_path(pattern), _local_path(output)
    if local is None or folder is None:
        if local is not None or folder is not None:
            return False
        root, match, _ = split_root(pattern)
        at, below = root.rstrip("/") + "/", output.rstrip("/") + "/"
    else:
        path = os.path.abspath(local).replace(os.sep, "/")
        root, match, _ = (path, None, None) if os.path.exists(path) else split_root(path, os.path.isdir)
        at, below = (os.path.realpath(name).rstrip("/") + "/" for name in (root, folder))
    if below.startswith(at):
        return any(_wanted(below[len(at) :] + name, match) for name in written)
    return at.startswith(below) and any(name.startswith(at[len(below) :].partition("/")[0] + "/") for name in written)


def open_input(url: str, size: int | None = None) -> BinaryIO:
    """Open a file for reading, local or in a store; with `size`, refuse a file that has another size by now."""
    try:
        file, now = _open_local(url) if _local_path(url) is not None else _open_store(url)
    except FileNotFoundError as error:
        raise InputError(f"the input {url!r} is gone; list the inputs again") from error
    except PermissionError as error:
        raise InputError(f"the input {url!r} may not be read: permission denied") from error
    except IsADirectoryError as error:
        raise InputError(f"the input {url!r} is a folder, not a file") from error
    if size is not None and now != size:
        file.close()
        raise InputError(f"the input {url!r} has {now} bytes now and had {size} when it was listed; start a new run")
    return file


def copy_range(file: BinaryIO, start: int, end: int, out: BinaryIO) -> None:
    """Copy the bytes [start, end) of an open file."""
    file.seek(start)
    while start < end and (body := file.read(min(1 << 20, end - start))):
        out.write(body)
        start += len(body)


def _local_path(url: str) -> str | None:
    """The path of a local input; None for an input in a store."""
    if url.startswith("file://"):
        return url[len("file://") :]
    if url.startswith("local://"):
        return url[len("local://") :]
    return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", url) else url


def _open_local(url: str) -> tuple[BinaryIO, int]:
    file = Path(cast(str, _local_path(url))).open("rb", buffering=0)  # noqa: SIM115 - the caller closes it
    return cast(BinaryIO, file), os.fstat(file.fileno()).st_size


def _open_store(url: str) -> tuple[BinaryIO, int]:
    fs, path = _store(url)
    try:
        inner = fs.open(path, "rb")
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # stores raise their own classes
        raise StoreError(f"the store of {url!r} cannot be read: {type(error).__name__}: {error}") from error
    size = inner.size if hasattr(inner, "size") else fs.size(path)
    return cast(BinaryIO, io.BufferedReader(_StoreFile(inner, url), 1 << 20)), int(size)


class _StoreFile(io.RawIOBase):
    """A store's file whose failures are StoreErrors, so that a lost connection is never taken for damaged data."""

    def __init__(self, inner: Any, url: str) -> None:
        self._inner, self._url = inner, url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except Exception as error:
            raise StoreError(f"reading {self._url!r} failed: {type(error).__name__}: {error}") from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._inner.seek(offset, whence))

    def tell(self) -> int:
        return int(self._inner.tell())

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


def _store(url: str) -> tuple[Any, str]:
    try:
        return cast("tuple[Any, str]", url_to_fs(url, use_listings_cache=False))
    except ImportError as error:
        raise InputError(f"{url!r} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise InputError(f"{url!r} is not a path or URL that can be opened: {error}") from error


def _wanted(path: str, match: re.Pattern[str] | None) -> bool:
    """Whether a path below the root is an input: nothing hidden or temporary, and the glob or an extension fits."""
    if any(_TEMPORARY.fullmatch(part) for part in path.split("/")):
        return False
    return bool(match.match(path)) if match else path.lower().endswith(tuple(EXTENSIONS))


def _list_local(path: str, pattern: str) -> list[FileEntry]:
    path = os.path.abspath(path).replace(os.sep, "/")
    try:
        os.stat(path)
    except PermissionError as error:
        raise InputError(f"the input {path!r} may not be read: permission denied") from error
    except (OSError, ValueError):  # a pattern, or nothing at all
        pass
    if os.path.isfile(path):
        return [_local_entry(path, os.path.basename(path))]
    root, match, depth = (path, None, None) if os.path.isdir(path) else split_root(path, os.path.isdir)
    if not os.path.isdir(root):
        return []
    root = root.rstrip("/") + "/"
    try:
        return [_local_entry(root + name, name) for name in _walk(root, "", depth, frozenset()) if _wanted(name, match)]
    except PermissionError as error:
        where = os.fspath(error.filename or root)
        raise InputError(f"{where!r}, which {pattern!r} covers, may not be read: permission denied") from error


def _walk(root: str, below: str, depth: int | None, above: frozenset[str]) -> Iterator[str]:
    """Yield files below `root` as relative paths; links are followed, but never in a circle."""
    real = os.path.realpath(root + below)
    if real in above:
        return
    with os.scandir(root + below) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = below + entry.name
            if not os.path.isdir(entry.path):
                if os.path.isfile(entry.path) or (entry.is_symlink() and not os.path.exists(entry.path)):
                    yield name
            elif (depth is None or depth > 1) and not _TEMPORARY.fullmatch(entry.name):
                yield from _walk(root, name + "/", None if depth is None else depth - 1, above | {real})


def _local_entry(path: str, name: str) -> FileEntry:
    if not os.path.exists(path):
        raise InputError(f"the input {path!r} is a link to a file that is not there: remove it, or restore the file")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"the input {os.fsencode(path)!r} has a name that is not UTF-8; give it another") from None
    if not os.access(path, os.R_OK):
        raise InputError(f"the input {path!r} may not be read: permission denied")
    stat = os.stat(path)
    return FileEntry(path, name, stat.st_size, str(stat.st_mtime_ns))


def _list_store(pattern: str) -> list[FileEntry]:
    fs, path = _store(pattern)
    try:
        if not WILD.search(path) and (info := _file_info(fs, path)) is not None:
            return [_store_entry(fs, path, info, path.rpartition("/")[2])]
        root, match, depth = split_root(path)
        root = root.rstrip("/") + "/"
        found = fs.find(root, maxdepth=depth, detail=True)
        names = {name: str(name)[len(root) :] for name in found}
        return [_store_entry(fs, name, found[name], below) for name, below in names.items() if _wanted(below, match)]
    except PermissionError as error:
        raise InputError(f"{pattern!r} may not be listed: permission denied") from error
    except FileNotFoundError:
        return []
    except InputError:
        raise
    except Exception as error:  # stores raise their own classes
        raise InputError(f"{pattern!r} cannot be listed: {type(error).__name__}: {error}") from error


def _file_info(fs: Any, path: str) -> dict[str, Any] | None:
    """Ask a store about a file; None where it has none of this name. What keeps it from answering is raised."""
    try:
        info: dict[str, Any] = fs.info(path)
    except FileNotFoundError as error:
        # Over HTTP, and of a bucket that is not there, fsspec says the same and gives the reason as the cause.
        if error.__cause__ is not None and not isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from error
        return None
    return info if info["type"] == "file" else None


def _store_entry(fs: Any, name: str, info: dict[str, Any], below: str) -> FileEntry:
    if info.get("size") is None:  # an index page names its files without
        info = fs.info(name)
    if info.get("size") is None:
        raise InputError(
            f"the input {name!r} cannot be read in pieces, its server does not tell its size: fetch it first"
        )
    etag = next((str(info[mark]) for mark in _MARKS if info.get(mark)), "")
    return FileEntry(str(fs.unstrip_protocol(name)), below, int(info["size"]), etag.strip('"'))
