"""Export: token files as Megatron, OLMo, datatrove and nanotron, llm.c and HF trainers read them.

A shard becomes a file of the format (or all shards of a stream one, merged), in the order of the payload, verified as
it is read; documents taken down are left out. A payload can be linked instead of copied where the format's file is
nothing but tokens: then an export writes an index alone. The folder appears whole under its name, or not at all; its
`export.json` says what it holds and what the tokens mean, so that `importing` needs no telling.

Copying runs at the disk's speed; memory is a chunk, and 4 bytes a document for Megatron's index.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ... import InputError, ReconciliationError, RequestError, require
from ..canonical import VERSION, canonical
from ..cohorts import means
from ..dataset import TokenData, open_tokens
from ..documents import Documents
from ..format import Pack
from ..marks import LOSS
from ..shard import ShardReader, slug
from .arrays import LlmcWriter, NpyWriter
from .chunks import Chunk, learned_between, runs
from .datatrove import DatatroveWriter
from .megatron import MegatronWriter
from .parquet_rows import PackedWriter, ParquetWriter
from .sources import Target, Writer

EXPORT_MAGIC, RECEIPT, _LOCK = "penstock-export", "export.json", ".lock"
#: What writes each format, the suffix of the file that its readers are given, and whether that file is raw tokens.
WRITERS: dict[str, tuple[Callable[[Target], Writer], str, bool]] = {
    "megatron": (MegatronWriter, ".idx", True),
    "parquet": (ParquetWriter, ".parquet", False),
    "npy": (NpyWriter, ".npy", True),
    "datatrove": (DatatroveWriter, ".ds", True),
    "llmc": (LlmcWriter, ".bin", False),
}
#: Formats that can say which tokens are not learned, and which carry what is known of a document.
_MARKED, _COLUMNED = ("parquet", "npy", "datatrove"), ("parquet", "npy")


def export_tokens(
    path: str | Path | TokenData,
    output: str | Path,
    to: str,
    *,
    streams: Sequence[str] | None = None,
    merge: bool = False,
    link: bool = False,
    pack: str | None = None,
    generation: int | None = None,
) -> dict[str, Any]:
    """Write a data set's documents in another format into a new local folder; give what `export.json` says.

    to: megatron, parquet, npy (OLMo), datatrove (nanotron), llmc. streams: of these alone. merge: a file a stream
    instead of a file a shard. link: hard links to payloads instead of copies; what is taken down later stays in them.
    pack: rows of this pack instead of documents, in Parquet. RequestError where the format cannot hold what is asked.
    """
    data = path if isinstance(path, TokenData) else open_tokens(path, generation)
    if to not in WRITERS:
        raise RequestError(f"there is no format {to!r} to export to: {', '.join(WRITERS)}")
    if "://" in str(output):
        raise RequestError(f"an export is written into a local folder, not to {output}: export, then copy it there")
    if pack is not None and (to != "parquet" or merge or link):
        raise RequestError("rows of a pack are exported to parquet, a file a shard: leave out the pack, merge and link")
    if link and (merge or not WRITERS[to][2]):
        raise RequestError(f"{to}{' merged' if merge else ''} is not the payload as it lies, nothing can be linked")
    target = Path(output).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RequestError(f"{target} stands and is not empty: an export makes a new folder")
    export = _Export(
        data, to, _chosen(data, streams), merge, link, None if pack is None else data.generation.pack(pack).pack
    )
    with _whole(target) as spool:
        receipt = export.write(spool)
        (spool / RECEIPT).write_bytes(canonical(receipt))
    return receipt


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Give a folder that becomes `target` at the end, or goes; one that a killed export left is used again."""
    spool = target.with_name(f".{target.name}.tmp")
    spool.mkdir(parents=True, exist_ok=True)
    with (spool / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RequestError(
                f"another export to {target} is under way: wait for it, or name another folder"
            ) from error
        for left in spool.iterdir():
            if left.name != _LOCK:
                left.unlink()
        try:
            yield spool
            (spool / _LOCK).unlink()
            spool.rename(target)
        finally:
            shutil.rmtree(spool, ignore_errors=True)


def _chosen(data: TokenData, streams: Sequence[str] | None) -> list[int]:
    """Number the shards of these streams, and of what was appended to them."""
    entries, there = data.generation.shards, data.generation.streams
    if streams is None:
        return list(range(len(entries)))
    for stream in streams:
        if not any(means(stream, name) for name in there):
            raise InputError(f"there is no stream {stream!r} here: this data set has {', '.join(there)}")
    return [number for number, entry in enumerate(entries) if any(means(stream, entry.stream) for stream in streams)]


class _Export:
    """One export under way."""

    def __init__(self, data: TokenData, to: str, shards: list[int], merge: bool, link: bool, pack: Pack | None) -> None:
        self.data, self.to, self.shards, self.merge, self.link, self.pack = data, to, shards, merge, link, pack
        self.documents = Documents(data)
        entries = data.generation.shards
        self.marked = to in _MARKED and any(LOSS in entries[shard].members for shard in shards)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write every file; give the receipt. What was written is held against what the generation counts."""
        held, files, left = self.data.generation, [], {"documents": 0, "tokens": 0, "loss_tokens": 0}
        for name, numbers in self._files():
            told = (self._packed if self.pack else self._copied)(folder / name, numbers)
            for key in left:
                left[key] += told.pop(f"{key}_left_out")
            if not told["documents"]:  # all were taken down: nobody reads an empty file
                for path in folder.glob(f"{name}.*"):
                    path.unlink()
                continue
            stream = held.shards[numbers[0]].stream
            files.append({"path": name + WRITERS[self.to][1], "stream": stream, **told})
        return {
            "magic": EXPORT_MAGIC, "version": list(VERSION), "format": self.to,
            "pack": self.pack and self.pack.name, "merged": self.merge,
            "generation": held.number, "tokens_sha256": held.tokens_sha256, "vocabulary": held.vocabulary.to_json(),
            "documents": sum(file["documents"] for file in files), "tokens": sum(file["tokens"] for file in files),
            "left_out": left, "files": files,
        }  # fmt: skip

    def _files(self) -> Iterator[tuple[str, list[int]]]:
        """Name each file and say which shards go into it: after the shard, or after the stream and its order."""
        entries = self.data.generation.shards
        if not self.merge:
            yield from ((entries[shard].name, [shard]) for shard in self.shards)
            return
        for number, (stream, shards) in enumerate(groupby(self.shards, key=lambda shard: entries[shard].stream)):
            yield f"{slug(stream)}-{number:03d}", list(shards)

    def _target(self, prefix: Path, readers: Sequence[ShardReader]) -> Target:
        link = None
        if self.link and not len(readers[0].gone):
            link = readers[0].store.local(readers[0].entry.path(".bin"))
            if link is None:
                raise RequestError(f"{readers[0].store.url} is no local folder: tokens there are copied, not linked")
        largest = max(int(reader.header["largest_id"]) for reader in readers)
        return Target(prefix, self.data.generation.vocabulary, largest, link, self.marked)

    def _copied(self, prefix: Path, shards: list[int]) -> dict[str, int]:
        readers = [self.documents.reader(shard) for shard in shards]
        told = {"documents": 0, "tokens": 0, "documents_left_out": 0, "tokens_left_out": 0, "loss_tokens_left_out": 0}
        writer = WRITERS[self.to][0](self._target(prefix, readers))
        with ExitStack() as stack:
            stack.callback(writer.close)
            for shard, reader in zip(shards, readers, strict=True):
                columns = _Columns(self.documents, shard) if self.to in _COLUMNED else None
                before = dict(told)
                for whole, chunk in kept_documents(reader, columns):
                    writer.add(chunk)
                    told["documents"] += len(chunk)
                    told["tokens"] += len(chunk.tokens)
                    told["documents_left_out"] += len(whole) - len(chunk)
                    told["tokens_left_out"] += len(whole.tokens) - len(chunk.tokens)
                    if self.to not in _MARKED and chunk.learned is not None:
                        told["loss_tokens_left_out"] += int((~chunk.learned).sum())
                for key in ("documents", "tokens"):
                    done = told[key] + told[f"{key}_left_out"] - before[key] - before[f"{key}_left_out"]
                    if done != getattr(reader.entry, key):
                        raise ReconciliationError(
                            f"shard {reader.entry.name} has {getattr(reader.entry, key)} {key}, {done} were exported "
                            "or left out: run penstock verify on the data set"
                        )
        return told

    def _packed(self, prefix: Path, shards: list[int]) -> dict[str, int]:
        assert self.pack is not None
        (shard,) = shards
        reader = self.documents.reader(shard)
        table, rows = reader.table(self.pack), 0
        writer = PackedWriter(self._target(prefix, [reader]))
        with ExitStack() as stack:
            stack.callback(writer.close)
            for group in range(table.groups):
                rows += writer.add_group(reader, self.pack, group)
        if rows != table.rows:
            raise ReconciliationError(f"shard {reader.entry.name} has {table.rows} rows, {rows} were exported")
        gone, lengths = reader.gone.astype(np.int64), np.diff(reader.ends.astype(np.int64), prepend=0)
        left = int(lengths[gone].sum())
        return {
            "documents": reader.entry.documents - len(gone), "tokens": reader.entry.tokens - left, "rows": rows,
            "documents_left_out": len(gone), "tokens_left_out": left, "loss_tokens_left_out": 0,
        }  # fmt: skip


def kept_documents(reader: ShardReader, columns: _Columns | None = None) -> Iterator[tuple[Chunk, Chunk]]:
    """Give a shard's documents in the payload's order, a chunk at a time: all of them, and those not taken down."""
    ends, spans = reader.ends.astype(np.int64), reader.loss
    kept = np.ones(len(ends), np.bool_)
    kept[reader.gone.astype(np.int64)] = False
    for first, last in runs(ends):
        start, stop = int(ends[first - 1]) if first else 0, int(ends[last - 1])
        whole = Chunk(
            reader.tokens(start, stop),
            ends[first:last] - start,
            learned_between(spans, start, stop),
            None if columns is None else columns.take(last - first),
        )
        yield whole, whole if kept[first:last].all() else whole.take(np.flatnonzero(kept[first:last]))


class _Columns:
    """What is known of a shard's documents, in order; ids in hex, for those who have no 16-byte type."""

    def __init__(self, documents: Documents, shard: int) -> None:
        self._batches = documents.table(shard).iter_batches(use_threads=False)
        self._held: list[Any] = []

    def take(self, count: int) -> Any:
        """Give the next documents as an Arrow table."""
        pa = require("pyarrow", "curate")
        while sum(len(batch) for batch in self._held) < count:
            if (batch := next(self._batches, None)) is None:
                raise InputError("a shard's docs.parquet has fewer rows than documents: run penstock verify")
            self._held.append(_with_hex(batch))
        table = pa.Table.from_batches(self._held)
        self._held = table.slice(count).to_batches()
        return table.slice(0, count)


def _with_hex(batch: Any) -> Any:
    """Turn bytes, as ids are, into hex digits."""
    pa = require("pyarrow", "curate")
    for at, field in enumerate(batch.schema):
        if pa.types.is_fixed_size_binary(field.type) or pa.types.is_binary(field.type):
            column = batch.column(at)
            values = pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.string())
            batch = batch.set_column(at, field.name, values)
    return batch
