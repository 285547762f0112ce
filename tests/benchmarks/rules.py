"""Each filter's speed beside datatrove's own, on the same documents with the same words, in turns; decisions compared.

    python tests/benchmarks/rules.py DOCS.jsonl.zst… [--megabytes 50] [--sample 2] [--rounds 2] [--peer-env DIR]

penstock scores every rule of a document, datatrove stops at the first that fires; both take the words that whitespace
separates. datatrove's filters run in their own environment on a sample of the documents, spread over all of them.
`together` sends each batch through Gopher's quality rules, then C4's, then FineWeb's over what C4 leaves of the text,
every row through all three; datatrove's figure is its three filters' seconds added up.

Prints one JSON line: MB of UTF-8 text per CPU-second, in one process (batches of 1,000 documents here, one at a time
there), the best of the rounds; `differ`, documents of the sample that the two decide differently; `memory_mb`, the
process's peak with the documents loaded and its rise while measuring.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beside import in_turns
from corpus import get, put, sample_of, texts_of
from end_to_end import PEER_PACKAGES
from process_tree import load_average, peak_mb

BATCH = 1000
KINDS = ("gopher_quality", "gopher_repetition", "c4_quality", "fineweb_quality")
TOGETHER = ("gopher_quality", "c4_quality", "fineweb_quality")


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the documents and the sample; compile the kernels."""
    texts = texts_of(arguments.documents, arguments.megabytes)
    sample = sample_of(texts, arguments.sample)
    size, some = put(texts, work / "texts"), put(sample, work / "sample")
    for step in steps().values():
        step.apply(batch_of(["compile me.\n\nTwice, please."]))
    return {
        "megabytes": round(size, 1), "documents": len(texts),
        "sample_megabytes": round(some, 2), "sample_documents": len(sample),
    }  # fmt: skip


def steps() -> dict[str, Any]:
    """Make penstock's filters; C4 as FineWeb has it."""
    from penstock.transforms import C4Quality, FineWebQuality, GopherQuality, GopherRepetition

    made = (GopherQuality(), GopherRepetition(), C4Quality(filter_no_terminal_punct=False), FineWebQuality())
    return dict(zip(KINDS, made, strict=True))


def batch_of(texts: list[str]) -> Any:
    """Put texts into a batch."""
    import pyarrow as pa

    return pa.record_batch({"text": pa.array(texts, pa.large_string())})


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time each filter on all documents; give its decisions on the sample."""
    texts, sample = get(work / "texts"), batch_of(get(work / "sample"))
    batches = [batch_of(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    del texts
    loaded, seconds, decisions = peak_mb(), {}, {}
    for kind, step in steps().items():
        reasons = step.apply(sample).reasons.to_pylist()
        decisions[kind] = [reason and reason.partition("/")[2] for reason in reasons]
        start = time.process_time()
        for batch in batches:
            step.apply(batch)
        seconds[kind] = time.process_time() - start
    chain = [steps()[kind] for kind in TOGETHER]
    start = time.process_time()
    for batch in batches:
        for step in chain:
            batch = step.apply(batch).batch
    seconds["together"] = time.process_time() - start
    return {"seconds": seconds, "decisions": decisions, "memory_mb": [round(loaded), round(peak_mb() - loaded)]}


def datatrove_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time datatrove's filters on the sample, in its own environment; give their decisions."""
    import datatrove_side as peer
    from datatrove.data import Document
    from datatrove.pipeline import filters as rules

    peer.whitespace_words()
    filters = dict(zip(KINDS, (
        rules.GopherQualityFilter(), rules.GopherRepetitionFilter(),
        rules.C4QualityFilter(filter_no_terminal_punct=False), rules.FineWebQualityFilter(),
    ), strict=True))  # fmt: skip
    texts = get(work / "sample")
    loaded, seconds, decisions = peak_mb(), {}, {}
    for kind, one in filters.items():
        documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
        start = time.process_time()
        results = [one.filter(document) for document in documents]
        seconds[kind] = time.process_time() - start
        decisions[kind] = [result[1] if isinstance(result, tuple) else None for result in results]
    seconds["together"] = sum(seconds[kind] for kind in TOGETHER)
    return {"seconds": seconds, "decisions": decisions, "memory_mb": [round(loaded), round(peak_mb() - loaded)]}


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "datatrove": datatrove_side,
}  # fmt: skip


def table(rounds: list[dict[str, dict[str, Any]]], sizes: dict[str, Any]) -> dict[str, Any]:
    """Give each filter's rates, ratio and differences."""
    found: dict[str, Any] = {}
    for kind in (*KINDS, "together"):
        own = sizes["megabytes"] / min(one["penstock"]["seconds"][kind] for one in rounds)
        peer = sizes["sample_megabytes"] / min(one["datatrove"]["seconds"][kind] for one in rounds)
        found[kind] = {
            "mb_per_cpu_s": round(own, 1), "datatrove_mb_per_cpu_s": round(peer, 3), "ratio": round(own / peer, 1),
        }  # fmt: skip
        if kind != "together":
            mine, others = (rounds[0][side]["decisions"][kind] for side in ("penstock", "datatrove"))
            found[kind]["differ"] = sum(one != other for one, other in zip(mine, others, strict=True))
    return found


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "datatrove", PEER_PACKAGES, SIDES, sample=2.0)
    if measured is None:
        return 0
    sizes, rounds = measured
    memory = {side: rounds[0][side]["memory_mb"] for side in ("penstock", "datatrove")}
    print(json.dumps({
        "benchmark": "rules", **sizes, **table(rounds, sizes), "memory_mb_loaded_and_rise": memory,
        "load_average": load_average(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
