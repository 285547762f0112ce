"""Deduplication as a job of its own: the input is read where it lies, what stays is written in its own format.

    plan → urls → duplicates → lines → substrings → output → reconciliation → manifest.json, report.html

Nothing is copied in between: what one kind finds is a list of rows, or of stretches of text, and the last stage reads
the input once more without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from .. import RecipeError, RequestError
from ..sharding.store import Store
from ..transforms.files import reads_from
from ..transforms.named import StepField
from ..transforms.readers import detect_format, list_files
from .annotations import put_marks
from .chain import Found, Work, find_duplicates
from .compiling import compile_kernels
from .dedup_index import add_batch, pin_index, refuse_kinds
from .dedup_manifest import dedup_manifest
from .dedup_output import (
    OutputChoice,
    WriteOutput,
    check_inputs,
    check_output,
    objects_of,
    output_stage,
    output_tasks,
)
from .dedup_plan import plan_text
from .directory import write_manifest
from .duplicates import Dedup, Frozen
from .heartbeat import forget
from .index_batches import WRITTEN, Index
from .judge import Judge
from .keep import keep_columns
from .launcher import Launcher, input_weight, launched
from .plan import IngestTask, pin, plan_inputs, require_tasks
from .progress import Progress
from .recipe import Input, causes, digest, fault, replace_inputs
from .removals import join_removals
from .runners import Job, RunnerOptions
from .stage import Stage
from .summary import cost
from .token_units import check_units
from .views import InputPart

MiB = 1 << 20
LIGHT = 8  # a byte of text takes an eighth of what the rules and the extraction of a run take


class DedupJob(Frozen):
    """Everything that decides the output of a deduplication."""

    name: str = "dedup"
    inputs: dict[str, Input] = Field(min_length=1)
    task_bytes: int = Field(default=64 * MiB, ge=256)  # of input a task
    steps: tuple[StepField, ...] = ()  # that give pages their text
    quarantine: tuple[str, ...] = ()  # records to set aside unread, `source/path#place`
    dedup: Dedup = Dedup(keep=("longest",))
    output: OutputChoice = OutputChoice()

    @model_validator(mode="after")
    def _inputs_known(self) -> DedupJob:
        if wrong := self.dedup.unknown_input(self.inputs):
            raise ValueError(wrong)
        return self

    @classmethod
    def from_value(cls, value: Any, where: str = "the request") -> DedupJob:
        """Check a mapping; every fault is named by the path of its field, its value and what is allowed."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise RecipeError(f"{where}: " + "; ".join(map(fault, causes(error.errors())))) from error

    def parts(self, tasks: Sequence[IngestTask]) -> list[InputPart]:
        """Give the parts of a plan; of a record's other fields, only what the policies ask for is read."""
        keep = [*self.dedup.keep, *(self.dedup.url.keep if self.dedup.url else ())]
        names = tuple(name for name in keep_columns(keep) if name != "metadata")
        fields = {source: item.fields.model_copy(update={"metadata": names}) for source, item in self.inputs.items()}
        return [InputPart(task, fields[task.pieces[0].source], self.steps) for task in tasks]


def dedup_job(
    inputs: Sequence[str],
    *,
    fields: Mapping[str, Any] | None = None,
    dedup: Mapping[str, Any] | None = None,
    output: Mapping[str, Any] | None = None,
) -> DedupJob:
    """Write the request of a deduplication: globs, which may have names, and what is not as it is by default.

    Pages get their text by `extract_html`.
    """
    named = replace_inputs({"input": {"fields": dict(fields or {})}}, inputs)
    kinds = {detect_format(entry.path) for item in named.values() for entry in list_files(item["path"])}
    value: dict[str, Any] = {"inputs": named, "steps": ["extract_html"] if "warc" in kinds else []}
    if dedup is not None:
        value["dedup"] = {"keep": ["longest"], **dedup}
    if output is not None:
        value["output"] = dict(output)
    return DedupJob.from_value(value, "penstock dedup")


