"""`penstock dedup` on Parquet beside text-dedup, datatrove and rensa with Python around it: the whole job, in turns.

    python tests/benchmarks/dedup.py DOCS.jsonl.zst… web.warc.gz [--megabytes 330] [--rensa-mb 60] [--small-mb 12]
    python tests/benchmarks/dedup.py --laws DOCS.jsonl.zst… web.warc.gz [--megabytes 30]

A folder of Parquet in (8 files: id, text, source, url, language), the survivors out; word 5-grams, 14 bands of 8, on
both sides. `dedup_peers_side.py` says what each peer is and how it normalises, `dedup_corpus.py` what is read. Peers
live in environments of their own, made on first use. penstock is the command alone: imports, plan, tasks, manifest and
report are in its figures; its kernels are compiled once before. penstock runs on the peers' samples too: their rates
are on what they can take in minutes, and a job's start weighs more on a sample. CPU seconds and memory are of whole
process trees. penstock and datatrove have a worker a core, text-dedup as many processes, rensa one.

Prints one JSON line. `mb_per_cpu_s` by side and sample, the best of the rounds; `ratio_to` each peer: penstock's rate
on all documents to the peer's on its own, and on the same sample. `agreement` is that of the clusters with penstock's
on the same sample: pairs of documents in one cluster on both sides and on either, clusters that are equal as sets,
documents kept. Another hash finds other pairs near the threshold: `seed_2` is penstock beside itself with other
permutations, and what two exact sides may differ by. `mersenne64` is datatrove's hash, and the same clusters.
`of_five_words` leaves out documents under five words, which penstock matches whole and the peers, text-dedup apart, let
pass. `planted` counts the planted triples that a side has in one cluster. `--copies` makes more of the documents for
penstock. `--laws` measures nothing: see `dedup_laws.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from dedup_corpus import answer, command, has_option, partition, planted, put, read_documents, some_blocks
from dedup_laws import laws
from process_tree import environment_python, load_average, run_tree

HERE = Path(__file__).resolve().parent
FILES = 8
PACKAGES = {
    "rensa": ("rensa==0.5.0", "pyarrow", "numpy"),
    "text_dedup": ("text-dedup==0.4.0", "pyarrow"),
    "datatrove": (
        "datatrove==0.10.0", "numpy", "pyarrow", "nltk", "spacy", "regex", "fasteners", "orjson", "tokenizers",
        "xxhash<4",  # 4 refuses the str that datatrove gives it
    ),
}  # fmt: skip
SIDES = {  # the environment and the sample of each
    "rensa": ("rensa", "middle"), "rensa_split": ("rensa", "middle"), "text_dedup": ("text_dedup", "small"),
    "datatrove": ("datatrove", "small"), "datatrove_shipped": ("datatrove", "small"),
}  # fmt: skip
Answer = tuple[set[str], set[frozenset[str]]]


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the corpus and its samples as Parquet."""
    everything, sizes = list(read_documents(arguments.documents)), {}
    amounts = {"all": arguments.megabytes, "middle": arguments.rensa_mb, "small": arguments.small_mb}
    for name, amount in amounts.items():
        documents, copies = some_blocks(everything, amount) + planted(), arguments.copies if name == "all" else 1
        size = put(documents, work / name, FILES, copies=copies)
        sizes[name] = {"documents": len(documents) * copies, "mb": round(size, 2)}
    return sizes


def compare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare every peer's answer with penstock's on the same sample, and penstock's with its own by another seed."""
    found: dict[str, Any] = {}
    if (work / "mersenne64-small").exists():
        long = documents_of_five_words(work / "small")
        sides = answer(work / "small", work / "mersenne64-small")[1], clusters_said(work / "datatrove")[1]
        found["mersenne64_and_datatrove"] = agreement(*({ids & long for ids in side} for side in sides))
    for sample in ("middle", "small"):
        own, long = answer(work / sample, work / f"penstock-{sample}"), documents_of_five_words(work / sample)
        others = {f"seed_2_{sample}": by_seed(work / sample, 2)}
        for side in arguments.sides:
            if SIDES[side][1] == sample:
                others[side] = clusters_said(work / side)
        found[f"penstock_{sample}"] = {"kept": len(own[0]), "clusters": len(own[1]), "planted": planted_in(own[1])}
        for name, other in others.items():
            found[name] = {**agreement(own[1], other[1]), "kept": len(other[0]), "planted": planted_in(other[1])}
            if name != f"seed_2_{sample}":
                found[name]["of_five_words"] = agreement(*({ids & long for ids in side} for side in (own[1], other[1])))
    return found


