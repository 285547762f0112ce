"""How many documents inputs hold, before they are read: from Parquet footers exactly, else from the heads of files.

A footer costs one read of some kilobytes. Of other formats 256 MiB are decompressed, in one to three seconds: whole
files where that is enough, else the heads of at most 64 files spread over the input; what a record takes there it takes
everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import InputError
from ..transforms.files import open_input
from ..transforms.lines import codec_of
from ..transforms.readers import Piece
from .report_parts import plural
from .views import InputPart

FOOTERS = 2_000  # files of which the footers are read; of more, these stand for all
HEADS = 64
HEAD_BYTES = 256 << 20  # decompressed, of all heads together
BLOCK = 1 << 20
THREADS = 16
#: How a record of a format begins or ends, in the bytes of a decompressed file.
_RECORDS = {"jsonl": b"\n", "warc": b"WARC-Type: response", "wet": b"WARC-Type: conversion"}


@dataclass(frozen=True)
class Count:
    """A number of documents, and whether it was counted."""

    documents: int
    exact: bool
    how: str


def count_documents(parts: Sequence[Any]) -> Count:
    """Count the documents of parts, or estimate them."""
    inputs = [part for part in parts if isinstance(part, InputPart)]
    stored = sum(part.documents for part in parts if not isinstance(part, InputPart))
    if not inputs:
        return Count(stored, True, "counted when they were written")
    pieces = [piece for part in inputs for piece in part.task.pieces]
    made = [_footers([piece for piece in pieces if piece.format == "parquet"])]
    made += [_heads([piece for piece in pieces if piece.format == kind], mark) for kind, mark in _RECORDS.items()]
    files = sum(piece.format == "text" and piece.size > 0 for piece in pieces)
    made += [Count(files, True, "a file a document")]
    made = [count for count in made if count.documents]
    total = stored + sum(count.documents for count in made)
    hows = [*dict.fromkeys(count.how for count in made)]
    return Count(total, all(count.exact for count in made), ", ".join(hows) or "the files are empty")


def _footers(pieces: Sequence[Piece]) -> Count:
    """Read footers; of a file of which row groups are asked for, those are counted."""
    chosen = spread(pieces, FOOTERS)
    with ThreadPoolExecutor(THREADS) as pool:
        rows = sum(pool.map(_rows, chosen))
    if len(chosen) == len(pieces):
        return Count(rows, True, "counted in Parquet footers")
    scale = sum(piece.size for piece in pieces) / max(1, sum(piece.size for piece in chosen))
    return Count(round(rows * scale), False, f"estimated from {len(chosen):,} of {len(pieces):,} Parquet footers")


def _rows(piece: Piece) -> int:
    try:
        with open_input(piece.url, piece.size) as file:
            meta = pq.ParquetFile(file).metadata
            groups = range(piece.start, meta.num_row_groups if piece.end < 0 else piece.end)
            return sum(meta.row_group(group).num_rows for group in groups)
    except pa.ArrowException:  # whoever reads it tells what is wrong
        return 0


def _heads(pieces: Sequence[Piece], mark: bytes) -> Count:
    """Estimate from what a record takes in the heads of files."""
    whole = [piece for piece in pieces if piece.start == 0]
    chosen = spread(whole or pieces, HEADS)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(partial(_head, mark=mark, most=HEAD_BYTES // max(1, len(chosen))), chosen))
    read, records = sum(size for size, _, _ in found), sum(count for _, count, _ in found)
    size = sum(piece.bytes for piece in pieces)
    if len(chosen) == len(pieces) and all(ended for _, _, ended in found):
        return Count(records, True, "counted")
    return Count(
        round(records * size / max(1, read)), False, f"estimated from the beginning of {plural(len(chosen), 'file')}"
    )


def _head(piece: Piece, mark: bytes, most: int) -> tuple[int, int, bool]:
    """Give the bytes of a file that its head takes, the records in it, and whether it is all of the file."""
    codec = codec_of(piece.path)
    records, left, held = 0, most, b"\n"
    try:
        with open_input(piece.url, piece.size) as file:
            source: Any = file if codec == "none" else pa.CompressedInputStream(pa.PythonFile(file), codec)
            while left > 0 and (body := source.read(BLOCK)):
                left -= len(body)
                body = held[1 - len(mark) :] + body if len(mark) > 1 else body
                records, held = records + body.count(mark), body
            at = piece.size if left > 0 else min(piece.size, file.tell())
    except (pa.ArrowException, InputError, OSError):  # whoever reads it tells what is wrong
        return 0, 0, False
    return at, records + (mark == b"\n" and left > 0 and not held.endswith(mark)), left > 0


def spread(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """Choose so many at equal distances."""
    step = max(1.0, len(pieces) / most)
    return [pieces[int(step * number)] for number in range(min(most, len(pieces)))]
