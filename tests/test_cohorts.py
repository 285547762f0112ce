"""Cohorts: names, what a weight means for them, which split they are of; the rows of what stood keep their places."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from penstock import RequestError
from penstock.sharding.arguments import mixtures_asked
from penstock.sharding.cohorts import cohort_of, next_cohort
from penstock.sharding.format import Pack, PackOrder
from penstock.sharding.mixture import mixture
from penstock.sharding.order import geometry
from penstock.sharding.positions import choose_streams, is_validation

ROWS = {"train/web": 600, "train/web+1": 300, "train/web+2": 0, "train/code": 50, "validation": 7, "validation+1": 3,
        "validation/web+2": 2}  # fmt: skip


def pack(rows: Mapping[str, int]) -> PackOrder:
    return PackOrder(Pack(64, "concat"), 8, {name: geometry(count // 8, 8, count % 8) for name, count in rows.items()})


@pytest.mark.parametrize(
    ("stream", "parts"),
    [("train", ("train", 0)), ("train+1", ("train", 1)), ("train/web+12", ("train/web", 12)), ("c++", ("c++", 0)),
     ("a+0", ("a+0", 0)), ("a+01", ("a+01", 0)), ("a+1+2", ("a+1", 2)), ("+1", ("", 1)), ("a\n+3", ("a\n", 3))],
)  # fmt: skip
def test_a_name_says_whose_cohort_it_is(stream: str, parts: tuple[str, int]) -> None:
    assert cohort_of(stream) == parts


def test_cohorts_are_numbered_on() -> None:
    assert next_cohort("a", ()) == "a"
    assert next_cohort("a", ("a", "b+4")) == "a+1"
    assert next_cohort("a", ("a+2", "a", "a+1")) == "a+3"


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ({"train/web": 3}, {"train/web": 2, "train/web+1": 1}),
        ({"train/web": 0.3, "train/code": 0.1}, {"train/web": 2, "train/web+1": 1, "train/code": 1}),
        ({"train/web": 1, "train/web+1": 1}, {"train/web": 1, "train/web+1": 1}),
        ({"train/web": 1, "train/web+1": 0}, {"train/web": 1}),
        ({"train/web+1": 5}, {"train/web+1": 1}),
        ({"validation": 1}, {"validation": 7, "validation+1": 3}),
        ({"train/code": 1, "train/none": 0}, {"train/code": 1}),
    ],
)
def test_a_weight_is_shared_by_rows_among_the_cohorts_of_a_name(
    weights: dict[str, float], shares: dict[str, int]
) -> None:
    assert choose_streams(pack(ROWS), "train", weights) == mixture(shares)


def test_splits_have_all_cohorts() -> None:
    assert choose_streams(pack(ROWS), "train", None) == mixture({"train/web": 12, "train/web+1": 6, "train/code": 1})
    held_out = {"validation": 7, "validation+1": 3, "validation/web+2": 2}
    assert choose_streams(pack(ROWS), "validation", None) == mixture(held_out)
    assert [is_validation(name) for name in ("validation+1", "validation/x+2", "validations+1", "train+1")] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"train": 1}, "no stream train with rows"),
        ({"train/web+2": 1, "train/web+9": 1}, r"no stream train/web\+2, train/web\+9 with rows"),
        ({"train/web": "much"}, "weight of stream 'train/web' is 'much'"),
        ({"train/web": "1/0"}, "weight of stream 'train/web' is '1/0'"),
        ({"train/web": -1}, "is -1"),
        ({}, "no stream has a weight above 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        choose_streams(pack(ROWS), "train", weights)


def test_a_plan_keeps_that_a_cohort_is_left_out() -> None:
    """Without the 0 the name would mean it too."""
    weights = {"train/web": 0.5, "train/web+1": 0, "train/code": 0.5, "train/none": 0, "train/none+1": 0}
    kept = (("train/code", 1), ("train/web", 1), ("train/web+1", 0))
    assert mixtures_asked("train", weights) == [(0, kept)]
    assert choose_streams(pack(ROWS), "train", dict(kept)) == mixture({"train/code": 1, "train/web": 1})


def test_a_share_is_exact_at_every_prefix() -> None:
    """Rows of a name that has cohorts come as evenly as those of one that has none, to a row a level."""
    mixed = choose_streams(pack(ROWS), "train", {"train/web": 0.75, "train/code": 0.25})
    streams, _ = mixed.split(np.arange(4000))
    code = np.cumsum(streams == mixed.names.index("train/code"))
    assert np.abs(code - np.arange(1, 4001) / 4).max() <= mixed.depth / 2
    assert Fraction(dict(mixed.weights)["train/web"], dict(mixed.weights)["train/web+1"]) == 2
