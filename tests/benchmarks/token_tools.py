"""Tools on token files: a takedown's rate and memory, a simulation and a diff of 100,000 shards. Prints one JSON line.

    python tests/benchmarks/token_tools.py [--megabytes 64] [--shards 100000]

A takedown reads, verifies, hashes and writes each shard that it touches; what is compared with is a plain copy of the
same payload with SHA-256, in turns in the same run. Simulation and diff work on a manifest alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.sharding.dataset import TokenData, write_generation
from penstock.sharding.format import Generation, Pack, PackCount, ShardEntry, Vocabulary
from penstock.sharding.shard import write_shard
from penstock.sharding.store import Store
from penstock.sharding.tools.differences import diff
from penstock.sharding.tools.removal import takedown
from penstock.sharding.tools.simulation import simulate

VOCABULARY = Vocabulary("uint16", 50_000, "5" * 64, eos_id=0, bos_id=None, name="benchmark")
MEMBERS = (".bin", ".json", ".ends.npy", ".sums.npy", ".docs.parquet")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it gave."""
    start = time.process_time()
    value = call()
    return time.process_time() - start, value


def peak() -> float:
    """Most memory held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def put_shard(root: Path, number: int, size: int) -> ShardEntry:
    """A shard of documents of about 500 tokens."""
    chance = np.random.default_rng(number)
    lengths = chance.geometric(1 / 500, size // 1000) + 1
    tokens = chance.integers(1, 50_000, int(lengths.sum()), dtype=np.uint16)
    tokens[np.cumsum(lengths) - 1] = 0
    tokens.tofile(root / "spool")
    ids = [f"{number}/{at}".encode().rjust(16) for at in range(len(lengths))]
    table = pa.table({
        "id": pa.array(ids, pa.binary(16)), "source": ["web"] * len(ids),
        "url": [f"https://site{at % 1000}.example/{number}/{at}" for at in range(len(ids))],
    })  # fmt: skip
    body = io.BytesIO()
    pq.write_table(table, body, compression="zstd", row_group_size=16_384)
    return write_shard(
        Store(root), stream="train", number=number, payload=root / "spool", vocabulary=VOCABULARY,
        ends=np.cumsum(lengths).astype(np.uint64), packs=[Pack(2048, "best_fit")], documents=body.getvalue(),
    )  # fmt: skip


def plain_copy(paths: list[Path], target: Path) -> None:
    """Read, hash and write payloads: what no takedown can do without."""
    for path in paths:
        body = path.read_bytes()
        hashlib.sha256(body).hexdigest()
        target.write_bytes(body)


def takedown_figures(folder: Path, megabytes: int) -> dict[str, Any]:
    """Take one document in a thousand down, of four shards."""
    root = folder / "set"
    root.mkdir()
    entries = [put_shard(root, number, megabytes * 1_000_000) for number in range(4)]
    write_generation(Store(root), Generation.of(0, VOCABULARY, [Pack(2048, "best_fit")], entries))
    before = peak()
    copied, _ = timed(lambda: plain_copy([root / entry.path(".bin") for entry in entries], folder / "copy"))
    spent, told = timed(lambda: takedown(root, urls=["//site7.example/"]))
    size = sum(entry.tokens for entry in entries) * 2 / 1e6
    return {
        "payload_MB": round(size), "documents": told["documents"], "MB_per_cpu_second": round(size / spent, 1),
        "plain_copy_MB_per_cpu_second": round(size / copied, 1), "ratio": round(copied / spent, 3),
        "memory_MB_before": round(before), "memory_MB_peak": round(peak()),
    }  # fmt: skip


def manifest(shards: int) -> TokenData:
    """A data set of 256 MiB shards of which only the generation exists."""
    pack = Pack(2048, "concat")
    rows = pack.group_rows(2)
    entries = []
    for number in range(shards):
        count = PackCount(rows, 255 * rows + 7, 256, 255, 0)
        digests = {suffix: hashlib.sha256(f"{number}{suffix}".encode()).hexdigest() for suffix in MEMBERS}
        tokens, stream = count.rows * 2048, f"train/{number % 3}"
        entry = ShardEntry(f"s{number}", stream, number, tokens, 1000, digests[".bin"], digests, {pack.name: count})
        entries.append(entry)
    return TokenData(Store("/nowhere"), Generation.of(0, VOCABULARY, [pack], entries))


def manifest_figures(shards: int) -> dict[str, Any]:
    """Simulate and compare without a token."""
    data = manifest(shards)
    other = replace(data, generation=replace(data.generation, number=1))
    simulated, told = timed(lambda: simulate(data, 8192, 512))
    compared, found = timed(lambda: diff(data, other))
    assert found["equal"]
    reads = {name: told["reads"][name] for name in ("amplification", "standard_error", "ranks_a_block")}
    return {
        "shards": shards,
        "simulate_cpu_seconds": round(simulated, 2),
        "diff_cpu_seconds": round(compared, 2),
        **reads,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=64, help="of payload a shard")
    parser.add_argument("--shards", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = {"takedown": takedown_figures(Path(folder), arguments.megabytes)}
    print(json.dumps({**figures, "manifest": manifest_figures(arguments.shards)}))


if __name__ == "__main__":
    main()
