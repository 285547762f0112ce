"""Time to the first batch of a fresh process, and to that after a resume at 80 % of the rows, beside the peers.

    python tests/benchmarks/loader_start.py [--rows 1e6 1e7 1e8] [--rounds 1] [--only penstock stateful ...]
        [--peers-env ENV] [--work FOLDER]

Rows of 2,048 tokens, batches of 64, shuffled, through torch. Files are sparse, or one real file of 32,768 rows, linked
so often that they make N: 10^8 rows are 400 GB that take no room. Time counts from the start of the process, imports
and whatever a peer builds before it can read among it; `loader_start_side.py` says how each stands at a state. A peer
is not asked for more rows where its time and memory for fewer would grow beyond `--limit` seconds or `--memory` MB:
`extrapolated` then goes on from its last two sizes in a straight line; `failed` tells the last line of its error.
`state_bytes`: of its state, pickled. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import loader_start_side as side
from loader_peers import PACKAGES, importable
from process_tree import environment_python, load_average, run_tree


def once(python: Path, name: str, folder: Path, rows: int, state: Path, way: str) -> dict[str, Any]:
    """Run one process of a peer: "write" its files, give the "first" batch, or "resume" at the state's."""
    command = [str(python), os.path.abspath(__file__), "--side", name, "--work", str(folder), "--way", way]
    environment = importable(folder.parent)
    found, cost = run_tree([*command, "--rows", str(rows), "--state", str(state)], 1200, environment)
    return {**found, "peak_pss_mb": cost["peak_pss_mb"]}


def one_size(python: Path, name: str, work: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Write a peer's files for so many rows, then start and resume in turns: the best of each."""
    folder = work / f"{name}-{rows}"
    state = work / f"{name}-{rows}.state"
    if not folder.exists():
        once(python, name, folder, rows, state, "write")
    runs: dict[str, list[dict[str, Any]]] = {"first": [], "resume": []}
    for _ in range(rounds):
        for way, found in runs.items():
            found.append(once(python, name, folder, rows, state, way))
    best = {way: min(found, key=lambda one: float(one["wall_s"])) for way, found in runs.items()}
    return {**best, "state_bytes": state.stat().st_size}


def line(sizes: dict[int, dict[str, Any]], rows: int) -> dict[str, float]:
    """Go on from the last two sizes in a straight line."""
    (low, first), (high, last) = list(sizes.items())[-2:]
    share = (rows - high) / (high - low)
    told = {}
    for way in ("first", "resume"):
        for figure in ("wall_s", "cpu_s", "peak_pss_mb"):
            told[f"{way}_{figure}"] = round(last[way][figure] + share * (last[way][figure] - first[way][figure]), 1)
    return told


def measured(python: Path, name: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a peer at rising sizes, as far as it can."""
    sizes: dict[int, dict[str, Any]] = {}
    told: dict[str, Any] = {}
    for rows in sorted(map(int, options.rows)):
        runs = [sizes[max(sizes)][way] for way in ("first", "resume")] if sizes else []
        growth = rows / max(sizes) if sizes else 1
        if len(sizes) > 1 and any(
            one["wall_s"] * growth > options.limit or one["own_mb"] * growth > options.memory for one in runs
        ):
            told["extrapolated"] = {str(rows): line(sizes, rows)}
            break
        try:
            sizes[rows] = one_size(python, name, work, rows, options.rounds)
        except SystemExit as error:  # a peer that cannot, and why
            told["failed"] = {str(rows): str(error).splitlines()[-1]}
            break
        print(json.dumps({name: {rows: sizes[rows]}, "load_average": load_average()}), file=sys.stderr, flush=True)
    return {**{str(rows): found for rows, found in sizes.items()}, **told}


def main() -> int:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(side.PEERS), default=list(side.PEERS))
    parser.add_argument("--limit", type=float, default=120, help="seconds that one start may be expected to take")
    parser.add_argument("--memory", type=float, default=8000, help="MB that one process may be expected to take")
    parser.add_argument("--peers-env", type=Path, help="an environment that has the peers; else one is made")
    parser.add_argument("--work", type=Path, help="a folder for the files, kept; else a temporary one")
    parser.add_argument("--side", choices=list(side.PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=["write", "first", "resume"], help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side.main(options.side, options.work, int(options.rows[0]), options.way, options.state)
    cache = Path.home() / ".cache" / "penstock" / "loader-peers-env"
    python = environment_python(options.peers_env or cache, PACKAGES)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        work = (options.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        found = {name: measured(python, name, work, options) for name in options.only}
    shape = {"length": side.LENGTH, "batch": side.BATCH, "cores": os.cpu_count()}
    print(json.dumps({"benchmark": "loader_start", **shape, "peers": found, "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
