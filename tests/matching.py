"""Documents in memory, dealt to parts, and a match over them in this process: what tests of matching share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.match import match, match_stage
from penstock.pipelines.recipe import digest
from penstock.pipelines.runners import Job
from penstock.pipelines.stage import Receipt, Stage
from penstock.pipelines.views import Rows
from penstock.sharding.store import Store
from penstock.transforms.schema import ID, document_ids

Document = dict[str, Any]


@dataclass(frozen=True)
class Held:
    """A part whose rows are these; None is a record that the reader refused."""

    number: int
    rows: tuple[Document | None, ...]
    source: str = "input"

    @property
    def key(self) -> str:
        return f"{self.source}-{self.number}-{digest(repr(self.rows))}"

    @property
    def name(self) -> str:
        return f"part {self.number}"

    @property
    def documents(self) -> int:
        return len(self.rows)

    def batches(self, columns: Sequence[str], fates: Any = None) -> Iterator[Rows]:
        ids = document_ids(self.source, self.name, range(len(self.rows)))
        for first in range(0, len(self.rows), 7):
            at = [row for row in range(first, min(first + 7, len(self.rows))) if self.rows[row] is not None]
            if not at:
                continue
            rows = [self.rows[row] or {} for row in at]
            kinds = {
                "id": ID,
                "text": pa.string(),
                "source_id": pa.string(),
                "metadata": pa.string(),
                "url": pa.string(),
            }
            made = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items()}
            made["id"] = ids.take(pa.array(at))
            for name in {name for row in self.rows if row for name in row} - set(kinds):
                made[name] = pa.array([row.get(name) for row in rows])
            yield np.array(at), pa.record_batch({name: made[name] for name in columns if name in made})


def parts_of(documents: Sequence[Document], count: int = 3) -> list[Held]:
    """Deal documents to parts in turn."""
    return [Held(number, tuple(documents[number::count])) for number in range(count)]


def here(job: Job) -> None:
    """Do a job's work in this process, in the wrong order."""
    groups: dict[str, list[bytes]] = defaultdict(list)
    for task in reversed(job.tasks):
        for key, value in job.map(task) or ():
            groups[key].append(value)
    for key in sorted(groups, reverse=True):
        assert job.reduce is not None
        job.reduce(key, groups[key])


def matched(
    folder: Path,
    dedup: Dedup,
    parts: Sequence[Any],
    launch: Callable[[Job], None] = here,
    **options: Any,
) -> tuple[Stage, Receipt, list[dict[str, Any]]]:
    """Match parts; give the stage, the last receipt, and the rows of `clusters`."""
    stage = match_stage(Store(folder), dedup, parts)
    receipt = match(stage, dedup, parts, launch, True, **options)
    table = pq.read_table(folder / "duplicates" / stage.hash / receipt["clusters"])
    return stage, receipt, table.to_pylist()


def kept_texts(parts: Sequence[Held], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Give the texts that stay, sorted."""
    gone = {(row["part"], row["row"]) for row in rows}
    return sorted(
        str(document["text"])
        for part in parts
        for row, document in enumerate(part.rows)
        if document is not None and (part.number, row) not in gone
    )
