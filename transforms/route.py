"""Rules by language, in one run: each document goes through the steps of its own language.

Routing costs two copies of a batch's columns and a call of each step for each language that a batch holds, about 1 ms a
call: FineWeb-2's rules take 20 MB/s a core where 1,000 documents hold 34 languages, 45 where they hold one.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from .. import PenstockError, RecipeError
from . import fineweb2
from .named import StepField, apply_step, build_step, step_fingerprint
from .step import Outcome, Step, StepModel, with_columns

DEFAULT = "default"
Rows = NDArray[np.int64]  # numbers of rows in the batch that came in
Label = Annotated[str, Field(min_length=1)]


class Multilingual(StepModel):
    """Send each document through the steps of its language.

    `recipes` names lists of steps by the values of `column`, as a recipe's `steps` writes them; filters, steps that
    edit and steps of one's own alike. Steps stand in order: a later one sees what the earlier ones kept (all rows
    where `score_rejected`). Rows come out as they came in, as many and in their order. Reasons are those of the steps
    (`gopher_quality/gopher_short_doc`); score columns are the union of all, null where a row did not meet the step.

    `preset: fineweb2` has the recipes of FineWeb-2's 1,929 configs, under GlotLID's labels (`fra_Latn`) and lid.176's
    (`fr`); `recipes` go before it, and `preset_fields` sets fields of its steps, by kind, for every language (null
    leaves the step out). What has no recipe goes through `recipes.default` where there is one; else it is dropped as
    `multilingual/no_recipe`, or kept untouched by `missing: keep`.

    >>> step = Multilingual(recipes={"en": [{"gopher_quality": {"min_doc_words": 2, "min_stop_words": 1}}], "fr": []})
    >>> batch = pa.record_batch({"text": ["the cat", "cats", "un", "ein"], "language": ["en", "en", "fr", "de"]})
    >>> outcome = step.apply(batch)
    >>> outcome.reasons.to_pylist()
    [None, 'gopher_quality/gopher_short_doc', None, 'multilingual/no_recipe']
    >>> outcome.batch["gopher_quality.words"].to_pylist()
    [2, 1, None, None]
    """

    nested = ("recipes",)
    kind: Literal["multilingual"] = "multilingual"
    column: Label = "language"
    recipes: Mapping[Label, Sequence[StepField]] = {}
    preset: Literal["fineweb2"] | None = None
    preset_fields: Mapping[Label, Mapping[str, Any] | None] = {}  # kind of step → its fields, as `words`
    missing: Literal["drop", "keep"] = "drop"  # documents without a recipe, where none is the default
    score_rejected: bool = False  # let later steps score what earlier ones dropped

    def __hash__(self) -> int:
        return hash((self.column, self.preset, self.missing, tuple(self.recipes)))

    @field_validator("recipes", mode="before")
    @classmethod
    def _lists(cls, recipes: Any) -> Any:
        """Refuse what YAML makes of `no:`, and an only step that is not in a list."""
        if not isinstance(recipes, Mapping):
            return recipes
        for label, steps in recipes.items():
            if not isinstance(label, str):
                raise ValueError(f"languages have names, not {label!r}: put quotes around it")
            if not isinstance(steps, (list, tuple)):
                raise ValueError(f"the recipe of {label} is a list of steps, not {steps!r}; [] keeps its documents")
        return {label: tuple(steps) for label, steps in recipes.items()}

    @model_validator(mode="after")
    def _check(self) -> Multilingual:
        """Refuse what routes nowhere, and fields that the preset's steps do not have."""
        if not self.recipes and self.preset is None:
            raise ValueError("name `recipes` by language, or a `preset`: fineweb2")
        if self.missing == "keep" and DEFAULT in self.recipes:
            raise ValueError("missing is 'keep' and recipes has a default: no document would be missing; leave one out")
        if self.preset_fields and self.preset is None:
            raise ValueError("preset_fields are fields of a preset's steps, and there is no `preset`")
        kinds = fineweb2.fields("fr")
        if odd := [kind for kind in self.preset_fields if kind not in kinds]:
            raise ValueError(f"preset_fields names {odd[0]!r}; the steps of {self.preset} are {', '.join(kinds)}")
        if self.preset is not None:
            self.steps_of("fr" if "fr" not in self.recipes else "fra_Latn")
        return self

    def steps_of(self, label: str | None) -> tuple[Step, ...] | None:
        """Give the steps that a value of the column goes through; None where it has no recipe."""
        key = self._key(label)
        if key is None or key in self.recipes:
            return None if key is None else tuple(self.recipes[key])
        return preset_steps(key, json.dumps(self.model_dump(mode="json", include={"preset_fields"})["preset_fields"]))

    def held_steps(self) -> Iterator[Step]:
        """Give every step of every recipe; of the preset's, one language's, for they differ in numbers and words."""
        for steps in self.recipes.values():
            yield from steps
        if self.preset is not None:
            yield from self.steps_of(self._sample()) or ()

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Route the rows; give them back in their order with the columns that any recipe adds."""
        batch = _without_views(batch)
        schema = _columns(self, batch.schema)
        pieces = [piece for key, rows, own in self._groups(batch) for piece in self._route(key, rows, own)]
        return _merged(pieces, schema, batch.schema.names)

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, every step's own fingerprint, the preset's table."""
        own = self.model_dump(mode="json", exclude={"recipes"})
        recipes = {label: [step_fingerprint(step) for step in steps] for label, steps in self.recipes.items()}
        if self.preset is not None:
            sample = [step_fingerprint(step) for step in self.steps_of(self._sample()) or ()]
            own |= {"table": fineweb2.digest(), "sample": sample}
        return {**own, "recipes": recipes, "version": self.version}

    def _sample(self) -> str:
        """Name a language whose recipe is the preset's."""
        return next(label for label in fineweb2.languages() if label not in self.recipes)

    def _key(self, label: str | None) -> str | None:
        """Find the recipe of a label: its own, the preset's, the default."""
        if label is not None and label != DEFAULT:
            if label in self.recipes:
                return label
            if self.preset is not None and label in fineweb2.languages():
                return label
        return DEFAULT if DEFAULT in self.recipes else None

    def _groups(self, batch: pa.RecordBatch) -> Iterator[tuple[str | None, Rows, pa.RecordBatch]]:
        """Part the rows by recipe, in the order in which languages come up; rows stay in theirs."""
        if self.column not in batch.schema.names:
            raise RecipeError(
                f"multilingual: there is no column {self.column!r}: put language_id before it, or name another `column`"
            )
        coded = batch.column(self.column).cast(pa.string()).dictionary_encode()
        keys = [*(self._key(label) for label in coded.dictionary.to_pylist()), self._key(None)]
        places = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        of_code = np.array([places[key] for key in keys], np.int64)
        numbers = of_code[coded.indices.fill_null(len(keys) - 1).to_numpy(zero_copy_only=False)]
        order = np.argsort(numbers, kind="stable")
        ends = np.cumsum(np.bincount(numbers, minlength=len(places)))
        sorted_rows = batch if np.all(numbers[1:] >= numbers[:-1]) else batch.take(pa.array(order))
        for key, start, end in zip(places, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            if start < end:
                yield key, order[start:end], sorted_rows.slice(start, end - start)

    def _route(self, key: str | None, rows: Rows, batch: pa.RecordBatch) -> Iterator[_Piece]:
        """Send one language's rows through its steps; give what falls out on the way, and what comes through."""
        steps, reasons = self.steps_of(key), None
        if steps is None and self.missing == "drop":
            reasons = pa.repeat(f"{self.kind}/no_recipe", len(rows))
        for step in steps or ():
            outcome = _applied(key, step, batch)
            batch, errors = outcome.batch, outcome.errors
            reasons = outcome.reasons if reasons is None else pc.coalesce(reasons, outcome.reasons)
            gone = np.zeros(len(rows), bool)
            if errors is not None and errors.null_count < len(rows):
                gone |= pc.is_valid(errors).to_numpy(zero_copy_only=False)
            if not self.score_rejected and reasons.null_count < len(rows):
                gone |= pc.is_valid(reasons).to_numpy(zero_copy_only=False)
            if gone.any():
                mask, stays = pa.array(gone), pa.array(~gone)
                fallen = [None if part is None else part.filter(mask) for part in (errors, outcome.raw)]
                yield _Piece(key, rows[gone], batch.filter(mask), reasons.filter(mask), *fallen)
                rows, batch, reasons = rows[~gone], batch.filter(stays), reasons.filter(stays)
            if not len(rows):
                return
        yield _Piece(key, rows, batch, reasons)


@dataclass(frozen=True)
class _Piece:
    """Rows of one language that left its steps at one place."""

    key: str | None
    rows: Rows
    batch: pa.RecordBatch
    reasons: pa.StringArray | None
    errors: pa.StringArray | None = None
    raw: pa.BinaryArray | None = None


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Give columns of views as plain ones: Arrow cannot choose rows of views."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    columns = {item.name: batch.column(item.name).cast(plain[item.type]) for item in batch.schema if item.type in plain}
    return with_columns(batch, columns) if columns else batch


def _applied(key: str | None, step: Step, batch: pa.RecordBatch) -> Outcome:
    """Apply a step under its contract; a fault names the language."""
    try:
        return apply_step(step, batch)
    except PenstockError as error:
        raise type(error)(f"multilingual, {key}: {error}") from error


def _refuse_lost(key: str | None, before: Iterable[str], after: Container[str]) -> None:
    for name in before:
        if name not in after:
            raise RecipeError(
                f"multilingual, {key}: a step drops the column {name!r}; a step adds columns and edits them"
            )


def _merged(pieces: Sequence[_Piece], schema: pa.Schema, before: Sequence[str]) -> Outcome:
    """Put the pieces together again, in the order of the rows they were cut from."""
    order = pa.array(np.argsort(np.concatenate([piece.rows for piece in pieces]))) if len(pieces) > 1 else None
    held = [dict(zip(piece.batch.schema.names, piece.batch.columns, strict=True)) for piece in pieces]
    for piece, columns in zip(pieces, held, strict=True):
        _refuse_lost(piece.key, before, columns)

    def whole(parts: Sequence[pa.Array | None], kind: pa.DataType) -> pa.Array:
        arrays = [
            pa.nulls(len(piece.rows), kind) if part is None else part if part.type == kind else part.cast(kind)
            for piece, part in zip(pieces, parts, strict=True)
        ]
        joined = pa.concat_arrays(arrays) if arrays else pa.array([], kind)
        return joined if order is None else joined.take(order)

    errors = [piece.errors for piece in pieces]
    raw = [piece.raw for piece in pieces]
    return Outcome(
        pa.RecordBatch.from_arrays(
            [whole([columns.get(item.name) for columns in held], item.type) for item in schema], names=schema.names
        ),
        whole([piece.reasons for piece in pieces], pa.string()),
        whole(errors, pa.string()) if any(part is not None for part in errors) else None,
        whole(raw, pa.binary()) if any(part is not None for part in raw) else None,
    )


@lru_cache(4096)
def preset_steps(label: str, own: str) -> tuple[Step, ...]:
    """Make a language's steps from the table, with the user's own `preset_fields` (JSON) over it."""
    mine = json.loads(own)
    kinds = fineweb2.fields(label).items()
    return tuple(
        build_step(kind, {**fields, **mine.get(kind, {})}) for kind, fields in kinds if mine.get(kind, {}) is not None
    )


@lru_cache(64)
def _columns(step: Multilingual, schema: pa.Schema) -> pa.Schema:
    """Find the columns of what comes out, by sending an empty batch through every different list of steps."""
    empty = pa.RecordBatch.from_arrays([pa.array([], item.type) for item in schema], names=schema.names)
    found: dict[str, tuple[pa.DataType, str]] = {}
    recipes = dict(step.recipes)
    if step.preset is not None:
        recipes[step._sample()] = step.steps_of(step._sample()) or ()
    for key, steps in recipes.items():
        batch = empty
        for one in steps:
            batch = _applied(key, one, batch).batch
        _refuse_lost(key, schema.names, batch.schema.names)
        for item in batch.schema:
            kind, other = found.setdefault(item.name, (item.type, key))
            if kind != item.type:
                found[item.name] = (_common(item.name, kind, other, item.type, key), key)
    return pa.schema([pa.field(name, kind) for name, (kind, _) in found.items()])


def _common(name: str, one: pa.DataType, here: str, other: pa.DataType, there: str) -> pa.DataType:
    """Give the type that holds both texts; other types that differ are refused."""
    if {one, other} == {pa.string(), pa.large_string()}:
        return pa.large_string()
    raise RecipeError(
        f"multilingual: the steps of {here} give the column {name!r} as {one}, those of {there} as {other}: one column "
        "has one type"
    )
