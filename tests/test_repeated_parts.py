"""Lines and substrings over parts, through the exchange: as brute force over all texts has it, whatever the parts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.pipelines import repeat_methods
from penstock.pipelines.exchange import exchange, sign_key
from penstock.pipelines.repeats import cut_list, cut_repeats, repeats_stage, signed_stage, warm_repeats
from penstock.pipelines.runners import Job
from penstock.pipelines.stage import Receipt, Stage
from penstock.pipelines.tables import parquet
from penstock.pipelines.views import KEPT, REJECTED, CutList, Fates, RemovalList, View, cuts_of, removals
from penstock.sharding.store import Store
from penstock.transforms.edits import undo
from penstock.transforms.repeated_lines import Lines
from penstock.transforms.repeated_spans import Substrings

Settings = Lines | Substrings
Left = dict[tuple[int, int], str]


@dataclass(frozen=True)
class Texts:
    """A part in memory; every third record is one that its reader refused, so that rows have gaps."""

    number: int
    texts: tuple[str, ...]
    batch: int = 3
    source: str = "some"

    @property
    def key(self) -> str:
        return f"{self.number}-{hash(self.texts)}"

    @property
    def name(self) -> str:
        return f"part {self.number}"

    @property
    def documents(self) -> int:
        return len(self.texts)

    def batches(self, columns: Sequence[str], fates: Fates | None = None) -> Iterator[tuple[Any, pa.RecordBatch]]:
        if fates is not None:
            said = np.full(row_of(len(self.texts)), REJECTED, np.uint8)
            said[[row_of(number) for number in range(len(self.texts))]] = KEPT
            fates.begin()
            fates.add(said)
        for at in range(0, len(self.texts), self.batch):
            texts = self.texts[at : at + self.batch]
            rows = np.array([row_of(at + number) for number in range(len(texts))])
            ids = [bytes([self.number] * 8) + int(row).to_bytes(8, "little") for row in rows]
            held = {"id": pa.array(ids, pa.binary(16)), "text": pa.array(texts, pa.string())}
            yield rows, pa.record_batch({name: held[name] for name in columns if name in held})


def row_of(number: int) -> int:
    return number + number // 2


def run_here(job: Job, order: random.Random | None = None) -> None:
    """Run a job in this process, tasks in any order."""
    tasks = list(job.tasks)
    groups: dict[str, list[bytes]] = {}
    if order is not None:
        order.shuffle(tasks)
    for task in tasks:
        for key, value in job.map(task) or ():
            groups.setdefault(key, []).append(value)
    for key, values in groups.items():
        assert job.reduce is not None
        job.reduce(key, values)


def dealt(texts: list[str], sizes: Sequence[int], batch: int = 3) -> list[Texts]:
    """Deal texts into parts of these sizes, the last one gets the rest."""
    bounds = [0, *np.cumsum(sizes).tolist(), len(texts)]
    return [Texts(number, tuple(texts[a:b]), batch) for number, (a, b) in enumerate(pairwise(bounds))]


def run(folder: Path, settings: Settings, parts: list[Texts], local: bool = True, launch: Any = run_here) -> Receipt:
    stage = repeats_stage(Store(str(folder)), settings, parts)
    return cut_repeats(stage, settings, parts, View(), launch, local)


def left(folder: Path, settings: Settings, parts: list[Texts]) -> list[str | None]:
    """Give all texts as the view of the next kind has them, None where they went; check that edits can be undone."""
    stage = repeats_stage(Store(str(folder)), settings, parts)
    receipt = cut_repeats(stage, settings, parts, View(), run_here, True)
    view = View((RemovalList.of(stage.store, receipt),), (cut_list(stage, settings, receipt),))
    found: list[str | None] = []
    for part in parts:
        texts: list[str | None] = [None] * len(part.texts)
        numbers = {row_of(number): number for number in range(len(texts))}
        for rows, batch in view.batches(part, ["id", "text"]):
            for row, text in zip(rows.tolist(), batch.column("text").to_pylist(), strict=True):
                texts[numbers[row]] = text
        for rows, batch in part.batches(["text"]):
            for row in view.edited(part.number, rows, batch, record=True).to_pylist():
                assert undo(row["text"], row["edits"]) in part.texts
        found += texts
    return found


def corpus(seed: int, count: int = 30) -> list[str]:
    """Texts of lines that repeat, in documents and across them."""
    chance = random.Random(seed)
    lines = ["".join(chance.choices("abcdeé 語", k=chance.randrange(1, 60))) for _ in range(14)]
    return ["\n".join(chance.choices(lines, k=chance.randrange(1, 7))) for _ in range(count)]


def brute_lines(texts: list[str]) -> list[str | None]:
    seen: set[str] = set()
    kept: list[str | None] = []
    for text in texts:
        lines = []
        for line in text.split("\n"):
            if line not in seen or not line.strip():
                lines.append(line)
            seen.add(line)
        gone = len(lines) < len(text.split("\n")) and not "".join(lines).strip()
        kept.append(None if gone else "\n".join(lines))
    return kept


def brute_bytes(texts: list[str], length: int) -> list[str | None]:
    seen: set[bytes] = set()
    kept: list[str | None] = []
    for text in texts:
        body = text.encode()
        marked = [False] * len(body)
        for at in range(len(body) - length + 1):
            if body[at : at + length] in seen:
                marked[at : at + length] = [True] * length
            seen.add(body[at : at + length])
        at, rest = 0, ""
        for character in text:
            end = at + len(character.encode())
            rest += "" if all(marked[at:end]) else character
            at = end
        kept.append(None if rest != text and not rest.split() else rest)
    return kept


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group for every few entries, so that hash ranges are many."""
    monkeypatch.setattr(repeat_methods, "exchange", partial(exchange, group_bytes=15_000))


