"""The ledger: one row for every record met, and the two Parquet files that an ingest task writes.

`documents` holds the kept text in row groups of about 8 MiB, each of one stream; `ledger` the fate of everything.
Memory is bounded: when the open row groups of all streams hold 256 MiB, the largest is flushed. Both depend on
nothing but the order and size of the rows, so the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..transforms.schema import DOCUMENT, id_sum, keyed
from ..transforms.step import Outcome
from .recipe import Bucket

ROW_GROUP_BYTES = 8 << 20
HELD_BYTES = 256 << 20
SAMPLE_ONE_IN = 64
SAMPLE_CHARACTERS = 20_000

#: The ledger's own columns; a column per score that the recipe's steps add stands to their right.
LEDGER = pa.schema(
    [
        DOCUMENT.field("id"),
        DOCUMENT.field("source"),
        DOCUMENT.field("path"),
        DOCUMENT.field("place"),
        DOCUMENT.field("source_id"),
        DOCUMENT.field("url"),
        DOCUMENT.field("language"),
        pa.field("stream", pa.string()),  # of kept rows
        pa.field("bytes", pa.int64()),  # of text when its fate was decided; of the page where no text was extracted yet
        pa.field("fate", pa.string()),  # kept | rejected | quarantined
        pa.field("step", pa.int32()),  # the step that decided, counted from 0; -1 the reader
        pa.field("rule", pa.string()),  # of rejected rows: kind/rule
        pa.field("error", pa.string()),  # of quarantined rows
        pa.field("text", pa.string()),  # of a sample of rejected rows, cut to 20,000 characters
        pa.field("raw", pa.binary()),  # of quarantined rows: up to 1 MiB of the record
    ]
)


def text_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """Count the bytes of each row's text, or of its page where it has no text; int64 (n,)."""
    size = pc.coalesce(
        pc.binary_length(batch.column("text")),
        pc.binary_length(batch.column("html")) if "html" in batch.schema.names else pa.scalar(0, pa.int32()),
        pa.scalar(0, pa.int32()),
    )
    return np.asarray(size.to_numpy(zero_copy_only=False), np.int64)


def stream_names(batch: pa.RecordBatch, streams: Sequence[str | Bucket]) -> pa.Array:
    """Name each row's stream: the values of the recipe's stream columns joined by `/`; no columns, one stream."""
    if not streams:
        return pa.array(["all"] * len(batch), pa.string())
    values = [pc.fill_null(_stream_values(batch, stream), "none") for stream in streams]
    return pc.binary_join_element_wise(*values, "/") if len(values) > 1 else values[0]


def _stream_values(batch: pa.RecordBatch, stream: str | Bucket) -> pa.Array:
    """Give a stream column as names: its values, or the number of the bucket that each falls into, `score-2`."""
    if isinstance(stream, str):
        return batch.column(stream).cast(pa.string())
    column = batch.column(stream.column)
    values = column.fill_null(0).to_numpy(zero_copy_only=False)
    names = np.array([f"{stream.column}-{number}" for number in range(len(stream.cuts) + 1)], object)
    found = names[np.searchsorted(stream.cuts, values, side="right")]
    return pc.if_else(column.is_valid(), pa.array(found, pa.string()), pa.scalar(None, pa.string()))


@dataclass
class Tally:
    """What one ingest task met, counted."""

    documents_in: int = 0
    id_sum_in: int = 0
    kept: int = 0
    id_sum_kept: int = 0
    quarantined: int = 0
    id_sum_quarantined: int = 0
    rejected: int = 0
    id_sum_rejected: int = 0
    funnel: dict[str, list[int]] = field(default_factory=dict)  # "step|rule" → [documents, bytes]
    languages: dict[str, list[int]] = field(default_factory=dict)

    def add(self, fate: str, step: int, rules: Iterable[str | None], sizes: np.ndarray, ids: pa.Array) -> None:
        """Count rows of one fate."""
        total = id_sum(ids)
        setattr(self, fate, getattr(self, fate) + len(ids))
        name = f"id_sum_{fate}"
        setattr(self, name, (getattr(self, name) + total) % (1 << 64))
        for rule, size in zip(rules, sizes.tolist(), strict=True):
            entry = self.funnel.setdefault(f"{step}|{fate}|{rule or ''}", [0, 0])
            entry[0] += 1
            entry[1] += size

    def as_json(self) -> dict[str, Any]:
        """Give the counts as JSON; id sums as strings, because they exceed 2**53."""
        value = {name: (str(item) if name.startswith("id_sum") else item) for name, item in vars(self).items()}
        return {**value, "funnel": dict(sorted(self.funnel.items())), "languages": dict(sorted(self.languages.items()))}


