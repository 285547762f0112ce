"""Survey what a deduplication found: its tables read row group by row group into counts, examples and largest clusters.

Memory is bounded whatever the number of removals: one row group, counts, and samples of fixed size. Examples are chosen
by a keyed hash of the id, so the same run gives the same page, and spread over how similar the pairs are. Where no
similarity was computed, that of 48 pairs is computed here.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.schema import id_words, keyed
from .dedup_texts import DedupTexts, Shown
from .duplicates import Dedup
from .tables import row_groups

CLUSTERS = 12
MEMBERS = 4  # dropped copies named of each cluster
PAIRS = 12
POOL = 48  # near pairs of each class held, of which PAIRS are shown
CLASSES = ("url", "exact", "≥ 0.95", "0.8 – 0.95", "< 0.8", "unknown")  # of similarity, in the order of the page
BINS = 40  # of similarity from 0 to 1
ELSEWHERE = "an earlier batch"
STAGES = ("urls", "duplicates")  # that remove whole documents, in their order
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
    similarities: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    sampled: int | None = None  # pairs whose similarity was computed here; None where the tables have it
    lost: dict[tuple[str, str], int] = field(default_factory=dict)  # (input, input of the kept document) → documents
    entered: dict[str, int] = field(default_factory=dict)  # documents of each input; empty where not known
    guarded: list[dict[str, Any]] = field(default_factory=list)  # what the stages say of suspicious clusters
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
    from .stage import Stage

    made = []
    for name in STAGES:
        if hash_ := (manifest.get("stages") or {}).get(name):
            receipt = Stage(name, hash_, run, ()).receipt("clusters")
            if receipt is not None:
                made.append((f"{name}/{hash_}/{receipt['clusters']}", receipt))
    if not made and (named := (manifest.get("tables") or {}).get("clusters")):
        made.append((named, {}))
    return made


def survey_duplicates(run: Store, manifest: Mapping[str, Any], texts: DedupTexts | None = None) -> Duplicates:
    """Count what was removed, by kind, size, similarity and input; hold examples. `texts` reads them."""
    texts = texts or DedupTexts(run, manifest)
    made = Duplicates(entered=texts.documents)
    sources = sorted(set(texts.sources.values()))
    numbers = np.zeros(max(texts.sources, default=0) + 2, np.int64)
    for part, source in texts.sources.items():
        numbers[part] = sources.index(source)
    counter = _Counter(made, [*sources, ELSEWHERE], numbers)
    for name, receipt in tables_of(run, manifest):
        made.guarded += list(receipt.get("guarded") or ())
        for rows, _ in row_groups(run, name, _COLUMNS):
            counter.add(rows)
        counter.end_table()
    counter.finish()
    return made


def read_examples(made: Duplicates, texts: DedupTexts, dedup: Dedup | None, pairs: int = PAIRS) -> None:
    """Read the texts of examples: of so many pairs, spread over similarity, and of one copy of each cluster."""
    near = [pair for pair in made.pairs if pair.alike == "unknown"]
    computes = bool(near) and dedup is not None and dedup.minhash is not None
    held = made.pairs if computes else chosen(made.pairs, pairs)
    wanted = [(place, id_) for pair in held for place, id_ in zip(pair.places, pair.ids, strict=True) if place]
    wanted += [((part, row), id_) for cluster in made.clusters for id_, part, row in cluster.members[:1]]
    found = texts.read(wanted)
    for cluster in made.clusters:
        cluster.text = found[cluster.members[0][1:]].text
    earlier = Shown(ELSEWHERE, absent="it lies in an earlier batch, of which the index holds no text")
    held = [
        replace(pair, shown=(found[pair.places[0]], found[pair.places[1]] if pair.places[1] else _named(pair, earlier)))
        for pair in held
    ]
    if computes and dedup is not None:
        held = [pair if pair.alike != "unknown" else replace(pair, similarity=_jaccard(pair, dedup)) for pair in held]
        values = [pair.similarity for pair in held if pair.kind == "near" and pair.similarity is not None]
        made.sampled = len(values)
        made.similarities = made.similarities + _binned(np.array(values, np.float64))
    made.pairs = chosen(held, pairs)


def _named(pair: Pair, earlier: Shown) -> Shown:
    return replace(earlier, name=pair.ids[1].hex(), source_id=pair.own[1])


def _jaccard(pair: Pair, dedup: Dedup) -> float | None:
    """Compute the similarity of a pair whose texts are at hand."""
    assert dedup.minhash is not None
    assert pair.shown is not None
    both = [shown.text for shown in pair.shown]
    if any(text is None for text in both):
        return None
    offsets, values = dedup.minhash.shingle_sets(pa.array(both, pa.string()))
    one, two = values[offsets[0] : offsets[1]], values[offsets[1] : offsets[2]]
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / max(1, len(one) + len(two) - shared)


def chosen(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Choose so many pairs: one of each class in turn, few of those that are no news, and of one kept document few.

    They come in the order of the classes, the most similar first.
    """
    left = {name: _varied([pair for pair in pairs if pair.alike == name]) for name in CLASSES}
    plain = max(1, count // 6)
    left |= {name: left[name][:plain] for name in ("url", "exact") if any(left[other] for other in CLASSES[2:])}
    taken = [pair for turn in itertools.zip_longest(*left.values()) for pair in turn if pair is not None][:count]
    return sorted(taken, key=lambda pair: (CLASSES.index(pair.alike), -(pair.similarity or 0.0), pair.ids))


def _varied(pairs: Sequence[Pair]) -> list[Pair]:
    """Put the first pair of each kept document before the others."""
    seen: Counter[bytes] = Counter()
    turns = []
    for pair in pairs:
        turns.append(seen[pair.ids[1]])
        seen[pair.ids[1]] += 1
    return [pairs[at] for at in sorted(range(len(pairs)), key=turns.__getitem__)]


def _binned(values: NDArray[Any]) -> NDArray[np.int64]:
    return np.bincount(np.minimum((values * BINS).astype(np.int64), BINS - 1), minlength=BINS).astype(np.int64)


class _Counter:
    """Counts row groups; neither their order nor their cut decides what is chosen."""

    def __init__(self, made: Duplicates, sources: list[str], numbers: NDArray[np.int64]) -> None:
        self.made, self.sources, self.numbers = made, sources, numbers
        self._lost = np.zeros(len(sources) ** 2, np.int64)
        self._rows_of_size: dict[int, int] = {}
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
        for size, count in _counts(rows.column("cluster_size")):
            self._rows_of_size[size] = self._rows_of_size.get(size, 0) + count
        known = rows.column("similarity").drop_null().to_numpy()
        self.made.similarities = self.made.similarities + _binned(known)
        self._sources(rows)
        self._clusters(rows)
        self._pairs(rows)

    def end_table(self) -> None:
        """Tell the clusters of one table from those of the next."""
        for size, count in self._rows_of_size.items():
            sizes = self.made.cluster_sizes
            sizes[size] = sizes.get(size, 0) + round(count / max(1, size - 1))
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
        if len(self.sources) == 1:
            return
        gone, kept = (rows.column(name).to_numpy() for name in ("part", "kept_part"))
        elsewhere = len(self.sources) - 1
        kept = np.where(kept < 0, elsewhere, self.numbers[np.clip(kept, 0, len(self.numbers) - 1)])
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
    return Pair(row["kind"], row["similarity"], ids, ((row["part"], row["row"]), kept), own, row["cluster_size"])


def _complete(rows: pa.Table) -> pa.Table:
    """Give a table every column, in the types that are counted on; what is in an earlier batch has the part -1."""
    columns = {
        "source_id": pa.string(), "kept_source_id": pa.string(), "kind": pa.string(), "similarity": pa.float64(),
        "kept_part": pa.int64(), "kept_row": pa.int64(),
    }  # fmt: skip
    empty = {"kind": "near", "kept_part": -1, "kept_row": -1}
    for name, type_ in columns.items():
        at = rows.schema.get_field_index(name)
        column = rows.column(at).cast(type_) if at >= 0 else pa.chunked_array([pa.nulls(len(rows), type_)])
        column = column.fill_null(empty[name]) if name in empty else column
        rows = rows.set_column(at, name, column) if at >= 0 else rows.append_column(name, column)
    if "kept_batch" in rows.column_names:
        there = rows.column("kept_batch").is_valid()
        part = pc.if_else(there, pa.scalar(-1, pa.int64()), rows.column("kept_part"))
        rows = rows.set_column(rows.schema.get_field_index("kept_part"), "kept_part", part)
    return rows


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
