"""A data set opened: its generations, committed and read, and the run that it belongs to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import CommitConflictError, CorruptDataError, InputError
from .canonical import MAGIC, parse_sealed, sealed
from .format import Generation
from .npy import npy_records
from .shard import ShardReader
from .store import Store
from .succession import prove_child

MANIFEST = "manifest.json"


def write_generation(store: Store, generation: Generation) -> None:
    """Commit a generation, its table first; one that stands must be equal, or CommitConflictError.

    One that is made from another must leave every row of it where it was (`succession`), or RequestError.
    """
    if generation.parent is not None:
        prove_child(read_generation(store, generation.parent), generation)
    store.put_named(generation.shards.body, generation.table)
    name = f"generations/{generation.number}.json"
    body = sealed(generation.to_json())
    if store.commit_once(name, body) != body:
        raise CommitConflictError(
            f"{store.url}/{name} stands with other content: another writer made generation "
            f"{generation.number}; write into an empty folder, or make generation "
            f"{generation.number + 1} of that one"
        )


def generation_numbers(store: Store) -> list[int]:
    """Give the numbers of the generations that stand, rising."""
    parts = [name.removeprefix("generations/").removesuffix(".json") for name in store.list("generations/")]
    return sorted(int(part) for part in parts if part.isdecimal())


def read_generation(store: Store, number: int | None = None) -> Generation:
    """Read one generation, or the current one: that of the highest number."""
    known = generation_numbers(store)
    if not known or (number is not None and number not in known):
        which = "no generation" if number is None else f"no generation {number}"
        raise InputError(
            f"{store.url} has {which}: it is not a finished data set of tokens" + (f"; it has {known}" if known else "")
        )
    name = f"generations/{known[-1] if number is None else number}.json"
    place = f"{store.url}/{name}"
    values = parse_sealed(store.read(name), MAGIC, place)
    try:
        return Generation.from_json(values, _records(store, str(values["shards"]["table"]), values["shards"]["sha256"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptDataError(f"{place} is damaged: {error!r}; restore it from a copy") from error


def _records(store: Store, name: str, digest: str) -> NDArray[Any]:
    """Read a table of shards, verified; a local one is mapped."""
    path = store.local(name)
    try:
        body = store.read(name) if path is None else _mapped(path)
    except FileNotFoundError as error:
        raise CorruptDataError(f"{store.url} has lost {name}, a table of its shards: restore it from a copy") from error
    if hashlib.sha256(body).hexdigest() != digest:
        raise CorruptDataError(f"{store.url}/{name} does not match its SHA-256; restore it from a copy")
    return npy_records(body)


def _mapped(path: Path) -> bytes | memoryview:
    return np.memmap(path, np.uint8, "r").data if path.stat().st_size else b""


@dataclass(frozen=True)
class TokenData:
    """A data set of tokens, pinned to one generation. Picklable."""

    store: Store
    generation: Generation

    def at(self, number: int) -> TokenData:
        """Pin the same data set to another generation."""
        return self if number == self.generation.number else TokenData(self.store, read_generation(self.store, number))

    def reader(self, shard: int) -> ShardReader:
        """Open a shard by its number in the generation's order."""
        return ShardReader(self.store, self.generation.shards[shard], self.generation.vocabulary, shard)


def open_tokens(path: str | Path, generation: int | None = None, **options: Any) -> TokenData:
    """Open the token files at `path`: a run's folder, its `tokens/`, or `tokens/HASH` itself.

    The first two follow the run's manifest to what is current. `options` go to the object store's client.
    """
    store = Store(path, **options)
    if not store.list("generations/"):
        store = _current(store)
    return TokenData(store, read_generation(store, generation))


def _current(store: Store) -> Store:
    """Follow manifest.json to the folder of the run's tokens."""
    found = run_manifest(store)
    if found is None:
        raise InputError(
            f"{store.url} holds no tokens: neither generations/ nor a run's manifest.json is there; give a run's folder"
        )
    run, manifest = found
    if (stage := manifest["stages"]["tokens"]) is None:
        raise InputError(f"{run.url} holds no tokens: its recipe asked for text alone; add `tokens` to it")
    return run.child(f"tokens/{stage}")


def run_manifest(store: Store) -> tuple[Store, dict[str, Any]] | None:
    """Read the manifest of the run whose folder, or whose `tokens/`, lies at `store`; None where there is no run."""
    above, _, folder = store.url.rpartition("/")
    for run in (store, Store(above or "/", **store.options)):
        if (run is store or folder == "tokens") and run.exists(MANIFEST):
            return run, read_manifest(run)
    return None


def read_manifest(run: Store) -> dict[str, Any]:
    """Read the manifest of the run that lies at `run`; CorruptDataError where it is damaged."""
    try:
        manifest = dict(json.loads(run.read(MANIFEST)))
        manifest["stages"]["tokens"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(
            f"{run.url}/{MANIFEST} is damaged, or no run's: {error!r}; run the same recipe again, which writes it anew"
        ) from error
    return manifest
