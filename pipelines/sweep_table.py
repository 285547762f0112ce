"""A sweep as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .funnel import bytes_text, percent

HEAD = ("", "value", "passed the rules", "share", "kept", "bytes", "tokens")
DROPS = {
    "below": "drops documents with a score below",
    "up to": "drops documents with a score up to",
    "above": "drops documents with a score above",
    "where": "a rule that is on or off",
}


def sweep_table(found: Mapping[str, Any]) -> str:
    """Draw what a sweep found: a block a field, a line a value, and what the marks mean."""
    blocks = [block(entry, found) for entry in found["fields"]]
    return "\n\n".join([*blocks, "\n".join(notes(found))])


def block(entry: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Draw one field."""
    lines = [HEAD, *(line(point, found) for point in entry["points"])]
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(HEAD))]
    drawn = [
        "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in lines
    ]
    return "\n".join([f"{entry['field']}   {DROPS[entry['drops']]}: {', '.join(entry['scores'])}", *drawn])


def line(point: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    """Draw one value; the run's own is marked."""
    value = point["value"]
    shown = "off" if value is None else str(value).lower() if isinstance(value, bool) else f"{value:,.12g}"
    passed, kept, size, tokens = (point[name] for name in ("passed", "kept", "bytes", "tokens"))
    mark = {"exact": "", "bounds": "", "estimate": "≈ "}[kept["known"]]
    about = "" if point["own"] else "≈ "
    return (
        "→" if point["own"] else "",
        shown,
        between(passed),
        percent(passed["least"], found["documents_in"]),
        mark + between(kept),
        about + between(size, bytes_text),
        "" if tokens is None else about + between(tokens),
    )


def between(span: Mapping[str, int], text: Any = "{:,}".format) -> str:
    """Write a count, or the two that it lies between."""
    least, most = text(span["least"]), text(span["most"])
    return str(least) if least == most else f"{least} to {most}"


def notes(found: Mapping[str, Any]) -> list[str]:
    """Say what is exact and what is not."""
    said = [
        "→ the run's own value. A line moves one threshold; the steps behind it decide anew by the scores they left.",
        "passed the rules: one number is exact. Of two, the second counts rows too that the steps behind the threshold",
        "  never scored, since the run had dropped them: `score_rejected: true` in the recipe has them scored, but for",
        "  what a step that edits text dropped, which stays as it was.",
    ]
    if found["deduplicated"]:
        said += [
            "kept: after deduplication. One number: exact. Two: clusters that lost a member may fall apart.",
            "  ≈: the run's own share of duplicates, where rows come in that were never compared with others.",
        ]
    said.append("bytes, tokens: ≈ from the run's kept bytes and tokens for each byte that passed its rules.")
    said += [f"not swept: {item['step']}: {item['why']}" for item in found["not_swept"]]
    said += [
        f"{name}: {count:,} rows have no scores that give the recorded decision; they keep it at every value"
        for name, count in found["held"].items()
    ]
    return said
