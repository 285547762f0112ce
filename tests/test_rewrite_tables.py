"""Parquet comes out as Parquet: every column, type, codec and piece of metadata, in the order of the rows."""

from __future__ import annotations

import datetime
import decimal
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rewritten import Rewritten, pieces_of, rewrite_file
from test_rewrite_lines import notes_of, spread

from penstock import CorruptDataError, InputError
from penstock.transforms import rewrite_tables
from penstock.transforms.edits import undo
from penstock.transforms.readers import Fields
from penstock.transforms.rewriters import check_names, rewrite
from penstock.transforms.verdicts import NOTES, Verdicts

ROWS = 60
TEXTS = [f"text {row} é" if row % 7 else None for row in range(ROWS)]


def odd_columns() -> dict[str, pa.Array]:
    utc = datetime.UTC
    when = [datetime.datetime(2024, 1, 1 + row % 28, tzinfo=utc) for row in range(ROWS)]
    return {
        "naïve größe": pa.array(range(ROWS), pa.uint16()),
        "text": pa.array(TEXTS, pa.large_string()),
        "tag": pa.array([f"t{row % 3}" for row in range(ROWS)]).dictionary_encode(),
        "nested": pa.array([[{"a": row, "b": [None, "x"]}] * (row % 3) or None for row in range(ROWS)]),
        "map": pa.array([[("k", row)] for row in range(ROWS)], pa.map_(pa.string(), pa.int8())),
        "ns": pa.array([1_700_000_000_000_000_001 + row for row in range(ROWS)], pa.timestamp("ns")),
        "when": pa.array(when, pa.timestamp("ms", "Europe/Paris")),
        "cost": pa.array([decimal.Decimal("1.25")] * ROWS, pa.decimal128(30, 2)),
        "half": pa.array(np.arange(ROWS, dtype=np.float16)),
        "id": pa.array([bytes([row] * 16) for row in range(ROWS)], pa.binary(16)),
        "vector": pa.array([[1.0, float(row)] for row in range(ROWS)], pa.list_(pa.float32(), 2)),
        "nothing": pa.nulls(ROWS),
        "took": pa.array(range(ROWS), pa.duration("us")),
        "day": pa.array([datetime.date(2024, 1, 1)] * ROWS, pa.date32()),
        "view": pa.array([f"view {row} and more than twelve bytes" for row in range(ROWS)], pa.string_view()),
    }


def odd_table() -> pa.Table:
    columns = odd_columns()
    fields = [pa.field(name, column.type, metadata={"note": name}) for name, column in columns.items()]
    fields[0] = fields[0].with_nullable(False)
    return pa.table(list(columns.values()), schema=pa.schema(fields, metadata={"huggingface": "{}", "é": "ü"}))


def write_table(path: Path, table: pa.Table, **settings: Any) -> Path:
    pq.write_table(table, path, **{"row_group_size": 25, "compression": "zstd", **settings})
    return path


def tables(done: Rewritten) -> pa.Table:
    return pa.concat_tables([pq.read_table(io.BytesIO(body)) for body in done.bodies if body])


def values(table: pa.Table) -> list[dict[str, Any]]:
    """Give rows as Python values, nanoseconds as integers."""
    for number, item in enumerate(table.schema):
        if item.type == pa.timestamp("ns"):
            table = table.set_column(number, item.name, table.column(number).cast(pa.int64()))
    return list(table.to_pylist())


def group_rows(body: bytes) -> list[int]:
    footer = pq.ParquetFile(io.BytesIO(body)).metadata
    return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]


