"""A run that lost or changed a piece of itself says which, and mends it where it can; no number goes unchecked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_run import recipe_over

from penstock import CorruptDataError, PenstockError, Recipe, ReconciliationError, run
from penstock.pipelines.cli import main
from penstock.pipelines.heartbeat import deaths
from penstock.pipelines.trace_url import trace_url
from penstock.pipelines.verify import verify
from penstock.pipelines.views import removals
from penstock.sharding.dataset import open_tokens
from penstock.sharding.npy import npy_array, npy_bytes
from penstock.sharding.store import Store

Value = dict[str, Any]
TOKENIZER = Path(__file__).parent / "data" / "tokenizers" / "byte_level.json"


def go(value: Value, output: Path) -> Value:
    return run(Recipe.from_value(value), output, quiet=True)


@pytest.fixture(scope="module")
def standing(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Value, Path]:
    """A finished run of several parts and shards."""
    tokens = {"validation": 0.2, "shard_bytes": 60_000, "packs": [{"length": 64}]}
    value = recipe_over(corpus, task_bytes=60_000, tokens=tokens)
    folder = tmp_path_factory.mktemp("standing")
    go(value, folder)
    return value, folder


@pytest.fixture
def value(standing: tuple[Value, Path]) -> Value:
    return standing[0]


@pytest.fixture
def output(standing: tuple[Value, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(standing[1], tmp_path / "run")
    return tmp_path / "run"


def receipts(output: Path, stage: str, prefix: str) -> list[Path]:
    found = sorted((output / stage).rglob(f"receipts/{prefix}*.json"))
    assert found
    return found


@pytest.mark.parametrize(
    ("stage", "prefix"),
    [("documents", ""), ("duplicates", "sign-"), ("duplicates", "clusters"), ("text", "text-"),
     ("tokenizer", "tokenizer"), ("tokens", "shard-"), ("tokens", "validation-")],
)  # fmt: skip
def test_a_receipt_that_was_removed_is_made_again(output: Path, value: Value, stage: str, prefix: str) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    lost = receipts(output, stage, prefix)[0]
    body = json.loads(lost.read_text())
    lost.unlink()
    assert {**go(value, output), "cost": 0} == {**manifest, "cost": 0}
    assert {**json.loads(lost.read_text()), "cost": 0} == {**body, "cost": 0}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\x00", b'{"a":1}'], ids=repr)
@pytest.mark.parametrize(("stage", "prefix"), [("documents", ""), ("duplicates", "sign-"), ("tokens", "shard-")])
def test_a_damaged_receipt_is_named_with_the_way_out(
    output: Path, value: Value, stage: str, prefix: str, body: bytes
) -> None:
    hurt = receipts(output, stage, prefix)[0]
    hurt.write_bytes(body)
    with pytest.raises(CorruptDataError, match=rf"{hurt.name} is damaged: .*remove it and run the same command again"):
        go(value, output)
    hurt.unlink()
    go(value, output)
    verify(output)


def test_a_damaged_table_is_named(output: Path, value: Value) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    hurt = next((output / "documents" / manifest["stages"]["documents"] / "data").glob("documents-*.parquet"))
    body = bytearray(hurt.read_bytes())
    body[len(body) // 3 :] = bytes(len(body) - len(body) // 3)
    hurt.write_bytes(bytes(body))
    for receipt in (*receipts(output, "text", ""), *receipts(output, "tokens", "shard-")):
        receipt.unlink()
    with pytest.raises(CorruptDataError, match=rf"{hurt.name} cannot be read as Parquet: .*restore it from a copy"):
        go(value, output)


def leaf(receipt: Value, *path: Any) -> tuple[Any, Any]:
    at: Any = receipt
    for part in path[:-1]:
        at = at[part]
    return at, path[-1]


def first(named: Value) -> str:
    return next(iter(named))


#: Every number that a receipt of a finished run gives, and that another number must agree with.
TAMPERED: dict[str, tuple[str, str, Callable[[Value], tuple[Any, Any]]]] = {
    "records met": ("documents", "", lambda r: leaf(r, "tally", "documents_in")),
    "ids met": ("documents", "", lambda r: leaf(r, "tally", "id_sum_in")),
    "documents kept": ("documents", "", lambda r: leaf(r, "tally", "kept")),
    "the funnel": ("documents", "", lambda r: leaf(r, "tally", "funnel", first(r["tally"]["funnel"]), 0)),
    "languages": ("documents", "", lambda r: leaf(r, "tally", "languages", first(r["tally"]["languages"]), 0)),
    "a row group": ("documents", "", lambda r: leaf(r, "row_groups", 0, "documents")),
    "a row group's ids": ("documents", "", lambda r: leaf(r, "row_groups", 0, "id_sum")),
    "duplicates": ("duplicates", "clusters", lambda r: leaf(r, "duplicates")),
    "duplicates' ids": ("duplicates", "clusters", lambda r: leaf(r, "id_sum")),
    "text": ("text", "text-", lambda r: leaf(r, "documents")),
    "text's ids": ("text", "text-", lambda r: leaf(r, "id_sum")),
    "text dropped": ("text", "text-", lambda r: leaf(r, "row_groups", 0, "dropped")),
    "text kept": ("text", "text-", lambda r: leaf(r, "row_groups", 0, "kept_id_sum")),
    "a shard": ("tokens", "shard-", lambda r: leaf(r, "documents")),
    "a shard's ids": ("tokens", "shard-", lambda r: leaf(r, "id_sum")),
    "a shard's entry": ("tokens", "shard-", lambda r: leaf(r, "shard", "documents")),
    "trained on": ("tokens", "shard-", lambda r: leaf(r, "row_groups", 0, "train")),
    "trained on, ids": ("tokens", "shard-", lambda r: leaf(r, "row_groups", 0, "train_id_sum")),
    "held out": ("tokens", "shard-", lambda r: leaf(r, "row_groups", 0, "validation")),
    "held out, ids": ("tokens", "shard-", lambda r: leaf(r, "row_groups", 0, "validation_id_sum")),
    "a slice": ("tokens", "shard-", lambda r: leaf(r, "validation", "rows")),
    "validation": ("tokens", "validation-", lambda r: leaf(r, "documents")),
    "validation's ids": ("tokens", "validation-", lambda r: leaf(r, "id_sum")),
    "validation's entry": ("tokens", "validation-", lambda r: leaf(r, "shard", "documents")),
}


@pytest.mark.parametrize("name", list(TAMPERED))
def test_every_number_of_a_receipt_is_held_to_another(name: str, standing: tuple[Value, Path]) -> None:
    value, folder = standing
    stage, prefix, find = TAMPERED[name]
    path = receipts(folder, stage, prefix)[0]
    body = path.read_text()
    receipt = json.loads(body)
    holder, key = find(receipt)
    holder[key] = str(int(holder[key]) + 1) if isinstance(holder[key], str) else holder[key] + 1
    path.write_text(json.dumps(receipt))
    try:
        with pytest.raises(ReconciliationError, match="does not add up"):
            go(value, folder)
    finally:
        path.write_text(body)


@pytest.mark.long
def test_a_removal_list_that_names_other_documents_is_refused(value: Value, tmp_path: Path) -> None:
    """As many documents go as should, but others: only the sums of ids can tell."""
    go({**value, "text": {"format": "parquet"}}, tmp_path)
    listed = next((tmp_path / "duplicates").rglob("removals-*.npy"))
    rows = npy_array(listed.read_bytes(), np.dtype("<u8")).copy()
    bounds = npy_array(next((tmp_path / "duplicates").rglob("bounds-*.npy")).read_bytes(), np.dtype("<u8"))
    part = int(np.flatnonzero(np.diff(bounds.astype(np.int64)))[0])
    inside = rows[int(bounds[part]) : int(bounds[part + 1])]
    inside[0] = next(row for row in range(200) if row not in inside.tolist())
    inside.sort()
    listed.write_bytes(npy_bytes(rows))
    removals.cache_clear()
    with pytest.raises(ReconciliationError, match="id sum dropped ≠ that of duplicates"):
        go(value, tmp_path)


def test_parts_that_keep_nothing_are_told_apart(tmp_path: Path) -> None:
    """Files of no documents have equal bytes and so one name; their records are others."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        count = 300 if name == "c" else 3
        lines = [{"text": f"{name} " * count + str(n), "url": f"https://{name}.example/{n}"} for n in range(5)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    value = {
        "name": "parts", "inputs": {"in": {"path": str(folder)}}, "task_bytes": 256, "text": {},
        "steps": [{"gopher_quality": {"min_stop_words": None, "min_doc_words": 50, "min_avg_word_length": None}}],
    }  # fmt: skip
    manifest = go(value, tmp_path / "out")
    assert (manifest["documents_in"], manifest["kept"]) == (15, 5)
    parts = pq.read_table(tmp_path / "out" / manifest["tables"]["parts"]).to_pylist()
    assert len(parts) > 3
    assert {part["path"] for part in parts} == {"a.jsonl", "b.jsonl", "c.jsonl"}
    for name in ("a", "b", "c"):
        found = trace_url(str(tmp_path / "out"), f"{name}.example")
        assert len(found["records"]) == 5, name


@pytest.mark.long
@pytest.mark.parametrize("change", ["eos", "name"])
def test_another_end_of_document_begins_the_tokens_anew(corpus: Path, tmp_path: Path, change: str) -> None:
    """It stands in every shard's header: a resume must not mix two of them."""
    eos = ["<|endoftext|>", "<|startoftext|>"] if change == "eos" else ["<|endoftext|>"] * 2
    other = tmp_path / "other.json"
    other.write_bytes(TOKENIZER.read_bytes())
    paths = [str(TOKENIZER), str(other) if change == "name" else str(TOKENIZER)]
    made = []
    for path, end in zip(paths, eos, strict=True):
        made.append(go(recipe_over(corpus, tokenizer={"path": path, "eos": end}), tmp_path / "run"))
        held = open_tokens(tmp_path / "run").generation.vocabulary
        assert held.name == Path(path).name
        verify(tmp_path / "run")
    assert made[0]["stages"]["tokens"] != made[1]["stages"]["tokens"]
    assert made[0]["stages"]["documents"] == made[1]["stages"]["documents"]
    assert (made[0]["tokens_sha256"] == made[1]["tokens_sha256"]) is (change == "name")


def test_a_lost_object_is_a_failed_run_with_a_way_out(
    output: Path, value: Value, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((output / "manifest.json").read_text())
    next((output / "documents" / manifest["stages"]["documents"] / "data").glob("documents-*.parquet")).unlink()
    for receipt in receipts(output, "text", ""):
        receipt.unlink()
    import yaml

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(value))
    assert main(["run", str(tmp_path / "recipe.yaml"), "--output", str(output), "--quiet"]) == 1
    assert "there is no such object; where a run's folder has lost it" in capsys.readouterr().err


#: Where a run's results lie.
RESULTS = {"text": "text/*/data/*", "clusters": "duplicates/*/clusters-*", "a shard": "tokens/*/data/*.bin"}


@pytest.mark.parametrize("result", RESULTS)
def test_a_lost_result_is_missed_by_the_next_run_and_by_verify(output: Path, value: Value, result: str) -> None:
    assert verify(output)["verified"]
    lost = sorted(output.glob(RESULTS[result]))[0]
    lost.unlink()
    with pytest.raises(PenstockError, match=lost.name):
        verify(output)
    stage = lost.parent.parent if lost.parent.name == "data" else lost.parent
    with pytest.raises(CorruptDataError, match=rf"{stage} has lost .*{lost.name}: .* or remove that folder and run"):
        go(value, output)
    shutil.rmtree(stage)
    go(value, output)
    assert lost.exists()
    assert verify(output)["verified"]


@pytest.mark.parametrize(
    ("table", "maker"),
    [("text/*/data/*", "text/*"), ("duplicates/*/clusters-*", "duplicates/*"), ("documents/*/parts-*", "")],
)
def test_verify_names_what_is_damaged_and_its_way_out_works(output: Path, value: Value, table: str, maker: str) -> None:
    hurt = next(output.glob(table))
    hurt.write_bytes(hurt.read_bytes()[:-1] + b"?")
    remove = next(output.glob(maker)) if maker else hurt
    with pytest.raises(
        CorruptDataError, match=rf"{hurt.name} does not match the SHA-256 .*, or remove {remove} and run"
    ):
        verify(output)
    shutil.rmtree(remove) if remove.is_dir() else remove.unlink()
    go(value, output)
    assert verify(output)["verified"]


def test_verify_counts_the_texts(output: Path) -> None:
    receipts(output, "text", "")[0].unlink()
    with pytest.raises(CorruptDataError, match=r"its receipts name \d+ documents, the manifest says \d+ were kept"):
        verify(output)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"cost": 1}'], ids=repr)
