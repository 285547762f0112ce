"""What a trace found, as text for a terminal. What comes from documents is made visible first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .funnel import bytes_text, visible
from .thresholds import SIGNS, short

Json = Mapping[str, Any]
URL_CHARACTERS = 200
CLOSE = 0.1  # of the room that a threshold leaves


def step_text(found: Json) -> str:
    """Write a traced step or row: what it is, then each row with its pieces of documents."""
    lines = [heading(found)]
    if found["passed"]:
        lines.append(f"every document passed {', '.join(found['passed'])}")
    for row in found["rows"]:
        where = f"row {row['row']} of shard {row['shard']} ({row['stream']})"
        lines += ["", f"position {row['position']}, epoch {row['epoch']}: {where}" if "position" in row else where]
        for piece in row["pieces"]:
            first, last = piece["row_tokens"]
            known = found["documents"][piece["id"]]
            lines += [f"  {f'{first}–{last - 1}':>13}  {name(known)}", f"{'':17}{document(known, piece)}"]
    return "\n".join(lines)


def heading(found: Json) -> str:
    """Say in a line what was traced."""
    data = f"pack {found['pack']}, generation {found['generation']}"
    if "step" not in found:
        return data
    first, last = found["positions"]
    mine = f"{found['rank']} of {found['world_size']}: {len(found['rows'])} rows"
    rank = "" if found["rank"] is None else f", rank {mine}"
    return f"step {found['step']}: positions {first} to {last - 1}, {data}, seed {found['seed']}{rank}"


def document(known: Json, piece: Json) -> str:
    """Say which document a piece is of, which of its tokens, and how near it came to being dropped."""
    first, last = piece["document_tokens"]
    facts = [visible(known["language"] or ""), f"tokens {first}–{last - 1} of document {known['ordinal']}", call(known)]
    if piece["left_out"]:
        facts.append("left out of training: its places were padding")
    copies = known["copies"]
    if copies["dropped"]:
        some = ", ".join(name(copy) for copy in copies["some"])
        facts.append(f"{copies['dropped']} {'copy' if copies['dropped'] == 1 else 'copies'} dropped: {some}")
    return " · ".join(filter(None, facts))


def call(known: Json) -> str:
    """Say which threshold a kept document came close to, if to any."""
    near = known.get("closest")
    if not near or near["margin"] >= CLOSE:
        return ""
    score, limit = f"{visible(near['score'])} {number(near['value'])}", number(near["threshold"])
    return f"close call: {score}, dropped {near['drops']} {limit}"


def name(known: Json) -> str:
    """Name a document by its URL, or by its place in the input."""
    shown = visible(str(known.get("url") or (where(known) if "path" in known else known["id"])))
    return shown if len(shown) <= URL_CHARACTERS else shown[:URL_CHARACTERS] + " …"


def where(known: Json) -> str:
    """Name a record by its place in the input, as a recipe's `quarantine` does."""
    return f"{known['source']}/{known['path']}#{known['place']}"


def beyond(cut: Json) -> str:
    """Write a score beside the threshold that it passed."""
    score = f"{visible(short(cut['score']))} {number(cut['value'])}"
    return f"{score} {SIGNS[cut['drops']]} {number(cut['threshold'])}"


def number(value: float) -> str:
    """Write a score."""
    return f"{int(value):,}" if value == int(value) else f"{value:.4g}"


def urls_text(found: Json) -> str:
    """Write the fate of each record whose URL matched."""
    lines = []
    for record in found["records"]:
        facts = [where(record), record["language"] or "", bytes_text(record["bytes"])]
        about = visible(" · ".join(filter(None, facts)))
        lines += [name(record), f"  {fate(record)}", f"  {about}", ""]
    left = found["matched"] - len(found["records"])
    lines.append(f"and {left:,} more: narrow the pattern" if left else f"{found['matched']:,} found")
    return "\n".join(lines)


def fate(record: Json) -> str:
    """Say what became of a record."""
    if record["fate"] == "kept":
        return "; ".join(filter(None, [f"kept{place(record)}", call(record)]))
    if record["fate"] == "duplicate":
        kept = record["kept"]
        return f"duplicate, one of {record['cluster_size']} copies; kept is {name(kept)}{place(kept)}"
    at = f"step {record['step']} ({record['kind']})" if record["step"] >= 0 else "reading"
    if record["fate"] == "quarantined":
        return f"quarantined at {at}: {visible(str(record['error']))}"
    scores = ", ".join(map(beyond, record["beyond"]))
    return f"rejected at {at} by {visible(str(record['rule']))}{f': {scores}' if scores else ''}"


def place(known: Json) -> str:
    """Say where a kept document lies in the token files."""
    if "shard" not in known:
        return ""
    gone = ", taken down since" if known.get("taken_down") else ""
    return f": document {known['ordinal']} of shard {known['shard']} ({known['stream']}){gone}"
