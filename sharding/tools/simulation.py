"""What W nodes will read, hold and see of a data set, worked out from its manifest alone: no token is read.

Where the rows of the steps asked about are few (up to 2^20) each is counted, and the figures are those of the real
loader's reads, tail dropped. Else blocks are sampled, and every row of a sampled block is found back in the order; so
the sample is fair whatever the size, and tells its error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ... import RequestError
from ..dataset import TokenData, open_tokens
from ..permutation import derive, permute
from ..positions import choose_streams
from .shuffling import PERMUTED_DISTANCE, Stored, batch_variance
from .simulated import Setting
from .touches import Touches

# Tokens a second a GPU of an 8-billion-parameter model on an H100 in FP8: NVIDIA's NeMo performance summary, 24.12.
TOKENS_PER_SECOND = 12_273.0
#: Data repeated so often is nearly as good as new: Muennighoff et al. 2023, arXiv:2305.16264.
MANY_EPOCHS = 4
# Reads of a block for which an LRU cache's size is told, as multiples of the fewest.
_MORE_READS = (1.0, 1.05, 1.25, 2.0, 4.0)
# Rows of batches looked at whole, and batches at most.
_BATCH_ROWS, _BATCHES = 1 << 18, 512
# Steps from the first on whose new blocks are counted.
_FIRST_STEPS = 64


def simulate(
    path: str | Path | TokenData,
    batch_size: int,
    nodes: int,
    *,
    ranks_per_node: int = 8,
    pack: str | None = None,
    weights: Mapping[str, float] | None = None,
    split: str = "train",
    shuffle: Literal["block", "full"] = "block",
    seed: int = 0,
    steps: int | None = None,
    tokens_per_second: float = TOKENS_PER_SECOND,
    generation: int | None = None,
) -> dict[str, Any]:
    """Say what training on so many nodes will read, hold and see; plain values for JSON, sizes in bytes.

    batch_size: rows of the global batch. steps: how long it trains; one epoch without it. tokens_per_second: of one
    rank; it turns blocks a step into a rate.

    Gives `epoch` and `streams` (rows, epochs), `reads` (`amplification`: blocks read by each node over blocks, an epoch
    each time; `ranks_a_block`), `step` (of a node), `cache` (what a node must hold to read no block twice with the best
    eviction, and by amplification with LRU), `network`, `start` (the first steps), `shuffle` (`variance` of sorted
    sources in a batch and `distance` of neighbours, each over a true permutation's), `notes`. A request that no loader
    could serve: RequestError.
    """
    data = path if isinstance(path, TokenData) else open_tokens(path, generation)
    order = data.generation.pack(pack)
    if shuffle not in ("block", "full"):
        raise RequestError(f"shuffle is 'block' or 'full', not {shuffle!r}")
    if shuffle == "full":  # a stream of one lane is one permutation of all its rows: see `order`
        order = replace(order, streams={name: replace(shape, lanes=1) for name, shape in order.streams.items()})
    mixed = choose_streams(order, split, weights)
    epoch = sum(order.streams[name].rows for name in mixed.names)
    _check(batch_size, nodes, ranks_per_node, steps, tokens_per_second)
    world, steps = nodes * ranks_per_node, max(1, epoch // batch_size) if steps is None else steps
    setting = Setting(data.generation, order, mixed, seed, batch_size, nodes, world, steps)
    seconds = batch_size * order.pack.length / world / tokens_per_second
    asked = {"pack": order.pack.name, "shuffle": shuffle, "ranks_per_node": ranks_per_node}
    rates = {"tokens_per_second": tokens_per_second, "step_seconds": round(seconds, 6)}
    return {
        "generation": data.generation.number,
        "setting": asked | {"seed": seed, "batch_size": batch_size, "nodes": nodes, "steps": steps} | rates,
        "epoch": {"rows": epoch, "steps": epoch // batch_size, "tail_rows": epoch % batch_size},
        "streams": {name: _stream(setting, name) for name in mixed.names},
        **_reads(setting, setting.touches(), seconds),
        "start": _start(setting, seconds),
        "shuffle": _shuffle(setting),
        "notes": list(_notes(setting)),
    }


def _check(batch_size: int, nodes: int, ranks_per_node: int, steps: int | None, tokens_per_second: float) -> None:
    counts = {"batch_size": batch_size, "nodes": nodes, "ranks_per_node": ranks_per_node, "steps": steps}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise RequestError(f"{name} is {value}; at least 1 makes sense")
    if not 0 < tokens_per_second < float("inf"):
        raise RequestError(f"tokens_per_second is {tokens_per_second}; give what one GPU trains on, e.g. 12000")
    if nodes * ranks_per_node > batch_size:
        raise RequestError(
            f"a batch of {batch_size} rows leaves some of {nodes * ranks_per_node} ranks ({nodes} nodes of "
            f"{ranks_per_node}) without a row; raise the batch size or take fewer ranks"
        )


def _stream(setting: Setting, name: str) -> dict[str, Any]:
    shape = setting.pack.streams[name]
    rows = setting.mixed.count(name, setting.steps * setting.batch_size)
    return {
        "rows": shape.rows, "blocks": setting.stored[name][0], "lanes": shape.lanes, "window": shape.window,
        "share": round(dict(setting.mixed.weights)[name] / setting.mixed.total, 6),
        "rows_given": rows, "epochs": round(rows / shape.rows, 4),
    }  # fmt: skip


def _block_bytes(setting: Setting) -> float:
    """Bytes of a block, on average over the streams as they are read."""
    told = [(setting.epochs(name), *setting.stored[name]) for name in setting.mixed.names]
    blocks, tokens = sum(epochs * held for epochs, held, _ in told), sum(epochs * held for epochs, _, held in told)
    return float(tokens * setting.generation.vocabulary.itemsize / blocks)


def _reads(setting: Setting, touches: Touches, seconds: float) -> dict[str, Any]:
    """How often blocks are read, what a node must hold for that, and what comes over the network."""
    size, met, each = _block_bytes(setting), touches.blocks_met, setting.steps * setting.nodes
    reads, uses = touches.reads / each, touches.uncached_reads / each
    scattered = setting.nodes * (1 - (1 - 1 / setting.nodes) ** setting.pack.group_rows)
    return {
        "reads": {
            "exact": setting.exact, "rows_looked_at": len(touches.blocks), "blocks": round(met),
            "block_bytes": round(size), "amplification": round(touches.reads / met, 4),
            "standard_error": round(touches.error, 4), "ranks_a_block": round(touches.rank_reads / met, 4),
            "of_a_full_shuffle": round(scattered, 4),
        },
        "step": {
            "blocks_a_node": round(uses, 2), "bytes_a_node": round(uses * size), "new_blocks_a_node": round(reads, 4),
            "rows_a_rank": setting.batch_size / setting.world,
        },
        "cache": {
            "live_bytes_a_node": round(touches.live * size),
            "lru_bytes_a_node": {f"{ratio:g}": round(held * size) for ratio, held in _caches(touches)},
        },
        "network": {
            "bytes_a_second_a_node": round(reads * size / seconds),
            "bytes_a_second": round(reads * size / seconds * setting.nodes),
            "without_cache_a_node": round(uses * size / seconds),
        },
    }  # fmt: skip


def _caches(touches: Touches) -> Iterator[tuple[float, float]]:
    """LRU caches: reads of a block, and the blocks a node must hold for no more of them."""
    _, misses = touches.curve
    for more in _MORE_READS:
        if touches.reads * more <= misses[0]:
            yield round(touches.reads * more / touches.blocks_met, 4), touches.cache_for(touches.reads * more)


def _start(setting: Setting, seconds: float) -> dict[str, Any]:
    """What is read in the first steps, when no block is at hand: it is more than later."""
    steps = min(setting.steps, max(1, min(_FIRST_STEPS, _BATCH_ROWS // setting.batch_size)))
    fresh = setting.counted(steps).fresh
    size = _block_bytes(setting)
    return {
        "steps": steps, "first_step_bytes_a_node": round(float(fresh[0].max() * size)),
        "bytes_a_node": round(float(fresh.sum(axis=0).max() * size)),
        "bytes_a_second_a_node": round(float(fresh.sum(axis=0).max() * size / steps / seconds)),
    }  # fmt: skip


def _shuffle(setting: Setting) -> dict[str, Any]:
    """How far batches and neighbours are from a true permutation's."""
    size = setting.batch_size
    count = min(setting.steps, _BATCHES, max(8, _BATCH_ROWS // size))
    steps = permute(np.arange(count), setting.steps, derive(setting.seed, 0xBA7C))
    places = setting.positions.places((steps[:, None] * size + np.arange(size)).ravel())
    ratio, error = batch_variance(Stored.of(setting.generation, setting.pack), places, count)
    apart, steps_apart, together = [], [], []
    for sample in setting.samples:
        beside = sample.blocks[1:] == sample.blocks[:-1]
        positions = setting.mixed.positions(sample.stream, sample.ordinals)
        apart.append(np.abs(np.diff(sample.ordinals)[beside]) / setting.pack.streams[sample.stream].rows)
        steps_apart.append(np.abs(np.diff(positions)[beside]) / size)
        together.append(np.diff(positions // size)[beside] == 0)
    distance, in_steps, same = map(np.concatenate, (apart, steps_apart, together))
    found: dict[str, Any] = {"batches": count, "variance": round(ratio, 4), "variance_error": round(error, 4)}
    if len(distance):
        found["neighbours"] = {
            "distance": round(float(np.median(distance)) / PERMUTED_DISTANCE, 4),
            "steps": round(float(np.median(in_steps)), 2), "in_one_batch": round(float(same.mean()), 6),
        }  # fmt: skip
    return found


def _notes(setting: Setting) -> Iterator[str]:
    """What is worth a second look."""
    size, world = setting.batch_size, setting.world
    if size % world:
        near = max(1, round(size / world)) * world
        yield f"a batch of {size} rows does not divide among {world} ranks; {near} does"
    for name in setting.mixed.names:
        shape, epochs = setting.pack.streams[name], setting.epochs(name)
        if 1 < shape.lanes < setting.nodes:
            yield (
                f"stream {name} has {shape.lanes} lanes for {setting.nodes} nodes: "
                "some of its blocks are read by several"
            )
        if epochs > MANY_EPOCHS:
            yield (
                f"stream {name} is given {epochs:.1f} times; beyond {MANY_EPOCHS} repeated data gives little "
                "(Muennighoff et al. 2023, arXiv:2305.16264)"
            )
