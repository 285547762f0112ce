"""Edits: what a step cut out of a text and what it put there instead, kept in the column `edits` so that `undo` gives
the text back as it was.

Places are code points, so that they mean the same in Python, in Arrow and in a browser. The edits of one step over one
text form a round: they are places in the text as that round found it, rising, none over another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .kernels.splice import code_points, splice, taken
from .step import utf8, utf8_buffers, with_columns

COLUMN = "edits"
EDIT = pa.struct(
    [
        pa.field("step", pa.string()),  # kind of the step, or kind/rule
        pa.field("round", pa.int32()),  # from 0: edits of one round were made at once
        pa.field("start", pa.int64()),  # in code points of the text before the round
        pa.field("end", pa.int64()),
        pa.field("removed", pa.string()),
        pa.field("inserted", pa.string()),
    ]
)
EDITS = pa.list_(EDIT)


@dataclass(frozen=True)
class Cuts:
    """Stretches of a batch's texts to replace.

    rows: (n,) rising. spans: (n, 2) int64, first byte and end in the bytes that `utf8(batch)` gives, rising in a row,
    none over another, at the bounds of code points. inserted: (n,) strings in their place, None for none. rules: (n,)
    names for the column `edits`, None for the step's kind alone.
    """

    rows: NDArray[np.int64]
    spans: NDArray[np.int64]
    inserted: pa.Array | None = None
    rules: pa.Array | None = None


def edit(batch: pa.RecordBatch, kind: str, cuts: Cuts, *, record: bool = True) -> pa.RecordBatch:
    """Replace the cuts in `text`, and add them to the column `edits` if they are to be recorded."""
    offsets, data = utf8(batch)
    rows, spans = np.ascontiguousarray(cuts.rows, np.int64), np.ascontiguousarray(cuts.spans, np.int64).reshape(-1, 2)
    inserted = cuts.inserted if cuts.inserted is not None else pa.array([""] * len(rows), pa.large_string())
    columns: dict[str, pa.Array] = {}
    if len(rows):
        starts, body = splice(offsets, data, rows, spans, *utf8_buffers(inserted))
        text, kind_of_text = batch.column("text"), batch.schema.field("text").type
        validity = None if not text.null_count else pa.array(text.is_valid()).buffers()[1]
        made = pa.LargeStringArray.from_buffers(len(batch), pa.py_buffer(starts), pa.py_buffer(body), validity)
        columns["text"] = made.cast(kind_of_text)
    if record:
        points = code_points(offsets, data, rows, spans)
        columns[COLUMN] = _with(batch, kind, cuts, points, _strings(*taken(data, spans)), inserted)
    return with_columns(batch, columns)


def undo(text: str, edits: Sequence[Mapping[str, Any]] | None) -> str:
    """Give back a text as it was before its edits. ValueError: they are not this text's."""
    for number in sorted({one["round"] for one in edits or ()}, reverse=True):
        moved, pieces, at = 0, [], 0
        for one in [one for one in edits or () if one["round"] == number]:
            start = one["start"] + moved
            end = start + len(one["inserted"])
            if start < at or text[start:end] != one["inserted"]:
                raise ValueError(
                    f"the text does not hold {one['inserted']!r} at {start}, as an edit of {one['step']} says"
                )
            pieces += [text[at:start], one["removed"]]
            at, moved = end, moved + len(one["inserted"]) - (one["end"] - one["start"])
        text = "".join([*pieces, text[at:]])
    return text


def in_bytes(text: str, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Take rising places in code points to places in UTF-8, both from the start of a text.

    Bytes that are no UTF-8 are told by `surrogateescape`.
    """
    found, at, size = [], 0, 0
    for first, last in places:
        begin = size + len(text[at:first].encode("utf-8", "surrogateescape"))
        size = begin + len(text[first:last].encode("utf-8", "surrogateescape"))
        found.append((begin, size))
        at = last
    return found


def line_cut(text: str, start: int, end: int, kept: bool) -> tuple[int, int]:
    """Give what goes with a line, as `"\\n".join` of the others has it: the newline to its left.

    The one to its right, as long as no line before is kept.
    """
    return (start - 1, end) if kept else (start, min(end + 1, len(text)))


def _strings(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> pa.Array:
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def _with(
    batch: pa.RecordBatch, kind: str, cuts: Cuts, points: NDArray[np.int64], removed: pa.Array, inserted: pa.Array
) -> pa.Array:
    """Put this round's edits behind those that each row has."""
    counts = np.bincount(cuts.rows, minlength=len(batch)) if len(cuts.rows) else np.zeros(len(batch), np.int64)
    before = batch.column(COLUMN) if COLUMN in batch.schema.names else pa.nulls(len(batch), EDITS)
    rounds, held = np.zeros(len(batch), np.int32), np.zeros(len(batch), np.int64)
    old = before.flatten()
    if len(old):
        held = before.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        last = np.cumsum(held) - 1
        numbers = old.field("round").to_numpy(zero_copy_only=False)
        rounds[held > 0] = numbers[last[held > 0]] + 1
    steps = cuts.rules if cuts.rules is not None else pa.array([kind] * len(cuts.rows), pa.string())
    new = pa.StructArray.from_arrays(
        [
            steps.cast(pa.string()),
            pa.array(rounds[cuts.rows] if len(cuts.rows) else np.zeros(0, np.int32)),
            pa.array(points[:, 0]),
            pa.array(points[:, 1]),
            removed.cast(pa.string()),
            inserted.cast(pa.string()),
        ],
        fields=list(EDIT),
    )
    total = held + counts
    order = np.argsort(np.concatenate([np.repeat(np.arange(len(batch)), held), cuts.rows]), kind="stable")
    values = pa.concat_arrays([old, new]).take(pa.array(order)) if len(old) else new
    ends = np.concatenate([[0], np.cumsum(total)]).astype(np.int32)
    mask = pa.array(total == 0)  # a text that nobody edited has null
    return pa.ListArray.from_arrays(pa.array(ends), values, type=EDITS, mask=mask)
