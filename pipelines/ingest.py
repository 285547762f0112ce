"""Ingest: one pass over the input. Read, extract, the recipe's steps in order, then documents and ledger of the part.

A record that cannot be read or processed is quarantined with its place, error and bytes; the rest of the file is
still read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import RecipeError
from ..transforms.named import apply_step, step_fingerprint, step_kind
from ..transforms.readers import read
from ..transforms.schema import DOCUMENT
from ..transforms.step import Outcome, Step
from .heartbeat import Heartbeat
from .ledger import LEDGER, PartWriter
from .plan import IngestTask
from .recipe import Recipe
from .stage import Meter, Receipt, Stage, package_versions, run_task

READER = -1  # the reader's number among the steps
SHARD_COLUMNS = ("stream", "shard", "ordinal", "end")  # stand beside a document's own in token files


def ingest_stage(recipe: Recipe, run: Any) -> Stage:
    """Address the `documents` stage.

    The lists of files and of records set aside are left out: a receipt's name covers those of its own task.
    """
    value = {
        "inputs": {name: item.model_dump(mode="json", exclude={"path"}) for name, item in recipe.inputs.items()},
        "steps": [step_fingerprint(step) for step in recipe.steps],
        "streams": recipe.tokens.model_dump(mode="json")["streams"] if recipe.tokens else [],
        "score_rejected": recipe.score_rejected,
        "rejected_text": recipe.rejected_text,
        "task_bytes": recipe.task_bytes,
    }
    return Stage.of(run, "documents", value, package_versions("pyarrow", "fastwarc", "resiliparse"))


def output_schema(steps: Sequence[Step]) -> pa.Schema:
    """Find the columns that a recipe's steps give, by sending an empty batch through them."""
    batch = pa.RecordBatch.from_arrays([pa.array([], item.type) for item in DOCUMENT], schema=DOCUMENT)
    for step in steps:
        before, batch = batch, apply_step(step, batch).batch
        check_columns(step, before.schema, batch.schema)
    return batch.schema


def check_columns(step: Step, before: pa.Schema, after: pa.Schema) -> None:
    """Refuse columns that could not be kept: without a type, of a name that the ledger or the token files use."""
    taken = {*LEDGER.names, *SHARD_COLUMNS} - set(DOCUMENT.names)
    for name in [name for name in before.names if name not in after.names]:
        raise RecipeError(f"step {step_kind(step)} drops the column {name!r}; a step adds columns and edits them")
    for item in after:
        if item.name not in before.names and item.name in taken:
            raise RecipeError(
                f"step {step_kind(step)} adds a column {item.name!r}, which penstock keeps for itself: "
                f"give it another name, such as {step_kind(step)}.{item.name}"
            )
        if pa.types.is_null(item.type) and item.name not in before.names:
            raise RecipeError(
                f"step {step_kind(step)} adds the column {item.name!r} without a type where a batch is "
                "empty: say the type, as in pa.array(values, pa.string())"
            )
        if after.names.count(item.name) > 1:
            raise RecipeError(f"step {step_kind(step)} gives the column {item.name!r} twice")


def check_streams(recipe: Recipe) -> None:
    """Refuse streams by columns that no step gives, or whose values are not names or numbers."""
    schema = output_schema(recipe.steps)
    fit = {item.name: item.type for item in schema if item.name not in ("id", "text", "html", "metadata", "place")}
    numbers = [name for name, kind in fit.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)]
    names = [name for name, kind in fit.items() if not pa.types.is_floating(kind)]
    for stream in recipe.tokens.streams if recipe.tokens else ():
        column, known = (stream, names) if isinstance(stream, str) else (stream.column, numbers)
        if column not in known:
            what = "streams by value" if isinstance(stream, str) else "buckets"
            raise RecipeError(f"tokens.streams: {column!r} is no column for {what}; these are: {', '.join(known)}")


