"""The adapter for PyTorch: the same rows as the numpy loader, as tensors; ranks and unequal slices; resume."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import json
import multiprocessing
import socket
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from loader_files import EOS, PACKS, VOCABULARY, put_data

from penstock import RequestError
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData
from penstock.sharding.format import Vocabulary

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'penstock[torch]'")
pytestmark = pytest.mark.torch
PACK = "best_fit-32"
NAMES = ("tokens", "labels", "loss_mask", "position_ids", "document_positions", "segment_ids", "cu_seqlens")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("torch") / "set")


def torch_loader(*arguments: Any, **named: Any) -> Any:
    from penstock.sharding.torch import TorchLoader

    return TorchLoader(*arguments, **named)


@pytest.mark.parametrize("device", DEVICES)
def test_gives_the_numpy_loaders_rows_as_tensors(data: TokenData, device: str) -> None:
    asked: dict[str, Any] = {"pack": PACK, "seed": 5, "rank": 1, "world_size": 4, "epochs": 1, "tail": "pad"}
    expected = list(StreamingLoader(data, 64, **asked))
    batches = list(torch_loader(data, 64, device=device, **asked))
    assert len(batches) == len(expected)
    for batch, known in zip(batches, expected, strict=True):
        assert (batch.step, batch.position, batch.end, len(batch)) == (known.step, known.position, known.end, 16)
        for name in NAMES:
            assert getattr(batch, name).device.type == device
            assert getattr(batch, name).tolist() == getattr(known, name).tolist()
        assert batch.tokens.dtype == batch.labels.dtype == torch.int64
        assert np.array_equal(batch.document_ids.cpu().numpy().view(np.uint64), known.document_ids)
        assert batch.targets.tolist() == np.where(known.loss_mask, known.labels, -100).tolist()
        pieces = len(known.cu_seqlens) + 2
        assert batch.varlen(pieces).cu_seqlens.tolist() == known.varlen(pieces).cu_seqlens.tolist()
        assert batch.max_seqlen == batch.varlen(pieces).max_seqlen == np.diff(known.cu_seqlens).max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cut", ["contiguous", "zigzag"])
def test_what_is_asked_ahead_and_cut_is_what_is_asked_later(data: TokenData, device: str, cut: Any) -> None:
    """Labels, masks and positions are made before rows are cut, so that a cut changes none of them."""
    asked: dict[str, Any] = {"pack": PACK, "seed": 5, "rank": 1, "world_size": 2, "epochs": 1, "tail": "pad"}
    whole = list(torch_loader(data, 64, **asked))
    names = (*NAMES, "targets", "document_ids")
    for rank in range(2):
        ahead = torch_loader(data, 64, device=device, fields=names, context=(rank, 2), cut=cut, **asked)
        later = torch_loader(data, 64, device=device, context=(rank, 2), cut=cut, **asked)
        chunks = [slice(16 * rank, 16 * rank + 16)] if cut == "contiguous" else [slice(0, 8), slice(24, 32)]
        if cut == "zigzag" and rank:
            chunks = [slice(8, 16), slice(16, 24)]
        for batch, other, known in zip(ahead, later, whole, strict=True):
            for name in names:
                expected = getattr(known, name)
                if name != "cu_seqlens":
                    expected = torch.cat([expected[:, chunk] for chunk in chunks], dim=1)
                assert batch[name].dtype == other[name].dtype == expected.dtype
                assert torch.equal(batch[name].cpu(), expected)
                assert torch.equal(other[name].cpu(), expected)
        with pytest.raises(RequestError, match="nearest length"):
            torch_loader(data, 64, context=(0, 3), cut=cut, **asked)


class LateCopies:
    """A side stream that is behind: each copy still reads its memory while three more are begun.

    What it copies when somebody waits for it must still be there when it is done. As a GPU it does not hold the memory.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Any, list[bool]]] = []

    def copy(self, memory: Any) -> tuple[Any, Any]:
        there, done = torch.empty(memory.size, dtype=torch.int32), [False]
        ctypes.memmove(there.data_ptr(), memory.ctypes.data, there.nbytes)
        self.waiting.append((memory.ctypes.data, there, done))
        while len(self.waiting) > 3:
            self.finish()
        return there, SimpleNamespace(query=lambda: done[0])

    def arrive(self, there: Any, done: Any) -> None:
        """The host does not wait."""

    def finish(self) -> None:
        address, there, done = self.waiting.pop(0)
        assert ctypes.string_at(address, there.nbytes) == there.numpy().tobytes()
        done[0] = True

    def close(self) -> None:
        while self.waiting:
            self.finish()


