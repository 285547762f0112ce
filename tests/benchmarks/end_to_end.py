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

Where the sides keep different pages with one extractor: datatrove's words are whitespace's here, and the sentences that
C4 counts those of a pattern in `datatrove_side.py`, nearly penstock's; it sends pages of any HTTP status through the
rules; and its permutations are others, so that pairs near MinHash's threshold fall otherwise. `pages_after_rules` counts
pages by URL. As it ships, other text and other words go through the rules, and few pages are kept by both.

What bounds the ratio: extraction is most of penstock's time and costs both the same, and a page that falls early costs
datatrove little. Where `overhead_of_the_run` is large, the input is small: two workers take 5 CPU-seconds to start,
client and report 3, whatever the input; `--copies` shows it.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
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


def prepare_side(work: Path) -> dict[str, Any]:
    """Train the byte-level BPE of 8,000 ids that both sides use, on the first pages of every file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from penstock.transforms import ExtractHtml
    from penstock.transforms.readers import Piece, read

    texts: list[str] = []
    for path in sorted((work / "warcs").iterdir()):
        outcome = next(iter(read(Piece(str(path), "web", path.name, "warc", path.stat().st_size))))
        some = outcome.batch.slice(0, 100)
        texts += [text for text in ExtractHtml().apply(some).batch.column("text").to_pylist() if text]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(work / "tokenizer.json"))
    return {}


def recipe(work: Path) -> dict[str, Any]:
    """Write penstock's side of the recipe: FineWeb's, as far as both sides have it."""
    return {
        "name": "bench",
        "inputs": {"web": {"path": str(work / "warcs")}},
        # A task a file, as the peer has it.
        "task_bytes": max(path.stat().st_size for path in (work / "warcs").iterdir()) + 1,
        "steps": [
            "extract_html", {"language_id": {"minimum": 0.65, "languages": ["en"]}}, "gopher_repetition",
            "gopher_quality", {"c4_quality": {"filter_no_terminal_punct": False}}, "fineweb_quality",
        ],
        "dedup": {"exact": False},
        "tokenizer": {"path": str(work / "tokenizer.json"), "eos": "<|endoftext|>"},
        "tokens": {"packs": [{"length": 2048, "policy": "concat"}], "validation": 0.0},
    }  # fmt: skip


def warm_side(work: Path) -> dict[str, Any]:
    """Compile every kernel of the recipe; give CPU seconds, from the first import on."""
    from penstock import Recipe
    from penstock.pipelines.ingest import warm
    from penstock.pipelines.match import warm_match

    value = Recipe.from_value(recipe(work))
    start = time.process_time()
    warm(value.steps)
    warm_match(value.dedup)
    return {"cpu_s": round(time.process_time() - start, 2)}


def penstock_side(work: Path) -> dict[str, Any]:
    """Run penstock's side; give its manifest's figures, and the wall and client CPU seconds of each phase."""
    from penstock import Recipe, run
    from penstock.pipelines.runners import RunnerOptions

    module, phases = importlib.import_module("penstock.pipelines.run"), {"imports": {"cpu_s": time.process_time()}}

    def timed(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return inner(*given)
            finally:
                phases[name] = {"wall_s": time.perf_counter() - wall, "client_cpu_s": time.process_time() - cpu}

        return call

    for name in ("plan_inputs", "compile_kernels", "documents", "duplicates", "publish", "conclude"):
        setattr(module, name, timed(name, getattr(module, name)))
    options = RunnerOptions(workers=workers())
    manifest = run(Recipe.from_value(recipe(work)), work / "out", options=options, quiet=True)
    keys = ("documents_in", "kept", "rejected", "duplicates", "quarantined", "tokens", "cost", "tables", "stages")
    rounded = {name: {key: round(value, 2) for key, value in phase.items()} for name, phase in phases.items()}
    return {**{key: manifest[key] for key in keys}, "phases": rounded}


def bare_side(work: Path) -> dict[str, Any]:
    """Call the same functions in a loop: read, steps, signatures, links, tokens; give CPU seconds by function."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from penstock import Recipe
    from penstock.pipelines.recipe import step_kind
    from penstock.tokenizer import load_tokenizer
    from penstock.transforms.kernels.graph import components, link, spanning_forest
    from penstock.transforms.readers import Piece, read

    value = Recipe.from_value(recipe(work))
    warm_side(work)
    tokenizer = load_tokenizer(value.tokenizer.path)
    tokenizer.encode(pa.array(["warm"]))
    spent: Counter[str] = Counter()

    def on(name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        spent[name] += time.process_time() - start
        return result

    kept = []
    for path in sorted((work / "warcs").iterdir()):
        outcomes = read(Piece(str(path), "web", path.name, "warc", path.stat().st_size))
        while (outcome := on("read", lambda held=outcomes: next(held, None))) is not None:
            batch = settled(outcome)
            for step in value.steps:
                if len(batch):
                    batch = settled(on(step_kind(step), lambda held=batch, step=step: step.apply(held)))
            kept.append(batch.column("text"))
    texts = pa.chunked_array(kept).combine_chunks()

    def unique() -> Any:
        digests, places = value.dedup.minhash.digests(texts), np.arange(len(texts), dtype=np.uint64)
        nodes, labels = components(spanning_forest(np.concatenate([link(band, places) for band in digests])))
        return texts.filter(pa.array(~np.isin(places, nodes[nodes != labels])))

    survivors = on("minhash", unique)
    for start in range(0, len(survivors), 1000):
        on("tokenize", lambda start=start: tokenizer.encode(survivors.slice(start, 1000)))
    characters = pc.sum(pc.binary_length(texts)).as_py()
    return {
        "cpu_s": round(sum(spent.values()), 2), "by": {name: round(value, 3) for name, value in spent.items()},
        "documents_after_rules": len(texts), "kept": len(survivors), "text_mb_after_rules": round(characters / 1e6, 1),
    }  # fmt: skip


def settled(outcome: Any) -> Any:
    """Keep the rows that did not fall out."""
    stays = outcome.reasons.is_null()
    if outcome.errors is not None:
        import pyarrow.compute as pc

        stays = pc.and_(stays, outcome.errors.is_null())
    return outcome.batch.filter(stays)


def compare_side(work: Path) -> dict[str, Any]:
    """Tell which pages the rules of both sides kept, by URL, and why penstock dropped what only the peer kept."""
    import pyarrow.parquet as pq

    stage = work / "out" / "documents" / json.loads((work / "out" / "manifest.json").read_text())["stages"]["documents"]
    fates: dict[str, str] = {}
    for path in stage.glob("data/ledger-*.parquet"):
        for row in pq.read_table(path, columns=["url", "fate", "rule"]).to_pylist():
            if fates.get(row["url"]) != "kept":  # of pages fetched twice, one that was kept
                fates[row["url"]] = "kept" if row["fate"] == "kept" else row["rule"] or row["fate"]
    bodies = [gzip.decompress(path.read_bytes()) for path in (work / "peer" / "documents").glob("*.gz")]
    peer = {json.loads(line)["metadata"]["url"] for body in bodies for line in body.splitlines()}
    own = {url for url, fate in fates.items() if fate == "kept"}
    return {
        "both": len(own & peer), "only_penstock": len(own - peer), "only_datatrove": len(peer - own),
        "only_datatrove_by_penstocks_rule": dict(Counter(fates.get(url, "not met") for url in peer - own)),
    }  # fmt: skip


SIDES = {
    "prepare": prepare_side, "warm": warm_side, "penstock": penstock_side, "bare": bare_side, "compare": compare_side,
}  # fmt: skip


def workers() -> int:
    """Count the cores that both sides use."""
    return len(os.sched_getaffinity(0))


class Bench:
    """Where the rounds run."""

    def __init__(self, work: Path, peer: Path, arguments: argparse.Namespace) -> None:
        self.work, self.peer, self.arguments = work, peer, arguments
        self.named = {"NUMBA_CACHE_DIR": str(work / "numba"), "BENCH_WORKERS": str(workers())}

    def side(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run one of this file's sides in a process of its own."""
        command = [sys.executable, __file__, "--side", name, "--work", str(self.work)]
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
    parser.add_argument("--warc", type=Path)
    parser.add_argument("--records", type=int, help="only so many records, from all over the file")
    parser.add_argument("--copies", type=int, default=1, help="each file so many times: what processes cost is fixed")
    parser.add_argument("--shipped", action="store_true", help="datatrove as it ships: trafilatura and spaCy's words")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1800, help="seconds that one side may take")
    parser.add_argument("--peer-env", type=Path, default=Path.home() / ".cache" / "penstock" / "datatrove-env")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.work)))
        return 0
    if arguments.warc is None:
        parser.error("--warc names the input")
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
