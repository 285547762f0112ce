"""What a deduplication came to: the counts that its `manifest.json` gives, in the words of a run's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..transforms.named import step_fingerprint, step_kind
from .chain import Found
from .recipe import digest
from .stage import Receipt, Stage
from .summary import models, versions

if TYPE_CHECKING:
    from .dedup import DedupJob


def dedup_manifest(
    job: DedupJob,
    totals: Mapping[str, int],
    receipts: Sequence[Receipt],
    found: Found,
    stage: Stage,
    removals: str | None,
) -> dict[str, Any]:
    """Sum up: records in = kept + duplicates + rejected + quarantined, by what became of them and why."""
    rules: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for receipt in receipts:
        for file in receipt["files"]:
            rules.update(file["rules"])
            sources[file["source"]] += file["records"] - file["rejected"] - file["quarantined"]
    return {
        "penstock": __version__,
        "format": 1,
        "name": job.name,
        "job": "dedup",
        "recipe": job.model_dump(mode="json"),
        "recipe_fingerprint": fingerprint(job),
        "steps": [step_kind(step) for step in job.steps],
        "documents_in": totals["records"],
        **{fate: totals[fate] for fate in ("kept", "rejected", "duplicates", "quarantined")},
        "written": totals["written"],
        "sources": dict(sorted(sources.items())),  # documents of each input, before deduplication
        "rejected_by_rule": {
            rule.partition("|")[2]: rules[rule] for rule in sorted(rules) if rule.startswith("rejected|")
        },
        "funnel": funnel_rows(rules, totals),
        "languages": {},
        "tokens": 0,
        "tokens_sha256": None,
        "streams": {},
        "bytes_kept": 0,
        "versions": versions(),
        "models": models(job.steps),
        "stages": {**found.stages, "output": stage.hash, "text": None, "tokenizer": None, "tokens": None},
        "tables": {"parts": None, "row_groups": None, "clusters": removals},
    }


def fingerprint(job: DedupJob) -> str:
    """Hash what decides the output: every field but the places of the inputs."""
    value = job.model_dump(mode="json", exclude={"inputs": True, "steps": True})
    value["inputs"] = {name: item.model_dump(mode="json", exclude={"path"}) for name, item in job.inputs.items()}
    value["steps"] = [step_fingerprint(step) for step in job.steps]
    value["dedup"] = job.dedup.fingerprint()
    return digest(value)


def funnel_rows(rules: Mapping[str, int], totals: Mapping[str, int]) -> list[dict[str, Any]]:
    """Give the funnel as a run's manifest has it: what the reader refused by rule, and what it kept."""
    rows = []
    for name, count in sorted(rules.items()):
        fate, _, rule = name.partition("|")
        rows.append({"step": -1, "kind": "read", "fate": fate, "rule": rule, "documents": count, "bytes": 0})
    passed = totals["kept"] + totals["duplicates"]
    return [*rows, {"step": -1, "kind": "read", "fate": "kept", "rule": None, "documents": passed, "bytes": 0}]
