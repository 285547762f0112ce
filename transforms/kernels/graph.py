"""From equal digests to clusters: hash joins, union-find and radix sorts over 64-bit addresses.

An address is `part << 32 | row`. Every result is a function of the *set* of rows or edges that went in, whatever their
order, so that forests merged in any tree give the same clusters. About 10 to 20 M rows a second and core; memory is
some 40 bytes a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ... import RequestError
from . import kernel

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
    return _distinct(_sorted_pairs(_star_edges(digests, addresses), True))


def spanning_forest(edges: Edges) -> Edges:
    """Reduce edges (m, 2) to the fewest with the same components: stars from their smallest addresses, (k, 2), sorted.

    Forests may be joined and reduced again in any order; the last one is the same.
    """
    nodes, labels = components(edges)
    joined = nodes != labels
    return _sorted_pairs(np.column_stack([labels[joined], nodes[joined]]), False)


def components(edges: Edges) -> tuple[Nodes, Nodes]:
    """Give every address that the edges (m, 2) name, sorted (n,), and the smallest address of its component (n,)."""
    ends = _fixed(edges).reshape(-1)
    places = np.empty((len(ends), 2), np.uint64)
    places[:, 0] = ends
    places[:, 1] = np.arange(len(ends), dtype=np.uint64)
    return _smallest_of_each(_sorted_pairs(places, False))


def _fixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Make values contiguous and read-only: one type for the compiler, whoever calls."""
    values = np.ascontiguousarray(values, np.uint64).view()
    values.flags.writeable = False
    return values


@kernel
def _star_edges(digests: NDArray[np.uint64], addresses: Nodes) -> Edges:
    """Join by an open hash table of row numbers; the first row of a digest stands for its group."""
    rows = len(addresses)
    size = np.int64(16)
    while size < 2 * rows:
        size *= 2
    table = np.full(size, -1, np.int64)
    first = np.empty(rows, np.int64)
    smallest = addresses.copy()
    edges = 0
    for row in range(rows):
        mixed = (digests[row, 0] ^ (digests[row, 1] >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        slot = np.int64(mixed >> np.uint64(20)) & (size - 1)
        while table[slot] >= 0 and (
            digests[table[slot], 0] != digests[row, 0] or digests[table[slot], 1] != digests[row, 1]
        ):
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = row
        first[row] = table[slot]
        smallest[first[row]] = min(smallest[first[row]], addresses[row])
    for row in range(rows):
        edges += addresses[row] != smallest[first[row]]
    found = np.empty((edges, 2), np.uint64)
    edges = 0
    for row in range(rows):
        if addresses[row] != smallest[first[row]]:
            found[edges, 0] = smallest[first[row]]
            found[edges, 1] = addresses[row]
            edges += 1
    return found


@kernel
def _sorted_pairs(pairs: NDArray[np.uint64], by_both: bool) -> NDArray[np.uint64]:
    """Sort stably by the first column, then by the second if `by_both`; bytes that never differ cost no pass."""
    rows = len(pairs)
    source = pairs.copy()
    target = np.empty_like(source)
    counts = np.empty(256, np.int64)
    for column in range(1 if by_both else 0, -1, -1):
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
def _smallest_of_each(places: NDArray[np.uint64]) -> tuple[Nodes, Nodes]:
    """Union-find over (address, position among the edge ends), sorted by address; a root is its tree's smallest."""
    ends = len(places)
    number = np.empty(ends, np.int64)  # position → dense number of the address, numbers rising with addresses
    nodes = np.empty(ends, np.uint64)
    count = 0
    for row in range(ends):
        if row == 0 or places[row, 0] != places[row - 1, 0]:
            nodes[count] = places[row, 0]
            count += 1
        number[np.int64(places[row, 1])] = count - 1
    parent = np.arange(count)
    for edge in range(ends // 2):
        left, right = _root(parent, number[2 * edge]), _root(parent, number[2 * edge + 1])
        if left < right:
            parent[right] = left
        else:
            parent[left] = right
    labels = np.empty(count, np.uint64)
    for node in range(count):  # parents are smaller than their children, so theirs are final already
        parent[node] = parent[parent[node]]
        labels[node] = nodes[parent[node]]
    return nodes[:count].copy(), labels


@kernel
def _root(parent: NDArray[np.int64], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
