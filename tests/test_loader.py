"""The loader: every row once, whoever asks and wherever a run was stopped; what cannot be read is told by name."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_files import EOS, LARGE, SHARDS, document_tokens, put_data
from numpy.typing import NDArray

from penstock import CorruptDataError, InputError, RequestError, StoreError
from penstock.sharding import StreamingLoader
from penstock.sharding.batch import Batch
from penstock.sharding.dataset import TokenData, open_tokens
from penstock.sharding.format import Pack
from penstock.sharding.plan import Plan, Segment, State
from penstock.sharding.store import Store

CONCAT, BEST_FIT = "concat-16", "best_fit-32"
NONE = 2**64 - 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("loader") / "set")


@pytest.fixture
def copy(data: TokenData, tmp_path: Path) -> TokenData:
    """A copy that a test may damage."""
    shutil.copytree(data.store.url, tmp_path / "set")
    return open_tokens(tmp_path / "set")


def buffers(batches: list[Batch]) -> NDArray[np.int32]:
    return np.concatenate([batch.buffer for batch in batches])


def all_documents(data: TokenData) -> dict[int, list[int]]:
    """Tokens of each document by its global id: the shard's place among the sorted, then the ordinal."""
    places = [(stream, number) for stream in sorted(SHARDS) for number in range(len(SHARDS[stream]))]
    size = data.generation.vocabulary.size
    return {
        shard << 32 | ordinal: tokens
        for shard, (stream, number) in enumerate(places)
        for ordinal, tokens in enumerate(document_tokens(stream, number, SHARDS[stream][number], size))
    }


def pieces(batches: list[Batch]) -> Iterator[tuple[int, int, list[int], list[int], list[bool]]]:
    """Each piece of a document: (document, offset, tokens, labels, loss mask), read off the arrays of batches."""
    for batch in batches:
        tokens, labels = batch.tokens.ravel().tolist(), batch.labels.ravel().tolist()
        mask, identifiers = batch.loss_mask.ravel().tolist(), batch.document_ids.ravel().tolist()
        cuts = batch.cu_seqlens.tolist()
        assert cuts[0] == 0
        assert cuts[-1] == len(tokens)
        assert batch.position_ids.ravel().tolist() == [n for low, high in pairwise(cuts) for n in range(high - low)]
        offsets = batch.rows.segments["offset"].tolist()
        for (low, high), offset in zip(pairwise(cuts), offsets, strict=True):
            assert len(set(identifiers[low:high])) == 1
            yield identifiers[low], offset, tokens[low:high], labels[low:high], mask[low:high]


def check_against_documents(data: TokenData, batches: list[Batch], times: int = 1) -> None:
    """Every token of every training document comes `times` times, with its label, and no other token."""
    known = all_documents(data)
    seen: dict[int, list[int]] = {identifier: [0] * len(tokens) for identifier, tokens in known.items()}
    for identifier, offset, tokens, labels, mask in pieces(batches):
        if identifier == NONE:
            assert not any(mask)
            continue
        document, stop = known[identifier], offset + len(tokens)
        assert tokens == document[offset:stop]
        assert mask == [at + 1 < len(document) for at in range(offset, stop)]
        assert [label for label, one in zip(labels, mask, strict=True) if one] == document[offset + 1 : stop + 1]
        for at in range(offset, stop):
            seen[identifier][at] += 1
    validation = len(data.generation.shards) - len(SHARDS["validation/a"])
    for identifier, counts in seen.items():
        assert set(counts) == ({times} if identifier >> 32 < validation else {0})


def test_the_data_has_lanes_windows_and_short_groups(data: TokenData) -> None:
    for pack, lanes in ((CONCAT, 4), (BEST_FIT, 2)):
        shape = data.generation.pack(pack).streams["train/a"]
        assert shape.lanes >= lanes
        assert shape.tail_rows > 0
        assert data.generation.pack(pack).streams["train/b"].lanes == 1


@pytest.mark.parametrize("pack", [CONCAT, BEST_FIT])
@pytest.mark.parametrize("tail", ["short", "pad"])
def test_one_epoch_gives_every_token_once_with_its_label(data: TokenData, pack: str, tail: Any) -> None:
    loader = StreamingLoader(data, 50, pack=pack, epochs=1, tail=tail)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert all(len(batch) == 50 for batch in batches[: -1 if tail == "short" else None])
    check_against_documents(data, batches)


