"""Deduplication against earlier runs: what a run matches against is pinned once, what it found is added at its end.

    pin_index   before the match: the batches that stand now, written down in the run's folder
    Pinned      what the match needs of them: their digests, and the document that a cluster should be named after
    add_batch   behind the run's last commit: its documents, all of them, as one more batch

A document that matches an indexed one always goes, and what matches it goes too, as in one run over everything; so k
copies of an indexed document lose k copies. The same run into another folder matches against what it matched against
the first time, without what was taken out since.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import RequestError
from ..sharding.canonical import canonical
from ..sharding.store import Store
from ..transforms.schema import id_words
from .duplicates import Dedup
from .exchange import Digests, sign_key
from .index_batches import Batch, Block, Generation, Index, parameters_of, require_equal
from .index_blocks import LOW, AddBlock, SignedPart, Words, deal_blocks, read_documents
from .recipe import digest
from .runners import Job
from .stage import Stage, package_versions
from .views import Part, View

STAGES = ("urls", "duplicates")  # whose digests are indexed
BLOCK_DOCUMENTS = 1 << 20
HIGH = np.uint64(32)


@dataclass(frozen=True)
class Earlier:
    """The indexed document that each of some clusters should be named after, sorted by the clusters' labels."""

    labels: Words  # (n,)
    ids: Words  # (n, 2)
    contents: Words  # (n, 2)
    own: pa.Array  # strings (n,): the user's own ids
    batches: pa.Array  # strings (n,): names of their batches

    @classmethod
    def none(cls) -> Earlier:
        """Give no documents."""
        pairs, strings = np.zeros((0, 2), np.uint64), pa.array([], pa.string())
        return cls(np.zeros(0, np.uint64), pairs, pairs, strings, strings)

    def find(self, labels: Words) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Say which labels have one, and at which place; places of the others mean nothing."""
        if not len(self.labels):
            return np.zeros(len(labels), bool), np.zeros(len(labels), np.int64)
        at = np.minimum(np.searchsorted(self.labels, labels), len(self.labels) - 1)
        return self.labels[at] == labels, at


NONE_EARLIER = Earlier.none()


@dataclass(frozen=True)
class Pinned:
    """The batches that a run is matched against, and the batch that it will be."""

    index: Index
    name: str
    content: str
    parameters: dict[str, Any]
    batches: tuple[Batch, ...]

    @cached_property
    def digest(self) -> str:
        """Hash all that decides what a match finds, for the hashes of the run's stages."""
        return digest([[batch.name, batch.content, sorted(_objects(batch))] for batch in self.batches])

    def to_json(self) -> dict[str, Any]:
        """Say in a manifest what the run was matched against, and what it adds."""
        against = [{"name": batch.name, "content": batch.content} for batch in self.batches]
        return {"url": self.index.store.url, "batch": self.name, "content": self.content, "against": against}

    def blocks(self, stage: str) -> list[tuple[int, Block]]:
        """Give the blocks of a stage with the numbers of their batches: the n-th has part number parts + n."""
        held = [(number, block) for number, batch in enumerate(self.batches) for block in batch.blocks]
        return [(number, block) for number, block in held if block.stage == stage]

    def extra(self, stage: str, parts: int) -> list[Digests]:
        """Name the digests that take part in the exchange of a run of so many parts."""
        made = []
        for number, (_, block) in enumerate(self.blocks(stage)):
            places = tuple((band, start, end) for band, (start, end) in sorted(block.digests.bands.items()))
            made.append(Digests(self.index.store, block.digests.object, places, parts + number))
        return made

    def earlier(self, stage: str, parts: int, nodes: Words, labels: Words) -> Earlier:
        """Look indexed documents up, by their addresses, rising, and choose one for each cluster.

        One that its run kept before others, then of the earliest batch, then the smallest id.
        """
        blocks = self.blocks(stage)
        numbers = (nodes >> HIGH).astype(np.int64) - parts
        tables, batches = [], []
        for number in np.unique(numbers).tolist():
            batch, block = blocks[number]
            rows = (nodes[numbers == number] & LOW).astype(np.int64)
            tables.append(read_documents(self.index.store, block, rows))
            batches.append(np.full(len(rows), batch))
        if not tables:
            return NONE_EARLIER
        table, batch = pa.concat_tables(tables).combine_chunks(), np.concatenate(batches)
        ids, big = id_words(table.column("id")), id_words(table.column("id")).byteswap()
        gone = ~table.column("kept").to_numpy()
        order = np.lexsort((big[:, 1], big[:, 0], batch, gone, labels))
        first = order[np.r_[True, labels[order][1:] != labels[order][:-1]]]
        names = pa.array([self.batches[number].name for number in batch[first].tolist()], pa.string())
        own = table.column("source_id").combine_chunks().take(pa.array(first))
        return Earlier(labels[first], ids[first], id_words(table.column("content"))[first], own, names)


