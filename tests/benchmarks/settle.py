"""Settle clusters in the client: bytes and seconds a document, from forests to the table, as one JSON line.

    python tests/benchmarks/settle.py --documents 5000000

All documents lie in clusters (sizes 2 to 65, three of four near), in parts of 200,000 without an own id, or with one of
24 characters (`--own`). Peak memory is what the process grew by, over what the arrays on disk and the interpreter take.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.settle import Match, settle_clusters, warm_settle
from penstock.pipelines.stage import Receipt, Stage
from penstock.pipelines.views import put_array, put_strings
from penstock.sharding.store import Store
from penstock.transforms.kernels.graph import spanning_forest

PART = 200_000


@dataclass(frozen=True)
class Numbered:
    """A part that is only named."""

    number: int
    source: str = "input"

    @property
    def key(self) -> str:
        return str(self.number)


def signed(stage: Stage, part: int, rows: int, own: bool) -> Receipt:
    """Write what a signature of so many documents leaves."""
    random, store = np.random.default_rng(part), stage.store
    ids, contents = (random.integers(0, 2**64 - 1, (rows, 2), dtype=np.uint64) for _ in range(2))
    contents[: rows // 4] = 7
    named = pa.array([f"{value:024x}" for value in ids[:, 0].tolist()]) if own else None
    return {
        "documents": rows,
        "rows": put_array(store, np.arange(rows, dtype=np.uint64), "rows"),
        "ids": put_array(store, ids, "ids"),
        "contents": (name := put_array(store, contents, "contents")),
        "texts": name,
        "keys": put_array(store, random.integers(0, 1000, (rows, 1), dtype=np.uint64), "keys"),
        "own": None if named is None else put_strings(store, named, "own"),
    }


def forests(stage: Stage, documents: int) -> list[str]:
    """Deal the documents of all parts to clusters, and write a forest for each 200,000."""
    random = np.random.default_rng(0)
    order = random.permutation(documents).astype(np.uint64)
    addresses = (order // np.uint64(PART) << np.uint64(32)) + order % np.uint64(PART)
    sizes = 2 + (random.random(documents) ** 6 * 64).astype(np.int64)
    starts = np.r_[0, np.cumsum(sizes)]
    starts = starts[starts < documents]
    first = np.repeat(starts, np.diff(np.r_[starts, documents]))
    edges = np.stack([addresses[first], addresses], axis=1)
    return [
        put_array(stage.store, spanning_forest(edges[at : at + PART]), "forest") for at in range(0, documents, PART)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=5_000_000)
    parser.add_argument("--own", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage.of(Store(Path(folder)), "duplicates", {}, {})
        parts: list[Any] = [Numbered(number) for number in range(-(-asked.documents // PART))]
        receipts = [signed(stage, part.number, PART, asked.own) for part in parts]
        names = forests(stage, asked.documents)
        dedup = Dedup(minhash=None, keep=("longest",))
        warm_settle(dedup, pa.array(["one", "two", "three"]))
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before, started = resident("VmRSS"), time.process_time()
        receipt = settle_clusters(Match(stage, dedup, parts, receipts, lambda job: None), names)
        seconds = time.process_time() - started
        grown = resident("VmHWM") - before
        size = stage.store.size(receipt["clusters"])
    print(
        json.dumps(
            {
                "documents": asked.documents,
                "own_ids": asked.own,
                "clusters": receipt["count"],
                "peak_bytes_a_document": round(grown / asked.documents, 1),
                "documents_a_cpu_second": round(asked.documents / seconds),
                "table_bytes_a_row": round(size / receipt["duplicates"], 1),
                "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            }
        )
    )


def resident(what: str) -> int:
    """Read this process's memory, now (VmRSS) or at its highest (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()
