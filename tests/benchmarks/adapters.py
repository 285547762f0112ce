"""How many tokens a CPU-second each adapter gives, beside torchdata's StatefulDataLoader over a memmap of the data.

    python tests/benchmarks/adapters.py [--length 2048] [--batch 64] [--mtok 64] [--seconds 2] [--rounds 3] [--data DIR]

All run in turns in one process, several rounds; prints a line of JSON: the best million tokens per CPU-second of each,
the median ratio to the peer, and what a single row of a view costs in µs. Workers of a DataLoader have CPUs of their
own: theirs is a rate of the wall's clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader import maps, put_data, rate, through_loader

from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData, open_tokens
from penstock.sharding.views import Rows


def through_torch(data: TokenData, batch: int, pack: str, fields: tuple[str, ...] = (), **named: Any) -> Iterator[int]:
    """Give tokens a batch; an epoch is read before, so that pages and checksums are warm."""
    from penstock.sharding.torch import TorchLoader

    loader = TorchLoader(data, batch, pack=pack, fields=fields, **named)
    for step in range(loader.loader.epoch_rows // batch + 1):
        loader.loader.at(step)
    for one in loader:
        for name in fields:
            assert one[name].shape == one.tokens.shape
        yield one.tokens.numel()


def through_jax(data: TokenData, batch: int, pack: str) -> Iterator[int]:
    """Give tokens a batch, whose arrays have arrived."""
    import jax

    from penstock.sharding.jax import JaxLoader

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    for one in JaxLoader(data, batch, sharding=mesh, pack=pack):
        yield jax.block_until_ready(one["labels"]).size


def through_rows(data: TokenData, batch: int, pack: str) -> Iterator[int]:
    """Give tokens of slices of rows."""
    rows, at = Rows(StreamingLoader(data, batch, pack=pack), epochs=None), 0
    while True:
        yield rows[at : at + batch]["tokens"].size
        at += batch


def through_stateful(data: TokenData, batch: int, length: int) -> Iterator[int]:
    """Read rows of the first shard by a map-style dataset and torchdata's loader with its own shuffle, in process."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    tokens = maps(data)[0]

    class Map(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return (len(tokens) - 1) // length

        def __getitem__(self, row: int) -> Any:
            return torch.from_numpy(tokens[row * length : (row + 1) * length + 1].astype(np.int64))

    while True:
        for buffer in StatefulDataLoader(Map(), batch_size=batch, shuffle=True, drop_last=True):
            yield buffer[:, :-1].numel()


def workers_rate(data: TokenData, batch: int, pack: str, workers: int, seconds: float) -> float:
    """Million tokens a second of the wall's clock through a DataLoader with workers."""
    from penstock.sharding.torch import TorchLoader

    batches = iter(torch.utils.data.DataLoader(TorchLoader(data, batch, pack=pack), None, num_workers=workers))
    next(batches)
    tokens, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        tokens += next(batches)["tokens"].numel()
    return tokens / passed / 1e6


def row_cost(data: TokenData, pack: str, rows: int = 2000) -> float:
    """µs of CPU for a row, asked for singly and in order."""
    view = Rows(StreamingLoader(data, 1, pack=pack))
    began = time.process_time()
    for at in range(rows):
        view[at % len(view)]
    return (time.process_time() - began) / rows * 1e6


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, value in {"length": 2048, "batch": 64, "mtok": 64, "rounds": 3, "workers": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--data", type=Path, help="a folder to write the data set to, or one that holds it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.data or Path(scratch) / "set"
        there = (folder / "generations").exists()
        data = open_tokens(folder) if there else put_data(folder, asked.mtok * 1_000_000, [asked.length])
        concat, best_fit, peer = f"concat-{asked.length}", f"best_fit-{asked.length}", "stateful_data_loader"
        runs: dict[str, Callable[[], Iterator[int]]] = {
            "torch": lambda: through_torch(data, asked.batch, concat),
            "torch_best_fit": lambda: through_torch(data, asked.batch, best_fit),
            "torch_fields": lambda: through_torch(data, asked.batch, best_fit, ("targets", "position_ids")),
            "torch_zigzag": lambda: through_torch(
                data, asked.batch, best_fit, rank=0, world_size=1, context=(0, 2), cut="zigzag"
            ),
            "jax": lambda: through_jax(data, asked.batch, best_fit),
            "numpy": lambda: through_loader(data, asked.batch, concat),
            "numpy_best_fit": lambda: through_loader(data, asked.batch, best_fit),
            "rows": lambda: through_rows(data, asked.batch, best_fit),
            peer: lambda: through_stateful(data, asked.batch, asked.length),
        }
        # Before JAX starts threads that a fork would break.
        wall = round(workers_rate(data, asked.batch, best_fit, asked.workers, asked.seconds), 1)
        rounds = [{name: rate(run(), asked.seconds) for name, run in runs.items()} for _ in range(asked.rounds)]
        best = {name: round(max(one[name] for one in rounds), 1) for name in runs}
        over = {name: round(statistics.median(one[name] / one[peer] for one in rounds), 2) for name in runs}
        shape = {"length": asked.length, "batch": asked.batch, "cores": os.cpu_count()}
        told = {f"wall_mtok_per_second_{asked.workers}_workers": wall, "row_us": round(row_cost(data, best_fit), 1)}
        print(json.dumps({**shape, "mtok_per_cpu_second": best, "over_stateful_data_loader": over, **told}))


if __name__ == "__main__":
    main()
