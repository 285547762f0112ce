"""Look into token files.

`inspect` sums them up, `verify` checks all of them, `cat` gives documents back, `locate` says which lie in a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from .. import CorruptDataError, InputError, PenstockError
from .best_fit import cut
from .canonical import VERSION
from .dataset import TokenData, open_tokens, run_manifest
from .documents import Documents
from .format import Generation, Pack, ShardEntry
from .marks import gone_problem, left_over, loss_problem
from .shard import BLOCK_BYTES, ShardReader
from .store import Store

_CHUNK = 128 * BLOCK_BYTES
#: Problems named before the rest is only counted.
_SHOWN = 10


def inspect(path: str | Path, generation: int | None = None) -> dict[str, Any]:
    """Sum token files up: counts by stream, packs with their fill, vocabulary; reads one small file."""
    held = open_tokens(path, generation).generation
    return {
        "generation": held.number,
        "format": ".".join(map(str, VERSION)),
        "tokens_sha256": held.tokens_sha256,
        **_counts(held.shards),
        "bytes": sum(shard.tokens for shard in held.shards) * held.vocabulary.itemsize,
        "vocabulary": held.vocabulary.to_json(),
        "streams": {stream: _counts([shard for shard in held.shards if shard.stream == stream])
                    for stream in held.streams},
        "packs": {order.pack.name: _pack_summary(held, order.pack) for order in held.packs},
    }  # fmt: skip


def _counts(shards: Sequence[ShardEntry]) -> dict[str, int]:
    return {
        "shards": len(shards),
        "documents": sum(shard.documents for shard in shards),
        "tokens": sum(shard.tokens for shard in shards),
    }


def _pack_summary(held: Generation, pack: Pack) -> dict[str, Any]:
    order = held.pack(pack.name)
    rows = sum(shard.packs[pack.name].rows for shard in held.shards)
    tokens = sum(shard.tokens for shard in held.shards)
    return {
        "length": pack.length, "policy": pack.policy, "rows": rows, "rows_a_group": order.group_rows,
        "fill": round(tokens / (rows * pack.length), 6) if rows else None,
        "streams": {stream: {"rows": shape.rows, "groups": shape.groups, "lanes": shape.lanes, "window": shape.window}
                    for stream, shape in order.streams.items()},
    }  # fmt: skip


def verify(path: str | Path, generation: int | None = None) -> dict[str, Any]:
    """Check every checksum, count, id and table of a data set; gives a summary, or CorruptDataError with what is wrong.

    Every byte is read once, nothing held whole but tables.
    """
    data = open_tokens(path, generation)
    documents = Documents(data)
    problems = list(_manifest_problems(path, data)) if generation is None else []
    for shard, entry in enumerate(data.generation.shards):
        try:
            problems += [f"shard {entry.name}: {problem}" for problem in _shard_problems(documents, shard)]
        except PenstockError as error:
            problems.append(str(error))
    refuse(problems)
    return {"verified": True, **inspect(path, data.generation.number)}


def refuse(problems: Sequence[str]) -> None:
    """Raise CorruptDataError where there are problems; it says the first of them and how many more there are."""
    if problems:
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise CorruptDataError("; ".join(problems[:_SHOWN]) + more)


def _manifest_problems(path: str | Path, data: TokenData) -> Iterator[str]:
    """Whether the run's manifest, where a run was given, is of these tokens."""
    found = run_manifest(Store(path))
    told = found[1].get("tokens_sha256") if found else None
    if told is not None and told != data.generation.tokens_sha256:
        yield f"the run's manifest says tokens_sha256 {told}, its token files have {data.generation.tokens_sha256}"


