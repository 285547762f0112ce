"""The exchange: what has equal digests meets, by files and by shuffle alike."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matching import here
from numpy.typing import NDArray

from penstock import CorruptDataError
from penstock.pipelines.exchange import (
    PACKED,
    Digests,
    Group,
    Packed,
    exchange,
    fold,
    pack,
    plan_groups,
    put_bands,
    repeats,
)
from penstock.pipelines.runners import Job, RunnerOptions, run_job
from penstock.pipelines.stage import Meter, Receipt, Stage, without_cost
from penstock.pipelines.views import get_array, put_array
from penstock.sharding.store import Store
from penstock.transforms.kernels.entries import sort_entries


@dataclass(frozen=True)
class Part:
    number: int
    rows: int


def entries_of(part: Part, band: int, seed: int = 0) -> Packed:
    """Make a part's entries: half of its digests come from a pool that all parts share."""
    random = np.random.default_rng([seed, band, part.number])
    pool = np.random.default_rng([seed, band]).integers(0, 2**64 - 1, (50, 2), dtype=np.uint64)
    digests = random.integers(0, 2**64 - 1, (part.rows, 2), dtype=np.uint64)
    digests[: part.rows // 2] = pool[random.integers(0, 50, part.rows // 2)]
    return pack(digests, (np.uint64(part.number) << np.uint64(32)) + np.arange(part.rows, dtype=np.uint64))


@dataclass(frozen=True)
class Sign:
    store: Store

    def __call__(self, part: Part, folder: Path, meter: Meter) -> Receipt:
        bands = {f"band{band}": fold(entries_of(part, band))[0] for band in range(2)}
        return {"documents": part.rows, **put_bands(self.store, folder, bands)}


@dataclass(frozen=True)
class Link:
    store: Store
    foreign: int = 1 << 31

    def __call__(self, entries: Packed, folder: Path, meter: Meter) -> Receipt:
        edges = repeats(entries, self.foreign << 32)
        return {"addresses": len(entries), "forest": put_array(self.store, edges, "forest")}


PARTS = [Part(0, 900), Part(1, 0), Part(2, 1), Part(3, 2_000)]


def stage_in(folder: Path) -> Stage:
    return Stage.of(Store(folder), "duplicates", {}, {})


def exchanged(folder: Path, local: bool, parts: list[Part] = PARTS, **options: Any) -> tuple[Stage, list[Receipt]]:
    stage = stage_in(folder)
    _, linked = exchange(stage, parts, Sign(stage.store), Link(stage.store), here, local, group_bytes=9_000, **options)
    return stage, linked


def edges_of(stage: Stage, linked: list[Receipt]) -> set[tuple[int, int]]:
    return {tuple(edge) for receipt in linked for edge in get_array(stage.store, receipt["forest"]).tolist()}


def expected(parts: list[Part]) -> set[tuple[int, int]]:
    """Star of each digest in plain Python, of the first of each digest in each part."""
    found = set()
    for band in range(2):
        groups: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        for part in parts:
            for high, low, address in entries_of(part, band).tolist():
                groups[high, low].setdefault(part.number, address)
        for held in groups.values():
            first, *others = sorted(held.values())
            found |= {(first, other) for other in others}
    return found


def test_files_and_shuffle_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.pipelines.exchange.HERE_BYTES", 0)
    (one, by_file), (two, shuffled) = exchanged(tmp_path / "a", True), exchanged(tmp_path / "b", False)
    assert edges_of(one, by_file) == expected(PARTS)
    assert len(by_file) == 2 * 5
    assert list(map(without_cost, by_file)) == list(map(without_cost, shuffled))
    assert one.committed() == two.committed()
    assert one.store.list("data/") == two.store.list("data/")
    assert all(one.store.read(name) == two.store.read(name) for name in one.store.list("data/"))


def test_beam_shuffles_the_same(tmp_path: Path) -> None:
    by_file = exchanged(tmp_path / "a", True)[1]
    two = stage_in(tmp_path / "b")
    options = RunnerOptions(runner="local", workers=1)
    _, shuffled = exchange(
        two, PARTS, Sign(two.store), Link(two.store), lambda job: run_job(job, options), False, group_bytes=9_000
    )
    assert list(map(without_cost, by_file)) == list(map(without_cost, shuffled))


def test_what_is_committed_is_not_done_again(tmp_path: Path) -> None:
    stage, linked = exchanged(tmp_path, True)
    jobs: list[Job] = []
    again = exchange(stage, PARTS, Sign(stage.store), Link(stage.store), jobs.append, True, group_bytes=9_000)
    assert (again[1], jobs) == (linked, [])


def test_only_what_is_missing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.pipelines.exchange.HERE_BYTES", 0)
    stage, linked = exchanged(tmp_path, True)
    for key in ("sign-000003", "link-band1-0002-of-0005"):
        (tmp_path / "duplicates" / stage.hash / "receipts" / f"{key}.json").unlink()
    jobs: list[Job] = []

    def launch(job: Job) -> None:
        jobs.append(job)
        here(job)

    again = exchange(stage, PARTS, Sign(stage.store), Link(stage.store), launch, True, group_bytes=9_000)
    assert [list(job.tasks) for job in jobs] == [[PARTS[3]], [Group("band1", 2, 5)]]
    assert list(map(without_cost, again[1])) == list(map(without_cost, linked))


@pytest.mark.parametrize("local", [True, False])
def test_entries_of_earlier_runs_are_matched_against_and_not_with_one_another(tmp_path: Path, local: bool) -> None:
    earlier = [Part(5, 900), Part(6, 700)]
    index, folder = Store(tmp_path / "index"), tmp_path / "spool"
    folder.mkdir()
    extra = [
        Digests.of(index, Sign(index)(part, folder, Meter()), number)
        for part, number in zip(earlier, (4, 9), strict=True)
    ]
    stage = stage_in(tmp_path / "run")
    own = [Part(0, 20), Part(1, 30)]
    link = Link(stage.store, foreign=4)
    _, linked = exchange(stage, own, Sign(stage.store), link, here, local, extra=extra, group_bytes=9_000)
    renumbered = {part.number: number for part, number in zip(earlier, (4, 9), strict=True)}

    def here_called(address: int) -> int:
        number = address >> 32
        return renumbered.get(number, number) << 32 | address & 0xFFFFFFFF

    stars = expected([*own, *earlier])
    kept = {first for first, _ in stars if first >> 32 < 4}
    assert edges_of(stage, linked) == {
        (here_called(first), here_called(other)) for first, other in stars if first in kept
    }
    assert any(other >> 32 == 9 for _, other in edges_of(stage, linked))


def test_a_damaged_object_is_named(tmp_path: Path) -> None:
    stage, _ = exchanged(tmp_path, True)
    signed = stage.receipt("sign-000003")
    assert signed is not None
    (tmp_path / "duplicates" / stage.hash / signed["digests"]).write_bytes(b"short")
    with pytest.raises(CorruptDataError, match=r"digests-.* is damaged: it ends \d+ bytes early"):
        Digests.of(stage.store, signed).slice(Group("band0", 0, 1))


@pytest.mark.parametrize("skew", ["uniform", "low", "high", "one"])
@pytest.mark.parametrize("ranges", [1, 3, 40])
def test_slices_of_any_digests_make_the_whole(tmp_path: Path, skew: str, ranges: int) -> None:
    high = np.random.default_rng(1).integers(0, 2**64 - 1, 5_000, dtype=np.uint64)
    high = {"uniform": high, "low": high >> np.uint64(40), "high": ~(high >> np.uint64(40)), "one": high * 0 + 7}[skew]
    digests = np.stack([high, np.arange(5_000, dtype=np.uint64)], axis=1)
    packed = fold(pack(digests, np.arange(5_000, dtype=np.uint64)))[0]
    store = Store(tmp_path / "store")
    source = Digests.of(store, put_bands(store, tmp_path, {"a": packed[:0], "b": packed, "c": packed}))
    slices = [source.slice(Group("b", number, ranges)) for number in range(ranges)]
    assert np.array_equal(np.concatenate(slices), packed)
    assert len(source.slice(Group("a", 0, ranges))) == len(source.slice(Group("none", 0, ranges))) == 0
    for number, held in enumerate(slices):
        low, beyond = Group("b", number, ranges).bounds
        assert all(low <= value < beyond for value in held["high"].tolist())


def test_groups_are_planned_by_size(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sources = [Digests(store, "x", (("a", 0, 24 * 10), ("b", 240, 264))), Digests(store, "y", (("a", 0, 24),))]
    assert [(group.band, group.number, group.ranges) for group in plan_groups(sources, 24 * 4)] == [
        ("a", 0, 3), ("a", 1, 3), ("a", 2, 3), ("b", 0, 1),
    ]  # fmt: skip
    assert Group("a", 2, 3).bounds[1] == 1 << 64


def sorted_slowly(entries: NDArray[np.uint64]) -> list[list[int]]:
    return sorted(entries.tolist())


@pytest.mark.parametrize("top", [2, 200, 2**64 - 1])
@pytest.mark.parametrize("rows", [0, 1, 2, 33, 5_000])
def test_entries_are_sorted_whatever_they_are(top: int, rows: int) -> None:
    entries = np.random.default_rng(rows).integers(0, top, (rows, 3), dtype=np.uint64, endpoint=True)
    assert sort_entries(entries).tolist() == sorted_slowly(entries)


def test_hot_digests_that_share_a_bucket_are_sorted() -> None:
    entries = np.zeros((40_000, 3), np.uint64)
    entries[::2, 1], entries[:, 2] = 1, np.random.default_rng(0).permutation(40_000)
    assert sort_entries(entries).tolist() == sorted_slowly(entries)


def test_fold_keeps_the_smallest_address_of_each_digest_and_names_the_others() -> None:
    digests = np.array([[9, 1], [2, 5], [9, 1], [9, 2], [9, 1], [9, 1]], np.uint64)
    packed, edges = fold(pack(digests, np.array([30, 20, 10, 40, 50, 50], np.uint64)))
    assert packed.tolist() == [(2, 5, 20), (9, 1, 10), (9, 2, 40)]
    assert edges.tolist() == [[10, 30], [10, 50]]
    assert fold(np.zeros(0, PACKED))[1].shape == (0, 2)
    assert repeats(pack(digests, np.array([30, 20, 10, 40, 50, 50], np.uint64)), 10).tolist() == []


@pytest.mark.parametrize("distinct", [1, 30, 20_000])
def test_repeats_are_the_edges_of_a_fold(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    digests = random.integers(0, 2**64 - 1, (distinct, 2), dtype=np.uint64)[random.integers(0, distinct, 20_000)]
    packed = pack(digests, random.permutation(20_000).astype(np.uint64))
    assert np.array_equal(repeats(packed), fold(packed)[1])
