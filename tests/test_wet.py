"""WET files: each conversion record is one document, with the guarantees of WARC."""

from __future__ import annotations

import gzip
import json
import random
from itertools import accumulate
from pathlib import Path

import pytest
from read_rows import errors, rows_of, texts
from warc_files import HTML, conversion, damage, http, page, record, write

from penstock import Recipe, RecipeError
from penstock.pipelines.plan import plan_inputs
from penstock.transforms.files import detect_format

INFO = record(0, b"Software-Info: none\r\n", "warcinfo")
SHORT = [f"Text {number} über €\nzweite Zeile\n".encode() for number in range(1, 9)]
PARTS = [INFO, *(conversion(number, text) for number, text in enumerate(SHORT, 1))]


@pytest.mark.parametrize("name", ["a.warc.wet", "a.warc.wet.gz", "a.wet", "A.WET.GZ", "a.warc.gz"])
def test_each_conversion_is_one_document(tmp_path: Path, name: str) -> None:
    parts = [gzip.compress(part) for part in PARTS] if name.lower().endswith("gz") else PARTS
    rows = rows_of(write(tmp_path / name, *parts))
    assert texts(rows) == [text.decode() for text in SHORT]
    assert [row["place"] for row in rows] == [0, *accumulate(map(len, parts))][1:-1]
    assert rows[2]["url"] == "http://web.example/3"
    assert all(row["html"] is None and row["language"] is None for row in rows)
    assert json.loads(rows[2]["metadata"]) == {
        "charset": "utf-8",
        "content_type": "text/plain",
        "date": "2024-02-03T04:05:06Z",
        "languages": "eng",
        "record_id": "urn:uuid:3",
        "refers_to": "urn:uuid:13",
    }


def test_formats_by_name() -> None:
    assert [detect_format(name) for name in ("x.warc.wet.gz", "x.wet", "x.warc.gz")] == ["wet", "wet", "warc"]


@pytest.mark.parametrize(
    ("block", "headers", "text", "charset"),
    [
        (b"\xef\xbb\xbfcaf\xc3\xa9", (), "\ufeffcafé", "utf-8"),
        (b"caf\xe9", (b"Content-Type: text/plain; charset=ISO-8859-1",), "café", "iso-8859-1"),
        (b"caf\xe9", (b"Content-Type: text/plain; charset=none-such",), "caf\ufffd", "utf-8"),
        (b"a\x00b \xff", (), "a\x00b \ufffd", "utf-8"),
        (b"WARC/1.0\r\nnot a record", (), "WARC/1.0\r\nnot a record", "utf-8"),
    ],
)
def test_texts_are_decoded(tmp_path: Path, block: bytes, headers: tuple[bytes, ...], text: str, charset: str) -> None:
    (row,) = rows_of(write(tmp_path / "a.warc.wet", conversion(1, block, *headers)))
    assert (row["text"], json.loads(row["metadata"])["charset"]) == (text, charset)


@pytest.mark.parametrize("block", [b"", b" \r\n\t"])
def test_an_empty_text_is_rejected(tmp_path: Path, block: bytes) -> None:
    (row,) = rows_of(write(tmp_path / "a.warc.wet", conversion(1, block)))
    assert (row["text"], row["reason"], row["url"]) == (None, "read/empty", "http://web.example/1")


def test_a_page_among_texts_is_rejected_and_texts_among_pages_are_read(tmp_path: Path) -> None:
    mixed = [record(1, http(page(1), HTML)), conversion(2, b"text")]
    first, second = rows_of(write(tmp_path / "a.warc.wet", *mixed))
    assert (first["reason"], first["url"], first["html"]) == ("read/not_text", "http://web.example/1", None)
    assert second["text"] == "text"
    first, second = rows_of(write(tmp_path / "a.warc", *mixed))
    assert (first["html"], second["text"]) == (page(1).decode(), "text")


def test_any_cut_gives_the_same_rows(tmp_path: Path) -> None:
    rng = random.Random(4)
    parts = [INFO, *(conversion(number, rng.randbytes(60_000).hex().encode()) for number in range(1, 30))]
    for name, packed in (("a.warc.wet.gz", [gzip.compress(part) for part in parts]), ("a.warc.wet", parts)):
        path = write(tmp_path / name, *packed)
        whole = rows_of(path)
        assert len(whole) == 29
        assert rows_of(path, task_bytes=400_000) == whole


def test_damage_to_one_record_harms_no_other(tmp_path: Path) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        hurt = rng.randrange(1, len(PARTS))
        parts = [gzip.compress(part, 6, mtime=0) for part in PARTS]
        parts[hurt] = damage(rng, parts[hurt])
        rows = rows_of(write(tmp_path / "a.warc.wet.gz", *parts))
        others = [text.decode() for number, text in enumerate(SHORT, 1) if number != hurt]
        assert [text for text in texts(rows) if text in others] == others, seed
    too_large = rows_of(write(tmp_path / "b.warc.wet", *PARTS), largest=25)
    assert errors(too_large) == ["the record is larger than 25 bytes"] * 8


def recipe(folder: Path, name: str, *parts: bytes, steps: tuple[str, ...] = ()) -> Recipe:
    write(folder / name, *parts)
    value = {"inputs": {"web": {"path": str(folder / name)}}, "steps": list(steps), "text": {"format": "jsonl"}}
    return Recipe.from_value(value)


def test_a_recipe_for_texts_needs_no_extraction(tmp_path: Path) -> None:
    for name in ("a.warc.wet", "a.warc"):  # the second by its records
        (task,) = plan_inputs(recipe(tmp_path, name, *PARTS))
        assert task.pieces[0].format == "wet"
    with pytest.raises(RecipeError, match="put extract_html first"):
        plan_inputs(recipe(tmp_path, "b.warc", INFO, record(1, http(page(1)))))
    (task,) = plan_inputs(recipe(tmp_path, "c.warc", INFO, record(1, http(page(1))), steps=("extract_html",)))
    assert task.pieces[0].format == "warc"
