"""A run: the recipe's stages in order, what is committed taken as it stands, checked, and summed up in one manifest.

    plan → documents → duplicates → text, tokenizer → tokens → reconciliation → manifest.json, report.html

At most three Beam jobs: ingest, match, publish. Planning, merging and the report happen here, in the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..sharding.dataset import write_generation
from ..sharding.format import Generation, ShardEntry
from ..sharding.store import Store, crash_point
from ..sharding.tools.purge import purged_shards
from .chain import Found, Work, find_duplicates
from .chunks import tasks_of
from .compiling import compile_kernels
from .corpus import TextTask, WriteText, text_stage
from .directory import write_manifest
from .heartbeat import forget
from .ingest import Ingest, check_streams, ingest_stage
from .kept_edits import edits_of
from .launcher import Launcher, input_weight, launched
from .parts import number_parts, write_tables
from .plan import IngestTask, pin, plan_inputs, require_tasks
from .progress import Progress
from .publish import MergeValidation, Publish, deal, pack_values, published, run_vocabulary, tokens_stage
from .recipe import Recipe, digest
from .reconcile import Removed, check, check_part, check_readers, check_shards, check_text
from .removals import join_removals
from .runners import Job, RunnerOptions
from .stage import Receipt, Stage
from .summary import cost, summarize
from .survivors import RowGroup, Survivors
from .token_units import check_units
from .views import StoredPart
from .vocabulary import RunTokenizer, checked, given_tokenizer, make_vocabulary, vocabulary_stage


@dataclass
class Run:
    """One run under way: where it writes, how it runs, and what its stages gave."""

    recipe: Recipe
    launcher: Launcher
    stages: dict[str, str | None] = field(default_factory=dict)
    tables: dict[str, str | None] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)
    text_bytes: int = 0  # of the documents that the rules kept
    bytes_kept: int = 0  # of those that deduplication kept too

    @property
    def store(self) -> Store:
        """Where the run writes."""
        return self.launcher.store

    @property
    def progress(self) -> Progress:
        """What shows how far it is."""
        return self.launcher.progress

    def launch(self, job: Job, tasks: int, weight: int) -> None:
        """Run a job."""
        self.launcher.launch(job, tasks, weight)


def run(
    recipe: Recipe,
    output: str | Path | None = None,
    *,
    runner: str = "local",
    workers: int | None = None,
    quiet: bool = False,
    options: RunnerOptions | None = None,
    store_options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a recipe, or what is missing of it, and give the manifest.

    `output` is a folder or an fsspec URL, `runs/<name>` by default. What a stage has committed is not computed again; a
    changed recipe starts where it differs; a changed input is refused by name. Raises RequestError where the request is
    wrong and RunError where the run failed, a run that does not add up among them.
    """
    place = str(Path("runs") / recipe.name if output is None else output)
    chosen = options or RunnerOptions(runner=runner, workers=workers)
    with launched(recipe.inputs, place, chosen, store_options, Progress(quiet=quiet)) as launcher:
        return stages(Run(recipe, launcher))


def stages(state: Run) -> dict[str, Any]:
    """Go through the stages, each from what the one before it committed."""
    recipe, store = state.recipe, state.store
    tasks = plan_inputs(recipe)
    require_tasks(tasks)
    if (given := given_tokenizer(recipe)) is not None:
        run_vocabulary(recipe, given)
    check_units(recipe.dedup)
    if not {task.key for task in tasks} <= ingest_stage(recipe, store).committed():
        state.launcher.fit(
            len(tasks), input_weight(tasks)
        )  # what takes seconds to start does so while this process goes on
    with state.progress.phase("compiling"):
        prepared = compile_kernels([*recipe.steps, *recipe.final], recipe.dedup)
    state.launcher.prepare(prepared)
    check_streams(recipe)
    receipts = documents(state, tasks)
    groups, parts = tabulate(state, receipts)
    found = duplicates(state, parts)
    survivors = Survivors(state.store.child(f"documents/{state.stages['documents']}"), found.view, recipe.final)
    upstream, removed = [digest([part.key for part in parts]), *found.upstream], found.removed
    text(state, survivors, groups, upstream, removed)
    tokens = publish(state, survivors, groups, upstream, removed)
    return conclude(state, receipts, removed.documents, tokens)


def documents(state: Run, tasks: Sequence[IngestTask]) -> list[Receipt]:
    """Ingest: every task of the plan; give the receipts in the plan's order, each checked."""
    stage = ingest_stage(state.recipe, state.store)
    state.stages["documents"] = stage.hash
    _, chunks = pin(stage.store, tasks)
    keys = [task.key for task in tasks]
    with state.progress.stage(stage, "documents", keys):
        if not set(keys) <= stage.committed():
            job = Job("ingest", chunks, Ingest(stage, state.recipe), expand=tasks_of)
            state.launch(job, len(tasks), input_weight(tasks))
    receipts = stage.receipts(keys)
    for receipt in receipts:
        check_part(receipt)
    crash_point("stage-done")
    state.costs["documents"] = cost(receipts)
    return receipts


