"""Documents that are left out: taken down in the data, or by the plan. Their pieces become padding, nothing moves."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from .. import RequestError
from .format import Generation
from .permutation import Ints
from .shard import ShardReader


def by_shard(without: Collection[int], generation: Generation) -> dict[int, Ints]:
    """Sort document ids (shard << 32 | ordinal) into rising ordinals by shard; RequestError for what is no document."""
    ordinals: dict[int, list[int]] = {}
    for document in sorted(without):
        shard, ordinal = divmod(document, 1 << 32)
        count = generation.shards[shard].documents if 0 <= shard < len(generation.shards) else 0
        if ordinal >= count:
            raise RequestError(
                f"document {document} (shard {shard}, ordinal {ordinal}) cannot be left out: this data set has "
                f"{len(generation.shards)} shards, and that one {count} documents; take ids from `document_ids`"
            )
        ordinals.setdefault(shard, []).append(ordinal)
    return {shard: np.array(held, np.int64) for shard, held in ordinals.items()}


def left_out(reader: ShardReader, without: Mapping[int, Ints]) -> Ints:
    """Give the ordinals of a shard's documents that are left out, rising: those taken down, and the plan's."""
    gone = reader.gone.astype(np.int64)
    asked = without.get(reader.shard)
    if asked is None:
        return gone
    # Not np.union1d, which imports numpy.ma when first called (see `npy`).
    both = np.sort(np.concatenate([gone, asked]))
    return both[np.diff(both, prepend=-1) > 0]
