"""Simulate: what it says without reading a token is what the real loader reads; what it samples is what is counted."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from loader_files import put_data

from penstock import RequestError
from penstock.pipelines.cli import main
from penstock.sharding import StreamingLoader
from penstock.sharding.block import Block
from penstock.sharding.blocks import Blocks
from penstock.sharding.dataset import TokenData
from penstock.sharding.mixture import mixture
from penstock.sharding.order import Geometry, Order
from penstock.sharding.positions import Places
from penstock.sharding.quarantine import Quarantined
from penstock.sharding.tools import simulated
from penstock.sharding.tools.shares import places_in_batch
from penstock.sharding.tools.shuffling import SOURCES, Stored, batch_variance
from penstock.sharding.tools.simulation import simulate
from penstock.sharding.tools.touches import Touches

PACK = "concat-16"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("simulate") / "set")


def random_orders(chance: np.random.Generator, count: int) -> list[Order]:
    shapes = (
        Geometry(int(groups), int(size), int(tail), 1 << int(lanes), int(window))
        for groups, size, tail, lanes, window in zip(
            *(chance.integers(low, high, 99) for low, high in ((0, 150), (1, 9), (0, 30), (0, 7), (1, 9))), strict=True
        )
    )
    return [Order(shape, int(chance.integers(1 << 40))) for shape in islice((s for s in shapes if s.rows), count)]


def test_places_in_a_batch_are_those_of_the_sorted_batch() -> None:
    chance = np.random.default_rng(0)
    for _ in range(40):
        orders = random_orders(chance, int(chance.integers(1, 5)))
        mixed = mixture({f"s{number}": int(chance.integers(1, 50)) for number in range(len(orders))})
        size = int(chance.integers(1, 200))
        positions = int(chance.integers(0, 1000)) * size + np.arange(size * 5)
        streams, ordinals = mixed.split(positions)
        lanes = np.select(
            [streams == number for number in range(len(orders))], [order.lanes(ordinals) for order in orders]
        )
        sorted_rows = np.argsort(lanes.reshape(-1, size), axis=1, kind="stable")
        assert np.array_equal(places_in_batch(mixed, orders, positions, size), np.argsort(sorted_rows, axis=1).ravel())


Uses = list[set[tuple[int, ...]]]


def read_by(data: TokenData, size: int, world: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[Uses]:
    """The blocks (epoch, shard, group) that the real loaders need, by rank and step; each is seen to be read."""
    real, read = Blocks.get, set()

    def get(blocks: Blocks, shard: int, group: int) -> Block | Quarantined:
        read.add((shard, group))
        return real(blocks, shard, group)

    monkeypatch.setattr(Blocks, "get", get)
    found = []
    for rank in range(world):
        read.clear()
        loader = StreamingLoader(data, size, rank=rank, world_size=world, pack=PACK, prefetch=0, seed=5)
        by_step: Uses = []
        for batch in islice(loader, steps):
            places = loader.places(batch.positions)
            by_step.append(
                set(zip(places.epochs.tolist(), places.shards.tolist(), places.groups.tolist(), strict=True))
            )
        assert read == {key[1:] for step in by_step for key in step}
        found.append(by_step)
    return found


@pytest.mark.parametrize(("size", "nodes", "ranks"), [(24, 3, 2), (17, 1, 3), (40, 4, 1)])
def test_says_what_the_real_loader_reads(
    data: TokenData, size: int, nodes: int, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 20
    told = simulate(data, size, nodes, ranks_per_node=ranks, pack=PACK, seed=5, steps=steps)
    by_rank = read_by(data, size, nodes * ranks, steps, monkeypatch)
    by_node = [by_rank[node * ranks : (node + 1) * ranks] for node in range(nodes)]
    uses = [[set().union(*(rank[step] for rank in node)) for step in range(steps)] for node in by_node]
    blocks = set().union(*(step for node in uses for step in node))
    reads = told["reads"]
    assert reads["exact"] is True
    assert reads["blocks"] == len(blocks)
    amplification = sum(len(set().union(*node)) for node in uses) / len(blocks)
    assert reads["amplification"] == round(amplification, 4)
    assert reads["ranks_a_block"] == round(sum(len(set().union(*rank)) for rank in by_rank) / len(blocks), 4)
    touched = sum(len(step) for node in uses for step in node) / steps / nodes
    assert told["step"]["blocks_a_node"] == round(touched, 2)
    lives = 0
    for node in uses:
        for block in set().union(*node):
            at = [step for step, met in enumerate(node) if block in met]
            lives += at[-1] - at[0] + 1
    live = lives / steps / nodes * reads["block_bytes"]
    assert told["cache"]["live_bytes_a_node"] == pytest.approx(live, rel=1e-2)
    fullest = max(len(set().union(*node[: told["start"]["steps"]])) for node in uses)
    assert told["start"]["bytes_a_node"] == pytest.approx(fullest * reads["block_bytes"], rel=1e-2)


def lru_reads(touches: Touches, node: int, size: int) -> int:
    """Reads of a node with an LRU cache of so many blocks."""
    held: OrderedDict[int, None] = OrderedDict()
    reads, here = 0, touches.ranks // (touches.world // touches.nodes) == node
    for step in range(touches.step_count):
        for block in np.unique(touches.blocks[here & (touches.steps == step)]).tolist():
            reads += block not in held
            held[block] = None
            held.move_to_end(block)
            while len(held) > size:
                held.popitem(last=False)
    return reads


def test_the_curve_of_cache_sizes_is_that_of_an_lru_cache() -> None:
    chance = np.random.default_rng(3)
    steps = np.repeat(np.arange(300), 12)
    # Blocks in use drift slowly, as in lanes' windows.
    blocks = (steps // 3 + chance.geometric(0.08, len(steps))).astype(np.int64)
    ranks = chance.integers(0, 4, len(steps))
    touches = Touches(blocks, steps, ranks, np.ones(int(blocks.max()) + 1), 300, 2, 4)
    for size in (15, 25, 40):
        real = sum(lru_reads(touches, node, size) for node in range(2))
        held, misses = touches.curve
        assert np.interp(size, held, misses) == pytest.approx(real, rel=0.06)
    everything = sum(lru_reads(touches, node, 10**6) for node in range(2))
    assert touches.reads == everything == touches.curve[1][-1]


def test_sampled_blocks_say_what_all_of_them_do(data: TokenData, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> dict[str, Any]:
        return simulate(data, 24, 3, ranks_per_node=2, pack=PACK, weights={"train/a": 3, "train/b": 1}, steps=70)

    counted = told()
    monkeypatch.setattr(simulated, "EXACT_ROWS", 0)
    everything = told()  # as many blocks are drawn as there are
    assert everything["reads"]["exact"] is False
    for part, name in (("reads", "blocks"), ("reads", "amplification"), ("step", "blocks_a_node")):
        assert everything[part][name] == pytest.approx(counted[part][name], rel=0.12), name
    monkeypatch.setattr(simulated, "SAMPLED_ROWS", 800)
    some = told()
    assert some["reads"]["rows_looked_at"] < 1000
    assert some["reads"]["standard_error"] > 0
    strays = abs(some["reads"]["amplification"] - everything["reads"]["amplification"])
    assert strays < 4 * some["reads"]["standard_error"]


def test_a_full_shuffle_reads_nearly_every_block_on_every_node(data: TokenData) -> None:
    block, full = (
        simulate(data, 24, 6, ranks_per_node=1, pack=PACK, weights={"train/a": 1}, shuffle=kind)
        for kind in ("block", "full")
    )
    assert full["reads"]["amplification"] > 1.3 * block["reads"]["amplification"]
    assert full["reads"]["amplification"] == pytest.approx(full["reads"]["of_a_full_shuffle"], rel=0.1)
    assert full["shuffle"]["variance"] == pytest.approx(1, abs=5 * full["shuffle"]["variance_error"])
    assert full["shuffle"]["neighbours"]["distance"] == pytest.approx(1, abs=0.15)


def test_variance_is_1_for_a_permutation_and_large_for_none(data: TokenData) -> None:
    order = data.generation.pack(PACK)
    stored = Stored.of(data.generation, order)
    shard = 0
    rows = data.generation.shards[shard].packs[PACK].rows
    every = np.arange(rows // 8 * 8)
    size = order.group_rows

    def places(rows: np.ndarray) -> Places:
        return Places(np.full(len(rows), shard), rows // size, rows % size, np.zeros(len(rows), np.int64))

    alone = replace(stored, rows=np.full_like(stored.rows, rows))
    orders = [np.random.default_rng(seed).permutation(every) for seed in range(5)]
    shuffled = np.mean([batch_variance(alone, places(order), len(every) // 8)[0] for order in orders])
    assert shuffled == pytest.approx(1, abs=0.1)
    assert batch_variance(stored, places(every), len(every) // 8)[0] > 4
    assert SOURCES == 64


def test_epochs_and_tail_are_exact(data: TokenData) -> None:
    told = simulate(data, 24, 2, pack=PACK, ranks_per_node=1, weights={"train/a": 3, "train/b": 1}, steps=1000)
    counts = mixture({"train/a": 3, "train/b": 1})
    for name, stream in told["streams"].items():
        assert stream["rows_given"] == counts.count(name, 24_000)
        assert stream["epochs"] == round(stream["rows_given"] / stream["rows"], 4)
    rows = sum(stream["rows"] for stream in told["streams"].values())
    assert told["epoch"] == {"rows": rows, "steps": rows // 24, "tail_rows": rows % 24}
    assert any("train/b is given" in note for note in told["notes"])
    assert json.loads(json.dumps(told)) == told


def test_refuses_what_no_loader_could_be_asked(data: TokenData) -> None:
    asked: dict[str, Any] = {"path": data, "batch_size": 24, "nodes": 2, "pack": PACK}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"nodes": 0}, "nodes is 0"),
        ({"ranks_per_node": -1}, "ranks_per_node is -1"),
        ({"steps": 0}, "steps is 0"),
        ({"tokens_per_second": 0.0}, "tokens_per_second is 0"),
        ({"nodes": 9}, "a batch of 24 rows leaves some of 72 ranks"),
        ({"shuffle": "random"}, "shuffle is 'block' or 'full'"),
        ({"pack": "concat-99"}, "no pack 'concat-99'"),
        ({"weights": {"train/c": 1}}, "no stream train/c"),
    ]
    for change, words in refused:
        with pytest.raises(RequestError, match=words):
            simulate(**{**asked, **change})
    assert simulate(data, 25, 2, ranks_per_node=4, pack=PACK)["notes"] == [
        "a batch of 25 rows does not divide among 8 ranks; 24 does"
    ]


def test_the_command_prints_a_line_a_question_or_json(data: TokenData, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["simulate", data.store.url, "--batch-size", "24", "--nodes", "2", "--ranks-per-node", "3", "--pack", PACK]
    assert main([*words, "--weights", "train/a=3", "train/b=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "asked", "epoch", "streams", "train/b", "reads", "a", "cache", "network", "start", "shuffle"
    ]  # fmt: skip
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == simulate(data, 24, 2, ranks_per_node=3, pack=PACK)
    assert main([*words, "--weights", "train/a"]) == 2
    assert "--weights train/a: write STREAM=WEIGHT" in capsys.readouterr().err
