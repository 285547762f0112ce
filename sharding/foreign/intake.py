"""Documents on their way into shards: spooled to local files, dealt to buckets where they are shuffled, written.

In order, a shard is filled until the next document would make it longer than it may be. Shuffled, every document goes
to the bucket that a keyed hash of its id names, one bucket a shard, and each bucket is put in the order of (another
keyed hash, id): a uniform shuffle of documents that depends on ids and seed alone. It reads the input once and writes
it twice; memory is 256 MiB of documents not yet dealt, and one shard's tables.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from ... import require
from ..format import Pack, ShardEntry, Vocabulary
from ..permutation import derive
from ..shard import write_shard
from ..store import Store
from .chunks import Chunk, Ints, joined_spans, learned_of, runs, unlearned_spans

#: Rows in a row group of docs.parquet.
_TABLE_ROWS = 1 << 16
#: Bytes of tokens held back before they are dealt to buckets.
_HELD_BYTES = 1 << 28


def id_words(columns: Any) -> NDArray[np.uint64]:
    """View the column `id` of a table, 16 bytes each, as (n, 2) words."""
    column = columns.column("id").combine_chunks()
    data = column.buffers()[1]
    words = np.frombuffer(data, "<u8") if data is not None else np.zeros(0, np.uint64)
    return words[2 * column.offset : 2 * (column.offset + len(column))].reshape(-1, 2)


def keyed_ids(columns: Any, seed: int, purpose: str) -> NDArray[np.uint64]:
    """Hash ids (n,) with a seed and what the hash is for."""
    words = id_words(columns)
    return derive(xxhash.xxh3_64_intdigest(f"{seed} {purpose}".encode()), words[:, 0], words[:, 1])[: len(words)]


class Spool:
    """Documents in local files as they came: tokens, what is not learned, and what is known of them."""

    def __init__(self, path: Path, vocabulary: Vocabulary) -> None:
        self._path, self._vocabulary = path, vocabulary
        self._tables, self._unlearned = path.with_suffix(".arrow"), path.with_suffix(".unlearned")
        self._lengths: list[Ints] = []
        self.tokens = self.documents = 0

    @property
    def bytes(self) -> int:
        """Bytes of tokens held."""
        return self.tokens * self._vocabulary.itemsize

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Append documents, their tokens of the vocabulary's type."""
        pa = require("pyarrow", "curate")
        with self._path.open("ab") as file:
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk.tokens).view(np.uint8).data)
        if (learned := learned_of(chunks)) is not None:
            with self._unlearned.open("ab") as file:
                file.truncate(self.tokens)  # what came before, all learned, is a hole of zeros
                file.seek(self.tokens)
                file.write((~learned).data)
        table = pa.concat_tables([chunk.columns for chunk in chunks], promote_options="permissive")
        with self._tables.open("ab") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        for chunk in chunks:
            self._lengths.append(chunk.lengths)
            self.tokens, self.documents = self.tokens + len(chunk.tokens), self.documents + len(chunk)

    def table(self) -> Any:
        """Read what is known of the documents, a row each."""
        pa = require("pyarrow", "curate")
        tables = []
        with pa.memory_map(str(self._tables)) as file:
            while file.tell() < file.size():
                with pa.ipc.open_stream(file) as stream:
                    tables.append(stream.read_all())
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()

    def put(
        self,
        store: Store,
        stream: str,
        numbers: Callable[[], int],
        packs: Sequence[Pack],
        limit: int,
        order: Callable[[Any], Ints] | None = None,
    ) -> Iterator[ShardEntry]:
        """Write the documents as shards of at most `limit` bytes, in an order that is told the table; remove the spool.

        order: None leaves the documents as they came; then they are one shard, however long.
        """
        table, lengths = self.table(), np.concatenate(self._lengths)
        spans = [(np.arange(len(lengths)), self._path)]
        if order is not None:
            ordered = order(table)
            parts = runs(np.cumsum(lengths[ordered]), limit // self._vocabulary.itemsize)
            spans = [(ordered[first:last], self._path.with_suffix(".ordered")) for first, last in parts]
        for documents, payload in spans:
            if payload != self._path:
                self._gather(documents, lengths, payload)
            yield self._shard(store, stream, numbers(), packs, payload, documents, table, lengths)
        for path in (self._path, self._tables, self._unlearned, self._path.with_suffix(".ordered")):
            path.unlink(missing_ok=True)

    def _gather(self, documents: Ints, lengths: Ints, path: Path) -> None:
        """Write the tokens of these documents to a file, a chunk at a time."""
        tokens = np.memmap(self._path, self._vocabulary.token, "r")
        whole = Chunk(np.asarray(tokens), np.cumsum(lengths))
        with path.open("wb") as file:
            for first, last in runs(np.cumsum(lengths[documents])):
                file.write(whole.take(documents[first:last]).tokens.data)

    def _spans(self, documents: Ints, lengths: Ints) -> Ints | None:
        """Ranges that are not learned, in the order of these documents."""
        if not self._unlearned.exists():
            return None
        with self._unlearned.open("ab") as file:
            file.truncate(self.tokens)
        marks = Chunk(np.asarray(np.memmap(self._unlearned, np.bool_, "r")), np.cumsum(lengths))
        ends, parts = np.cumsum(lengths[documents]), []
        for first, last in runs(ends):
            start = int(ends[first - 1]) if first else 0
            parts.append(unlearned_spans(~marks.take(documents[first:last]).tokens, start))
        return joined_spans(parts)

    def _shard(
        self, store: Store, stream: str, number: int, packs: Sequence[Pack], payload: Path, documents: Ints,
        table: Any, lengths: Ints,
    ) -> ShardEntry:  # fmt: skip
        parquet, body = require("pyarrow.parquet", "curate"), io.BytesIO()
        parquet.write_table(table.take(documents), body, compression="zstd", row_group_size=_TABLE_ROWS)
        return write_shard(
            store,
            stream=stream,
            number=number,
            payload=payload,
            ends=np.cumsum(lengths[documents]).astype(np.uint64),
            vocabulary=self._vocabulary,
            packs=packs,
            documents=body.getvalue(),
            loss=self._spans(documents, lengths),
        )


class Intake(Protocol):
    """Takes the documents of one stream and makes shards of them."""

    #: The shards written.
    entries: list[ShardEntry]

    def add(self, chunk: Chunk) -> None:
        """Take documents."""
        ...

    def cut(self) -> None:
        """End a shard here."""
        ...

    def close(self) -> None:
        """Write what is held."""
        ...


class InOrder:
    """Makes shards of documents as they come, each up to so many bytes."""

    def __init__(
        self, store: Store, stream: str, vocabulary: Vocabulary, packs: Sequence[Pack], limit: int, folder: Path
    ) -> None:
        self._store, self._stream, self._vocabulary, self._packs = store, stream, vocabulary, packs
        self._limit, self._path, self.entries = limit, folder / "spool", list[ShardEntry]()
        folder.mkdir()
        self._spool = Spool(self._path, vocabulary)

    def add(self, chunk: Chunk) -> None:
        """Take documents."""
        first = 0
        while first < len(chunk):
            room = (self._limit - self._spool.bytes) // self._vocabulary.itemsize
            start = int(chunk.ends[first - 1]) if first else 0
            last = int(np.searchsorted(chunk.ends, start + room, side="right"))
            if last == first and self._spool.documents:
                self.cut()
                continue
            last = max(last, first + 1)
            self._spool.add([chunk.part(first, last)])
            first = last

    def cut(self) -> None:
        """End a shard here."""
        if self._spool.documents:
            self.entries += self._spool.put(
                self._store, self._stream, lambda: len(self.entries), self._packs, self._limit
            )
            self._spool = Spool(self._path, self._vocabulary)

    close = cut


class Shuffled:
    """Deals documents to buckets by a keyed hash of their ids, and puts each bucket in a keyed order."""

    def __init__(
        self, store: Store, stream: str, vocabulary: Vocabulary, packs: Sequence[Pack], limit: int, folder: Path,
        buckets: int, seed: int,
    ) -> None:  # fmt: skip
        self._store, self._stream, self._packs, self._limit, self._seed = store, stream, packs, limit, seed
        folder.mkdir()
        self._spools = [Spool(folder / str(number), vocabulary) for number in range(buckets)]
        self._held: list[list[Chunk]] = [[] for _ in self._spools]
        self._bytes, self.entries = 0, list[ShardEntry]()

    def add(self, chunk: Chunk) -> None:
        """Take documents."""
        bucket = keyed_ids(chunk.columns, self._seed, "bucket") % np.uint64(len(self._spools))
        order = np.argsort(bucket, kind="stable")
        dealt = chunk.take(order)
        cuts = np.searchsorted(bucket[order], np.arange(len(self._spools) + 1, dtype=np.uint64))
        for held, first, last in zip(self._held, cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            if last > first:
                held.append(dealt.part(first, last))
        self._bytes += dealt.tokens.nbytes
        if self._bytes >= _HELD_BYTES:
            self._flush()

    def cut(self) -> None:
        """Nothing: where shards end, the shuffle says."""

    def _flush(self) -> None:
        for spool, held in zip(self._spools, self._held, strict=True):
            if held:
                spool.add(held)
                held.clear()
        self._bytes = 0

    def close(self) -> None:
        """Write what is held."""
        self._flush()
        for spool in self._spools:
            if spool.documents:
                self.entries += spool.put(
                    self._store, self._stream, self._number, self._packs, self._limit, self._order
                )

    def _number(self) -> int:
        return len(self.entries)

    def _order(self, table: Any) -> Ints:
        return np.lexsort((*id_words(table).byteswap().T[::-1], keyed_ids(table, self._seed, "order")))
