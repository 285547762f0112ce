"""A run's Parquet tables: small ones committed and read whole, any read back row group by row group.

Parquet is read without Arrow's threads, here and everywhere: one of them that lets go of a Python buffer while the
interpreter ends aborts the process, after its work is done ("terminate called without an active exception").
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from .. import CorruptDataError, StoreError
from ..sharding.store import Store
from ..transforms.values import plain_value


class PartFiles(NamedTuple):
    """What one ingest task wrote, named from the run's root."""

    part: int
    source: str
    path: str  # of its first file
    documents: str
    ledger: str


def read_parts(run: Store, name: str | None) -> dict[int, PartFiles]:
    """Read the table of parts, by part number; none where the run has no such table."""
    if not name:
        return {}
    folder = name.rpartition("/")[0]
    columns = ["part", "source", "path", "documents_object", "ledger_object"]
    made = {}
    for rows, _ in row_groups(run, name, columns):
        for part, source, path, documents, ledger in zip(
            *(rows.column(column).to_pylist() for column in columns), strict=True
        ):
            made[part] = PartFiles(part, source, path, f"{folder}/{documents}", f"{folder}/{ledger}")
    return made


class RowGroup:
    """One row group of an open Parquet object, whose columns are read when they are asked for."""

    def __init__(self, file: pq.ParquetFile, number: int) -> None:
        self._file, self._number = file, number
        self.rows = int(file.metadata.row_group(number).num_rows)
        self.names = list(file.schema_arrow.names)

    def read(self, columns: Iterable[str]) -> pa.Table:
        """Read some columns, each as one chunk."""
        return self._file.read_row_group(self._number, columns=list(columns), use_threads=False).combine_chunks()


def put_table(store: Store, table: pa.Table, prefix: str, rows: int | None = None) -> str:
    """Commit a table as one Parquet object, `rows` a row group; give its name, which begins with `prefix`."""
    body = io.BytesIO()
    pq.write_table(table, body, compression="zstd", row_group_size=rows)
    return store.put(body.getvalue(), prefix, ".parquet")


def get_table(store: Store, name: str) -> pa.Table:
    """Read a table back, whole."""
    body = io.BytesIO(store.read(name))
    with _told(store, name):
        return pq.ParquetFile(body).read(use_threads=False)


@contextmanager
def parquet(run: Store, name: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet object, for a block that only reads."""
    with run.open(name) as handle, _told(run, name):
        yield pq.ParquetFile(handle)


@contextmanager
def _told(store: Store, name: str) -> Iterator[None]:
    """Say which object is damaged, and what to do."""
    try:
        yield
    except StoreError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(
            f"{store.url}/{name} cannot be read as Parquet: {error}; restore it from a copy, or run into another output"
        ) from error


def row_groups(run: Store, name: str, columns: Iterable[str]) -> Iterator[tuple[pa.Table, RowGroup]]:
    """Give the row groups of a Parquet object one by one: the columns asked for, and a way to the others."""
    with parquet(run, name) as file:
        held = set(file.schema_arrow.names)
        wanted = [column for column in columns if column in held]
        for number in range(file.num_row_groups):
            group = RowGroup(file, number)
            yield group.read(wanted), group


def read_row(run: Store, name: str, row: int, columns: Iterable[str] | None = None) -> dict[str, Any]:
    """Read one row of a Parquet object by its number; IndexError where it has none."""
    with parquet(run, name) as file:
        first = 0
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if first <= row < first + rows:
                names = [column for column in columns or file.schema_arrow.names if column in file.schema_arrow.names]
                return row_values(file.read_row_group(number, columns=names, use_threads=False), row - first)
            first += rows
    raise IndexError(f"{name} has {first} rows, none of number {row}")


def row_values(rows: pa.Table, row: int) -> dict[str, Any]:
    """Give a row as plain values."""
    return {name: plain_value(rows.column(name)[row]) for name in rows.column_names}
