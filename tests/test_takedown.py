"""Takedown: what was asked for is in no file any more, everything else keeps its place, the list adds up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from token_files import PACKS, SMALL, documents_of, put_tokens, record, tokens_of

from penstock import CommitConflictError, CorruptDataError, InputError, RequestError
from penstock.pipelines.cli import main
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import TokenData, generation_numbers, open_tokens, write_generation
from penstock.sharding.documents import Documents
from penstock.sharding.format import Generation
from penstock.sharding.packing import NO_DOCUMENT
from penstock.sharding.shard import write_shard
from penstock.sharding.store import Store
from penstock.sharding.tools import cat, emptied, inspect, verify
from penstock.sharding.tools.purge import purged_shards
from penstock.sharding.tools.removal import takedown
from penstock.sharding.tools.takedown_list import read_list

SHARDS = {
    ("train/en", 0): [30, 100, 2, 64],
    ("train/en", 1): [64] * 20,
    ("train/fr", 0): [50, 9],
    ("validation", 0): [7, 200],
}
#: Documents that the pattern `/1` finds: (stream, number, ordinal).
ONES = [("train/en", 0, 1), *(("train/en", 1, at) for at in range(20)), ("train/fr", 0, 1), ("validation", 0, 1)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("takedown")
    put_tokens(folder / "set", folder / "spool", SHARDS)
    return folder / "set"


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "set")
    return tmp_path / "set"


def identity(stream: str, number: int, ordinal: int) -> str:
    name = record(stream, number, ordinal)["id"]
    assert isinstance(name, bytes)
    return name.hex()


def places(data: TokenData) -> Iterator[tuple[int, str, int, list[int], set[int]]]:
    """Shard, stream, number, document ends and ordinals gone."""
    for shard, entry in enumerate(data.generation.shards):
        reader = data.reader(shard)
        yield shard, entry.stream, entry.number, reader.ends.tolist(), set(reader.gone.tolist())


def gone(data: TokenData) -> list[tuple[str, int, int]]:
    return [(stream, number, at) for _, stream, number, _, ordinals in places(data) for at in sorted(ordinals)]


def check_tokens(data: TokenData) -> None:
    """Every token of what is gone is EOS, every other token is what it was; records of what is gone are ids alone."""
    documents = Documents(data)
    for shard, stream, number, ends, ordinals in places(data):
        for ordinal, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            tokens = data.reader(shard).tokens(start, stop).tolist()
            (known,) = documents.records(shard, [ordinal])
            told = record(stream, number, ordinal)
            assert known["id"] == identity(stream, number, ordinal)
            if ordinal in ordinals:
                assert tokens == [SMALL.eos_id] * (stop - start)
                assert (known["url"], known["source"], known["score"]) == (None, None, None)
            else:
                assert tokens == tokens_of(SMALL, ordinal, stop - start)
                assert (known["url"], known["source"], known["score"]) == (told["url"], told["source"], told["score"])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (
            {"ids": [identity("train/en", 1, 19), identity("validation", 0, 0)]},
            [("train/en", 1, 19), ("validation", 0, 0)],
        ),
        ({"urls": ["train/fr/"]}, [("train/fr", 0, 0), ("train/fr", 0, 1)]),
        ({"urls": ["https://*/train/en/0/*"]}, [("train/en", 0, at) for at in range(4)]),
        ({"urls": ["train/fr/0/1"], "ids": [identity("train/fr", 0, 1)]}, [("train/fr", 0, 1)]),
        ({"sources": ["web"]}, [(*place, at) for place, lengths in SHARDS.items() for at in range(len(lengths))]),
    ],
)  # fmt: skip
def test_takes_down_by_id_url_and_source(root: Path, asked: dict[str, list[str]], found: list[Any]) -> None:
    before = open_tokens(root).generation
    told = takedown(root, **asked, reason="asked for", signed_by="R. Ight")  # type: ignore[arg-type]
    data = open_tokens(root)
    assert gone(data) == found
    assert (told["generation"], data.generation.number, data.generation.parent) == (1, 1, 0)
    assert data.generation.made == "takedown"
    assert told["documents"] == len(found)
    assert told["tokens"] == sum(SHARDS[place[:2]][place[2]] for place in found)
    check_tokens(data)
    assert verify(root)["taken_down"] == {"shards": told["shards"], "documents": len(found), "tokens": told["tokens"]}
    assert verify(root, 0)["taken_down"]["documents"] == 0
    assert data.generation.packs == before.packs
    for old, new in zip(before.shards, data.generation.shards, strict=True):
        hit = any(place[:2] == (old.stream, old.number) for place in found)
        assert (old.name != new.name) == hit
        assert [old.members[name] for name in (".ends.npy", ".best_fit-64.npy")] == [
            new.members[name] for name in (".ends.npy", ".best_fit-64.npy")
        ]


def test_the_list_says_what_went_and_why(root: Path) -> None:
    told = takedown(
        root, urls=["/train/fr/0/1"], ids=[identity("validation", 0, 1)], reason="a request", signed_by="R."
    )
    store = open_tokens(root).store
    head, lines = read_list(store, told["list"])
    assert open_tokens(root).generation.record == told["list"]
    assert (head["reason"], head["signed_by"], head["documents"], head["tokens"]) == ("a request", "R.", 2, 209)
    assert head["when"].endswith("+00:00")
    url = record("train/fr", 0, 1)["url"]
    first, second = lines
    assert first == {
        "id": identity("train/fr", 0, 1), "stream": "train/fr", "number": 0, "ordinal": 1, "tokens": 9, "by": "url",
        "source": "web", "url_sha256": hashlib.sha256(str(url).encode()).hexdigest(),
    }  # fmt: skip
    assert (second["stream"], second["by"], second["tokens"]) == ("validation", "id", 200)
    assert "example.org" not in (root / told["list"]).read_text()


@pytest.mark.parametrize("pack", ["best_fit-64", "concat-32"])
def test_a_loader_goes_on_in_the_same_order(root: Path, pack: str) -> None:
    takedown(root, urls=["/1"])
    old, new = (
        list(StreamingLoader(root, 4, pack=pack, generation=generation, epochs=1, tail="short"))
        for generation in (0, 1)
    )
    assert len(old) == len(new)
    taken = 0
    numbers = {place: at for at, place in enumerate(SHARDS)}
    ids = {numbers[stream, number] << 32 | at for stream, number, at in ONES}
    for before, after in zip(old, new, strict=True):
        assert before.positions.tolist() == after.positions.tolist()
        hit = np.isin(before.document_ids, list(ids))
        taken += int(hit.sum())
        assert (after.tokens[hit] == SMALL.eos_id).all()
        assert np.array_equal(before.tokens[~hit], after.tokens[~hit])
        assert np.array_equal(before.document_ids[~hit], after.document_ids[~hit])
        assert (after.document_ids[hit] == NO_DOCUMENT).all()
        assert not after.loss_mask[hit].any()
        assert np.array_equal(before.loss_mask[~hit], after.loss_mask[~hit])
    assert taken == 100 + 64 * 20 + 9


def test_a_run_goes_on_after_a_takedown_that_purged(root: Path) -> None:
    whole = [batch.tokens for batch in StreamingLoader(root, 4, pack="concat-32", epochs=1, seed=3)]
    loader = StreamingLoader(root, 4, pack="concat-32", epochs=1, seed=3)
    for _, batch in zip(range(5), loader, strict=False):
        assert len(batch)
    state = loader.state_dict()
    takedown(root, urls=["/train/en/1/"], purge=True)
    resumed = StreamingLoader.from_state(root, state, generation=1, epochs=1)
    rest = [batch.tokens for batch in resumed]
    assert len(rest) == len(whole) - 5
    changed = [np.flatnonzero(old != new).size for old, new in zip(whole[5:], rest, strict=True)]
    assert 0 < sum(changed) <= 20 * 63


def test_what_is_gone_is_not_given_back(root: Path) -> None:
    takedown(root, urls=["/train/en/0/"])
    assert [item["ordinal"] for item in cat(root, stream="train/en")] == list(range(20))
    with pytest.raises(InputError, match="document 2 of shard 0 was taken down"):
        list(cat(root, shard=0, ordinal=2))


def test_a_dry_run_says_the_same_and_writes_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    dry = takedown(root, urls=["/1"], dry_run=True, purge=True)
    assert sorted(root.rglob("*")) == before
    assert (dry["generation"], dry["list"], dry["purged"]) == (0, None, None)
    real = takedown(root, urls=["/1"])
    for name in ("documents", "tokens", "shards", "streams", "shown"):
        assert dry[name] == real[name]
    assert {(item["stream"], item["number"], item["ordinal"]) for item in dry["shown"]} == set(ONES)


def test_one_after_another(root: Path) -> None:
    takedown(root, urls=["/train/fr/0/1"])
    second = takedown(root, ids=[identity("train/fr", 0, 1), identity("train/fr", 0, 0)])
    assert (second["documents"], second["already_gone"], second["generation"]) == (1, 1, 2)
    assert gone(open_tokens(root)) == [("train/fr", 0, 0), ("train/fr", 0, 1)]
    assert verify(root)["taken_down"] == {"shards": 1, "documents": 2, "tokens": 59}
    check_tokens(open_tokens(root))
    made = [(one["number"], one["made"], one["purged"]) for one in inspect(root)["generations"]]
    assert made == [(0, "run", False), (1, "takedown", False), (2, "takedown", False)]


def test_purge_leaves_no_trace_and_says_so_to_old_readers(root: Path) -> None:
    kept = {path.name for path in (root / "data").iterdir()}
    told = takedown(root, urls=["/train/en/0/"], purge=True)
    assert told["purged"]["generations"] == [0]
    assert told["purged"]["objects"] == 6
    left = {path.name for path in (root / "data").iterdir()}
    assert not any(name.startswith("train-en-00000") for name in left & kept)
    url = b"example.org/train/en/0/1"
    assert not any(url in path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert verify(root)["generations"][0]["purged"] is True
    assert inspect(root, 0)["documents"] == inspect(root, 1)["documents"]
    words = (
        r"data/train-en-00000-.* was purged: .* Read the current generation, in which every other row keeps its place"
    )
    with pytest.raises(CorruptDataError, match=words):
        open_tokens(root, 0).reader(0).tokens(0, 1)
    with pytest.raises(CorruptDataError, match=f"rank 0, position .*{words}"):
        list(StreamingLoader(root, 4, pack="concat-32", generation=0, epochs=1))
    with pytest.raises(CorruptDataError, match="was purged"):
        verify(root, 0)
    again = takedown(root, urls=["/train/fr/"], purge=True)
    assert again["purged"]["generations"] == [0, 1]
    assert verify(root)["taken_down"]["documents"] == 6


def test_the_same_request_again_makes_nothing_new_and_still_purges(root: Path) -> None:
    first = takedown(root, urls=["/train/fr/"])
    again = takedown(root, urls=["/train/fr/"], purge=True)
    assert (again["generation"], again["documents"], again["already_gone"]) == (1, 0, 2)
    assert again["list"] == first["list"]
    assert again["purged"]["generations"] == [0]
    assert generation_numbers(Store(root)) == [0, 1]


class Killed(BaseException):
    """As SIGKILL: nothing after it runs."""


@pytest.mark.parametrize("after", range(0, 22, 3))
def test_killed_anywhere_the_same_command_finishes(root: Path, tmp_path: Path, after: int) -> None:
    calls = 0

    def dying(method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > after:
                raise Killed
            return method(*arguments, **options)

        return call

    names = ("put_named", "commit_once", "remove")
    doubles = {name: dying(getattr(Store, name)) for name in names}
    try:
        with mock.patch.multiple(Store, **doubles):
            takedown(root, urls=["/1"], purge=True)
    except Killed:
        pass
    else:
        assert calls <= after
    told = takedown(root, urls=["/1"], purge=True)
    assert told["generation"] == 1
    assert gone(open_tokens(root)) == ONES
    assert told["purged"]["generations"] == [0]
    report = verify(root)
    assert report["taken_down"]["documents"] == len(ONES)
    shutil.copytree(tmp_path / "set", tmp_path / "whole")
    names_now = {path.name for path in (root / "data").iterdir()}
    listed = {f"{entry.name}{suffix}" for entry in open_tokens(root).generation.shards for suffix in entry.members}
    assert names_now == listed


def test_payloads_are_copied_in_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emptied, "_TOKENS_AT_ONCE", 37)
    takedown(root, urls=["/1", "/train/en/0/3"])
    check_tokens(open_tokens(root))
    assert verify(root)["verified"]


def test_loss_spans_stay(tmp_path: Path) -> None:
    root, spans, lengths = tmp_path / "set", [[1, 3], [12, 14]], [5, 6, 7]
    tokens = [token for at, length in enumerate(lengths) for token in tokens_of(SMALL, at, length)]
    np.array(tokens, SMALL.token).tofile(tmp_path / "spool")
    entry = write_shard(
        Store(root), stream="train", number=0, payload=tmp_path / "spool", ends=np.cumsum(lengths).astype(np.uint64),
        vocabulary=SMALL, packs=PACKS, documents=documents_of("train", 0, 3), loss=np.array(spans),
    )  # fmt: skip
    write_generation(Store(root), Generation.of(0, SMALL, PACKS, [entry]))
    takedown(root, urls=["/0/1"])
    assert open_tokens(root).reader(0).loss.tolist() == spans
    assert verify(root)["without_loss"] == {"shards": 1, "spans": 2, "tokens": 4}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "say which documents"),
        ({"ids": ["abc"]}, "'abc' is no document's id: ids are 32 hex digits"),
        ({"ids": ["ab" * 15]}, "is no document's id"),
        ({"urls": ["**"]}, "an empty url would be every document's"),
        ({"sources": [""]}, "an empty source"),
        ({"ids": ["ab" * 16]}, "no document of .* has such an id, URL or source"),
        ({"urls": ["/TRAIN/"]}, "case counts"),
    ],
)
def test_refuses_what_finds_nothing(root: Path, asked: dict[str, list[str]], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        takedown(root, **asked)  # type: ignore[arg-type]
    assert generation_numbers(Store(root)) == [0]


def test_says_what_found_nothing(root: Path) -> None:
    told = takedown(root, urls=["/train/fr/", "nowhere"], ids=["ab" * 16], sources=["books"])
    assert told["not_found"] == {"id": ["ab" * 16], "url": ["nowhere"], "source": ["books"]}


def test_two_writers_of_one_generation(root: Path) -> None:
    data = open_tokens(root)
    entries = list(data.generation.shards)
    other = Generation.of(1, SMALL, PACKS, entries, data.generation, "append")
    real = write_generation

    def late(store: Store, generation: Generation) -> None:
        real(store, other)
        real(store, generation)

    with mock.patch("penstock.sharding.tools.removal.write_generation", late):  # noqa: SIM117
        with pytest.raises(CommitConflictError, match="got generation 1 from another writer meanwhile"):
            takedown(root, urls=["/train/fr/"])
    assert takedown(root, urls=["/train/fr/"])["generation"] == 2
    assert verify(root)["taken_down"]["documents"] == 2


def test_verify_finds_a_takedown_that_does_not_add_up(root: Path) -> None:
    told = takedown(root, urls=["/train/fr/"])
    data = open_tokens(root)
    held = data.generation
    path = root / told["list"]
    lines = path.read_bytes().splitlines(keepends=True)

    def listed(body: bytes) -> Generation:
        name = f"takedowns/1-{hashlib.sha256(body).hexdigest()[:32]}.jsonl"
        (root / name).write_bytes(body)
        shutil.rmtree(root / "generations")
        write_generation(data.store, open_generation_0)
        made = replace(Generation.of(1, SMALL, PACKS, list(held.shards), open_generation_0, "takedown"), record=name)
        write_generation(data.store, made)
        return made

    open_generation_0 = open_tokens(root, 0).generation
    listed(b"".join(lines[:2]))
    with pytest.raises(CorruptDataError, match=r"its list says 2 documents and has 1; .*1? ?.*gone, its list and"):
        verify(root)
    head = json.loads(lines[0])
    listed((json.dumps({**head, "documents": 1, "tokens": 50}) + "\n").encode() + lines[1])
    with pytest.raises(CorruptDataError, match="2 documents gone, its list and the generation before it say others"):
        verify(root)
    (root / told["list"]).write_bytes(b"".join(lines) + b"\n")
    listed(b"".join(lines))
    assert verify(root)["verified"]
    path.write_bytes(path.read_bytes().replace(b"train/fr", b"train/en", 1))
    with pytest.raises(CorruptDataError, match="does not match the SHA-256 in its name"):
        verify(root)


def in_a_run(root: Path, folder: Path) -> Path:
    """A run's folder around a data set, as far as the tools look."""
    folder.mkdir()
    shutil.copytree(root, folder / "tokens" / "abc")
    for name in ("documents/def/data/part.parquet", "text/ghi/data/part.jsonl", "tokens/abc/slices/one.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"text")
    held = open_tokens(root).generation
    counts = {"kept": held.shards.total("documents"), "tokens": held.shards.total("tokens")}
    stages = {"tokens": "abc", "documents": "def", "text": "ghi"}
    told = {"stages": stages, "tokens_sha256": held.tokens_sha256, **counts}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def test_a_run_stays_the_run_it_was(root: Path, tmp_path: Path) -> None:
    run = in_a_run(root, tmp_path / "run")
    takedown(run, urls=["/train/fr/"], purge=True)
    assert verify(run)["taken_down"]["documents"] == 2
    assert purged_shards(open_tokens(run).store) == {open_tokens(run, 0).generation.shards[2].name}
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "kept": 27}))
    with pytest.raises(CorruptDataError, match="the run's manifest says kept 27, its token files have 28"):
        verify(run)


