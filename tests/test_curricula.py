"""Plans of many segments against an oracle that walks row by row: weights, caps, packs, batch sizes, skipped steps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_files import put_data
from numpy.typing import NDArray
from test_mixture import slow_stream

from penstock import RequestError
from penstock.sharding import StreamingLoader
from penstock.sharding.course import Course
from penstock.sharding.dataset import TokenData
from penstock.sharding.plan import Plan, Segment
from penstock.sharding.schedule import Schedule

CONCAT, BEST_FIT = "concat-16", "best_fit-32"
STREAMS = ("train/a", "train/b", "train/c", "train/d")
#: Positions of the last segment that are looked at; more than any stream gives of its own in a test.
BEYOND, MOST = 60, 400


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    """Streams of very many, many, few and one or two rows."""
    shards = {"train/a": (60, 40), "train/b": (15,), "train/c": (6, 1), "train/d": (1,), "validation/a": (3,)}
    return put_data(tmp_path_factory.mktemp("curricula") / "set", shards=shards)


@dataclass
class Walk:
    """What of one pack was given: rows by stream; the mixture in force, and how many rows it has given."""

    had: Counter[str] = field(default_factory=Counter)
    weights: tuple[tuple[str, int], ...] = ()
    given: int = 0

    def mix(self, weights: Mapping[str, int], most: Mapping[str, int]) -> bool:
        """Mix the streams that are not full; the same mixture goes on, another begins anew. False if all are full."""
        left = {name: weight for name, weight in weights.items() if name not in most or self.had[name] < most[name]}
        common = gcd(*left.values())
        wanted = tuple(sorted((name, weight // common) for name, weight in left.items()))
        if wanted != self.weights:
            self.weights, self.given = wanted, 0
        return bool(wanted)

    def turn(self) -> str:
        """The stream whose turn it is."""
        return self.weights[slow_stream([weight for _, weight in self.weights], self.given)[0]][0]

    def give(self) -> tuple[str, int]:
        """Give the next row: its stream and ordinal."""
        name = self.turn()
        self.given += 1
        self.had[name] += 1
        return name, self.had[name] - 1


def walked(plan: Plan, rows: Mapping[tuple[str, str], int], length: int) -> list[tuple[str, str, int]]:
    """Pack, stream and ordinal of the first positions; fewer where every stream has reached its cap.

    A stream that is full leaves when it would have its turn, or when a segment begins.
    """
    packs: dict[str, Walk] = {CONCAT: Walk(), BEST_FIT: Walk()}
    found: list[tuple[str, str, int]] = []
    for position in range(length):
        segment = [part for part in plan.segments if part.from_position <= position][-1]
        assert not isinstance(segment.mixture, str)
        walk, weights = packs[segment.pack], dict(segment.mixture)
        most = {name: cap * rows[segment.pack, name] for name, cap in segment.caps}
        if position == segment.from_position and not walk.mix(weights, most):
            return found
        full = walk.had[walk.turn()] >= most.get(walk.turn(), MOST)
        if full and not walk.mix(weights, most):
            return found
        found.append((segment.pack, *walk.give()))
    return found


weights_of = st.dictionaries(st.sampled_from(STREAMS), st.sampled_from([1, 1, 2, 3, 7, 100, 10**9]), min_size=1)
caps_of = st.dictionaries(st.sampled_from(STREAMS), st.integers(1, 3), max_size=3)
parts_of = st.tuples(
    st.integers(1, 50), st.integers(1, 40), st.sampled_from([CONCAT, CONCAT, BEST_FIT]), weights_of, caps_of
)
skips_of = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=3)


def made(parts: list[tuple[int, int, str, dict[str, int], dict[str, int]]], skips: list[tuple[int, int]]) -> Plan:
    segments, at = [], 0
    for length, size, pack, weights, caps in parts:
        mixture = tuple(sorted(weights.items()))
        segments.append(Segment(at, size, 0, pack, mixture, "", tuple(sorted(caps.items()))))
        at += length
    plan = Plan(tuple(segments))
    for first, length in skips:
        plan = plan.skipping(first, first + length)
    return plan


@cache
def keys_of(url: str, pack: str, stream: str) -> NDArray[np.int64]:
    """(n, 4): shard, group, row and epoch of a stream's first ordinals, from a loader that reads it alone."""
    places = StreamingLoader(Path(url), 8, pack=pack, weights={stream: 1}, seed=3).places(range(MOST))
    return np.stack([places.shards, places.groups, places.rows, places.epochs], axis=1)


