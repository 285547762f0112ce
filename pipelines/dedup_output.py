"""The output of a deduplication: a file for each file of the input, or range of one, in the input's own format.

An object is named so that its file is recognised, `data/<input>/<path of the file>-<hash>.<extension>`; a range adds
`-00001-of-00004`. A file of which nothing is left has no object. What is left out and is no duplicate stands in a small
table, with its bytes. A task's receipt accounts for every record of every file, by counts and id sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.files import EXTENSIONS, list_files
from ..transforms.named import step_fingerprint
from ..transforms.readers import Fields, Piece, detect_format
from ..transforms.rewriters import check_format, check_names, rewrite
from ..transforms.schema import id_sum
from ..transforms.step import Step
from ..transforms.verdicts import KEPT, QUARANTINED, REJECTED, Met, Verdicts
from .dedup_documents import DocumentFile, write_documents
from .heartbeat import Heartbeat
from .plan import IngestTask
from .recipe import Frozen, Input
from .reconcile import WORD, check
from .set_aside import SetAside
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .survivors import tallied

#: Bytes of a file's name that are kept; a folder holds names of 255 at most, with a range, a hash and an extension.
NAME_BYTES = 160


class OutputChoice(Frozen):
    """How the documents that stay are written.

    `format`: as the input is, or as a table of documents. `annotate`: all documents are written, marked instead of
    removed, by columns whose names begin with `prefix`.
    """

    format: Literal["input", "parquet", "jsonl"] = "input"
    annotate: bool = False
    prefix: str = ""

    def own(self, kind: str) -> bool:
        """Whether files of a format are written as they are."""
        return self.format in ("input", kind)


@dataclass(frozen=True)
class TaskVerdicts:
    """What becomes of the records of a task: those of its files one behind the other, so many of each."""

    counts: tuple[int, ...]
    verdicts: Verdicts

    def pieces(self) -> Iterator[Verdicts]:
        """Part them by file."""
        first = 0
        for count in self.counts:
            yield self.verdicts.within(first, count)
            first += count


@dataclass(frozen=True)
class OutputTask:
    """One part: what an ingest task reads, and for each of its files which range of how many it is."""

    part: int
    reads: IngestTask
    ranges: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        """Name the task's receipt."""
        return f"output-{self.part:06d}"

    @property
    def name(self) -> str:
        """Name the task, for people."""
        return f"the output of {self.reads.name}"


#: What becomes of the records of a task: reads where earlier stages left it, so that it travels to a worker.
Judge = Callable[[OutputTask], TaskVerdicts]


def output_tasks(tasks: Sequence[IngestTask]) -> list[OutputTask]:
    """Give each ingest task its output task, of the same number; its files know which range of how many they are."""
    seen: dict[tuple[str, str], int] = {}
    numbers = [
        [seen.setdefault(at, 0) for at in _places(task) if not seen.update({at: seen.get(at, 0) + 1})] for task in tasks
    ]
    return [
        OutputTask(task.number, task, tuple((n - 1, seen[at]) for n, at in zip(held, _places(task), strict=True)))
        for task, held in zip(tasks, numbers, strict=True)
    ]


def _places(task: IngestTask) -> list[tuple[str, str]]:
    return [(piece.source, piece.path) for piece in task.pieces]
