"""Several finished data sets of one vocabulary made into one: shards by hard link or copy, streams beside streams.

Nothing is encoded or packed anew, and no token is read where files can be linked, which takes about 1 ms a file. A
shard whose stream gets another name gets a header and a name of its own; all else is the same object. The outcome does
not depend on the order in which data sets are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import InputError, RequestError
from ..adopt import take
from ..canonical import VERSION, canonical
from ..cohorts import cohort_of
from ..dataset import TokenData, open_tokens, write_generation
from ..format import Generation, PackOrder, ShardEntry, ShardTable, Vocabulary
from ..positions import VALIDATION
from ..shard import ShardReader, shard_header, shard_name
from ..store import Store, sha256

MAGIC = "penstock-merge"
MADE = "merge"
_SPLITS = ("train", VALIDATION)


def renamed(stream: str, prefix: str) -> str:
    """Put a prefix behind the name of the split, where there is one, so that validation stays validation.

    >>> renamed("train/web", "a/"), renamed("validation", "a/"), renamed("train+1", "a/")
    ('train/a/web', 'validation/a', 'train/a+1')
    """
    if not prefix:
        return stream
    name, cohort = cohort_of(stream)
    split, _, rest = name.partition("/")
    whole = f"{split}/{prefix}{rest}" if split in _SPLITS else f"{prefix}{name}"
    return whole.rstrip("/") + (f"+{cohort}" if cohort else "")


@dataclass(frozen=True)
class _Part:
    """A data set that goes in, and what its streams are called in the new one, by their names in it."""

    data: TokenData
    prefix: str
    names: dict[str, str]


def merge(
    paths: Sequence[str | Path | TokenData], output: str | Path, *, prefixes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Make generation 0 of a new data set at `output` of the current generations of several.

    prefixes: one a data set, "" for none; `a/` makes train/web into train/a/web. Packs that all of them have are kept.
    InputError for what does not fit: vocabularies, packs, streams of one name. Gives counts, and which packs were left
    out. The same request again finishes what was begun.
    """
    opened = [path if isinstance(path, TokenData) else open_tokens(path) for path in paths]
    if len(opened) < 2:
        raise RequestError(f"merging takes two data sets or more, not {len(opened)}")
    if prefixes is not None and len(prefixes) != len(opened):
        raise RequestError(f"{len(opened)} data sets and {len(prefixes)} prefixes: give one each, '' for none")
    parts = [
        _Part(data, prefix, {name: renamed(name, prefix) for name in data.generation.streams})
        for data, prefix in zip(opened, prefixes or [""] * len(opened), strict=True)
    ]
    store = Store(output)
    if any(store.url == data.store.url for data in opened):
        raise RequestError(f"{store.url} is one of the data sets to merge: name another folder for the outcome")
    store.require_exclusive()
    vocabulary, packs = _vocabulary(parts), _packs(parts)
    _check_streams(parts)
    files = _Files(store, vocabulary, frozenset(packs))
    entries = [files.put(part.data.reader(shard), part.names)
               for part in parts for shard in range(len(part.data.generation.shards))]  # fmt: skip
    generation = _generation(parts, vocabulary, packs, entries)
    record = _record(parts)
    name = f"merges/{sha256(record)[:32]}.json"
    store.put_named(record, name)
    write_generation(store, replace(generation, record=name))
    left = {order.pack.name for part in parts for order in part.data.generation.packs} - set(packs)
    return {
        "generation": 0, "shards": len(entries),
        **{column: generation.shards.total(column) for column in ("documents", "tokens")},
        "tokens_sha256": generation.tokens_sha256, "streams": list(generation.streams), "packs": list(packs),
        "packs_left_out": sorted(left), "linked": files.linked, "copied": files.copied,
    }  # fmt: skip


def _vocabulary(parts: Sequence[_Part]) -> Vocabulary:
    """Give the vocabulary that all share; what it is called may differ."""
    held = sorted((part.data.generation.vocabulary for part in parts), key=lambda vocabulary: vocabulary.name)
    first = held[0]
    for other in held[1:]:
        for name in ("fingerprint", "dtype", "size", "eos_id", "bos_id"):
            if (here := getattr(first, name)) != (there := getattr(other, name)):
                raise InputError(
                    f"the vocabularies {first.name} and {other.name} are not the same: their {name} is {here} and "
                    f"{there}; encode one of the data sets anew with the other's tokenizer"
                )
    return first


