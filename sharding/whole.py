"""Whole documents, for those who pack rows themselves: each once an epoch, over all ranks.

Shards come in an order keyed by seed and epoch; within a shard documents stand as they were shuffled when it was
written, and each rank reads one contiguous share of them, so that reading is sequential. Documents that were taken
down, and those that the plan leaves out, do not come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blocks import Blocks
from .left_out import left_out
from .order import stream_key
from .packing import NO_SPANS
from .permutation import Ints, derive, permute
from .shard import ShardReader

# Documents read together have this many tokens or are a single one.
_TOKENS = 1 << 19


@dataclass(frozen=True)
class Document:
    """A document. document_id: shard << 32 | ordinal. tokens: read-only, with its EOS (and BOS if there is one).

    unlearned: (n, 2) int64, ranges of its tokens that are not to be learned, rising; mostly there are none.
    """

    document_id: int
    stream: str
    tokens: NDArray[Any]
    unlearned: Ints = field(default_factory=lambda: NO_SPANS)


def documents(
    shards: Sequence[int], blocks: Blocks, seed: int, epoch: int, rank: int, world_size: int
) -> Iterator[Document]:
    """Give the documents of these shards that fall to a rank in one epoch."""
    key = derive(stream_key(seed, "documents"), epoch)
    for place in permute(np.arange(len(shards)), len(shards), key).tolist():
        shard = shards[place]
        count = blocks.reader(shard).entry.documents
        yield from _share(blocks, shard, rank * count // world_size, (rank + 1) * count // world_size)


def _share(blocks: Blocks, shard: int, first: int, last: int) -> Iterator[Document]:
    stream = blocks.reader(shard).entry.stream
    ends = blocks.read(shard, lambda reader: reader.ends).astype(np.int64)
    out = frozenset(blocks.read(shard, lambda reader: left_out(reader, blocks.without)).tolist())
    spans = blocks.read(shard, lambda reader: reader.loss).astype(np.int64)
    start = int(ends[first - 1]) if first else 0
    while first < last:
        stop = max(first + 1, int(np.searchsorted(ends[:last], start + _TOKENS, side="right")))
        end = int(ends[stop - 1])
        tokens = blocks.read(shard, partial(ShardReader.tokens, start=start, stop=end))
        cuts = (ends[first : stop - 1] - start).tolist()
        for ordinal, part in enumerate(np.split(tokens, cuts), first):
            if ordinal not in out:
                unlearned = _inside(spans, int(ends[ordinal]) - len(part), len(part))
                yield Document(shard << 32 | ordinal, stream, part, unlearned)
        first, start = stop, end


def _inside(spans: Ints, start: int, size: int) -> Ints:
    """Give the parts of ranges that lie in `size` tokens from `start` on, counted from there."""
    if not len(spans):
        return spans
    low, high = np.searchsorted(spans[:, 1], start, "right"), np.searchsorted(spans[:, 0], start + size)
    return np.clip(spans[low:high] - start, 0, size)