def test_verify_names_a_damaged_receipt_of_the_texts(output: Path, value: Value, body: bytes) -> None:
    hurt = receipts(output, "text", "")[0]
    hurt.write_bytes(body)
    with pytest.raises(
        CorruptDataError, match=rf"{hurt.name} is damaged: .*; remove it and run the same command again"
    ):
        verify(output)
    hurt.unlink()
    go(value, output)
    assert verify(output)["verified"]


def test_a_run_of_text_alone_is_verified(corpus: Path, tmp_path: Path) -> None:
    value = recipe_over(corpus)
    manifest = go({name: field for name, field in value.items() if name not in ("tokens", "tokenizer")}, tmp_path)
    report = verify(str(tmp_path))
    assert (report["verified"], report["text"]["documents"]) == (True, manifest["kept"])
    assert report["text"]["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("text/*/data/*"))


@pytest.mark.long
def test_the_environment_is_left_as_it_was(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/as/it/was")
    before = dict(os.environ)
    go(recipe_over(corpus), tmp_path)
    assert dict(os.environ) == before


def test_a_process_that_lives_has_not_died(tmp_path: Path) -> None:
    import socket

    folder = tmp_path / ".heartbeat"
    folder.mkdir()
    at = {"source": "s", "path": "p", "first": 1, "last": 1}
    for name, process in (("lives", [socket.gethostname(), os.getppid()]), ("elsewhere", ["another-host", 1]),
                          ("gone", [socket.gethostname(), 2**22 + 5])):  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps({"stage": "documents", "at": {**at, "path": name},
                                                         "process": process}))  # fmt: skip
    said = " ".join(deaths(Store(tmp_path)))
    assert "s/gone#1" in said
    assert "s/elsewhere#1" in said
    assert "lives" not in said
