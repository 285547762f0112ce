"""`penstock.testing`: penstock's own steps pass its suites, and each of its tests fails for a step that breaks it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from penstock import transforms
from penstock.testing import ODD_TEXTS, FilterConformance, StepConformance
from penstock.transforms import KINDS
from penstock.transforms.function_step import FunctionStep
from penstock.transforms.language import LID_176
from penstock.transforms.named import build_step, step_class
from penstock.transforms.step import Filter, Outcome, Scores, Step, above, first_reason, with_columns

EXAMPLES = Path(__file__).parents[1] / "examples" / "data"
#: Fields of steps that cannot be made, or have nothing to do, without.
FIELDS: dict[str, dict[str, Any]] = {
    "language_score": {"minimum": 0.5},
    "multilingual": {"preset": "fineweb2", "recipes": {"en": ["gopher_quality", "c4_quality"], "de": []}},
    "bad_words": {"lists": str(EXAMPLES / "bad-words.txt")},
    "url_filter": {
        "domains": str(EXAMPLES / "urls" / "domains.txt"),
        "subwords": str(EXAMPLES / "urls" / "subwords.txt"),
    },
    "decontaminate": {"benchmarks": str(EXAMPLES / "riddles.jsonl")},
    "quality_classifier": {"model": str(LID_176), "label": "en", "minimum": 0.5},
}
#: Steps whose libraries may be missing: their own tests hold them to the suite.
ELSEWHERE = {"perplexity"}


def suite_of(kind: str) -> type[StepConformance]:
    """Make the suite of one of penstock's kinds of steps."""
    base = FilterConformance if issubclass(step_class(kind), Filter) else StepConformance

    class Suite(base):  # type: ignore[misc,valid-type]
        def step(self) -> Step:
            return build_step(kind, FIELDS.get(kind, {}))

        def columns(self, rows: int) -> Mapping[str, pa.Array]:
            languages = [("en", "fr", "de", None)[row % 4] for row in range(rows)]
            pages = ["<p>A page.</p>" if row % 3 else None for row in range(rows)]
            urls = (None, "https://casino.example/a", "http://b.example")
            return {
                "language": pa.array(languages, pa.string()),
                "language_score": pa.array([(row % 5) / 4 for row in range(rows)], pa.float64()),
                "url": pa.array([urls[row % 3] for row in range(rows)], pa.string()),
                **({"html": pa.array(pages, pa.string())} if kind == "extract_html" else {}),
            }

    Suite.__name__ = Suite.__qualname__ = f"Test{KINDS[kind]}"
    return Suite


for _kind in [kind for kind in KINDS if kind not in ELSEWHERE]:
    _suite = suite_of(_kind)
    globals()[_suite.__name__] = _suite
del _suite


class Shouting(Filter):
    """A filter as a user writes one."""

    kind: Literal["shouting"] = "shouting"
    maximum: float = 0.5

    def measure(self, batch: pa.RecordBatch) -> Scores:
        texts = [text or "" for text in batch["text"].to_pylist()]
        return {"capitals": np.array([sum(map(str.isupper, text)) / max(1, len(text)) for text in texts], np.float64)}

    def decide(self, scores: Scores) -> pa.StringArray:
        return first_reason({"shouting/capitals": above(scores["capitals"], self.maximum)})


class TestAFilterOfOnesOwn(FilterConformance):
    def step(self) -> Step:
        return Shouting()

    def texts(self) -> Sequence[str]:
        return [*ODD_TEXTS.values(), "LOUD"]


def brief(batch: pa.RecordBatch, most: int) -> Any:
    return pc.less_equal(pc.utf8_length(pc.fill_null(batch["text"].cast(pa.large_string()), "")), most)


class TestAFunctionOfOnesOwn(StepConformance):
    def step(self) -> Step:
        return FunctionStep(brief, most=100)


sys.path.append(str(Path(__file__).parent.parent / "examples"))  # as a recipe's folder is


class TestSymbolLines(StepConformance):
    """The edit of examples/fineweb2.yaml."""

    def step(self) -> Step:
        return FunctionStep(import_module("fineweb2_steps").symbol_lines, symbols="|")

    def texts(self) -> Sequence[str]:
        return [*ODD_TEXTS.values(), "a\n| |\n||\nb\n|", "| a", "\n|\n \n"]

    def test_lines_of_symbols_become_a_break(self) -> None:
        edited = self._apply(self.batch()).batch["text"].to_pylist()[-3:]
        assert edited == ["a\n\n\nb\n\n", "| a", "\n\n\n "]


