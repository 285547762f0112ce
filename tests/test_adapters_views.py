"""Rows by number: the loader's order as a sequence; for Grain, for torch's map-style DataLoader, for threads."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import numpy as np
import pytest
from loader_files import put_data

from penstock import RequestError
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData
from penstock.sharding.views import Rows

PACK = "best_fit-32"


class Batch:
    tokens = labels = np.zeros((64, 32), np.int32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("views") / "set")


@pytest.fixture(scope="module")
def loader(data: TokenData) -> StreamingLoader:
    return StreamingLoader(data, 64, pack=PACK, seed=5)


@pytest.fixture(scope="module")
def whole(loader: StreamingLoader) -> Any:
    return loader.rows(range(loader.epoch_rows)).tokens


def test_an_epochs_rows_are_those_of_its_batches(data: TokenData, loader: StreamingLoader, whole: Any) -> None:
    rows = Rows(loader)
    batches = list(StreamingLoader(data, 64, pack=PACK, seed=5, epochs=1, tail="short"))
    assert len(rows) == len(whole) == sum(len(batch) for batch in batches)
    for batch in batches:
        assert np.array_equal(rows[batch.positions]["tokens"], batch.tokens)


def test_takes_numbers_slices_lists_and_negative_numbers(loader: StreamingLoader, whole: Any) -> None:
    rows = Rows(loader, fields=("position_ids", "loss_mask"))
    assert list(rows[3]) == ["tokens", "labels", "position_ids", "loss_mask"]
    assert rows[3]["tokens"].shape == (32,)
    assert np.array_equal(rows[3]["tokens"], whole[3])
    assert np.array_equal(rows[np.int64(-1)]["tokens"], whole[-1])
    assert np.array_equal(rows[5:20:4]["tokens"], whole[5:20:4])
    assert np.array_equal(rows[[7, 0, -2, 7]]["tokens"], whole[[7, 0, -2, 7]])
    assert rows[2:2]["labels"].shape == (0, 32)
    assert [row["labels"].tolist() for row in rows.__getitems__([4, 1])] == rows[[4, 1]]["labels"].tolist()
    for number in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError, match=f"no row {number}: rows go from 0 to {len(rows) - 1}"):
            rows[number]
    with pytest.raises(TypeError):
        rows[1.5]  # type: ignore[index]


def test_epochs_follow_one_another_each_in_its_own_order(loader: StreamingLoader, whole: Any) -> None:
    count = len(whole)
    twice = Rows(loader, epochs=2)[count:]["tokens"]
    assert len(twice) == count
    assert not np.array_equal(twice, whole)
    assert sorted(twice.tolist()) == sorted(whole.tolist())
    endless = Rows(loader, epochs=None)
    assert len(endless) == 1 << 62
    assert np.array_equal(endless[10**12]["tokens"], loader.rows([10**12]).tokens[0])
    changed = StreamingLoader(loader.data, 64, pack=PACK)
    changed.change(pack="concat-16", at=640)
    with pytest.raises(RequestError, match="changes pack or data on the way"):
        Rows(changed)
    with pytest.raises(RequestError, match="epochs is 0"):
        Rows(loader, epochs=0)
    with pytest.raises(RequestError, match="no 'cu_seqlens'"):
        Rows(loader, fields=("cu_seqlens",))


def test_pickles_and_says_the_same_of_the_same_rows(data: TokenData, loader: StreamingLoader, whole: Any) -> None:
    rows = Rows(loader, fields=("loss_mask",))
    again = pickle.loads(pickle.dumps(rows))
    assert repr(again) == repr(rows) != repr(Rows(StreamingLoader(data, 64, pack=PACK, seed=6), fields=("loss_mask",)))
    assert np.array_equal(again[:5]["tokens"], whole[:5])


def test_rows_all_over_the_data_are_made_singly_and_rows_in_order_together(loader: StreamingLoader) -> None:
    rows = Rows(loader)
    read: list[int] = []

    def made(positions: Any) -> type[Batch]:
        read.append(len(positions))
        return Batch

    with mock.patch.object(loader, "rows", side_effect=made):
        for number in (700, 100, 400, 5):
            rows[number]
        assert read == [1, 1, 1, 1]
        for number in (*range(6, 64), 5, 128, *range(len(rows) - 2, len(rows))):
            rows[number]
    assert read[4:] == [64, 1, 1, len(rows) % 64]


def test_threads_share_it(loader: StreamingLoader, whole: Any) -> None:
    rows = Rows(loader, fields=("position_ids",))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: rows[number]["tokens"].copy(), range(len(rows))))
    assert np.array_equal(found, whole)


def test_serves_torchs_map_style_data_loader(loader: StreamingLoader, whole: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    batches = list(torch.utils.data.DataLoader(Rows(loader), batch_size=16))
    assert np.array_equal(np.concatenate([batch["tokens"].numpy() for batch in batches]), whole)
    shuffled = torch.utils.data.DataLoader(Rows(loader), batch_size=16, shuffle=True, drop_last=True)
    assert next(iter(shuffled))["labels"].shape == (16, 32)


def test_serves_grain_and_resumes_from_its_checkpoint(loader: StreamingLoader, whole: Any) -> None:
    grain = pytest.importorskip("grain.python", reason="Grain is not installed")
    rows = Rows(loader)

    def batches() -> Any:
        source = grain.MapDataset.source(rows)
        return iter(source.batch(8).to_iter_dataset(grain.ReadOptions(num_threads=4)))

    first = batches()
    had = [next(first)["tokens"] for _ in range(3)]
    state = pickle.loads(pickle.dumps(first.get_state()))
    next(first)
    again = batches()
    again.set_state(state)
    had += [batch["tokens"] for batch in again]
    assert np.array_equal(np.concatenate(had), whole)
    mixed = grain.MapDataset.source(rows).shuffle(seed=1).repeat(2)
    assert len(mixed) == 2 * len(whole)
    assert sorted(mixed[at]["tokens"].tolist() for at in range(len(whole))) == sorted(whole.tolist())
