"""The survivors: documents read by row group, duplicates dropped, the recipe's `final` edits applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import RunError
from ..sharding.store import Store
from ..transforms.edits import COLUMN as EDITS
from ..transforms.named import apply_step, step_kind
from ..transforms.schema import id_sum
from ..transforms.step import Step
from .tables import parquet
from .views import View


@dataclass(frozen=True)
class RowGroup:
    """One row group of one part: what a shard is dealt."""

    part: int
    part_key: str  # names the part's place: how Parquet was written must not decide where documents go
    name: str  # the part's documents object
    number: int  # of the row group in the part
    row: int  # of its first document in the part
    stream: str
    documents: int
    bytes: int
    id_sum: str


def tallied(parted: Mapping[str, pa.Array]) -> dict[str, Any]:
    """Account for what became of a row group's documents: by name, how many, and the sum of their ids."""
    counts: dict[str, Any] = {name: len(ids) for name, ids in parted.items()}
    return counts | {f"{name}_id_sum": str(id_sum(ids)) for name, ids in parted.items()}


@dataclass(frozen=True)
class Survivors:
    """Where the documents lie, what deduplication left of them, and the edits that come last."""

    documents: Store
    view: View
    final: tuple[Step, ...]

    def read(self, group: RowGroup) -> tuple[pa.RecordBatch, dict[str, Any]]:
        """Read a row group's survivors and the account of what was met and dropped."""
        with parquet(self.documents, group.name) as file:
            columns = [name for name in file.schema_arrow.names if name != EDITS]  # they stay where they are
            table = file.read_row_group(group.number, columns=columns, use_threads=False)
        batch = table.combine_chunks().to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], table.schema)
        met = {
            "part": group.part,
            "row_group": group.number,
            "in": len(batch),
            "id_sum": str(id_sum(batch.column("id"))),
        }
        rows = np.arange(group.row, group.row + len(batch))
        stays = self.view.stays(group.part, rows)
        dropped = tallied({"dropped": batch.column("id").filter(pa.array(~stays))})
        if not stays.all():
            rows, batch = rows[stays], batch.filter(pa.array(stays))
        batch = self.view.edited(group.part, rows, batch, record=True)
        size = int(pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0)
        return self.edit(batch), {**met, **dropped, "bytes": size}

    def edit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Apply the final steps; one that drops a document is refused."""
        for step in self.final:
            outcome = apply_step(step, batch)
            if outcome.reasons.null_count < len(batch):
                raise RunError(
                    f"the final step {step_kind(step)} dropped a document; steps under `final` only edit, "
                    "others stand under `steps`"
                )
            if outcome.errors is not None and outcome.errors.null_count < len(batch):
                raise RunError(
                    f"the final step {step_kind(step)} set a document aside ({outcome.errors.drop_null()[0]}), which "
                    "has been counted as kept: let a step under `steps` find such documents"
                )
            batch = outcome.batch
            if batch.column("text").null_count:
                raise RunError(f"the final step {step_kind(step)} left a document without text; give an empty one")
        return batch