class PartWriter:
    """Write one ingest task's two files, row by row group."""

    def __init__(self, folder: Path, schema: pa.Schema, streams: Sequence[str | Bucket], rejected_text: str) -> None:
        self.streams = tuple(streams)
        self.rejected_text = rejected_text
        self.tally = Tally()
        self.row_groups: list[dict[str, Any]] = []
        self.document_schema = pa.schema([item for item in schema if item.name != "html"])
        scores = [item for item in schema if item.name not in DOCUMENT.names]
        self.ledger_schema = pa.schema([*LEDGER, *scores])
        self.document_path, self.ledger_path = folder / "documents.parquet", folder / "ledger.parquet"
        self._documents = pq.ParquetWriter(
            self.document_path, self.document_schema, compression="zstd", compression_level=1
        )
        self._ledger = pq.ParquetWriter(self.ledger_path, self.ledger_schema, compression="zstd", compression_level=1)
        self._open: dict[str, list[pa.RecordBatch]] = {}
        self._sizes: dict[str, int] = {}
        self._rows: list[pa.RecordBatch] = []
        self._row_bytes = 0

    def met(self, outcome: Outcome) -> None:
        """Count records as they come from the reader."""
        self.tally.documents_in += len(outcome.batch)
        self.tally.id_sum_in = (self.tally.id_sum_in + id_sum(outcome.batch.column("id"))) % (1 << 64)

    def reject(self, batch: pa.RecordBatch, step: int, rules: pa.Array) -> None:
        """Write rows that a rule drops."""
        if not len(batch):
            return
        sizes = text_bytes(batch)
        self.tally.add("rejected", step, rules.to_pylist(), sizes, batch.column("id"))
        text = pa.nulls(len(batch), pa.string())
        if self.rejected_text != "none":
            text = pc.utf8_slice_codeunits(batch.column("text"), 0, SAMPLE_CHARACTERS)
            if self.rejected_text == "sample":
                chosen = keyed(batch.column("id"), "rejected text") % np.uint64(SAMPLE_ONE_IN) == 0
                text = pc.if_else(pa.array(chosen), text, pa.scalar(None, pa.string()))
        self._account(batch, "rejected", step, sizes, rule=rules, text=text)

    def quarantine(self, batch: pa.RecordBatch, step: int, errors: pa.Array, raw: pa.Array | None) -> None:
        """Write rows that could not be processed."""
        if not len(batch):
            return
        sizes = text_bytes(batch)
        self.tally.add("quarantined", step, errors.to_pylist(), sizes, batch.column("id"))
        self._account(batch, "quarantined", step, sizes, error=errors, raw=raw)

    def keep(self, batch: pa.RecordBatch, step: int) -> None:
        """Write rows that every step kept."""
        if not len(batch):
            return
        sizes = text_bytes(batch)
        self.tally.add("kept", step, [None] * len(batch), sizes, batch.column("id"))
        for name, size in zip(batch.column("language").to_pylist(), sizes.tolist(), strict=True):
            entry = self.tally.languages.setdefault(name or "", [0, 0])
            entry[0] += 1
            entry[1] += size
        names = stream_names(batch, self.streams)
        self._account(batch, "kept", step, sizes, stream=names)
        documents = batch.select(self.document_schema.names)
        for stream in pc.unique(names).to_pylist():
            mask = pc.equal(names, stream)
            self._hold(stream, documents.filter(mask), int(sizes[np.asarray(mask)].sum()))

    def close(self) -> None:
        """Flush what is held and finish both files."""
        for stream in sorted(self._open):
            self._flush(stream)
        self._flush_ledger()
        self._documents.close()
        self._ledger.close()

    def _account(self, batch: pa.RecordBatch, fate: str, step: int, sizes: np.ndarray, **more: pa.Array | None) -> None:
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns.update(
            {name: array for name, array in more.items() if array is not None and name not in ("text", "raw")}
        )
        columns.update(
            text=more.get("text"),
            raw=more.get("raw"),
            bytes=pa.array(sizes),
            fate=pa.array([fate] * len(batch)),
            step=pa.array(np.full(len(batch), step, np.int32)),
        )
        arrays = []
        for item in self.ledger_schema:
            array = columns.get(item.name)
            arrays.append(pa.nulls(len(batch), item.type) if array is None else array.cast(item.type))
        rows = pa.RecordBatch.from_arrays(arrays, schema=self.ledger_schema)
        self._rows.append(rows)
        self._row_bytes += rows.get_total_buffer_size() if fate != "quarantined" else rows.nbytes
        if self._row_bytes > 4 * ROW_GROUP_BYTES or sum(map(len, self._rows)) >= 20_000:
            self._flush_ledger()

    def _flush_ledger(self) -> None:
        if self._rows:
            self._ledger.write_table(pa.Table.from_batches(self._rows).combine_chunks(), row_group_size=1 << 30)
        self._rows, self._row_bytes = [], 0

    def _hold(self, stream: str, batch: pa.RecordBatch, size: int) -> None:
        self._open.setdefault(stream, []).append(batch)
        self._sizes[stream] = self._sizes.get(stream, 0) + size
        if self._sizes[stream] >= ROW_GROUP_BYTES:
            self._flush(stream)
        elif sum(self._sizes.values()) >= HELD_BYTES:
            self._flush(max(sorted(self._sizes), key=self._sizes.__getitem__))

    def _flush(self, stream: str) -> None:
        table = pa.Table.from_batches(self._open.pop(stream), self.document_schema).combine_chunks()
        self._documents.write_table(table, row_group_size=1 << 30)
        ids = table.column("id").combine_chunks()
        self.row_groups.append(
            {"stream": stream, "documents": len(table), "bytes": self._sizes.pop(stream), "id_sum": str(id_sum(ids))}
        )