def test_ids_of_32_bits_are_read_alike(tmp_path: Path) -> None:
    data = put_data(tmp_path / "set", LARGE)
    batches = list(StreamingLoader(data, 64, pack=BEST_FIT, epochs=2, tail="short", seed=4))
    assert max(int(batch.tokens.max()) for batch in batches) > 1 << 16
    check_against_documents(data, batches, times=2)


@pytest.mark.parametrize(("pack", "world_size"), [(CONCAT, 8), (CONCAT, 384), (BEST_FIT, 3)])
def test_ranks_share_each_batch_without_gap_or_overlap(data: TokenData, pack: str, world_size: int) -> None:
    """All ranks' rows, one rank after another, are the rows of a single rank: so each comes exactly once."""
    alone = list(StreamingLoader(data, 384, pack=pack, epochs=1, tail="short"))
    assert sorted(np.concatenate([batch.positions for batch in alone]).tolist()) == list(range(alone[-1].end))
    ranks = [
        list(StreamingLoader(
            data, 384, pack=pack, rank=rank, world_size=world_size, epochs=1, tail="short", prefetch=0
        ))
        for rank in range(world_size)
    ]  # fmt: skip
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        assert {len(part) for part in parts} <= {len(whole) // world_size, -(-len(whole) // world_size)}
        assert np.array_equal(np.concatenate([part.positions for part in parts]), whole.positions)
        assert np.array_equal(buffers(parts), whole.buffer)


@pytest.mark.long
def test_the_number_of_ranks_may_change_at_every_step(data: TokenData) -> None:
    whole = list(islice(StreamingLoader(data, 96, pack=CONCAT), 12))
    state = StreamingLoader(data, 96, pack=CONCAT).state_dict()
    for expected, world_size in zip(whole, [1, 2, 3, 8, 5, 32, 7, 1, 4, 24, 11, 2], strict=True):
        parts, states = [], []
        for rank in range(world_size):
            loader = StreamingLoader(data, 96, pack=CONCAT, rank=rank, world_size=world_size, prefetch=0)
            loader.load_state_dict(state)
            parts.append(next(iter(loader)))
            states.append(loader.state_dict())
        assert np.array_equal(buffers(parts), expected.buffer)
        assert all(other == states[0] for other in states)
        state = states[0]


@pytest.mark.parametrize("prefetch", [0, 3])
def test_saved_at_every_step_and_resumed_twice_nothing_changes(data: TokenData, prefetch: int) -> None:
    """Save at every step, through the end of an epoch; resume; resume what was resumed; compare the tail."""

    def fresh() -> StreamingLoader:
        return StreamingLoader(data, 200, pack=CONCAT, seed=3, epochs=2, tail="short", prefetch=prefetch)

    loader = fresh()
    states, whole = [loader.state_dict()], []
    for batch in loader:
        whole.append(batch)
        states.append(loader.state_dict())
    assert len(whole) == len(loader) > 2 * loader.epoch_rows // 200 - 1
    for step, state in enumerate(states):
        again = fresh()
        again.load_state_dict(json.loads(json.dumps(state)))
        assert again.step == step
        first = [batch.buffer.copy() for batch in islice(again, 2)]
        twice = fresh()
        twice.load_state_dict(again.state_dict())
        tail = first + [batch.buffer.copy() for batch in islice(twice, 2)]
        for got, expected in zip(tail, whole[step : step + 4], strict=True):
            assert np.array_equal(got, expected.buffer)


def test_iteration_goes_on_where_it_was_left_and_follows_a_seek(data: TokenData) -> None:
    whole = [batch.position for batch in islice(StreamingLoader(data, 8, pack=CONCAT), 12)]
    loader = StreamingLoader(data, 8, pack=CONCAT)
    seen = [batch.position for batch in islice(loader, 3)]
    seen += [batch.position for batch in islice(loader, 4)]
    assert seen == whole[:7]
    steps = []
    for batch in loader:
        steps.append(batch.step)
        if len(steps) == 2:
            loader.seek(step=1)
        if len(steps) == 5:
            break
    assert steps == [7, 8, 1, 2, 3]


@pytest.mark.parametrize("step", [0, 1, 10**6, 10**9, 10**12])
def test_any_step_is_reached_by_arithmetic(data: TokenData, step: int) -> None:
    """The rows of a step far away are those that its positions give, without anything between."""
    loader = StreamingLoader(data, 64, pack=BEST_FIT, seed=9)
    loader.seek(step=step)
    batch = next(iter(loader))
    assert (batch.step, batch.position, batch.end) == (step, step * 64, step * 64 + 64)
    assert sorted(batch.positions.tolist()) == list(range(batch.position, batch.end))
    assert loader.step == step + 1
    assert np.array_equal(batch.buffer, loader.at(step).buffer)
    assert np.array_equal(batch.buffer, loader.rows(batch.positions).buffer)
    epoch = batch.position // loader.epoch_rows
    assert loader.places(batch.positions).epochs.min() in (epoch, epoch - 1, epoch + 1)


def test_epochs_differ_seeds_differ_and_a_batch_may_span_two_epochs(data: TokenData) -> None:
    loader = StreamingLoader(data, 100, pack=CONCAT)
    rows = loader.epoch_rows
    first, second = loader.rows(range(rows)).buffer, loader.rows(range(rows, 2 * rows)).buffer
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))
    other = StreamingLoader(data, 100, pack=CONCAT, seed=1).rows(range(rows)).buffer
    assert not np.array_equal(first, other)
    assert np.array_equal(np.sort(first, axis=0), np.sort(other, axis=0))
    assert rows % 100
    assert len(list(islice(loader, 3 * rows // 100))[rows // 100]) == 100


def test_another_batch_size_goes_on_from_the_same_position(data: TokenData) -> None:
    loader = StreamingLoader(data, 10, pack=CONCAT)
    list(islice(loader, 3))
    larger = StreamingLoader(data, 16, pack=CONCAT)
    larger.load_state_dict(loader.state_dict())
    batches = list(islice(larger, 2))
    assert [(batch.step, batch.position, len(batch)) for batch in batches] == [(3, 30, 16), (4, 46, 16)]
    larger.seek(step=1)
    assert [(batch.step, batch.position, len(batch)) for batch in islice(larger, 4)] == [
        (1, 10, 10), (2, 20, 10), (3, 30, 16), (4, 46, 16),
    ]  # fmt: skip
    assert [segment["from"] for segment in larger.state_dict()["plan"]] == [0, 30]
    assert np.array_equal(larger.at(4).buffer, batches[1].buffer)


@pytest.mark.parametrize("tail", ["drop", "carry"])
def test_what_the_last_batch_held_is_dropped_or_carried_over(data: TokenData, tail: Any) -> None:
    loader = StreamingLoader(data, 100, pack=CONCAT, epochs=1, tail=tail)
    whole = loader.epoch_rows // 100 * 100
    assert sum(len(batch) for batch in loader) == whole
    assert loader.position == (loader.epoch_rows if tail == "drop" else whole)
    longer = StreamingLoader(data, 100, pack=CONCAT, epochs=2, tail=tail)
    longer.load_state_dict(loader.state_dict())
    rest = list(longer)
    assert rest[0].position == loader.position
    assert rest[0].step == whole // 100
    assert len(longer) == whole // 100 + len(rest)


def test_a_short_last_batch_ends_a_segment(data: TokenData) -> None:
    loader = StreamingLoader(data, 100, pack=CONCAT, epochs=1, tail="short")
    last = list(loader)[-1]
    assert (last.end, len(last)) == (loader.epoch_rows, loader.epoch_rows % 100)
    longer = StreamingLoader(data, 100, pack=CONCAT, epochs=2, tail="short")
    longer.load_state_dict(loader.state_dict())
    rest = list(longer)
    assert rest[0].position == loader.epoch_rows
    assert rest[0].step == last.step + 1
    assert sum(len(batch) for batch in rest) == loader.epoch_rows


@pytest.mark.parametrize("tail", ["drop", "short", "pad", "carry"])
def test_the_end_comes_once(data: TokenData, tail: str) -> None:
    loader = StreamingLoader(data, 100, pack=CONCAT, epochs=1, tail=tail)  # type: ignore[arg-type]
    assert loader.epoch_rows % 100
    batches = list(loader)
    assert loader.step == len(batches) == len(loader)
    assert list(loader) == []
    again = StreamingLoader.from_state(data, loader.state_dict(), epochs=1, tail=tail)
    assert list(again) == []
    assert again.step == len(batches)


def moved(data: TokenData) -> StreamingLoader:
    """A loader that took 3 steps of 10 rows, then 2 of 16, and went back to step 1."""
    loader = StreamingLoader(data, 10, pack=CONCAT)
    list(islice(loader, 3))
    larger = StreamingLoader(data, 16, pack=CONCAT)
    larger.load_state_dict(loader.state_dict())
    list(islice(larger, 2))
    larger.seek(step=1)
    return larger


def test_what_went_back_is_resumed_in_the_batches_of_its_plan(data: TokenData) -> None:
    """A run that goes back to before its batches grew, to pass a spike of the loss, sees the steps as they were."""
    state = moved(data).state_dict()
    expected = [(1, 10, 10), (2, 20, 10), (3, 30, 16), (4, 46, 16)]
    loaded = StreamingLoader(data, 16, pack=CONCAT)
    loaded.load_state_dict(state)
    for loader in (moved(data), loaded, StreamingLoader.from_state(data, state), pickle.loads(pickle.dumps(loaded))):
        assert loader.state_dict() == state
        assert [(batch.step, batch.position, len(batch)) for batch in islice(loader, 4)] == expected
        assert loader.state_dict()["plan"] == state["plan"]
    other = StreamingLoader(data, 12, pack=CONCAT)
    other.load_state_dict(state)
    assert [(batch.step, batch.position) for batch in islice(other, 3)] == [(1, 10), (2, 22), (3, 34)]


def test_a_loader_that_is_gone_leaves_no_thread(data: TokenData) -> None:
    def reading() -> int:
        return sum(thread.name == "penstock-read" for thread in threading.enumerate())

    before = reading()
    for _ in range(20):
        next(iter(StreamingLoader(data, 16, pack=CONCAT, threads=4)))
    for _ in range(200):
        if reading() <= before:
            break
        time.sleep(0.05)
    assert reading() <= before


def test_numbers_of_numpy_are_numbers(data: TokenData) -> None:
    numbers: dict[str, Any] = {"seed": np.uint8(3), "rank": np.int32(1), "world_size": np.int8(2)}
    loader = StreamingLoader(data, np.int64(16), pack=CONCAT, **numbers)  # type: ignore[arg-type]
    same = StreamingLoader(data, 16, pack=CONCAT, seed=3, rank=1, world_size=2)
    assert json.dumps(loader.state_dict()) == json.dumps(same.state_dict())
    assert np.array_equal(loader.at(0).buffer, same.at(0).buffer)
    assert np.array_equal(loader.rows(np.arange(5, dtype=np.uint8)).buffer, same.rows(range(5)).buffer)


def test_padding_comes_last_and_is_masked(data: TokenData) -> None:
    loader = StreamingLoader(data, 100, pack=CONCAT, epochs=1, tail="pad")
    last = list(loader)[-1]
    real = loader.epoch_rows % 100
    assert (last.positions >= 0).tolist() == [True] * real + [False] * (100 - real)
    assert not last.loss_mask[real:].any()
    assert last.tokens[real:].max() == EOS
    assert set(last.document_ids[real:].ravel().tolist()) == {NONE}


def test_streams_are_mixed_by_weight_and_validation_is_left_out(data: TokenData) -> None:
    def streams(loader: StreamingLoader, rows: int) -> list[str]:
        places = loader.places(np.arange(rows))
        return [data.generation.shards[shard].stream for shard in places.shards.tolist()]

    assert set(streams(StreamingLoader(data, 8, pack=CONCAT), 2000)) == {"train/a", "train/b"}
    assert set(streams(StreamingLoader(data, 8, pack=CONCAT, split="validation"), 200)) == {"validation/a"}
    weighed = StreamingLoader(data, 8, pack=CONCAT, weights={"train/a": 0.25, "train/b": 0.75})
    assert abs(streams(weighed, 1000).count("train/b") - 750) <= 1
    state = weighed.state_dict()
    assert state["plan"][0]["mixture"] == {"train/a": 1, "train/b": 3}
    list(islice(weighed, 3))
    same = StreamingLoader.from_state(data, weighed.state_dict(), rank=1, world_size=2)
    assert np.array_equal(same.at(1).positions, weighed.at(1).positions[4:])
    assert same.step == 3


def test_state_is_small_json_and_says_what_it_is_of(data: TokenData) -> None:
    loader = StreamingLoader(data, 8, pack=CONCAT, seed=7)
    loader.seek(step=10**12)
    state = loader.state_dict()
    assert len(json.dumps(state)) < 350
    assert state["tokens_sha256"] == data.generation.tokens_sha256
    assert State.from_dict(state).to_dict() == state


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, r"seed 0.*seed 1.*seed=0"),
        ({"pack": BEST_FIT}, r"pack concat-16.*pack best_fit-32"),
        ({"split": "validation"}, r"mixture train.*mixture validation"),
        ({"weights": {"train/a": 1}}, r"mixture train.*mixture train/a=1"),
    ],
)
def test_refuses_a_state_of_another_order(data: TokenData, change: dict[str, Any], told: str) -> None:
    state = StreamingLoader(data, 8, pack=CONCAT).state_dict()
    other = StreamingLoader(data, 8, **{"pack": CONCAT, **change})
    with pytest.raises(RequestError, match=told):
        other.load_state_dict(state)


