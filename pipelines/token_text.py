"""What the tools on token files have found or done, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .funnel import bytes_text, visible

Json = dict[str, Any]


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
