"""Survey what a deduplication found: its tables read row group by row group into counts, examples and largest clusters.

Memory is bounded whatever the number of removals: one row group, counts, and samples of fixed size. Examples are chosen
by a keyed hash of the id, so the same run gives the same page, and spread over how similar the pairs are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.schema import id_words, keyed
from .dedup_texts import DedupTexts, Shown
from .duplicates import Dedup
from .stage import Stage
from .tables import row_groups

CLUSTERS = 12
MEMBERS = 4  # dropped copies named of each cluster
SLICE = 1 << 16  # rows looked at at once
POOL = 48  # pairs of each class held
CLASSES = ("url", "exact", "≥ 0.95", "0.8 – 0.95", "< 0.8", "unknown")  # of similarity, in the order of the page
BINS = 40  # of similarity from 0 to 1
ELSEWHERE, NOBODY = "an earlier batch", "no one document"
#: Stages, in their order, and the receipts that may name their table of removals, the first that stands.
STAGES = {
    "urls": ("clusters",), "duplicates": ("clusters-similarity", "clusters"), "lines": ("repeats",),
    "substrings": ("repeats",),
}  # fmt: skip
_COLUMNS = ("id", "kept_id", "source_id", "kept_source_id", "cluster", "cluster_size", "part", "row", "kind",
            "similarity", "kept_part", "kept_row", "kept_batch")  # fmt: skip


@dataclass
class Cluster:
    """Documents found to be the same: how many, which one stays, some of the others."""

    size: int
    cluster: bytes
    kept: bytes
    members: list[tuple[bytes, int, int]]  # (id, part, row), the smallest ids
    names: dict[bytes, str] = field(default_factory=dict)  # the user's own ids
    text: str | None = None


@dataclass(frozen=True)
class Pair:
    """A document that went and the one that stayed for it."""

    kind: str
    similarity: float | None
    ids: tuple[bytes, bytes]  # of the one that went, and the one that stayed
    places: tuple[tuple[int, int], tuple[int, int] | None]  # part and row; None in an earlier batch
    own: tuple[str | None, str | None]  # the user's own ids
    cluster_size: int
    batch: str | None = None  # the earlier batch that the one that stayed is in
    shown: tuple[Shown, Shown] | None = None

    @property
    def alike(self) -> str:
        """Name its class of similarity."""
        if self.kind in ("url", "exact"):
            return self.kind
        if self.similarity is None:
            return "unknown"
        return "≥ 0.95" if self.similarity >= 0.95 else "0.8 – 0.95" if self.similarity >= 0.8 else "< 0.8"


@dataclass
class Duplicates:
    """What a deduplication found."""

    removed: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # kind → documents that went
    cluster_sizes: dict[int, int] = field(default_factory=dict)  # size → clusters
    clusters: list[Cluster] = field(default_factory=list)  # the largest
    similarities: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))  # of near pairs
    sampled: int | None = None  # pairs whose similarity was computed here; None where the tables have it
    lost: dict[tuple[str, str], int] = field(default_factory=dict)  # (input, input of the kept document) → documents
    entered: dict[str, int] = field(default_factory=dict)  # documents of each input; empty where not known
    guarded: list[dict[str, Any]] = field(default_factory=list)  # what the stages say of suspicious clusters
    cuts: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # stage → documents, stretches, bytes cut
    pairs: list[Pair] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Count the clusters."""
        return sum(self.cluster_sizes.values())

    @property
    def largest(self) -> int:
        """Give the size of the largest cluster."""
        return max(self.cluster_sizes, default=0)

    def by_source(self) -> list[tuple[str, int]]:
        """Count what each input lost, the most first."""
        lost: dict[str, int] = {}
        for (source, _), count in self.lost.items():
            lost[source] = lost.get(source, 0) + count
        return sorted(lost.items(), key=lambda item: (-item[1], item[0]))


def settings_of(manifest: Mapping[str, Any]) -> Dedup | None:
    """Read a run's settings of deduplication; None where it has none."""
    value = manifest.get("dedup") or (manifest.get("recipe") or {}).get("dedup")
    return None if value is None else Dedup.model_validate(value)


