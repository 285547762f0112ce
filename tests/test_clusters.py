"""Clusters settled: one document of each stays, the others stand in the table, whatever its pieces."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matching import Held

from penstock.pipelines import clusters
from penstock.pipelines.clusters import CLUSTERS, Members, merge, put_listed, put_removals, write_clusters
from penstock.pipelines.views import get_array
from penstock.sharding.store import Store
from penstock.transforms.kernels.graph import components, spanning_forest


def members(seed: int, count: int = 60, named: float = 0.7, policies: int = 2) -> Members:
    """Documents dealt at random to clusters of two or more, with many ties in all that decides."""
    rng = random.Random(seed)
    nodes = np.array(sorted(rng.sample(range(200), count)), np.uint64)
    nodes = (nodes // np.uint64(50) << np.uint64(32)) + nodes % np.uint64(50)
    edges = np.array([[rng.choice(nodes.tolist()[:12]), node] for node in nodes.tolist()], np.uint64)
    nodes, labels = components(edges)

    def few(top: int, width: int) -> np.ndarray:
        drawn = np.random.default_rng(seed).integers(0, top, (len(nodes), width), dtype=np.uint64)
        drawn.flags.writeable = False
        return drawn

    own = [rng.choice(["a", "b", "aa", "é", "zz", ""]) if rng.random() < named else None for _ in nodes]
    ids = np.random.default_rng(seed).integers(0, 2**64 - 1, (len(nodes), 2), dtype=np.uint64)
    ids[::5] = ids[0]
    texts = few(3, 2)
    names = None if named == 0 else pa.array(own, pa.large_string())
    return Members(nodes, np.searchsorted(nodes, labels), ids, texts // np.uint64(2), texts, few(2, policies), names)


def slow_choice(held: Members, keep: tuple[str, ...]) -> dict[int, int]:
    """The place of who stays for each root, in plain Python."""
    decisive = keep.index("smallest_id") if "smallest_id" in keep else len(keep)
    own = [None] * len(held.nodes) if held.own is None else held.own.to_pylist()

    def rank(row: int) -> tuple[Any, ...]:
        name = own[row]
        by_id = decisive < len(keep) and name is None
        return (
            held.keys[row, :decisive].tolist(),
            (1,) if name is None else (0, len(name), name),
            [] if by_id else held.texts[row].tolist(),
            held.ids[row].tobytes(),
            row,
        )

    best: dict[int, int] = {}
    for row, root in enumerate(held.roots.tolist()):
        best[root] = min(best.get(root, row), row, key=rank)
    return best


@pytest.mark.parametrize("named", [0, 0.7, 1])
@pytest.mark.parametrize("keep", [("x", "y"), ("x", "smallest_id"), ("smallest_id",)])
@pytest.mark.parametrize("seed", range(4))
def test_who_stays_is_the_first_by_all_that_decides(seed: int, keep: tuple[str, ...], named: float) -> None:
    held = members(seed, named=named, policies=len(keep))
    chosen = held.chosen(keep)
    assert {root: int(chosen[root]) for root in set(held.roots.tolist())} == slow_choice(held, keep)
    assert (chosen[~np.isin(np.arange(len(chosen)), held.roots)] == -1).all()
    names = held.smallest()
    for root in set(held.roots.tolist()):
        inside = [held.ids[row].tobytes() for row in np.flatnonzero(held.roots == root)]
        assert held.ids[names[root]].tobytes() == min(inside)


def written(folder: Path, held: Members, kind: str | None = None) -> pa.Table:
    kept = held.chosen(("x", "y"))[held.roots]
    similarity = np.full(len(kept), np.nan, np.float32)
    similarity[::2] = 0.5
    gone = write_clusters(held, kept, similarity, kind, folder / "t.parquet")
    assert gone.tolist() == [row for row in range(len(kept)) if kept[row] != row]
    return pq.read_table(folder / "t.parquet")


def test_a_row_says_who_goes_for_whom_and_why(tmp_path: Path) -> None:
    held = members(0)
    table = written(tmp_path, held)
    assert table.schema.equals(CLUSTERS)
    place = {(int(node) >> 32, int(node) & 0xFFFFFFFF): row for row, node in enumerate(held.nodes)}
    best, own = slow_choice(held, ("x", "y")), held.own.to_pylist() if held.own else []
    rows = table.to_pylist()
    assert [(row["part"], row["row"]) for row in rows] == sorted((row["part"], row["row"]) for row in rows)
    for row in rows:
        gone, kept = place[row["part"], row["row"]], place[row["kept_part"], row["kept_row"]]
        assert kept == best[int(held.roots[gone])] != gone
        assert (row["id"], row["kept_id"]) == (held.ids[gone].tobytes(), held.ids[kept].tobytes())
        assert (row["source_id"], row["kept_source_id"]) == (own[gone], own[kept])
        assert row["cluster"] == held.ids[held.smallest()[held.roots[gone]]].tobytes()
        assert row["cluster_size"] == np.count_nonzero(held.roots == held.roots[gone])
        exact = held.contents[gone].tolist() == held.contents[kept].tolist()
        assert row["kind"] == ("exact" if exact else "near")
        assert row["similarity"] == (1.0 if exact else 0.5 if gone % 2 == 0 else None)
    assert {row["kind"] for row in rows} == {"exact", "near"}
    assert set(written(tmp_path, held, "url").column("kind").to_pylist()) == {"url"}


@pytest.mark.parametrize("named", [0, 0.7])
def test_a_table_in_pieces_is_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: float) -> None:
    whole = written(tmp_path, members(1, named=named))
    monkeypatch.setattr(clusters, "CHUNK", 7)
    assert written(tmp_path, members(1, named=named)).equals(whole)
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups > 3


def test_no_clusters_give_an_empty_table(tmp_path: Path) -> None:
    none = np.zeros((0, 2), np.uint64)
    held = Members(none[:, 0], np.zeros(0, np.int64), none, none, none, none, None)
    assert written(tmp_path, held).equals(CLUSTERS.empty_table())


def test_both_ways_to_commit_removals_say_the_same(tmp_path: Path) -> None:
    held, store, parts = members(2), Store(tmp_path / "store"), [Held(number, ()) for number in range(4)]
    table = written(tmp_path, held)
    gone = held.nodes[np.flatnonzero(held.chosen(("x", "y"))[held.roots] != np.arange(len(held.nodes)))]
    total = sum(int.from_bytes(row[:8], "little") for row in table.column("id").to_pylist()) % 2**64
    listed = put_listed(store, parts, tmp_path / "t.parquet", gone, total)
    whole = put_removals(store, parts, table, tmp_path)
    assert {name: value for name, value in listed.items() if name != "clusters"} == {
        name: value for name, value in whole.items() if name != "clusters"
    }
    bounds = get_array(store, listed["bounds"])
    rows = get_array(store, listed["removals"])
    assert [
        (np.uint64(part) << np.uint64(32)) + row for part in range(4) for row in rows[bounds[part] : bounds[part + 1]]
    ] == (gone.tolist())


@pytest.mark.parametrize("count", [0, 1, 64, 150])
def test_forests_merged_by_a_tree_are_one_forest(count: int) -> None:
    random = np.random.default_rng(count)
    edges = {str(number): random.integers(0, 500, (20, 2), dtype=np.uint64) for number in range(count)}
    everything = np.concatenate([np.zeros((0, 2), np.uint64), *edges.values()])
    merged = merge(list(edges), lambda name: spanning_forest(edges[name]))
    assert merged.tolist() == spanning_forest(everything).tolist()
