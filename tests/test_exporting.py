"""Token files from and to the formats of others: against plain definitions of each, and laws of the round trip."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_files import cut, read_datatrove, read_llmc, read_megatron, read_olmo, read_parquet, write_megatron
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from token_files import LARGE, PACKS, SMALL, documents_of, put_tokens, tokens_of

from penstock import InputError, ReconciliationError, RequestError
from penstock.pipelines.cli import main
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.documents import Documents
from penstock.sharding.foreign import chunks as chunk_module
from penstock.sharding.foreign import exporting, intake, megatron
from penstock.sharding.foreign.chunks import (
    Chunk,
    framed,
    joined_spans,
    learned_between,
    split,
    unlearned_spans,
    without_padding,
)  # fmt: skip
from penstock.sharding.foreign.exporting import export_tokens
from penstock.sharding.foreign.importing import document_ids, import_tokens, unnamed_vocabulary
from penstock.sharding.format import Generation, Vocabulary
from penstock.sharding.shard import write_shard
from penstock.sharding.store import Store
from penstock.sharding.tools import cat, verify
from penstock.transforms.schema import document_ids as ids_of_readers

SHARDS = {("train/en", 0): [30, 100, 2, 64], ("train/en", 3): [9, 2, 41, 7] * 10, ("validation", 0): [7, 200]}
LOSS = {("train/en", 0): [[3, 5], [30, 131]], ("validation", 0): [[0, 207]]}
GONE = {("train/en", 0): [1, 3], ("validation", 0): [0, 1]}
FORMATS = {"megatron": "megatron", "parquet": "parquet", "npy": "npy", "datatrove": "datatrove", "llmc": "raw"}


def put(
    folder: Path,
    vocabulary: Vocabulary = SMALL,
    loss: Mapping[tuple[str, int], Any] | None = None,
    gone: Mapping[tuple[str, int], Any] | None = None,
) -> TokenData:
    """Write SHARDS, with marks."""
    entries = []
    for place, lengths in SHARDS.items():
        documents = [tokens_of(vocabulary, ordinal, length) for ordinal, length in enumerate(lengths)]
        for ordinal in (gone or {}).get(place, []):
            documents[ordinal] = [vocabulary.eos_id] * lengths[ordinal]
        spool = folder.with_suffix(".spool")
        spool.write_bytes(np.concatenate([np.array(one, vocabulary.token) for one in documents]).tobytes())
        entries.append(write_shard(
            Store(folder), stream=place[0], number=place[1], payload=spool,
            ends=np.cumsum(lengths).astype(np.uint64), vocabulary=vocabulary, packs=PACKS,
            documents=documents_of(*place, len(lengths)), loss=(loss or {}).get(place), gone=(gone or {}).get(place),
        ))  # fmt: skip
    write_generation(Store(folder), Generation.of(0, vocabulary, PACKS, entries))
    return open_tokens(folder)


@pytest.fixture(scope="module", autouse=True)
def _not_to_the_disk() -> Iterator[None]:
    """Leave out fsync: half the time of these tests, and others' matter."""
    with mock.patch("os.fsync"):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put(tmp_path_factory.mktemp("small") / "set")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put(tmp_path_factory.mktemp("large") / "set", LARGE)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put(tmp_path_factory.mktemp("marked") / "set", loss=LOSS)


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put(tmp_path_factory.mktemp("thinned") / "set", gone=GONE)


def of(data: TokenData, shard: int) -> list[list[int]]:
    """The documents of a shard, by the formula they were made with."""
    entry = data.generation.shards[shard]
    lengths = SHARDS[entry.stream, entry.number]
    return [tokens_of(data.generation.vocabulary, ordinal, length) for ordinal, length in enumerate(lengths)]


def readers(to: str, data: TokenData) -> Callable[[Path], list[list[int]]]:
    vocabulary = data.generation.vocabulary
    return {
        "megatron": read_megatron,
        "parquet": read_parquet,
        "npy": lambda path: read_olmo(path, vocabulary.token.str),
        "datatrove": read_datatrove,
        "llmc": lambda path: read_llmc(path, vocabulary.eos_id),
    }[to]


@pytest.mark.parametrize("width", ["uint16", "uint32"])
@pytest.mark.parametrize("to", FORMATS)
def test_every_format_holds_the_documents_and_gives_them_back(
    data: TokenData, large: TokenData, tmp_path: Path, to: str, width: str
) -> None:
    held = data if width == "uint16" else large
    receipt = export_tokens(held, tmp_path / "out", to)
    for shard, file in enumerate(receipt["files"]):
        assert readers(to, held)(tmp_path / "out" / file["path"]) == of(held, shard)
        assert file["stream"] == held.generation.shards[shard].stream
    assert receipt["tokens"] == sum(map(sum, SHARDS.values()))
    done = import_tokens(tmp_path / "out", tmp_path / "back", FORMATS[to], packs=PACKS)
    assert done["tokens_sha256"] == held.generation.tokens_sha256
    assert (done["documents"], done["tokens_added"]) == (receipt["documents"], 0)
    back = verify(tmp_path / "back")
    assert back["vocabulary"] == held.generation.vocabulary.to_json()
    assert set(back["streams"]) == {"train/en", "validation"}
    if to in ("parquet", "npy"):
        assert [record["id"] for record in cat(tmp_path / "back")] == [record["id"] for record in cat(held.store.url)]
    if to == "parquet":
        urls = [(record["url"], record["source"], record["score"]) for record in cat(tmp_path / "back")]
        assert urls == [(record["url"], record["source"], record["score"]) for record in cat(held.store.url)]


