"""`penstock index`: look into an index of earlier batches, and take documents out of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import InputError, RequestError


def add_index(commands: Any, add_command: Callable[..., argparse.ArgumentParser]) -> None:
    """`penstock index`."""
    parser = add_command(
        commands, "index", index_command, "look into an index of `penstock dedup --index`, or take out"
    )
    actions = parser.add_subparsers(dest="action", metavar="show|remove", required=True)
    show = actions.add_parser("show", help="list batches with their documents and bytes, and what they were made with")
    show.add_argument("dir", metavar="DIR")
    show.add_argument("--json", action="store_true")
    remove = actions.add_parser("remove", help="take documents out: their digests are deleted")
    remove.add_argument("dir", metavar="DIR")
    remove.add_argument(
        "--id", action="append", default=[], metavar="ID", help="your own id of a document, or 32 hex digits of ours"
    )
    remove.add_argument("--ids", metavar="FILE", help="a file with one id a line")
    remove.add_argument("--batch", metavar="NAME", help="of this batch only")
    remove.add_argument("--all", action="store_true", help="the whole batch that --batch names")
    remove.add_argument("--missing-ok", action="store_true", help="ids that no document has are no error")


def index_command(arguments: Any) -> int:
    """Show an index, or take documents out."""
    return show_command(arguments) if arguments.action == "show" else remove_command(arguments)


def show_command(arguments: Any) -> int:
    """List the batches."""
    from .index_batches import Index

    index = Index.of(arguments.dir)
    current = index.current()
    if not current.number:
        raise RequestError(f"{index.store.url} holds no index: `penstock dedup --index` makes one")
    shown = {
        "generation": current.number,
        "parameters": current.parameters,
        "batches": [
            {
                "name": batch.name,
                "content": batch.content,
                "documents": batch.count("documents"),
                "kept": batch.count("kept"),
                "removed": batch.removed,
                "blocks": len(batch.blocks),
                "bytes": sum(batch.count("bytes").values()),
            }
            for batch in current.batches
        ],
    }
    print(json.dumps(shown, indent=1, ensure_ascii=False) if arguments.json else _table(shown))
    return 0


def _table(shown: dict[str, Any]) -> str:
    """Lay the batches out for people: a line each, documents known by URL behind those known by what they say."""
    lines = [f"generation  {shown['generation']}", f"made with   {json.dumps(shown['parameters'])}", ""]
    width = max([len("batch"), *(len(batch["name"]) for batch in shown["batches"])])
    lines.append(f"{'batch':{width}}  {'documents':>13}  {'kept':>13}  {'by URL':>13}  {'taken out':>9}  {'bytes':>15}")
    for batch in shown["batches"]:
        said, urls = (batch["documents"].get(stage, 0) for stage in ("duplicates", "urls"))
        kept = batch["kept"].get("duplicates", 0)
        lines.append(
            f"{batch['name']:{width}}  {said:>13,}  {kept:>13,}  {urls:>13,}  {batch['removed']:>9,}  "
            f"{batch['bytes']:>15,}"
        )
    return "\n".join(lines)


def remove_command(arguments: Any) -> int:
    """Take documents out, and say how many."""
    from .index_removal import remove

    ids = [*arguments.id, *(ids_of(arguments.ids) if arguments.ids else [])]
    if arguments.all and (ids or arguments.batch is None):
        raise RequestError("--all takes out the whole batch that --batch names, without --id and --ids")
    if not arguments.all and not ids:
        raise RequestError("nothing to take out: give --id, --ids, or --batch with --all")
    done = remove(arguments.dir, ids, arguments.batch, everything=arguments.all, missing_ok=arguments.missing_ok)
    where = f" of {', '.join(done.batches)}" if done.batches else ""
    print(f"{done.documents:,} documents{where} taken out; {done.objects} objects deleted")
    if done.missing:
        print(f"{len(done.missing):,} ids were not there")
    return 0


def ids_of(path: str) -> list[str]:
    """Read ids, one a line; empty lines are left out."""
    try:
        return [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line]
    except UnicodeDecodeError as error:
        raise InputError(f"--ids {path}: it is not UTF-8 ({error.reason} at byte {error.start})") from error