def test_the_command_says_what_went_and_what_still_holds_the_text(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = in_a_run(root, tmp_path / "run")
    (tmp_path / "ids").write_text(
        f"# asked for\n{identity('train/fr', 0, 1)}\n\n{identity('validation', 0, 1)} # too\n"
    )
    words = ["takedown", str(run), "--id", f"@{tmp_path / 'ids'}", "--url", "/train/en/0/3"]
    assert main([*words, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert "3 documents, 273 tokens in 3 shards would go\nnothing was written" in dry
    assert main([*words, "--reason", "asked", "--signed-by", "R.", "--purge"]) == 0
    text = capsys.readouterr().out
    assert f"{identity('train/fr', 0, 1)}  train/fr 0:1  9 tokens  by id  https://example.org/train/fr/0/1" in text
    assert "generations that cannot be read any more: 0" in text
    loud = text.partition("NOT TOUCHED, and may still hold the text:")[2]
    for place in (f"{run}/documents: ", f"{run}/text: ", f"{run}/tokens/abc/slices: ", "models trained on them"):
        assert place in loud
    assert "until --purge" in dry
    assert "until --purge" not in loud
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["documents"], told["already_gone"], told["generation"]) == (0, 3, 1)
    assert main(["takedown", str(run), "--url", "nowhere"]) == 2
    assert "no document of" in capsys.readouterr().err
    assert main(["takedown", str(run), "--id", f"@{tmp_path / 'none'}"]) == 2
