"""Clusters: the forests of a match merged into one, who stays of each cluster, and the list of who goes.

The client holds arrays only, some 100 bytes for a document that is in a cluster and has no own id, no Python object for
any: 100 million documents with 30 million in clusters take about 4 GB. The table is written a million documents at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.kernels.choose import choose
from ..transforms.kernels.graph import spanning_forest
from ..transforms.schema import ID, id_sum
from ..transforms.step import utf8_buffers
from .dedup_index import NONE_EARLIER, Earlier
from .keep import require_values
from .recipe import digest
from .stage import Receipt
from .views import Part, get_array, get_strings, part_bounds, put_array

FAN_IN = 64
HIGH, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
CHUNK = 1 << 20  # documents in clusters a row group
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
        ("kept_batch", pa.string()),  # of an index, which the one that stays came in; null for this run's own
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
class Sources:
    """Where what is known of documents lies: in the objects that each part's signature left."""

    store: Store
    parts: Sequence[Part]
    signed: Sequence[Receipt]

    @property
    def as_they_are(self) -> bool:
        """Whether contents are compared without normalisation: one digest serves for both."""
        return all(receipt["contents"] == receipt["texts"] for receipt in self.signed)

    def places(self, nodes: NDArray[np.uint64]) -> Iterator[tuple[int, slice, NDArray[np.int64]]]:
        """Give, for each part that sorted addresses name, its number, which they are, their places in its arrays."""
        rows = nodes & np.uint64(0xFFFFFFFF)
        bounds = part_bounds(nodes, len(self.parts)).astype(np.int64)
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            mine = slice(int(bounds[number]), int(bounds[number + 1]))
            yield number, mine, np.searchsorted(get_array(self.store, self.signed[number]["rows"]), rows[mine])

    def array(self, name: str, nodes: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
        """Read what a signature says of documents at sorted addresses: (n, width)."""
        found = np.empty((len(nodes), width), np.uint64)
        for number, mine, at in self.places(nodes):
            found[mine] = get_array(self.store, self.signed[number][name])[at]
        return found

    def own(self, nodes: NDArray[np.uint64]) -> pa.Array | None:
        """Read the user's own ids of documents at sorted addresses, (n,) large strings; None where no one has any."""
        if all(receipt["own"] is None for receipt in self.signed):
            return None
        found = []
        for number, _, at in self.places(nodes):
            name = self.signed[number]["own"]
            held = pa.nulls(len(at), pa.string()) if name is None else get_strings(self.store, name).take(pa.array(at))
            found.append(held.cast(pa.large_string()))
        return pa.chunked_array(found, pa.large_string()).combine_chunks()


@dataclass(frozen=True)
class Members:
    """The documents of all clusters, sorted by address."""

    nodes: NDArray[np.uint64]  # (n,) addresses
    roots: NDArray[np.int64]  # (n,) the place of the smallest address of each one's cluster
    ids: NDArray[np.uint64]  # (n, 2)
    contents: NDArray[np.uint64]  # (n, 2) digests of the normalised texts
    texts: NDArray[np.uint64]  # (n, 2) digests of the texts as they are
    keys: NDArray[np.uint64]  # (n, policies)
    own: pa.Array | None  # large strings (n,)

    @classmethod
    def read(
        cls, sources: Sources, nodes: NDArray[np.uint64], labels: NDArray[np.uint64], keep: Sequence[str]
    ) -> Members:
        """Look the documents up, part by part; RunError where a policy's column has no value anywhere."""
        ids, contents = (sources.array(name, nodes, 2) for name in ("ids", "contents"))
        texts = contents if sources.as_they_are else sources.array("texts", nodes, 2)
        keys = sources.array("keys", nodes, len(keep))
        require_values(keep, keys, (get_array(sources.store, receipt["keys"]) for receipt in sources.signed))
        return cls(nodes, np.searchsorted(nodes, labels), ids, contents, texts, keys, sources.own(nodes))

    def sizes(self) -> NDArray[np.int64]:
        """Count the documents of each cluster, at the place of its root; 0 elsewhere."""
        return np.bincount(self.roots, minlength=len(self.nodes))

    def chosen(self, keep: Sequence[str]) -> NDArray[np.int64]:
        """Give, at the place of each cluster's root, the place of the document that stays; elsewhere −1."""
        decisive = keep.index("smallest_id") if "smallest_id" in keep else len(keep)
        offsets, data = utf8_buffers(pa.array([], pa.string()) if self.own is None else self.own)
        has = np.zeros(0, bool) if self.own is None else np.asarray(self.own.is_valid())
        return self._choose(self.keys[:, :decisive], decisive < len(keep), offsets, data, has)

    def smallest(self) -> NDArray[np.int64]:
        """Give, at the place of each cluster's root, the place of its smallest id, which names the cluster."""
        offsets, data = utf8_buffers(pa.array([], pa.string()))
        return self._choose(self.keys[:, :0], True, offsets, data, np.zeros(0, bool))

    def _choose(
        self,
        keys: NDArray[np.uint64],
        by_id: bool,
        offsets: NDArray[np.int64],
        data: NDArray[np.uint8],
        has: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        ids = self.ids.view(np.uint8).reshape(-1, 16)
        return choose(self.roots, np.ascontiguousarray(keys), by_id, offsets, data, has.copy(), self.texts, ids)


def write_clusters(
    members: Members,
    kept: NDArray[np.int64],
    similarity: NDArray[np.float32],
    kind: str | None,
    path: Path,
    known: Earlier = NONE_EARLIER,
) -> NDArray[np.int64]:
    """Write a row for every document that goes, sorted by address; give their places.

    `kept` (n,) is the place of who stays for each; `similarity` (n,), NaN where nobody compared. `kind` is that of
    every removal; None tells exact copies from near ones. Of a cluster that has a `known` document all go, to that one.
    """
    gone = np.flatnonzero((kept != np.arange(len(kept))) | known.find(members.nodes[members.roots])[0])
    names, sizes = members.smallest(), members.sizes()
    with pq.ParquetWriter(path, CLUSTERS, compression="zstd") as writer:
        for start in range(0, len(gone), CHUNK):
            rows = gone[start : start + CHUNK]
            writer.write_table(_rows(members, rows, kept[rows], names, sizes, similarity[rows], kind, known))
    return gone


def _rows(
    members: Members,
    gone: NDArray[np.int64],
    kept: NDArray[np.int64],
    names: NDArray[np.int64],
    sizes: NDArray[np.int64],
    similarity: NDArray[np.float32],
    kind: str | None,
    known: Earlier,
) -> pa.Table:
    """Give rows of `CLUSTERS` for documents that go."""
    roots = members.roots[gone]
    indexed, at = known.find(members.nodes[roots])
    theirs, ours = pa.array(at, mask=~indexed), pa.array(kept, mask=indexed)
    ids, contents, nodes = members.ids[kept], members.contents[kept], members.nodes[kept]
    ids[indexed], contents[indexed] = known.ids[at[indexed]], known.contents[at[indexed]]
    exact = np.all(contents == members.contents[gone], axis=1)
    similarity = np.where(exact, np.float32(1), np.where(indexed, np.float32("nan"), similarity))
    columns = {
        "id": binary_ids(members.ids[gone]),
        "kept_id": binary_ids(ids),
        "source_id": _strings(members.own, pa.array(gone)),
        "kept_source_id": pc.coalesce(known.own.take(theirs), _strings(members.own, ours)),
        "cluster": binary_ids(members.ids[names[roots]]),
        "cluster_size": pa.array(sizes[roots]),
        "part": pa.array((members.nodes[gone] >> HIGH).astype(np.int32)),
        "row": pa.array((members.nodes[gone] & LOW).astype(np.int64)),
        "kind": pa.array([kind or "near", kind or "exact"]).take(pa.array(exact.view(np.uint8))),
        "similarity": pa.array(similarity, mask=np.isnan(similarity)),
        "kept_part": pa.array((nodes >> HIGH).astype(np.int32), mask=indexed),
        "kept_row": pa.array((nodes & LOW).astype(np.int64), mask=indexed),
        "kept_batch": known.batches.take(theirs),
    }
    return pa.table([columns[name] for name in CLUSTERS.names], schema=CLUSTERS)


def _strings(own: pa.Array | None, rows: pa.Array) -> pa.Array:
    return pa.nulls(len(rows), pa.string()) if own is None else own.take(rows).cast(pa.string())


def put_removals(store: Store, parts: Sequence[Part], table: pa.Table, folder: Path) -> Receipt:
    """Commit a table of who goes, sorted by address, and the list of their rows by part."""
    path = folder / "clusters.parquet"
    pq.write_table(table, path, compression="zstd")
    total = id_sum(table.column("id").combine_chunks()) if len(table) else 0
    return put_listed(store, parts, path, addresses(table, "").astype(np.uint64), total)


def addresses(table: pa.Table, side: str) -> NDArray[np.int64]:
    """Give the addresses of those that go, or (`kept_`) of those that stay; −1 where there is none."""
    part, row = (table.column(f"{side}{name}").fill_null(-1).to_numpy().astype(np.int64) for name in ("part", "row"))
    return np.where(row < 0, -1, (part << 32) | row)


def put_listed(store: Store, parts: Sequence[Part], path: Path, gone: NDArray[np.uint64], total: int) -> Receipt:
    """Commit a written table of who goes, and the list of their rows by part; `total` sums their ids."""
    return {
        "clusters": store.put(path, "clusters-", ".parquet"),
        "duplicates": len(gone),
        "id_sum": str(total),
        "removals": put_array(store, gone & np.uint64(0xFFFFFFFF), "removals"),
        "bounds": put_array(store, part_bounds(gone, len(parts)), "bounds"),
        "digest": digest([part.key for part in parts]),
    }


def binary_ids(words: NDArray[np.uint64]) -> pa.Array:
    """Give (n, 2) words as 16-byte ids."""
    return pa.FixedSizeBinaryArray.from_buffers(
        ID, len(words), [None, pa.py_buffer(np.ascontiguousarray(words).tobytes())]
    )
