"""Diff: what was added, removed, changed, taken down between data sets and generations; whether rows keep place."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from token_files import LARGE, PACKS, SMALL, put_shard, put_tokens

from penstock import CorruptDataError
from penstock.pipelines.cli import main
from penstock.sharding.dataset import open_tokens, write_generation
from penstock.sharding.format import Generation, Pack
from penstock.sharding.store import Store
from penstock.sharding.tools.differences import diff
from penstock.sharding.tools.removal import takedown

SHARDS = {("train/en", 0): [30, 100, 2, 64], ("train/en", 1): [64] * 20, ("validation", 0): [7, 200]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diff")
    put_tokens(folder / "set", folder / "spool", SHARDS)
    return folder / "set"


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "set")
    return tmp_path / "set"


def test_a_copy_is_equal(root: Path, written: Path) -> None:
    found = diff(root, written)
    assert found["equal"] is True
    assert not any(found[name] for name in ("vocabulary", "packs", "streams", "shards"))
    assert found["order_kept"] == {"best_fit-64": True, "concat-32": True}


def test_what_was_taken_down_is_counted_and_moves_nothing(root: Path, written: Path) -> None:
    takedown(root, urls=["/train/en/0/"])
    found = diff(root, root, 0, 1)
    assert found == {**diff(written, root), "a": found["a"]}
    assert found["equal"] is False
    assert found["taken_down"] == {"documents": 4, "tokens": 196}
    assert found["shards"] == {
        "added": 0, "removed": 0, "changed": 1,
        "shown": [{"change": "changed", "stream": "train/en", "number": 0,
                   "members": [".bin", ".docs.parquet", ".gone.npy", ".json", ".sums.npy"]}],
    }  # fmt: skip
    assert found["order_kept"] == {"best_fit-64": True, "concat-32": True}
    assert not found["streams"]
    assert diff(root, root, 1, 0)["taken_down"] == {"documents": 0, "tokens": 0}


def test_appended_streams_and_packs(root: Path, tmp_path: Path) -> None:
    old = open_tokens(root).generation
    entry = put_shard(root, tmp_path / "spool", "train/en+1", 0, [20, 30])
    made = Generation.of(1, SMALL, PACKS, [*old.shards, entry], old, "append")
    write_generation(Store(root), made)
    found = diff(root, root, 0, 1)
    assert found["streams"] == {
        "added": {"train/en+1": {"shards": 1, "documents": 2, "tokens": 50}}, "removed": {}, "changed": {},
    }  # fmt: skip
    assert found["shards"]["added"] == 1
    assert found["order_kept"] == {"best_fit-64": True, "concat-32": True}
    back = diff(root, root, 1, 0)
    assert (back["shards"]["removed"], list(back["streams"]["removed"])) == (1, ["train/en+1"])
    assert back["order_kept"] == {"best_fit-64": False, "concat-32": False}


def test_other_documents_and_packs_are_other_rows(root: Path, tmp_path: Path) -> None:
    other = {**SHARDS, ("train/en", 1): [64] * 19, ("train/en", 2): [3]}
    put_tokens(tmp_path / "other", tmp_path / "spool", other, packs=(PACKS[0], Pack(16, "concat")))
    found = diff(root, tmp_path / "other")
    assert (found["packs"]["added"], found["packs"]["removed"]) == (["concat-16"], ["concat-32"])
    assert found["streams"]["changed"]["train/en"] == {
        "shards": [2, 3], "tokens": [196 + 64 * 20, 196 + 64 * 19 + 3]
    }  # fmt: skip
    assert {name: found["shards"][name] for name in ("added", "removed", "changed")} == {
        "added": 1, "removed": 0, "changed": 1
    }  # fmt: skip
    assert found["order_kept"] == {"best_fit-64": False}


def test_rows_of_equal_counts_and_other_documents_are_other_rows(root: Path, tmp_path: Path) -> None:
    put_tokens(tmp_path / "other", tmp_path / "spool", {**SHARDS, ("validation", 0): [200, 7]})
    assert diff(root, tmp_path / "other")["order_kept"] == {"best_fit-64": False, "concat-32": False}


def test_vocabularies(root: Path, tmp_path: Path) -> None:
    put_tokens(tmp_path / "large", tmp_path / "spool", SHARDS, LARGE)
    told = diff(root, tmp_path / "large")["vocabulary"]
    assert told["dtype"] == ["uint16", "uint32"]
    assert told["bos_id"] == [None, 1]
    put_tokens(tmp_path / "named", tmp_path / "spool", SHARDS, replace(SMALL, name="other"))
    assert list(diff(root, tmp_path / "named")["vocabulary"]) == ["name"]


def test_what_was_gone_in_a_purged_generation_is_unknown(root: Path) -> None:
    takedown(root, urls=["/train/en/0/1"])
    first = open_tokens(root)
    takedown(root, urls=["/train/en/0/"], purge=True)
    with pytest.raises(CorruptDataError, match="or its generation was purged"):
        diff(first, root)


def test_the_command_exits_as_diff_does(root: Path, written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(root), str(written)]) == 0
    assert "equal: every member" in capsys.readouterr().out
    assert main(["diff", str(root)]) == 2
    assert "has one generation, 0" in capsys.readouterr().err
    takedown(root, urls=["/train/en/0/"])
    assert main(["diff", str(root)]) == 1
    text = capsys.readouterr().out
    for words in ("generation 0 (run)", "generation 1 (takedown)", "1 changed", "taken down  4 documents, 196 tokens",
                  "order       concat-32: every row of a comes in b at its place"):  # fmt: skip
        assert words in text
    assert main(["diff", str(root), "--generations", "0", "1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == diff(root, root, 0, 1)
