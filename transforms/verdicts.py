"""What becomes of the records of a task: the word of the reader, of deduplication, and marks for each.

A record is named by its ordinal among all that the reader meets, those that it refuses included. It costs 8 bytes a
document, and 8 more for each that goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .. import InputError
from .edits import COLUMN, Cuts, edit
from .rows import Piece
from .schema import document_ids
from .step import Outcome, utf8

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
#: Annotation: name and type of each column, in the order in which they stand to the right of the user's own.
NOTES = pa.schema(
    [
        ("cluster", pa.string()),  # 32 hex digits; null where a document has no copy
        ("cluster_size", pa.int64()),  # 1 where it has none
        ("kept_id", pa.string()),  # of the document that stays of its cluster: the user's own id, or ours in hex
        ("similarity", pa.float32()),  # to the document that stays; null for that one, and where it was not worked out
        ("is_duplicate", pa.bool_()),  # whether removal would drop it
    ]
)
#: Of a document without a copy, and of a record that the reader refuses.
SINGLE, REFUSED = (None, 1, None, None, False), (None, None, None, None, None)


def _none() -> Rows:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class TextCuts:
    """Stretches that one kind of deduplication cuts out of texts, as the kinds before it left them.

    rows: (n,) rising. spans: (n, 2) int64, first byte and end in the UTF-8 text of the record, from its start; rising
    in a row, none over another, at the bounds of code points.
    """

    kind: str
    rows: Rows
    spans: NDArray[np.int64]

    def within(self, first: int, last: int) -> TextCuts:
        """Those of rows [first, last), counted from `first`."""
        begin, end = np.searchsorted(self.rows, [first, last])
        return TextCuts(self.kind, self.rows[begin:end] - first, self.spans[begin:end])


@dataclass(frozen=True)
class Notes:
    """Marks of the documents that have copies. rows: (n,) rising; columns: n rows of NOTES, under any names."""

    rows: Rows
    columns: pa.RecordBatch

    def within(self, first: int, last: int) -> Notes:
        """Those of rows [first, last), counted from `first`."""
        begin, end = np.searchsorted(self.rows, [first, last])
        return Notes(self.rows[begin:end] - first, self.columns.slice(begin, end - begin))

    def named(self, names: Sequence[str]) -> Notes:
        """The same under other names."""
        return Notes(self.rows, pa.RecordBatch.from_arrays(self.columns.columns, names=list(names)))

    def spread(self, documents: Mask) -> pa.RecordBatch:
        """Give a row for each record: of those that have no copy, and of those that are no documents, what is known."""
        at = np.where(documents, len(self.rows), len(self.rows) + 1)
        at[self.rows] = np.arange(len(self.rows))
        columns = [
            pa.concat_arrays([column, pa.array(known, column.type)]).take(pa.array(at))
            for column, known in zip(self.columns.columns, zip(SINGLE, REFUSED, strict=True), strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.columns.schema)


@dataclass(frozen=True)
class Verdicts:
    """What becomes of records.

    documents: rows that the reader, and the steps behind it, do not refuse, rising. gone: those of them that are
    dropped, rising. notes: where documents are marked and nothing goes.
    """

    documents: Rows
    gone: Rows = field(default_factory=_none)
    cuts: tuple[TextCuts, ...] = ()
    notes: Notes | None = None

    def within(self, first: int, last: int) -> Verdicts:
        """Those on rows [first, last), counted from `first`."""
        documents, gone = (
            rows[slice(*np.searchsorted(rows, [first, last]))] - first for rows in (self.documents, self.gone)
        )
        cuts = tuple(cuts.within(first, last) for cuts in self.cuts)
        return Verdicts(documents, gone, cuts, None if self.notes is None else self.notes.within(first, last))

    def on(self, row: int, count: int) -> Here:
        """Those on `count` records from `row` on."""
        mine = self.within(row, row + count)
        documents = np.zeros(count, bool)
        documents[mine.documents] = True
        stays = documents.copy()
        if mine.notes is None:
            stays[mine.gone] = False
        cut = np.zeros(count, bool)
        for cuts in mine.cuts:
            cut[cuts.rows] = True
        notes = None if mine.notes is None else mine.notes.spread(documents)
        return Here(documents, stays, cut & stays, mine.cuts, notes)


@dataclass(frozen=True)
class Here:
    """The verdicts on records that lie one behind the other: which are documents, which of them stay, which are cut."""

    documents: Mask
    stays: Mask
    cut: Mask
    cuts: tuple[TextCuts, ...]
    notes: pa.RecordBatch | None

    @property
    def as_it_is(self) -> Mask:
        """Which records are written as they lie."""
        return self.stays & ~self.cut & (self.notes is None)

    def edited(self, texts: pa.Array) -> pa.RecordBatch:
        """Cut the texts of the records that are cut, given in their order: `text`, and `edits` that undo it."""
        rows = np.flatnonzero(self.cut)
        batch = pa.RecordBatch.from_arrays([texts.cast(pa.large_string())], names=["text"])
        for cuts in self.cuts:
            mine = self.cut[cuts.rows]
            at = np.searchsorted(rows, cuts.rows[mine])
            spans = cuts.spans[mine] + utf8(batch)[0][at][:, None]  # from the start of the text to that of the bytes
            batch = edit(batch, cuts.kind, Cuts(at, spans))
        return batch


class Met(NamedTuple):
    """What a rewriter met of a piece, a stretch of records at a time.

    places: of every record. written: how many of them are in the output. refused: those that are no documents, as the
    reader has them; aside: which of these are not in the output. edits: `id` and `edits` of those whose text was cut.
    others: records written that are none to the reader.
    """

    places: Rows
    written: int
    refused: Outcome | None = None
    aside: Mask | None = None
    edits: pa.RecordBatch | None = None
    others: int = 0

    def ids(self, piece: Piece) -> pa.Array:
        """The ids of the records."""
        return document_ids(piece.source, piece.path, self.places.tolist())


def edits_at(piece: Piece, places: Sequence[int], edited: pa.RecordBatch) -> pa.RecordBatch:
    """Name the documents that edits are of."""
    ids = document_ids(piece.source, piece.path, places)
    return pa.RecordBatch.from_arrays([ids, edited.column(COLUMN)], names=["id", COLUMN])


def put_texts(column: pa.Array, rows: Mask, texts: pa.Array) -> pa.Array:
    """Put texts in place of some of a column's, in its own type."""
    kind = column.type
    whole = (column.dictionary_decode() if pa.types.is_dictionary(kind) else column).cast(pa.large_binary())
    made = pc.replace_with_mask(whole, pa.array(rows), texts.cast(pa.large_binary()))
    if not pa.types.is_dictionary(kind):
        return made.cast(kind)
    encoded = made.cast(kind.value_type).dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        encoded.indices.cast(kind.index_type), encoded.dictionary, ordered=kind.ordered
    )


def joined(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Put outcomes behind one another."""
    if not outcomes:
        return None
    kinds = (("errors", pa.string()), ("raw", pa.binary()))
    errors, raw = (
        pa.concat_arrays([getattr(each, name) or pa.nulls(len(each.batch), kind) for each in outcomes])
        for name, kind in kinds
    )
    batch = pa.concat_batches([each.batch for each in outcomes])
    return Outcome(batch, pa.concat_arrays([each.reasons for each in outcomes]), errors, raw)


def changed(piece: Piece, why: str) -> InputError:
    """Say that a file is not what it was when its documents were compared."""
    return InputError(
        f"the input {piece.path} of {piece.source!r} changed while it was deduplicated: {why}; start a new run"
    )
