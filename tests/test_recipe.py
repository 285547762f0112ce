"""A recipe is refused before anything is read, field by field."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock import InputError, Recipe, RecipeError
from penstock.transforms.gopher import GopherQuality
from penstock.transforms.language import LID_176
from penstock.transforms.readers import list_files
from penstock.transforms.step import Outcome


def refused(value: dict[str, Any], *words: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.from_value(value)
    for word in words:
        assert word in str(error.value), f"{word!r} is not in {error.value}"
    assert "\n" not in str(error.value)


def minimal(**fields: Any) -> dict[str, Any]:
    return {"inputs": {"web": {"path": "x.jsonl"}}, "text": {}, **fields}


def test_an_unknown_field_is_named() -> None:
    refused(minimal(stepz=[]), "stepz", "no such field")


def test_a_threshold_out_of_range_is_named_with_its_value() -> None:
    refused(minimal(steps=[{"language_id": {"minimum": 7}}]), "steps.0", "minimum", "7")


def test_a_validation_share_out_of_range_is_named() -> None:
    refused(minimal(tokenizer={"path": "x"}, tokens={"validation": 1.5}), "tokens.validation", "1.5")


def test_an_unknown_step_names_the_known_ones() -> None:
    refused(minimal(steps=["gofer"]), "gofer", "gopher_quality")


def test_tokens_need_a_tokenizer() -> None:
    refused({"inputs": {"a": {"path": "x"}}, "tokens": {}}, "tokenizer")


def test_a_recipe_that_writes_nothing_is_refused() -> None:
    refused({"inputs": {"a": {"path": "x"}}}, "writes nothing")


def test_the_same_pack_twice_is_refused() -> None:
    refused(minimal(tokenizer={"path": "x"}, tokens={"packs": [{"length": 64}, {"length": 64}]}), "same pack twice")


def test_dedup_that_matches_nothing_is_refused() -> None:
    refused(minimal(dedup={"exact": False, "minhash": None}), "nothing would be matched")


def test_steps_are_values_in_python_and_in_yaml() -> None:
    one = Recipe.from_value(minimal(steps=[{"gopher_quality": {"variant": "fineweb"}}]))
    two = Recipe.from_value(minimal(steps=[GopherQuality(variant="fineweb")]))
    assert one == two
    assert one.fingerprint() == two.fingerprint()
    assert pickle.loads(pickle.dumps(one)) == one
    assert Recipe.from_value(one.model_dump(mode="json")) == one


def test_the_fingerprint_knows_no_paths() -> None:
    here = Recipe.from_value(minimal())
    there = Recipe.from_value({**minimal(), "inputs": {"web": {"path": "/elsewhere/x.jsonl"}}})
    assert here.fingerprint() == there.fingerprint()
    assert here.fingerprint() != Recipe.from_value(minimal(seed=1)).fingerprint()


class Shout:
    """A custom step without a base class: one method is all that is required."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        return Outcome(batch, pa.nulls(len(batch), pa.string()))


def test_a_custom_step_comes_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_steps_a.py").write_text(
        "import pyarrow as pa\nfrom penstock.transforms.step import Outcome\n"
        "class Keep:\n    def apply(self, batch):\n        return Outcome(batch, pa.nulls(len(batch), pa.string()))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = Recipe.from_value(minimal(steps=["own_steps_a:Keep"]))
    assert type(recipe.steps[0]).__name__ == "Keep"
    refused(minimal(steps=["own_steps_a:Kept"]), "own_steps_a:Kept", "cannot be imported")


def test_a_custom_step_is_hashed_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.from_value(minimal(steps=[Shout()]))
    assert recipe.fingerprint() != Recipe.from_value(minimal()).fingerprint()


class Holds:
    """A custom step with state of its own."""

    def __init__(self, words: object) -> None:
        self.words = words

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        return Outcome(batch, pa.nulls(len(batch), pa.string()))


def test_a_custom_steps_state_is_part_of_the_fingerprint() -> None:
    def made(words: object) -> str:
        return Recipe.from_value(minimal(steps=[Holds(words)])).fingerprint()

    assert made(["a"]) == made(["a"]) != made(["b"])
    refused(minimal(steps=[Holds(object())]), "Holds", "fingerprint()")