@dataclass(frozen=True)
class Ingest:
    """The ingest of one task, as a value that travels to a worker."""

    stage: Stage
    recipe: Recipe

    def __call__(self, task: IngestTask) -> Iterator[Any]:
        """Run the task unless it is committed; emits nothing: its receipt is its result."""
        run_task(self.stage, task.key, partial(self.compute, task))
        return iter(())

    def compute(self, task: IngestTask, folder: Path, meter: Meter) -> Receipt:
        """Read the task's files, apply the steps, write documents and ledger; give the receipt."""
        streams = self.recipe.tokens.streams if self.recipe.tokens else ()
        writer = PartWriter(folder, output_schema(self.recipe.steps), streams, self.recipe.rejected_text)
        with Heartbeat(self.stage.run, task.key, "documents") as heartbeat:
            for piece in task.pieces:
                for outcome in meter.through("read", read(piece, self.recipe.inputs[piece.source].fields)):
                    for row in heartbeat.rehearse(piece.source, piece.path, outcome.batch):
                        self._try(row)
                    heartbeat.at(piece.source, piece.path, outcome.batch)
                    self.batch(outcome, writer, meter)
                heartbeat.file_done(piece.bytes)
        with meter.on("write"):
            writer.close()
            documents = self.stage.store.put(writer.document_path, "data/documents-", ".parquet")
            ledger = self.stage.store.put(writer.ledger_path, "data/ledger-", ".parquet")
        first = task.pieces[0]
        return {
            "source": first.source,
            "path": first.path,
            "start": first.start,
            "files": len(task.pieces),
            "input_bytes": task.bytes,
            "documents": documents,
            "ledger": ledger,
            "row_groups": writer.row_groups,
            "tally": writer.tally.as_json(),
        }

    def _try(self, row: pa.RecordBatch) -> None:
        """Send one row through the steps for nothing but to see whether the process lives."""
        if self._listed(row)[0].as_py():
            return
        for step in self.recipe.steps:
            outcome = apply_step(step, row)
            if outcome.reasons.null_count == 0 or (outcome.errors is not None and outcome.errors.null_count == 0):
                return
            row = outcome.batch

    def batch(self, outcome: Outcome, writer: PartWriter, meter: Meter) -> None:
        """Send one batch through the steps; what falls out on the way goes to the ledger."""
        writer.met(outcome)
        outcome = self._set_aside(outcome)
        alive = settle(outcome, READER, writer, keep_rejected=False)
        fate = _Fate(len(alive)) if self.recipe.score_rejected else None
        for number, step in enumerate(self.recipe.steps):
            if not len(alive):
                break
            with meter.on(f"{number} {step_kind(step)}"):
                outcome = apply_step(step, alive)
            with meter.on("write"):
                if fate is None:
                    alive = settle(outcome, number, writer, keep_rejected=False)
                else:
                    fate.note(outcome, number)
                    alive = fate.drop(settle(outcome, number, writer, keep_rejected=True), outcome)
        with meter.on("write"):
            if fate is not None:
                alive = fate.write(alive, writer)
            last = len(self.recipe.steps) - 1
            writer.keep(settle(without_text(alive), last, writer, keep_rejected=False), last)

    def _set_aside(self, outcome: Outcome) -> Outcome:
        """Quarantine, unread, the records that the recipe lists."""
        if not self.recipe.quarantine:
            return outcome
        batch = outcome.batch
        errors = outcome.errors if outcome.errors is not None else pa.nulls(len(batch), pa.string())
        errors = pc.if_else(self._listed(batch), "listed in the recipe's quarantine", errors)
        return Outcome(batch, outcome.reasons, errors, outcome.raw)

    def _listed(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Say which rows the recipe lists, by `source/path#place`."""
        columns = (batch.column(name).to_pylist() for name in ("source", "path", "place"))
        names = (f"{source}/{path}#{place}" for source, path, place in zip(*columns, strict=True))
        return pa.array([name in self.recipe.quarantine for name in names], pa.bool_())


def without_text(batch: pa.RecordBatch) -> Outcome:
    """Set aside what no step has given a text: a page that nothing extracted, a null that a user's step left."""
    texts, kept = batch.column("text"), pa.nulls(len(batch), pa.string())
    errors = pc.if_else(texts.is_null(), "no step gave it a text", kept) if texts.null_count else None
    return Outcome(batch, kept, errors)


def settle(outcome: Outcome, number: int, writer: PartWriter, *, keep_rejected: bool) -> pa.RecordBatch:
    """Write the rows that fell out at a step to the ledger; give the rest."""
    batch, gone = outcome.batch, None
    if outcome.errors is not None and outcome.errors.null_count < len(batch):
        gone = pc.is_valid(outcome.errors)
        raw = outcome.raw.filter(gone) if outcome.raw is not None else None
        writer.quarantine(batch.filter(gone), number, outcome.errors.filter(gone), raw)
    if outcome.reasons.null_count < len(batch) and not keep_rejected:
        rejected = pc.is_valid(outcome.reasons)
        if gone is not None:
            rejected = pc.and_not(rejected, gone)
        writer.reject(batch.filter(rejected), number, outcome.reasons.filter(rejected))
        gone = rejected if gone is None else pc.or_(gone, rejected)
    return batch if gone is None else batch.filter(pc.invert(gone))


class _Fate:
    """First step and rule that dropped each row, where later steps go on scoring what earlier ones dropped."""

    def __init__(self, rows: int) -> None:
        self.step = np.full(rows, -2, np.int32)
        self.rule = np.full(rows, None, object)

    def note(self, outcome: Outcome, number: int) -> None:
        """Remember this step's reasons where no earlier step had one."""
        reasons = np.array(outcome.reasons.to_pylist(), object)
        new = (self.step == -2) & np.array([reason is not None for reason in reasons], bool)
        self.step[new], self.rule[new] = number, reasons[new]

    def drop(self, batch: pa.RecordBatch, outcome: Outcome) -> pa.RecordBatch:
        """Forget the rows that went to quarantine."""
        if outcome.errors is not None and outcome.errors.null_count < len(outcome.errors):
            stays = pc.is_null(outcome.errors).to_numpy(zero_copy_only=False)
            self.step, self.rule = self.step[stays], self.rule[stays]
        return batch

    def write(self, batch: pa.RecordBatch, writer: PartWriter) -> pa.RecordBatch:
        """Write the dropped rows to the ledger, with every score; give the rest."""
        for number in np.unique(self.step[self.step >= 0]):
            mask = pa.array(self.step == number)
            writer.reject(batch.filter(mask), int(number), pa.array(self.rule[self.step == number], pa.string()))
        return batch.filter(pa.array(self.step == -2))


def warm(steps: Sequence[Step]) -> None:
    """Compile every kernel that these steps of penstock's use; a process that finds them on disk pays a second.

    Not for a user's own step, which may ask more of a document than these two have.
    """
    text = "One short document, to compile by: the kernels meet words, lines and 2 numbers.\n\nAnd a second paragraph."
    values: dict[str, list[Any]] = {
        "id": [bytes(16)] * 2,
        "source": ["warm"] * 2,
        "path": ["warm"] * 2,
        "place": [0, 1],
        "text": [text, "déjà vu"],
        "html": [None, "<p>Enough to <b>compile</b> by."],
    }
    batch = pa.RecordBatch.from_arrays(
        [pa.array(values.get(item.name, [None, None]), item.type) for item in DOCUMENT], schema=DOCUMENT
    )
    for step in steps:
        batch = apply_step(step, batch).batch
