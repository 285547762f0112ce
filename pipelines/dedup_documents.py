"""The documents that stay as tables of documents, where another format than the input's is asked for, or text of pages.

The columns are penstock's own, as `corpus` writes them; pages go through the steps that extract their text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..transforms.named import apply_step
from ..transforms.readers import Fields, Piece, read
from ..transforms.schema import DOCUMENT
from ..transforms.step import Outcome, Step, with_columns
from ..transforms.verdicts import KEPT, QUARANTINED, REJECTED, Met, TextCuts, Verdicts, changed, hold_to
from .corpus import JsonText, ParquetText
from .ledger import ROW_GROUP_BYTES

SUFFIXES = {"parquet": ".parquet", "jsonl": ".jsonl.zst"}
EMPTY = "read/empty"  # the rule whose rows stay where documents are marked


class Judged:
    """A batch from the reader after the steps: its documents, and by row what became of each record.

    fates: (n,) uint8. batch: the rows of `kept`, edited, with the steps' columns. reasons, errors, raw: of all rows.
    """

    def __init__(self, outcome: Outcome, steps: Sequence[Step]) -> None:
        count = len(outcome.batch)
        self._met = outcome.batch
        self.reasons, self.errors, self.raw = (np.full(count, None, object) for _ in range(3))
        self.kept, self.batch = np.arange(count), outcome.batch
        self._part(outcome)
        for step in steps:
            self._part(apply_step(step, self.batch))
        if "html" in self.batch.schema.names:
            self.batch = self.batch.drop_columns(["html"])

    def _part(self, outcome: Outcome) -> None:
        """Leave out the rows that an outcome refuses, and note why."""
        said = [(self.reasons, outcome.reasons), (self.errors, outcome.errors), (self.raw, outcome.raw)]
        stays = np.ones(len(outcome.batch), bool)
        for notes, column in said:
            if column is not None:
                notes[self.kept] = column.to_pylist()
                stays &= column.is_null().to_numpy(zero_copy_only=False) | (column is outcome.raw)
        self.batch, self.kept = outcome.batch, self.kept[stays]
        if not stays.all():
            self.batch = outcome.batch.filter(pa.array(stays))

    def fates(self) -> NDArray[np.uint8]:
        """Say of each record whether it is kept, rejected or quarantined."""
        fates = np.full(len(self._met), KEPT, np.uint8)
        fates[[reason is not None for reason in self.reasons]] = REJECTED
        fates[[error is not None for error in self.errors]] = QUARANTINED
        return fates

    def aside(self, rows: NDArray[np.bool_]) -> Outcome | None:
        """Give the records that are set aside."""
        if not rows.any():
            return None
        return Outcome(
            self._met.filter(pa.array(rows)),
            pa.array(self.reasons[rows], pa.string()),
            pa.array(self.errors[rows], pa.string()),
            pa.array(self.raw[rows], pa.binary()),
        )

    def with_empty(self, rows: NDArray[np.bool_]) -> pa.RecordBatch:
        """Give the documents and the records without text that `rows` names, in their order; no text is null."""
        if not rows.any():
            return self.batch
        schema, met = self.batch.schema, self._met.filter(pa.array(rows))
        columns = [
            met.column(item.name) if item.name in DOCUMENT.names else pa.nulls(len(met), item.type) for item in schema
        ]
        both = pa.concat_batches([self.batch, pa.RecordBatch.from_arrays(columns, schema=schema)])
        return both.take(pa.array(np.argsort(np.concatenate([self.kept, np.flatnonzero(rows)]), kind="stable")))


class DocumentFile:
    """One file of documents, in row groups of 8 MiB of text or more."""

    def __init__(self, file: BinaryIO, format: Literal["parquet", "jsonl"]) -> None:
        self._writer = ParquetText(file) if format == "parquet" else JsonText(file)
        self._held: list[pa.RecordBatch] = []
        self._size = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append documents."""
        if len(batch):
            self._held.append(batch)
            self._size += int(pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0)
        if self._size >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write(pa.concat_batches(self._held))
        self._held, self._size = [], 0

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._writer.close()


def write_documents(
    piece: Piece, fields: Fields, steps: Sequence[Step], verdicts: Verdicts, out: DocumentFile
) -> Iterator[Met]:
    """Read a piece once more and write its documents that stay; tell what was met, a batch at a time.

    Raises InputError where the input, or what the steps make of it, is not what the verdicts are about.
    """
    row = 0
    for outcome in read(piece, fields):
        here, places = hold_to(piece, verdicts, row, len(outcome.batch)), outcome.batch.column("place")
        judged = Judged(outcome, steps)
        differ = np.flatnonzero(judged.fates() != here.fates)
        if len(differ):
            raise changed(piece, f"the record at {places[int(differ[0])]} is read otherwise than before")
        batch, stays = judged.batch, here.fates == KEPT
        if len(here.cuts.rows):
            at = np.searchsorted(judged.kept, here.cuts.rows)
            cuts = TextCuts(at, here.cuts.spans)
            batch = judged.batch = with_columns(batch, {"text": cuts.apply(batch.column("text"))})
        if here.notes is not None:
            empty = judged.reasons == EMPTY
            stays = stays | empty
            notes = here.notes.filter(pa.array(stays))
            batch = with_columns(judged.with_empty(empty), dict(zip(notes.schema.names, notes.columns, strict=True)))
        elif len(here.gone):
            batch = batch.filter(pa.array(here.stays()[judged.kept]))
        out.write(batch)
        yield Met(np.asarray(places, np.int64), len(batch), judged.aside(~stays & (here.fates != KEPT)))
        row += len(outcome.batch)
    if row != len(verdicts.fates):
        raise changed(piece, f"it had {len(verdicts.fates)} records and has {row}")


def read_fates(piece: Piece, fields: Fields, steps: Sequence[Step]) -> NDArray[np.uint8]:
    """Read a piece for its fates alone: what the reader, and the steps behind it, say of each record."""
    found: list[Any] = [Judged(outcome, steps).fates() for outcome in read(piece, fields)]
    return np.concatenate([np.zeros(0, np.uint8), *found])
