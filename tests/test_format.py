"""Format 1: golden bytes, JSON in one form, newer majors refused, generations committed once, paths followed."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray
from token_files import (
    GOLDEN,
    GOLDEN_MARKS,
    GOLDEN_MORE,
    GOLDEN_PACK,
    GOLDEN_SHARDS,
    LARGE,
    PACKS,
    SMALL,
    document_of,
    put_golden,
    put_tokens,
    tokens_of,
)  # fmt: skip

from penstock import CommitConflictError, CorruptDataError, InputError
from penstock.sharding import format as token_format
from penstock.sharding.canonical import canonical, sealed
from penstock.sharding.dataset import open_tokens, read_generation, write_generation
from penstock.sharding.format import Generation, Pack, Vocabulary
from penstock.sharding.npy import npy_bytes
from penstock.sharding.store import Store, sha256
from penstock.sharding.tools import verify

Records = NDArray[Any]
#: Changes a generation's values, and gives other records where the table changes too.
Change = Callable[[dict[str, Any], Records], Records | None]

#: By dtype, and whether data were appended.
GOLDEN_SUMS = {
    ("uint16", False): "df7bc6ac016ef921d9129254d0b901f1f4d790720897cb51d06aba230bb4d3ab",
    ("uint16", True): "714f9e7487c7111738a9022b9342b05fe0e540c2cd1c5a4f435ff3df7c1b9851",
    ("uint32", False): "c66389fed84b551748b7c1859504eff13e6bdbc3cd383e0757d54cf33a453c49",
}


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def generation(tmp_path: Path, spool: Path) -> Generation:
    return put_tokens(tmp_path / "set", spool, {("b", 0): [5, 9], ("a", 1): [70], ("a", 0): [3, 3, 3]}).generation


GENERATIONS = [(SMALL, 0), (SMALL, 1), (SMALL, 2), (LARGE, 0), (LARGE, 1)]


def golden_places(vocabulary: Vocabulary, number: int) -> list[tuple[str, int, list[int]]]:
    """Streams, numbers and document lengths of a golden generation, in its order."""
    places = [(*place, lengths) for place, lengths in GOLDEN_SHARDS[vocabulary].items()]
    appended = [("new", 0, GOLDEN_MORE["new", 0]), ("train/en+1", 0, GOLDEN_MORE["train/en", 0])]
    return places + appended * (number == 2)


@pytest.mark.parametrize(("vocabulary", "number"), GENERATIONS)
def test_golden_files_are_read(vocabulary: Vocabulary, number: int) -> None:
    data = open_tokens(GOLDEN / vocabulary.dtype, number)
    held = data.generation
    assert (held.vocabulary, held.number, held.parent) == (vocabulary, number, [None, 0, 1][number])
    assert held.made == ["run", "pack", "append"][number]
    assert held.tokens_sha256 == GOLDEN_SUMS[vocabulary.dtype, number == 2]
    assert [order.pack for order in held.packs] == [*PACKS, GOLDEN_PACK][: 2 + (number > 0)]
    for shard, (stream, nth, lengths) in enumerate(golden_places(vocabulary, number)):
        reader, marks = data.reader(shard), GOLDEN_MARKS[vocabulary].get((stream, nth), {})
        assert (reader.entry.stream, reader.entry.number) == (stream, nth)
        gone = marks.get("gone", [])
        expected = [token for at, length in enumerate(lengths)
                    for token in document_of(vocabulary, at, length, at in gone)]  # fmt: skip
        assert reader.tokens(0, reader.entry.tokens).tolist() == expected
        assert (reader.gone.tolist(), reader.loss.tolist()) == (gone, marks.get("loss", []))
        assert [reader.table(order.pack).count for order in held.packs] == list(reader.entry.packs.values())
    assert verify(GOLDEN / vocabulary.dtype, number)["verified"]


@pytest.mark.parametrize("vocabulary", [SMALL, LARGE], ids=["uint16", "uint32"])
def test_golden_bytes_are_written_again(vocabulary: Vocabulary, tmp_path: Path, spool: Path) -> None:
    golden = GOLDEN / vocabulary.dtype
    entries = {(entry.stream, entry.number): entry for entry in open_tokens(golden).generation.shards}

    def documents(stream: str, number: int) -> bytes:
        return (golden / entries[stream, number].path(".docs.parquet")).read_bytes()

    put_golden(tmp_path / "set", spool, vocabulary, documents)
    files = {path.relative_to(golden) for path in golden.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*") if path.is_file()} == files
    for name in files:
        assert (tmp_path / "set" / name).read_bytes() == (golden / name).read_bytes(), name


def test_tokens_sha256_is_over_payload_digests_in_stream_and_number_order(tmp_path: Path, spool: Path) -> None:
    held = generation(tmp_path, spool)
    assert [(shard.stream, shard.number) for shard in held.shards] == [("a", 0), ("a", 1), ("b", 0)]
    digests = [hashlib.sha256((tmp_path / "set" / shard.path(".bin")).read_bytes()) for shard in held.shards]
    assert held.tokens_sha256 == hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
    assert replace(held, packs=()).tokens_sha256 == held.tokens_sha256


def test_values_round_trip_and_a_newer_minor_may_say_more(tmp_path: Path, spool: Path) -> None:
    held = generation(tmp_path, spool)
    values = json.loads(canonical(held.to_json()))
    assert Generation.from_json(values, held.shards.records) == held
    assert pickle.loads(pickle.dumps(held)) == held
    values["version"] = [1, 7]
    values["note"] = values["shards"]["note"] = values["vocabulary"]["note"] = "of a later minor"
    assert Generation.from_json(values, held.shards.records) == held


def rewritten(tmp_path: Path, change: Change) -> Store:
    """Change what generation 0 and its table say, and give the table its right name: a writer's mistake."""
    store = Store(tmp_path / "set")
    values = json.loads(store.read("generations/0.json"))
    del values["seal"]
    records = change(values, np.load(tmp_path / "set" / values["shards"]["table"]))
    if records is not None:
        name = store.put(npy_bytes(records), "generations/shards-", ".npy")
        values["shards"] |= {"table": name, "sha256": sha256(store.read(name))}
    store.replace("generations/0.json", sealed(values))
    return store


