"""Functions over a batch as steps: what they may give, what is said of the rest, in YAML and in Python."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from small_run import recipe_over

from penstock import Recipe, RecipeError, RunError, run
from penstock.transforms.function_step import FunctionStep
from penstock.transforms.named import apply_step, dump_step, parse_step, step_fingerprint
from penstock.transforms.step import Outcome, Step, with_columns

BATCH = pa.record_batch({"text": ["one", "one two", "one two three"], "row": [0, 1, 2]})
NONE = [None, None, None]


def drop_short(batch: pa.RecordBatch, minimum: int = 2) -> Any:
    return [len(text.split()) >= minimum for text in batch["text"].to_pylist()]


def by_annotation(documents: pa.RecordBatch) -> Any:
    return drop_short(documents)


def factory(minimum: int) -> Step:
    return FunctionStep(drop_short, minimum=minimum)


def counted(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    words = [len(text.split()) for text in batch["text"].to_pylist()]
    return with_columns(batch, {name: pa.array(words, pa.int64())})


def gives(answer: Callable[[pa.RecordBatch], Any]) -> FunctionStep:
    def odd(batch: pa.RecordBatch) -> Any:
        return answer(batch)

    return FunctionStep(odd)


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (lambda b: [True, False, True], [None, "odd/dropped", None]),
        (lambda b: np.array([True, False, True]), [None, "odd/dropped", None]),
        (lambda b: pc.greater(b["row"], 0), ["odd/dropped", None, None]),
        (lambda b: pa.chunked_array([[True], [False, False]]), [None, "odd/dropped", "odd/dropped"]),
        (lambda b: [None, "short", "length/long"], [None, "odd/short", "length/long"]),
        (lambda b: pa.array(["a", None, None], pa.large_string()), ["odd/a", None, None]),
        (lambda b: np.array(["a", None, None], object), ["odd/a", None, None]),
        (lambda b: [None, None, None], NONE),
        (lambda b: b, NONE),
        (lambda b: Outcome(b, pa.array(["x", None, None])), ["x", None, None]),
    ],
)
def test_what_a_function_may_give(answer: Callable[[pa.RecordBatch], Any], reasons: list[str | None]) -> None:
    outcome = apply_step(gives(answer), BATCH)
    assert outcome.reasons.to_pylist() == reasons
    assert outcome.reasons.type == pa.string()
    assert outcome.batch.equals(BATCH)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda b: None, "odd gave a NoneType; a function over a batch gives a mask of the rows it keeps, an array"),
        (lambda b: {"a": 1}, "odd gave a dict"),
        (lambda b: [1, 2, 3], "odd gave a list of int64"),
        (lambda b: [1, "x", None], "odd gave a list;"),
        (lambda b: [True, None, False], "a mask that is null at row 1: true keeps a row, false drops it"),
        (lambda b: [True], "odd got 3 rows and gave 1 answers; it gives one a row"),
        (lambda b: b.slice(1), "step odd got 3 rows and gave 2 rows"),
    ],
)
def test_other_answers_are_told(answer: Callable[[pa.RecordBatch], Any], words: str) -> None:
    with pytest.raises(RunError, match=words):
        apply_step(gives(answer), BATCH)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FunctionStep(drop_short, least=3), r"drop_short\(batch.*\) .* cannot be called so: .* 'least'"),
        (lambda: FunctionStep(counted), "missing a required argument: 'name'"),
        (lambda: FunctionStep(lambda batch: batch), "a step is a function with a name, not .*: define it with `def`"),
        (lambda: FunctionStep(drop_short, minimum={3}), "the fields of drop_short are JSON values"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_runs(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_named_in_a_recipe_by_its_path() -> None:
    step = parse_step({f"{__name__}:drop_short": {"minimum": 3}})
    assert step == FunctionStep(drop_short, minimum=3)
    assert step.apply(BATCH).reasons.to_pylist() == ["drop_short/dropped", "drop_short/dropped", None]
    assert parse_step(f"{__name__}:by_annotation").apply(BATCH).reasons.null_count == 2
    assert parse_step(drop_short) == parse_step(f"{__name__}:drop_short") == FunctionStep(drop_short)
    assert parse_step({f"{__name__}:factory": {"minimum": 3}}) == step  # a function that makes a step
    assert parse_step(dump_step(step)) == pickle.loads(pickle.dumps(step)) == step != FunctionStep(drop_short)
    with pytest.raises(RecipeError, match=r"steps.0: the step '.*:drop_short' cannot be made: .*'n'"):
        Recipe.from_value({"inputs": {"in": {"path": "x"}}, "text": {},
                           "steps": [{f"{__name__}:drop_short": {"n": 3}}]})  # fmt: skip


def test_told_apart_by_fields_name_and_source() -> None:
    step = FunctionStep(counted, name="n")
    prints = step_fingerprint(step)
    assert prints == {
        "fields": {"name": "n"}, "name": f"{__name__}:counted",
        "source": step_fingerprint(FunctionStep(drop_short))["source"],
    }  # fmt: skip
    assert step_fingerprint(FunctionStep(counted, name="m")) != prints


def test_a_recipe_with_functions_runs_in_workers(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "my_functions.py").write_text(
        "import pyarrow as pa\nfrom penstock.transforms.step import with_columns\n\n"
        "def longer(batch, words):\n    return [len((t or '').split()) > words for t in batch['text'].to_pylist()]\n\n"
        "def lengths(batch):\n    sizes = [len(t or '') for t in batch['text'].to_pylist()]\n"
        "    return with_columns(batch, {'size': pa.array(sizes, pa.int64())})\n"
    )
    value = recipe_over(corpus, tokenizer=None, tokens=None)
    value["steps"] = [{"my_functions:longer": {"words": 200}}, "my_functions:lengths"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(value))
    manifest = run(Recipe.from_yaml(tmp_path / "recipe.yaml"), tmp_path / "out", workers=2, quiet=True)
    assert manifest["steps"] == ["longer", "lengths"]
    assert manifest["rejected_by_rule"] == {"longer/dropped": manifest["rejected"]}
    assert 0 < manifest["rejected"] < manifest["documents_in"]
