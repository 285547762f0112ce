"""Conformance suites for steps of one's own: inherit one in a test, say how the step is made, and run pytest.

    from penstock.testing import FilterConformance

    class TestShouting(FilterConformance):
        def step(self):
            return Shouting(maximum=0.5)

penstock's own steps pass the same suites. They hold what a run relies on: that a document's fate and columns depend on
that document alone, whatever batch, slice, order, worker or string type it comes in; that an empty batch tells the
columns; that a step travels to workers and is told apart by its fingerprint. The suites are plain classes with plain
asserts: nothing here imports pytest. A suite takes about 0.1 s with a compiled step; a step in Python reads 10 MB.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from .pipelines.ingest import check_columns
from .transforms.named import apply_step, step_fingerprint, step_kind
from .transforms.schema import DOCUMENT, document_ids
from .transforms.step import Filter, Outcome, Step

#: Texts at which steps break: nothing, only space, other scripts, marks, zero bytes, words and lines without end.
ODD_TEXTS = {
    "empty": "",
    "space": " \t\u2003\u00a0",
    "newlines": "\n\n\r\n\n",
    "a word": "word",
    "emoji": "👩‍👩‍👧 👍🏽\n🙂",
    "chinese": "春眠不觉晓。处处闻啼鸟。\n夜来风雨声，花落知多少？",
    "arabic": "هل هذا سؤال؟ نعم، هذا جواب.\nمرحبا بالعالم",
    "combining": "e\u0301 \u0301 \u202e\u200b\ufeff \U0010ffff",
    "zero bytes": "a\x00b \x00 c",
    "marks": "### ... … --- • {} <p> &amp; \\u0041",
    "a megabyte without a space": "x" * (1 << 20),
    "many words": "word " * 20_000,
    "many lines": "a line, and the same again.\n" * 5_000,
    "prose": "The river ran between the hills and the town. It was early, and nobody had yet opened a window.\n"
    "Have you seen the market? They say that it closes with the first snow. We went to look at it, and it was so!\n",
}


class StepConformance:
    """What every step promises. Inherit it in a class named `Test…` and give `step`; the other hooks have defaults."""

    def step(self) -> Step:
        """Make the step under test, the same at every call."""
        raise NotImplementedError("say how the step is made: def step(self): return MyStep(…)")

    def texts(self) -> Sequence[str]:
        """Give the texts to try: put some that the step drops, edits and keeps beside these."""
        return list(ODD_TEXTS.values())

    def columns(self, rows: int) -> Mapping[str, pa.Array]:
        """Give columns (rows,) that the step reads beside those of a document, or in their place, in one order."""
        return {}

    def batch(self, texts: Sequence[str | None] | None = None, kind: pa.DataType | None = None) -> pa.RecordBatch:
        """Make a document batch of these texts, or of all; `kind` is the type of the column `text`."""
        texts = self.texts() if texts is None else texts
        rows = len(texts)
        numbers = range(rows)
        held = {
            "id": document_ids("testing", "texts.jsonl", numbers),
            "source": pa.array(["testing"] * rows, pa.string()),
            "path": pa.array(["texts.jsonl"] * rows, pa.string()),
            "place": pa.array(numbers, pa.int64()),
            "url": pa.array([f"https://example.org/{number}" for number in numbers], pa.string()),
            "text": pa.array(texts, kind or pa.string()),
            "language": pa.array(["en"] * rows, pa.string()),
        }
        arrays = {item.name: held.get(item.name, pa.nulls(rows, item.type)) for item in DOCUMENT}
        arrays.update(self.columns(rows))
        return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))

    def test_is_a_step(self) -> None:
        """It has `apply(batch)`."""
        assert isinstance(self.step(), Step), f"{self.step()!r} has no method apply(batch)"

    def test_is_equal_by_value_and_travels(self) -> None:
        """Two of the same fields are equal, and so is what a worker unpickles."""
        step = self.step()
        assert step == self.step(), "steps of the same fields are not equal: make it a frozen dataclass or StepModel"
        again = pickle.loads(pickle.dumps(step))
        assert again == step, "what comes out of pickle is not equal to what went in"
        assert step_fingerprint(again) == step_fingerprint(step), "pickle changes the fingerprint"

    def test_is_told_apart_by_json(self) -> None:
        """Its fingerprint is a JSON value, the same at every call, and knows no address of this process."""
        prints = [json.dumps(step_fingerprint(step), sort_keys=True) for step in (self.step(), self.step())]
        assert prints[0] == prints[1], "two steps of the same fields have different fingerprints"
        assert " object at 0x" not in prints[0], f"the fingerprint holds an object's address: {prints[0]}"

    def test_an_empty_batch_tells_the_columns(self) -> None:
        """The columns of an empty batch are those of a full one, each with its type; none is lost."""
        empty, full = self._apply(self.batch([])), self._apply(self.batch())
        check_columns(self.step(), self.batch([]).schema, empty.batch.schema)
        assert empty.batch.schema.equals(full.batch.schema), (
            f"an empty batch gives the columns {empty.batch.schema}, a full one {full.batch.schema}"
        )
        assert len(empty.reasons) == 0, f"an empty batch has {len(empty.reasons)} reasons"

    def test_rows_in_are_rows_out(self) -> None:
        """Each row comes out where it went in, and the batch that went in is as it was."""
        batch = self.batch()
        before = pickle.dumps(batch)
        outcome = self._apply(batch)
        assert outcome.batch.column("id").equals(batch.column("id")), "the rows changed places, or their ids"
        assert pickle.dumps(batch) == before, "the step wrote into the batch that it was given"

    def test_the_same_again(self) -> None:
        """Two calls give the same: nothing is remembered, drawn or timed."""
        step, batch = self.step(), self.batch()
        first, second = _rows(apply_step(step, batch)), _rows(apply_step(step, batch))
        _assert_same(first, second, "a second call gives something else")

    def test_a_slice_sees_only_its_rows(self) -> None:
        """Arrow slices share buffers: what lies before and behind is another's."""
        batch = self.batch()
        whole = _rows(self._apply(batch))
        for start, stop in ((1, len(batch)), (2, len(batch) - 2), (len(batch) - 1, len(batch))):
            part = _rows(self._apply(batch.slice(start, max(0, stop - start))))
            _assert_same(part, whole[start:stop], f"rows {start} to {stop}, sliced, come out otherwise than whole")

    def test_alone_as_in_company(self) -> None:
        """A row alone in its batch fares as among others."""
        batch = self.batch()
        whole = _rows(self._apply(batch))
        for row in range(len(batch)):
            alone = _rows(self._apply(batch.take(pa.array([row]))))
            _assert_same(alone, whole[row : row + 1], f"row {row} fares otherwise alone than among others")

    def test_order_does_not_matter(self) -> None:
        """Rows turned round fare as before."""
        batch = self.batch()
        turned = _rows(self._apply(batch.take(pa.array(range(len(batch))[::-1]))))
        _assert_same(turned[::-1], _rows(self._apply(batch)), "rows fare otherwise in another order")

    def test_nulls_harm_no_neighbour(self) -> None:
        """A document may have no text; the others fare as without it."""
        texts = self.texts()
        with_nulls = [text for pair in zip([None] * len(texts), texts, strict=True) for text in pair]
        # A row's own columns go with it, so that only its neighbours differ.
        order = pa.array([row for pair in enumerate(range(len(texts))) for row in pair])
        batch = self.batch(texts).take(order)
        place = batch.schema.get_field_index("text")
        batch = batch.set_column(place, "text", pa.array(with_nulls, pa.string()))
        found = _rows(self._apply(batch))[1::2]
        _assert_same(found, _rows(self._apply(self.batch(texts))), "rows fare otherwise beside a row without text")

    def test_every_type_of_string(self) -> None:
        """`string`, `large_string` and `string_view` hold the same texts."""
        whole = _rows(self._apply(self.batch()))
        for kind in (pa.large_string(), pa.string_view()):
            _assert_same(_rows(self._apply(self.batch(kind=kind))), whole, f"texts of type {kind} fare otherwise")

    def _apply(self, batch: pa.RecordBatch) -> Outcome:
        return apply_step(self.step(), batch)


