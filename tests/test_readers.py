"""Files are found, cut and read so that each record is one row: kept, rejected by a rule, or set aside with words."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from read_rows import errors, jsonl, rows_of, texts

from penstock import InputError, StoreError
from penstock.transforms import files, lines
from penstock.transforms.readers import Fields, Piece, check_fields, detect_format, list_files, read
from penstock.transforms.schema import BATCH_BYTES


def test_fields_are_mapped_by_name(tmp_path: Path) -> None:
    record = {
        "body": "Hi",
        "key": 7,
        "link": "http://a",
        "lang": "en",
        "z": [1, {"b": None}],
        "a": float("nan"),
        "url": "u",
    }
    (tmp_path / "a.jsonl").write_bytes(jsonl(record))
    mapped = Fields(text="body", id="key", url="link", language="lang")
    (row,) = rows_of(tmp_path / "a.jsonl", mapped)
    assert (row["text"], row["source_id"], row["url"], row["language"]) == ("Hi", "7", "http://a", "en")
    assert row["metadata"] == '{"a":null,"url":"u","z":[1,{"b":null}]}'
    (row,) = rows_of(tmp_path / "a.jsonl", Fields(text="body", metadata=("lang", "none")))
    assert (row["url"], row["source_id"], row["metadata"]) == ("u", None, '{"lang":"en"}')
    assert pickle.loads(pickle.dumps(mapped)) == mapped


BAD_LINES = {
    b'{"text": "cut': "the line is not valid JSON: Unterminated string starting at",
    b"[1, 2]": "the line is a list, not a JSON object",
    b'"text"': "the line is a string, not a JSON object",
    b"7": "the line is a number, not a JSON object",
    b'{"other": 1}': "the line has no field 'text'",
    b'{"text": 5}': "the field 'text' is a number, not a string",
    b'{"text": {"a": 1}}': "the field 'text' is an object, not a string",
    b'{"text": "\xff\xfe"}': "the line is not valid UTF-8",
    b'{"text": "\\ud800"}': "the field 'text' holds a lone surrogate, which is no character",
    b'{"text": "a", "n": ' + b"9" * 5000 + b"}": "the line is not valid JSON: a number is too long",
    b"\x1f\x8b\x08garbage": "the line is not valid UTF-8",
    b"[" * 200_000: "the line is nested too deeply: more than 200 objects and lists in one another",
}


def test_a_bad_line_is_set_aside_and_the_rest_is_read(tmp_path: Path) -> None:
    body = jsonl({"text": "first"}, *(line for bad in BAD_LINES for line in (bad, {"text": "good"})))
    (tmp_path / "a.jsonl").write_bytes(body)
    rows = rows_of(tmp_path / "a.jsonl")
    assert texts(rows) == ["first"] + ["good"] * len(BAD_LINES)
    assert [(row["raw"], row["error"]) for row in rows if row["error"]] == list(BAD_LINES.items())


def test_what_is_odd_but_valid_is_kept(tmp_path: Path) -> None:
    odd = ["a\0b", "tab\t\x01", "😀 漢字 مرحبا", " \ufeffx", "\u2028", "x" * 100_000]
    raw = b'\xef\xbb\xbf{"text": "raw\x00nul"}\r\n\n  \r\n'
    (tmp_path / "a.jsonl").write_bytes(raw + jsonl(*({"text": text} for text in odd))[:-1])
    rows = rows_of(tmp_path / "a.jsonl")
    assert [row["text"] for row in rows] == ["raw\0nul", *odd]
    assert [row["reason"] for row in rows] == [None] * 5 + ["read/empty", None]


def test_empty_texts_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl({"text": "x"}, {"text": ""}, {"text": " \n"}, {"text": None}))
    assert [row["reason"] for row in rows_of(tmp_path / "a.jsonl")] == [None, *["read/empty"] * 3]


def test_metadata_survives_what_json_has_not(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x", "b": "\\ud800", "a": Infinity, "url": "\\ud800"}\n')
    (row,) = rows_of(tmp_path / "a.jsonl")
    assert (row["metadata"], row["url"]) == (r'{"a":null,"b":"\ud800"}', "?")


def nested(depth: int, filling: bytes = b"1") -> bytes:
    return b'{"text": "x", "a": ' + b"[" * depth + filling + b"]" * depth + b"}"


def test_depth_is_counted_not_met_on_the_stack(tmp_path: Path) -> None:
    """Python's decoder fails where the stack ends, which differs between a worker and a script."""
    deep = [nested(depth, filling) for depth in (150, 199, 200, 201, 900) for filling in (b"1", b"NaN", b'"[{[{"')]
    odd = b'{"text": "' + b'\\"[{' * 500 + b'", "a": [1]}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*deep, odd]) + b"\n")

    def read_at(frames: int) -> list[dict[str, Any]]:
        return read_at(frames - 1) if frames else rows_of(tmp_path / "a.jsonl")

    rows = read_at(0)
    assert [row["error"] is None for row in rows] == [True] * 6 + [False] * 9 + [True]
    assert all("nested too deeply" in row["error"] for row in rows if row["error"])
    assert read_at(200) == rows


