"""An index of earlier batches: what a document costs to hold, to match against, to add and to take out.

Digests are synthetic, 14 bands and whole contents; 20 % of the batch are copies of indexed documents, half of them
twice. Matching is timed with the index and without it, in turns. No peer holds digests of near-duplicates between runs
without a server: datasketch keeps them in memory or in Redis, datatrove's index holds contents alone. Prints one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from process_tree import load_average, peak_mb

from penstock.pipelines.dedup_index import Pinned, add_batch, pin_index
from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.exchange import exchange, fold, pack, put_bands, sign_key
from penstock.pipelines.forests import Forest, merge_forests, put_forest
from penstock.pipelines.index_batches import Index
from penstock.pipelines.index_removal import remove
from penstock.pipelines.match import Link
from penstock.pipelines.runners import Job
from penstock.pipelines.settle import Match, settle_clusters
from penstock.pipelines.stage import Meter, Receipt, Stage, run_task
from penstock.pipelines.views import EVERYTHING, Rows, put_array, put_strings
from penstock.sharding.store import Store

BANDS, PART = 14, 50_000


@dataclass(frozen=True)
class Synthetic:
    """A part whose documents are numbers; equal numbers have equal digests."""

    number: int
    numbers: tuple[int, int, int]  # from, to, and how many of its first are repeated at its end
    source: str = "synthetic"

    @property
    def key(self) -> str:
        """Name of place and content."""
        return f"{self.number}-{self.numbers}"

    @property
    def documents(self) -> int:
        """How many rows it has."""
        return self.numbers[1] - self.numbers[0] + self.numbers[2]

    @property
    def name(self) -> str:
        """What people call it."""
        return self.key

    def batches(self, columns: Sequence[str], fates: Any = None) -> Iterator[Rows]:
        """Give no texts: signatures are made up."""
        yield from ()

    def documents_of(self) -> NDArray[np.uint64]:
        """Give the number of each document."""
        first, last, again = self.numbers
        numbers = np.arange(first, last, dtype=np.uint64)
        return np.concatenate([numbers, numbers[:again]])


def mixed(numbers: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """Hash numbers: splitmix64."""
    with np.errstate(over="ignore"):
        z = (numbers + np.uint64(salt)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


@dataclass(frozen=True)
class Sign:
    """Write a part's receipt as `match.Sign` does, of made-up digests."""

    store: Store

    def __call__(self, part: Synthetic, folder: Path, meter: Meter) -> Receipt:
        numbers = part.documents_of()
        rows = np.arange(len(numbers), dtype=np.uint64)
        addresses = (np.uint64(part.number) << np.uint64(32)) + rows
        held, others, edges = {}, {}, []
        for band in range(-1, BANDS):
            digests = np.stack([mixed(numbers, 3 * band + 7), mixed(numbers, 3 * band + 8)], axis=1)
            held[f"band{band:+04d}"], repeats = fold(pack(digests, addresses))
            others[f"band{band:+04d}"] = pack(digests[np.searchsorted(addresses, repeats[:, 1])], repeats[:, 1])
            edges.append(repeats)
        repeated = put_bands(self.store, folder, others)
        contents = np.stack([mixed(numbers, 4), mixed(numbers, 5)], axis=1)
        ids = np.stack([mixed(rows, part.numbers[0]), mixed(rows, 17 + part.numbers[1])], axis=1)
        return {
            "part": part.key,
            "documents": len(rows),
            **put_bands(self.store, folder, held),
            **{f"repeat_{name}": value for name, value in repeated.items()},
            "rows": put_array(self.store, rows, "rows"),
            "ids": put_array(self.store, ids, "ids"),
            "contents": put_array(self.store, contents, "contents"),
            "texts": put_array(self.store, contents, "contents"),
            "keys": put_array(self.store, np.zeros((len(rows), 1), np.uint64), "keys"),
            "own": put_strings(self.store, pa.array([f"document {number}" for number in numbers.tolist()]), "own"),
            **put_forest(self.store, edges[0]),
        }


def here(job: Job) -> None:
    """Do a job's work in this process."""
    for task in job.tasks:
        job.map(task)


def signed(run: Store, parts: Sequence[Synthetic], name: str) -> Stage:
    """Sign the parts, and link them among themselves."""
    stage = Stage.of(run, "duplicates", {"name": name}, {})
    exchange(stage, parts, Sign(stage.store), Link(stage, len(parts)), here, True)
    return stage


def match(run: Store, parts: Sequence[Synthetic], pinned: Pinned | None, name: str) -> Receipt:
    """Link and settle; the parts' receipts are taken from the stage that has them."""
    stage = Stage.of(run, "duplicates", {"name": name}, {})
    extra = pinned.extra("duplicates", len(parts)) if pinned is not None else ()
    signs, linked = exchange(stage, parts, Sign(stage.store), Link(stage, len(parts)), here, True, extra=extra)
    forests = merge_forests(stage, list(map(Forest.of, [*signs, *linked])), here)
    names = [forest.name for forest in forests]
    return settle_clusters(Match(stage, Dedup(), parts, signs, here, index=pinned), names)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Give what a call gives and its CPU seconds."""
    start = time.process_time()
    return call(), round(time.process_time() - start, 3)


def parts_of(first: int, count: int, again: int = 0) -> list[Synthetic]:
    """Deal documents to parts."""
    made = [(start, min(start + PART, first + count)) for start in range(first, first + count, PART)]
    return [Synthetic(number, (start, end, again)) for number, (start, end) in enumerate(made)]


def measure(work: Path, indexed: int, batch: int, rounds: int) -> dict[str, Any]:
    """Build an index, match a batch against it, take documents out."""
    index, run = work / "index", Store(work / "run")
    signed(run, parts_of(0, 1000), "warm")
    old = parts_of(0, indexed)
    pinned = pin_index(run, str(index), Dedup(), old, "old")
    stage = signed(run, old, "old")
    generation, adding = timed(lambda: add_batch(pinned, run, {"duplicates": stage.hash}, old, EVERYTHING, here))
    new = parts_of(indexed - batch // 5, batch, batch // 10 // max(1, batch // PART))
    times: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(rounds):
        for name, against in (("with", pin_index(run, str(index), Dedup(), new, "new")), ("without", None)):
            stage = Stage.of(run, "duplicates", {"name": f"{name} {number}"}, {})
            for part in new:  # signing is the same on both sides, and not timed
                run_task(stage, sign_key(part), partial(Sign(stage.store), part))
            receipt, seconds = timed(partial(match, run, new, against, f"{name} {number}"))
            times[name].append(seconds)
            if name == "with":
                duplicates = receipt["duplicates"]
    bytes_held = sum(generation.batches[0].count("bytes").values())
    done, taking = timed(lambda: remove(index, [f"document {number}" for number in range(0, indexed, indexed // 1000)]))
    (left, *_) = Index.of(index).current().batches
    return {
        "indexed": indexed, "batch": sum(part.documents for part in new), "duplicates": duplicates,
        "bytes_a_document": round(bytes_held / indexed, 1),
        "add_cpu_s": adding, "documents_added_per_cpu_s": round(indexed / adding),
        "match_cpu_s": times, "index_cpu_s": round(min(times["with"]) - min(times["without"]), 3),
        "take_out": {"documents": done.documents, "cpu_s": taking, "left": left.count("documents")},
        "peak_rss_mb": round(peak_mb()),
    }  # fmt: skip


def main() -> int:
    """Measure; print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--indexed", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        figures = measure(Path(work), arguments.indexed, arguments.batch, arguments.rounds)
    print(json.dumps({"benchmark": "dedup_index", **figures, "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