def tabulate(state: Run, receipts: Sequence[Receipt]) -> tuple[list[RowGroup], list[StoredPart]]:
    """Reduce the receipts to two tables, and give their rows as values."""
    folder = f"documents/{state.stages['documents']}"
    store = state.store.child(folder)
    parts, groups = number_parts(store, receipts)
    names = write_tables(store, receipts, parts, groups)
    state.tables.update({name: f"{folder}/{at}" for name, at in names.items()})
    state.text_bytes = sum(group.bytes for group in groups)
    return groups, parts


def duplicates(state: Run, parts: Sequence[StoredPart]) -> Found:
    """Find what is the same, where the recipe asks for it."""
    state.stages["duplicates"] = state.tables["clusters"] = None
    if state.recipe.dedup is None:
        return Found()

    def launch(job: Job) -> None:
        state.launch(job, len(job.tasks), state.text_bytes)

    work = Work(state.store, launch, state.launcher.local, state.progress)
    found = find_duplicates(work, state.recipe.dedup, parts)
    state.stages.update(found.stages)
    state.costs.update(found.costs)
    state.tables["clusters"] = join_removals(state.store, found.tables)
    return found


def text(
    state: Run, survivors: Survivors, groups: Sequence[RowGroup], upstream: Sequence[str], removed: Removed
) -> None:
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
            state.launch(Job("text", tasks, WriteText(stage, state.recipe, survivors)), len(tasks), state.text_bytes)
    receipts = stage.receipts([task.key for task in tasks])
    check_readers(groups, receipts, removed, "text", ("kept",))
    check_text(receipts)
    stage.require([*(receipt["text"] for receipt in receipts if receipt["text"] is not None), *edits_of(receipts)])
    state.bytes_kept = kept_bytes(receipts)
    state.stages["text"] = stage.hash
    state.costs["text"] = cost(receipts)


def kept_bytes(receipts: Sequence[Receipt]) -> int:
    """Sum the bytes of text that a stage met among the survivors."""
    return sum(account["bytes"] for receipt in receipts for account in receipt["row_groups"])


def publish(
    state: Run, survivors: Survivors, groups: Sequence[RowGroup], upstream: Sequence[str], removed: Removed
) -> Generation | None:
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
    tokenizer = checked(RunTokenizer.of(vocabularies, made, recipe.tokenizer), survivors, groups)
    vocabulary = run_vocabulary(recipe, tokenizer.load())
    stage = tokens_stage(recipe, state.store, upstream, vocabulary)
    tasks = deal(groups, recipe.seed, recipe.tokens.shard_bytes)
    keys = [task.key for task in tasks]
    with state.progress.stage(stage, "tokens", keys):
        if (receipts := published(stage, tasks, recipe.tokens.validation)) is None:
            work = Publish(stage, recipe, survivors, tokenizer, vocabulary)
            job = Job("publish", tasks, work, MergeValidation(stage, recipe, vocabulary))
            state.launch(job, len(tasks), state.text_bytes)
            receipts = stage.receipts(keys)
    stage.require(edits_of(receipts))
    validations = stage.receipts(sorted(key for key in stage.committed() if key.startswith("validation-")))
    check_readers(groups, receipts, removed, "tokens", ("train", "validation"))
    check_shards(receipts, validations)
    state.bytes_kept = kept_bytes(receipts)
    state.costs["tokens"] = cost([*receipts, *validations])
    state.stages["tokens"] = stage.hash
    return generation(stage, recipe, vocabulary, [*receipts, *validations])


def generation(stage: Stage, recipe: Recipe, vocabulary: Any, receipts: Sequence[Receipt]) -> Generation:
    """Commit the list of shards: what readers pin."""
    shards = [ShardEntry.from_json(receipt["shard"]) for receipt in receipts if receipt["shard"] is not None]
    purged = purged_shards(stage.store)  # taken down since, and not to come back
    stage.require(shard.path(suffix) for shard in shards if shard.name not in purged for suffix in shard.members)
    made = Generation.of(number=0, vocabulary=vocabulary, packs=pack_values(recipe), shards=shards)
    write_generation(stage.store, made)
    crash_point("stage-done")
    return made


def conclude(state: Run, receipts: Sequence[Receipt], dropped: int, tokens: Generation | None) -> dict[str, Any]:
    """Sum up, check the whole, write `manifest.json` and `report.html`."""
    from .report import write_report

    manifest = {
        **summarize(state.recipe, receipts, dropped, tokens),
        "bytes_kept": state.bytes_kept,
        "stages": state.stages,
        "tables": state.tables,
        "cost": state.costs,
    }
    accounted = sum(manifest[name] for name in ("kept", "rejected", "duplicates", "quarantined"))
    check("documents in ≠ kept + rejected + duplicates + quarantined", manifest["documents_in"], accounted)
    if tokens is not None:
        check("documents kept ≠ documents in shards", manifest["kept"], tokens.shards.total("documents"))
    crash_point("manifest-about-to-be-put")
    write_manifest(state.store, manifest)
    forget(state.store)
    with state.progress.phase("report"):
        write_report(state.store, manifest)
    return manifest
