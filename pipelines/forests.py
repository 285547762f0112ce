"""Forests: the edges of all parts and groups reduced by a tree of tasks over files, until one union-find can end it.

Every forest is sorted by the larger address of its edges. The leaves of the tree take ranges of that address, where
the edges of all bands that say the same meet: 15 bands of exact copies shrink to one there, while merges of whole files
shrink nothing until the root. Above, whole forests are merged as long as they fit a task. A task reads 8 Mi edges at a
time, 128 MiB, and holds them and the forest of its range: about 0.8 GB at most.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import CorruptDataError
from ..sharding.npy import npy_bytes, npy_start
from ..sharding.store import Store
from ..transforms.kernels.graph import spanning_forest
from .runners import Job
from .stage import Meter, Receipt, Stage, run_task

MERGE_EDGES = 8 << 20  # read at once by a task
SAMPLES = 16  # addresses that a receipt says of a forest: where its sixteenths begin
EDGE_BYTES = 16
ADDRESSES = 1 << 64
Edges = NDArray[np.uint64]


@dataclass(frozen=True)
class Forest:
    """A forest in a file: edges (smaller address, larger), sorted by the larger."""

    name: str
    edges: int
    others: tuple[int, ...]

    @classmethod
    def of(cls, receipt: Receipt) -> Forest:
        """Name it from the receipt that `put_forest` gave a part of."""
        return cls(receipt["forest"], receipt["edges"], tuple(receipt["others"]))

    def between(self, store: Store, low: int, high: int) -> Edges:
        """Read the edges whose larger address is in [low, high): one read, for the samples say about where they are."""
        sampled = list(zip(self.others, _places(self.edges), strict=True))
        first = max((place for other, place in sampled if other < low), default=0)
        last = min((place for other, place in sampled if other >= high), default=self.edges)
        edges = read_edges(store, self.name, first, last)
        begin = np.searchsorted(edges[:, 1], np.uint64(low))
        end = np.searchsorted(edges[:, 1], np.uint64(high - 1), side="right")
        return edges[begin:end]


def _places(edges: int) -> list[int]:
    """Say which edges of a forest are sampled."""
    return [edges * number // SAMPLES for number in range(SAMPLES)] if edges else []


def put_forest(store: Store, edges: Edges) -> Receipt:
    """Commit edges sorted by their larger addresses; give what a receipt says of them: `forest`, `edges`, `others`."""
    name = store.put(npy_bytes(np.ascontiguousarray(edges, "<u8")), "data/forest-", ".npy")
    return {"forest": name, "edges": len(edges), "others": [int(edges[place, 1]) for place in _places(len(edges))]}


def read_edges(store: Store, name: str, first: int, last: int) -> Edges:
    """Read the edges [first, last) of a forest."""
    if last <= first:
        return np.zeros((0, 2), np.uint64)
    head = npy_start(store.read(name, start=0, end=10))
    body = store.read(name, start=head + EDGE_BYTES * first, end=head + EDGE_BYTES * last)
    if len(body) != EDGE_BYTES * (last - first):
        raise CorruptDataError(
            f"{store.url}/{name} is damaged: it ends {EDGE_BYTES * (last - first) - len(body)} bytes early; "
            "restore it from a copy, or run into another output"
        )
    return np.frombuffer(body, "<u8").reshape(-1, 2)


def merge_forests(
    stage: Stage, forests: Sequence[Forest], launch: Callable[[Job], None], at_once: int = MERGE_EDGES
) -> list[Forest]:
    """Merge forests by tasks until they fit one, or no two of them do; give what is left, the same components.

    `launch` runs a job. Each level commits its receipts, and takes those that stand.
    """
    held = _distinct(forests)
    if sum(forest.edges for forest in held) <= at_once:
        return held
    spans = [_Span(number, low, high) for number, (low, high) in enumerate(_cut(held, at_once))]
    held = _level(stage, 0, at_once, held, spans, launch)
    level = 1
    while len(packed := _fitted(held, at_once)) < len(held):
        held = _level(stage, level, at_once, held, packed, launch)
        level += 1
    return held


def _distinct(forests: Iterable[Forest]) -> list[Forest]:
    """Leave out the empty and, of equal ones, all but one; in the order of their names, which their contents give."""
    return [forest for _, forest in sorted({forest.name: forest for forest in forests if forest.edges}.items())]


def _cut(forests: Sequence[Forest], at_once: int) -> list[tuple[int, int]]:
    """Cut the addresses into ranges of about as many edges as a task reads at once, by the samples."""
    others = np.concatenate([np.array(forest.others, np.uint64) for forest in forests])
    weights = np.concatenate([np.full(len(forest.others), forest.edges / len(forest.others)) for forest in forests])
    order = np.argsort(others, kind="stable")
    sums = np.cumsum(weights[order])
    ranges = int(-(-sums[-1] // at_once))
    steps = others[order][np.searchsorted(sums, sums[-1] * np.arange(1, ranges) / ranges)]
    edges = [0, *sorted({int(step) for step in steps} - {0}), ADDRESSES]
    return list(itertools.pairwise(edges))


@dataclass(frozen=True)
class _Span:
    """The task of a leaf: a range of larger addresses, of all forests."""

    number: int
    low: int
    high: int

    def pieces(self, store: Store, forests: Sequence[Forest]) -> Iterator[Edges]:
        """Read its edges forest by forest."""
        for forest in forests:
            yield forest.between(store, self.low, self.high)


@dataclass(frozen=True)
class _Several:
    """The task above the leaves: these forests, whole."""

    number: int
    first: int
    last: int

    def pieces(self, store: Store, forests: Sequence[Forest]) -> Iterator[Edges]:
        """Read them."""
        for forest in forests[self.first : self.last]:
            yield read_edges(store, forest.name, 0, forest.edges)


def _fitted(forests: Sequence[Forest], at_once: int) -> list[_Several]:
    """Group neighbours as long as a task can read them at once."""
    firsts, held = [0], 0
    for number, forest in enumerate(forests):
        if held and held + forest.edges > at_once:
            firsts.append(number)
            held = 0
        held += forest.edges
    bounds = [*firsts, len(forests)]
    return [_Several(number, first, last) for number, (first, last) in enumerate(itertools.pairwise(bounds))]


def _level(
    stage: Stage,
    level: int,
    at_once: int,
    forests: Sequence[Forest],
    tasks: Sequence[_Span | _Several],
    launch: Callable[[Job], None],
) -> list[Forest]:
    """Run the merges of one level that are not committed; give their forests."""
    plan = stage.run.put(pickle.dumps(tuple(forests)), "tasks/", ".pickle")
    merge = _Merge(stage, f"merge-{at_once}-{level}-of-{len(tasks)}", plan, at_once)
    keys, standing = [merge.key(task) for task in tasks], stage.committed()
    if left := [task for task, key in zip(tasks, keys, strict=True) if key not in standing]:
        launch(Job("merge", left, merge))
    return list(map(Forest.of, stage.receipts(keys)))


@lru_cache(4)
def _forests(store: Store, plan: str) -> tuple[Forest, ...]:
    """Read once a process what a level merges."""
    forests: tuple[Forest, ...] = pickle.loads(store.read(plan))
    return forests


@dataclass(frozen=True)
class _Merge:
    """Merge what a task reads into one forest."""

    stage: Stage
    named: str
    plan: str
    at_once: int

    def key(self, task: _Span | _Several) -> str:
        """Name a task's receipt."""
        return f"{self.named}-{task.number:04d}"

    def __call__(self, task: _Span | _Several) -> None:
        run_task(self.stage, self.key(task), partial(self.compute, task))

    def compute(self, task: _Span | _Several, folder: Path, meter: Meter) -> Receipt:
        """Read and reduce, as many edges at once as memory is planned for."""
        pieces = task.pieces(self.stage.store, _forests(self.stage.run, self.plan))
        with meter.on("merge"):
            return put_forest(self.stage.store, reduced(pieces, self.at_once))


def reduced(pieces: Iterable[Edges], at_once: int) -> Edges:
    """Reduce pieces to one spanning forest, whenever as many edges wait as are held at once."""
    forest, waiting, count = np.zeros((0, 2), np.uint64), [], 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece)
        if count >= at_once:
            forest, waiting, count = spanning_forest(np.concatenate([forest, *waiting])), [], 0
    return spanning_forest(np.concatenate([forest, *waiting]))
