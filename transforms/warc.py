"""Read WARC files (ISO 28500), plain or gzipped: pages of response records, and texts of conversion records (WET).

The records are cut here and parsed by fastwarc, because its iterator (2.0.1) ends without a word where a gzip member is
cut short, lets a record with a wrong length swallow its neighbours, and with `auto_decode="all"` stops without a word
behind some compressed bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from .. import RunError
from .files import open_input
from .inflate import MAGIC, Codec, Damage, Data, Event, MemberEnd, decompress
from .pages import page_row
from .rows import LARGEST_RECORD, RAW_BYTES, Piece, Rows, Wanted
from .step import Outcome
from .wet import page_among_texts, text_row

HEADER_BYTES = 1 << 20
_RECORD = re.compile(rb"WARC/\d\.\d+\r\n")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,18})[ \t]*\r?$")
_NEXT = re.compile(rb"WARC/\d\.\d{1,2}\r\n[A-Za-z-]{1,40}:")  # where a record begins, in the midst of anything
_LINE_ENDS = re.compile(rb"[\r\n]+")
_TYPE = re.compile(rb"(?im)^warc-type:[ \t]*(response|conversion)[ \t]*\r?$")


@dataclass(frozen=True)
class Frame:
    """One record as it lies in the file, or bytes that are none: then `error` says why.

    It begins `into` bytes behind the start of what is decompressed from the member at byte `member` of the file.
    """

    body: bytes
    member: int
    into: int
    error: str | None = None


def read_warc(piece: Piece, largest: int = LARGEST_RECORD, wanted: Wanted | None = None) -> Iterator[Outcome]:
    """Read the records that begin in a piece: a row for each response or conversion and for each damaged place.

    `place` is where the row begins in the file as it is stored: a plain record's own offset, the offset of the gzip
    member in which a record begins, as in Common Crawl's index. Rows that share a member count on from there by one.
    Raises RunError where no record begins at the end of a range, which then was cut in the midst of one.
    """
    rows, last = Rows(piece), -1
    with open_input(piece.url, piece.size) as file:
        codec = codec_of(file, piece.start)
        for frame in within(piece, codec, frames(decompress(file, codec, piece.start), largest)):
            said = None if frame.error is not None else kind_of(frame)
            if frame.error is None and said is None:
                continue
            place = max(offset_of(frame, codec), last + 1)
            if wanted is None or wanted(place, frame.body):
                add_frame(rows, place, frame, piece.format, largest)
            if 0 <= piece.end <= place:
                raise _miscut(piece, f"records share gzip members, and one counts as byte {place}")
            last = place
            if rows.full:
                yield from rows.take()
    yield from rows.take()


def add_frame(rows: Rows, place: int, frame: Frame, format: str, largest: int) -> None:
    """Add the row of one record, or of a damaged place."""
    if frame.error is not None:
        rows.quarantine(place, frame.error, frame.body)
    elif kind_of(frame) == "conversion":
        text_row(rows, place, frame.body)
    elif format == "wet":
        page_among_texts(rows, place, frame.body)
    else:
        page_row(rows, place, frame.body, largest)


def kind_of(frame: Frame) -> str | None:
    """Tell "response" or "conversion" of a whole record; None of all others, which hold no document."""
    found = _TYPE.search(frame.body, 0, frame.body.find(b"\r\n\r\n") + 2)
    return found[1].lower().decode() if found else None


def first_kind(url: str, size: int) -> str | None:
    """Tell the kind of a WARC file's first document; None where it has none. Reads no further than there."""
    with open_input(url, size) as file:
        found = frames(decompress(file, codec_of(file), 0), LARGEST_RECORD)
        return next((kind for frame in found if frame.error is None and (kind := kind_of(frame))), None)


def codec_of(file: BinaryIO, start: int = 0) -> Codec:
    """Tell how a WARC file is compressed by its bytes where a record begins."""
    file.seek(start)
    return "gzip" if file.read(3) == MAGIC["gzip"] else "none"


def offset_of(frame: Frame, codec: Codec) -> int:
    """Where in the file as it is stored a frame, or the gzip member that holds its start, begins."""
    return frame.member if codec == "gzip" else frame.member + frame.into


def within(piece: Piece, codec: Codec, found: Iterator[Frame]) -> Iterator[Frame]:
    """Yield the frames that begin before the piece's end; hold the next one to begin there exactly."""
    for frame in found:
        at = offset_of(frame, codec)
        if 0 <= piece.end <= at:
            within = f", {frame.into} bytes into its gzip member" if codec == "gzip" and frame.into else ""
            if at != piece.end or within:
                raise _miscut(piece, f"the next record begins at byte {at}{within}")
            return
        yield frame
    if 0 <= piece.end < piece.size:
        raise _miscut(piece, f"no record begins between there and the end of the file at byte {piece.size}")


def _miscut(piece: Piece, why: str) -> RunError:
    return RunError(
        f"{piece.path!r}: the range of bytes {piece.start} to {piece.end} does not end with a record: {why}; "
        f"set task_bytes to {piece.size} or more, so that the file is read as a whole"
    )


def frames(events: Iterator[Event], largest: int) -> Iterator[Frame]:
    """Cut records from a stream of events.

    A record stands where its length says, if its end mark or the next record follows there. If not, its length is
    wrong: what lies up to the next record, found by its first line or the start of a gzip member, is one bad frame.
    Damage falls on the record that was being read, or is a frame of its own between records.
    """
    more = True
    while more:
        run = _Run(events)
        held: Frame | None = None
        end = 0
        for frame in run.cut(largest):
            if held is not None:
                yield held
            held, end = frame, run.at
        more = run.damage is not None
        open_member = run.marks[-1] if run.marks else 0
        if held is not None and run.damage is not None and end > open_member:
            yield replace(held, body=held.body[:RAW_BYTES], error=run.damage.error)
            continue
        if held is not None:
            yield held
        if run.damage is not None:
            yield Frame(run.damage.raw, run.damage.member, 0, run.damage.error)


