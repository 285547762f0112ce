"""Samples: the same documents everywhere, a smaller share inside a larger one."""

from __future__ import annotations

import doctest
import hashlib
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest

from penstock import RequestError
from penstock.transforms import sampling
from penstock.transforms.named import build_step
from penstock.transforms.sampling import Sample
from penstock.transforms.schema import document_ids, id_words, keyed
from penstock.transforms.step import Step

ROWS = 4000
IDS = document_ids("in", "file", range(ROWS))


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.record_batch({"id": IDS, **columns})


def kept(**fields: Any) -> set[int]:
    reasons = Sample(**fields).reasons(batch()).to_pylist()
    assert set(reasons) <= {None, "sample/not_drawn"}
    return {row for row, reason in enumerate(reasons) if reason is None}


def slow_keyed(identity: bytes, key: str) -> int:
    """splitmix64's finaliser over an id's two words and the hash of the key."""
    import xxhash

    mask = (1 << 64) - 1
    mixed = int.from_bytes(identity[:8], "little") ^ xxhash.xxh3_64_intdigest(key.encode())
    for addend in (int.from_bytes(identity[8:], "little"), 0x9E3779B97F4A7C15):
        mixed = (mixed + addend) & mask
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & mask
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
        mixed ^= mixed >> 31
    return mixed


def test_draws_are_the_oracles() -> None:
    draws = Sample(key="k").measure(batch())["draw"]
    for row in range(0, ROWS, 97):
        assert draws[row] == (slow_keyed(IDS[row].as_py(), "k sample") >> 11) / (1 << 53)
    assert keyed(IDS, "a")[5] == slow_keyed(IDS[5].as_py(), "a")
    assert len(id_words(IDS)) == ROWS


def test_a_sample_is_pinned() -> None:
    """Who changes this changes what runs have sampled: raise the step's version."""
    digest = hashlib.sha256(str(sorted(kept(rate=0.1, key="pin"))).encode()).hexdigest()[:16]
    assert digest == "d09a098c8395660e"


def test_smaller_shares_lie_in_larger_ones() -> None:
    sizes, before = [], set[int]()
    for rate in (0.0, 0.1, 0.2, 0.5, 0.9, 1.0):
        now = kept(rate=rate)
        assert before <= now
        sizes.append(len(now))
        before = now
    assert sizes[0] == 0
    assert sizes[-1] == ROWS
    assert all(abs(size - ROWS * rate) < 130 for size, rate in zip(sizes, (0.0, 0.1, 0.2, 0.5, 0.9, 1.0), strict=True))


def test_two_keys_draw_apart() -> None:
    both = kept(rate=0.5) & kept(rate=0.5, key="other")
    assert abs(len(both) - ROWS // 4) < 130


def test_copies_have_the_rate_as_their_mean_and_never_fall() -> None:
    before = np.zeros(ROWS, np.int64)
    for rate in (0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 1000.0):
        copies = Sample(rate=rate).measure(batch())["copies"]
        assert copies.min() == int(rate)
        assert copies.max() == int(np.ceil(rate))
        assert abs(copies.mean() - rate) < 0.04
        assert (copies >= before).all()
        before = copies


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_rates_by_the_values_of_a_column(kind: pa.DataType) -> None:
    values = pa.array([("en", "de", "sw", None)[row % 4] for row in range(ROWS)], pa.string()).cast(kind)
    step = Sample(rate=0.5, by="language", rates={"sw": 3, "de": 0})
    scores = step.measure(batch(language=values))
    assert scores["group"].tolist()[:4] == [-1, 0, 1, -1]
    assert set(scores["copies"][2::4].tolist()) == {3}
    assert set(scores["copies"][1::4].tolist()) == {0}
    mine = {row for row in range(ROWS) if step.decide(scores)[row].as_py() is None}
    assert {row for row in mine if row % 4 in (0, 3)} == {row for row in kept(rate=0.5) if row % 4 in (0, 3)}


def test_numbers_are_values_too() -> None:
    column = pa.array([row % 3 for row in range(ROWS)], pa.int64())
    copies = Sample(by="size", rates={"2": 0.0}).measure(batch(size=column))["copies"]
    assert copies.tolist()[:6] == [1, 1, 0, 1, 1, 0]


def test_neither_order_nor_cut_matters() -> None:
    step, values = Sample(rate=0.3, by="language", rates={"a": 1.5}), pa.array(["a", "b"] * (ROWS // 2))
    whole = step.apply(batch(language=values))
    part = step.apply(batch(language=values).slice(100, 50))
    assert part.batch.equals(whole.batch.slice(100, 50))
    assert part.reasons.equals(whole.reasons.slice(100, 50))
    order = pa.array(range(ROWS)[::-1])
    turned = step.apply(batch(language=values).take(order))
    assert turned.reasons.take(order).equals(whole.reasons)


def test_an_empty_batch_tells_the_columns_and_scores_replay() -> None:
    step = Sample(rate=0.3)
    empty, whole = step.apply(batch().slice(0, 0)), step.apply(batch())
    assert empty.batch.schema == whole.batch.schema
    assert len(empty.reasons) == 0
    scores = {name: whole.batch[f"sample.{name}"].to_numpy() for name in ("draw", "group", "copies")}
    assert step.decide(scores).equals(whole.reasons)
    assert Sample(rate=0.6).decide(scores).equals(Sample(rate=0.6).reasons(batch()))


def test_travels_and_is_equal_by_value() -> None:
    step = Sample(rate=0.3, by="source", rates={"a": 1.5})
    assert pickle.loads(pickle.dumps(step)) == step
    assert Sample.model_validate_json(step.model_dump_json()) == step
    assert build_step("sample", {"rate": 0.3, "by": "source", "rates": {"a": 1.5}}) == step
    assert isinstance(step, Step)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rate": -0.1}, "rate"),
        ({"rate": 1001}, "rate"),
        ({"by": "source"}, "rates of its values"),
        ({"rates": {"a": 1}}, "name a column"),
        ({"by": "source", "rates": {"a": -1}}, "rates"),
    ],
)
def test_what_means_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        Sample(**fields)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(RequestError, match="needs the column 'id'"):
        Sample().apply(pa.record_batch({"text": ["a"]}))
    with pytest.raises(RequestError, match="needs the column 'topic'"):
        Sample(by="topic", rates={"a": 0.5}).apply(batch())


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(sampling).failed == 0
    assert doctest.testmod(sampling).attempted >= 3
