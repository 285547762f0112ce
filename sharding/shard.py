"""One shard: written once, streamed and never held whole; read by ranges, every 64 KiB verified when first touched.

What is checked costs little: xxh3 runs at 14 GB/s, a shard's tables are about 1 % of its payload and are verified by
SHA-256 when they are opened. A local payload is mapped, a remote one read by ranges that begin and end with blocks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from .. import CorruptDataError
from .best_fit import PIECE, best_fit
from .cached import cached_property
from .canonical import SHARD_MAGIC, VERSION, canonical, parse
from .format import Pack, PackCount, ShardEntry, Vocabulary
from .marks import GONE, LOSS, gone_problem, loss_problem, marked
from .npy import npy_array, npy_bytes
from .packing import PackTable
from .payload import BLOCK_BYTES, check_ends, scan
from .store import MissingObjectError, Store, mapped, sha256

__all__ = [
    "BLOCK_BYTES", "PURGED", "Fetch", "ShardReader",
    "pack_shard", "shard_header", "shard_name", "slug", "write_shard",
]  # fmt: skip

#: How the names of objects end that say which shards of a generation were purged: see `purge`.
PURGED = ".purged.json"
#: Gives the bytes [start, end) of an object, told its name and the SHA-256 of its whole content; None is its end.
Fetch = Callable[[str, str, int, "int | None"], "bytes | memoryview"]


def write_shard(
    store: Store,
    *,
    stream: str,
    number: int,
    payload: Path,
    ends: NDArray[np.uint64],
    vocabulary: Vocabulary,
    packs: Sequence[Pack],
    documents: bytes,
    loss: NDArray[Any] | None = None,
    gone: NDArray[Any] | None = None,
) -> ShardEntry:
    """Write a shard's members under `data/` of a data set; equal content is written once.

    payload: local file of raw tokens in their final order, EOS (and BOS) in place. ends: (documents,) where each
    document ends, in tokens. documents: the bytes of NAME.docs.parquet. loss: (spans, 2) ranges of tokens that are not
    learned; gone: (n,) ordinals of documents taken down, nothing but EOS in the payload (`marks`). Refuses what is not
    the format, ValueError.
    """
    ends = np.ascontiguousarray(ends, dtype=np.uint64)
    tokens = payload.stat().st_size // vocabulary.itemsize
    check_ends(ends, tokens, payload.stat().st_size, vocabulary.itemsize)
    marks = {
        LOSS: marked(loss, lambda spans: loss_problem(spans, tokens), (0, 2)),
        GONE: marked(gone, lambda ordinals: gone_problem(ordinals, len(ends)), (0,)),
    }
    digest, sums, largest = scan(payload, ends, vocabulary, marks[GONE])
    arrays = {".ends.npy": ends, ".sums.npy": sums, **marks}
    bodies = {suffix: npy_bytes(array) for suffix, array in arrays.items() if array is not None}
    bodies[".docs.parquet"] = documents
    members = {".bin": digest, **{suffix: sha256(body) for suffix, body in bodies.items()}}
    bodies[".json"] = shard_header(stream, number, members, {
        "tokens": tokens, "documents": len(ends), "largest_id": largest, "block_bytes": BLOCK_BYTES,
        "vocabulary": vocabulary.to_json(),
    })  # fmt: skip
    members[".json"] = sha256(bodies[".json"])
    name = shard_name(stream, number, members)
    counts = {}
    for pack in packs:
        counts[pack.name], table = pack_shard(ends, pack, pack.group_rows(vocabulary.itemsize))
        bodies |= table
        members |= {suffix: sha256(body) for suffix, body in table.items()}
    entry = ShardEntry(name, stream, number, tokens, len(ends), digest, members, counts)
    store.put_named(payload, entry.path(".bin"))
    for suffix, body in bodies.items():
        store.put_named(body, entry.path(suffix))
    return entry


def pack_shard(ends: NDArray[np.uint64], pack: Pack, group_rows: int) -> tuple[PackCount, dict[str, bytes]]:
    """Lay out a shard's rows in one pack, from its document ends alone: counts, and the table by suffix, if any."""
    pieces = best_fit(ends, pack.length, group_rows) if pack.policy == "best_fit" else None
    tables = {} if pieces is None else {pack.suffix: npy_bytes(pieces)}
    return PackTable(pack, group_rows, ends, pieces).count, tables


def shard_header(stream: str, number: int, members: Mapping[str, str], values: Mapping[str, Any]) -> bytes:
    """Make the header: of what stream and number a shard is, its members' SHA-256, and what else is said of it."""
    head = {"magic": SHARD_MAGIC, "version": list(VERSION), "stream": stream, "number": number}
    return canonical({**values, **head, "sha256": dict(members)})


