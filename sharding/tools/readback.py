"""Documents and rows given back: what is known of them, and their text or tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ... import InputError
from ..dataset import TokenData, open_tokens
from ..documents import Documents
from ..shard import ShardReader


def cat(
    path: str | Path,
    *,
    stream: str | None = None,
    shard: int | None = None,
    ordinal: int | None = None,
    row: int | None = None,
    pack: str | None = None,
    limit: int | None = None,
    decode: Callable[[Sequence[int]], str] | None = None,
    generation: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Give documents back, one dict each: what is known of it, and its `text` (by `decode`) or its `tokens`.

    All of them, those of a stream, of a shard (its number in the generation's order), one by its ordinal in the shard,
    or those of a row of a pack. BOS and EOS are left out, and documents that were taken down: the one asked for by its
    ordinal is refused. `limit` documents at most.
    """
    data = open_tokens(path, generation)
    if (ordinal is not None or row is not None) and shard is None:
        raise InputError("an ordinal or a row counts inside a shard: say which shard too")
    if limit is not None and limit < 0:
        raise InputError(f"limit is {limit}: give at most so many documents, 0 or more, or None for all")
    documents, left = Documents(data), limit
    for number in _chosen(data, stream, shard):
        reader = documents.reader(number)
        ordinals: Sequence[int] = range(reader.entry.documents)
        if ordinal is not None:
            ordinals = [ordinal]
        elif row is not None:
            ordinals = sorted({piece["ordinal"] for piece in documents.row(number, row, pack)})
        ordinals = _standing(reader, ordinals, asked=ordinal)[:left]
        for record in documents.records(number, ordinals):
            yield {**record, **_content(reader, record["ordinal"], decode)}
        left = None if left is None else left - len(ordinals)
        if left == 0:
            return


def _standing(reader: ShardReader, ordinals: Sequence[int], asked: int | None) -> Sequence[int]:
    """Leave out what was taken down."""
    if not len(reader.gone):
        return ordinals
    gone = set(reader.gone.tolist())
    if asked in gone:
        raise InputError(f"document {asked} of shard {reader.shard} was taken down: nothing of it is left but its id")
    return [ordinal for ordinal in ordinals if ordinal not in gone]


def _chosen(data: TokenData, stream: str | None, shard: int | None) -> list[int]:
    entries = data.generation.shards
    if stream is not None and stream not in data.generation.streams:
        raise InputError(f"there is no stream {stream!r} here: this data set has {', '.join(data.generation.streams)}")
    if shard is not None:
        if stream is not None and 0 <= shard < len(entries) and entries[shard].stream != stream:
            raise InputError(f"shard {shard} is of the stream {entries[shard].stream!r}, not of {stream!r}")
        return [shard]
    return [number for number, entry in enumerate(entries) if stream in (None, entry.stream)]


def _content(reader: ShardReader, ordinal: int, decode: Callable[[Sequence[int]], str] | None) -> dict[str, Any]:
    start = int(reader.ends[ordinal - 1]) if ordinal else 0
    tokens = reader.tokens(start, int(reader.ends[ordinal])).tolist()
    inner = tokens[reader.vocabulary.bos_id is not None : -1]
    return {"length": len(tokens), **({"tokens": inner} if decode is None else {"text": decode(inner)})}


def locate(data: TokenData | str | Path, shard: int, row: int, pack: str | None = None) -> list[dict[str, Any]]:
    """Say which documents lie in a row of a shard: `Documents.row`, for one row."""
    return Documents(data if isinstance(data, TokenData) else open_tokens(data)).row(shard, row, pack)
