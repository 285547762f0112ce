"""Signature files, and datasketch's own objects and index over them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import datasketch
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_minhash import documents
from test_minhash_sets import ngrams

from penstock import InputError, RequestError
from penstock.transforms.minhash import MinHash
from penstock.transforms.signatures import (
    datasketch_minhashes,
    hash_function,
    read_signatures,
    to_datasketch,
    write_signatures,
)

METHODS = [
    MinHash(),
    MinHash(family="mersenne32"),
    MinHash(shingle_hash="xxh64", unit="characters", ngram=9, bands=20, rows=3, seed=9),
    MinHash(unit="characters", normalisation="slimpajama", ngram=6, bands=4),
]


def texts() -> list[str]:
    """Texts of which some are near copies of others, and some too short."""
    made = documents(40, 5)
    return [*made, *(text + " and one more" for text in made[:20])]


def own(text: str, method: MinHash) -> datasketch.MinHash:
    """What datasketch makes of a text's n-grams itself."""
    scheme: Any = {"mersenne32": "legacy"}.get(method.family, method.family)
    found = datasketch.MinHash(
        method.bands * method.rows, seed=method.seed, scheme=scheme, hashfunc=hash_function(method)
    )
    found.update_batch([gram.encode() for gram in ngrams(text, method)])
    return found


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.family}-{method.shingle_hash}-{method.unit}")
def test_datasketch_finds_what_it_would_have_found(tmp_path: Path, method: MinHash) -> None:
    ids = [f"t{number}" for number in range(60)]
    values, enough = method.signatures(pa.array(texts()))
    write_signatures(tmp_path / "s.parquet", ids, values, method)
    given = dict(datasketch_minhashes(tmp_path / "s.parquet"))
    itself = {name: own(text, method) for name, text, has in zip(ids, texts(), enough, strict=True) if has}
    assert given == itself  # scheme, seed and values
    first = given["t9"]
    assert [first.jaccard(other) for other in given.values()] == [itself["t9"].jaccard(o) for o in itself.values()]
    indexes = [datasketch.MinHashLSH(num_perm=len(first), params=(method.bands, method.rows)) for _ in "ab"]
    for index, hashes in zip(indexes, (given, itself), strict=True):
        for name, one in hashes.items():
            index.insert(name, one)
    digests = method.digests(pa.array(texts()))
    for name, one in given.items():
        row = ids.index(name)
        here = {ids[other] for other in np.flatnonzero((digests == digests[:, [row]]).all(axis=2).any(axis=0) & enough)}
        assert set(indexes[0].query(itself[name])) == set(indexes[1].query(one)) == here
    new = texts()[3] + " a new word"
    asked = to_datasketch(method.signatures(pa.array([new]))[0], method)[0]
    assert asked == own(new, method)
    assert pickle.loads(pickle.dumps(asked)) == asked
    asked.update(b"another n-gram")
    expected = own(new, method)
    expected.update(b"another n-gram")
    assert asked == expected


@pytest.mark.parametrize("family", ["affine32", "mersenne64", "mersenne32"])
@pytest.mark.parametrize("ids", [["a", "é", "c"], [b"\x00", b"\xff" * 16, b""]])
def test_what_is_written_is_read(tmp_path: Path, family: Any, ids: list[Any]) -> None:
    method = MinHash(family=family, bands=3, rows=2, ngram=2)
    values, _ = method.signatures(pa.array(["one two three", "", "two three four"]))
    write_signatures(tmp_path / "s.parquet", ids, values, method)
    found, read, told = read_signatures(tmp_path / "s.parquet")
    assert (found.to_pylist(), told) == (ids, method)
    assert np.array_equal(read, values)
    assert read.dtype == values.dtype
    assert [file.name for file in tmp_path.iterdir()] == ["s.parquet"]
    if family == "mersenne64":
        with pytest.raises(RequestError, match="no mersenne64: sign with family 'affine32' or 'mersenne32'"):
            next(datasketch_minhashes(tmp_path / "s.parquet"))
    else:
        assert [name for name, _ in datasketch_minhashes(tmp_path / "s.parquet")] == [ids[0], ids[2]]


def test_none_at_all(tmp_path: Path) -> None:
    values, _ = MinHash().signatures(pa.array([], pa.string()))
    write_signatures(tmp_path / "s.parquet", [], values, MinHash())
    ids, read, _ = read_signatures(tmp_path / "s.parquet")
    assert (len(ids), read.shape, str(read.dtype)) == (0, (0, 112), "uint32")
    assert list(datasketch_minhashes(tmp_path / "s.parquet")) == []


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    values, _ = MinHash().signatures(pa.array(["a", "b"]))
    with pytest.raises(RequestError, match=r"are uint32 \(2, 112\): 1 ids .* 14 bands of 8 ask for uint32 \(1, 112\)"):
        write_signatures(path, ["a"], values, MinHash())
    with pytest.raises(RequestError, match=r"mersenne64 .* ask for uint64"):
        write_signatures(path, ["a", "b"], values, MinHash(family="mersenne64"))
    with pytest.raises(RequestError, match="type int64: give strings or bytes"):
        write_signatures(path, pa.array([1, 2]), values, MinHash())
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"no table")
    with pytest.raises(InputError, match="no Parquet file"):
        read_signatures(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(InputError, match="holds no signatures of penstock"):
        read_signatures(path)
    told = {b"penstock.minhash": b'{"family": "affine128"}'}
    pq.write_table(pa.table({"id": ["a"]}).replace_schema_metadata(told), path)
    with pytest.raises(InputError, match=r"this version does not know: .*affine128"):
        read_signatures(path)
    lists = pa.FixedSizeListArray.from_arrays(pa.array([1, 2], pa.uint32()), 2)
    told = {b"penstock.minhash": b"{}"}
    pq.write_table(pa.table({"id": ["a"], "signature": lists}).replace_schema_metadata(told), path)
    with pytest.raises(InputError, match=r"\[2\].*\[112\]"):
        read_signatures(path)