def clusters_said(output: Path) -> Answer:
    """Read a peer's answer."""
    value = json.loads((output / "answer.json").read_text())
    return set(value["kept"]), set(map(frozenset, value["clusters"]))


def planted_in(clusters: set[frozenset[str]]) -> str:
    """Count the planted triples that share a cluster."""
    triples = [{one["id"] for one in planted()[start : start + 3]} for start in range(0, len(planted()), 3)]
    return f"{sum(any(triple <= ids for ids in clusters) for triple in triples)} of {len(triples)}"


def agreement(own: set[frozenset[str]], other: set[frozenset[str]]) -> dict[str, Any]:
    """Count clusters and pairs, on both sides and on either."""
    own, other = ({ids for ids in side if len(ids) > 1} for side in (own, other))
    label = {one: number for number, ids in enumerate(own) for one in ids}
    met = Counter((label.get(one), number) for number, ids in enumerate(other) for one in ids)
    both = sum(pairs(size) for (mine, _), size in met.items() if mine is not None)
    here, there = (sum(pairs(len(ids)) for ids in side) for side in (own, other))
    return {
        "clusters": len(other), "equal_clusters": len(own & other), "same": own == other,
        "pairs_on_both": both, "pairs_on_either": here + there - both,
        "overlap": round(both / max(1, here + there - both), 4),
    }  # fmt: skip


def pairs(size: int) -> int:
    """Count the pairs of a cluster."""
    return size * (size - 1) // 2


def rows_of(folder: Path) -> tuple[list[str], list[str]]:
    """Read ids and texts."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder, columns=["id", "text"])
    return table["id"].to_pylist(), table["text"].to_pylist()


def documents_of_five_words(folder: Path) -> frozenset[str]:
    """List the documents that have a shingle."""
    from dedup_peers_side import NGRAM, fineweb_words

    words = fineweb_words()
    return frozenset(one for one, text in zip(*rows_of(folder), strict=True) if len(words(text)) >= NGRAM)


def by_seed(folder: Path, seed: int) -> Answer:
    """Cluster with penstock's functions and other permutations; the smallest id of a cluster stays."""
    import numpy as np
    import pyarrow as pa

    from penstock.transforms.kernels.graph import components, link, spanning_forest
    from penstock.transforms.minhash import MinHash

    ids, texts = rows_of(folder)
    method, column = MinHash(seed=seed), pa.array(texts, pa.large_string())
    _, enough = method.signatures(column)
    places = np.flatnonzero(enough).astype(np.uint64)
    edges = [link(np.ascontiguousarray(band[enough]), places) for band in method.digests(column)]
    nodes, labels = components(spanning_forest(np.concatenate(edges)))
    clusters = partition(zip([ids[node] for node in nodes.tolist()], labels.tolist(), strict=True))
    removed = set(chain.from_iterable(ids - {min(ids)} for ids in clusters))
    return set(ids) - removed, clusters


