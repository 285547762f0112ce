"""Replay a run's decisions from its ledger: each step's own `decide` over the scores that it left, no text read.

What a ledger knows: a row's scores by every step that it reached, and the rule that dropped it. A row that one step
dropped was not seen by the steps behind it, unless the recipe says `score_rejected`. So a row's fate under another
threshold is known, or unknown from some step on; it is never guessed. About 1 million rows and thresholds a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel

from ..transforms.named import build_step, built_in, step_fingerprint, step_kind
from ..transforms.step import Filter, Scores
from .thresholds import columns_of

KEPT, UNKNOWN, QUARANTINED = -1, -2, 0  # decisions; from 1 on they are numbers of rules
COLUMNS = ("id", "bytes", "fate", "step", "rule")  # of the ledger, beside scores
Codes = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ReplayStep:
    """One step of a run's recipe, and whether its decisions can be made again."""

    number: int
    kind: str
    step: Any  # None where it cannot be replayed
    columns: Mapping[str, str]  # score → column of the ledger
    edits: bool  # it may change the text of what it keeps, so later scores of what it dropped are of another text
    why: str | None = None  # it cannot be replayed

    @property
    def name(self) -> str:
        """Name the step by its place in the recipe."""
        return f"steps.{self.number}.{self.kind}"


def replay_steps(manifest: Mapping[str, Any], names: Iterable[str]) -> list[ReplayStep]:
    """Make the steps of a run anew; `names` are the ledger's columns."""
    kinds, names = list(manifest.get("steps") or ()), list(names)
    values = (manifest.get("recipe") or {}).get("steps") or ()
    made = []
    for number, (kind, value) in enumerate(zip(kinds, values, strict=True)):
        columns = columns_of(kind, names)
        try:
            step = remade(value)
            if not callable(getattr(step, "decide", None)) or not isinstance(step, BaseModel):
                raise ValueError("it does not decide from scores")
            if kind in kinds[number + 1 :]:
                raise ValueError("a later step of the same kind has written over its scores")
            if not columns:
                raise ValueError("the ledger has none of its scores")
        except ValueError as error:
            made.append(ReplayStep(number, kind, None, {}, True, " ".join(str(error).split())))
            continue
        made.append(ReplayStep(number, kind, step, columns, edits(step)))
    return made


def remade(value: Any) -> Any:
    """Make a step from what the manifest says of it. ValueError: it cannot be made, or is not what it was."""
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError(f"the manifest names it as {value!r}")
    name, said = next(iter(value.items()))
    fields = dict(said or {})
    if ":" not in name:
        return build_step(name, fields)
    source = fields.pop("source", None)
    for own in ("kind", "version", "name"):
        fields.pop(own, None)
    step = build_step(name, fields)
    if source is not None and step_fingerprint(step).get("source") != source:
        raise ValueError("its source has changed since the run")
    return step


def edits(step: Any) -> bool:
    """Say whether a step may change texts: one that puts its scores beside them and does nothing else does not."""
    plain = isinstance(step, Filter) and type(step).apply is Filter.apply
    return not plain and not (built_in(step) and step_kind(step) == "language_id")


@dataclass
class Group:
    """Rows of the ledger that reached the steps, and what each step decided on each."""

    rows: pa.Table
    sizes: NDArray[np.int64]
    decisions: Codes  # (steps, n)
    free: list[Mask]  # by step: rows whose decision follows from their scores


@dataclass
class Replay:
    """Decides anew, row group by row group; rules have one number each for the whole ledger."""

    steps: Sequence[ReplayStep]
    score_rejected: bool
    rules: dict[str, int] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)  # by step: rows whose recorded decision their scores do not give

    def __post_init__(self) -> None:
        self.held = [0] * len(self.steps)

    def columns(self) -> list[str]:
        """Name the ledger's columns that are read."""
        return [*COLUMNS, *dict.fromkeys(column for step in self.steps for column in step.columns.values())]

    def group(self, rows: pa.Table) -> Group:
        """Take a row group: leave out what never reached a step, and decide on the rest as the run did."""
        rows = rows.filter(pc.greater_equal(rows.column("step"), 0)).combine_chunks()
        n, last = len(rows), rows.column("step").to_numpy()
        kept, gone = (np.asarray(pc.equal(rows.column("fate"), fate)) for fate in ("kept", "quarantined"))
        recorded = self._codes(rows.column("rule").combine_chunks()) if n else np.zeros(0, np.int32)
        decisions, free = np.full((len(self.steps), n), UNKNOWN, np.int32), []
        for number, step in enumerate(self.steps):
            own = decisions[number]
            own[kept | (last > number)] = KEPT
            here = ~kept & (last == number)
            own[here] = np.where(gone[here], QUARANTINED, recorded[here])
            seen = (own != UNKNOWN) & ~(here & gone)
            if self.score_rejected:
                seen |= ~kept & ~gone
            free.append(self._replayed(step, rows, own, seen, gone))
        for step, own in zip(self.steps, decisions.copy(), strict=True):
            if step.edits:
                decisions[step.number + 1 :, own >= QUARANTINED] = UNKNOWN
        return Group(rows, rows.column("bytes").to_numpy().astype(np.int64), decisions, free)

    def _replayed(self, step: ReplayStep, rows: pa.Table, own: Codes, seen: Mask, gone: Mask) -> Mask:
        """Decide where only scores say what was decided; give the rows whose decision follows from scores."""
        free = np.zeros(len(own), bool)
        if step.step is None or not seen.any():
            return free
        places = np.flatnonzero(seen)
        made = self.decide(step.step, scores_of(step, rows, places))
        known = own[places] != UNKNOWN
        scored = _scored(step, rows)[places]
        fits = np.where(known, made == own[places], scored)
        self.held[step.number] += int((known & ~fits & ~gone[places]).sum())
        own[places] = np.where(~known & fits, made, own[places])
        free[places] = fits
        return free

    def decide(self, like: Any, scores: Scores) -> Codes:
        """Have a step, the run's or one that differs in a threshold, decide by scores."""
        return self._codes(like.decide(scores))

    def _codes(self, reasons: pa.Array) -> Codes:
        """Number reasons; null is KEPT."""
        if isinstance(reasons, pa.ChunkedArray):
            reasons = reasons.combine_chunks()
        named = reasons.cast(pa.string()).dictionary_encode()
        numbers = [self.rules.setdefault(rule, len(self.rules) + 1) for rule in named.dictionary.to_pylist()]
        table = np.array([*numbers, KEPT], np.int32)
        return np.asarray(table[named.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)], np.int32)


def scores_of(step: ReplayStep, rows: pa.Table, places: NDArray[np.int64]) -> Scores:
    """Give the scores of some rows as the step's `measure` gave them."""
    taken = rows.select(list(step.columns.values())).take(pa.array(places))
    return {score: _values(taken.column(column)) for score, column in step.columns.items()}


def _scored(step: ReplayStep, rows: pa.Table) -> Mask:
    """Say which rows have every number that the step scores by."""
    scored = np.ones(len(rows), bool)
    for column in map(rows.column, step.columns.values()):
        if not pa.types.is_string(column.type):
            scored &= np.asarray(column.is_valid())
    return scored


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    """Give a score column as `measure` did: numbers, NaN where there is none; else objects."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.to_numpy())
    return np.array([*column.to_pylist(), None], object)[:-1]
