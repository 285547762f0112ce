"""Parquet as users have it: columns that nobody asked for are kept as they can be, and stop nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_rows import rows_of

from penstock import InputError
from penstock.transforms.readers import Fields
from penstock.transforms.values import plain_values


def invalid() -> pa.Array:
    """A text column whose second value is no UTF-8."""
    body = pa.array([b"fine", b"\xff\xfe", None])
    return pa.Array.from_buffers(pa.string(), 3, body.buffers(), body.null_count)


NANOSECONDS = 1_700_000_000_000_000_001
COLUMNS: dict[str, tuple[pa.Array, list[Any]]] = {
    "text that is no UTF-8": (invalid(), ["fine", "\ufffd\ufffd", None]),
    "such text in a struct": (
        pa.StructArray.from_arrays([invalid()], ["a"]),
        [{"a": "fine"}, {"a": "\ufffd\ufffd"}, {"a": None}],
    ),
    "such text in lists": (
        pa.ListArray.from_arrays(pa.array([0, 2, 3, 3], pa.int32()), invalid()),
        [["fine", "\ufffd\ufffd"], [None], []],
    ),
    "nanoseconds": (
        pa.array([NANOSECONDS, 1_700_000_000_000_000_000, None], pa.timestamp("ns")),
        ["2023-11-14 22:13:20.000000001", "2023-11-14 22:13:20.000000000", None],
    ),
    "nanoseconds in a struct": (
        pa.array([{"t": NANOSECONDS}, None, {"t": None}], pa.struct([("t", pa.timestamp("ns"))])),
        [{"t": "2023-11-14 22:13:20.000000001"}, None, {"t": None}],
    ),
    "durations": (pa.array([1, 2, None], pa.duration("ns")), ["1", "2", None]),
    "times": (pa.array([1, 2, None], pa.time64("ns")), ["00:00:00.000000001", "00:00:00.000000002", None]),
    "far years": (pa.array([10_000_000, 0, None], pa.date32()), ["29349-01-26", "1970-01-01", None]),
    "a zone that nobody knows": (pa.array([1, 2, None], pa.timestamp("us", "Nowhere/At_All")), ["1", "2", None]),
    "a name twice in a struct": (
        pa.StructArray.from_arrays([pa.array([1, 2, 3]), pa.array([4, 5, 6])], ["a", "a"]),
        [{"a": 4}, {"a": 5}, {"a": 6}],
    ),
    "maps": (
        pa.array([[("k", NANOSECONDS)], [], None], pa.map_(pa.string(), pa.timestamp("ns"))),
        [[["k", "2023-11-14 22:13:20.000000001"]], [], None],
    ),
    "what Python holds": (pa.array([Decimal("1.50"), None, Decimal("2.00")]), ["1.50", None, "2.00"]),
    "words by number": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
}


@pytest.mark.parametrize("name", list(COLUMNS))
def test_a_column_that_nobody_asked_for_is_kept_as_it_can_be(name: str, tmp_path: Path) -> None:
    column, expected = COLUMNS[name]
    table = pa.table({"text": ["one", "two", "three"], "more": column})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = rows_of(tmp_path / "a.parquet")
    assert [row["text"] for row in rows] == ["one", "two", "three"]
    found = [json.loads(row["metadata"])["more"] for row in rows]
    assert found == expected
    words = rows_of(tmp_path / "a.parquet", Fields(id="more"))
    assert [row["source_id"] is None for row in words] == [value is None for value in expected]


def test_values_that_need_no_care_are_arrows_own() -> None:
    column = pa.array([{"a": [1, None], "b": "x"}, None])
    assert plain_values(column) == column.to_pylist()
    assert plain_values(pa.array([], pa.timestamp("ns"))) == []


@pytest.mark.parametrize("name", ["text", "more"])
def test_a_column_that_stands_twice_is_refused(name: str, tmp_path: Path) -> None:
    names = ["text", "more", name]
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names=names), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"more than one column '{name}': rename all but one"):
        rows_of(tmp_path / "a.parquet")
