"""Collect records into document batches: each is kept, rejected with a reason, or set aside with an error, once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from .. import InputError
from .schema import BATCH_BYTES, BATCH_DOCUMENTS, DOCUMENT, document_ids
from .step import Outcome

#: Bytes kept of a record that is set aside.
RAW_BYTES = 1 << 20
#: Bytes a record may have when decoded; what is larger (a decompression bomb) is set aside, so that memory is bounded.
LARGEST_RECORD = 256 << 20
#: Asked for each record, by its place and its bytes: whether it is read.
Wanted = Callable[[int, bytes], bool]
_STRINGS = ("source_id", "url", "text", "html", "language", "metadata")


@dataclass(frozen=True)
class Piece:
    """One input file, or a range of one: what a reader is given.

    `start` and `end` are bytes in plain JSONL (a line belongs to the range in which it starts) and in WARC (at both a
    record begins, in gzip with its member), and row groups in Parquet; elsewhere 0 and -1, the whole file.
    """

    url: str
    source: str
    path: str
    format: str
    size: int
    start: int = 0
    end: int = -1

    @property
    def bytes(self) -> int:
        """Count the bytes of the file that are covered; for row groups, which do not say, the whole file's."""
        ranged = self.format in ("jsonl", "warc", "wet") and self.end >= 0
        return max(0, self.end - self.start) if ranged else self.size


class Fields(BaseModel):
    """Which fields of the user's records hold what. `url` means the field "url" where there is one.

    `metadata` names the fields that are kept as a JSON object; None keeps all that are not mapped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = "text"
    id: str | None = None
    url: str | None = None
    language: str | None = None
    metadata: tuple[str, ...] | None = None

    def required(self) -> tuple[str, ...]:
        """The fields that a file must have: those that are named."""
        return tuple(name for name in (self.text, self.id, self.url, self.language) if name is not None)

    def mapped(self) -> frozenset[str]:
        """The fields that have a column of their own."""
        return frozenset((*self.required(), self.url or "url"))

    def rest(self, names: Iterable[str]) -> list[str]:
        """Of the fields that a record has, those that go into `metadata`, sorted."""
        if self.metadata is not None:
            return sorted(set(names) & set(self.metadata))
        return sorted(set(names) - self.mapped())


def refuse_missing(fields: Fields, present: Iterable[str], path: str, who: str) -> None:
    """Refuse a file that lacks a mapped field, naming those that it has."""
    present = list(present)
    for role in ("text", "id", "url", "language"):
        name = getattr(fields, role)
        if name is not None and name not in present:
            keys = ", ".join(repr(str(key)[:100]) for key in present[:20]) or "no field at all"
            raise InputError(
                f"{path!r}: {who} has the field {name!r} that the recipe maps; it holds {keys}. "
                f"Name the right one: fields: {{{role}: NAME}}"
            )


class Rows:
    """Rows of one piece, handed out as batches of at most 1,000 documents or 8 MiB."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece
        self._reset()

    def _reset(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in (*_STRINGS, "place", "reason", "error", "raw")}
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether a batch is ready."""
        return len(self._columns["place"]) >= BATCH_DOCUMENTS or self._bytes >= BATCH_BYTES

    def add(self, place: int, size: int, **values: Any) -> None:
        """Add one record; `size` is the bytes that it holds."""
        self._columns["place"].append(place)
        self._bytes += size
        for name, column in self._columns.items():
            if name != "place":
                column.append(values.get(name))

    def quarantine(self, place: int, error: str, raw: bytes, url: str | None = None) -> None:
        """Add one record that could not be read, with why and the first 1 MiB of its bytes."""
        raw = bytes(raw[:RAW_BYTES])
        self.add(place, len(raw), error=error, raw=raw, url=url)

    def take(self) -> Iterator[Outcome]:
        """Hand out what was collected, if anything."""
        columns, places = self._columns, self._columns["place"]
        if not places:
            return
        self._reset()
        arrays = {name: pa.array(columns[name], pa.string()) for name in _STRINGS}
        yield outcome(self._piece, places, arrays, columns["reason"], columns["error"], columns["raw"])


def outcome(
    piece: Piece,
    places: list[int],
    arrays: Mapping[str, pa.Array],
    reasons: list[str | None],
    errors: list[str | None],
    raw: list[bytes | None],
) -> Outcome:
    """Make a batch of the document schema from its columns; those that are missing are null."""
    rows = len(places)
    known: dict[str, pa.Array] = {
        "id": document_ids(piece.source, piece.path, places),
        "source": pa.repeat(pa.scalar(piece.source), rows),
        "path": pa.repeat(pa.scalar(piece.path), rows),
        "place": pa.array(places, pa.int64()),
        **arrays,
    }
    columns = [known[field.name] if field.name in known else pa.nulls(rows, field.type) for field in DOCUMENT]
    bad = any(error is not None for error in errors)
    return Outcome(
        pa.RecordBatch.from_arrays(columns, schema=DOCUMENT),
        pa.array(reasons, pa.string()),
        pa.array(errors, pa.string()) if bad else None,
        pa.array(raw, pa.binary()) if bad else None,
    )


def metadata_json(values: Mapping[str, Any]) -> str | None:
    """Write a record's other fields as a JSON object with sorted keys; null where there are none."""
    if not values:
        return None
    try:
        text = _STRICT.encode(values)
        text.encode()
    except ValueError:  # a lone surrogate, or a number that JSON has not
        text = _ASCII.encode(_finite(values))
    return text


def _plain(value: Any) -> Any:
    """Give what JSON has no type for (times, decimals, bytes) as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _finite(value: Any) -> Any:
    """Replace NaN and infinities by null, which JSON has."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


_STRICT = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=_plain, separators=(",", ":"), allow_nan=False)
_ASCII = json.JSONEncoder(sort_keys=True, default=_plain, separators=(",", ":"))
