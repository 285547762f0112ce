"""Large-star and small-star (Kiveris et al. 2014, "Connected Components in MapReduce and Beyond", algorithms 1 and 2).

Edges are directed and sorted by their first address u, whose neighbour is the second. Both keep the components, and
every edge gives one edge; where neither changes any, each component is a star from its smallest address.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel

Pairs = NDArray[np.uint64]  # (n, 2)


@kernel
def least_of_each(edges: Pairs) -> Pairs:
    """Give each u and the smallest of it and its neighbours: (k, 2), sorted."""
    found = np.empty((len(edges), 2), np.uint64)
    kept = -1
    for row in range(len(edges)):
        if row == 0 or edges[row, 0] != edges[row - 1, 0]:
            kept += 1
            found[kept, 0] = found[kept, 1] = edges[row, 0]
        found[kept, 1] = min(found[kept, 1], edges[row, 1])
    return found[: kept + 1].copy()


@kernel
def star(edges: Pairs, least: Pairs, large: bool) -> tuple[Pairs, int]:
    """Link neighbours to the smallest address that their u knows, `least` of it: edges (m, 2), and how many changed.

    Large: each larger neighbour, in place of u; others are left out, as their own u sees them. Small: each smaller
    neighbour, and u itself in place of the smallest one. The first address of what comes out is the larger.
    """
    found = np.empty((len(edges), 2), np.uint64)
    at, kept, changed = 0, 0, 0
    for row in range(len(edges)):
        node, other = edges[row, 0], edges[row, 1]
        while least[at, 0] != node:
            at += 1
        smallest = least[at, 1]
        if large and other > node:
            found[kept, 0], found[kept, 1] = other, smallest
            changed += smallest != node
            kept += 1
        elif not large and other < node:
            found[kept, 0], found[kept, 1] = (node if other == smallest else other), smallest
            changed += other != smallest
            kept += 1
    return found[:kept].copy(), changed
