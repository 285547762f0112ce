"""Token files summed up: from the generations alone, or with the tables of all shards (about 1 % of the tokens)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..canonical import VERSION
from ..dataset import TokenData, generation_numbers, open_tokens, read_generation
from ..format import Generation, Pack, PackOrder
from ..marks import GONE, LOSS
from ..store import Store
from .purge import is_purged

Ints = NDArray[np.int64]


def inspect(path: str | Path, generation: int | None = None, *, tables: bool = False) -> dict[str, Any]:
    """Sum token files up: generations, counts by stream, packs with their fill, vocabulary; reads a few small files.

    tables: read every shard's document ends and marks too, and count what they alone tell: documents taken down,
    tokens without loss, the share of documents that a pack splits.
    """
    data = open_tokens(path, generation)
    held = data.generation
    counts = {stream: _counts(held, stream) for stream in held.streams}
    total = {name: sum(count[name] for count in counts.values()) for name in ("shards", "documents", "tokens")}
    marked = {"taken_down": {"shards": _shards_with(held, GONE)}, "without_loss": {"shards": _shards_with(held, LOSS)}}
    packs = {order.pack.name: _pack_summary(held, order, total) for order in held.packs}
    if tables:
        found = _from_tables(data)
        for name, more in found["marks"].items():
            marked[name] |= more
        for name, split in found["split"].items():
            packs[name]["split_documents"] = round(split / total["documents"], 6)
    return {
        "generation": held.number,
        "format": ".".join(map(str, VERSION)),
        "tokens_sha256": held.tokens_sha256,
        **total,
        "bytes": total["tokens"] * held.vocabulary.itemsize,
        **marked,
        "vocabulary": held.vocabulary.to_json(),
        "streams": counts,
        "packs": packs,
        "generations": list(_history(data.store)),
    }


def _history(store: Store) -> Iterator[dict[str, Any]]:
    """What made each generation, and what it holds."""
    for number in generation_numbers(store):
        held = read_generation(store, number)
        counts = {"documents": held.shards.total("documents"), "tokens": held.shards.total("tokens")}
        told = {"number": number, "parent": held.parent, "made": held.made, **counts}
        yield {**told, "list": held.record, "purged": is_purged(store, number)}


def _shards_with(held: Generation, suffix: str) -> int:
    return int(held.shards.has(suffix).sum())


def _counts(held: Generation, stream: str) -> dict[str, int]:
    where = held.shards.where(stream)
    sums = {name: held.shards.by_stream(name)[stream] for name in ("documents", "tokens")}
    return {"shards": where.stop - where.start, **sums}


def _pack_summary(held: Generation, order: PackOrder, total: dict[str, int]) -> dict[str, Any]:
    pack = order.pack
    rows, pieces = (held.shards.total(f"{column}.{pack.name}") for column in ("rows", "pieces"))
    fill = total["tokens"] / (rows * pack.length) if rows else None
    return {
        "length": pack.length, "policy": pack.policy, "rows": rows, "rows_a_group": order.group_rows,
        "fill": None if fill is None else round(fill, 6), "padding": None if fill is None else round(1 - fill, 6),
        "pieces_a_row": round(pieces / rows, 4) if rows else None,
        "cuts_a_document": round((pieces - total["documents"]) / total["documents"], 4) if rows else None,
        "streams": {stream: {"rows": shape.rows, "groups": shape.groups, "lanes": shape.lanes, "window": shape.window}
                    for stream, shape in order.streams.items()},
    }  # fmt: skip


def _from_tables(data: TokenData) -> dict[str, Any]:
    """Count what the tables of the shards say, one shard at a time."""
    gone, loss, split = Counter[str](), Counter[str](), Counter[str]()
    for shard in range(len(data.generation.shards)):
        reader = data.reader(shard)
        ends = reader.ends.astype(np.int64)
        lengths = np.diff(ends, prepend=0)
        gone.update(documents=len(reader.gone), tokens=int(lengths[reader.gone.astype(np.int64)].sum()))
        loss.update(spans=len(reader.loss), tokens=int(np.diff(reader.loss.astype(np.int64), axis=1).sum()))
        for order in data.generation.packs:
            split[order.pack.name] += int(split_documents(ends, lengths, order.pack).sum())
    return {"marks": {"taken_down": gone, "without_loss": loss}, "split": split}


def split_documents(ends: Ints, lengths: Ints, pack: Pack) -> NDArray[np.bool_]:
    """Say which documents of a shard lie in more than one row of a pack."""
    if pack.policy == "best_fit":
        return lengths > pack.length
    split: NDArray[np.bool_] = (ends - lengths) // pack.length != (ends - 1) // pack.length
    return split