class _Run:
    """The bytes up to the next damage, cut into frames. Places count from the run's first byte."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._buffer = bytearray()
        self.at = 0  # place of buffer[0]
        self._ended = False
        self.marks: list[int] = []  # places where gzip members end
        self._members: list[tuple[int, int]] = []  # places where they begin, and where in the file
        self.damage: Damage | None = None

    def cut(self, largest: int) -> Iterator[Frame]:
        """Yield frames until the run ends; `at` is then where the last one ends."""
        while self._skip_line_ends():
            while len(self._members) > 1 and self._members[1][0] <= self.at:
                del self._members[0]
            place, member = self._members[0]
            into = self.at - place
            error = self._fault(largest)
            yield Frame(self._pass_over() if error else bytes(self._take(self._end)), member, into, error)

    def _fault(self, largest: int) -> str | None:
        """Say why the bytes at the front are not a whole record; null sets `_end`, where the record ends."""
        if not self._begins(0):
            return "bytes between records that belong to none"
        head = self._find_header_end()
        if head < 0:
            return f"the record's header does not end within {HEADER_BYTES} bytes"
        if _NEXT.search(self._buffer, 1, head):
            return "the record's header breaks off"
        length = _LENGTH.search(self._buffer, 0, head + 2)
        if length is None:
            return "the record does not say its length"
        size = int(length[1])
        if size > largest:
            return f"the record is larger than {largest} bytes"
        self._end = head + 4 + size
        if not self._reach(head, self._end):
            return f"the record is cut short: it has fewer than the {size} bytes that its header says"
        if not self._closes(head, self._end):
            return f"the record's length of {size} bytes does not lead to its end"
        return None

    def _fill(self) -> bool:
        """Take one more event; false where the run ends."""
        if self._ended:
            return False
        event = next(self._events, None)
        if isinstance(event, Data):
            if not self._members or self._members[-1][1] != event.member:
                self._members.append((self.at + len(self._buffer), event.member))
            self._buffer += event.body
        elif isinstance(event, MemberEnd):
            self.marks.append(self.at + len(self._buffer))
        else:
            self.damage, self._ended = event, True
        return not self._ended

    def _need(self, size: int) -> bool:
        """Fill until the buffer holds `size` bytes; false where the run ends before."""
        while len(self._buffer) < size:
            if not self._fill():
                return False
        return True

    def _take(self, size: int) -> bytearray:
        """Cut the first bytes off, and forget the marks that lie behind, but for the last."""
        taken = self._buffer[:size]
        del self._buffer[:size]
        self.at += size
        while len(self.marks) > 1 and self.marks[0] <= self.at:
            del self.marks[0]
        return taken

    def _skip_line_ends(self) -> bool:
        """Pass over the line ends behind a record; false at the end of the run."""
        while True:
            if blank := _LINE_ENDS.match(self._buffer):
                self._take(blank.end())
            if self._buffer:
                return True
            if not self._fill():
                return False

    def _begins(self, at: int) -> bool:
        """Whether a record begins at buffer[at]."""
        self._need(at + 16)
        return _RECORD.match(self._buffer, at) is not None

    def _find_header_end(self) -> int:
        """Where the blank line behind the header stands; -1 where there is none."""
        searched = 0
        while (found := self._buffer.find(b"\r\n\r\n", searched)) < 0:
            searched = max(len(self._buffer) - 3, 0)
            if searched > HEADER_BYTES or not self._fill():
                return -1
        return found

    def _reach(self, head: int, end: int) -> bool:
        """Fill up to buffer[end]; false where the run ends, or another record begins with a new gzip member, before."""
        while len(self._buffer) < end:
            if not self._fill():
                return False
            at = self.marks[-1] - self.at if self.marks else -1
            if head < at == len(self._buffer) < end and self._begins(at):
                return False
        return True

    def _closes(self, head: int, end: int) -> bool:
        """Whether a record ends at buffer[end]: a member's end, the next record or the run's end follows.

        Where its end mark stands but garbage follows, it ends too, unless another record seems to begin within it.
        """
        at = end
        while True:
            while at < len(self._buffer) and self._buffer[at] in b"\r\n":
                at += 1
            if self.marks and self.marks[-1] - self.at in range(end, at + 1):
                return True
            if at < len(self._buffer):
                marked = self._buffer.startswith(b"\r\n\r\n", end)
                return self._begins(at) or (marked and not _NEXT.search(self._buffer, head, end))
            if not self._fill():
                return True

    def _pass_over(self) -> bytes:
        """Move to where the next record begins; give the first bytes passed over."""
        passed = bytearray()
        searched = 1  # not the record itself
        while True:
            found = _NEXT.search(self._buffer, searched)
            starts = [found.start()] if found else []
            starts += [mark - self.at for mark in self.marks if mark - self.at >= searched]
            at = min((start for start in starts if self._begins(start)), default=-1)
            if at >= 0:
                return bytes((passed + self._take(at))[:RAW_BYTES])
            keep = len(self._buffer) - 64  # a first line may be cut here
            if keep > searched:
                passed = (passed + self._take(keep))[:RAW_BYTES]
                searched = 0
            if not self._fill():
                return bytes((passed + self._take(len(self._buffer)))[:RAW_BYTES])
