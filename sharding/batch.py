"""A batch: the rows of one rank at one step. Tokens and labels are there; masks and ids are made when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .block import Block
from .buffers import Buffers
from .cached import cached_property
from .packing import NO_DOCUMENT, SEGMENT, Rows
from .permutation import Ints


class Batch:
    """b rows of L tokens of one step.

    step: number of the global batch. position, end: it covers the positions [position, end). positions: (b,) int64, the
    position of each row here, -1 for a row of padding. buffer: (b, L + 1) int32, tokens and labels at once.
    """

    def __init__(
        self,
        step: int,
        position: int,
        end: int,
        positions: Ints,
        places: Sequence[tuple[Block, int] | None],
        padding: NDArray[Any],
        buffers: Buffers,
    ) -> None:
        self.step, self.position, self.end, self.positions = step, position, end, positions
        self._places, self._length = places, len(padding) - 1
        self.buffer = buffers.take(len(positions), len(padding))
        if places:
            slices = [part for place in places for part in (place[0].slices(place[1]) if place else [padding])]
            np.concatenate(slices, out=self.buffer.reshape(-1))

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
        """(b, L) bool: False at a document's last token and in padding."""
        return self.rows.loss_mask

    @property
    def position_ids(self) -> NDArray[np.int32]:
        """(b, L) int32: counts from 0 in each piece of a document."""
        return self.rows.position_ids

    @property
    def document_ids(self) -> NDArray[np.uint64]:
        """(b, L) uint64: shard << 32 | ordinal of each token's document; 2^64 - 1 for padding."""
        return self.rows.document_ids

    @property
    def cu_seqlens(self) -> NDArray[np.int32]:
        """(pieces + 1,) int32: where each piece starts in the b·L tokens, then b·L; for variable-length attention."""
        return self.rows.cu_seqlens

    @cached_property
    def rows(self) -> Rows:
        """The same rows with the pieces of documents that make them up."""
        padding = np.zeros(1, SEGMENT)
        padding["document"], padding["length"] = NO_DOCUMENT, self._length
        parts: list[NDArray[Any]] = [place[0].segments(place[1]) if place else padding for place in self._places]
        # As plain bytes: joining records field by field costs ten times as much.
        plain = [part.view(np.dtype((np.void, SEGMENT.itemsize))) for part in parts]
        return Rows(self.buffer, np.concatenate(plain).view(SEGMENT) if plain else np.zeros(0, SEGMENT))
