"""Documents of a finished deduplication read back by part and row, for people to look at.

A run of the pipeline holds them; a deduplication on its own reads its inputs once more, which may be gone or changed
by then: that is said in the place of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import InputError, StoreError
from ..sharding.store import Store
from ..transforms.files import open_input
from ..transforms.named import parse_step
from ..transforms.readers import Fields
from ..transforms.values import plain_value
from .plan import IngestTask, tasks_of
from .tables import get_table, read_row, row_groups
from .views import InputPart

READ_BYTES = 2 << 30  # of input, for all the documents that are asked for
COLUMNS = ("id", "source", "path", "place", "source_id", "url", "text")

Place = tuple[int, int]  # part and row


@dataclass(frozen=True)
class Shown:
    """One document as people see it."""

    name: str  # its place in the input, or an id
    source_id: str | None = None
    url: str | None = None
    text: str | None = None
    absent: str | None = None  # why there is no text

    @property
    def title(self) -> str:
        """Name it as its owner would."""
        return self.source_id or self.url or self.name


class DedupTexts:
    """The parts of a run: which input each came from, and its documents."""

    def __init__(self, run: Store, manifest: Mapping[str, Any]) -> None:
        self._run, self._manifest = run, manifest
        tables = manifest.get("tables") or {}
        self.sources: dict[int, str] = {}
        self.documents: dict[str, int] = {}  # of each input, before deduplication; empty where it is not known
        self._objects: dict[int, str] = {}
        self._tasks: dict[int, IngestTask] = {}
        if tables.get("parts"):
            self._stored(tables["parts"])
        elif tables.get("plan"):
            self._tasks = {task.number: task for task in tasks_of(get_table(run, tables["plan"]))}
            self.sources = {number: task.pieces[0].source for number, task in self._tasks.items()}
        self.documents = dict(manifest.get("sources") or self.documents)

    def _stored(self, name: str) -> None:
        folder = name.rpartition("/")[0]
        columns = ["part", "source", "documents_object", "documents"]
        for rows, _ in row_groups(self._run, name, columns):
            for part, source, at, count in zip(*(rows.column(column).to_pylist() for column in columns), strict=True):
                self.sources[part], self._objects[part] = source, f"{folder}/{at}"
                self.documents[source] = self.documents.get(source, 0) + count

    def read(self, places: Iterable[tuple[Place, bytes]]) -> dict[Place, Shown]:
        """Read documents by their places; each must have the id that stands beside its place."""
        by_part: dict[int, dict[int, bytes]] = {}
        for (part, row), id_ in places:
            by_part.setdefault(part, {})[row] = id_
        made: dict[Place, Shown] = {}
        left = READ_BYTES
        for part, rows in sorted(by_part.items()):
            found: dict[int, dict[str, Any]] = {}
            said = "its part is not known"
            if part in self._objects:
                found = {row: read_row(self._run, self._objects[part], row, COLUMNS) for row in rows}
            elif part in self._tasks:
                said, left = self._input(self._tasks[part], set(rows), found, left)
            made.update(((part, row), _shown(found.get(row), id_, said)) for row, id_ in rows.items())
        return made

    def _input(self, task: IngestTask, rows: set[int], found: dict[int, dict[str, Any]], left: int) -> tuple[str, int]:
        """Read rows of an input once more; say why those that were not found are missing, and what is left to read."""
        if left <= 0:
            return f"not read: the examples before it took {READ_BYTES >> 30} GiB of input", 0
        try:
            for row, values in _rows(self._part(task), rows):
                found[row] = values
        except (InputError, StoreError, OSError, pa.ArrowException) as error:
            return f"the input cannot be read any more: {error}", left - task.bytes
        return "the input has no such record any more", left - task.bytes

    def _part(self, task: IngestTask) -> InputPart:
        recipe = self._manifest.get("recipe") or {}
        inputs = self._manifest.get("inputs") or recipe.get("inputs") or {}
        fields = Fields.model_validate((inputs.get(task.pieces[0].source) or {}).get("fields") or {})
        steps = recipe.get("steps") or ()
        fields = fields.model_copy(update={"metadata": ()})
        return InputPart(task, fields, tuple(parse_step(step) for step in steps))


def _rows(part: InputPart, rows: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read some rows of a part: of Parquet files the row groups that hold them, of others up to the last row."""
    first = 0
    for count, cut in _row_groups(part) if all(one.format == "parquet" for one in part.task.pieces) else [(None, part)]:
        here = {row - first for row in rows if row >= first and (count is None or row < first + count)}
        for numbers, batch in cut.batches(COLUMNS) if here else ():
            for at in np.flatnonzero(np.isin(numbers, list(here))).tolist():
                values = {name: plain_value(batch.column(name)[at]) for name in batch.schema.names}
                yield first + int(numbers[at]), values
            if numbers[-1] >= max(here):
                break
        first += count or 0


def _row_groups(part: InputPart) -> Iterator[tuple[int, InputPart]]:
    """Part Parquet files into row groups, and count the rows of each."""
    for piece in part.task.pieces:
        with open_input(piece.url, piece.size) as file:
            about = pq.ParquetFile(file).metadata
        end = about.num_row_groups if piece.end < 0 else min(piece.end, about.num_row_groups)
        for group in range(piece.start, end):
            task = replace(part.task, pieces=(replace(piece, start=group, end=group + 1),))
            yield about.row_group(group).num_rows, replace(part, task=task)


def _shown(values: Mapping[str, Any] | None, id_: bytes, said: str) -> Shown:
    if values is None:
        return Shown(id_.hex(), absent=said)
    if values["id"] != id_:
        return Shown(id_.hex(), absent="the input holds another record in its place now")
    name = f"{values['source']}/{values['path']}#{values['place']}"
    return Shown(name, values.get("source_id"), values.get("url"), values.get("text") or "")