@pytest.mark.parametrize("fields", [(), ("targets", "position_ids")])
def test_pinned_memory_is_not_used_again_before_its_copy_is_done(data: TokenData, fields: Any) -> None:
    loader = torch_loader(data, 64, pack=PACK, epochs=2, fields=fields, prefetch=0)
    known = [batch.targets for batch in torch_loader(data, 64, pack=PACK, epochs=2)]
    side = LateCopies()
    found = [batch.targets for _, batch in loader._ahead(side)]
    assert len(found) == len(known) > 6
    assert all(torch.equal(*pair) for pair in zip(found, known, strict=True))


def test_memory_outlives_an_iteration_that_is_left_with_copies_under_way(data: TokenData) -> None:
    loader, side = torch_loader(data, 64, pack=PACK), LateCopies()
    batches = loader._ahead(side)
    next(batches)
    assert side.waiting
    batches.close()
    assert not side.waiting


@pytest.mark.parametrize("device", DEVICES)
def test_resumes_at_every_step_and_from_the_numpy_loaders_state(data: TokenData, device: str) -> None:
    loader = torch_loader(data, 64, pack=PACK, device=device, epochs=1)
    states, whole = [loader.state_dict()], []
    for batch in loader:
        whole.append(batch.tokens.tolist())
        states.append(loader.state_dict())
    plain = StreamingLoader(data, 64, pack=PACK)
    for step, state in enumerate(states[:-1]):
        assert state == plain.state_dict()
        next(iter(plain))
        again = torch_loader(data, 64, pack=PACK, device=device, epochs=1)
        again.load_state_dict(state)
        assert again.step == step
        assert [batch.tokens.tolist() for batch in islice(again, 2)] == whole[step : step + 2]


def test_goes_on_where_iteration_was_left_and_follows_a_seek(data: TokenData) -> None:
    loader = torch_loader(data, 64, pack=PACK)
    assert [batch.step for batch in islice(loader, 3)] == [0, 1, 2]
    steps = []
    for batch in loader:
        steps.append(batch.step)
        if len(steps) in (2, 4):
            loader.seek(step=10**9)
        if len(steps) == 6:
            break
    assert steps == [3, 4, 10**9, 10**9 + 1, 10**9, 10**9 + 1]
    assert loader.position == (10**9 + 2) * 64
    with pytest.raises(TypeError, match="epochs="):
        len(loader)


def test_goes_back_into_batches_of_another_size(data: TokenData) -> None:
    """To before the batches grew: the steps are those of the plan, and the plan stays."""
    loader = torch_loader(data, 10, pack=PACK)
    list(islice(loader, 3))
    larger = torch_loader(data, 16, pack=PACK)
    larger.load_state_dict(loader.state_dict())
    list(islice(larger, 2))
    plan = larger.state_dict()["plan"]
    larger.seek(step=1)
    steps = [(batch.step, len(batch), larger.position) for batch in islice(larger, 4)]
    assert steps == [(1, 10, 20), (2, 10, 30), (3, 16, 46), (4, 16, 62)]
    assert larger.state_dict()["plan"] == plan


def test_changes_and_skips_are_the_numpy_loaders(data: TokenData) -> None:
    """While an iteration goes on, too; from where the caller stands, not from where the loader has read to."""
    plain = StreamingLoader(data, 16, pack=PACK)
    loader = torch_loader(data, 16, pack=PACK, fields=("targets",))
    expected: list[Any] = []
    found: list[Any] = []
    documents = plain.at(9).document_ids.ravel()[:1].tolist()
    for moved, given in ((plain, expected), (loader, found)):
        for batch in moved:
            given.append((batch.step, batch.position, batch.tokens.tolist(), batch.loss_mask.tolist()))
            if len(given) == 3:
                moved.change(batch_size=24)
            if len(given) == 5:
                moved.skip(range(6, 8), documents)
            if len(given) == 9:
                break
    assert found == expected
    assert loader.state_dict() == plain.state_dict()
    assert loader.plan == plain.plan
    again = type(loader).from_state(
        data, json.loads(json.dumps(loader.state_dict())), fields=("targets",), batch_size=8
    )
    assert (
        next(iter(again)).tokens.tolist()
        == StreamingLoader.from_state(data, plain.state_dict(), batch_size=8).at(again.step - 1).tokens.tolist()
    )
    assert loader.quarantined == []


