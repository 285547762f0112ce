"""The index of earlier batches: laws of dedup over several months, names of earlier documents, take-out, crashes."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import RequestError
from penstock.pipelines.chain import Found, Work, find_duplicates
from penstock.pipelines.cli import main
from penstock.pipelines.dedup_index import Pinned, add_batch, pin_index
from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.index_batches import Generation, Index
from penstock.pipelines.index_removal import remove
from penstock.pipelines.progress import Progress
from penstock.pipelines.recipe import digest
from penstock.pipelines.runners import Job
from penstock.pipelines.tables import get_table
from penstock.pipelines.views import Rows, removals
from penstock.sharding.store import Store
from penstock.transforms.minhash import MinHash
from penstock.transforms.schema import ID, document_ids

EXACT = Dedup(minhash=None)
NEAR = Dedup(minhash=MinHash(bands=14, rows=8, ngram=2))
WORDS = [f"{a}{b}" for a in ("al", "be", "cor", "den", "el") for b in ("da", "ver", "mon", "tis", "kal", "rup")]


@pytest.fixture(autouse=True)
def unsafe_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare waiting for the disk: no test here pulls a plug."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@dataclass(frozen=True)
class Texts:
    """A part in memory: texts by the user's own ids."""

    number: int
    path: str
    texts: dict[str, str]
    urls: dict[str, str] = field(default_factory=dict)
    source: str = "docs"

    @property
    def key(self) -> str:
        return digest([self.source, self.path, self.texts, self.urls])

    @property
    def documents(self) -> int:
        return len(self.texts)

    @property
    def name(self) -> str:
        return self.path

    def batches(self, columns: Sequence[str], fates: Any = None) -> Iterator[Rows]:
        held = {
            "id": document_ids(self.source, self.path, range(len(self.texts))),
            "text": pa.array(self.texts.values(), pa.string()),
            "source_id": pa.array(self.texts, pa.string()),
            "date": pa.array([f"2026-01-{len(name):02}" for name in self.texts], pa.string()),  # long names are newer
            "url": pa.array([self.urls.get(name) for name in self.texts], pa.string()),
        }
        batch = pa.record_batch({name: held[name] for name in columns if name in held})
        for start in range(0, len(batch), 7):
            some = batch.slice(start, 7)
            yield np.arange(start, start + len(some)), some


def here(job: Job) -> None:
    """Do a job's work in this process, in the wrong order."""
    for task in reversed(list(job.tasks)):
        job.map(task)


def parts_of(month: dict[str, str], count: int = 1, **fields: Any) -> list[Texts]:
    """Deal documents to parts whose names are the same every month."""
    names = list(month)
    return [
        Texts(number, f"part-{number}.parquet", {name: month[name] for name in names[number::count]}, **fields)
        for number in range(count)
    ]


@dataclass
class Outcome:
    """What a run with an index gave."""

    pinned: Pinned
    found: Found
    generation: Generation
    kept: set[str]
    rows: dict[str, dict[str, Any]]  # of `clusters`, by the own id of what goes


def dedup(
    folder: Path,
    index: Path,
    parts: Sequence[Texts],
    name: str | None = None,
    settings: Dedup = EXACT,
    add: bool = True,
) -> Outcome:
    """Run a deduplication against an index, and add to it."""
    store = Store(folder)
    work = Work(store, here, True, Progress(quiet=True))
    pinned = pin_index(store, str(index), settings, parts, name)
    found = find_duplicates(work, settings, parts, pinned)
    generation = pinned.index.current()
    if add:
        generation = add_batch(pinned, store, found.stages, parts, found.view, here)
    gone = {
        part.number: {int(row) for one in found.view.removed for row in removals(one, part.number)} for part in parts
    }
    kept = {name for part in parts for row, name in enumerate(part.texts) if row not in gone[part.number]}
    rows = [row for table in found.tables for row in get_table(store, table).to_pylist()]
    return Outcome(pinned, found, generation, kept, {row["source_id"]: row for row in rows})


def words(chance: random.Random, count: int = 60) -> str:
    return " ".join(chance.choices(WORDS, k=count))


