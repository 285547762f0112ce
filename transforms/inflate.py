"""Decompress a file as a stream of events, so that damage is told and what lies behind it is still read.

Input is fed in small slices (16 KiB of gzip, which grows at most 1,032 times; 1 KiB of zstd, at most 32,768 times), so
that no file makes a chunk of more than about 32 MiB, whatever it claims.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import zstandard
from fastwarc.stream_io import BrotliReader

from .rows import LARGEST_RECORD, RAW_BYTES

BLOCK = 1 << 18
KEPT = 1 << 18
PROBE = 1 << 10  # bytes of a member by which it is told from chance
Codec = Literal["none", "gzip", "zstd"]
MAGIC = {"gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd"}
_SLICE = {"none": BLOCK, "gzip": 1 << 14, "zstd": 1 << 10}


@dataclass(frozen=True)
class Data:
    """Decompressed bytes, and where in the file their member begins; a plain file is one, from where reading began."""

    body: bytes
    member: int


@dataclass(frozen=True)
class MemberEnd:
    """A gzip member or zstd frame ended, whole and with the right checksum."""


@dataclass(frozen=True)
class Damage:
    """Compressed bytes that cannot be read, and where their member begins; what follows starts at the next member."""

    error: str
    raw: bytes
    member: int


Event = Data | MemberEnd | Damage


def decompress(file: BinaryIO, codec: Codec, start: int = 0, *, to_the_last: bool = False) -> Iterator[Event]:
    """Yield what a file holds from byte `start`, where a member begins. Plain files are Data alone.

    Events are those of the whole file from there on, damage and all: blocks are cut at the same bytes of the file.
    `to_the_last`: where gzip is damaged, also the bytes that the last slice gives before its damage, for records that
    stand for themselves; what holds one record a member wants it whole or not at all.
    """
    source = _Source(file, start)
    if codec == "none":
        while body := source.read():
            yield Data(body, start)
        return
    while source.skip_padding():
        yield from _member(source, codec, to_the_last and codec == "gzip")


class _Source:
    """The compressed bytes around where we read: `block[at:]` is still to come."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.file, self.block, self.at = file, b"", 0
        self.end = file.seek(start)  # of the block, in the file
        self.member = start  # where in the file the member that is being read begins

    def read(self) -> bytes:
        """Read on to the next multiple of a block's size."""
        body = self.file.read(BLOCK - self.end % BLOCK)
        self.end += len(body)
        return body

    def begin_member(self) -> int:
        """Note that a member begins here; give its place in the file."""
        self.member = self.end - len(self.block) + self.at
        return self.member

    def more(self) -> bool:
        """Read the next block when this one is used up; false at the end of the file.

        The end of the old block stays: a decoder notices damage late, perhaps behind the start of the next member.
        """
        if self.at < len(self.block):
            return True
        if block := self.read():
            kept = self.block[-KEPT:]
            self.block, self.at = kept + block, len(kept)
        return bool(block)

    def skip_padding(self) -> bool:
        """Pass over the zeros that some tools put behind a member; false at the end of the file."""
        while self.more():
            rest = self.block[self.at :].lstrip(b"\0") if self.block[self.at] == 0 else self.block[self.at :]
            self.at = len(self.block) - len(rest)
            if rest:
                return True
        return False

    def resync(self, codec: Codec) -> bytes:
        """Go to the next member that can be read behind the start of this one; give the first bytes passed over."""
        self.at = max(self.member - (self.end - len(self.block)), 0)  # 0 where it began before the block
        passed = bytearray(self.block[self.at : self.at + 1])
        self.at += 1
        while True:
            found = self.block.find(MAGIC[codec], self.at)
            end = found if found >= 0 else max(self.at, len(self.block) - 3)  # the magic may be cut here
            passed = (passed + self.block[self.at : end])[:RAW_BYTES]
            self.at = end
            more = b""
            if found < 0 or len(self.block) - found < PROBE:
                more = self.read()
                self.block, self.at = self.block[self.at :] + more, 0
            if found >= 0:
                if _starts(self.block[self.at : self.at + PROBE], codec):
                    return bytes(passed)
                passed += self.block[self.at : self.at + 1]
                self.at += 1
            elif not more:
                passed += self.block
                self.at = len(self.block)
                return bytes(passed[:RAW_BYTES])


