"""Where the text of documents that were taken down from the token files still is: said loudly, touched nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..sharding.dataset import MANIFEST, open_tokens, read_manifest
from ..sharding.store import Store

#: Folders of a run that hold text, records or tokens of documents, and what is in them.
_FOLDERS = {
    "documents": "the text of every document kept, and the ledger with URLs of all that were met",
    "duplicates": "ids of copies that were dropped in a document's favour",
    "text": "the published text",
    "output": "what a deduplication wrote",
    "tasks": "what tasks have left behind",
}
_BESIDE_TOKENS = {
    "slices": "tokens of validation documents as their tasks left them",
    "edits": "text that `final` steps took out",
}
#: Places that no folder shows.
ELSEWHERE = (
    "block caches of nodes that have trained on these tokens",
    "exports and merges made of them, copies, backups and earlier versions in the object store",
    "models trained on them",
)


def places(path: str, purged: bool) -> Iterator[str]:
    """Name the places: `FOLDER: what is in it`; of the data set at `path` and of the run it belongs to."""
    tokens = open_tokens(path).store
    if not purged:
        yield f"{tokens.url}/data: the older generations' tokens and records, until --purge"
    for folder, what in _BESIDE_TOKENS.items():
        if tokens.list(f"{folder}/"):
            yield f"{tokens.url}/{folder}: {what}"
    run = _run_of(tokens)
    if run is None:
        return
    stages: dict[str, Any] = read_manifest(run)["stages"]
    for folder, what in _FOLDERS.items():
        if stages.get(folder) or run.list(f"{folder}/"):
            yield f"{run.url}/{folder}: {what}"


def _run_of(tokens: Store) -> Store | None:
    """The run whose `tokens/HASH` a store is."""
    above = tokens.url.rsplit("/", 2)
    if len(above) < 3 or above[1] != "tokens":
        return None
    run = Store(above[0] or "/", **tokens.options)
    return run if run.exists(MANIFEST) else None
