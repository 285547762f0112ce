"""What a training step waits for its data: a small GPT trained from the loader, beside one batch that is always there.

    python tests/benchmarks/training_step.py [--device cuda] [--layers 24 --width 2048] [--batch 8 --length 2048]
        [--steps 500] [--step-ms 0] [--vocabulary 50000] [--data DIR]

Needs torch. Sides in turns, the same model each time: `resident` (one batch, never moved: what the step costs),
`penstock` (TorchLoader), `data_loader` (torch's DataLoader over a memmap, two workers, pinned). AdamW, attention by
scaled_dot_product_attention, bf16 on a GPU. `exposed_ms` p50, p99, p99.9: on a GPU what lies between the end of one
step's work and the beginning of the next on its stream (events), when it has nothing to do for want of data; on a CPU
the time in which `next` runs. `copy_ms`: the same bytes moved alone, from pinned memory; `overlap`: share of that which
is not exposed. `cpu_share`: CPU seconds a second of the process tree beyond those of `resident`. `--step-ms` sleeps
until a step has taken so long, as one of a larger model would; `--vocabulary` folds ids, for a CPU. Prints one JSON
line that names the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader import put_data
from loader_peers_side import tree_cost
from process_tree import load_average
from torch import nn
from torch.nn import functional

from penstock.sharding.dataset import open_tokens
from penstock.sharding.torch import TorchLoader

IDS, HEAD = 50_000, 64


class Layer(nn.Module):
    """Attention and a perceptron, each behind a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads, self.norms = width // HEAD, nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, values: Any) -> Any:
        rows, length, width = values.shape
        parts = self.mixed(self.norms[0](values)).view(rows, length, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*parts, is_causal=True)
        values = values + self.out(attended.transpose(1, 2).reshape(rows, length, width))
        return values + self.narrow(functional.gelu(self.wide(self.norms[1](values))))


class Model(nn.Module):
    """Layers between an embedding and its transpose."""

    def __init__(self, vocabulary: int, layers: int, width: int) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(vocabulary, width), nn.LayerNorm(width)
        self.layers = nn.Sequential(*(Layer(width) for _ in range(layers)))

    def forward(self, tokens: Any) -> Any:
        return self.norm(self.layers(self.embedding(tokens))) @ self.embedding.weight.T


def resident(options: argparse.Namespace, device: Any) -> Iterator[tuple[Any, Any]]:
    """Give one batch for ever."""
    rows = torch.randint(0, options.vocabulary, (options.batch, options.length + 1), device=device)
    while True:
        yield rows[:, :-1], rows[:, 1:]


def penstock(options: argparse.Namespace, device: Any) -> Iterator[tuple[Any, Any]]:
    """Give the loader's batches."""
    for one in TorchLoader(options.data, options.batch, pack=f"concat-{options.length}", device=device):
        yield one.tokens, one.labels