@pytest.mark.parametrize("to", ["megatron", "npy", "datatrove"])
def test_links_give_the_same_files_without_a_copy(data: TokenData, tmp_path: Path, to: str) -> None:
    export_tokens(data, tmp_path / "copied", to)
    export_tokens(data, tmp_path / "linked", to, link=True)
    names = {path.name for path in (tmp_path / "copied").iterdir()}
    assert names == {path.name for path in (tmp_path / "linked").iterdir()}
    for name in names:
        assert (tmp_path / "copied" / name).read_bytes() == (tmp_path / "linked" / name).read_bytes(), name
    payload = data.store.local(data.generation.shards[0].path(".bin"))
    assert payload is not None
    assert payload.stat().st_nlink == 2
    for path in (tmp_path / "linked").iterdir():
        path.unlink()


def test_streams_are_chosen_and_merged_in_the_payloads_order(data: TokenData, tmp_path: Path) -> None:
    receipt = export_tokens(data, tmp_path / "out", "megatron", streams=["train/en"], merge=True)
    assert [file["path"] for file in receipt["files"]] == ["train-en-000.idx"]
    assert read_megatron(tmp_path / "out" / "train-en-000") == of(data, 0) + of(data, 1)
    done = import_tokens(tmp_path / "out", tmp_path / "back", "megatron")
    assert (done["shards"], done["streams"]) == (1, {"train/en": 196 + 590})


def test_a_stream_means_what_was_appended_to_it_too(tmp_path: Path) -> None:
    shards = {("train", 0): [4, 5], ("train+1", 0): [6], ("train-b", 0): [7], ("validation", 0): [8]}
    held = put_tokens(tmp_path / "set", tmp_path / "spool", shards)
    told = [
        [file["stream"] for file in export_tokens(held, tmp_path / name, "npy", streams=[name])["files"]]
        for name in ("train", "train+1")
    ]
    assert told == [["train", "train+1"], ["train+1"]]


@pytest.mark.parametrize("to", ["datatrove", "parquet", "npy"])
@pytest.mark.parametrize("small_chunks", [False, True])
def test_what_is_not_learned_is_carried(marked: TokenData, tmp_path: Path, to: str, small_chunks: bool) -> None:
    with chunks_of(50 if small_chunks else 1 << 20):
        export_tokens(marked, tmp_path / "out", to)
        import_tokens(tmp_path / "out", tmp_path / "back", FORMATS[to])
    back = open_tokens(tmp_path / "back")
    assert back.generation.tokens_sha256 == marked.generation.tokens_sha256
    for shard, entry in enumerate(marked.generation.shards):
        assert back.reader(shard).loss.tolist() == LOSS.get((entry.stream, entry.number), [])
    assert export_tokens(marked, tmp_path / "idx", "megatron")["left_out"]["loss_tokens"] == 2 + 101 + 207


@pytest.mark.parametrize("to", FORMATS)
def test_documents_taken_down_are_left_out(thinned: TokenData, tmp_path: Path, to: str) -> None:
    receipt = export_tokens(thinned, tmp_path / "out", to, link=to == "megatron")
    assert receipt["left_out"] == {"documents": 4, "tokens": 164 + 207, "loss_tokens": 0}
    assert [file["documents"] for file in receipt["files"]] == [2, 40]  # nothing is left of the third: no file
    assert len(list((tmp_path / "out").glob("validation*"))) == 0
    (first, *_) = receipt["files"]
    assert readers(to, thinned)(tmp_path / "out" / first["path"]) == [of(thinned, 0)[0], of(thinned, 0)[2]]


def chunks_of(tokens: int) -> Any:
    """Read and write by so many tokens at a time."""
    return mock.patch.object(chunk_module.runs, "__defaults__", (tokens,))


def test_chunks_change_nothing(data: TokenData, tmp_path: Path) -> None:
    for to in FORMATS:
        export_tokens(data, tmp_path / to, to)
        with chunks_of(64), mock.patch.multiple(megatron, CHUNK_TOKENS=3, _BLOCK=5):
            export_tokens(data, tmp_path / f"{to}-small", to)
            done = import_tokens(tmp_path / to, tmp_path / f"{to}-back", FORMATS[to])
        assert done["tokens_sha256"] == data.generation.tokens_sha256
        for path in (tmp_path / to).iterdir():
            if path.suffix != ".parquet":  # row groups are chunks
                assert path.read_bytes() == (tmp_path / f"{to}-small" / path.name).read_bytes()


# Megatron


@pytest.mark.parametrize("code", [1, 4, 8])
def test_megatrons_documents_of_several_sequences(tmp_path: Path, code: int) -> None:
    sequences = [[5, 6, 0], [7], [8, 0], [], [9, 9, 9]]
    write_megatron(tmp_path / "in" / "text", sequences, [0, 1, 3, 3, 4, 5], code)
    vocabulary = unnamed_vocabulary(100, 0)
    done = import_tokens(tmp_path / "in" / "text", tmp_path / "by-index", "megatron", vocabulary=vocabulary)
    assert [record["tokens"] for record in cat(tmp_path / "by-index")] == [[5, 6], [7, 8], [], [], [9, 9, 9]]
    assert (done["tokens_read"], done["tokens_added"]) == (9, 3)
    import_tokens(
        tmp_path / "in/*.idx", tmp_path / "rows", "megatron", vocabulary=vocabulary, boundaries="rows", frame="append"
    )
    assert [record["tokens"] for record in cat(tmp_path / "rows")] == [[5, 6, 0], [7], [8, 0], [], [9, 9, 9]]
    import_tokens(tmp_path / "in", tmp_path / "eos", "megatron", vocabulary=vocabulary, boundaries="eos")
    assert [record["tokens"] for record in cat(tmp_path / "eos")] == [[5, 6], [7, 8], [9, 9, 9]]


