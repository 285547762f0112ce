"""What a batch of packed rows gives, from its tokens and the pieces of documents that make it up.

Everything is made when it is asked for, over the whole batch at once. On one busy core a token costs 0.1 ns in
`loss_mask`, 0.2 ns in `segment_ids`, 0.5 ns in `position_ids` and 1 ns in what has 64 bits, where a document has some
hundreds of tokens; below 50 tokens a document up to three times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import RequestError
from .cached import cached_property
from .packing import NO_DOCUMENT, NO_SPANS
from .permutation import Ints


class Varlen(NamedTuple):
    """Where the pieces of a batch lie, in a shape that is the same for every batch.

    cu_seqlens: (pieces + 1,) int32; behind the last piece b·L again and again, so that the pieces there are empty.
    max_seqlen: tokens of the longest piece. Where a compiled graph must not see it change, pass L, which bounds it.
    """

    cu_seqlens: NDArray[np.int32]
    max_seqlen: int


@dataclass(frozen=True)
class Rows:
    """A batch of n rows of L tokens. `buffer` (n, L + 1) holds tokens and labels at once; the rest is made when asked.

    segments: SEGMENT records of all rows, one row after another; each row's lengths sum to L. muted: (spans, 2) ranges
    of the n·L tokens whose labels are not learned, rising.
    """

    buffer: NDArray[Any]
    segments: NDArray[Any]
    muted: Ints = field(default_factory=lambda: NO_SPANS)

    @property
    def tokens(self) -> NDArray[Any]:
        """(n, L) ids, a view."""
        return self.buffer[:, :-1]

    @property
    def labels(self) -> NDArray[Any]:
        """(n, L) ids one token ahead, a view; without meaning where `loss_mask` is 0."""
        return self.buffer[:, 1:]

    @cached_property
    def _lengths(self) -> Ints:
        """(segments,) int64: tokens of each piece."""
        return self.segments["length"].astype(np.int64)

    @cached_property
    def _ends(self) -> Ints:
        """(segments,) int64: where each piece ends in the n·L tokens."""
        return np.cumsum(self._lengths)

    @cached_property
    def _columns(self) -> Ints:
        """(segments,) int64: where each piece starts in its row."""
        columns: Ints = (self._ends - self._lengths) % max(1, self.tokens.shape[1])
        return columns

    @cached_property
    def _real(self) -> NDArray[np.bool_]:
        """(segments,) bool: False for padding."""
        real: NDArray[np.bool_] = self.segments["document"] != np.uint64(NO_DOCUMENT)
        return real

    def _spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """(n, L): each piece's value at each of its tokens."""
        return np.repeat(values, self._lengths).reshape(self.tokens.shape)

    @cached_property
    def cu_seqlens(self) -> NDArray[np.int32]:
        """(segments + 1,) int32: where each piece starts in the n·L tokens, and their number; padding is a piece."""
        if self.tokens.size >= 1 << 31:
            raise RequestError(
                f"cu_seqlens count tokens in 32 bits, this batch has {self.tokens.size}: ask for fewer rows"
            )
        return np.append(0, self._ends).astype(np.int32)

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest piece."""
        return int(self._lengths.max(initial=0))

    def varlen(self, pieces: int) -> Varlen:
        """Give `cu_seqlens` in the shape (pieces + 1,), padded with empty pieces; RequestError where they are more."""
        held = len(self.segments)
        if held > pieces:
            raise RequestError(
                f"this batch of {len(self.tokens)} rows has {held} pieces, varlen was asked for {pieces}: pass {held} "
                "or more; `penstock.sharding.pieces.count_pieces` says how many no batch goes beyond"
            )
        return Varlen(np.pad(self.cu_seqlens, (0, pieces - held), mode="edge"), self.max_seqlen)

    @cached_property
    def position_ids(self) -> NDArray[np.int32]:
        """(n, L) int32, from 0 in each piece."""
        starts: NDArray[np.int32] = self._spread(self._columns.astype(np.int32))
        np.subtract(np.arange(self.tokens.shape[1], dtype=np.int32), starts, out=starts)
        return starts

    @cached_property
    def document_positions(self) -> Ints:
        """(n, L) int64: which of its document's tokens each is; in padding from 0."""
        shifts: Ints = self._spread(self.segments["offset"] - self._columns)
        shifts += np.arange(self.tokens.shape[1])
        return shifts

    @cached_property
    def document_ids(self) -> NDArray[np.uint64]:
        """(n, L) uint64: shard << 32 | ordinal of each token's document; 2^64 - 1 for padding."""
        return self._spread(self.segments["document"])

    @cached_property
    def segment_ids(self) -> NDArray[np.int32]:
        """(n, L) int32: pieces of documents in each row, from 1; 0 for padding."""
        count = np.cumsum(self._real)
        first = self._columns == 0
        before: Ints = (count - self._real)[first][np.cumsum(first) - 1]
        return self._spread(np.where(self._real, count - before, 0).astype(np.int32))

    @cached_property
    def loss_mask(self) -> NDArray[np.bool_]:
        """(n, L) bool: 1 where the label is a token of the same document, and to be learned."""
        mask = self._spread(self._real)
        flat = mask.reshape(-1)
        flat[self._ends[~self.segments["continues"]] - 1] = False
        if len(self.muted):
            runs = np.diff(self.muted.ravel(), prepend=0, append=flat.size)
            flat &= np.repeat(np.arange(len(runs)) % 2 == 0, runs)
        return mask
