"""Blocks of an index: written from the signed parts of a run, read by row, and written anew without some documents.

In a block, documents that stayed come first, then by id: so the smallest address of a digest is the document that a
match should name. Bands go one by one: memory holds about 150 bytes a document, whatever the number of bands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import CorruptDataError
from ..sharding.store import Store
from ..transforms.kernels.entries import sort_entries
from ..transforms.schema import ID, id_words
from .exchange import PACKED, Packed
from .index_batches import Block, Entries
from .stage import Meter, Receipt, Stage, run_task
from .tables import parquet
from .views import View, get_array, get_strings

Words = NDArray[np.uint64]
LOW = np.uint64(0xFFFFFFFF)
ROW_GROUP = 1 << 16
#: A row for every document; its number is the low half of the document's address.
TABLE = pa.schema(
    [
        ("id", ID),
        ("source_id", pa.string()),  # the user's own id, where a column is mapped to it
        ("source", pa.string()),  # name of the input it came from
        ("content", ID),  # 128-bit digest of its text
        ("kept", pa.bool_()),  # by the run that added it
    ]
)


@dataclass(frozen=True)
class SignedPart:
    """A part of a run and the receipt of its signatures."""

    number: int
    source: str
    receipt: Receipt


@dataclass(frozen=True)
class BlockTask:
    """Neighbouring parts that become one block."""

    number: int
    signed: Stage  # whose receipts they are: of URLs, or of documents
    parts: tuple[SignedPart, ...]

    @property
    def key(self) -> str:
        """Name its receipt."""
        return f"block-{self.signed.name}-{self.number:06d}"


def deal_blocks(signed: Stage, parts: Iterable[SignedPart], most: int) -> list[BlockTask]:
    """Deal a stage's parts, in order, into blocks of at most `most` documents or one part."""
    dealt: list[list[SignedPart]] = []
    room = -1
    for part in parts:
        documents = part.receipt["documents"]
        if documents > room:
            dealt.append([])
            room = most
        dealt[-1].append(part)
        room -= documents
    return [BlockTask(number, signed, tuple(held)) for number, held in enumerate(dealt)]


@dataclass(frozen=True)
class AddBlock:
    """Write one block of a batch unless its receipt stands."""

    stage: Stage
    index: Store
    folder: str  # of the batch in the index
    view: View  # what the run kept

    def __call__(self, task: BlockTask) -> None:
        """Commit the block's objects to the index, and its description to the run's stage."""
        run_task(self.stage, task.key, partial(self.compute, task))

    def compute(self, task: BlockTask, folder: Path, meter: Meter) -> Receipt:
        """Join the parts' documents and entries."""
        store = task.signed.store
        with meter.on("documents"):
            table, rows, numbers = self._documents(task)
        with meter.on("digests"):
            bands = sorted({band for part in task.parts for band in part.receipt["bands"]})
            entries = ((band, _numbered(store, task.parts, rows, numbers, band)) for band in bands)
            block = put_block(self.index, self.folder, folder, task.signed.name, table, entries)
        return {"block": None if block is None else block.model_dump(mode="json")}

    def _documents(self, task: BlockTask) -> tuple[pa.Table, list[Words], list[Words]]:
        """Give the block's table; for each part the rows of its documents, and their numbers in the block."""
        store, tables, rows = task.signed.store, [], []
        for part in task.parts:
            receipt = part.receipt
            rows.append(get_array(store, receipt["rows"]))
            count = len(rows[-1])
            columns = [
                _binary(get_array(store, receipt["ids"])),
                pa.nulls(count, pa.string()) if receipt["own"] is None else get_strings(store, receipt["own"]),
                pa.repeat(part.source, count),
                _binary(get_array(store, receipt["contents"])),
                pa.array(self.view.stays(part.number, rows[-1].astype(np.int64))),
            ]
            tables.append(pa.table(columns, schema=TABLE))
        table = pa.concat_tables(tables).combine_chunks()
        big = id_words(table.column("id")).byteswap()
        kept = table.column("kept").to_numpy(zero_copy_only=False)
        order = np.lexsort((big[:, 1], big[:, 0], ~kept))
        numbers = np.empty(len(order), np.uint64)
        numbers[order] = np.arange(len(order), dtype=np.uint64)
        ends = np.cumsum([len(one) for one in tables])
        return table.take(pa.array(order)).combine_chunks(), rows, np.split(numbers, ends[:-1])


def _numbered(
    store: Store, parts: Sequence[SignedPart], rows: Sequence[Words], numbers: Sequence[Words], band: str
) -> Packed:
    """Give all entries of a band, with the numbers that their documents have in the block."""
    found = [np.zeros(0, PACKED)]
    for part, at, number in zip(parts, rows, numbers, strict=True):
        receipt = part.receipt
        for name, places in (("digests", "bands"), ("repeat_digests", "repeat_bands")):
            start, end = receipt[places].get(band, (0, 0))
            packed = read_entries(store, receipt[name], start, end).copy()
            packed["address"] = number[np.searchsorted(at, packed["address"] & LOW)]
            found.append(packed)
    return np.concatenate(found)


