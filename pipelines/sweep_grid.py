"""Which thresholds are swept, and over which values: those that the command line names, or quantiles of the scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from .. import RequestError
from ..transforms.schema import keyed
from .replay import ReplayStep
from .thresholds import pairs_of

SAMPLE_ROWS = 16_384
#: Shares of the rows that reach a step which its threshold drops, where the command line names no values.
DROPS = (0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.001)
MOST_VALUES = 1_000
OFF = ("off", "null", "none")


@dataclass(frozen=True)
class Field:
    """One field of one step that decides by scores."""

    step: ReplayStep
    field: str
    drops: str  # 'below' | 'up to' | 'above' | 'where', the last of a switch
    columns: tuple[str, ...]  # of the ledger, which it cuts

    @property
    def name(self) -> str:
        """Name the field by its place in the recipe."""
        return f"{self.step.name}.{self.field}"

    @property
    def own(self) -> Any:
        """Give the run's value; None is off."""
        return getattr(self.step.step, self.field)

    def variant(self, value: Any) -> Any:
        """Make the step with another value. ValidationError: it refuses the value."""
        step = self.step.step
        return type(step).model_validate(
            {**{name: getattr(step, name) for name in type(step).model_fields}, self.field: value}
        )

    def variants(self, values: Iterable[Any]) -> Iterator[tuple[Any, Any, bool]]:
        """Give each value with the step that has it, the run's own among them, from the strictest to the loosest."""
        made: dict[Any, tuple[Any, Any, bool]] = {self.own: (self.own, self.step.step, True)}
        for value in values:
            step = self.variant(value)
            read = getattr(step, self.field)
            made.setdefault(read, (read, step, False))
        rising = self.drops == "above"

        def order(item: tuple[Any, Any, bool]) -> tuple[bool, float]:
            return item[0] is None, 0.0 if item[0] is None else float(item[0]) * (1 if rising else -1)

        yield from sorted(made.values(), key=order)


def named(steps: Sequence[ReplayStep]) -> list[Field]:
    """Find every field that can be swept, in the order of the steps and their scores."""
    found: list[Field] = []
    for step in steps:
        cuts: dict[tuple[str, str], list[str]] = {}
        for column in step.columns.values():
            for field, drops in pairs_of(column):
                value = getattr(step.step, field, ())
                switch = isinstance(value, bool)
                if field in type(step.step).model_fields and switch == (drops == "where") and _number(value):
                    cuts.setdefault((field, drops), []).append(column)
        found += [Field(step, field, drops, tuple(columns)) for (field, drops), columns in cuts.items()]
    return found


def _number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def chosen(
    fields: Sequence[Field], words: Sequence[str], scores: Callable[[int], Iterator[pa.Table]]
) -> list[tuple[Field, list[Any]]]:
    """Read the command line's words; none asks for every field. `scores` reads the scores of a step by its number."""
    if not fields:
        raise RequestError("no step of this run decides by scores that its ledger holds: there is nothing to sweep")
    asked = [(find(fields, word.partition("=")[0]), word.partition("=")[2] or None) for word in words]
    asked = asked or [(field, None) for field in fields]
    samples: dict[int, pa.Table] = {}
    made = []
    for field, text in asked:
        if text is not None:
            made.append((field, given(field, text)))
            continue
        number = field.step.number
        if number not in samples and field.drops != "where":
            samples[number] = sample(scores(number), field.step)
        made.append((field, [True, False] if field.drops == "where" else grid(field, samples[number])))
    return made


def find(fields: Sequence[Field], word: str) -> Field:
    """Find a field by its whole name or what names it alone: `min_doc_words`, `gopher_quality.min_doc_words`."""
    parts = word.split(".")
    found = [
        field
        for field in fields
        if field.name == word
        or field.name.endswith(f".{word}")
        or parts == ["steps", str(field.step.number), field.field]
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise RequestError(f"--sweep {word}: several fields have this name: {', '.join(field.name for field in found)}")
    raise RequestError(
        f"--sweep {word}: the run has no such threshold; those that can be swept are "
        f"{', '.join(field.name for field in fields)}"
    )


def given(field: Field, text: str) -> list[Any]:
    """Read `v1,v2,…` or `lo:hi:n`; `off` switches the rule off."""
    try:
        values = _range(text) if ":" in text else [_value(item.strip()) for item in text.split(",")]
    except ValueError as error:
        raise RequestError(
            f"--sweep {field.name}={text}: {error}; give values, as in 1,2,off, or lo:hi:n, as in 0:1:11"
        ) from error
    made = []
    for value in values:
        made.append(_fitting(field, value))
    return made


def _fitting(field: Field, value: Any) -> Any:
    """Give a value as the step takes it: rounded, where it asks for whole numbers."""
    try:
        field.variant(value)
        return value
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] in ("int_from_float", "int_type") and isinstance(value, float):
            return _fitting(field, round(value))
        said = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"--sweep {field.name}: the step refuses {value!r}: {said}") from error


def _value(text: str) -> Any:
    if text.lower() in OFF:
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if value - value != 0:
        raise ValueError(f"{text} is no threshold")
    return value


def _range(text: str) -> list[float]:
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError("a range has three parts")
    low, high, count = float(parts[0]), float(parts[1]), int(parts[2])
    if not 1 <= count <= MOST_VALUES or high - low != high - low or low > high:
        raise ValueError(f"a range rises, and has 1 to {MOST_VALUES:,} values")
    return [float(f"{value:.12g}") for value in np.linspace(low, high, count).tolist()]


def sample(tables: Iterable[pa.Table], step: ReplayStep) -> pa.Table:
    """Hold the scores of the 16,384 rows of smallest keyed hash that reached a step; the same rows on every call."""
    ranks = np.zeros(0, np.uint64)
    held: list[pa.Table] = []
    for rows in tables:
        reached = pc.or_(pc.equal(rows.column("fate"), "kept"), pc.greater_equal(rows.column("step"), step.number))
        rows = rows.filter(reached)
        if not len(rows):
            continue
        ranks = np.concatenate([ranks, keyed(rows.column("id").combine_chunks(), "sweep")])
        table = pa.concat_tables([*held, rows.select(list(step.columns.values()))])
        order = np.argsort(ranks, kind="stable")[:SAMPLE_ROWS]
        ranks, held = ranks[order], [table.take(pa.array(order))]
    return held[0] if held else pa.table({})


def grid(field: Field, scores: pa.Table) -> list[Any]:
    """Choose values at quantiles of the scores: places that would drop 50 % to 0.1 % of what reaches the step."""
    columns = [column for column in field.columns if column in scores.column_names]
    found = [scores.column(column).cast(pa.float64(), safe=False).to_numpy() for column in columns]
    values: NDArray[np.float64] = np.concatenate([column[np.isfinite(column)] for column in found] or [np.zeros(0)])
    if not len(values):
        return []
    levels = [1 - share for share in DROPS] if field.drops == "above" else list(DROPS)
    whole = bool(np.all(values == np.floor(values)))
    made: list[Any] = []
    for value in np.quantile(values, levels, method="higher" if field.drops != "above" else "lower").tolist():
        rounded: Any = round(value) if whole else float(f"{value:.3g}")
        try:
            field.variant(rounded)
        except ValidationError:  # beyond what the field allows, or it would drop everything
            continue
        if rounded not in made:
            made.append(rounded)
    return made