def test_a_change_to_batches_that_ranks_do_not_share_is_refused(data: TokenData) -> None:
    loader = torch_loader(data, 16, pack=PACK, rank=1, world_size=4)
    list(islice(loader, 2))
    with pytest.raises(RequestError, match="nearest batch_size that is is 16"):
        loader.change(batch_size=18)
    assert len(next(iter(loader))) == 4
    state = loader.state_dict()
    with pytest.raises(RequestError, match="nearest batch_size that is is 15"):
        type(loader).from_state(data, state, rank=0, world_size=3)
    assert len(next(iter(type(loader).from_state(data, state, rank=0, world_size=2)))) == 8


@pytest.mark.parametrize("tail", ["short", "pad"])
def test_the_end_comes_once(data: TokenData, tail: str) -> None:
    loader = torch_loader(data, 100, pack=PACK, epochs=1, tail=tail)
    assert len(list(loader)) == loader.step == len(loader)
    assert list(loader) == []


def test_serves_a_data_loader_without_workers(data: TokenData) -> None:
    loader = torch_loader(data, 64, pack=PACK, epochs=1)
    assert [batch.step for batch in torch.utils.data.DataLoader(loader, batch_size=None)] == list(range(len(loader)))


@pytest.mark.parametrize(("batch", "world", "nearest"), [(10, 4, 8), (11, 4, 12), (3, 8, 8), (383, 128, 384)])
def test_refuses_unequal_slices_and_names_the_nearest_batch(
    data: TokenData, batch: int, world: int, nearest: int
) -> None:
    with pytest.raises(RequestError, match=rf"batch_size that is is {nearest}\. Pass unequal=True"):
        torch_loader(data, batch, pack=PACK, world_size=world)
    sizes = [
        len(next(iter(torch_loader(data, batch, pack=PACK, rank=rank, world_size=world, unequal=True))))
        for rank in range(0, world, 7)
    ]
    assert set(sizes) <= {batch // world, batch // world + 1}


def test_refuses_a_short_last_batch_on_several_ranks(data: TokenData) -> None:
    with pytest.raises(RequestError, match="tail='drop'"):
        torch_loader(data, 8, pack=PACK, world_size=2, tail="short", epochs=1)


FAKE_RANK = """
import sys
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from penstock.sharding.torch import TorchLoader

found = []
for rank in range(16):
    torch.distributed.init_process_group("fake", rank=rank, world_size=16, store=FakeStore())
    mesh = init_device_mesh("cpu", (2, 2, 2, 2), mesh_dim_names=("dp_replicate", "dp_shard", "cp", "tp"))
    mesh["dp_replicate", "dp_shard"]._flatten("dp")
    named = {"mesh": mesh, "context": "cp", "cut": "zigzag", "pack": "best_fit-32"}
    loader = TorchLoader(sys.argv[1], 16, data=("dp_replicate", "dp_shard"), **named)
    flat = TorchLoader(sys.argv[1], 16, data="dp", **named)
    assert torch.equal(loader.at(0).tokens, flat.at(0).tokens)
    found.append((loader.rank, loader.world_size, loader.at(0).tokens.tolist()))
    torch.distributed.destroy_process_group()
print(found)
"""


def test_a_device_mesh_gives_each_rank_its_rows_and_its_part_of_them(data: TokenData) -> None:
    """Sixteen ranks: tensor-parallel peers get the same; context-parallel peers get each token of a row once."""
    command = [sys.executable, "-W", "ignore", "-c", FAKE_RANK, str(data.store.url)]
    told = ast.literal_eval(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    whole = StreamingLoader(data, 16, pack=PACK).at(0).tokens
    chunks = ([0, 3], [1, 2])
    for number, (rank, world, tokens) in enumerate(told):
        replicate, shard, context, _ = (number >> bit & 1 for bit in (3, 2, 1, 0))
        assert (rank, world) == (2 * replicate + shard, 4)
        rows = whole[4 * rank : 4 * rank + 4].reshape(4, 4, 8)
        assert tokens == rows[:, chunks[context]].reshape(4, 16).tolist()


def test_a_compiled_step_takes_varlen_of_every_batch_without_compiling_again(data: TokenData) -> None:
    """Attention within pieces, from cu_seqlens of a fixed shape, equals attention piece by piece."""
    loader = torch_loader(data, 8, pack=PACK, epochs=1, tail="pad")
    pieces = max(len(batch.cu_seqlens) for batch in loader)
    loader.seek(step=0)
    compiled = []

    def graph(module: Any, inputs: Any) -> Any:
        compiled.append(module)
        return module.forward

    def packed(x: Any, cu_seqlens: Any) -> Any:
        places = torch.arange(len(x))
        piece = torch.searchsorted(cu_seqlens[1:], places, right=True)
        visible = (piece[:, None] == piece[None, :]).tril()
        return torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None], attn_mask=visible[None])[0]

    attend = torch.compile(packed, backend=graph, dynamic=False, fullgraph=True)
    table = torch.randn(VOCABULARY.size, 8, generator=torch.Generator().manual_seed(0))
    for batch in islice(loader, 4):
        x, known = table[batch.tokens.flatten()], batch.cu_seqlens.tolist()
        parts = [x[None, start:stop] for start, stop in pairwise(known) if stop > start]
        attention = torch.nn.functional.scaled_dot_product_attention
        apart = torch.cat([attention(part, part, part, is_causal=True)[0] for part in parts])
        assert torch.allclose(attend(x, batch.varlen(pieces).cu_seqlens), apart, atol=1e-5)
    assert len(compiled) == 1


