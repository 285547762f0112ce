"""Read Parquet tables and text files as document batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import InputError, StoreError
from .files import open_input
from .inflate import BLOCK
from .rows import LARGEST_RECORD, RAW_BYTES, Fields, Piece, Rows, metadata_json, outcome, refuse_missing
from .schema import BATCH_BYTES, BATCH_DOCUMENTS
from .step import Outcome, utf8_buffers
from .values import plain_values


def read_parquet(piece: Piece, fields: Fields, largest: int = LARGEST_RECORD) -> Iterator[Outcome]:
    """Read row groups [start, end) of a Parquet file. A null text is rejected as `read/empty`."""
    with open_input(piece.url, piece.size) as file:
        try:
            table = pq.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK)
        except StoreError:
            raise
        except (OSError, pa.ArrowException):
            yield from whole_file(piece, file, "the file is not readable as Parquet: its footer is missing or damaged")
            return
        check_schema(table.schema_arrow, piece.path, fields)
        end = table.num_row_groups if piece.end < 0 else min(piece.end, table.num_row_groups)
        counts = [table.metadata.row_group(group).num_rows for group in range(end)]
        for group in range(piece.start, end):
            yield from _row_group(table, group, sum(counts[:group]), counts[group], piece, fields, largest)


def check_schema(schema: pa.Schema, path: str, fields: Fields) -> None:
    """Refuse a Parquet schema that lacks a mapped column, or whose text is not text."""
    if doubled := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise InputError(f"{path!r}: the file has more than one column {doubled[0]!r}: rename all but one")
    refuse_missing(fields, schema.names, path, "no column of the file")
    kind = schema.field(fields.text).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (_is_text(kind) or pa.types.is_null(kind)):
        raise InputError(f"{path!r}: the column {fields.text!r} is of type {kind}, not text")


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests) or str(kind) in ("string_view", "binary_view")


def _row_group(
    table: pq.ParquetFile, group: int, first: int, count: int, piece: Piece, fields: Fields, largest: int
) -> Iterator[Outcome]:
    names = table.schema_arrow.names
    rest = fields.rest(names)
    columns = sorted({*fields.mapped(), *rest} & set(names))
    done = 0
    try:
        for batch in table.iter_batches(
            batch_rows(table, group), row_groups=[group], columns=columns, use_threads=False
        ):
            yield from table_rows(batch, range(first + done, first + count), piece, fields, rest, largest)
            done += batch.num_rows
    except StoreError:
        raise
    except (OSError, pa.ArrowException):
        yield from damaged_rows(piece, group, range(first + done, first + count))


def batch_rows(table: pq.ParquetFile, group: int) -> int:
    """Count the rows of a row group that are read at once."""
    about = table.metadata.row_group(group)
    return int(max(1, min(BATCH_DOCUMENTS, about.num_rows * BATCH_BYTES // max(about.total_byte_size, 1))))


def damaged_rows(piece: Piece, group: int, places: Sequence[int]) -> Iterator[Outcome]:
    """Set the rows of a row group aside that its damage hides."""
    rows = Rows(piece)
    for place in places:
        rows.quarantine(place, f"row group {group} of the Parquet file is damaged", b"")
        if rows.full:
            yield from rows.take()
    yield from rows.take()


def table_rows(
    batch: pa.RecordBatch, places: Sequence[int], piece: Piece, fields: Fields, rest: list[str], largest: int
) -> Iterator[Outcome]:
    """Read rows of a table, each at its place; `rest` names the columns that go into `metadata`."""
    values = {name: batch.column(name) for name in batch.schema.names}
    if _as_it_is(values[fields.text], largest):
        yield _whole(values, places, piece, fields, rest)
        return
    texts = _bytes_of(values[fields.text])
    rows = Rows(piece)
    others = [plain_values(values[name]) for name in rest]
    words = {column: _words(values[name]).to_pylist() for column, name in _mapped(fields) if name in values}
    for row in range(batch.num_rows):
        body = texts[row].as_py()
        try:
            if body is not None and len(body) > largest:
                raise ValueError(f"the column {fields.text!r} is larger than {largest} bytes")
            text = None if body is None else body.decode()
        except UnicodeDecodeError:
            rows.quarantine(places[row], f"the column {fields.text!r} is not valid UTF-8", body or b"")
        except ValueError as error:
            rows.quarantine(places[row], str(error), body or b"")
        else:
            rows.add(
                places[row],
                len(body or b""),
                text=text,
                reason=None if text and text.strip() else "read/empty",
                metadata=metadata_json({name: column[row] for name, column in zip(rest, others, strict=True)}),
                **{column: value[row] for column, value in words.items()},
            )
        if rows.full:
            yield from rows.take()
    yield from rows.take()


def _bytes_of(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary())


def _mapped(fields: Fields) -> list[tuple[str, str]]:
    named = (("source_id", fields.id), ("url", fields.url or "url"), ("language", fields.language))
    return [(column, name) for column, name in named if name is not None]


def _words(column: pa.Array) -> pa.Array:
    if _is_string(column.type) and _is_valid(column):
        return column.cast(pa.string())
    if pa.types.is_dictionary(column.type) or _is_text(column.type):
        bodies = _bytes_of(column).to_pylist()
        return pa.array([None if body is None else body.decode("utf-8", "replace") for body in bodies], pa.string())
    return pa.array([None if value is None else str(value) for value in plain_values(column)], pa.string())


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _as_it_is(texts: pa.Array, largest: int) -> bool:
    """Whether a column of texts makes one batch as it lies: UTF-8 throughout, and no more of it than a batch has."""
    if not _is_string(texts.type) or len(texts) > BATCH_DOCUMENTS:
        return False
    size = pc.sum(pc.binary_length(texts)).as_py() or 0
    return bool(size < min(BATCH_BYTES, largest)) and _is_valid(texts)


def _whole(
    values: Mapping[str, pa.Array], places: Sequence[int], piece: Piece, fields: Fields, rest: list[str]
) -> Outcome:
    """Make one batch of a table's columns, no row looked at but those that may be blank."""
    texts, count = values[fields.text].cast(pa.string()), len(values[fields.text])
    reasons: list[str | None] = [None] * count
    for row in np.flatnonzero(_may_be_blank(texts)).tolist():
        reasons[row] = None if (texts[row].as_py() or "").strip() else "read/empty"
    arrays = {"text": texts, **{column: _words(values[name]) for column, name in _mapped(fields) if name in values}}
    if rest:
        others = [plain_values(values[name]) for name in rest]
        arrays["metadata"] = pa.array(
            [metadata_json(dict(zip(rest, row, strict=True))) for row in zip(*others, strict=True)], pa.string()
        )
    nothing: list[Any] = [None] * count
    return outcome(piece, list(places[:count]), arrays, reasons, nothing, nothing)


