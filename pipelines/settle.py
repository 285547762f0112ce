"""What a match ends in: candidate clusters verified and guarded, who stays of each, and the table of who goes.

forests → clusters → [verify: edges of true similarity] → [guard: giants split] → choice → [similarity] → table
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..transforms.kernels.graph import components
from .clusters import Members, Sources, merge, put_listed, write_clusters
from .duplicates import Dedup
from .guard import Giants
from .runners import Job
from .shingled import Sets, shingle
from .stage import Meter, Receipt, Stage, run_task
from .verify_edges import copies, similarities, verified, warm_edges
from .views import EVERYTHING, Part, View, get_array

Nodes = NDArray[np.uint64]


@dataclass(frozen=True)
class Match:
    """What a match gives and needs to come to an end."""

    stage: Stage
    dedup: Dedup
    parts: Sequence[Part]
    signed: Sequence[Receipt]  # of the parts, in order
    launch: Callable[[Job], None]
    view: View = EVERYTHING
    by_url: bool = False
    similarity: bool = False  # asked for where nothing is verified, too

    @property
    def sources(self) -> Sources:
        """Where what is known of documents lies."""
        return Sources(self.stage.store, self.parts, self.signed)

    @property
    def keep(self) -> Sequence[str]:
        """The policies in force."""
        return self.dedup.url.keep if self.by_url and self.dedup.url else self.dedup.keep

    @property
    def documents(self) -> int:
        """Count all documents."""
        return sum(int(receipt["documents"]) for receipt in self.signed)


def settled_key(dedup: Dedup, by_url: bool, similarity: bool) -> str:
    """Name the last receipt of a match: where similarities are asked for on top, it is settled anew."""
    return "clusters-similarity" if similarity and dedup.verify is None and not by_url else "clusters"


def settle_clusters(match: Match, forests: Sequence[str]) -> Receipt:
    """Turn forests into clusters, choose what stays, commit who goes and for whom; give the stage's last receipt.

    Its `guarded` are the clusters that the guard stopped at, `verified` says what verification did.
    """
    key = settled_key(match.dedup, match.by_url, match.similarity)
    nodes, labels = components(merge(sorted(set(forests)), partial(get_array, match.stage.store)))
    said: dict[str, Any] = {"verified": None, "guarded": [], "guarded_count": 0}
    held, giants = None, None
    if not match.by_url:
        if match.dedup.verify is not None:
            before = len(nodes), int(np.count_nonzero(nodes == labels))
            held, nodes, labels = rebuilt(match, "verify", nodes, labels, match.dedup.verify)
            said["verified"] = {"documents": before[0], "clusters": before[1], "joined": len(nodes)}
        giants = Giants.of(match.dedup.guard, nodes, labels, match.documents)
        if match.dedup.guard.split and giants.count and match.dedup.minhash is not None:
            nodes, labels = split(match, nodes, labels, giants)
    members = Members.read(match.sources, nodes, labels, match.keep)
    kept = members.chosen(match.keep)[members.roots]
    similarity = compared(match, members, kept, labels, held)

    def commit(folder: Path, meter: Meter) -> Receipt:
        path, kind = folder / "clusters.parquet", "url" if match.by_url else None
        gone = write_clusters(members, kept, similarity, kind, path)
        total = int(members.ids[gone, 0].sum(dtype=np.uint64))
        sizes = members.sizes()
        if giants is not None:
            said.update(guarded=giants.report(match.sources, nodes[gone]), guarded_count=giants.count)
        return put_listed(match.stage.store, match.parts, path, nodes[gone], total) | {
            "count": int(np.count_nonzero(sizes)),
            "largest": int(sizes.max(initial=0)),
            **said,
        }

    return run_task(match.stage, key, commit)


@dataclass(frozen=True)
class Held:
    """The shingle sets of documents, sorted by address, and the cluster that each was in when they were made."""

    sets: Sets
    nodes: Nodes
    labels: Nodes

    def similarities(self, pairs: NDArray[np.uint64], launch: Callable[[Job], None]) -> NDArray[np.float32]:
        """Give the true similarity of pairs of addresses (m, 2), of one cluster each: (m,)."""
        return similarities(self.sets, self.labels[np.searchsorted(self.nodes, pairs[:, 0])], pairs, launch)


def rebuilt(match: Match, name: str, nodes: Nodes, labels: Nodes, threshold: float) -> tuple[Held | None, Nodes, Nodes]:
    """Rebuild clusters from exact copies and from edges that hold: their sets, documents, and clusters."""
    edges = [copies(nodes, labels, match.sources.array("contents", nodes, 2))]
    same = edges[0] if match.sources.as_they_are else copies(nodes, labels, match.sources.array("texts", nodes, 2))
    held = sets_of(match, name, nodes, labels, same)
    if held is not None:
        found = verified(held.sets, threshold, match.launch)
        edges += [get_array(match.stage.store, receipt["forest"]) for receipt in found]
    return held, *components(np.concatenate(edges))


def sets_of(match: Match, name: str, nodes: Nodes, labels: Nodes, same: NDArray[np.uint64]) -> Held | None:
    """Make the shingle sets of clusters of more than one text; None where there is no such cluster.

    `same` (m, 2) links documents of one text, of which the one with the smallest address stands for the others.
    """
    minhash = match.dedup.minhash
    if minhash is None:
        return None
    wanted = np.ones(len(nodes), bool)
    wanted[np.searchsorted(nodes, same[:, 1])] = False
    roots = np.searchsorted(nodes, labels)
    wanted &= (np.bincount(roots[wanted], minlength=len(nodes)) > 1)[roots]
    if not wanted.any():
        return None
    nodes, labels = nodes[wanted], labels[wanted]
    made = shingle(match.stage, name, minhash, match.parts, match.view, nodes, labels, match.launch)
    return Held(made, nodes, labels)


def split(match: Match, nodes: Nodes, labels: Nodes, giants: Giants) -> tuple[Nodes, Nodes]:
    """Rebuild the giants alone from edges that hold."""
    _, inner, names = rebuilt(match, "guard", giants.nodes, giants.labels, match.dedup.guard.similarity)
    others = ~np.isin(labels, giants.labels)
    stars = ((labels[others], nodes[others]), (names, inner))
    return components(np.concatenate([np.stack(star, axis=1) for star in stars]))


def compared(
    match: Match, members: Members, kept: NDArray[np.int64], labels: Nodes, held: Held | None
) -> NDArray[np.float32]:
    """Give the true similarity of each document to the one that stays for it; NaN where nobody compares."""
    nodes = members.nodes
    found = np.full(len(nodes), np.nan, np.float32)
    asked = match.dedup.verify is not None or match.similarity
    if not asked or match.by_url:
        return found
    same = copies(nodes, labels, members.texts)
    if match.dedup.verify is None:
        held = sets_of(match, "similarity", nodes, labels, same)
    gone = np.flatnonzero(np.any(members.contents != members.contents[kept], axis=1))
    if held is None or not len(gone):
        return found
    stands = np.arange(len(nodes))  # for each document, the one whose set it has
    stands[np.searchsorted(nodes, same[:, 1])] = np.searchsorted(nodes, same[:, 0])
    found[gone] = held.similarities(nodes[np.stack([stands[gone], stands[kept[gone]]], axis=1)], match.launch)
    return found


def warm_settle(dedup: Dedup, texts: pa.Array) -> None:
    """Compile what choosing needs, and what verifying and the guard do where they are asked for."""
    pairs = np.arange(2 * len(texts), dtype=np.uint64).reshape(-1, 2)
    members = Members(pairs[:, 0].copy(), np.zeros(len(texts), np.int64), pairs, pairs, pairs, pairs[:, :1], None)
    members.chosen(dedup.keep)
    if dedup.minhash is not None and (dedup.verify is not None or dedup.guard.split):
        warm_edges(dedup.minhash, texts)
