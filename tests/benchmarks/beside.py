"""Measure penstock's side and a peer's in turns, the peer in an environment of its own: shared by the benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from process_tree import environment_python, run_tree

Side = Callable[[Path, argparse.Namespace], Any]


def in_turns(
    script: str,
    about: str | None,
    peer: str,
    packages: Sequence[str],
    sides: Mapping[str, Side],
    sample: float,
    paths: Sequence[str] = (),
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Run `script` once for each side and round; give what `prepare` said and the rounds, by side.

    `paths` are arguments of the script's own, which every side gets. Called in a process that is one of the sides, it
    runs that side, prints its figures and gives None.
    """
    parser = argparse.ArgumentParser(description=(about or "").split("\n", 1)[0])
    parser.add_argument("documents", nargs="*")
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--sample", type=float, default=sample, help=f"MB that {peer} gets")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds that one side may take")
    parser.add_argument("--peer-env", type=Path, default=Path.home() / ".cache" / "penstock" / f"{peer}-env")
    parser.add_argument("--side", choices=list(sides), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    for name in paths:
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(sides[arguments.side](arguments.work, arguments)))
        return None
    pythons = {"penstock": sys.executable, peer: str(environment_python(arguments.peer_env, tuple(packages)))}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        own = [word for name in paths for word in (f"--{name}", os.path.abspath(getattr(arguments, name)))]
        amounts = ["--megabytes", str(arguments.megabytes), "--sample", str(arguments.sample), *own]
        amounts += ["--peer-env", str(arguments.peer_env)]
        files = [os.path.abspath(path) for path in arguments.documents]
        prepare = [sys.executable, script, "--side", "prepare", "--work", work, *amounts, *files]
        sizes, _ = run_tree(prepare, arguments.limit)
        rounds = [
            {
                side: run_tree([python, script, "--side", side, "--work", work, *own], arguments.limit)[0]
                for side, python in pythons.items()
            }
            for _ in range(arguments.rounds)
        ]
    return sizes, rounds