class Bench:
    """Where the rounds run."""

    def __init__(self, work: Path, arguments: argparse.Namespace) -> None:
        self.work, self.arguments = work, arguments
        same_hash = partial(self.penstock, "small", "mersenne64", "--family", "mersenne64")
        self.same_hash = same_hash if "datatrove" in arguments.sides and has_option("--family") else None
        self.named = {"BENCH_WORKERS": str(len(os.sched_getaffinity(0)))}
        folders = {name: getattr(arguments, f"{name}_env") for name in PACKAGES}
        used = {SIDES[side][0] for side in arguments.sides}
        self.pythons = {name: environment_python(folders[name], PACKAGES[name]) for name in sorted(used)}

    def own(self, name: str, *more: str) -> dict[str, Any]:
        """Run a part of this script."""
        amounts = [f"--{amount}={getattr(self.arguments, amount.replace('-', '_'))}" for amount in AMOUNTS]
        given = ["--side", name, "--work", str(self.work), *amounts, "--sides", *self.arguments.sides, "--", *more]
        return run_tree([sys.executable, __file__, *given], self.arguments.limit)[0]

    def penstock(self, sample: str, side: str = "penstock", *options: str) -> dict[str, Any]:
        """Run penstock's command on a sample, from nothing."""
        output = self.work / f"{side}-{sample}"
        shutil.rmtree(output, ignore_errors=True)
        words = command(self.work / sample, output, *self.arguments.option, *options)
        return run_tree(["sh", "-c", '"$@" >&2 && echo "{}"', "sh", *words], self.arguments.limit)[1]

    def peer(self, side: str) -> dict[str, Any]:
        """Run a peer's side, from nothing; then have its answer read, which is not in its figures."""
        output = self.work / side
        shutil.rmtree(output, ignore_errors=True)
        environment, sample = SIDES[side]
        script = [str(self.pythons[environment]), str(HERE / "dedup_peers_side.py"), side]
        places = [str(self.work / sample), str(output)]
        said, figures = run_tree([*script, "run", *places], self.arguments.limit, self.named)
        run_tree([*script, "read", *places], self.arguments.limit, self.named)
        return {**figures, **{name: value for name, value in said.items() if name != "kept"}}

    def round(self, number: int) -> dict[str, dict[str, Any]]:
        """Run all sides once, who is first in turn."""
        calls = [(f"penstock-{sample}", partial(self.penstock, sample)) for sample in ("all", "middle", "small")]
        if self.same_hash:
            calls.append(("mersenne64-small", self.same_hash))
        calls += [(side, partial(self.peer, side)) for side in self.arguments.sides]
        return {name: call() for name, call in (calls if number % 2 == 0 else calls[::-1])}


def verdict(rounds: list[dict[str, Any]], sizes: dict[str, Any], sides: list[str]) -> dict[str, Any]:
    """Take the cheapest round of each side; give rates and ratios."""
    best = {name: min((one[name] for one in rounds), key=lambda figures: figures["cpu_s"]) for name in rounds[0]}
    rates = {}
    for name, figures in best.items():
        sample = name.partition("-")[2] or SIDES[name][1]
        rates[name] = sizes[sample]["mb"] / figures["cpu_s"]
        figures["mb_per_cpu_s"] = round(rates[name], 2)
    ratios = {
        side: {
            "all_to_its_sample": round(rates["penstock-all"] / rates[side], 1),
            "same_sample": round(rates[f"penstock-{SIDES[side][1]}"] / rates[side], 1),
        }
        for side in sides
    }
    return {
        "sides": best,
        "ratio_to": ratios,
        "cpu_s_of_all_rounds": {name: [one[name]["cpu_s"] for one in rounds] for name in best},
    }


AMOUNTS = ("megabytes", "copies", "rensa-mb", "small-mb")


def main() -> int:
    """Prepare, run the rounds, compare, print the line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("documents", nargs="*")
    parser.add_argument("--megabytes", type=float, default=330)
    parser.add_argument("--copies", type=int, default=1, help="so many times all documents, each time in other words")
    parser.add_argument("--rensa-mb", type=float, default=60)
    parser.add_argument("--small-mb", type=float, default=12, help="for text-dedup and datatrove")
    parser.add_argument(
        "--sides", nargs="*", choices=list(SIDES), default=[one for one in SIDES if "shipped" not in one]
    )
    parser.add_argument("--option", action="append", default=[], help="one more word for penstock's command line")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=900, help="seconds that one side may take")
    parser.add_argument("--laws", action="store_true", help="the same set for other orders, files, formats and workers")
    for name in PACKAGES:
        default = Path.home() / ".cache" / "penstock" / f"{name}-dedup-env"
        parser.add_argument(f"--{name.replace('_', '-')}-env", type=Path, default=default)
    parser.add_argument("--side", choices=["prepare", "compare"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps({"prepare": prepare_side, "compare": compare_side}[arguments.side](arguments.work, arguments)))
        return 0
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        if arguments.laws:
            print(json.dumps(laws(Path(folder), arguments.documents, arguments.megabytes, arguments.option)))
            return 0
        bench = Bench(Path(folder), arguments)
        sizes = bench.own("prepare", *map(os.path.abspath, arguments.documents))
        bench.penstock("small")  # compiles
        if bench.same_hash:
            bench.same_hash()
        rounds = [bench.round(number) for number in range(arguments.rounds)]
        found = bench.own("compare")
    print(json.dumps({
        "benchmark": "dedup", "sizes": sizes, "options": arguments.option,
        **verdict(rounds, sizes, arguments.sides), "agreement": found, "load_average": load_average(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
