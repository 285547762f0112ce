"""Token files held to what they say of themselves: every byte, count, id and table, and how generations follow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ... import CorruptDataError, PenstockError
from ..best_fit import cut
from ..dataset import open_tokens, run_manifest
from ..documents import Documents
from ..format import Pack
from ..marks import gone_problem, left_over, loss_problem
from ..shard import BLOCK_BYTES, ShardReader
from ..store import Store
from .history import history_problems
from .inspection import inspect

_CHUNK = 128 * BLOCK_BYTES
#: Problems named before the rest is only counted.
_SHOWN = 10


def verify(path: str | Path, generation: int | None = None) -> dict[str, Any]:
    """Check every checksum, count, id and table of a data set; gives a summary, or CorruptDataError with what is wrong.

    Every byte is read once, nothing held whole but tables.
    """
    data = open_tokens(path, generation)
    documents = Documents(data)
    problems = list(history_problems(data, run_manifest(Store(path))))
    for shard, entry in enumerate(data.generation.shards):
        try:
            problems += [f"shard {entry.name}: {problem}" for problem in _shard_problems(documents, shard)]
        except PenstockError as error:
            problems.append(str(error))
    refuse(problems)
    return {"verified": True, **inspect(path, data.generation.number, tables=True)}


def refuse(problems: Sequence[str]) -> None:
    """Raise CorruptDataError where there are problems; it says the first of them and how many more there are."""
    if problems:
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise CorruptDataError("; ".join(problems[:_SHOWN]) + more)


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
    yield from _record_problems(documents, shard)


def _record_problems(documents: Documents, shard: int) -> Iterator[str]:
    """Whether docs.parquet has a row a document, and tells nothing of those that were taken down but their ids."""
    reader, table = documents.reader(shard), documents.table(shard)
    rows, count = table.metadata.num_rows, reader.entry.documents
    if rows != count:
        yield f"its docs.parquet has {rows} rows for {count} documents"
    if rows != count or not len(reader.gone):
        return
    gone, first, told = reader.gone.astype(np.int64), 0, set()
    for group in range(table.num_row_groups):
        held = table.read_row_group(group, use_threads=False)
        inside = gone[(gone >= first) & (gone < first + len(held))] - first
        taken = held.take(inside)
        told |= {name for name in taken.column_names if name != "id" and taken.column(name).null_count < len(taken)}
        first += len(held)
    if told:
        yield f"its docs.parquet still tells {', '.join(sorted(told))} of documents that were taken down"


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
