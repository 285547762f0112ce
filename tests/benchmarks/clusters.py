"""Signatures to clusters, beside datasketch, rensa and datatrove in turns; and what memory and disk millions take.

    python tests/benchmarks/clusters.py [--rows 10000000] [--rensa-env ENV] [--datatrove-env ENV]
    python tests/benchmarks/clusters.py --memory 20000000 [--work FOLDER]

Rows: made MinHash signatures of 14 x 8, a tenth of which repeat another row in some bands. Penstock: digests of the
bands, the exchange by files, links, forests and components, as a run does it, in one process; a side's time leaves out
the making. Peers get as many first rows as they can do in a minute, from signatures that lie ready:
`clusters_peers_side.py` says how each is asked.

`--memory N`: N documents of 15 bands, a fifth of them repeating one, a hundredth of those a hot one, made by arithmetic
part by part; two worker processes, files in the run's folder. Peaks, disk, CPU seconds, and whether the clusters are
those that were made. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters_peers_side import BANDS, datasketch_side, datatrove_side, made, rensa_side
from process_tree import environment_python, load_average, run_tree

PART_ROWS = 250_000
DIGESTS = 15  # bands of the documents whose memory is measured: those, and whole contents


def mixed(values: Any) -> Any:
    """Hash words (splitmix64)."""
    import numpy as np

    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def originals(first: int, rows: int, documents: int) -> tuple[Any, Any]:
    """Give the document that each repeats, itself as a rule, and of each the bands in which it does (rows, 15)."""
    import numpy as np

    numbers = np.arange(first, first + rows, dtype=np.uint64)
    chance = mixed(numbers)
    other = chance % np.uint64(documents)
    hot = (chance >> np.uint64(40)) % np.uint64(100) == 0
    other[hot] = chance[hot] % np.uint64(5)  # the four documents that are copied most
    other += other % np.uint64(5) == 0  # every fifth is a copy, and no copy is copied
    copies = numbers % np.uint64(5) == 0
    share = (chance >> np.uint64(50)) % np.uint64(4) + np.uint64(1)  # of four: all bands are equal, or some
    drawn = mixed(numbers[:, None] * np.uint64(DIGESTS) + np.arange(DIGESTS, dtype=np.uint64)) % np.uint64(4)
    return np.where(copies, other, numbers), copies[:, None] & (drawn < share[:, None])


@dataclass(frozen=True)
class Made:
    """A part of made documents."""

    number: int
    rows: int
    first: int
    documents: int


@dataclass(frozen=True)
class SignMade:
    """Sign a made part: the entries of its bands, by digest, and its own forest."""

    store: Any
    memory: bool

    def __call__(self, part: Made, folder: Path, meter: Any) -> dict[str, Any]:
        """Give the receipt."""
        import numpy as np

        from penstock.pipelines.exchange import fold, pack, put_bands
        from penstock.pipelines.forests import put_forest
        from penstock.transforms.kernels.graph import spanning_forest
        from penstock.transforms.kernels.minhash import digest_bands

        addresses = np.uint64(part.number << 32) + np.arange(part.rows, dtype=np.uint64)
        held: Any
        with meter.on("making"):
            held = originals(part.first, part.rows, part.documents) if self.memory else made(part.first, part.rows)
        if not self.memory:
            held = digest_bands(held, BANDS)
        bands, edges = {}, []
        for band in range(DIGESTS if self.memory else BANDS):
            with meter.on("making"):
                digests = made_digests(held, part.first, band) if self.memory else held[band]
            bands[f"band{band:+04d}"], repeats = fold(pack(digests, addresses))
            edges.append(repeats)
        forest = put_forest(self.store, spanning_forest(np.concatenate(edges)))
        return {"documents": part.rows, **put_bands(self.store, folder, bands), **forest}


def made_digests(held: tuple[Any, Any], first: int, band: int) -> Any:
    """Give digests (rows, 2) of one band: that of the document it repeats, or one's own."""
    import numpy as np

    other, shared = held
    numbers = np.arange(first, first + len(other), dtype=np.uint64)
    word = mixed(np.where(shared[:, band], other, numbers) * np.uint64(DIGESTS) + np.uint64(band))
    return np.stack([word, mixed(word)], axis=1)


def clusters(parts: list[Made], folder: Path, memory: bool, launch: Callable[[Any], None], local: bool) -> Any:
    """Cluster made parts through the files of a run: addresses (n,) and the smallest of their clusters (n,)."""
    from penstock.pipelines.clusters import merge
    from penstock.pipelines.exchange import exchange
    from penstock.pipelines.forests import Forest, merge_forests
    from penstock.pipelines.match import Link
    from penstock.pipelines.stage import Stage
    from penstock.pipelines.views import get_array
    from penstock.sharding.store import Store
    from penstock.transforms.kernels.graph import components

    stage = Stage.of(Store(folder), "duplicates", {}, {})
    sign, link = SignMade(stage.store, memory), Link(stage, len(parts))
    signed, linked = exchange(stage, parts, sign, link, launch, local)
    forests = merge_forests(stage, list(map(Forest.of, [*signed, *linked])), launch)
    found = components(merge([forest.name for forest in forests], lambda name: get_array(stage.store, name)))
    making = sum(receipt["cost"]["by"].get("making", 0.0) for receipt in signed)
    return *found, making


def cut(rows: int) -> list[Made]:
    """Cut rows into parts."""
    firsts = range(0, rows, PART_ROWS)
    return [Made(at, min(PART_ROWS, rows - first), first, rows) for at, first in enumerate(firsts)]


def numbered(addresses: Any) -> Any:
    """Give the rows that addresses are of."""
    import numpy as np

    return ((addresses >> np.uint64(32)) * np.uint64(PART_ROWS) + (addresses & np.uint64(0xFFFFFFFF))).astype(np.int64)


