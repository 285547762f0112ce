"""Forests merged by tasks, and star rounds, against a search in plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock import CorruptDataError
from penstock.pipelines.forests import Forest, _cut, merge_forests, put_forest, read_edges
from penstock.pipelines.runners import Job
from penstock.pipelines.stage import Stage
from penstock.pipelines.stars import contract
from penstock.sharding.store import Store
from penstock.transforms.kernels.graph import components, spanning_forest
from penstock.transforms.kernels.stars import least_of_each, star

Pairs = list[tuple[int, int]]


def spread(number: int) -> int:
    """Place nodes in parts, as addresses are."""
    return (number % 7) << 32 | number


def random_graph(nodes: int, edges: int) -> Pairs:
    random = np.random.default_rng(nodes)
    return [(spread(a), spread(b)) for a, b in random.integers(0, nodes, (edges, 2)).tolist() if a != b]


def random_tree(nodes: int) -> Pairs:
    random = np.random.default_rng(7)
    names = random.permutation(nodes).tolist()
    return [(spread(names[int(random.random() * n)]), spread(names[n])) for n in range(1, nodes)]


GRAPHS: dict[str, Pairs] = {
    "nothing": [],
    "one edge": [(3, 7)],
    "chain": [(n, n + 1) for n in range(600)],
    "chain in a random order of names": [
        (int(a), int(b))
        for a, b in np.lib.stride_tricks.sliding_window_view(np.random.default_rng(1).permutation(600), 2)
    ],
    "star from the smallest": [(0, n) for n in range(1, 900)],
    "star from the largest": [(n, 2**64 - 1) for n in range(900)],
    "giant tree": random_tree(1_500),
    "many small": [(spread(3 * n), spread(3 * n + k)) for n in range(400) for k in (1, 2)],
    "random, sparse": random_graph(1_500, 700),
    "random, dense": random_graph(300, 3_000),
}


def by_search(edges: Pairs) -> list[tuple[int, int]]:
    """Give (smallest of the component, other), sorted by the other, by flooding."""
    near: dict[int, set[int]] = {}
    for left, right in edges:
        near.setdefault(left, set()).add(right)
        near.setdefault(right, set()).add(left)
    labels: dict[int, int] = {}
    for start in sorted(near):
        waiting = [] if start in labels else [start]
        while waiting:
            node = waiting.pop()
            if node not in labels:
                labels[node] = start
                waiting.extend(near[node])
    return [(label, node) for node, label in sorted(labels.items()) if label != node]


def stored(folder: Path, name: str, files: int = 5, order: int = 0) -> tuple[Stage, list[Forest]]:
    """Deal a graph's edges to files, in an order; each is a forest."""
    stage = Stage.of(Store(folder), "duplicates", {"graph": name, "order": order}, {})
    edges = np.array(GRAPHS[name], np.uint64).reshape(-1, 2)
    edges = edges[np.random.default_rng(order).permutation(len(edges))]
    return stage, [Forest.of(put_forest(stage.store, spanning_forest(some))) for some in np.array_split(edges, files)]


def here(job: Job) -> None:
    for task in reversed(job.tasks):
        for _ in job.map(task) or ():
            pass


def union(stage: Stage, forests: list[Forest]) -> list[tuple[int, int]]:
    """Join what is left, as the client does."""
    read = [read_edges(stage.store, forest.name, 0, forest.edges) for forest in forests]
    return [tuple(edge) for edge in spanning_forest(np.concatenate([np.zeros((0, 2), np.uint64), *read])).tolist()]


@pytest.mark.parametrize("at_once", [200, 100_000])
@pytest.mark.parametrize("name", GRAPHS)
def test_forests_merged_by_tasks_have_the_components_of_a_search(tmp_path: Path, name: str, at_once: int) -> None:
    stage, forests = stored(tmp_path, name)
    merged = merge_forests(stage, forests, here, at_once)
    assert union(stage, merged) == by_search(GRAPHS[name])
    if sum(forest.edges for forest in forests) > at_once > 200:
        assert len(merged) <= len(forests)


@pytest.mark.parametrize("at_once", [800, 100_000])
@pytest.mark.parametrize("name", GRAPHS)
def test_star_rounds_have_the_components_of_a_search(tmp_path: Path, name: str, at_once: int) -> None:
    stage, forests = stored(tmp_path, name)
    stars = contract(stage, forests, here, at_once)
    edges = [edge for forest in stars for edge in read_edges(stage.store, forest.name, 0, forest.edges).tolist()]
    assert sorted(map(tuple, edges), key=lambda edge: edge[1]) == by_search(GRAPHS[name])


