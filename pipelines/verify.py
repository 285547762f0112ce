"""A run's results held to what was written down of them: token files, texts, tables.

What one stage hands to the next (documents, signatures) is not looked for: it may be removed once a run is finished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..sharding.dataset import run_manifest
from ..sharding.store import MissingObjectError, Store
from ..sharding.tools import refuse
from ..sharding.tools import verify as verify_tokens

if TYPE_CHECKING:
    from .stage import Receipt, Stage

_CHUNK = 1 << 20


def verify(path: str | Path) -> dict[str, Any]:
    """Check every checksum and count of a run's results, or of token files alone; gives a summary.

    Every byte is read once. CorruptDataError says what is wrong, and what to do.
    """
    store = Store(path)
    found = run_manifest(store)
    if found is None or found[0] is not store:
        return verify_tokens(path)
    manifest = found[1]
    report: dict[str, Any] = {"verified": True} if manifest["stages"]["tokens"] is None else verify_tokens(path)
    for name in ("text", "tokens"):
        if found_stage := manifest["stages"].get(name):
            report |= _published(store, name, found_stage, manifest["kept"])
    if manifest["stages"].get("output"):
        report |= {"output": _output(store, manifest["stages"]["output"])}
    tables = sorted(name for name in manifest["tables"].values() if name is not None)
    refuse([problem for name in tables if (problem := _problem(store, name, _maker(name))[1])])
    return {**report, "tables": tables}


def _published(run: Store, name: str, stage_hash: str, kept: int) -> dict[str, Any]:
    """Check what a stage's `final` steps took out, where they did, and the files of a `text` stage."""
    from .kept_edits import edits_of
    from .stage import Stage  # brings what a run needs, and token files do not

    stage = Stage(name, stage_hash, run, ())
    keys = sorted(stage.committed())
    receipts = dict(zip(keys, stage.receipts(keys), strict=True))
    checked = [_problem(stage.store, edits, "") for edits in edits_of(receipts.values())]
    refuse([problem for _, problem in checked if problem])
    found: dict[str, Any] = {f"{name}_edits": len(checked)} if checked else {}
    return found | ({"text": _texts(stage, receipts, kept)} if name == "text" else {})


def _texts(stage: Stage, receipts: Mapping[str, Receipt], kept: int) -> dict[str, int]:
    """Check the files of a `text` stage."""
    checked, documents = [], 0
    for key, receipt in receipts.items():
        try:
            text, count = receipt["text"], int(receipt["documents"])
        except (ValueError, TypeError, KeyError) as error:
            raise stage.damaged(key, repr(error)) from error
        documents += count
        if text is not None:
            checked.append(_problem(stage.store, text, ""))
    problems = [problem for _, problem in checked if problem]
    if documents != kept:
        problems.append(
            f"{stage.store.url}: its receipts name {documents} documents, the manifest says {kept} were kept"
        )
    refuse(problems)
    return {"files": len(checked), "documents": documents, "bytes": sum(size for size, _ in checked)}


def _output(run: Store, stage_hash: str) -> dict[str, int]:
    """Check the files that a deduplication wrote, and those that stand beside them."""
    from .dedup_output import objects_of
    from .stage import Stage

    stage = Stage("output", stage_hash, run, ())
    names = objects_of(stage.receipts(sorted(stage.committed())))
    checked = [_problem(stage.store, name, "") for name in names]
    refuse([problem for _, problem in checked if problem])
    return {"files": len(checked), "bytes": sum(size for size, _ in checked)}


def _maker(table: str) -> str:
    """Name what is to be removed so that the next run makes a table anew: its stage, for `documents` itself alone."""
    stage = PurePosixPath(table).parts[:2]
    return table if stage[0] == "documents" else "/".join(stage)


def _problem(store: Store, name: str, maker: str) -> tuple[int, str | None]:
    """Hash an object whose name holds its hash: its bytes, and what is wrong with it."""
    place = f"{store.url}/{name}"
    way_out = f"restore it from a copy, or remove {store.url}/{maker}".rstrip("/") + " and run the same command again"
    size, digest = 0, hashlib.sha256()
    try:
        with store.open(name) as file:
            while body := file.read(_CHUNK):
                digest.update(body)
                size += len(body)
    except MissingObjectError:
        return 0, f"{place} is not there: {way_out}"
    if digest.hexdigest()[:32] not in PurePosixPath(name).name:
        return size, f"{place} does not match the SHA-256 in its name: {way_out}"
    return size, None