def data_loader(options: argparse.Namespace, device: Any) -> Iterator[tuple[Any, Any]]:
    """Give those of torch's DataLoader over the first shard, with workers and pinned memory."""
    data = open_tokens(options.data)
    tokens = np.memmap(Path(data.store.url) / data.generation.shards[0].path(".bin"), np.uint16, "r")
    length = options.length

    class Rows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return int((len(tokens) - 1) // length)

        def __getitem__(self, row: int) -> Any:
            return torch.from_numpy(tokens[row * length : (row + 1) * length + 1].astype(np.int64))

    gpu = device.type == "cuda"
    while True:
        for rows in torch.utils.data.DataLoader(
            Rows(), options.batch, shuffle=True, drop_last=True, num_workers=2, pin_memory=gpu
        ):
            moved = rows.to(device, non_blocking=True)
            yield moved[:, :-1], moved[:, 1:]


SIDES = {"resident": resident, "penstock": penstock, "data_loader": data_loader}


class Clock:
    """Where steps begin and end: on the device's own stream, or here."""

    def __init__(self, device: Any) -> None:
        self.gpu, self.marks = device.type == "cuda", list[Any]()

    def mark(self) -> None:
        """Mark this place."""
        if not self.gpu:
            self.marks.append(time.perf_counter())
            return
        self.marks.append(torch.cuda.Event(enable_timing=True))
        self.marks[-1].record()

    def gaps_ms(self) -> list[float]:
        """Time between each two marks."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if not self.gpu:
            return [1e3 * (after - before) for before, after in pairs]
        torch.cuda.synchronize()
        return [before.elapsed_time(after) for before, after in pairs]


def run(name: str, options: argparse.Namespace, device: Any) -> dict[str, Any]:
    """Train for so many steps; say what each waited and took."""
    torch.manual_seed(0)
    model = Model(options.vocabulary, options.layers, options.width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches, clock, warm = SIDES[name](options, device), Clock(device), max(3, options.steps // 10)
    for step in range(warm + options.steps):
        if step == warm:
            clock.marks.clear()
            clock.mark()
            cpu, begun = tree_cost(os.getpid())[0], time.perf_counter()
        tokens, labels = (ids % options.vocabulary if options.vocabulary < IDS else ids for ids in next(batches))
        clock.mark()
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=clock.gpu):
            loss = functional.cross_entropy(model(tokens).flatten(0, 1).float(), labels.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if options.step_ms:
            loss.item()
            time.sleep(max(0.0, options.step_ms / 1e3 - (time.perf_counter() - started)))
        clock.mark()
    gaps = clock.gaps_ms()
    wall, spent = time.perf_counter() - begun, tree_cost(os.getpid())[0] - cpu
    waits, steps = np.array(gaps[0::2]), np.array(gaps[1::2])
    p50, p99, last = np.percentile(waits, [50, 99, 99.9]).round(3).tolist()
    return {
        "exposed_ms": {"p50": p50, "p99": p99, "p99.9": last}, "step_ms": round(float(np.median(steps)), 2),
        "mtok_per_s": round(options.steps * options.batch * options.length / wall / 1e6, 3),
        "cpu": spent / wall, "loss": round(float(loss.detach()), 2),
    }  # fmt: skip


def copy_ms(options: argparse.Namespace, device: Any) -> float | None:
    """Time to move a batch's bytes alone, from pinned memory; None without a GPU."""
    if device.type != "cuda":
        return None
    memory, clock = torch.empty(options.batch, options.length + 1, dtype=torch.int32, pin_memory=True), Clock(device)
    for _ in range(20):
        clock.mark()
        memory.to(device, non_blocking=True)
        clock.mark()
    return float(np.median(clock.gaps_ms()[0::2]))


def main() -> int:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=IDS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--step-ms", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mtok", type=int, default=32)
    parser.add_argument("--data", type=Path, help="a folder to write the data set to, or one that holds it")
    options = parser.parse_args()
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        options.data = options.data or Path(scratch) / "data"
        if not (options.data / "generations").exists():
            put_data(options.data, options.mtok * 1_000_000, [options.length])
        rounds = [{name: run(name, options, device) for name in SIDES} for _ in range(options.rounds)]
    found = {name: min((one[name] for one in rounds), key=lambda one: one["exposed_ms"]["p99"]) for name in SIDES}
    alone = found["resident"]["cpu"]
    for one in found.values():
        one["cpu_share"] = round(one.pop("cpu") - alone, 3)
    copy = copy_ms(options, device)
    for name in ("penstock", "data_loader"):
        late = max(0.0, found[name]["exposed_ms"]["p50"] - found["resident"]["exposed_ms"]["p50"])
        found[name]["overlap"] = None if copy is None else round(1 - min(1.0, late / copy), 3)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    shape = {"layers": options.layers, "width": options.width, "batch": options.batch, "length": options.length}
    print(json.dumps({
        "benchmark": "training_step", "machine": gpu or f"{platform.machine()} CPU", "cores": os.cpu_count(), **shape,
        "steps": options.steps, "copy_ms": copy, **found, "load_average": load_average(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