def here(job: Any) -> None:
    """Do a job in this process."""
    for task in job.tasks:
        list(job.map(task) or ())


def by_workers(job: Any) -> None:
    """Do a job in two processes, which end with it."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(WorkOn(job.map), job.tasks, chunksize=1)


def by_beam(job: Any) -> None:
    """Do a job in this process by Beam, whose shuffle lies in memory."""
    from penstock.pipelines.runners import RunnerOptions, run_job

    run_job(job, RunnerOptions(runner="local", workers=1))


@dataclass(frozen=True)
class WorkOn:
    """Does a task and gives nothing back."""

    map: Callable[[Any], Any]

    def __call__(self, task: Any) -> None:
        """Do it."""
        list(self.map(task) or ())


def penstock_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Cluster all rows, and the first ones that peers had."""
    import numpy as np

    clusters(cut(2_000), work / "warm", False, here, True)
    start = time.process_time()
    *_, making = clusters(cut(arguments.rows), work / "run", False, here, True)
    spent = time.process_time() - start - making
    shutil.rmtree(work / "run")
    nodes, labels, _ = clusters(cut(arguments.peer_rows), work / "some", False, here, True)
    found = np.arange(arguments.peer_rows)
    found[numbered(nodes)] = numbered(labels)
    shutil.rmtree(work / "some")
    return {"clustering": spent, "clusters": found.tolist()}


def memory_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Cluster N made documents through files; compare what was found with what was made."""
    import numpy as np

    launch, local = (by_beam, False) if arguments.shuffle else (by_workers, True)
    parts = cut(arguments.memory)
    start = time.perf_counter()
    nodes, labels, making = clusters(parts, work / "run", True, launch, local)
    wall = time.perf_counter() - start
    disk = sum(path.stat().st_size for path in (work / "run").rglob("*") if path.is_file())
    wrong, copies = 0, 0
    rows, firsts = numbered(nodes), numbered(labels)
    label = np.full(arguments.memory, -1, np.int64)
    label[rows] = firsts
    for part in parts:
        other, shared = originals(part.first, part.rows, part.documents)
        some = shared.any(axis=1)
        mine, theirs = part.first + np.flatnonzero(some), other[some].astype(np.int64)
        wrong += int((label[mine] != label[theirs]).sum()) + int((label[mine] < 0).sum())
        copies += len(mine)
    found = {"duplicates": int((rows != firsts).sum()), "made": copies, "wrong": wrong}
    return {**found, "wall_s": round(wall, 1), "making_cpu_s": round(making, 1), "disk_mb": disk >> 20}


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "penstock": penstock_side, "datasketch": datasketch_side, "rensa": rensa_side, "datatrove": datatrove_side,
    "memory": memory_side,
}  # fmt: skip


def pythons(arguments: argparse.Namespace) -> dict[str, str]:
    """Name the interpreter of each side; peers whose environment is not given get one."""
    cache = Path.home() / ".cache" / "penstock"
    peers = {
        "rensa": (arguments.rensa_env or cache / "rensa-env", ("rensa", "numpy")),
        "datatrove": (arguments.datatrove_env or cache / "datatrove-env", ("datatrove[processing]",)),
    }
    own = {"penstock": sys.executable, "datasketch": sys.executable}
    return own | {name: str(environment_python(*held)) for name, held in peers.items()}


def verdict(rounds: list[dict[str, dict[str, Any]]], costs: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """Give rates, ratios and whether the clusters are equal."""
    rates = {name: rows[name] / min(one[name]["clustering"] for one in rounds) for name in rows}
    same = rows["datasketch"]
    own = rounds[0]["penstock"]["clusters"][:same]
    return {
        "rows": rows, "rows_per_cpu_s": {name: round(rate) for name, rate in rates.items()},
        "ratio": {name: round(rates["penstock"] / rate, 1) for name, rate in rates.items() if name != "penstock"},
        "same_clusters": {name: one["clusters"][:same] == own for name, one in rounds[0].items()},
        "peak_rss_mb": {name: cost["peak_rss_mb"] for name, cost in costs.items()},
    }  # fmt: skip


def main() -> int:
    """Measure in turns, or memory; print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--peer-rows", type=int, default=20_000, help="that datasketch and datatrove get")
    parser.add_argument("--rensa-rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1200, help="seconds that one side may take")
    parser.add_argument("--rensa-env", type=Path)
    parser.add_argument("--datatrove-env", type=Path)
    parser.add_argument("--memory", type=int, help="made documents, to be clustered for their memory")
    parser.add_argument("--shuffle", action="store_true", help="with --memory: by Beam's shuffle, in one process")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help="folder for the files, removed at the end")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.work, arguments)))
        return 0
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=arguments.work) as work:
        words = ["--work", work, *sys.argv[1:]]

        def side(name: str, python: str = sys.executable) -> tuple[dict[str, Any], dict[str, Any]]:
            return run_tree(
                [python, os.path.abspath(__file__), *words, "--work", work, "--side", name], arguments.limit
            )

        if arguments.memory:
            found, cost = side("memory")
            figures = {"documents": arguments.memory, **found, **cost}
        else:
            named = pythons(arguments)
            measured = [{name: side(name, python) for name, python in named.items()} for _ in range(arguments.rounds)]
            rows = dict.fromkeys(named, arguments.peer_rows)
            rows |= {"penstock": arguments.rows, "rensa": arguments.rensa_rows}
            rounds = [{name: found for name, (found, _) in one.items()} for one in measured]
            figures = verdict(rounds, {name: cost for name, (_, cost) in measured[0].items()}, rows)
    print(json.dumps({"benchmark": "clusters", **figures, "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
