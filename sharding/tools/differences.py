"""What differs between two data sets, or two generations of one: from their shards' tables; no token is read.

Shards are matched by stream and number and compared by the SHA-256 of every member, column by column: 100,000 shards
take a second. Only of shards in which documents were taken down are two small tables read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import CorruptDataError
from ..dataset import TokenData, open_tokens
from ..format import Generation, PackOrder
from ..marks import GONE
from ..shard import ShardReader

Json = dict[str, Any]
#: Shards named; the rest is counted.
SHOWN = 100


def diff(
    a: str | Path | TokenData,
    b: str | Path | TokenData,
    generation_a: int | None = None,
    generation_b: int | None = None,
) -> Json:
    """Compare two data sets, the current generations where none is named; plain values for JSON.

    `equal`: all members of all shards, packs and vocabulary are. `a`, `b`: what each is. `vocabulary`, `packs`,
    `streams`, `shards`: what was added, removed, changed, pairs as [in a, in b]. `taken_down`: documents gone in b that
    stand in a. `order_kept`: by pack, whether every row of a comes in b at the same place, so that a loader may go on.
    """
    first = a if isinstance(a, TokenData) else open_tokens(a, generation_a)
    second = b if isinstance(b, TokenData) else open_tokens(b, generation_b)
    old, new = first.generation, second.generation
    shards = [change for stream in (*old.streams, *_others(new, old)) for change in _stream_changes(old, new, stream)]
    found = {
        "vocabulary": _changed(old.vocabulary.to_json(), new.vocabulary.to_json()),
        "packs": _packs(old, new),
        "streams": _streams(old, new),
        "shards": _counted(shards),
    }
    return {
        "equal": not any(found.values()),
        "a": _told(first),
        "b": _told(second),
        **found,
        "taken_down": _taken_down(first, second, shards),
        "order_kept": {name: _order_kept(old, new, name) for name in _names(old) if name in _names(new)},
    }


def _told(data: TokenData) -> Json:
    held = data.generation
    counts = {"shards": len(held.shards), **{name: held.shards.total(name) for name in ("documents", "tokens")}}
    made = {"generation": held.number, "made": held.made, "tokens_sha256": held.tokens_sha256}
    return {"url": data.store.url, **made, **counts}


def _changed(old: Json, new: Json) -> Json:
    return {name: [old.get(name), new.get(name)] for name in {**old, **new} if old.get(name) != new.get(name)}


def _names(held: Generation) -> list[str]:
    return [order.pack.name for order in held.packs]


def _others(new: Generation, old: Generation) -> list[str]:
    return [stream for stream in new.streams if stream not in old.streams]


def _packs(old: Generation, new: Generation) -> Json:
    """Packs added and removed, and those whose order constants of a stream that both have differ."""
    before, after = _names(old), _names(new)
    added, removed = [name for name in after if name not in before], [name for name in before if name not in after]
    changed = {name: _constants(old.pack(name), new.pack(name)) for name in before if name in after}
    changed = {name: what for name, what in changed.items() if what}
    found = {"added": added, "removed": removed, "changed": changed}
    return found if added or removed or changed else {}


def _constants(old: PackOrder, new: PackOrder) -> Json:
    common = [name for name in old.streams if name in new.streams]
    told = {name: _changed(asdict(old.streams[name]), asdict(new.streams[name])) for name in common}
    return {name: what for name, what in told.items() if what}


def _streams(old: Generation, new: Generation) -> Json:
    before, after = _by_stream(old), _by_stream(new)
    added = {name: after[name] for name in after if name not in before}
    removed = {name: before[name] for name in before if name not in after}
    changed = {name: _changed(before[name], after[name]) for name in before if name in after}
    changed = {name: what for name, what in changed.items() if what}
    return {"added": added, "removed": removed, "changed": changed} if added or removed or changed else {}


def _by_stream(held: Generation) -> dict[str, Json]:
    documents, tokens = held.shards.by_stream("documents"), held.shards.by_stream("tokens")
    sizes = {name: held.shards.where(name) for name in held.streams}
    return {name: {"shards": where.stop - where.start, "documents": documents[name], "tokens": tokens[name]}
            for name, where in sizes.items()}  # fmt: skip


def _stream_changes(old: Generation, new: Generation, stream: str) -> Iterator[Json]:
    """What happened to each shard of a stream, where something did; shards by their places in the generations."""
    numbers = _numbers(old, stream), _numbers(new, stream)
    _, left, right = np.intersect1d(numbers[0], numbers[1], return_indices=True)
    starts = [held.shards.where(stream).start if stream in held.streams else 0 for held in (old, new)]
    for change, own, common, start in (
        ("removed", numbers[0], left, starts[0]),
        ("added", numbers[1], right, starts[1]),
    ):
        for at in np.setdiff1d(np.arange(len(own)), common).tolist():
            yield {"change": change, "stream": stream, "number": int(own[at]), "place": start + at}
    at, to = left + starts[0], right + starts[1]
    suffixes = sorted({*_members(old), *_members(new)})
    differs = np.array([(_digests(old, name, at) != _digests(new, name, to)).any(axis=1) for name in suffixes], bool)
    for place in np.flatnonzero(differs.any(axis=0)).tolist() if suffixes else ():
        members = [name for name, row in zip(suffixes, differs, strict=True) if row[place]]
        yield {"change": "changed", "stream": stream, "number": int(numbers[0][left[place]]), "members": members,
               "place": int(at[place]), "other": int(to[place])}  # fmt: skip


def _numbers(held: Generation, stream: str) -> NDArray[np.int64]:
    if stream not in held.streams:
        return np.zeros(0, np.int64)
    return held.shards.records["number"][held.shards.where(stream)].astype(np.int64)


def _members(held: Generation) -> list[str]:
    return [name for name in held.shards.records.dtype.names or () if name.startswith(".")]


def _digests(held: Generation, suffix: str, places: NDArray[np.int64]) -> NDArray[np.uint8]:
    if suffix not in _members(held):
        return np.zeros((len(places), 32), np.uint8)
    found: NDArray[np.uint8] = held.shards.records[suffix][places]
    return found


def _counted(shards: list[Json]) -> Json:
    """Sum up what happened to shards, and name the first."""
    if not shards:
        return {}
    counts = {change: sum(shard["change"] == change for shard in shards) for change in ("added", "removed", "changed")}
    hidden = ("place", "other")
    shown = [{name: value for name, value in shard.items() if name not in hidden} for shard in shards[:SHOWN]]
    return {**counts, "shown": shown}


def _taken_down(first: TokenData, second: TokenData, shards: list[Json]) -> Json:
    """Documents and tokens that are gone in the second and stand in the first."""
    documents = tokens = 0
    for shard in shards:
        if shard["change"] == "changed" and GONE in shard["members"]:
            reader = second.reader(shard["other"])
            gone = np.setdiff1d(reader.gone, _gone(first.reader(shard["place"]))).astype(np.int64)
            documents += len(gone)
            tokens += int(np.diff(reader.ends.astype(np.int64), prepend=0)[gone].sum())
    return {"documents": documents, "tokens": tokens}


def _gone(reader: ShardReader) -> NDArray[np.uint64]:
    try:
        return reader.gone
    except CorruptDataError as error:
        raise CorruptDataError(
            f"{error}; or its generation was purged, and which documents were gone then is unknown"
        ) from error


def _order_kept(old: Generation, new: Generation, pack: str) -> bool:
    """Whether every row of the older generation comes at its place in the newer, but for what was taken down."""
    before, after = old.pack(pack).streams, new.pack(pack).streams
    if any(before[name] != after.get(name) for name in before):
        return False
    for stream in old.streams:
        if not np.array_equal(_numbers(old, stream), _numbers(new, stream)):
            return False
        ends = [held.shards.records[".ends.npy"][held.shards.where(stream)] for held in (old, new)]
        if not np.array_equal(ends[0], ends[1]):
            return False
    return True