KEPT_ROWS = [row for row in range(ROWS) if row % 7]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression": "snappy", "use_dictionary": False, "write_statistics": False},
        {"compression": {"text": "gzip", "tag": "none"}, "write_page_index": True},
        {"use_deprecated_int96_timestamps": True, "use_compliant_nested_type": False},
        {"store_schema": False, "sorting_columns": [pq.SortingColumn(0)]},
    ],
    ids=["zstd", "plain", "mixed", "old", "bare"],
)
def test_every_column_comes_out_as_it_was(tmp_path: Path, settings: dict[str, Any]) -> None:
    table = odd_table()
    if settings.get("store_schema") is False:
        table = table.drop(["view"])
    path = write_table(tmp_path / "a.parquet", table, **settings)
    before = pq.ParquetFile(path)
    for gone in ([], [1, 2, 30, 59]):
        done = rewrite_file(path, gone)
        (body,) = done.bodies
        after = pq.ParquetFile(io.BytesIO(body))
        assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
        assert after.schema.equals(before.schema)
        left = [row for row in KEPT_ROWS if row not in gone]
        expected = pa.concat_tables([before.read().slice(row, 1) for row in left])
        assert values(after.read()) == values(expected)
        assert done.written == len(left)
        assert [row["place"] for row in done.set_aside] == [row for row in range(ROWS) if row % 7 == 0]
        sides = [file.metadata.row_group(0) for file in (before, after)]
        for number in range(before.metadata.num_columns):
            one, other = (side.column(number) for side in sides)
            for name in ("compression", "physical_type", "is_stats_set", "has_offset_index", "path_in_schema"):
                assert getattr(one, name) == getattr(other, name)
            assert one.path_in_schema == "text" or one.has_dictionary_page == other.has_dictionary_page
        assert sides[0].sorting_columns == sides[1].sorting_columns


def test_row_groups_stay_and_empty_ones_go(tmp_path: Path) -> None:
    table = pa.table({"text": [f"t{row}" for row in range(ROWS)]})
    path = write_table(tmp_path / "a.parquet", table)
    assert group_rows(rewrite_file(path).body) == [25, 25, 10]
    assert group_rows(rewrite_file(path, [0, 26, 27]).body) == [24, 23, 10]
    assert group_rows(rewrite_file(path, range(25, 50)).body) == [25, 10]
    assert rewrite_file(path, range(ROWS)).body == b""
    assert rewrite_file(path).body == path.read_bytes()


def test_ranges_and_batches_of_any_size_give_the_rows_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path / "a.parquet", odd_table(), row_group_size=7)
    gone = [row for row in KEPT_ROWS if row % 4 == 0]
    whole = rewrite_file(path, gone)
    for size in (1, 700, 5000):
        done = rewrite_file(path, gone, task_bytes=size)
        assert len(done.bodies) > 1
        assert values(tables(done)) == values(tables(whole))
        assert (done.places, done.set_aside) == (whole.places, whole.set_aside)
        monkeypatch.setattr(rewrite_tables, "BATCH_BYTES", size)
        assert rewrite_file(path, gone).body == whole.body
    monkeypatch.setattr(rewrite_tables, "GROUP_BYTES", 1)
    assert values(tables(rewrite_file(path, gone))) == values(tables(whole))


