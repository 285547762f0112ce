"""Ranks of several kinds of parallelism: who gets which rows, and which part of each row. NumPy's part of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from loader_files import put_data

from penstock import RequestError
from penstock.sharding import StreamingLoader
from penstock.sharding.buffers import Buffers
from penstock.sharding.cargo import FIELDS, PER_TOKEN, Context, Cut, check_fields, load, output
from penstock.sharding.dataset import TokenData
from penstock.sharding.ranks import Share, check_equal, share

PACK = "best_fit-32"
CUTS = get_args(Cut)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("ranks") / "set")


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("cut", CUTS)
def test_context_ranks_get_every_token_once(cut: Cut, size: int) -> None:
    rows = np.arange(2 * 32).reshape(2, 32)
    shares = [Context(rank, size, cut).of(rows) for rank in range(size)]
    assert {part.shape for part in shares} == {(2, 32 // size)}
    assert sorted(np.concatenate([part[1] for part in shares]).tolist()) == list(range(32, 64))


def test_zigzag_is_two_chunks_one_from_each_end_so_that_causal_work_is_equal() -> None:
    row = np.arange(16)[None]
    shares = [Context(rank, 4, "zigzag").of(row)[0].tolist() for rank in range(4)]
    assert shares == [[0, 1, 14, 15], [2, 3, 12, 13], [4, 5, 10, 11], [6, 7, 8, 9]]
    assert {sum(part) for part in shares} == {30}
    assert Context(1, 4).of(row)[0].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("cut", CUTS)
def test_a_cargo_holds_what_the_batch_gives_cut_afterwards(data: TokenData, cut: Cut) -> None:
    """Labels cross the cuts: a chunk's last label is the token behind it."""
    batch = StreamingLoader(data, 10, pack=PACK, epochs=1, tail="pad").at(2)
    for rank in range(2):
        context = Context(rank, 2, cut)
        cargo = load(batch, FIELDS, context, Buffers(2))
        held = {name: cargo.array(name) for name in cargo.places}
        assert np.array_equal(held["buffer"][..., :-1].reshape(10, 16), context.of(batch.tokens))
        assert np.array_equal(held["buffer"][..., 1:].reshape(10, 16), context.of(batch.labels))
        for name in PER_TOKEN:
            assert np.array_equal(held[name], context.of(output(batch, name, Context())))
        assert np.array_equal(held["cu_seqlens"], batch.cu_seqlens)
        assert "targets" not in held


def test_without_fields_and_cuts_the_batchs_own_memory_is_the_cargo(data: TokenData) -> None:
    batch = StreamingLoader(data, 10, pack=PACK).at(0)
    assert np.shares_memory(load(batch, ("tokens",), Context(), Buffers(1)).memory, batch.buffer)


@pytest.mark.parametrize(
    ("cut", "size", "length", "nearest", "ranks"),
    [("contiguous", 3, 32, 33, 2), ("zigzag", 3, 32, 30, 2), ("zigzag", 16, 16, 32, 8), ("zigzag", 2, 2, 4, 1)],
)
def test_unequal_cuts_are_refused_with_the_nearest_that_work(
    cut: Cut, size: int, length: int, nearest: int, ranks: int
) -> None:
    with pytest.raises(RequestError, match=rf"nearest length .* is {nearest} .* number of ranks {ranks}$"):
        Context(0, size, cut).check(length)
    Context(0, size, cut).check(nearest)
    if ranks > 1:
        Context(0, ranks, cut).check(length)


def test_contexts_and_fields_that_are_none_are_refused() -> None:
    with pytest.raises(RequestError, match="'spiral'"):
        Context(0, 2, "spiral")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="2 of 2"):
        Context(2, 2)
    with pytest.raises(RequestError, match="no 'mask'; fields are"):
        check_fields(("targets", "mask"))
    assert check_fields("targets") == ("targets",)


class Mesh:
    """A device mesh as torch's answers: `mesh[name]` has a local rank and a size."""

    def __init__(self, **places: tuple[int, int]) -> None:
        self._places, self.mesh_dim_names = places, tuple(places)

    def __getitem__(self, name: str) -> Any:
        rank, size = self._places[name]
        return SimpleNamespace(get_local_rank=lambda: rank, size=lambda: size)


def of_mesh(mesh: Mesh, data: Any, context: Any = None) -> Share:
    return share(None, None, context, "contiguous", mesh, data, (7, 8))


def test_a_mesh_says_which_rows_and_which_part() -> None:
    mesh = Mesh(dp_replicate=(1, 2), dp_shard=(2, 4), cp=(1, 2), tp=(0, 3))
    assert of_mesh(mesh, ("dp_replicate", "dp_shard"), "cp") == Share(6, 8, Context(1, 2))
    assert of_mesh(mesh, "dp_shard") == Share(2, 4, Context())
    assert of_mesh(mesh, "dp_shard", (3, 4)) == Share(2, 4, Context(3, 4))
    assert of_mesh(Mesh(dp=(1, 2), cp=(0, 2)), None, "cp") == Share(1, 2, Context(0, 2))


def test_numbers_say_it_too_and_all_processes_where_nothing_is_said() -> None:
    assert share(None, None, None, "zigzag", None, None, (3, 4)) == Share(3, 4, Context(0, 1, "zigzag"))
    assert share(1, 2, (0, 2), "zigzag", None, None, (3, 4)) == Share(1, 2, Context(0, 2, "zigzag"))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"mesh": Mesh(dp=(0, 2)), "rank": 1}, "pass mesh and data, or rank and world_size"),
        ({"mesh": Mesh(dp=(0, 2), tp=(0, 2))}, "data='dp', or several"),
        ({"mesh": Mesh(dp=(0, 2), tp=(0, 2)), "data": "pp"}, r"\['dp', 'tp'\], not \['pp'\]"),
        ({"mesh": Mesh(dp=(0, 2), cp=(0, 2)), "data": ("dp", "cp"), "context": "cp"}, "it does one"),
        ({"data": "dp"}, "'dp' names a dimension of a device mesh: pass mesh="),
        ({"context": "cp"}, "'cp' names a dimension of a device mesh: pass mesh="),
        ({"context": (0, 2)}, "also pass rank and world_size"),
    ],
)
def test_what_does_not_say_which_rows_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        share(
            **{**dict.fromkeys(("rank", "world_size", "context", "mesh", "data")), **asked},
            cut="contiguous",
            found=(0, 1),
        )


def test_batches_that_are_not_shared_equally_are_refused() -> None:
    check_equal(8, 4, "pad")
    check_equal(7, 1, "short")
    with pytest.raises(RequestError, match="nearest batch_size that is is 8"):
        check_equal(9, 4, "drop")
    with pytest.raises(RequestError, match="tail='drop'"):
        check_equal(8, 4, "short")
