"""Clusters: the forests of a match merged into one, who stays of each cluster, and the list of who goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import CorruptDataError
from ..sharding.npy import npy_array, npy_bytes, npy_start
from ..sharding.store import Store
from ..transforms.kernels.graph import components, spanning_forest
from ..transforms.schema import ID, id_sum
from .recipe import digest
from .stage import Receipt, Stage
from .tables import parquet

FAN_IN = 64
WORD = np.dtype("<u8")  # of ids, addresses, lengths: all that a match writes down
#: A row for every document that goes.
CLUSTERS = pa.schema(
    [
        ("id", ID),
        ("kept_id", ID),
        ("source_id", pa.string()),  # the user's own id of each, where a column is mapped to it
        ("kept_source_id", pa.string()),
        ("cluster", ID),
        ("cluster_size", pa.int64()),
        ("part", pa.int32()),
        ("row", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Part:
    """One Parquet file of documents, and its number: the high half of its rows' addresses."""

    number: int
    key: str  # names the content: equal for equal documents wherever they lie
    store: Store
    name: str
    documents: int


def put_array(store: Store, array: np.ndarray, name: str) -> str:
    """Commit an array as an `.npy` object."""
    return store.put(npy_bytes(array), f"data/{name}-", ".npy")


def get_array(store: Store, name: str) -> np.ndarray:
    """Read an array back."""
    try:
        return npy_array(store.read(name), WORD)
    except ValueError as error:
        raise CorruptDataError(
            f"{store.url}/{name} is damaged: {error}; restore it from a copy, or run into another output"
        ) from error


def merge(names: Sequence[str], read: Callable[[str], np.ndarray]) -> np.ndarray:
    """Merge forests by a tree of merges of 64: memory holds one merge's edges, a forest of n nodes has n − 1."""
    held = [read(name) for name in names[:FAN_IN]]
    if not held:
        return np.zeros((0, 2), np.uint64)
    forest = spanning_forest(np.concatenate(held))
    for start in range(FAN_IN, len(names), FAN_IN):
        forest = spanning_forest(np.concatenate([forest, *(read(name) for name in names[start : start + FAN_IN])]))
    return forest


def settle_clusters(
    stage: Stage, keep: str, parts: Sequence[Part], signed: Sequence[Receipt], forests: Sequence[str], folder: Path
) -> Receipt:
    """Turn the forests into clusters, choose what stays, write who goes and for whom."""
    nodes, labels = components(merge(sorted(set(forests)), partial(get_array, stage.store)))
    ids, lengths = _of_nodes(stage, signed, nodes)
    by_id = ids[keep_order("smallest_id", ids, lengths, labels)]
    order = keep_order(keep, ids, lengths, labels)
    own = own_ids(parts, nodes)
    nodes, labels, ids, own = nodes[order], labels[order], ids[order], own[order]
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]]) if len(nodes) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, len(nodes)])
    first = np.repeat(starts, sizes)
    gone = np.flatnonzero(np.arange(len(nodes)) != first)
    gone = gone[np.argsort(nodes[gone], kind="stable")]
    kept, removed = first[gone], nodes[gone]
    rows = removed & np.uint64(0xFFFFFFFF)
    columns = [
        *(binary_ids(column) for column in (ids[gone], ids[kept])),
        *(pa.array(column, pa.string()) for column in (own[gone], own[kept])),
        binary_ids(by_id[kept]),  # both orders hold a cluster in the same places
        pa.array(np.repeat(sizes, sizes)[gone]),
        pa.array((removed >> np.uint64(32)).astype(np.int32)),
        pa.array(rows.astype(np.int64)),
    ]
    path = folder / "clusters.parquet"
    pq.write_table(pa.table(columns, schema=CLUSTERS), path, compression="zstd")
    edges = np.array([number << 32 for number in range(len(parts) + 1)], np.uint64)
    store = stage.store
    return {
        "clusters": store.put(path, "clusters-", ".parquet"),
        "count": len(starts),
        "duplicates": len(removed),
        "id_sum": str(id_sum(binary_ids(ids[gone]))),
        "removals": put_array(store, rows, "removals"),
        "bounds": put_array(store, np.searchsorted(removed, edges).astype(np.uint64), "bounds"),
        "largest": int(sizes.max()) if len(sizes) else 0,
        "digest": digest([part.key for part in parts]),
    }


def own_ids(parts: Sequence[Part], nodes: np.ndarray) -> np.ndarray:
    """Look up the user's own ids of addresses, None where there are none; `nodes` is sorted."""
    found = np.full(len(nodes), None, object)
    owners = (nodes >> np.uint64(32)).astype(np.int64)
    rows = (nodes & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for number in np.unique(owners):
        with parquet(parts[number].store, parts[number].name) as file:
            column = file.read(["source_id"], use_threads=False).column(0)
        if column.null_count < len(column):
            mine = owners == number
            found[mine] = np.array(column.take(pa.array(rows[mine])).to_pylist(), object)
    return found


def _of_nodes(stage: Stage, signed: Sequence[Receipt], nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Look up ids (n, 2) and lengths (n,) of addresses, part by part; `nodes` is sorted."""
    ids, lengths = np.zeros((len(nodes), 2), np.uint64), np.zeros(len(nodes), np.uint64)
    owners = (nodes >> np.uint64(32)).astype(np.int64)
    rows = (nodes & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for number in np.unique(owners):
        mine = owners == number
        ids[mine] = get_array(stage.store, signed[number]["ids"])[rows[mine]]
        lengths[mine] = get_array(stage.store, signed[number]["lengths"])[rows[mine]]
    return ids, lengths


def keep_order(policy: str, ids: np.ndarray, lengths: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Order rows by cluster, the one that stays first; ties by id."""
    big = ids.byteswap()
    if policy == "longest":
        return np.lexsort((big[:, 1], big[:, 0], ~lengths, labels))
    return np.lexsort((big[:, 1], big[:, 0], labels))


def binary_ids(words: np.ndarray) -> pa.Array:
    """Give (n, 2) words as 16-byte ids."""
    return pa.FixedSizeBinaryArray.from_buffers(
        ID, len(words), [None, pa.py_buffer(np.ascontiguousarray(words).tobytes())]
    )


@dataclass(frozen=True)
class RemovalList:
    """The rows that go, part by part, as `settle_clusters` left them: a range of one object for each part."""

    store: Store
    rows: str
    bounds: str

    @classmethod
    def of(cls, store: Store, receipt: Receipt) -> RemovalList:
        """Name it from the stage's last receipt."""
        return cls(store, receipt["removals"], receipt["bounds"])


@lru_cache(maxsize=512)
def removals(listed: RemovalList, part: int) -> np.ndarray:
    """Read the rows of a part that go, sorted."""
    head, bounds = _bounds(listed)
    first, last = (int(bound) for bound in bounds[part : part + 2])
    if last == first:
        return np.zeros(0, WORD)
    return np.frombuffer(listed.store.read(listed.rows, start=head + 8 * first, end=head + 8 * last), WORD)


@lru_cache(maxsize=4)
def _bounds(listed: RemovalList) -> tuple[int, np.ndarray]:
    """Give the bytes before the list's data, and where each part begins in it: once for all parts of a task."""
    return npy_start(listed.store.read(listed.rows, start=0, end=10)), get_array(listed.store, listed.bounds)
