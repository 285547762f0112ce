"""What a next generation may be: a promise to every training run that stands on the one before.

    vocabulary     the same
    streams        those of the parent first, in its order; new ones behind them
    their shards   the same numbers, tokens and documents, and the same rows in every pack: so the same positions
    packs          those of the parent, with the same constants; new ones beside them
    payloads       the same, unless it takes documents down

A training run then reads the child where it stood in the parent. Held over a parent of 100,000 shards: 20 ms.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import RequestError
from .format import Generation

#: The one kind of generation in which a shard may have other members than in the one before.
TAKEDOWN = "takedown"


def prove_child(parent: Generation, child: Generation) -> None:
    """Refuse, with RequestError, a generation that would move or change a row of the one that it is made from."""
    if problem := next(_problems(parent, child), None):
        raise RequestError(f"generation {child.number} cannot follow generation {parent.number}: {problem}")


def _problems(parent: Generation, child: Generation) -> Iterator[str]:
    if (child.number, child.parent) != (parent.number + 1, parent.number):
        yield f"it says it is number {child.number}, made from {child.parent}"
    if child.vocabulary != parent.vocabulary:
        yield f"its vocabulary is {child.vocabulary.to_json()}, it was {parent.vocabulary.to_json()}"
    if child.streams[: len(parent.streams)] != parent.streams:
        yield f"its streams are {list(child.streams)}, they were {list(parent.streams)}: new ones stand behind these"
        return
    for order in parent.packs:
        yield from _pack_problems(child, order.pack.name, parent)
    yield from _shard_problems(parent, child)


def _pack_problems(child: Generation, name: str, parent: Generation) -> Iterator[str]:
    known = [order.pack.name for order in child.packs]
    if name not in known:
        yield f"pack {name} is missing, training runs may read it"
        return
    old, new = parent.pack(name), child.pack(name)
    if old.group_rows != new.group_rows:
        yield f"a full group of pack {name} has {new.group_rows} rows, it had {old.group_rows}"
    for stream, shape in old.streams.items():
        if new.streams.get(stream) != shape:
            yield f"stream {stream!r} of pack {name} has the order {new.streams.get(stream)}, it had {shape}"


def _shard_problems(parent: Generation, child: Generation) -> Iterator[str]:
    old, new = parent.shards.records, child.shards.records[: len(parent.shards)]
    if len(new) < len(old):
        yield f"it has {len(new)} shards, there were {len(old)}"
        return
    columns = [name for name in old.dtype.names or () if name not in ("name",) and not name.startswith(".")]
    for column in columns:
        if bool((moved := old[column] != new[column]).any()):
            at = int(np.argmax(moved))
            yield f"shard {parent.shards[at].name} has {column} {new[column][at]}, it had {old[column][at]}"
    changed = old["name"] != new["name"]
    for suffix in (name for name in old.dtype.names or () if name.startswith(".")):
        same = suffix in (new.dtype.names or ()) and (old[suffix] == new[suffix]).all(axis=1)
        changed |= parent.shards.has(suffix) & ~np.asarray(same)
    if child.made != TAKEDOWN and bool(changed.any()):
        at = int(np.argmax(changed))
        yield f"{child.made} changes no shard, but {parent.shards[at].name} became {child.shards[at].name}"
