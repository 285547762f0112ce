"""Generations: packs and cohorts are added, no token is touched, no row that stood moves; what would is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_files import PACKS, SHARDS, VOCABULARY, put_data
from token_files import PACKS as SMALL_PACKS
from token_files import SMALL, put_shard, put_tokens

from penstock import CommitConflictError, CorruptDataError, RequestError
from penstock.pipelines.cli import main
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData, open_tokens, read_generation, write_generation
from penstock.sharding.format import Generation, Pack, ShardTable
from penstock.sharding.generations import add_pack, append, append_shards, split_documents
from penstock.sharding.order import geometry
from penstock.sharding.store import Store, sha256
from penstock.sharding.succession import prove_child
from penstock.sharding.tools import verify

PLACES: Mapping[tuple[str, int], Sequence[int]] = {("a", 0): [5, 90, 3], ("a", 1): [70, 2], ("b", 0): [64]}
MORE: Mapping[tuple[str, int], Sequence[int]] = {("a", 0): [11, 4], ("c", 0): [9], ("c", 2): [30]}


@pytest.fixture
def data(tmp_path: Path) -> TokenData:
    return put_tokens(tmp_path / "set", tmp_path / "spool", PLACES)


@pytest.fixture
def more(tmp_path: Path) -> TokenData:
    return put_tokens(tmp_path / "more", tmp_path / "spool", MORE, packs=SMALL_PACKS[:1])


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """What would change if a file were written again."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("pack", [Pack(16, "best_fit"), Pack(7, "concat")], ids=lambda pack: pack.name)
def test_an_added_pack_is_the_one_that_would_have_been_written(data: TokenData, tmp_path: Path, pack: Pack) -> None:
    before = stamps(tmp_path / "set")
    made = add_pack(tmp_path / "set", pack)
    assert (made.number, made.parent, made.made) == (1, 0, "pack")
    assert made.tokens_sha256 == data.generation.tokens_sha256
    assert stamps(tmp_path / "set").items() >= before.items()
    at_once = put_tokens(tmp_path / "at once", tmp_path / "spool", PLACES, packs=[*SMALL_PACKS, pack]).generation
    read = open_tokens(tmp_path / "set").generation
    assert (read, read.shards, read.packs) == (made, at_once.shards, at_once.packs)
    assert verify(tmp_path / "set")["packs"][pack.name]["rows"] == made.shards.total(f"rows.{pack.name}")
    old = read_generation(data.store, 0)
    assert old == data.generation
    prove_child(old, made)


def test_a_pack_that_is_there_makes_no_generation(data: TokenData, tmp_path: Path) -> None:
    before = stamps(tmp_path / "set")
    assert add_pack(tmp_path / "set", SMALL_PACKS[0]) == data.generation
    assert stamps(tmp_path / "set") == before


def test_what_was_killed_is_done_again_and_writes_nothing_twice(data: TokenData, tmp_path: Path) -> None:
    pack = Pack(16, "best_fit")
    made = add_pack(data, pack)
    (tmp_path / "set" / "generations" / "1.json").unlink()
    (tmp_path / "set" / made.shards[2].path(pack.suffix)).unlink()
    before = stamps(tmp_path / "set")
    assert add_pack(tmp_path / "set", pack) == made
    assert stamps(tmp_path / "set").items() >= before.items()


