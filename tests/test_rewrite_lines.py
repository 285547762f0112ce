"""JSON lines come out byte for byte but for what goes, is cut or is marked; records are numbered as the reader does."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from read_rows import jsonl
from rewritten import Rewritten, pieces_of, rewrite_file

from penstock import InputError
from penstock.transforms import rewrite_lines
from penstock.transforms.edits import undo
from penstock.transforms.json_splice import append_members, members, replace_value
from penstock.transforms.readers import Fields
from penstock.transforms.rewriters import check_names
from penstock.transforms.schema import document_ids
from penstock.transforms.verdicts import NOTES, Notes

PACK: dict[str, Callable[[bytes], bytes]] = {
    "a.jsonl": bytes,
    "a.jsonl.gz": lambda body: b"".join(gzip.compress(each, mtime=0) for each in (body[:40], body[40:90], body[90:])),
    "a.jsonl.zst": zstandard.ZstdCompressor().compress,
}
ODD = [
    b'\xef\xbb\xbf{"text": "with a mark"}\r\n',
    b"\n",
    b'{"text": "first"}  \t\n',
    b"  \t \r\n",
    b'{"text": "twice", "text": "\xc3\xa9\\u00e9", "n": 1.0e5}\n',
    b'{"text": ""}\n',
    b'{"text": 7}\n',
    b"not json\n",
    b'{ "n" : {"text": "in"}, "text" : "last" }\r\n',
    b'{"text": "no newline"}',
]
RECORDS = [line for line in ODD if line.strip()]
GOOD = [0, 1, 2, 6, 7]


def ids(done: Rewritten) -> list[bytes]:
    return list(document_ids("web", done.path, done.places).to_pylist())


def unpacked(name: str, body: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.decompress(body)
    return zstandard.ZstdDecompressor().decompressobj().decompress(body) if name.endswith(".zst") and body else body


def notes_of(rows: int, names: tuple[str, ...] = tuple(NOTES.names)) -> Notes:
    """A cluster of each third row."""
    marked = list(range(0, rows, 3))
    columns: list[list[Any]] = [
        ["ab" * 16 for _ in marked],
        [2 for _ in marked],
        [f"k\u00e9y-{row}" for row in marked],
        [0.25 + row if row % 2 else None for row in marked],
        [row % 2 == 1 for row in marked],
    ]
    arrays = [pa.array(column, item.type) for column, item in zip(columns, NOTES, strict=True)]
    return Notes(np.array(marked, np.int64), pa.RecordBatch.from_arrays(arrays, names=list(names)))


def spread(notes: Notes, documents: list[int], rows: int) -> list[tuple[Any, ...]]:
    """What is to stand beside each record."""
    held = dict(zip(notes.rows.tolist(), map(tuple, map(dict.values, notes.columns.to_pylist())), strict=True))
    return [held.get(row, (None, 1, None, None, False) if row in documents else (None,) * 5) for row in range(rows)]


@pytest.mark.parametrize("name", PACK)
def test_what_is_whole_and_stays_keeps_every_byte(tmp_path: Path, name: str) -> None:
    body = b"".join(line for number, line in enumerate(ODD) if number not in (5, 6, 7))
    (tmp_path / name).write_bytes(PACK[name](body))
    done = rewrite_file(tmp_path / name)
    assert done.body == PACK[name](body)
    assert (done.written, done.set_aside) == (5, [])


@pytest.mark.parametrize("name", PACK)
def test_only_what_goes_is_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACK[name](b"".join(ODD)))
    for gone in ([], [0], [7], [1, 6], GOOD):
        done = rewrite_file(tmp_path / name, gone)
        left = [number for number in GOOD if number not in gone]
        assert unpacked(name, done.body) == b"".join(
            line for line in ODD if not line.strip() or RECORDS.index(line) in left
        )
        assert done.written == len(left)
        assert [(row["rule"], row["error"]) for row in done.set_aside] == [
            ("read/empty", None),
            (None, "the field 'text' is a number, not a string"),
            (None, "the line is not valid JSON: Expecting value"),
        ]
        assert [row["raw"] for row in done.set_aside] == [line.removesuffix(b"\n") for line in RECORDS[3:6]]


def test_packed_bytes_repeat(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        (tmp_path / name).write_bytes(PACK[name](b"".join(ODD)))
        first = rewrite_file(tmp_path / name, [1]).body
        assert first == rewrite_file(tmp_path / name, [1]).body
        assert not name.endswith("gz") or first[:8] == b"\x1f\x8b\x08\x00\0\0\0\0"


def test_ranges_of_any_size_give_the_lines_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    lines = [chance.choice(ODD[:-1]) for _ in range(30)]
    body = b"".join(lines)[: -chance.randrange(2)]
    (tmp_path / "a.jsonl").write_bytes(body)
    records = sum(bool(line.strip()) for line in lines)
    gone = [row for row in range(records) if row % 3 == 0]
    gone = [row for row in gone if [line for line in lines if line.strip()][row] not in RECORDS[3:6]]
    whole = rewrite_file(tmp_path / "a.jsonl", gone)
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(body))
    for chunk in (1 << 20, 64, 7):
        monkeypatch.setattr(rewrite_lines, "CHUNK", chunk)
        for task_bytes in (1 << 40, 13, 100):
            done = rewrite_file(tmp_path / "a.jsonl", gone, task_bytes=task_bytes)
            assert (done.body, done.places, done.set_aside) == (whole.body, whole.places, whole.set_aside)
        assert gzip.decompress(rewrite_file(packed, gone).body) == whole.body


def test_a_line_too_large_is_set_aside_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, large = b'{"text": "a"}\n', b'{"text": "' + b"x" * 100 + b'"}\n'
    for chunk in (1 << 20, 16, 7):
        monkeypatch.setattr(rewrite_lines, "CHUNK", chunk)
        for lines in ([good, large, good], [large, large, good], [good, good, large[:-1]], [good, b"x" * 51 + b"\n"]):
            for name in ("a.jsonl", "a.jsonl.gz"):
                (tmp_path / name).write_bytes(
                    PACK[name](b"".join(lines)) if name == "a.jsonl" else gzip.compress(b"".join(lines))
                )
                done = rewrite_file(tmp_path / name, largest=50)
                assert unpacked(name, done.body) == good * lines.count(good)
                assert {row["error"] for row in done.set_aside} == {"the line is larger than 50 bytes"}


@pytest.mark.parametrize("at", [0.3, 0.99, -6])
def test_lines_around_damage_are_written(tmp_path: Path, at: float) -> None:
    chance = random.Random(5)
    parts = [
        jsonl(*({"text": " ".join(f"{chance.random():.9f}" for _ in range(12))} for _ in range(300))) for _ in range(2)
    ]
    body = bytearray(gzip.compress(parts[0]))
    body[int(len(body) * at) if at > 0 else len(body) + int(at)] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(bytes(body) + gzip.compress(parts[1]))
    done = rewrite_file(tmp_path / "a.jsonl.gz", [0])
    left = gzip.decompress(done.body).splitlines()
    assert set(parts[1].splitlines()) <= set(left)
    assert len(left) == done.written == len(done.places) - 1 - len(done.set_aside)
    assert any("damaged" in (row["error"] or "") for row in done.set_aside)


@pytest.mark.parametrize("name", PACK)
def test_a_cut_text_replaces_its_field_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACK[name](b"".join(ODD)))
    done = rewrite_file(tmp_path / name, [6], cuts={0: [(0, 7)], 2: [(2, 4)], 7: [(0, 2), (4, 10)]})
    left = unpacked(name, done.body).split(b"\n")
    assert left[0] == b'\xef\xbb\xbf{"text": "mark"}\r'
    assert left[4] == '{"text": "twice", "text": "é", "n": 1.0e5}'.encode()
    assert left[-1] == b'{"text": " n"}'
    whole = ["with a mark", "éé", "no newline"]
    assert [undo(new, row["edits"]) for new, row in zip(["mark", "é", " n"], done.edits, strict=True)] == whole
    assert [row["id"] for row in done.edits] == [
        met for met, row in zip(ids(done), range(8), strict=True) if row in (0, 2, 7)
    ]


def test_a_cut_text_is_ascii_where_its_line_is() -> None:
    assert replace_value(b'{"text": "\\u00e9\\u00e9"}', "text", "é") == b'{"text": "\\u00e9"}'
    assert replace_value('{"é": 1, "text": ""}'.encode(), "é", 'a"\n') == '{"é": "a\\"\\n", "text": ""}'.encode()


def test_a_field_may_have_any_name(tmp_path: Path) -> None:
    name = 'größe "文"'
    (tmp_path / "a.jsonl").write_bytes(jsonl({"n": 1, name: "é is cut"}, {name: "stays", "n": 2}))
    done = rewrite_file(tmp_path / "a.jsonl", fields=Fields(text=name), cuts={0: [(0, 3)]}, notes=None)
    assert [json.loads(line) for line in done.body.splitlines()] == [{"n": 1, name: "is cut"}, {name: "stays", "n": 2}]
    assert done.body.splitlines()[1] == jsonl({name: "stays", "n": 2})[:-1]


def test_members_are_found_where_they_lie() -> None:
    chance = random.Random(1)
    values: list[Any] = ['a}"\\', {"text": [1, {"b": "{"}]}, [], {}, None, True, -1.5e-7, "é\u2028", [[", "]]]
    for _ in range(200):
        record = [(chance.choice('ab{"é,'), chance.choice(values)) for _ in range(chance.randrange(5))]
        space = chance.choice(["", " ", "\t\r\n "])
        text = space + "{" + space
        text += (space + "," + space).join(f"{json.dumps(k)}{space}:{space}{json.dumps(v)}" for k, v in record)
        text += space + "}" + space
        found = members(text)
        assert [(name, json.loads(text[start:end])) for name, start, end in found] == record
        added = append_members(text.encode(), b'"new": 1')
        assert [name for name, _, _ in members(added.decode())] == [*(name for name, _ in record), "new"]
        assert json.loads(added)["new"] == 1


@pytest.mark.parametrize("name", PACK)
def test_marks_are_spliced_in_and_take_nothing(tmp_path: Path, name: str) -> None:
    lines = [*ODD[:-1], b'{"text": "x", "say": "\\"cluster\\": 1"}\n', b"{}\n", b"[1]\n", ODD[-1]]
    (tmp_path / name).write_bytes(PACK[name](b"".join(lines)))
    records = [line for line in lines if line.strip()]
    notes = notes_of(len(records) - 1)
    expected = spread(notes, [*GOOD[:-1], 7, 10], len(records))
    done = rewrite_file(tmp_path / name, notes=notes)
    left = unpacked(name, done.body).splitlines(keepends=True)
    blank = [line for line in left if not line.strip()]
    assert blank == [line for line in lines if not line.strip()]
    marked = [line for line in left if line.strip()]
    objects = [(row, line) for row, line in enumerate(records) if line not in (b"not json\n", b"[1]\n")]
    assert len(marked) == len(objects) == done.written
    for (row, before), after in zip(objects, marked, strict=True):
        head = before[: before.rindex(b"}")]
        assert after.startswith(head)
        assert after.endswith(before[len(head) :])
        record = json.loads(after.decode("utf-8-sig"))
        assert tuple(record.pop(key) for key in NOTES.names) == expected[row]
        assert record == json.loads(before.decode("utf-8-sig"))
    assert [row["raw"] for row in done.set_aside] == [b"not json", b"[1]"]


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl({"text": "a", "cluster_size": 1}))
    (piece,) = pieces_of(path)
    with pytest.raises(InputError, match=r"a record at its head has the field 'cluster_size' already.*dedup_"):
        check_names(piece)
    check_names(piece, "dedup_")
    path.write_bytes(jsonl(*({"text": "a", "x": n} for n in range(150)), {"text": "b", "cluster": 1}))
    (piece,) = pieces_of(path)
    check_names(piece)
    with pytest.raises(InputError, match=r"the record at [0-9]+ has the field 'cluster'"):
        rewrite_file(path, notes=notes_of(151))


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    for name in PACK:
        (tmp_path / name).write_bytes(b"")
        done = rewrite_file(tmp_path / name)
        assert (done.body, done.written, done.places) == (b"", 0, [])
