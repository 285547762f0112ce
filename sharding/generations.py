"""The next generation of a data set: one more pack, or the shards of another data set as cohorts.

Both write objects that carry their content in their names, and then commit one JSON by create-if-absent: what was
killed is done again and writes nothing twice; of two writers at once one is refused, in words. `takedown` makes the
third kind. Tokens are not touched: a pack is laid out from document ends alone.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import CommitConflictError, RequestError
from .adopt import Adopter
from .cohorts import cohort_of, next_cohort
from .dataset import TokenData, open_tokens, read_generation, write_generation
from .format import Generation, ShardEntry
from .pack import Pack
from .shard import pack_shard
from .store import Store, sha256


def add_pack(path: str | Path | TokenData, pack: Pack, workers: int = 1, **options: Any) -> Generation:
    """Add a pack to the current generation: give the next one, or the current where it has the pack already.

    workers: processes that lay shards out; started fresh, so a script that asks for more than one needs its
    `if __name__ == "__main__"`. `options` go to the object store's client. CommitConflictError where another writer
    made the next generation meanwhile.
    """
    data = path if isinstance(path, TokenData) else open_tokens(path, **options)
    parent = data.generation
    if pack.name in (order.pack.name for order in parent.packs):
        return parent
    rows = pack.group_rows(parent.vocabulary.itemsize)
    laid = list(_laid_out(data, pack, rows, workers))
    counts = np.array([shard[:2] for shard in laid], np.int64).reshape(-1, 2)
    digests = np.frombuffer(b"".join(digest for _, _, digest in laid), np.uint8)
    table = parent.shards.with_pack(pack, rows, counts[:, 0], counts[:, 1], digests)
    packs = [*(order.pack for order in parent.packs), pack]
    return _committed(data, Generation.laid_out(parent.number + 1, parent.vocabulary, packs, table, parent, "pack"))


def _laid_out(data: TokenData, pack: Pack, rows: int, workers: int) -> Iterator[tuple[int, int, bytes]]:
    """Give each shard's rows and pieces, and the raw SHA-256 of its table; nothing for a pack that needs none."""
    shards = range(len(data.generation.shards))
    lay = partial(_lay_out, data.store, data.generation.number, pack, rows)
    if workers < 2 or len(shards) < 2:
        yield from map(lay, shards)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(lay, shards, chunksize=max(1, min(16, len(shards) // (4 * workers))))


def _lay_out(store: Store, generation: int, pack: Pack, rows: int, shard: int) -> tuple[int, int, bytes]:
    reader = _opened(store, generation).reader(shard)
    count, tables = pack_shard(reader.ends, pack, rows)
    for suffix, body in tables.items():
        store.put_named(body, reader.entry.path(suffix))
    return count.rows, count.pieces, b"".join(bytes.fromhex(sha256(body)) for body in tables.values())


@lru_cache(1)
def _opened(store: Store, generation: int) -> TokenData:
    """A process opens the data set once."""
    return TokenData(store, read_generation(store, generation))


def split_documents(data: TokenData, pack: Pack) -> int:
    """Count the documents that a pack cuts: longer than a row under best_fit, across rows under concat."""
    split = 0
    for shard in range(len(data.generation.shards)):
        ends = data.reader(shard).ends.astype(np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        base = starts if pack.policy == "best_fit" else np.zeros(1, np.int64)
        split += int(((starts - base) // pack.length != (ends - 1 - base) // pack.length).sum())
    return split


def append(path: str | Path | TokenData, other: str | Path | TokenData, **options: Any) -> Generation:
    """Append the shards of another data set, its current generation, as cohorts; give the next generation.

    Its stream `train/web` becomes `train/web+1` here, or the next that is free, or `train/web` where there is none.
    Where all its payloads are here already, nothing is left to do: gives the current generation. RequestError where
    some are, or where its vocabulary is another. `options` go to the object stores' clients.
    """
    data, more = (place if isinstance(place, TokenData) else open_tokens(place, **options) for place in (path, other))
    _check_vocabularies(data, more)
    if _is_here(data, more):
        return data.generation
    names = list(data.generation.streams)
    cohorts: dict[str, str] = {}
    for stream in more.generation.streams:
        cohorts[stream] = next_cohort(cohort_of(stream)[0], names)
        names.append(cohorts[stream])
    packs = {order.pack: order.group_rows for order in data.generation.packs}
    adopter = Adopter(data.store, data.generation.vocabulary, packs)
    entries = []
    for shard in range(len(more.generation.shards)):
        reader = more.reader(shard)
        entries.append(adopter.adopt(reader, cohorts[reader.entry.stream], reader.entry.number))
    return append_shards(data, entries)


def append_shards(data: TokenData, entries: Sequence[ShardEntry]) -> Generation:
    """Commit shards that were written under the data set's root, of streams that it does not have yet."""
    parent = data.generation
    if known := sorted({entry.stream for entry in entries} & set(parent.streams)):
        raise RequestError(
            f"{data.store.url} has the streams {', '.join(known)} already, and a stream never grows: append to "
            f"{next_cohort(cohort_of(known[0])[0], parent.streams)}"
        )
    table = parent.shards.with_shards(entries)
    packs = [order.pack for order in parent.packs]
    return _committed(data, Generation.laid_out(parent.number + 1, parent.vocabulary, packs, table, parent, "append"))


def _committed(data: TokenData, child: Generation) -> Generation:
    try:
        write_generation(data.store, child)
    except CommitConflictError as error:
        raise CommitConflictError(
            f"another writer made generation {child.number} of {data.store.url} meanwhile: run the same command again, "
            "which goes on from that one"
        ) from error
    return child


def _check_vocabularies(data: TokenData, more: TokenData) -> None:
    """The name may differ, the behaviour not."""
    here, there = data.generation.vocabulary, more.generation.vocabulary
    if replace(there, name=here.name) != here:
        raise RequestError(
            f"{more.store.url} has the vocabulary {there.to_json()}, {data.store.url} has {here.to_json()}: encode the "
            "new documents with the tokenizer of the old"
        )


def _is_here(data: TokenData, more: TokenData) -> bool:
    """Say whether all payloads are here; some and not others are refused: documents would be learned twice."""
    here, there = (held.generation.shards.records[".bin"].tobytes() for held in (data, more))
    known = {here[at : at + 32] for at in range(0, len(here), 32)}
    twice = [at // 32 for at in range(0, len(there), 32) if there[at : at + 32] in known]
    named, count = more.generation.shards[twice[0]].name if twice else "", len(more.generation.shards)
    if 0 < len(twice) < count:
        raise RequestError(
            f"{data.store.url} has {len(twice)} of the {count} shards of {more.store.url} already, {named} among them: "
            "appended again, their documents would be read twice"
        )
    return bool(twice)