@pytest.mark.parametrize("packed", [gzip.compress, lambda body: gzip.compress(body, 0)], ids=["deflated", "stored"])
@pytest.mark.parametrize("at", [0.3, 0.99, -6])
def test_lines_in_front_of_damage_are_read(tmp_path: Path, packed: Callable[[bytes], bytes], at: float) -> None:
    chance = random.Random(5)
    lines_in = [{"text": " ".join(f"{chance.random():.9f}" for _ in range(12))} for _ in range(300)]
    body = bytearray(packed(jsonl(*lines_in)))
    place = int(len(body) * at) if at > 0 else len(body) + int(at)
    body[place] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(bytes(body))
    rows = rows_of(tmp_path / "a.jsonl.gz")
    good = [row["text"] for row in rows if row["error"] is None]
    known = {line["text"] for line in lines_in}
    share = place / len(body)
    assert sum(text in known for text in good) > 0.9 * share * len(lines_in)
    assert any("damaged" in (row["error"] or "") for row in rows)


def test_ranges_of_any_size_give_the_rows_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    records = [{"text": "é" * rng.randrange(90), "n": n} for n in range(60)]
    body = jsonl(*records).replace(b'"n": 7}', b'"n": 7}\n\n\r')[: -rng.randrange(2)]
    (tmp_path / "a.jsonl").write_bytes(body)
    whole = rows_of(tmp_path / "a.jsonl")
    assert [row["text"] for row in whole] == [record["text"] for record in records]
    for block in (1 << 18, 7):
        monkeypatch.setattr(lines, "BLOCK", block)
        for task_bytes in (1, 2, 13, 64, 100, 1000):
            assert rows_of(tmp_path / "a.jsonl", task_bytes=task_bytes) == whole


