"""Read JSON lines, Parquet tables and text files as document batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from .. import InputError, StoreError
from .files import open_input
from .inflate import BLOCK, Codec, Damage, Data, MemberEnd, decompress
from .rows import LARGEST_RECORD, RAW_BYTES, Fields, Piece, Rows, metadata_json, outcome
from .schema import BATCH_BYTES
from .step import Outcome

#: Records at the head of a file among which a mapped field must occur.
PROBE = 100


class Line(NamedTuple):
    """One line: where it starts (byte offset in a plain file, else its ordinal), its bytes, and why it cannot be read."""

    place: int
    body: bytes
    error: str | None = None


def codec_of(path: str) -> Codec:
    """Tell how a file is compressed by its name."""
    name = path.lower()
    return "gzip" if name.endswith(".gz") else "zstd" if name.endswith((".zst", ".zstd")) else "none"


# --- JSON lines -------------------------------------------------------------------------------------------------------


def read_jsonl(piece: Piece, fields: Fields, largest: int = LARGEST_RECORD) -> Iterator[Outcome]:
    """Read the JSON lines of a piece. A line without text, of another type or that is no JSON is set aside."""
    if piece.start == 0:
        check_jsonl(piece.url, piece.path, fields)
    rows = Rows(piece)
    with open_input(piece.url, piece.size) as file:
        codec = codec_of(piece.path)
        lines = plain_lines(file, piece, largest) if codec == "none" else packed_lines(file, codec, largest)
        for line in lines:
            _add_line(rows, line, fields)
            if rows.full:
                yield from rows.take()
    yield from rows.take()


def plain_lines(file: BinaryIO, piece: Piece, largest: int) -> Iterator[Line]:
    """Cut the lines that start in [start, end) of a plain file, reading these bytes and the end of the last line only."""
    end = piece.size if piece.end < 0 else min(piece.end, piece.size)
    at = max(piece.start - 1, 0)
    file.seek(at)
    skipping = piece.start > 0  # the line that reaches in from before is another range's; it may end at byte start - 1
    lines = _Lines(largest)
    place = at
    while place < end or lines.open:
        body = file.read(min(BLOCK, max(end - at, 1)) if at < end else BLOCK)
        at += len(body)
        if not body:
            break
        for line in lines.feed(body):
            start, place = place, place + line.size
            if skipping:
                skipping = False
            elif start < end:
                yield from line.at(start)
            if place >= end:
                return
    if not skipping and place < end:
        yield from lines.rest().at(place)


def packed_lines(file: BinaryIO, codec: Codec, largest: int) -> Iterator[Line]:
    """Cut the lines of a compressed file; damage is a line of its own, and reading goes on behind it."""
    lines, ordinal = _Lines(largest), 0
    for event in decompress(file, codec):
        if isinstance(event, MemberEnd):
            continue
        if isinstance(event, Data):
            for line in lines.feed(event.body):
                yield from line.at(ordinal)
                ordinal += 1
            continue
        broken = lines.rest()
        yield Line(ordinal, (broken.body or event.raw)[:RAW_BYTES], event.error)
        ordinal += 1
    yield from lines.rest().at(ordinal)


class _Cut(NamedTuple):
    """A line that was cut: its bytes without the line end, its size with it, and whether it is too large to hold."""

    body: bytes
    size: int
    over: int = 0

    def at(self, place: int) -> Iterator[Line]:
        """The line at its place; blank lines are none."""
        if self.over:
            yield Line(place, self.body, f"the line is larger than {self.over} bytes")
        elif self.body.strip():
            yield Line(place, self.body)


class _Lines:
    """Cuts lines from blocks; never holds more than `largest` bytes of one."""

    def __init__(self, largest: int) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._largest = largest

    @property
    def open(self) -> bool:
        """Whether a line has begun that has not ended."""
        return self._size > 0

    def feed(self, block: bytes) -> Iterator[_Cut]:
        """Take a block and give the lines that end in it."""
        begin = 0
        while (end := block.find(b"\n", begin)) >= 0:
            if self._size:
                self._hold(block[begin : end + 1])
                yield self.rest()
            elif end - begin > self._largest:
                yield _Cut(block[begin : begin + RAW_BYTES], end + 1 - begin, self._largest)
            else:
                yield _Cut(block[begin:end], end + 1 - begin)
            begin = end + 1
        self._hold(block[begin:])

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        if part and self._size <= self._largest + 1:
            self._parts.append(part)

    def rest(self) -> _Cut:
        """Give the line that is held, ended or not."""
        body, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        if size > self._largest + 1 or len(body.removesuffix(b"\n")) > self._largest:
            return _Cut(body[:RAW_BYTES], size, self._largest)
        return _Cut(body.removesuffix(b"\n"), size)


def _add_line(rows: Rows, line: Line, fields: Fields) -> None:
    if line.error is not None:
        rows.quarantine(line.place, line.error, line.body)
        return
    try:
        record = parse_line(line.body)
        text = _text_of(record, fields.text)
        size = len(text.encode())
    except UnicodeEncodeError:
        rows.quarantine(line.place, f"the field {fields.text!r} holds a lone surrogate, which is no character", line.body)
        return
    except ValueError as error:
        rows.quarantine(line.place, str(error), line.body)
        return
    rows.add(
        line.place,
        size,
        text=text if record[fields.text] is not None else None,
        reason=None if text.strip() else "read/empty",
        source_id=_word(record.get(fields.id)) if fields.id else None,
        url=_word(record.get(fields.url or "url")),
        language=_word(record.get(fields.language)) if fields.language else None,
        metadata=metadata_json({name: record[name] for name in fields.rest(list(record))}),
    )


def parse_line(body: bytes) -> dict[str, Any]:
    """Parse one JSON object. Raises ValueError, in words that are the same for every line of a kind."""
    try:
        record = json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("the line is not valid UTF-8") from None
    except RecursionError:
        raise ValueError("the line is nested too deeply") from None
    except ValueError as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"
        raise ValueError(f"the line is not valid JSON: {what}") from None
    if not isinstance(record, dict):
        raise ValueError(f"the line is {_kind(record)}, not a JSON object")
    return record


def _text_of(record: dict[str, Any], name: str) -> str:
    if name not in record:
        raise ValueError(f"the line has no field {name!r}")
    text = record[name]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(f"the field {name!r} is {_kind(text)}, not a string")
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _word(value: Any) -> str | None:
    """A field that stands in a column of its own, as text."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text.encode("utf-8", "replace").decode()


