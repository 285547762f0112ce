"""FineWeb's own rules against a slow oracle, written from datatrove's filter with `str.split` for its tokenizer."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.transforms.fineweb import FineWebQuality
from penstock.transforms.kernels.text import TERMINAL_PUNCTUATION

PIECES = [
    "word",
    "A line that is longer than thirty.",
    "end.",
    "end?",
    "ענה؟",
    "句。",
    "full\u3002 ",
    "\r",
    "\x00",
    "👍",
    '"',
]
GAPS = ["\n", "\n", "\n\n", " ", " ", "\t", "\u2028", "\u00a0", "\x0b", ""]
woven = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(GAPS)), max_size=40).map(
    lambda pairs: "".join(part for pair in pairs for part in pair)
)
texts = st.lists(st.one_of(woven, st.text(max_size=80)), min_size=1, max_size=8)


def oracle(text: str, short: int = 30) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip() != ""]
    seen: set[str] = set()
    repeated = 0
    for line in lines:
        repeated += len(line) if line in seen else 0
        seen.add(line)
    inked, words = len(text.replace("\n", "")), len(text.split())
    ended = sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in lines)
    return {
        "lines": len(lines),
        "line_punct_ratio": ended / len(lines) if lines else 0.0,
        "short_line_ratio": sum(len(line) <= short for line in lines) / len(lines) if lines else 0.0,
        "char_dup_ratio": repeated / inked if inked else 0.0,
        "list_ratio": text.count("\n") / words if words else 0.0,
    }


@settings(max_examples=200)
@given(texts, st.integers(0, 40))
def test_scores_are_the_oracles(rows: list[str], short: int) -> None:
    scores = FineWebQuality(short_line_length=short).measure(pa.record_batch({"text": pa.array(rows, pa.string())}))
    found = [{name: value[row].item() for name, value in scores.items()} for row in range(len(rows))]
    assert found == [oracle(text, short) for text in rows]


LONG = "This is a line of more than thirty code points"


@pytest.mark.parametrize(
    ("text", "fields", "rule"),
    [
        (f"{LONG}.\n{LONG} too.", {}, None),
        ("", {}, "empty"),
        ("\n \n\u2003\n", {}, "empty"),
        (f"{LONG}\n{LONG} too", {}, "line_punct_ratio"),
        (f"{LONG}. \n{LONG} too.\r", {}, "line_punct_ratio"),  # the line is not stripped
        (f'{LONG}"\n{LONG} too)', {}, "line_punct_ratio"),  # quotes and brackets end no sentence
        (f"{LONG}\n{LONG} too", {"line_punct_exclude_zero": True}, None),
        (f"{LONG}؟\n{LONG} too。", {}, None),
        ("One, two.\nThree, four.\n" + LONG, {}, None),  # two in three
        ("One, two.\nThree, four.\nFive, six.\n" + LONG, {}, "short_line_ratio"),
        ("字" * 30 + "。\n" + "字" * 31, {"new_line_ratio": None}, None),  # counted in code points, not bytes
        ("字" * 29 + "。\n" + "字" * 30, {"new_line_ratio": None}, "short_line_ratio"),
        (f"{LONG}.\n{LONG}.", {}, "char_dup_ratio"),
        (f"{LONG}.\n{LONG}.", {"char_duplicates_ratio": 0.5}, None),  # half of the text is its threshold
        (f"{LONG}.\n\n\n\n\n\n{LONG} too.", {}, None),  # 6 newlines, 21 words
        (f"{LONG}.\n\n\n\n\n\n\n{LONG} too.", {}, "list_ratio"),
    ],
)
def test_rules(text: str, fields: dict[str, Any], rule: str | None) -> None:
    reasons = FineWebQuality(**fields).reasons(pa.record_batch({"text": [text]}))
    assert reasons.to_pylist() == [rule and f"fineweb_quality/{rule}"]


def test_empty_cannot_be_switched_off() -> None:
    off = FineWebQuality(line_punct_thr=None, short_line_thr=None, char_duplicates_ratio=None, new_line_ratio=None)
    assert off.reasons(pa.record_batch({"text": ["x\nx\nx", " "]})).to_pylist() == [None, "fineweb_quality/empty"]


def test_many_lines_that_share_their_beginnings() -> None:
    rows = ["\n".join(f"{'same ' * 20}{number % wrap}" for number in range(5_000)) for wrap in (1, 7, 4_999, 10_000)]
    scores = FineWebQuality().measure(pa.record_batch({"text": rows}))
    assert scores["char_dup_ratio"].tolist() == [oracle(text)["char_dup_ratio"] for text in rows]
