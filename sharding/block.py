"""A group's rows: its tokens as one block, and where its rows lie in them.

A block holds a view of its tokens; rows are copied out singly, straight into a batch, so that nothing is decoded that
is not used. Copying a row of 2,048 tokens takes 1.5 µs on a busy core, 2.6 µs where it has four pieces.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import attrgetter, getitem, lt
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
        pack = tables.pack.pack
        start, stop = reader.span(pack, group)
        tokens = reader.tokens(start, stop + 1)
        # Memory, not arrays: slicing and joining memory costs half of what it does with arrays.
        self.tokens, self._spare, self._length = tokens.data, tables.padding.data, pack.length
        self._out, self._spans = NONE, NO_SPANS
        taken = NO_SPANS
        if len(gone := left_out(reader, tables.without)):
            table = reader.table(pack)
            first, last = table.documents(group)
            low, high = np.searchsorted(gone, [first, last + 1])  # The token behind may be the next document's.
            self._out = gone[low:high]
            taken = table.tokens_of(self._out) - start
        if len(reader.loss):
            spans = reader.loss.astype(np.int64)
            low, high = np.searchsorted(spans[:, 1], start, "right"), np.searchsorted(spans[:, 0], stop + 1)
            self._spans = spans[low:high]
        #: Whether some tokens of its rows are not to be learned.
        self.mutes = len(self._spans) > 0
        self._straight = bytes(0)
        if pack.policy == "concat":
            self._straight = _straight((len(tokens) - 1) // pack.length, taken, pack.length)
        #: Rows that are copied as they lie, up to the first that is not.
        self.straight = (self._straight + b"\0").index(0)

    @cached_property
    def _laid(self) -> tuple[list[bytes], array[int], array[int]]:
        """SEGMENT records of each row; first copy of each row, and copies, in arrays, which give numbers fastest.

        Made when first asked for, which `concat` without masks never does.
        """
        layout = self._layout()
        records, bounds = layout.segments.tobytes(), (layout.first * SEGMENT.itemsize).tolist()
        rows = [records[start:stop] for start, stop in pairwise(bounds)]
        return rows, array("q", layout.copied.tobytes()), array("q", layout.copies.tobytes())

    def _layout(self) -> Layout:
        return self._tables.table(self._shard).layout(self._group, self._shard, self._out, self._spans)

    @cached_property
    def records(self) -> list[bytes]:
        """SEGMENT records of each row, as bytes: joining records field by field costs ten times as much."""
        return self._laid[0]

    def slices(self, row: int) -> list[memoryview]:
        """The tokens of a row and the one behind it, in order, as they lie."""
        tokens, straight = self.tokens, self._straight
        if row < len(straight) and straight[row]:
            start = row * self._length
            return [tokens[start : start + self._length + 1]]
        _, copied, copies = self._laid
        bounds, spare = iter(copies[2 * copied[row] : 2 * copied[row + 1]]), self._spare
        # A start of -1 is padding.
        return [tokens[a:b] if a >= 0 else spare[: b - a] for a, b in zip(bounds, bounds, strict=True)]

    @cached_property
    def _muted(self) -> tuple[Ints, Ints]:
        layout = self._layout()
        return layout.mutes, layout.muted

    def muted(self, row: int) -> Ints:
        """(n, 2) ranges of a row's tokens whose labels are not to be learned."""
        mutes, muted = self._muted
        return muted[mutes[row] : mutes[row + 1]]


# Rows are copied by so many tokens at a time, which the CPU's cache holds.
_TOKENS_AT_ONCE = 1 << 17
_tokens, _lead, _records = attrgetter("tokens"), attrgetter("straight"), attrgetter("records")


def copy_rows(blocks: Sequence[Block | None], rows: Ints, padding: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy rows of blocks, padding where there is none and behind them, into `out` (b, L + 1): joined as they lie, and
    widened as one, which costs less than to widen each."""
    at_once = max(1, _TOKENS_AT_ONCE // (len(padding) - 1))
    for first in range(0, len(out), at_once):
        last = min(first + at_once, len(out))
        held = rows[first:last]
        parts = [*_parts(blocks[first:last], held, padding), *[padding.data] * (last - first - len(held))]
        out[first:last] = np.frombuffer(b"".join(parts), padding.dtype).reshape(-1, len(padding))


def _parts(blocks: Sequence[Block | None], rows: Ints, padding: NDArray[Any]) -> list[memoryview]:
    """Give the tokens of rows, and one behind each, as they lie.

    Where all rows lie straight no Python runs for a row, which would cost as much as copying one of 2,048 tokens.
    """
    if None not in blocks and all(map(lt, rows.tolist(), map(_lead, blocks))):
        starts = rows * (len(padding) - 1)
        bounds = map(slice, starts.tolist(), (starts + len(padding)).tolist())
        return list(map(getitem, map(_tokens, blocks), bounds))
    places = zip(blocks, rows.tolist(), strict=True)
    return [part for block, row in places for part in (block.slices(row) if block else [padding.data])]


def join_segments(blocks: Sequence[Block | None], rows: Ints, padding: NDArray[Any], count: int) -> NDArray[Any]:
    """Give the SEGMENT records of rows one after another; `padding` where there is no block, up to `count` rows."""
    spare = padding.tobytes()
    if None not in blocks:
        parts: list[bytes] = list(map(getitem, map(_records, blocks), rows.tolist()))
    else:
        places = zip(blocks, rows.tolist(), strict=True)
        parts = [block.records[row] if block else spare for block, row in places]
    return np.frombuffer(b"".join(parts) + spare * (count - len(parts)), SEGMENT)


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