@pytest.mark.parametrize("code", [4, 8])
def test_megatrons_files_come_back_byte_for_byte(tmp_path: Path, code: int) -> None:
    vocabulary = LARGE if code == 4 else SMALL
    documents = [tokens_of(vocabulary, number, 3 + number % 50) for number in range(300)]
    write_megatron(tmp_path / "in" / "text", documents, range(301), code)
    import_tokens(
        tmp_path / "in", tmp_path / "set", "megatron", vocabulary=vocabulary, frame="keep", shard_bytes=1 << 12
    )
    receipt = export_tokens(tmp_path / "set", tmp_path / "out", "megatron", merge=True)
    assert len(open_tokens(tmp_path / "set").generation.shards) > 3
    assert receipt["files"] == [{"path": "train-000.idx", "stream": "train", "documents": 300, "tokens": 8250}]
    for suffix in (".bin", ".idx"):
        assert (tmp_path / "out" / f"train-000{suffix}").read_bytes() == (
            tmp_path / "in" / f"text{suffix}"
        ).read_bytes()


def test_megatrons_sequences_may_lie_anywhere(tmp_path: Path) -> None:
    write_megatron(tmp_path / "text", [[1, 2, 0], [3, 0], [4, 4, 4, 0]], [0, 1, 2, 3], 8)
    body = bytearray((tmp_path / "text.idx").read_bytes())
    body[34:46] = np.array([4, 3, 2], "<i4").tobytes()
    body[46:70] = np.array([10, 0, 6], "<i8").tobytes()
    (tmp_path / "text.idx").write_bytes(body)
    import_tokens(tmp_path / "text.bin", tmp_path / "set", "megatron", vocabulary=unnamed_vocabulary(100, 0))
    assert [record["tokens"] for record in cat(tmp_path / "set")] == [[4, 4, 4], [1, 2], [3]]


def damaged(body: bytes, at: int, value: bytes) -> bytes:
    return body[:at] + value + body[at + len(value) :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: b"JUNK" + body[4:], "is no index of Megatron, version 1"),
        (lambda body: damaged(body, 9, b"\2"), "is no index of Megatron, version 1"),
        (lambda body: damaged(body, 17, b"\7"), "holds numbers of code 7"),
        (lambda body: body[:-1], "has 81 bytes, its 2 sequences and 3 marks make 82"),
        (lambda body: body[:20], "ends at byte 20"),
        (lambda body: body + b"\0\0", "multimodal"),
        (lambda body: damaged(body, 58 + 16, b"\1"), "does not lead from 0 to its 2 sequences"),
        (lambda body: damaged(body, 58 + 8, b"\3"), "does not rise"),
        (lambda body: damaged(body, 34, b"\xff\xff\xff\xff"), "a sequence of -1 tokens"),
        (lambda body: damaged(body, 42 + 8, b"\x60"), "it was cut short"),
    ],
)
def test_what_is_no_megatron_set_is_refused(tmp_path: Path, change: Callable[[bytes], bytes], words: str) -> None:
    write_megatron(tmp_path / "text", [[1, 0], [2, 0]], [0, 1, 2], 8)
    (tmp_path / "text.idx").write_bytes(change((tmp_path / "text.idx").read_bytes()))
    with pytest.raises(InputError, match=words):
        import_tokens(tmp_path / "text", tmp_path / "set", "megatron", vocabulary=unnamed_vocabulary(100, 0))
    assert not (tmp_path / "set" / "generations").exists()


def test_ids_that_megatron_cannot_say_are_refused(tmp_path: Path) -> None:
    vocabulary = unnamed_vocabulary(1 << 32, 0)
    np.array([5, 1 << 31, 0], "<u4").tofile(tmp_path / "a.npy")
    import_tokens(tmp_path / "a.npy", tmp_path / "set", "npy", vocabulary=vocabulary)
    with pytest.raises(RequestError, match="the largest id is 2147483648: ids from 2\\^31 on do not fit its int32"):
        export_tokens(tmp_path / "set", tmp_path / "out", "megatron")
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "set"}
    export_tokens(tmp_path / "set", tmp_path / "out", "parquet")
    (path,) = (tmp_path / "out").glob("*.parquet")
    assert pq.read_schema(path).field("input_ids").type == pa.list_(pa.int64())
    assert read_parquet(path) == [[5, 1 << 31, 0]]


# Parquet


def put_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


