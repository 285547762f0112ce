"""Tools: a sound data set verifies, every kind of damage is named, documents and rows come back with their records."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from token_files import GOLDEN, LARGE, PACKS, SMALL, documents_of, put_tokens, record, tokens_of

from penstock import CorruptDataError, InputError
from penstock.sharding.best_fit import best_fit
from penstock.sharding.canonical import canonical
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.documents import Documents
from penstock.sharding.format import Generation
from penstock.sharding.store import Store, sha256
from penstock.sharding.tools import cat, inspect, locate, verify

SHARDS = {("train/en", 0): [30, 100, 2, 64], ("train/en", 1): [64] * 20, ("validation", 0): [7, 200]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    put_tokens(folder / "set", folder / "spool", SHARDS)
    return folder / "set"


@pytest.fixture
def data(written: Path, tmp_path: Path) -> TokenData:
    """A copy that a test may damage."""
    shutil.copytree(written, tmp_path / "set")
    return open_tokens(tmp_path / "set")


def member(data: TokenData, suffix: str, shard: int = 0) -> Path:
    path = data.store.local(data.generation.shards[shard].path(suffix))
    assert path is not None
    return path


def test_inspect_sums_up(written: Path) -> None:
    summary = inspect(written)
    assert json.loads(json.dumps(summary)) == summary
    total = 196 + 64 * 20 + 207
    assert (summary["generation"], summary["format"], summary["shards"]) == (0, "1.0", 3)
    assert (summary["documents"], summary["tokens"], summary["bytes"]) == (26, total, 2 * total)
    assert summary["streams"]["train/en"] == {"shards": 2, "documents": 24, "tokens": 196 + 64 * 20}
    best_fit_64, concat_32 = summary["packs"]["best_fit-64"], summary["packs"]["concat-32"]
    # 64·1, 36+2 (cut from 100), 30, 64 | 64·20 | 64·3, 8+7
    assert best_fit_64["rows"] == 4 + 20 + 4
    assert best_fit_64["fill"] == round(total / (28 * 64), 6)
    assert concat_32["rows"] == 7 + 40 + 7
    assert summary["vocabulary"]["name"] == "small"


@pytest.mark.parametrize("folder", ["uint16", "uint32"])
def test_golden_files_verify(folder: str) -> None:
    report = verify(GOLDEN / folder)
    assert report["verified"] is True
    assert report["vocabulary"]["dtype"] == folder


SUFFIXES = [".bin", ".json", ".ends.npy", ".sums.npy", ".best_fit-64.npy", ".docs.parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "swapped"])
def test_verify_names_the_damaged_shard(data: TokenData, suffix: str, damage: str) -> None:
    path = member(data, suffix)
    body = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "swapped":
        shutil.copy(member(data, suffix, 1), path)
    else:
        body[len(body) // 2] ^= 4
        path.write_bytes(body if damage == "flipped" else body[:-2])
    with pytest.raises(CorruptDataError, match=data.generation.shards[0].name) as caught:
        verify(data.store.url)
    assert data.generation.shards[1].name not in str(caught.value)


def test_verify_names_every_damaged_shard_and_block(data: TokenData) -> None:
    for shard in (0, 2):
        path = member(data, ".bin", shard)
        path.write_bytes(b"\1" + path.read_bytes()[1:])
    with pytest.raises(CorruptDataError) as caught:
        verify(data.store.url)
    for shard in (0, 2):
        name = data.generation.shards[shard].name
        assert f"shard {name}: block 0 of data/{name}.bin does not match its checksum" in str(caught.value)


def listed(data: TokenData, shard: int, generation: int = 1, **bodies: bytes) -> None:
    """A writer's mistake: list a shard with other members, their checksums right."""
    entry = data.generation.shards[shard]
    members = dict(entry.members)
    for suffix, body in bodies.items():
        member(data, suffix, shard).write_bytes(body)
        members[suffix] = sha256(body)
    shards = list(data.generation.shards)
    shards[shard] = replace(entry, members=members, sha256=members[".bin"])
    write_generation(data.store, Generation.of(generation, SMALL, PACKS, shards))