def test_refuses_a_state_of_other_data_and_a_damaged_one(data: TokenData, tmp_path: Path) -> None:
    state = StreamingLoader(data, 8, pack=CONCAT).state_dict()
    other = put_data(tmp_path / "other", shards={"train/a": (50,)})
    with pytest.raises(RequestError, match=f"{data.generation.tokens_sha256}.*{other.generation.tokens_sha256}"):
        StreamingLoader(other, 8, pack=CONCAT).load_state_dict(state)
    loader = StreamingLoader(data, 8, pack=CONCAT)
    changes: list[dict[str, Any]] = [{"version": 2}, {"position": -1}, {"more": 1}, {"plan": []}, {"plan": [{}]}]
    for change in [*changes, {"plan": 7}]:
        with pytest.raises(RequestError, match=r"state|plan"):
            loader.load_state_dict({**state, **change})
    with pytest.raises(RequestError, match=r"state_dict\(\)"):
        loader.load_state_dict({})


@pytest.mark.parametrize(
    "asked",
    [
        {"batch_size": 0}, {"rank": 1}, {"rank": -1}, {"world_size": 0}, {"epochs": 0}, {"tail": "keep"},
        {"split": "test"}, {"weights": {"train/c": 1}}, {"weights": {}}, {"seed": 1.7}, {"batch_size": 8.0},
        {"prefetch": -1}, {"threads": 0}, {"stall": 0}, {"stall": float("nan")},
    ],
)  # fmt: skip
def test_refuses_what_cannot_be_asked(data: TokenData, asked: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        StreamingLoader(data, **{"batch_size": 8, "pack": CONCAT, **asked})


def test_refuses_a_pack_that_is_not_there_and_a_step_beyond_the_end(data: TokenData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="concat-16, best_fit-32"):
        StreamingLoader(data, 8)
    with pytest.raises(InputError, match="no tokens"):
        StreamingLoader(tmp_path, 8)
    loader = StreamingLoader(data, 8, pack=CONCAT, epochs=1)
    with pytest.raises(RequestError, match="no step"):
        loader.at(10**6)
    with pytest.raises(RequestError, match="from 0"):
        loader.seek(step=-1)
    for wrong in ([-1], [2**62], [2**70], [0.5], [[1]], ["x"]):
        with pytest.raises(RequestError, match="positions are whole numbers from 0 to 2"):
            loader.rows(wrong)  # type: ignore[arg-type]
    endless = StreamingLoader(data, 8, pack=CONCAT)
    for step in (2**60, 10**21):
        with pytest.raises(RequestError, match="beyond position 2"):
            endless.seek(step=step)
    assert len(endless.rows([])) == 0
    with pytest.raises(TypeError, match="epochs="):
        len(StreamingLoader(data, 8, pack=CONCAT))


@pytest.mark.parametrize("world_size", [1, 3, 16])
def test_documents_come_whole_and_once_over_all_ranks(data: TokenData, world_size: int) -> None:
    known = {name: tokens for name, tokens in all_documents(data).items() if name >> 32 < 5}
    for epoch in (0, 1):
        seen = [
            document
            for rank in range(world_size)
            for document in StreamingLoader(data, 8, pack=CONCAT, rank=rank, world_size=world_size).documents(epoch)
        ]
        assert len(seen) == len(known)
        assert {document.document_id: document.tokens.tolist() for document in seen} == known
        assert {document.stream for document in seen} == {"train/a", "train/b"}


def test_few_blocks_and_shards_at_hand_change_nothing(data: TokenData, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = buffers(list(islice(StreamingLoader(data, 64, pack=BEST_FIT), 6)))
    monkeypatch.setattr("penstock.sharding.blocks._READERS", 1)
    loader = StreamingLoader(data, 64, pack=BEST_FIT, threads=1)
    loader._fetch(loader._course.at(0)).blocks._blocks.limit = 2
    assert np.array_equal(buffers(list(islice(loader, 6))), whole)


def test_a_batch_stays_what_it_is_while_someone_holds_any_of_its_arrays(data: TokenData) -> None:
    """Memory is used again only once no view of it is left."""
    loader = StreamingLoader(data, 16, pack=CONCAT, prefetch=1)
    held, copies = [], []
    for number, batch in enumerate(islice(loader, 40)):
        if number % 3 == 0:
            held.append(batch.labels[3:])
            copies.append(batch.labels[3:].copy())
    assert all(np.array_equal(one, other) for one, other in zip(held, copies, strict=True))


def test_is_picklable_and_goes_on_where_it_stood(data: TokenData) -> None:
    loader = StreamingLoader(data, 16, pack=CONCAT, rank=1, world_size=2)
    list(islice(loader, 3))
    again = pickle.loads(pickle.dumps(loader))
    assert again.step == 3
    assert np.array_equal(next(iter(again)).buffer, next(iter(loader)).buffer)


def first_buffer(loader: StreamingLoader, results: Any) -> None:
    results.put(next(iter(loader)).buffer.tolist())


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_in_a_forked_process(data: TokenData) -> None:
    loader = StreamingLoader(data, 16, pack=CONCAT)
    expected = [batch.buffer.tolist() for batch in islice(loader, 2)]
    loader.seek(step=1)
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=first_buffer, args=(loader, results))
    process.start()
    assert results.get(timeout=60) == expected[1]
    process.join(60)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_wait_for_reads_of_its_parent(failing: TokenData, tmp_path: Path) -> None:
    failing.store.hang = threading.Event()  # type: ignore[attr-defined]
    loader = StreamingLoader(failing, 16, pack=CONCAT, cache=tmp_path / "a", threads=1, stall=0.2)
    with pytest.raises(StoreError, match="nothing came"):
        next(iter(loader))
    failing.store.hang.set()  # type: ignore[attr-defined]
    failing.store.hang = None  # type: ignore[attr-defined]
    loader._stall = 60.0
    loader._fetch(loader._course.at(0)).blocks._blocks._lock.acquire()  # as a thread of the parent would hold it
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=first_buffer, args=(loader, results))
    process.start()
    expected = StreamingLoader(failing, 16, pack=CONCAT, cache=tmp_path / "b").at(0)
    assert results.get(timeout=60) == expected.buffer.tolist()
    process.join(60)


