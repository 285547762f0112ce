"""The same recipe through penstock and through datatrove, in turns, on the same input, files and cores.

    python tests/benchmarks/end_to_end.py --warc web.warc.gz [--records 2000] [--rounds 2] [--shipped] [--peer-env DIR]

WARC → main content → language, Gopher, C4 and FineWeb rules → MinHash 14 x 8 → tokens, one tokenizer.json. By default
both sides extract with resiliparse, with the same options, and take for a word what whitespace separates; `--shipped`
leaves datatrove as it ships, trafilatura and spaCy's words, beside the same run of penstock. The peer lives in an
environment of its own, made on first use. Both read lid.176.ftz, which ships with penstock: datatrove would fetch the
uncompressed model, and nothing here is fetched at run time.

Prints one JSON line. CPU seconds and memory are of whole process trees (`process_tree.py`). The kernels are compiled
once before, into an empty cache: `compile_cpu_s` is that, and not in penstock's figures. Beside both totals stand the
seconds of each stage and step, and the ratios without extraction, which is the same C library on both sides by default.
`bare` calls penstock's functions in one loop, in one process, with nothing read back or written: `overhead_of_tasks` is
what the run's tasks take more (Parquet, commits, heartbeat), `overhead_of_the_run` what the processes do: imports,
Beam, planning, report.

Where the sides keep different pages with one extractor: C4's sentences are those of a pattern in `datatrove_side.py`,
nearly penstock's; datatrove sends pages of any HTTP status through the rules; and its permutations are others, so that
pairs near MinHash's threshold fall otherwise. `pages_after_rules` counts pages by URL. As it ships, other text and
other words go through the rules, and few pages are kept by both.

What bounds the ratio: extraction is most of penstock's time and costs both the same, and a page that falls early costs
datatrove little. Where `overhead_of_the_run` is large, the input is small: two workers take 5 CPU-seconds to start,
client and report 3, whatever the input; `--copies` shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from process_tree import environment_python, load_average, run_tree

HERE = Path(__file__).resolve().parent
PEER_PACKAGES = (
    "datatrove==0.10.0", "numpy", "nltk", "spacy", "tldextract", "warcio", "faust-cchardet", "python-magic", "regex",
    "trafilatura", "lxml_html_clean", "fasttext-numpy2-wheel", "fasteners", "resiliparse", "tokenizers", "orjson",
    "xxhash<4",  # 4 refuses the str that datatrove gives it
)  # fmt: skip
FILES = 8
BLOCK = 64  # records that stay together when a WARC is dealt to files


def cut(path: Path, folder: Path, limit: int | None, copies: int) -> tuple[int, int]:
    """Deal a WARC's records to files by blocks in turn, so that every core has work; give records and decoded bytes.

    With a limit, blocks are taken from all over the file; copies make more of it.
    """
    folder.mkdir(parents=True)
    places = [0]
    sizes = []
    with path.open("rb") as file:
        held, buffer, size = zlib.decompressobj(wbits=31), b"", 0
        while buffer := buffer or file.read(1 << 20):
            size += len(held.decompress(buffer))
            if held.eof:
                places.append(file.tell() - len(held.unused_data))
                sizes.append(size)
                buffer, held, size = held.unused_data, zlib.decompressobj(wbits=31), 0
            else:
                buffer = b""
    blocks = list(range(0, len(sizes), BLOCK))
    wanted = min(len(blocks), -(-(limit or len(sizes)) // BLOCK))
    chosen = [blocks[len(blocks) * number // wanted] for number in range(wanted)]
    files = [(folder / f"part-{number}.warc.gz").open("wb") for number in range(min(FILES, wanted))]
    with path.open("rb") as file:
        for number, first in enumerate(chosen):
            file.seek(places[first])
            end = places[min(first + BLOCK, len(sizes))]
            files[number % len(files)].write(file.read(end - places[first]))
    for one in files:
        one.close()
        for number in range(1, copies):
            os.link(one.name, f"{one.name.removesuffix('.warc.gz')}-{number}.warc.gz")
    taken = [size for first in chosen for size in sizes[first : first + BLOCK]]
    return len(taken) * copies, sum(taken) * copies


def workers() -> int:
    """Count the cores that both sides use."""
    return len(os.sched_getaffinity(0))


class Bench:
    """Where the rounds run."""

    def __init__(self, work: Path, peer: Path, arguments: argparse.Namespace) -> None:
        self.work, self.peer, self.arguments = work, peer, arguments
        self.named = {"NUMBA_CACHE_DIR": str(work / "numba"), "BENCH_WORKERS": str(workers())}

    def side(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run one part of `penstock_side.py`."""
        command = [sys.executable, str(HERE / "penstock_side.py"), name, str(self.work)]
        return run_tree(command, self.arguments.limit, self.named)

    def penstock(self) -> dict[str, Any]:
        """Run penstock's side, from nothing."""
        shutil.rmtree(self.work / "out", ignore_errors=True)
        result, figures = self.side("penstock")
        return {**figures, **result}

    def datatrove(self) -> dict[str, Any]:
        """Run datatrove's side, from nothing."""
        shutil.rmtree(self.work / "peer", ignore_errors=True)
        words = "shipped" if self.arguments.shipped else "whitespace"
        given = [str(self.work / name) for name in ("warcs", "peer", "lid.176.ftz", "tokenizer.json")]
        command = [str(self.peer), str(HERE / "datatrove_side.py"), *given, words]
        result, figures = run_tree(command, self.arguments.limit, self.named)
        return {**figures, **result}

    def round(self, number: int) -> dict[str, dict[str, Any]]:
        """Run all sides once, who is first in turn."""
        order = [("penstock", self.penstock), ("datatrove", self.datatrove)]
        found = {name: call() for name, call in (order if number % 2 == 0 else order[::-1])}
        return {**found, "bare": self.side("bare")[0]}


