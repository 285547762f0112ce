"""Inspect: what it counts from tables and columns is what rows and documents say one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from token_files import put_tokens

from penstock.pipelines.cli import main
from penstock.sharding.dataset import open_tokens
from penstock.sharding.documents import Documents
from penstock.sharding.tools import inspect
from penstock.sharding.tools.removal import takedown

SHARDS = {("train", 0): [30, 100, 2, 64, 65], ("train", 1): [64] * 5 + [31, 33, 1], ("validation", 0): [7, 200]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspection")
    put_tokens(folder / "set", folder / "spool", SHARDS)
    return folder / "set"


@pytest.mark.parametrize(("pack", "length"), [("best_fit-64", 64), ("concat-32", 32)])
def test_packs_are_summed_up_as_their_rows_are(root: Path, pack: str, length: int) -> None:
    data = open_tokens(root)
    documents = Documents(data)
    rows = [
        [(shard, piece["ordinal"], piece["document_tokens"]) for piece in documents.row(shard, row, pack)]
        for shard, entry in enumerate(data.generation.shards)
        for row in range(entry.packs[pack].rows)
    ]
    pieces = [piece for row in rows for piece in row]
    homes: dict[tuple[int, int], set[int]] = {}
    for number, row in enumerate(rows):
        for shard, ordinal, _ in row:
            homes.setdefault((shard, ordinal), set()).add(number)
    tokens = sum(last - first for _, _, (first, last) in pieces)
    told = inspect(root, tables=True)["packs"][pack]
    assert told["rows"] == len(rows)
    assert told["padding"] == round(1 - tokens / (len(rows) * length), 6)
    assert told["pieces_a_row"] == round(len(pieces) / len(rows), 4)
    assert told["cuts_a_document"] == round((len(pieces) - len(homes)) / len(homes), 4)
    assert told["split_documents"] == round(sum(len(home) > 1 for home in homes.values()) / len(homes), 6)


def test_generations_and_what_is_gone(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "set"
    put_tokens(place, tmp_path / "spool", SHARDS)
    assert inspect(place)["taken_down"] == {"shards": 0}
    told = takedown(place, urls=["/train/0/"])
    found = inspect(place, tables=True)
    assert found["taken_down"] == {"shards": 1, "documents": 5, "tokens": 261}
    assert found["without_loss"] == {"shards": 0, "spans": 0, "tokens": 0}
    counts = {"documents": 15, "tokens": 261 + 385 + 207}
    assert found["generations"] == [
        {"number": 0, "parent": None, "made": "run", **counts, "list": None, "purged": False},
        {"number": 1, "parent": 0, "made": "takedown", **counts, "list": told["list"], "purged": False},
    ]
    assert main(["inspect", str(place), "--tables"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["inspect", str(place), "--generation", "0"]) == 0
    assert json.loads(capsys.readouterr().out) == inspect(place, 0)