ROWS = [[5, 6, 0], [7, 0, 0, 0], [], [8, 9]]


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.list_(pa.uint16()), pa.large_list(pa.int64())])
def test_parquet_documents(tmp_path: Path, kind: Any) -> None:
    path = put_parquet(
        tmp_path / "a.parquet", tokens=pa.array(ROWS, kind), id=["w", "x", "y", "z"], url=["u", None, "v", "w"],
        tags=[["no"], [], [], []],
    )  # fmt: skip
    done = import_tokens(
        path, tmp_path / "set", "parquet", vocabulary=unnamed_vocabulary(10, 0), column="tokens", source="web"
    )
    known = list(cat(tmp_path / "set"))
    assert [record["tokens"] for record in known] == [[5, 6], [7, 0, 0], [], [8, 9]]
    assert [(record["source_id"], record["url"], record["place"]) for record in known] == [
        ("w", "u", 0), ("x", None, 1), ("y", "v", 2), ("z", "w", 3),
    ]  # fmt: skip
    assert {(record["source"], record["path"]) for record in known} == {("web", "a.parquet")}
    assert (done["tokens_read"], done["tokens_added"], done["padding_left_out"]) == (9, 2, 0)
    assert [bytes.fromhex(record["id"]) for record in known] == ids_of_readers("web", "a.parquet", range(4)).to_pylist()


def test_parquet_masks_become_spans(tmp_path: Path) -> None:
    put_parquet(
        tmp_path / "a.parquet", input_ids=ROWS, attention_mask=[[1, 1, 1], [1, 1, 0, 0], [], [1, 1]],
        labels=[[-100, 6, 0], [7, -100, -100, -100], [], [8, 9]], loss_mask=[[1, 1, 0], [1, 1, 1, 1], [], [1, 1]],
    )  # fmt: skip
    done = import_tokens(tmp_path, tmp_path / "set", "parquet", vocabulary=unnamed_vocabulary(10, 0))
    assert [record["length"] for record in cat(tmp_path / "set")] == [3, 2, 1, 3]
    assert open_tokens(tmp_path / "set").reader(0).loss.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert done["padding_left_out"] == 2


def test_packed_rows_are_cut_into_documents(tmp_path: Path) -> None:
    rows = pa.array([[5, 0, 6, 7], [8, 0, 0, 0], [9, 1, 1, 0]], pa.list_(pa.int32(), 4))
    put_parquet(tmp_path / "a.parquet", input_ids=rows)
    import_tokens(
        tmp_path, tmp_path / "set", "parquet", vocabulary=unnamed_vocabulary(10, 0), boundaries="eos", pad_id=0
    )
    assert [record["tokens"] for record in cat(tmp_path / "set")] == [[5], [6, 7, 8], [9, 1, 1]]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"ids": [[1]]}, "has no column 'input_ids', it has ids"),
        ({"input_ids": [1]}, "is int64: token ids are lists of whole numbers"),
        ({"input_ids": [[0.5]]}, "is list<.*double>: token ids are lists"),
        ({"input_ids": [[1], None]}, "has nulls"),
        ({"input_ids": [[1, None]]}, "has nulls"),
        ({"input_ids": [[1, 2]], "labels": [[2, -100]]}, "neither -100 nor the token at their place"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "differ in length"),
        ({"input_ids": [[1, 10]]}, "holds the id 10, the vocabulary unknown has ids 0 to 9"),
        ({"input_ids": [[1, -1]]}, "holds the id -1"),
    ],
)
def test_what_is_no_list_of_tokens_is_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    put_parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(InputError, match=words):
        import_tokens(tmp_path, tmp_path / "set", "parquet", vocabulary=unnamed_vocabulary(10, 0))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"a\.parquet is no Parquet file"):
        import_tokens(tmp_path, tmp_path / "set", "parquet", vocabulary=unnamed_vocabulary(10, 0))


@pytest.mark.parametrize("pack", [pack.name for pack in PACKS])
def test_rows_of_a_pack(tmp_path: Path, pack: str) -> None:
    held = put(tmp_path / "set", loss=LOSS, gone={("train/en", 3): [2, 17]})
    receipt = export_tokens(held, tmp_path / "out", "parquet", pack=pack)
    length, documents = int(pack.split("-")[1]), Documents(held)
    for shard, file in enumerate(receipt["files"]):
        table = pq.read_table(tmp_path / "out" / file["path"])
        reader = held.reader(shard)
        unlearned = {token for start, stop in reader.loss.tolist() for token in range(start, stop)}
        for row in range(file["rows"]):
            ids, labels, positions = [0] * length, [-100] * length, [*range(length)]
            used = 0
            for piece in documents.row(shard, row, pack):
                (low, high), (start, _) = piece["row_tokens"], piece["shard_tokens"]
                positions[low:high] = range(high - low)
                used = high
                if piece["ordinal"] in reader.gone.tolist():
                    continue
                ids[low:high] = reader.tokens(start, start + high - low).tolist()
                for at in range(low + 1, high):
                    labels[at] = -100 if start + at - low in unlearned else ids[at]
            positions[used:] = range(length - used)
            told = {name: table.column(name)[row].as_py() for name in table.column_names}
            assert told == {"input_ids": ids, "labels": labels, "position_ids": positions}
        assert table.num_rows == file["rows"]


# Arrays


