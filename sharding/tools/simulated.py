"""Rows read in a simulated training: all of them where they are few, else those of sampled blocks.

A sampled block's rows are found back by the inverse of the order: row, ordinal, position, step, place in its batch,
rank. Blocks are drawn by a keyed permutation of a stream's groups, so a sample is the same every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..cached import cached_property
from ..format import Generation, PackOrder
from ..mixture import Mixture
from ..order import Order, stream_key
from ..permutation import Ints, derive, permute
from ..positions import Leg, Positions
from .shares import places_in_batch
from .touches import Touches

#: Rows that are counted one by one; more are sampled.
EXACT_ROWS = 1 << 20
#: Rows of sampled blocks; fewer where there are many streams, because each costs so much a stream.
SAMPLED_ROWS = 1 << 18
# Blocks sampled of a stream at least, full and short ones each.
_FEW = 16
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Setting:
    """What is simulated: the data, the order of its rows, and who reads it for so many steps."""

    generation: Generation
    pack: PackOrder
    mixed: Mixture
    seed: int
    batch_size: int
    nodes: int
    world: int
    steps: int

    @cached_property
    def positions(self) -> Positions:
        """The order that the loader reads."""
        whole = Leg(0, 0, self.mixed, (0,) * len(self.mixed.names))
        return Positions(self.generation, self.pack, [whole], self.seed)

    @cached_property
    def orders(self) -> list[Order]:
        """The order of each stream of the mixture."""
        return [Order(self.pack.streams[name], stream_key(self.seed, name)) for name in self.mixed.names]

    @property
    def exact(self) -> bool:
        """Whether every row is counted."""
        return self.steps * self.batch_size <= EXACT_ROWS

    def ranks(self, places: Ints) -> Ints:
        """Whose row of a batch it is: rank r of W has rows ⌊rB/W⌋ to ⌊(r+1)B/W⌋."""
        return ((places + 1) * self.world - 1) // self.batch_size

    def epochs(self, stream: str) -> float:
        """How often all rows of a stream are given in these steps."""
        return self.mixed.count(stream, self.steps * self.batch_size) / self.pack.streams[stream].rows

    def touches(self) -> Touches:
        """Give the rows read, or those of sampled blocks."""
        return self.counted(self.steps) if self.exact else _sampled(self)

    def counted(self, steps: int) -> Touches:
        """Give every row of the first steps, as the loader reads them."""
        return _all(self, steps)

    @cached_property
    def samples(self) -> list[Sample]:
        """Blocks drawn of each stream, and where their rows come in the order."""
        return list(_drawn_blocks(self))

    @cached_property
    def stored(self) -> dict[str, tuple[int, int]]:
        """Blocks and tokens of each stream."""
        shards, found = self.generation.shards, {}
        tokens = shards.by_stream("tokens")
        for name in self.mixed.names:
            full, short = shards.groups(self.pack.pack.name, name)
            found[name] = int(full.sum()) + int(np.count_nonzero(short)), tokens[name]
        return found


@dataclass(frozen=True)
class Sample:
    """Rows of sampled blocks of one stream, block by block in stored order.

    ordinals: when each comes in the stream's first epoch. blocks: of each row, from 0. weights: (blocks,) how many
    blocks of the stream each stands for.
    """

    stream: str
    ordinals: Ints
    blocks: Ints
    weights: np.ndarray


def _drawn_blocks(setting: Setting) -> Iterator[Sample]:
    """Draw blocks of each stream, full ones and short ones, and find their rows in the order."""
    total = sum(order.geometry.rows for order in setting.orders)
    budget = max(SAMPLED_ROWS // 8, SAMPLED_ROWS // len(setting.orders))
    for name, order in zip(setting.mixed.names, setting.orders, strict=True):
        shape = order.geometry
        size, share = shape.rows_per_group, budget / total
        _, short = setting.generation.shards.groups(setting.pack.pack.name, name)
        short = short[short > 0]
        key = derive(order.key, 0x5A3D1E)
        groups = _drawn(shape.groups, share, key)
        ends = _drawn(len(short), share, key)
        firsts = np.append(groups * size, shape.groups * size + (np.cumsum(short) - short)[ends])
        sizes = np.append(np.full(len(groups), size), short[ends])
        blocks = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.arange(len(blocks)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(firsts, sizes)
        stands = [(shape.groups, len(groups)), (len(short), len(ends))]
        weights = np.repeat([all_ / max(1, drawn) for all_, drawn in stands], [len(groups), len(ends)])
        yield Sample(name, order.ordinals(np.zeros_like(rows), rows), blocks, weights)


def _drawn(count: int, share: float, key: np.ndarray) -> Ints:
    """Draw a share of `count` things, at least a few."""
    if not count:
        return np.zeros(0, np.int64)
    return np.sort(permute(np.arange(min(count, max(_FEW, round(count * share)))), count, key))


def _all(setting: Setting, count: int) -> Touches:
    positions, size = setting.positions, setting.batch_size
    parts = []
    for first in range(0, count, chunk := max(1, _ROWS_AT_ONCE // size)):
        steps = np.arange(first, min(first + chunk, count), dtype=np.int64)
        batches = positions.sorted_by_lane(steps[:, None] * size + np.arange(size))
        places = positions.places(batches.ravel())
        ranks = np.tile(setting.ranks(np.arange(size)), len(steps))
        parts.append((places.epochs, places.shards, places.groups, np.repeat(steps, size), ranks))
    epochs, shards, groups, steps, ranks = map(np.concatenate, zip(*parts, strict=True))
    wide = int(groups.max()) + 1
    keys = (epochs * len(setting.generation.shards) + shards) * wide + groups
    _, blocks = np.unique(keys, return_inverse=True)
    return Touches(blocks, steps, ranks, np.ones(int(blocks.max()) + 1), count, setting.nodes, setting.world)


def _sampled(setting: Setting) -> Touches:
    """Find the rows of sampled blocks: of each stream's first epoch, which stands for all of its epochs."""
    parts, weights, held = [], [], 0
    for sample in setting.samples:
        positions = setting.mixed.positions(sample.stream, sample.ordinals)
        read = positions < setting.steps * setting.batch_size
        parts.append((sample.blocks[read] + held, positions[read]))
        weights.append(sample.weights * max(1.0, setting.epochs(sample.stream)))
        held += len(sample.weights)
    blocks, positions = map(np.concatenate, zip(*parts, strict=True))
    places = places_in_batch(setting.mixed, setting.orders, positions, setting.batch_size)
    steps = positions // setting.batch_size
    joined = np.concatenate(weights)
    return Touches(blocks, steps, setting.ranks(places), joined, setting.steps, setting.nodes, setting.world)
