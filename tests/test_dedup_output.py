"""The output of a deduplication: a file for each file of the input, every record accounted for, whatever the tasks."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from read_rows import jsonl
from warc_files import http, page, record

from penstock import InputError, ReconciliationError, RequestError
from penstock.pipelines.annotations import put_marks
from penstock.pipelines.clusters import CLUSTERS
from penstock.pipelines.dedup_output import (
    OutputChoice,
    OutputTask,
    WriteOutput,
    check_inputs,
    check_output,
    object_name,
    objects_of,
    output_stage,
    output_tasks,
)
from penstock.pipelines.judge import Judge
from penstock.pipelines.plan import IngestTask, plan_inputs
from penstock.pipelines.recipe import Recipe
from penstock.pipelines.reconcile import Removed
from penstock.pipelines.stage import Meter, Receipt, Stage, run_task, without_cost
from penstock.pipelines.views import CutList, Fates, InputPart, RemovalList, View, part_bounds, put_array
from penstock.sharding.store import Store
from penstock.transforms.edits import undo
from penstock.transforms.extract import ExtractHtml
from penstock.transforms.readers import Piece
from penstock.transforms.step import Step
from penstock.transforms.verdicts import Notes

Place = tuple[str, int]  # path, row in the file

LINES = [b'{"text": "a", "n": 1}', b"", b'{"text": "b",  "n": 2}', b'{"text": ""}', b"broken", b'{"text": "c"}']
ROWS: list[dict[str, Any]] = [
    {"text": "a", "n": 1},
    {"text": None, "n": 2},
    {"text": "d", "n": 3},
    {"text": "e", "n": 4},
]


def write_inputs(folder: Path) -> Path:
    (folder / "in/sub").mkdir(parents=True)
    (folder / "in/a.jsonl").write_bytes(b"\n".join(LINES) + b"\n")
    (folder / "in/sub/a.jsonl.gz").write_bytes(gzip.compress(jsonl({"text": "a"}, {"text": "f"})))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "in/t.parquet", row_group_size=2)
    (folder / "in/one.txt").write_bytes(b"a\n")
    (folder / "in/none.jsonl").write_bytes(b"")
    return folder / "in"


class Prepared:
    """A run whose duplicates are said by hand, at its last stage."""

    def __init__(
        self,
        folder: Path,
        inputs: Path,
        gone: Sequence[Place] = (),
        *,
        choice: OutputChoice | None = None,
        cuts: Mapping[Place, Sequence[tuple[int, int]]] | None = None,
        steps: tuple[Step, ...] = (),
        tables: tuple[str, ...] = (),
        task_bytes: int = 1 << 20,
    ) -> None:
        value = {"inputs": {"en": {"path": str(inputs)}}, "task_bytes": task_bytes, "dedup": {}, "text": {}}
        self.recipe = Recipe.from_value({**value, "steps": list(steps)}, "test")
        self.run, self.choice = Store(folder), choice or OutputChoice()
        self.tasks = plan_inputs(self.recipe)
        self.found = Stage.of(self.run, "duplicates", [len(gone)], {})
        self.fields = {"en": self.recipe.inputs["en"].fields}
        first: dict[str, int] = {}
        rows: list[tuple[int, str, int, int]] = []  # part, path, row in the file, row in the part
        for task in self.tasks:
            receipt = run_task(self.found, f"sign-{task.number:06d}", partial(self.sign, task, steps))
            at = 0
            for piece, count in zip(task.pieces, receipt["pieces"], strict=True):
                start = first.get(piece.path, 0)
                rows += [(task.number, piece.path, start + n, at + n) for n in range(count)]
                first[piece.path], at = start + count, at + count
        self.addresses = {(path, row): (part << 32) + mine for part, path, row, mine in rows}
        view = View((self.removals([self.addresses[place] for place in gone]),), self.cut(cuts or {}))
        self.judge = Judge(self.found, view, put_marks(self.run, tables) if self.choice.annotate else None)
        self.stage = output_stage(self.run, self.choice, self.fields, steps, [self.found.hash])
        self.work = WriteOutput(self.stage, self.choice, self.fields, steps, self.judge)

    def sign(self, task: IngestTask, steps: tuple[Step, ...], folder: Path, meter: Meter) -> Receipt:
        fates = Fates()
        for _ in InputPart(task, self.fields["en"], steps).batches([], fates):
            pass
        return fates.put(self.found.store)

    def removals(self, addresses: Sequence[int]) -> RemovalList:
        listed, store = np.array(sorted(addresses), np.uint64), self.found.store
        rows = put_array(store, listed & np.uint64(0xFFFFFFFF), "removals")
        return RemovalList(store, rows, put_array(store, part_bounds(listed, len(self.tasks)), "bounds"))

    def cut(self, cuts: Mapping[Place, Sequence[tuple[int, int]]]) -> tuple[CutList, ...]:
        if not cuts:
            return ()
        found = sorted((self.addresses[place], *span) for place, spans in cuts.items() for span in spans)
        table, store = np.array(found, np.uint64).reshape(-1, 3), self.found.store
        bounds = put_array(store, part_bounds(table[:, 0].copy(), len(self.tasks)), "bounds")
        table[:, 0] &= np.uint64(0xFFFFFFFF)
        return (CutList(store, "lines", put_array(store, table, "cuts"), bounds),)

    def write(self, tasks: Sequence[OutputTask] | None = None) -> list[Receipt]:
        todo = output_tasks(self.tasks)
        for task in tasks or todo:
            list(self.work(task))
        return self.stage.receipts([task.key for task in todo])

    def bodies(self, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """The files written, by their names without the hash."""
        names = [file["object"] for receipt in receipts for file in receipt["files"] if file["object"]]
        self.stage.require(objects_of(receipts))
        return {
            name[: -len(suffix(name)) - 32].removesuffix("-") + suffix(name): self.stage.store.read(name)
            for name in names
        }

    def set_aside(self, receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
        names = [receipt["set_aside"]["object"] for receipt in receipts]
        return [
            row for name in names if name for row in pq.read_table(io.BytesIO(self.stage.store.read(name))).to_pylist()
        ]


def suffix(name: str) -> str:
    return name[name.rindex("-") + 33 :]


GONE = [("a.jsonl", 1), ("sub/a.jsonl.gz", 0), ("t.parquet", 0), ("one.txt", 0)]


def removed(prepared: Prepared, receipts: Sequence[Receipt]) -> Removed:
    files = [file for receipt in receipts for file in receipt["files"]]
    total = sum(int(file["duplicates_id_sum"]) for file in files) % (1 << 64)
    return Removed(sum(file["duplicates"] for file in files), total)


def test_a_file_comes_out_for_each_file(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path / "run", write_inputs(tmp_path), GONE)
    receipts = prepared.write()
    bodies = prepared.bodies(receipts)
    assert sorted(bodies) == ["data/en/a.jsonl", "data/en/sub/a.jsonl.gz", "data/en/t.parquet"]
    assert bodies["data/en/a.jsonl"] == b'{"text": "a", "n": 1}\n\n{"text": "c"}\n'
    assert gzip.decompress(bodies["data/en/sub/a.jsonl.gz"]) == b'{"text": "f"}\n'
    assert pq.read_table(io.BytesIO(bodies["data/en/t.parquet"])).to_pylist() == ROWS[2:]
    totals = check_output(receipts, removed(prepared, receipts), annotate=False)
    assert totals == {"records": 12, "kept": 5, "duplicates": 4, "rejected": 2, "quarantined": 1, "written": 5}
    aside = {(row["path"], row["place"], row["fate"], row["rule"], row["raw"]) for row in prepared.set_aside(receipts)}
    assert aside == {
        ("a.jsonl", 46, "rejected", "read/empty", b'{"text": ""}'),
        ("a.jsonl", 59, "quarantined", None, b"broken"),
        ("t.parquet", 1, "rejected", "read/empty", b'{"n":2,"text":null}'),
    }


def test_ranges_are_files_of_their_own(tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    body = jsonl(*({"text": f"line {row}", "pad": "x" * 50} for row in range(40)))
    (inputs / "big.jsonl").write_bytes(body)
    prepared = Prepared(tmp_path / "run", inputs, [("big.jsonl", 0), ("big.jsonl", 30)], task_bytes=1024)
    receipts = prepared.write()
    bodies = prepared.bodies(receipts)
    assert sorted(bodies) == [f"data/en/big-{number:05d}-of-00004.jsonl" for number in range(1, 5)]
    lines = body.splitlines(keepends=True)
    assert b"".join(bodies[name] for name in sorted(bodies)) == b"".join(lines[1:30] + lines[31:])
    check_output(receipts, removed(prepared, receipts), annotate=False)


def test_whatever_the_order_and_the_run_the_bytes_are_the_same(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    one, other = (Prepared(tmp_path / name, inputs, GONE, task_bytes=256) for name in ("one", "other"))
    first = one.write()
    todo = output_tasks(other.tasks)
    assert len(todo) > 1
    list(other.work(todo[-1]))  # an earlier try got this far
    second = other.write(todo[::-1])
    assert [without_cost(receipt) for receipt in first] == [without_cost(receipt) for receipt in second]
    assert one.bodies(first) == other.bodies(second)


def cluster_table(prepared: Prepared, pairs: Sequence[tuple[Place, Place]], store: Store) -> str:
    rows = []
    for gone, kept in pairs:
        (part, row), (kept_part, kept_row) = (divmod(prepared.addresses[place], 1 << 32) for place in (gone, kept))
        rows.append(
            {
                "id": b"g" * 16,
                "kept_id": b"k" * 16,
                "kept_source_id": "mine" if len(pairs) > 1 else None,
                "cluster": b"c" * 16,
                "cluster_size": 5,
                "part": part,
                "row": row,
                "similarity": 1.0 if gone[1] == 0 else None,
                "kept_part": kept_part,
                "kept_row": kept_row,
            }
        )
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, CLUSTERS), sink)
    return store.put(sink.getvalue(), "clusters-", ".parquet")


def test_documents_are_marked_where_they_stand(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    (inputs / "one.txt").unlink()
    gone = GONE[:3]
    first = Prepared(tmp_path / "run", inputs, gone)
    name = cluster_table(first, [(place, ("a.jsonl", 0)) for place in gone], first.run)
    prepared = Prepared(tmp_path / "run", inputs, gone, choice=OutputChoice(annotate=True, prefix="d_"), tables=(name,))
    check_inputs(prepared.tasks, prepared.choice, cuts=False)
    receipts = prepared.write()
    check_output(receipts, removed(prepared, receipts), annotate=True)
    bodies = prepared.bodies(receipts)
    lines = bodies["data/en/a.jsonl"].splitlines()
    assert lines[0].startswith(LINES[0][:-1] + b', "d_cluster": "')
    marks = [json.loads(line) for line in lines if line]
    hexed = {"d_cluster": "63" * 16, "d_cluster_size": 5, "d_kept_id": "mine", "d_similarity": None}
    assert marks[0] == {"text": "a", "n": 1, **hexed, "d_is_duplicate": False}
    assert marks[1] == {"text": "b", "n": 2, **hexed, "d_is_duplicate": True}
    assert marks[2] == {"text": "", **dict.fromkeys((*hexed, "d_is_duplicate"))}
    single = {"d_cluster": None, "d_cluster_size": 1, "d_kept_id": None, "d_similarity": None, "d_is_duplicate": False}
    assert marks[3] == {"text": "c", **single}
    table = pq.read_table(io.BytesIO(bodies["data/en/t.parquet"])).to_pylist()
    assert table[0] == {**ROWS[0], **hexed, "d_similarity": 1.0, "d_is_duplicate": True}
    assert table[1] == {**ROWS[1], **dict.fromkeys(single)}
    assert table[2] == {**ROWS[2], **single}
    assert [row["raw"] for row in prepared.set_aside(receipts)] == [b"broken"]


def test_a_later_kind_marks_what_an_earlier_one_kept(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path / "run", write_inputs(tmp_path))
    a, b, c = (("a.jsonl", row) for row in (0, 1, 4))
    tables = [cluster_table(prepared, [pair], prepared.run) for pair in ((b, a), (a, c))]
    part = prepared.addresses[a] >> 32
    marks = dict(
        zip(*(column.to_pylist() for column in marked(Notes(*put_marks(prepared.run, tables).read(part)))), strict=True)
    )
    assert {row: marks[prepared.addresses[place] & 0xFFFFFFFF] for place, row in ((a, 0), (b, 1), (c, 4))} == {
        0: True,
        1: True,
        4: False,
    }
    assert len(put_marks(prepared.run, tables).read(77)[0]) == 0


def marked(notes: Any) -> tuple[pa.Array, pa.Array]:
    return pa.array(notes.rows), notes.columns.column("is_duplicate")


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("annotate", [False, True], ids=["removed", "marked"])
def test_pages_and_files_come_out_as_documents(tmp_path: Path, format: Any, annotate: bool) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    parts = [record(0, b"x", "warcinfo"), *(record(n, http(page(n))) for n in range(1, 5))]
    parts.append(record(9, http(b"gone", status=b"404 Not Found")))
    (inputs / "a.warc.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    choice = OutputChoice(format=format, annotate=annotate)
    steps = (ExtractHtml(),)
    prepared = Prepared(tmp_path / "run", inputs, [("a.warc.gz", 1)], choice=choice, steps=steps)
    check_inputs(prepared.tasks, choice, cuts=True and not annotate)
    receipts = prepared.write()
    check_output(receipts, removed(prepared, receipts), annotate=annotate)
    ((name, body),) = prepared.bodies(receipts).items()
    assert name == f"data/en/a{'.parquet' if format == 'parquet' else '.jsonl.zst'}"
    if format == "parquet":
        rows = pq.read_table(io.BytesIO(body)).to_pylist()
    else:
        unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        rows = [json.loads(line) for line in unpacked.splitlines()]
    numbers = [1, 2, 3, 4] if annotate else [1, 3, 4]
    assert [row["url"] for row in rows] == [f"http://web.example/{number}" for number in numbers]
    assert [row["text"].startswith(f"page {number}") for number, row in zip(numbers, rows, strict=True)]
    assert all(("is_duplicate" in row) == annotate for row in rows)
    assert [row["rule"] for row in prepared.set_aside(receipts)] == ["read/http_status"]


def test_files_that_are_cut_can_be_put_back(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    cuts = {("a.jsonl", 4): [(0, 1)], ("t.parquet", 3): [(0, 1)], ("one.txt", 0): [(0, 1)]}
    for choice in (OutputChoice(), OutputChoice(format="parquet"), OutputChoice(format="jsonl")):
        prepared = Prepared(tmp_path / "run", inputs, [("t.parquet", 0)], choice=choice, cuts=cuts)
        receipts = prepared.write()
        check_output(receipts, removed(prepared, receipts), annotate=False)
        edits = [
            row["edits"]
            for receipt in receipts
            if receipt["edits"]
            for row in pq.read_table(io.BytesIO(prepared.stage.store.read(receipt["edits"]))).to_pylist()
        ]
        assert sorted(undo(text, row) for text, row in zip(["", "\n", ""], edits, strict=True)) == ["a\n", "c", "e"]
        bodies = prepared.bodies(receipts)
        if choice.format == "input":
            assert bodies["data/en/one.txt"] == b"\n"
            assert bodies["data/en/a.jsonl"].endswith(b'{"text": ""}\n')


def test_what_cannot_be_written_is_refused_before_the_start(tmp_path: Path) -> None:
    tasks = Prepared(tmp_path / "run", write_inputs(tmp_path)).tasks
    with pytest.raises(RequestError, match="is text, where an annotation has no place"):
        check_inputs(tasks, OutputChoice(annotate=True), cuts=False)
    with pytest.raises(RequestError, match="marks whole documents"):
        check_inputs(tasks, OutputChoice(annotate=True, format="parquet"), cuts=True)
    check_inputs(tasks, OutputChoice(annotate=True, format="parquet"), cuts=False)
    (tmp_path / "in/one.txt").unlink()
    (tmp_path / "in/z.jsonl").write_bytes(jsonl({"text": "x", "kept_id": 1}))
    tasks = Prepared(tmp_path / "run", tmp_path / "in").tasks
    with pytest.raises(InputError, match=r"'z.jsonl': a record at its head has the field 'kept_id'.*dedup_"):
        check_inputs(tasks, OutputChoice(annotate=True), cuts=False)


CHANGES: dict[str, tuple[list[Any], list[Any], str]] = {
    "fewer": (["a", "b", "c"], ["a", "b"], "it had 3 records and has 2"),
    "more": (["a", "b", "c"], ["a", "b", "c", "d"], "the record at 42 could not be read, and now it can"),
    "bad": (["a", "b", "c"], ["a", "b", "c", 7], "it had 3 records and has 4"),
    "healed": (["a", "", "b"], ["a", "c", "b"], "the record at 14 could not be read, and now it can"),
}


@pytest.mark.parametrize("format", ["input", "parquet"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_input_that_changed_is_refused(tmp_path: Path, format: Any, change: str) -> None:
    before, after, why = CHANGES[change]
    inputs = tmp_path / "in"
    inputs.mkdir()
    size = 100  # a change that the size does not tell

    def write(texts: list[Any]) -> None:
        (inputs / "a.jsonl").write_bytes(jsonl(*({"text": text} for text in texts))[:-1].ljust(size - 1) + b"\n")

    write(before)
    prepared = Prepared(tmp_path / "run", inputs, [("a.jsonl", 0)], choice=OutputChoice(format=format))
    write(after)
    with pytest.raises(InputError, match=f"changed while it was deduplicated: ({why})"):
        prepared.write()


def test_accounts_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    prepared = Prepared(tmp_path / "run", write_inputs(tmp_path), GONE)
    receipts = prepared.write()
    good = removed(prepared, receipts)
    with pytest.raises(ReconciliationError, match="duplicates met ≠ duplicates found: 4 ≠ 3"):
        check_output(receipts, good._replace(documents=3), annotate=False)
    with pytest.raises(ReconciliationError, match="id sum of duplicates met"):
        check_output(receipts, good._replace(id_sum=1), annotate=False)
    with pytest.raises(ReconciliationError, match="written"):
        check_output(receipts, good, annotate=True)
    receipts[0]["files"][0]["kept"] += 1
    with pytest.raises(ReconciliationError, match=r"output of en/.*@0: records met"):
        check_output(receipts, good, annotate=False)


def test_objects_are_named_after_their_files() -> None:
    def name(path: str, kind: str, numbers: tuple[int, int] = (0, 1), **choice: Any) -> tuple[str, str]:
        return object_name(Piece("", "en", path, kind, 1), numbers, OutputChoice(**choice))

    assert name("a/b.c.jsonl.gz", "jsonl") == ("data/en/a/b.c-", ".jsonl.gz")
    assert name("B.WARC.GZ", "warc", (2, 12)) == ("data/en/B-00003-of-00012-", ".WARC.GZ")
    assert name("b.jsonl.gz", "jsonl", format="parquet") == ("data/en/b-", ".parquet")
    assert name("b.parquet", "parquet", format="jsonl") == ("data/en/b-", ".jsonl.zst")
    assert name("b.jsonl.gz", "jsonl", format="jsonl") == ("data/en/b-", ".jsonl.gz")
    assert name("log", "text") == ("data/en/log-", "")
    long, _ = name("é" * 120 + ".txt", "text")
    assert long == "data/en/" + "é" * 80 + "-"
