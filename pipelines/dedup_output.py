"""The output of a deduplication: a file for each file of the input, or range of one, in the input's own format.

An object is named so that its file is recognised, `data/<input>/<path of the file>-<hash>.<extension>`; a range adds
`-00001-of-00004`. A file of which nothing is left has no object. What is left out and is no duplicate stands in a small
table, with its bytes. A task's receipt accounts for every record of every file, by counts and id sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from .. import RequestError
from ..sharding.store import Store
from ..transforms.files import EXTENSIONS
from ..transforms.named import step_fingerprint
from ..transforms.readers import Fields, Piece
from ..transforms.rewriters import check_format, check_names, note_names, rewrite
from ..transforms.schema import id_sum
from ..transforms.step import Outcome, Step
from ..transforms.verdicts import Met, Verdicts, changed
from .dedup_documents import QUARANTINED, REJECTED, SUFFIXES, DocumentFile, Judged, write_documents
from .duplicates import Frozen
from .heartbeat import Heartbeat
from .kept_edits import KeptEdits
from .plan import IngestTask
from .reconcile import WORD, Removed, added, check
from .set_aside import SetAside
from .stage import THREADS, Meter, Receipt, Stage, package_versions, run_task

FATES = ("kept", "duplicates", REJECTED, QUARANTINED)
#: Bytes of a file's name that are kept; a folder holds names of 255 at most, with a range, a hash and an extension.
NAME_BYTES = 160


class OutputChoice(Frozen):
    """How the documents that stay are written.

    `format`: as the input is, or as a table of documents. `annotate`: all documents are written, marked instead of
    removed, by columns whose names begin with `prefix`.
    """

    format: Literal["input", "parquet", "jsonl"] = "input"
    annotate: bool = False
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$")

    def own(self, kind: str) -> bool:
        """Whether files of a format are written as they are."""
        return self.format in ("input", kind)


@dataclass(frozen=True)
class OutputTask:
    """One part: what an ingest task reads, and for each of its files which range of how many it is."""

    reads: IngestTask
    ranges: tuple[tuple[int, int], ...]

    @property
    def part(self) -> int:
        """The number of the part."""
        return self.reads.number

    @property
    def key(self) -> str:
        """Name the task's receipt."""
        return f"output-{self.part:06d}"

    @property
    def name(self) -> str:
        """Name the task, for people."""
        return f"the output of {self.reads.name}"


#: What becomes of the records of a task's files, numbered one behind the other, and how many each file had: a value
#: that travels to a worker and reads there what earlier stages left (`judge.Judge`).
Judging = Callable[[IngestTask], tuple[Verdicts, Sequence[int]]]


def output_tasks(tasks: Sequence[IngestTask]) -> list[OutputTask]:
    """Give each ingest task its output task, of the same number; its files know which range of how many they are."""
    counts = Counter((piece.source, piece.path) for task in tasks for piece in task.pieces)
    met: Counter[tuple[str, str]] = Counter()
    made = []
    for task in tasks:
        ranges = []
        for piece in task.pieces:
            at = (piece.source, piece.path)
            ranges.append((met[at], counts[at]))
            met[at] += 1
        made.append(OutputTask(task, tuple(ranges)))
    return made


def output_stage(
    run: Store,
    choice: OutputChoice,
    fields: Mapping[str, Fields],
    steps: Sequence[Step],
    upstream: Sequence[str],
) -> Stage:
    """Address the `output` stage. `upstream` names the parts that are read, and the stages that found what goes."""
    value = {
        "output": choice.model_dump(mode="json"),
        "fields": {source: each.model_dump(mode="json") for source, each in fields.items()},
        "steps": [step_fingerprint(step) for step in steps],
        "upstream": list(upstream),
    }
    return Stage.of(run, "output", value, package_versions("pyarrow", "zstandard", "fastwarc"))


