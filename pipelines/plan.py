"""The plan of an ingest: every input file pinned by size and etag, and cut or grouped into tasks of about 64 MiB.

A file that cannot be split is one task. A group of small files ends where a path's hash says, or at the size, so that a
new file regroups only its neighbours. The plan is one Parquet table; a Beam graph holds ranges of its rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import xxhash

from .. import InputError, RecipeError
from ..sharding.store import Store
from ..transforms import ExtractHtml
from ..transforms.named import built_in, inner_steps
from ..transforms.readers import Piece, check_fields, detect_format, holds_texts, list_files, split
from ..transforms.step import Step
from .recipe import Input, digest
from .tables import get_table, put_table

CHUNK_TASKS = 200
THREADS = 16
PLAN = pa.schema(
    [
        ("task", pa.string()),
        ("number", pa.int32()),  # of the task in the plan
        ("source", pa.string()),
        ("path", pa.string()),
        ("url", pa.string()),
        ("format", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
    ]
)


class Planned(Protocol):
    """What a plan reads of a recipe, or of a deduplication."""

    @property
    def inputs(self) -> Mapping[str, Input]:
        """Where documents come from."""

    @property
    def task_bytes(self) -> int:
        """Bytes of input a task."""

    @property
    def quarantine(self) -> tuple[str, ...]:
        """Records to set aside unread."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that documents go through."""


@dataclass(frozen=True)
class IngestTask:
    """What one ingest task reads: whole files, or one range of one."""

    key: str  # of its receipt: names the files with their etags, so a changed file is another task
    number: int  # in the plan's order
    pieces: tuple[Piece, ...]
    etags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name what is read, for people: its first file, and how many more."""
        first, more = self.pieces[0], len(self.pieces) - 1
        return f"{first.source}/{first.path}" + (f" and {more} more files" if more else "")

    @property
    def bytes(self) -> int:
        """Count the bytes of input."""
        return sum(piece.bytes for piece in self.pieces)


def make_task(number: int, pieces: Sequence[Piece], etags: Sequence[str]) -> IngestTask:
    """Name a task by what it reads: input names, relative paths, ranges, sizes and etags."""
    rows = [[p.source, p.path, p.format, p.start, p.end, p.size, etag] for p, etag in zip(pieces, etags, strict=True)]
    return IngestTask(digest(rows), number, tuple(pieces), tuple(etags))


def plan_inputs(recipe: Planned) -> list[IngestTask]:
    """List the inputs and cut them into tasks, in the order of (input name, path, range)."""
    tasks: list[IngestTask] = []
    met: set[tuple[str, str]] = set()
    for source in sorted(recipe.inputs):
        held: list[tuple[Piece, str]] = []
        size = 0
        for whole, etag, ranges in cut_files(recipe, source):
            if (source, whole.path) in met:
                raise InputError(
                    f"input {source!r} names the file {whole.path} twice: ids would clash; give the inputs other names"
                )
            met.add((source, whole.path))
            if len(ranges) > 1:
                tasks += flush(held, len(tasks))
                tasks += [make_task(len(tasks) + i, [_cut(whole, a, b)], [etag]) for i, (a, b) in enumerate(ranges)]
                continue
            if held and size + whole.size > recipe.task_bytes:
                tasks += flush(held, len(tasks))
            size = whole.size + (size if held else 0)
            held.append((whole, etag))
            if ends_group(source, whole.path, whole.size, recipe.task_bytes):
                tasks += flush(held, len(tasks))
        tasks += flush(held, len(tasks))
    return [setting_aside(task, recipe.quarantine) for task in tasks]


def cut_files(recipe: Planned, source: str) -> Iterator[tuple[Piece, str, list[tuple[int, int]]]]:
    """Give an input's files, in the order of their paths, with their etags and the ranges that they can be read in.

    To find where a large file can be cut takes a read or more of it: they are looked at by threads, for stores that
    are far away.
    """
    item = recipe.inputs[source]
    entries = list_files(item.path)
    kinds = [item.format if item.format != "auto" else detect_format(entry.path) for entry in entries]
    extracts = any(isinstance(step, ExtractHtml) or not built_in(step) for step in inner_steps(recipe.steps))
    if not extracts and item.format == "auto":  # what is named like pages may be texts
        kinds = [
            "wet" if kind == "warc" and holds_texts(entry) else kind for entry, kind in zip(entries, kinds, strict=True)
        ]
    if "warc" in kinds and not extracts:
        raise RecipeError(
            f"steps: the input {source!r} holds WARC files, whose pages have no text until a step extracts it: put "
            "extract_html first"
        )
    if entries:  # a wrong mapping is an error at once; other files are met by their own tasks
        check_fields(entries[0], kinds[0], item.fields)
    with ThreadPoolExecutor(THREADS) as pool:
        cuts = pool.map(split, entries, kinds, itertools.repeat(recipe.task_bytes))
        for entry, kind, ranges in zip(entries, kinds, cuts, strict=True):
            yield Piece(entry.url, source, entry.path, kind, entry.size), entry.etag, ranges


def setting_aside(task: IngestTask, quarantine: Sequence[str]) -> IngestTask:
    """Name a task anew where the recipe lists records of its files: those files are read again, and no others."""
    names = {f"{piece.source}/{piece.path}" for piece in task.pieces}
    listed = sorted(record for record in quarantine if record.rpartition("#")[0] in names)
    return replace(task, key=digest([task.key, listed])) if listed else task


def _cut(piece: Piece, start: int, end: int) -> Piece:
    return Piece(piece.url, piece.source, piece.path, piece.format, piece.size, start, end)


def flush(held: list[tuple[Piece, str]], number: int) -> list[IngestTask]:
    """Make a task of the files held, if any."""
    made = [make_task(number, [piece for piece, _ in held], [etag for _, etag in held])] if held else []
    held.clear()
    return made


def ends_group(source: str, path: str, size: int, task_bytes: int) -> bool:
    """Say, from the path's hash alone, whether a group ends after this file: about every half task of bytes."""
    share = min(1.0, 2 * size / task_bytes)
    return xxhash.xxh3_64_intdigest(f"{source}\0{path}".encode()) < int(share * (1 << 64) / 4)


