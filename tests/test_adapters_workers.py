"""TorchLoader inside torch's DataLoader and torchdata's StatefulDataLoader: each batch once, in order, resumed."""

from __future__ import annotations

import pickle
from itertools import islice
from typing import Any

import pytest
from loader_files import put_data

from penstock import RequestError
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData
from penstock.sharding.strides import strided
from penstock.sharding.workers import Worker, consumed

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'penstock[torch]'")
pytestmark = pytest.mark.torch
PACK = "best_fit-32"
BATCH = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("workers") / "set")


@pytest.fixture(scope="module")
def whole(data: TokenData) -> list[Any]:
    """An epoch's batches of rank 1 of 2, as the numpy loader gives them."""
    return [batch.tokens.tolist() for batch in StreamingLoader(data, BATCH, pack=PACK, rank=1, world_size=2, epochs=1)]


def torch_loader(data: TokenData, **named: Any) -> Any:
    from penstock.sharding.torch import TorchLoader

    return TorchLoader(data, BATCH, **{"pack": PACK, "rank": 1, "world_size": 2, "epochs": 1, **named})


def loader_of(loader: Any, workers: int, **named: Any) -> Any:
    return torch.utils.data.DataLoader(loader, batch_size=None, num_workers=workers, **named)


def stateful(loader: Any, workers: int, **named: Any) -> Any:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    return torchdata.StatefulDataLoader(loader, batch_size=None, num_workers=workers, **named)


def tokens(batches: Any) -> list[Any]:
    return [batch["tokens"].tolist() for batch in batches]


def test_strides_share_the_steps_and_leave_the_loader_where_it_stands(data: TokenData, whole: list[Any]) -> None:
    loader = StreamingLoader(data, BATCH, pack=PACK, rank=1, world_size=2, epochs=1)
    loader.seek(step=2)
    parts = [list(strided(loader, 2 + number, 3, ahead=number)) for number in range(3)]
    assert [batch.step for batch in parts[1]] == list(range(3, len(loader), 3))
    found = {batch.step: batch.tokens.tolist() for part in parts for batch in part}
    assert [found[step] for step in range(2, len(loader))] == whole[2:]
    assert loader.step == 2
    endless = StreamingLoader(data, BATCH, pack=PACK)
    assert [batch.step for batch in islice(strided(endless, 10**9, 4, ahead=1), 2)] == [10**9, 10**9 + 4]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_data_loader_with_workers_gives_every_batch_once_in_order(
    data: TokenData, whole: list[Any], workers: int
) -> None:
    loader = torch_loader(data, fields=("position_ids", "targets"))
    batches = list(loader_of(loader, workers))
    assert tokens(batches) == whole
    assert [batch["step"] for batch in batches] == list(range(len(whole)))
    for batch, known in zip(batches, torch_loader(data), strict=True):
        assert sorted(batch) == ["end", "labels", "position", "position_ids", "step", "targets", "tokens"]
        for name in ("labels", "position_ids", "targets"):
            assert torch.equal(batch[name], known[name])
        assert (batch["position"], batch["end"]) == (known.position, known.end)


def test_persistent_workers_begin_again_where_the_loader_stood(data: TokenData, whole: list[Any]) -> None:
    """What workers had made ahead when an iteration was left is neither lost nor given twice within an iteration."""
    loader = torch_loader(data)
    loader.seek(step=3)
    batches = loader_of(loader, 2, persistent_workers=True)
    assert tokens(islice(batches, 3)) == whole[3:6]
    assert tokens(batches) == whole[3:]


def test_the_last_batch_used_says_where_to_go_on_with_any_number_of_workers(data: TokenData, whole: list[Any]) -> None:
    had, loader = [], torch_loader(data)
    for workers, count in ((2, 3), (0, 1), (3, 4), (0, 2)):
        for batch in islice(loader_of(loader, workers), count):
            had.append(batch["tokens"].tolist())
            state = loader.state_at(batch)
        loader = torch_loader(data)
        loader.load_state_dict(state)
    assert had == whole[:10]
    plain = StreamingLoader(data, BATCH, pack=PACK, rank=1, world_size=2, epochs=1)
    plain.load_state_dict(state)
    assert [batch.tokens.tolist() for batch in plain] == whole[10:]
    with pytest.raises(RequestError, match="not a str"):
        loader.state_at("the last")


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_stateful_data_loader_resumes_twice_with_batches_in_flight(
    data: TokenData, whole: list[Any], workers: int
) -> None:
    batches = stateful(torch_loader(data, dicts=True), workers)
    had = []
    for count in (4, 5):
        had += tokens(islice(iter(batches), count))
        state = pickle.loads(pickle.dumps(batches.state_dict()))
        batches = stateful(torch_loader(data, dicts=True), workers)
        batches.load_state_dict(state)
    assert had == whole[:9]
    assert tokens(batches) == whole[9:]


@pytest.mark.parametrize(("before", "after", "every"), [(2, 3, 1), (3, 0, 1), (0, 2, 1), (2, 1, 4)])
def test_a_stateful_data_loaders_state_goes_on_with_another_number_of_workers(
    data: TokenData, whole: list[Any], before: int, after: int, every: int
) -> None:
    """The state goes into the loader, and the new StatefulDataLoader is made around it."""
    batches = stateful(torch_loader(data), before, snapshot_every_n_steps=every)
    assert tokens(islice(iter(batches), 7)) == whole[:7]
    loader = torch_loader(data)
    loader.load_state_dict(batches.state_dict())
    assert loader.position == 7 * BATCH
    assert tokens(stateful(loader, after)) == whole[7:]


def test_a_stateful_data_loader_ends_once_and_begins_again_where_its_loader_stands(
    data: TokenData, whole: list[Any]
) -> None:
    batches = stateful(torch_loader(data, tail="pad"), 2)
    padded = tokens(batches)
    assert padded[: len(whole)] == whole
    loader = torch_loader(data, tail="pad")
    loader.load_state_dict(batches.state_dict())
    assert list(loader) == []


def test_one_workers_state_is_refused_by_another_number_of_workers(data: TokenData) -> None:
    loader = StreamingLoader(data, BATCH, pack=PACK)
    state = Worker(1, 2, loader).state_dict(loader.state_dict())
    with pytest.raises(RequestError, match="one of 2 workers, here are 3"):
        Worker(1, 3, loader).load(state)
    assert consumed(loader.state_dict()) == (loader.state_dict(), 0)


def test_pickles_with_where_it_stands_and_what_it_gives(data: TokenData, whole: list[Any]) -> None:
    loader = torch_loader(data, fields="targets", dicts=True)
    list(islice(loader, 4))
    again = pickle.loads(pickle.dumps(loader))
    assert again.step == 4
    assert tokens(again) == whole[4:] == tokens(loader)