class Broken:
    """A step that breaks the promise of its name."""

    def __init__(self, how: str) -> None:
        self.how, self.met = how, 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Broken) and self.how == other.how != "equality"

    def fingerprint(self) -> dict[str, Any]:
        return {"how": self.how, "at": [repr(object())] if self.how == "address" else time.perf_counter_ns() // 1
                if self.how == "clock" else 0}  # fmt: skip

    def __reduce__(self) -> Any:
        return (Broken, ("other" if self.how == "pickle" else self.how,))

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        self.met += 1
        texts = batch["text"]
        reasons: list[str | None] = [None] * len(batch)
        if self.how == "memory" and self.met > 1:
            reasons = ["b/again"] * len(batch)
        elif self.how == "neighbour":
            held = texts.to_pylist()
            reasons = ["b/twice" if text in held[:row] else None for row, text in enumerate(held)]
        elif self.how == "buffers":
            begins: Any = np.frombuffer(texts.buffers()[1], np.int32)[: len(batch)] if len(batch) else []
            reasons = ["b/first" if begin == 0 else None for begin in begins]
        elif self.how == "batch":
            reasons = [f"b/{len(batch)}"] * len(batch)
        elif self.how == "null":
            reasons = ["b/long" if len(text) > 9 else None for text in texts.to_pylist()]
        elif self.how == "type" and len(batch):
            reasons = ["b/large" if pa.types.is_large_string(texts.type) else None] * len(batch)
        elif self.how == "columns":
            batch = with_columns(batch, {"own": pa.array([1.0] * len(batch))} if len(batch) else {})
        elif self.how == "loses":
            batch = batch.drop_columns(["url"])
        elif self.how == "rows":
            batch, reasons = batch.slice(1), reasons[1:]
        elif self.how == "order":
            batch = batch.take(pa.array(range(len(batch))[::-1], pa.int64()))
        elif self.how == "writes" and len(batch):
            # as a kernel might that is given an address
            ctypes.c_int64.from_address(batch["place"].buffers()[1].address).value += 1
        elif self.how == "raises":
            reasons = [None if text.encode("ascii") else "b/x" for text in texts.to_pylist()]
        return Outcome(batch, pa.array(reasons, pa.string()))


class BrokenFilter(Shouting):
    """A filter that breaks the promise of its name."""

    how: str

    def measure(self, batch: pa.RecordBatch) -> Scores:
        words = {"words": np.zeros(len(batch), "datetime64[s]")} if self.how == "numbers" else {}
        return {**super().measure(batch), **words}

    def decide(self, scores: Scores) -> pa.StringArray:
        reasons = super().decide(scores)
        return pc.replace_substring(reasons, "shouting/", "") if self.how == "names" else reasons

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        outcome = super().apply(batch)
        if self.how == "replay":
            return Outcome(outcome.batch, pa.array(["shouting/all"] * len(batch), pa.string()))
        if self.how == "unnamed":
            return Outcome(outcome.batch.rename_columns([*batch.schema.names, "capitals"]), outcome.reasons)
        return outcome


class BrokenSuite(StepConformance):
    """The suite over a step that breaks something."""

    def __init__(self, how: str) -> None:
        self.how = how

    def texts(self) -> Sequence[str]:
        return [*ODD_TEXTS.values(), "again", "again"]

    def step(self) -> Step:
        return Broken(self.how)


class BrokenFilterSuite(FilterConformance):
    """The suite over a filter that breaks something."""

    def __init__(self, how: str) -> None:
        self.how = how

    def step(self) -> Step:
        return BrokenFilter(how=self.how)

    def texts(self) -> Sequence[str]:
        return ["LOUD", "calm"]


def failing(suite: Any) -> Iterator[str]:
    """Name the tests of a suite that fail."""
    for name in dir(suite):
        if name.startswith("test_"):
            try:
                getattr(suite, name)()
            except Exception:
                yield name


@pytest.mark.parametrize(
    ("how", "tests"),
    [
        ("nothing", set()),
        ("equality", {"test_is_equal_by_value_and_travels"}),
        ("pickle", {"test_is_equal_by_value_and_travels"}),
        ("address", {"test_is_told_apart_by_json", "test_is_equal_by_value_and_travels"}),
        ("clock", {"test_is_told_apart_by_json", "test_is_equal_by_value_and_travels"}),
        ("memory", {"test_the_same_again"}),
        ("neighbour", {"test_alone_as_in_company", "test_order_does_not_matter"}),
        ("buffers", {"test_a_slice_sees_only_its_rows"}),
        ("batch", {"test_a_slice_sees_only_its_rows", "test_alone_as_in_company", "test_nulls_harm_no_neighbour"}),
        ("null", {"test_nulls_harm_no_neighbour"}),
        ("type", {"test_every_type_of_string"}),
        ("columns", {"test_an_empty_batch_tells_the_columns"}),
        ("loses", {"test_an_empty_batch_tells_the_columns"}),
        ("rows", {"test_rows_in_are_rows_out"}),
        ("order", {"test_rows_in_are_rows_out"}),
        ("writes", {"test_rows_in_are_rows_out"}),
        ("raises", {"test_rows_in_are_rows_out", "test_alone_as_in_company"}),
    ],
)
def test_what_a_step_breaks_is_found(how: str, tests: set[str]) -> None:
    found = set(failing(BrokenSuite(how)))
    assert found >= tests
    assert bool(found) == bool(tests)


@pytest.mark.parametrize(
    ("how", "test"),
    [
        ("nothing", None),
        ("numbers", "test_scores_are_columns"),
        ("unnamed", "test_scores_are_columns"),
        ("names", "test_reasons_name_their_rule"),
        ("replay", "test_decisions_replay_from_the_columns_alone"),
    ],
)
def test_what_a_filter_breaks_is_found(how: str, test: str | None) -> None:
    found = set(failing(BrokenFilterSuite(how)))
    assert found >= ({test} if test else set())
    assert bool(found) == bool(test)


def test_a_suite_without_a_step_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="say how the step is made"):
        StepConformance().test_is_a_step()


@pytest.mark.long
def test_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import penstock.testing; print('fine')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "fine\n"


def test_every_kind_of_step_has_its_suite() -> None:
    assert {f"Test{name}" for kind, name in KINDS.items() if kind not in ELSEWHERE} <= set(globals())
    assert all(getattr(transforms, name) for name in KINDS.values())
