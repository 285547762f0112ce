"""Whole documents, for those who pack rows themselves: each once an epoch, over all ranks.

Shards come in an order keyed by seed and epoch; within a shard documents stand as they were shuffled when it was
written, and each rank reads one contiguous share of them, so that reading is sequential.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .order import stream_key
from .permutation import derive, permute
from .shard import ShardReader

# Documents read together have this many tokens or are a single one.
_TOKENS = 1 << 19


@dataclass(frozen=True)
class Document:
    """A document. document_id: shard << 32 | ordinal. tokens: read-only, with its EOS (and BOS if there is one)."""

    document_id: int
    stream: str
    tokens: NDArray[Any]


def documents(
    shards: Sequence[int], open_shard: Callable[[int], ShardReader], seed: int, epoch: int, rank: int, world_size: int
) -> Iterator[Document]:
    """Give the documents of these shards that fall to a rank in one epoch."""
    key = derive(stream_key(seed, "documents"), epoch)
    for place in permute(np.arange(len(shards)), len(shards), key).tolist():
        reader = open_shard(shards[place])
        count = reader.entry.documents
        yield from _share(reader, rank * count // world_size, (rank + 1) * count // world_size)


def _share(reader: ShardReader, first: int, last: int) -> Iterator[Document]:
    ends = reader.ends.astype(np.int64)
    start = int(ends[first - 1]) if first else 0
    while first < last:
        stop = max(first + 1, int(np.searchsorted(ends[:last], start + _TOKENS, side="right")))
        tokens = reader.tokens(start, int(ends[stop - 1]))
        cuts = (ends[first : stop - 1] - start).tolist()
        for ordinal, part in enumerate(np.split(tokens, cuts), first):
            yield Document(reader.shard << 32 | ordinal, reader.entry.stream, part)
        first, start = stop, int(ends[stop - 1])