def plan_table(tasks: Sequence[IngestTask]) -> pa.Table:
    """Write tasks as the plan's table, a row per file or range."""
    rows = [
        {
            "task": t.key,
            "number": t.number,
            "source": p.source,
            "path": p.path,
            "url": p.url,
            "format": p.format,
            "size": p.size,
            "etag": etag,
            "start": p.start,
            "end": p.end,
        }
        for t in tasks
        for p, etag in zip(t.pieces, t.etags, strict=True)
    ]
    return pa.Table.from_pylist(rows, PLAN)


def tasks_of(table: pa.Table) -> Iterator[IngestTask]:
    """Read tasks back from a plan's table."""
    rows: list[dict[str, Any]] = []
    for row in [*table.to_pylist(), {"task": None}]:
        if rows and row["task"] != rows[0]["task"]:
            pieces = tuple(
                Piece(r["url"], r["source"], r["path"], r["format"], r["size"], r["start"], r["end"]) for r in rows
            )
            yield IngestTask(rows[0]["task"], rows[0]["number"], pieces, tuple(r["etag"] for r in rows))
            rows = []
        rows.append(row)


@dataclass(frozen=True)
class PlanChunk:
    """A run of a plan's tasks: all that a Beam graph holds of it."""

    store: Store
    name: str
    first: int
    last: int

    def tasks(self) -> list[IngestTask]:
        """Read the chunk's tasks."""
        table = get_table(self.store, self.name)
        number = table.column("number").to_numpy()
        return list(tasks_of(table.filter(pa.array((number >= self.first) & (number < self.last)))))


def pin(store: Store, tasks: Sequence[IngestTask]) -> tuple[str, list[PlanChunk]]:
    """Commit the plan, after refusing files that are no longer what an earlier plan of this stage pinned."""
    table = plan_table(tasks)
    here = {(p.source, p.path): (p.size, etag) for t in tasks for p, etag in zip(t.pieces, t.etags, strict=True)}
    for name in store.list("plan-"):
        for row in get_table(store, name).to_pylist():
            now = here.get((row["source"], row["path"]))
            if now is not None and now != (row["size"], row["etag"]):
                raise InputError(
                    f"the input {row['path']} of {row['source']!r} changed since this run pinned it: it had "
                    f"{row['size']} bytes (etag {row['etag']}), now {now[0]} (etag {now[1]}); restore it, "
                    "or choose another --output"
                )
    name = put_table(store, table, "plan-")
    ends = [*range(0, len(tasks), CHUNK_TASKS), len(tasks)]
    return name, [PlanChunk(store, name, a, b) for a, b in itertools.pairwise(ends)]


def require_tasks(tasks: Sequence[IngestTask]) -> None:
    """Refuse a run over nothing."""
    if not tasks:
        raise RecipeError("inputs: no file to read")