def _may_be_blank(texts: pa.Array) -> NDArray[np.bool_]:
    """Say which texts are null or empty, or begin with a character that may be white space."""
    offsets, data = utf8_buffers(texts)
    first = np.zeros(len(texts), np.uint8)
    some = offsets[1:] > offsets[:-1]
    first[some] = data[offsets[:-1][some]]
    return (first <= 32) | (first >= 127)


def read_text(piece: Piece, largest: int = LARGEST_RECORD) -> Iterator[Outcome]:
    """Read a file as one document; an empty file holds none."""
    with open_input(piece.url, piece.size) as file:
        if piece.size > largest:
            yield from whole_file(piece, file, f"the file is larger than {largest} bytes")
            return
        body = b"".join(iter(lambda: file.read(BLOCK), b""))
    rows = Rows(piece)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        rows.quarantine(0, "the file is not valid UTF-8", body)
    else:
        if body:
            rows.add(0, len(body), text=text, reason=None if text.strip() else "read/empty")
    yield from rows.take()


def whole_file(piece: Piece, file: BinaryIO, error: str) -> Iterator[Outcome]:
    """Set a whole file aside, in the piece that holds its start."""
    if piece.start == 0:
        file.seek(0)
        rows = Rows(piece)
        rows.quarantine(0, error, file.read(RAW_BYTES))
        yield from rows.take()
