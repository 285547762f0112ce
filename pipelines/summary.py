"""What a run came to: the counts that `manifest.json` gives, summed from receipts."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from .. import __version__
from ..sharding.format import Generation
from ..transforms.named import inner_steps, step_kind
from ..transforms.step import Step
from .recipe import Recipe
from .stage import COST, Receipt


def summarize(recipe: Recipe, receipts: Sequence[Receipt], dropped: int, tokens: Generation | None) -> dict[str, Any]:
    """Sum up the ingest's receipts, the duplicates dropped and the tokens written."""
    tallies = [receipt["tally"] for receipt in receipts]
    total = {
        name: sum(tally[name] for tally in tallies) for name in ("documents_in", "kept", "rejected", "quarantined")
    }
    return {
        "penstock": __version__,
        "format": 1,
        "name": recipe.name,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_fingerprint": recipe.fingerprint(),
        "steps": [step_kind(step) for step in recipe.steps],
        **total,
        "kept": total["kept"] - dropped,
        "duplicates": dropped,
        "rejected_by_rule": by_rule(tallies),
        "funnel": funnel(recipe, tallies),
        "languages": languages(tallies),
        **token_counts(tokens),
        "versions": versions(),
        "models": models(recipe.steps),
    }


def token_counts(tokens: Generation | None) -> dict[str, Any]:
    """Count tokens by stream, and name the data set by the digest of its payloads."""
    if tokens is None:
        return {"tokens": 0, "tokens_sha256": None, "streams": {}}
    documents, counts = tokens.shards.by_stream("documents"), tokens.shards.by_stream("tokens")
    return {
        "tokens": sum(counts.values()),
        "tokens_sha256": tokens.tokens_sha256,
        "streams": {name: {"documents": documents[name], "tokens": counts[name]} for name in tokens.streams},
    }


def funnel(recipe: Recipe, tallies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum the parts' funnels: a row per step, fate and rule."""
    kinds = ["read", *(step_kind(step) for step in recipe.steps)]
    summed: dict[str, list[int]] = {}
    for tally in tallies:
        for key, (count, size) in tally["funnel"].items():
            entry = summed.setdefault(key, [0, 0])
            entry[0] += count
            entry[1] += size
    rows = []
    for key, (count, size) in summed.items():
        step, fate, rule = key.split("|", 2)
        rows.append(
            {
                "step": int(step),
                "kind": kinds[int(step) + 1],
                "fate": fate,
                "rule": rule or None,
                "documents": count,
                "bytes": size,
            }
        )
    return sorted(
        rows, key=lambda row: (row["step"], row["fate"] == "kept", row["fate"], -row["documents"], row["rule"] or "")
    )


def by_rule(tallies: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Count rejected documents by rule."""
    counts: dict[str, int] = {}
    for tally in tallies:
        for key, (count, _) in tally["funnel"].items():
            _, fate, rule = key.split("|", 2)
            if fate == "rejected":
                counts[rule] = counts.get(rule, 0) + count
    return dict(sorted(counts.items()))


def languages(tallies: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Sum documents and bytes by language, most documents first."""
    summed: dict[str, list[int]] = {}
    for tally in tallies:
        for name, (count, size) in tally["languages"].items():
            entry = summed.setdefault(name, [0, 0])
            entry[0] += count
            entry[1] += size
    return dict(sorted(summed.items(), key=lambda item: (-item[1][0], item[0])))


def cost(receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Sum what tasks say they spent: CPU seconds by what they were spent on, and the peak memory of a process."""
    costs = [receipt[COST] for receipt in receipts if COST in receipt]
    by: dict[str, float] = {}
    for item in costs:
        for name, seconds in item["by"].items():
            by[name] = round(by.get(name, 0.0) + seconds, 4)
    return {
        "tasks": len(costs),
        "cpu_seconds": round(sum(item["cpu"] for item in costs), 3),
        "by": by,
        "peak_rss_bytes": max((item["peak_rss_bytes"] for item in costs), default=0),
        "input_bytes": sum(int(receipt.get("input_bytes") or 0) for receipt in receipts),
    }


def versions() -> dict[str, str]:
    """Name what computed the run."""
    names = (
        "apache-beam",
        "numpy",
        "pyarrow",
        "numba",
        "fastwarc",
        "resiliparse",
        "sentencepiece",
        "tokenizers",
        "tiktoken",
        "fsspec",
    )
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"penstock": __version__, "python": platform.python_version(), **found}


def models(steps: Sequence[Step]) -> dict[str, str]:
    """Name the digest of every model that a step uses."""
    found = {}
    for step in inner_steps(steps):
        fingerprint = step.fingerprint() if hasattr(step, "fingerprint") else {}
        found.update(
            {f"{step_kind(step)}.{name}": str(value) for name, value in fingerprint.items() if name.endswith("sha256")}
        )
    return found