def _objects(batch: Batch) -> Iterable[str]:
    return (name for block in batch.blocks for name in block.objects)


def pin_index(
    run: Store, place: Store | str | Path, dedup: Dedup, parts: Sequence[Part], name: str | None = None
) -> Pinned:
    """Choose what a run matches against: all batches that stand, or those that a run of this batch matched before.

    The choice is written down in the run's folder, so that the run resumes with it whatever is added meanwhile.
    RequestError where the index holds digests of another kind, or another batch of this name.
    """
    refuse_kinds(dedup)
    index, parameters = Index.of(place), parameters_of(dedup)
    content = digest({"parameters": parameters, "parts": sorted(part.key for part in parts)})
    name = name or f"batch-{content[:12]}"
    current = index.current()
    same = standing(index, current, parameters, name, content)
    prefix = f"index/pin-{digest([index.store.url, name, content])[:32]}-"
    pins = len(run.list(prefix))
    chosen = current.batches
    if pins:
        chosen = _pinned(run, f"{prefix}{pins - 1}.json")
        if {one for batch in chosen for one in _objects(batch)} <= current.objects:
            return Pinned(index, name, content, parameters, chosen)
        keys = {batch.key for batch in chosen}  # documents were taken out since
        chosen = tuple(batch for batch in current.batches if batch.key in keys)
    elif same is not None:
        chosen = tuple(batch for batch in current.batches if batch.key in same.against)
    body = canonical({"batches": [batch.model_dump(mode="json") for batch in chosen]})
    run.commit_once(f"{prefix}{pins}.json", body)
    return Pinned(index, name, content, parameters, _pinned(run, f"{prefix}{pins}.json"))


def _pinned(run: Store, name: str) -> tuple[Batch, ...]:
    return tuple(Batch.model_validate(batch) for batch in json.loads(run.read(name))["batches"])


def refuse_kinds(dedup: Dedup) -> None:
    """Refuse what an index cannot do."""
    asked = [name for name in ("lines", "substrings", "verify") if getattr(dedup, name) is not None]
    if dedup.guard.split:
        asked.append("guard.split")
    if asked:
        raise RequestError(
            f"an index holds digests of whole documents and of URLs, no texts: leave {' and '.join(asked)} out, or run "
            "without an index"
        )


def standing(index: Index, current: Generation, parameters: dict[str, Any], name: str, content: str) -> Batch | None:
    """Give the batch of this name and content, if it stands; refuse other parameters, and another batch of the name."""
    if current.number:
        require_equal(index, current.parameters, parameters)
    for batch in current.batches:
        if batch.name == name:
            if batch.content == content:
                return batch
            raise RequestError(
                f"the index {index.store.url} has a batch {name!r} with other content ({batch.content[:12]}, this run "
                f"has {content[:12]}): choose another --batch, or take the old one out: "
                f"penstock index remove {index.store.url} --batch {name} --all"
            )
    return None


def add_batch(
    pinned: Pinned,
    run: Store,
    stages: dict[str, str],
    parts: Sequence[Part],
    view: View,
    launch: Callable[[Job], None],
) -> Generation:
    """Add the documents of a run whose results are committed; a batch that stands is left as it is.

    `stages`: hashes of the run's stages by name. Give the generation that holds the batch.
    """
    against = tuple(one.key for one in pinned.batches)
    index, batch = pinned.index, Batch(name=pinned.name, content=pinned.content, against=against, blocks=())
    current = index.current()
    if standing(index, current, pinned.parameters, batch.name, batch.content) is not None:
        return current
    # A batch that was taken out whole is written anew: receipts of another generation do not count.
    value = {"stages": stages, "batch": batch.key, "index": index.store.url, "generation": current.number}
    stage = Stage.of(run, "index", value, package_versions("pyarrow", "numba"))
    tasks = []
    for name in STAGES:
        if name in stages:
            signed = Stage(name, stages[name], run, ())
            receipts = signed.receipts(list(map(sign_key, parts)))
            held = [SignedPart(part.number, part.source, one) for part, one in zip(parts, receipts, strict=True)]
            tasks += deal_blocks(signed, held, BLOCK_DOCUMENTS)
    committed = stage.committed()
    if left := [task for task in tasks if task.key not in committed]:
        launch(Job("index", left, AddBlock(stage, index.store, f"batches/{batch.key[:32]}/", view)))
    found = [receipt["block"] for receipt in stage.receipts([task.key for task in tasks])]
    blocks = tuple(Block.model_validate(block) for block in found if block is not None)

    def change(now: Generation) -> Generation | None:
        if standing(index, now, pinned.parameters, batch.name, batch.content) is not None:
            return None
        added = batch.model_copy(update={"blocks": blocks})
        return Generation(number=0, parameters=pinned.parameters, batches=(*now.batches, added))

    return index.commit(change)
