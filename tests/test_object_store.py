"""A run whose input and output lie in an object store gives the bytes of a local one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import s3_server

from penstock import Recipe, run
from penstock.pipelines import cli
from penstock.pipelines.verify import verify
from penstock.sharding.store import Store

boto3 = pytest.importorskip("boto3")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server on loopback with one bucket, named to every client by the environment."""
    with s3_server(monkeypatch, "corpus"):
        yield "s3://corpus"


@pytest.mark.long
def test_the_bytes_of_an_object_store_are_those_of_a_folder(
    bucket: str, corpus: Path, small_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = run(Recipe.from_value(small_recipe), tmp_path / "local", quiet=True)
    client = boto3.client("s3")
    for path in corpus.iterdir():
        client.upload_file(str(path), "corpus", f"in/{path.name}")
    small_recipe["inputs"]["docs"]["path"] = f"{bucket}/in"
    remote = run(Recipe.from_value(small_recipe), f"{bucket}/runs/one", quiet=True)
    assert remote["tokens_sha256"] == local["tokens_sha256"]
    assert remote["stages"]["tokens"] == local["stages"]["tokens"]
    store = Store(f"{bucket}/runs/one")
    assert json.loads(store.read("manifest.json"))["tokens_sha256"] == local["tokens_sha256"]
    assert cli.main(["verify", f"{bucket}/runs/one"]) == 0
    again = run(Recipe.from_value(small_recipe), f"{bucket}/runs/one", quiet=True)
    assert again["tokens_sha256"] == local["tokens_sha256"]


@pytest.mark.long
@pytest.mark.parametrize("dedup", [{}, {"exact": False}])
def test_parts_of_no_documents_or_short_ones_are_matched_too(
    bucket: str, tmp_path: Path, dedup: dict[str, Any]
) -> None:
    """Their bands are empty, and a range of no bytes is none to an object store."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, texts in (("a", ["short"] * 3), ("b", ["x " * 90] * 2), ("c", [""])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    value = {"inputs": {"in": {"path": str(folder)}}, "text": {}, "dedup": dedup, "task_bytes": 256}
    there = f"{bucket}/runs/short-{len(dedup)}"
    far = run(Recipe.from_value(value), there, quiet=True)
    near = run(Recipe.from_value(value), tmp_path / "out", quiet=True)
    assert {name: far[name] for name in ("kept", "duplicates", "stages")} == {
        name: near[name] for name in ("kept", "duplicates", "stages")
    }
    assert verify(there)["text"] == verify(tmp_path / "out")["text"]
    assert verify(there)["text"]["documents"] == near["kept"]
