"""Documents by part, as one kind of deduplication after the other leaves them.

A part is one task's worth of documents, its rows numbered from 0; an address is `part << 32 | row`. What a kind finds
is two lists by part: rows that go, and stretches of text that go. A view reads a part without them, so that the next
kind, and whoever publishes, sees only what is left; texts and tables are never written in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import CorruptDataError
from ..sharding.npy import npy_array, npy_bytes, npy_start
from ..sharding.store import Store
from ..transforms.edits import Cuts, edit
from ..transforms.named import apply_step
from ..transforms.readers import Fields, read
from ..transforms.step import Outcome, Step, utf8
from .plan import IngestTask
from .stage import Receipt
from .tables import get_table, parquet, put_table

WORD = np.dtype("<u8")  # of ids, addresses, rows, lengths, places: all that a kind writes down
Rows = tuple[NDArray[np.int64], pa.RecordBatch]  # numbers of the rows in their part, rising, and the rows


#: The reader's word on a record.
KEPT, REJECTED, QUARANTINED = 0, 1, 2


class Fates:
    """What the reader says of each record of a part, piece by piece; nothing where an ingest has accounted for them."""

    def __init__(self) -> None:
        self._pieces: list[list[NDArray[np.uint8]]] = []

    def begin(self) -> None:
        """Begin a piece."""
        self._pieces.append([])

    def add(self, fates: NDArray[np.uint8]) -> None:
        """Add the next records of the piece."""
        self._pieces[-1].append(fates)

    @staticmethod
    def documents(store: Store, receipt: Receipt) -> NDArray[np.int64]:
        """Read which rows of a part are documents."""
        return np.flatnonzero(np.frombuffer(store.read(receipt["fates"]), np.uint8)[: sum(receipt["pieces"])] == KEPT)

    def put(self, store: Store) -> Receipt:
        """Commit them, a byte a record; give what a receipt says of them: `fates`, and the records of each piece."""
        if not self._pieces:
            return {}
        pieces = [np.concatenate([np.zeros(0, np.uint8), *held]) for held in self._pieces]
        body = np.concatenate(pieces).tobytes()
        return {"fates": store.put(body + b"end", "data/fates-", ".bin"), "pieces": [len(piece) for piece in pieces]}


class Part(Protocol):
    """One task's worth of documents."""

    @property
    def number(self) -> int:
        """The high half of its rows' addresses."""

    @property
    def key(self) -> str:
        """Name of place and content: equal for equal documents, wherever they lie."""

    @property
    def source(self) -> str:
        """The input it came from."""

    @property
    def documents(self) -> int:
        """How many rows it has; an estimate where nobody has counted them."""

    @property
    def name(self) -> str:
        """What people call it."""

    def batches(self, columns: Sequence[str], fates: Fates | None = None) -> Iterator[Rows]:
        """Read columns of the documents, in order; a column that is not there is left out."""


@dataclass(frozen=True)
class StoredPart:
    """Documents that an ingest wrote: one Parquet file."""

    number: int
    key: str
    store: Store
    object: str
    documents: int
    source: str

    @property
    def name(self) -> str:
        """What people call it."""
        return f"part {self.number} of {self.source}"

    def batches(self, columns: Sequence[str], fates: Fates | None = None) -> Iterator[Rows]:
        """Read columns of the documents, in order; a column that is not there is left out."""
        first = 0
        with parquet(self.store, self.object) as file:
            held = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=4096, columns=held, use_threads=False):
                yield np.arange(first, first + len(batch)), batch
                first += len(batch)


@dataclass(frozen=True)
class InputPart:
    """The records of an input as its files hold them: a record that the reader refuses has a number and is left out."""

    task: IngestTask
    fields: Fields
    steps: tuple[Step, ...] = ()  # that give pages their text

    @property
    def number(self) -> int:
        """The high half of its rows' addresses."""
        return self.task.number

    @property
    def key(self) -> str:
        """Name of place and content."""
        return self.task.key

    @property
    def source(self) -> str:
        """The input it came from."""
        return self.task.pieces[0].source

    @property
    def documents(self) -> int:
        """How many rows it may have: nobody has counted them, so one a kilobyte."""
        return max(1, self.task.bytes >> 10)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.task.name

    def batches(self, columns: Sequence[str], fates: Fates | None = None) -> Iterator[Rows]:
        """Read columns of the documents, in order; a column that is not there is left out."""
        first = 0
        for piece in self.task.pieces:
            if fates is not None:
                fates.begin()
            for outcome in read(piece, self.fields):
                kept, said, batch = self._judged(outcome)
                if fates is not None:
                    fates.add(said)
                if len(batch):
                    yield first + kept, batch.select([name for name in columns if name in batch.schema.names])
                first += len(said)

    def _judged(self, outcome: Outcome) -> tuple[NDArray[np.int64], NDArray[np.uint8], pa.RecordBatch]:
        """Send what a reader gave through the steps: the rows that stay, the fate of every row, and those rows."""
        said = np.full(len(outcome.batch), KEPT, np.uint8)
        kept, steps = np.arange(len(said)), iter(self.steps)
        while True:
            rejected = outcome.reasons.is_valid().to_numpy(zero_copy_only=False)
            said[kept[rejected]] = REJECTED
            if outcome.errors is not None:
                failed = outcome.errors.is_valid().to_numpy(zero_copy_only=False)
                said[kept[failed]] = QUARANTINED
                rejected |= failed
            batch = outcome.batch
            if rejected.any():
                kept, batch = kept[~rejected], batch.filter(pa.array(~rejected))
            if (step := next(steps, None)) is None:
                return kept, said, batch
            outcome = apply_step(step, batch)


