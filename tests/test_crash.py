"""A run killed anywhere, at any time, goes on to the same bytes; two runs at once do not harm each other.

Children are forked, so that each starts with everything imported and compiled.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from forks import ended, fork

import penstock.pipelines.run as _run_module
from penstock import Recipe, run
from penstock.pipelines.heartbeat import deaths
from penstock.pipelines.ingest import warm
from penstock.pipelines.match import warm_match
from penstock.sharding.store import CRASH_POINTS, Store
from penstock.transforms.step import Outcome, StepModel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def value(corpus: Path) -> dict[str, Any]:
    return {
        "name": "small",
        "task_bytes": 60_000,
        "inputs": {"docs": {"path": str(corpus), "fields": {"id": "key"}}},
        "dedup": {},
        "tokenizer": {"train": {"vocab_size": 400}},
        "tokens": {"validation": 0.1, "shard_bytes": 100_000, "packs": [{"length": 64}]},
    }


@pytest.fixture(scope="module")
def expected(value: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The data set of a run that nothing interrupts, made in a child, because Beam leaves threads behind."""
    recipe = Recipe.from_value(value)
    warm(recipe.steps)
    assert recipe.dedup is not None
    warm_match(recipe.dedup)
    output = tmp_path_factory.mktemp("whole")
    assert ended(fork(lambda: run(recipe, output, quiet=True))) == 0
    return tokens_sha256(output)


def tokens_sha256(output: Path) -> str:
    return str(json.loads((output / "manifest.json").read_bytes())["tokens_sha256"])


@pytest.mark.parametrize("point", list(dict.fromkeys(CRASH_POINTS)))
def test_killed_at_a_named_point(value: dict[str, Any], expected: str, tmp_path: Path, point: str) -> None:
    recipe = Recipe.from_value(value)

    def killed(at: str) -> int:
        def work() -> None:
            os.environ["PENSTOCK_CRASH_AT"] = at
            run(recipe, tmp_path, quiet=True)

        return ended(fork(work))

    assert killed(point) == -signal.SIGKILL
    second = killed(f"{point}:3")  # some points are met fewer than three times in what is left
    assert second in (0, -signal.SIGKILL)
    assert ended(fork(lambda: run(recipe, tmp_path, quiet=True))) == 0
    assert tokens_sha256(tmp_path) == expected


@pytest.mark.long
def test_killed_at_random_moments(value: dict[str, Any], expected: str, tmp_path: Path) -> None:
    recipe, chance = Recipe.from_value(value), random.Random(5)
    for _ in range(5):
        child = fork(lambda: run(recipe, tmp_path, quiet=True))
        time.sleep(chance.uniform(0.05, 1.5))
        os.kill(child, signal.SIGKILL)
        ended(child)
    assert ended(fork(lambda: run(recipe, tmp_path, quiet=True))) == 0
    assert tokens_sha256(tmp_path) == expected


def test_two_runs_at_once_on_one_directory(value: dict[str, Any], expected: str, tmp_path: Path) -> None:
    recipe = Recipe.from_value(value)
    children = [fork(lambda: run(recipe, tmp_path, quiet=True)) for _ in range(2)]
    assert [ended(child) for child in children] == [0, 0]
    assert tokens_sha256(tmp_path) == expected


class KillsAt(StepModel):
    """Dies with the process at one document."""

    kind: str = "kills_at"
    key: str = "k77"

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        if self.key in batch.column("source_id").to_pylist():
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(batch, pa.nulls(len(batch), pa.string()))


@pytest.mark.long
def test_a_record_that_kills_is_named_and_can_be_set_aside(
    value: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    deadly = Recipe.from_value({**value, "steps": [KillsAt()]})
    assert ended(fork(lambda: run(deadly, tmp_path, quiet=True))) == -signal.SIGKILL
    assert "should one end there again, the record is named" in deaths(Store(tmp_path))[0]
    assert ended(fork(lambda: run(deadly, tmp_path, quiet=True))) == -signal.SIGKILL
    (said,) = deaths(Store(tmp_path))
    name = re.search(r"quarantine: \[(docs/part-\d\.jsonl#\d+)\]", said)
    assert name
    path, _, place = name[1].removeprefix("docs/").partition("#")
    line = (Path(value["inputs"]["docs"]["path"]) / path).read_bytes()[int(place) :].splitlines()[0]
    assert json.loads(line)["key"] == "k77"
    saved = Recipe.from_value({**value, "steps": [KillsAt()], "quarantine": [name[1]]})
    assert ended(fork(lambda: run(saved, tmp_path, quiet=True))) == 0
    assert json.loads((tmp_path / "manifest.json").read_bytes())["quarantined"] == 1
    assert deaths(Store(tmp_path)) == []


def test_the_run_module_registers_its_crash_points() -> None:
    assert _run_module is not None
    assert {"task-started", "receipt-about-to-be-put", "stage-done", "manifest-about-to-be-put"} <= set(CRASH_POINTS)
