"""Steps of the user's own: what they must keep to is said in a sentence, before the run where it can be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from small_run import recipe_over

from penstock import Recipe, RecipeError, RunError, run
from penstock.transforms.named import parse_step
from penstock.transforms.step import Outcome, with_columns


def nothing(batch: pa.RecordBatch) -> pa.Array:
    return pa.nulls(len(batch), pa.string())


class Untyped:
    """Adds a column whose type an empty batch does not tell."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        lengths = pa.array([len(text) for text in batch["text"].to_pylist()])
        return Outcome(with_columns(batch, {"length": lengths}), nothing(batch))


class Bare:
    """Gives a batch and no outcome."""

    def apply(self, batch: pa.RecordBatch) -> Any:
        return batch


class Drops:
    """Drops a column."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        return Outcome(batch.drop_columns(["url"]), nothing(batch))


class Takes:
    """Adds a column of a name that is taken."""

    def __init__(self, name: str) -> None:
        self.name = name

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        return Outcome(with_columns(batch, {self.name: nothing(batch)}), nothing(batch))


class Forgets:
    """Leaves some documents without text."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        kept = pa.array([None if key in ("k3", "k4") else text
                         for key, text in zip(batch["source_id"].to_pylist(), batch["text"].to_pylist(), strict=True)],
                        pa.string())  # fmt: skip
        return Outcome(with_columns(batch, {"text": kept}), nothing(batch))


class SetsAside:
    """Finds an error."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        errors = pa.array(["odd" if row == 0 else None for row in range(len(batch))], pa.string())
        return Outcome(batch, nothing(batch), errors)


class Dates:
    """Adds a column that JSON has no type for."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        return Outcome(with_columns(batch, {"day": pa.array([19_000] * len(batch), pa.date32())}), nothing(batch))


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Untyped(), "step Untyped adds the column 'length' without a type where a batch is empty"),
        (Drops(), "step Drops drops the column 'url'"),
        *((Takes(name), f"step Takes adds a column '{name}', which penstock keeps for itself")
          for name in ("fate", "stream", "bytes", "step", "error", "ordinal", "end", "rule")),
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)  # fmt: skip
def test_columns_that_cannot_be_kept_are_refused_before_anything_is_read(
    corpus: Path, tmp_path: Path, step: Any, words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        run(Recipe.from_value(recipe_over(corpus, steps=[step])), tmp_path / "out", quiet=True)
    assert not list(tmp_path.rglob("documents-*"))


def test_what_is_no_outcome_is_told(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"step Bare gave a RecordBatch; apply\(batch\) gives Outcome"):
        run(Recipe.from_value(recipe_over(corpus, steps=[Bare()])), tmp_path, quiet=True)


def test_a_document_that_a_step_leaves_without_text_is_set_aside(corpus: Path, tmp_path: Path) -> None:
    manifest = run(Recipe.from_value(recipe_over(corpus, steps=[Forgets()])), tmp_path, quiet=True)
    assert manifest["quarantined"] == 2
    assert manifest["kept"] + manifest["duplicates"] == 238
    parts = pq.read_table(tmp_path / manifest["tables"]["parts"]).to_pylist()
    folder = tmp_path / "documents" / manifest["stages"]["documents"]
    ledger = [row for part in parts for row in pq.read_table(folder / part["ledger_object"]).to_pylist()]
    assert [row["error"] for row in ledger if row["fate"] == "quarantined"] == ["no step gave it a text"] * 2


@pytest.mark.parametrize(
    ("step", "words"), [(SetsAside(), r"set a document aside \(odd\)"), (Forgets(), "without text")]
)
def test_a_final_step_only_edits(corpus: Path, tmp_path: Path, step: Any, words: str) -> None:
    with pytest.raises(RunError, match=words):
        run(Recipe.from_value(recipe_over(corpus, final=[step])), tmp_path, quiet=True)


def test_values_that_json_has_not_are_written_as_text(corpus: Path, tmp_path: Path) -> None:
    value = recipe_over(corpus, steps=[Dates()], tokenizer=None, tokens=None)
    manifest = run(Recipe.from_value(value), tmp_path, quiet=True)
    (path, *_) = (tmp_path / "text" / manifest["stages"]["text"] / "data").iterdir()
    body = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read()
    assert json.loads(body.splitlines()[0])["day"] == "2022-01-08"


def test_half_a_surrogate_pair_is_written_as_json_escapes_it(tmp_path: Path) -> None:
    """An emoji cut in two, as it stands on the web."""
    (tmp_path / "a.jsonl").write_text('{"text": "one two three", "title": "cut \\ud83d"}\n')
    value = {"inputs": {"in": {"path": str(tmp_path / "a.jsonl")}}, "text": {"format": "jsonl"}}
    manifest = run(Recipe.from_value(value), tmp_path / "out", quiet=True)
    (path,) = (tmp_path / "out" / "text" / manifest["stages"]["text"] / "data").iterdir()
    body = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read()
    assert json.loads(body)["metadata"] == {"title": "cut \ud83d"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1: {}}, "a step is a name or one `name: fields` pair"),
        ({None: {}}, "a step is a name or one `name: fields` pair"),
        ({"language_id": {True: 2}}, "the fields of language_id have names, not True"),
    ],
)
def test_names_that_yaml_made_other_things_of_are_told(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_step(value)


def test_a_step_without_a_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {"__name__": "__nowhere__"}
    monkeypatch.setitem(sys.modules, "__nowhere__", ModuleType("__nowhere__"))
    exec("class Typed:\n    def apply(self, batch): ...", made)
    with pytest.raises(ValueError, match=r"the step Typed has no source file, .* put it into a module"):
        parse_step(made["Typed"]())