def months(seed: int = 3) -> tuple[dict[str, str], dict[str, str]]:
    """Two months: copies within each, copies and near-copies of the first in the second."""
    chance = random.Random(seed)
    old = {f"a{n}": words(chance) for n in range(40)}
    old |= {f"a{n + 40}": old[f"a{n}"] for n in range(6)}
    new = {f"b{n}": words(chance) for n in range(30)}
    new |= {f"b{n + 30}": new[f"b{n}"] for n in range(5)}
    new |= {f"b{n + 35}": old[f"a{n * 2}"] for n in range(12)}
    new |= {f"b{n + 47}": old[f"a{n + 20}"] + " corda" for n in range(5)}
    return old, new


def test_two_months_keep_what_one_run_with_priority_to_the_first_keeps(tmp_path: Path) -> None:
    old, new = months()
    first = dedup(tmp_path / "1", tmp_path / "index", parts_of(old, 2), "one")
    second = dedup(tmp_path / "2", tmp_path / "index", parts_of(new, 3), "two")
    texts = [old[name] for name in first.kept] + [new[name] for name in second.kept]
    assert len(texts) == len(set(texts)), "no two of what the months keep are the same"
    assert set(texts) == set(old.values()) | set(new.values()), "and no text is lost"
    both = [
        *parts_of(old, 2, source="old"),
        *(Texts(part.number + 2, part.path, part.texts, source="new") for part in parts_of(new, 3)),
    ]
    settings = Dedup(minhash=None, keep=("priority:old,new", "smallest_id"))
    assert first.kept | second.kept == dedup(tmp_path / "3", tmp_path / "other", both, "both", settings).kept


def test_every_copy_of_an_indexed_document_goes(tmp_path: Path) -> None:
    """datatrove's index takes one copy out and lets the others through."""
    dedup(tmp_path / "1", tmp_path / "index", parts_of({"a": "seen before", "b": "another"}), "one")
    within = {"x": "seen before", "y": "seen before", "z": "seen before", "new": "not seen"}
    assert dedup(tmp_path / "2", tmp_path / "index", parts_of(within), "two").kept == {"new"}
    across = dedup(tmp_path / "3", tmp_path / "index", parts_of(within, 4), "three")
    assert across.kept == set()
    assert {row["kept_batch"] for row in across.rows.values()} == {"one", "two"}
    assert across.rows["new"]["kept_batch"] == "two"


def test_near_duplicates_lose_and_so_does_what_matches_them(tmp_path: Path) -> None:
    old, new = months()
    first = dedup(tmp_path / "1", tmp_path / "index", parts_of(old, 2), "one", NEAR)
    second = dedup(tmp_path / "2", tmp_path / "index", parts_of(new, 3), "two", NEAR)
    assert {f"b{n + 47}" for n in range(5)} <= set(second.rows)
    near = second.rows["b47"]
    assert (near["kept_source_id"], near["kept_batch"], near["kind"]) == ("a20", "one", "near")
    assert near["similarity"] is None
    assert near["kept_part"] is None
    assert near["kept_row"] is None
    # one run over everything finds the same
    both = [
        *parts_of(old, 2, source="old"),
        *(Texts(part.number + 2, part.path, part.texts, source="new") for part in parts_of(new, 3)),
    ]
    settings = NEAR.model_copy(update={"keep": ("priority:old,new", "smallest_id")})
    assert first.kept | second.kept == dedup(tmp_path / "3", tmp_path / "other", both, "both", settings).kept


def test_a_chain_ends_at_the_indexed_document(tmp_path: Path) -> None:
    chance = random.Random(5)
    text = words(chance, 80)
    chain = [text, text + " corda corda", text + " corda corda beda beda"]
    dedup(tmp_path / "1", tmp_path / "index", parts_of({"old": chain[0]}), "one", NEAR)
    found = dedup(tmp_path / "2", tmp_path / "index", parts_of({"x": chain[1], "y": chain[2]}, 2), "two", NEAR)
    assert found.kept == set()
    assert {row["kept_source_id"] for row in found.rows.values()} == {"old"}
    assert {row["cluster_size"] for row in found.rows.values()} == {2}, "this run's documents are counted"


