"""Packed rows by their definition, in plain Python: the oracle for what a batch gives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from penstock.sharding.best_fit import best_fit
from penstock.sharding.format import Pack
from penstock.sharding.packing import NO_DOCUMENT, PackTable

EOS = 0
#: Tokens [start, stop) that are not to be learned.
Spans = Sequence[tuple[int, int]]


def ends_of(lengths: Sequence[int]) -> Any:
    return np.cumsum(lengths).astype(np.uint64)


def payload(lengths: Sequence[int]) -> Any:
    """Tokens that tell where they lie; EOS at each document's end."""
    tokens = np.arange(1, sum(lengths) + 1).astype(np.uint16)
    tokens[ends_of(lengths).astype(np.int64) - 1] = EOS
    return tokens


def table_of(lengths: Sequence[int], length: int, rows: int, policy: str) -> PackTable:
    ends = ends_of(lengths)
    pieces = best_fit(ends, length, rows) if policy == "best_fit" else None
    return PackTable(Pack(length, "best_fit" if pieces is not None else "concat"), rows, ends, pieces)


def pieces_of(lengths: Sequence[int], length: int) -> list[tuple[int, int]]:
    """(start, length) of every piece, in the payload's order."""
    pieces, start = [], 0
    for document in lengths:
        pieces += [(start + at, min(length, document - at)) for at in range(0, document, length)]
        start += document
    return pieces


def naive_rows(lengths: Sequence[int], table: PackTable) -> list[list[tuple[int, int]]]:
    """Pieces (start, length) of every row, from the definition of each policy."""
    length = table.pack.length
    if table.pack.policy == "best_fit":
        known = dict(pieces_of(lengths, length))
        by_row: dict[int, list[tuple[int, int]]] = {}
        for start, row in best_fit(ends_of(lengths), length, table.group_rows).tolist():
            by_row.setdefault(row, []).append((start, known[start]))
        return list(by_row.values())
    total, ends = sum(lengths), set(np.cumsum(lengths).tolist())
    rows = []
    for low in range(0, total, length):
        high, pieces = min(low + length, total), []
        for at in range(low, high):
            if at == low or at in ends:
                pieces.append((at, 0))
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + 1)
        rows.append(pieces)
    return rows


def naive(
    lengths: Sequence[int],
    pieces: list[tuple[int, int]],
    length: int,
    shard: int,
    out: Collection[int] = (),
    spans: Spans = (),
) -> list[dict[str, Any]]:
    """A row token by token: one dict each. `out`: ordinals left out; `spans`: tokens not to be learned."""
    tokens, document = payload(lengths).tolist(), np.repeat(np.arange(len(lengths)), lengths).tolist()
    begins = [0, *np.cumsum(lengths).tolist()]
    unlearned = {at for low, high in spans for at in range(low, high)}
    row: list[dict[str, Any]] = []
    segment = 0
    for start, size in pieces:
        if document[start] in out:
            row += padding(size)
            continue
        segment += 1
        for at in range(start, start + size):
            follows = at + 1 < len(tokens) and document[at + 1] == document[at]
            row.append({
                "tokens": tokens[at],
                "labels": tokens[at + 1] if follows else None,
                "loss_mask": follows and at + 1 not in unlearned,
                "position_ids": at - start,
                "document_positions": at - begins[document[at]],
                "document_ids": (shard << 32) + document[at],
                "segment_ids": segment,
            })  # fmt: skip
    return row + padding(length - len(row))


def padding(size: int) -> list[dict[str, Any]]:
    """A piece of padding."""
    return [
        {"tokens": EOS, "labels": None, "loss_mask": False, "position_ids": at, "document_positions": at,
         "document_ids": NO_DOCUMENT, "segment_ids": 0}
        for at in range(size)
    ]  # fmt: skip


#: What a batch gives, and as what.
OUTPUTS = {
    "tokens": np.int32, "loss_mask": np.bool_, "position_ids": np.int32, "document_positions": np.int64,
    "document_ids": np.uint64, "segment_ids": np.int32,
}  # fmt: skip


def check_rows(batch: Any, expected: list[list[dict[str, Any]]]) -> None:
    """Hold a batch, or anything that gives the same, against rows token by token."""
    for name, kind in OUTPUTS.items():
        got = getattr(batch, name)
        assert got.tolist() == [[token[name] for token in row] for row in expected], name
        assert got.dtype == kind, name
    for labels, row in zip(batch.labels.tolist(), expected, strict=True):
        told = [(label, token["labels"]) for label, token in zip(labels, row, strict=True)]
        assert all(got == label for got, label in told if label is not None)
    tokens = [token for row in expected for token in row]
    starts = [at for at, token in enumerate(tokens) if token["position_ids"] == 0]
    assert batch.cu_seqlens.tolist() == [*starts, len(tokens)]
    assert batch.cu_seqlens.dtype == np.int32
    assert batch.max_seqlen == max((token["position_ids"] + 1 for token in tokens), default=0)
    for row, ids in zip(expected, batch.segment_ids.tolist(), strict=True):
        seen = [name for name, _ in groupby(ids) if name]
        assert seen == list(range(1, len(seen) + 1)), row