def killed_at(point: str, work: Callable[[], Any]) -> bool:
    """Do it in a fork that dies by SIGKILL at a crash point; say whether it came there."""
    child = os.fork()
    if child == 0:
        os.environ["PENSTOCK_CRASH_AT"] = point
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["pack", "append"])
def test_killed_anywhere_the_same_command_finishes(
    data: TokenData, more: TokenData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing to clean up; whoever reads meanwhile reads the generation before, or the new one, whole."""
    monkeypatch.setattr(Store, "link_named", lambda self, source, name: False)

    def work(folder: Path) -> Generation:
        return add_pack(folder, Pack(16, "best_fit")) if what == "pack" else append(folder, tmp_path / "more")

    shutil.copytree(tmp_path / "set", tmp_path / "whole")
    wanted, names = work(tmp_path / "whole"), Store(tmp_path / "whole").list()
    for point in ("object-spooled", "object-spooled:3", "object-written", "object-written:2", "object-written:4",
                  "receipt-spooled", "receipt-committed"):  # fmt: skip
        folder = tmp_path / point
        shutil.copytree(tmp_path / "set", folder)
        assert killed_at(point, lambda folder=folder: work(folder)), point  # type: ignore[misc]
        assert verify(folder)["generation"] == int(point == "receipt-committed")
        assert work(folder) == wanted
        assert open_tokens(folder).generation == wanted
        assert Store(folder).list() == names


@pytest.mark.long
def test_processes_lay_out_the_same(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        put_tokens(tmp_path / name, tmp_path / "spool", PLACES)
        add_pack(tmp_path / name, Pack(16, "best_fit"), workers)
    one, two = (open_tokens(tmp_path / name).generation for name in ("one", "two"))
    assert one == two
    assert one.table == two.table


def test_documents_that_a_pack_splits_are_counted(data: TokenData) -> None:
    """By the definition: a document with tokens in more than one row."""
    for pack in SMALL_PACKS:
        wanted = 0
        for shard in range(len(data.generation.shards)):
            reader = data.reader(shard)
            table = reader.table(pack)
            rows = [{int(piece["document"]) for piece in table.pieces(row)[1]} for row in range(table.rows)]
            documents = [document for row in rows for document in row]
            wanted += sum(documents.count(document) > 1 for document in set(documents))
        assert split_documents(data, pack) == wanted > 0


@pytest.mark.parametrize("linked", [True, False])
def test_appended_shards_are_cohorts_of_the_same_objects(
    data: TokenData, more: TokenData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    if not linked:
        monkeypatch.setattr(Store, "link_named", lambda self, source, name: False)
    before, theirs = stamps(tmp_path / "set"), stamps(tmp_path / "more")
    made = append(tmp_path / "set", tmp_path / "more")
    assert (made.number, made.parent, made.made) == (1, 0, "append")
    assert made.streams == ("a", "b", "a+1", "c")
    assert [(entry.stream, entry.number) for entry in made.shards] == [*PLACES, ("a+1", 0), ("c", 0), ("c", 2)]
    assert tuple(made.shards[:3]) == tuple(data.generation.shards)
    assert stamps(tmp_path / "set").items() >= before.items()
    assert stamps(tmp_path / "more") == theirs
    verify(tmp_path / "set")
    after = open_tokens(tmp_path / "set")
    for shard in range(3):
        mine, other = after.reader(3 + shard), more.reader(shard)
        assert mine.entry.sha256 == other.entry.sha256
        assert mine.tokens(0, 10**9).tolist() == other.tokens(0, 10**9).tolist()
        assert mine.member(".docs.parquet") == other.member(".docs.parquet")
        same = [path.stat().st_ino for path in map(Path, (mine.store.url, other.store.url)) for path in
                [path / (mine if path.name == "set" else other).entry.path(".bin")]]  # fmt: skip
        assert (same[0] == same[1]) is linked
        for pack in SMALL_PACKS:
            assert mine.table(pack).count == mine.entry.packs[pack.name]


def test_an_appended_shard_is_the_one_that_would_have_been_written(
    data: TokenData, more: TokenData, tmp_path: Path
) -> None:
    entry = append(data, more).shards[3]
    documents = more.reader(0).member(".docs.parquet")
    written = put_shard(tmp_path / "again", tmp_path / "spool", "a+1", 0, [11, 4], documents=bytes(documents))
    assert written == entry
    for suffix in entry.members:
        assert (tmp_path / "again" / entry.path(suffix)).read_bytes() == data.store.read(entry.path(suffix)), suffix


def test_cohorts_are_numbered_on(data: TokenData, more: TokenData, tmp_path: Path) -> None:
    append(data, more)
    third = put_tokens(tmp_path / "third", tmp_path / "spool", {("a+1", 0): [8, 8]})
    made = append(tmp_path / "set", third)
    assert made.streams == ("a", "b", "a+1", "c", "a+2")
    assert made.number == 2
    add_pack(tmp_path / "set", Pack(16, "best_fit"))
    assert verify(tmp_path / "set")["generation"] == 3
    again = append(put_tokens(tmp_path / "new", tmp_path / "spool", {("z", 0): [4]}), tmp_path / "set")
    assert again.streams == ("z", "a", "a+1", "a+2", "b", "c")


def test_marks_go_along(data: TokenData, tmp_path: Path) -> None:
    entry = put_shard(
        tmp_path / "marked", tmp_path / "spool", "a", 0, [4, 3, 5], loss=np.array([[0, 2], [7, 8]]), gone=[1]
    )
    write_generation(Store(tmp_path / "marked"), Generation.of(0, SMALL, SMALL_PACKS, [entry]))
    made = append(data, tmp_path / "marked")
    reader = open_tokens(tmp_path / "set").reader(3)
    assert (reader.loss.tolist(), reader.gone.tolist()) == ([[0, 2], [7, 8]], [1])
    assert made.shards.has(".gone.npy").tolist() == [False, False, False, True]
    assert verify(tmp_path / "set")["shards"] == 4


def test_the_same_data_are_not_appended_twice(data: TokenData, more: TokenData, tmp_path: Path) -> None:
    made = append(data, more)
    before = stamps(tmp_path / "set")
    assert append(tmp_path / "set", more) == made
    assert append(data, data) == data.generation
    assert stamps(tmp_path / "set") == before
    part = put_tokens(tmp_path / "part", tmp_path / "spool", {("a", 0): MORE["a", 0], ("z", 0): [3]})
    with pytest.raises(RequestError, match=r"has 1 of the 2 shards of .*part already, a-00000.*read twice"):
        append(tmp_path / "set", part)


@pytest.mark.parametrize(
    "changes", [{"dtype": "uint32"}, {"size": 999}, {"fingerprint": "6" * 64}, {"eos_id": 1}, {"bos_id": 2}]
)
def test_another_vocabulary_is_refused(data: TokenData, tmp_path: Path, changes: dict[str, Any]) -> None:
    other = put_tokens(tmp_path / "other", tmp_path / "spool", {("a", 0): [4]}, replace(SMALL, **changes))
    with pytest.raises(RequestError, match="encode the new documents with the tokenizer of the old"):
        append(data, other)
    assert open_tokens(tmp_path / "set").generation.number == 0


def test_the_name_of_a_vocabulary_is_not_its_behaviour(data: TokenData, tmp_path: Path) -> None:
    append(data, put_tokens(tmp_path / "other", tmp_path / "spool", {("a", 0): [4]}, replace(SMALL, name="else")))
    assert verify(tmp_path / "set")["shards"] == 4


def test_what_lies_in_an_object_store_is_copied_and_verified(data: TokenData, more: TokenData) -> None:
    remote = Store("memory://appended/more")
    for name in more.store.list():
        remote.put_named(more.store.read(name), name)
    made = append(data, remote.url)
    assert (made.streams, made.number) == (("a", "b", "a+1", "c"), 1)
    assert verify(data.store.url)["shards"] == 6


def test_a_damaged_object_is_not_copied(
    data: TokenData, more: TokenData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Store, "link_named", lambda self, source, name: False)
    path = tmp_path / "more" / more.generation.shards[1].path(".bin")
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    with pytest.raises(CorruptDataError, match=r"\.bin does not match its SHA-256"):
        append(data, more)
    assert open_tokens(tmp_path / "set").generation.number == 0


def test_a_stream_never_grows(data: TokenData, tmp_path: Path) -> None:
    entry = put_shard(tmp_path / "set", tmp_path / "spool", "a", 7, [3])
    with pytest.raises(RequestError, match=r"has the streams a already.* append to a\+1"):
        append_shards(data, [entry])


def test_of_two_writers_one_is_refused_in_words(data: TokenData, more: TokenData, tmp_path: Path) -> None:
    """Both began from generation 0; the second goes on from what the first made when it is run again."""
    append(data, more)
    with pytest.raises(CommitConflictError, match=r"another writer made generation 1 of .* run the same command again"):
        add_pack(data, Pack(16, "best_fit"))
    assert add_pack(tmp_path / "set", Pack(16, "best_fit")).number == 2
    assert add_pack(data, SMALL_PACKS[0]) == data.generation


def read_all(data: TokenData, **asked: Any) -> list[list[int]]:
    loader = StreamingLoader(data, 8, pack="best_fit-32", epochs=1, tail="pad", seed=3, **asked)
    return [row for batch in loader for row in batch.tokens.tolist()]


def test_rows_of_what_stood_keep_their_order_and_documents_their_ids(tmp_path: Path) -> None:
    data = put_data(tmp_path / "set")
    more = put_data(tmp_path / "more", shards={"train/a": (30,), "validation/a": (3,)})
    rows, orders = read_all(data), data.generation.pack("best_fit-32").streams
    made = append(data, put_data(tmp_path / "fresh", shards={"train/b": (21, 4)}))
    after = open_tokens(tmp_path / "set")
    assert after.generation == made
    only = {"train/a": orders["train/a"].rows, "train/b": orders["train/b"].rows, "train/b+1": 0}
    assert read_all(after, weights=only) == rows
    with_all = read_all(after)
    assert len(with_all) > len(rows)
    assert {tuple(row) for row in rows} <= {tuple(row) for row in with_all}
    assert more.generation.vocabulary == VOCABULARY
    assert set(SHARDS) < set(made.streams)


def changed(records: Any, column: str, at: int) -> Any:
    records = records.copy()
    records[column][at] += 1
    return records


def with_records(child: Generation, change: Callable[[Any], Any]) -> Generation:
    shards = child.shards
    return replace(child, shards=ShardTable(shards.streams, shards.packs, change(shards.records)))


def turned(records: Any) -> Any:
    records = records.copy()
    records[".ends.npy"][1] ^= 1
    return records


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda child: replace(child, number=3), "it says it is number 3, made from 0"),
        (lambda child: replace(child, parent=1), "made from 1"),
        (lambda child: replace(child, vocabulary=replace(SMALL, eos_id=1)), "its vocabulary is"),
        (lambda child: replace(child, packs=child.packs[1:]), "pack best_fit-64 is missing"),
        (lambda child: replace(child, packs=(replace(child.packs[0], group_rows=4), *child.packs[1:])),
         "a full group of pack best_fit-64 has 4 rows"),
        (lambda child: replace(child, packs=(replace(child.packs[0], streams={**child.packs[0].streams,
                                                                              "a": geometry(9, 2, 1)}),
                                             *child.packs[1:])), "stream 'a' of pack best_fit-64 has the order"),
        (lambda child: with_records(child, lambda records: records[:2]), "it has 2 shards, there were 3"),
        (lambda child: with_records(child, lambda records: changed(records, "tokens", 1)), "has tokens 73, it had 72"),
        (lambda child: with_records(child, lambda records: changed(records, "number", 1)), "has number 2, it had 1"),
        (lambda child: with_records(child, lambda records: changed(records, "rows.concat-32", 0)), "has rows.c"),
        (lambda child: with_records(child, turned), "pack changes no shard, but"),
        (lambda child: replace(child, shards=ShardTable(("b", "a"), child.shards.packs, child.shards.records)),
         "new ones stand behind these"),
    ],
)  # fmt: skip
def test_a_child_that_would_move_a_row_is_refused(
    data: TokenData, change: Callable[[Generation], Generation], words: str
) -> None:
    parent = data.generation
    entries = list(parent.shards)
    child = Generation.of(1, SMALL, SMALL_PACKS, entries, parent, "pack")
    prove_child(parent, child)
    wrong = change(child)
    with pytest.raises(RequestError, match=words):
        prove_child(parent, wrong)
    if wrong.parent == 0 and wrong.number == 1:
        with pytest.raises(RequestError, match="cannot follow generation 0"):
            write_generation(data.store, wrong)
    assert open_tokens(data.store.url).generation.number == 0


def test_only_a_takedown_changes_a_shard(data: TokenData) -> None:
    parent = data.generation
    entry = replace(parent.shards[0], name="other", sha256=sha256(b"x"))
    entry = replace(entry, members={**entry.members, ".bin": entry.sha256})
    entries = [entry, *parent.shards[1:]]
    prove_child(parent, Generation.of(1, SMALL, SMALL_PACKS, entries, parent, "takedown"))
    with pytest.raises(RequestError, match=r"append changes no shard, but a-00000-.* became other"):
        prove_child(parent, Generation.of(1, SMALL, SMALL_PACKS, entries, parent, "append"))


def test_the_commands_print_what_they_made(
    data: TokenData, more: TokenData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "set")
    for _ in range(2):
        assert main(["pack", folder, "--length", "16"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["generation"], told["pack"], told["documents"]) == (1, "best_fit-16", 6)
        assert told["fill"] == round(told["tokens"] / (told["rows"] * 16), 6)
        assert told["split_documents"] == 3
    assert main(["append", folder, str(tmp_path / "more")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["streams"] == {"a+1": {"tokens": 15}, "c": {"tokens": 39}}
    assert (told["generation"], told["parent"], told["made"], told["shards"]) == (2, 1, "append", 6)
    assert main(["verify", folder]) == 0
    for wrong, word in (
        (["pack", folder, "--length", "0"], "1 to 2^30"),
        (["pack", str(tmp_path), "--length", "8"], "holds no tokens"),
        (["append", folder, str(tmp_path)], "holds no tokens"),
    ):
        assert main(wrong) == 2
        assert word in capsys.readouterr().err


def test_numbers_of_a_pack_are_64_bits(data: TokenData) -> None:
    table = data.generation.shards
    huge = np.full(3, 1 << 60, np.int64)
    added = table.with_pack(PACKS[0], 8, huge, huge, np.zeros(0, np.uint8))
    assert added.total("rows.concat-16") == 3 << 60
    assert added[2].packs["concat-16"].full_groups == 1 << 57
