"""How long a step waits for a store that takes its time: read plainly, with hedges, and with the look-ahead too.

    python tests/benchmarks/remote.py [--latency 0.05] [--bandwidth 200] [--late 0.02] [--outage 1]
        [--step 0.05] [--warm 40] [--steps 120] [--threads 8] [--world 8]

A sparse data set of 16 GiB lies behind a store whose every read takes `latency` seconds and its bytes at `bandwidth`
MB/s; of a share `late` of reads the answer comes after 20 times the latency, and in every fifth second none comes (for
`outage` seconds of five). Rank 0 of `world` trains: a step sleeps.
Both orders are read, shuffled block by block and as the rows lie (as a validation split may be), in three ways in
turns, each with a cache of its own that is empty at first. Prints one JSON line: by order and way, seconds to the first
batch, milliseconds that a step waits after the first `warm` ones (p50, p99, longest, sum), million tokens a second of
wall time over all steps, requests for each block, bytes read for each byte of the blocks, hedges for each read; and the
ratio of the sums of waits, plainly over hedged and ahead.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import xxhash

from penstock.sharding import StreamingLoader, blocks
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.format import Generation, Pack, PackCount, ShardEntry, Vocabulary
from penstock.sharding.npy import npy_bytes
from penstock.sharding.reads import RemoteReads
from penstock.sharding.shard import BLOCK_BYTES, shard_header, shard_name
from penstock.sharding.store import Store, sha256

VOCABULARY = Vocabulary("uint16", 60_000, "5" * 64, eos_id=0, bos_id=None, name="sparse")
PACK = Pack(2048, "concat")
BATCH, SHARDS, TOKENS = 512, 16, 1 << 29
_chance = random.Random(0)


def put_shard(folder: Path, number: int) -> ShardEntry:
    """Write a shard whose payload is a hole: all its blocks have one checksum, nobody reads it to write it."""
    ends = np.arange(4096, TOKENS + 1, 4096, dtype=np.uint64)
    sums = np.full(TOKENS * 2 // BLOCK_BYTES, xxhash.xxh3_64_intdigest(bytes(BLOCK_BYTES)), np.uint64)
    bodies = {".ends.npy": npy_bytes(ends), ".sums.npy": npy_bytes(sums), ".docs.parquet": b"none"}
    made_up = hashlib.sha256(str(number).encode()).hexdigest()
    members = {".bin": made_up, **{suffix: sha256(body) for suffix, body in bodies.items()}}
    bodies[".json"] = shard_header("train", number, members, {"tokens": TOKENS, "documents": len(ends)})
    members[".json"] = sha256(bodies[".json"])
    name = shard_name("train", number, members)
    with (folder / "data" / f"{name}.bin").open("wb") as file:
        file.truncate(TOKENS * 2)
    for suffix, body in bodies.items():
        (folder / "data" / f"{name}{suffix}").write_bytes(body)
    rows, size = TOKENS // PACK.length, PACK.group_rows(2)
    count = PackCount(size, rows, -(-rows // size), rows // size, rows)
    return ShardEntry(name, "train", number, TOKENS, len(ends), made_up, members, {PACK.name: count})


class Distant(Store):
    """A folder that is far away."""

    latency, bandwidth, late, outage = 0.05, 200e6, 0.0, 0.0
    began = time.monotonic()

    def local(self, name: str) -> Path | None:
        return None

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        body = super().read(name, start, end)
        latency = self.latency * (20 if _chance.random() < self.late else 1)
        time.sleep(latency + len(body) / self.bandwidth)
        time.sleep(max(0.0, self.outage - (time.monotonic() - self.began - 3) % 5))
        return body


class Unhedged(RemoteReads):
    """Reads without a second request."""

    def _take_hedge(self) -> bool:
        return False


def measure(data: TokenData, shuffle: Literal["block"] | None, options: argparse.Namespace) -> dict[str, Any]:
    """Train a while; say what was waited for and what was asked of the store."""
    with tempfile.TemporaryDirectory() as cache:
        loader = StreamingLoader(
            data, BATCH, shuffle=shuffle, rank=0, world_size=options.world, cache=cache, threads=options.threads
        )
        Distant.began = time.monotonic()
        waits, met, tokens, began = [], set(), 0, time.perf_counter()
        asked = began
        for batch in islice(loader, options.warm + options.steps):
            waits.append(time.perf_counter() - asked)
            met |= set(loader.places(batch.positions).keys)
            tokens += batch.tokens.size
            time.sleep(options.step)
            asked = time.perf_counter()
        wall = time.perf_counter() - began
        counts = next(iter(loader._fetching.values())).blocks.counts
        # Blocks asked for and not met yet are no waste: they come next.
        (reads,) = (fetching.blocks for fetching in loader._fetching.values())
        known = len(met | set(reads._blocks._held))
        later = np.array(waits[options.warm :]) * 1000
        return {
            "first_batch_s": round(waits[0], 3),
            "wait_ms": {
                "p50": round(float(np.median(later)), 2),
                "p99": round(float(np.quantile(later, 0.99)), 1),
                "longest": round(float(later.max()), 1),
                "sum": round(float(later.sum()), 1),
            },
            "mtok_per_s": round(tokens / wall / 1e6, 2),
            "blocks": known,
            "requests_per_block": round(counts.requests / known, 3),
            "bytes_read_per_byte": round(counts.bytes / (known * (reads.group_bytes - BLOCK_BYTES)), 3),
            "hedges_per_read": round(counts.hedges / counts.reads, 4),
        }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--bandwidth", type=float, default=200.0, help="MB/s of one read")
    parser.add_argument("--late", type=float, default=0.02, help="share of reads that take 20 times the latency")
    parser.add_argument("--outage", type=float, default=1.0, help="seconds of every five without an answer")
    parser.add_argument("--step", type=float, default=0.05)
    parser.add_argument("--warm", type=int, default=40)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--world", type=int, default=8)
    options = parser.parse_args()
    Distant.latency, Distant.bandwidth = options.latency, options.bandwidth * 1e6
    Distant.late, Distant.outage = options.late, options.outage
    found: dict[str, Any] = {**vars(options), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    whole = blocks._AHEAD_BYTES
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "data").mkdir()
        entries = [put_shard(folder, number) for number in range(SHARDS)]
        write_generation(Store(folder), Generation.of(0, VOCABULARY, (PACK,), entries))
        data = TokenData(Distant(folder), open_tokens(folder).generation)
        orders: dict[str, Literal["block"] | None] = {"block": "block", "in_order": None}
        for name, shuffle in orders.items():
            ways = {}
            for way, reads, ahead in (
                ("plain", Unhedged, 0),
                ("hedged", RemoteReads, 0),
                ("ahead", RemoteReads, whole),
            ):
                with mock.patch.object(blocks, "RemoteReads", reads), mock.patch.object(blocks, "_AHEAD_BYTES", ahead):
                    ways[way] = measure(data, shuffle, options)
            ratio = ways["plain"]["wait_ms"]["sum"] / max(ways["ahead"]["wait_ms"]["sum"], 1e-3)
            found[name] = {**ways, "waits_plain_over_ahead": round(ratio, 1)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
