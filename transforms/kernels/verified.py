"""Which documents of a cluster are alike: true Jaccard similarity of shingle sets, decided in integers.

Two sets reach numerator / denominator where shared · (numerator + denominator) ≥ numerator · (size + size). A
comparison stops as soon as it is decided: sets that have little in common cost the few numbers it takes to see that,
others 3 ns a shingle. Pairs already joined are not compared; that changes no component.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel

Places = NDArray[np.int64]
Words64 = NDArray[np.uint64]


@kernel
def alike(a: Words64, b: Words64, numerator: int, denominator: int) -> bool:
    """Say whether the similarity of two sets, sorted and distinct, reaches numerator / denominator > 0.

    An empty set is like nothing.
    """
    whole = numerator + denominator
    need = (numerator * (len(a) + len(b)) + whole - 1) // whole
    spare_a, spare_b = len(a) - need, len(b) - need
    i = j = shared = 0
    while spare_a >= 0 and spare_b >= 0 and i < len(a) and j < len(b):
        left, right = a[i], b[j]
        if left == right:
            shared += 1
            if shared == need:
                return True
        spare_a -= left < right
        spare_b -= right < left
        i += left <= right
        j += right <= left
    return False


@kernel
def find(parent: Places, item: int) -> int:
    """Give the root of an item's tree, and shorten the way to it."""
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@kernel
def join_alike(
    bounds: Places,
    members: Places,
    offsets: Places,
    values: Words64,
    numerator: int,
    denominator: int,
    most: int,
    parent: Places,
) -> int:
    """Join, in each cluster of at most `most` members, all pairs that are alike; give the comparisons made.

    Cluster c has the members [bounds[c], bounds[c + 1]); `members` (n,) name sets of `offsets` and `values`, laid end
    to end; `parent` (n,), trees over the members, is joined.
    """
    compared = 0
    for cluster in range(len(bounds) - 1):
        first, end = bounds[cluster], bounds[cluster + 1]
        if end - first > most:
            continue
        for one in range(first, end):
            left = values[offsets[members[one]] : offsets[members[one] + 1]]
            for two in range(one + 1, end):
                a, b = find(parent, one), find(parent, two)
                if a != b:
                    compared += 1
                    right = values[offsets[members[two]] : offsets[members[two] + 1]]
                    if alike(left, right, numerator, denominator):
                        parent[max(a, b)] = min(a, b)
    return compared


@kernel
def join_buckets(
    order: Places,
    bounds: Places,
    members: Places,
    offsets: Places,
    values: Words64,
    numerator: int,
    denominator: int,
    leaders: int,
    parent: Places,
) -> int:
    """Join members that share a bucket and are alike; give the comparisons made.

    Bucket b holds order[bounds[b]:bounds[b + 1]]. In one of at most 2 · leaders all pairs are compared; in a larger one
    each member is with the leaders, and one that is like none of them becomes one, as long as there are fewer than
    `leaders`: n · leaders comparisons a bucket, never n².
    """
    leading = np.empty(2 * leaders, np.int64)
    compared = 0
    for bucket in range(len(bounds) - 1):
        few = bounds[bucket + 1] - bounds[bucket] <= 2 * leaders
        held = 0
        for place in range(bounds[bucket], bounds[bucket + 1]):
            one, joined = order[place], False
            left = values[offsets[members[one]] : offsets[members[one] + 1]]
            for two in leading[:held]:
                a, b = find(parent, one), find(parent, two)
                if a == b:
                    joined = True
                    continue
                compared += 1
                right = values[offsets[members[two]] : offsets[members[two] + 1]]
                if alike(left, right, numerator, denominator):
                    joined = True
                    parent[max(a, b)] = min(a, b)
            if few or (not joined and held < leaders):
                leading[held] = one
                held += 1
    return compared


@kernel
def flatten(parent: Places) -> None:
    """Let every item name its root; parents are smaller than their children."""
    for item in range(len(parent)):
        parent[item] = parent[parent[item]]
