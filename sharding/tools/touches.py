"""Which rows of which blocks are read by whom at which step, and what follows: reads, sharing, the cache they want.

A touch is a row read. From touches follow, per node: how many nodes read a block (amplification), how long a block is
wanted (its life), and how many reads a cache of a given size leaves. The last by Denning's working sets (1968, "The
working set model for program behavior"): a cache that keeps what was used in the last T steps holds on average the sum
of min(gap, T) over all uses, and misses where a gap is longer; LRU of that size behaves like it. So one pass over the
gaps gives the reads of every cache size, where a simulated cache would take a pass a size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cached import cached_property
from ..permutation import Ints

Floats = NDArray[np.float64]
#: Gaps at which the curve of cache sizes is worked out.
_POINTS = 64


@dataclass(frozen=True)
class Touches:
    """Rows read, an entry each: block (numbers from 0), step, the rank that reads it.

    weights: (blocks,) how many blocks each stands for: more than 1 where blocks were sampled. steps: so many are
    looked at. nodes: each has world / nodes ranks that share what they read.
    """

    blocks: Ints
    steps: Ints
    ranks: Ints
    weights: Floats
    step_count: int
    nodes: int
    world: int

    @cached_property
    def _uses(self) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """Block, node and step of each use, one of each, sorted so; and whether it is the node's first of the block."""
        nodes = self.ranks // (self.world // self.nodes)
        order = np.lexsort((self.steps, nodes, self.blocks))
        blocks, nodes, steps = self.blocks[order], nodes[order], self.steps[order]
        first = np.append(True, (blocks[1:] != blocks[:-1]) | (nodes[1:] != nodes[:-1]))
        use = first | np.append(True, steps[1:] != steps[:-1])
        return blocks[use], nodes[use], steps[use], first[use]

    @cached_property
    def blocks_met(self) -> float:
        """Blocks of which a row was read."""
        return float(self.weights[np.unique(self.blocks)].sum())

    @property
    def reads(self) -> float:
        """Blocks read where each node keeps what it has read as long as it wants it."""
        blocks, _, _, first = self._uses
        return float(self.weights[blocks[first]].sum())

    @property
    def fresh(self) -> Ints:
        """Blocks that a node reads for the first time: (steps, nodes)."""
        _, nodes, steps, first = self._uses
        new = np.zeros((self.step_count, self.nodes), np.int64)
        np.add.at(new, (steps[first], nodes[first]), 1)
        return new

    @property
    def uncached_reads(self) -> float:
        """Blocks read where each node forgets a block after every step."""
        return float(self.weights[self._uses[0]].sum())

    @property
    def rank_reads(self) -> float:
        """Blocks read where each rank reads for itself."""
        _, first = np.unique(self.blocks * self.world + self.ranks, return_index=True)
        return float(self.weights[self.blocks[first]].sum())

    @property
    def error(self) -> float:
        """Standard error of reads / blocks_met: 0 where all blocks were looked at."""
        if self.weights.max() == 1:
            return 0.0
        blocks, _, _, first = self._uses
        nodes = np.bincount(blocks[first], minlength=len(self.weights))
        met = nodes > 0
        share = self.weights[met] / self.weights[met].sum()
        spread = nodes[met] - float(share @ nodes[met])
        return float(np.sqrt(np.sum(share**2 * spread**2)))

    @property
    def live(self) -> float:
        """Blocks a node wants at a time, on average: from the first use to the last (Little's law)."""
        blocks, _, steps, first = self._uses
        begins = np.flatnonzero(first)
        lives = steps[np.append(begins[1:], len(steps)) - 1] - steps[begins] + 1
        return float(self.weights[blocks[begins]] @ lives) / self.step_count / self.nodes

    @cached_property
    def curve(self) -> tuple[Floats, Floats]:
        """(blocks of cache a node, blocks read), from the smallest cache to one that reads each block once a node."""
        blocks, _, steps, first = self._uses
        again = np.flatnonzero(~first)
        gaps, weights = steps[again] - steps[again - 1], self.weights[blocks[again]]
        order = np.argsort(gaps)
        gaps, weights = gaps[order], weights[order]
        largest = int(gaps[-1]) if len(gaps) else 1
        spans = np.unique(np.geomspace(1, largest, _POINTS).astype(np.int64))
        short = np.searchsorted(gaps, spans, side="right")
        sums, times = (np.append(0.0, np.cumsum(part)) for part in (weights, weights * gaps))
        held = times[short] + spans * (sums[-1] - sums[short] + self.reads)
        return held / self.step_count / self.nodes, self.reads + sums[-1] - sums[short]

    def cache_for(self, reads: float) -> float:
        """Give the smallest cache on the curve, in blocks a node, that reads no more than so many blocks."""
        held, misses = self.curve
        return float(held[np.flatnonzero(misses <= max(reads, misses[-1]))[0]])