def test_damage_is_told_with_rank_position_block_and_store(copy: TokenData) -> None:
    entry = copy.generation.shards[0]
    path = Path(copy.store.url) / entry.path(".bin")
    body = bytearray(path.read_bytes())
    body[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(body)
    loader = StreamingLoader(copy, 64, pack=CONCAT, rank=1, world_size=2)
    with pytest.raises(CorruptDataError, match=rf"rank 1, position \d+, block \d+ of shard {entry.name} in .*checksum"):
        list(islice(loader, 50))


# A remote store: fsspec's memory file system, behind the block cache.


class Unreadable(Store):
    """A store that tells sizes and gives no bytes."""

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        raise StoreError(f"{name} is not to be read")


@pytest.fixture
def remote(data: TokenData) -> TokenData:
    store = Store(f"memory://{data.generation.tokens_sha256[:8]}/set")
    for name in data.store.list():
        store.put_named(Path(data.store.url) / name, name)
    return TokenData(store, data.generation)


def test_a_remote_store_gives_the_same_and_is_read_once(data: TokenData, remote: TokenData, tmp_path: Path) -> None:
    whole = list(StreamingLoader(data, 64, pack=BEST_FIT, epochs=1))
    first = StreamingLoader(remote, 64, pack=BEST_FIT, epochs=1, cache=tmp_path)
    assert np.array_equal(buffers(list(first)), buffers(whole))
    gone = TokenData(Unreadable(remote.store.url), remote.generation)
    second = StreamingLoader(gone, 64, pack=BEST_FIT, epochs=1, cache=tmp_path)
    assert np.array_equal(buffers(list(second)), buffers(whole))


def test_what_is_wrong_in_the_cache_is_read_again(remote: TokenData, tmp_path: Path) -> None:
    whole = buffers(list(StreamingLoader(remote, 64, pack=CONCAT, epochs=1, cache=tmp_path)))
    for path in tmp_path.glob("??/*"):
        path.write_bytes(bytes(path.stat().st_size))
    again = StreamingLoader(remote, 64, pack=CONCAT, epochs=1, cache=tmp_path)
    assert np.array_equal(buffers(list(again)), whole)


@pytest.mark.parametrize("left", [0, 7], ids=["emptied", "cut"])
def test_what_a_power_cut_left_of_the_cache_is_read_again(remote: TokenData, tmp_path: Path, left: int) -> None:
    whole = buffers(list(StreamingLoader(remote, 64, pack=BEST_FIT, epochs=1, cache=tmp_path)))
    for path in tmp_path.glob("??/*"):
        path.write_bytes(path.read_bytes()[:left])
    again = StreamingLoader(remote, 64, pack=BEST_FIT, epochs=1, cache=tmp_path)
    assert np.array_equal(buffers(list(again)), whole)


def test_documents_are_read_past_what_is_wrong_in_the_cache(remote: TokenData, tmp_path: Path) -> None:
    def known() -> dict[int, list[int]]:
        loader = StreamingLoader(remote, 64, pack=CONCAT, cache=tmp_path)
        return {document.document_id: document.tokens.tolist() for document in loader.documents()}

    whole = known()
    for path in tmp_path.glob("??/*"):
        path.write_bytes(bytes(path.stat().st_size))
    assert known() == whole


def folder_bytes(folder: Path) -> int:
    """Bytes of the blocks in a cache; threads may evict them meanwhile."""
    total = 0
    for path in folder.glob("??/*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@pytest.mark.long
def test_a_small_cache_stays_small(tmp_path: Path) -> None:
    """What a loader holds cannot be evicted: it holds little where the cache is little."""
    packs = (Pack(1024, "concat"),)
    local = put_data(tmp_path / "set", LARGE, packs, shards={"train/a": (20_000, 20_000)}, group_bytes=1 << 16)
    remote = TokenData(Store("memory://small-cache/set"), local.generation)
    for name in local.store.list():
        remote.store.put_named(Path(local.store.url) / name, name)
    limit, largest, folder = 2_000_000, 0, tmp_path / "cache"
    assert sum(shard.tokens for shard in local.generation.shards) * 4 > 2 * limit
    given = StreamingLoader(remote, 4, epochs=1, cache=folder, cache_bytes=limit, prefetch=0)
    for batch, wanted in zip(given, StreamingLoader(local, 4, epochs=1), strict=True):
        assert np.array_equal(batch.buffer, wanted.buffer)
        largest = max(largest, folder_bytes(folder))
    assert largest <= 1.25 * limit


class Shortened(Store):
    """A store that answers the first reads of payloads with fewer bytes than were asked for."""

    short = 3

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        body = super().read(name, start, end)
        if name.endswith(".bin") and self.short:
            self.short -= 1
            return body[: len(body) // 2 if self.short else 0]
        return body


def test_an_answer_of_too_few_bytes_is_asked_for_again(
    remote: TokenData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.sharding.reads._PAUSE", 0.001)
    short = TokenData(Shortened(remote.store.url), remote.generation)
    loader = StreamingLoader(short, 64, pack=CONCAT, cache=tmp_path, threads=1)
    assert np.array_equal(loader.at(0).buffer, StreamingLoader(remote, 64, pack=CONCAT, cache=tmp_path).at(0).buffer)
    short.store.short = 10**9  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match=r"gave \d+ bytes from byte \d+ on, not \d+: it was cut short"):
        StreamingLoader(short, 64, pack=CONCAT, cache=tmp_path / "other").at(0)


class Failing(Store):
    """A store whose reads of payloads fail a number of times, or hang until told."""

    failures = 0
    hang: threading.Event | None = None

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        if name.endswith(".bin"):
            if self.hang is not None:
                self.hang.wait()
            if self.failures:
                self.failures -= 1
                raise StoreError("503 Slow Down")
        return super().read(name, start, end)


@pytest.fixture
def failing(remote: TokenData, monkeypatch: pytest.MonkeyPatch) -> TokenData:
    monkeypatch.setattr("penstock.sharding.reads._PAUSE", 0.001)
    return TokenData(Failing(remote.store.url), remote.generation)


def test_a_store_that_fails_now_and_then_is_asked_again(failing: TokenData, data: TokenData, tmp_path: Path) -> None:
    failing.store.failures = 4  # type: ignore[attr-defined]
    loader = StreamingLoader(failing, 64, pack=CONCAT, cache=tmp_path, threads=1)
    assert np.array_equal(next(iter(loader)).buffer, StreamingLoader(data, 64, pack=CONCAT).at(0).buffer)


def test_a_store_that_keeps_failing_is_told_and_the_loader_goes_on_after(failing: TokenData, tmp_path: Path) -> None:
    failing.store.failures = 10**9  # type: ignore[attr-defined]
    loader = StreamingLoader(failing, 64, pack=CONCAT, rank=2, world_size=3, cache=tmp_path)
    with pytest.raises(StoreError, match=r"rank 2, position 0, block \d+ of shard .* memory://.*503 Slow Down"):
        next(iter(loader))
    failing.store.failures = 0  # type: ignore[attr-defined]
    assert next(iter(loader)).step == 0


def test_a_store_that_hangs_is_told(failing: TokenData, tmp_path: Path) -> None:
    failing.store.hang = threading.Event()  # type: ignore[attr-defined]
    loader = StreamingLoader(failing, 64, pack=CONCAT, cache=tmp_path, stall=0.1)
    with pytest.raises(StoreError, match=r"rank 0, position 0, block \d+ of shard .*nothing came for 0.1 s"):
        next(iter(loader))
    failing.store.hang.set()  # type: ignore[attr-defined]


def test_importing_the_loader_brings_nothing_heavy() -> None:
    heavy = ("apache_beam", "numba", "pyarrow", "torch", "pydantic", "fsspec")
    code = f"import sys; from penstock.sharding import StreamingLoader; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Plans.


def segment(start: int, size: int) -> Segment:
    return Segment(start, size, 0, CONCAT, "train", "0")


def test_steps_and_positions_go_by_the_plan() -> None:
    """Segments of 3 batches of 4 and, cut short, 2 of 5; then batches of 7 for ever."""
    plan = Plan((segment(0, 4), segment(12, 5), segment(20, 7)))
    extents = [plan.extent(step) for step in range(7)]
    assert extents == [(0, 4), (4, 8), (8, 12), (12, 17), (17, 20), (20, 27), (27, 34)]
    for step, (start, end) in enumerate(extents):
        assert {plan.step(position) for position in range(start, end)} == {step}
    assert plan.extent(10**12) == (20 + 7 * (10**12 - 5), 27 + 7 * (10**12 - 5))


def test_a_plan_goes_on_or_is_cut() -> None:
    plan = Plan((segment(0, 4), segment(12, 5)))
    assert plan.continued(segment(22, 5)) == plan
    assert plan.continued(segment(22, 6)).segments[-1] == segment(22, 6)
    assert plan.continued(segment(8, 4)) == Plan((segment(0, 4),))
    assert plan.continued(segment(12, 6)) == Plan((segment(0, 4), segment(12, 6)))
    cut = plan.continued(segment(24, 5))
    assert cut.segments == plan.segments
    assert [cut.extent(step) for step in (4, 5, 6, 7)] == [(17, 22), (22, 24), (24, 29), (29, 34)]


@pytest.mark.parametrize("segments", [(), (segment(1, 4),), (segment(0, 4), segment(0, 5)), (segment(0, 0),)])
def test_refuses_a_plan_that_cannot_be(segments: tuple[Segment, ...]) -> None:
    with pytest.raises(RequestError, match=r"plan|batch"):
        Plan(segments)
