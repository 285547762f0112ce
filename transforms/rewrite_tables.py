"""Write the rows that stay of a Parquet file: its schema, row order and row groups, codecs and metadata as they are.

Row groups stream through in batches of about 32 MiB; a row group is written for each that is read, unless nothing of it
is left, or parted where it holds more than 128 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import CorruptDataError, StoreError
from .files import open_input
from .inflate import BLOCK
from .rows import LARGEST_RECORD, RAW_BYTES, Fields, Piece, metadata_json
from .step import Outcome
from .tables import batch_rows, check_schema, damaged_rows, table_rows, whole_file
from .values import plain_values
from .verdicts import Here, Met, Verdicts, edits_at, joined, put_texts

BATCH_BYTES = 32 << 20
GROUP_BYTES = 128 << 20
_CODECS = {"UNCOMPRESSED": "none", "LZ4_RAW": "lz4"}
_WRITABLE = ("none", "snappy", "gzip", "brotli", "lz4", "zstd")


def rewrite_parquet(
    piece: Piece, fields: Fields, verdicts: Verdicts, out: BinaryIO, largest: int = LARGEST_RECORD
) -> Iterator[Met]:
    """Write the rows that stay of row groups [start, end) into `out`; tell what was met, in order."""
    with open_input(piece.url, piece.size) as file:
        table = _opened(file)
        if table is None:
            error = "the file is not readable as Parquet: its footer is missing or damaged"
            for outcome in whole_file(piece, file, error):
                yield Met(np.zeros(1, np.int64), 0, outcome, np.ones(1, bool))
            return
        check_schema(table.schema_arrow, piece.path, fields)
        yield from _Rewriter(table, piece, fields, verdicts, out, largest).run()


def rows_in(piece: Piece) -> int:
    """Count a file's rows by its footer; none where it is damaged."""
    with open_input(piece.url, piece.size) as file:
        table = _opened(file)
        return 0 if table is None else int(table.metadata.num_rows)


def schema_of(piece: Piece) -> pa.Schema:
    """Give the schema of a Parquet file, or an empty one where it is damaged, which reading it will say."""
    with open_input(piece.url, piece.size) as file:
        table = _opened(file)
    return pa.schema([]) if table is None else table.schema_arrow


def _opened(file: BinaryIO) -> pq.ParquetFile | None:
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK)
    except StoreError:
        raise
    except (OSError, pa.ArrowException):
        return None


