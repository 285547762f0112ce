"""Format 1: golden bytes, JSON in one form, newer majors refused, generations committed once, paths followed."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from token_files import GOLDEN, GOLDEN_SHARDS, LARGE, PACKS, SMALL, put_shard, put_tokens, tokens_of

from penstock import CommitConflictError, CorruptDataError, InputError
from penstock.sharding.canonical import canonical
from penstock.sharding.dataset import open_tokens, read_generation, write_generation
from penstock.sharding.format import Generation, Pack, Vocabulary
from penstock.sharding.store import Store

GOLDEN_SUMS = {
    "uint16": "8dfc16fb68849b5bd1f54fc3ee013b1013d97de83cbbf20cf24f913f48c4a29d",
    "uint32": "4d4abadb40825e50702a14db586c142998f2accc6d7e077af30317890fd6b229",
}


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def generation(tmp_path: Path, spool: Path) -> Generation:
    return put_tokens(tmp_path / "set", spool, {("b", 0): [5, 9], ("a", 1): [70], ("a", 0): [3, 3, 3]}).generation


@pytest.mark.parametrize("vocabulary", [SMALL, LARGE], ids=["uint16", "uint32"])
def test_golden_files_are_read(vocabulary: Vocabulary) -> None:
    data = open_tokens(GOLDEN / vocabulary.dtype)
    assert data.generation.vocabulary == vocabulary
    assert data.generation.tokens_sha256 == GOLDEN_SUMS[vocabulary.dtype]
    assert [order.pack for order in data.generation.packs] == list(PACKS)
    for shard, (place, lengths) in enumerate(sorted(GOLDEN_SHARDS[vocabulary].items())):
        reader = data.reader(shard)
        assert (reader.entry.stream, reader.entry.number) == place
        expected = [token for at, length in enumerate(lengths) for token in tokens_of(vocabulary, at, length)]
        assert reader.tokens(0, reader.entry.tokens).tolist() == expected


@pytest.mark.parametrize("vocabulary", [SMALL, LARGE], ids=["uint16", "uint32"])
def test_golden_bytes_are_written_again(vocabulary: Vocabulary, tmp_path: Path, spool: Path) -> None:
    golden = open_tokens(GOLDEN / vocabulary.dtype).generation
    for entry, (place, lengths) in zip(golden.shards, sorted(GOLDEN_SHARDS[vocabulary].items()), strict=True):
        documents = (GOLDEN / vocabulary.dtype / entry.path(".docs.parquet")).read_bytes()
        assert put_shard(tmp_path / "set", spool, *place, lengths, vocabulary, documents=documents) == entry
        for suffix in entry.members:
            written = tmp_path / "set" / entry.path(suffix)
            assert written.read_bytes() == (GOLDEN / vocabulary.dtype / entry.path(suffix)).read_bytes(), suffix
    body = (GOLDEN / vocabulary.dtype / "generations" / "0.json").read_bytes()
    assert canonical(golden.to_json()) == body


def test_tokens_sha256_is_over_payload_digests_in_stream_and_number_order(tmp_path: Path, spool: Path) -> None:
    held = generation(tmp_path, spool)
    assert [(shard.stream, shard.number) for shard in held.shards] == [("a", 0), ("a", 1), ("b", 0)]
    digests = [hashlib.sha256((tmp_path / "set" / shard.path(".bin")).read_bytes()) for shard in held.shards]
    assert held.tokens_sha256 == hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
    assert replace(held, packs=()).tokens_sha256 == held.tokens_sha256


def test_values_round_trip_and_a_newer_minor_may_say_more(tmp_path: Path, spool: Path) -> None:
    held = generation(tmp_path, spool)
    values = json.loads(canonical(held.to_json()))
    assert Generation.from_json(values) == held
    assert pickle.loads(pickle.dumps(held)) == held
    values["version"] = [1, 7]
    values["note"] = values["shards"][0]["note"] = values["vocabulary"]["note"] = "of a later minor"
    assert Generation.from_json(values) == held


def rewritten(tmp_path: Path, **changes: Any) -> Store:
    path = tmp_path / "set" / "generations" / "0.json"
    path.write_bytes(canonical({**json.loads(path.read_bytes()), **changes}))
    return Store(tmp_path / "set")


def test_newer_majors_are_refused_in_words(tmp_path: Path, spool: Path) -> None:
    generation(tmp_path, spool)
    with pytest.raises(InputError, match=r"has format 2\.0, this penstock reads 1\.x: pip install --upgrade penstock"):
        read_generation(rewritten(tmp_path, version=[2, 0]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"magic": "another"}, "magic is not 'penstock-tokens'"),
        ({"version": "1.0"}, "version is '1.0'"),
        ({"tokens_sha256": "0" * 64}, "its shards give"),
        ({"shards": [{}]}, "is damaged"),
        ({"vocabulary": {"dtype": "int32"}}, "is damaged"),
    ],
)
def test_a_damaged_generation_is_named(tmp_path: Path, spool: Path, changes: dict[str, Any], words: str) -> None:
    generation(tmp_path, spool)
    with pytest.raises(CorruptDataError, match=words):
        read_generation(rewritten(tmp_path, **changes))


def change_rows(values: dict[str, Any]) -> None:
    values["packs"][0]["streams"]["a"]["tail_rows"] -= 1


def change_groups(values: dict[str, Any]) -> None:
    values["packs"][1]["group_rows"] += 1


def change_a_shard(values: dict[str, Any]) -> None:
    values["shards"][0]["packs"]["concat-32"]["full_groups"] += 1


def drop_a_member(values: dict[str, Any]) -> None:
    del values["shards"][1]["members"][".best_fit-64.npy"]


def drop_a_pack(values: dict[str, Any]) -> None:
    del values["shards"][1]["packs"]["concat-32"]


def drop_a_stream(values: dict[str, Any]) -> None:
    del values["packs"][0]["streams"]["b"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_rows, "its streams of pack best_fit-64 have groups, rows a group and tail .*'a': .* its shards"),
        (change_groups, "does not have the pack concat-32 with"),
        (change_a_shard, "its streams of pack concat-32"),
        (drop_a_member, r"shard .* has no \.best_fit-64\.npy"),
        (drop_a_pack, "does not have the pack concat-32"),
        (drop_a_stream, "its streams of pack best_fit-64"),
    ],
)
def test_a_generation_that_contradicts_itself_is_refused(
    tmp_path: Path, spool: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    """A loader that trusted it would leave rows out, or look for some that are not there."""
    values = json.loads(canonical(generation(tmp_path, spool).to_json()))
    change(values)
    with pytest.raises(CorruptDataError, match=words):
        read_generation(rewritten(tmp_path, **values))


def test_a_truncated_generation_is_named(tmp_path: Path, spool: Path) -> None:
    generation(tmp_path, spool)
    path = tmp_path / "set" / "generations" / "0.json"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptDataError, match="it is not JSON"):
        open_tokens(tmp_path / "set")


def test_a_generation_is_committed_once_and_the_highest_is_current(tmp_path: Path, spool: Path) -> None:
    held, store = generation(tmp_path, spool), Store(tmp_path / "set")
    write_generation(store, held)
    fewer = Generation.of(0, SMALL, PACKS, held.shards[:1])
    with pytest.raises(CommitConflictError, match=r"another writer made generation 0"):
        write_generation(store, fewer)
    write_generation(store, replace(fewer, number=10))
    write_generation(store, replace(held, number=9))
    assert open_tokens(tmp_path / "set").generation.number == 10
    assert open_tokens(tmp_path / "set", generation=0).generation == held
    with pytest.raises(InputError, match=r"has no generation 5.*\[0, 9, 10\]"):
        open_tokens(tmp_path / "set", generation=5)


def test_a_run_is_opened_by_its_folder_its_tokens_or_the_hash(tmp_path: Path, spool: Path) -> None:
    held = put_tokens(tmp_path / "tokens" / "0abc", spool, {("a", 0): [4]}).generation
    put_tokens(tmp_path / "tokens" / "1old", spool, {("a", 0): [5]})
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": {"tokens": "0abc"}}))
    for path in (tmp_path, tmp_path / "tokens", tmp_path / "tokens" / "0abc", f"{tmp_path}/tokens/"):
        assert open_tokens(path).generation == held


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no tokens"):
        open_tokens(tmp_path / "nowhere")
    for damaged in ("{", "[]", '{"stages": {}}', '{"stages": null}'):
        (tmp_path / "manifest.json").write_text(damaged)
        with pytest.raises(CorruptDataError, match=r"manifest\.json is damaged, or no run's"):
            open_tokens(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": {"tokens": None}}))
    with pytest.raises(InputError, match="its recipe asked for text alone"):
        open_tokens(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": {"tokens": "gone"}}))
    with pytest.raises(InputError, match="has no generation"):
        open_tokens(tmp_path)


def test_packs_are_named_and_chosen(tmp_path: Path, spool: Path) -> None:
    held = generation(tmp_path, spool)
    assert held.pack("concat-32").pack == Pack(32, "concat")
    assert Pack.named("best_fit-2048") == Pack(2048, "best_fit")
    with pytest.raises(InputError, match="has best_fit-64, concat-32; pass pack="):
        held.pack()
    with pytest.raises(InputError, match="no pack 'best_fit-65'"):
        held.pack("best_fit-65")
    with pytest.raises(InputError, match="named like best_fit-2048"):
        Pack.named("worst_fit-3")
    assert Generation.of(0, SMALL, PACKS[:1], held.shards).pack().pack == PACKS[0]


@pytest.mark.parametrize(
    ("pack", "itemsize", "rows"),
    [(Pack(2048, "best_fit"), 2, 256), (Pack(2048, "best_fit"), 4, 128), (Pack(8192, "best_fit"), 4, 64),
     (Pack(8192, "concat"), 4, 32), (Pack(1 << 17, "best_fit"), 4, 8), (Pack(1 << 25, "best_fit"), 4, 1)],
)  # fmt: skip
def test_a_group_is_about_one_mebibyte(pack: Pack, itemsize: int, rows: int) -> None:
    assert pack.group_rows(itemsize) == rows


def test_what_is_not_the_format_is_refused(tmp_path: Path, spool: Path) -> None:
    for wrong, words in (
        ({"dtype": "int32"}, "uint16 or uint32"),
        ({"size": 65537}, "does not fit uint16"),
        ({"eos_id": 1000}, "EOS is 1000"),
        ({"bos_id": -1}, "BOS is -1"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(SMALL, **wrong)
    with pytest.raises(ValueError, match="concat or best_fit"):
        Pack(4, "first_fit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not 0"):
        Pack(0, "concat")
    held = generation(tmp_path, spool)
    with pytest.raises(ValueError, match="two shards of one number"):
        Generation.of(0, SMALL, PACKS, [*held.shards, held.shards[0]])
    with pytest.raises(ValueError, match="does not have the pack concat-99"):
        Generation.of(0, SMALL, [Pack(99, "concat")], held.shards)


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = """
import sys
import penstock.sharding, penstock.sharding.format, penstock.sharding.shard, penstock.sharding.packing
print(sorted({"pyarrow", "numba", "apache_beam", "torch", "fsspec", "pydantic", "pandas"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
