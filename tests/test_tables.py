"""Parquet and text files: each row group, row and file is accounted for, damaged ones too."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_rows import errors, rows_of

from penstock import InputError
from penstock.transforms.readers import Fields, check_fields, detect_format, list_files, split


def test_parquet_columns_of_every_text_type(tmp_path: Path) -> None:
    words = ["a", "é\0", None, "", "😀" * 9] * 50
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        column = pa.array([w.encode() if w is not None and kind == pa.binary() else w for w in words], kind)
        table = pa.table({"text": column, "key": range(250), "url": ["u"] * 250, "at": [{"x": 1.5}] * 250})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=17)
        rows = rows_of(tmp_path / "a.parquet", Fields(id="key"), task_bytes=300)
        assert [row["text"] for row in rows] == words
        assert [row["place"] for row in rows] == list(range(250))
        assert [row["reason"] for row in rows] == [None if word else "read/empty" for word in words]
        assert (rows[3]["source_id"], rows[3]["url"], rows[3]["metadata"]) == ("3", "u", '{"at":{"x":1.5}}')


def test_parquet_is_cut_at_row_groups_that_cover_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [str(n) * 100 for n in range(100)]}), tmp_path / "a.parquet", row_group_size=7)
    (entry,) = list_files(str(tmp_path / "a.parquet"))
    for task_bytes in (1, 500, 2000, 1 << 30):
        ranges = split(entry, "parquet", task_bytes)
        if task_bytes < entry.size:
            assert [n for start, end in ranges for n in range(start, end)] == list(range(15))
        assert len(rows_of(entry.url, task_bytes=task_bytes)) == 100
    with pytest.raises(InputError, match="task_bytes is 0"):
        split(entry, "parquet", 0)


def test_damage_in_parquet_is_counted_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    words = [f"{n} " * 50 for n in range(300)]
    pq.write_table(pa.table({"text": words}), path, row_group_size=100, use_dictionary=False, compression="zstd")
    body = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    body[at : at + 200] = b"\xff" * 200
    path.write_bytes(body)
    rows = rows_of(path)
    assert [row["text"] for row in rows] == words[:100] + [None] * 100 + words[200:]
    assert errors(rows) == ["row group 1 of the Parquet file is damaged"] * 100
    path.write_bytes(body[:-20])
    (row,) = rows_of(path)
    assert row["error"] == "the file is not readable as Parquet: its footer is missing or damaged"
    assert row["raw"] == bytes(body[:-20])


def test_invalid_utf8_in_parquet_is_set_aside(tmp_path: Path) -> None:
    bad = pa.array([b"ok", b"\xff\xfe", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    rows = rows_of(tmp_path / "a.parquet")
    assert [row["text"] for row in rows] == ["ok", None, "fine"]
    assert (rows[1]["error"], rows[1]["raw"]) == ("the column 'text' is not valid UTF-8", b"\xff\xfe")


def test_text_files_are_one_document_each(tmp_path: Path) -> None:
    bodies = {"a": b"\xef\xbb\xbfHello\0\n", "b": b"\xff\xfe\xfa", "c": b" \n", "d": b""}
    for name, body in bodies.items():
        (tmp_path / f"{name}.txt").write_bytes(body)
    found = {name: rows_of(tmp_path / f"{name}.txt") for name in bodies}
    assert [row["text"] for row in found["a"]] == ["Hello\0\n"]
    assert errors(found["b"]) == ["the file is not valid UTF-8"]
    assert [row["reason"] for row in found["c"]] == ["read/empty"]
    assert found["d"] == []


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.txt"])
def test_an_empty_file_holds_no_documents(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert rows_of(tmp_path / name) == []
    (entry,) = list_files(str(tmp_path / name))
    check_fields(entry, detect_format(name), Fields())
