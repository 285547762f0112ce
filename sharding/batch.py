"""A batch: the rows of one rank at one step. Tokens and labels are there; masks and ids are made when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .block import Block, copy_rows, join_segments
from .buffers import Buffers
from .cached import cached_property
from .packing import NO_DOCUMENT, NO_SPANS, SEGMENT
from .permutation import Ints
from .rows import Rows, Varlen

_mutes = attrgetter("mutes")


class Batch:
    """b rows of L tokens of one step.

    step: number of the global batch. position, end: it covers the positions [position, end). positions: (b,) int64, the
    position of each row here, -1 for a row of padding. buffer: (b, L + 1) int32, or as wide as `buffers` has it, tokens
    and labels at once. blocks, rows: where each row lies, None for one of padding; padding follows these, too.
    """

    def __init__(
        self,
        step: int,
        position: int,
        end: int,
        positions: Ints,
        blocks: Sequence[Block | None],
        rows: Ints,
        padding: NDArray[Any],
        buffers: Buffers,
    ) -> None:
        self.step, self.position, self.end, self.positions = step, position, end, positions
        self._blocks, self._numbers, self._length = blocks, rows, len(padding) - 1
        self.buffer = buffers.take(len(positions), len(padding))
        copy_rows(blocks, rows, padding, self.buffer)

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"Batch(step={self.step}, position={self.position}, rows={len(self)}, length={self._length})"

    @property
    def tokens(self) -> NDArray[np.int32]:
        """(b, L) int32 ids, a view."""
        return self.buffer[:, :-1]

    @property
    def labels(self) -> NDArray[np.int32]:
        """(b, L) int32 ids one token ahead, a view; without meaning where `loss_mask` is False."""
        return self.buffer[:, 1:]

    @property
    def loss_mask(self) -> NDArray[np.bool_]:
        """(b, L) bool: False at a document's last token, where the label is not to be learned, and in padding."""
        return self.rows.loss_mask

    @property
    def position_ids(self) -> NDArray[np.int32]:
        """(b, L) int32: counts from 0 in each piece of a document."""
        return self.rows.position_ids

    @property
    def document_positions(self) -> Ints:
        """(b, L) int64: which of its document's tokens each is, also where a document goes on from another row."""
        return self.rows.document_positions

    @property
    def document_ids(self) -> NDArray[np.uint64]:
        """(b, L) uint64: shard << 32 | ordinal of each token's document; 2^64 - 1 for padding."""
        return self.rows.document_ids

    @property
    def segment_ids(self) -> NDArray[np.int32]:
        """(b, L) int32: the pieces of documents in each row, from 1; 0 for padding, as JAX's attention takes them."""
        return self.rows.segment_ids

    @property
    def cu_seqlens(self) -> NDArray[np.int32]:
        """(pieces + 1,) int32: where each piece starts in the b·L tokens, then b·L; for variable-length attention."""
        return self.rows.cu_seqlens

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest piece."""
        return self.rows.max_seqlen

    def varlen(self, pieces: int) -> Varlen:
        """Give `cu_seqlens` in the shape (pieces + 1,), for compiled graphs, and `max_seqlen`.

        RequestError where the batch has more pieces, with their number; `count_pieces` says what never happens.
        """
        return self.rows.varlen(pieces)

    @cached_property
    def rows(self) -> Rows:
        """The same rows with the pieces of documents that make them up."""
        if not len(self.positions):
            return Rows(self.buffer, np.zeros(0, SEGMENT))
        padding = np.zeros(1, SEGMENT)
        padding["document"], padding["length"] = NO_DOCUMENT, self._length
        return Rows(self.buffer, join_segments(self._blocks, self._numbers, padding, len(self)), self._muted())

    def _muted(self) -> Ints:
        """(n, 2) ranges of the b·L tokens whose labels are not to be learned."""
        if not any(map(_mutes, filter(None, self._blocks))):
            return NO_SPANS
        places = enumerate(zip(self._blocks, self._numbers.tolist(), strict=True))
        muted = [block.muted(at) + row * self._length for row, (block, at) in places if block and block.mutes]
        return np.concatenate(muted)
