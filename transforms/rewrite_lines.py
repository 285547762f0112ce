"""Write the JSON lines that stay of a piece, byte for byte; a changed field is spliced into its line.

Lines are dealt with by the megabyte: stretches that stay are copied as they lie, and Python looks only at the lines
that go, change or are set aside. Blank lines are no records and stay. About 1 GB a second and core of plain lines.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import InputError
from .files import open_input
from .inflate import BLOCK, Codec, Damage, Data, decompress
from .json_splice import append_members, replace_value
from .lines import PROBE, Line, add_line, codec_of, first_line, packed_lines, parse_line, plain_lines
from .rows import LARGEST_RECORD, RAW_BYTES, Fields, Piece, Rows
from .step import Outcome
from .verdicts import Here, Met, Verdicts, edits_at

#: Bytes of lines dealt with at once.
CHUNK = 1 << 20
_BLANKS = np.isin(np.arange(256), list(b" \t\n\r\x0b\x0c"))


@dataclass(frozen=True)
class Chunk:
    """Whole lines, the first of which lies at `place`; or, with an error, the first bytes of one that is not read."""

    body: bytes
    place: int
    error: str | None = None


def rewrite_jsonl(
    piece: Piece, fields: Fields, verdicts: Verdicts, out: BinaryIO, largest: int = LARGEST_RECORD
) -> Iterator[Met]:
    """Write the lines that stay into `out`, decompressed; tell what was met, in order."""
    row = 0
    with open_input(piece.url, piece.size) as file:
        codec = codec_of(piece.path)
        chunks = plain_chunks(file, piece, largest) if codec == "none" else packed_chunks(file, codec, largest)
        for chunk in chunks:
            if chunk.error is None:
                met = _rewrite_chunk(chunk, row, codec, piece, fields, verdicts, out)
            else:
                rows = Rows(piece)
                rows.quarantine(chunk.place, chunk.error, chunk.body)
                met = Met(np.array([chunk.place], np.int64), 0, next(rows.take()), np.ones(1, bool))
            row += len(met.places)
            yield met


def _rewrite_chunk(
    chunk: Chunk, row: int, codec: Codec, piece: Piece, fields: Fields, verdicts: Verdicts, out: BinaryIO
) -> Met:
    starts, ends, records = line_table(chunk.body)
    places = chunk.place + (starts[records] if codec == "none" else records)
    here = verdicts.on(row, len(records))
    as_it_is = np.ones(len(starts), bool)
    as_it_is[records] = here.as_it_is
    other = np.flatnonzero(~as_it_is)
    lines = _Lines(piece, fields, here, chunk.body, places)
    copied, at = [], 0
    for row, start, end in zip(
        np.searchsorted(records, other).tolist(), starts[other].tolist(), ends[other].tolist(), strict=True
    ):
        copied.append(chunk.body[at:start])
        copied.append(lines.changed(row, start, end))
        at = end
    out.write(b"".join([*copied, chunk.body[at:]]))
    refused, aside = lines.refused()
    return Met(places, int(here.as_it_is.sum()) + lines.written, refused, aside, lines.edits())


def line_table(body: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Say where each line of a body starts and ends, its line end included, and which lines are not blank."""
    data = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(data == 10) + 1
    if len(body) and (not len(ends) or ends[-1] < len(body)):
        ends = np.append(ends, len(body))
    starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])
    record = np.ones(len(starts), bool)
    for line in np.flatnonzero(_BLANKS[data[starts]]).tolist():
        record[line] = bool(body[starts[line] : ends[line]].strip())
    return starts, ends, np.flatnonzero(record)


