"""One table of removals for all kinds of a run: who went, by which kind, and who stayed for it in the end.

A document that went for another may have been kept for one that a later kind dropped in turn: its row then names who
stayed for that one. Where only one kind ran, its own table is the run's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..sharding.store import Store
from .clusters import CLUSTERS, addresses
from .stage import spool
from .tables import get_table, row_groups

#: What is said of the one that stays.
KEPT = [name for name in CLUSTERS.names if name.startswith("kept_")]


def join_removals(run: Store, tables: Sequence[str]) -> str | None:
    """Give the name of the run's table of removals; None where no kind ran."""
    if len(tables) < 2:
        return tables[0] if tables else None
    with spool() as folder:
        return run.put(_joined(run, tables, folder), "removals/removals-", ".parquet")


def _joined(run: Store, tables: Sequence[str], folder: Path) -> Path:
    path = folder / "removals.parquet"
    with pq.ParquetWriter(path, CLUSTERS, compression="zstd") as writer:
        for place, name in enumerate(tables):
            later = [_Later(get_table(run, other)) for other in tables[place + 1 :]]
            for rows, _ in row_groups(run, name, CLUSTERS.names):
                for one in later:
                    rows = one.followed(rows)
                writer.write_table(rows.cast(CLUSTERS))
    return path


class _Later:
    """What a later kind dropped, by address, and for whom."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()
        self._gone = addresses(table, "")

    def followed(self, rows: pa.Table) -> pa.Table:
        """Name, in place of a document that this kind dropped, the one that stayed for it, where there is one."""
        if not len(self._gone):
            return rows
        kept = addresses(rows, "kept_")
        at = np.minimum(np.searchsorted(self._gone, kept), len(self._gone) - 1)
        moved = (self._gone[at] == kept) & self._table.column("kept_id").is_valid().to_numpy()[at]
        if not moved.any():
            return rows
        chosen = np.where(moved, len(rows) + at, np.arange(len(rows)))
        for name in KEPT:
            both = pa.chunked_array([*rows.column(name).chunks, *self._table.column(name).chunks])
            rows = _with(rows, name, both.take(pa.array(chosen)))
        # It was that with the one that went too.
        return _with(rows, "similarity", pc.if_else(pa.array(moved), pa.scalar(None, pa.float32()), rows["similarity"]))


def _with(rows: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), CLUSTERS.field(name), column)
