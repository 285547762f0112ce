"""Exactly once: whatever the number of ranks, threads and restarts, every row of every stream comes once an epoch.

The wide grids ask the schedule, which is arithmetic; a few runs read, and one is killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_files import put_data
from numpy.typing import NDArray

from penstock.sharding import StreamingLoader
from penstock.sharding.batch import Batch
from penstock.sharding.course import Course
from penstock.sharding.dataset import TokenData
from penstock.sharding.plan import Plan, Segment, Shuffle
from penstock.sharding.schedule import Schedule

CONCAT, BEST_FIT = "concat-16", "best_fit-32"
SHUFFLES: tuple[Shuffle, ...] = ("block", "full", None)
STREAMS: Mapping[str, Sequence[int]] = {
    "train/a": (290, 220, 5), "train/b": (40, 1), "train/c": (1,), "validation/a": (30,),
}  # fmt: skip
TRAIN = ("train/a", "train/b", "train/c")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("once") / "set", shards=STREAMS)


def course(data: TokenData, pack: str, shuffle: Shuffle, size: int, mixture: Any = "train", seed: int = 5) -> Course:
    return Course(data, Plan((Segment(0, size, 0, pack, mixture, ""),)), seed, shuffle)


def given(schedules: Sequence[Schedule], position: int = 0) -> Iterator[NDArray[np.int64]]:
    """Batch by batch, (rows, 5): shard, group, row, epoch and position of each row of all ranks, in their order."""
    for jobs in zip(*(schedule.jobs(position) for schedule in schedules), strict=True):
        places = [job.places for job in jobs]
        columns = [np.concatenate([getattr(part, name) for part in places])
                   for name in ("shards", "groups", "rows", "epochs")]  # fmt: skip
        yield np.stack([*columns, np.concatenate([job.positions for job in jobs])], axis=1)


def every_row(data: TokenData, pack: str, streams: Sequence[str] = TRAIN) -> NDArray[np.int64]:
    """(rows, 3): shard, group and row in the group of each row of these streams, sorted."""
    rows = []
    for number, shard in enumerate(data.generation.shards):
        if shard.stream in streams:
            count = shard.packs[pack]
            rows += [(number, *divmod(row, count.group_rows)) for row in range(count.rows)]
    return np.array(rows)


def rows_sorted(table: NDArray[np.int64]) -> NDArray[np.int64]:
    return table[np.lexsort(table.T[::-1])]


# The grid: ranks, shuffles, packs, streams.

GRID = [*product(range(1, 18), [None]), *product([5], product(SHUFFLES, (CONCAT, BEST_FIT)))]


@pytest.mark.parametrize(("world_size", "of"), GRID)
def test_all_ranks_together_give_every_row_once(data: TokenData, world_size: int, of: Any) -> None:
    shuffle, pack = of or [*product(SHUFFLES, (CONCAT, BEST_FIT))][world_size % 6]
    road = course(data, pack, shuffle, 34)
    ranks = [Schedule(road, rank, world_size, 2 * road.epoch_rows, "short") for rank in range(world_size)]
    told = np.concatenate(list(given(ranks)))
    assert np.array_equal(np.sort(told[:, 4]), np.arange(2 * road.epoch_rows))
    for epoch in (0, 1):
        assert np.array_equal(rows_sorted(told[told[:, 3] == epoch][:, :3]), every_row(data, pack))


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("weights", [(5, 1, 1), (1, 1, 9), (1, 10**9, 3), (1, 0, 0), (0, 0, 1), (0, 7, 2)])
def test_each_stream_of_a_mixture_gives_its_rows_once_an_epoch_of_its_own(
    data: TokenData, shuffle: Shuffle, weights: tuple[int, ...]
) -> None:
    """train/c is one row in its pack: it comes again and again, an epoch each."""
    mixture = tuple((name, weight) for name, weight in zip(TRAIN, weights, strict=True) if weight)
    road = course(data, BEST_FIT, shuffle, 100, mixture)
    ranks = [Schedule(road, rank, 3, 2500, "short") for rank in range(3)]
    told = np.concatenate(list(given(ranks)))
    told = told[np.argsort(told[:, 4])]
    streams = np.array([shard.stream for shard in data.generation.shards])[told[:, 0]]
    for name, weight in mixture:
        mine, rows = told[streams == name], every_row(data, BEST_FIT, [name])
        assert abs(len(mine) - 2500 * weight / sum(weights)) <= 1
        assert np.array_equal(mine[:, 3], np.arange(len(mine)) // len(rows))
        for epoch in range(len(mine) // len(rows)):
            assert np.array_equal(rows_sorted(mine[mine[:, 3] == epoch][:, :3]), rows)
        assert len(np.unique(mine[:, :4], axis=0)) == len(mine)


@pytest.mark.parametrize("size", [1, 7, 5000])
@pytest.mark.parametrize("tail", ["drop", "short", "pad", "carry"])
def test_every_tail_says_what_becomes_of_what_is_left(data: TokenData, size: int, tail: Any) -> None:
    """Batches of one row, and batches larger than the data."""
    road = course(data, CONCAT, "block", size)
    rows = road.epoch_rows
    ranks = [Schedule(road, rank, 4, rows, tail) for rank in range(4)]
    told = list(given_positions(ranks))
    held = np.concatenate(told) if told else np.zeros(0, np.int64)
    whole = rows // size * size
    assert np.array_equal(np.sort(held[held >= 0]), np.arange(rows if tail in ("short", "pad") else whole))
    assert (held < 0).sum() == (-rows % size if tail == "pad" else 0)


def given_positions(schedules: Sequence[Schedule]) -> Iterator[NDArray[np.int64]]:
    for jobs in zip(*(schedule.jobs(0) for schedule in schedules), strict=True):
        yield np.concatenate([job.positions for job in jobs])


# Reading: threads, restarts, changes.


class Stream:
    """SHA-256 over rows in the order of their positions, which no batch size and no number of ranks changes."""

    def __init__(self) -> None:
        self._hash, self.position = hashlib.sha256(), 0

    def add(self, batches: Sequence[Batch]) -> None:
        """Add all ranks' rows of one step."""
        rows = {at: row for batch in batches for at, row in zip(batch.positions.tolist(), batch.buffer, strict=True)}
        assert sorted(rows) == list(range(self.position, self.position + len(rows)))
        for at in sorted(rows):
            self._hash.update(rows[at].tobytes())
        self.position += len(rows)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def uninterrupted(data: TokenData, end: int) -> str:
    stream = Stream()
    for batch in islice(StreamingLoader(data, 60, pack=BEST_FIT, seed=5), end // 60):
        stream.add([batch])
    assert stream.position == end
    return stream.digest


def test_threads_change_nothing(data: TokenData) -> None:
    expected = uninterrupted(data, 180)
    for prefetch, threads in zip(range(6), (1, 5, 2, 4, 3, 1), strict=True):
        named: dict[str, Any] = {"pack": BEST_FIT, "seed": 5, "world_size": 2}
        ranks = [StreamingLoader(data, 60, rank=rank, prefetch=prefetch, threads=threads, **named) for rank in (0, 1)]
        stream = Stream()
        for parts in islice(zip(*ranks, strict=True), 3):
            stream.add(parts)
        assert stream.digest == expected


def test_twenty_changes_of_ranks_and_batch_size_leave_the_stream_as_it_was(data: TokenData) -> None:
    chance = np.random.default_rng(7)
    loader = StreamingLoader(data, 60, pack=BEST_FIT, seed=5)
    state, stream = loader.state_dict(), Stream()
    for _ in range(20):
        world_size, size, steps = (int(chance.integers(1, most)) for most in (5, 50, 3))
        ranks = [
            StreamingLoader.from_state(
                data,
                json.loads(json.dumps(state)),
                rank=rank,
                world_size=world_size,
                batch_size=size,
                prefetch=0,
                threads=2,
            )
            for rank in range(world_size)
        ]
        for parts in islice(zip(*ranks, strict=True), steps):
            stream.add(parts)
        state = ranks[0].state_dict()
        assert all(rank.state_dict() == state for rank in ranks)
    last = StreamingLoader.from_state(data, state, batch_size=-stream.position % 60 + 60)
    stream.add([next(iter(last))])
    assert stream.digest == uninterrupted(data, stream.position)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_saved_at_every_step_resumed_and_the_resumed_resumed(data: TokenData, shuffle: Shuffle) -> None:
    """Over changes of weights, batch size and pack, skipped steps, a capped stream and the end of the data."""
    loader = StreamingLoader(
        data, 30, pack=CONCAT, shuffle=shuffle, seed=5, caps={"train/a": 1, "train/b": 1},
        weights=[(0, {"train/a": 3, "train/b": 1}), (250, {"train/a": 1}), (400, {"train/a": 5, "train/b": 1})],
        tail="short",
    )  # fmt: skip
    loader.change(at=100, batch_size=44)
    loader.skip(steps=range(5, 7))
    states, told = [loader.state_dict()], []
    for batch in loader:
        told.append((batch.step, batch.end, batch.positions.tolist(), batch.buffer.tobytes()))
        states.append(loader.state_dict())
    assert len(told) == len(loader) > 15
    state = states[0]
    for step, wanted in enumerate(told):
        again = StreamingLoader.from_state(data, json.loads(json.dumps(state)), tail="short", prefetch=step % 3)
        assert again.state_dict() == states[step]
        batch = next(iter(again))
        assert wanted == (batch.step, batch.end, batch.positions.tolist(), batch.buffer.tobytes())
        state = again.state_dict()
    assert state == states[-1]
    assert list(StreamingLoader.from_state(data, state, tail="short")) == []


# A training process that is killed.

TRAINING = """
import hashlib, json, os, sys, time
from pathlib import Path
from penstock.sharding import StreamingLoader

folder, saved, out, world, steps = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:])
state = json.loads(saved.read_text()) if saved.exists() else None
named = {"world_size": world, "cache": out}
ranks = [StreamingLoader.from_state(folder, state, rank=rank, **named) if state
         else StreamingLoader(folder, 24, pack="best_fit-32", seed=5, rank=rank, **named) for rank in range(world)]
for parts in zip(*ranks):
    record = b"".join(part.buffer.tobytes() for part in parts)
    (out / f"{parts[0].step:05d}").write_bytes(record)
    part = saved.with_suffix(".part")
    part.write_text(json.dumps(ranks[0].state_dict()))
    part.rename(saved)
    time.sleep(0.01)
    if parts[0].step + 1 == steps:
        break
files = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
         if os.path.islink(f"/proc/self/fd/{number}")]
shared = [line for line in [*open("/proc/self/maps"), *files] if "/dev/shm" in line or "/SYSV" in line]
print(json.dumps(shared))
"""


def test_a_training_process_killed_three_times_gives_the_same_tokens(data: TokenData, tmp_path: Path) -> None:
    """With another number of ranks at each start, nothing to clean up, and nothing in shared memory at any time."""
    steps, saved, out = 50, tmp_path / "state.json", tmp_path / "steps"
    out.mkdir()
    for world, kill_at in ((1, 9), (3, 25), (2, 38), (4, None)):
        asked = [data.store.url, saved, out, world, steps]
        process = subprocess.Popen(
            [sys.executable, "-c", TRAINING, *map(str, asked)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 60
        while kill_at is not None and not (out / f"{kill_at:05d}").exists():
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if kill_at is not None:
            os.kill(process.pid, signal.SIGKILL)
        told, errors = process.communicate(timeout=60)
        assert process.returncode == (0 if kill_at is None else -signal.SIGKILL), errors.decode()
    assert json.loads(told) == []
    expected = StreamingLoader(data, 24, pack=BEST_FIT, seed=5)
    records = sorted(path for path in out.iterdir() if path.name.isdecimal())
    assert [int(path.name) for path in records] == list(range(steps))
    for path, batch in zip(records, expected, strict=False):
        assert path.read_bytes() == batch.buffer.tobytes()