class _Lines:
    """The lines of a chunk that are not copied as they are."""

    def __init__(self, piece: Piece, fields: Fields, here: Here, body: bytes, places: NDArray[np.int64]) -> None:
        self._piece, self._fields, self._here, self._body, self._places = piece, fields, here, body, places
        self._documents, self._stays, self._cut = here.documents.tolist(), here.stays.tolist(), here.cut.tolist()
        self._refused, self._raw, self._aside = Rows(piece), list[bytes](), list[bool]()
        self._notes = None if here.notes is None else _members_of(here.notes)
        names = () if here.notes is None else here.notes.schema.names
        self._clashing = [name for name in names if b'"%b"' % name.encode() in body]  # perhaps: texts may hold it too
        self._edited: pa.RecordBatch | None = None
        self.written = 0

    def changed(self, row: int, start: int, end: int) -> bytes:
        """Give what is written in place of a line; nothing where it goes."""
        if not self._documents[row]:
            return self._refuse(row, self._body[start:end])
        if not self._stays[row]:
            return b""
        line = self._body[start:end]
        self.written += 1
        if self._cut[row]:
            line = replace_value(line, self._fields.text, self._cut_text(row))
        return self._marked(row, line)

    def _cut_text(self, row: int) -> str:
        """Give a text that is cut; all of the chunk are cut at once."""
        rows = np.flatnonzero(self._here.cut)
        if self._edited is None:
            starts, ends, records = line_table(self._body)
            cut = records[rows]
            lines = [self._body[a:b] for a, b in zip(starts[cut].tolist(), ends[cut].tolist(), strict=True)]
            texts = [parse_line(line)[self._fields.text] for line in lines]
            self._edited = self._here.edited(pa.array(texts, pa.large_string()))
        return str(self._edited.column("text")[int(np.searchsorted(rows, row))])

    def edits(self) -> pa.RecordBatch | None:
        """Give what undoes the cuts."""
        if self._edited is None:
            return None
        return edits_at(self._piece, self._places[self._here.cut].tolist(), self._edited)

    def _refuse(self, row: int, line: bytes) -> bytes:
        """Set a line aside; where lines are marked, one that can be marked stays too."""
        body = line.removesuffix(b"\n")
        add_line(self._refused, Line(int(self._places[row]), body), self._fields)
        self._raw.append(body[:RAW_BYTES])
        stays = self._notes is not None and _is_object(line)
        self._aside.append(not stays)
        self.written += stays
        return self._marked(row, line) if stays else b""

    def _marked(self, row: int, line: bytes) -> bytes:
        """Splice the marks into a line. Raises InputError where it has a field of such a name."""
        if self._notes is None:
            return line
        if self._clashing and any(b'"%b"' % name.encode() in line for name in self._clashing):
            record = parse_line(line)
            for name in self._clashing:
                if name in record:
                    raise taken(self._piece.path, f"the record at {self._places[row]}", name)
        return append_members(line, self._notes[row])

    def refused(self) -> tuple[Outcome | None, NDArray[np.bool_] | None]:
        """Give the lines that are no documents, with their bytes, and which of them are left out."""
        for outcome in self._refused.take():
            raw = pa.array(self._raw, pa.binary())
            return Outcome(outcome.batch, outcome.reasons, outcome.errors, raw), np.array(self._aside, bool)
        return None, None


def _is_object(line: bytes) -> bool:
    with suppress(ValueError):
        parse_line(line)
        return True
    return False


def _members_of(notes: pa.RecordBatch) -> list[bytes]:
    """Write each row of notes as members of a JSON object; equal rows, most have no copy, are written once."""
    names = [json.dumps(name, ensure_ascii=False) for name in notes.schema.names]
    columns = [
        [None if value is None else float(str(np.float32(value))) for value in column.to_pylist()]
        if pa.types.is_float32(column.type)  # as the shortest number that means it
        else column.to_pylist()
        for column in notes.columns
    ]
    memo: dict[tuple[Any, ...], bytes] = {}
    said = []
    for row in zip(*columns, strict=True):
        if row not in memo:
            values = [json.dumps(value, ensure_ascii=False) for value in row]
            memo[row] = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True)).encode()
        said.append(memo[row])
    return said


def head_names(piece: Piece) -> set[str]:
    """Name the fields of the first records of a file."""
    names: set[str] = set()
    with open_input(piece.url, piece.size) as file:
        codec, whole = codec_of(piece.path), replace(piece, start=0, end=-1)
        lines = (
            plain_lines(file, whole, LARGEST_RECORD) if codec == "none" else packed_lines(file, codec, LARGEST_RECORD)
        )
        for line in itertools.islice(lines, PROBE):
            with suppress(ValueError):
                names.update(parse_line(line.body))
    return names


