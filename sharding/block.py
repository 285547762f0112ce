"""A group's rows: its tokens as one block, and where its rows lie in them.

A block holds a view of its tokens; rows are copied out singly, straight into a batch, so that nothing is decoded that
is not used. Copying a row of 2,048 tokens takes 0.6 µs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .cached import cached_property
from .format import PackOrder
from .left_out import left_out
from .packing import NO_SPANS, NONE, SEGMENT, Layout, PackTable
from .permutation import Ints
from .shard import ShardReader


class Tables(Protocol):
    """What a block asks of those that keep it: `Blocks`. padding: a row of padding, EOS."""

    @property
    def pack(self) -> PackOrder:
        """The pack whose rows are read."""

    @property
    def without(self) -> Mapping[int, Ints]:
        """Documents that the plan leaves out: rising ordinals by shard."""

    @property
    def padding(self) -> NDArray[Any]:
        """(L + 1,) EOS, in the type of a block's tokens."""

    def table(self, shard: int) -> PackTable:
        """Say where the rows of the pack lie in a shard."""


class Block:
    """The rows of one group. Holds a map of its tokens, and the shard's tables only while they are asked for."""

    def __init__(self, tables: Tables, shard: int, group: int, reader: ShardReader) -> None:
        self._tables, self._shard, self._group = tables, shard, group
        pack, table = tables.pack.pack, reader.table(tables.pack.pack)
        start, stop = table.span(group)
        tokens = reader.tokens(start, stop + 1)
        # Ids are below 2^31, so signed words hold them; 16-bit ids are widened where they are copied.
        self.tokens: NDArray[Any] = tokens.view(np.int32) if tokens.dtype.itemsize == 4 else tokens
        self._length = pack.length
        self._out, self._spans = NONE, NO_SPANS
        if len(gone := left_out(reader, tables.without)):
            first, last = table.documents(group)
            low, high = np.searchsorted(gone, [first, last + 1])  # The token behind may be the next document's.
            self._out = gone[low:high]
        if len(reader.loss):
            spans = reader.loss.astype(np.int64)
            low, high = np.searchsorted(spans[:, 1], start, "right"), np.searchsorted(spans[:, 0], stop + 1)
            self._spans = spans[low:high]
        self._straight = bytes(0)
        if pack.policy == "concat":
            self._straight = _straight(
                (len(tokens) - 1) // pack.length, table.tokens_of(self._out) - start, pack.length
            )

    @property
    def mutes(self) -> bool:
        """Whether some tokens of its rows are not to be learned."""
        return len(self._spans) > 0

    @cached_property
    def layout(self) -> Layout:
        """Where the pieces of each row lie; made when first asked for, which `concat` without masks never does."""
        return self._tables.table(self._shard).layout(self._group, self._shard, self._out, self._spans)

    @cached_property
    def _copies(self) -> tuple[memoryview, memoryview]:
        """First copy of each row; start and stop of each. Reading numbers from a memoryview costs half."""
        return self.layout.copied.data, self.layout.copies.ravel().data

    @cached_property
    def _pieces(self) -> tuple[memoryview, NDArray[Any]]:
        """First piece of each row; pieces as plain bytes: joining records field by field costs ten times as much."""
        return self.layout.first.data, self.layout.segments.view(np.dtype((np.void, SEGMENT.itemsize)))

    def slices(self, row: int) -> list[NDArray[Any]]:
        """The tokens of a row and the one behind it, in order, as views."""
        tokens = self.tokens
        if row < len(self._straight) and self._straight[row]:
            start = row * self._length
            return [tokens[start : start + self._length + 1]]
        copied, copies = self._copies
        bounds = iter(copies[2 * copied[row] : 2 * copied[row + 1]].tolist())
        spare = self._tables.padding
        # A start of -1 is padding.
        return [tokens[a:b] if a >= 0 else spare[: b - a] for a, b in zip(bounds, bounds, strict=True)]

    def segments(self, row: int) -> NDArray[Any]:
        """SEGMENT records of a row, as plain bytes."""
        first, plain = self._pieces
        return plain[first[row] : first[row + 1]]

    def muted(self, row: int) -> Ints:
        """(n, 2) ranges of a row's tokens whose labels are not to be learned."""
        low, high = self.layout.mutes[row : row + 2].tolist()
        return self.layout.muted[low:high]


def _straight(full: int, out: Ints, length: int) -> bytes:
    """Say of each of the `full` first rows of a group of `concat` whether it is copied as it lies, with the token
    behind it: whether no document lies there that is left out. out: (n, 2) tokens of those, from the group's first."""
    if not len(out):
        return b"\1" * full
    touched = np.zeros(full + 1, np.int64)
    low, high = np.clip([(out[:, 0] - 1) // length, (out[:, 1] - 1) // length + 1], 0, full)
    np.add.at(touched, low, 1)
    np.add.at(touched, high, -1)
    return bytes(np.cumsum(touched[:full]) == 0)
