"""Edges checked by the true Jaccard similarity of shingle sets, and clusters rebuilt from the edges that hold.

In clusters of up to 256 documents all pairs are compared. In larger ones, those that share a band's bucket: all pairs
of up to 32 documents, else each document and up to 16 leaders, which are like none of the leaders before them.
Documents are taken in the order of their sets' digests, so the outcome is a function of the documents, wherever they
lie. Exact copies are linked without comparing; a text too short for a shingle is like its copies only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..transforms.kernels.graph import link, spanning_forest
from ..transforms.kernels.shingle_sets import jaccard_pairs
from ..transforms.kernels.verified import flatten, join_alike, join_buckets
from ..transforms.minhash import MinHash
from .runners import Job
from .shingled import ADDRESS, COUNT, LABEL, LARGE, MARK, Sets, mapped, rank_of, read_rows
from .stage import Meter, Receipt, run_task
from .views import get_array, put_array

LEADERS = 16  # of a bucket
_DENOMINATOR = 1_000_000  # of a threshold


def fraction(threshold: float) -> tuple[int, int]:
    """Give a threshold as it is written: 0.7 is 7 / 10, not the binary number next to it."""
    exact = Fraction(repr(float(threshold))).limit_denominator(_DENOMINATOR)
    return exact.numerator, exact.denominator


def copies(nodes: NDArray[np.uint64], labels: NDArray[np.uint64], contents: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Link the documents of one cluster and one content: star edges (m, 2) from the smallest address of each."""
    within = contents.copy()
    within[:, 0] ^= labels * np.uint64(0x9E3779B97F4A7C15)  # the same text in another cluster is another
    return link(within, nodes)


@dataclass(frozen=True)
class Group:
    """Some whole clusters."""

    number: int

    @property
    def name(self) -> str:
        """What people call it."""
        return f"group {self.number} of clusters"