class FilterConformance(StepConformance):
    """What every filter promises beside: scores as columns, and decisions that can be replayed from them."""

    def filter(self) -> Filter:
        """Give the step as the filter that it is."""
        step = self.step()
        assert isinstance(step, Filter), f"{step_kind(step)} is no Filter: it has no measure and decide"
        return step

    def test_scores_are_columns(self) -> None:
        """Every score is an array (n,) of numbers or names, and a column `kind.score`, in order."""
        step, batch = self.filter(), self.batch()
        scores, outcome = step.measure(batch), self._apply(batch)
        added = [name for name in outcome.batch.schema.names if name not in batch.schema.names]
        wanted = [f"{step.kind}.{name}" for name in scores]
        assert [name for name in added if name in wanted] == wanted, f"the columns {added} are not those of {[*scores]}"
        odd = [name for name in added if name != "edits" and not name.startswith(f"{step.kind}.")]
        assert not odd, f"the columns {odd} are not told as the step's: {step.kind}.NAME is"
        for name, values in scores.items():
            assert len(values) == len(batch), f"{name} has {len(values)} values for {len(batch)} rows"
            kind = np.asarray(values).dtype
            known = np.issubdtype(kind, np.number) or all(value is None or isinstance(value, str) for value in values)
            assert known, f"{name} is of {kind}: scores are numbers, or names"

    def test_reasons_name_their_rule(self) -> None:
        """A reason is `kind/rule`."""
        step = self.filter()
        for reason in set(self._apply(self.batch()).reasons.to_pylist()) - {None}:
            assert str(reason).startswith(f"{step.kind}/"), f"the reason {reason!r} does not begin with {step.kind}/"

    def test_decisions_replay_from_the_columns_alone(self) -> None:
        """`decide` over the columns of a ledger gives the reasons, without the texts."""
        step, outcome = self.filter(), self._apply(self.batch())
        prefix = f"{step.kind}."
        scores = {
            name.removeprefix(prefix): outcome.batch.column(name).to_numpy(zero_copy_only=False)
            for name in outcome.batch.schema.names
            if name.startswith(prefix)
        }
        replayed = step.decide(scores).to_pylist()
        assert replayed == outcome.reasons.to_pylist(), "decide(columns) gives other reasons than apply(batch)"
        assert step.reasons(self.batch()).to_pylist() == replayed, "reasons(batch) differs from apply(batch).reasons"


def _rows(outcome: Outcome) -> list[str]:
    """Write what became of each row, so that NaN is like NaN and the type of a string is left out."""
    errors = [None] * len(outcome.batch) if outcome.errors is None else outcome.errors.to_pylist()
    rows = zip(outcome.batch.to_pylist(), outcome.reasons.to_pylist(), errors, strict=True)
    return [repr(row) for row in rows]


def _assert_same(found: Sequence[str], expected: Sequence[str], what: str) -> None:
    for mine, other in zip(found, expected, strict=True):
        assert mine == other, f"{what}: {_shown(mine)} is not {_shown(other)}"


def _shown(row: str) -> str:
    return row if len(row) <= 600 else f"{row[:200]} … {row[-400:]}"
