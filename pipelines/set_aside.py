"""Records that a deduplication leaves out and that are no duplicates: one small Parquet file a task, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..sharding.store import Store
from ..transforms.schema import DOCUMENT, id_sum
from ..transforms.step import Outcome
from .stage import Receipt

SET_ASIDE = pa.schema(
    [
        DOCUMENT.field("id"),
        DOCUMENT.field("source"),
        DOCUMENT.field("path"),
        DOCUMENT.field("place"),
        DOCUMENT.field("source_id"),
        DOCUMENT.field("url"),
        pa.field("fate", pa.string()),  # rejected | quarantined
        pa.field("rule", pa.string()),  # of rejected rows
        pa.field("error", pa.string()),  # of quarantined rows
        pa.field("raw", pa.binary()),  # up to 1 MiB of the record; of Parquet rows without text, the row as JSON
    ]
)
HELD_BYTES = 32 << 20


class SetAside:
    """Write the records of one task that are set aside."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "set_aside.parquet"
        self._writer: Any = None
        self._held: list[pa.RecordBatch] = []
        self._size = self.documents = self._id_sum = 0

    def add(self, outcome: Outcome) -> None:
        """Take records that the reader refuses."""
        if not len(outcome.batch):
            return
        batch, nulls = outcome.batch, pa.nulls(len(outcome.batch))
        errors = (nulls if outcome.errors is None else outcome.errors).cast(pa.string())
        columns = {
            **{name: batch.column(name) for name in SET_ASIDE.names if name in batch.schema.names},
            "fate": pc.if_else(errors.is_valid(), "quarantined", "rejected"),
            "rule": outcome.reasons,
            "error": errors,
            "raw": (nulls if outcome.raw is None else outcome.raw).cast(pa.binary()),
        }
        rows = pa.RecordBatch.from_arrays([columns[item.name] for item in SET_ASIDE], schema=SET_ASIDE)
        self.documents += len(rows)
        self._id_sum = (self._id_sum + id_sum(rows.column("id"))) % (1 << 64)
        self._held.append(rows)
        self._size += rows.nbytes
        if self._size >= HELD_BYTES or len(self._held) >= 1_000:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, SET_ASIDE, compression="zstd")
        self._writer.write_table(pa.Table.from_batches(self._held).combine_chunks(), row_group_size=1 << 30)
        self._held, self._size = [], 0

    def put(self, store: Store) -> Receipt:
        """Commit the file; give its name, None where nothing was set aside, and what it holds."""
        if self._held:
            self._flush()
        name = None
        if self._writer is not None:
            self._writer.close()
            name = store.put(self._path, "set_aside/set_aside-", ".parquet")
        return {"object": name, "documents": self.documents, "id_sum": str(self._id_sum)}