def check_inputs(tasks: Sequence[IngestTask], choice: OutputChoice, *, cuts: bool) -> None:
    """Refuse, before anything is compared, what cannot be written. Raises RequestError or InputError.

    A file that has a field of a mark's name is found by its schema or its first 100 records, before anything is read.
    """
    if choice.annotate and cuts:
        raise RequestError("an annotation marks whole documents: leave it out, or leave out lines and substrings")
    first = {(piece.source, piece.path): piece for task in reversed(tasks) for piece in reversed(task.pieces)}
    files = [piece for piece in first.values() if choice.own(piece.format)]
    for piece in files:
        check_format(piece.format, piece.source, annotate=choice.annotate, cuts=cuts)
    if choice.annotate:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(partial(check_names, prefix=choice.prefix), files))


@dataclass(frozen=True)
class WriteOutput:
    """Write what stays of one task's files."""

    stage: Stage
    choice: OutputChoice
    fields: Mapping[str, Fields]
    steps: tuple[Step, ...]
    judge: Judging

    def __call__(self, task: OutputTask) -> Iterator[Any]:
        """Run the task unless it is committed; emits nothing."""
        run_task(self.stage, task.key, partial(self.compute, task))
        return iter(())

    def compute(self, task: OutputTask, folder: Path, meter: Meter) -> Receipt:
        """Read each file once more, write what stays; give the account of every record."""
        with meter.on("verdicts"):
            verdicts, counts = self.judge(task.reads)
        aside, edits, accounts, row = SetAside(folder), KeptEdits(folder), [], 0
        with Heartbeat(self.stage.run, task.key, "output") as heartbeat:
            for piece, numbers, count in zip(task.reads.pieces, task.ranges, counts, strict=True):
                account = Account(piece, self.steps, verdicts.within(row, row + count))
                with meter.on("write"):
                    name = self._piece(piece, numbers, account, aside, edits, folder / "output")
                if account.records != count:
                    raise changed(piece, f"it had {count} records and has {account.records}")
                accounts.append({**account.as_json(), "object": name})
                row += count
                heartbeat.add(account.records, piece.bytes)
        return {
            "part": task.part,
            "documents": row,
            "input_bytes": task.reads.bytes,
            "files": accounts,
            "set_aside": aside.put(self.stage.store),
            "edits": edits.put(self.stage.store),
        }

    def _piece(
        self, piece: Piece, numbers: tuple[int, int], account: Account, aside: SetAside, edits: KeptEdits, path: Path
    ) -> str | None:
        """Write one file; give the name of its object, None where nothing is left of it."""
        with path.open("wb") as file:
            for met in self._written(piece, account.verdicts, file):
                outcome = account.add(met)
                if outcome is not None:
                    aside.add(outcome)
                if met.edits is not None:
                    edits.take(met.edits)
        if not account.written + account.others:
            return None
        return self.stage.store.put(path, *object_name(piece, numbers, self.choice))

    def _written(self, piece: Piece, verdicts: Verdicts, file: BinaryIO) -> Iterator[Met]:
        fields = self.fields[piece.source]
        if verdicts.notes is not None:
            verdicts = replace(verdicts, notes=verdicts.notes.named(note_names(self.choice.prefix)))
        if self.choice.own(piece.format):
            yield from rewrite(piece, fields, verdicts, file)
            return
        assert self.choice.format != "input"
        out = DocumentFile(file, self.choice.format)
        yield from write_documents(piece, fields, self.steps, verdicts, out)
        out.close()


