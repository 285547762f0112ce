"""Who stays of a cluster: policies as numbers that sort, so that the choice never hangs on the order of arrival.

    smallest_id            the user's own ids where they are mapped, shorter before longer, then by code point; else ids
    longest                bytes of text
    newest[:COLUMN]        a date or number, `date` by default
    highest:COLUMN         a score
    priority:INPUT,INPUT   the input named first; inputs that are not named come last

The first policy that tells two documents apart decides. What all leave equal is settled by the user's own id, the
content, and the id, which names a place: documents shuffled into other files keep the same texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Words = NDArray[np.uint64]
LAST = np.uint64(0xFFFFFFFFFFFFFFFF)  # of a document that lacks what a policy asks for


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
    for place, policy in enumerate(keep):
        kind, _, rest = policy.partition(":")
        if kind == "longest":
            keys[:, place] = ~np.asarray(pc.binary_length(batch.column("text")).fill_null(0), np.uint64)
        elif kind == "priority":
            names = [name.strip() for name in rest.split(",")]
            keys[:, place] = names.index(source) if source in names else len(names)
        elif kind != "smallest_id":
            number = _moment if kind == "newest" else _score
            keys[:, place] = _descending([number(value) for value in _values(batch, str(column_of(policy)))])
    return keys


def keep_order(
    keep: Sequence[str], labels: Words, keys: Words, own: pa.Array | None, contents: Words, ids: Words
) -> NDArray[np.int64]:
    """Order rows by cluster, the one that stays first."""
    ranks = own_ranks(own) if own is not None else np.zeros(len(labels), np.int64)
    big = ids.byteswap()
    by: list[NDArray[Any]] = [labels]
    for place, policy in enumerate(keep):
        if policy == "smallest_id":
            by += [ranks, big[:, 0], big[:, 1]]
            break
        by.append(keys[:, place])
    else:
        by += [ranks, contents[:, 0], contents[:, 1], big[:, 0], big[:, 1]]
    return np.lexsort(by[::-1])


def own_ranks(own: pa.Array) -> NDArray[np.int64]:
    """Rank the user's own ids: shorter before longer, then by code point; those without one come last."""
    coded = own.dictionary_encode()
    names = pa.table({"length": pc.utf8_length(coded.dictionary), "name": coded.dictionary})
    order = np.asarray(pc.sort_indices(names, [("length", "ascending"), ("name", "ascending")]), np.int64)
    ranks = np.full(len(names) + 1, len(names), np.int64)
    ranks[order] = np.arange(len(names))
    return ranks[np.asarray(coded.indices.fill_null(-1), np.int64)]


def _values(batch: pa.RecordBatch, column: str) -> list[Any]:
    """Give a column's values, or those of the field of `metadata` that has its name."""
    if column in batch.schema.names:
        return list(batch.column(column).to_pylist())
    if "metadata" not in batch.schema.names:
        return [None] * len(batch)
    return [json.loads(text).get(column) if text else None for text in batch.column("metadata").to_pylist()]


def _descending(values: Sequence[float | None]) -> Words:
    """Give numbers that fall as the values rise; missing ones and NaN come last."""
    numbers = np.array([np.nan if value is None else value for value in values], np.float64) + 0.0
    bits = numbers.view(np.uint64)
    rising = np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(1 << 63))
    return np.where(np.isnan(numbers), LAST, ~rising)


def _score(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _moment(value: Any) -> float | None:
    """Read a date: ISO 8601, a date or time, or a number; without a zone it is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return _score(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return _score(value)
