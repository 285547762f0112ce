"""The guard: clusters so large that transitive closure may have joined what is not alike.

A chain of near-duplicates, or pages that share a frame, can close over a whole source and leave one document of it.
Such clusters are named with what each source lost to them, and by choice rebuilt from edges of true similarity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clusters import Sources, binary_ids
from .duplicates import Guard

SHOWN = 100  # clusters in a receipt, the largest first
FEWEST = 100  # documents of a cluster whose share is asked about


@dataclass(frozen=True)
class Giants:
    """The clusters that the guard stops at, as they came in."""

    nodes: NDArray[np.uint64]  # (n,) addresses of their documents, sorted
    labels: NDArray[np.uint64]  # (n,) the smallest address of each one's cluster
    count: int

    @classmethod
    def of(cls, guard: Guard, nodes: NDArray[np.uint64], labels: NDArray[np.uint64], documents: int) -> Giants:
        """Find them among clusters of so many documents in all."""
        roots = np.searchsorted(nodes, labels)
        sizes = np.bincount(roots, minlength=len(nodes))
        stops = (sizes > guard.size) | ((sizes >= FEWEST) & (sizes > guard.share * documents))
        mine = stops[roots]
        return cls(nodes[mine], labels[mine], int(stops.sum()))

    def report(self, sources: Sources, gone: NDArray[np.uint64]) -> list[dict[str, Any]]:
        """Describe the largest: id, documents, different texts, and by source the documents lost and those there were.

        `gone` are the addresses of all documents that go, sorted. A cluster's id is the smallest of its documents.
        """
        totals: Counter[str] = Counter()
        for part, receipt in zip(sources.parts, sources.signed, strict=True):
            totals[part.source] += int(receipt["documents"])
        ids, contents = (sources.array(name, self.nodes, 2) for name in ("ids", "contents"))
        order = np.argsort(self.labels, kind="stable")
        sorted_labels = self.labels[order]
        found = []
        for rows in np.split(order, np.flatnonzero(sorted_labels[1:] != sorted_labels[:-1]) + 1) if len(order) else ():
            lost: Counter[str] = Counter()
            numbers, counts = np.unique(self.nodes[rows[np.isin(self.nodes[rows], gone)]] >> 32, return_counts=True)
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                lost[sources.parts[number].source] += count
            found.append(
                {
                    "cluster": min(binary_ids(ids[rows]).to_pylist()).hex(),
                    "documents": len(rows),
                    "contents": len(np.unique(contents[rows], axis=0)),
                    "removed": sum(lost.values()),
                    "sources": {name: [lost[name], totals[name]] for name in sorted(lost)},
                }
            )
        return sorted(found, key=lambda entry: (-entry["documents"], entry["cluster"]))[:SHOWN]


def guard_line(guard: Guard, count: int, report: Sequence[dict[str, Any]]) -> str | None:
    """Say in a sentence what the guard found; None where it found nothing."""
    if not count:
        return None
    largest = report[0]
    lost = max(largest["sources"].items(), key=lambda item: item[1][0], default=None)
    said = (
        f"guard: {count:,} {'cluster is' if count == 1 else 'clusters are'} suspiciously large; the largest joins "
        f"{largest['documents']:,} documents of {largest['contents']:,} different texts"
    )
    if lost is not None:
        said += f", by which {lost[0]!r} loses {lost[1][0]:,} of its {lost[1][1]:,}"
    if guard.split:
        return f"{said}, after a split at true similarity {guard.similarity}"
    return f"{said}; guard: {{split: true}} keeps joined only what is alike"