class Account:
    """What was met of one file, or range of one: every record once, by what became of it."""

    def __init__(self, piece: Piece, steps: Sequence[Step], verdicts: Verdicts) -> None:
        self._piece, self._steps, self.verdicts = piece, steps, verdicts
        self.records = self.written = self.others = self.set_aside = self._id_sum = 0
        self._counts = dict.fromkeys(FATES, 0)
        self._rules: Counter[str] = Counter()
        self._sums = dict.fromkeys(FATES, 0)

    def add(self, met: Met) -> Outcome | None:
        """Count what was met next; give what of it is set aside. Raises InputError: the file is not what it was."""
        count, ids = len(met.places), met.ids(self._piece)
        mine = self.verdicts.within(self.records, self.records + count)
        documents, gone = np.zeros(count, bool), np.zeros(count, bool)
        documents[mine.documents], gone[mine.gone] = True, True
        self._tally("kept", ids.filter(pa.array(documents & ~gone)))
        self._tally("duplicates", ids.filter(pa.array(gone)))
        self.records += count
        self.written += met.written
        self.others += met.others
        self._id_sum = (self._id_sum + id_sum(ids)) % WORD
        if met.refused is None:
            return None
        judged = Judged(met.refused, self._steps)
        if len(judged.kept):
            place = judged.batch.column("place")[0]
            raise changed(self._piece, f"the record at {place} could not be read, and now it can")
        fates = judged.fates()
        for fate in (REJECTED, QUARANTINED):
            self._tally(fate, judged.met.column("id").filter(pa.array(fates == fate)))
        said = zip(judged.errors.tolist(), judged.reasons.tolist(), strict=True)
        self._rules.update(f"{QUARANTINED}|{error}" if error else f"{REJECTED}|{reason}" for error, reason in said)
        assert met.aside is not None
        self.set_aside += int(met.aside.sum())
        return judged.outcome(met.aside)

    def _tally(self, fate: str, ids: pa.Array) -> None:
        self._counts[fate] += len(ids)
        self._sums[fate] = (self._sums[fate] + id_sum(ids)) % WORD

    def as_json(self) -> dict[str, Any]:
        """Give the account; id sums as strings, because they exceed 2**53."""
        return {
            "source": self._piece.source,
            "path": self._piece.path,
            "start": self._piece.start,
            "records": self.records,
            "id_sum": str(self._id_sum),
            "written": self.written,
            "others": self.others,
            "set_aside": self.set_aside,
            "rules": dict(sorted(self._rules.items())),
            **self._counts,
            **{f"{fate}_id_sum": str(total) for fate, total in self._sums.items()},
        }


def object_name(piece: Piece, numbers: tuple[int, int], choice: OutputChoice) -> tuple[str, str]:
    """Give what stands before and behind the hash in the name of a file's object."""
    folder, _, name = piece.path.rpartition("/")
    ending = next((ending for ending in EXTENSIONS if name.lower().endswith(ending)), "")
    stem, suffix = (name[: -len(ending)], name[-len(ending) :]) if ending else (name, "")
    if not choice.own(piece.format):
        suffix = SUFFIXES[choice.format]
    stem = stem.encode()[:NAME_BYTES].decode("utf-8", "ignore")
    number, count = numbers
    ranged = f"-{number + 1:05d}-of-{count:05d}" if count > 1 else ""
    return "/".join(filter(None, ["data", piece.source, folder, f"{stem}{ranged}-"])), suffix


def objects_of(receipts: Sequence[Receipt]) -> list[str]:
    """Name every object that receipts name."""
    files = [file["object"] for receipt in receipts for file in receipt["files"]]
    tables = [name for receipt in receipts for name in (receipt["set_aside"]["object"], receipt["edits"])]
    return [name for name in [*files, *tables] if name is not None]


def check_output(receipts: Sequence[Receipt], removed: Removed, *, annotate: bool) -> dict[str, int]:
    """Check that every record met is accounted for, and that the duplicates met are those found; give the totals."""
    totals = dict.fromkeys(("records", *FATES, "written"), 0)
    for receipt in receipts:
        for file in receipt["files"]:
            place = f"output of {file['source']}/{file['path']}@{file['start']}"
            what = " + ".join(FATES)
            check(f"{place}: records met ≠ {what}", file["records"], sum(file[fate] for fate in FATES))
            parted = sum(int(file[f"{fate}_id_sum"]) for fate in FATES) % WORD
            check(f"{place}: id sum of records met ≠ {what}", int(file["id_sum"]), parted)
            left = file["written"] + file["set_aside"] + (0 if annotate else file["duplicates"])
            check(
                f"{place}: records met ≠ written + set aside{'' if annotate else ' + dropped'}", file["records"], left
            )
            for name in totals:
                totals[name] += file[name]
        aside = sum(file["set_aside"] for file in receipt["files"])
        check(f"output of part {receipt['part']}: records set aside", receipt["set_aside"]["documents"], aside)
    files = [file for receipt in receipts for file in receipt["files"]]
    check("output: duplicates met ≠ duplicates found", totals["duplicates"], removed.documents)
    check("output: id sum of duplicates met ≠ that of those found", added(files, "duplicates_id_sum"), removed.id_sum)
    return totals
