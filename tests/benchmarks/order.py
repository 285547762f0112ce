"""How random the order looks, what an index costs, how far a seek is, and how many ranks read a block.

    python tests/benchmarks/order.py [--seeds 20] [--rows 16001] [--grain PYTHON] [--positions 524288]

Prints one line of JSON. `statistics`: for each order the mean over seeds of how many of NumPy's standard deviations it
lies off NumPy's mean, and the largest; `numpy` itself, by other seeds, says what chance does. With --grain, the Python
of an environment that has grain, its `index_shuffle` is measured beside. `nanoseconds` are CPU time an index, the best
of several. `seek`: from nothing to the place of a far position, for a stream of 10^3 rows and one of 10^12.
`ranks_per_block`: by lanes, streams, batch and ranks, over whole epochs or --positions; the issue asks 1.2 where lanes
are 4 a rank.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from shuffles import NAMES, Ints, Spread, affine_feistel, by_numpy, congruential_walk, statistics

from penstock.sharding.mixture import Mixture
from penstock.sharding.order import Geometry, Order, geometry, stream_key
from penstock.sharding.permutation import permute

WORLDS = (2, 3, 8, 16, 17, 32, 64, 128, 256, 512)
BATCHES = (384, 1024, 4096)
GRAIN = """
import sys, time, numpy as np
from grain._src.python.experimental.index_shuffle.python import index_shuffle_module as module
rows, seeds = map(int, sys.argv[1:])
start = time.process_time()
found = [[module.index_shuffle(index, rows - 1, seed, 4) for index in range(rows)] for seed in range(seeds)]
np.save(sys.stdout.buffer, np.array([(time.process_time() - start) / seeds / rows * 1e9]))
np.save(sys.stdout.buffer, np.array(found, np.int64))
"""


def by_grain(python: str, rows: int, seeds: int) -> tuple[float, Ints]:
    """Nanoseconds an index, and (seeds, rows) of grain's index_shuffle, from an environment that has it."""
    run = subprocess.run([python, "-c", GRAIN, str(rows), str(seeds)], capture_output=True, check=True)
    body = io.BytesIO(run.stdout)
    return float(np.load(body)[0]), np.load(body)


def block_order(shape: Geometry, seed: int) -> Ints:
    """An epoch in lanes."""
    return Order(shape, stream_key(seed, "web")).rows(np.arange(shape.rows))[1]