def npy(array: np.ndarray) -> bytes:
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


def test_verify_finds_what_checksums_cannot(data: TokenData) -> None:
    header = data.reader(0).header
    listed(data, 0, 1, **{".json": canonical({**header, "number": 9, "largest_id": 3})})
    with pytest.raises(CorruptDataError, match=r"its header says number 9, the generation 0.*largest id"):
        verify(data.store.url, 1)


def test_verify_finds_ids_and_ends_out_of_place(data: TokenData) -> None:
    tokens = data.reader(0).tokens(0, 10**9).copy()
    tokens[29], tokens[3] = 5, 60_000
    listed(data, 0, 1, **{".bin": tokens.tobytes()})
    with pytest.raises(CorruptDataError, match=r"largest id is 60000.*1 of its documents do not end with EOS"):
        verify(data.store.url)


def test_verify_finds_tables_that_lie(data: TokenData) -> None:
    ends = data.reader(0).ends.copy()
    ends[1] = ends[0]
    listed(data, 0, 1, **{".ends.npy": npy(ends)})
    with pytest.raises(CorruptDataError, match="document ends do not rise"):
        verify(data.store.url)


@pytest.mark.parametrize(
    ("start", "row", "words"),
    [(None, 0, "rows of more than 64 tokens"), (1, None, "are not those of its documents")],
)
def test_verify_finds_rows_that_lie(data: TokenData, start: int | None, row: int | None, words: str) -> None:
    table = best_fit(data.reader(0).ends, 64, 8192)
    if start is not None:
        table["start"][1] += start
    if row is not None:
        table["row"][1:] -= 1
    listed(data, 0, 1, **{".best_fit-64.npy": npy(table)})
    with pytest.raises(CorruptDataError, match=words):
        verify(data.store.url)


def test_verify_holds_the_manifest_to_its_tokens(data: TokenData, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(data.store.url, folder / "tokens" / "abc")
    manifest = {"stages": {"tokens": "abc"}, "tokens_sha256": data.generation.tokens_sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert verify(folder)["verified"]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "tokens_sha256": "f00d"}))
    with pytest.raises(CorruptDataError, match="the run's manifest says tokens_sha256 f00d, its token files have"):
        verify(folder)
    assert verify(folder / "tokens" / "abc")["verified"]


def test_verify_counts_documents(data: TokenData) -> None:
    listed(data, 0, 1, **{".docs.parquet": documents_of("train/en", 0, 3)})
    with pytest.raises(CorruptDataError, match=r"docs\.parquet has 3 rows for 4 documents"):
        verify(data.store.url)


def shown(stream: str, number: int, ordinal: int) -> dict[str, object]:
    known = record(stream, number, ordinal)
    assert isinstance(known["id"], bytes)
    return {**known, "id": known["id"].hex()}


def test_cat_gives_documents_back(written: Path) -> None:
    documents = list(cat(written))
    places = [(*place, at) for place, lengths in sorted(SHARDS.items()) for at in range(len(lengths))]
    assert [(item["stream"], item["ordinal"]) for item in documents] == [(stream, at) for stream, _, at in places]
    for item, (stream, number, at) in zip(documents, places, strict=True):
        assert {name: item[name] for name in ("id", "source", "url", "score")} == shown(stream, number, at)
        assert item["tokens"] == tokens_of(SMALL, at, item["length"])[:-1]
    assert json.loads(json.dumps(documents)) == documents