class _Rewriter:
    """One piece on its way from one Parquet file to another."""

    def __init__(
        self, table: pq.ParquetFile, piece: Piece, fields: Fields, verdicts: Verdicts, out: BinaryIO, largest: int
    ) -> None:
        self._table, self._piece, self._fields, self._verdicts = table, piece, fields, verdicts
        self._out, self._largest = out, largest
        self._writer: Any = None
        notes = [] if verdicts.notes is None else list(verdicts.notes.columns.schema)
        self._schema = pa.schema([*table.schema_arrow, *notes], table.schema_arrow.metadata)

    def run(self) -> Iterator[Met]:
        """Go through the row groups."""
        footer, row = self._table.metadata, 0
        end = footer.num_row_groups if self._piece.end < 0 else min(self._piece.end, footer.num_row_groups)
        first = sum(footer.row_group(group).num_rows for group in range(self._piece.start))
        for group in range(self._piece.start, end):
            for met in self._row_group(group, first + row, row):
                row += len(met.places)
                yield met
        if self._writer is not None:
            self._writer.close()

    def _row_group(self, group: int, place: int, row: int) -> Iterator[Met]:
        about = self._table.metadata.row_group(group)
        held, rows, done = list[pa.RecordBatch](), 0, 0
        most = max(1, GROUP_BYTES * about.num_rows // max(about.total_byte_size, 1))
        for batch in self._batches(group):
            written, met = self._batch(batch, place + done, self._verdicts.on(row + done, len(batch)))
            yield met
            done += len(batch)
            if len(written):
                held.append(written)
                rows += len(written)
            if rows >= most:
                self._write(held)
                held, rows = [], 0
        self._write(held)
        if done < about.num_rows:
            yield from self._damaged(group, place + done, row + done, about.num_rows - done)

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        """Read a row group; where it is damaged, up to where its reader got, by the same steps."""
        about = self._table.metadata.row_group(group)
        large = max(1, min(about.num_rows, BATCH_BYTES * about.num_rows // max(about.total_byte_size, 1)))
        done = 0
        for step in (large, batch_rows(self._table, group)):
            passed = 0
            try:
                for batch in self._table.iter_batches(step, row_groups=[group], use_threads=False):
                    passed += len(batch)
                    if passed > done:
                        yield batch.slice(max(0, len(batch) - (passed - done)))
                        done = passed
                return
            except StoreError:
                raise
            except (OSError, pa.ArrowException):
                continue

    def _damaged(self, group: int, place: int, row: int, count: int) -> Iterator[Met]:
        """Set aside the rows behind damage; one that is to be written cannot be lost."""
        if self._verdicts.on(row, count).documents.any():
            raise CorruptDataError(
                f"{self._piece.path!r}: the text of row group {group} was read, but its other columns are damaged from "
                f"row {place} on, so that its documents cannot be written whole: restore the file, or leave it out"
            )
        for outcome in damaged_rows(self._piece, group, range(place, place + count)):
            yield Met(
                np.asarray(outcome.batch.column("place"), np.int64), 0, outcome, np.ones(len(outcome.batch), bool)
            )

    def _batch(self, batch: pa.RecordBatch, place: int, here: Here) -> tuple[pa.RecordBatch, Met]:
        """Give what is written of a batch, and what was met."""
        places = np.arange(place, place + len(batch), dtype=np.int64)
        refused = aside = edits = None
        if not here.documents.all():
            wrong = ~here.documents
            refused = self._refused(pick(batch, wrong), places[wrong].tolist())
            aside = np.full(int(wrong.sum()), here.notes is None)
        if here.notes is not None:
            batch = pa.RecordBatch.from_arrays([*batch.columns, *here.notes.columns], schema=self._schema)
        elif not here.stays.all():
            batch = pick(batch, here.stays)
        if here.cut.any():
            number, cut = batch.schema.get_field_index(self._fields.text), here.cut[here.stays]
            texts = pick(batch.select([number]), cut).column(0)
            if pa.types.is_dictionary(texts.type):
                texts = texts.dictionary_decode()
            edited = here.edited(texts.cast(pa.large_binary()).cast(pa.large_string()))
            edits = edits_at(self._piece, places[here.cut].tolist(), edited)
            column = put_texts(batch.column(number), cut, edited.column("text"))
            batch = batch.set_column(number, batch.schema.field(number), column)
        return batch, Met(places, len(batch), refused, aside, edits)

    def _refused(self, batch: pa.RecordBatch, places: list[int]) -> Outcome:
        """Say why the reader refuses rows; of those without text, keep the rest of the row as JSON."""
        found = joined(list(table_rows(batch, places, self._piece, self._fields, [], self._largest)))
        assert found is not None
        assert found.raw is not None
        values = [plain_values(column) for column in batch.columns]
        raw = [
            body
            if body is not None
            else (metadata_json(dict(zip(batch.schema.names, row, strict=True))) or "").encode()[:RAW_BYTES]
            for body, row in zip(found.raw.to_pylist(), zip(*values, strict=True), strict=True)
        ]
        return Outcome(found.batch, found.reasons, found.errors, pa.array(raw, pa.binary()))

    def _write(self, held: list[pa.RecordBatch]) -> None:
        if not held:
            return
        if self._writer is None:
            settings = writer_settings(self._table, self._fields.text)
            self._writer = pq.ParquetWriter(self._out, self._schema, **settings)
        self._writer.write_table(pa.Table.from_batches(held, self._schema), row_group_size=1 << 30)


def pick(batch: pa.RecordBatch, wanted: NDArray[np.bool_]) -> pa.RecordBatch:
    """Take the rows of a batch that are wanted; of types that Arrow cannot filter, run by run."""
    try:
        return batch.filter(pa.array(wanted))
    except pa.ArrowNotImplementedError:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).astype(np.int8))).reshape(-1, 2)
        return pa.concat_batches(
            [batch.slice(0, 0), *(batch.slice(first, last - first) for first, last in edges.tolist())]
        )


def writer_settings(table: pq.ParquetFile, text: str) -> dict[str, Any]:
    """Say how a file is to be written so that it is like another: codecs, dictionaries, statistics, page index.

    Texts are written without a dictionary, which documents outgrow at once.
    """
    footer = table.metadata
    settings: dict[str, Any] = {"compression": "zstd", "store_schema": b"ARROW:schema" in (footer.metadata or {})}
    if not footer.num_row_groups:
        return settings
    columns = [footer.row_group(0).column(number) for number in range(footer.num_columns)]
    codecs = {each.path_in_schema: _CODECS.get(each.compression, each.compression.lower()) for each in columns}
    known = {path: codec if codec in _WRITABLE else "zstd" for path, codec in codecs.items()}
    return settings | {
        "compression": known if len(set(known.values())) > 1 else next(iter(known.values()), "zstd"),
        "use_compliant_nested_type": not any(".list.item" in path for path in codecs),
        "use_dictionary": [
            each.path_in_schema for each in columns if each.has_dictionary_page and each.path_in_schema != text
        ],
        "write_statistics": [each.path_in_schema for each in columns if each.is_stats_set],
        "write_page_index": any(each.has_offset_index for each in columns),
        "use_deprecated_int96_timestamps": any(each.physical_type == "INT96" for each in columns),
        "sorting_columns": footer.row_group(0).sorting_columns or None,
    }
