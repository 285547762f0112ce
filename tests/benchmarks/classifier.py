"""A quality classifier beside the fastText library on the same model and documents, in turns; scores compared.

    python tests/benchmarks/classifier.py DOCS.jsonl.zst… [--megabytes 50] [--sample 10] [--rounds 2] [--peer-env DIR]

The model is made here: random weights, softmax, two labels, a vocabulary of the documents' own words, bigrams of words
in 2,000,000 buckets; CLASSIFIER_DIM says how many dimensions (100 by default, 800 MB of rows). Both read whole texts,
newlines as spaces; the library (built in an environment of its own on first use) gets a sample, text by text, without
its wrapper in Python. Prints one JSON line: MB of UTF-8 text per CPU-second, in one process, the best of the rounds;
the largest difference of a score; memory once the model is loaded, and its rise while measuring (a mapped model's pages
count as they are met).
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beside import in_turns
from corpus import get, put, sample_of, texts_of
from process_tree import load_average, peak_mb

PEER_PACKAGES = ("fasttext==0.9.3", "numpy")
DIM = int(os.environ.get("CLASSIFIER_DIM", "100"))
BUCKETS, WORDS, BATCH = 2_000_000, 300_000, 1000


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the documents, the sample and the model; compile the kernels."""
    texts = texts_of(arguments.documents, arguments.megabytes)
    sample = sample_of(texts, arguments.sample)
    size, some = put(texts, work / "texts"), put(sample, work / "sample")
    write_model(texts, work / "model.bin")
    score(work, ["compile me"])
    return {
        "megabytes": round(size, 1), "documents": len(texts), "dim": DIM,
        "model_mb": round((work / "model.bin").stat().st_size / 1e6),
        "sample_megabytes": round(some, 2), "sample_documents": len(sample),
    }  # fmt: skip


def write_model(texts: list[str], path: Path) -> None:
    """Write a model of these texts' most frequent words, with random rows."""
    import numpy as np

    counts = Counter(word for text in texts for word in text.encode().split() if b"\0" not in word)
    words = [b"</s>", *(word for word, _ in counts.most_common(WORDS) if not word.startswith(b"__label__"))]
    random = np.random.default_rng(0)
    entries = [(word, 0) for word in words] + [(b"__label__cc", 1), (b"__label__hq", 1)]
    with path.open("wb") as file:
        file.write(struct.pack("<ii12id", 793712314, 12, DIM, 5, 5, 1, 5, 2, 3, 3, BUCKETS, 0, 0, 100, 1e-4))
        file.write(struct.pack("<iiiqq", len(entries), len(words), 2, 1_000_000, -1))
        file.writelines(word + b"\0" + struct.pack("<qb", 5, kind) for word, kind in entries)
        rows = len(words) + BUCKETS
        file.write(struct.pack("<?qq", False, rows, DIM))
        for start in range(0, rows, 100_000):
            file.write(random.normal(size=(min(100_000, rows - start), DIM)).astype("<f4").tobytes())
        file.write(struct.pack("<?qq", False, 2, DIM) + random.normal(size=(2, DIM)).astype("<f4").tobytes())


def score(work: Path, texts: list[str]) -> tuple[list[float], float]:
    """Score texts as one batch; give scores and CPU seconds."""
    import pyarrow as pa

    from penstock.transforms import QualityClassifier

    step = QualityClassifier(model=str(work / "model.bin"))
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    start = time.process_time()
    scores = step.measure(batch)["score"].tolist()
    return scores, time.process_time() - start


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Score all documents, and the sample apart."""
    texts = get(work / "texts")
    start = time.process_time()
    score(work, ["first call"])
    first, loaded = time.process_time() - start, peak_mb()
    seconds = sum(score(work, texts[start : start + BATCH])[1] for start in range(0, len(texts), BATCH))
    rise = peak_mb() - loaded
    scores = score(work, get(work / "sample"))[0]
    memory = [round(loaded), round(rise)]
    return {"seconds": seconds, "first_call": first, "scores": scores, "memory_mb": memory}


def fasttext_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Score the sample with the library, in its own environment, by DCLM's arithmetic."""
    import fasttext

    start = time.process_time()
    model, texts = fasttext.load_model(str(work / "model.bin")), get(work / "sample")
    first, loaded, start = time.process_time() - start, peak_mb(), time.process_time()
    found = [model.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")[0] for text in texts]
    seconds = time.process_time() - start
    scores = [1 - share if label == "__label__cc" else share for share, label in found]
    memory = [round(loaded), round(peak_mb() - loaded)]
    return {"seconds": seconds, "first_call": first, "scores": scores, "memory_mb": memory}


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
        "largest_score_difference": max(abs(a - b) for a, b in zip(mine["scores"], other["scores"], strict=True)),
        "first_call_cpu_s": {side: round(rounds[-1][side]["first_call"], 2) for side in ("penstock", "fasttext")},
        "memory_mb_loaded_and_rise": {"penstock": mine["memory_mb"], "fasttext": other["memory_mb"]},
    }  # fmt: skip


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "fasttext", PEER_PACKAGES, SIDES, sample=10.0)
    if measured is None:
        return 0
    sizes, rounds = measured
    print(json.dumps({"benchmark": "classifier", **sizes, **verdict(rounds, sizes), "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
