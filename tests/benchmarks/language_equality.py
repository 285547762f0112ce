"""Language identification beside the fastText library on every text of some files: labels, scores, and whose error.

    PYTHONPATH=FOLDER-WITH-FASTTEXT nice python tests/benchmarks/language_equality.py DOCS.jsonl.zst… [--every 50]

The library sums a text's n-grams one after another in float32, so its sum drifts with their number. Where scores lie
more than 5e-5 apart, and for the twenty furthest apart in any case, both are held against the exact score: each
distinct word's rows summed in float64, times how often it comes. Every n-th text is labelled again in batches of 1, 7
and 1,000, by two threads at once, with an empty memo and with one that has seen all: bit for bit the same, or counted.
Prints one JSON line; two minutes and a GB for 277 MB. Exit code 1 where a label or a bit differs.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from corpus import lines_of

from penstock.transforms.kernels.fasttext import PIECE, find_entry, find_rows, hash_of, is_label
from penstock.transforms.labeller import Labeller, labeller
from penstock.transforms.language import LID_176
from penstock.transforms.step import utf8_buffers

NEAR, FURTHEST = 5e-5, 20
SEPARATORS = re.compile(rb"[\0\t\n\v\f\r ]+")
Answer = tuple[str | None, float]


def ours(model: Labeller, texts: list[str], size: int = 1000) -> list[Answer]:
    """Label texts with the kernel, so many at a time."""
    answers: list[Answer] = []
    for start in range(0, len(texts), size):
        numbers, scores = model.top(*utf8_buffers(pa.array(texts[start : start + size], pa.large_string())))
        answers += zip(model.names[numbers[:, 0]].tolist(), scores[:, 0].tolist(), strict=True)
    return answers


def librarys(texts: list[str]) -> list[Answer]:
    """Label texts with the library."""
    import fasttext

    model = fasttext.load_model(str(LID_176))
    found = [model.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict") for text in texts]
    return [(pairs[0][1].removeprefix("__label__"), pairs[0][0]) if pairs else (None, 0.0) for pairs in found]


def exact(model: Labeller, text: str, label: str) -> float:
    """Score a label in float64: the mean of the text's rows, then down the tree."""
    tables = model.model.tables
    total, count = tables.rows[tables.sentence_end].astype(float), 1
    words = [word for word in SEPARATORS.split(text.encode()) if word]
    for word, times in Counter(words[: words.index(b"</s>")] if b"</s>" in words else words).items():
        rows = rows_of(tables, word)
        total += times * tables.rows[rows].sum(axis=0, dtype=np.float64)
        count += times * len(rows)
    node, score = model.labels.index(label), 1.0
    while (above := int(tables.parent[node])) >= 0:
        dot = float(tables.output[above - len(tables.output)].astype(float) @ (total / count))
        right = 1 / (1 + math.exp(-dot))
        score *= (right if tables.right[above] == node else 1 - right) + 1e-5  # the library's own 1e-5
        node = above
    return score


def rows_of(tables: Any, word: bytes) -> Any:
    """Find the rows of a word: its own, and those of its n-grams."""
    text, end = np.frombuffer(b" " + word + b" " * 9, np.uint8).copy(), 1 + len(word)
    entry = find_entry(text, 1, end, hash_of(text, 1, end), tables)
    if entry >= tables.words or (entry < 0 and is_label(text, 1, end)):
        return np.zeros(0, np.int64)
    found, count = np.empty((end + PIECE) * tables.longest + 8, np.int64), 0
    for piece in range(0, end + 1, PIECE):
        count = find_rows(text, 1, end, entry if piece == 0 else -1, piece, tables, found, count)
    return found[:count]


def changed(warm: Labeller, texts: list[str]) -> dict[str, int]:
    """Count answers that are not the same to the bit in other batches, threads and states of the memo."""
    fresh = partial(Labeller, LID_176.read_bytes(), LID_176.name)
    shared, expected = fresh(), ours(fresh(), texts)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda part: ours(shared, part, 7), (texts, texts[::-1]))
    again = {
        "batches_of_1": ours(fresh(), texts, 1), "batches_of_7": ours(fresh(), texts, 7),
        "batches_of_1000_memo_that_has_seen_all": ours(warm, texts), "one_thread": one, "another_thread": two[::-1],
    }  # fmt: skip
    found = {name: sum(a != b for a, b in zip(answers, expected, strict=True)) for name, answers in again.items()}
    alone = [ours(fresh(), [text])[0] for text in texts[::20]]
    return {**found, "empty_memo_for_each": sum(a != b for a, b in zip(alone, expected[::20], strict=True))}


def main() -> int:
    """Label all texts with both; print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--every", type=int, default=50, help="every n-th text is labelled again in other ways")
    arguments = parser.parse_args()
    texts, model = [text for path in arguments.documents for text in lines_of(path)], labeller(LID_176)
    rows = list(zip(texts, ours(model, texts), librarys(texts), strict=True))
    same = [(abs(a[1] - b[1]), text, a[0], a[1], b[1]) for text, a, b in rows if a[0] == b[0] and a[0]]
    same.sort(key=lambda row: -row[0])
    beyond, differ = sum(row[0] > NEAR for row in same), sum(a[0] != b[0] for _, a, b in rows)
    errors = [
        (abs(mine - (right := exact(model, text, label or ""))), abs(other - right))
        for _, text, label, mine, other in same[: max(beyond, FURTHEST)]
    ]
    sample = texts[:: arguments.every]
    changes = changed(model, sample)
    print(json.dumps({
        "benchmark": "language_equality", "texts": len(texts), "labels_differ": differ, "beyond_5e-5": beyond,
        "largest_difference": same[0][0] if same else 0.0, "held_against_exact": len(errors),
        "library_further_from_exact": sum(mine < other for mine, other in errors),
        "our_largest_error": max((mine for mine, _ in errors), default=0.0),
        "library_largest_error": max((other for _, other in errors), default=0.0),
        "labelled_again": len(sample), "changed": changes,
    }))  # fmt: skip
    return 1 if differ or any(changes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