def verdict(rounds: list[dict[str, Any]], decoded: int) -> dict[str, Any]:
    """Take the cheapest round of each side; give rates, ratios and overhead."""
    sides = ("penstock", "datatrove", "bare")
    best = {side: min((one[side] for one in rounds), key=lambda figures: figures["cpu_s"]) for side in sides}
    for side in best.values():
        side["mb_per_cpu_s"] = round(decoded / 1e6 / side["cpu_s"], 2)
    own, peer, bare = (best[side] for side in sides)
    tasks = sum(stage["cpu_seconds"] for stage in own["cost"].values())
    steps = peer["stages"]["ingest"]["steps"]
    extraction = next(step["extraction_cpu_s"] for step in steps.values() if "extraction_cpu_s" in step)
    own_extraction = own["cost"]["documents"]["by"]["0 extract_html"]
    for name in ("tables", "stages"):
        own.pop(name)
    peer["tokens"] = peer["stages"]["tokens"]["steps"]["TOKENIZER: Writer"]["tokens"]
    peer["kept"] = peer["stages"]["filter"]["steps"]["DEDUP: MinHash stage 4"]["out"]
    return {
        **best,
        "ratio_cpu": round(peer["cpu_s"] / own["cpu_s"], 2),
        "ratio_wall": round(peer["wall_s"] / own["wall_s"], 2),
        "ratio_cpu_to_penstocks_tasks": round(peer["cpu_s"] / tasks, 2),
        "ratio_cpu_without_extraction": round((peer["cpu_s"] - extraction) / (own["cpu_s"] - own_extraction), 2),
        "ratio_cpu_to_penstocks_tasks_without_extraction": round(
            (peer["cpu_s"] - extraction) / (tasks - own_extraction), 2
        ),
        "ratio_memory": round(peer["peak_rss_mb"] / own["peak_rss_mb"], 2),
        "extraction_cpu_s": {"penstock": round(own_extraction, 2), "datatrove": extraction},
        "task_cpu_s": round(tasks, 2),
        "overhead_of_tasks": round(tasks / bare["cpu_s"] - 1, 3),
        "overhead_of_the_run": round(own["cpu_s"] / bare["cpu_s"] - 1, 3),
        "cpu_s_of_all_rounds": {side: [one[side]["cpu_s"] for one in rounds] for side in sides},
    }


def main() -> int:
    """Prepare, run the rounds, print the line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--warc", type=Path, required=True)
    parser.add_argument("--records", type=int, help="only so many records, from all over the file")
    parser.add_argument("--copies", type=int, default=1, help="each file so many times: what processes cost is fixed")
    parser.add_argument("--shipped", action="store_true", help="datatrove as it ships: trafilatura and spaCy's words")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1800, help="seconds that one side may take")
    parser.add_argument("--peer-env", type=Path, default=Path.home() / ".cache" / "penstock" / "datatrove-env")
    arguments = parser.parse_args()
    # The main process stays small: the peak memory of what it starts begins with its own.
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        bench = Bench(Path(folder), environment_python(arguments.peer_env, PEER_PACKAGES), arguments)
        records, decoded = cut(arguments.warc, bench.work / "warcs", arguments.records, arguments.copies)
        shutil.copy(HERE.parents[1] / "transforms" / "data" / "lid.176.ftz", bench.work)
        bench.side("prepare")
        compiled, loaded = (bench.side("warm")[0]["cpu_s"] for _ in range(2))
        rounds = [bench.round(number) for number in range(arguments.rounds)]
        pages, _ = bench.side("compare")
    print(json.dumps({
        "benchmark": "end_to_end", "mode": "shipped" if arguments.shipped else "whitespace", "records": records,
        "decoded_mb": round(decoded / 1e6, 1), "cores": workers(), "load_average": load_average(),
        "compile_cpu_s": {"cold": compiled, "from_disk": loaded}, **verdict(rounds, decoded),
        "pages_after_rules": pages,
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
