"""What the tools on token files have found or done, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .funnel import bytes_text, visible

Json = dict[str, Any]


def merge_text(found: Json, output: str) -> str:
    """Say what a merge has made."""
    lines = [
        f"{found['documents']:,} documents, {found['tokens']:,} tokens in {found['shards']:,} shards: "
        f"{found['linked']:,} files linked, {found['copied']:,} copied",
        f"streams        {', '.join(found['streams'])}",
        f"packs          {', '.join(found['packs'])}",
    ]
    if found["packs_left_out"]:
        lines.append(f"left out       {', '.join(found['packs_left_out'])}: not all of them have it")
    return "\n".join([*lines, f"tokens_sha256  {found['tokens_sha256']}", "", f"next: penstock verify {output}"])


def diff_text(found: Json) -> str:
    """Say what differs, a line a difference; and whether a loader may go on."""
    return "\n".join(_diff_lines(found))


def _diff_lines(found: Json) -> Iterator[str]:
    for name in ("a", "b"):
        told = found[name]
        counts = f"{told['shards']:,} shards, {told['documents']:,} documents, {told['tokens']:,} tokens"
        yield f"{name}  {told['url']} generation {told['generation']} ({told['made']}): {counts}"
    if found["equal"]:
        yield "equal: every member of every shard is the same"
        return
    for name, (old, new) in found["vocabulary"].items():
        yield f"vocabulary  {name}: {old} → {new}"
    for kind in ("packs", "streams"):
        told = found[kind]
        yield from (f"{kind:<10}  + {name}" for name in told.get("added", ()))
        yield from (f"{kind:<10}  - {name}" for name in told.get("removed", ()))
        yield from (f"{kind:<10}  {name}: {_pairs(what)}" for name, what in told.get("changed", {}).items())
    if shards := found["shards"]:
        yield f"shards      {shards['added']:,} added, {shards['removed']:,} removed, {shards['changed']:,} changed"
        for shard in shards["shown"]:
            members = f": {' '.join(shard['members'])}" if "members" in shard else ""
            yield f"  {shard['change']:<8}  {shard['stream']} {shard['number']}{members}"
        if (more := sum(shards[name] for name in ("added", "removed", "changed")) - len(shards["shown"])) > 0:
            yield f"  … and {more:,} more"
    if found["taken_down"]["documents"]:
        yield f"taken down  {found['taken_down']['documents']:,} documents, {found['taken_down']['tokens']:,} tokens"
    for pack, kept in found["order_kept"].items():
        verdict = "every row of a comes in b at its place" if kept else "rows of a come in b at other places"
        yield f"order       {pack}: {verdict}"


def _pairs(what: Json) -> str:
    """Write changed values, nested ones by their names."""
    told = [f"{name} ({_pairs(value)})" if isinstance(value, dict) else f"{name} {value[0]} → {value[1]}"
            for name, value in what.items()]  # fmt: skip
    return ", ".join(told)


def takedown_text(found: Json) -> str:
    """Say what a takedown took, from where, what it did not find, and what it did not touch."""
    return "\n".join(_takedown_lines(found))


def _takedown_lines(found: Json) -> Iterator[str]:
    for line in found["shown"]:
        place = f"{line['stream']} {line['number']}:{line['ordinal']}"
        yield visible(
            f"{line['id']}  {place}  {line['tokens']:,} tokens  by {line['by']}  {line['url'] or ''}".rstrip()
        )
    if (more := found["documents"] - len(found["shown"])) > 0:
        yield f"… and {more:,} more" + ("" if found["dry_run"] else ": see the list")
    verb = "would go" if found["dry_run"] else "taken down"
    counts = f"{found['documents']:,} documents, {found['tokens']:,} tokens in {found['shards']:,} shards {verb}"
    yield counts + (f"; {found['already_gone']:,} were gone already" if found["already_gone"] else "")
    for kind, words in found["not_found"].items():
        if words and not (found["already_gone"] and kind != "id"):
            yield visible(f"not found: {kind} {', '.join(words)}")
    if found["dry_run"]:
        yield "nothing was written"
    elif found["documents"]:
        yield f"generation {found['generation']}, tokens_sha256 {found['tokens_sha256']}"
    if found["list"]:
        yield f"list       {found['list']}"
    if purged := found["purged"]:
        older = ", ".join(map(str, purged["generations"])) or "none"
        size = bytes_text(purged["bytes"])
        yield f"purged     {purged['objects']:,} objects, {size}; generations that cannot be read any more: {older}"
    yield ""
    yield "NOT TOUCHED, and may still hold the text:"
    for place in found["not_touched"]:
        yield f"  {place}"
