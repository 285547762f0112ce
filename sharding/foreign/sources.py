"""Formats of others, as penstock sees them: a source gives documents, a writer takes them; files, options and names.

One module a format holds both of its halves (`megatron`, `datatrove`, `arrays`, `parquet_rows`); `exporting` and
`importing` move documents between these and token files, and know no format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ... import InputError, RequestError
from ..format import Vocabulary
from ..store import Store
from .chunks import CHUNK_TOKENS, Chunk

#: What a document is in the files: as their own index says (a row, where they have none), each row or sequence, or
#: what lies between two EOS.
Boundaries = Literal["index", "rows", "eos"]
BOUNDARIES: tuple[Boundaries, ...] = ("index", "rows", "eos")


@dataclass(frozen=True)
class Reading:
    """How files of others are to be read.

    boundaries: see `Boundaries`. dtype: type of the tokens where a file does not say. column: of token ids in Parquet.
    pad_id: tokens of this id are cut off the end of each row.
    """

    vocabulary: Vocabulary
    boundaries: Boundaries = "index"
    dtype: str | None = None
    column: str = "input_ids"
    pad_id: int | None = None

    def __post_init__(self) -> None:
        if self.boundaries not in BOUNDARIES:
            raise RequestError(f"documents are told by one of {', '.join(BOUNDARIES)}, not {self.boundaries!r}")
        if self.dtype is not None and self.dtype not in ("uint8", "uint16", "uint32", "int32", "int64"):
            raise RequestError(f"dtype is {self.dtype!r}: tokens are uint8, uint16, uint32, int32 or int64")

    @property
    def token(self) -> np.dtype[Any]:
        """Type of a token where a file does not say, little-endian: as asked for, else the vocabulary's."""
        return np.dtype(self.dtype or self.vocabulary.dtype).newbyteorder("<")


@dataclass(frozen=True)
class ForeignFile:
    """A file of tokens in somebody's store, and its path relative to the root that was named."""

    store: Store
    path: str

    def __str__(self) -> str:
        return f"{self.store.url}/{self.path}"

    @property
    def stem(self) -> str:
        """The path without its last suffix."""
        return os.path.splitext(self.path)[0]

    def beside(self, path: str) -> ForeignFile | None:
        """Another file of the same store, where it is there."""
        return ForeignFile(self.store, path) if self.store.exists(path) else None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.store.size(self.path)

    def read(self, start: int, end: int) -> bytes:
        """Give the bytes [start, end); InputError where the file ends before."""
        body = self.store.read(self.path, start, end) if end > start else b""
        if len(body) != end - start:
            raise InputError(f"{self} ends at byte {start + len(body)}, it should go on to {end}: it was cut short")
        return body

    def array(self, kind: np.dtype[Any], start: int, first: int, last: int) -> NDArray[Any]:
        """Give the items [first, last) of an array that begins at byte `start`."""
        return np.frombuffer(self.read(start + first * kind.itemsize, start + last * kind.itemsize), kind)

    def open(self) -> BinaryIO:
        """Open the file for reading from any place."""
        return self.store.open(self.path)


class Source(Protocol):
    """A file of tokens. `documents` is None where only reading the file tells."""

    #: What the file itself says it holds, before it is read.
    documents: int | None
    tokens: int
    #: Tokens left out as padding, once it is read.
    padding: int

    def chunks(self) -> Iterator[Chunk]:
        """Give the documents in the file's order, as they stand."""
        ...


@dataclass(frozen=True)
class Target:
    """What a writer is told: where to write, what the tokens mean, what else there is to carry.

    prefix: path without a suffix. largest: largest id among the tokens. link: a shard's payload, whose bytes are those
    that will be added; it is linked and not written again. marked: some tokens are not learned.
    """

    prefix: Path
    vocabulary: Vocabulary
    largest: int
    link: Path | None = None
    marked: bool = False

    def file(self, suffix: str) -> Path:
        """Give the path of one of its files."""
        return self.prefix.with_name(self.prefix.name + suffix)


class Writer(Protocol):
    """Writes one file (or a file and its index) of a format."""

    def add(self, chunk: Chunk) -> None:
        """Append documents."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Payload:
    """Raw tokens on their way into a file; where the file is a link to them, they are only counted."""

    def __init__(self, path: Path, token: np.dtype[Any], link: Path | None) -> None:
        self.tokens, self._token, self._file = 0, token, None
        if link is None:
            self._file = path.open("xb")
            return
        try:
            os.link(link, path)
        except OSError as error:
            raise RequestError(
                f"cannot link {link} to {path.parent} ({error.strerror}): both must lie on one file system that knows "
                "hard links; leave out the link, and tokens are copied"
            ) from error

    def add(self, tokens: NDArray[Any]) -> None:
        """Append tokens."""
        self.tokens += len(tokens)
        if self._file is not None:
            self._file.write(np.ascontiguousarray(tokens.astype(self._token, copy=False)).view(np.uint8).data)

    def close(self) -> None:
        """Finish."""
        if self._file is not None:
            self._file.close()


def blocks(file: ForeignFile, kind: np.dtype[Any], start: int, count: int) -> Iterator[NDArray[Any]]:
    """Read an array of so many items that begins at byte `start`, a chunk at a time."""
    for first in range(0, count, CHUNK_TOKENS):
        yield file.array(kind, start, first, min(first + CHUNK_TOKENS, count))


def foreign_files(inputs: Sequence[str | Path], suffix: str, **options: Any) -> list[ForeignFile]:
    """Find files: each input a file (its suffix may be left out), a folder, or a glob; paths relative to its root.

    The root is the folder, or what comes before the first wildcard. Sorted by input, then path. InputError where an
    input has no files, or two files have one relative path.
    """
    found: dict[str, ForeignFile] = {}
    for given in map(str, inputs):
        files = _expand(given.rstrip("/"), suffix, options)
        if not files:
            raise InputError(f"{given} has no *{suffix} files: give a file, a folder or a glob")
        for file in files:
            if (other := found.setdefault(file.path, file)) != file:
                raise InputError(
                    f"{other} and {file} have one relative path, {file.path}: their documents would have the same ids; "
                    "name the folder above both"
                )
    return list(found.values())


def _expand(given: str, suffix: str, options: dict[str, Any]) -> list[ForeignFile]:
    if any(sign in given for sign in "*?["):
        plain = min(given.find(sign) for sign in "*?[" if sign in given)
        root = given[: given.rfind("/", 0, plain)] if "/" in given[:plain] else "."
        pattern = given[len(root) + 1 :] if root != "." else given
        store = Store(root or "/", **options)
        return [ForeignFile(store, name) for name in store.list() if fnmatch(name, pattern) and name.endswith(suffix)]
    above, _, name = given.rpartition("/")
    store = Store(above or ("/" if given.startswith("/") else "."), **options)
    for path in (name, name + suffix, os.path.splitext(name)[0] + suffix):
        if path.endswith(suffix) and store.exists(path):
            return [ForeignFile(store, path)]
    folder = Store(given, **options)
    return [ForeignFile(folder, name) for name in folder.list() if name.endswith(suffix)]