def _shard_problems(documents: Documents, shard: int) -> Iterator[str]:
    reader = documents.reader(shard)
    entry, header = reader.entry, reader.header
    for name in ("stream", "number", "tokens", "documents"):
        if header[name] != getattr(entry, name):
            yield f"its header says {name} {header[name]}, the generation {getattr(entry, name)}"
    if header["vocabulary"] != reader.vocabulary.to_json():
        yield f"its vocabulary is {header['vocabulary']['name']}, not the generation's {reader.vocabulary.name}"
    if any(entry.members[suffix] != digest for suffix, digest in header["sha256"].items()):
        yield "its header and the generation give other checksums"
    ends = reader.ends.astype(np.int64)
    if int(ends[-1]) != entry.tokens or int(ends[0]) < 1 or not bool((np.diff(ends) > 0).all()):
        yield "its document ends do not rise to its count of tokens"
        return
    problems = loss_problem(reader.loss, entry.tokens), gone_problem(reader.gone, entry.documents)
    yield from filter(None, problems)
    if problems[1] is None:
        yield from _payload_problems(reader, header["largest_id"])
    for name in entry.packs:
        yield from _pack_problems(reader, Pack.named(name))
    rows = documents.table(shard).metadata.num_rows
    if rows != entry.documents:
        yield f"its docs.parquet has {rows} rows for {entry.documents} documents"


def _payload_problems(reader: ShardReader, largest: int) -> Iterator[str]:
    """Read the payload once, in pieces of 8 MiB."""
    name, itemsize = reader.entry.path(".bin"), reader.vocabulary.itemsize
    size = reader.store.size(name)
    if size != reader.size:
        yield f"{name} has {size} bytes, it was written with {reader.size}"
        return
    digest, found, unended, left, bad = hashlib.sha256(), 0, 0, 0, []
    for start in range(0, size, _CHUNK):
        body = memoryview(reader.store.read(name, start, min(start + _CHUNK, size)))
        digest.update(body)
        for at in range(0, len(body), BLOCK_BYTES):
            block = (start + at) // BLOCK_BYTES
            if xxhash.xxh3_64_intdigest(body[at : at + BLOCK_BYTES]) != int(reader.sums[block]):
                bad.append(block)
        tokens = np.frombuffer(body, reader.vocabulary.token)
        found = max(found, int(tokens.max()))
        first = start // itemsize
        low, high = np.searchsorted(reader.ends, np.array([first, first + len(tokens)], np.uint64), side="right")
        last = tokens[reader.ends[low:high].astype(np.int64) - 1 - first]
        unended += int((last != reader.vocabulary.eos_id).sum())
        left += left_over(tokens, first, reader.ends, reader.gone, reader.vocabulary.eos_id)
    if bad:
        yield f"block {', '.join(map(str, bad[:_SHOWN]))} of {name} does not match its checksum"
    if digest.hexdigest() != reader.entry.sha256:
        yield f"{name} does not match its SHA-256"
    if found != largest or found >= reader.vocabulary.size:
        yield f"its largest id is {found}, the header says {largest} of {reader.vocabulary.size}"
    if unended:
        yield f"{unended} of its documents do not end with EOS"
    if left:
        yield f"documents that were taken down still have {left} tokens in it"


def _pack_problems(reader: ShardReader, pack: Pack) -> Iterator[str]:
    """Whether every token lies in one row, no row is too long and every group is a range."""
    table, stands = reader.table(pack), reader.entry.packs[pack.name]
    if table.count != stands:
        yield f"pack {pack.name} has {table.count}, the generation says {stands}"
    if pack.policy == "concat":
        return
    starts, rows = table.placed()
    order = np.argsort(starts, kind="stable")
    wanted, lengths = cut(reader.ends.astype(np.int64), pack.length)
    if not np.array_equal(starts[order], wanted):
        yield f"the pieces of pack {pack.name} are not those of its documents"
        return
    if int(np.bincount(rows[order], lengths).max()) > pack.length:
        yield f"pack {pack.name} has rows of more than {pack.length} tokens"
    if bool((np.diff(rows[order] // stands.group_rows) < 0).any()):
        yield f"groups of pack {pack.name} are not ranges of tokens"


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
    or those of a row of a pack. BOS and EOS are left out. `limit` documents at most.
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
        ordinals = ordinals[:left]
        for record in documents.records(number, ordinals):
            yield {**record, **_content(reader, record["ordinal"], decode)}
        left = None if left is None else left - len(ordinals)
        if left == 0:
            return


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
