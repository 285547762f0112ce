"""Documents out of an index: their digests and rows deleted, what is left written anew, the generation after.

A block that has none of them is left as it is. Objects are deleted behind the generation that no longer names them; a
command that is killed in between leaves them to the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .. import RequestError
from ..sharding.store import Store
from ..transforms.schema import ID
from .index_batches import Batch, Block, Generation, Index
from .index_blocks import without
from .stage import spool
from .tables import row_groups

_HEX = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True)
class Removed:
    """What went out of an index."""

    documents: int
    batches: tuple[str, ...]  # that had them
    missing: tuple[str, ...]  # ids that no document has
    objects: int  # deleted


def remove(
    place: Store | str | Path,
    ids: Iterable[str] = (),
    batch: str | None = None,
    *,
    everything: bool = False,
    missing_ok: bool = False,
) -> Removed:
    """Take documents out by their own ids, or by the 32 hex digits of ours; or, `everything`, a whole batch.

    Their digests and rows are deleted. Ids that no document has are refused, and nothing is changed, unless
    `missing_ok`.
    """
    index, wanted = Index.of(place), frozenset(ids)
    index.sweep()  # what a run that was killed left behind
    outcome: list[Removed] = []

    def change(now: Generation) -> Generation | None:
        _require_batch(index, now, batch)
        changed = [
            _without(index, one, wanted, everything) if batch in (None, one.name) else (one, 0, frozenset())
            for one in now.batches
        ]
        missing = tuple(sorted(wanted.difference(*(met for _, _, met in changed))))
        if missing and not missing_ok:
            named = ", ".join(map(repr, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            raise RequestError(
                f"no document of {index.store.url} has the id {named}: nothing was taken out; give ids of documents "
                "that are there, or --missing-ok"
            )
        touched = tuple(one.name for one, (_, count, _) in zip(now.batches, changed, strict=True) if count)
        outcome[:] = [Removed(sum(count for _, count, _ in changed), touched, missing, 0)]
        after = tuple(one for one, _, _ in changed if one is not None)
        return None if after == now.batches else now.model_copy(update={"batches": after})

    index.commit(change)
    done = outcome[-1]
    return Removed(done.documents, done.batches, done.missing, index.sweep())


def _require_batch(index: Index, now: Generation, batch: str | None) -> None:
    names = [one.name for one in now.batches]
    if not now.number:
        raise RequestError(f"{index.store.url} holds no index: give the --index of an earlier run")
    if batch is not None and batch not in names:
        raise RequestError(f"the index {index.store.url} has no batch {batch!r}: it has {', '.join(names) or 'none'}")


def _without(
    index: Index, batch: Batch, wanted: frozenset[str], everything: bool
) -> tuple[Batch | None, int, frozenset[str]]:
    """Give a batch without these documents, how many those were, and which of the ids they have."""
    if everything:
        return None, max(batch.count("documents").values(), default=0), wanted
    blocks: list[Block] = []
    met: set[str] = set()
    gone: set[bytes] = set()  # a document may be known by URL and by what it says
    for block in batch.blocks:
        found, ids, names = _marked(index.store, block, wanted)
        met |= names
        gone |= ids
        if not found.any():
            blocks.append(block)
            continue
        with spool() as folder:
            made = without(index.store, f"batches/{batch.key[:32]}/", folder, block, found)
        blocks += [made] if made is not None else []
    update = {"blocks": tuple(blocks), "removed": batch.removed + len(gone)}
    return batch.model_copy(update=update), len(gone), frozenset(met)


def _marked(store: Store, block: Block, wanted: frozenset[str]) -> tuple[NDArray[np.bool_], set[bytes], set[str]]:
    """Say which documents of a block have one of these ids, their own ids, and which of the names they answer to."""
    written = {bytes.fromhex(name): name for name in wanted if _HEX.fullmatch(name)}
    by_id, by_own = pa.array(list(written), ID), pa.array(sorted(wanted), pa.string())
    marks, ids, names = [np.zeros(0, bool)], set(), set()
    for rows, _ in row_groups(store, block.table, ["id", "source_id"]):
        own = pc.is_in(rows["source_id"], value_set=by_own)
        ours = pc.is_in(rows["id"], value_set=by_id)
        names |= set(rows["source_id"].filter(own).to_pylist())
        names |= {written[one] for one in rows["id"].filter(ours).to_pylist()}
        either = pc.or_(own, ours)
        ids |= set(rows["id"].filter(either).to_pylist())
        marks.append(either.to_numpy())
    return np.concatenate(marks), ids, names