def _packs(parts: Sequence[_Part]) -> dict[str, int]:
    """Give the packs that all have, and their rows a group."""
    held = [{order.pack.name: order.group_rows for order in part.data.generation.packs} for part in parts]
    common = sorted(set.intersection(*map(set, held)))
    if not common:
        told = "; ".join(", ".join(sorted(names)) or "none" for names in held)
        raise InputError(f"no pack is common to all of them, they have {told}: add one first with penstock pack")
    for name in common:
        if len(sizes := {packs[name] for packs in held}) > 1:
            raise InputError(f"pack {name} has groups of {sorted(sizes)} rows: they were packed by different versions")
    return {name: held[0][name] for name in common}


def _check_streams(parts: Sequence[_Part]) -> None:
    taken: dict[str, str] = {}
    for part in parts:
        for name in part.names.values():
            if name in taken:
                raise InputError(
                    f"{taken[name]} and {part.data.store.url} both have a stream {name}: give each data set a prefix"
                )
            taken[name] = part.data.store.url


class _Files:
    """Shards' files put under a new root: linked where that can be, else copied and verified."""

    def __init__(self, store: Store, vocabulary: Vocabulary, packs: frozenset[str]) -> None:
        self.store, self.vocabulary, self.packs = store, vocabulary, packs
        self.linked = self.copied = 0

    def put(self, reader: ShardReader, names: dict[str, str]) -> ShardEntry:
        """Put a shard's members; give its entry in the new data set."""
        old = reader.entry
        tables = {f".{name}.npy" for name in old.packs}
        members = {suffix: digest for suffix, digest in old.members.items() if suffix not in tables}
        entry = replace(old, packs={name: count for name, count in old.packs.items() if name in self.packs})
        header = None
        if (stream := names[old.stream]) != old.stream or reader.vocabulary != self.vocabulary:
            del members[".json"]
            told = {**reader.header, "vocabulary": self.vocabulary.to_json()}
            header = shard_header(stream, old.number, members, told)
            members[".json"] = sha256(header)
            entry = replace(entry, stream=stream, name=shard_name(stream, old.number, members))
        kept = tables & set(old.members) & {f".{name}.npy" for name in self.packs}
        members |= {suffix: old.members[suffix] for suffix in kept}
        for suffix, digest in members.items():
            if suffix == ".json" and header is not None:
                self.store.put_named(header, entry.path(suffix))
            else:
                linked = take(reader.store, old.path(suffix), self.store, entry.path(suffix), digest)
                self.linked, self.copied = self.linked + linked, self.copied + (not linked)
        return replace(entry, members=members)


def _generation(
    parts: Sequence[_Part], vocabulary: Vocabulary, packs: dict[str, int], entries: Sequence[ShardEntry]
) -> Generation:
    """Lay the shards out by stream and number; each stream's order constants are those it had."""
    ordered = sorted(entries, key=lambda entry: (entry.stream, entry.number))
    table = ShardTable.of(ordered, sorted({entry.stream for entry in ordered}), packs)
    orders = []
    for name, rows in packs.items():
        held = [(part, part.data.generation.pack(name)) for part in parts]
        shapes = {part.names[stream]: shape for part, order in held for stream, shape in order.streams.items()}
        orders.append(PackOrder(held[0][1].pack, rows, dict(sorted(shapes.items()))))
    return Generation(0, vocabulary, tuple(orders), table, None, MADE)


def _record(parts: Sequence[_Part]) -> bytes:
    """Say what went in: the same whatever the order of the arguments and wherever the data sets lie."""
    told = [
        {
            "tokens_sha256": part.data.generation.tokens_sha256, "generation": part.data.generation.number,
            "record": part.data.generation.record, "prefix": part.prefix, "streams": part.names,
        }
        for part in parts
    ]  # fmt: skip
    told.sort(key=lambda part: (str(part["tokens_sha256"]), str(part["prefix"])))
    return canonical({"magic": MAGIC, "version": list(VERSION), "parts": told})
