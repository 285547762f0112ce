"""What `final` steps took out of the survivors, kept beside what is published and never in it: it may be the very thing
that was to be hidden.

Edits that `steps` made stand in `documents/` and in the ledger, in the column `edits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..sharding.store import Store
from ..transforms.edits import COLUMN
from .stage import Receipt


def without_edits(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Leave the column `edits` out, where there is one."""
    return batch.drop_columns([COLUMN]) if COLUMN in batch.schema.names else batch


class KeptEdits:
    """The edits of one task as a Parquet file: a row a document that was edited, its `id` and its `edits`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "edits.parquet"
        self._writer: Any = None

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Write down a batch's edits; give it without them."""
        if COLUMN not in batch.schema.names:
            return batch
        edited = batch.select(["id", COLUMN]).filter(pc.is_valid(batch.column(COLUMN)))
        if len(edited):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, edited.schema, compression="zstd")
            self._writer.write_table(pa.Table.from_batches([edited]), row_group_size=1 << 30)
        return without_edits(batch)

    def put(self, store: Store) -> str | None:
        """Commit the file; give its name, or None where nothing was edited."""
        if self._writer is None:
            return None
        self._writer.close()
        return store.put(self._path, "edits/edits-", ".parquet")


def edits_of(receipts: Iterable[Receipt]) -> Iterator[str]:
    """Name the edits that receipts name."""
    return (receipt["edits"] for receipt in receipts if receipt.get("edits") is not None)