def test_yaml_is_read_with_overrides_and_inputs(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("inputs: {web: {path: data/x.jsonl}}\ntext: {}\nsteps: [{language_id: {minimum: 0.5}}]\n")
    recipe = Recipe.from_yaml(path, ["steps.0.language_id.minimum=0.7", "seed=4"])
    assert recipe.seed == 4
    assert recipe.steps[0].minimum == 0.7
    assert recipe.inputs["web"].path == str(tmp_path / "data" / "x.jsonl")
    replaced = Recipe.from_yaml(path, inputs=["a/*.jsonl", "more=b.parquet"])
    assert {name: item.path for name, item in replaced.inputs.items()} == {"web": "a/*.jsonl", "more": "b.parquet"}
    with pytest.raises(RecipeError, match=r"steps\.9"):
        Recipe.from_yaml(path, ["steps.9.minimum=1"])


def test_paths_count_from_the_recipes_folder_whatever_replaces_its_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "my [proj]"
    folder.mkdir()
    (folder / "r.yaml").write_text(
        "inputs: {web: {path: in/*.jsonl}}\ntokens: {}\ntokenizer: {path: own.json}\n"
        "steps: [extract_html, {language_id: {model: lid.ftz}}]\n"
    )
    (folder / "lid.ftz").write_bytes(LID_176.read_bytes())
    for inputs in ((), ("a.jsonl",)):
        recipe = Recipe.from_yaml(folder / "r.yaml", inputs=inputs)
        assert recipe.tokenizer is not None
        assert recipe.tokenizer.path == str(folder / "own.json")
        assert recipe.steps[1].model == str(folder / "lid.ftz")
    (folder / "in").mkdir()
    (folder / "in" / "x.jsonl").write_text('{"text": "x"}\n')
    (entry,) = list_files(Recipe.from_yaml(folder / "r.yaml").inputs["web"].path)
    assert entry.path == "x.jsonl"


def test_a_path_with_an_equals_sign_that_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "date=2024").mkdir()
    (tmp_path / "r.yaml").write_text("inputs: {web: {path: x.jsonl}}\ntext: {}\n")
    inputs = Recipe.from_yaml("r.yaml", inputs=["date=2024", "name=other.jsonl"]).inputs
    assert {name: item.path for name, item in inputs.items()} == {"web": "date=2024", "name": "other.jsonl"}


def test_the_fingerprint_knows_a_tokenizer_by_its_bytes(tmp_path: Path) -> None:
    made = []
    for name, body in (("a/t.json", b"{}"), ("b/t.json", b"{}"), ("c/t.json", b'{"more": 1}')):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(body)
        made.append(Recipe.from_value(minimal(tokens={}, tokenizer={"path": str(tmp_path / name)})).fingerprint())
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tokenizer": {"train": {}, "eos": "x"}, "tokens": {}}, ["tokenizer", "`eos` names a token of the file"]),
        ({"tokenizer": {"train": {}}, "tokens": {"streams": [{"column": "x", "cuts": [float("nan")]}]}}, ["cuts"]),
        ({"steps": [{"c4_quality": {"max_word_length": 2**63}}]}, ["max_word_length", "2147483648"]),
        (
            {"steps": [{"gopher_quality": {"min_doc_words": 9, "max_doc_words": 8}}]},
            ["every document would be dropped"],
        ),
        ({"steps": [{"fineweb_quality": {"short_line_length": 2**63}}]}, ["short_line_length", "2147483648"]),
    ],
)
def test_values_that_cannot_be_are_refused(fields: dict[str, Any], said: list[str]) -> None:
    refused(minimal(**fields), *said)


def test_a_fault_is_told_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_value(minimal(tokens={"packs": [{"length": 0}]}, tokenizer={"train": {}}))
    assert "at least 1 item" not in str(caught.value)
    refused(minimal(tokens={"packs": []}, tokenizer={"train": {}}), "tokens.packs", "at least 1 item")


def test_a_recipe_that_is_missing_or_no_yaml_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Recipe.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "twice.yaml").write_text("text: {}\nseed: 1\nseed: 2\n")
    with pytest.raises(RecipeError, match="'seed' stands twice"):
        Recipe.from_yaml(tmp_path / "twice.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="not YAML"):
        Recipe.from_yaml(tmp_path / "bad.yaml")


def test_the_schema_for_editors_is_made() -> None:
    schema = Recipe.model_json_schema()
    assert set(schema["properties"]) >= {"inputs", "steps", "dedup", "tokens"}