def test_a_range_reads_its_bytes_and_its_last_line_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(io.BytesIO):
        seen = 0

        def read(self, size: int | None = -1) -> bytes:
            body = super().read(size)
            Counting.seen += len(body)
            return body

    monkeypatch.setattr(lines, "BLOCK", 64)
    body = jsonl(*({"text": "x" * 20} for _ in range(1000)))
    found = list(lines.plain_lines(Counting(body), Piece("", "", "", "jsonl", len(body), 5000, 6000), 1 << 20))
    assert [line.place for line in found] == [at for at in range(0, len(body), 33) if 5000 <= at < 6000]
    assert Counting.seen < 1000 + 33 + 3 * 64


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_compressed_lines(tmp_path: Path, suffix: str) -> None:
    pack = gzip.compress if suffix.endswith("gz") else zstandard.ZstdCompressor(write_checksum=True).compress
    parts = [jsonl(*({"text": f"{part} {n} " + "w" * n} for n in range(500))) for part in range(3)]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"".join(pack(part) for part in parts))
    rows = rows_of(path)
    assert [row["place"] for row in rows] == list(range(1500))
    assert [row["text"][:3] for row in rows] == [f"{part} {n}"[:3] for part in range(3) for n in range(500)]

    path.write_bytes(b"".join(pack(part) for part in parts)[:-9])
    assert len(texts(rows_of(path))) >= 1000
    assert "ends before its end mark" in errors(rows_of(path))[-1]

    middle = bytearray(pack(parts[1]))
    middle[len(middle) // 2 : len(middle) // 2 + 9] = b"\xff" * 9
    path.write_bytes(pack(parts[0]) + bytes(middle) + pack(parts[2]))
    rows = rows_of(path)
    assert [text for text in texts(rows) if text and text[0] == "2"] == [
        json.loads(x)["text"] for x in parts[2].splitlines()
    ]
    assert sum(row["error"] is not None and "stream is damaged" in row["error"] for row in rows) == 1

    path.write_bytes(b"this is neither")
    (row,) = rows_of(path)
    assert "stream is damaged" in row["error"]
    assert row["raw"] == b"this is neither"


def test_records_beyond_the_limit_are_set_aside(tmp_path: Path) -> None:
    body = jsonl({"text": "a"}, {"text": "b" * 5000}, {"text": "c"})
    (tmp_path / "a.jsonl").write_bytes(body)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(body))
    pq.write_table(pa.table({"text": ["a", "b" * 5000, "c"]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        rows = rows_of(tmp_path / name, largest=1000)
        assert texts(rows) == ["a", "c"]
        assert "larger than 1000 bytes" in errors(rows)[0]
    (tmp_path / "a.txt").write_bytes(b"b" * 5000)
    assert errors(rows_of(tmp_path / "a.txt", largest=1000)) == ["the file is larger than 1000 bytes"]


BIG = """
import json, resource, sys
from penstock.transforms.readers import Piece, read
import pyarrow.parquet
path, kind, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = list(read(Piece(path, "s", path, kind, size)))
rows = [(o.batch.num_rows, len(o.batch["text"][0].as_py() or ""), o.errors) for o in found]
print(json.dumps([rows[0][:2], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, str(rows[0][2])]))
"""


def read_apart(path: Path, kind: str) -> tuple[list[int], int, str]:
    """Read a file in a process of its own: (rows, characters), growth in MiB, errors."""
    command = [sys.executable, "-c", BIG, str(path), kind, str(path.stat().st_size)]
    rows, grown, error = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return rows, grown, error


@pytest.mark.long
def test_a_document_of_100_mb_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "' + b"word " * 20_000_000 + b'"}\n')
    rows, grown, _ = read_apart(path, "jsonl")
    assert rows == [1, 100_000_000]
    assert grown < 700


@pytest.mark.long
def test_a_decompression_bomb_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor(level=1).compress(b'{"text": "' + bytes(800 << 20)))
    assert path.stat().st_size < 100_000
    rows, grown, error = read_apart(path, "jsonl")
    assert rows == [1, 0]
    assert "larger than 268435456 bytes" in error
    assert grown < 900


def test_a_mapping_without_its_text_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(*({"body": "x", "n": n} for n in range(150)), {"text": "late"}))
    (tmp_path / "a.parquet").write_bytes(b"")
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        for fields in (Fields(), Fields(text="body", id="key")):
            (entry,) = list_files(str(tmp_path / name))
            with pytest.raises(InputError, match=r"the field '(text|key)' that the recipe maps; .*'body', 'n'"):
                check_fields(entry, detect_format(name), fields)
            with pytest.raises(InputError, match=r"the field '(text|key)' that the recipe maps; .*'body', 'n'"):
                rows_of(tmp_path / name, fields)
    pq.write_table(pa.table({"text": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="'text' is of type int64, not text"):
        rows_of(tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_bytes(b"no json\n" * 150)
    assert len(errors(rows_of(tmp_path / "b.jsonl"))) == 150


def test_batches_stay_small_and_raw_bytes_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        jsonl({"text": "x"}, *({"text": "y" * 70_000} for _ in range(300)), b"[" + b"z" * (2 << 20))
    )
    (entry,) = list_files(str(tmp_path / "a.jsonl"))
    outcomes = list(read(Piece(entry.url, "s", entry.path, "jsonl", entry.size)))
    assert sum(outcome.batch.num_rows for outcome in outcomes) == 302
    assert all(outcome.batch["text"].nbytes < BATCH_BYTES + 80_000 for outcome in outcomes)
    raw = outcomes[-1].raw
    assert raw is not None
    assert [len(kept) for kept in raw.to_pylist() if kept is not None] == [1 << 20]


def test_a_file_that_changed_or_is_gone_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl({"text": "x"}))
    piece = Piece(str(path), "s", "a.jsonl", "jsonl", 3)
    with pytest.raises(InputError, match="has 14 bytes now and had 3 when it was listed"):
        list(read(piece))
    path.unlink()
    with pytest.raises(InputError, match="is gone"):
        list(read(piece))
    with pytest.raises(InputError, match="'csv' is not a format"):
        list(read(Piece(str(path), "s", "a.csv", "csv", 3)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.txt", "a.warc.gz"])
def test_a_store_that_fails_is_never_taken_for_damaged_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = gzip.compress(jsonl({"text": "x"})) if name.endswith("gz") else b"x" * 100
    fsspec.filesystem("memory").pipe(f"/fails/{name}", body)

    def lost(*_: Any) -> bytes:
        raise OSError("connection lost")

    from fsspec.implementations.memory import MemoryFile

    monkeypatch.setattr(MemoryFile, "read", lost)
    piece = Piece(f"memory://fails/{name}", "s", name, detect_format(name), len(body))
    with pytest.raises(StoreError, match=r"reading 'memory://fails/.*' failed: OSError: connection lost"):
        list(read(piece))


def test_ids_depend_on_input_path_and_place_alone(tmp_path: Path) -> None:
    body = jsonl({"text": "x"}, {"text": "y"})
    for root in ("here", "there/deep"):
        (tmp_path / root).mkdir(parents=True)
        (tmp_path / root / "a.jsonl").write_bytes(body)
    assert rows_of(tmp_path / "here" / "a.jsonl") == rows_of(tmp_path / "there" / "deep" / "a.jsonl")
    assert files.list_files(f"{tmp_path}/here/*")[0].path == files.list_files(f"{tmp_path}/there/deep/*")[0].path
