"""Find the bytes at which a WARC file can be cut, so that one large file is many tasks.

A cut costs one read of 1 MiB and the decoding of 128 KiB, where all is well. What is found is trusted no further than
that: who reads a range holds it to end where a record begins.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from .files import open_input
from .inflate import MAGIC, PROBE, Codec, MemberEnd, decompress
from .warc import codec_of, frames, offset_of

#: Bytes looked at for one cut: more where fewer show none, and none beyond.
WINDOWS = (1 << 20, 4 << 20, 16 << 20)
#: Bytes of the file through which whole records must follow one another from a cut. What a crawl holds of another
#: archive's gzip members leads less far: deflate stores it in blocks of at most 65,535 bytes with headers between.
CHAIN = 1 << 17
_PLAIN = re.compile(rb"\r\n\r\n(?=WARC/\d\.\d+\r\n)")
_PACKED = re.compile(re.escape(MAGIC["gzip"]))


def find_cuts(url: str, size: int, task_bytes: int) -> list[int]:
    """Find places behind each `task_bytes` or so of a WARC file where a record begins, ascending; none may be found.

    In gzip a record begins with a member there. A file that is one large member is not cut.
    """
    parts = -(-size // task_bytes)
    cuts: list[int] = []
    with open_input(url, size) as file:
        codec = codec_of(file)
        if codec == "gzip" and not _has_members(file):
            return []
        for part in range(1, parts):
            target = size * part // parts
            if cuts and target <= cuts[-1]:
                continue
            at = _find_record(file, codec, target, size)
            if at == size:
                break
            if at is not None:
                cuts.append(at)
    return cuts


def _has_members(file: BinaryIO) -> bool:
    """Whether a gzip member ends near the start of the file, as each does where records are compressed one by one."""
    for window in WINDOWS:
        file.seek(0)
        if any(isinstance(event, MemberEnd) for event in decompress(io.BytesIO(file.read(window)), "gzip")):
            return True
    return False


def _find_record(file: BinaryIO, codec: Codec, target: int, size: int) -> int | None:
    """Find the first record that begins at or behind a place; `size` if the file ends first, None if 16 MiB show none.

    Damage near by hides a record: it is passed over, and left to whoever reads the range before.
    """
    begin = max(target - 4, 0)  # of the line ends in front of a plain record
    for window in WINDOWS:
        file.seek(begin)
        body = file.read(window)
        ended = begin + len(body) >= size
        for at in _candidates(body, codec, target - begin):
            if _leads_on(body, at, codec, ended):
                return begin + at
        if ended:
            return size
    return None


def _candidates(body: bytes, codec: Codec, start: int) -> Iterator[int]:
    """Yield places that look like the start of a record."""
    if codec == "none":
        yield from (found.end() for found in _PLAIN.finditer(body) if found.end() >= start)
        return
    for found in _PACKED.finditer(body, start):
        try:
            head = zlib.decompressobj(31).decompress(body[found.start() : found.start() + PROBE])
        except zlib.error:
            continue
        if re.match(rb"WARC/\d\.\d+\r\n", head):
            yield found.start()


def _leads_on(body: bytes, at: int, codec: Codec, ended: bool) -> bool:
    """Whether whole records follow one another from `at`, far enough or up to the end of the file."""
    for frame in frames(decompress(io.BytesIO(body), codec, at), WINDOWS[-1]):
        if frame.error is not None:
            return False
        if offset_of(frame, codec) - at >= CHAIN:
            return True
    return ended
