"""Which stream gives the n-th row: exact integer splits down a tree of weights, no table and no dice.

At a node whose left side has weight a of b, the first t rows hold floor((t·a + b div 2) / b) rows of the left side.
Row t goes left where that count rises; its number on that side is the count before it. So at any n every stream has
had its share to within half a row a level (drawing by chance strays by the root of n), each stream's own rows are
counted 0, 1, 2, … without a gap, and any n up to 2^62 costs the same. With t = q·b + r no product leaves 64 bits as
long as the weights sum to at most 2^31.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from .. import RequestError
from .cached import cached_property
from .permutation import Ints

LARGEST_SUM = 1 << 31


@dataclass(frozen=True)
class _Node:
    """A fork: `left` of `total` go left. Children are nodes by number; a stream s is ~s."""

    left: int
    total: int
    children: tuple[int, int]


@dataclass(frozen=True)
class Mixture:
    """Streams and their integer weights, in a fixed order. Weights are positive and sum to at most 2^31."""

    weights: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.weights]
        if not names or len(set(names)) != len(names) or min(weight for _, weight in self.weights) < 1:
            raise ValueError(f"a mixture needs streams, each once and with a positive weight: {self.weights}")
        if self.total > LARGEST_SUM:
            raise ValueError(f"weights may sum to {LARGEST_SUM}, these sum to {self.total}")

    @property
    def names(self) -> tuple[str, ...]:
        """Streams in the order in which `split` numbers them."""
        return tuple(name for name, _ in self.weights)

    @property
    def total(self) -> int:
        """Sum of the weights: in every so many rows each stream has exactly its weight's number of rows."""
        return sum(weight for _, weight in self.weights)

    @cached_property
    def _nodes(self) -> tuple[_Node, ...]:
        """Huffman's tree (1952): large streams lie shallow. The root is the last node; ties go by stream number."""
        heap = [(weight, number, ~number) for number, (_, weight) in enumerate(self.weights)]
        heapq.heapify(heap)
        nodes: list[_Node] = []
        while len(heap) > 1:
            first, second = heapq.heappop(heap), heapq.heappop(heap)
            nodes.append(_Node(first[0], first[0] + second[0], (first[2], second[2])))
            heapq.heappush(heap, (first[0] + second[0], len(self.weights) + len(nodes), len(nodes) - 1))
        return tuple(nodes)

    @cached_property
    def _paths(self) -> dict[int, tuple[tuple[_Node, bool], ...]]:
        """For each stream the forks from the root down to it, and whether it lies left."""
        paths: dict[int, tuple[tuple[_Node, bool], ...]] = {}
        stack: list[tuple[int, tuple[tuple[_Node, bool], ...]]] = [(len(self._nodes) - 1, ())]
        while stack:
            number, path = stack.pop()
            if number < 0:
                paths[~number] = path
                continue
            node = self._nodes[number]
            stack += [(child, (*path, (node, left))) for child, left in zip(node.children, (True, False), strict=True)]
        return paths

    @property
    def depth(self) -> int:
        """Forks above the deepest stream. A stream's count strays from its share by at most half of this."""
        return max(len(path) for path in self._paths.values())

    def split(self, positions: Ints) -> tuple[Ints, Ints]:
        """(stream number, ordinal within that stream) of each position."""
        streams, ordinals = np.empty_like(positions), np.empty_like(positions)
        stack = [(len(self._nodes) - 1, np.arange(len(positions)), positions)]
        while stack:
            number, where, rows = stack.pop()
            if number < 0:
                streams[where], ordinals[where] = ~number, rows
                continue
            node = self._nodes[number]
            turns, rest = np.divmod(rows, node.total)
            count, phase = np.divmod(rest * node.left + node.total // 2, node.total)
            count += turns * node.left
            left = phase >= node.total - node.left
            for child, side, own in ((node.children[0], left, count), (node.children[1], ~left, rows - count)):
                if side.any():
                    stack.append((child, where[side], own[side]))
        return streams, ordinals

    def count(self, stream: str, position: int) -> int:
        """How many of the first `position` rows are of this stream."""
        rows = position
        for node, left in self._paths[self.names.index(stream)]:
            lefts = (rows * node.left + node.total // 2) // node.total
            rows = lefts if left else rows - lefts
        return rows

    def counts(self, positions: Ints) -> Ints:
        """How many of the first `position` rows are of each stream, for many positions: (streams, n)."""
        found = np.empty((len(self.weights), len(positions)), dtype=np.int64)
        stack = [(len(self._nodes) - 1, positions)]
        while stack:
            number, rows = stack.pop()
            if number < 0:
                found[~number] = rows
                continue
            node = self._nodes[number]
            turns, rest = np.divmod(rows, node.total)
            lefts = turns * node.left + (rest * node.left + node.total // 2) // node.total
            stack += [(node.children[0], lefts), (node.children[1], rows - lefts)]
        return found

    def positions(self, stream: str, ordinals: Ints) -> Ints:
        """The positions at which a stream's rows come: `position` for many."""
        rows = ordinals
        for node, left in reversed(self._paths[self.names.index(stream)]):
            share = node.left if left else node.total - node.left
            half = node.total // 2 if left else (node.total - 1) // 2
            turns, rest = np.divmod(rows + 1, share)
            rows = turns * node.total - (half - rest * node.total) // share - 1
        return rows

    def position(self, stream: str, ordinal: int) -> int:
        """The position at which a stream's row of this ordinal comes: the inverse of `split`."""
        row = ordinal
        for node, left in reversed(self._paths[self.names.index(stream)]):
            # The smallest t with count(t + 1) > row; the right side counts floor((t·(b - a) + (b - 1) div 2) / b).
            share = node.left if left else node.total - node.left
            half = node.total // 2 if left else (node.total - 1) // 2
            row = -(-((row + 1) * node.total - half) // share) - 1
        return row


def mixture(weights: Mapping[str, int | float | Fraction]) -> Mixture:
    """Make a mixture of any positive weights: 0.7 counts as 7/10, exactly; streams of weight 0 are left out.

    Weights are brought to the smallest integers of the same ratio. Where these sum to more than 2^31 they are scaled
    down to it, each to at least 1.
    """
    exact = {name: exact_weight(name, weight) for name, weight in sorted(weights.items())}
    exact = {name: weight for name, weight in exact.items() if weight}
    if not exact:
        raise RequestError(f"no stream has a weight above 0 in {dict(weights)}; name at least one")
    scale = lcm(*(weight.denominator for weight in exact.values()))
    whole = _reduced({name: int(weight * scale) for name, weight in exact.items()})
    total = sum(whole.values())
    if total > LARGEST_SUM:
        room = LARGEST_SUM - len(whole)
        whole = _reduced({name: max(1, weight * room // total) for name, weight in whole.items()})
    return Mixture(tuple(whole.items()))


def exact_weight(name: str, weight: int | float | Fraction) -> Fraction:
    """Read a stream's weight as it is written, 0.7 as 7/10; RequestError where it is no number from 0 up."""
    try:
        exact = Fraction(str(weight))
    except (ValueError, ZeroDivisionError):
        raise RequestError(f"the weight of stream {name!r} is {weight!r}; weights are numbers from 0 up") from None
    if exact < 0:
        raise RequestError(f"the weight of stream {name!r} is {weight}; weights are numbers from 0 up")
    return exact


def _reduced(weights: dict[str, int]) -> dict[str, int]:
    common = gcd(*weights.values())
    return {name: weight // common for name, weight in weights.items()}