def test_a_match_names_the_earliest_batch_and_one_that_stayed(tmp_path: Path) -> None:
    index = tmp_path / "index"
    old = Texts(0, "part-0.parquet", {"long": "x y", "a1": "the same"})
    dedup(tmp_path / "1", index, [old, Texts(1, "part-1.parquet", {"a2": "the same"})], "one")
    dedup(tmp_path / "2", index, parts_of({"b1": "the same", "b2": "only now"}), "two")
    found = dedup(tmp_path / "3", index, parts_of({"c1": "the same", "c2": "only now"}), "three").rows
    assert (found["c1"]["kept_batch"], found["c1"]["kept_source_id"]) == ("one", "a1")
    assert (found["c2"]["kept_batch"], found["c2"]["kept_source_id"]) == ("two", "b2")
    assert found["c1"]["kept_id"] == document_ids("docs", "part-0.parquet", [1])[0].as_py()
    assert found["c1"]["kind"] == "exact"
    assert found["c1"]["similarity"] == 1.0


def test_next_months_file_of_the_same_name_is_another_document(tmp_path: Path) -> None:
    """Ids hash (input, path, place): they are equal between the months, the documents are not."""
    dedup(tmp_path / "1", tmp_path / "index", parts_of({"a": "first month"}), "one")
    found = dedup(tmp_path / "2", tmp_path / "index", parts_of({"b": "second month"}), "two")
    assert found.kept == {"b"}
    again = dedup(tmp_path / "3", tmp_path / "index", parts_of({"c": "first month"}), "three").rows["c"]
    assert again["id"] == again["kept_id"]
    assert again["kept_batch"] == "one"


