"""Components of a graph that no memory holds: rounds of small-star and large-star over edge files dealt by node.

Kiveris et al. 2014, "Connected Components in MapReduce and Beyond": each round keeps the components, and the rounds end
as stars from the smallest addresses, after about the logarithm of the longest path. A node's edges lie in one of so
many partitions, by a hash of it; a task goes twice through one partition, 4 Mi edges at a time, and holds these and two
words a node: about 0.6 GB. A hub of any size is one node, its edges pass by. Each task of each round commits a
receipt, so that what was done stands.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ..sharding.store import Store
from ..transforms.kernels.graph import by_other, distinct_edges, sorted_pairs
from ..transforms.kernels.stars import least_of_each, star
from .forests import EDGE_BYTES, Edges, Forest, put_forest, read_edges
from .runners import Job
from .stage import Meter, Receipt, Stage, run_task

STAR_EDGES = 4 << 20  # read at once by a task
MOST_PARTITIONS = 1 << 14
Place = tuple[int, int, int]  # partition, first edge, end


def contract(
    stage: Stage, forests: Sequence[Forest], launch: Callable[[Job], None], at_once: int = STAR_EDGES
) -> list[Forest]:
    """Give the components of forests as stars: forests of (smallest address, other), each other in one of them.

    `launch` runs a job. Every edge stands twice while a round goes, so files take 64 bytes an edge and round.
    """
    total = sum(forest.edges for forest in forests)
    partitions = min(max(1, -(-2 * total // at_once)), MOST_PARTITIONS)
    rounds = _Rounds(stage, partitions, at_once, launch)
    dealt = rounds.run("deal", stage.run.put(pickle.dumps(tuple(forests)), "tasks/", ".pickle"), len(forests))
    number, changed = 0, True
    while changed:
        small = rounds.run(f"small-{number:02d}", _plan(stage, dealt), partitions)
        dealt = rounds.run(f"large-{number:02d}", _plan(stage, small), partitions)
        changed = any(receipt["changed"] for receipt in [*small, *dealt])
        number += 1
    return list(map(Forest.of, rounds.run("stars", _plan(stage, dealt), partitions)))


@dataclass(frozen=True)
class _Rounds:
    """Runs the jobs of one contraction."""

    stage: Stage
    partitions: int
    at_once: int
    launch: Callable[[Job], None]

    def run(self, kind: str, plan: str, tasks: int) -> list[Receipt]:
        """Run the tasks of a job that are not committed; give all receipts."""
        step = _Step(self.stage, kind, plan, self.partitions, self.at_once)
        keys, standing = list(map(step.key, range(tasks))), self.stage.committed()
        if left := [number for number, key in enumerate(keys) if key not in standing]:
            self.launch(Job(kind, left, step))
        return self.stage.receipts(keys)


def _plan(stage: Stage, receipts: Sequence[Receipt]) -> str:
    """Keep beside the run where the edges of each partition lie: by partition, (object, first edge, end)."""
    held: dict[int, list[tuple[str, int, int]]] = {}
    for receipt in receipts:
        for partition, first, end in receipt["places"]:
            held.setdefault(partition, []).append((receipt["object"], first, end))
    return stage.run.put(pickle.dumps(held), "tasks/", ".pickle")


@lru_cache(4)
def _read_plan(store: Store, plan: str) -> object:
    return pickle.loads(store.read(plan))


@dataclass(frozen=True)
class _Step:
    """One task of one job: what its kind does to the edges of a partition, or to a forest that is to be dealt."""

    stage: Stage
    kind: str
    plan: str
    partitions: int
    at_once: int

    def key(self, number: int) -> str:
        """Name a task's receipt."""
        return f"stars-{self.at_once}-of-{self.partitions}-{self.kind}-{number:05d}"

    def __call__(self, number: int) -> None:
        run_task(self.stage, self.key(number), partial(self.compute, number))

    def compute(self, number: int, folder: Path, meter: Meter) -> Receipt:
        """Do what the kind says."""
        with meter.on("stars"):
            if self.kind == "deal":
                return self.put(folder, ((np.ascontiguousarray(edges[:, ::-1]), 0) for edges in self.forest(number)))
            if self.kind == "stars":
                return put_forest(self.stage.store, self.collected(number))
            return self.put(folder, self.contracted(number))

    def forest(self, number: int) -> Iterator[Edges]:
        """Read a forest by pieces."""
        held = _read_plan(self.stage.run, self.plan)
        assert isinstance(held, tuple)
        for first in range(0, held[number].edges, self.at_once):
            last = min(first + self.at_once, held[number].edges)
            yield read_edges(self.stage.store, held[number].name, first, last)

    def partition(self, number: int) -> Iterator[Edges]:
        """Read the edges of a partition by pieces of about as many as are held at once, sorted by their first node."""
        held = _read_plan(self.stage.run, self.plan)
        assert isinstance(held, dict)
        waiting: list[Edges] = []
        for name, start, end in held.get(number, ()):
            for first in range(start, end, self.at_once):
                last = min(first + self.at_once, end)
                body = self.stage.store.read(name, start=EDGE_BYTES * first, end=EDGE_BYTES * last)
                waiting.append(np.frombuffer(body, "<u8").reshape(-1, 2))
                if sum(map(len, waiting)) >= self.at_once:
                    yield sorted_pairs(np.concatenate(waiting), 0)
                    waiting = []
        if waiting:
            yield sorted_pairs(np.concatenate(waiting), 0)

    def contracted(self, number: int) -> Iterator[tuple[Edges, int]]:
        """Give a star round's edges, (larger address, other), and how many changed, piece by piece."""
        least = np.zeros((0, 2), np.uint64)
        for edges in self.partition(number):
            least = least_of_each(sorted_pairs(np.concatenate([least, least_of_each(edges)]), 0))
        for edges in self.partition(number):
            yield star(edges, least, self.kind.startswith("large"))

    def collected(self, number: int) -> Edges:
        """Give a partition's edges when all are stars: one for each address but the smallest of its component."""
        stars = np.zeros((0, 2), np.uint64)
        for edges in self.partition(number):
            stars = distinct_edges(np.concatenate([stars, edges]))
        return by_other(np.ascontiguousarray(stars[:, ::-1]))

    def put(self, folder: Path, pieces: Iterable[tuple[Edges, int]]) -> Receipt:
        """Write edges by the partition of their first node, before a large-star both ways round; repeats go."""
        places: list[Place] = []
        path, at, changes = folder / "edges", 0, 0
        with path.open("wb") as file:
            for edges, changed in pieces:
                changes += changed
                both = np.concatenate([edges, edges[:, ::-1]]) if self.kind.startswith("small") else edges
                for partition, some in self.dealt(distinct_edges(both)):
                    file.write(np.ascontiguousarray(some, "<u8").view(np.uint8).data)
                    places.append((partition, at, at := at + len(some)))
            file.write(b"end")
        name = self.stage.store.put(path, "data/edges-", ".bin")
        return {"edges": at, "changed": changes, "object": name, "places": places}

    def dealt(self, edges: Edges) -> Iterator[tuple[int, Edges]]:
        """Deal edges by a hash of their first node."""
        mixed = edges[:, 0] * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        partition = ((mixed >> np.uint64(32)) % np.uint64(self.partitions)).astype(np.uint16)
        order = np.argsort(partition, kind="stable")
        bounds = np.searchsorted(partition[order], np.arange(self.partitions + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            yield number, edges[order[bounds[number] : bounds[number + 1]]]
