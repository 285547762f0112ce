"""Shingle sets of clustered documents, laid out by cluster, so that a task over clusters reads one range a part.

Only documents in clusters are read again, and of exact copies one. A set takes 8 bytes a shingle, about as much as its
text. Groups of whole clusters hold 256 MiB of sets; a cluster that has more is a group of its own and comes through a
file that is mapped, so that memory holds its documents, not their sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from .. import RunError
from ..sharding.npy import npy_start
from ..sharding.store import Store
from ..transforms.kernels.minhash import digest_bands
from ..transforms.minhash import MinHash
from .runners import Job
from .stage import Meter, Receipt, Stage, run_task
from .views import Part, View, get_array, part_bounds, put_array

GROUP_BYTES = 256 << 20
LARGE = 256  # members; of larger clusters, only pairs that share a band are compared
ADDRESS, LABEL, COUNT, MARK = range(4)  # columns of a part's list of sets


@dataclass(frozen=True)
class Clustered:
    """A part, and which of the documents that are looked at are its own."""

    part: Part
    first: int
    last: int

    @property
    def name(self) -> str:
        """What people call it."""
        return self.part.name


@dataclass(frozen=True)
class Shingle:
    """Write the shingle sets of a part's clustered documents, cluster by cluster."""

    stage: Stage
    prefix: str
    minhash: MinHash
    view: View
    asked: str  # (n, 3) address, cluster, whether the cluster is large

    def __call__(self, task: Clustered) -> None:
        """Commit the part's sets unless they stand."""
        run_task(self.stage, sets_key(self.prefix, task.part), partial(self.compute, task))

    def compute(self, task: Clustered, folder: Path, meter: Meter) -> Receipt:
        """Read the texts of these rows; write their sets, digests by band of large clusters, and the list."""
        store = self.stage.store
        asked = read_rows(store, self.asked, task.first, task.last, 3)
        large = asked[:, 2].astype(bool)
        listed = np.empty((len(asked), 4), np.uint64)
        listed[:, [ADDRESS, LABEL]] = asked[:, :2]
        digests = [np.zeros((0, self.minhash.bands, 2), np.uint64)]
        done = 0
        with (folder / "by row").open("wb") as file, meter.on("shingles"):
            for at, texts in self._texts(task.part, asked[:, 0] & np.uint64(0xFFFFFFFF)):
                offsets, values = self.minhash.shingle_sets(texts)
                values.tofile(file)
                listed[at, COUNT] = np.diff(offsets)
                listed[at, MARK] = [
                    xxhash.xxh3_64_intdigest(values[start:end].data) for start, end in pairwise(offsets.tolist())
                ]
                if (of := large[at]).any():
                    signed = self.minhash.signatures(texts.filter(of))[0]
                    digests.append(digest_bands(signed, self.minhash.bands).transpose(1, 0, 2))
                done += len(at)
        if done != len(asked):
            raise RunError(f"{task.name} gave {done} of {len(asked)} documents a second time: its input has changed")
        order = np.argsort(asked[:, 1], kind="stable")
        in_order(folder / "by row", listed[:, COUNT].astype(np.int64), order, folder / "sets")
        banded = np.concatenate(digests)[rank_of(large)[order[large[order]]]]
        (folder / "bands").write_bytes(banded.tobytes() + b"end")
        return {
            "part": task.part.key,
            "documents": len(asked),
            "listed": put_array(store, listed[order], f"{self.prefix}-listed"),
            "sets": store.put(folder / "sets", f"data/{self.prefix}-sets-", ".bin"),
            "bands": store.put(folder / "bands", f"data/{self.prefix}-bands-", ".bin"),
        }

    def _texts(self, part: Part, rows: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """Give the texts of these rows, sorted, as they are met: places in `rows`, texts."""
        for met, batch in self.view.batches(part, ["text"]):
            first, last = np.searchsorted(rows, [met[0], met[-1] + 1])
            if first == last:
                continue
            at = np.searchsorted(met, rows[first:last].astype(np.int64))
            there = met[np.minimum(at, len(met) - 1)] == rows[first:last].astype(np.int64)
            yield np.arange(first, last)[there], batch.column("text").take(at[there])
            if last == len(rows):
                return


def sets_key(prefix: str, part: Part) -> str:
    """Name the receipt of a part's sets."""
    return f"{prefix}-sets-{part.number:06d}"


def in_order(source: Path, counts: NDArray[np.int64], order: NDArray[np.int64], target: Path) -> None:
    """Copy stretches of 8-byte values, `counts` long, from one file to another in another order."""
    values, ends = mapped(source, np.uint64), np.cumsum(counts)
    with target.open("wb") as file:
        for place in order.tolist():
            file.write(values[ends[place] - counts[place] : ends[place]].data)
        file.write(b"end")  # an object is never empty


def mapped(path: Path, kind: Any) -> NDArray[Any]:
    """Map a file of whole values; what is written there stays in memory."""
    if path.stat().st_size < np.dtype(kind).itemsize:
        return np.zeros(0, kind)
    count = path.stat().st_size // np.dtype(kind).itemsize
    return np.asarray(np.memmap(path, kind, mode="c", shape=(count,)))


def rank_of(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the places that are flagged, from 0."""
    return np.cumsum(flags) - 1


def read_rows(store: Store, name: str, first: int, last: int, width: int) -> NDArray[np.uint64]:
    """Read rows [first, last) of an array object of `width` columns."""
    head = npy_start(store.read(name, start=0, end=10))
    body = store.read(name, start=head + 8 * width * first, end=head + 8 * width * last) if last > first else b""
    return np.frombuffer(body, np.uint64).reshape(-1, width)


@dataclass(frozen=True)
class Held:
    """One part's sets."""

    listed: str  # (n, 4), by cluster, then address
    sets: str
    bands: str


@dataclass(frozen=True)
class Sets:
    """The sets of all clustered documents: where each part's lie, and which range of each belongs to a group."""

    stage: Stage
    prefix: str
    bands: int
    held: tuple[Held, ...]
    plan: str  # (groups + 1, 3 · parts): documents, shingles and digests of each part before a group
    groups: int
    bounds: NDArray[np.uint64]  # (groups,) the first cluster of each

    def range(self, group: int) -> NDArray[np.int64]:
        """Give what belongs to a group: (parts, 3, 2) first and last of documents, shingles and digests."""
        both = read_rows(self.stage.store, self.plan, group, group + 2, 3 * len(self.held)).astype(np.int64)
        return both.reshape(2, -1, 3).transpose(1, 2, 0)


def shingle(
    stage: Stage,
    prefix: str,
    minhash: MinHash,
    parts: Sequence[Part],
    view: View,
    nodes: NDArray[np.uint64],
    labels: NDArray[np.uint64],
    launch: Callable[[Job], None],
) -> Sets:
    """Make the sets of documents, sorted by address, of clusters named by `labels`; plan the groups of clusters."""
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    asked = put_array(stage.store, np.stack([nodes, labels, (sizes > LARGE)[inverse]], axis=1), f"{prefix}-asked")
    bounds = part_bounds(nodes, len(parts)).astype(np.int64)
    tasks = [
        Clustered(parts[number], int(bounds[number]), int(bounds[number + 1]))
        for number in np.flatnonzero(np.diff(bounds)).tolist()
    ]
    keys = [sets_key(prefix, task.part) for task in tasks]
    if not set(keys) <= stage.committed():
        launch(Job("shingles", tasks, Shingle(stage, prefix, minhash, view, asked)))
    receipts = stage.receipts(keys)
    held = tuple(Held(receipt["listed"], receipt["sets"], receipt["bands"]) for receipt in receipts)
    return plan_groups(stage, prefix, minhash.bands, held, labels, inverse, sizes)


def plan_groups(
    stage: Stage,
    prefix: str,
    bands: int,
    held: tuple[Held, ...],
    labels: NDArray[np.uint64],
    inverse: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> Sets:
    """Deal whole clusters, by their smallest addresses, into groups of at most 256 MiB, or of one."""
    clusters = np.unique(labels)
    weights, first = np.where(sizes > LARGE, sizes * 16 * bands, 0) + 32 * sizes, 0
    lists = []
    for one in held:
        listed = get_array(stage.store, one.listed)
        at = np.searchsorted(clusters, listed[:, LABEL])
        weights += np.bincount(at, 8 * listed[:, COUNT].astype(np.float64), len(clusters)).astype(np.int64)
        lists.append((at, listed[:, COUNT]))
    total, starts = np.cumsum(weights), []
    while first < len(clusters):
        starts.append(first)
        before = total[first - 1] if first else 0
        first = max(first + 1, int(np.searchsorted(total, before + GROUP_BYTES, "right")))
    edges = np.array([*starts, len(clusters)])
    plan = np.zeros((len(edges), len(held), 3), np.uint64)
    for number, (at, counts) in enumerate(lists):
        cuts = np.searchsorted(at, edges)
        plan[:, number, 0] = cuts
        plan[:, number, 1] = np.r_[0, np.cumsum(counts)][cuts]
        plan[:, number, 2] = np.r_[0, np.cumsum(sizes[at] > LARGE)][cuts]
    name = put_array(stage.store, plan.reshape(len(edges), -1), f"{prefix}-plan")
    return Sets(stage, prefix, bands, held, name, len(starts), clusters[edges[:-1]])