DEALS = [([], 1000), ([7, 0, 13], 3)]


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(("sizes", "batch"), DEALS)
def test_however_the_texts_are_dealt_what_stood_before_goes(tmp_path: Path, sizes: list[int], batch: int) -> None:
    texts = corpus(1)
    parts = dealt(texts, sizes, batch)
    assert left(tmp_path, Lines(), parts) == brute_lines(texts)
    assert left(tmp_path, Substrings(length=24), parts) == brute_bytes(texts, 24)
    assert None in brute_lines(texts)
    assert None in brute_bytes(texts, 24)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("settings", [Lines(window=2), Substrings(length=24)])
def test_files_and_a_shuffle_give_the_same_receipts(tmp_path: Path, settings: Settings) -> None:
    parts = dealt(corpus(2), [5, 9, 11])
    here = run(tmp_path / "here", settings, parts)
    there = run(tmp_path / "there", settings, parts, False, partial(run_here, order=random.Random(3)))
    assert {**here, "cost": 0} == {**there, "cost": 0}
    assert here["cut_spans"] > 0


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("settings", [Substrings(length=24)])
def test_a_run_that_is_cut_off_goes_on(tmp_path: Path, settings: Settings) -> None:
    parts = dealt(corpus(3), [5, 9, 11])
    whole = run(tmp_path / "whole", settings, parts)
    for stop in range(1, 30):
        left_to_run = stop

        def some(job: Job) -> None:
            nonlocal left_to_run
            for task in job.tasks:
                if not left_to_run:
                    raise InterruptedError
                left_to_run -= 1
                job.map(task)

        try:
            again = run(tmp_path / "part", settings, parts, launch=some)
            break
        except InterruptedError:
            continue
    assert {**again, "cost": 0} == {**whole, "cost": 0}
    signed = signed_stage(repeats_stage(Store(str(tmp_path / "part")), settings, parts), settings)
    for part in parts:  # what the reader said of each record stands with the first signatures
        receipt = signed.receipts([sign_key(part)])[0]
        said = np.frombuffer(signed.store.read(receipt["fates"]), np.uint8)[: sum(receipt["pieces"])]
        assert np.flatnonzero(said == KEPT).tolist() == [row_of(at) for at in range(len(part.texts))]
    assert stop > 2


def test_a_document_that_keeps_too_little_goes_and_is_named(tmp_path: Path) -> None:
    texts = ["a b c\nd e", "a b c\nx y", "a b c\nx", "short"]
    settings = Lines(left=2)
    parts = dealt(texts, [1])
    assert left(tmp_path, settings, parts) == ["a b c\nd e", "x y", None, "short"]
    receipt = run(tmp_path, settings, parts)
    stage = repeats_stage(Store(str(tmp_path)), settings, parts)
    with parquet(stage.store, receipt["clusters"]) as file:
        (row,) = file.read().to_pylist()
    assert (row["part"], row["row"], row["kind"], row["kept_id"]) == (1, row_of(1), "line", None)
    assert removals(RemovalList.of(stage.store, receipt), 1).tolist() == [row_of(1)]
    cuts = cuts_of(CutList(stage.store, settings.kind, receipt["cuts"], receipt["cut_bounds"]), 1)
    assert cuts.tolist() == [[0, 0, 6]]
    assert [receipt[name] for name in ("duplicates", "cut_spans", "cut_documents", "cut_bytes")] == [1, 1, 1, 6]


def test_nothing_repeated_and_no_parts(tmp_path: Path) -> None:
    for settings in (Lines(), Substrings()):
        assert left(tmp_path, settings, dealt(["one", "two"], [1])) == ["one", "two"]
        assert run(tmp_path, settings, [])["cut_spans"] == 0


def test_stages_are_addressed_by_what_decides_them(tmp_path: Path) -> None:
    store, parts = Store(str(tmp_path)), dealt(["a"], [])
    stages: list[Stage] = [
        repeats_stage(store, Lines(), parts),
        repeats_stage(store, Lines(window=3), parts),
        repeats_stage(store, Lines(), parts, ["upstream"]),
        repeats_stage(store, Lines(), dealt(["b"], [])),
        repeats_stage(store, Substrings(), parts),
    ]
    assert len({stage.hash for stage in stages}) == len(stages)
    assert repeats_stage(store, Lines(), parts) == stages[0]


def test_workers_compile_before_they_start() -> None:
    for settings in (Lines(), Substrings()):
        warm_repeats(settings)