@dataclass(frozen=True)
class Loaded:
    """A group's sets: what is listed of each (n, 4), and the sets laid end to end."""

    listed: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    values: NDArray[np.uint64]
    bands: NDArray[np.uint64]  # (large, bands, 2), in the same order

    @classmethod
    def of(cls, sets: Sets, group: int, folder: Path) -> Loaded:
        """Read a group's range of every part into files, and map them."""
        store, listed = sets.stage.store, [np.zeros((0, 4), np.uint64)]
        with (folder / "sets").open("wb") as values, (folder / "bands").open("wb") as bands:
            for one, (rows, shingles, digests) in zip(sets.held, sets.range(group).tolist(), strict=True):
                listed.append(read_rows(store, one.listed, rows[0], rows[1], 4))
                for file, name, (first, last), width in (
                    (values, one.sets, shingles, 8),
                    (bands, one.bands, digests, 16 * sets.bands),
                ):
                    if last > first:
                        file.write(store.read(name, start=width * first, end=width * last))
        joined = np.concatenate(listed)
        offsets = np.zeros(len(joined) + 1, np.int64)
        np.cumsum(joined[:, COUNT], out=offsets[1:])
        digests = mapped(folder / "bands", np.uint64).reshape(-1, sets.bands, 2)
        return cls(joined, offsets, mapped(folder / "sets", np.uint64), digests)

    def large(self, bounds: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Give the stretches that are too many for all pairs."""
        at = np.flatnonzero(np.diff(bounds) > LARGE)
        return list(zip(bounds[at].tolist(), bounds[at + 1].tolist(), strict=True))

    def buckets(
        self, order: NDArray[np.int64], first: int, end: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Give, for each band, members [first, end) of a large cluster by bucket, and where buckets begin and end."""
        members = np.arange(first, end)
        members = members[self.listed[order[members], COUNT] > 0]
        _, of, sizes = np.unique(self.listed[:, LABEL], return_inverse=True, return_counts=True)
        rows = rank_of((sizes > LARGE)[of])[order[members]]
        for band in range(self.bands.shape[1]):
            digests = self.bands[rows, band]
            bucket = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: members stay in order within one
            digests = digests[bucket]
            starts = np.flatnonzero(np.any(digests[1:] != digests[:-1], axis=1)) + 1
            yield members[bucket], np.r_[0, starts, len(members)]


@dataclass(frozen=True)
class Edges:
    """Find the edges of a group of clusters that hold."""

    sets: Sets
    numerator: int
    denominator: int

    def __call__(self, group: Group) -> None:
        """Commit the group's edges unless they stand."""
        run_task(self.sets.stage, edges_key(self.sets, group.number), partial(self.compute, group))

    def compute(self, group: Group, folder: Path, meter: Meter) -> Receipt:
        """Join what is alike; write a forest, n − 1 edges a cluster that is left."""
        with meter.on("compare"):
            held = Loaded.of(self.sets, group.number, folder)
            listed, sets = held.listed, (held.offsets, held.values, self.numerator, self.denominator)
            order = np.lexsort((listed[:, ADDRESS], listed[:, MARK], listed[:, LABEL]))
            labels, parent = listed[order, LABEL], np.arange(len(order))
            bounds = np.r_[0, np.flatnonzero(labels[1:] != labels[:-1]) + 1, len(labels)].astype(np.int64)
            compared = join_alike(bounds, order, *sets, LARGE, parent)
            for first, end in held.large(bounds):
                for bucket, inner in held.buckets(order, first, end):
                    compared += join_buckets(bucket, inner, order, *sets, LEADERS, parent)
            flatten(parent)
            joined = parent != np.arange(len(parent))
            addresses = listed[order, ADDRESS]
            forest = spanning_forest(np.stack([addresses[joined], addresses[parent[joined]]], axis=1))
        name = put_array(self.sets.stage.store, forest, f"{self.sets.prefix}-edges")
        return {"documents": len(listed), "compared": int(compared), "edges": len(forest), "forest": name}


@dataclass(frozen=True)
class Similarities:
    """Compare given pairs of documents of a group of clusters."""

    sets: Sets
    pairs: str  # (m, 2) addresses, by group
    bounds: tuple[int, ...]  # (groups + 1,)

    def __call__(self, group: Group) -> None:
        """Commit the group's figures unless they stand."""
        run_task(self.sets.stage, similarity_key(self.sets, group.number), partial(self.compute, group))

    def compute(self, group: Group, folder: Path, meter: Meter) -> Receipt:
        """Write sizes of intersection and union: (m, 2)."""
        store = self.sets.stage.store
        with meter.on("compare"):
            held = Loaded.of(self.sets, group.number, folder)
            order = np.argsort(held.listed[:, ADDRESS])
            pairs = read_rows(store, self.pairs, self.bounds[group.number], self.bounds[group.number + 1], 2)
            places = order[np.searchsorted(held.listed[order, ADDRESS], pairs)]
            figures = np.stack(jaccard_pairs(held.offsets, held.values, places), axis=1).astype(np.uint64)
        return {"pairs": len(pairs), "figures": put_array(store, figures, "similarity")}


def edges_key(sets: Sets, group: int) -> str:
    """Name the receipt of a group's edges."""
    return f"{sets.prefix}-edges-{group:06d}"


def similarity_key(sets: Sets, group: int) -> str:
    """Name the receipt of a group's similarities."""
    return f"{sets.prefix}-similarity-{group:06d}"


def verified(sets: Sets, threshold: float, launch: Callable[[Job], None]) -> list[Receipt]:
    """Find the edges of similarity `threshold` or more; give the receipts, each with a `forest`."""
    return _groups(sets, "verify", Edges(sets, *fraction(threshold)), edges_key, launch)


def similarities(
    sets: Sets, labels: NDArray[np.uint64], pairs: NDArray[np.uint64], launch: Callable[[Job], None]
) -> NDArray[np.float32]:
    """Give the true Jaccard similarity of pairs of addresses (m, 2), of the clusters `labels` (m,): (m,).

    That of texts too short for a shingle is 0.
    """
    group = np.searchsorted(sets.bounds, labels, "right")
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(1, sets.groups + 2)).tolist()
    task = Similarities(sets, put_array(sets.stage.store, pairs[order], "pairs"), tuple(bounds))
    receipts = _groups(sets, "similarity", task, similarity_key, launch)
    figures = [get_array(sets.stage.store, receipt["figures"]) for receipt in receipts]
    shared, union = np.concatenate([np.zeros((0, 2), np.uint64), *figures]).T.astype(np.float64)
    found = np.zeros(len(pairs), np.float32)
    found[order] = shared / np.maximum(union, 1)
    return found


def _groups(
    sets: Sets,
    name: str,
    task: Callable[[Group], None],
    key: Callable[[Sets, int], str],
    launch: Callable[[Job], None],
) -> list[Receipt]:
    """Run a task over all groups unless its receipts stand; give them in order."""
    keys = [key(sets, number) for number in range(sets.groups)]
    if not set(keys) <= sets.stage.committed():
        launch(Job(name, [Group(number) for number in range(sets.groups)], task))
    return sets.stage.receipts(keys)


def warm_edges(minhash: MinHash, texts: pa.Array) -> None:
    """Compile what verifying needs."""
    offsets, values = minhash.shingle_sets(texts)
    members = np.arange(len(texts))
    bounds, parent = np.array([0, len(texts)]), members.copy()
    join_alike(bounds, members, offsets, values, 1, 2, LARGE, parent)
    join_buckets(members, bounds, members, offsets, values, 1, 2, LEADERS, parent)
    flatten(parent)
    jaccard_pairs(offsets, values, np.zeros((1, 2), np.int64))