def told(course: Course, length: int) -> NDArray[np.int64]:
    """(n, 4) of the rows at the first positions, by a course."""
    found = []
    for reading in course.readings:
        end = length if reading.end is None else min(length, reading.end)
        if end > reading.start:
            places = reading.positions.places(np.arange(reading.start, end))
            found.append(np.stack([places.shards, places.groups, places.rows, places.epochs], axis=1))
    return np.concatenate(found)


@settings(max_examples=20)
@given(st.lists(parts_of, min_size=1, max_size=5), skips_of, st.integers(1, 5))
def test_a_plan_is_what_a_walk_row_by_row_gives(data: TokenData, parts: Any, skips: Any, world_size: int) -> None:
    """Every position's row, over every change; and each batch holds its positions, whatever the number of ranks."""
    plan = made(parts, skips)
    rows = {(pack.pack.name, name): pack.streams[name].rows for pack in data.generation.packs for name in STREAMS}
    length = plan.last.from_position + BEYOND
    expected = walked(plan, rows, length)
    if len(expected) < plan.last.from_position:
        with pytest.raises(RequestError, match="has reached its cap"):
            Course(data, plan, 3, "block")
        return
    course = Course(data, plan, 3, "block")
    assert course.end == len(expected) if len(expected) < length else course.end is None or course.end >= length
    wanted = np.array([keys_of(data.store.url, pack, stream)[ordinal] for pack, stream, ordinal in expected])
    assert np.array_equal(told(course, len(expected)), wanted)
    check_batches(course, wanted, len(expected), world_size)


def check_batches(course: Course, wanted: NDArray[np.int64], end: int, world_size: int) -> None:
    """All ranks' rows of every batch before `end` are those of its positions, and batches leave no position out."""
    skipped = {at for first, past in course.plan.skips for at in range(first, past)}
    ranks = [Schedule(course, rank, world_size, end, "short") for rank in range(world_size)]
    held: list[int] = []
    for jobs in zip(*(rank.jobs(0) for rank in ranks), strict=True):
        positions = np.concatenate([job.positions for job in jobs])
        places = [(job.places.shards, job.places.groups, job.places.rows, job.places.epochs) for job in jobs]
        assert np.array_equal(np.concatenate([np.stack(part, axis=1) for part in places]), wanted[positions])
        assert positions.size <= course.plan.segment(int(positions.min())).batch_size
        assert len({(course.plan.segment(at).pack) for at in positions.tolist()}) == 1
        held += sorted(positions.tolist())
    assert held == [at for at in range(end) if at not in skipped]


@settings(max_examples=12)
@given(st.lists(parts_of, min_size=1, max_size=4), st.lists(st.integers(0, 6), min_size=4, max_size=4))
def test_changes_made_on_the_way_are_the_plan_that_foresaw_them(data: TokenData, parts: Any, steps: list[int]) -> None:
    """Asked for between steps, with a state saved, read and resumed at each: the same plan, the same rows."""
    first, *later = parts
    _, size, pack, weights, caps = first
    loader = StreamingLoader(data, size, pack=pack, weights=weights, caps=caps, seed=3)
    rows = {(order.pack.name, name): order.streams[name].rows for order in data.generation.packs for name in STREAMS}
    for (_, size, pack, weights, caps), count in zip(later, steps, strict=False):
        ahead = loader.plan.extent(loader.step + count)[0]
        if len(walked(loader.plan, rows, ahead)) < ahead:
            return
        loader.seek(loader.step + count)
        changes: dict[str, Any] = {"batch_size": size, "pack": pack, "weights": weights, "caps": caps}
        loader = StreamingLoader.from_state(data, json.loads(json.dumps(loader.state_dict())), **changes)
    expected = walked(loader.plan, rows, loader.plan.last.from_position + BEYOND)
    course = Course(data, loader.plan, 3, "block")
    wanted = np.array([keys_of(data.store.url, pack, stream)[ordinal] for pack, stream, ordinal in expected])
    assert np.array_equal(told(course, len(expected)), wanted)
