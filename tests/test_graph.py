"""Digests to edges, edges to clusters, against a search in plain Python."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock import RequestError
from penstock.transforms.kernels.graph import components, link, spanning_forest

Pairs = list[tuple[int, int]]


def labels_by_search(edges: Pairs) -> dict[int, int]:
    """Flood each component from its smallest address."""
    near: dict[int, set[int]] = defaultdict(set)
    for left, right in edges:
        near[left].add(right)
        near[right].add(left)
    labels: dict[int, int] = {}
    for start in sorted(near):
        waiting = [start] if start not in labels else []
        while waiting:
            node = waiting.pop()
            if node not in labels:
                labels[node] = start
                waiting.extend(near[node])
    return labels


def array(edges: Pairs) -> NDArray[np.uint64]:
    return np.array(edges, np.uint64).reshape(-1, 2)


def random_edges(seed: int, nodes: int, edges: int, spread: int = 1) -> Pairs:
    random = np.random.default_rng(seed)
    names = np.arange(nodes, dtype=np.uint64) * np.uint64(spread)
    if spread == 0:
        names = random.integers(0, 2**64 - 1, nodes, dtype=np.uint64)
    return [(int(names[a]), int(names[b])) for a, b in random.integers(0, nodes, (edges, 2))]


GRAPHS = {
    "nothing": [],
    "one edge": [(7, 3)],
    "an address with itself": [(5, 5)],
    "repeats, both ways round": [(1, 2), (2, 1), (1, 2)],
    "chain": [(n, n + 1) for n in range(3_000)],
    "chain, last first": [(n + 1, n) for n in reversed(range(3_000))],
    "star from the largest": [(9_999, n) for n in range(3_000)],
    "two parts": [((1 << 32) | n, (2 << 32) | n) for n in range(500)],
    "largest addresses": [(2**64 - 1, 2**64 - 2), (2**63, 2**64 - 1), (0, 1)],
    "sparse": random_edges(1, 4_000, 1_500),
    "dense": random_edges(2, 300, 4_000, spread=(1 << 32) + 1),
    "random addresses": random_edges(3, 1_000, 700, spread=0),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_components_are_those_of_a_search(name: str) -> None:
    nodes, labels = components(array(GRAPHS[name]))
    expected = labels_by_search(GRAPHS[name])
    assert nodes.tolist() == sorted(expected)
    assert labels.tolist() == [expected[node] for node in sorted(expected)]


@pytest.mark.parametrize("name", GRAPHS)
def test_a_forest_is_the_smallest_star_of_each_component(name: str) -> None:
    expected = [(label, node) for node, label in sorted(labels_by_search(GRAPHS[name]).items()) if node != label]
    assert [tuple(edge) for edge in spanning_forest(array(GRAPHS[name])).tolist()] == expected


def test_a_giant_component() -> None:
    nodes = 300_000
    random = np.random.default_rng(0)
    left = np.arange(1, nodes, dtype=np.uint64)
    right = (random.random(nodes - 1) * left).astype(np.uint64)  # a random tree
    edges = np.column_stack([left, right])[random.permutation(nodes - 1)]
    found, labels = components(edges)
    assert len(found) == nodes
    assert not labels.any()
    assert len(spanning_forest(edges)) == nodes - 1


def test_forests_merge_in_any_tree() -> None:
    random = np.random.default_rng(4)
    edges = array(random_edges(5, 5_000, 6_000))
    whole = spanning_forest(edges)
    for pieces in (2, 7, 100):
        parts = [spanning_forest(part) for part in np.array_split(edges[random.permutation(len(edges))], pieces)]
        while len(parts) > 1:
            parts = [spanning_forest(np.concatenate(parts[at : at + 3])) for at in range(0, len(parts), 3)]
        assert np.array_equal(parts[0], whole)


def link_by_sorting(digests: Pairs, addresses: list[int]) -> Pairs:
    groups: dict[tuple[int, int], set[int]] = defaultdict(set)
    for digest, address in zip(digests, addresses, strict=True):
        groups[digest].add(address)
    return sorted({(min(group), other) for group in groups.values() for other in group if other != min(group)})


@pytest.mark.parametrize("distinct", [1, 3, 400, 5_000])
def test_link_joins_equal_digests(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    pool = random.integers(0, 2**64 - 1, (distinct, 2), dtype=np.uint64)
    digests = pool[random.integers(0, distinct, 2_000)]
    addresses = random.permutation(2_000).astype(np.uint64) << np.uint64(20)
    edges = link(digests, addresses)
    expected = link_by_sorting([tuple(pair) for pair in digests.tolist()], addresses.tolist())
    assert [tuple(edge) for edge in edges.tolist()] == expected
    order = random.permutation(2_000)
    assert np.array_equal(link(digests[order], addresses[order]), edges)


def test_link_tells_digests_apart_that_share_a_half() -> None:
    digests = np.array([(a, b) for a in range(60) for b in range(60)], np.uint64) << np.uint64(58)
    addresses = np.arange(len(digests), dtype=np.uint64)
    expected = link_by_sorting([tuple(pair) for pair in digests.tolist()], addresses.tolist())
    assert [tuple(edge) for edge in link(digests, addresses).tolist()] == expected


def test_link_reads_slices_and_repeated_addresses() -> None:
    digests = np.array([[1, 1], [1, 1], [1, 1], [2, 2]], np.uint64)
    assert link(digests, np.array([4, 4, 9, 4], np.uint64)).tolist() == [[4, 9]]
    assert link(digests[::2], np.array([8, 3], np.uint64)).tolist() == [[3, 8]]
    assert link(np.empty((0, 2), np.uint64), np.empty(0, np.uint64)).shape == (0, 2)


def test_link_refuses_unequal_lengths() -> None:
    with pytest.raises(RequestError, match="2 digests for 1 addresses"):
        link(np.zeros((2, 2), np.uint64), np.zeros(1, np.uint64))
