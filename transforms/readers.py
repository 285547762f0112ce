"""Read WARC, WET, JSON lines, Parquet and text as document batches; every record met is a row, exactly once.

A row is kept, rejected by a rule (`read/http_status`, `read/not_html`, `read/not_text`, `read/empty`), or set aside
with an error and its bytes. What is damaged never hides what lies behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from .. import InputError, StoreError
from .files import FileEntry, detect_format, list_files, open_input
from .lines import check_jsonl, codec_of, read_jsonl
from .rows import LARGEST_RECORD, Fields, Piece, Wanted
from .step import Outcome
from .tables import check_schema, read_parquet, read_text
from .warc import first_kind, read_warc
from .warc_cuts import find_cuts

__all__ = [
    "Fields",
    "FileEntry",
    "Piece",
    "Wanted",
    "check_fields",
    "detect_format",
    "holds_texts",
    "list_files",
    "read",
    "split",
]

FORMATS = ("warc", "wet", "jsonl", "parquet", "text")


def read(
    piece: Piece, fields: Fields | None = None, *, largest: int = LARGEST_RECORD, wanted: Wanted | None = None
) -> Iterator[Outcome]:
    """Read one piece as batches of the document schema, with reasons and errors.

    Records beyond `largest` bytes when decoded are set aside. `wanted` is asked for each record, by its place and its
    bytes as they lie in the file (of Parquet and text, its text): what it does not want is passed over, of WARC and
    JSON lines before it is decoded. Raises InputError where the file cannot be opened, has
    changed since it was listed, or lacks a mapped field; StoreError where its store fails.
    """
    fields = fields or Fields()
    if piece.size == 0:
        return
    if piece.format in ("warc", "wet"):
        yield from read_warc(piece, largest, wanted)
    elif piece.format == "jsonl":
        yield from read_jsonl(piece, fields, largest, wanted)
    elif piece.format == "parquet":
        yield from chosen(read_parquet(piece, fields, largest), wanted)
    elif piece.format == "text":
        yield from chosen(read_text(piece, largest), wanted)
    else:
        raise InputError(f"{piece.format!r} is not a format that can be read; one of {', '.join(FORMATS)} is")


def chosen(outcomes: Iterable[Outcome], wanted: Wanted | None) -> Iterator[Outcome]:
    """Leave out what is not wanted."""
    for outcome in outcomes:
        if wanted is None:
            yield outcome
            continue
        places, texts = (outcome.batch.column(name).to_pylist() for name in ("place", "text"))
        stays = pa.array(
            [wanted(place, (text or "").encode()) for place, text in zip(places, texts, strict=True)], pa.bool_()
        )
        errors, raw = (None if column is None else column.filter(stays) for column in (outcome.errors, outcome.raw))
        yield Outcome(outcome.batch.filter(stays), outcome.reasons.filter(stays), errors, raw)


def check_fields(entry: FileEntry, format: str, fields: Fields) -> None:
    """Refuse, before anything is read, a file that lacks a mapped field: by its schema, or its first 100 records."""
    if entry.size == 0:
        return
    if format == "jsonl":
        check_jsonl(entry.url, entry.path, fields)
    elif format == "parquet" and (table := _parquet(entry)) is not None:
        check_schema(table.schema_arrow, entry.path, fields)


def holds_texts(entry: FileEntry) -> bool:
    """Say whether the first document of a WARC file is a text (WET) and not a page."""
    return entry.size > 0 and first_kind(entry.url, entry.size) == "conversion"


def split(entry: FileEntry, format: str, task_bytes: int) -> list[tuple[int, int]]:
    """Cut a file into ranges of about `task_bytes`, as `Piece` has them: [(start, end), …], which cover it exactly.

    Plain JSONL is cut by bytes, WARC where records begin, Parquet by row groups; other files are one range, (0, -1).
    """
    if task_bytes < 1:
        raise InputError(f"task_bytes is {task_bytes}; it must be at least 1")
    if format == "jsonl" and codec_of(entry.path) == "none" and entry.size > task_bytes:
        parts = -(-entry.size // task_bytes)
        cuts = [entry.size * part // parts for part in range(parts + 1)]
        return list(pairwise(cuts))
    if (
        format in ("warc", "wet")
        and entry.size > task_bytes
        and (found := find_cuts(entry.url, entry.size, task_bytes))
    ):
        return list(pairwise([0, *found, entry.size]))
    if format == "parquet" and entry.size > task_bytes and (table := _parquet(entry)) is not None:
        groups = [table.metadata.row_group(group) for group in range(table.num_row_groups)]
        return _group_ranges([group.total_byte_size for group in groups], task_bytes)
    return [(0, -1)]


def _group_ranges(sizes: list[int], task_bytes: int) -> list[tuple[int, int]]:
    ranges, start, held = [], 0, 0
    for group, size in enumerate(sizes):
        if group > start and held + size > task_bytes:
            ranges.append((start, group))
            start, held = group, 0
        held += size
    return [*ranges, (start, len(sizes))] if sizes else [(0, -1)]


def _parquet(entry: FileEntry) -> pq.ParquetFile | None:
    """The footer of a Parquet file; None where it is damaged, which reading it will say."""
    with open_input(entry.url, entry.size) as file:
        try:
            return pq.ParquetFile(file)
        except StoreError:
            raise
        except (OSError, pa.ArrowException):
            return None
