"""A group's rows: its tokens as one block, and where its rows lie in them.

A block holds a view of its tokens; rows are copied out singly, straight into a batch, so that nothing is decoded that
is not used. Copying a row of 2,048 tokens takes 0.6 µs.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .cached import cached_property
from .format import PackOrder
from .packing import Layout, PackTable
from .shard import ShardReader


class Tables(Protocol):
    """What a block asks of those that keep it: `Blocks`. padding: a row of padding, EOS."""

    @property
    def pack(self) -> PackOrder:
        """The pack whose rows are read."""

    @property
    def padding(self) -> NDArray[Any]:
        """(L + 1,) EOS, in the type of a block's tokens."""

    def table(self, shard: int) -> PackTable:
        """Say where the rows of the pack lie in a shard."""


class Block:
    """The rows of one group. Holds a map of its tokens, and the shard's tables only while they are asked for."""

    def __init__(self, blocks: Tables, shard: int, group: int, reader: ShardReader) -> None:
        self._blocks, self._shard, self._group = blocks, shard, group
        self._pack = blocks.pack.pack
        start, stop = reader.table(self._pack).span(group)
        tokens = reader.tokens(start, stop + 1)
        # Ids are below 2^31, so signed words hold them; 16-bit ids are widened where they are copied.
        self.tokens: NDArray[Any] = tokens.view(np.int32) if tokens.dtype.itemsize == 4 else tokens
        self._ends_shard = stop == reader.entry.tokens

    @cached_property
    def layout(self) -> Layout:
        """Where the pieces of each row lie; made when first asked for, which `concat` without masks never does."""
        return self._blocks.table(self._shard).layout(self._group, self._shard)

    @cached_property
    def _cuts(self) -> tuple[memoryview, memoryview]:
        """First piece of each row; start and stop of each piece. Reading numbers from a memoryview costs half."""
        layout = self.layout
        stops = layout.starts + layout.sizes
        return layout.first.data, np.stack([layout.starts, stops], axis=1).ravel().data

    def slices(self, row: int) -> list[NDArray[Any]]:
        """The tokens of a row and the one behind it, in order, as views."""
        length, tokens = self._pack.length, self.tokens
        if self._pack.policy == "concat" and (row + 1) * length < len(tokens):
            return [tokens[row * length : (row + 1) * length + 1]]
        first, cuts = self._cuts
        bounds = iter(cuts[2 * first[row] : 2 * first[row + 1]].tolist())
        spare = self._blocks.padding
        # A start of -1 is padding.
        slices = [tokens[a:b] if a >= 0 else spare[: b - a] for a, b in zip(bounds, bounds, strict=True)]
        if self._ends_shard and sum(map(len, slices)) == length:
            slices.append(spare[:1])  # The row ends with the shard: no token lies behind it.
        return slices

    def segments(self, row: int) -> NDArray[Any]:
        """SEGMENT records of a row."""
        low, high = self.layout.first[row : row + 2].tolist()
        return self.layout.segments[low:high]
