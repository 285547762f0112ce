"""Take documents down: overwrite their tokens, list them, and make the next generation of the data set.

For each shard that holds some, a new payload with EOS in their place, `.gone.npy` with their ordinals, docs.parquet
with their rows null but for the id (`emptied`). No document, row or pack moves, so a training run goes on where it
stands: their pieces come as padding. Then the list of what goes (`takedown_list`), and last the generation, which names
it, by create-if-absent. Killed anywhere, the same command finishes.

The old objects stay for readers of the older generation until they are purged (`purge`). What else holds the text (a
run's documents and ledger, copies, trained models) is not touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import CommitConflictError, InputError
from ..dataset import TokenData, open_tokens, write_generation
from ..documents import Documents
from ..format import Generation
from ..succession import TAKEDOWN
from .emptied import write_without
from .history import lineage
from .purge import purge_older
from .takedown_list import TakedownList, read_head
from .wanted import Found, Wanted, search


def takedown(
    path: str | Path,
    *,
    ids: Sequence[str] = (),
    urls: Sequence[str] = (),
    sources: Sequence[str] = (),
    reason: str = "",
    signed_by: str = "",
    dry_run: bool = False,
    purge: bool = False,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """Take down every document of any of these ids (32 hex digits), URL patterns and sources, in all streams.

    reason, signed_by: for the list. dry_run: say what would go, write nothing. purge: remove what only older
    generations hold; they cannot be read from then on. folder: local, for one shard's payload at a time.

    Gives counts, the list's name, what was asked for and not found, and the first documents. Where all that is found is
    gone already no generation is made, and `purge` purges all the same. InputError where nothing is found.
    """
    wanted, data = Wanted.of(ids, urls, sources), open_tokens(path)
    data.store.require_exclusive()
    documents, found, after, name = Documents(data), Found(), data.generation, None
    with tempfile.TemporaryDirectory(prefix="penstock-takedown-", dir=folder) as local:
        listed, entries = TakedownList(Path(local)), list(data.generation.shards)
        for shard in range(len(entries)):
            ordinals = listed.add(documents.reader(shard), list(search(documents, shard, wanted, found)))
            if ordinals and not dry_run:
                entries[shard] = write_without(documents, shard, ordinals, Path(local))
        if listed.documents and not dry_run:
            told = {"reason": reason, "signed_by": signed_by, "asked": wanted.told}
            name = listed.put(data.store, after.number + 1, **told)
            after = _committed(data, entries, name)
    if not listed.documents:
        name, listed.already = _earlier(data, wanted, listed.already)
    return {
        "generation": after.number, "dry_run": dry_run, **listed.counts, "already_gone": listed.already,
        "streams": dict(listed.streams), "not_found": found.missing(wanted), "list": name,
        "tokens_sha256": after.tokens_sha256, "shown": listed.shown,
        "purged": purge_older(data.store, after) if purge and not dry_run else None,
    }  # fmt: skip


def _earlier(data: TokenData, wanted: Wanted, already: int) -> tuple[str | None, int]:
    """Find the takedown that did what is asked: its list, and how many documents it took.

    Of what is gone, URLs and sources are not known any more, so a takedown is known by what was asked for.
    """
    for generation in lineage(data.store, data.generation):
        if generation.record is not None:
            head = read_head(data.store, generation.record)
            if head["asked"] == wanted.told:
                return generation.record, int(head["documents"])
    if not already:
        raise InputError(f"no document of {data.store.url} has such an id, URL or source; case counts")
    return None, already


def _committed(data: TokenData, entries: Sequence[Any], record: str) -> Generation:
    """Make the next generation."""
    old = data.generation
    packs = [order.pack for order in old.packs]
    new = replace(Generation.of(old.number + 1, old.vocabulary, packs, entries, old, TAKEDOWN), record=record)
    try:
        write_generation(data.store, new)
    except CommitConflictError as error:
        raise CommitConflictError(
            f"{data.store.url} got generation {new.number} from another writer meanwhile: nothing of this takedown is "
            "in it; run the same command again"
        ) from error
    return new