def deduplicate(
    job: DedupJob,
    output: str | Path,
    *,
    runner: str = "local",
    workers: int | None = None,
    quiet: bool = False,
    options: RunnerOptions | None = None,
    store_options: dict[str, Any] | None = None,
    index: Store | str | Path | None = None,
    batch: str | None = None,
) -> dict[str, Any]:
    """Deduplicate, or do what is missing of it, and give the manifest.

    `output` is a folder or an fsspec URL. What a stage has committed is not computed again; a changed input is refused
    by name. What matches the documents of an `index` goes, and this run's documents are added to it as a `batch`, named
    after its content by default. Raises RequestError where the request is wrong and RunError where the run failed.
    """
    chosen = options or RunnerOptions(runner=runner, workers=workers)
    require_apart(job, index, batch)
    check_units(job.dedup)
    with launched(job.inputs, str(output), chosen, store_options, Progress(quiet=quiet)) as launcher:
        tasks = plan_inputs(job)
        require_tasks(tasks)
        cuts = job.dedup.lines is not None or job.dedup.substrings is not None
        check_inputs(tasks, job.output, cuts=cuts)
        if not quiet:
            launcher.progress.say(plan_text(job.dedup, job.parts(tasks), chosen.processes()))
        return _stages(job, launcher, tasks, index, batch)


def require_apart(job: DedupJob, index: Store | str | Path | None, batch: str | None) -> None:
    """Refuse an index that cannot be used, that a later run would read as its input, and a batch without one."""
    if index is None:
        if batch is not None:
            raise RequestError(f"the batch {batch!r} is part of an index: name its folder, --index")
        return
    refuse_kinds(job.dedup)
    url = Index.of(index).store.url
    for name, item in job.inputs.items():
        if reads_from(item.path, url, WRITTEN):
            raise RequestError(
                f"the index {url} and the input {name!r} ({item.path}) lie in one another: the next run would read "
                "what this one added; put the index elsewhere"
            )


def _stages(
    job: DedupJob,
    launcher: Launcher,
    tasks: Sequence[IngestTask],
    index: Store | str | Path | None,
    batch: str | None,
) -> dict[str, Any]:
    store, weight = launcher.store, input_weight(tasks) // LIGHT
    planned, _ = pin(store.child("plan"), tasks)
    with launcher.progress.phase("compiling"):
        launcher.prepare(compile_kernels(job.steps, job.dedup))

    def launch(beam_job: Job) -> None:
        launcher.launch(beam_job, len(beam_job.tasks), weight)

    parts = job.parts(tasks)
    work = Work(store, launch, launcher.local, launcher.progress, similarity=job.output.annotate)
    pinned = pin_index(store, index, job.dedup, parts, batch) if index is not None else None
    found = find_duplicates(work, job.dedup, parts, pinned)
    stage, receipts, costs = _write(job, launcher, tasks, found, weight)
    totals = check_output(receipts, found.removed, annotate=job.output.annotate)
    removals = join_removals(store, found.tables)
    manifest = dedup_manifest(job, totals, receipts, found, stage, removals) | {
        "cost": {**found.costs, "output": costs}
    }
    if pinned is not None:
        manifest["index"] = pinned.to_json()
    manifest["tables"]["plan"] = f"plan/{planned}"
    write_manifest(store, manifest)
    if pinned is not None:
        with launcher.progress.phase("index"):
            add_batch(pinned, store, found.stages, parts, found.view, launch)
    forget(store)
    with launcher.progress.phase("report"):
        from .report import write_report

        write_report(store, manifest)
    return manifest


def _write(
    job: DedupJob, launcher: Launcher, tasks: Sequence[IngestTask], found: Found, weight: int
) -> tuple[Stage, list[Any], Any]:
    """Write what stays."""
    marks = put_marks(launcher.store, found.tables) if job.output.annotate else None
    fields = {source: item.fields for source, item in job.inputs.items()}
    upstream = [digest([task.key for task in tasks]), *found.upstream]
    stage = output_stage(launcher.store, job.output, fields, job.steps, upstream)
    assert found.first is not None
    judge = Judge(found.first, found.view, marks)
    work = WriteOutput(stage, job.output, fields, tuple(job.steps), judge)
    dealt = output_tasks(tasks)
    keys = [task.key for task in dealt]
    with launcher.progress.stage(stage, "output", keys):
        if not set(keys) <= stage.committed():
            launcher.launch(Job("output", dealt, work), len(dealt), weight)
    receipts = stage.receipts(keys)
    stage.require(objects_of(receipts))
    return stage, receipts, cost(receipts)