def _decompressor(codec: Codec) -> Any:
    return zlib.decompressobj(31) if codec == "gzip" else zstandard.ZstdDecompressor().decompressobj()


def _starts(head: bytes, codec: Codec) -> bool:
    """Whether bytes that begin with the magic do begin a member."""
    try:
        return bool(_decompressor(codec).decompress(head)) or codec == "zstd"
    except (zlib.error, zstandard.ZstdError):
        return False


def _member(source: _Source, codec: Codec, to_the_last: bool) -> Iterator[Event]:
    """Yield one member; on damage, move on to the next one that can be read."""
    inflate, step = _decompressor(codec), _SLICE[codec]
    member = source.begin_member()
    while not inflate.eof:
        if not source.more():
            raw = source.resync(codec)  # a member cut in the midst may have swallowed those behind it
            ends = "is damaged" if source.more() else "ends before its end mark: the file is cut short"
            yield Damage(f"the {codec} stream {ends}", raw, member)
            return
        piece = source.block[source.at : source.at + step]
        before = inflate.copy() if to_the_last else None
        try:
            body = inflate.decompress(piece)
        except (zlib.error, zstandard.ZstdError):
            if before is not None and (good := _before_damage(before, piece)):
                yield Data(good, member)
            yield Damage(f"the {codec} stream is damaged", source.resync(codec), member)
            return
        source.at += len(piece)
        if body:
            yield Data(body, member)
    source.at -= len(inflate.unused_data)
    yield MemberEnd()


def _before_damage(inflate: Any, piece: bytes) -> bytes:
    """Give what a slice that cannot be decompressed holds in front of its damage."""
    out = bytearray()
    with suppress(zlib.error):
        for at in range(len(piece)):
            out += inflate.decompress(piece[at : at + 1])
    return bytes(out)


def inflate_body(body: bytes, coding: str, largest: int = LARGEST_RECORD) -> bytes:
    """Undo one HTTP content coding (gzip, deflate, br, zstd).

    A body that is labelled so but was stored decoded, as many crawlers do, is given back as it is. Raises ValueError,
    in words, for a coding that is not known, a body that is damaged or cut, or one beyond `largest` bytes.
    """
    if coding in ("", "identity", "none") or not body:
        return body
    known = {"gzip": _gunzip, "x-gzip": _gunzip, "deflate": _undeflate, "br": _unbrotli, "zstd": _unzstd}
    if coding not in known:
        raise ValueError(f"the body has the content coding {coding!r}, which is not known")
    try:
        out = known[coding](body, largest + 1)
    except (zlib.error, zstandard.ZstdError, OSError, EOFError):
        if body.lstrip()[:1] == b"<":
            return body
        raise ValueError(f"the body is damaged: it is not whole {coding} data") from None
    if len(out) > largest:
        raise ValueError(f"the body is larger than {largest} bytes when decoded from {coding}")
    return out


def _gunzip(body: bytes, most: int) -> bytes:
    out = bytearray()
    while body and len(out) < most:
        inflate = zlib.decompressobj(31)
        out += inflate.decompress(body, most - len(out))
        if len(out) < most and not inflate.eof:
            raise EOFError
        body = inflate.unused_data
        if body[:3] != MAGIC["gzip"]:  # padding or line ends behind the body
            break
    return bytes(out)


def _undeflate(body: bytes, most: int) -> bytes:
    try:
        inflate = zlib.decompressobj()
        out = inflate.decompress(body, most)
    except zlib.error:  # servers send raw deflate under this name too
        inflate = zlib.decompressobj(-15)
        out = inflate.decompress(body, most)
    if len(out) < most and not inflate.eof:
        raise EOFError
    return out


def _unbrotli(body: bytes, most: int) -> bytes:
    reader = BrotliReader(io.BytesIO(body))
    out = bytearray()
    while len(out) < most and (part := reader.read(min(BLOCK, most - len(out)))):
        out += part
    return bytes(out)


def _unzstd(body: bytes, most: int) -> bytes:
    inflate = zstandard.ZstdDecompressor().decompressobj()
    out = bytearray()
    for at in range(0, len(body), _SLICE["zstd"]):
        out += inflate.decompress(body[at : at + _SLICE["zstd"]])
        if inflate.eof or len(out) >= most:
            return bytes(out[:most])
    raise EOFError
