"""Personal data: RedactPii beside datatrove's PIIFormatter and dolma's two taggers, on the same documents, in turns.

    python tests/benchmarks/pii.py DOCS.jsonl.zst… [--megabytes 50] [--sample 2] [--rounds 2] [--peer-env DIR]

datatrove replaces e-mail and public IP addresses, which RedactPii(variant="fineweb") does too: `differ` counts the
documents of the sample that the two leave otherwise, with the same words put in. dolma marks e-mail, IP and telephone
numbers by rules of its own, and puts nothing in their place; the ratio to it is that of RedactPii with those kinds. The
peers get a sample of the documents, spread over all of them. Prints one JSON line: MB of UTF-8 text per CPU-second, in
one process, the best of the rounds, edits recorded on our side.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from beside import in_turns
from corpus import get, put, sample_of, texts_of
from process_tree import load_average, peak_mb

BATCH = 1000
#: dolma 1.2.1 without what its other taggers need.
PACKAGES = (
    "datatrove==0.10.0", "dolma==1.2.1", "necessary", "msgspec", "anyascii", "omegaconf", "smart_open", "zstandard",
    "nltk", "uniseg", "tokenizers", "regex",
)  # fmt: skip
OURS: dict[str, dict[str, Any]] = {
    "fineweb": {"variant": "fineweb"},
    "default": {},
    "with_phones": {"kinds": ("email", "ip", "phone")},
    "all_kinds": {"kinds": ("private_key", "key", "email", "iban", "credit_card", "us_ssn", "phone", "ip")},
}
#: Which of ours each peer's is measured against.
PEERS = {"datatrove": "fineweb", "dolma_regex_v2": "with_phones", "dolma_with_counts_fast_v2": "with_phones"}


def batch_of(texts: list[str]) -> Any:
    """Put texts into a batch."""
    import pyarrow as pa

    return pa.record_batch({"text": pa.array(texts, pa.large_string())})


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the documents and the sample; compile the kernels."""
    from penstock.transforms import RedactPii

    texts = texts_of(arguments.documents, arguments.megabytes)
    sample = sample_of(texts, arguments.sample)
    size, some = put(texts, work / "texts"), put(sample, work / "sample")
    for fields in OURS.values():
        RedactPii(**fields).apply(batch_of(["compile me: a@b.org 8.8.8.8", "é"]))
    return {
        "megabytes": round(size, 1), "documents": len(texts),
        "sample_megabytes": round(some, 2), "sample_documents": len(sample),
    }  # fmt: skip


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time each set of kinds on all documents; give what stands in the sample afterwards."""
    from penstock.transforms import RedactPii

    texts, sample = get(work / "texts"), batch_of(get(work / "sample"))
    batches = [batch_of(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    del texts
    left = RedactPii(variant="fineweb").apply(sample).batch["text"].to_pylist()
    loaded, seconds, found = peak_mb(), {}, {}
    for name, fields in OURS.items():
        step = RedactPii(**fields)
        step.apply(sample)
        start = time.process_time()
        made = [step.apply(batch).batch for batch in batches]
        seconds[name] = time.process_time() - start
        found[name] = {kind: sum(sum(one[f"redact_pii.{kind}"].to_pylist()) for one in made) for kind in step.kinds}
        del made
    return {"seconds": seconds, "left": left, "found": found, "memory_mb": [round(loaded), round(peak_mb() - loaded)]}


def peers_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time the peers on the sample, in their own environment."""
    from datatrove.pipeline.formatters.pii import PIIFormatter

    texts, seconds = get(work / "sample"), {}
    formatter = PIIFormatter(email_replacement="<EMAIL>", ip_replacement="<IP>")
    loaded, start = peak_mb(), time.process_time()
    left = [formatter.format(text) for text in texts]
    seconds["datatrove"] = time.process_time() - start
    for name, tagger in dolma_taggers().items():
        start = time.process_time()
        for text in texts:
            tagger(text)
        seconds[name] = time.process_time() - start
    return {"seconds": seconds, "left": left, "memory_mb": [round(loaded), round(peak_mb() - loaded)]}


def dolma_taggers() -> dict[str, Callable[[str], Any]]:
    """Give dolma's regex taggers, without its others and without presidio, which only another tagger calls."""
    (folder,) = find_spec("dolma").submodule_search_locations  # type: ignore[union-attr, misc]
    presidio, taggers = types.ModuleType("presidio_analyzer"), types.ModuleType("dolma.taggers")
    presidio.AnalyzerEngine = None  # type: ignore[attr-defined]
    taggers.__path__ = [str(Path(folder, "taggers"))]
    sys.modules |= {"presidio_analyzer": presidio, "dolma.taggers": taggers}
    from dolma.core.data_types import Document
    from dolma.taggers.pii import FastPiiRegex, PiiRegexV2

    one, other = PiiRegexV2(), FastPiiRegex()
    return {
        "dolma_regex_v2": lambda text: one.predict(Document(source="", id="", text=text)),
        "dolma_with_counts_fast_v2": lambda text: other.predict(Document(source="", id="", text=text)),
    }


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "peers": peers_side,
}  # fmt: skip


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "peers", PACKAGES, SIDES, sample=2.0)
    if measured is None:
        return 0
    sizes, rounds = measured
    own = {name: sizes["megabytes"] / min(one["penstock"]["seconds"][name] for one in rounds) for name in OURS}
    peers = {name: sizes["sample_megabytes"] / min(one["peers"]["seconds"][name] for one in rounds) for name in PEERS}
    first = rounds[0]
    pairs = zip(first["penstock"]["left"], first["peers"]["left"], strict=True)
    print(json.dumps({
        "benchmark": "pii", **sizes, "mb_per_cpu_s": {name: round(rate, 1) for name, rate in own.items()},
        "peers_mb_per_cpu_s": {name: round(rate, 2) for name, rate in peers.items()},
        "ratio": {name: round(own[ours] / peers[name], 1) for name, ours in PEERS.items()},
        "differ": sum(mine != other for mine, other in pairs), "found": first["penstock"]["found"],
        "memory_mb_loaded_and_rise": {side: first[side]["memory_mb"] for side in ("penstock", "peers")},
        "load_average": load_average(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
