"""Write what stays of a piece of input in the input's own format: what is not touched keeps its bytes.

Parquet comes out as Parquet with the user's schema; JSON lines, plain or compressed, as they lay; WARC and WET record
by record; a text file is copied. Compressed bytes are the same wherever and whenever they are made.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import zstandard

from .. import InputError, RequestError
from .files import copy_range, open_input
from .inflate import Codec
from .lines import codec_of
from .rewrite_lines import head_names, rewrite_jsonl, taken
from .rewrite_tables import rewrite_parquet, rows_in, schema_of
from .rewrite_warc import rewrite_warc
from .rows import LARGEST_RECORD, RAW_BYTES, Fields, Piece
from .step import Outcome
from .tables import read_text
from .verdicts import NOTES, Met, Verdicts, edits_at

__all__ = ["NOTES", "Verdicts", "check_format", "check_names", "note_names", "rewrite"]

ZLIB_LEVEL, ZSTD_LEVEL = 6, 3


def note_names(prefix: str = "") -> tuple[str, ...]:
    """Name the columns of an annotation."""
    return tuple(f"{prefix}{name}" for name in NOTES.names)


def check_format(kind: str, source: str, *, annotate: bool, cuts: bool) -> None:
    """Refuse what cannot be written in the format of the input: a container of pages has no place for marks or cuts."""
    way = "--format jsonl or --format parquet writes the text that was read, in a table of documents"
    if annotate and kind in ("warc", "wet", "text"):
        raise RequestError(f"the input {source!r} is {kind}, where an annotation has no place: {way}")
    if cuts and kind in ("warc", "wet"):
        raise RequestError(f"the input {source!r} is {kind}, whose records are not edited: {way}")


def check_names(piece: Piece, prefix: str = "") -> None:
    """Refuse, before anything is read, to annotate a file that has a field of such a name, by its schema or head."""
    if piece.size == 0 or piece.format not in ("jsonl", "parquet"):
        return
    lines = piece.format == "jsonl"
    held = head_names(piece) if lines else set(schema_of(piece).names)
    for name in note_names(prefix):
        if name in held:
            raise taken(piece.path, "a record at its head" if lines else "its schema", name)


def rewrite(
    piece: Piece, fields: Fields, verdicts: Verdicts, out: BinaryIO, largest: int = LARGEST_RECORD
) -> Iterator[Met]:
    """Write what stays of a piece into `out`, and tell what was met, a stretch of records at a time.

    Records that the reader refuses are set aside, but for WARC, where only what is damaged is, and where records are
    marked, which keeps all that a mark can be put on. A file of which all stays is copied. Raises InputError where a
    record has a field of a mark's name, CorruptDataError where the columns of a document that stays cannot be read.
    """
    if piece.size == 0:
        return
    codec: Codec = codec_of(piece.path) if piece.format == "jsonl" else "none"
    if piece.end < 0 and verdicts.notes is None and (codec != "none" or piece.format in ("parquet", "warc", "wet")):
        untouched = _untouched(piece, fields, verdicts, largest)
        if untouched is not None:
            copy_whole(piece, out)
            yield from untouched
            return
    sink = _packed(out, codec)
    yield from _rewriter(piece, fields, verdicts, cast(BinaryIO, sink), largest)
    if sink is not out:
        sink.close()


def _untouched(piece: Piece, fields: Fields, verdicts: Verdicts, largest: int) -> list[Met] | None:
    """Tell what is met of a file of which all stays, so that it can be copied; None at the first record that goes."""
    if piece.format == "parquet":
        count = rows_in(piece)
        here = verdicts.on(0, count)
        return [Met(np.arange(count, dtype=np.int64), count)] if count and here.as_it_is.all() else None
    found: list[Met] = []
    for met in _rewriter(piece, fields, verdicts, cast(BinaryIO, _Nowhere()), largest):
        if met.written < len(met.places) or met.edits is not None:
            return None
        found.append(met)
    return found


def _rewriter(piece: Piece, fields: Fields, verdicts: Verdicts, out: BinaryIO, largest: int) -> Iterator[Met]:
    if piece.format in ("warc", "wet"):
        return rewrite_warc(piece, verdicts, out, largest)
    if piece.format == "jsonl":
        return rewrite_jsonl(piece, fields, verdicts, out, largest)
    if piece.format == "parquet":
        return rewrite_parquet(piece, fields, verdicts, out, largest)
    if piece.format == "text":
        return rewrite_text(piece, verdicts, out, largest)
    raise InputError(f"{piece.format!r} is not a format that can be written")


def rewrite_text(piece: Piece, verdicts: Verdicts, out: BinaryIO, largest: int = LARGEST_RECORD) -> Iterator[Met]:
    """Copy a file that stays; write it anew where its text is cut."""
    here, place = verdicts.on(0, 1), np.zeros(1, np.int64)
    if here.as_it_is[0]:
        copy_whole(piece, out)
        yield Met(place, 1)
        return
    if here.documents[0] and not here.stays[0]:
        yield Met(place, 0)
        return
    outcome = next(read_text(piece, largest))
    with open_input(piece.url, piece.size) as file:
        head = file.read(RAW_BYTES)
    if not here.documents[0]:
        raw = pa.array([head], pa.binary())
        yield Met(place, 0, Outcome(outcome.batch, outcome.reasons, outcome.errors, raw), np.ones(1, bool))
        return
    edited, mark = here.edited(outcome.batch.column("text")), b"\xef\xbb\xbf"
    out.write((mark if head.startswith(mark) else b"") + edited.column("text")[0].as_py().encode())
    yield Met(place, 1, edits=edits_at(piece, [0], edited))


def copy_whole(piece: Piece, out: BinaryIO) -> None:
    """Copy a file as it lies."""
    with open_input(piece.url, piece.size) as file:
        copy_range(file, 0, piece.size, out)


class _Nowhere(io.RawIOBase):
    """Takes bytes that are not wanted."""

    def writable(self) -> bool:
        return True

    def write(self, body: Any) -> int:
        return len(body)


class _Gzip(io.RawIOBase):
    """One gzip member without a name or a time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._packer = out, zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, 31)

    def writable(self) -> bool:
        return True

    def write(self, body: Any) -> int:
        self._out.write(self._packer.compress(body))
        return len(body)

    def close(self) -> None:
        if not self.closed:
            self._out.write(self._packer.flush())
        super().close()


def _packed(out: BinaryIO, codec: Codec) -> Any:
    if codec == "none":
        return out
    if codec == "gzip":
        return _Gzip(out)
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(out, closefd=False)
