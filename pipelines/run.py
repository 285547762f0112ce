"""A run: the recipe's stages in order, what is committed taken as it stands, checked, and summed up in one manifest.

    plan → documents → duplicates → text, tokenizer → tokens → reconciliation → manifest.json, report.html

At most three Beam jobs: ingest, match, publish. Planning, merging and the report happen here, in the client.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import __version__
from ..sharding.format import Generation, ShardEntry, write_generation
from ..sharding.store import Store, crash_point
from .corpus import TextTask, WriteText, text_stage
from .ingest import Ingest, ingest_stage, output_schema, warm
from .match import Part, match, match_stage, warm_match
from .plan import IngestTask, pin, plan_inputs, require_tasks
from .progress import Progress
from .publish import MergeValidation, Publish, deal, pack_values, tokens_stage, vocabulary_of
from .recipe import Recipe, digest, step_kind
from .reconcile import check, check_part, check_readers, check_shards
from .runners import Job, RunnerOptions, preflight, run_job
from .stage import COST, Receipt, Stage
from .survivors import RowGroup, Survivors, receipt_items
from .vocabulary import local_copy, make_vocabulary, vocabulary_stage

IN_PROCESS_BYTES = 64 << 20  # starting workers costs more than the work below this
COMPRESSED = (".gz", ".zst", ".parquet")  # weigh about four times their size in text


@dataclass
class Run:
    """One run under way: where it writes, how it runs, and what its stages gave."""

    recipe: Recipe
    store: Store
    options: RunnerOptions
    progress: Progress
    stages: dict[str, str | None] = field(default_factory=dict)
    tables: dict[str, str | None] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)


def run(
    recipe: Recipe, output: str | Path | None = None, *, runner: str = "local", workers: int | None = None, quiet: bool = False,
    options: RunnerOptions | None = None, store_options: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a recipe, or what is missing of it, and give the manifest.

    `output` is a folder or an fsspec URL, `runs/<name>` by default. What a stage has committed is not computed again; a
    changed recipe starts where it differs; a changed input is refused by name. Raises RequestError where the request is
    wrong and RunError where the run failed, a run that does not add up among them.
    """
    chosen = options or RunnerOptions(runner=runner, workers=workers)
    preflight(chosen)
    store = Store(str(output or Path("runs") / recipe.name), **(store_options or {}))
    store.require_exclusive()
    # Workers import custom steps from where this process found them.
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([path for path in sys.path if path] + [os.getcwd()]))
    state = Run(recipe, store, chosen, Progress(quiet=quiet))
    tasks = plan_inputs(recipe)
    require_tasks(tasks)
    state.options = sized(chosen, tasks)
    receipts = documents(state, tasks)
    groups, parts = tabulate(state, receipts)
    clusters = duplicates(state, parts)
    survivors = Survivors(
        store.child(f"documents/{state.stages['documents']}"),
        store.child(f"duplicates/{state.stages['duplicates']}") if clusters else None,
        receipt_items(clusters), recipe.final,
    )  # fmt: skip
    upstream = [digest([part.key for part in parts]), *([str(state.stages["duplicates"])] if clusters else [])]
    dropped = int(clusters["duplicates"]) if clusters else 0
    text(state, survivors, groups, upstream, dropped)
    tokens = publish(state, survivors, groups, upstream, dropped)
    return conclude(state, receipts, dropped, tokens)


def sized(options: RunnerOptions, tasks: Sequence[IngestTask]) -> RunnerOptions:
    """Run small plans in this process."""
    weight = sum(task.bytes * (4 if task.pieces[0].path.endswith(COMPRESSED) else 1) for task in tasks)
    return replace(options, in_process=True) if options.runner == "local" and weight < IN_PROCESS_BYTES else options


def documents(state: Run, tasks: Sequence[IngestTask]) -> list[Receipt]:
    """Ingest: every task of the plan; give the receipts in the plan's order, each checked."""
    stage = ingest_stage(state.recipe, state.store)
    state.stages["documents"] = stage.hash
    with state.progress.phase("compiling"):
        output_schema(state.recipe.steps)
        if not {task.key for task in tasks} <= stage.committed():
            warm(state.recipe.steps)
    _, chunks = pin(stage.store, tasks)
    keys = [task.key for task in tasks]
    with state.progress.stage(stage, "documents", keys):
        if not set(keys) <= stage.committed():
            run_job(Job("ingest", chunks, Ingest(stage, state.recipe), expand=_tasks_of_chunk), state.options)
    receipts = stage.receipts(keys)
    for receipt in receipts:
        check_part(receipt)
    crash_point("stage-done")
    state.costs["documents"] = cost(receipts)
    return receipts


def _tasks_of_chunk(chunk: Any) -> Iterable[IngestTask]:
    return list(chunk.tasks())


