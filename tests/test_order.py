"""The order of rows: a permutation, pinned, invertible, and not to be told from a true one."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.sharding.order import LANE_SCALE, Geometry, Order, geometry, stream_key
from penstock.sharding.permutation import derive, permute, unpermute

MASK = (1 << 64) - 1


def slow_mix(word: int) -> int:
    """The finaliser of splitmix64 in Python's integers, from Vigna's splitmix64.c."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


def slow_permute(index: int, n: int, key: int) -> int:
    """Six half-rounds over unequal halves, walked until back in the domain."""
    bits = (n - 1).bit_length()
    low_bits = bits - bits // 2
    while True:
        high, low = index >> low_bits, index & ((1 << low_bits) - 1)
        for turn in range(6):
            step = key + (turn + 1) * 0x9E3779B97F4A7C15 & MASK
            if turn % 2 == 0:
                high ^= slow_mix(low ^ step) & ((1 << bits // 2) - 1)
            else:
                low ^= slow_mix(high ^ step) & ((1 << low_bits) - 1)
        index = high << low_bits | low
        if index < n:
            return index


def test_equals_the_slow_network_with_a_domain_and_a_key_for_each_element() -> None:
    rng = np.random.default_rng(1)
    sizes = np.concatenate([rng.integers(1, 50, 200), rng.integers(1, 1 << 62, 200), [1, 2, 3, 1 << 62]])
    index = rng.integers(0, sizes)
    keys = rng.integers(0, MASK, len(sizes), dtype=np.uint64, endpoint=True)
    expected = [slow_permute(int(i), int(n), int(k)) for i, n, k in zip(index, sizes, keys, strict=True)]
    assert permute(index, sizes, keys).tolist() == expected
    assert unpermute(expected, sizes, keys).tolist() == index.tolist()
    assert permute(index[:9], 1 << 62, 7).tolist() == [slow_permute(int(i), 1 << 62, 7) for i in index[:9]]


@pytest.mark.parametrize("n", [*range(1, 66), 1023, 1024, 1025, 65_537])
def test_permutes_every_small_domain(n: int) -> None:
    image = permute(np.arange(n), n, 99)
    assert np.array_equal(np.sort(image), np.arange(n))
    assert np.array_equal(unpermute(image, n, 99), np.arange(n))


@pytest.mark.parametrize("n", [(1 << 32) + 5, (1 << 61) + 1, 1 << 62])
def test_large_domains_come_back_without_overflow(n: int) -> None:
    index = np.random.default_rng(n & 0xFF).integers(0, n, 2000)
    image = permute(index, n, 5)
    assert image.min() >= 0
    assert image.max() < n
    assert np.array_equal(unpermute(image, n, 5), index)


def test_the_smallest_domains_take_every_order_about_equally_often() -> None:
    """Six half-rounds of one bit leave a bias of a few percent over the 24 orders of four rows, none in a place."""
    orders = np.stack([permute(np.full(24_000, i), 4, derive(3, np.arange(24_000))) for i in range(4)])
    _, counts = np.unique(orders, axis=1, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 850
    assert counts.max() < 1150
    places = np.bincount(orders[0])
    assert ((places - 6000) ** 2 / 6000).sum() < 21  # chi-square, 3 degrees of freedom: p(21) = 1e-4


def statistics(order: NDArray[np.int64]) -> tuple[float, float, float, float, float]:
    """Differences: chi2 in 256 bins, share of distinct ones; serial correlation; batch variance; low-bit flips."""
    n = len(order)
    deltas = np.diff(order) % n
    counts = np.bincount(deltas * 256 // n, minlength=256)
    chi2 = float(((counts - len(deltas) / 256) ** 2 / (len(deltas) / 256)).sum())
    batches = order[: n // 500 * 500].reshape(-1, 500).mean(axis=1)
    ideal = (n * n - 1) / 12 / 500 * (1 - 500 / n)
    correlation = float(np.corrcoef(order[:-1], order[1:])[0, 1])
    flips = float(np.mean((order[:-1] ^ order[1:]) & 1))
    return chi2, len(np.unique(deltas)) / n, correlation, float(batches.var() / ideal), flips


def assert_random(order: NDArray[np.int64]) -> None:
    """Bounds that a true permutation passes by far; the peers' closed forms fail them (chi2 7,419 to 2.6e8)."""
    chi2, distinct, correlation, variance, flips = statistics(order)
    assert 160 < chi2 < 370
    assert abs(distinct - 0.632) < 0.004
    assert abs(correlation) < 0.008
    assert 0.8 < variance < 1.22
    assert abs(flips - 0.5) < 0.005


@pytest.mark.parametrize("n", [200_003, 1 << 18])
@pytest.mark.parametrize("key", [0, 1, MASK])
def test_cannot_be_told_from_a_true_permutation(n: int, key: int) -> None:
    assert_random(permute(np.arange(n), n, key))


def test_the_bounds_hold_for_a_true_permutation_and_catch_weak_rounds() -> None:
    n = 200_003
    assert_random(np.random.default_rng(0).permutation(n))
    with pytest.raises(AssertionError):
        assert_random(np.arange(n) * 123_457 % n)


def test_a_stream_of_one_lane_is_a_full_permutation() -> None:
    order = Order(geometry(15, 1 << 14, 0), stream_key(4, "web"))
    assert order.geometry.lanes == 1
    assert_random(order.rows(np.arange(order.geometry.rows))[1])


def test_lanes_leave_batches_as_varied_as_a_true_permutation() -> None:
    """Neighbours lie in different lanes, so their differences are not free; what batches hold is."""
    order = Order(geometry(700, 256, 803), stream_key(4, "web"))
    first, second = order.rows(np.arange(2 * order.geometry.rows))[1].reshape(2, -1)
    _, distinct, correlation, variance, flips = statistics(first)
    assert distinct > 0.61
    assert abs(correlation) < 0.02
    assert 0.8 < variance < 1.22
    assert abs(flips - 0.5) < 0.005
    assert np.mean(first == second) < 1e-4


def geometries() -> list[Geometry]:
    rng = np.random.default_rng(2)
    drawn = [
        Geometry(int(groups), int(size), int(tail), 1 << int(lanes), int(window))
        for groups, size, tail, lanes, window in zip(
            rng.integers(0, 150, 150),
            rng.integers(1, 9, 150),
            rng.integers(0, 30, 150),
            rng.integers(0, 7, 150),
            rng.integers(1, 9, 150),
            strict=True,
        )
    ]
    return [Geometry(0, 7, 1, 1, 8), Geometry(1, 1, 0, 1, 8), *(g for g in drawn if g.rows)]


def test_every_row_comes_once_an_epoch_and_is_found_back() -> None:
    for shape in geometries():
        order = Order(shape, 77)
        epochs, rows = order.rows(np.arange(3 * shape.rows))
        assert np.array_equal(epochs, np.repeat(np.arange(3), shape.rows))
        for epoch in rows.reshape(3, -1):
            assert np.array_equal(np.sort(epoch), np.arange(shape.rows)), shape
        assert np.array_equal(order.ordinals(epochs, rows), np.arange(3 * shape.rows)), shape


def test_any_ordinal_stands_alone() -> None:
    order = Order(geometry(5000, 16, 100), 1)
    ordinals = np.random.default_rng(0).integers(0, 10**12, 500)
    _, rows = order.rows(ordinals)
    assert [int(order.rows(ordinals[i : i + 1])[1][0]) for i in range(0, 500, 50)] == rows[::50].tolist()


@pytest.mark.parametrize("groups", [0, 1, 7, 8, 100, 2047, 2048, 50_000, 1 << 18, 1 << 30])
def test_geometry_keeps_the_tail_small_and_enough_blocks_in_flight(groups: int) -> None:
    shape = geometry(groups, 256, 5)
    assert shape.rows == groups * 256 + 5
    assert shape.lanes * shape.window >= 2048
    assert groups - shape.groups_per_lane * shape.lanes <= groups / 8


def blocks(order: Order, ordinals: NDArray[np.int64], first: int, last: int) -> set[tuple[int, int]]:
    """Blocks behind rows `first` to `last` of each batch, sorted by lane."""
    lanes = np.argsort(order.lanes(ordinals), axis=1, kind="stable")[:, first:last]
    mine = np.take_along_axis(ordinals, lanes, axis=1).ravel()
    epochs, rows = order.rows(mine)
    return set(zip(epochs.tolist(), (rows // order.geometry.rows_per_group).tolist(), strict=True))


@pytest.mark.parametrize(("world", "most"), [(8, 1.12), (16, 1.2), (64, 1.9)])
def test_ranks_share_few_blocks(world: int, most: float) -> None:
    """A batch sorted by lane and cut into ranks meets each block from one rank or two; a full shuffle, from all."""
    order = Order(geometry(1 << 14, 16, 0), 3)
    assert order.geometry.lanes == 256
    batch = 384
    ordinals = np.arange(batch * 256).reshape(-1, batch)
    read = [blocks(order, ordinals, r * batch // world, (r + 1) * batch // world) for r in range(world)]
    assert sum(map(len, read)) / len(set.union(*read)) < most


def test_new_blocks_are_asked_for_at_an_even_rate() -> None:
    """Lanes change windows in turn: once under way no batch needs many blocks that no batch before it has met."""
    order = Order(geometry(1 << 14, 16, 0), 3)
    rows = order.rows(np.arange(1 << 17))[1].reshape(-1, 512) // 16
    seen: set[int] = set()
    fresh = []
    for batch in rows.tolist():
        fresh.append(len(set(batch) - seen))
        seen.update(batch)
    later = fresh[64:]
    assert max(later) < 4 * sum(later) / len(later)


def test_lanes_of_a_run_of_ordinals_spread_evenly() -> None:
    order = Order(geometry(4096, 4, 0), 1)
    for start in (0, 7, 300):
        lanes = np.sort(order.lanes(np.arange(start, start + 64)))
        assert np.abs(lanes / LANE_SCALE - np.arange(64) / 64).max() < 1 / 32


def test_sorted_sources_are_mixed_within_a_batch() -> None:
    """Rows numbered by 64 contiguous sources: counts a batch vary little more than by chance."""
    order = Order(geometry(1 << 15, 16, 0), 11)
    total = order.geometry.rows
    rows = order.rows(np.arange(total))[1].reshape(-1, 512)
    source = rows * 64 // total
    counts = np.stack([np.bincount(batch, minlength=64) for batch in source])
    ideal = 512 * (1 / 64) * (1 - 1 / 64)
    assert counts.var(axis=0).mean() / ideal < 1.3


@pytest.mark.parametrize(
    "values", [(-1, 1, 0, 1, 8), (1, 0, 0, 1, 8), (1, 1, 0, 3, 8), (1, 1, 0, 1, 0), (1 << 62, 2, 0, 1, 8)]
)
def test_refuses_a_geometry_that_cannot_be(values: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"lanes|counts|2\^62"):
        Geometry(*values)


# The order is part of the format. States saved by version 1 rely on these values: they change only with a new major
# version of the format, by whoever writes its reader, and the old values stay as a test of the old reader.
def test_pinned_permutations() -> None:
    assert permute(np.arange(12), 12, 0).tolist() == [3, 0, 2, 4, 8, 6, 9, 10, 7, 1, 11, 5]
    assert permute(np.arange(3), 10**15, 42).tolist() == [820414051501568, 798218244763482, 927209346249337]
    assert stream_key(0, "train") == 14076872924481549879


def test_pinned_order() -> None:
    order = Order(geometry(3000, 256, 1234), stream_key(0, "train"))
    assert (order.geometry.lanes, order.geometry.window) == (256, 8)
    assert order.rows(np.arange(6))[1].tolist() == [308274, 130761, 628658, 449761, 751416, 173362]
    assert order.rows(10**12 + np.arange(3))[1].tolist() == [348330, 536611, 551219]
    digest = hashlib.sha256(order.rows(np.arange(order.geometry.rows))[1].astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "d2241073b72f4d67"