def said(**changes: Any) -> Change:
    """Only the JSON says something else."""

    def change(values: dict[str, Any], records: Records) -> None:
        values.update(changes)

    return change


def test_newer_majors_are_refused_in_words(tmp_path: Path, spool: Path) -> None:
    generation(tmp_path, spool)
    with pytest.raises(InputError, match=r"has format 2\.0, this penstock reads 1\.x: pip install --upgrade penstock"):
        read_generation(rewritten(tmp_path, said(version=[2, 0])))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"magic": "another"}, "magic is not 'penstock-tokens'"),
        ({"version": "1.0"}, "version is '1.0'"),
        ({"tokens_sha256": "0" * 64}, "its shards give"),
        ({"shards": [{}]}, "is damaged"),
        ({"shards": {"table": "generations/0.json"}}, "is damaged"),
        ({"shards": {"table": "generations/0.json", "sha256": "0" * 64}}, "does not match its SHA-256"),
        ({"shards": {"table": "generations/x.npy", "sha256": "0" * 64}}, "has lost generations/x.npy"),
        ({"vocabulary": {"dtype": "int32"}}, "is damaged"),
        ({"streams": ["a"]}, "streams up to number 1"),
        ({"streams": ["a", "a"]}, "streams up to number 1"),
        ({"streams": None}, "is damaged"),
        ({"packs": None}, "is damaged"),
    ],
)
def test_a_damaged_generation_is_named(tmp_path: Path, spool: Path, changes: dict[str, Any], words: str) -> None:
    generation(tmp_path, spool)
    with pytest.raises(CorruptDataError, match=words):
        read_generation(rewritten(tmp_path, said(**changes)))


def change_rows(values: dict[str, Any], records: Records) -> None:
    values["packs"][0]["streams"]["a"]["tail_rows"] -= 1


def change_groups(values: dict[str, Any], records: Records) -> None:
    values["packs"][1]["group_rows"] += 1


def change_groups_to_none(values: dict[str, Any], records: Records) -> None:
    values["packs"][1]["group_rows"] = 0


def drop_a_stream(values: dict[str, Any], records: Records) -> None:
    del values["packs"][0]["streams"]["b"]


def change_a_total(values: dict[str, Any], records: Records) -> None:
    values["shards"]["tokens"] += 1


def change_a_shard(values: dict[str, Any], records: Records) -> Records:
    records["rows.concat-32"][0] += 1
    return records


def change_a_payload(values: dict[str, Any], records: Records) -> Records:
    records[".bin"][0, 0] ^= 1
    return records


def drop_a_member(values: dict[str, Any], records: Records) -> Records:
    records[".best_fit-64.npy"][1] = 0
    return records


def drop_a_shard(values: dict[str, Any], records: Records) -> Records:
    return records[:-1]


def swap_shards(values: dict[str, Any], records: Records) -> Records:
    return records[[1, 0, 2]]


def repeat_a_number(values: dict[str, Any], records: Records) -> Records:
    records["number"][1] = 0
    return records


def without(*gone: str) -> Change:
    """A table that lacks columns."""

    def change(values: dict[str, Any], records: Records) -> Records:
        return repack_fields(records[[name for name in records.dtype.names or () if name not in gone]])

    return change


