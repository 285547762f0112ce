"""The order of rows: a permutation, pinned, invertible, and not to be told from a true one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice, product

import numpy as np
import pytest
from numpy.typing import NDArray
from shuffles import NAMES, VARIANCES, Spread, affine_feistel, by_numpy, congruential_walk, statistics

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


ROWS, SEEDS = 16_001, 20
HUGE = 10**12 + 39
#: Orders by what is shuffled, of (seed): a stretch of rows, and of how many it is.
WHOLE: dict[str, tuple[Callable[[int], NDArray[np.int64]], int]] = {
    "an epoch": (lambda seed: permute(np.arange(ROWS), ROWS, stream_key(seed, "web")), ROWS),
    "a stretch of 10^12 rows": (lambda seed: permute(HUGE // 3 + np.arange(ROWS), HUGE, stream_key(seed, "web")), HUGE),
    "a stream of one lane": (lambda seed: epoch_of(geometry(12, 1333, 5), seed), ROWS),
}
LANED = {"16 lanes": (200, 79, 201), "128 lanes": (1060, 15, 101), "256 lanes": (2650, 6, 101)}


def epoch_of(shape: Geometry, seed: int) -> NDArray[np.int64]:
    return Order(shape, stream_key(seed, "web")).rows(np.arange(shape.rows))[1]


@lru_cache(maxsize=8)
def spread(rows: int, total: int) -> Spread:
    """What NumPy's permutation gives for 60 seeds, so that the bound itself is known to a tenth."""
    return Spread.of(rows, total, 3 * SEEDS)


def scores(order: Callable[[int], NDArray[np.int64]], total: int, seeds: int = SEEDS) -> dict[str, NDArray[np.float64]]:
    """By statistic: how many of NumPy's deviations an order lies off NumPy's mean, for each seed."""
    found = [spread(len(rows), total).scores(statistics(rows, total)) for rows in map(order, range(seeds))]
    return {name: np.array([one[name] for one in found]) for name in NAMES}


def is_random(found: dict[str, NDArray[np.float64]]) -> bool:
    """Five deviations hold for any seed, and one for the mean over seeds, whose own deviation by chance is 0.26."""
    return all(np.abs(values).max() < 5 and abs(values.mean()) < 1.2 for values in found.values())


@pytest.mark.parametrize("name", WHOLE)
def test_cannot_be_told_from_numpys_permutation(name: str) -> None:
    assert is_random(scores(*WHOLE[name]))


@pytest.mark.parametrize("seed", [0, 1])
def test_numpy_passes_and_weak_shuffles_are_caught(seed: int) -> None:
    """The peers' closed forms, by name: an affine Feistel fails on every statistic but one, a walk on low bits."""
    assert is_random(scores(lambda own: by_numpy(own + 100 * seed, ROWS, ROWS), ROWS))
    affine = scores(lambda own: affine_feistel(ROWS, own + seed), ROWS, 2)
    assert all(np.abs(affine[name]).min() > 8 for name in ("distinct_steps", "low_bit_flips"))
    assert not is_random(affine)
    walk = scores(lambda own: congruential_walk(ROWS, own + seed), ROWS, 2)
    assert np.abs(walk["low_bit_flips"]).min() > 8
    assert not is_random(walk)


@pytest.mark.parametrize("name", LANED)
def test_lanes_leave_batches_as_varied_as_a_true_permutation(name: str) -> None:
    """Neighbours lie in different lanes, so their differences are not free; what batches hold is.

    Batches of sorted data may vary less than by chance, as all lanes are in each, but not more.
    """
    shape = geometry(*LANED[name])
    assert (shape.lanes, shape.rows) == (int(name.split()[0]), ROWS)
    found = scores(lambda seed: epoch_of(shape, seed), ROWS)
    for variance in VARIANCES:
        assert found[variance].max() < 5
        assert found[variance].mean() < 1.2
    assert np.abs(found["low_bit_flips"]).max() < 5
    for one in (statistics(epoch_of(shape, seed), ROWS) for seed in range(2)):
        assert one["distinct_steps"] > 0.9 * spread(ROWS, ROWS).means["distinct_steps"]
        assert abs(one["serial_correlation"]) < 0.1


def test_a_stretch_of_a_large_stream_varies_as_its_blocks_in_flight_do() -> None:
    """2^41 rows: what 8,192 blocks hold of 64 sources is not what the whole holds, and strays by chance.

    So batches of sorted data vary by up to 1 + batch / blocks of what chance gives, 1.03 here. That is the price of the
    block shuffle, and all of it.
    """
    shape = geometry(1 << 33, 256, 0)
    assert shape.lanes * shape.window == 8192

    def stretch(seed: int) -> NDArray[np.int64]:
        return Order(shape, stream_key(seed, "web")).rows(10**12 + np.arange(ROWS))[1]

    found = scores(stretch, shape.rows)
    for name in ("low_bit_flips", "serial_correlation", "batch_variance"):
        assert np.abs(found[name]).max() < 5
        assert abs(found[name].mean()) < 1.2
    varied = np.mean([statistics(stretch(seed), shape.rows)["source_variance"] for seed in range(4)])
    assert 0.96 < varied < 1 + 3 * 256 / 8192


