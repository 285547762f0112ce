"""A payload before it is a shard: read once, in pieces of 8 MiB, checked and summed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from .entry import Vocabulary
from .marks import left_over

#: Bytes of payload under one checksum.
BLOCK_BYTES = 1 << 16
_CHUNK = 128 * BLOCK_BYTES


def check_ends(ends: NDArray[np.uint64], tokens: int, size: int, itemsize: int) -> None:
    """Refuse, with ValueError, ends that do not rise to the tokens of a payload of `size` bytes."""
    if size == 0 or size % itemsize:
        raise ValueError(f"a shard's payload is one or more tokens of {itemsize} bytes, this has {size} bytes")
    if ends.ndim != 1 or len(ends) == 0 or int(ends[-1]) != tokens:
        raise ValueError(f"document ends must lead to the payload's {tokens} tokens, not to {ends[-1:].tolist()}")
    if int(ends[0]) == 0 or not bool((ends[1:] > ends[:-1]).all()):
        raise ValueError("document ends must rise: a document has at least its EOS")
    if len(ends) > 1 << 32:
        raise ValueError(f"a shard holds at most 2^32 documents, not {len(ends)}")


def scan_tokens(payload: Path, token: np.dtype[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read a local payload in pieces of 8 MiB; give each piece's first token's number, and its tokens."""
    with payload.open("rb") as file:
        first = 0
        while chunk := file.read(_CHUNK):
            tokens = np.frombuffer(chunk, token)
            yield first, tokens
            first += len(tokens)


def scan(
    payload: Path, ends: NDArray[np.uint64], vocabulary: Vocabulary, gone: NDArray[np.uint64] | None
) -> tuple[str, NDArray[np.uint64], int]:
    """Read a payload once: SHA-256, the checksum of each block, largest id. Ids and EOS are checked on the way."""
    digest, sums, largest = hashlib.sha256(), [], 0
    for first, tokens in scan_tokens(payload, vocabulary.token):
        chunk = tokens.view(np.uint8).data
        digest.update(chunk)
        sums += [xxhash.xxh3_64_intdigest(chunk[at : at + BLOCK_BYTES]) for at in range(0, len(chunk), BLOCK_BYTES)]
        largest = max(largest, int(tokens.max()))
        last = _last_tokens(ends, first, len(tokens))
        if not bool((tokens[last] == vocabulary.eos_id).all()):
            raise ValueError(f"a document in {payload} does not end with EOS, {vocabulary.eos_id}")
        if gone is not None and (left := left_over(tokens, first, ends, gone, vocabulary.eos_id)):
            raise ValueError(f"documents taken down still have {left} tokens in {payload} that are not EOS")
    if largest >= vocabulary.size:
        raise ValueError(
            f"{payload} holds the id {largest}, the vocabulary {vocabulary.name} ends at "
            f"{vocabulary.size - 1}: it was encoded with another tokenizer"
        )
    return digest.hexdigest(), np.array(sums, np.uint64), largest


def _last_tokens(ends: NDArray[np.uint64], first: int, count: int) -> NDArray[np.int64]:
    """Where documents' last tokens lie among `count` tokens from `first` on."""
    low, high = np.searchsorted(ends, np.array([first, first + count], np.uint64), side="right")
    return ends[low:high].astype(np.int64) - 1 - first
