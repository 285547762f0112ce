"""Mixtures: every stream has its share at every position, and its rows are counted without a gap."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import RequestError
from penstock.sharding.mixture import LARGEST_SUM, Mixture, mixture

weights_of = st.lists(st.one_of(st.integers(1, 5), st.integers(1, 10**7)), min_size=1, max_size=12)


def mixed(weights: list[int]) -> Mixture:
    return Mixture(tuple((f"s{number}", weight) for number, weight in enumerate(weights)))


@settings(max_examples=120)
@given(weights_of)
def test_shares_are_exact_to_half_a_row_a_level(weights: list[int]) -> None:
    many = mixed(weights)
    streams, ordinals = many.split(np.arange(1500))
    for number, weight in enumerate(weights):
        here = streams == number
        assert np.array_equal(ordinals[here], np.arange(here.sum()))
        strays = np.abs(np.cumsum(here) - np.arange(1, 1501) * (weight / many.total))
        assert strays.max() <= many.depth / 2 + 1e-6


@settings(max_examples=60)
@given(weights_of, st.integers(0, (1 << 62) - 500))
def test_any_position_is_found_back(weights: list[int], start: int) -> None:
    many = mixed(weights)
    positions = np.arange(start, start + 200)
    streams, ordinals = many.split(positions)
    counts = [many.count(name, start) for name in many.names]
    assert sum(counts) == start
    for position, stream, ordinal in zip(positions.tolist(), streams.tolist(), ordinals.tolist(), strict=True):
        assert ordinal == counts[stream]
        assert many.position(many.names[stream], ordinal) == position
        counts[stream] += 1


def slow_stream(weights: list[int], position: int) -> tuple[int, int]:
    """Build Huffman's tree from sorted lists, walk down it with fractions."""
    trees: list[tuple[int, int, object]] = [(weight, number, number) for number, weight in enumerate(weights)]
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[:2])
        first, second, *rest = trees
        made = len(weights) + len(weights) - len(trees) + 1
        trees = [*rest, (first[0] + second[0], made, (first, second))]
    node, row = trees[0], position
    while isinstance(node[2], tuple):
        left, right = node[2]
        half = Fraction(node[0] // 2, node[0])

        def lefts(count: int, share: Fraction = Fraction(left[0], node[0]), half: Fraction = half) -> int:
            return (count * share + half).__floor__()

        node, row = (left, lefts(row)) if lefts(row + 1) > lefts(row) else (right, row - lefts(row))
    return int(str(node[2])), row


@settings(max_examples=60)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=7), st.integers(0, 10**15))
def test_equals_the_slow_tree(weights: list[int], position: int) -> None:
    streams, ordinals = mixed(weights).split(np.array([position]))
    assert (int(streams[0]), int(ordinals[0])) == slow_stream(weights, position)


def test_extreme_weights_stay_within_64_bits() -> None:
    many = mixed([1, LARGEST_SUM - 1])
    streams, ordinals = many.split((1 << 62) - 1 - np.arange(1000))
    assert set(streams.tolist()) <= {0, 1}
    assert ordinals.min() >= 0
    assert abs(many.count("s0", 1 << 62) - (1 << 31)) <= 1


def test_a_thousand_streams() -> None:
    many = mixed([1 + number % 7 for number in range(1000)])
    streams, _ = many.split(np.arange(many.total))
    assert np.bincount(streams).tolist() == [weight for _, weight in many.weights]


def test_as_many_rows_as_the_sum_of_weights_give_each_stream_its_weight() -> None:
    many = mixture({"a": 30, "b": 12, "c": 6})
    assert many.weights == (("a", 5), ("b", 2), ("c", 1))
    assert np.bincount(many.split(np.arange(48))[0]).tolist() == [30, 12, 6]


def test_decimal_weights_are_read_as_written() -> None:
    assert mixture({"web": 0.7, "code": 0.3, "none": 0}).weights == (("code", 3), ("web", 7))
    assert mixture({"web": Fraction(1, 3), "code": 1}).weights == (("code", 3), ("web", 1))


def test_weights_too_large_are_scaled_and_none_is_lost() -> None:
    many = mixture({"large": 10**15, "other": 10**15 - 1, "small": 1})
    assert many.total <= LARGEST_SUM
    assert dict(many.weights)["small"] == 1
    assert abs(dict(many.weights)["large"] - LARGEST_SUM // 2) < 4


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**12), min_size=1))
def test_weights_told_by_a_mixture_make_the_same_mixture(weights: dict[str, int]) -> None:
    many = mixture(weights)
    assert mixture(dict(many.weights)) == many


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1}, {"a": float("nan")}, {"a": float("inf")}, {"a": "much"}])
def test_refuses_weights_that_mix_nothing(weights: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=r"weight"):
        mixture(weights)


@pytest.mark.parametrize("weights", [(), (("a", 0),), (("a", 1), ("a", 2)), (("a", LARGEST_SUM), ("b", 1))])
def test_a_mixture_holds_what_it_says(weights: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(ValueError, match="weight"):
        Mixture(weights)


def test_is_a_value() -> None:
    many = mixture({"a": 2, "b": 3})
    assert pickle.loads(pickle.dumps(many)) == many
    assert hash(many) == hash(mixture({"b": 3, "a": 2}))


# Part of the order, see tests/test_order.py: may change only with a new major version of the format.
def test_pinned_mixture() -> None:
    streams, ordinals = mixture({"a": 5, "b": 3, "c": 2}).split(np.arange(10**12, 10**12 + 20))
    assert streams.tolist() == [0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 1, 0, 2, 0, 1, 0, 2, 0, 1]
    assert ordinals.tolist()[:4] == [500000000000, 300000000000, 500000000001, 200000000000]