def test_cat_chooses_and_decodes(written: Path) -> None:
    assert [item["length"] for item in cat(written, stream="validation")] == [7, 200]
    assert [item["length"] for item in cat(written, shard=1, limit=3)] == [64, 64, 64]
    assert [item["length"] for item in cat(written, limit=5)] == [30, 100, 2, 64, 64]
    assert list(cat(written, limit=0)) == []
    (one,) = cat(written, shard=0, ordinal=2, decode=lambda ids: f"{len(ids)} ids")
    assert (one["length"], one["text"]) == (2, "1 ids")
    assert "tokens" not in one
    assert [item["ordinal"] for item in cat(written, shard=0, row=1, pack="best_fit-64")] == [1]
    (document, *_) = cat(GOLDEN / "uint32")
    assert document["tokens"] == tokens_of(LARGE, 0, 200)[1:-1]


def test_cat_refuses_what_is_not_there(written: Path) -> None:
    for choice, words in [
        ({"stream": "nowhere"}, "no stream 'nowhere' here: this data set has train/en, validation"),
        ({"shard": 3}, "no shard 3: this data set has shards 0 to 2"),
        ({"ordinal": 1}, "say which shard"),
        ({"limit": -1}, "limit is -1"),
        ({"shard": 0, "stream": "validation"}, "shard 0 is of the stream 'train/en', not of 'validation'"),
        ({"shard": 0, "ordinal": 4}, "no such document in shard 0"),
        ({"shard": 0, "row": 99, "pack": "concat-32"}, "no row 99 in shard 0"),
        ({"shard": 0, "row": 0}, "no pack was named"),
    ]:
        with pytest.raises(InputError, match=words):
            list(cat(written, **choice))  # type: ignore[arg-type]


@pytest.mark.parametrize("pack", ["best_fit-64", "concat-32"])
def test_every_token_is_located(written: Path, pack: str) -> None:
    data = open_tokens(written)
    documents, length = Documents(data), int(pack.split("-")[1])
    for shard, (place, lengths) in enumerate(sorted(SHARDS.items())):
        seen: list[int] = []
        for row in range(data.generation.shards[shard].packs[pack].rows):
            at = 0
            for piece in documents.row(shard, row, pack):
                start, stop = piece["shard_tokens"]
                assert piece["row_tokens"] == [at, at + stop - start]
                at += stop - start
                first, last = piece["document_tokens"]
                body = tokens_of(SMALL, piece["ordinal"], lengths[piece["ordinal"]])
                assert data.reader(shard).tokens(start, stop).tolist() == body[first:last]
                assert piece["url"] == record(*place, piece["ordinal"])["url"]
                seen += range(start, stop)
            assert at <= length
        assert sorted(seen) == list(range(sum(lengths)))


def test_locate_names_documents_of_a_row(written: Path) -> None:
    (piece,) = locate(written, 0, 1, "best_fit-64")
    assert piece == {
        "stream": "train/en", "shard": 0, "ordinal": 1, **shown("train/en", 0, 1),
        "row": 1, "row_tokens": [0, 64], "document_tokens": [0, 64], "shard_tokens": [30, 94],
    }  # fmt: skip
    with pytest.raises(InputError, match="no row 4 in shard 0: pack best_fit-64 has 4 there"):
        locate(written, 0, 4, "best_fit-64")
    with pytest.raises(InputError, match="no shard 9"):
        locate(open_tokens(written), 9, 0, "best_fit-64")


def test_records_come_in_the_order_asked_for_across_row_groups(written: Path) -> None:
    documents = Documents(open_tokens(written))
    wanted = [19, 0, 7, 7, 13, 6]
    assert [item["ordinal"] for item in documents.records(1, wanted)] == wanted
    assert [item["url"] for item in documents.records(1, wanted)] == [
        record("train/en", 1, ordinal)["url"] for ordinal in wanted
    ]


def test_inspect_and_verify_work_on_an_object_store(written: Path) -> None:
    remote = Store("memory://tools/set")
    for name in Store(written).list():
        remote.put_named(written / name, name)
    assert verify("memory://tools/set") == verify(written)


def test_importing_the_tools_does_not_load_pyarrow() -> None:
    code = "import sys, penstock.sharding.tools; print('pyarrow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
