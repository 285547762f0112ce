"""Line edits: what each takes, and that all can be undone."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.transforms.edits import undo
from penstock.transforms.line_edits import LineEdits, LinePattern

PIECES = [
    *("[1]", "[]", "[edit]", "[citation needed]", "[१२]", "[[3]4]", "[", "]", "[Edit]", "3 likes", "1,024K Views!"),
    *("Share this", "share this", "word", "two words", "é漢🙂", "By Ann", "\x00", "cookie=17;", " ", "  "),
]
GAPS = ["\n", "\n", "\n\n", " ", "", "\t", "\r\n", "\u3000"]
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
COUNTER = re.compile(r"^\W*\d[,.\d]*[kmb]?\s+(?:likes|views)\W*$")
PATTERNS = (
    LinePattern(name="by", pattern=r"^By \w+$", drop_line=True, needs="By "),
    LinePattern(name="digits", pattern=r"\d+", replacement="№", needs="cookie"),
)


def batch(rows: list[str]) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(rows, pa.string())})


def edited(step: LineEdits, rows: list[str]) -> list[str]:
    """Edit texts, and see that every edit can be undone."""
    outcome = step.apply(batch(rows))
    for text, left, edits in zip(rows, outcome.batch["text"], outcome.batch["edits"], strict=True):
        assert undo(left.as_py(), edits.as_py()) == text
    texts: list[str] = outcome.batch["text"].to_pylist()
    rules = [None if text else "line_edits/empty" for text in texts]
    assert outcome.reasons.to_pylist() == rules
    return texts


def oracle(text: str) -> str:
    lines = [
        CITATION.sub("", line)
        for line in text.split("\n")
        if not COUNTER.search(line.lower()) and line.strip() not in ("Share this", "two words")
    ]
    lines = [line for line in lines if not re.search(r"^By \w+$", line)] if "By " in "\n".join(lines) else lines
    text = "\n".join(lines)
    return re.sub(r"\d+", "№", text) if "cookie" in text else text


def test_random_texts_are_edited_as_the_oracle_does(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("  Share this \ntwo words\n\n", encoding="utf-8")
    step = LineEdits(counters=True, lines=str(tmp_path / "lines.txt"), patterns=PATTERNS)
    rng = random.Random(5)
    rows = ["".join(rng.choice(PIECES) + rng.choice(GAPS) for _ in range(rng.randint(0, 12))) for _ in range(3000)]
    assert edited(step, rows) == [oracle(text) for text in rows]


@pytest.mark.parametrize(
    ("fields", "text", "left"),
    [
        ({}, "One.[1] Two.[12][edit]", "One. Two."),
        ({}, "3 likes\nOne [2]", "3 likes\nOne "),
        ({"citations": False, "counters": True}, "3 likes\nOne[2]\n5k views", "One[2]"),
        ({"counters": True}, "3 likes\n2 shares", ""),
        ({"patterns": [{"name": "ad", "pattern": "AD+"}]}, "ADD AD a\nbAD", "  a\nb"),
        ({"patterns": [{"name": "ad", "pattern": "AD", "needs": "ad"}]}, "AD", "AD"),
        ({"patterns": [{"name": "ad", "pattern": "AD", "replacement": r"\1é"}]}, "xADy", r"x\1éy"),
        ({"patterns": [{"name": "ad", "pattern": "^AD$", "drop_line": True}]}, "AD\nAD\n\na\nAD\nb\nAD", "\na\nb"),
    ],
)
def test_edits(fields: dict[str, Any], text: str, left: str) -> None:
    assert edited(LineEdits(**fields), [text]) == [left]


def test_nulls_slices_and_empty_batches() -> None:
    step = LineEdits(counters=True, patterns=PATTERNS)
    rows = pa.record_batch({"text": pa.array(["a [1]", None, "3 likes", "By Ann\nx", "y"], pa.large_string())})
    whole = step.apply(rows)
    assert whole.batch["text"].to_pylist() == ["a ", None, "", "x", "y"]
    assert whole.reasons.to_pylist() == [None, None, "line_edits/empty", None, None]
    assert step.apply(rows.slice(1, 3)).batch.equals(whole.batch.slice(1, 3))
    assert step.apply(rows.slice(0, 0)).batch.schema == whole.batch.schema
    assert "edits" not in LineEdits(record_edits=False).apply(rows).batch.schema.names


def test_a_list_decides_by_its_bytes(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("Share this", encoding="utf-8")
    one, two = (LineEdits(lines=str(tmp_path / name)).fingerprint() for name in ("a.txt", "b.txt"))
    assert one == two
    assert one["lines"] != LineEdits().fingerprint()["lines"]


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        LineEdits(lines=str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="has none"):
        LineEdits(lines=str(tmp_path / "empty.txt"))
    with pytest.raises(ValueError, match="no regular expression: unterminated"):
        LinePattern(name="x", pattern="[")
    with pytest.raises(ValueError, match="matches nothing at all"):
        LinePattern(name="x", pattern="a*")
    with pytest.raises(ValueError, match="called 'citation'"):
        LineEdits(patterns=(LinePattern(name="citation", pattern="x"),))
