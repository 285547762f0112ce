"""Train a fastText classifier with the library, the same bytes each time, and say what it is worth on held-out texts.

The library runs on one thread in a process of its own, whose memory is handed out as zeros: fasttext 0.9.3 fills only a
tenth of its table for each thread that trains, and reads the rest as the allocator left it. So one thread's training
differs from call to call, or ends in NaN, unless that rest is zero, as it was in older releases. The zeros
are glibc's (Linux): elsewhere the bytes may differ from call to call, and in any case from one build to another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import RequestError, RunError, require
from ..transforms.classifier import score
from ..transforms.labeller import Labeller, labeller
from ..transforms.step import utf8_buffers
from .classifier_data import Example
from .fork_server import boot, import_path

#: Named settings, as their sources have them.
PRESETS: dict[str, dict[str, Any]] = {
    # DCLM (Li et al. 2024, arXiv:2406.11794), baselines/train_fasttext_classifier.py: the defaults of its options.
    "dclm": {"lr": 0.1, "dim": 100, "ws": 5, "epoch": 5, "minCount": 1, "wordNgrams": 1},
    # The same with word bigrams as well.
    "dclm-bigrams": {"lr": 0.1, "dim": 100, "ws": 5, "epoch": 5, "minCount": 1, "wordNgrams": 2},
}
BATCH = 1_000


def train(examples: Sequence[Example], settings: Mapping[str, Any], seed: int, target: Path) -> None:
    """Write a model of these examples, in their order."""
    require("fasttext", "classifier")
    with TemporaryDirectory(prefix="penstock-") as folder:
        lines = Path(folder) / "examples.txt"
        with lines.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(f"__label__{example.label} {example.text}\n" for example in examples)
        model = Path(folder) / "model.bin"
        values = {**settings, "input": str(lines), "thread": 1, "seed": seed, "verbose": 0}
        environment = {**os.environ, "PYTHONPATH": import_path(), "MALLOC_PERTURB_": "255", "PYTHONHASHSEED": "0"}
        words = [sys.executable, "-c", boot(__name__, "fit"), json.dumps(values), str(model)]
        done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode or not model.exists():
            told = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise RunError(f"fasttext could not train: {told or f'it ended with {done.returncode}'}")
        target.write_bytes(model.read_bytes())


def fit(values: str, model: str) -> None:
    """Train and save (this runs in a process of its own)."""
    import fasttext

    try:
        fasttext.train_supervised(**json.loads(values)).save_model(model)
    except RuntimeError as error:
        raise SystemExit(f"{error} (a smaller lr may help)") from error


def scores_of(model: Labeller, label: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """Score texts (n,), as `QualityClassifier` does."""
    parts = [
        score(model, label, *utf8_buffers(pa.array(texts[start : start + BATCH], pa.large_string())))
        for start in range(0, len(texts), BATCH)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def evaluate(model: Path, label: str, examples: Sequence[Example]) -> dict[str, Any]:
    """Measure a model on examples that it has not seen: a row a threshold, and the area under the ROC curve."""
    scores = scores_of(labeller(model), label, [example.text for example in examples])
    wanted = np.array([example.label == label for example in examples], bool)
    values = np.unique(np.concatenate([[0.01, 0.018112, 0.05], np.arange(1, 20) / 20, [0.99]]))
    return {
        "documents": len(examples),
        "positives": int(wanted.sum()),
        "auc": area(scores, wanted),
        "thresholds": [row_of(float(value), scores, wanted) for value in values],
    }


def row_of(threshold: float, scores: NDArray[np.float64], wanted: NDArray[np.bool_]) -> dict[str, Any]:
    """Count what a threshold keeps; null where a share is of nothing."""
    kept = scores >= threshold
    right = int((kept & wanted).sum())
    return {
        "threshold": threshold,
        "kept": share(int(kept.sum()), len(kept)),
        "precision": share(right, int(kept.sum())),
        "recall": share(right, int(wanted.sum())),
    }


def share(part: int, whole: int) -> float | None:
    """Divide; None of nothing."""
    return round(part / whole, 6) if whole else None


def area(scores: NDArray[np.float64], wanted: NDArray[np.bool_]) -> float | None:
    """Give the chance that a positive scores above a negative, half for equals; None where a class is empty."""
    positives, negatives = np.sort(scores[wanted]), np.sort(scores[~wanted])
    if not len(positives) or not len(negatives):
        return None
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return round(float(below.sum()) / (2 * len(positives) * len(negatives)), 6)


def calibrate(scores: NDArray[np.float64], keep: float) -> dict[str, Any]:
    """Find the threshold that keeps a share of these scores, and how far chance in the sample may move it.

    `minimum` is the sample's score of that rank; `between` the ranks 1.96 standard errors away on either side.
    """
    count = len(scores)
    if not count:
        raise RequestError("there are no documents to calibrate on")
    falling = np.sort(scores)[::-1]
    error = (keep * (1 - keep) / count) ** 0.5

    def at(part: float) -> float:
        return float(falling[min(max(int(np.ceil(part * count)) - 1, 0), count - 1)])

    return {
        "minimum": at(keep),
        "between": [at(keep + 1.96 * error), at(keep - 1.96 * error)],
        "documents": count,
        "keep": keep,
        "kept": share(int((scores >= at(keep)).sum()), count),
        "standard_error_of_share": round(error, 6),
    }
