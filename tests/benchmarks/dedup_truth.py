"""Precision and recall of `penstock dedup` at true Jaccard 0.8, computed exactly on a sample of a corpus's documents.

    python tests/benchmarks/dedup_truth.py web.warc.gz [--sample 1000]

What is true: documents whose sets of word 5-grams, after FineWeb's normalisation, have a Jaccard similarity of 0.8 or
more; a document under five words is one shingle. Every sampled document is compared with all documents of the corpus
through an inverted index of shingles, so that recall is over all its partners. Shingles are told apart by 64 bits.

Prints one JSON line. For the defaults and, where the command has it, for `--verify 0.7` and 0.8: `recall`, the share of
similar pairs that share a cluster; `expected`, what the bands alone promise for these pairs, the mean of
1 - (1 - J^8)^14, which chains in a cluster exceed; `precision`, the share of the pairs in one cluster that reach 0.8,
0.7 and 0.5; `removed_to_kept`, the same of removed documents and the one that stays. A pair counts once for each of its
documents that is in the sample.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from dedup_corpus import answer, command, has_option, megabytes_of, put, read_documents, removed_by
from dedup_peers_side import BANDS, NGRAM, ROWS, fineweb_words, shingles
from numpy.typing import NDArray

LEVELS = (0.8, 0.7, 0.5)
Rows = NDArray[np.int64]


class Sets(NamedTuple):
    """Sets of shingles, one behind the other: digests, sorted and distinct in each of the n sets."""

    offsets: Rows  # (n + 1,)
    values: NDArray[np.uint64]


class Pairs(NamedTuple):
    """Pairs of documents with their true Jaccard; `row` is in the sample."""

    row: Rows
    other: Rows
    jaccard: NDArray[np.float64]


def sets_of(texts: Iterable[str]) -> Sets:
    """Take each text's shingles."""
    from xxhash import xxh3_64_intdigest

    words, found = fineweb_words(), []
    for text in texts:
        split = words(text)
        digests = [xxh3_64_intdigest(one.encode()) for one in shingles(split) or [" ".join(split)]]
        found.append(np.unique(np.array(digests, np.uint64)))
    return Sets(np.cumsum([0, *map(len, found)]), np.concatenate(found))


def similar_pairs(sets: Sets, sample: Rows, least: float) -> Pairs:
    """Compare sampled documents with all: every pair of Jaccard `least` (above 0) or more, exactly."""
    sizes = np.diff(sets.offsets)
    order = np.argsort(sets.values, kind="stable")
    values, owners = sets.values[order], np.repeat(np.arange(len(sizes)), sizes)[order]
    found = []
    for row in sample.tolist():
        own = sets.values[sets.offsets[row] : sets.offsets[row + 1]]
        starts, ends = np.searchsorted(values, own, "left"), np.searchsorted(values, own, "right")
        counts = ends - starts
        places = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        common = np.bincount(owners[places], minlength=len(sizes))
        jaccard = common / (sizes + len(own) - common)
        jaccard[row] = 0
        others = np.flatnonzero(jaccard >= least)
        found.append((np.full(len(others), row), others, jaccard[others]))
    return Pairs(*map(np.concatenate, zip(*found, strict=True)))


def scores(pairs: Pairs, sample: Rows, cluster: Rows, kept: Rows) -> dict[str, Any]:
    """Hold clusters against the truth.

    `pairs` are all of Jaccard 0.5 and more of the sample; `cluster` and `kept` give, by row, a label and the row that
    stays (its own where the document stays).
    """
    together, true = cluster[pairs.row] == cluster[pairs.other], pairs.jaccard >= LEVELS[0]
    within = int((np.bincount(cluster)[cluster[sample]] - 1).sum())
    removed, to_kept = int((kept[sample] != sample).sum()), kept[pairs.row] == pairs.other

    def shares(which: NDArray[np.bool_], of: int) -> dict[str, float | None]:
        return {
            str(level): round(float((which & (pairs.jaccard >= level)).sum() / of), 4) if of else None
            for level in LEVELS
        }

    promised = 1 - (1 - pairs.jaccard[true] ** ROWS) ** BANDS
    return {
        "similar_pairs": int(true.sum()),
        "recall": round(float(together[true].mean()), 4) if true.any() else None,
        "expected": round(float(promised.mean()), 4) if true.any() else None,
        "pairs_in_clusters": within,
        "precision": shares(together, within),
        "removed": removed,
        "removed_to_kept": shares(to_kept, removed),
    }


def labels(ids: Sequence[str], source: Path, output: Path) -> tuple[Rows, Rows, int]:
    """Read a run: by row a cluster's label and the row that stays, and how many clusters there are."""
    row = {one: number for number, one in enumerate(ids)}
    cluster, kept, (_, clusters) = np.arange(len(ids)), np.arange(len(ids)), answer(source, output)
    for members in clusters:
        rows = sorted(row[one] for one in members)
        cluster[rows] = rows[0]
    for one, stays in removed_by(output):
        kept[row[one]] = row[stays]
    return cluster, kept, len(clusters)


def settings() -> list[list[str]]:
    """List the command's options to measure."""
    return [[], ["--verify", "0.7"], ["--verify", "0.8"]] if has_option("--verify") else [[]]


def main() -> int:
    """Find the truth once, hold every setting against it, print the line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--sample", type=int, default=1000, help="documents compared with all the others")
    arguments = parser.parse_args()
    documents = list(read_documents(arguments.documents))
    sets = sets_of(one["text"] for one in documents)
    chance = np.random.default_rng(1)
    sample = np.sort(chance.choice(len(documents), min(arguments.sample, len(documents)), replace=False))
    pairs, results = similar_pairs(sets, sample, min(LEVELS)), {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        put(documents, Path(folder) / "in", 8)
        for number, options in enumerate(settings()):
            output = Path(folder) / str(number)
            subprocess.run(command(Path(folder) / "in", output, *options), check=True, stdout=subprocess.DEVNULL)
            cluster, kept, count = labels([one["id"] for one in documents], Path(folder) / "in", output)
            found = {"clusters": count, "kept": int((kept == np.arange(len(kept))).sum())}
            results[" ".join(options) or "default"] = {**found, **scores(pairs, sample, cluster, kept)}
    print(json.dumps({
        "benchmark": "dedup_truth", "documents": len(documents), "mb": round(megabytes_of(documents), 1),
        "sample": len(sample), "ngram": NGRAM, "settings": results,
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
