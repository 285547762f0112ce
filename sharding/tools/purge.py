"""Remove what only older generations hold, so that what was taken down is in no file of the data set any more.

First `generations/N.purged.json` is put for each generation that loses shards, with their names: whoever reads one from
then on is told so in words. Then the objects go. Killed between, the same command finishes: what is gone is gone. The
generations themselves stay, because the order of a training run that began with one is worked out from it.
"""

from __future__ import annotations

from typing import Any

from ..canonical import MAGIC, VERSION, canonical, parse
from ..dataset import generation_numbers, read_generation
from ..format import Generation
from ..shard import PURGED
from ..store import MissingObjectError, Store


def purge_older(store: Store, kept: Generation) -> dict[str, Any]:
    """Remove every shard's objects that generations before `kept` list and it does not.

    Gives how many objects and bytes went, and the numbers of the generations that cannot be read whole any more.
    """
    stays, lost = {shard.name for shard in kept.shards}, {}
    objects: dict[str, None] = {}
    for number in generation_numbers(store):
        old = [shard for shard in read_generation(store, number).shards if shard.name not in stays]
        if old and number < kept.number:
            lost[number] = sorted(shard.name for shard in old)
            objects |= {shard.path(suffix): None for shard in old for suffix in shard.members}
    for number, names in lost.items():
        told = {"magic": MAGIC, "version": list(VERSION), "number": number, "shards": names}
        store.commit_once(purged_name(number), canonical(told))
    removed = size = 0
    for name in objects:
        try:
            size += store.size(name)
        except MissingObjectError:
            continue
        store.remove(name)
        removed += 1
    return {"objects": removed, "bytes": size, "generations": list(lost)}


def purged_name(number: int) -> str:
    """Name the object that says which shards of a generation were purged."""
    return f"generations/{number}{PURGED}"


def is_purged(store: Store, number: int) -> bool:
    """Say whether shards of a generation were purged."""
    return store.exists(purged_name(number))


def purged_shards(store: Store) -> set[str]:
    """Name the shards whose objects were removed on purpose."""
    markers = [name for name in store.list("generations/") if name.endswith(PURGED)]
    return {shard for name in markers for shard in parse(store.read(name), MAGIC, f"{store.url}/{name}")["shards"]}