def one_rank(folder: str, port: int, rank: int, results: Any) -> None:
    """A process of a group of two: tells what its loader gives."""
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    loader = torch_loader(folder, 64, pack=PACK)
    results.put((rank, loader.rank, loader.world_size, next(iter(loader)).tokens.tolist()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_rank_and_world_size_come_from_torch_distributed(data: TokenData) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    ranks = [spawn.Process(target=one_rank, args=(str(Path(data.store.url)), port, rank, results)) for rank in range(2)]
    for process in ranks:
        process.start()
    found = sorted(results.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(60)
    assert [(rank, own, world) for rank, own, world, _ in found] == [(0, 0, 2), (1, 1, 2)]
    whole = StreamingLoader(data, 64, pack=PACK).at(0).tokens.tolist()
    assert found[0][3] + found[1][3] == whole


@pytest.fixture(scope="module")
def example() -> Any:
    """examples/train_gpt.py as a module."""
    path = Path(__file__).resolve().parent.parent / "examples" / "train_gpt.py"
    spec = importlib.util.spec_from_file_location("train_gpt", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_learns_and_resumes_with_equal_losses(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run stopped twice, once in the middle of an epoch, has the losses of one that was not stopped, bit by bit."""
    tiny = Vocabulary("uint16", 300, "5" * 64, eos_id=EOS, bos_id=None, name="tiny")
    folder = tmp_path / "set"
    put_data(folder, tiny, PACKS, {"train": (60,)})

    def train(checkpoint: str, steps: int) -> list[float]:
        options = ["--pack", PACK, "--width", "32", "--layers", "1", "--device", "cpu", "--batch-size", "16"]
        options += ["--checkpoint", str(tmp_path / checkpoint), "--steps", str(steps), "--learning-rate", "0.02"]
        losses: list[float] = example.train(example.parsed([str(folder), *options]))
        return losses

    whole = train("whole", 30)
    assert [len(train("parts", steps)) for steps in (3, 17)] == [3, 17]
    assert train("parts", 30) == whole
    assert sum(whole[-5:]) < sum(whole[:5])
    assert capsys.readouterr().out.count("waiting for data") == 60
    state = json.loads((tmp_path / "parts" / "loader.json").read_text())
    again = StreamingLoader.from_state(folder, state)
    assert again.step == 30
    assert len(again.at(17)) == 16
