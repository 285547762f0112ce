"""What every filter promises, and the decisions of the pipeline they reproduce."""

from __future__ import annotations

import doctest
import hashlib
import json
import pickle
import sys
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest

from penstock.transforms import c4, fineweb, gopher, gopher_repetition, line_edits, refinedweb
from penstock.transforms.badwords import BadWords
from penstock.transforms.c4 import C4Paragraphs, C4Quality
from penstock.transforms.fineweb import FineWebQuality
from penstock.transforms.gopher import GopherQuality
from penstock.transforms.gopher_repetition import GopherRepetition
from penstock.transforms.kernels import text as marks
from penstock.transforms.refinedweb import RefinedWebLines
from penstock.transforms.step import Filter, Step

GOLDEN = json.loads((Path(__file__).parent / "data" / "datatrove_quality.json").read_text(encoding="utf-8"))
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (GopherQuality, GopherRepetition, C4Quality, FineWebQuality)}
KINDS |= {
    "C4Quality as C4": partial(C4Quality, variant="c4"),
    "C4Paragraphs": C4Paragraphs,
    "RefinedWebLines": RefinedWebLines,
    "BadWords": partial(BadWords, lists=str(Path(__file__).parent / "data" / "bad_words.txt")),
}
PROSE = (
    "The river ran between the hills and the town. It was early in the morning, and nobody had yet opened a window.\n"
    "Have you seen the market? They say that it closes with the first snow. We went to look at it, and it was so!\n"
    "People who live by the water know it well, because their cellars fill in spring. That is how it must be.\n"
)
ODD = {
    "empty": "",
    "space": " \t\u2003\u00a0",
    "newlines": "\n\n\r\n\n",
    "a word": "word",
    "emoji": "👩‍👩‍👧 👍🏽\n🙂",
    "chinese": "春眠不觉晓。处处闻啼鸟。\n夜来风雨声，花落知多少？",
    "arabic": "هل هذا سؤال؟ نعم، هذا جواب.\nمرحبا بالعالم",
    "zero bytes": "a\x00b \x00 c",
    "marks": "### ... … --- •",
    "a megabyte without a space": "x" * (1 << 20),
    "a megabyte of one word": "word " * 200_000,
    "prose": PROSE,
}


@pytest.fixture(params=list(KINDS))
def filter_(request: pytest.FixtureRequest) -> Filter:
    step: Filter = KINDS[request.param]()
    return step


def batch(texts: Sequence[str | None], kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.record_batch(
        {"row": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, kind or pa.string())}
    )


@pytest.mark.parametrize("number", range(len(GOLDEN["runs"])))
def test_decides_as_datatrove_does(number: int) -> None:
    run = GOLDEN["runs"][number]
    step = KINDS[run["step"]](**run["fields"])
    outcome = step.apply(batch(GOLDEN["texts"]))
    cleaned = outcome.batch["text"].to_pylist()
    for row, (text, rule) in enumerate(zip(GOLDEN["texts"], run["rules"], strict=True)):
        if rule == "division by zero":  # it raises; ours has no more to say than that nothing is there
            assert not text.strip()
            continue
        assert outcome.reasons[row].as_py() == (rule and f"{step.kind}/{rule}"), text
        if "texts" in run:
            assert cleaned[row] == (text if run["texts"][row] is None else run["texts"][row])


def test_the_golden_decisions_name_every_rule() -> None:
    rules = {rule for run in GOLDEN["runs"] for rule in run["rules"]}
    assert len(rules - {None, "division by zero"}) == 10 + 13 + 3 + 5


@pytest.mark.parametrize(
    "module",
    [gopher, gopher_repetition, c4, fineweb, refinedweb, line_edits],
    ids=lambda module: str(module.__name__),
)
def test_examples_in_docstrings(module: ModuleType) -> None:
    tried = doctest.testmod(module)
    assert tried.attempted >= 2
    assert tried.failed == 0


def test_is_a_step(filter_: Filter) -> None:
    assert isinstance(filter_, Step)


def test_an_empty_batch_tells_the_columns(filter_: Filter) -> None:
    outcome = filter_.apply(batch([]))
    added = [name for name in outcome.batch.schema.names[2:] if name != "edits"]
    assert len(outcome.reasons) == 0
    assert len(added) >= 2
    assert outcome.batch.schema == filter_.apply(batch([PROSE])).batch.schema
    assert all(name.startswith(f"{filter_.kind}.") for name in added)
    assert added == [f"{filter_.kind}.{name}" for name in filter_.measure(batch([PROSE]))]


def test_null_reads_as_empty(filter_: Filter) -> None:
    assert filter_.reasons(batch([None, PROSE])).equals(filter_.reasons(batch(["", PROSE])))
    assert filter_.apply(batch([None])).batch["text"].null_count == 1
    untyped = pa.record_batch({"text": pa.nulls(2)})
    assert filter_.reasons(untyped).equals(filter_.reasons(batch(["", ""])))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_a_slice_sees_only_its_rows(filter_: Filter, kind: pa.DataType) -> None:
    texts = [*ODD.values(), None]
    whole = filter_.apply(batch(texts, kind))
    part = filter_.apply(batch(texts, kind).slice(3, 7))
    assert part.reasons.equals(whole.reasons.slice(3, 7))
    assert part.batch.equals(whole.batch.slice(3, 7))
    assert part.batch.schema.field("text").type == kind