@pytest.mark.parametrize("settings", [EXACT, NEAR], ids=["exact", "near"])
def test_order_and_parts_do_not_matter(tmp_path: Path, settings: Dedup, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = months(11)
    kept, named = [], []
    for number, (count, most) in enumerate([(1, 1000), (4, 1000), (3, 1), (5, 20)]):
        monkeypatch.setattr("penstock.pipelines.dedup_index.BLOCK_DOCUMENTS", most)
        index, chance = tmp_path / f"index{number}", random.Random(number)
        shuffled = dict(chance.sample(sorted(new.items()), len(new)))
        one = Texts(0, "old.parquet", old)
        dedup(tmp_path / f"{number}-1", index, [one], "one", settings)
        second = dedup(tmp_path / f"{number}-2", index, parts_of(shuffled, count), "two", settings)
        kept.append({new[name] for name in second.kept})
        named.append({(row["source_id"], row["kept_source_id"]) for row in second.rows.values() if row["kept_batch"]})
    assert all(one == kept[0] for one in kept)
    assert all(one == named[0] for one in named)


def test_blocks_of_any_size_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = months(12)
    found = []
    for most in (1, 20, 1000):
        monkeypatch.setattr("penstock.pipelines.dedup_index.BLOCK_DOCUMENTS", most)
        index = tmp_path / f"index-{most}"
        first = dedup(tmp_path / f"1-{most}", index, parts_of(old, 6), "one", NEAR)
        found.append(dedup(tmp_path / f"2-{most}", index, parts_of(new, 3), "two", NEAR))
        (batch,) = first.generation.batches
        assert len(batch.blocks) == {1: 6, 20: 3, 1000: 1}[most]
    assert found[0].rows == found[1].rows == found[2].rows


def test_addresses_do_not_clash_where_the_index_has_more_parts_than_the_run(tmp_path: Path) -> None:
    chance = random.Random(1)
    for month in range(5):
        old = {f"{month}-{n}": words(chance) for n in range(6)}
        dedup(tmp_path / f"{month}", tmp_path / "index", parts_of(old, 3), f"month {month}", NEAR)
    last = dedup(tmp_path / "last", tmp_path / "index", parts_of({"x": old["4-5"], "y": words(chance)}), "last", NEAR)
    assert last.kept == {"y"}
    assert last.rows["x"]["kept_batch"] == "month 4"


def test_a_resumed_run_matches_what_it_pinned(tmp_path: Path) -> None:
    index = tmp_path / "index"
    dedup(tmp_path / "1", index, parts_of({"a": "one", "b": "two"}), "one")
    parts = parts_of({"x": "one", "y": "three", "z": "four"})
    before = dedup(tmp_path / "2", index, parts, "two", add=False)
    dedup(tmp_path / "other", index, parts_of({"c": "three"}), "meanwhile")
    after = dedup(tmp_path / "2", index, parts, "two")
    assert after.kept == before.kept == {"y", "z"}
    assert after.found.stages == before.found.stages
    names = [batch.name for batch in after.generation.batches]
    assert names == ["one", "meanwhile", "two"]
    # elsewhere, the same batch matches what it matched the first time
    again = dedup(tmp_path / "3", index, parts, "two")
    assert again.kept == before.kept
    assert again.found.stages == before.found.stages
    assert again.generation.number == after.generation.number == 3, "added once"


def test_a_killed_run_adds_its_batch_when_it_is_run_again(tmp_path: Path) -> None:
    index, parts = tmp_path / "index", parts_of({"x": "one", "y": "one", "z": "two"}, 2)
    first = dedup(tmp_path / "1", index, parts, "one", add=False)
    assert Index.of(index).current().number == 0
    second = dedup(tmp_path / "1", index, parts, "one")
    assert second.kept == first.kept
    assert second.generation.number == 1
    assert dedup(tmp_path / "1", index, parts, "one").generation.number == 1


@pytest.mark.parametrize("committed", [False, True])
def test_a_crash_while_a_batch_is_added(tmp_path: Path, committed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    index, parts, create = tmp_path / "index", parts_of({"x": "one", "y": "two"}), Store.create

    def die(self: Store, name: str, body: bytes) -> bool:
        if not name.startswith("generations/"):
            return create(self, name, body)
        if committed:
            create(self, name, body)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "create", die)
    with pytest.raises(KeyboardInterrupt):
        dedup(tmp_path / "1", index, parts, "one")
    monkeypatch.setattr(Store, "create", create)
    again = dedup(tmp_path / "1", index, parts, "one")
    assert [batch.name for batch in again.generation.batches] == ["one"]
    assert again.generation.number == 1
    assert again.kept == {"x", "y"}


def test_a_lost_race_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, create = tmp_path / "index", Store.create
    met: list[str] = []

    def late(self: Store, name: str, body: bytes) -> bool:
        if name == "generations/1.json" and not met:
            met.append(name)
            dedup(tmp_path / "other", index, parts_of({"a": "other"}), "faster")
        return create(self, name, body)

    monkeypatch.setattr(Store, "create", late)
    found = dedup(tmp_path / "1", index, parts_of({"x": "one"}), "slower")
    assert [batch.name for batch in found.generation.batches] == ["faster", "slower"]
    assert found.generation.number == 2


def test_urls_are_indexed_and_the_indexed_one_stays(tmp_path: Path) -> None:
    settings = Dedup.model_validate({"url": {}, "minhash": None})
    old = [Texts(0, "0", {"a": "old page", "b": "no url"}, {"a": "http://x/1"})]
    dedup(tmp_path / "1", tmp_path / "index", old, "one", settings)
    new = [Texts(0, "0", {"new": "newer page", "d": "other", "e": "no url"}, {"new": "http://x/1", "d": "http://x/2"})]
    found = dedup(tmp_path / "2", tmp_path / "index", new, "two", settings)
    assert found.kept == {"d"}
    assert {name: (row["kind"], row["kept_source_id"]) for name, row in found.rows.items()} == {
        "new": ("url", "a"),
        "e": ("exact", "b"),
    }
    counts = [batch.count("documents") for batch in found.generation.batches]
    assert counts == [{"urls": 1, "duplicates": 2}, {"urls": 2, "duplicates": 2}]


def test_documents_are_taken_out_with_their_digests_and_not_their_copies(tmp_path: Path) -> None:
    index = tmp_path / "index"
    old = {"a": "one", "b": "one", "c": "two", "d": "three"}
    dedup(tmp_path / "1", index, parts_of(old, 2), "one")
    before = set(Store(index).list("batches/"))
    done = remove(index, ["a", "c"])
    assert (done.documents, done.batches, done.missing) == (2, ("one",), ())
    after = set(Store(index).list("batches/"))
    assert not before & after, "old objects are deleted"
    table = get_table(Store(index), next(name for name in after if name.endswith(".parquet")))
    assert set(table.column("source_id").to_pylist()) == {"b", "d"}
    found = dedup(tmp_path / "2", index, parts_of({"x": "one", "y": "two", "z": "three"}), "two")
    assert found.kept == {"y"}
    assert found.rows["x"]["kept_source_id"] == "b"


def test_take_out_equals_never_added(tmp_path: Path) -> None:
    old, new = months(4)
    gone = [f"a{n}" for n in range(0, 44, 3)]
    left = {name: text for name, text in old.items() if name not in gone}
    dedup(tmp_path / "1", tmp_path / "index", [Texts(0, "0", old)], "one", NEAR)
    assert remove(tmp_path / "index", gone).documents == len(gone)
    dedup(tmp_path / "2", tmp_path / "other", [Texts(0, "0", left)], "one", NEAR)
    with_gone = dedup(tmp_path / "3", tmp_path / "index", parts_of(new, 2), "two", NEAR)
    without = dedup(tmp_path / "4", tmp_path / "other", parts_of(new, 2), "two", NEAR)
    assert with_gone.kept == without.kept
    assert 0 < len(without.kept) < len(new)


def test_a_batch_taken_out_can_be_added_again(tmp_path: Path) -> None:
    index, parts = tmp_path / "index", parts_of({"a": "one", "b": "two"}, 2)
    dedup(tmp_path / "1", index, parts, "one")
    remove(index, batch="one", everything=True)
    assert Store(index).list("batches/") == []
    assert Index.of(index).current().batches == ()
    again = dedup(tmp_path / "1", index, parts, "one")
    assert [batch.name for batch in again.generation.batches] == ["one"]
    assert dedup(tmp_path / "2", index, parts_of({"x": "two", "y": "three"}), "two").kept == {"y"}


def test_documents_taken_out_before_a_run_is_resumed(tmp_path: Path) -> None:
    index = tmp_path / "index"
    dedup(tmp_path / "1", index, parts_of({"a": "one", "b": "two"}), "one")
    parts = parts_of({"x": "one", "y": "two"})
    before = dedup(tmp_path / "2", index, parts, "two", add=False)
    assert before.kept == set()
    remove(index, ["a"])
    after = dedup(tmp_path / "2", index, parts, "two")
    assert after.kept == {"x"}
    assert after.found.stages != before.found.stages, "what was taken out is covered by the stage's hash"
    assert dedup(tmp_path / "3", index, parts, "two").kept == {"x"}


def test_documents_by_hex_id_and_in_both_kinds(tmp_path: Path) -> None:
    index, settings = tmp_path / "index", Dedup.model_validate({"url": {}, "minhash": None})
    dedup(tmp_path / "1", index, [Texts(0, "0", {"a": "one", "b": "two"}, {"a": "u"})], "one", settings)
    done = remove(index, [document_ids("docs", "0", [0])[0].as_py().hex()])
    assert done.documents == 1
    (batch,) = Index.of(index).current().batches
    assert batch.count("documents") == {"duplicates": 1}
    assert batch.removed == 1


def test_what_a_killed_command_did_not_delete_is_deleted_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    dedup(tmp_path / "1", index, parts_of({"a": "one", "b": "two"}), "one")

    def die(self: Store, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            remove(index, ["a"])
    named = Index.of(index).current().objects
    assert named < set(Store(index).list("batches/"))
    assert remove(index, ["a"], missing_ok=True).documents == 0
    assert named == set(Store(index).list("batches/"))


def test_other_parameters_are_refused_by_name(tmp_path: Path) -> None:
    parts = parts_of({"a": "one two three"})
    dedup(tmp_path / "1", tmp_path / "index", parts, "one", NEAR)
    other = Dedup(minhash=MinHash(bands=20, rows=8, ngram=3), exact=False)
    with pytest.raises(RequestError) as told:
        dedup(tmp_path / "2", tmp_path / "index", parts, "two", other)
    for words_said in ("exact is True in the index and False", "minhash.bands is 14", "20", "minhash.ngram is 2", "3"):
        assert words_said in str(told.value)


def test_another_batch_of_the_same_name_is_refused(tmp_path: Path) -> None:
    dedup(tmp_path / "1", tmp_path / "index", parts_of({"a": "one"}), "one")
    with pytest.raises(RequestError, match="has a batch 'one' with other content"):
        dedup(tmp_path / "2", tmp_path / "index", parts_of({"a": "other"}), "one")


@pytest.mark.parametrize("asked", [{"lines": {}}, {"substrings": {}}, {"verify": 0.7}, {"guard": {"split": True}}])
def test_what_an_index_cannot_do_is_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"leave .* out, or run without an index"):
        pin_index(Store(tmp_path / "1"), str(tmp_path / "index"), Dedup.model_validate(asked), [], "one")


def test_a_file_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("x")
    with pytest.raises(RequestError, match="it is a file"):
        Index.of(tmp_path / "index")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(tmp_path / "index")
    assert main(["index", "show", index]) == 2
    assert "holds no index" in capsys.readouterr().err
    dedup(tmp_path / "1", tmp_path / "index", parts_of({"a": "one", "b": "one", "c": "two"}), "one")
    assert main(["index", "show", index]) == 0
    assert "one" in capsys.readouterr().out
    assert main(["index", "remove", index, "--id", "nobody", "--id", "a"]) == 2
    assert "no document of" in (said := capsys.readouterr().err)
    assert "'nobody'" in said
    assert "'a'" not in said
    (tmp_path / "ids").write_text("a\nnobody\n", encoding="utf-8")
    assert main(["index", "remove", index, "--ids", str(tmp_path / "ids"), "--missing-ok"]) == 0
    assert "1 documents of one taken out" in capsys.readouterr().out
    assert main(["index", "show", index, "--json"]) == 0
    (batch,) = json.loads(capsys.readouterr().out)["batches"]
    assert (batch["documents"], batch["kept"], batch["removed"]) == ({"duplicates": 2}, {"duplicates": 1}, 1)
    assert main(["index", "remove", index, "--id", "b", "--batch", "two"]) == 2
    assert "has no batch 'two': it has one" in capsys.readouterr().err
    for wrong in (["--all"], ["--all", "--batch", "one", "--id", "b"], []):
        assert main(["index", "remove", index, *wrong]) == 2
    capsys.readouterr()
    assert main(["index", "remove", index, "--batch", "one", "--all"]) == 0


def test_penstock_dedup_against_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(tmp_path / "index")
    for month, texts in {"1": ["one", "two", "two"], "2": ["two", "three", "two"]}.items():
        (tmp_path / month).mkdir()
        lines = [json.dumps({"text": text, "key": f"{month}-{row}"}) + "\n" for row, text in enumerate(texts)]
        (tmp_path / month / "part-0.jsonl").write_text("".join(lines), encoding="utf-8")

    def command(month: str, *more: str) -> int:
        inputs = ["--input", str(tmp_path / month), "--output", str(tmp_path / f"out{month}"), "--id-field", "key"]
        return main(["dedup", *inputs, "--exact", "--index", index, "--quiet", *more])

    assert command("1", "--batch", "one") == 0
    assert command("2", "--batch", "two", "--annotate") == 0
    capsys.readouterr()
    (written,) = [path for path in (tmp_path / "out2" / "output").rglob("*.jsonl") if path.stat().st_size]
    rows = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    assert [row["is_duplicate"] for row in rows] == [True, False, True]
    assert [row["kept_id"] for row in rows if row["is_duplicate"]] == ["1-1", "1-1"]
    assert command("2", "--batch", "two", "--annotate") == 0
    assert Index.of(index).current().number == 2
    assert main(["dedup", "--input", index, "--output", str(tmp_path / "x"), "--index", index]) == 2
    assert main(["dedup", "--input", str(tmp_path / "1"), "--output", str(tmp_path / "x"), "--batch", "one"]) == 2


def test_ids_are_binary(tmp_path: Path) -> None:
    dedup(tmp_path / "1", tmp_path / "index", parts_of({"a": "one"}), "one")
    (name,) = [name for name in Store(tmp_path / "index").list() if name.endswith(".parquet")]
    assert get_table(Store(tmp_path / "index"), name).schema.field("id").type == ID
