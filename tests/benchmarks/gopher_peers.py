"""Gopher's variants beside the code that each is named after: decisions compared rule by rule, speed in turns.

    DCLM=DIR DOLMA=DIR python tests/benchmarks/gopher_peers.py DOCS.jsonl.zst… [--megabytes 20] [--sample 8]
        [--rounds 1] [--peer-env DIR]

DCLM is a checkout of github.com/mlfoundations/dclm (`baselines/mappers` is read), DOLMA an unpacked wheel of dolma
1.2.1 (`dolma/taggers/gopher.py` is read). Both run unchanged, in an environment of their own; what they import and do
not use here is stood in for. datatrove's filters run there too, given Unicode's words; these are found once, and their
time is DCLM's. The sample's documents are cut to 600 code points but for every hundredth, so that the peers get through
many. A document's decision is the first rule of the published recipe that drops it, for the rules on quality and on
repetition apart.

Prints one JSON line: for each variant MB of UTF-8 text per CPU-second here and there, their ratio, `differ`, documents
of the sample that the two decide differently, and `differ_by`, how: "here, not there" or the other way round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gopher_peers_side as peer
from beside import in_turns
from corpus import get, put, sample_of, texts_of
from process_tree import load_average

BATCH, SHORT, WHOLE = 1000, 600, 100
PACKAGES = ("uniseg==0.10.1", "nltk", "numpy", "fasttext-wheel==0.9.2", "datatrove==0.10.0", "zstandard")
CASES: dict[str, dict[str, Any]] = {
    "dclm": {"variant": "dclm"},
    "dolma": {"variant": "dolma"},
    "dolma_v1": {"variant": "dolma_v1"},
    "fineweb_unicode": {"variant": "fineweb", "words": "unicode"},
    "paper": {"variant": "paper"},
}
KINDS = ("quality", "repetition")


def steps(case: str) -> dict[str, Any]:
    """Make a case's two steps."""
    from penstock.transforms import GopherQuality, GopherRepetition

    return {"quality": GopherQuality(**CASES[case]), "repetition": GopherRepetition(**CASES[case])}


def batch_of(texts: list[str]) -> Any:
    """Put texts into a batch."""
    import pyarrow as pa

    return pa.record_batch({"text": pa.array(texts, pa.large_string())})


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the documents and the sample; compile the kernels."""
    texts = texts_of(arguments.documents, arguments.megabytes)
    short = [text if number % WHOLE == 0 else text[:SHORT] for number, text in enumerate(texts)]
    sample = sample_of(short, arguments.sample)
    size, some = put(texts, work / "texts"), put(sample, work / "sample")
    for case in CASES:
        for step in steps(case).values():
            step.apply(batch_of(["compile me.\n\nTwice, please."]))
    return {
        "megabytes": round(size, 1), "documents": len(texts),
        "sample_megabytes": round(some, 2), "sample_documents": len(sample),
    }  # fmt: skip


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time each case on all documents; give its decisions on the sample."""
    texts, sample = get(work / "texts"), batch_of(get(work / "sample"))
    batches = [batch_of(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    found: dict[str, Any] = {}
    for case in CASES:
        for kind, step in steps(case).items():
            reasons = step.apply(sample).reasons.to_pylist()
            start = time.process_time()
            for batch in batches:
                step.apply(batch)
            seconds = time.process_time() - start
            rules = [reason and reason.partition("/")[2] for reason in reasons]
            found[f"{case}.{kind}"] = {"seconds": seconds, "rules": rules}
    return found


def peers_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time the peers' own code on the sample; give its decisions."""
    texts, found = get(work / "sample"), {}
    for name, decide in peer.deciders(Path(os.environ["DCLM"]), Path(os.environ["DOLMA"])).items():
        start = time.process_time()
        rules = [decide(text) for text in texts]
        found[name] = {"seconds": time.process_time() - start, "rules": rules}
        found[name]["departures"] = [peer.departure(rule, text) for rule, text in zip(rules, texts, strict=True)]
    return found


def table(rounds: list[dict[str, dict[str, Any]]], sizes: dict[str, Any]) -> dict[str, Any]:
    """Give each case's rates, ratio and differences."""
    found: dict[str, Any] = {}
    for name, held in rounds[0]["penstock"].items():
        own = sizes["megabytes"] / min(one["penstock"][name]["seconds"] for one in rounds)
        found[name] = {"mb_per_cpu_s": round(own, 1)}
        if name in rounds[0]["peers"]:
            theirs = sizes["sample_megabytes"] / min(one["peers"][name]["seconds"] for one in rounds)
            other = rounds[0]["peers"][name]
            triples = list(zip(held["rules"], other["rules"], other["departures"], strict=True))
            found[name] |= {
                "peer_mb_per_cpu_s": round(theirs, 3), "ratio": round(own / theirs, 1),
                "dropped": sum(rule is not None for rule in held["rules"]),
                "differ": sum(mine != rule for mine, rule, _ in triples),
                "differ_by": dict(Counter(f"{mine}, not {rule}{why}" for mine, rule, why in triples if mine != rule)),
            }  # fmt: skip
    return found


SIDES = {"prepare": prepare_side, "penstock": penstock_side, "peers": peers_side}


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "peers", PACKAGES, SIDES, sample=8.0)
    if measured is None:
        return 0
    sizes, rounds = measured
    print(json.dumps({"benchmark": "gopher_peers", **sizes, **table(rounds, sizes), "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
