"""From equal digests to clusters: joins by sorting, union-find and radix sorts over 64-bit addresses.

An address is `part << 32 | row`. Every result is a function of the *set* of rows or edges that went in, whatever their
order, so that forests merged in any tree give the same clusters. 5 to 10 M edges a second and core; memory is 16 bytes
an edge and at most about 60 an address.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import RequestError
from . import inner, kernel
from .entries import fold_entries, sort_entries

Edges = NDArray[np.uint64]  # (m, 2)
Nodes = NDArray[np.uint64]  # (n,)


def link(digests: NDArray[np.uint64], addresses: Nodes) -> Edges:
    """Join the rows whose 128-bit digests are equal: digests (n, 2), addresses (n,) → edges (m, 2), sorted, no repeats.

    A group of g addresses gives g - 1 edges, each (smallest address of the group, other).
    """
    digests = _fixed(digests).reshape(-1, 2)
    addresses = _fixed(addresses)
    if len(digests) != len(addresses):
        raise RequestError(f"{len(digests)} digests for {len(addresses)} addresses: give one address a digest")
    entries = np.column_stack([digests, addresses])
    return distinct_edges(fold_entries(sort_entries(np.ascontiguousarray(entries)), ~np.uint64(0))[1])


def distinct_edges(edges: Edges) -> Edges:
    """Sort edges (m, 2) by both addresses and drop repeats."""
    return _distinct(sorted_pairs(sorted_pairs(np.array(edges, np.uint64), 1), 0))


def by_other(edges: Edges) -> Edges:
    """Sort edges (m, 2) by their second addresses, stably: the order of forests."""
    return sorted_pairs(np.array(edges, np.uint64), 1)


def spanning_forest(edges: Edges) -> Edges:
    """Reduce edges (m, 2) to the fewest with the same components: (smallest address of a component, other), (k, 2).

    They are sorted by the other. Forests may be joined and reduced again in any order; the last one is the same.
    """
    nodes, labels = components(edges)
    joined = nodes != labels
    return np.column_stack([labels[joined], nodes[joined]])


def components(edges: Edges) -> tuple[Nodes, Nodes]:
    """Give every address that the edges (m, 2) name, sorted (n,), and the smallest address of its component (n,)."""
    pairs = sorted_pairs(_labelled(_fixed(edges).reshape(-1, 2)), 0)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


def _fixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Make values contiguous and read-only: one type for the compiler, whoever calls."""
    values = np.ascontiguousarray(values, np.uint64).view()
    values.flags.writeable = False
    return values


@kernel
def sorted_pairs(pairs: NDArray[np.uint64], column: int) -> NDArray[np.uint64]:
    """Sort pairs (n, 2) stably by one column, `pairs` being scratch; bytes that never differ cost no pass."""
    rows = len(pairs)
    source, target = pairs, np.empty_like(pairs)
    counts = np.empty(256, np.int64)
    varying = np.uint64(0)
    for row in range(rows):
        varying |= source[row, column] ^ source[0, column]
    for digit in range(8):
        shift = np.uint64(8 * digit)
        if not (varying >> shift) & np.uint64(255):
            continue
        counts[:] = 0
        for row in range(rows):
            counts[np.int64((source[row, column] >> shift) & np.uint64(255))] += 1
        before = 0
        for value in range(256):
            before, counts[value] = before + counts[value], before
        for row in range(rows):
            place = np.int64((source[row, column] >> shift) & np.uint64(255))
            # By value: to assign a row, numba compiles how shapes that differ are told, in seconds.
            target[counts[place], 0], target[counts[place], 1] = source[row, 0], source[row, 1]
            counts[place] += 1
        source, target = target, source
    return source


@kernel
def _distinct(edges: Edges) -> Edges:
    """Drop repeats from sorted edges."""
    kept = 0
    for row in range(len(edges)):
        if row == 0 or edges[row, 0] != edges[row - 1, 0] or edges[row, 1] != edges[row - 1, 1]:
            edges[kept, 0], edges[kept, 1] = edges[row, 0], edges[row, 1]
            kept += 1
    return edges[:kept]


@kernel
def _labelled(edges: Edges) -> NDArray[np.uint64]:
    """Union-find over addresses, numbered by a hash table as they come: (address, smallest of its component) (n, 2)."""
    size, room = 64, len(edges) + 16
    while size < 2 * room:
        size *= 2
    slots, nodes, parent = np.full(size, -1, np.int32), np.empty(room, np.uint64), np.empty(room, np.int32)
    count = 0
    for edge in range(len(edges)):
        if count + 2 > room:  # more trees than a forest of so many edges has as a rule
            room *= 2
            nodes, parent, slots = _longer(nodes, room), _longer(parent, room), _rehashed(nodes, count, 2 * size)
            size *= 2
        left = _slot(slots, nodes, edges[edge, 0])
        if slots[left] < 0:
            slots[left], nodes[count], parent[count] = count, edges[edge, 0], count
            count += 1
        right = _slot(slots, nodes, edges[edge, 1])
        if slots[right] < 0:
            slots[right], nodes[count], parent[count] = count, edges[edge, 1], count
            count += 1
        one, two = _root(parent, slots[left]), _root(parent, slots[right])
        if nodes[one] < nodes[two]:
            parent[two] = one
        else:
            parent[one] = two
    pairs = np.empty((count, 2), np.uint64)
    for node in range(count):
        pairs[node, 0], pairs[node, 1] = nodes[node], nodes[_root(parent, node)]
    return pairs


@inner
def _slot(slots: NDArray[np.int32], nodes: Nodes, address: np.uint64) -> int:
    """Find where an address is in the table, or belongs: neighbours share a line of the cache."""
    mixed = (address >> np.uint64(4)) * np.uint64(0x9E3779B97F4A7C15)
    mask = len(slots) - 1
    slot = (np.int64(mixed >> np.uint64(28)) << 4 | np.int64(address & np.uint64(15))) & mask
    while slots[slot] >= 0 and nodes[slots[slot]] != address:
        slot = (slot + 1) & mask
    return int(slot)


@inner
def _rehashed(nodes: Nodes, count: int, size: int) -> NDArray[np.int32]:
    slots = np.full(size, -1, np.int32)
    for node in range(count):
        slots[_slot(slots, nodes, nodes[node])] = node
    return slots


@inner
def _longer(array: Any, room: int) -> Any:
    longer = np.empty(room, array.dtype)
    for at in range(len(array)):
        longer[at] = array[at]
    return longer


@inner
def _root(parent: NDArray[np.int32], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
