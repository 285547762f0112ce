"""What a step is: a frozen value whose `apply` takes a batch and gives back the batch and one reason a row.

A filter is a step in two halves: `measure` scores every row, `decide` turns scores into reasons. Scores are kept in the
ledger, so a threshold can be moved afterwards without reading the text again. Steps know no runner and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

#: One array of numbers (n,) a score, named; counts are integers, ratios float64.
Scores = Mapping[str, NDArray[Any]]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class Outcome:
    """What a step made of a batch: as many rows as came in.

    `reasons` is null where a row is kept, else the rule that drops it, `kind/rule`. `errors` is non-null where a row
    could not be processed and goes to quarantine; `raw` may hold the bytes of such rows (at most 1 MiB each).
    """

    batch: pa.RecordBatch
    reasons: pa.StringArray
    errors: pa.StringArray | None = None
    raw: pa.BinaryArray | None = None


@runtime_checkable
class Step(Protocol):
    """One transformation of a document batch. An empty batch goes through too: its schema tells what the step adds."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Give back the batch, edited or with columns added, and a reason for each row that goes."""
        ...


class StepModel(BaseModel):
    """A step that a recipe can name: frozen, strict about its fields, equal by value, fingerprinted.

    `version` is raised when decisions or output change, and is covered by the stage's hash. `files` are the fields that
    name files (one, a list, or a mapping of them): a recipe reads them from its own folder, and a step's fingerprint
    has digests of their bytes in the place of their paths. `nested` are the fields that hold steps (a list, or lists by
    name); a step that has some gives them from `held_steps()`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    version: ClassVar[int] = 1
    files: ClassVar[tuple[str, ...]] = ()
    nested: ClassVar[tuple[str, ...]] = ()
    kind: str

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Give back the batch, edited or with columns added, and a reason for each row that goes."""
        raise NotImplementedError

    def fingerprint(self) -> dict[str, Any]:
        """Name everything that decides this step's output: its fields, its version, the digests of its models."""
        return {**self.model_dump(mode="json"), "version": self.version}


class Filter(StepModel):
    """A step that measures first and decides after."""

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row; every rule is scored whether it fires or not."""
        raise NotImplementedError

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each row is dropped; null where it is kept."""
        raise NotImplementedError

    def reasons(self, batch: pa.RecordBatch) -> pa.StringArray:
        """Measure and decide."""
        return self.decide(self.measure(batch))

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Add the scores as columns `kind.score` and give the reasons."""
        scores = self.measure(batch)
        return Outcome(
            with_columns(batch, {f"{self.kind}.{name}": pa.array(values) for name, values in scores.items()}),
            self.decide(scores),
        )


def with_columns(batch: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """Replace or append columns by name."""
    arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
    arrays.update(columns)
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def first_reason(rules: Mapping[str, NDArray[np.bool_]], rows: int | None = None) -> pa.StringArray:
    """Name, for each row, the first rule (in the mapping's order) that holds; null where none does."""
    names = list(rules)
    if not names:
        return pa.nulls(rows or 0, pa.string())
    fired = np.column_stack([np.asarray(rules[name], bool) for name in names])
    first = fired.argmax(axis=1)
    none = ~fired.any(axis=1)
    return pa.DictionaryArray.from_arrays(
        pa.array(first.astype(np.int32), mask=none), pa.array(names, pa.string())
    ).cast(pa.string())


def ratio(count: NDArray[Any], total: NDArray[Any]) -> NDArray[np.float64]:
    """Divide counts once, as Python divides integers; nothing of nothing is 0.0."""
    shares: NDArray[np.float64] = np.divide(count, total, out=np.zeros(len(total)), where=np.asarray(total) > 0)
    return shares


def above(values: NDArray[Any], threshold: float | None) -> NDArray[np.bool_]:
    """Say where values pass a threshold; None is no threshold."""
    return np.zeros(len(values), bool) if threshold is None else np.asarray(values) > threshold


def below(values: NDArray[Any], threshold: float | None) -> NDArray[np.bool_]:
    """Say where values miss a threshold; None is no threshold."""
    return np.zeros(len(values), bool) if threshold is None else np.asarray(values) < threshold


def utf8(batch: pa.RecordBatch, column: str = "text") -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Give a string column as kernels read it: offsets (n + 1,) and the bytes they point into; null reads as empty.

    Works on slices, nulls, `string`, `large_string` and views of them, without a copy of the bytes where no row is
    null.
    """
    return utf8_buffers(batch.column(column))


def utf8_buffers(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Give one string array as offsets (n + 1,) int64 and bytes uint8."""
    if not (pa.types.is_large_string(array.type) or pa.types.is_string(array.type)):
        array = array.cast(pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    _, offsets, data = array.buffers()
    width = np.int64 if pa.types.is_large_string(array.type) else np.int32
    if len(array) == 0 or offsets is None:
        return np.frombuffer(bytes(8), np.int64), np.frombuffer(b"", np.uint8)
    starts = np.frombuffer(offsets, width)[array.offset : array.offset + len(array) + 1].astype(np.int64, copy=False)
    body = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    starts.flags.writeable = body.flags.writeable = False  # always one type, so that kernels compile once
    return starts, body