def check_jsonl(url: str, path: str, fields: Fields) -> None:
    """Refuse a file whose first 100 records all lack a field that is mapped."""
    seen: dict[str, int] = {}
    records = 0
    with open_input(url) as file:
        codec = codec_of(path)
        lines = plain_lines(file, Piece(url, "", path, "jsonl", 1 << 62), LARGEST_RECORD)
        for line in lines if codec == "none" else packed_lines(file, codec, LARGEST_RECORD):
            try:
                keys = parse_line(line.body) if line.error is None else {}
            except ValueError:
                continue
            records += line.error is None
            for key in keys:
                seen[key] = seen.get(key, 0) + 1
            if records >= PROBE or all(name in seen for name in fields.required()):
                break
    if records:
        _refuse_missing(fields, seen, path, f"none of its first {records} records")


def _refuse_missing(fields: Fields, present: Any, path: str, who: str) -> None:
    for name in fields.required():
        if name not in present:
            keys = ", ".join(repr(str(key)[:100]) for key in list(present)[:20]) or "no field at all"
            raise InputError(f"{path!r}: {who} has the field {name!r} that the recipe maps; they hold {keys}")


# --- Parquet ----------------------------------------------------------------------------------------------------------


def read_parquet(piece: Piece, fields: Fields, largest: int = LARGEST_RECORD) -> Iterator[Outcome]:
    """Read row groups [start, end) of a Parquet file. A null text is rejected as `read/empty`."""
    with open_input(piece.url, piece.size) as file:
        try:
            table = pq.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK)
        except StoreError:
            raise
        except (OSError, pa.ArrowException):
            yield from _whole(piece, file, "the file is not readable as Parquet: its footer is missing or damaged")
            return
        check_schema(table.schema_arrow, piece.path, fields)
        end = table.num_row_groups if piece.end < 0 else min(piece.end, table.num_row_groups)
        counts = [table.metadata.row_group(group).num_rows for group in range(end)]
        for group in range(piece.start, end):
            yield from _row_group(table, group, sum(counts[:group]), counts[group], piece, fields, largest)


