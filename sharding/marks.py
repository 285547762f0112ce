"""What may be marked in a shard: tokens that are not learned, documents that were taken down. Each an optional member.

    NAME.loss.npy   uint64 (spans, 2): ranges of tokens [start, stop), rising and disjoint; where the label is such a
                    token there is no loss
    NAME.gone.npy   uint64 (n,): ordinals of documents taken down, rising; all their tokens in the payload are EOS

A member that would be empty is not there. What the tokens of a range were is in no file any more once they are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
LOSS, GONE = ".loss.npy", ".gone.npy"
#: Members that a shard may have, by suffix. A newer minor version may know more.
OPTIONAL = (GONE, LOSS)


def loss_problem(spans: Words, tokens: int) -> str | None:
    """Say what is wrong with the ranges of a shard of so many tokens; None where nothing is."""
    if spans.ndim != 2 or spans.shape[1] != 2:
        return f"ranges of tokens without loss are (n, 2), not {spans.shape}"
    flat = spans.astype(np.int64).ravel()
    if len(flat) and not (int(flat[0]) >= 0 and int(flat[-1]) <= tokens):
        return f"ranges of tokens without loss end at {flat[-1]}, the shard has {tokens} tokens"
    steps = np.diff(flat)
    if not bool((steps[::2] > 0).all() and (steps[1::2] >= 0).all()):
        return "ranges of tokens without loss must rise, be disjoint and hold at least a token each"
    return None


def gone_problem(ordinals: Words, documents: int) -> str | None:
    """Say what is wrong with the ordinals taken down in a shard of so many documents; None where nothing is."""
    if ordinals.ndim != 1:
        return f"ordinals of documents taken down are (n,), not {ordinals.shape}"
    held = ordinals.astype(np.int64)
    if len(held) and not 0 <= int(held.min()) <= int(held.max()) < documents:
        return f"document {held.max()} is taken down, the shard has {documents} documents"
    if not bool((np.diff(held) > 0).all()):
        return "ordinals of documents taken down must rise, each once"
    return None


def marked(values: Any, find: Callable[[Words], str | None], shape: tuple[int, ...]) -> Words | None:
    """Give marks as they are written, None where there are none; ValueError with what is wrong."""
    array = np.ascontiguousarray(np.zeros(shape) if values is None else values)
    if array.size and (array.dtype.kind not in "iu" or int(array.min()) < 0):
        raise ValueError(f"marks in a shard are whole numbers from 0, not {array.dtype}: {array.min()} is among them")
    array = array.astype("<u8")
    if problem := find(array):
        raise ValueError(problem)
    return array if len(array) else None


def left_over(tokens: NDArray[Any], first: int, ends: Words, gone: Words, eos: int) -> int:
    """Count what is not EOS among `tokens`, a shard's from the first-th on, in documents that were taken down."""
    if not len(gone):
        return 0
    stops = ends[gone.astype(np.int64)].astype(np.int64)
    starts = np.where(gone > 0, ends[gone.astype(np.int64) - 1], 0).astype(np.int64)
    inside = (stops > first) & (starts < first + len(tokens))
    low, high = (np.clip(edge[inside] - first, 0, len(tokens)).tolist() for edge in (starts, stops))
    # One by one: 2 µs a document, where a running sum over all tokens would cost 15 ns each.
    return sum(int(np.count_nonzero(tokens[start:stop] != eos)) for start, stop in zip(low, high, strict=True))
