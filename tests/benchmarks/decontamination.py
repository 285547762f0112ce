"""Decontamination beside datatrove's, on the same documents and benchmark items, in turns; decisions compared.

    python tests/benchmarks/decontamination.py DOCS.jsonl.zst… BENCHMARKS.jsonl.zst [--megabytes 50] [--sample 2]

The last file holds the items, one in five of which is planted into a document of the sample. Both sides look for
12-grams of the words that whitespace separates; datatrove's index is built from its own hashes, as its indexer does
without lighteval. Prints one JSON line: MB of UTF-8 text per CPU-second in one process, the best of the rounds, for
this rule and for penstock's default (13-grams, whole short items, the item named and measured); `differ`, documents of
the sample decided differently; CPU seconds and MB of memory that the index takes.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beside import in_turns
from corpus import get, put, sample_of, texts_of
from process_tree import load_average, peak_mb

BATCH = 1000
PACKAGES = ("datatrove==0.10.0", "numpy", "regex", "orjson", "xxhash<4")
VARIANTS = ("fineweb", "penstock")


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the documents, the items and the sample, some items planted; compile the kernels."""
    *documents, benchmark = arguments.documents
    items = items_of(benchmark)
    (work / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    texts = texts_of(documents, arguments.megabytes)
    sample, chance = sample_of(texts, arguments.sample), random.Random(1)
    for number in range(0, len(sample), 5):
        at = chance.randrange(len(sample[number]) + 1)
        sample[number] = f"{sample[number][:at]} {chance.choice(items)['text']} {sample[number][at:]}"
    size, some = put(texts, work / "texts"), put(sample, work / "sample")
    for variant in VARIANTS:
        step_of(work, variant).apply(batch_of(["compile me"]))
    return {
        "megabytes": round(size, 1), "documents": len(texts), "items": len(items),
        "sample_megabytes": round(some, 2), "sample_documents": len(sample),
    }  # fmt: skip


def items_of(path: str) -> list[dict[str, str]]:
    """Read benchmark items."""
    import zstandard

    with Path(path).open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        return [{name: record[name] for name in ("id", "text")} for record in map(json.loads, lines)]


def step_of(work: Path, variant: str) -> Any:
    """Make penstock's step."""
    from penstock.transforms import Decontaminate

    named: dict[str, Any] = {"benchmarks": str(work / "items.jsonl"), "fields": {"id": "id"}, "variant": variant}
    return Decontaminate(**named)


def batch_of(texts: list[str]) -> Any:
    """Put texts into a batch."""
    import pyarrow as pa

    return pa.record_batch({"text": pa.array(texts, pa.large_string())})


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time both variants on all documents; give the decisions of datatrove's on the sample."""
    texts, sample = get(work / "texts"), batch_of(get(work / "sample"))
    batches = [batch_of(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    del texts
    seconds, loading, memory = {}, 0.0, 0.0
    decisions: list[Any] = []
    for variant in VARIANTS:
        before, start = peak_mb(), time.process_time()
        step = step_of(work, variant)
        if variant == "fineweb":
            loading, memory = time.process_time() - start, peak_mb() - before
            decisions = [reason is not None for reason in step.reasons(sample).to_pylist()]
        step.apply(batches[0].slice(0, 1))
        start = time.process_time()
        for batch in batches:
            step.apply(batch)
        seconds[variant] = time.process_time() - start
    return {"seconds": seconds, "loading": loading, "memory_mb": memory, "decisions": decisions}


class Words:
    """A tokenizer that splits at whitespace."""

    def word_tokenize(self, text: str) -> list[str]:
        """Split a text."""
        return text.split()


def datatrove_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time datatrove's filter on the sample, in its own environment; give its decisions."""
    from datatrove.data import Document
    from datatrove.pipeline.decont import n_grams

    n_grams.load_word_tokenizer = lambda language: Words()
    n_grams.NGramsDecontIndexer._requires_dependencies = []
    before, start = peak_mb(), time.process_time()
    indexer = n_grams.NGramsDecontIndexer(output_folder=str(work / "index"))
    index: dict[int, str] = {}
    for line in (work / "items.jsonl").open():
        item = json.loads(line)
        index.update(dict.fromkeys(indexer.compute_hashes(item["text"]), item["id"]))
    one = n_grams.NGramsDecontFilter(index_folder=str(work / "index"))
    one._index_hashes = index
    loading, memory = time.process_time() - start, peak_mb() - before
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(get(work / "sample"))]
    start = time.process_time()
    results = [one.filter(document) for document in documents]
    seconds = {"fineweb": time.process_time() - start}
    decisions = [isinstance(result, tuple) for result in results]
    return {"seconds": seconds, "loading": loading, "memory_mb": memory, "decisions": decisions}


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "datatrove": datatrove_side,
}  # fmt: skip


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "datatrove", PACKAGES, SIDES, sample=2.0)
    if measured is None:
        return 0
    sizes, rounds = measured
    own = {name: sizes["megabytes"] / min(one["penstock"]["seconds"][name] for one in rounds) for name in VARIANTS}
    peer = sizes["sample_megabytes"] / min(one["datatrove"]["seconds"]["fineweb"] for one in rounds)
    pairs = list(zip(rounds[0]["penstock"]["decisions"], rounds[0]["datatrove"]["decisions"], strict=True))
    print(json.dumps({
        "benchmark": "decontamination", **sizes, "mb_per_cpu_s": {name: round(own[name], 1) for name in VARIANTS},
        "datatrove_mb_per_cpu_s": round(peer, 2), "ratio": {name: round(own[name] / peer, 1) for name in VARIANTS},
        "differ": sum(mine != other for mine, other in pairs), "dropped": sum(mine for mine, _ in pairs),
        **{name: {side: round(rounds[0][side][name], 1) for side in ("penstock", "datatrove")}
           for name in ("loading", "memory_mb")},
        "load_average": load_average(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
