"""What becomes of the records of a task, by what a deduplication left: fates, removals, cuts, clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..sharding.store import Store
from ..transforms.verdicts import NOTES, Notes, TextCuts, Verdicts
from .plan import IngestTask
from .stage import Stage
from .tables import row_groups
from .views import KEPT, View, cuts_of, removals

_READ = ("kept_id", "kept_source_id", "cluster", "cluster_size", "similarity", "part", "row", "kept_part", "kept_row")


@dataclass(frozen=True)
class Judge:
    """Say what becomes of a task's records: a value that travels to a worker.

    `stage` is the first one that read the input; its receipts, `key` and the part's number, hold the fates. `tables`
    name those of removals, from the folder of the run, where documents are marked; none, where they are removed.
    """

    stage: Stage
    view: View
    tables: tuple[str, ...] = ()
    annotate: bool = False
    key: str = "sign"

    def __call__(self, task: IngestTask) -> tuple[Verdicts, list[int]]:
        """Give the verdicts, and how many records each of the task's files had."""
        (receipt,) = self.stage.receipts([f"{self.key}-{task.number:06d}"])
        counts = [int(count) for count in receipt["pieces"]]
        fates = np.frombuffer(self.stage.store.read(receipt["fates"]), np.uint8)[: sum(counts)]
        gone = [removals(listed, task.number).astype(np.int64) for listed in self.view.removed]
        cuts = []
        for listed in self.view.cut:
            found = cuts_of(listed, task.number).astype(np.int64)
            cuts.append(TextCuts(listed.kind, found[:, 0], found[:, 1:]))
        verdicts = Verdicts(
            np.flatnonzero(fates == KEPT),
            np.unique(np.concatenate([np.zeros(0, np.int64), *gone])),
            tuple(cuts),
            notes_of(self.stage.run, self.tables, task.number) if self.annotate else None,
        )
        return verdicts, counts


def notes_of(run: Store, tables: Sequence[str], part: int) -> Notes:
    """Give the marks of a part's documents from tables of removals, a kind's behind the one before.

    A document that goes has the marks of the kind that drops it; one that stays those of the last kind in which it has
    copies.
    """
    marks: dict[int, tuple[Any, ...]] = {}
    for name in tables:
        for rows, _ in row_groups(run, name, _READ):
            _add(marks, rows.filter(pc.equal(rows.column("kept_part"), part)), "kept_")
        for rows, _ in row_groups(run, name, _READ):
            _add(marks, rows.filter(pc.equal(rows.column("part"), part)), "")
    found = sorted(marks)
    columns = list(zip(*(marks[row] for row in found), strict=True)) or [()] * len(NOTES)
    arrays = [pa.array(column, item.type) for column, item in zip(columns, NOTES, strict=True)]
    return Notes(np.array(found, np.int64), pa.RecordBatch.from_arrays(arrays, schema=NOTES))


def _add(marks: dict[int, tuple[Any, ...]], rows: pa.Table, side: str) -> None:
    """Add the marks of the documents that go, or (`kept_`) of those that stay."""
    for each in rows.to_pylist():
        kept = each["kept_source_id"] if each["kept_source_id"] is not None else each["kept_id"].hex()
        goes = not side
        similarity = each["similarity"] if goes else None
        marks[each[f"{side}row"]] = (each["cluster"].hex(), each["cluster_size"], kept, similarity, goes)