def widen_a_column(values: dict[str, Any], records: Records) -> Records:
    kinds = [(name, records.dtype[name]) for name in records.dtype.names or ()]
    return records.astype([(name, "<u4" if name == "tokens" else kind) for name, kind in kinds])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_rows, "its streams of pack best_fit-64 have groups, rows a group and tail .*'a': .* its shards"),
        (change_groups, "its streams of pack concat-32"),
        (change_groups_to_none, "the columns"),
        (change_a_total, "its shards have .*'tokens'"),
        (change_a_shard, "its streams of pack concat-32"),
        (change_a_payload, "its shards give"),
        (drop_a_member, r"shard .* has no \.best_fit-64\.npy"),
        (drop_a_shard, "its shards have {'count': 2"),
        (swap_shards, "not in the order"),
        (repeat_a_number, "not in the order"),
        (without("rows.concat-32"), r"must be rows\.concat-32"),
        (without("name"), "must be name"),
        (without("tokens", "stream"), "must be stream, tokens"),
        (without(".ends.npy"), r"has no \.ends\.npy"),
        (widen_a_column, "must be tokens"),
        (drop_a_stream, "its streams of pack best_fit-64"),
    ],
)
def test_a_generation_that_contradicts_itself_is_refused(
    tmp_path: Path, spool: Path, change: Change, words: str
) -> None:
    """A loader that trusted it would leave rows out, or look for some that are not there."""
    generation(tmp_path, spool)
    with pytest.raises(CorruptDataError, match=words):
        read_generation(rewritten(tmp_path, change))


def test_every_changed_byte_of_a_generation_is_found(tmp_path: Path, spool: Path) -> None:
    """Whatever it says: another geometry would be another order of rows, another EOS another loss."""
    held, path = generation(tmp_path, spool), tmp_path / "set" / "generations" / "0.json"
    body = path.read_bytes()
    for at in range(0, len(body) - 1, 3):
        path.write_bytes(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
        with pytest.raises((CorruptDataError, InputError)):
            open_tokens(tmp_path / "set")
    path.write_bytes(body)
    assert open_tokens(tmp_path / "set").generation == held


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "longer", "gone", "stale"])
def test_a_damaged_table_of_shards_is_named(tmp_path: Path, spool: Path, damage: str) -> None:
    table = tmp_path / "set" / generation(tmp_path, spool).table
    body = table.read_bytes()
    later = put_tokens(tmp_path / "set2", spool, {("a", 0): [3]}).generation
    table.unlink()
    if damage != "gone":
        flipped = body[:200] + bytes([body[200] ^ 1]) + body[201:]
        stale = (tmp_path / "set2" / later.table).read_bytes()
        bodies = {"flipped": flipped, "cut": body[:-1], "emptied": b"", "longer": body + b"\0", "stale": stale}
        table.write_bytes(bodies[damage])
    with pytest.raises(
        CorruptDataError, match=r"has lost generations/shards-|shards-\w*\.npy does not match its SHA-256"
    ):
        open_tokens(tmp_path / "set")


def test_members_of_a_newer_minor_are_carried(tmp_path: Path, spool: Path) -> None:
    """What this reader does not know stands in its entries, and in every generation made from them."""
    held = generation(tmp_path, spool)
    entries = [replace(entry, members={**entry.members, ".new.npy": "ab" * 32}) for entry in held.shards[1:]]
    more = Generation.of(1, SMALL, PACKS, [held.shards[0], *entries])
    write_generation(Store(tmp_path / "set"), more)
    read = open_tokens(tmp_path / "set").generation
    assert list(read.shards) == [held.shards[0], *entries]
    again = Generation.of(1, SMALL, PACKS, read.shards)
    assert (again, again.table) == (more, more.table)


def test_a_stranger_reads_it_with_numpy_alone(tmp_path: Path, spool: Path) -> None:
    """The few lines that the format's page gives, run from the data set's folder."""
    generation(tmp_path, spool)
    assert token_format.__doc__ is not None
    page = token_format.__doc__.split("second shard:\n\n")[1].split("\n\n")[0]
    code = f"import json\nimport numpy as np\n{textwrap.dedent(page)}\nprint([*map(int, tokens[ends[1] : ends[2]])])"
    put_tokens(tmp_path / "other", spool, {("a", 0): [5], ("b", 0): [4, 6, 7]})
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "other")
    assert found.stdout == f"{tokens_of(SMALL, 2, 7)}\n", found.stderr


def test_a_table_is_a_sequence_and_columns(tmp_path: Path, spool: Path) -> None:
    table = generation(tmp_path, spool).shards
    assert [entry.stream for entry in table] == ["a", "a", "b"]
    assert (table[-1], table[1:], table[:0]) == (list(table)[2], tuple(list(table)[1:]), ())
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            table[wrong]
    assert (table.where("a"), table.where("b")) == (slice(0, 2), slice(2, 3))
    assert table.by_stream("tokens") == {"a": 79, "b": 14}
    assert table.total("documents") == 6
    for order in PACKS:
        counts = [entry.packs[order.name] for entry in table[:2]]
        full, short = table.groups(order.name, "a")
        assert table.rows(order.name, "a").tolist() == [count.rows for count in counts]
        assert full.tolist() == [count.full_groups for count in counts]
        assert short.tolist() == [count.short_rows for count in counts]
    assert table.has(".bin").tolist() == [True] * 3
    assert table.has(".loss.npy").tolist() == [False] * 3
    assert table != list(table)
    assert hash(table) == hash(pickle.loads(pickle.dumps(table)))


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
