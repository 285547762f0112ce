"""Who stays of a cluster: policies as numbers that sort, so that the choice never hangs on the order of arrival.

    smallest_id            the user's own ids where they are mapped, shorter before longer, then by code point; else ids
    longest                bytes of text
    newest[:COLUMN]        a date or number, `date` by default
    highest:COLUMN         a number, `true` above `false`
    priority:INPUT,INPUT   the input named first; inputs that are not named come last

The first policy that tells two documents apart decides; a document without a value, or with one that is no number or
date, comes after those with one. What all leave equal is settled by the user's own id, the content, and the id, which
names a place: documents shuffled into other files keep the same texts.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .. import InputError, RunError
from ..transforms.values import plain_values
from .duplicates import named_inputs
from .views import InputPart, Part

Words = NDArray[np.uint64]
LAST = np.uint64(0xFFFFFFFFFFFFFFFF)  # of a document that lacks what a policy asks for
#: Numbers as dates: seconds since 1970 below the first, then milliseconds, microseconds, nanoseconds.
_MILLI, _MICRO, _NANO = 1e11, 1e14, 1e17


def column_of(policy: str) -> str | None:
    """Name the column that a policy reads, if any."""
    kind, _, name = policy.partition(":")
    return {"newest": name or "date", "highest": name}.get(kind)


def keep_columns(keep: Sequence[str]) -> list[str]:
    """Name the columns that policies read: of the documents' own, or fields of their `metadata`."""
    named = [column for policy in keep if (column := column_of(policy)) is not None]
    return [*dict.fromkeys([*named, *(["metadata"] if named else [])])]


def keep_keys(keep: Sequence[str], source: str, batch: pa.RecordBatch) -> Words:
    """Give a number for each row and policy, the smallest of the one that stays: (n, policies) uint64."""
    keys = np.zeros((len(batch), len(keep)), np.uint64)
    values = _Values(batch)
    for place, policy in enumerate(keep):
        kind = policy.partition(":")[0]
        if kind == "longest":
            keys[:, place] = ~np.asarray(pc.binary_length(batch.column("text")).fill_null(0), np.uint64)
        elif kind == "priority":
            names = named_inputs(policy)
            keys[:, place] = names.index(source) if source in names else len(names)
        elif kind != "smallest_id":
            keys[:, place] = _descending(values.numbers(str(column_of(policy)), moment if kind == "newest" else score))
    return keys


def require_columns(keep: Sequence[str], parts: Sequence[Part], field: str = "keep") -> None:
    """Refuse a policy whose column is in no input, as far as the first records tell. InputError names those there are.

    They tell where all have the same fields, as a table's do; where fields come and go, `require_values` looks later.
    """
    asked = {column: policy for policy in keep if (column := column_of(policy)) is not None}
    known: set[str] = set()
    first = [_whole(part) for part in {part.source: part for part in reversed(parts)}.values()] if asked else []
    seen = [batch for part in first for _, batch in itertools.islice(part.batches([*asked, "metadata"]), 1)]
    for batch in seen:
        fields = [frozenset(held) for held in _Values(batch).metadata]
        if len(set(fields)) > 1:
            return
        known |= {*batch.schema.names, *(fields[0] if fields else ())} - {"metadata"}
    for column, policy in asked.items():
        if seen and column not in known:
            raise InputError(f"{field}: {policy!r} reads a column that no input has; {_those(known)}")


def _whole(part: Part) -> Part:
    """Give a part with all fields of its records."""
    if isinstance(part, InputPart):
        return replace(part, fields=part.fields.model_copy(update={"metadata": None}))
    return part


def require_values(keep: Sequence[str], clustered: Words, documents: Iterable[Words]) -> None:
    """Refuse a policy whose column no document has a value in: keys of those in clusters (n, policies), of all by part.

    RunError names the column.
    """
    for place, policy in enumerate(keep):
        column = column_of(policy)
        if column is None or not len(clustered) or (clustered[:, place] != LAST).any():
            continue
        if all((keys[:, place] == LAST).all() for keys in documents):
            what = "date" if policy.startswith("newest") else "number"
            raise RunError(
                f"keep: {policy!r} found no {what} in the column {column!r} of any document, so it decides nothing: "
                "name another column, or leave the policy out"
            )


def _those(known: Iterable[str]) -> str:
    names = ", ".join(map(repr, sorted(known)))
    return f"they have {names}" if names else "they have none beside the text"


class _Values:
    """The values that policies read: of a batch's columns, or of the fields of its `metadata`."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    @cached_property
    def metadata(self) -> list[dict[str, Any]]:
        """Each row's further fields."""
        if "metadata" not in self._batch.schema.names:
            return [{}] * len(self._batch)
        held = [json.loads(text) if text else {} for text in self._batch.column("metadata").to_pylist()]
        return [fields if isinstance(fields, dict) else {} for fields in held]

    def numbers(self, name: str, read: Callable[[Any], float | None]) -> NDArray[np.float64]:
        """Read one column as numbers, (n,) float64; NaN where there is none."""
        if name in self._batch.schema.names:
            values = plain_values(self._batch.column(name))
        else:
            values = [fields.get(name) for fields in self.metadata]
        found = map(read, values)
        return np.array([np.nan if number is None else number for number in found], np.float64)


def _descending(numbers: NDArray[np.float64]) -> Words:
    """Give integers that fall as the numbers rise; NaN comes last."""
    bits = (numbers + 0.0).view(np.uint64)  # −0 is 0
    rising = np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(1 << 63))
    return np.where(np.isnan(numbers), LAST, ~rising)


def score(value: Any) -> float | None:
    """Read a number, or a text that is one."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def moment(value: Any) -> float | None:
    """Read a date as seconds since 1970; without a zone it is UTC.

    ISO 8601 (2024, 2024-05-01, 20240501, 2024-05-01T12:30:00.5+02:00), the 14 digits of web archives, HTTP's and mail's
    dates, dates of Python; numbers are seconds since 1970, or milliseconds, micro- or nanoseconds by their size.
    """
    if isinstance(value, str):
        parts = _ISO.fullmatch(value.strip())
        if parts is not None and (found := _iso(*parts.groups())) is not None:
            return found
        number = score(value)
        return _http(value) if number is None else _seconds(number)
    if isinstance(value, datetime):
        return _since(value)
    if isinstance(value, date):
        return _since(datetime(value.year, value.month, value.day))
    number = None if isinstance(value, bool) else score(value)
    return None if number is None else _seconds(number)


_ISO = re.compile(
    r"(\d{4})(?:-?(\d\d)(?:-?(\d\d)(?:[T ]?(\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?)?)?"
    r"\s*(?:[Zz]|UTC|GMT|([+-]\d\d):?(\d\d)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _iso(year: str, *rest: str | None) -> float | None:
    month, day, hour, minute, second, fraction, zone, zone_minutes = rest
    try:
        here = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0))
    except ValueError:
        return None
    away = int(f"{(zone or '+')[0]}{abs(int(zone or 0)) * 60 + int(zone_minutes or 0)}") * 60
    return _since(here) + int(second or 0) + float(f"0.{fraction or 0}") - away


def _http(value: str) -> float | None:
    try:
        return _since(parsedate_to_datetime(value))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _since(value: datetime) -> float:
    """Count seconds since 1970, of any year."""
    aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return (aware - _EPOCH) / timedelta(seconds=1)


def _seconds(number: float) -> float:
    """Bring a number to seconds since 1970."""
    size = abs(number)
    return number / (1 if size < _MILLI else 1e3 if size < _MICRO else 1e6 if size < _NANO else 1e9)
