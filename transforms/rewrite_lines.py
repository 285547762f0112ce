"""Write the JSON lines that stay of a piece, byte for byte; a changed field is spliced into its line.

Lines are dealt with by the megabyte: stretches that stay are copied as they lie, and Python looks only at the lines
that go, change or are set aside. Blank lines are no records and stay. About 1 GB a second and core of plain lines.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

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
from .verdicts import QUARANTINED, Met, Verdicts, hold_to, refused

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
            if chunk.error is not None:
                hold_to(piece, verdicts, row, 1)
                rows = Rows(piece)
                rows.quarantine(chunk.place, chunk.error, chunk.body)
                yield Met(np.array([chunk.place], np.int64), 0, next(rows.take()))
                row += 1
                continue
            met = _rewrite_chunk(chunk, row, codec, piece, fields, verdicts, out)
            row += len(met.places)
            yield met


def _rewrite_chunk(
    chunk: Chunk, row: int, codec: Codec, piece: Piece, fields: Fields, verdicts: Verdicts, out: BinaryIO
) -> Met:
    starts, ends, records = line_table(chunk.body)
    places = chunk.place + (starts[records] if codec == "none" else records)
    here = hold_to(piece, verdicts, row, len(records))
    as_it_is = np.ones(len(starts), bool)
    as_it_is[records] = here.stays() & (here.notes is None)
    as_it_is[records[here.cuts.rows]] = False
    lines = _Lines(chunk.body, piece, fields, here)
    copied, at = [], 0
    row_of = np.searchsorted(records, np.flatnonzero(~as_it_is))
    for start, end, number in zip(starts[~as_it_is].tolist(), ends[~as_it_is].tolist(), row_of.tolist(), strict=True):
        copied += [chunk.body[at:start], lines.changed(number, int(places[number]), start, end)]
        at = end
    out.write(b"".join([*copied, chunk.body[at:]]))
    return Met(places, int(as_it_is[records].sum()) + lines.written, lines.set_aside())


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

    def __init__(self, body: bytes, piece: Piece, fields: Fields, verdicts: Verdicts) -> None:
        self._body, self._piece, self._fields, self._verdicts = body, piece, fields, verdicts
        self._rows, self._raw = Rows(piece), list[bytes]()
        self._gone = frozenset(verdicts.gone.tolist())
        self._notes = None if verdicts.notes is None else _members_of(verdicts.notes)
        self._names = () if verdicts.notes is None else tuple(verdicts.notes.schema.names)
        self.written = 0

    def changed(self, row: int, place: int, start: int, end: int) -> bytes:
        """Give what is written in place of a line; nothing where it goes."""
        fate = self._verdicts.fates[row]
        if self._notes is None and not fate and row in self._gone:
            return b""
        line = self._body[start:end]
        if fate and not (self._notes is not None and (fate != QUARANTINED or _is_object(line))):
            body = line.removesuffix(b"\n")
            add_line(self._rows, Line(place, body), self._fields)
            self._raw.append(body[:RAW_BYTES])
            return b""
        self.written += 1
        if len(self._verdicts.cuts.within(row, 1).rows):
            line = self._cut(row, line)
        if self._notes is not None:
            self._refuse_taken(line, place)
            line = append_members(line, self._notes[row])
        return line

    def _cut(self, row: int, line: bytes) -> bytes:
        text = parse_line(line)[self._fields.text].encode()
        cuts, kept, at = self._verdicts.cuts.within(row, 1), [], 0
        for first, last in cuts.spans.tolist():
            kept.append(text[at:first])
            at = last
        return replace_value(line, self._fields.text, b"".join([*kept, text[at:]]).decode())

    def _refuse_taken(self, line: bytes, place: int) -> None:
        """Refuse to write a name a second time into an object; the plan saw the head of the file alone."""
        if not any(b'"%b"' % name.encode() in line for name in self._names):
            return
        record = parse_line(line)
        for name in self._names:
            if name in record:
                raise taken(self._piece.path, f"the record at {place}", name)

    def set_aside(self) -> Outcome | None:
        """Give the lines that are set aside, with their bytes."""
        for outcome in self._rows.take():
            checked = refused(self._piece, outcome)
            return Outcome(checked.batch, checked.reasons, checked.errors, pa.array(self._raw, pa.binary()))
        return None


def _is_object(line: bytes) -> bool:
    with suppress(ValueError):
        parse_line(line)
        return True
    return False


def _members_of(notes: pa.RecordBatch) -> list[bytes]:
    """Write each row of notes as members of a JSON object."""
    names = [json.dumps(name, ensure_ascii=False).encode() for name in notes.schema.names]
    said = []
    for column in notes.columns:
        values = column.to_pylist()
        memo = {value: json.dumps(value, ensure_ascii=False).encode() for value in set(values)}
        said.append([memo[value] for value in values])
    return [
        b", ".join([b"%b: %b" % pair for pair in zip(names, values, strict=True)]) for values in zip(*said, strict=True)
    ]


def head_names(url: str, path: str) -> set[str]:
    """Name the fields of the first records of a file."""
    names: set[str] = set()
    with open_input(url) as file:
        codec = codec_of(path)
        lines = plain_lines(file, Piece(url, "", path, "jsonl", 1 << 62), LARGEST_RECORD)
        for line in itertools.islice(lines if codec == "none" else packed_lines(file, codec, LARGEST_RECORD), PROBE):
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
