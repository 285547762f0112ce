"""Clusters: the forests of a match merged into one, who stays of each cluster, and the list of who goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.kernels.graph import components, spanning_forest
from ..transforms.schema import ID, id_sum
from .keep import keep_order
from .recipe import digest
from .stage import Receipt, Stage
from .views import Part, get_array, get_strings, part_bounds, put_array

FAN_IN = 64
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
        ("kind", pa.string()),  # url | exact | near | line | substring
        ("similarity", pa.float32()),  # true Jaccard with the one that stays; null where it was not computed
        ("kept_part", pa.int32()),
        ("kept_row", pa.int64()),
    ]
)


def merge(names: Sequence[str], read: Callable[[str], np.ndarray]) -> np.ndarray:
    """Merge forests by a tree of merges of 64: memory holds one merge's edges, a forest of n nodes has n − 1."""
    held = [read(name) for name in names[:FAN_IN]]
    if not held:
        return np.zeros((0, 2), np.uint64)
    forest = spanning_forest(np.concatenate(held))
    for start in range(FAN_IN, len(names), FAN_IN):
        forest = spanning_forest(np.concatenate([forest, *(read(name) for name in names[start : start + FAN_IN])]))
    return forest


@dataclass(frozen=True)
class Members:
    """The documents of all clusters, sorted by address."""

    nodes: NDArray[np.uint64]  # (n,) addresses
    labels: NDArray[np.uint64]  # (n,) the smallest address of each one's cluster
    ids: NDArray[np.uint64]  # (n, 2)
    contents: NDArray[np.uint64]  # (n, 2)
    keys: NDArray[np.uint64]  # (n, policies)
    own: pa.Array | None  # strings (n,)

    @classmethod
    def read(
        cls, store: Store, parts: Sequence[Part], signed: Sequence[Receipt], nodes: np.ndarray, labels: np.ndarray
    ) -> Members:
        """Look the documents up, part by part."""
        rows = nodes & np.uint64(0xFFFFFFFF)
        bounds = part_bounds(nodes, len(parts)).astype(np.int64)
        found: dict[str, list[np.ndarray]] = {"ids": [], "contents": [], "keys": []}
        own: list[pa.Array] = []
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            receipt, mine = signed[number], rows[bounds[number] : bounds[number + 1]]
            at = np.searchsorted(get_array(store, receipt["rows"]), mine)
            for name, arrays in found.items():
                arrays.append(get_array(store, receipt[name])[at])
            names = receipt["own"]
            own.append(
                pa.nulls(len(at), pa.string()) if names is None else get_strings(store, names).take(pa.array(at))
            )
        if not own:
            pairs = np.zeros((0, 2), np.uint64)
            return cls(nodes, labels, pairs, pairs, np.zeros((0, 1), np.uint64), None)
        strings = pa.chunked_array(own, pa.string()).combine_chunks()
        ids, contents, keys = (np.concatenate(held) for held in found.values())
        return cls(nodes, labels, ids, contents, keys, None if strings.null_count == len(strings) else strings)

    def ordered(self, keep: Sequence[str]) -> NDArray[np.int64]:
        """Order them by cluster, the one that stays first."""
        return keep_order(keep, self.labels, self.keys, self.own, self.contents, self.ids)


def settle_clusters(
    stage: Stage,
    keep: Sequence[str],
    kind: str | None,
    parts: Sequence[Part],
    signed: Sequence[Receipt],
    forests: Sequence[str],
    folder: Path,
) -> Receipt:
    """Turn the forests into clusters, choose what stays, write who goes and for whom.

    `kind` is that of every removal; None tells exact copies from near ones.
    """
    nodes, labels = components(merge(sorted(set(forests)), partial(get_array, stage.store)))
    members = Members.read(stage.store, parts, signed, nodes, labels)
    table, sizes = removals_table(members, keep, kind)
    return put_removals(stage.store, parts, table, folder) | {
        "count": len(sizes),
        "largest": int(sizes.max()) if len(sizes) else 0,
    }


def removals_table(members: Members, keep: Sequence[str], kind: str | None) -> tuple[pa.Table, NDArray[np.int64]]:
    """Give a row for every document that goes, sorted by address, and the sizes of the clusters."""
    by_id = keep_order(("smallest_id",), members.labels, members.keys, None, members.contents, members.ids)
    order = members.ordered(keep)
    labels = members.labels[order]
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]]) if len(labels) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, len(labels)])
    first = np.repeat(starts, sizes)
    gone = np.flatnonzero(np.arange(len(labels)) != first)
    gone = gone[np.argsort(members.nodes[order][gone], kind="stable")]
    kept, removed = order[first[gone]], order[gone]
    own = members.own if members.own is not None else pa.nulls(len(members.nodes), pa.string())
    exact = np.all(members.contents[kept] == members.contents[removed], axis=1)
    high, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    columns = [
        *(binary_ids(members.ids[rows]) for rows in (removed, kept)),
        *(own.take(pa.array(rows)) for rows in (removed, kept)),
        binary_ids(members.ids[by_id[first[gone]]]),  # both orders hold a cluster in the same places
        pa.array(np.repeat(sizes, sizes)[gone]),
        pa.array((members.nodes[removed] >> high).astype(np.int32)),
        pa.array((members.nodes[removed] & low).astype(np.int64)),
        pa.array([kind or ("exact" if same else "near") for same in exact.tolist()], pa.string()),
        pa.array(np.ones(len(gone), np.float32), mask=~exact),
        pa.array((members.nodes[kept] >> high).astype(np.int32)),
        pa.array((members.nodes[kept] & low).astype(np.int64)),
    ]
    return pa.table(columns, schema=CLUSTERS), sizes


def put_removals(store: Store, parts: Sequence[Part], table: pa.Table, folder: Path) -> Receipt:
    """Commit the table of who goes, sorted by address, and the list of their rows by part."""
    path = folder / "clusters.parquet"
    pq.write_table(table, path, compression="zstd")
    rows = table.column("row").to_numpy().astype(np.uint64)
    addresses = (table.column("part").to_numpy().astype(np.uint64) << np.uint64(32)) | rows
    return {
        "clusters": store.put(path, "clusters-", ".parquet"),
        "duplicates": len(table),
        "id_sum": str(id_sum(table.column("id").combine_chunks())) if len(table) else "0",
        "removals": put_array(store, rows, "removals"),
        "bounds": put_array(store, part_bounds(addresses, len(parts)), "bounds"),
        "digest": digest([part.key for part in parts]),
    }


def binary_ids(words: np.ndarray) -> pa.Array:
    """Give (n, 2) words as 16-byte ids."""
    return pa.FixedSizeBinaryArray.from_buffers(
        ID, len(words), [None, pa.py_buffer(np.ascontiguousarray(words).tobytes())]
    )