def slug(stream: str) -> str:
    """Write a stream's name so that it can begin the name of a file."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", stream).strip("-")[:40] or "stream"


def shard_name(stream: str, number: int, members: Mapping[str, str]) -> str:
    """Stream, number and 20 hex digits over the members' SHA-256, without the packs' tables.

    The stream's part is for people: any name may stand there. Packs are added later and rename nothing.
    """
    return f"{slug(stream)}-{number:05d}-{hashlib.sha256(canonical(members)).hexdigest()[:20]}"


class ShardReader:
    """Reads a shard. `shard` is its number in the generation's order, `fetch` reads ranges of a remote store.

    verified: members that need no second look, by shard and suffix: of many, one is opened anew for nearly every block.
    What does not match its checksum raises CorruptDataError, naming the shard and the block. Picklable, thread-safe.
    """

    def __init__(
        self,
        store: Store,
        entry: ShardEntry,
        vocabulary: Vocabulary,
        shard: int = 0,
        fetch: Fetch | None = None,
        verified: set[tuple[int, str]] | None = None,
    ) -> None:
        self.store, self.entry, self.vocabulary, self.shard, self.fetch = store, entry, vocabulary, shard, fetch
        self._verified = set() if verified is None else verified
        self._tables: dict[str, PackTable] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, (self.store, self.entry, self.vocabulary, self.shard, self.fetch)

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return self.entry.tokens * self.vocabulary.itemsize

    def member(self, suffix: str) -> bytes | memoryview:
        """Give a whole member by its suffix, e.g. `.docs.parquet`, verified by its SHA-256."""
        name, digest = self.entry.path(suffix), self.entry.members[suffix]
        try:
            if (path := self.store.local(name)) is not None:
                body: bytes | memoryview = mapped(path) if suffix.endswith(".npy") else self.store.read(name)
            elif self.fetch is None:
                body = self.store.read(name)
            else:
                body = self.fetch(name, digest, 0, None)
        except FileNotFoundError as error:
            raise self._lost(name) from error
        known = self.shard, suffix
        if known not in self._verified:
            if hashlib.sha256(body).hexdigest() != digest:
                raise CorruptDataError(
                    f"shard {self.entry.name}: {name} does not match its SHA-256; restore it from a copy"
                )
            self._verified.add(known)
        return body

    @cached_property
    def header(self) -> dict[str, Any]:
        """The shard's header; refused where it is of a newer major version."""
        return parse(bytes(self.member(".json")), SHARD_MAGIC, self.entry.path(".json"))

    @cached_property
    def ends(self) -> NDArray[np.uint64]:
        """(documents,) uint64: where each document ends, in tokens."""
        return self._array(".ends.npy", np.dtype("<u8"), self.entry.documents)

    @cached_property
    def sums(self) -> NDArray[np.uint64]:
        """(blocks,) uint64: xxh3_64 of every 64 KiB of the payload."""
        return self._array(".sums.npy", np.dtype("<u8"), -(-self.size // BLOCK_BYTES))

    @cached_property
    def loss(self) -> NDArray[np.uint64]:
        """(spans, 2) uint64: rising ranges of tokens [start, stop) that are not learned; mostly there are none."""
        return self._marks(LOSS, (2,))

    @cached_property
    def gone(self) -> NDArray[np.uint64]:
        """(n,) uint64: ordinals of documents that were taken down, rising; mostly there are none."""
        return self._marks(GONE, ())

    def table(self, pack: Pack) -> PackTable:
        """Say where the rows of a pack lie."""
        if pack.name not in self._tables:
            pieces = None
            if pack.policy == "best_fit":
                pieces = self._array(pack.suffix, PIECE, self.entry.packs[pack.name].pieces)
            self._tables[pack.name] = PackTable(pack, self.entry.packs[pack.name].group_rows, self.ends, pieces)
        return self._tables[pack.name]

    def span(self, pack: Pack, group: int) -> tuple[int, int]:
        """Give a group's range of tokens; looks into no table where arithmetic tells it."""
        count = self.entry.packs[pack.name]
        if pack.policy == "best_fit" or not 0 <= group < count.groups:
            return self.table(pack).span(group)
        size = count.group_rows * pack.length
        return group * size, min((group + 1) * size, self.entry.tokens)

    def tokens(self, start: int, stop: int) -> NDArray[Any]:
        """Give the tokens [start, stop), read-only, each block verified when it is first read."""
        stop = min(stop, self.entry.tokens)
        if not 0 <= start <= stop:
            raise IndexError(f"tokens {start} to {stop} of {self.entry.tokens}")
        size = self.vocabulary.itemsize
        first, last = start * size // BLOCK_BYTES, -(-stop * size // BLOCK_BYTES)
        if self._map is not None:
            for block in range(first, last):
                if not self._seen[block]:
                    self._check(block, self._map[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES])
                    self._seen[block] = True
            return self._map[start * size : stop * size].view(self.vocabulary.token)
        low, high = self.extent(start, stop)
        body = np.frombuffer(self._read(low, high), np.uint8)
        for block in range(first, last):
            self._check(block, body[block * BLOCK_BYTES - low : (block + 1) * BLOCK_BYTES - low])
        return body[start * size - low : stop * size - low].view(self.vocabulary.token)

    def extent(self, start: int, stop: int) -> tuple[int, int]:
        """Give the bytes [low, high) that are read for the tokens [start, stop): whole blocks under a checksum."""
        size, stop = self.vocabulary.itemsize, min(stop, self.entry.tokens)
        return start * size // BLOCK_BYTES * BLOCK_BYTES, min(-(-stop * size // BLOCK_BYTES) * BLOCK_BYTES, self.size)

    def _lost(self, name: str) -> CorruptDataError:
        """Say why a member is not there: it was purged, or it is lost."""
        for marker in self.store.list("generations/"):
            if marker.endswith(PURGED) and self.entry.name in json.loads(self.store.read(marker))["shards"]:
                return CorruptDataError(
                    f"{self.store.url}/{name} was purged: documents in it were taken down, and it was removed. Read "
                    "the current generation, in which every other row keeps its place"
                )
        return CorruptDataError(f"shard {self.entry.name} has lost {name}: restore it from a copy")

    def _array(self, suffix: str, kind: np.dtype[Any], length: int) -> NDArray[Any]:
        return self._shaped(suffix, self._any_array(suffix, kind), (length,))

    def _marks(self, suffix: str, row: tuple[int, ...]) -> NDArray[np.uint64]:
        """Read an optional member, as many marks as it has."""
        if suffix not in self.entry.members:
            return np.zeros((0, *row), np.uint64)
        array = self._any_array(suffix, np.dtype("<u8"))
        return self._shaped(suffix, array, (array.shape[0] if array.ndim else 0, *row))

    def _any_array(self, suffix: str, kind: np.dtype[Any]) -> NDArray[Any]:
        try:
            return npy_array(self.member(suffix), kind)
        except ValueError as error:
            raise CorruptDataError(f"{self.entry.path(suffix)} is no table of penstock: {error}") from error

    def _shaped(self, suffix: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if array.shape != shape:
            raise CorruptDataError(
                f"{self.entry.path(suffix)} holds {array.shape} of {array.dtype}, not {shape}: "
                "it belongs to another shard; restore it from a copy"
            )
        return array

    def _read(self, start: int, end: int) -> bytes | memoryview:
        name = self.entry.path(".bin")
        fetch = self.fetch
        try:
            body = self.store.read(name, start, end) if fetch is None else fetch(name, self.entry.sha256, start, end)
        except MissingObjectError as error:
            raise self._lost(name) from error
        if len(body) != end - start:
            raise CorruptDataError(
                f"shard {self.entry.name}: {name} ends before byte {end}, it was cut short; restore it from a copy"
            )
        return body

    @cached_property
    def _map(self) -> NDArray[np.uint8] | None:
        """The whole payload, mapped; None where it is remote."""
        path = self.store.local(self.entry.path(".bin"))
        if path is None:
            return None
        if not path.is_file():
            raise self._lost(self.entry.path(".bin"))
        size = path.stat().st_size
        if size != self.size:
            raise CorruptDataError(
                f"shard {self.entry.name}: {path} has {size} bytes, it was written with "
                f"{self.size}; restore it from a copy"
            )
        return np.frombuffer(mapped(path), np.uint8)

    @cached_property
    def _seen(self) -> NDArray[np.bool_]:
        return np.zeros(len(self.sums), np.bool_)

    def _check(self, block: int, body: NDArray[np.uint8]) -> None:
        if xxhash.xxh3_64_intdigest(body.data) != int(self.sums[block]):
            start = block * BLOCK_BYTES
            raise CorruptDataError(
                f"shard {self.entry.name}: block {block} (bytes {start} to {start + len(body)} of "
                f"{self.entry.path('.bin')}) does not match its checksum; restore the file from a copy"
            )
