"""Signatures in a Parquet file, and as objects of datasketch, whose `MinHashLSH` takes and finds them.

One row a text: `id`, and `signature`, a list of a fixed number of unsigned integers; the method stands in the file's
metadata, so that a reader cannot take one family's values for another's. 112 values of 32 bits are 448 bytes, and
hardly smaller compressed; datasketch's objects are made at about 14,000 a second.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray
from pydantic import ValidationError

from .. import InputError, RequestError
from .minhash import MinHash, permutations

if TYPE_CHECKING:
    import datasketch

_METHOD = b"penstock.minhash"
_SCHEMES = {"affine32": "affine32", "mersenne32": "legacy"}


def write_signatures(
    path: str | Path, ids: Sequence[str] | Sequence[bytes] | pa.Array, values: NDArray[Any], minhash: MinHash
) -> None:
    """Write the signatures (n, bands · rows) that `minhash` gave, and an id for each, whole or not at all.

    RequestError: ids are neither strings nor bytes, or are not as many as signatures; or the values are not this
    method's in number or type.
    """
    given = ids if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(ids, None if len(ids) else pa.string())
    if given.type not in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        raise RequestError(f"ids are of type {given.type}: give strings or bytes")
    count, width = minhash.bands * minhash.rows, np.dtype(np.uint64 if minhash.family == "mersenne64" else np.uint32)
    if values.shape != (len(given), count) or values.dtype != width:
        raise RequestError(
            f"signatures are {values.dtype} {values.shape}: {len(given)} ids and {minhash.family} with {minhash.bands} "
            f"bands of {minhash.rows} ask for {width} {(len(given), count)}"
        )
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), count)
    schema = pa.schema([("id", given.type), ("signature", lists.type)], {_METHOD: minhash.model_dump_json().encode()})
    part = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        # Signatures look random: a dictionary or compression only costs time.
        pq.write_table(
            pa.table([given, lists], schema=schema),
            part,
            compression="none",
            use_dictionary=False,
            row_group_size=65536,
        )
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def read_signatures(path: str | Path) -> tuple[pa.ChunkedArray, NDArray[Any], MinHash]:
    """Read ids (n,), signatures (n, bands · rows) and the method. InputError: the file holds something else."""
    with _open(path) as file:
        method = _method(path, file)
        table = file.read()
    values = [_values(chunk, method) for chunk in table.column("signature").chunks]
    none = np.empty((0, method.bands * method.rows), np.uint64 if method.family == "mersenne64" else np.uint32)
    return table.column("id"), np.concatenate([none, *values]), method


def datasketch_minhashes(path: str | Path) -> Iterator[tuple[Any, datasketch.MinHash]]:
    """Give each id and its signature as datasketch's MinHash, in the order of the file.

    Texts that were too short for a shingle are left out: datasketch would find each of them equal to each other. With
    `MinHashLSH(num_perm=bands * rows, params=(bands, rows))` two texts meet as they do here. To ask an index for a new
    text, sign it by the method that `read_signatures` gives, and make the object by `to_datasketch`:

        values, long_enough = method.signatures(pa.array([text]))
        index.query(to_datasketch(values, method)[0])

    or, with datasketch alone, `update` a MinHash of this seed and scheme, whose hashfunc is `hash_function(method)`,
    with the normalised text's n-grams in UTF-8. RequestError: datasketch does not have this family.
    """
    with _open(path) as file:
        method = _method(path, file)
        _scheme(method)
        for batch in file.iter_batches():
            values = _values(batch.column("signature"), method)
            held = (values != np.iinfo(values.dtype).max).any(axis=1)
            ids = batch.column("id").filter(pa.array(held)).to_pylist()
            yield from zip(ids, to_datasketch(values[held], method), strict=True)


def to_datasketch(values: NDArray[Any], minhash: MinHash) -> list[datasketch.MinHash]:
    """Make datasketch's objects of signatures (n, bands · rows): they compare, merge and go on as its own.

    RequestError: datasketch does not have this family.
    """
    import datasketch

    scheme, drawn = _scheme(minhash), np.array(permutations(minhash.family, values.shape[1], minhash.seed))
    named = {"seed": minhash.seed, "scheme": scheme, "permutations": drawn, "hashfunc": hash_function(minhash)}
    return [datasketch.MinHash(hashvalues=row, **named) for row in values]


def hash_function(minhash: MinHash) -> Callable[[bytes], int]:
    """Give the function that hashes an n-gram's UTF-8 bytes as the method does, for `hashfunc` of datasketch."""
    from datasketch.hashfunc import sha1_hash32

    if minhash.shingle_hash == "sha1":
        return sha1_hash32  # type: ignore[no-any-return]
    if minhash.shingle_hash == "xxh64":
        return xxh64_hash32
    return rolling_words32 if minhash.unit == "words" else rolling_characters32


def xxh64_hash32(ngram: bytes) -> int:
    """Hash an n-gram: the low 32 bits of XXH64."""
    return xxhash.xxh64_intdigest(ngram) & 0xFFFFFFFF


def rolling_words32(ngram: bytes) -> int:
    """Hash an n-gram of words by the rolling sum of `kernels/shingles.py`: its high 32 bits."""
    return _rolling32(ngram.split(b" "))


def rolling_characters32(ngram: bytes) -> int:
    """Hash an n-gram of code points by the rolling sum of `kernels/shingles.py`: its high 32 bits."""
    return _rolling32([code.encode() for code in ngram.decode()])


def _rolling32(units: list[bytes]) -> int:
    mask, factor, total = (1 << 64) - 1, 0x9E3779B97F4A7C15, 0
    for unit in units:
        value = 0xCBF29CE484222325
        for byte in unit:
            value = (value ^ byte) * 0x100000001B3 & mask
        total = (total * factor + value) & mask
    return ((total ^ total >> 29) * factor & mask) >> 32


def _scheme(minhash: MinHash) -> str:
    if minhash.family not in _SCHEMES:
        raise RequestError(f"datasketch has no {minhash.family}: sign with family {' or '.join(map(repr, _SCHEMES))}")
    return _SCHEMES[minhash.family]


def _open(path: str | Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is no Parquet file: {error}") from error


def _method(path: str | Path, file: pq.ParquetFile) -> MinHash:
    """Read the method from a file's metadata, and hold the column to it."""
    held = (file.schema_arrow.metadata or {}).get(_METHOD)
    if held is None:
        raise InputError(f"{path} holds no signatures of penstock: its metadata have no {_METHOD.decode()!r}")
    try:
        method = MinHash.model_validate_json(held)
    except ValidationError as error:
        raise InputError(f"{path} was signed by a method that this version does not know: {held.decode()}") from error
    number = pa.uint64() if method.family == "mersenne64" else pa.uint32()
    expected, found = pa.list_(number, method.bands * method.rows), file.schema_arrow.field("signature").type
    if (found.value_type, found.list_size) != (expected.value_type, expected.list_size):
        raise InputError(f"{path} has signatures {found}, its metadata say {expected}")
    return method


def _values(column: pa.FixedSizeListArray, method: MinHash) -> NDArray[Any]:
    return column.flatten().to_numpy().reshape(-1, method.bands * method.rows)  # type: ignore[no-any-return]