def check_schema(schema: pa.Schema, path: str, fields: Fields) -> None:
    """Refuse a Parquet schema that lacks a mapped column, or whose text is not text."""
    _refuse_missing(fields, schema.names, path, "no column of the file")
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
    size = max(table.metadata.row_group(group).total_byte_size, 1)
    step = max(1, min(1_000, count * BATCH_BYTES // size))
    done = 0
    try:
        for batch in table.iter_batches(step, row_groups=[group], columns=columns):
            yield from _table_rows(batch, first + done, piece, fields, rest, largest)
            done += batch.num_rows
    except StoreError:
        raise
    except (OSError, pa.ArrowException):
        rows = Rows(piece)
        for row in range(first + done, first + count):
            rows.quarantine(row, f"row group {group} of the Parquet file is damaged", b"")
            if rows.full:
                yield from rows.take()
        yield from rows.take()


def _table_rows(
    batch: pa.RecordBatch, first: int, piece: Piece, fields: Fields, rest: list[str], largest: int
) -> Iterator[Outcome]:
    values = {name: batch.column(name) for name in batch.schema.names}
    texts = _bytes_of(values[fields.text])
    rows = Rows(piece)
    others = batch.select(rest).to_pylist() if rest else [{}] * batch.num_rows
    words = {
        column: _words(values[name])
        for column, name in (("source_id", fields.id), ("url", fields.url or "url"), ("language", fields.language))
        if name in values
    }
    for row in range(batch.num_rows):
        body = texts[row].as_py()
        try:
            if body is not None and len(body) > largest:
                raise ValueError(f"the column {fields.text!r} is larger than {largest} bytes")
            text = None if body is None else body.decode()
        except UnicodeDecodeError:
            rows.quarantine(first + row, f"the column {fields.text!r} is not valid UTF-8", body or b"")
        except ValueError as error:
            rows.quarantine(first + row, str(error), body or b"")
        else:
            rows.add(
                first + row,
                len(body or b""),
                text=text,
                reason=None if text and text.strip() else "read/empty",
                metadata=metadata_json(others[row]),
                **{column: value[row] for column, value in words.items()},
            )
        if rows.full:
            yield from rows.take()
    yield from rows.take()


def _bytes_of(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary())


def _words(column: pa.Array) -> list[str | None]:
    if pa.types.is_dictionary(column.type) or _is_text(column.type):
        return [None if body is None else body.decode("utf-8", "replace") for body in _bytes_of(column).to_pylist()]
    return [None if value is None else str(value) for value in column.to_pylist()]


# --- text -------------------------------------------------------------------------------------------------------------


def read_text(piece: Piece, largest: int = LARGEST_RECORD) -> Iterator[Outcome]:
    """Read a file as one document; an empty file holds none."""
    with open_input(piece.url, piece.size) as file:
        if piece.size > largest:
            yield from _whole(piece, file, f"the file is larger than {largest} bytes")
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


def _whole(piece: Piece, file: BinaryIO, error: str) -> Iterator[Outcome]:
    """Set a whole file aside, in the piece that holds its start."""
    if piece.start == 0:
        file.seek(0)
        rows = Rows(piece)
        rows.quarantine(0, error, file.read(RAW_BYTES))
        yield from rows.take()