def test_rows_without_text_are_set_aside_whole(tmp_path: Path) -> None:
    texts = pa.array([b"good", None, b" \n", b"\xff", b"x" * 40], pa.binary())
    path = write_table(tmp_path / "a.parquet", pa.table({"text": texts, "n": [1, 2, 3, 4, 5]}))
    done = rewrite_file(path, largest=30)
    assert tables(done).to_pylist() == [{"text": b"good", "n": 1}]
    rows = [(row["place"], row["rule"], row["error"], row["raw"]) for row in done.set_aside]
    assert rows == [
        (1, "read/empty", None, b'{"n":2,"text":null}'),
        (2, "read/empty", None, b'{"n":3,"text":" \\n"}'),
        (3, None, "the column 'text' is not valid UTF-8", b"\xff"),
        (4, None, "the column 'text' is larger than 30 bytes", b"x" * 40),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.string_view(),
        pa.dictionary(pa.int16(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_a_cut_text_takes_the_place_of_its_value(tmp_path: Path, kind: pa.DataType) -> None:
    texts = ["one é two", "all", None, "left", "one é two"]
    values = [None if text is None else text.encode() for text in texts] if kind == pa.binary() else texts
    column = pa.array(texts).dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else pa.array(values, kind)
    path = write_table(tmp_path / "a.parquet", pa.table({"n": range(5), "text": column}), row_group_size=2)
    done = rewrite_file(path, [3], cuts={0: [(0, 4), (6, 10)], 1: [(0, 3)], 4: [(4, 6)]})
    found = tables(done)
    assert found.schema.field("text").type == pq.read_schema(path).field("text").type
    whole = [row["edits"] for row in done.edits]
    assert [undo(cut, edits) for cut, edits in zip(["é", "", "one  two"], whole, strict=True)] == [*texts[:2], texts[0]]
    expected = [(0, "é"), (1, ""), (4, "one  two")]
    assert [(row["n"], row["text"]) for row in found.to_pylist()] == [
        (n, text.encode() if kind == pa.binary() else text) for n, text in expected
    ]


def test_marks_are_columns_to_the_right_and_every_row_stays(tmp_path: Path) -> None:
    table = odd_table()
    path = write_table(tmp_path / "a.parquet", table)
    notes = notes_of(ROWS, tuple(f"dedup_{name}" for name in NOTES.names))
    for task_bytes in (1 << 40, 1):
        done = rewrite_file(path, notes=notes, task_bytes=task_bytes)
        found = tables(done)
        assert found.column_names == [*table.column_names, *notes.columns.schema.names]
        assert values(found.select(table.column_names)) == values(pq.read_table(path))
        marks = found.select(notes.columns.schema.names).to_pylist()
        assert [tuple(mark.values()) for mark in marks] == spread(notes, KEPT_ROWS, ROWS)
        assert (done.written, done.set_aside) == (ROWS, [])


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", pa.table({"text": ["a"], "is_duplicate": [True]}))
    (piece,) = pieces_of(path)
    with pytest.raises(InputError, match="its schema has the field 'is_duplicate' already"):
        check_names(piece)
    check_names(piece, "dedup_")


def damaged(path: Path, column: int) -> Path:
    """Spoil the pages of a column in the second row group."""
    about = pq.ParquetFile(path).metadata.row_group(1).column(column)
    body = bytearray(path.read_bytes())
    start = about.dictionary_page_offset or about.data_page_offset
    body[start : start + about.total_compressed_size] = b"\xff" * about.total_compressed_size
    path.write_bytes(body)
    return path


def test_a_damaged_row_group_is_set_aside_and_the_rest_is_written(tmp_path: Path) -> None:
    table = pa.table({"text": [f"t{row}" for row in range(ROWS)], "n": range(ROWS)})
    path = damaged(write_table(tmp_path / "a.parquet", table), 0)
    for task_bytes in (1 << 40, 1):
        done = rewrite_file(path, [3], task_bytes=task_bytes)
        assert tables(done).column("n").to_pylist() == [row for row in [*range(25), *range(50, 60)] if row != 3]
        assert [row["place"] for row in done.set_aside] == list(range(25, 50))
        assert {row["error"] for row in done.set_aside} == {"row group 1 of the Parquet file is damaged"}


def test_damage_to_a_column_that_the_reader_left_out_fails_in_words(tmp_path: Path) -> None:
    table = pa.table({"text": [f"t{row}" for row in range(ROWS)], "n": range(ROWS)})
    path = damaged(write_table(tmp_path / "a.parquet", table), 1)
    (piece,) = pieces_of(path)
    with pytest.raises(CorruptDataError, match="row group 1 was read, but its other columns are damaged"):
        list(rewrite(piece, Fields(metadata=()), Verdicts(np.arange(ROWS), np.array([3])), io.BytesIO()))
    out = io.BytesIO()
    list(rewrite(piece, Fields(metadata=()), Verdicts(np.arange(ROWS)), out))
    assert out.getvalue() == path.read_bytes()  # nothing goes: the file is copied, damage and all


def test_a_file_without_a_footer_is_set_aside_once(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no more")
    done = rewrite_file(path)
    assert (done.body, done.written, [row["raw"] for row in done.set_aside]) == (b"", 0, [b"PAR1 and no more"])
