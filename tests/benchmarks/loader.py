"""How many tokens a CPU-second the loader gives, beside a plain gather from a memmap and torch's DataLoader over one.

    python tests/benchmarks/loader.py [--length 2048] [--batch 512] [--mtok 128] [--seconds 3] [--rounds 3] [--data DIR]

Writes a data set of random documents (or takes one), then runs all of them in turns, several rounds, and prints a line
of JSON: the best million tokens per CPU-second of each (a token counts once, its label is free), the loader's ratios to
the others round by round (median), and peak memory. CPU time is of the whole process, threads included. Row order is
random for all of them. Masks are an entry of their own: they are made only when asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.format import Generation, Pack, Vocabulary
from penstock.sharding.shard import write_shard
from penstock.sharding.store import Store

SHARD_TOKENS = 1 << 25


def put_data(folder: Path, tokens: int, lengths: Sequence[int]) -> TokenData:
    """Write shards of documents of log-normal length, about 1,000 tokens on average, from a fixed seed."""
    chance = np.random.default_rng(0)
    vocabulary = Vocabulary("uint16", 50_000, "0" * 64, eos_id=0, bos_id=None, name="random")
    packs = [Pack(length, policy) for length in lengths for policy in ("concat", "best_fit")]
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(-(-tokens // SHARD_TOKENS)):
        drawn = chance.lognormal(np.log(600), 1.0, SHARD_TOKENS // 900).astype(np.int64) + 2
        ends = np.cumsum(drawn)
        ends = ends[ends <= SHARD_TOKENS]
        body = chance.integers(1, vocabulary.size, int(ends[-1])).astype(np.uint16)
        body[ends - 1] = vocabulary.eos_id
        spool = folder / "spool"
        body.tofile(spool)
        entries.append(write_shard(
            Store(folder), stream="train", number=number, payload=spool, ends=ends.astype(np.uint64),
            vocabulary=vocabulary, packs=packs, documents=b"none",
        ))  # fmt: skip
        spool.unlink()
    write_generation(Store(folder), Generation.of(0, vocabulary, packs, entries))
    return open_tokens(folder)


def through_loader(data: TokenData, batch: int, pack: str, masks: bool = False, **named: Any) -> Iterator[int]:
    """Give tokens a batch of ours; the first epoch is read before, so that pages and checksums are warm for all."""
    loader = StreamingLoader(data, batch, pack=pack, **named)
    for step in range(loader.epoch_rows // batch + 1):
        loader.at(step)
    for one in loader:
        if masks:
            assert one.loss_mask.shape == one.position_ids.shape == one.document_ids.shape
        yield one.tokens.size


def maps(data: TokenData) -> list[Any]:
    """Each shard's payload, mapped."""
    return [np.memmap(Path(data.store.url) / shard.path(".bin"), np.uint16, "r") for shard in data.generation.shards]


def through_memmap(data: TokenData, batch: int, length: int) -> Iterator[int]:
    """Gather random rows from memmaps by plain NumPy: no row kept count of, nothing verified, nothing to resume."""
    chance, shards = np.random.default_rng(0), [np.asarray(one) for one in maps(data)]
    fewest = min((len(shard) - 1) // length for shard in shards)
    while True:
        buffer = np.empty((batch, length + 1), np.int32)
        which, starts = chance.integers(0, len(shards), batch), chance.integers(0, fewest, batch) * length
        for row, (shard, start) in enumerate(zip(which.tolist(), starts.tolist(), strict=True)):
            buffer[row] = shards[shard][start : start + length + 1]
        yield batch * length


def through_data_loader(data: TokenData, batch: int, length: int, torch: Any) -> Iterator[int]:
    """Read rows of the first shard by a map-style dataset and torch's DataLoader with its own shuffle, in process."""
    tokens = maps(data)[0]

    class Rows(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return (len(tokens) - 1) // length

        def __getitem__(self, row: int) -> Any:
            return torch.from_numpy(tokens[row * length : (row + 1) * length + 1].astype(np.int64))

    while True:
        for buffer in torch.utils.data.DataLoader(Rows(), batch_size=batch, shuffle=True, drop_last=True):
            yield buffer[:, :-1].numel()


def rate(batches: Iterator[int], seconds: float) -> float:
    """Million tokens a CPU-second, measured for about so many seconds."""
    next(batches)
    tokens, start, began = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        tokens += next(batches)
    return tokens / (time.process_time() - start) / 1e6


def memory(folder: Path, batch: int, pack: str) -> dict[str, float]:
    """What a process that reads an epoch and does nothing else holds, in MB: of its own, and with mapped files."""
    code = (
        "from pathlib import Path; from penstock.sharding import StreamingLoader\n"
        f"for batch in StreamingLoader({str(folder)!r}, {batch}, pack={pack!r}, epochs=1): batch.tokens\n"
        "told = Path('/proc/self/status').read_text().split()\n"
        "print(told[told.index('RssAnon:') + 1], told[told.index('VmHWM:') + 1])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own, peak = (int(number) // 1024 for number in run.stdout.split())
    return {"own": own, "peak_with_mapped_files": peak}


def measure(data: TokenData, options: argparse.Namespace) -> dict[str, Any]:
    """Run all in turns; give best rates and the median ratios."""
    length, batch = options.length, options.batch
    concat, best_fit = f"concat-{length}", f"best_fit-{length}"
    runs: dict[str, Callable[[], Iterator[int]]] = {
        "penstock": lambda: through_loader(data, batch, concat),
        "penstock_no_thread": lambda: through_loader(data, batch, concat, prefetch=0),
        "penstock_best_fit": lambda: through_loader(data, batch, best_fit),
        "penstock_with_masks": lambda: through_loader(data, batch, best_fit, masks=True),
        "numpy_memmap": lambda: through_memmap(data, batch, length),
    }
    try:
        import torch

        torch.set_num_threads(1)
        runs["torch_data_loader"] = lambda: through_data_loader(data, batch, length, torch)
    except ImportError:
        pass
    rounds = [{name: rate(run(), options.seconds) for name, run in runs.items()} for _ in range(options.rounds)]
    best = {name: round(max(one[name] for one in rounds), 1) for name in runs}
    peers = [name for name in runs if not name.startswith("penstock")]
    ratios = {name: round(statistics.median(one["penstock"] / one[name] for one in rounds), 2) for name in peers}
    return {"mtok_per_cpu_second": best, "penstock_over": ratios}


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--mtok", type=int, default=128, help="million tokens of data to write")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a folder to write the data set to, or one that holds it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch)
        data = open_tokens(folder) if (folder / "generations").exists() else None
        if data is None:
            data = put_data(folder, options.mtok * 1_000_000, [options.length])
        found = measure(data, options)
        shape = {"length": options.length, "batch": options.batch, "cores": os.cpu_count()}
        held = memory(folder, options.batch, f"best_fit-{options.length}")
        print(json.dumps({**shape, **found, "memory_mb": held}))


if __name__ == "__main__":
    main()