def test_files_in_any_order_give_the_same(tmp_path: Path) -> None:
    found = set()
    for order, files in enumerate((1, 3, 8)):
        stage, forests = stored(tmp_path, "random, sparse", files, order)
        merged = merge_forests(stage, forests[::-1], here, 400)
        stars = contract(stage, merged, here, 400)
        found.add(tuple(union(stage, stars)))
        assert union(stage, merged) == union(stage, stars)
    assert len(found) == 1


def test_equal_edges_of_many_bands_shrink_in_the_leaves(tmp_path: Path) -> None:
    stage = Stage.of(Store(tmp_path), "duplicates", {}, {})
    edges = np.array([(2 * n, 2 * n + 1) for n in range(1_000)], np.uint64)
    bands = [np.concatenate([edges[:band], edges[band + 1 :]]) for band in range(15)]
    forests = [Forest.of(put_forest(stage.store, band)) for band in bands]
    merged = merge_forests(stage, forests, here, 2_000)
    assert [forest.edges for forest in merged] == [1_000]
    leaves = [stage.receipt(key) for key in sorted(stage.committed()) if key.startswith("merge-2000-0-")]
    assert len(leaves) == 8
    assert max(leaf["edges"] for leaf in leaves if leaf is not None) < 200


def test_what_was_merged_stands(tmp_path: Path) -> None:
    stage, forests = stored(tmp_path, "giant tree")
    first = merge_forests(stage, forests, here, 300)
    stars = contract(stage, first, here, 1_000)
    gone = next(key for key in sorted(stage.committed()) if "small-01" in key)
    (tmp_path / "duplicates" / stage.hash / "receipts" / f"{gone}.json").unlink()
    jobs: list[Job] = []

    def launch(job: Job) -> None:
        jobs.append(job)
        here(job)

    assert merge_forests(stage, forests, launch, 300) == first
    assert jobs == []
    assert contract(stage, first, launch, 1_000) == stars
    assert [(job.name, len(job.tasks)) for job in jobs] == [("small-01", 1)]


def test_ranges_hold_about_as_many_edges_each(tmp_path: Path) -> None:
    store, random = Store(tmp_path), np.random.default_rng(0)
    others = np.sort(random.integers(0, 2**40, (6, 4_000), dtype=np.uint64))
    forests = [Forest.of(put_forest(store, np.column_stack([some * 0, some]))) for some in others]
    cuts = _cut(forests, 3_000)
    assert (len(cuts), cuts[0][0], cuts[-1][1]) == (8, 0, 1 << 64)
    sizes = [sum(len(forest.between(store, low, high)) for forest in forests) for low, high in cuts]
    assert sum(sizes) == 24_000
    assert max(sizes) < 4_500


def test_a_forest_that_ends_early_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    forest = Forest.of(put_forest(store, np.array([(1, 2), (1, 3)], np.uint64)))
    (tmp_path / forest.name).write_bytes((tmp_path / forest.name).read_bytes()[:-5])
    with pytest.raises(CorruptDataError, match=r"forest-.* is damaged: it ends 5 bytes early"):
        read_edges(store, forest.name, 0, 2)


def array(edges: Pairs) -> NDArray[np.uint64]:
    return np.array(edges, np.uint64).reshape(-1, 2)


def test_the_two_stars_of_the_paper() -> None:
    both = array([(3, 1), (3, 2), (3, 4), (3, 9), (5, 6)])
    least = least_of_each(both)
    assert least.tolist() == [[3, 1], [5, 5]]
    large, changed = star(both, least, True)
    assert (large.tolist(), changed) == ([[4, 1], [9, 1], [6, 5]], 2)
    small, changed = star(both, least, False)
    assert (small.tolist(), changed) == ([[3, 1], [2, 1]], 1)


def test_stars_do_not_change() -> None:
    nodes, labels = components(array([(1, 5), (1, 9), (2, 3)]))
    down = array([(int(node), int(label)) for node, label in zip(nodes, labels, strict=True) if node != label])
    assert star(down, least_of_each(down), False)[1] == 0
    up = array(sorted(down[:, ::-1].tolist()))
    assert star(up, least_of_each(up), True)[1] == 0