def taken(path: str, where: str, name: str) -> InputError:
    """Say that an annotation would write over a field of the user's."""
    return InputError(
        f"{path!r}: {where} has the field {name!r} already, which the annotation would add; "
        "give its names a prefix: --annotation-prefix dedup_"
    )


def plain_chunks(file: BinaryIO, piece: Piece, largest: int) -> Iterator[Chunk]:
    """Cut the lines that start in [start, end) of a plain file into chunks."""
    end = piece.size if piece.end < 0 else min(piece.end, piece.size)
    at = first_line(file, piece.start, end)
    file.seek(at)
    held = _Held(largest, at, ordinals=False)
    while held.place < end:
        body = file.read(min(CHUNK, max(end - at, 0)) or BLOCK)
        if not body:
            yield from held.rest()
            return
        # The line that reaches the end of the range belongs to it; what starts behind does not.
        last = body.find(b"\n", max(end - 1 - at, 0)) + 1 if at + len(body) >= end else 0
        at += len(body)
        yield from held.feed(body[:last] if last else body)


def packed_chunks(file: BinaryIO, codec: Codec, largest: int) -> Iterator[Chunk]:
    """Cut the lines of a compressed file into chunks; damage is a record of its own, and reading goes on behind it."""
    held, parts, size = _Held(largest, 0, ordinals=True), list[bytes](), 0
    for event in decompress(file, codec, to_the_last=True):
        if isinstance(event, Data):
            parts.append(event.body)
            size += len(event.body)
        if size >= CHUNK or isinstance(event, Damage):
            yield from held.feed(b"".join(parts))
            parts, size = [], 0
        if isinstance(event, Damage):
            place = held.place
            broken = next(held.rest(), None)
            yield Chunk(((broken.body if broken else b"") or event.raw)[:RAW_BYTES], place, event.error)
            held.place = place + 1
    yield from held.feed(b"".join(parts))
    yield from held.rest()


class _Held:
    """Makes chunks of blocks; holds the line that is not at its end yet, and no more than `largest` bytes of it."""

    def __init__(self, largest: int, place: int, *, ordinals: bool) -> None:
        self.place = place  # of the first line that is still to come: its number, or its byte in the file
        self._largest, self._ordinals = largest, ordinals
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, block: bytes) -> Iterator[Chunk]:
        """Take a block and give the lines that end in it."""
        if self._size > self._largest + 1:  # bytes of this line were let go: only its end is looked for
            end = block.find(b"\n") + 1
            self._hold(block[:end] if end else block)
            if not end:
                return
            yield from self.rest()
            block = block[end:]
        cut = block.rfind(b"\n") + 1
        if cut:
            body = b"".join([*self._parts, block[:cut]])
            self._parts, self._size = [], 0
            yield from self._whole(body)
        self._hold(block[cut:])

    def _hold(self, part: bytes) -> None:
        room = self._largest + 1 - self._size
        if part and room > 0:
            self._parts.append(part[:room])
        self._size += len(part)

    def rest(self) -> Iterator[Chunk]:
        """Give the line that is held, ended or not."""
        body, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        if size > self._largest + 1:
            yield self._over(body, size)
        elif body:
            yield from self._whole(body)

    def _whole(self, body: bytes) -> Iterator[Chunk]:
        """Give lines, those apart that are too large."""
        at = start = 0
        while len(body) > self._largest and start < len(body):
            found = body.find(b"\n", start)
            end = found if found >= 0 else len(body)
            if end - start > self._largest:
                if start > at:
                    yield self._chunk(body[at:start])
                yield self._over(body[start:end], min(end + 1, len(body)) - start)
                at = end + 1
            start = end + 1
        if at < len(body):
            yield self._chunk(body[at:])

    def _chunk(self, body: bytes) -> Chunk:
        made = Chunk(body, self.place)
        self.place += body.count(b"\n") + (not body.endswith(b"\n")) if self._ordinals else len(body)
        return made

    def _over(self, body: bytes, size: int) -> Chunk:
        made = Chunk(body[:RAW_BYTES], self.place, f"the line is larger than {self._largest} bytes")
        self.place += 1 if self._ordinals else size
        return made