def tables_of(run: Store, manifest: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name the tables of removals, and give the last receipt of the stage that wrote each."""
    made: list[tuple[str, dict[str, Any]]] = []
    for name, keys in STAGES.items():
        if hash_ := (manifest.get("stages") or {}).get(name):
            receipts = (Stage(name, hash_, run, ()).receipt(key) for key in keys)
            receipt = next((receipt for receipt in receipts if receipt is not None), None)
            made += [] if receipt is None else [(f"{name}/{hash_}/{receipt['clusters']}", receipt)]
    if not made and (named := (manifest.get("tables") or {}).get("clusters")):
        made.append((named, {}))
    return made


def survey_duplicates(run: Store, manifest: Mapping[str, Any], texts: DedupTexts | None = None) -> Duplicates:
    """Count what was removed, by kind, size, similarity and input; hold examples. `texts` reads them."""
    texts = texts or DedupTexts(run, manifest)
    made = Duplicates(entered=texts.documents)
    sources = sorted(set(texts.sources.values()))
    numbers = np.zeros(max(texts.sources, default=0) + 1, np.int64)
    for part, source in texts.sources.items():
        numbers[part] = sources.index(source)
    counter = _Counter(made, [*sources, ELSEWHERE, NOBODY], numbers)
    for name, receipt in tables_of(run, manifest):
        made.guarded += list(receipt.get("guarded") or ())
        if "cut_spans" in receipt:
            said = tuple(int(receipt[key]) for key in ("cut_documents", "cut_spans", "cut_bytes"))
            made.cuts[name.partition("/")[0]] = (said[0], said[1], said[2])
        for rows, _ in row_groups(run, name, _COLUMNS):
            for first in range(0, len(rows), SLICE):
                counter.add(rows.slice(first, SLICE))
        counter.end_table()
    counter.finish()
    return made


def binned(values: NDArray[Any]) -> NDArray[np.int64]:
    """Count similarities from 0 to 1 in 40 equal bins; 1 is in the last."""
    return np.bincount(np.minimum((values * BINS).astype(np.int64), BINS - 1), minlength=BINS).astype(np.int64)


class _Counter:
    """Counts row groups; neither their order nor their cut decides what is chosen."""

    def __init__(self, made: Duplicates, sources: list[str], numbers: NDArray[np.int64]) -> None:
        self.made, self.sources, self.numbers = made, sources, numbers
        self._lost = np.zeros(len(sources) ** 2, np.int64)
        self._rows_of_size: dict[tuple[int, int], int] = {}  # (size, how many of it go) → rows
        self._largest: dict[tuple[int, bytes], Cluster] = {}
        self._table = 0
        self._held: dict[str, list[tuple[int, Pair]]] = {}

    def add(self, rows: pa.Table) -> None:
        """Take a row group into the account."""
        if not len(rows):
            return
        rows = _complete(rows)
        self.made.removed += len(rows)
        for value in pc.value_counts(rows.column("kind")).to_pylist():
            self.made.kinds[value["values"]] = self.made.kinds.get(value["values"], 0) + value["counts"]
        self._sources(rows)
        rows = rows.filter(rows.column("cluster").is_valid())  # lines stood before in any documents
        if not len(rows):
            return
        earlier = rows.column("kept_batch").is_valid().combine_chunks()
        for whole, sizes in ((True, rows.filter(earlier)), (False, rows.filter(pc.invert(earlier)))):
            for size, count in _counts(sizes.column("cluster_size")):
                goes = size if whole else size - 1  # of a cluster that an earlier batch has, all go
                self._rows_of_size[size, goes] = self._rows_of_size.get((size, goes), 0) + count
        near = rows.filter(pc.equal(rows.column("kind"), "near"))
        known = near.column("similarity").drop_null().to_numpy()
        self.made.similarities = self.made.similarities + binned(known)
        self._clusters(rows)
        self._pairs(rows)

    def end_table(self) -> None:
        """Tell the clusters of one table from those of the next."""
        sizes = self.made.cluster_sizes
        for (size, goes), count in self._rows_of_size.items():
            sizes[size] = sizes.get(size, 0) + round(count / max(1, goes))
        self._rows_of_size, self._table = {}, self._table + 1

    def finish(self) -> None:
        """Hand over what was held."""
        self.made.cluster_sizes = dict(sorted(self.made.cluster_sizes.items()))
        self.made.clusters = list(self._largest.values())
        width = len(self.sources)
        self.made.lost = {
            (self.sources[at // width], self.sources[at % width]): int(self._lost[at])
            for at in np.flatnonzero(self._lost).tolist()
        }
        self.made.pairs = [pair for name in CLASSES for _, pair in self._held.get(name, ())]

    def _sources(self, rows: pa.Table) -> None:
        """Count removals by the input of the document that went and that of the one that stayed."""
        if len(self.sources) == 2:
            return
        gone, kept = (rows.column(name).to_numpy() for name in ("part", "kept_part"))
        nobody = np.asarray(rows.column("cluster").is_null()).astype(np.int64)
        missing = len(self.sources) - 2 + nobody
        kept = np.where(kept < 0, missing, self.numbers[np.clip(kept, 0, len(self.numbers) - 1)])
        self._lost += np.bincount(self.numbers[gone] * len(self.sources) + kept, minlength=len(self._lost))

    def _clusters(self, rows: pa.Table) -> None:
        """Hold the largest clusters and the members of smallest id of each."""
        sizes = rows.column("cluster_size").to_numpy()
        held = sorted((cluster.size for cluster in self._largest.values()), reverse=True)
        (fit,) = np.nonzero(sizes >= (held[CLUSTERS - 1] if len(held) >= CLUSTERS else 0))
        for row in rows.take(pa.array(_largest(rows, fit, sizes))).to_pylist():
            key = (self._table, row["cluster"])
            cluster = self._largest.setdefault(key, Cluster(row["cluster_size"], row["cluster"], row["kept_id"], []))
            cluster.members = sorted([*cluster.members, (row["id"], row["part"], row["row"])])[:MEMBERS]
            for id_, own in (("id", "source_id"), ("kept_id", "kept_source_id")):
                if row[own] is not None:
                    cluster.names[row[id_]] = row[own]
        best = sorted(self._largest.items(), key=lambda item: (-item[1].size, item[0]))[:CLUSTERS]
        self._largest = dict(best)

    def _pairs(self, rows: pa.Table) -> None:
        """Hold the pairs of each class of similarity whose ids have the smallest hashes."""
        ranks = keyed(rows.column("id").combine_chunks(), "report pairs")
        kinds, similar = rows.column("kind").combine_chunks(), rows.column("similarity").combine_chunks()
        near = ~np.isin(kinds.to_numpy(zero_copy_only=False), ["url", "exact"])
        values = similar.fill_null(-1.0).to_numpy()
        masks = {name: np.asarray(pc.equal(kinds, name)) for name in ("url", "exact")}
        edges = {"≥ 0.95": (0.95, 2.0), "0.8 – 0.95": (0.8, 0.95), "< 0.8": (0.0, 0.8), "unknown": (-2.0, 0.0)}
        masks |= {name: near & (values >= low) & (values < high) for name, (low, high) in edges.items()}
        for name, mask in masks.items():
            (mine,) = np.nonzero(mask)
            best = mine[np.argsort(ranks[mine], kind="stable")[:POOL]]
            held = self._held.get(name, [])
            taken = zip(ranks[best].tolist(), rows.take(pa.array(best)).to_pylist(), strict=True)
            held = held + [(rank, _pair(row)) for rank, row in taken]
            self._held[name] = sorted(held, key=lambda item: (item[0], item[1].ids))[:POOL]


def _pair(row: Mapping[str, Any]) -> Pair:
    kept = None if row["kept_part"] < 0 else (row["kept_part"], row["kept_row"])
    ids, own = (row["id"], row["kept_id"]), (row["source_id"], row["kept_source_id"])
    return Pair(
        row["kind"],
        row["similarity"],
        ids,
        ((row["part"], row["row"]), kept),
        own,
        row["cluster_size"],
        row["kept_batch"],
    )


def _complete(rows: pa.Table) -> pa.Table:
    """Give a table every column, in the types that are counted on; what is in an earlier batch has the part -1."""
    columns = {
        "source_id": pa.string(), "kept_source_id": pa.string(), "kind": pa.string(), "similarity": pa.float64(),
        "cluster_size": pa.int64(), "kept_part": pa.int64(), "kept_row": pa.int64(), "kept_batch": pa.string(),
    }  # fmt: skip
    empty = {"kind": "near", "kept_part": -1, "kept_row": -1}
    for name, type_ in columns.items():
        at = rows.schema.get_field_index(name)
        column = rows.column(at).cast(type_) if at >= 0 else pa.chunked_array([pa.nulls(len(rows), type_)])
        column = column.fill_null(empty[name]) if name in empty else column
        rows = rows.set_column(at, name, column) if at >= 0 else rows.append_column(name, column)
    earlier = rows.column("kept_batch").is_valid()
    part = pc.if_else(earlier, pa.scalar(-1, pa.int64()), rows.column("kept_part"))
    return rows.set_column(rows.schema.get_field_index("kept_part"), "kept_part", part)


def _counts(column: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    values, counts = np.unique(column.to_numpy(), return_counts=True)
    return zip(values.tolist(), counts.tolist(), strict=True)


def _largest(rows: pa.Table, fit: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose, of a row group's rows, up to four of each of its twelve largest clusters, smallest ids first."""
    cluster, own = (id_words(rows.column(name).combine_chunks())[fit].byteswap() for name in ("cluster", "id"))
    order = np.lexsort((own[:, 1], own[:, 0], cluster[:, 1], cluster[:, 0], -sizes[fit]))
    runs = np.any(np.diff(cluster[order], axis=0, prepend=~cluster[order][:1]) != 0, axis=1)
    numbers = np.cumsum(runs) - 1
    (starts,) = np.nonzero(runs)
    within = np.arange(len(order)) - starts[numbers] if len(order) else np.zeros(0, np.int64)
    return fit[order[(numbers < CLUSTERS) & (within < MEMBERS)]]
