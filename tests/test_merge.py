"""Merge: several data sets beside each other in one, nothing encoded anew, whatever order they are named in."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from token_files import LARGE, PACKS, SMALL, put_tokens

from penstock import CommitConflictError, CorruptDataError, InputError, RequestError
from penstock.pipelines.cli import main
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import open_tokens
from penstock.sharding.format import Pack, Vocabulary
from penstock.sharding.roots import Folder
from penstock.sharding.store import Store
from penstock.sharding.tools import cat, inspect, verify
from penstock.sharding.tools.merging import merge, renamed
from penstock.sharding.tools.removal import takedown

FIRST = {("train", 0): [30, 100, 2, 64], ("train", 1): [64] * 20, ("validation", 0): [7, 200]}
SECOND = {("train", 0): [5, 500], ("train/code", 0): [40, 41], ("validation", 0): [9]}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("merge")
    for name, shards in (("a", FIRST), ("b", SECOND)):
        put_tokens(folder / name, folder / "spool", shards)
    return [folder / "a", folder / "b"]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_prefixes_stand_behind_the_split() -> None:
    assert [renamed(name, "a/") for name in ("train", "train/web", "validation/web", "train/web+2", "odd")] == [
        "train/a", "train/a/web", "validation/a/web", "train/a/web+2", "a/odd"
    ]  # fmt: skip
    assert renamed("train/web", "a-") == "train/a-web"
    assert renamed("train", "") == "train"


def test_documents_of_all_come_back_and_files_are_linked(sets: list[Path], tmp_path: Path) -> None:
    told = merge(sets, tmp_path / "out", prefixes=["a/", "b/"])
    assert told["streams"] == ["train/a", "train/b", "train/b/code", "validation/a", "validation/b"]
    assert (told["copied"], told["packs"], told["packs_left_out"]) == (0, ["best_fit-64", "concat-32"], [])
    assert verify(tmp_path / "out")["documents"] == told["documents"] == 26 + 5
    hidden = ("stream", "shard")
    documents = [
        sorted(str({name: value for name, value in item.items() if name not in hidden}) for item in cat(root))
        for root in (*sets, tmp_path / "out")
    ]
    assert sorted([*documents[0], *documents[1]]) == documents[2]
    entry = open_tokens(tmp_path / "out").generation.shards[0]
    assert (tmp_path / "out" / entry.path(".bin")).stat().st_nlink > 1
    assert inspect(tmp_path / "out")["generations"][0]["made"] == "merge"


def test_arguments_in_any_order_give_equal_bytes(sets: list[Path], tmp_path: Path) -> None:
    merge(sets, tmp_path / "one", prefixes=["a/", "b/"])
    merge(sets[::-1], tmp_path / "other", prefixes=["b/", "a/"])
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    before = contents(tmp_path / "one")
    merge(sets, tmp_path / "one", prefixes=["a/", "b/"])
    assert contents(tmp_path / "one") == before


def test_names_that_stay_keep_shards_and_order(sets: list[Path], tmp_path: Path) -> None:
    merge(sets, tmp_path / "out", prefixes=["", "b/"])
    old, new = open_tokens(sets[0]), open_tokens(tmp_path / "out")
    assert {shard.name for shard in old.generation.shards} <= {shard.name for shard in new.generation.shards}
    for weights in ({"train": 1}, {"validation": 1}):
        rows = [
            np.concatenate([batch.tokens for batch in StreamingLoader(
                data, 3, pack="best_fit-64", weights=weights, epochs=1, tail="short")])
            for data in (old, new)
        ]  # fmt: skip
        assert np.array_equal(rows[0], rows[1])


def test_what_was_taken_down_stays_down(sets: list[Path], tmp_path: Path) -> None:
    shutil.copytree(sets[0], tmp_path / "a")
    takedown(tmp_path / "a", urls=["/train/0/1"])
    merge([tmp_path / "a", sets[1]], tmp_path / "out", prefixes=["a/", "b/"])
    assert verify(tmp_path / "out")["taken_down"] == {"shards": 1, "documents": 1, "tokens": 100}


def test_only_packs_that_all_have_are_kept(sets: list[Path], tmp_path: Path) -> None:
    put_tokens(tmp_path / "c", tmp_path / "spool", {("train/c", 0): [9, 70]}, packs=(*PACKS, Pack(16, "best_fit")))
    put_tokens(tmp_path / "d", tmp_path / "spool", {("train/d", 0): [9, 70]}, packs=PACKS[1:])
    told = merge([sets[0], tmp_path / "c", tmp_path / "d"], tmp_path / "out")
    assert (told["packs"], told["packs_left_out"]) == (["concat-32"], ["best_fit-16", "best_fit-64"])
    assert verify(tmp_path / "out")["verified"]
    assert not list((tmp_path / "out" / "data").glob("*.best_fit-*.npy"))


def test_a_vocabulary_of_another_name_is_the_same(sets: list[Path], tmp_path: Path) -> None:
    put_tokens(tmp_path / "c", tmp_path / "spool", {("train/c", 0): [9, 70]}, replace(SMALL, name="also small"))
    merge([sets[0], tmp_path / "c"], tmp_path / "out")
    assert verify(tmp_path / "out")["vocabulary"]["name"] == "also small"


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        (LARGE, "their fingerprint is"),
        (replace(SMALL, size=999), "their size is 1000 and 999|their size is 999 and 1000"),
        (replace(SMALL, eos_id=0, bos_id=7), "their bos_id is"),
    ],
)
def test_refuses_other_vocabularies(sets: list[Path], tmp_path: Path, vocabulary: Vocabulary, words: str) -> None:
    put_tokens(tmp_path / "c", tmp_path / "spool", {("train/c", 0): [9, 70]}, vocabulary)
    with pytest.raises(InputError, match=f"vocabularies .* and .* are not the same: ({words})"):
        merge([sets[0], tmp_path / "c"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refuses_what_does_not_fit(sets: list[Path], tmp_path: Path) -> None:
    put_tokens(tmp_path / "c", tmp_path / "spool", {("train/c", 0): [9, 70]}, packs=(Pack(16, "concat"),))
    with pytest.raises(
        InputError, match="no pack is common to all of them, they have best_fit-64, concat-32; concat-16"
    ):
        merge([sets[0], tmp_path / "c"], tmp_path / "out")
    with pytest.raises(InputError, match="both have a stream train: give each data set a prefix"):
        merge(sets, tmp_path / "out")
    for paths, prefixes, words in (
        (sets[:1], None, "two data sets or more, not 1"),
        (sets, ["a/"], "2 data sets and 1 prefixes"),
    ):
        with pytest.raises(RequestError, match=words):
            merge(paths, tmp_path / "out", prefixes=prefixes)
    with pytest.raises(RequestError, match="is one of the data sets to merge"):
        merge(sets, sets[0], prefixes=["a/", "b/"])
    merge(sets, tmp_path / "out", prefixes=["a/", "b/"])
    with pytest.raises(CommitConflictError, match="stands with other content"):
        merge(sets, tmp_path / "out", prefixes=["c/", "d/"])


def test_without_links_files_are_copied_and_verified(
    sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(sets, tmp_path / "linked", prefixes=["a/", "b/"])
    monkeypatch.setattr(Folder, "link", lambda self, name, source: False)
    told = merge(sets, tmp_path / "out", prefixes=["a/", "b/"])
    assert told["linked"] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "linked")
    shutil.copytree(sets[0], tmp_path / "bad")
    entry = open_tokens(sets[0]).generation.shards[0]
    (tmp_path / "bad" / entry.path(".bin")).write_bytes(b"wrong")
    with pytest.raises(RuntimeError, match=r"\.bin does not match its SHA-256"):
        merge([tmp_path / "bad", sets[1]], tmp_path / "never", prefixes=["a/", "b/"])


def test_verify_holds_a_merge_to_what_it_says_of_itself(sets: list[Path], tmp_path: Path) -> None:
    merge(sets, tmp_path / "out", prefixes=["a/", "b/"])
    (record,) = (tmp_path / "out" / "merges").iterdir()
    told = json.loads(record.read_text())
    assert {(part["tokens_sha256"], part["prefix"]) for part in told["parts"]} == {
        (open_tokens(root).generation.tokens_sha256, prefix) for root, prefix in zip(sets, ("a/", "b/"), strict=True)
    }
    record.write_text(json.dumps({**told, "parts": []}))
    with pytest.raises(CorruptDataError, match=r"merges/.* does not match the SHA-256 in its name"):
        verify(tmp_path / "out")


def test_from_and_to_an_object_store(sets: list[Path], tmp_path: Path) -> None:
    for name in Store(sets[0]).list():
        Store("memory://merge/a").put_named(sets[0] / name, name)
    merge(["memory://merge/a", sets[1]], tmp_path / "out", prefixes=["a/", "b/"])
    merge(sets, tmp_path / "local", prefixes=["a/", "b/"])
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


def test_the_command(sets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "out")
    assert main(["merge", *map(str, sets), "--output", output, "--prefix", "a/", "b/"]) == 0
    text = capsys.readouterr().out
    assert "31 documents" in text
    assert "train/a, train/b, train/b/code" in text
    assert main(["merge", *map(str, sets), "--output", output + "2"]) == 2
