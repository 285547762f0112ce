"""Mtok a CPU-second, wall rate and memory of the loader through torch's interface, beside its peers in turns.

    python tests/benchmarks/loader_peers.py [--lengths 2048 8192] [--batch 64] [--mtok 64] [--seconds 3] [--rounds 3]
        [--only penstock stateful ...] [--peers-env ENV] [--work FOLDER]

All read the same random documents, each from files in its own format, in random order, from a warm page cache, and give
tokens and labels as (B, L) int64 tensors in the host's memory; `loader_peers_side.py` says how. The first round tries
every setting of a peer; the others take its best, all peers in turns. CPU seconds are those of the whole process tree,
threads and workers among them. `ratio`: penstock's rate over the peer's, median of the rounds. `first_epoch`: the
same while pages are met for the first time, and penstock verifies every block. `own_mb`: memory that is
no mapped file's, at the end; `peak_pss_mb`: with mapped files, at most. `*_batched`: the peer's loader over a dataset
that gathers a whole batch at once in NumPy, as its user would have to write it. Prints one JSON line a length.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import loader_peers_side as side
import numpy as np
from process_tree import environment_python, load_average, run_tree

PACKAGES = ("torch", "torchdata", "litdata", "grain", "mosaicml-streaming", "megatron-core", "datasets", "xxhash")


def put_corpus(work: Path, tokens: int) -> None:
    """Write penstock's data set, packs of every length in it, and the same tokens as one raw file."""
    from loader import put_data

    data = put_data(work / "penstock", tokens=tokens, lengths=(2048, 8192))
    with (work / "spool").open("wb") as file:
        for shard in data.generation.shards:
            file.write((work / "penstock" / shard.path(".bin")).read_bytes())
    (work / "spool").rename(work / "tokens.bin")


def importable(work: Path) -> dict[str, str]:
    """Environment in which a peer's interpreter finds penstock, and it alone of what this one has."""
    import penstock

    link = work / "path" / "penstock"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)  # of an earlier run, maybe of another checkout
    link.symlink_to(Path(penstock.__file__).parent)
    return {"PYTHONPATH": str(work / "path"), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


class Sides:
    """Runs a peer in a process of its own."""

    def __init__(self, python: Path, options: argparse.Namespace, work: Path) -> None:
        self.python, self.options, self.work, self.environment = python, options, work, importable(work)

    def __call__(self, name: str, length: int, settings: list[dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        """Measure with each of these settings; with none, write the peer's files."""
        seconds = self.options.seconds if settings else 0
        words = ["--side", name, "--lengths", length, "--settings", json.dumps(settings), "--seconds", seconds]
        command = [self.python, os.path.abspath(__file__), "--work", self.work, "--batch", self.options.batch, *words]
        return run_tree(list(map(str, command)), self.options.limit, self.environment)


def compare(names: list[str], length: int, run: Sides, rounds: int) -> dict[str, Any]:
    """Try every setting, then run all in turns with the best."""
    tried: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        settings = list(side.PEERS[name].settings)
        found, _ = run(name, length, settings)
        tried[name] = [{"setting": one, **rates} for one, rates in zip(settings, found, strict=True)]
        print(json.dumps({"length": length, name: tried[name], "load_average": load_average()}), file=sys.stderr)
    best = {name: max(tried[name], key=lambda one: float(one["mtok_per_cpu_s"]))["setting"] for name in names}
    turns = []
    for _ in range(rounds):
        turns.append({name: run(name, length, [best[name]]) for name in names})
    rates = {name: [one[name][0][0]["mtok_per_cpu_s"] for one in turns] for name in names}
    own = rates["penstock"]
    return {
        "mtok_per_cpu_s": {name: max(values) for name, values in rates.items()},
        "mtok_per_s": {name: max(one[name][0][0]["mtok_per_s"] for one in turns) for name in names},
        "ratio": {
            name: round(statistics.median(a / b for a, b in zip(own, values, strict=True)), 2)
            for name, values in rates.items() if name != "penstock"
        },
        "first_epoch_mtok_per_cpu_s": {
            name: max(one[name][0][0]["first_epoch_mtok_per_cpu_s"] for one in turns) for name in names
        },
        "setting": best,
        "own_mb": {name: round(max(one[name][0][0]["own_mb"] for one in turns)) for name in names},
        "peak_pss_mb": {name: max(one[name][1]["peak_pss_mb"] for one in turns) for name in names},
    }  # fmt: skip


def main() -> int:
    """Print one line of JSON a length."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192], choices=[2048, 8192])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--mtok", type=int, default=64, help="million tokens of data to write")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(side.PEERS), help="beside penstock")
    parser.add_argument("--limit", type=float, default=600, help="seconds that one process may take")
    parser.add_argument("--peers-env", type=Path, help="an environment that has the peers; else one is made")
    parser.add_argument("--work", type=Path, help="a folder for the files, kept; else a temporary one")
    parser.add_argument("--side", choices=list(side.PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side.main(options.work, options.side, options.lengths, options.batch, options.settings, options.seconds)
    cache = Path.home() / ".cache" / "penstock" / "loader-peers-env"
    python = environment_python(options.peers_env or cache, PACKAGES)
    names = list(dict.fromkeys(["penstock", *(options.only or side.PEERS)]))
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        work = (options.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "tokens.bin").exists():
            put_corpus(work, options.mtok * 1_000_000)
        run = Sides(python, options, work)
        shape = {"batch": options.batch, "cores": os.cpu_count(), "mtok": np.memmap(work / "tokens.bin").size >> 21}
        for length in options.lengths:
            for name in names:
                run(name, length, [])
            found = compare(names, length, run, options.rounds)
            print(json.dumps({"benchmark": "loader_peers", "length": length, **shape, **found,
                              "load_average": load_average()}), flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