@pytest.mark.parametrize("kind", ["<u2", "<i8", ">u4"])
def test_numpys_own_arrays(tmp_path: Path, kind: str) -> None:
    tokens = [5, 6, 0, 7, 0, 8]
    np.save(tmp_path / "flat.npy", np.array(tokens, kind))
    import_tokens(tmp_path / "flat", tmp_path / "set", "npy", vocabulary=unnamed_vocabulary(10, 0))
    assert [record["tokens"] for record in cat(tmp_path / "set")] == [[5, 6], [7], [8]]
    np.save(tmp_path / "rows.npy", np.array([[5, 6, 0], [7, 0, 0], [0, 0, 0]], kind))
    cases: list[tuple[Any, int | None, list[list[int]]]] = [
        ("index", None, [[5, 6], [7, 0], [0, 0]]),
        ("rows", 0, [[5, 6], [7], []]),
        ("eos", None, [[5, 6], [7], [], [], [], []]),
        ("eos", 0, [[5, 6], [7]]),
    ]
    for boundaries, pad, found in cases:
        out = tmp_path / f"{boundaries}{pad}"
        import_tokens(
            tmp_path / "rows.npy", out, "npy", vocabulary=unnamed_vocabulary(10, 0), pad_id=pad, boundaries=boundaries
        )
        assert [record["tokens"] for record in cat(out)] == found


def test_raw_arrays_say_nothing_of_themselves(tmp_path: Path) -> None:
    np.array([5, 6, 0, 7], "<u4").tofile(tmp_path / "a.bin")
    import_tokens(tmp_path / "a.bin", tmp_path / "set", "raw", vocabulary=unnamed_vocabulary(10, 0), dtype="uint32")
    assert [record["tokens"] for record in cat(tmp_path / "set")] == [[5, 6], [7]]
    with pytest.raises(InputError, match=r"document 1 of .*a\.bin ends without EOS, 0: pass frame=ensure"):
        import_tokens(
            tmp_path / "a.bin", tmp_path / "two", "raw", vocabulary=unnamed_vocabulary(10, 0), dtype="uint32",
            frame="keep",
        )  # fmt: skip
    cases: list[tuple[dict[str, Any], str]] = [
        ({"pad_id": 0}, "has no rows, and so no padding"),
        ({"boundaries": "rows"}, "has no rows, it is one array of 8 tokens"),
        ({"dtype": "float32"}, "dtype is 'float32'"),
        ({"boundaries": "lines"}, "documents are told by one of index, rows, eos, not 'lines'"),
        ({"frame": "none"}, "EOS is handled as one of ensure, keep, append, not 'none'"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"shard_bytes": 3}, "shard_bytes is 3"),
        ({"stream": ""}, "a stream has a name"),
    ]
    for given, words in cases:
        with pytest.raises(RequestError, match=words):
            import_tokens(tmp_path / "a.bin", tmp_path / "two", "raw", vocabulary=unnamed_vocabulary(10, 0), **given)
    (tmp_path / "odd.bin").write_bytes(b"odd")
    with pytest.raises(InputError, match="has 3 bytes, no whole number of uint16"):
        import_tokens(tmp_path / "odd.bin", tmp_path / "two", "raw", vocabulary=unnamed_vocabulary(10, 0))
    np.save(tmp_path / "float.npy", np.zeros(3))
    with pytest.raises(InputError, match="holds float64 of shape"):
        import_tokens(tmp_path / "float.npy", tmp_path / "two", "npy", vocabulary=unnamed_vocabulary(10, 0))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("0,3,a,b,0\n4,6,c,d,1\n", "leaves out tokens of .*a.npy, or names some twice"),
        ("0,3,a,b,0\n2,6,c,d,1\n", "leaves out tokens"),
        ("0,3,a,b,0\n", "ends at token 3, .* has 6"),
        ("start,end\n", "is no table of documents"),
    ],
)
def test_a_table_that_is_not_the_arrays_is_refused(tmp_path: Path, rows: str, words: str) -> None:
    import gzip

    np.array([5, 6, 0, 7, 8, 0], "<u2").tofile(tmp_path / "a.npy")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(rows.encode()))
    with pytest.raises(InputError, match=words):
        import_tokens(tmp_path / "a.npy", tmp_path / "set", "npy", vocabulary=unnamed_vocabulary(10, 0))


# datatrove


@pytest.mark.parametrize(
    ("suffix", "body", "words"),
    [
        (".index", np.array([3, 5], "<u8").tobytes(), "ends at token 5, .* has 6"),
        (".index", np.array([5, 3, 6], "<u8").tobytes(), "does not rise to the 6 tokens"),
        (".index", np.array([3, 9], "<u8").tobytes(), "does not rise to the 6 tokens"),
        (".metadata", b"gpt2|3\n6\n6 T", "where tokenizer|2 or tokenizer|4 is due"),
        (".metadata", b"gpt2|2\n7\n7 T", "says 7 tokens of 2 bytes, .* has 12 bytes"),
        (".loss", b"\1\1", "has 2 bytes, a byte a token makes 6"),
    ],
)
def test_what_is_no_datatrove_file_is_refused(tmp_path: Path, suffix: str, body: bytes, words: str) -> None:
    np.array([5, 6, 0, 7, 8, 0], "<u2").tofile(tmp_path / "a.ds")
    (tmp_path / "a.ds.index").write_bytes(np.array([3, 6], "<u8").tobytes())
    (tmp_path / f"a.ds{suffix}").write_bytes(body)
    with pytest.raises(InputError, match=words):
        import_tokens(tmp_path / "a.ds", tmp_path / "set", "datatrove", vocabulary=unnamed_vocabulary(10, 0))


