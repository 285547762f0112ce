"""Language identification beside the fastText library on the same model and documents, in turns; labels compared.

    python tests/benchmarks/language.py DOCS.jsonl.zst… [--megabytes 50] [--sample 10] [--rounds 2] [--peer-env DIR]

Both read whole texts. The library runs in an environment of its own, made on first use (it is compiled there), on a
sample of the documents spread over all of them, text by text, as `predict(text.replace("\\n", " "))`; its wrapper in
Python is left out. Prints one JSON line: MB of UTF-8 text per CPU-second, in one process, the best of the rounds;
documents of the sample with another label and the largest difference of a score; memory with the documents loaded and
its rise while measuring.
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
from process_tree import load_average, peak_mb

PEER_PACKAGES = ("fasttext==0.9.3", "numpy")
MODEL = Path(__file__).resolve().parents[2] / "transforms" / "data" / "lid.176.ftz"
BATCH = 1000


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the documents and the sample; compile the kernels."""
    texts = texts_of(arguments.documents, arguments.megabytes)
    sample = sample_of(texts, arguments.sample)
    size, some = put(texts, work / "texts"), put(sample, work / "sample")
    label(["compile me"])
    return {
        "megabytes": round(size, 1), "documents": len(texts),
        "sample_megabytes": round(some, 2), "sample_documents": len(sample),
    }  # fmt: skip


def label(texts: list[str]) -> tuple[list[str], list[float], float]:
    """Label texts as one batch; give labels, scores and CPU seconds."""
    import pyarrow as pa

    from penstock.transforms import LanguageId

    step, batch = LanguageId(), pa.record_batch({"text": pa.array(texts, pa.large_string())})
    start = time.process_time()
    scores = step.measure(batch)
    spent = time.process_time() - start
    return scores["language"].tolist(), scores["language_score"].tolist(), spent


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Label all documents, and the sample apart."""
    texts = get(work / "texts")
    label(["first call"])
    loaded = peak_mb()
    seconds = sum(label(texts[start : start + BATCH])[2] for start in range(0, len(texts), BATCH))
    rise = peak_mb() - loaded
    labels, scores = label(get(work / "sample"))[:2]
    return {"seconds": seconds, "labels": labels, "scores": scores, "memory_mb": [round(loaded), round(rise)]}


def fasttext_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Label the sample with the library, in its own environment."""
    import fasttext

    model, texts = fasttext.load_model(str(MODEL)), get(work / "sample")
    loaded, start = peak_mb(), time.process_time()
    found = [model.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict") for text in texts]
    seconds = time.process_time() - start
    labels = [pairs[0][1].removeprefix("__label__") if pairs else None for pairs in found]
    scores = [pairs[0][0] if pairs else 0.0 for pairs in found]
    memory = [round(loaded), round(peak_mb() - loaded)]
    return {"seconds": seconds, "labels": labels, "scores": scores, "memory_mb": memory}


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "fasttext": fasttext_side,
}  # fmt: skip


def verdict(rounds: list[dict[str, dict[str, Any]]], sizes: dict[str, Any]) -> dict[str, Any]:
    """Give rates, ratio and differences."""
    rate = sizes["megabytes"] / min(one["penstock"]["seconds"] for one in rounds)
    peer = sizes["sample_megabytes"] / min(one["fasttext"]["seconds"] for one in rounds)
    mine, other = rounds[0]["penstock"], rounds[0]["fasttext"]
    return {
        "mb_per_cpu_s": round(rate, 1), "fasttext_mb_per_cpu_s": round(peer, 2), "ratio": round(rate / peer, 1),
        "labels_differ": sum(a != b for a, b in zip(mine["labels"], other["labels"], strict=True)),
        "largest_score_difference": max(abs(a - b) for a, b in zip(mine["scores"], other["scores"], strict=True)),
        "memory_mb_loaded_and_rise": {"penstock": mine["memory_mb"], "fasttext": other["memory_mb"]},
    }  # fmt: skip


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "fasttext", PEER_PACKAGES, SIDES, sample=10.0)
    if measured is None:
        return 0
    sizes, rounds = measured
    print(json.dumps({"benchmark": "language", **sizes, **verdict(rounds, sizes), "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
