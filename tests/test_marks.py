"""Marks in a shard: spans without loss, documents taken down. What is wrong is refused; what was written is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from token_files import PACKS, SMALL, documents_of, put_tokens

from penstock import CorruptDataError
from penstock.sharding.dataset import open_tokens, write_generation
from penstock.sharding.format import Generation, Pack, ShardEntry
from penstock.sharding.marks import GONE, LOSS, left_over
from penstock.sharding.npy import npy_bytes
from penstock.sharding.shard import ShardReader, write_shard
from penstock.sharding.store import Store, sha256
from penstock.sharding.tools import verify

LENGTHS = (5, 3, 4)
#: The document in the middle is gone: EOS alone.
TOKENS = (11, 12, 13, 14, 0, 0, 0, 0, 21, 22, 23, 0)


def put(folder: Path, packs: Sequence[Pack] = PACKS, documents: bytes | None = None, **marks: Any) -> ShardEntry:
    spool = folder / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    np.array(TOKENS, SMALL.token).tofile(spool)
    return write_shard(
        Store(folder), stream="s", number=0, payload=spool, ends=np.cumsum(LENGTHS).astype(np.uint64),
        vocabulary=SMALL, packs=packs, documents=documents or documents_of("s", 0, 3), **marks,
    )  # fmt: skip


def test_marks_come_back_and_stand_in_header_and_name(tmp_path: Path) -> None:
    plain, spans = put(tmp_path), [[2, 4], [4, 5], [9, 12]]
    entry = put(tmp_path, loss=np.array(spans), gone=np.array([1], np.int32))
    reader = ShardReader(Store(tmp_path), entry, SMALL)
    assert (reader.loss.tolist(), reader.loss.dtype.str) == (spans, "<u8")
    assert (reader.gone.tolist(), reader.gone.dtype.str) == ([1], "<u8")
    assert {LOSS, GONE} <= set(entry.members)
    assert reader.header["sha256"] == {
        suffix: digest for suffix, digest in entry.members.items() if suffix not in (".json", ".best_fit-64.npy")
    }
    assert entry.name != plain.name
    assert np.load(tmp_path / entry.path(LOSS)).tolist() == spans


def test_no_marks_are_no_members(tmp_path: Path) -> None:
    plain = put(tmp_path)
    assert put(tmp_path, loss=np.zeros((0, 2)), gone=np.zeros(0)) == plain
    reader = ShardReader(Store(tmp_path), plain, SMALL)
    assert (reader.loss.shape, reader.gone.shape) == ((0, 2), (0,))
    assert not {LOSS, GONE} & set(plain.members)


def test_a_pack_more_or_less_leaves_the_name(tmp_path: Path) -> None:
    both, one, none = put(tmp_path), put(tmp_path, PACKS[:1]), put(tmp_path, ())
    assert both.name == one.name == none.name
    assert set(both.members) - set(none.members) == {".best_fit-64.npy"}
    reader = ShardReader(Store(tmp_path), both, SMALL)
    assert ".best_fit-64.npy" not in reader.header["sha256"]


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"loss": [[3, 3]]}, "hold at least a token"),
        ({"loss": [[4, 2]]}, "must rise"),
        ({"loss": [[0, 4], [3, 5]]}, "be disjoint"),
        ({"loss": [[5, 6], [0, 2]]}, "must rise"),
        ({"loss": [[0, 13]]}, "end at 13, the shard has 12 tokens"),
        ({"loss": [0, 13]}, r"are \(n, 2\), not \(2,\)"),
        ({"loss": [[-1, 3]]}, "whole numbers from 0"),
        ({"loss": [[0.5, 3.0]]}, "whole numbers from 0, not float64"),
        ({"loss": np.array([[0, 2**63 + 5]], np.uint64)}, "ranges of tokens"),
        ({"gone": [3]}, "document 3 is taken down, the shard has 3"),
        ({"gone": [1, 1]}, "must rise, each once"),
        ({"gone": [[1]]}, r"are \(n,\), not \(1, 1\)"),
        ({"gone": [0]}, "still have 4 tokens"),
        ({"gone": [1, 2]}, "still have 3 tokens"),
    ],
)
def test_wrong_marks_are_refused_before_anything_is_written(tmp_path: Path, marks: dict[str, Any], words: str) -> None:
    arrays: dict[str, Any] = {name: np.array(value) for name, value in marks.items()}
    with pytest.raises(ValueError, match=words):
        put(tmp_path, **arrays)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("chunk", [1, 2, 5, 12])
def test_what_is_left_of_gone_documents_is_counted_over_any_chunks(chunk: int) -> None:
    ends, tokens = np.cumsum(LENGTHS).astype(np.uint64), np.array(TOKENS, np.uint16)
    lengths = np.split(tokens, ends[:-1].astype(np.int64))
    for gone in ([], [0], [1], [2], [0, 2], [0, 1, 2]):
        wanted = sum(int(np.count_nonzero(lengths[ordinal])) for ordinal in gone)
        marks = np.array(gone, np.uint64)
        found = sum(left_over(tokens[at : at + chunk], at, ends, marks, 0) for at in range(0, 12, chunk))
        assert found == wanted, gone


@pytest.mark.parametrize(
    ("suffix", "array", "words"),
    [
        (LOSS, np.array([[0, 13]], "<u8"), "the shard has 12 tokens"),
        (GONE, np.array([7], "<u8"), "document 7 is taken down"),
        (GONE, np.array([0], "<u8"), "still have 4 tokens"),
    ],
)
def test_verify_finds_marks_that_a_writer_got_wrong(tmp_path: Path, suffix: str, array: Any, words: str) -> None:
    data = put_tokens(tmp_path, tmp_path.parent / "spool", {})
    entry = put(tmp_path, loss=np.array([[0, 1]]), gone=np.array([1]))
    body = npy_bytes(array)
    (tmp_path / entry.path(suffix)).write_bytes(body)
    wrong = replace(entry, members={**entry.members, suffix: sha256(body)})
    write_generation(data.store, Generation.of(1, SMALL, PACKS, [wrong]))
    with pytest.raises(CorruptDataError, match=words):
        verify(tmp_path)


def test_marks_of_another_shape_are_refused(tmp_path: Path) -> None:
    entry = put(tmp_path, gone=np.array([1]))
    for array in (np.zeros((), "<u8"), np.zeros((1, 1), "<u8")):
        body = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
        text = f"{{'descr': '<u8', 'fortran_order': False, 'shape': {array.shape}, }}"
        body += text.encode().ljust(117) + b"\n" + array.tobytes()
        (tmp_path / entry.path(GONE)).write_bytes(body)
        wrong = replace(entry, members={**entry.members, GONE: sha256(body)})
        with pytest.raises(CorruptDataError, match="belongs to another shard"):
            print(ShardReader(Store(tmp_path), wrong, SMALL).gone)


def test_a_data_set_with_marks_is_verified(tmp_path: Path) -> None:
    loss, gone = np.array([[0, 1]]), np.array([1])
    told = put(tmp_path / "told", loss=loss, gone=gone)
    write_generation(Store(tmp_path / "told"), Generation.of(0, SMALL, PACKS, [told]))
    with pytest.raises(CorruptDataError, match=r"docs\.parquet still tells score, source, url of documents"):
        verify(tmp_path / "told")
    entry = put(tmp_path, documents=documents_of("s", 0, 3, gone={1}), loss=loss, gone=gone)
    write_generation(Store(tmp_path), Generation.of(0, SMALL, PACKS, [entry]))
    assert verify(tmp_path)["verified"]
    assert open_tokens(tmp_path).reader(0).gone.tolist() == [1]