def test_datatrove_files_without_metadata_or_index(tmp_path: Path) -> None:
    np.array([5, 6, 0, 7, 8, 0], "<u4").tofile(tmp_path / "a.ds")
    with pytest.raises(InputError, match=r"has no \.index beside it: pass boundaries=eos"):
        import_tokens(tmp_path / "a.ds", tmp_path / "set", "datatrove", vocabulary=unnamed_vocabulary(10, 0))
    (tmp_path / "a.ds.index").write_bytes(np.array([2, 6], "<u8").tobytes())  # four bytes a token, as the index shows
    import_tokens(tmp_path / "a.ds", tmp_path / "set", "datatrove", vocabulary=unnamed_vocabulary(10, 0))
    assert [record["tokens"] for record in cat(tmp_path / "set")] == [[5, 6], [0, 7, 8]]


# What all imports share


def put_olmo(folder: Path, files: dict[str, Sequence[Sequence[int]]]) -> Path:
    """Raw arrays of documents that end with EOS, 0."""
    for name, documents in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.concatenate([np.array(document, "<u2") for document in documents]).tofile(folder / name)
    return folder


def numbered(first: int, count: int) -> list[list[int]]:
    """Documents that say their number."""
    return [[number, *[7] * (number % 23), 0] for number in range(first, first + count)]


def tokens_in(path: Path) -> list[list[int]]:
    return [record["tokens"] for record in cat(path)]


def test_shards_are_filled_up_to_their_size(tmp_path: Path) -> None:
    put_olmo(tmp_path / "in", {"a.npy": numbered(1, 300), "b/c.npy": [*numbered(301, 99), [5] * 900 + [0]]})
    vocabulary = unnamed_vocabulary(1000, 0)
    import_tokens(tmp_path / "in", tmp_path / "set", "npy", vocabulary=vocabulary, shard_bytes=1024)
    held = open_tokens(tmp_path / "set").generation
    assert tokens_in(tmp_path / "set") == [document[:-1] for document in [*numbered(1, 399), [5] * 900 + [0]]]
    sizes = [2 * shard.tokens for shard in held.shards]
    assert max(sizes[:-1]) <= 1024 < sizes[-1]  # one document is longer than a shard may be
    assert min(sizes[:-2]) > 1024 - 2 * 26
    assert [shard.number for shard in held.shards] == list(range(len(held.shards)))
    verify(tmp_path / "set")


def test_a_shuffle_depends_on_ids_and_seed_alone(tmp_path: Path) -> None:
    put_olmo(tmp_path / "in", {"a.npy": numbered(1, 300), "b/c.npy": numbered(301, 100)})
    how: dict[str, Any] = {"vocabulary": unnamed_vocabulary(1000, 0), "shard_bytes": 2048, "validation": 0.1}
    done = import_tokens(tmp_path / "in", tmp_path / "one", "npy", shuffle=5, **how)
    with chunks_of(64), mock.patch.object(intake, "_HELD_BYTES", 100):
        again = import_tokens(tmp_path / "in", tmp_path / "two", "npy", shuffle=5, **how)
    assert done == again
    verify(tmp_path / "one")
    other = import_tokens(tmp_path / "in", tmp_path / "three", "npy", shuffle=6, **how)
    plain = [document[:-1] for document in numbered(1, 400)]
    for path in ("one", "three"):
        assert sorted(tokens_in(tmp_path / path)) == sorted(plain)
        assert tokens_in(tmp_path / path) != plain
    assert other["tokens_sha256"] != done["tokens_sha256"]
    held = open_tokens(tmp_path / "one").generation
    assert max(2 * shard.tokens for shard in held.shards) <= 2048
    assert 20 <= sum(shard.documents for shard in held.shards if shard.stream == "validation") <= 60
    # The order is one of all documents: neighbours come from anywhere.
    numbers = [document[0] for document in tokens_in(tmp_path / "one")]
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.15
    # An export carries ids, and so the shuffle: however its files are cut and ordered.
    for name, merge in (("by-shard", False), ("merged", True)):
        export_tokens(tmp_path / ("one" if merge else "three"), tmp_path / name, "parquet", merge=merge)
        import_tokens(tmp_path / name, tmp_path / f"{name}-back", "parquet", shuffle=9, shard_bytes=1 << 20)
    back = [sorted(tokens_in(tmp_path / f"{name}-back")) for name in ("by-shard", "merged")]
    assert back[0] == back[1]
    train = [
        [one["tokens"] for one in cat(tmp_path / f"{name}-back", stream="train")] for name in ("by-shard", "merged")
    ]
    assert train[0] == train[1]


def test_validation_is_the_same_share_shuffled_or_not(tmp_path: Path) -> None:
    put_olmo(tmp_path / "in", {"a.npy": numbered(1, 400)})
    how: dict[str, Any] = {"vocabulary": unnamed_vocabulary(1000, 0), "validation": 0.2, "stream": "train/web"}
    import_tokens(tmp_path / "in", tmp_path / "plain", "npy", **how)
    import_tokens(tmp_path / "in", tmp_path / "mixed", "npy", shuffle=7, **how)
    out = [
        sorted(one["tokens"] for one in cat(tmp_path / name, stream="validation/web")) for name in ("plain", "mixed")
    ]
    assert out[0] == out[1]
    assert 50 < len(out[0]) < 110
    assert [one["tokens"] for one in cat(tmp_path / "plain", stream="train/web")] == [
        document[:-1] for document in numbered(1, 400) if document[:-1] not in out[0]
    ]


def test_inputs_lie_in_a_store_too(data: TokenData, tmp_path: Path) -> None:
    export_tokens(data, tmp_path / "out", "datatrove")
    remote = Store("memory://exported/set")
    for path in (tmp_path / "out").iterdir():
        remote.put_named(path, path.name)
    for given in ("memory://exported/set", "memory://exported/set/*.ds"):
        back = tmp_path / str(len(given))
        assert import_tokens(given, back, "datatrove")["tokens_sha256"] == data.generation.tokens_sha256
    with pytest.raises(RequestError, match="an export is written into a local folder, not to memory://"):
        export_tokens(data, "memory://exported/other", "npy")


