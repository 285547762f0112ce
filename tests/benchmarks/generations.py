"""What it costs to open a data set of many shards: its table of shards, beside the same entries as JSON.

    python tests/benchmarks/generations.py [--shards 10,1000,100000] [--rounds 3]

Writes generations of made-up shards (two packs, no payloads), then opens each in fresh processes, in turns: `table` as
`open_tokens` does, every byte of it under its SHA-256; `json` as one JSON list of entries, read into the same values.
Prints a line of JSON: seconds of CPU and wall, resident memory gained (and what of it is the process's own, not a file
that all share), the ratio round by round (median), and whether both gave the same entries.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.sharding.dataset import open_tokens, write_generation
from penstock.sharding.entry import MEMBERS
from penstock.sharding.format import Generation, Pack, PackCount, ShardEntry, Vocabulary
from penstock.sharding.store import Store

VOCABULARY = Vocabulary("uint16", 50_000, "0" * 64, eos_id=0, bos_id=None, name="made up")
PACKS = (Pack(2048, "concat"), Pack(2048, "best_fit"))
SAMPLE = 1000


def entry_of(number: int) -> ShardEntry:
    """A shard of 130 Mi tokens that is nowhere."""
    digests = {suffix: hashlib.sha256(f"{number}{suffix}".encode()).hexdigest()
               for suffix in (*MEMBERS, PACKS[1].suffix)}  # fmt: skip
    name = f"train-{number:05d}-{digests['.json'][:20]}"
    rows, pieces = 65_000 + number % 997, 200_000
    counts = {}
    for pack in PACKS:
        size = pack.group_rows(2)
        counts[pack.name] = PackCount(size, rows, -(-rows // size), rows // size, pieces)
    return ShardEntry(name, "train", number, 130 << 20, 100_000, digests[".bin"], digests, counts)


def memory() -> dict[str, float]:
    """Resident MB of this process, and what of it is its own."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "VmHWM")}


def side(way: str, folder: Path) -> dict[str, Any]:
    """Open one data set in this process; say what it cost and what a sample of it holds."""
    before, wall, cpu = memory(), time.perf_counter(), time.process_time()
    shards: Sequence[ShardEntry]
    if way == "table":
        shards = open_tokens(folder).generation.shards
    else:
        shards = [ShardEntry.from_json(value) for value in json.loads((folder / "shards.json").read_bytes())]
    cpu, wall, after = time.process_time() - cpu, time.perf_counter() - wall, memory()
    step = max(1, len(shards) // SAMPLE)
    told = json.dumps([shards[at].to_json() for at in range(0, len(shards), step)], sort_keys=True)
    return {
        "cpu_s": round(cpu, 4), "wall_s": round(wall, 4), "rss_mb": round(after["VmRSS"] - before["VmRSS"], 1),
        "own_mb": round(after["RssAnon"] - before["RssAnon"], 1), "peak_mb": round(after["VmHWM"] - before["VmRSS"], 1),
        "sample": hashlib.sha256(told.encode()).hexdigest(),
    }  # fmt: skip


def opened(way: str, folder: Path) -> dict[str, Any]:
    """Open in a fresh process."""
    words = [sys.executable, __file__, "--side", way, str(folder)]
    return dict(json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout))


def measure(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Both ways over one number of shards, in turns."""
    entries = [entry_of(number) for number in range(count)]
    write_generation(Store(folder), Generation.of(0, VOCABULARY, PACKS, entries))
    (folder / "shards.json").write_text(json.dumps([entry.to_json() for entry in entries]))
    table = next(folder.glob("generations/*.npy")).stat().st_size
    del entries
    pairs = [(opened("table", folder), opened("json", folder)) for _ in range(rounds)]
    best = {way: min((pair[at] for pair in pairs), key=lambda cost: float(cost["cpu_s"]))
            for at, way in enumerate(("table", "json"))}  # fmt: skip
    return {
        "shards": count, "table_bytes": table, "json_bytes": (folder / "shards.json").stat().st_size,
        "equal": len({cost.pop("sample") for pair in pairs for cost in pair}) == 1, **best,
        "ratio_cpu": round(statistics.median(old["cpu_s"] / new["cpu_s"] for new, old in pairs), 2),
    }  # fmt: skip


def main() -> None:
    """Measure; print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", default="10,1000,100000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", nargs=2, metavar=("WAY", "DIR"))
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(side(arguments.side[0], Path(arguments.side[1]))))
        return
    counts = [int(count) for count in arguments.shards.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(Path(folder, str(count)), count, arguments.rounds) for count in counts]
    print(json.dumps({"benchmark": "generations", "opened": found}))


if __name__ == "__main__":
    main()
