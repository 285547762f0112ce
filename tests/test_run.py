"""Laws of a run: it adds up, gives the same bytes however it runs, and computes nothing twice."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from small_run import recipe_over

from penstock import InputError, Recipe, RecipeError, ReconciliationError, RequestError, RunError, run
from penstock.pipelines.cli import main
from penstock.pipelines.directory import RunDirectory
from penstock.pipelines.runners import RunnerOptions
from penstock.pipelines.vocabulary import run_tokenizer
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import open_tokens
from penstock.sharding.tools import verify
from penstock.transforms.step import Outcome, StepModel

Value = dict[str, Any]


def go(value: Value, output: Path, **more: Any) -> Value:
    return run(Recipe.from_value(value), output, quiet=True, **more)


def stamps(output: Path, stage: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((output / stage).rglob("receipts/*.json"))}


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Value]:
    """One finished run of the small recipe."""
    output = tmp_path_factory.mktemp("finished")
    return output, go(recipe_over(corpus), output)


@pytest.fixture(scope="module")
def in_small_tasks(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Value:
    """The manifest of a run cut into many tasks, in one process."""
    return go(recipe_over(corpus, task_bytes=20_000), tmp_path_factory.mktemp("alone"))


def test_every_document_is_accounted_for(finished: tuple[Path, Value]) -> None:
    output, manifest = finished
    assert manifest["documents_in"] == 240
    assert (
        manifest["documents_in"]
        == manifest["kept"] + manifest["rejected"] + manifest["duplicates"] + manifest["quarantined"]
    )
    assert manifest["duplicates"] == 40
    assert sum(stream["documents"] for stream in manifest["streams"].values()) == manifest["kept"]
    assert set(manifest["streams"]) == {"train", "validation"}
    assert verify(output)
    assert json.loads((output / "manifest.json").read_bytes()) == manifest
    assert (output / "report.html").stat().st_size > 1000


def test_the_survivors_come_out_as_text_with_their_own_ids(finished: tuple[Path, Value]) -> None:
    output, manifest = finished
    rows = []
    for path in sorted((output / "text" / manifest["stages"]["text"] / "data").iterdir()):
        rows += zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode().splitlines()
    documents = [json.loads(row) for row in rows]
    assert len(documents) == manifest["kept"]
    assert len({document["text"] for document in documents}) == len(documents)
    assert all(document["source_id"].startswith("k") for document in documents)
    assert documents[0]["metadata"]["topic"] in ("t0", "t1")


def test_tokens_decode_to_the_survivors(finished: tuple[Path, Value]) -> None:
    from penstock.sharding.tools import cat

    output, manifest = finished
    documents = list(cat(str(output), limit=None, decode=run_tokenizer(str(output))))
    assert len(documents) == manifest["kept"]
    assert list(cat(output / "tokens", limit=None, decode=run_tokenizer(str(output / "tokens")))) == documents
    by_id = {json.loads(line)["text"] for line in corpus_lines(manifest)}
    assert all(document["text"] in by_id for document in documents)


def corpus_lines(manifest: Value) -> list[str]:
    folder = Path(manifest["recipe"]["inputs"]["docs"]["path"])
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_every_removal_names_what_was_kept(finished: tuple[Path, Value]) -> None:
    output, manifest = finished
    table = pq.read_table(output / manifest["tables"]["clusters"]).to_pylist()
    assert len(table) == manifest["duplicates"]
    removed = {row["id"] for row in table}
    for row in table:
        assert row["kept_id"] not in removed
        assert row["cluster"] == min(row["kept_id"], row["id"])
        assert row["kind"] in ("exact", "near")
        # The smallest of the user's own ids stays, which are mapped here.
        assert (len(row["kept_source_id"]), row["kept_source_id"]) < (len(row["source_id"]), row["source_id"])
        assert row["cluster_size"] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(
    in_small_tasks: Value, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("penstock.pipelines.launcher.IN_PROCESS_BYTES", 0)
    shared = go(recipe_over(corpus, task_bytes=20_000), tmp_path, options=RunnerOptions(workers=workers))
    assert shared["tokens_sha256"] == in_small_tasks["tokens_sha256"]
    assert shared["stages"] == in_small_tasks["stages"]


def test_another_root_changes_nothing(finished: tuple[Path, Value], corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "elsewhere" / "deep")
    for path in (tmp_path / "elsewhere" / "deep").iterdir():
        os.utime(path, ns=(1, 1))
    moved = go(recipe_over(tmp_path / "elsewhere" / "deep"), tmp_path / "out")
    assert moved["tokens_sha256"] == finished[1]["tokens_sha256"]
    assert moved["stages"]["tokens"] == finished[1]["stages"]["tokens"]


def test_a_second_run_computes_nothing(finished: tuple[Path, Value], corpus: Path) -> None:
    output, manifest = finished
    before = {stage: stamps(output, stage) for stage in ("documents", "duplicates", "tokens", "text", "tokenizer")}
    again = go(recipe_over(corpus), output)
    assert {stage: stamps(output, stage) for stage in before} == before
    assert {**again, "cost": 0} == {**manifest, "cost": 0}


def test_a_changed_recipe_starts_where_it_differs(finished: tuple[Path, Value], corpus: Path) -> None:
    output, manifest = finished
    before = stamps(output, "documents")
    changed = go(recipe_over(corpus, dedup={"minhash": None}), output)
    assert stamps(output, "documents") == before
    assert changed["stages"]["documents"] == manifest["stages"]["documents"]
    assert changed["stages"]["duplicates"] != manifest["stages"]["duplicates"]
    assert changed["duplicates"] == 20
    earlier = f"{output}/tokens/{manifest['stages']['tokens']}"
    for look in (run_tokenizer, RunDirectory.open):
        with pytest.raises(RequestError, match="written by an earlier recipe"):  # another tokenizer, other decisions
            look(earlier)
    assert go(recipe_over(corpus), output)["tokens_sha256"] == manifest["tokens_sha256"]
    assert RunDirectory.open(earlier).manifest["stages"] == manifest["stages"]


def test_a_changed_input_is_refused_by_name(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "in")
    go(recipe_over(tmp_path / "in"), tmp_path / "out")
    with (tmp_path / "in" / "part-1.jsonl").open("a") as file:
        file.write('{"text": "one more", "key": "new"}\n')
    with pytest.raises(InputError, match=r"part-1\.jsonl.*changed"):
        go(recipe_over(tmp_path / "in"), tmp_path / "out")


def test_a_new_input_file_computes_itself_only(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "in")
    value = recipe_over(tmp_path / "in", task_bytes=20_000)
    go(value, tmp_path / "out")
    before = stamps(tmp_path / "out", "documents")
    (tmp_path / "in" / "part-9.jsonl").write_text('{"text": "a new file with a text of its own", "key": "new"}\n')
    assert go(value, tmp_path / "out")["documents_in"] == 241
    after = stamps(tmp_path / "out", "documents")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_a_run_that_does_not_add_up_fails_and_names_the_part(corpus: Path, tmp_path: Path) -> None:
    go(recipe_over(corpus), tmp_path)
    receipt = next((tmp_path / "documents").rglob("receipts/*.json"))
    body = json.loads(receipt.read_bytes())
    body["tally"]["kept"] -= 1
    receipt.write_text(json.dumps(body))
    with pytest.raises(ReconciliationError, match=r"docs/part-0\.jsonl.*239"):
        go(recipe_over(corpus), tmp_path)


def test_streams_part_the_data(corpus: Path, tmp_path: Path) -> None:
    value = recipe_over(corpus)
    value["tokens"] = {**value["tokens"], "streams": ["source", "topic"]}
    with pytest.raises(RecipeError, match="topic"):
        go(value, tmp_path / "wrong")
    value["tokens"]["streams"] = ["source"]
    manifest = go(value, tmp_path / "right")
    assert set(manifest["streams"]) == {"train/docs", "validation/docs"}
    value["steps"] = [{"gopher_quality": {"min_stop_words": None}}]
    value["tokens"]["streams"] = [{"column": "gopher_quality.words", "cuts": [150, 300]}]
    bucketed = go(value, tmp_path / "right")
    assert {f"train/gopher_quality.words-{number}" for number in range(3)} <= set(bucketed["streams"])


def test_a_finished_run_takes_one_more_pack_and_stays_the_run_it_is(
    finished: tuple[Path, Value], corpus: Path, tmp_path: Path
) -> None:
    output, manifest = tmp_path / "out", finished[1]
    shutil.copytree(finished[0], output)
    assert main(["pack", str(output), "--length", "32", "--workers", "1"]) == 0
    assert verify(output)["packs"].keys() == {"best_fit-64", "concat-128", "best_fit-32"}
    again = go(recipe_over(corpus), output)
    assert again["tokens_sha256"] == manifest["tokens_sha256"] == open_tokens(output).generation.tokens_sha256
    assert open_tokens(output).generation.number == 1
    for words in (["report"], ["trace", "--shard", "0", "--row", "1", "--pack", "best_fit-32"], ["inspect"]):
        assert main([words[0], str(output), *words[1:]]) == 0
    assert sum(len(batch.tokens) for batch in StreamingLoader(output, 4, pack="best_fit-32", epochs=1)) > 0


def test_small_shards_hold_the_same_documents(finished: tuple[Path, Value], corpus: Path, tmp_path: Path) -> None:
    value = recipe_over(corpus, task_bytes=20_000)
    value["tokens"] = {**value["tokens"], "shard_bytes": 30_000}
    manifest = go(value, tmp_path)
    data = open_tokens(tmp_path)
    assert len([shard for shard in data.generation.shards if shard.stream == "train"]) > 3
    assert manifest["tokens"] == finished[1]["tokens"]
    assert manifest["kept"] == finished[1]["kept"]


def test_keeping_the_longest(corpus: Path, tmp_path: Path) -> None:
    manifest = go(recipe_over(corpus, dedup={"keep": "longest"}), tmp_path)
    lines = {json.loads(line)["key"]: json.loads(line)["text"] for line in corpus_lines(manifest)}
    longer = {key for key, text in lines.items() if text.endswith("with another ending")}
    parts = pq.read_table(tmp_path / manifest["tables"]["parts"]).to_pylist()
    folder = tmp_path / "documents" / manifest["stages"]["documents"]
    rows = [
        row
        for part in parts
        for row in pq.read_table(folder / part["documents_object"], columns=["id", "source_id"]).to_pylist()
    ]
    names = {row["id"]: row["source_id"] for row in rows}
    removed = {names[row["id"]] for row in pq.read_table(tmp_path / manifest["tables"]["clusters"]).to_pylist()}
    assert not removed & longer
    for row in pq.read_table(tmp_path / manifest["tables"]["clusters"]).to_pylist():
        assert (row["source_id"], row["kept_source_id"]) == (names[row["id"]], names[row["kept_id"]])


class DropOdd(StepModel):
    """Drops documents whose key ends in an odd digit, and quarantines one."""

    kind: str = "drop_odd"

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        keys = batch.column("source_id").to_pylist()
        reasons = pa.array(["drop_odd/odd" if key and int(key[1:]) % 2 else None for key in keys], pa.string())
        errors = pa.array(["too curious" if key == "k10" else None for key in keys], pa.string())
        return Outcome(batch, reasons, errors)


@pytest.mark.parametrize("score_rejected", [False, True])
def test_a_step_may_drop_and_quarantine(corpus: Path, tmp_path: Path, score_rejected: bool) -> None:
    manifest = go(recipe_over(corpus, steps=[DropOdd()], score_rejected=score_rejected, rejected_text="all"), tmp_path)
    assert manifest["rejected_by_rule"] == {"drop_odd/odd": 120}
    assert manifest["quarantined"] == 1
    parts = pq.read_table(tmp_path / manifest["tables"]["parts"]).to_pylist()
    folder = tmp_path / "documents" / manifest["stages"]["documents"]
    ledger = pa.concat_tables([pq.read_table(folder / part["ledger_object"]) for part in parts]).to_pylist()
    assert len(ledger) == 240
    assert {row["fate"] for row in ledger} == {"kept", "rejected", "quarantined"}
    assert all(row["text"] for row in ledger if row["fate"] == "rejected")
    assert [row["error"] for row in ledger if row["fate"] == "quarantined"] == ["too curious"]


@pytest.mark.long
def test_listed_records_are_set_aside_unread(corpus: Path, tmp_path: Path) -> None:
    go(recipe_over(corpus, task_bytes=20_000), tmp_path)
    before = stamps(tmp_path, "documents")
    manifest = go(recipe_over(corpus, task_bytes=20_000, quarantine=["docs/part-0.jsonl#0"]), tmp_path)
    assert manifest["quarantined"] == 1
    after = stamps(tmp_path, "documents")
    assert {name: after[name] for name in before} == before  # only the tasks of that file were run again
    assert len(before) < len(after) < 2 * len(before)


class Miscounts(StepModel):
    """Breaks the contract of a step."""

    kind: str = "miscounts"

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        return Outcome(batch.slice(1), pa.nulls(max(0, len(batch) - 1), pa.string()))


class Raises(StepModel):
    """Fails on every batch that has rows."""

    kind: str = "raises"

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        if len(batch):
            raise KeyError("no such thing")
        return Outcome(batch, pa.nulls(0, pa.string()))


def test_a_step_that_breaks_its_contract_fails_the_run_in_words(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"step miscounts got \d+ rows"):
        go(recipe_over(corpus, steps=[Miscounts()]), tmp_path)
    with pytest.raises(RunError, match=r"step raises failed on docs/part-0\.jsonl: KeyError"):
        go(recipe_over(corpus, steps=[Raises()]), tmp_path)


def test_inputs_that_cannot_be_read_are_refused_at_once(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        go(recipe_over(tmp_path / "nowhere"), tmp_path / "out")
    wrong = recipe_over(corpus)
    wrong["inputs"]["docs"]["fields"]["text"] = "body"
    with pytest.raises(InputError, match="body"):
        go(wrong, tmp_path / "out")


def test_an_empty_result_is_a_sentence_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "", "key": "a"}\n')
    with pytest.raises(RequestError, match="no document was kept"):
        go(recipe_over(tmp_path / "in"), tmp_path / "out")


def test_uint16_where_the_vocabulary_fits(finished: tuple[Path, Value]) -> None:
    data = open_tokens(finished[0])
    assert data.generation.vocabulary.dtype == "uint16"
    reader = data.reader(0)
    assert int(np.max(reader.tokens(0, 50))) < 400


@pytest.mark.long
def test_many_tasks_travel_by_name(finished: tuple[Path, Value], corpus: Path, tmp_path: Path) -> None:
    import penstock.pipelines.chunks as module

    value = recipe_over(corpus, task_bytes=20_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 3)
        many = go(value, tmp_path / "many")
    assert list((tmp_path / "many" / "tasks").iterdir())
    assert many["tokens_sha256"] == go(value, tmp_path / "few")["tokens_sha256"]