def test_a_failed_export_leaves_nothing(data: TokenData, tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise OSError("full")

    with mock.patch.object(megatron.MegatronWriter, "close", stop), pytest.raises(OSError, match="full"):
        export_tokens(data, tmp_path / "out", "megatron")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_nothing_to_clean_up(data: TokenData, tmp_path: Path) -> None:
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp" / "half.npy").write_bytes(b"half")
    with (tmp_path / ".out.tmp" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RequestError, match=r"another export to .*out is under way"):
            export_tokens(data, tmp_path / "out", "npy")
    export_tokens(data, tmp_path / "out", "npy")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(list((tmp_path / "out").iterdir())) == 3 * 2 + 1


def test_counts_that_do_not_add_up_are_refused(data: TokenData, tmp_path: Path) -> None:
    whole = exporting.kept_documents

    def short(*given: Any) -> Iterator[tuple[Chunk, Chunk]]:
        for all_of_it, kept in whole(*given):
            yield all_of_it.part(1, len(all_of_it)), kept.part(1, len(kept))

    with (
        mock.patch.object(exporting, "kept_documents", short),
        pytest.raises(ReconciliationError, match="4 documents, 3"),
    ):
        export_tokens(data, tmp_path / "out", "npy")
    export_tokens(data, tmp_path / "out", "megatron")
    with (
        mock.patch.object(
            megatron.MegatronSource, "chunks", lambda self: (one.part(1, len(one)) for one in self._documents())
        ),
        pytest.raises(ReconciliationError, match="says it has 4 documents and 196 tokens, 3 and 166 were read"),
    ):
        import_tokens(tmp_path / "out", tmp_path / "back", "megatron")
    assert not (tmp_path / "back" / "generations").exists()


def test_requests_that_cannot_be_met(data: TokenData, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"to": "tar"}, "there is no format 'tar' to export to: megatron, parquet"),
        ({"to": "npy", "streams": ["train"]}, "no stream 'train' here: this data set has train/en, validation"),
        ({"to": "npy", "output": tmp_path / "full"}, "stands and is not empty"),
        ({"to": "npy", "pack": "concat-32"}, "rows of a pack are exported to parquet"),
        ({"to": "parquet", "pack": "concat-33"}, "there is no pack 'concat-33'"),
        ({"to": "parquet", "link": True}, "parquet is not the payload as it lies"),
        ({"to": "npy", "link": True, "merge": True}, "npy merged is not the payload as it lies"),
    ]
    for given, words in cases:
        with pytest.raises(RequestError, match=words):
            export_tokens(data, **{"output": tmp_path / "out", **given})
    export_tokens(data, tmp_path / "out", "npy")
    cases = [({"dtype": "uint16"}, "say themselves of what type"), ({"pad_id": 0}, "have no rows")]
    for how, words in cases:
        with pytest.raises(RequestError, match=words):
            import_tokens(tmp_path / "out", tmp_path / "set", "megatron", **how)
    inputs: list[tuple[Path, str | Path, str, str]] = [
        (tmp_path / "out", tmp_path / "set", "tar", "there is no format 'tar' to import from"),
        (tmp_path / "out", data.store.url, "npy", "holds a data set already"),
        (tmp_path / "out", tmp_path / "set", "megatron", r"has no \*\.idx files"),
        (tmp_path / "none", tmp_path / "set", "npy", r"has no \*\.npy files"),
    ]
    for given_input, output, kind, words in inputs:
        with pytest.raises(RequestError, match=words):
            import_tokens(given_input, output, kind)
    (tmp_path / "out" / "export.json").unlink()
    with pytest.raises(RequestError, match="does not say what its tokens mean"):
        import_tokens(tmp_path / "out", tmp_path / "set", "npy")
    export_tokens(data, tmp_path / "again", "npy")
    with pytest.raises(InputError, match="have one relative path"):
        import_tokens([tmp_path / "out", tmp_path / "again"], tmp_path / "set", "npy")


def test_ids_are_those_of_readers_of_text() -> None:
    assert document_ids("web", "a/b.npy", range(70)).equals(ids_of_readers("web", "a/b.npy", range(70)))


