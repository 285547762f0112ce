"""Edits survive into a run: kept beside what is published, undone from there, and never in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from penstock import CorruptDataError, Recipe, run
from penstock.pipelines.trace_url import trace_url
from penstock.pipelines.verify import verify
from penstock.sharding.dataset import open_tokens
from penstock.sharding.documents import Documents
from penstock.transforms.edits import undo

STEPS = [{"redact_pii": {"kinds": ["email"]}}]
FINAL = [{"redact_pii": {"kinds": ["ip", "phone"], "replace": "pseudonym"}}]
WORDS = "plain words of a page that nobody has ever had to hide from anybody at all"
PIECES = ("jo@example.org", "8.8.8.8", "+1 202-555-0143")


def recipe(folder: Path, **fields: Any) -> Recipe:
    lines = []
    for number in range(60):
        held = [f"{piece} {number}" if number % (place + 2) == 0 else "-" for place, piece in enumerate(PIECES)]
        text = f"{number} {WORDS} {' '.join(held)}"
        lines.append(json.dumps({"text": text, "key": str(number), "url": f"https://example.org/{number}/"}))
    if not (folder / "in.jsonl").exists():
        (folder / "in.jsonl").write_text("\n".join(lines))
    value = {
        "inputs": {"in": {"path": str(folder / "in.jsonl"), "fields": {"id": "key"}}},
        "task_bytes": 4000,
        "steps": STEPS,
        "final": FINAL,
        "text": {"format": "jsonl"},
        "tokenizer": {"train": {"vocab_size": 400}},
        "tokens": {"validation": 0.2, "packs": [{"length": 64}]},
        **fields,
    }
    return Recipe.from_value(value)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("edited")
    return folder / "out", run(recipe(folder), folder / "out", quiet=True)


def texts(out: Path, manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was published as text, by id."""
    found = {}
    for path in sorted((out / "text" / manifest["stages"]["text"] / "data").iterdir()):
        for line in zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().splitlines():
            row = json.loads(line)
            found[row["id"]] = row
    return found


def kept(out: Path, stage: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The edits beside a stage's objects, by id."""
    folder = out / stage / manifest["stages"][stage] / "edits"
    rows = [row for path in sorted(folder.iterdir()) for row in pq.read_table(path).to_pylist()]
    return {row["id"].hex(): row["edits"] for row in rows}


def documents(out: Path, manifest: dict[str, Any], column: str) -> dict[str, dict[str, Any]]:
    folder = out / "documents" / manifest["stages"]["documents"]
    parts = pq.read_table(out / manifest["tables"]["parts"]).to_pylist()
    assert len(parts) > 1
    rows = [row for part in parts for row in pq.read_table(folder / part[column]).to_pylist()]
    return {row["id"].hex(): row for row in rows}


def test_a_published_text_goes_back_to_what_was_read(made: tuple[Path, dict[str, Any]]) -> None:
    out, manifest = made
    first, last = documents(out, manifest, "documents_object"), kept(out, "text", manifest)
    source = [json.loads(line)["text"] for line in (out.parent / "in.jsonl").read_text().splitlines()]
    for name, row in texts(out, manifest).items():
        middle = undo(row["text"], last.get(name))
        assert middle == first[name]["text"]
        assert undo(middle, first[name]["edits"]) == source[int(row["source_id"])]
    assert len(texts(out, manifest)) == 60
    assert len(last) == 30  # every third has an address, every fourth a number, every twelfth both
    assert {one["round"] for edits in last.values() for one in edits} == {0}


def test_ledger_and_documents_have_the_edits_of_steps(made: tuple[Path, dict[str, Any]]) -> None:
    out, manifest = made
    rows = documents(out, manifest, "ledger_object")
    assert {name: row["edits"] for name, row in rows.items()} == {
        name: row["edits"] for name, row in documents(out, manifest, "documents_object").items()
    }
    assert sum(row["redact_pii.email"] for row in rows.values()) == 30


def test_nothing_that_was_hidden_is_published(made: tuple[Path, dict[str, Any]]) -> None:
    out, manifest = made
    for row in texts(out, manifest).values():
        assert "edits" not in row
        assert not any(piece in json.dumps(row) for piece in PIECES)
    shown = Documents(open_tokens(str(out)))
    for shard in range(len(shown.data.generation.shards)):
        assert "edits" not in shown.table(shard).schema_arrow.names
    assert {entry.stream for entry in shown.data.generation.shards} == {"train", "validation"}


def test_tokens_and_text_keep_the_same_edits(made: tuple[Path, dict[str, Any]]) -> None:
    out, manifest = made
    assert kept(out, "tokens", manifest) == kept(out, "text", manifest)


def test_trace_shows_scores_and_not_what_was_taken_out(made: tuple[Path, dict[str, Any]]) -> None:
    (record,) = trace_url(str(made[0]), "https://example.org/0/")["records"]
    assert record["scores"] == {"redact_pii.email": 1}


def test_a_run_of_what_stands_keeps_its_edits(made: tuple[Path, dict[str, Any]]) -> None:
    out, manifest = made
    again = run(recipe(out.parent), out, quiet=True)
    assert again["tokens_sha256"] == manifest["tokens_sha256"]


@pytest.mark.parametrize("stage", ["text", "tokens"])
def test_verify_reads_the_edits(tmp_path: Path, stage: str) -> None:
    manifest = run(recipe(tmp_path), tmp_path / "out", quiet=True)
    report = verify(tmp_path / "out")
    assert report["text_edits"] > 1
    assert report["tokens_edits"] == 1
    (path, *_) = (tmp_path / "out" / stage / manifest["stages"][stage] / "edits").iterdir()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptDataError, match=rf"{stage}/.*edits-.* does not match the SHA-256"):
        verify(tmp_path / "out")
    path.unlink()
    with pytest.raises(CorruptDataError, match=f"lost edits/{path.name}"):
        run(recipe(tmp_path), tmp_path / "out", quiet=True)


def test_without_edits_there_is_no_such_file(tmp_path: Path) -> None:
    final = [{"redact_pii": {"record_edits": False}}]
    manifest = run(recipe(tmp_path, steps=[], final=final, text={"format": "parquet"}), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "text" / manifest["stages"]["text"] / "edits").exists()
    data = sorted((tmp_path / "out" / "text" / manifest["stages"]["text"] / "data").iterdir())
    whole = pa.concat_tables(pq.read_table(path) for path in data)
    assert "edits" not in whole.column_names
    assert sum(whole["redact_pii.email"].to_pylist()) == 30
    assert "text_edits" not in verify(tmp_path / "out")