def put_block(
    index: Store, prefix: str, folder: Path, stage: str, table: pa.Table, bands: Iterable[tuple[str, Packed]]
) -> Block | None:
    """Write a block from its table and its entries by band, in any order; None where it has no document."""
    if not len(table):
        return None
    paths = {name: folder / name for name in ("digests", "repeats", "documents")}
    places: dict[str, dict[str, tuple[int, int]]] = {"digests": {}, "repeats": {}}
    with paths["digests"].open("wb") as digests, paths["repeats"].open("wb") as repeats:
        for band, packed in bands:
            firsts, others = split_entries(packed)
            places["digests"][band] = _append(digests, firsts)
            places["repeats"][band] = _append(repeats, others)
        for file in (digests, repeats):
            file.write(b"end")  # no object is empty
    pq.write_table(table, paths["documents"], compression="zstd", row_group_size=ROW_GROUP)
    size = sum(path.stat().st_size for path in paths.values())
    held = {
        name: Entries(object=index.put(paths[name], f"{prefix}{name}-", ".bin"), bands=places[name]) for name in places
    }
    kept = int(np.count_nonzero(table.column("kept").to_numpy()))
    name = index.put(paths["documents"], f"{prefix}documents-", ".parquet")
    return Block(stage=stage, documents=len(table), kept=kept, bytes=size, table=name, **held)


def split_entries(packed: Packed) -> tuple[Packed, Packed]:
    """Sort entries; part the first of each digest from its repeats."""
    words = np.ascontiguousarray(packed, PACKED).view(np.uint64).reshape(-1, 3)
    words.flags.writeable = False  # one type for the compiler, whoever calls
    ordered = sort_entries(words)
    first = np.ones(len(ordered), bool)
    first[1:] = (ordered[1:, :2] != ordered[:-1, :2]).any(axis=1)
    entries = ordered.reshape(-1).view(PACKED)
    return entries[first], entries[~first]


def _append(file: BinaryIO, packed: Packed) -> tuple[int, int]:
    start = file.tell()
    file.write(np.ascontiguousarray(packed).view(np.uint8).data)
    return start, file.tell()


def read_entries(store: Store, name: str, start: int, end: int) -> Packed:
    """Read the packed entries that lie in a range of an object."""
    if end == start:
        return np.zeros(0, PACKED)
    body = store.read(name, start=start, end=end)
    if len(body) != end - start:
        raise CorruptDataError(f"{store.url}/{name} is damaged: it has fewer than {end} bytes; restore it from a copy")
    return np.frombuffer(body, PACKED)


def without(index: Store, prefix: str, folder: Path, block: Block, gone: NDArray[np.bool_]) -> Block | None:
    """Write a block anew without these of its documents; None where none is left."""
    numbers = np.cumsum(~gone).astype(np.uint64) - np.uint64(1)

    def entries() -> Iterator[tuple[str, Packed]]:
        for band in sorted(block.digests.bands):
            held = [read_entries(index, one.object, *one.bands[band]) for one in (block.digests, block.repeats)]
            packed = np.concatenate(held)
            packed = packed[~gone[packed["address"].astype(np.int64)]]
            packed["address"] = numbers[packed["address"].astype(np.int64)]
            yield band, packed

    with parquet(index, block.table) as file:
        table = file.read(use_threads=False).filter(pa.array(~gone)).combine_chunks()
    return put_block(index, prefix, folder, block.stage, table, entries())


def read_documents(index: Store, block: Block, rows: NDArray[np.int64]) -> pa.Table:
    """Read documents of a block by their numbers, rising; only the row groups that hold them are read."""
    found = [TABLE.empty_table()]
    with parquet(index, block.table) as file:
        first = 0
        for number in range(file.num_row_groups):
            count = file.metadata.row_group(number).num_rows
            mine = rows[(rows >= first) & (rows < first + count)] - first
            if len(mine):
                found.append(file.read_row_group(number, use_threads=False).take(pa.array(mine)))
            first += count
    table = pa.concat_tables(found).combine_chunks()
    if len(table) != len(rows):
        raise CorruptDataError(
            f"{index.url}/{block.table} has {first} rows, and a digest names row {int(rows.max())}: "
            "restore the index from a copy"
        )
    return table


def _binary(words: NDArray[np.uint64]) -> pa.Array:
    """Give (n, 2) words as 16-byte values."""
    return pa.FixedSizeBinaryArray.from_buffers(ID, len(words), [None, pa.py_buffer(words.tobytes())])