def test_the_command_line(data: TokenData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    code, told, _ = run("export", data.store.url, "--to", "megatron", "--output", tmp_path / "out", "--merge")
    assert (code, json.loads(told)["files"]) == (0, 2)
    (tmp_path / "out" / "export.json").unlink()
    one = ("import", "--from", "megatron", tmp_path / "out")
    meaning = ("--vocab-size", 1000, "--eos-id", 0, "--pack", "concat-64")
    code, told, hint = run(*one, "--output", tmp_path / "a", *meaning)
    assert (code, json.loads(told)["documents"]) == (0, 46)
    assert "next: penstock verify" in hint
    assert run("verify", tmp_path / "a")[0] == 0
    assert list(verify(tmp_path / "a")["packs"]) == ["concat-64"]
    code, told, _ = run(*one, "--output", tmp_path / "b", "--like", data.store.url, "--shuffle", 1, "--shard-mb", 1)
    assert (code, verify(tmp_path / "b")["vocabulary"]["name"]) == (0, "small")
    for words, said in [
        (("--like", data.store.url, "--vocab-size", 5, "--eos-id", 1), "--like and --vocab-size both say"),
        (("--eos-id", 1), "--vocab-size and --eos-id belong together"),
        (("--vocab-size", 10, "--eos-id", 10), "EOS is 10, the vocabulary has ids 0 to 9"),
        (("--like", data.store.url, "--bos-id", 1), "--bos-id goes with"),
        (("--vocab-size", 10, "--eos-id", 0), "holds the id"),
        ((), "does not say what its tokens mean"),
    ]:
        code, _, error = run(*one, "--output", tmp_path / "c", *words)
        assert (code, said in error) == (2, True), error


def test_importing_the_module_does_not_load_pyarrow() -> None:
    code = "import sys, penstock.sharding.foreign.importing; print('pyarrow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.skipif("PENSTOCK_PEERS" not in os.environ, reason="PENSTOCK_PEERS names no Python with the peers")
@pytest.mark.parametrize("to", ["megatron", "datatrove", "parquet", "npy"])
def test_the_real_readers_read_and_their_files_are_read(to: str) -> None:
    command = Path(__file__).parent / "benchmarks" / "token_readers.py"
    words = ["--peers", os.environ["PENSTOCK_PEERS"], "--mtok", "1", "--rounds", "1", "--formats", to]
    told = json.loads(subprocess.run([sys.executable, str(command), *words], capture_output=True, check=True).stdout)
    for width in ("uint16", "uint32"):
        assert "error" not in told[to][width]
        assert all(value for value in told[to][width].values() if isinstance(value, bool))


# Chunks, against plain Python


DOCUMENTS = st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=8)


def chunk_of(documents: Sequence[Sequence[int]], learned: Sequence[bool] | None = None) -> Chunk:
    tokens = np.array([token for document in documents for token in document], np.int64)
    mask = None if learned is None else np.array(learned, np.bool_)
    return Chunk(tokens, np.cumsum([len(document) for document in documents]), mask)


def documents_in(chunk: Chunk) -> list[list[int]]:
    return [part.tolist() for part in np.split(chunk.tokens, chunk.ends[:-1])]


@settings(max_examples=40, deadline=None)
@drawn(DOCUMENTS, st.sampled_from(["ensure", "append"]), st.sampled_from([None, 1]))
def test_frames_are_added_where_they_lack(documents: list[list[int]], frame: Any, bos: int | None) -> None:
    vocabulary = Vocabulary("uint16", 7, "", 0, bos, "tiny")
    expected = []
    for document in documents:
        lead = [] if bos is None or (frame == "ensure" and document[:1] == [bos]) else [bos]
        end = [] if frame == "ensure" and document[-1:] == [0] else [0]
        expected.append([*lead, *document, *end])
    mask = [bool(token % 2) for document in documents for token in document]
    found, added = framed(chunk_of(documents, mask), vocabulary, frame, "here")
    assert documents_in(found) == expected
    assert added == sum(map(len, expected)) - sum(map(len, documents))
    assert found.learned is not None
    assert int((~found.learned).sum()) == mask.count(False)
    assert bool((found.tokens[~found.learned] % 2 == 0).all())
    framed(found, vocabulary, "keep", "here")
    if added:
        with pytest.raises(InputError, match="to have it added"):
            framed(chunk_of(documents), vocabulary, "keep", "here")


@settings(max_examples=40, deadline=None)
@drawn(DOCUMENTS, st.booleans())
def test_a_stream_is_cut_at_every_eos(blocks: list[list[int]], marked: bool) -> None:
    flat = [token for block in blocks for token in block]
    given_chunks = [chunk_of([block], [token < 3 for token in block] if marked and at % 2 else None)
                    for at, block in enumerate(blocks)]  # fmt: skip
    found = list(split(given_chunks, 0))
    assert [document for chunk in found for document in documents_in(chunk)] == cut(flat, 0)
    learned = np.concatenate([np.zeros(0, bool), *(
        np.ones(len(chunk.tokens), bool) if chunk.learned is None else chunk.learned for chunk in found
    )])  # fmt: skip
    assert learned.tolist() == [
        token < 3 or not (marked and at % 2) for at, block in enumerate(blocks) for token in block
    ]


@settings(max_examples=40, deadline=None)
@drawn(DOCUMENTS, st.integers(0, 2))
def test_padding_is_cut_off_the_ends_of_rows(rows: list[list[int]], pad: int) -> None:
    expected = []
    for row in rows:
        stop = len(row)
        while stop and row[stop - 1] == pad:
            stop -= 1
        expected.append(row[: stop + (pad == 0 and stop > 0)])
    assert documents_in(without_padding(chunk_of(rows), pad, 0)) == expected


@settings(max_examples=40, deadline=None)
@drawn(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 7))
def test_spans_and_masks_are_two_ways_of_saying_it(learned: list[bool], step: int) -> None:
    parts = [unlearned_spans(np.array(learned[at : at + step]), at) for at in range(0, len(learned), step)]
    spans = joined_spans(parts)
    if spans is None:
        assert all(learned)
        return
    flat = spans.ravel()
    assert bool((np.diff(flat) > 0).all())  # joined where they touched
    for start in range(0, len(learned), step):
        found = learned_between(spans.astype(np.uint64), start, min(start + step, len(learned)))
        part = learned[start : start + step]
        assert (found.tolist() if found is not None else [True] * len(part)) == part
