"""Edits are made in one pass, kept in code points, and can be undone."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from penstock.transforms.edits import EDITS, Cuts, edit, undo
from penstock.transforms.step import utf8

ALPHABET = "ab é漢🙂\n"


def cuts_of(batch: pa.RecordBatch, chosen: list[tuple[int, int, int, str]]) -> Cuts:
    """Take (row, first code point, end, inserted) to bytes."""
    texts, at, starts = batch["text"].to_pylist(), int(utf8(batch)[0][0]), []
    for text in texts:
        starts.append(at)
        at += len((text or "").encode())
    spans = [
        [starts[row] + len((texts[row] or "")[:first].encode()), starts[row] + len((texts[row] or "")[:end].encode())]
        for row, first, end, _ in chosen
    ]
    return Cuts(
        np.array([row for row, *_ in chosen], np.int64),
        np.array(spans, np.int64).reshape(-1, 2),
        pa.array([new for *_, new in chosen], pa.string()),
    )


def drawn(random_: random.Random, batch: pa.RecordBatch) -> list[tuple[int, int, int, str]]:
    chosen = []
    for row, text in enumerate(batch["text"].to_pylist()):
        places = sorted(
            random_.sample(range(len(text or "") + 1), min(len(text or ""), 2 * random_.randint(0, 3)) & ~1)
        )
        pairs = zip(places[::2], places[1::2], strict=True)
        chosen += [(row, first, end, random_.choice(["", "x", "é🙂"])) for first, end in pairs]
    return chosen


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_random_rounds_of_edits_give_what_python_gives_and_can_be_undone(kind: pa.DataType) -> None:
    random_ = random.Random(5)
    for _ in range(200):
        texts = ["".join(random_.choices(ALPHABET, k=random_.randint(0, 12))) for _ in range(4)] + [None]
        batch = pa.record_batch({"text": pa.array(["cut off", *texts], kind)}).slice(1)
        for _ in range(3):
            chosen, expected = drawn(random_, batch), batch["text"].to_pylist()
            for row, first, end, new in reversed(chosen):
                expected[row] = expected[row][:first] + new + expected[row][end:]
            batch = edit(batch, "test", cuts_of(batch, chosen))
            assert batch["text"].to_pylist() == expected
            assert batch["text"].type == kind
        for before, after, edits in zip(texts, batch["text"].to_pylist(), batch["edits"].to_pylist(), strict=True):
            assert (edits is None) or undo(after, edits) == before


def test_the_column_is_there_where_nothing_is_edited() -> None:
    batch = pa.record_batch({"text": pa.array(["a", None], pa.string())})
    none = Cuts(np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
    assert edit(batch, "test", none)["edits"].to_pylist() == [None, None]
    assert edit(batch.slice(0, 0), "test", none).schema.field("edits").type == EDITS
    assert edit(batch, "test", none, record=False).schema == batch.schema


def test_edits_of_another_text_are_refused() -> None:
    batch = pa.record_batch({"text": ["one two"]})
    made = edit(batch, "test", Cuts(np.array([0]), np.array([[4, 7]]), pa.array(["2"])))
    assert made["text"].to_pylist() == ["one 2"]
    assert made["edits"].to_pylist() == [
        [{"step": "test", "round": 0, "start": 4, "end": 7, "removed": "two", "inserted": "2"}]
    ]
    with pytest.raises(ValueError, match="does not hold '2' at 4"):
        undo("one 3", made["edits"][0].as_py())
