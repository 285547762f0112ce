"""The adapter for JAX: global arrays are the numpy loader's batches whatever the mesh; a process reads its own rows."""

from __future__ import annotations

import socket
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_files import put_data

from penstock import RequestError
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install 'penstock[jax]'")
P = jax.sharding.PartitionSpec
PACK = "best_fit-32"
FIELDS = ("loss_mask", "position_ids", "document_positions", "segment_ids")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("jax") / "set")


@pytest.fixture(scope="module", autouse=True)
def devices() -> list[Any]:
    """Eight devices of this machine's CPU."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    return list(jax.devices())


def mesh(*sizes: int) -> Any:
    names = ("data", "model")[: len(sizes)]
    return jax.sharding.Mesh(np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes), names)


def jax_loader(data: Any, batch_size: int, sharding: Any, **named: Any) -> Any:
    from penstock.sharding.jax import JaxLoader

    return JaxLoader(data, batch_size, sharding=sharding, pack=PACK, seed=3, **named)


@pytest.mark.parametrize(
    ("sizes", "spec"),
    [((8,), P("data")), ((4, 2), P("data", "model")), ((2, 4), P(("data", "model"))), ((4, 2), P(None, "data"))],
)
def test_global_arrays_are_the_numpy_loaders_batches(data: TokenData, sizes: tuple[int, ...], spec: Any) -> None:
    sharding = jax.sharding.NamedSharding(mesh(*sizes), spec)
    loader = jax_loader(data, 16, sharding, fields=FIELDS, epochs=1, tail="pad")
    known = list(StreamingLoader(data, 16, pack=PACK, seed=3, epochs=1, tail="pad"))
    batches = list(loader)
    assert len(batches) == len(known) == len(loader) == loader.step
    for batch, expected in zip(batches, known, strict=True):
        assert list(batch) == ["tokens", "labels", *FIELDS]
        for name, array in batch.items():
            assert array.sharding == sharding
            assert np.array_equal(np.asarray(array), getattr(expected, name))
    assert np.array_equal(np.asarray(loader.at(2)["tokens"]), known[2].tokens)


def test_resumes_from_and_into_the_numpy_loaders_state_on_another_mesh(data: TokenData) -> None:
    plain = StreamingLoader(data, 16, pack=PACK, seed=3)
    whole = [batch.tokens.tolist() for batch in islice(plain, 9)]
    loader = jax_loader(data, 16, mesh(4))
    had = [np.asarray(batch["tokens"]).tolist() for batch in islice(loader, 3)]
    again = jax_loader(data, 16, mesh(8))
    again.load_state_dict(loader.state_dict())
    had += [np.asarray(batch["tokens"]).tolist() for batch in islice(again, 6)]
    assert had == whole
    assert again.state_dict() == plain.state_dict()
    assert loader.state_at(again.position) == again.state_dict()


def test_a_change_of_batch_size_and_skips_reach_every_slice_and_the_state(data: TokenData) -> None:
    plain, loader = StreamingLoader(data, 16, pack=PACK, seed=3), jax_loader(data, 16, mesh(4))
    found: dict[Any, list[Any]] = {plain: [], loader: []}
    for moved, given in found.items():
        for batch in moved:
            tokens = batch["tokens"] if moved is loader else batch.tokens
            given.append(np.asarray(tokens).tolist())
            if len(given) == 2:
                moved.change(batch_size=8)
                moved.skip((3, 5))
            if len(given) == 5:
                break
    assert found[loader] == found[plain]
    assert loader.state_dict() == plain.state_dict()
    with pytest.raises(RequestError, match="batches of 6 rows"):
        loader.change(batch_size=6)
    again = type(loader).from_state(data, plain.state_dict(), sharding=mesh(8), batch_size=16)
    assert np.array_equal(np.asarray(next(iter(again))["tokens"]), plain.rows(again.loader.at(5).positions).tokens)


def test_a_step_compiled_once_takes_every_batch(data: TokenData) -> None:
    """Shapes and layouts do not change, the last batch's neither."""
    traced = []

    @jax.jit
    def step(batch: dict[str, Any]) -> Any:
        traced.append(1)
        return (batch["labels"] * batch["loss_mask"]).sum()

    loader = jax_loader(data, 16, mesh(8), fields=("loss_mask",), epochs=1, tail="pad")
    sums = [int(step(batch)) for batch in loader]
    known = StreamingLoader(data, 16, pack=PACK, seed=3, epochs=1, tail="pad")
    assert sums == [int((batch.labels * batch.loss_mask).sum()) for batch in known]
    assert len(traced) == 1


def test_refuses_what_devices_do_not_hold_equally(data: TokenData) -> None:
    with pytest.raises(RequestError, match="batches of 12 rows of 32 tokens are not cut as asked"):
        jax_loader(data, 12, mesh(8))
    with pytest.raises(RequestError, match="tail='pad'"):
        jax_loader(data, 16, mesh(8), epochs=1, tail="short")
    with pytest.raises(RequestError, match="no 'document_ids'"):
        jax_loader(data, 16, mesh(8), fields=("document_ids",))


ONE_OF_TWO = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from penstock.sharding import StreamingLoader
from penstock.sharding.jax import JaxLoader

folder, port, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
known = StreamingLoader(folder, 8, pack="best_fit-32").at(1).tokens
own = []
for places in ((0, 1, 2, 3), (0, 2, 1, 3)):
    mesh = Mesh(np.array(jax.devices())[list(places)], ("data",))
    loader = JaxLoader(folder, 8, sharding=NamedSharding(mesh, P("data")), pack="best_fit-32")
    next(batches := iter(loader))
    array = next(batches)["tokens"]
    assert array.shape == (8, 32) and len(array.addressable_shards) == 2
    for shard in array.addressable_shards:
        assert np.array_equal(np.asarray(shard.data), known[shard.index]), (places, shard.index)
    own.append([(part.rank, part.world_size) for part in loader._loaders])
print(own)
"""


def test_each_of_two_processes_reads_the_rows_of_its_own_devices(data: TokenData) -> None:
    """Also where they do not stand next to each other in the mesh."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = str(Path(data.store.url))
    commands = [[sys.executable, "-c", ONE_OF_TWO, folder, str(port), str(rank)] for rank in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    told = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert told == ["[[(0, 2)], [(0, 4), (2, 4)]]", "[[(1, 2)], [(1, 4), (3, 4)]]"]