def randomness(rows: int, seeds: int, grain: Ints | None) -> dict[str, dict[str, tuple[float, float]]]:
    """(mean, largest) deviations from NumPy's mean of each statistic, by order."""
    laned = geometry(rows // 7, 7, rows % 7)
    orders: dict[str, Callable[[int], Ints]] = {
        "penstock_full": lambda seed: permute(np.arange(rows), rows, stream_key(seed, "web")),
        f"penstock_block_{laned.lanes}_lanes": lambda seed: block_order(laned, seed),
        "numpy": lambda seed: by_numpy(seed, rows, rows),
        "affine_feistel": lambda seed: affine_feistel(rows, seed),
        "congruential_walk": lambda seed: congruential_walk(rows, seed),
    }
    if grain is not None:
        orders["grain"] = lambda seed: grain[seed]
    spread, table = Spread.of(rows, rows, 3 * seeds), {}
    for name, order in orders.items():
        scores = [spread.scores(statistics(order(seed), rows)) for seed in range(seeds)]
        table[name] = {
            statistic: (
                round(float(np.mean([one[statistic] for one in scores])), 2),
                round(max(abs(one[statistic]) for one in scores), 2),
            )
            for statistic in NAMES
        }
    return table


def nanoseconds(call: Callable[[Ints], Any], size: int) -> float:
    """CPU time an index, the best of 20."""
    index, best = np.random.default_rng(0).integers(0, 10**9, size), float("inf")
    for _ in range(20):
        start = time.process_time()
        call(index)
        best = min(best, time.process_time() - start)
    return round(best / size * 1e9)


def costs() -> dict[str, dict[int, float]]:
    """Nanoseconds an index in arrays of these sizes."""
    order = Order(geometry(1 << 18, 256, 50_000), 1)
    mix = Mixture(tuple((f"s{number:02d}", number + 1) for number in range(40)))
    calls: dict[str, Callable[[Ints], Any]] = {
        "permute": lambda index: permute(index, 10**9, 1),
        "rows": order.rows,
        "lanes": order.lanes,
        "split_40_streams": mix.split,
    }
    return {name: {size: nanoseconds(call, size) for size in (64, 4096, 65_536)} for name, call in calls.items()}


def first_rows(rows: int) -> None:
    """From nothing to the rows of a batch of 512 in the middle of the epoch number 1,000."""
    order = Order(geometry(rows // 256, 256, rows % 256), 1)
    order.rows(rows * 1000 + rows // 2 + np.arange(512))


def seek(rows: int) -> dict[str, float]:
    """CPU milliseconds of that, the best of 10, and the most bytes that it holds."""
    tracemalloc.start()
    first_rows(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    taken = []
    for _ in range(10):
        start = time.process_time()
        first_rows(rows)
        taken.append(time.process_time() - start)
    return {"milliseconds": round(min(taken) * 1e3, 2), "peak_bytes": peak}


def sorted_blocks(orders: list[Order], mix: Mixture, positions: Ints) -> Ints:
    """Which block each row of these batches (n, B) comes from, rows sorted by lane."""
    streams, ordinals = mix.split(positions.ravel())
    lanes, blocks = np.empty_like(ordinals), np.empty_like(ordinals)
    for number, order in enumerate(orders):
        here = np.flatnonzero(streams == number)
        lanes[here] = order.lanes(ordinals[here])
        epochs, rows = order.rows(ordinals[here])
        blocks[here] = (epochs << 40 | rows // order.geometry.rows_per_group) * len(orders) + number
    by_lane = np.argsort(lanes.reshape(positions.shape), axis=1, kind="stable")
    return np.take_along_axis(blocks.reshape(positions.shape), by_lane, axis=1)


def ranks_per_block(lanes: int, streams: int, batch: int, positions: int) -> dict[int, float]:
    """By number of ranks: how many of them read a block, on average."""
    shape = Geometry(9 * lanes + 40, 16, 200, lanes, 8)
    orders = [Order(shape, key) for key in range(streams)]
    weights = np.random.default_rng(streams).integers(1, 30, streams).tolist()
    mix = Mixture(tuple((f"s{number:02d}", weight) for number, weight in enumerate(weights)))
    count = min(positions, streams * shape.rows) // batch
    found = sorted_blocks(orders, mix, np.arange(count * batch).reshape(count, batch))
    _, numbers = np.unique(found, return_inverse=True)
    numbers, blocks = numbers.reshape(found.shape), int(numbers.max()) + 1
    table = {}
    for world in WORLDS:
        if world <= batch:
            bounds = np.arange(1, world + 1) * batch // world
            rank = np.searchsorted(bounds, np.arange(batch), side="right")
            table[world] = round(len(np.unique(numbers * world + rank)) / blocks, 3)
    return table


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=16_001)
    parser.add_argument("--positions", type=int, default=1 << 19, help="at most so many for ranks per block")
    parser.add_argument("--grain", metavar="PYTHON", help="Python of an environment with grain")
    options = parser.parse_args()
    cost, grain = by_grain(options.grain, options.rows, options.seeds) if options.grain else (None, None)
    permute(np.arange(9), 9, 1)
    told: dict[str, Any] = {"rows": options.rows, "seeds": options.seeds}
    told["statistics"] = randomness(options.rows, options.seeds, grain)
    told["nanoseconds"] = {**costs(), **({"grain": {1: round(cost)}} if cost is not None else {})}
    told["seek"] = {f"10^{power}": seek(10**power) for power in (3, 12)}
    told["ranks_per_block"] = {
        f"{lanes} lanes, {streams} streams, batch {batch}": ranks_per_block(lanes, streams, batch, options.positions)
        for lanes in (256, 1024)
        for streams in (1, 5, 40)
        for batch in BATCHES
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
