"""Read JSON lines, plain or compressed, as document batches. A range of a plain file reads its own bytes only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from .. import InputError
from .files import open_input
from .inflate import BLOCK, Codec, Data, MemberEnd, decompress
from .rows import LARGEST_RECORD, RAW_BYTES, Fields, Piece, Rows, Wanted, metadata_json, refuse_missing
from .step import Outcome

#: Records at the head of a file among which a mapped field must occur.
PROBE = 100
# Control characters may stand in strings as they are, NUL among them: they are kept.
_JSON = json.JSONDecoder(strict=False)
#: Objects and lists within one another in a record that is still read. Python's decoder goes by the stack that is left,
#: which differs from one process to another.
DEEPEST = 200
_MARK = re.compile(rb'["\[\]{}]')


class Line(NamedTuple):
    """One line: where it starts (byte offset; its ordinal in a compressed file), its bytes, why it cannot be read."""

    place: int
    body: bytes
    error: str | None = None


def codec_of(path: str) -> Codec:
    """Tell how a file is compressed by its name."""
    name = path.lower()
    return "gzip" if name.endswith(".gz") else "zstd" if name.endswith((".zst", ".zstd")) else "none"


def read_jsonl(
    piece: Piece, fields: Fields, largest: int = LARGEST_RECORD, wanted: Wanted | None = None
) -> Iterator[Outcome]:
    """Read the JSON lines of a piece. A line without text, of another type or that is no JSON is set aside."""
    if piece.start == 0:
        check_jsonl(piece.url, piece.path, fields)
    rows = Rows(piece)
    with open_input(piece.url, piece.size) as file:
        codec = codec_of(piece.path)
        lines = plain_lines(file, piece, largest) if codec == "none" else packed_lines(file, codec, largest)
        for line in lines:
            if wanted is None or wanted(line.place, line.body):
                add_line(rows, line, fields)
            if rows.full:
                yield from rows.take()
    yield from rows.take()


def plain_lines(file: BinaryIO, piece: Piece, largest: int) -> Iterator[Line]:
    """Cut the lines that start in [start, end) of a plain file; read no more than the range and its last line."""
    end = piece.size if piece.end < 0 else min(piece.end, piece.size)
    place = first_line(file, piece.start, end)
    file.seek(place)
    lines, at = _Lines(largest), place
    while place < end:
        body = file.read(min(BLOCK, end - at) if at < end else BLOCK)
        if not body:
            yield from lines.rest().at(place)
            return
        at += len(body)
        for line in lines.feed(body):
            if place < end:
                yield from line.at(place)
            place += line.size


def first_line(file: BinaryIO, start: int, end: int) -> int:
    """Where the first line at or behind `start` starts; `end` where the line that reaches in covers the range."""
    at = max(start - 1, 0)
    file.seek(at)
    while start > 0 and at < end:
        body = file.read(min(BLOCK, end - at))
        if not body:
            return end
        if (found := body.find(b"\n")) >= 0:
            return at + found + 1
        at += len(body)
    return at


def packed_lines(file: BinaryIO, codec: Codec, largest: int) -> Iterator[Line]:
    """Cut the lines of a compressed file; damage is a line of its own, and reading goes on behind it."""
    lines, ordinal = _Lines(largest), 0
    for event in decompress(file, codec, to_the_last=True):
        if isinstance(event, MemberEnd):
            continue
        if isinstance(event, Data):
            for line in lines.feed(event.body):
                yield from line.at(ordinal)
                ordinal += 1
            continue
        broken = lines.rest()
        yield Line(ordinal, (broken.body or event.raw)[:RAW_BYTES], event.error)
        ordinal += 1
    yield from lines.rest().at(ordinal)


class _Cut(NamedTuple):
    """A line that was cut: its bytes without the line end, its size with it, and whether it is too large to hold."""

    body: bytes
    size: int
    over: int = 0

    def at(self, place: int) -> Iterator[Line]:
        """The line at its place; blank lines are none."""
        if self.over:
            yield Line(place, self.body, f"the line is larger than {self.over} bytes")
        elif self.body.strip():
            yield Line(place, self.body)


class _Lines:
    """Cuts lines from blocks; never holds more than `largest` bytes of one."""

    def __init__(self, largest: int) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._largest = largest

    def feed(self, block: bytes) -> Iterator[_Cut]:
        """Take a block and give the lines that end in it."""
        begin = 0
        while (end := block.find(b"\n", begin)) >= 0:
            if self._size:
                self._hold(block[begin : end + 1])
                yield self.rest()
            elif end - begin > self._largest:
                yield _Cut(block[begin : begin + RAW_BYTES], end + 1 - begin, self._largest)
            else:
                yield _Cut(block[begin:end], end + 1 - begin)
            begin = end + 1
        self._hold(block[begin:])

    def _hold(self, part: bytes) -> None:
        room = self._largest + 1 - self._size
        if part and room > 0:
            self._parts.append(part[:room])
        self._size += len(part)

    def rest(self) -> _Cut:
        """Give the line that is held, ended or not."""
        body, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        if size > self._largest + 1 or len(body.removesuffix(b"\n")) > self._largest:
            return _Cut(body[:RAW_BYTES], size, self._largest)
        return _Cut(body.removesuffix(b"\n"), size)


def add_line(rows: Rows, line: Line, fields: Fields) -> None:
    """Add the row of one line."""
    if line.error is not None:
        rows.quarantine(line.place, line.error, line.body)
        return
    try:
        record = parse_line(line.body)
        text = _text_of(record, fields.text)
        size = len(text.encode())
    except UnicodeEncodeError:
        error = f"the field {fields.text!r} holds a lone surrogate, which is no character"
        rows.quarantine(line.place, error, line.body)
        return
    except ValueError as error:
        rows.quarantine(line.place, str(error), line.body)
        return
    rows.add(
        line.place,
        size,
        text=text if record[fields.text] is not None else None,
        reason=None if text.strip() else "read/empty",
        source_id=_word(record.get(fields.id)) if fields.id else None,
        url=_word(record.get(fields.url or "url")),
        language=_word(record.get(fields.language)) if fields.language else None,
        metadata=metadata_json({name: record[name] for name in fields.rest(list(record))}),
    )


def parse_line(body: bytes) -> dict[str, Any]:
    """Parse one JSON object. Raises ValueError, in words that are the same for every line of a kind."""
    if body.count(b"[") + body.count(b"{") > DEEPEST and nesting(body) > DEEPEST:
        raise ValueError(f"the line is nested too deeply: more than {DEEPEST} objects and lists in one another")
    try:
        record = _JSON.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("the line is not valid UTF-8") from None
    except ValueError as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"
        raise ValueError(f"the line is not valid JSON: {what}") from None
    if not isinstance(record, dict):
        raise ValueError(f"the line is {_kind(record)}, not a JSON object")
    return record


def nesting(body: bytes) -> int:
    """Count how deep the objects and lists of a JSON text lie in one another; what stands in strings is none."""
    at = depth = deepest = 0
    while (mark := _MARK.search(body, at)) is not None:
        at = mark.end()
        if mark[0] == b'"':
            at = _string_end(body, at)
        elif mark[0] in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _string_end(body: bytes, at: int) -> int:
    """Where a string ends that began in front of `at`: behind the next quote that no backslash escapes."""
    while (end := body.find(b'"', at)) >= 0:
        before = end
        while before > at and body[before - 1] == 0x5C:
            before -= 1
        if (end - before) % 2 == 0:
            return end + 1
        at = end + 1
    return len(body)


def _text_of(record: dict[str, Any], name: str) -> str:
    if name not in record:
        raise ValueError(f"the line has no field {name!r}")
    text = record[name]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(f"the field {name!r} is {_kind(text)}, not a string")
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _word(value: Any) -> str | None:
    """A field that stands in a column of its own, as text."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text.encode("utf-8", "replace").decode()


def check_jsonl(url: str, path: str, fields: Fields) -> None:
    """Refuse a file whose first 100 records all lack a field that is mapped, or hold no text in its place."""
    seen: dict[str, int] = {}
    records = texts = 0
    with open_input(url) as file:
        codec = codec_of(path)
        lines = plain_lines(file, Piece(url, "", path, "jsonl", 1 << 62), LARGEST_RECORD)
        for line in lines if codec == "none" else packed_lines(file, codec, LARGEST_RECORD):
            try:
                keys = parse_line(line.body) if line.error is None else {}
            except ValueError:
                continue
            records += line.error is None
            texts += fields.text in keys and isinstance(keys[fields.text], str | None)
            for key in keys:
                seen[key] = seen.get(key, 0) + 1
            if records >= PROBE or (texts and all(name in seen for name in fields.required())):
                break
    if records:
        refuse_missing(fields, seen, path, "no record at its head")
        if not texts:
            raise InputError(f"{path!r}: the field {fields.text!r} is text in no record at its head; map another one")
