"""What a loader costs as shards grow: opening, first batch, batches after it, memory, open files.

    python tests/benchmarks/loader_scale.py [--shards 10 100 1000 10000 100000] [--batches 1000] [--batch 64]
        [--slices] [--work FOLDER]

A shard holds 512 rows of 2,048 tokens, two full groups; its files are links to those of one real shard, so that 10^5
shards, 10^8 tokens each thousand, take no room. Each number of shards is measured in a process of its own, from a warm
page cache. `mb`: memory that is no mapped file's. `--slices`: what the arithmetic of a step costs a rank, for worlds up
to 512, without reading. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from process_tree import load_average

LENGTH, ROWS = 2048, 512
MOST_LINKS = 50_000  # of one file: ext4 allows 65,000


def put_shards(folder: Path, count: int) -> None:
    """Write one shard of zeros, link its members under many names, and list them all."""
    import numpy as np

    from penstock.sharding.dataset import write_generation
    from penstock.sharding.format import Generation, Vocabulary
    from penstock.sharding.pack import Pack
    from penstock.sharding.shard import write_shard
    from penstock.sharding.store import Store

    vocabulary = Vocabulary("uint16", 50_000, "0" * 64, eos_id=0, bos_id=None, name="zeros")
    store, packs, spool = Store(folder), [Pack(LENGTH, "concat")], folder / "spool"
    folder.mkdir(parents=True)
    with spool.open("wb") as file:
        file.truncate(2 * LENGTH * ROWS)
    ends = np.arange(1, ROWS + 1, dtype=np.uint64) * np.uint64(LENGTH)
    named: dict[str, Any] = {
        "stream": "train",
        "payload": spool,
        "ends": ends,
        "vocabulary": vocabulary,
        "packs": packs,
    }
    one = write_shard(store, number=0, documents=b"none", **named)
    shards = [one, *(replace(one, name=f"{one.name}-{at}", number=at) for at in range(1, count))]
    spool.unlink()
    for suffix in (".bin", ".ends.npy", ".sums.npy"):
        for at, shard in enumerate(shards[1:], 1):
            if at % MOST_LINKS:
                (folder / shard.path(suffix)).hardlink_to(folder / shards[at // MOST_LINKS * MOST_LINKS].path(suffix))
            else:
                (folder / shard.path(suffix)).write_bytes((folder / one.path(suffix)).read_bytes())
    write_generation(store, Generation.of(0, vocabulary, packs, shards))


def held_mb() -> float:
    """Memory of this process that is no mapped file's, in MB."""
    told = Path("/proc/self/status").read_text().split()
    return int(told[told.index("RssAnon:") + 1]) // 102.4 / 10


def one_size(folder: Path, batches: int, batch: int) -> dict[str, Any]:
    """Open, give the first batch, then more of them: seconds, CPU seconds, MB and open files."""
    begun, cpu = time.perf_counter(), time.process_time()
    from penstock.sharding import StreamingLoader
    from penstock.sharding.dataset import open_tokens

    told: dict[str, Any] = {}

    def lap(name: str) -> None:
        nonlocal begun, cpu
        now, spent = time.perf_counter(), time.process_time()
        told[name] = {"wall_s": round(now - begun, 3), "cpu_s": round(spent - cpu, 3), "mb": held_mb()}
        begun, cpu = now, spent

    lap("import")
    data = open_tokens(folder)
    lap("open")
    loader = StreamingLoader(data, batch)
    lap("loader")
    steps = iter(loader)
    next(steps)
    lap("first_batch")
    for _ in range(batches):
        next(steps)
    lap("batches")
    size = sum(path.stat().st_size for path in (folder / "generations").rglob("*") if path.is_file())
    told["rows_per_cpu_s"] = round(batches * batch / max(told["batches"]["cpu_s"], 1e-3))
    told["files"] = len(os.listdir("/proc/self/fd"))
    return {**told, "generation_bytes": size}


def slices(folder: Path) -> dict[str, Any]:
    """CPU milliseconds a step that its arithmetic costs one rank: global batch and world size, one stream and forty."""
    from penstock.sharding import StreamingLoader
    from penstock.sharding.mixture import mixture

    told: dict[str, Any] = {}
    for batch, world in ((512, 1), (512, 512), (4096, 512), (16384, 512)):
        loader = StreamingLoader(folder, batch, rank=world // 2, world_size=world)
        jobs, best = loader._schedule.jobs(0), float("inf")
        for _ in range(10):
            next(jobs)
        for _ in range(5):
            begun = time.process_time()
            for _ in range(128):
                next(jobs)
            best = min(best, (time.process_time() - begun) / 128)
        told[f"batch {batch}, world {world}"] = round(best * 1e3, 3)
    forty, positions = mixture({f"stream {at}": 1 + at for at in range(40)}), 1 << 16
    import numpy as np

    begun = time.process_time()
    forty.split(np.arange(positions))
    told["split of 4,096 rows among 40 streams"] = round((time.process_time() - begun) / positions * 4096e3, 3)
    return told


def main() -> int:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 100, 1000, 10_000, 100_000])
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--slices", action="store_true")
    parser.add_argument("--work", type=Path, help="a folder for the files, kept; else a temporary one")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_size(options.one, options.batches, options.batch)))
        return 0
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        work = (options.work or Path(scratch)).absolute()
        for count in options.shards:
            folder = work / f"shards-{count}"
            if not folder.exists():
                put_shards(folder, count)
            words = ["--batches", str(options.batches), "--batch", str(options.batch)]
            command = [sys.executable, os.path.abspath(__file__), "--one", str(folder), *words]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[str(count)] = json.loads(run.stdout)
            print(json.dumps({count: found[str(count)]}), file=sys.stderr, flush=True)
        if options.slices:
            found["slices_cpu_ms"] = slices(work / f"shards-{max(options.shards)}")
    print(json.dumps({"benchmark": "loader_scale", "cores": os.cpu_count(), "shards": found,
                      "load_average": load_average()}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
