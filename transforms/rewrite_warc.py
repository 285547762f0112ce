"""Write the records that stay of a WARC or WET file, each as it lies in the file, compressed bytes and all.

Every record stays but the documents that are dropped and what is damaged: the crawl's own records (warcinfo, request,
metadata), pages that the reader refuses, and requests whose response is dropped. Where a gzip member holds a record
that goes beside some that stay, these are compressed anew, a member each.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from .files import copy_range, open_input
from .inflate import Codec, decompress
from .rows import LARGEST_RECORD, Piece, Rows
from .verdicts import Met, Verdicts, joined
from .warc import Frame, add_frame, codec_of, frames, kind_of, offset_of, within

#: Bytes of records held to see whether all of a gzip member stays; of a larger member each is compressed anew.
HELD_BYTES = 64 << 20
ROWS = 1_000
ZLIB_LEVEL = 6


def rewrite_warc(piece: Piece, verdicts: Verdicts, out: BinaryIO, largest: int = LARGEST_RECORD) -> Iterator[Met]:
    """Write the records of a piece that stay into `out`; tell what was met, in order."""
    with open_input(piece.url, piece.size) as file, open_input(piece.url, piece.size) as again:
        codec = codec_of(file, piece.start)
        writer = _Writer(piece, codec, again, out)
        tally, row, last = _Tally(piece, largest), 0, -1
        for frame in within(piece, codec, frames(decompress(file, codec, piece.start), largest)):
            document = frame.error is not None or kind_of(frame) is not None
            stays = frame.error is None
            if document:
                last = max(offset_of(frame, codec), last + 1)
                here = verdicts.on(row, 1)
                stays = stays and bool(here.stays[0] or not here.documents[0])
                tally.add(last, frame, stays, bool(here.documents[0]))
                row += 1
            tally.others += stays and not document
            writer.add(frame, stays)
            if tally.full:
                yield tally.take()
        writer.close()
        yield tally.take()


class _Tally:
    """What was met since it was last told."""

    def __init__(self, piece: Piece, largest: int) -> None:
        self._piece, self._largest = piece, largest
        self._reset()

    def _reset(self) -> None:
        self.places: list[int] = []
        self.others = self._written = 0
        self._refused, self._aside = Rows(self._piece), list[bool]()

    @property
    def full(self) -> bool:
        """Whether it is time to tell it."""
        return self._refused.full or len(self.places) >= ROWS

    def add(self, place: int, frame: Frame, stays: bool, document: bool) -> None:
        """Count a record that the reader meets."""
        self.places.append(place)
        self._written += stays
        if not document:
            add_frame(self._refused, place, frame, self._piece.format, self._largest)
            self._aside.append(not stays)

    def take(self) -> Met:
        """Tell it."""
        refused = joined(list(self._refused.take()))
        aside = None if refused is None else np.array(self._aside, bool)
        met = Met(np.array(self.places, np.int64), self._written, refused, aside, others=self.others)
        self._reset()
        return met


@dataclass
class _Stretch:
    """Bytes of the file in which whole records lie, and these records; the first begins with the first byte."""

    start: int
    frames: list[Frame] = field(default_factory=list)  # that stay
    held: int = 0
    dropped: bool = False


class _Writer:
    """Copies stretches whose records all stay, those that follow one another at once."""

    def __init__(self, piece: Piece, codec: Codec, file: BinaryIO, out: BinaryIO) -> None:
        self._piece, self._codec, self._file, self._out = piece, codec, file, out
        self._copied = [piece.start, piece.start]  # bytes that are to be copied
        self._at = _Stretch(piece.start)

    def add(self, frame: Frame, stays: bool) -> None:
        """Take the next record."""
        place, start = offset_of(frame, self._codec), self._at.start
        begins = place > start and (self._codec == "none" or frame.into == 0)
        if begins:
            self._end(place)
        self._at.dropped |= not stays
        if stays:
            self._at.frames.append(frame)
            self._at.held += len(frame.body)
        if self._at.held > HELD_BYTES and len(self._at.frames) > 1:
            self._pack()

    def _pack(self) -> None:
        """Compress the records that are held anew."""
        self._flush()
        for frame in self._at.frames:
            packer = zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, 31)
            self._out.write(packer.compress(frame.body + b"\r\n\r\n") + packer.flush())
        self._at.frames, self._at.held, self._at.dropped = [], 0, True

    def _end(self, place: int) -> None:
        """End a stretch in front of the next one."""
        if not self._at.dropped:
            if self._copied[1] != self._at.start:
                self._flush()
                self._copied[0] = self._at.start
            self._copied[1] = place
        elif self._at.frames:
            self._pack()
        self._at = _Stretch(place)

    def _flush(self) -> None:
        start, end = self._copied
        copy_range(self._file, start, end, self._out)
        self._copied[0] = end

    def close(self) -> None:
        """Write what is left."""
        self._end(self._piece.size if self._piece.end < 0 else self._piece.end)
        self._flush()