def test_epochs_have_nothing_in_common() -> None:
    order = Order(geometry(700, 64, 203), stream_key(4, "web"))
    first, second = order.rows(np.arange(2 * order.geometry.rows))[1].reshape(2, -1)
    assert np.mean(first == second) < 5 / order.geometry.rows


def small_geometries() -> Iterator[Geometry]:
    """Every shape of at most 40 rows of these groups, rows, tails, lanes and windows, each 29th of them."""
    shapes = product(range(14), (1, 2, 3), (0, 1, 2, 5, 9, 17), (1, 2, 4, 8, 16), (1, 2, 3))
    small = (shape for shape in shapes if 0 < shape[0] * shape[1] + shape[2] <= 40)
    for values in islice(small, None, None, 29):
        yield Geometry(*values)


def larger_geometries() -> Iterator[Geometry]:
    """Drawn shapes of some hundred rows, of few groups and many, with more tail than groups and less."""
    chance = np.random.default_rng(2)
    for _ in range(25):
        groups, size, tail = (int(chance.integers(low, high)) for low, high in ((0, 150), (1, 9), (1, 600)))
        yield Geometry(groups, size, tail, 1 << int(chance.integers(0, 7)), int(chance.integers(1, 9)))


@pytest.mark.parametrize("shapes", [small_geometries, larger_geometries])
def test_every_row_comes_once_an_epoch_and_is_found_back(shapes: Callable[[], Iterator[Geometry]]) -> None:
    for shape in shapes():
        order, ordinals = Order(shape, 77), np.arange(2 * shape.rows)
        epochs, rows = order.rows(ordinals)
        assert np.array_equal(epochs, ordinals // shape.rows), shape
        assert np.array_equal(np.sort(rows.reshape(2, -1), axis=1), ordinals.reshape(2, -1) % shape.rows), shape
        assert np.array_equal(order.ordinals(epochs, rows), ordinals), shape


# Rows of 2^41 and more, near 2^62 in all, with no tail, little and most; one row a group and 2^41.
@pytest.mark.parametrize(
    "shape",
    [
        geometry(1 << 33, 1 << 8, 10**9),
        geometry((1 << 54) - 1000, 1 << 8, 1000),
        geometry(10**12, 1, 10**12 + 1),
        Geometry(1 << 53, 1 << 8, (1 << 61) - 1, 1024, 8),
        Geometry(1 << 20, 1 << 41, 1 << 61, 1 << 16, 8),
        Geometry(512, 1, (1 << 62) - 512, 256, 8),
        Geometry(0, 7, 1 << 62, 1, 8),
        Geometry(0, 7, (1 << 62) - 1, 1, 8),
    ],
)
def test_huge_streams_are_found_back_without_overflow(shape: Geometry) -> None:
    order, last = Order(shape, 5), shape.rows - 1
    drawn = np.random.default_rng(0).integers(0, shape.rows, 300)
    ordinals = np.concatenate([drawn, np.arange(50), last - np.arange(50)])
    _, rows = order.rows(ordinals)
    assert rows.min() >= 0
    assert rows.max() <= last
    assert len(np.unique(rows)) == len(np.unique(ordinals))
    assert np.array_equal(order.ordinals(np.zeros_like(ordinals), rows), ordinals)
    assert np.array_equal(order.rows(order.ordinals(np.zeros_like(drawn), drawn))[1], drawn)


def test_groups_and_tail_take_turns_evenly() -> None:
    """At any place as many rows of the tail have come as its share, to within a turn of the lanes it lies in."""
    for shape in (geometry(700, 8, 5), geometry(700, 8, 803), geometry(300, 8, 4000), geometry(130, 8, 1041)):
        order = Order(shape, 3)
        _, rows = order.rows(np.arange(shape.rows))
        laned = np.isin(np.arange(shape.rows), order.ordinals(np.zeros_like(rows), np.arange(shape.rows)))
        assert laned.all()
        short = np.cumsum(rows >= shape.groups * shape.rows_per_group)
        strays = np.abs(short - np.arange(1, shape.rows + 1) * (shape.tail_rows / shape.rows))
        assert strays.max() < max(shape.lanes, 5 * np.sqrt(shape.tail_rows))


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


@pytest.mark.parametrize("tail", [0, 1000])
@pytest.mark.parametrize(
    ("world", "batch", "most"), [(3, 384, 1.05), (16, 384, 1.02), (17, 1024, 1.1), (64, 384, 1.03)]
)
def test_ranks_share_few_blocks(world: int, batch: int, most: float, tail: int) -> None:
    """A batch sorted by lane and cut into ranks meets each block from one rank or two; a full shuffle, from all."""
    order = Order(geometry(3000, 16, tail), 3)
    assert order.geometry.lanes == 256
    ordinals = np.arange(order.geometry.rows // batch * batch).reshape(-1, batch)
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
