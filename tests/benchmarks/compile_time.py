"""What a recipe's kernels cost before the first document: compiled once on a machine, then loaded by every process.

    python tests/benchmarks/compile_time.py [RECIPE.yaml] [--rounds 2]

For the steps and the deduplication of a recipe (FineWeb's, `examples/fineweb.yaml`, by default). Cold: an empty
cache, filled as a run fills it, a process a core. Cached: a new process that finds all of it. Prints one JSON line:
`cold` and `cached`, the least of the rounds, each with `kernels_s` (wall seconds from kernels asked for to kernels
there), `import_s` (penstock's modules, Beam not among them, before that) and the process tree's CPU-seconds;
`specialisations`, the kernels on disk, each once for each types of arguments; `twice`, those of several types, with
how many: each is compiled as often, so a bare 0 beside an int64 shows here; `cache_mb`; load average.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from process_tree import load_average, run_tree

ROOT = Path(__file__).resolve().parent.parent.parent


def side(recipe: Path) -> dict[str, float]:
    """Have the recipe's kernels in this process; say how long it took."""
    start = time.perf_counter()
    from penstock.pipelines.compiling import compile_kernels
    from penstock.pipelines.recipe import Recipe

    made = Recipe.from_yaml(recipe)
    imported = time.perf_counter()
    compile_kernels(made.steps, made.dedup)
    return {"kernels_s": round(time.perf_counter() - imported, 2), "import_s": round(imported - start, 2)}


def measure(recipe: Path, cache: str) -> dict[str, Any]:
    """Run one process over a cache."""
    command = [sys.executable, __file__, str(recipe), "--side"]
    found, cost = run_tree(command, 600, {"NUMBA_CACHE_DIR": cache})
    return {**found, "cpu_s": cost["cpu_s"], "peak_rss_mb": cost["peak_rss_mb"]}


def kernels_in(cache: Path) -> dict[str, Any]:
    """Count what lies in a cache."""
    files = list(cache.rglob("*.nbc"))
    counts = Counter(path.name.split("-")[0] for path in files)  # module.name-line of definition…
    return {
        "specialisations": len(files),
        "twice": {name: count for name, count in sorted(counts.items()) if count > 1},
        "cache_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def main() -> int:
    """Measure cold and cached; print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("recipe", nargs="?", type=Path, default=ROOT / "examples" / "fineweb.yaml")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(side(arguments.recipe)))
        return 0
    cold, cached, held = [], [], {}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="penstock-compile-") as cache:
            cold.append(measure(arguments.recipe, cache))
            cached.append(measure(arguments.recipe, cache))
            held = kernels_in(Path(cache))
    best = {
        name: min(rounds, key=lambda one: float(one["kernels_s"]))
        for name, rounds in (("cold", cold), ("cached", cached))
    }
    print(json.dumps({"benchmark": "compile_time", **best, **held, "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
