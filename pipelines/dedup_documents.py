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

from ..transforms.edits import COLUMN
from ..transforms.named import apply_step
from ..transforms.readers import Fields, Piece, read
from ..transforms.schema import DOCUMENT
from ..transforms.step import Outcome, Step, with_columns
from ..transforms.verdicts import Here, Met, Verdicts, changed
from .corpus import JsonText, ParquetText
from .ledger import ROW_GROUP_BYTES

SUFFIXES = {"parquet": ".parquet", "jsonl": ".jsonl.zst"}
EMPTY = "read/empty"  # the rule whose rows stay where documents are marked
KEPT, REJECTED, QUARANTINED = "kept", "rejected", "quarantined"


class Judged:
    """A batch from the reader after the steps.

    batch: the rows that none refuses, edited, with the steps' columns; kept: which rows these are. reasons, errors,
    raw: of all rows, None where there is none.
    """

    def __init__(self, outcome: Outcome, steps: Sequence[Step]) -> None:
        count = len(outcome.batch)
        self.met = outcome.batch
        self.reasons, self.errors, self.raw = (np.full(count, None, object) for _ in range(3))
        self.kept, self.batch = np.arange(count), outcome.batch
        self._part(outcome)
        for step in steps:
            self._part(apply_step(step, self.batch))

    def _part(self, outcome: Outcome) -> None:
        """Leave out the rows that an outcome refuses, and note why."""
        stays = outcome.reasons.is_null().to_numpy(zero_copy_only=False)
        if outcome.errors is not None:
            stays = stays & outcome.errors.is_null().to_numpy(zero_copy_only=False)
        for noted, column in ((self.reasons, outcome.reasons), (self.errors, outcome.errors), (self.raw, outcome.raw)):
            if column is not None:
                noted[self.kept] = column.to_pylist()
        self.batch, self.kept = outcome.batch, self.kept[stays]
        if not stays.all():
            self.batch = outcome.batch.filter(pa.array(stays))

    def hold_to(self, piece: Piece, here: Here) -> None:
        """Refuse records that were documents before and are none now, or the other way round."""
        differ = here.documents.copy()
        differ[self.kept] ^= True
        if differ.any():
            row = int(differ.argmax())
            was, now = ("could", "cannot") if here.documents[row] else ("could not", "can")
            raise changed(piece, f"the record at {self.met.column('place')[row]} {was} be read, and now it {now}")

    def fates(self) -> NDArray[Any]:
        """Say of each record whether it is kept, rejected or quarantined."""
        fates = np.full(len(self.met), KEPT, object)
        fates[[reason is not None for reason in self.reasons]] = REJECTED
        fates[[error is not None for error in self.errors]] = QUARANTINED
        return fates

    def refused(self) -> Outcome | None:
        """Give the records that are refused."""
        rows = np.ones(len(self.met), bool)
        rows[self.kept] = False
        return self.outcome(rows) if rows.any() else None

    def outcome(self, rows: NDArray[np.bool_]) -> Outcome:
        """Give some records as the reader had them, and what was said of them."""
        said = [(self.reasons, pa.string()), (self.errors, pa.string()), (self.raw, pa.binary())]
        return Outcome(self.met.filter(pa.array(rows)), *(pa.array(noted[rows], kind) for noted, kind in said))

    def with_empty(self, rows: NDArray[np.bool_]) -> pa.RecordBatch:
        """Give the documents and the records without text that `rows` names, in their order."""
        if not rows.any():
            return self.batch
        schema, met = self.batch.schema, self.met.filter(pa.array(rows))
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

    Raises InputError where a record is none now that was a document before, or the other way round.
    """
    row = 0
    for outcome in read(piece, fields):
        here, judged = verdicts.on(row, len(outcome.batch)), Judged(outcome, steps)
        judged.hold_to(piece, here)
        judged.batch, edits = _cut(judged, here) if here.cut.any() else (judged.batch, None)
        refused = judged.refused()
        batch, aside = judged.batch, None if refused is None else np.ones(len(refused.batch), bool)
        if here.notes is not None:
            empty = judged.reasons == EMPTY
            notes = here.notes.filter(pa.array(here.documents | empty))
            batch = with_columns(judged.with_empty(empty), dict(zip(notes.schema.names, notes.columns, strict=True)))
            aside = None if refused is None else ~empty[~np.isin(np.arange(len(empty)), judged.kept)]
        elif not here.stays[judged.kept].all():
            batch = batch.filter(pa.array(here.stays[judged.kept]))
        out.write(batch.drop_columns(["html"]) if "html" in batch.schema.names else batch)
        yield Met(np.asarray(outcome.batch.column("place"), np.int64), len(batch), refused, aside, edits)
        row += len(outcome.batch)


def _cut(judged: Judged, here: Here) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Cut texts of documents; give the batch, and what undoes it."""
    mine = here.cut[judged.kept]
    edited = here.edited(judged.batch.column("text").filter(pa.array(mine)))
    text = judged.batch.column("text")
    new = pc.replace_with_mask(text, pa.array(mine), edited.column("text").cast(text.type))
    ids = judged.batch.column("id").filter(pa.array(mine))
    edits = pa.RecordBatch.from_arrays([ids, edited.column(COLUMN)], names=["id", COLUMN])
    return with_columns(judged.batch, {"text": new}), edits
