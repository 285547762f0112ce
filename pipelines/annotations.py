"""Marks for documents that have copies: cluster, size, the one that stays, similarity; a row a document, by part.

Made once in the client from the tables of removals; a worker reads those of its part by the table's statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.verdicts import NOTES
from .clusters import addresses
from .tables import get_table, parquet, put_table

ROWS = 1 << 16  # of a row group
PLACED = pa.schema([("part", pa.int32()), ("row", pa.int64()), *NOTES])


@dataclass(frozen=True)
class Marks:
    """The table of marks, sorted by part and row."""

    store: Store
    name: str

    def read(self, part: int) -> tuple[NDArray[np.int64], pa.RecordBatch]:
        """Read the rows of a part that have marks, rising, and the marks."""
        found = [PLACED.empty_table()]
        with parquet(self.store, self.name) as file:
            for number in range(file.num_row_groups):
                range_of = file.metadata.row_group(number).column(0).statistics
                if range_of is not None and range_of.min <= part <= range_of.max:
                    rows = file.read_row_group(number, use_threads=False)
                    found.append(rows.filter(pc.equal(rows.column("part"), part)))
        table = pa.concat_tables(found).combine_chunks()
        marks = table.select(NOTES.names)
        columns = [marks.column(name).combine_chunks() for name in NOTES.names]
        return table.column("row").to_numpy(), pa.RecordBatch.from_arrays(columns, schema=NOTES)


def put_marks(run: Store, removed: Sequence[str]) -> Marks:
    """Write the marks that tables of removals give, a kind's behind the one before.

    A document that goes has the marks of the kind that drops it; one that stays, of the last in which it has copies.
    """
    tables = [PLACED.empty_table()]
    for name in removed:
        tables += _marks(get_table(run, name))
    table = pa.concat_tables(tables).combine_chunks()
    places = addresses(table, "")
    order = np.argsort(places, kind="stable")
    last = np.ones(len(order), bool)
    last[:-1] = places[order][1:] != places[order][:-1]
    return Marks(run, put_table(run, table.take(pa.array(order[last])), "output/marks/marks-", ROWS))


def _marks(removed: pa.Table) -> list[pa.Table]:
    """Give the marks of a table of removals: of those that go, and of those that stay for them."""
    names = pc.coalesce(removed.column("kept_source_id"), hexadecimal(removed.column("kept_id")))
    cluster, size = hexadecimal(removed.column("cluster")), removed.column("cluster_size")
    yes, no = (pa.array(np.full(len(removed), value, bool)) for value in (True, False))
    gone = [removed.column("part"), removed.column("row"), cluster, size, names, removed.column("similarity"), yes]
    nothing = pa.nulls(len(removed), pa.float32())
    stays = [removed.column("kept_part"), removed.column("kept_row"), cluster, size, names, nothing, no]
    here = removed.column("kept_part").is_valid()  # others stay in an index
    return [pa.table(stays, schema=PLACED).filter(here), pa.table(gone, schema=PLACED)]


def hexadecimal(ids: pa.ChunkedArray) -> pa.Array:
    """Write 16-byte ids as 32 hex digits."""
    whole = ids.combine_chunks()
    data = np.frombuffer(whole.buffers()[1] or b"", np.uint8)[16 * whole.offset : 16 * (whole.offset + len(whole))]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.column_stack([digits[data >> 4], digits[data & 15]]).reshape(-1)
    offsets = np.arange(len(whole) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(whole), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))
