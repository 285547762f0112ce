"""A Python function over a batch as a step: no class to write, the whole contract checked at every batch.

A call costs what the function costs: the checks look at types and lengths, at no row but those of a mask or a list.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .step import Outcome

GIVES = (
    "a mask of the rows it keeps, an array of reasons (null where a row is kept), the edited RecordBatch, or Outcome"
)


@dataclass(frozen=True, init=False)
class FunctionStep:
    """Make a step of `function(batch, **fields)`.

    The function takes a `pa.RecordBatch` and gives one of four things: a boolean array (n,), true where a row is kept;
    an array (n,) of reasons, text where a row goes and null where it stays; the batch, edited or with columns added;
    or `Outcome`. Lists and NumPy arrays do as well. What a mask drops has the reason `name/dropped`, a reason without
    a step's name before it gets the function's. It is called on an empty batch too, so columns that it adds need a
    type. A recipe names it `"module:name": {field: value}`, where its first parameter is called `batch`; runs tell
    one version from another by the source of its module. Fields are JSON values; they are checked against the
    function's parameters here, before anything runs.

    >>> def drop_short(batch, minimum=3):
    ...     return [len(text.split()) >= minimum for text in batch["text"].to_pylist()]
    >>> step = FunctionStep(drop_short, minimum=4)
    >>> step.apply(pa.record_batch({"text": ["one two three", "one two three four"]})).reasons.to_pylist()
    ['drop_short/dropped', None]
    >>> FunctionStep(drop_short, least=4)
    Traceback (most recent call last):
    ValueError: drop_short(batch, minimum=3) cannot be called so: got an unexpected keyword argument 'least'
    """

    function: Callable[..., Any]
    fields: Mapping[str, Any]

    def __init__(self, function: Callable[..., Any], /, **fields: Any) -> None:
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            raise ValueError(f"a step is a function with a name, not {function!r}: define it with `def`")
        signature = inspect.signature(function)
        try:
            signature.bind(None, **fields)
        except TypeError as error:
            raise ValueError(f"{name}{signature} cannot be called so: {error}") from error
        try:
            json.dumps(fields)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the fields of {name} are JSON values, so that runs can be told apart: {error}"
            ) from error
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "fields", fields)

    @property
    def kind(self) -> str:
        """Name the step in reasons, columns and the funnel: the function's name."""
        return str(self.function.__name__)

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Call the function; give its answer as an outcome. Another answer than its contract allows is told."""
        given = self.function(batch, **self.fields)
        if isinstance(given, Outcome):
            return given
        if isinstance(given, pa.RecordBatch):
            return Outcome(given, pa.nulls(len(given), pa.string()))
        return Outcome(batch, self._reasons(given, len(batch)))

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields. A recipe adds the function's name and the digest of its module's source."""
        return {"fields": dict(self.fields)}

    def _reasons(self, given: Any, rows: int) -> pa.StringArray:
        answer = _as_array(given)
        if answer is None or not (
            pa.types.is_boolean(answer.type) or pa.types.is_null(answer.type) or _is_text(answer.type)
        ):
            what = type(given).__name__ if answer is None else f"{type(given).__name__} of {answer.type}"
            raise TypeError(f"{self.kind} gave a {what}; a function over a batch gives {GIVES}")
        if len(answer) != rows:
            raise ValueError(f"{self.kind} got {rows} rows and gave {len(answer)} answers; it gives one a row")
        if not pa.types.is_boolean(answer.type):
            return self._named(answer.cast(pa.string()))
        if answer.null_count:
            row = answer.is_null().to_pylist().index(True)
            raise ValueError(f"{self.kind} gave a mask that is null at row {row}: true keeps a row, false drops it")
        return pc.if_else(answer, pa.scalar(None, pa.string()), f"{self.kind}/dropped")

    def _named(self, reasons: pa.StringArray) -> pa.StringArray:
        """Put the function's name before reasons that stand alone."""
        alone = pc.binary_join_element_wise(self.kind, reasons, "/")
        return pc.if_else(pc.match_substring(reasons, "/"), reasons, alone)


def is_over_batches(value: Any) -> bool:
    """Say whether a value is a function whose first parameter is a batch, by its name or its annotation."""
    if not inspect.isfunction(value):
        return False
    first = next(iter(inspect.signature(value).parameters.values()), None)
    if first is None:
        return False
    return first.name == "batch" or first.annotation is pa.RecordBatch or str(first.annotation).endswith("RecordBatch")


def _as_array(given: Any) -> pa.Array | None:
    if isinstance(given, pa.ChunkedArray):
        return given.combine_chunks()
    if isinstance(given, pa.Array):
        return given
    if not isinstance(given, (list, tuple, np.ndarray)):
        return None
    try:
        return pa.array(given)
    except (pa.ArrowException, TypeError, ValueError):
        return None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
