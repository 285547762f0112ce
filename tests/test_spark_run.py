"""The whole run on Beam's real Spark runner: the same bytes as on a laptop."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Recipe, run
from penstock.pipelines.dedup import dedup_job, deduplicate
from penstock.pipelines.job_server import ENGINES
from penstock.pipelines.runners import RunnerOptions, session

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def spark() -> Iterator[RunnerOptions]:
    """A job server for local[2], started by penstock and shared by the runs of this module."""
    engine = ENGINES["spark"]
    if missing := engine.missing():
        pytest.skip("; ".join(missing))
    if not any(engine.jars.glob("*.jar")):
        pytest.skip(f"{engine.jars} holds no jars: python -m penstock.pipelines.job_server spark fetches them")
    with session(RunnerOptions(runner="spark", spark_master="local[2]")) as options:
        yield options


def test_the_quickstart_on_spark_gives_the_local_tokens(spark: RunnerOptions, tmp_path: Path) -> None:
    recipe = Recipe.from_yaml(ROOT / "examples" / "quickstart.yaml")
    local = run(recipe, tmp_path / "local", quiet=True)
    there = run(recipe, tmp_path / "spark", options=spark, quiet=True)
    assert there["tokens_sha256"] == local["tokens_sha256"]
    assert there["stages"] == local["stages"]
    same = ("documents_in", "kept", "rejected_by_rule", "duplicates", "quarantined", "tokens", "languages")
    assert {name: there[name] for name in same} == {name: local[name] for name in same}


def test_dedup_alone_on_spark_removes_the_same(spark: RunnerOptions, tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "dedup_only.py"))
    source = example["sample"](tmp_path / "in" / "docs.jsonl")
    job = dedup_job([str(source)], fields={"id": "name"}, dedup={"verify": 0.7, "lines": {}})
    local = deduplicate(job, tmp_path / "local", quiet=True)
    there = deduplicate(job, tmp_path / "spark", options=spark, quiet=True)
    assert local["duplicates"] == 40
    assert removals(tmp_path / "spark", there) == removals(tmp_path / "local", local)
    assert written(tmp_path / "spark") == written(tmp_path / "local")


def test_many_parts_and_a_resumed_run(spark: RunnerOptions, small_recipe: dict[str, Any], tmp_path: Path) -> None:
    small_recipe["task_bytes"] = 20_000
    local = run(Recipe.from_value(small_recipe), tmp_path / "local", quiet=True)
    there = run(Recipe.from_value(small_recipe), tmp_path / "spark", options=spark, quiet=True)
    assert there["tokens_sha256"] == local["tokens_sha256"]
    for receipt in list((tmp_path / "spark" / "documents").rglob("receipts/*.json"))[::2]:
        receipt.unlink()
    for path in (tmp_path / "spark" / "tokens").rglob("receipts/*.json"):
        path.unlink()
    for path in (tmp_path / "spark" / "tokens").rglob("generations/*.json"):
        path.unlink()
    again = run(Recipe.from_value(small_recipe), tmp_path / "spark", options=spark, quiet=True)
    assert again["tokens_sha256"] == local["tokens_sha256"]
    assert json.loads((tmp_path / "spark" / "manifest.json").read_bytes())["kept"] == local["kept"]


def written(output: Path) -> dict[str, bytes]:
    """Read every file that was written, by its name, which holds its hash."""
    found = {path.name: path.read_bytes() for path in output.glob("output/*/data/**/*.jsonl")}
    assert found
    return found


def removals(output: Path, manifest: dict[str, Any]) -> bytes:
    return (output / str(manifest["tables"]["clusters"])).read_bytes()
