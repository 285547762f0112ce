"""Remove what only older generations hold, so that what was taken down is in no file of the data set any more.

First `generations/N.purged.json` is put for each generation that loses objects: from then on opening it says so in
words. Then the objects go. Killed between, the same command finishes: what is gone already is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .canonical import MAGIC, VERSION, canonical
from .dataset import generation_numbers, purged_name, stored_generation
from .format import Generation, ShardEntry
from .store import MissingObjectError, Store


def purge_older(store: Store, kept: Generation) -> dict[str, Any]:
    """Remove every object that generations before `kept` list and it does not.

    Gives how many objects and bytes went, and the numbers of the generations that cannot be read any more.
    """
    stays = {shard.name for shard in kept.shards}
    unreadable, names = [], {}
    for number in generation_numbers(store):
        if number < kept.number:
            lost = [shard for shard in stored_generation(store, number).shards if shard.name not in stays]
            if lost:
                unreadable.append(number)
                names |= {name: None for shard in lost for name in _objects(shard)}
    for number in unreadable:
        told = {"magic": MAGIC, "version": list(VERSION), "number": number, "purged_for": kept.number}
        store.commit_once(purged_name(number), canonical(told))
    objects = size = 0
    for name in names:
        try:
            size += store.size(name)
        except MissingObjectError:
            continue
        store.remove(name)
        objects += 1
    return {"objects": objects, "bytes": size, "generations": unreadable}


def _objects(shard: ShardEntry) -> Iterator[str]:
    return (shard.path(suffix) for suffix in shard.members)