def test_neither_order_nor_cut_matters(filter_: Filter) -> None:
    texts = list(ODD.values())
    whole = filter_.apply(batch(texts))
    turned = filter_.apply(batch(texts[::-1]))
    order = pa.array(range(len(texts))[::-1])
    assert turned.reasons.take(order).equals(whole.reasons)
    assert turned.batch.take(order).drop_columns(["row"]).equals(whole.batch.drop_columns(["row"]))
    for row, text in enumerate(texts):
        alone = filter_.apply(batch([text]))
        assert alone.reasons[0] == whole.reasons[row]
        assert alone.batch["text"][0] == whole.batch["text"][row]


def test_reasons_replay_from_the_columns_alone(filter_: Filter) -> None:
    outcome = filter_.apply(batch([*GOLDEN["texts"], *ODD.values()]))
    prefix = f"{filter_.kind}."
    scores = {
        name.removeprefix(prefix): outcome.batch[name].to_numpy(zero_copy_only=False)
        for name in outcome.batch.schema.names
        if name.startswith(prefix)
    }
    assert filter_.decide(scores).equals(outcome.reasons)
    assert all(value.dtype in (np.int64, np.float64) for name, value in scores.items() if name != "word")


def test_without_thresholds_nothing_goes_but_empty_documents(filter_: Filter) -> None:
    off: dict[str, Any] = {
        name: None for name, field in type(filter_).model_fields.items() if type(None) in _members(field.annotation)
    }
    if isinstance(filter_, C4Quality):
        off |= {name: False for name in type(filter_).model_fields if name.startswith(("filter_", "remove_"))}
    if isinstance(filter_, BadWords):
        off["keep_fraction"] = 1.0
    off = filter_.model_dump() | off
    reasons = type(filter_)(**off).reasons(batch(list(ODD.values()))).to_pylist()
    assert {reason for reason in reasons if reason} <= {"fineweb_quality/empty", "refinedweb_lines/empty"}


def _members(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


def test_travels_and_is_equal_by_value(filter_: Filter) -> None:
    again = pickle.loads(pickle.dumps(filter_))
    assert again == filter_
    assert again.fingerprint() == filter_.fingerprint()
    assert type(filter_).model_validate_json(filter_.model_dump_json()) == filter_
    assert filter_.fingerprint().get("words", "whitespace") == "whitespace"
    assert filter_.fingerprint().get("variant", "fineweb") == getattr(filter_, "variant", "fineweb")


@pytest.mark.parametrize("field", ["threshold", "kind", "words", "variant"])
def test_what_is_not_a_field_or_not_its_value_is_refused(filter_: Filter, field: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=field):
        type(filter_)(**{field: "spacy"})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("GopherQuality", "max_bullet_lines_ratio", 1.5),
        ("GopherQuality", "min_doc_words", -1),
        ("GopherQuality", "stop_words", ["two words"]),
        ("GopherQuality", "stop_words", [""]),
        ("GopherRepetition", "dup_line_frac", -0.1),
        ("GopherRepetition", "top_2_gram", -0.1),
        ("C4Quality", "min_num_sentences", -1),
        ("C4Quality", "max_word_length", 0),
        ("FineWebQuality", "line_punct_thr", 2),
        ("FineWebQuality", "short_line_length", 30.5),
    ],
)
def test_a_threshold_that_means_nothing_is_refused(kind: str, field: str, value: object) -> None:
    with pytest.raises(pydantic.ValidationError, match=field):
        KINDS[kind](**{field: value})


def test_bytes_that_are_no_utf8_harm_no_neighbour(filter_: Filter) -> None:
    broken = [b"\xe2\x80", b"\xff\xfe\xf5 \xc3", b"\xf0\x9f\x98", b"- \xe2", b"[\xd9", PROSE.encode(), b"\xe2"]
    offsets = np.cumsum([0, *map(len, broken)], dtype=np.int32)
    column = pa.StringArray.from_buffers(len(broken), pa.py_buffer(offsets), pa.py_buffer(b"".join(broken)))
    scores = filter_.measure(pa.record_batch({"text": column}))
    alone = filter_.measure(batch([PROSE]))
    assert {name: value[5] for name, value in scores.items()} == {name: value[0] for name, value in alone.items()}


def test_code_points_have_the_classes_python_gives_them() -> None:
    classes = marks.code_point_classes()
    every = list(map(chr, range(sys.maxunicode + 1)))
    pinned = unicodedata.unidata_version == "14.0.0"
    says = {marks.SPACE: str.isspace, marks.BREAK: lambda char: len(f"{char}.".splitlines()) == 2}
    says |= {marks.ALPHA: str.isalpha, marks.DIGIT: str.isdecimal} if pinned else {}
    for mark, holds in says.items():
        wrong = np.flatnonzero((classes[: len(every)] & mark > 0) != np.fromiter(map(holds, every), bool, len(every)))
        assert not wrong.size, f"class {mark}: {list(map(hex, wrong[:5]))}"


def test_marks_are_datatroves() -> None:
    """Digests of the sorted sets in datatrove 0.10.0, utils/text.py."""
    symbols = "".join(sorted(set(marks.PUNCTUATION) | set(marks.TERMINAL_PUNCTUATION)))
    terminals = "".join(sorted(set(marks.TERMINAL_PUNCTUATION)))
    assert hashlib.sha256(symbols.encode()).hexdigest()[:16] == "add6d54a8847e51e"
    assert hashlib.sha256(terminals.encode()).hexdigest()[:16] == "223fdebf0f768738"
    classes = marks.code_point_classes()
    assert "".join(map(chr, np.flatnonzero(classes & marks.SYMBOL))) == symbols
    assert "".join(map(chr, np.flatnonzero(classes & marks.TERMINAL))) == terminals