@dataclass(frozen=True)
class RemovalList:
    """The rows that go, sorted by part and row: an object of rows, and where each part begins in it."""

    store: Store
    rows: str
    bounds: str

    @classmethod
    def of(cls, store: Store, receipt: Receipt) -> RemovalList:
        """Name it from the receipt of the kind that found it."""
        return cls(store, receipt["removals"], receipt["bounds"])


@dataclass(frozen=True)
class CutList:
    """Stretches of texts that go, sorted by part, row and place: an object of (row, first byte, end), and the bounds.

    Places are bytes from the beginning of the text as the kinds before left it.
    """

    store: Store
    kind: str  # that stands in the column `edits`
    cuts: str
    bounds: str


@dataclass(frozen=True)
class View:
    """What earlier kinds of deduplication left."""

    removed: tuple[RemovalList, ...] = ()
    cut: tuple[CutList, ...] = ()

    def batches(self, part: Part, columns: Sequence[str], fates: Fates | None = None) -> Iterator[Rows]:
        """Read a part as `Part.batches` does, without rows and stretches that went."""
        for rows, batch in part.batches(columns, fates):
            stays = self.stays(part.number, rows)
            if not stays.all():
                rows, batch = rows[stays], batch.filter(pa.array(stays))
            if len(batch):
                yield rows, self.edited(part.number, rows, batch) if "text" in batch.schema.names else batch

    def stays(self, part: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which of a part's rows stay."""
        stays = np.ones(len(rows), bool)
        for listed in self.removed:
            gone = removals(listed, part)
            at = np.searchsorted(gone, rows.astype(WORD))
            inside = at < len(gone)
            stays[inside] &= gone[at[inside]] != rows[inside].astype(WORD)
        return stays

    def edited(self, part: int, rows: NDArray[np.int64], batch: pa.RecordBatch, record: bool = False) -> pa.RecordBatch:
        """Cut the texts of a part's rows; by choice, add what went to the column `edits`."""
        for listed in self.cut:
            cuts = cuts_of(listed, part).astype(np.int64)
            if len(rows):
                cuts = cuts[(cuts[:, 0] >= rows[0]) & (cuts[:, 0] <= rows[-1])]
            at = np.searchsorted(rows, cuts[:, 0])
            mine = (at < len(rows)) & (rows[np.minimum(at, len(rows) - 1)] == cuts[:, 0])
            starts = utf8(batch)[0][at[mine]]  # a batch's texts need not begin with its bytes
            batch = edit(batch, listed.kind, Cuts(at[mine], cuts[mine, 1:] + starts[:, None]), record=record)
        return batch


#: Nothing found yet.
EVERYTHING = View()


@lru_cache(maxsize=512)
def removals(listed: RemovalList, part: int) -> NDArray[np.uint64]:
    """Read the rows of a part that go, sorted."""
    return _slice(listed.store, listed.rows, listed.bounds, part, 1)


@lru_cache(maxsize=64)
def cuts_of(listed: CutList, part: int) -> NDArray[np.uint64]:
    """Read the cuts of a part: (n, 3) row, first byte, end."""
    return _slice(listed.store, listed.cuts, listed.bounds, part, 3).reshape(-1, 3)


def _slice(store: Store, name: str, bounds: str, part: int, width: int) -> NDArray[np.uint64]:
    head, edges = _bounds(store, name, bounds)
    first, last = (int(edge) for edge in edges[part : part + 2])
    if last == first:
        return np.zeros(0, WORD)
    return np.frombuffer(store.read(name, start=head + 8 * width * first, end=head + 8 * width * last), WORD)


@lru_cache(maxsize=8)
def _bounds(store: Store, name: str, bounds: str) -> tuple[int, NDArray[np.uint64]]:
    """Give the bytes before a list's data, and where each part begins in it: once for all parts of a task."""
    return npy_start(store.read(name, start=0, end=10)), get_array(store, bounds)


def part_bounds(addresses: NDArray[np.uint64], parts: int) -> NDArray[np.uint64]:
    """Say where each part begins in a sorted list of addresses: (parts + 1,)."""
    edges = np.arange(parts + 1, dtype=np.uint64) << np.uint64(32)
    return np.searchsorted(addresses, edges).astype(np.uint64)


def put_array(store: Store, array: NDArray[np.uint64], name: str) -> str:
    """Commit an array as an `.npy` object."""
    return store.put(npy_bytes(array), f"data/{name}-", ".npy")


def get_array(store: Store, name: str) -> NDArray[np.uint64]:
    """Read an array back."""
    try:
        return npy_array(store.read(name), WORD)
    except ValueError as error:
        raise CorruptDataError(
            f"{store.url}/{name} is damaged: {error}; restore it from a copy, or run into another output"
        ) from error


def put_strings(store: Store, values: pa.Array, name: str) -> str:
    """Commit strings as a Parquet object of one column."""
    return put_table(store, pa.table({name: values}), f"data/{name}-")


def get_strings(store: Store, name: str) -> pa.Array:
    """Read strings back."""
    return get_table(store, name).column(0).combine_chunks()
