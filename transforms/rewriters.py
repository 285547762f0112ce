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
from .files import FileEntry, copy_range
from .inflate import Codec
from .lines import codec_of
from .rewrite_lines import head_names, rewrite_jsonl, taken
from .rewrite_tables import count_rows, rewrite_parquet, schema_of
from .rewrite_warc import rewrite_warc
from .rows import LARGEST_RECORD, RAW_BYTES, Fields, Piece
from .step import Outcome
from .tables import read_text
from .verdicts import NOTES, QUARANTINED, Met, Verdicts, changed, hold_to, refused

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


def check_names(entry: FileEntry, kind: str, prefix: str = "") -> None:
    """Refuse, before anything is read, to annotate a file that has a field of such a name, by its schema or head."""
    if entry.size == 0 or kind not in ("jsonl", "parquet"):
        return
    held = set(head_names(entry.url, entry.path)) if kind == "jsonl" else set(schema_of(entry).names)
    for name in note_names(prefix):
        if name in held:
            where = "a record at its head" if kind == "jsonl" else "its schema"
            raise taken(entry.path, where, name)


def rewrite(
    piece: Piece, fields: Fields, verdicts: Verdicts, out: BinaryIO, largest: int = LARGEST_RECORD
) -> Iterator[Met]:
    """Write what stays of a piece into `out`, and tell what was met, a stretch of records at a time.

    Records that the reader refuses are set aside, but for WARC, where only what is damaged is, and where records are
    marked, which keeps all that a mark can be put on. Raises InputError where the input is not what the verdicts are
    about, CorruptDataError where the columns of a document that stays cannot be read.
    """
    if piece.size == 0:
        return
    codec: Codec = codec_of(piece.path) if piece.format == "jsonl" else "none"
    whole = piece.end < 0 and _stays_whole(piece, codec, verdicts)
    sink = _Nowhere() if whole else _packed(out, codec)
    met = 0
    counts = whole and piece.format == "parquet"
    for each in count_rows(piece) if counts else _rewriter(piece, fields, verdicts, cast(BinaryIO, sink), largest):
        met += len(each.places)
        yield each
    if sink is not out:
        sink.close()
    if met != len(verdicts.fates):
        raise changed(piece, f"it had {len(verdicts.fates)} records and has {met}")
    if whole:
        copy_range(piece.url, piece.size, 0, piece.size, out)


def _stays_whole(piece: Piece, codec: Codec, verdicts: Verdicts) -> bool:
    """Whether a file can be copied as it lies, so that nothing is compressed anew."""
    if piece.format in ("warc", "wet"):
        return not len(verdicts.gone) and not (verdicts.fates == QUARANTINED).any()
    return (codec != "none" or piece.format == "parquet") and verdicts.untouched


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
    here, place = hold_to(piece, verdicts, 0, 1), np.zeros(1, np.int64)
    stays = bool(here.stays()[0])
    if stays and not len(here.cuts.rows):
        copy_range(piece.url, piece.size, 0, piece.size, out)
        yield Met(place, 1)
        return
    if not stays and not here.fates[0]:
        yield Met(place, 0)
        return
    outcome = next(read_text(piece, largest))
    head = io.BytesIO()
    copy_range(piece.url, piece.size, 0, RAW_BYTES, head)
    if not stays:
        aside = refused(piece, outcome)
        yield Met(place, 0, Outcome(aside.batch, aside.reasons, aside.errors, pa.array([head.getvalue()], pa.binary())))
        return
    mark = b"\xef\xbb\xbf"
    text = here.cuts.apply(outcome.batch.column("text"))[0].as_py().encode()
    out.write((mark if head.getvalue().startswith(mark) else b"") + text)
    yield Met(place, 1)


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
