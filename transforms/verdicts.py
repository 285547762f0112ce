"""What becomes of the records of one piece of input: the word of the reader, of deduplication, and notes for each.

A record is named by its ordinal among all that the reader meets in the piece, those that it refuses included. It costs
a byte a record, and 8 more for each that goes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import InputError
from .kernels.splice import splice
from .rows import Piece
from .schema import document_ids
from .step import Outcome, utf8_buffers

#: The reader's word on a record.
KEPT, REJECTED, QUARANTINED = 0, 1, 2

Rows = NDArray[np.int64]
#: Annotation: name and type of each column, in the order in which they stand to the right of the user's own.
NOTES = pa.schema(
    [
        ("cluster", pa.string()),  # 32 hex digits; null where a document has no copy
        ("cluster_size", pa.int64()),  # 1 where it has none
        ("kept_id", pa.string()),  # of the document that stays of its cluster: the user's own id, or ours in hex
        ("similarity", pa.float64()),  # to the document that stays; null where it was not worked out
        ("is_duplicate", pa.bool_()),  # whether removal would drop it
    ]
)


@dataclass(frozen=True)
class TextCuts:
    """Stretches to cut out of texts.

    rows: (n,) rising. spans: (n, 2) int64, first byte and end in the UTF-8 text of the record, from its start; rising
    in a row, none over another, at the bounds of code points.
    """

    rows: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    spans: Rows = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def within(self, first: int, count: int) -> TextCuts:
        """Those of `count` rows, counted from the first of them."""
        begin, end = np.searchsorted(self.rows, [first, first + count])
        return TextCuts(self.rows[begin:end] - first, self.spans[begin:end])

    def apply(self, texts: pa.Array) -> pa.Array:
        """Cut texts, a row each, and give them in their own type; a null stays null."""
        if not len(self.rows):
            return texts
        kind = texts.type
        whole = texts.dictionary_decode() if pa.types.is_dictionary(kind) else texts
        offsets, data = utf8_buffers(whole.cast(pa.large_binary()).cast(pa.large_string()))
        rows = np.ascontiguousarray(self.rows, np.int64)
        spans = np.ascontiguousarray(self.spans + offsets[rows][:, None], np.int64)
        nothing = pa.array([""] * len(rows), pa.large_string())
        starts, body = splice(offsets, data, rows, spans, *utf8_buffers(nothing))
        validity = pa.array(texts.is_valid()).buffers()[1] if texts.null_count else None
        made = pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(starts), pa.py_buffer(body), validity)
        if pa.types.is_dictionary(kind):
            return made.cast(kind.value_type).dictionary_encode().cast(kind)
        return made.cast(pa.large_binary()).cast(kind)


@dataclass(frozen=True)
class Verdicts:
    """What becomes of a piece's records.

    fates: (records,) uint8, KEPT, REJECTED or QUARANTINED by the reader's word. gone: rows that are dropped as
    duplicates, rising. notes: a row for each record, where documents are marked instead of removed.
    """

    fates: NDArray[np.uint8]
    gone: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    cuts: TextCuts = TextCuts()
    notes: pa.RecordBatch | None = None

    @property
    def untouched(self) -> bool:
        """Whether all stays as it is."""
        return not (len(self.gone) or len(self.cuts.rows) or self.notes is not None or self.fates.any())

    def within(self, first: int, count: int) -> Verdicts:
        """Those of `count` records, counted from the first of them; fewer where the piece is said to hold fewer."""
        begin, end = np.searchsorted(self.gone, [first, first + count])
        return Verdicts(
            self.fates[first : first + count],
            self.gone[begin:end] - first,
            self.cuts.within(first, count),
            None if self.notes is None else self.notes.slice(first, count),
        )

    def stays(self) -> NDArray[np.bool_]:
        """Whether each record is a document that is written."""
        stays = self.fates == KEPT
        stays[self.gone] = False
        return np.asarray(stays)


class Met(NamedTuple):
    """What a rewriter met of a piece, a stretch of records at a time.

    places: of every record. written: how many of them are in the output. set_aside: those that are not and are no
    duplicates, with why and their bytes. others: records written that are no documents.
    """

    places: Rows
    written: int
    set_aside: Outcome | None = None
    others: int = 0

    def ids(self, piece: Piece) -> pa.Array:
        """The ids of the records."""
        return document_ids(piece.source, piece.path, self.places.tolist())


def changed(piece: Piece, why: str) -> InputError:
    """Say that a file is not what it was when its documents were compared."""
    return InputError(
        f"the input {piece.path} of {piece.source!r} changed while it was deduplicated: {why}; start a new run"
    )


def hold_to(piece: Piece, verdicts: Verdicts, row: int, count: int) -> Verdicts:
    """Give the verdicts on the next `count` records of a piece. Raises InputError where it held fewer before."""
    if row + count > len(verdicts.fates):
        raise changed(piece, f"it had {len(verdicts.fates)} records and has more")
    return verdicts.within(row, count)


def refused(piece: Piece, outcome: Outcome) -> Outcome:
    """Hold an outcome to what was said of its rows: that the reader refuses them all."""
    kept = outcome.reasons.is_null().to_numpy(zero_copy_only=False)
    if outcome.errors is not None:
        kept = kept & outcome.errors.is_null().to_numpy(zero_copy_only=False)
    if kept.any():
        place = outcome.batch.column("place")[int(kept.argmax())]
        raise changed(piece, f"the record at {place} could not be read, and now it can")
    return outcome
