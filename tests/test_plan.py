"""Plans that change while they are trained on: mixtures, caps, batch sizes, packs, what is left out."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loader_files import EOS, put_data
from token_files import put_tokens

from penstock import RequestError
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData
from penstock.sharding.documents import Documents
from penstock.sharding.generations import append
from penstock.sharding.plan import Plan, Segment, State
from penstock.sharding.tools.removal import takedown

CONCAT, BEST_FIT = "concat-16", "best_fit-32"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("plan") / "set")


def rows_of(data: TokenData, pack: str, stream: str) -> int:
    return data.generation.pack(pack).streams[stream].rows


def keys(loader: StreamingLoader, first: int, past: int) -> list[tuple[str, int, int, int, int]]:
    """(stream, shard, group, row, epoch) at each of these positions."""
    found = loader.places(range(first, past))
    shards = found.shards.tolist()
    streams = [loader.data.generation.shards[shard].stream for shard in shards]
    return list(zip(streams, shards, found.groups.tolist(), found.rows.tolist(), found.epochs.tolist(), strict=True))


# Steps and positions.

sizes = st.integers(1, 9)
plans = st.tuples(
    st.lists(st.tuples(st.integers(1, 40), sizes), max_size=5),
    sizes,
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 30)), max_size=4),
)


def made(parts: tuple[list[tuple[int, int]], int, list[tuple[int, int]]]) -> Plan:
    changes, size, skips = parts
    segments, at = [Segment(0, size, 0, CONCAT, "train", "0")], 0
    for more, size in changes:
        at += more
        segments.append(Segment(at, size, 0, CONCAT, "train", "0"))
    plan = Plan(tuple(segments))
    for first, length in skips:
        plan = plan.skipping(first, first + length)
    return plan


@given(plans)
def test_steps_tile_the_positions_that_are_not_skipped(parts: Any) -> None:
    plan = made(parts)
    extents = [plan.extent(step) for step in range(250)]
    wanted = [at for at in range(extents[-1][1]) if not any(first <= at < past for first, past in plan.skips)]
    assert [at for start, end in extents for at in range(start, end)] == wanted
    for step, (start, end) in enumerate(extents):
        assert {plan.step(at) for at in range(start, end)} == {step}
        assert end - start <= plan.segment(start).batch_size == plan.segment(end - 1).batch_size
        assert plan.begins_batch(start)
        assert not any(plan.begins_batch(at) for at in range(start + 1, end))


@given(plans, st.integers(0, 200), st.integers(1, 20))
def test_batches_of_one_run_are_found_at_once(parts: Any, step: int, count: int) -> None:
    plan = made(parts)
    starts = plan.alike(step, step + count)
    extents = [plan.extent(step + number) for number in range(len(starts))]
    assert starts == [start for start, _ in extents]
    assert len({end - start for start, end in extents}) == 1
    following = plan.extent(step + len(starts))
    short = following[1] - following[0] < extents[0][1] - starts[0]
    assert len(starts) == count or short or step + len(starts) in {run.step for run in plan.runs}


@given(plans)
def test_a_plan_is_kept_by_a_state(parts: Any) -> None:
    state = State(3, 5, None, "0" * 64, made(parts))
    assert State.from_dict(json.loads(json.dumps(state.to_dict()))) == state


# Mixtures that change.


def test_other_batch_sizes_and_packs_between_change_no_row(data: TokenData) -> None:
    straight = keys(StreamingLoader(data, 10, pack=CONCAT), 0, 300)
    loader = StreamingLoader(data, 10, pack=CONCAT)
    loader.change(at=57, batch_size=7)
    loader.change(at=90, pack=BEST_FIT)
    loader.change(at=103, pack=CONCAT, batch_size=11)
    assert keys(loader, 0, 90) == straight[:90]
    assert keys(loader, 103, 313) == straight[90:]


def test_weights_that_change_give_every_row_of_each_stream_once(data: TokenData) -> None:
    """Exact to a row before and behind every change; a stream's rows run on over it."""
    cuts = [0, 130, 131, 500]
    shares = [{"train/a": 3, "train/b": 1}, {"train/b": 1}, {"train/a": 1, "train/b": 1}, {"train/a": 9, "train/b": 1}]
    loader = StreamingLoader(data, 50, pack=CONCAT, weights=list(zip(cuts, shares, strict=True)))
    end = 1100
    found = keys(loader, 0, end)
    for (start, share), stop in zip(zip(cuts, shares, strict=True), [*cuts[1:], end], strict=True):
        counts = Counter(key[0] for key in found[start:stop])
        for stream, weight in share.items():
            assert abs(counts[stream] - (stop - start) * weight / sum(share.values())) <= 1
    assert len(set(found)) == len(found)
    for stream in ("train/a", "train/b"):
        mine, rows = [key for key in found if key[0] == stream], rows_of(data, CONCAT, stream)
        assert [key[4] for key in mine] == [ordinal // rows for ordinal in range(len(mine))]
    assert [len(batch) for batch in islice(loader, 22)] == [50] * 22
    assert loader.progress()["train/a"]["rows"] == sum(key[0] == "train/a" for key in found)


def test_a_change_of_weights_on_the_way_is_the_plan_that_foresaw_it(data: TokenData) -> None:
    first, second = {"train/a": 3, "train/b": 1}, {"train/a": 1, "train/b": 2}
    foreseen = StreamingLoader(data, 50, pack=CONCAT, weights=[(0, first), (300, second)])
    loader = StreamingLoader(data, 50, pack=CONCAT, weights=first)
    list(islice(loader, 6))
    changed = StreamingLoader.from_state(data, loader.state_dict(), weights=second)
    loader.change(weights=second)
    for one in (loader, changed):
        assert one.state_dict() == {**foreseen.state_dict(), "position": 300}
        assert np.array_equal(next(iter(one)).buffer, foreseen.at(6).buffer)
    with pytest.raises(RequestError, match=r"mixture train/a=1, train/b=2.*mixture train/a=3, train/b=1.*from_state"):
        StreamingLoader(data, 50, pack=CONCAT, weights=first).load_state_dict(loader.state_dict())


def test_a_capped_stream_leaves_at_the_row_that_fills_it(data: TokenData) -> None:
    small, large = (rows_of(data, CONCAT, f"train/{name}") for name in "ba")
    loader = StreamingLoader(data, 10, pack=CONCAT, weights={"train/a": 1, "train/b": 1}, caps={"train/b": 2})
    found = keys(loader, 0, 4 * small + large)
    counts = Counter(key[0] for key in found)
    assert counts["train/b"] == 2 * small
    assert len(set(found)) == len(found)
    assert {key[0] for key in found[4 * small :]} == {"train/a"}
    assert [key[4] for key in found if key[0] == "train/b"] == [0] * small + [1] * small


def test_streams_have_epochs_of_their_own(data: TokenData) -> None:
    small, large = (rows_of(data, CONCAT, f"train/{name}") for name in "ba")
    loader = StreamingLoader(data, 10, pack=CONCAT, epochs={"train/a": 1, "train/b": 3}, tail="short")
    batches = list(loader)
    assert sum(map(len, batches)) == large + 3 * small == loader.position
    assert loader.progress() == {
        "train/a": {"rows": large, "epochs": 1.0}, "train/b": {"rows": 3 * small, "epochs": 3.0},
    }  # fmt: skip
    counts = Counter(key[0] for key in keys(loader, 0, (large + 3 * small) // 2))
    assert abs(counts["train/a"] - large / 2) <= 1


def test_when_every_stream_is_full_the_data_end(data: TokenData) -> None:
    small = rows_of(data, CONCAT, "train/b")
    loader = StreamingLoader(data, small, pack=CONCAT, weights={"train/b": 1}, caps={"train/b": 1})
    assert len(list(loader)) == len(loader) == 1
    with pytest.raises(RequestError, match=r"every stream of train/b=1 has reached its cap \(train/b=1\) at position"):
        StreamingLoader(
            data, 5, pack=CONCAT, weights=[(0, {"train/b": 1}), (10**6, {"train/a": 1})], caps={"train/b": 1}
        )


# Other changes.


def test_a_batch_size_that_grows_by_plan(data: TokenData) -> None:
    loader = StreamingLoader(data, 10, pack=CONCAT)
    loader.change(at=30, batch_size=20)
    loader.change(at=70, batch_size=40)
    assert [len(batch) for batch in islice(loader, 7)] == [10, 10, 10, 20, 20, 40, 40]
    whole = StreamingLoader(data, 150, pack=CONCAT).at(0)
    loader.seek(0)
    held = np.concatenate([batch.buffer for batch in islice(loader, 7)])
    assert np.array_equal(np.sort(held, axis=0), np.sort(whole.buffer, axis=0))


def test_another_pack_is_another_order_and_the_first_goes_on_behind_it(data: TokenData) -> None:
    loader = StreamingLoader(data, 10, pack=CONCAT)
    straight = keys(loader, 0, 60)
    loader.change(at=30, pack=BEST_FIT)
    loader.change(at=50, pack=CONCAT)
    widths = [batch.tokens.shape[1] for batch in islice(loader, 8)]
    assert widths == [16] * 3 + [32] * 2 + [16] * 3
    assert keys(loader, 50, 80) == straight[30:60]
    assert keys(loader, 30, 50) == keys(StreamingLoader(data, 10, pack=BEST_FIT), 0, 20)
    again = StreamingLoader.from_state(data, loader.state_dict(), rank=1, world_size=2)
    assert np.array_equal(again.at(4).buffer, loader.at(4).buffer[5:])
    with pytest.raises(RequestError, match="data change at position 30"):
        loader.rows([29, 30])


def test_steps_are_skipped_and_stand_in_the_plan(data: TokenData) -> None:
    loader = StreamingLoader(data, 10, pack=CONCAT)
    straight = [batch.buffer for batch in islice(loader, 9)]
    loader.seek(2)
    loader.skip(steps=range(4, 6))
    loader.skip(steps=(5, 6))
    assert loader.state_dict()["skips"] == [[40, 60], [70, 80]]
    batches = list(islice(loader, 4))
    assert [batch.step for batch in batches] == [2, 3, 4, 5]
    for batch, number in zip(batches, (2, 3, 6, 8), strict=True):
        assert np.array_equal(batch.buffer, straight[number])
    again = StreamingLoader(data, 10, pack=CONCAT)
    again.load_state_dict(loader.state_dict())
    assert again.step == 6
    assert np.array_equal(again.at(4).buffer, straight[6])
    with pytest.raises(RequestError, match="step 3 has been read"):
        loader.skip(steps=range(3, 5))
    with pytest.raises(RequestError, match="has been read"):
        loader.change(at=10, batch_size=4)


def test_documents_left_out_are_padding_from_there_on_and_stand_in_the_plan(data: TokenData) -> None:
    loader = StreamingLoader(data, 10, pack=CONCAT)
    before = list(islice(loader, 3))
    spike = [int(document) for document in np.unique(loader.at(3).document_ids[4]) if document != 2**64 - 1]
    loader.skip(documents=spike)
    after, whole = loader.at(3), StreamingLoader(data, 10, pack=CONCAT).at(3)
    gone = np.isin(whole.document_ids, np.array(spike, np.uint64))
    assert gone.any()
    assert (after.tokens[gone] == EOS).all()
    assert not after.loss_mask[gone].any()
    assert np.array_equal(after.tokens[~gone], whole.tokens[~gone])
    assert np.array_equal(after.document_ids[~gone], whole.document_ids[~gone])
    again = StreamingLoader.from_state(data, loader.state_dict())
    assert np.array_equal(again.at(3).buffer, after.buffer)
    assert np.array_equal(again.at(2).buffer, before[2].buffer)
    assert again.state_dict()["plan"][1]["without"] == sorted(spike)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"weights": [(5, {"train/a": 1})]}, "rising from 0"),
        ({"weights": [(0, {"train/a": 1}), (0, {"train/b": 1})]}, "rising from 0"),
        ({"caps": {"train/a": 0}}, "1 epoch or more"),
        ({"caps": {"train/a": 1.5}}, "whole numbers of epochs"),
        ({"caps": {"train/z": 1}}, "no stream train/z"),
        ({"epochs": {"train/z": 1}}, "no stream train/z"),
        ({"epochs": {"train/a": 1}, "caps": {"train/a": 1}}, "pass epochs, or weights and caps"),
        ({"shuffle": "some"}, "shuffle is 'some'"),
    ],
)
def test_refuses_what_cannot_be_planned(data: TokenData, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        StreamingLoader(data, 8, pack=CONCAT, **asked)


# Shuffles.


@pytest.mark.parametrize("pack", [CONCAT, BEST_FIT])
@pytest.mark.parametrize("shuffle", ["block", "full", None])
def test_every_shuffle_gives_every_row_once_an_epoch(data: TokenData, pack: str, shuffle: Any) -> None:
    loader = StreamingLoader(data, 32, pack=pack, shuffle=shuffle, seed=3)
    rows = loader.epoch_rows
    first, second = keys(loader, 0, rows), keys(loader, rows, 2 * rows)
    assert len(set(first)) == rows
    assert {key[:4] for key in first} == {key[:4] for key in second}
    assert ([key[:4] for key in first] == [key[:4] for key in second]) == (shuffle is None)
    batches = list(islice(loader, 3))
    parts = [
        StreamingLoader(data, 32, pack=pack, shuffle=shuffle, seed=3, rank=rank, world_size=3) for rank in range(3)
    ]
    for step, batch in enumerate(batches):
        assert np.array_equal(np.concatenate([part.at(step).buffer for part in parts]), batch.buffer)


def test_without_shuffle_rows_come_as_the_payload_lies(data: TokenData, tmp_path: Path) -> None:
    loader = StreamingLoader(data, 10, pack=CONCAT, weights={"train/a": 1}, shuffle=None)
    entries = [entry for entry in data.generation.shards if entry.stream == "train/a"]
    payloads = [data.reader(number).tokens(0, entry.tokens) for number, entry in enumerate(entries)]
    whole = np.concatenate([np.pad(tokens, (0, -len(tokens) % 16)) for tokens in payloads])
    rows = loader.rows(range(len(whole) // 16))
    assert np.array_equal(rows.tokens.ravel(), whole)
    with pytest.raises(RequestError, match=r"shuffle None.*shuffle block.*pass shuffle=None"):
        StreamingLoader(data, 10, pack=CONCAT, weights={"train/a": 1}).load_state_dict(loader.state_dict())


# Generations.


def test_a_run_goes_on_over_an_append_and_a_takedown(tmp_path: Path) -> None:
    """Rows of what stood come once and in order; what was appended comes with them; what is taken down is padding."""
    one = {("train", number): [at * 7 % 31 + 2 for at in range(30 + number)] for number in range(3)}
    put_tokens(tmp_path / "set", tmp_path / "spool", one)
    put_tokens(tmp_path / "more", tmp_path / "spool", {("train", 0): [9] * 40})
    loader = StreamingLoader(tmp_path / "set", 4, pack="concat-32", seed=2)
    straight, seen = keys(loader, 0, loader.epoch_rows), keys(loader, 0, 20)
    list(islice(loader, 5))
    append(tmp_path / "set", tmp_path / "more")
    longer = StreamingLoader.from_state(tmp_path / "set", loader.state_dict(), generation=1)
    assert [part["generation"] for part in longer.state_dict()["plan"]] == [0, 1]
    later = keys(longer, 20, 20 + longer.epoch_rows)
    old = [key for key in later if key[0] == "train" and key[4] == 0]
    assert seen + old == straight
    assert {key[0] for key in later} == {"train", "train+1"}
    list(islice(longer, 2))
    document = int(longer.at(8).document_ids[0, 0])
    record = next(Documents(longer.data).records(document >> 32, [document & 0xFFFFFFFF]))
    before = longer.at(8)
    takedown(tmp_path / "set", ids=[record["id"]])
    after = StreamingLoader.from_state(tmp_path / "set", longer.state_dict(), generation=2)
    assert after.step == 7
    found, gone = after.at(8), before.document_ids == document
    assert np.array_equal(found.positions, before.positions)
    assert np.array_equal(found.tokens[~gone], before.tokens[~gone])
    assert (found.tokens[gone] == after.data.generation.vocabulary.eos_id).all()
    assert not found.loss_mask[gone].any()
    with pytest.raises(RequestError, match=r"generation 0.*generation 2.*from_state\(path, state, generation"):
        StreamingLoader(tmp_path / "set", 4, pack="concat-32", seed=2).load_state_dict(loader.state_dict())
