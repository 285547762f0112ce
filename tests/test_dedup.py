"""`penstock dedup` as its users meet it: what stays is the same set, whatever the files, the order and the workers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import CorruptDataError
from penstock.pipelines.cli import main
from penstock.pipelines.dedup import dedup_job, deduplicate
from penstock.pipelines.verify import verify

Row = dict[str, Any]


def documents() -> list[Row]:
    """Give 60 documents: 20 texts, each with a changed word, and a copy with another date."""
    chance, rows = random.Random(4), []
    for number in range(20):
        words = [f"w{chance.getrandbits(30):x}" for _ in range(90)]
        changed = [*words[:45], "changed", *words[45:]]
        for copy, text in enumerate((words, changed, words)):
            url = f"https://example.org/{number % 7}"
            about = {"id": f"{number}-{copy}", "url": url, "date": f"2024-0{copy + 1}-{number + 1:02}", "n": number}
            rows.append({**about, "text": " ".join(text)})
    return rows


def put(folder: Path, rows: list[Row], files: int = 1, kind: str = "jsonl") -> str:
    folder.mkdir()
    for number in range(files):
        mine, path = rows[number::files], folder / f"{number}.{kind}"
        if kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in mine))
        else:
            pq.write_table(pa.Table.from_pylist(mine), path)
    return str(folder / f"*.{kind}")


def written(output: Path) -> list[Row]:
    """Read the documents that were written, in any format."""
    rows: list[Row] = []
    for path in sorted(output.glob("output/*/data/**/*.*")):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += map(json.loads, path.read_text().splitlines())
    return rows


def go(pattern: str, place: Path, **asked: Any) -> Row:
    return deduplicate(dedup_job([pattern], fields={"id": "id"}, **asked), place, quiet=True)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


WAYS = {
    "one file": (1, "jsonl", 0),
    "shuffled": (1, "jsonl", 3),
    "seven files": (7, "jsonl", 5),
    "tables": (3, "parquet", 9),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_documents_stay(way: str, tmp_path: Path) -> None:
    files, kind, seed = WAYS[way]
    rows = documents()
    if seed:
        random.Random(seed).shuffle(rows)
    manifest = go(put(tmp_path / "in", rows, files, kind), tmp_path / "out")
    assert (manifest["documents_in"], manifest["kept"], manifest["duplicates"]) == (60, 20, 40)
    found = written(tmp_path / "out")
    assert sorted(row["id"] for row in found) == sorted(f"{number}-1" for number in range(20))  # the longest
    assert all(row in rows for row in found)
    table = pq.read_table(tmp_path / "out" / manifest["tables"]["clusters"]).to_pylist()
    assert {(row["source_id"], row["kept_source_id"]) for row in table} == {
        (f"{number}-{copy}", f"{number}-1") for number in range(20) for copy in (0, 2)
    }


def test_tasks_and_workers_change_nothing(tmp_path: Path) -> None:
    pattern = put(tmp_path / "in", documents(), 7)
    whole = go(pattern, tmp_path / "whole")
    job = dedup_job([pattern], fields={"id": "id"}).model_copy(update={"task_bytes": 4096})
    parts = deduplicate(job, tmp_path / "parts", quiet=True, workers=1)
    assert whole["kept"] == parts["kept"]
    assert written(tmp_path / "whole") == written(tmp_path / "parts")


@pytest.mark.parametrize(
    ("keep", "copy"),
    [("longest", 1), ("newest", 2), ("smallest_id", 0), (["priority:input", "newest"], 2), ("highest:n", 1)],
)
def test_who_stays_is_an_argument(keep: Any, copy: int, tmp_path: Path) -> None:
    policies = [keep] if isinstance(keep, str) else keep
    if policies == ["highest:n"]:  # all of a cluster have one number
        policies = ["highest:n", "longest"]
    go(put(tmp_path / "in", documents()), tmp_path / "out", dedup={"keep": policies})
    assert {row["id"].partition("-")[2] for row in written(tmp_path / "out")} == {str(copy)}


def test_one_document_a_url_and_a_removal_names_who_stayed(tmp_path: Path) -> None:
    manifest = go(put(tmp_path / "in", documents()), tmp_path / "out", dedup={"url": {}})
    found = written(tmp_path / "out")
    assert len({row["url"] for row in found}) == len(found) == manifest["kept"] == 7
    table = pq.read_table(tmp_path / "out" / manifest["tables"]["clusters"]).to_pylist()
    assert {row["kept_source_id"] for row in table} == {row["id"] for row in found}
    assert len({row["source_id"] for row in table}) == len(table) == 53


def test_marks_instead_of_removal(tmp_path: Path) -> None:
    rows = documents()
    manifest = go(put(tmp_path / "in", rows), tmp_path / "out", output={"annotate": True})
    found = written(tmp_path / "out")
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    assert sum(row["is_duplicate"] for row in found) == manifest["duplicates"] == 40
    assert {row["kept_id"] for row in found} == {f"{number}-1" for number in range(20)}
    assert {row["cluster_size"] for row in found} == {3}
    assert all((row["similarity"] is None) == (not row["is_duplicate"]) for row in found)
    assert all(0.85 < row["similarity"] < 1 for row in found if row["is_duplicate"])


def test_lines_and_substrings_are_cut(tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": f"A menu of ours\nText {number} is its own."} for number in range(3)]
    long = "a sentence that two of them share word for word and letter by letter, so that it is cut from the later one"
    rows += [{"id": "x", "text": f"One: {long}. End."}, {"id": "y", "text": f"Two: {long}. Over."}]
    asked = {"exact": True, "minhash": None, "lines": {}, "substrings": {"length": 50}}
    go(put(tmp_path / "in", rows), tmp_path / "out", dedup=asked)
    texts = {row["id"]: row["text"] for row in written(tmp_path / "out")}
    assert (texts["0"], texts["1"]) == ("A menu of ours\nText 0 is its own.", "Text 1 is its own.")
    assert texts["x"] == rows[3]["text"]
    assert texts["y"] == "TwoOver." or long not in texts["y"]


def test_a_damaged_output_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    go(put(tmp_path / "in", documents()), output)
    assert verify(output)["output"]["files"] == 1
    assert main(["trace", str(output), "--url", "*"]) == 2
    assert "deduplication alone" in capsys.readouterr().err
    assert main(["cat", str(output)]) == 2
    (path,) = output.glob("output/*/data/**/*.jsonl")
    path.write_bytes(path.read_bytes() + b"{}")
    with pytest.raises(CorruptDataError, match="does not match"):
        verify(output)


@pytest.mark.parametrize(("name", "kept"), [("none", 3), ("slimpajama", 2), ("fineweb", 1)])
def test_contents_are_compared_as_a_normalisation_leaves_them(name: str, kept: int, tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": text} for number, text in enumerate(("Öl, 12.5!", "öl 125", "öl, 7"))]
    go(put(tmp_path / "in", rows), tmp_path / "out", dedup={"minhash": None, "normalisation": name})
    assert len(written(tmp_path / "out")) == kept