def tabulate(state: Run, receipts: Sequence[Receipt]) -> tuple[list[RowGroup], list[Part]]:
    """Reduce the receipts to two tables, a row per part and a row per row group; give both as values."""
    store = state.store.child(f"documents/{state.stages['documents']}")
    ordered = sorted(receipts, key=lambda receipt: (receipt["source"], receipt["path"], receipt["start"]))
    groups: list[RowGroup] = []
    parts: list[Part] = []
    rows = []
    for number, receipt in enumerate(ordered):
        key = digest([receipt["source"], receipt["path"], receipt["start"], receipt["documents"]])
        row = 0
        for at, group in enumerate(receipt["row_groups"]):
            value = RowGroup(number, key, receipt["documents"], at, row, group["stream"], group["documents"], group["bytes"], group["id_sum"])
            groups.append(value)
            row += group["documents"]
        parts.append(Part(number, key, store, receipt["documents"], row))
        size = sum(group["bytes"] for group in receipt["row_groups"])
        rows.append({"part": number, "source": receipt["source"], "path": receipt["path"], "start": receipt["start"],
                     "documents_object": receipt["documents"], "ledger_object": receipt["ledger"], "documents": row, "bytes": size,
                     "id_sum": receipt["tally"]["id_sum_kept"]})  # fmt: skip
    table = [{"part": g.part, "row_group": g.number, "stream": g.stream, "documents": g.documents, "bytes": g.bytes, "id_sum": g.id_sum} for g in groups]
    for name, content in (("parts", rows), ("row_groups", table)):
        body = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(content) if content else pa.table({"part": pa.array([], pa.int32())}), body, compression="zstd")
        state.tables[name] = f"documents/{state.stages['documents']}/" + store.put(body.getvalue(), f"{name}-", ".parquet")
    return groups, parts


def duplicates(state: Run, parts: Sequence[Part]) -> Receipt | None:
    """Match: find what is the same, where the recipe asks for it."""
    state.stages["duplicates"] = state.tables["clusters"] = None
    if state.recipe.dedup is None:
        return None
    stage = match_stage(state.store, state.recipe.dedup, parts)
    keys = [f"sign-{part.number:06d}" for part in parts]
    if stage.receipt("clusters") is None:
        with state.progress.phase("compiling"):
            warm_match(state.recipe.dedup)
    with state.progress.stage(stage, "duplicates", keys):
        receipt = match(stage, state.recipe.dedup, parts, state.options)
    crash_point("stage-done")
    state.costs["duplicates"] = cost([*stage.receipts(keys), receipt])
    state.stages["duplicates"] = stage.hash
    state.tables["clusters"] = f"duplicates/{stage.hash}/{receipt['clusters']}"
    return receipt


def text(state: Run, survivors: Survivors, groups: Sequence[RowGroup], upstream: Sequence[str], dropped: int) -> None:
    """Publish the survivors as text, where the recipe asks for it."""
    state.stages["text"] = None
    if state.recipe.text is None:
        return
    stage = text_stage(state.recipe, state.store, upstream)
    by_part: dict[int, list[RowGroup]] = {}
    for group in groups:
        by_part.setdefault(group.part, []).append(group)
    tasks = [TextTask(part, tuple(held)) for part, held in sorted(by_part.items())]
    with state.progress.stage(stage, "text", [task.key for task in tasks]):
        if not {task.key for task in tasks} <= stage.committed():
            run_job(Job("text", tasks, WriteText(stage, state.recipe, survivors)), state.options)
    receipts = stage.receipts([task.key for task in tasks])
    check_readers(groups, receipts, dropped, "text", ("kept",))
    state.stages["text"] = stage.hash
    state.costs["text"] = cost(receipts)


def publish(
    state: Run, survivors: Survivors, groups: Sequence[RowGroup], upstream: Sequence[str], dropped: int
) -> tuple[Generation, list[Receipt]] | None:
    """Publish the survivors as token shards, where the recipe asks for it."""
    state.stages["tokenizer"] = state.stages["tokens"] = None
    recipe = state.recipe
    if recipe.tokens is None:
        return None
    vocabularies = vocabulary_stage(recipe, state.store, upstream)
    with state.progress.phase("tokenizer"):
        made = make_vocabulary(vocabularies, recipe, survivors, groups)
    state.stages["tokenizer"] = vocabularies.hash
    state.costs["tokenizer"] = cost([made])
    where = (vocabularies.store, str(made["file"]))
    vocabulary = vocabulary_of(recipe, local_copy(*where))
    stage = tokens_stage(recipe, state.store, upstream, vocabulary.fingerprint)
    tasks = deal(groups, recipe.seed, recipe.tokens.shard_bytes)
    keys = [task.key for task in tasks]
    with state.progress.stage(stage, "tokens", keys):
        # Validation shards have no list: they are done when the generation stands.
        if not stage.store.exists("generations/0.json"):
            work = Publish(stage, recipe, survivors, where, vocabulary)
            run_job(Job("publish", tasks, work, MergeValidation(stage, recipe, vocabulary)), state.options)
    receipts = stage.receipts(keys)
    validations = stage.receipts(sorted(key for key in stage.committed() if key.startswith("validation-")))
    check_readers(groups, receipts, dropped, "tokens", ("train", "validation"))
    check_shards(receipts, validations)
    state.costs["tokens"] = cost([*receipts, *validations])
    state.stages["tokens"] = stage.hash
    return generation(stage, recipe, vocabulary, [*receipts, *validations]), receipts


