"""How a data set came to be what it is: each generation from the one before it, the first from a run.

What must add up: the first generation has the run's tokens and documents; one that took documents down has the shards
of the one before it, and in them gone what was gone before and what its list says, no more and no less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ... import PenstockError
from ..dataset import TokenData, read_generation
from ..format import Generation
from ..shard import ShardReader
from ..store import Store, sha256
from ..succession import TAKEDOWN, prove_child
from .purge import is_purged
from .takedown_list import read_list


def lineage(store: Store, generation: Generation) -> Iterator[Generation]:
    """Give a generation, the one it was made from, and so on to the first."""
    while True:
        yield generation
        if generation.parent is None:
            return
        generation = read_generation(store, generation.parent)


def history_problems(data: TokenData, found: tuple[Store, dict[str, Any]] | None) -> Iterator[str]:
    """Say where generations do not follow from one another, or the first is not the run's. found: its manifest."""
    try:
        line = list(lineage(data.store, data.generation))
    except PenstockError as error:
        yield f"generation {data.generation.number} was made from one that cannot be read: {error}"
        return
    for new, old in pairwise(line):
        try:
            prove_child(old, new)
            if new.made == TAKEDOWN:
                yield from (f"generation {new.number}: {problem}" for problem in _takedown_problems(data, new, old))
        except PenstockError as error:
            yield str(error)
    if found is not None:
        yield from _run_problems(line[-1], found[1])
    if (name := line[-1].record) is not None and sha256(data.store.read(name))[:32] not in name:
        yield f"{data.store.url}/{name} does not match the SHA-256 in its name"


def _run_problems(first: Generation, manifest: dict[str, Any]) -> Iterator[str]:
    have = {"tokens_sha256": first.tokens_sha256, "kept": first.shards.total("documents"),
            "tokens": first.shards.total("tokens")}  # fmt: skip
    for name, value in have.items():
        if name in manifest and manifest[name] not in (None, value):
            yield f"the run's manifest says {name} {manifest[name]}, its token files have {value}"


def _takedown_problems(data: TokenData, new: Generation, old: Generation) -> Iterator[str]:
    """Hold a generation that took documents down to the one before it, and to its list."""
    if len(new.shards) != len(old.shards):
        yield f"a takedown adds no shard, but it has {len(new.shards)} and the generation before it {len(old.shards)}"
        return
    if new.record is None:
        yield "it took documents down and names no list of them"
        return
    head, lines = read_list(data.store, new.record)
    listed: dict[tuple[str, int], set[int]] = {}
    tokens = Counter[str]()
    for line in lines:
        listed.setdefault((line["stream"], line["number"]), set()).add(line["ordinal"])
        tokens["listed"] += line["tokens"]
    count = sum(map(len, listed.values()))
    if (head["documents"], head["tokens"]) != (count, tokens["listed"]):
        yield f"its list says {head['documents']} documents and has {count}"
    if is_purged(data.store, new.number):
        return
    purged = is_purged(data.store, old.number)
    for after, before in zip(new.shards, old.shards, strict=True):
        wanted = listed.pop((after.stream, after.number), set())
        if after.name == before.name:
            if wanted:
                yield f"shard {after.name} is what it was, though {len(wanted)} of its documents are listed"
            continue
        gone = set(ShardReader(data.store, after, new.vocabulary).gone.tolist())
        earlier = wanted if purged else set(ShardReader(data.store, before, old.vocabulary).gone.tolist())
        if not wanted <= gone or (not purged and gone != earlier | wanted):
            yield f"shard {after.name} has {len(gone)} documents gone, its list and the generation before it say others"