def generation(stage: Stage, recipe: Recipe, vocabulary: Any, receipts: Sequence[Receipt]) -> Generation:
    """Commit the list of shards: what readers pin."""
    shards = [ShardEntry.from_json(receipt["shard"]) for receipt in receipts if receipt["shard"] is not None]
    made = Generation.of(number=0, vocabulary=vocabulary, packs=pack_values(recipe), shards=shards)
    write_generation(stage.store, made)
    crash_point("stage-done")
    return made


def conclude(state: Run, receipts: Sequence[Receipt], dropped: int, tokens: tuple[Generation, list[Receipt]] | None) -> dict[str, Any]:
    """Sum up, check the whole, write `manifest.json` and `report.html`."""
    from .report import write_report

    tallies = [receipt["tally"] for receipt in receipts]
    total = {name: sum(tally[name] for tally in tallies) for name in ("documents_in", "kept", "rejected", "quarantined")}
    manifest = {
        "penstock": __version__, "format": 1, "name": state.recipe.name,
        "recipe": state.recipe.model_dump(mode="json"), "recipe_fingerprint": state.recipe.fingerprint(),
        "steps": [step_kind(step) for step in state.recipe.steps], "stages": state.stages, "tables": state.tables,
        **total, "kept": total["kept"] - dropped, "duplicates": dropped,
        "rejected_by_rule": by_rule(tallies), "funnel": funnel(state.recipe, tallies), "languages": languages(tallies),
        "bytes_kept": sum(group["bytes"] for receipt in receipts for group in receipt["row_groups"]),
        **token_counts(tokens), "versions": versions(), "models": models(state.recipe), "cost": state.costs,
    }  # fmt: skip
    check("documents in ≠ kept + rejected + duplicates + quarantined", manifest["documents_in"],
          manifest["kept"] + manifest["rejected"] + manifest["duplicates"] + manifest["quarantined"])  # fmt: skip
    if tokens is not None:
        check("documents kept ≠ documents in shards", manifest["kept"], sum(shard.documents for shard in tokens[0].shards))
    crash_point("manifest-about-to-be-put")
    state.store.replace("manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    with state.progress.phase("report"):
        write_report(state.store, manifest)
    return manifest


def token_counts(tokens: tuple[Generation, list[Receipt]] | None) -> dict[str, Any]:
    """Count tokens by stream, and name the data set by the digest of its payloads."""
    if tokens is None:
        return {"tokens": 0, "tokens_sha256": None, "streams": {}}
    streams: dict[str, dict[str, int]] = {}
    for shard in tokens[0].shards:
        entry = streams.setdefault(shard.stream, {"documents": 0, "tokens": 0})
        entry["documents"] += shard.documents
        entry["tokens"] += shard.tokens
    return {"tokens": sum(shard.tokens for shard in tokens[0].shards), "tokens_sha256": tokens[0].tokens_sha256, "streams": streams}


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
        rows.append({"step": int(step), "kind": kinds[int(step) + 1], "fate": fate, "rule": rule or None, "documents": count, "bytes": size})
    return sorted(rows, key=lambda row: (row["step"], row["fate"] == "kept", row["fate"], -row["documents"], row["rule"] or ""))


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
        "tasks": len(costs), "cpu_seconds": round(sum(item["cpu"] for item in costs), 3), "by": by,
        "peak_rss_bytes": max((item["peak_rss_bytes"] for item in costs), default=0),
        "input_bytes": sum(int(receipt.get("input_bytes") or 0) for receipt in receipts),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Name what computed the run."""
    from importlib import metadata

    names = ("apache-beam", "numpy", "pyarrow", "numba", "fastwarc", "resiliparse", "sentencepiece", "tokenizers", "tiktoken", "fsspec")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"penstock": __version__, "python": platform.python_version(), **found}


def models(recipe: Recipe) -> dict[str, str]:
    """Name the digest of every model that a step uses."""
    found = {}
    for step in recipe.steps:
        fingerprint = step.fingerprint() if hasattr(step, "fingerprint") else {}
        found.update({f"{step_kind(step)}.{name}": str(value) for name, value in fingerprint.items() if name.endswith("sha256")})
    return found

