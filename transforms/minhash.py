"""MinHash signatures (Broder 1997), FineWeb's parameters (Penedo et al. 2024, arXiv:2406.17557), from text in one go.

N-grams are of words, between white space, or of characters, after a normalisation; texts with fewer have no signature
and are matched by their content digest. 110 MB of text a second on a core that others keep busy, where the kernel
before this one did 80, and 211 on an idle one.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .. import RequestError
from .kernels.minhash import digest_bands, sign_rows
from .kernels.minhash_families import FAMILIES, HASHES, sign_family
from .kernels.normalisations import Table, table_of
from .kernels.shingle_sets import set_rows
from .kernels.simplify import simplify_rows
from .step import utf8_buffers

#: What is done to a text first; `kernels/normalisations.py` defines each.
Normalisation = Literal["fineweb", "slimpajama", "none"]
Count = Annotated[int, Field(ge=1, le=1024)]
#: How a family's own library hashes an n-gram unless told otherwise.
_OWN_HASHES = {"affine32": "rolling", "mersenne64": "xxh64", "mersenne32": "sha1"}


class MinHash(BaseModel):
    """What makes two documents near-duplicates: an estimate of the Jaccard similarity of their n-grams.

    Documents meet where one band of `rows` values is equal: with 14 x 8 a pair of similarity 0.72 meets in 65 % of the
    cases, one of 0.8 in 92 %. `family` names the library whose signatures these are, value for value, where n-grams are
    hashed as it does: `affine32` those of datasketch 2, `mersenne32` of its scheme `legacy` (before 2.0), `mersenne64`
    of datatrove's 64-bit ones. `shingle_hash` is `rolling` for affine32 unless named (the fastest; no other library has
    it), `xxh64` for mersenne64 (datatrove's default; FineWeb itself was made with `sha1`), `sha1` for mersenne32
    (datasketch's default, and affine32's there). It is of an n-gram's UTF-8 bytes, words with one space between.

    >>> words = "one two three four five six seven"
    >>> values, enough = MinHash().signatures(pa.array([words, words.upper() + "!", "too short"]))
    >>> bool((values[0] == values[1]).all()), enough.tolist()
    (True, [True, True, False])
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    bands: Count = 14  # examples/fineweb.py of datatrove
    rows: Count = 8  # the same
    ngram: Count = 5  # units; the same
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1  # the same
    unit: Literal["words", "characters"] = "words"  # what n-grams are of; characters are code points, spaces too
    normalisation: Normalisation = "fineweb"
    family: Literal["affine32", "mersenne64", "mersenne32"] = "affine32"
    shingle_hash: Literal["rolling", "xxh64", "sha1"] = "rolling"

    @model_validator(mode="before")
    @classmethod
    def _hash_of_family(cls, fields: Any) -> Any:
        """Name the hash where the fields do not, so that equal methods are equal values."""
        if isinstance(fields, dict) and fields.get("shingle_hash") is None and str(fields.get("family")) in _OWN_HASHES:
            return {**fields, "shingle_hash": _OWN_HASHES[fields["family"]]}
        return fields

    def signatures(self, texts: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Sign n texts: values (n, bands · rows), and whether each has at least `ngram` units (n,).

        Values are uint64 for mersenne64, else uint32. A text with fewer units has all bits set in every value.
        """
        width = np.uint64 if self.family == "mersenne64" else np.uint32
        if not len(texts):
            return np.empty((0, self.bands * self.rows), width), np.empty(0, np.bool_)
        offsets, data = _buffers(texts)
        table, pool = self._table()
        a, b = permutations(self.family, self.bands * self.rows, self.seed)
        characters = self.unit == "characters"
        if (self.family, self.shingle_hash, self.unit) == ("affine32", "rolling", "words"):
            return sign_rows(offsets, data, table, pool, a, b, self.ngram)
        a, b = a.astype(np.uint64), b.astype(np.uint64)
        how = FAMILIES[self.family], HASHES[self.shingle_hash], characters
        values, enough = sign_family(offsets, data, table, pool, a, b, *how, self.ngram)
        return values.astype(width, copy=False), enough

    def digests(self, texts: pa.Array) -> NDArray[np.uint64]:
        """Digest n texts to 128 bits a band: (bands, n, 2) uint64; rows of texts that are too short mean nothing."""
        return digest_bands(self.signatures(texts)[0], self.bands)

    def shingle_sets(self, texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Give the n-grams of n texts as 64-bit numbers: offsets (n + 1,), and each text's, sorted and distinct.

        What the signature estimates is the Jaccard similarity of these sets (`kernels.shingle_sets.jaccard_pairs`). A
        text with fewer than `ngram` units has an empty one.
        """
        if not len(texts):
            return np.zeros(1, np.int64), np.empty(0, np.uint64)
        return set_rows(*_buffers(texts), *self._table(), self.unit == "characters", self.ngram)

    def match_probability(self, jaccard: float) -> float:
        """Give the chance that two texts of this similarity meet in at least one band: 1 − (1 − jaccard^rows)^bands."""
        return float(1.0 - (1.0 - jaccard**self.rows) ** self.bands)

    @property
    def threshold(self) -> float:
        """The similarity about which the chance rises from hardly to nearly certain: (1 / bands)^(1 / rows)."""
        return float((1.0 / self.bands) ** (1.0 / self.rows))

    def _table(self) -> Table:
        return table_of(self.normalisation, self.unit == "words")


def content_digests(texts: pa.Array, normalisation: Normalisation = "none") -> NDArray[np.uint64]:
    """Digest n texts to 128 bits (XXH3), exact or normalised: (n, 2) uint64. Null reads as empty."""
    if normalisation not in get_args(Normalisation):
        raise RequestError(f"normalisation is {normalisation!r}: use 'none', 'fineweb' or 'slimpajama'")
    if not len(texts):
        return np.empty((0, 2), np.uint64)
    offsets, data = _buffers(texts)
    if normalisation != "none":
        offsets, data = simplify_rows(offsets, data, *table_of(normalisation, True))
    body = data.data
    digests = [xxhash.xxh3_128_digest(body[start:end]) for start, end in pairwise(offsets.tolist())]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).reshape(-1, 2)


def _buffers(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Give the texts as kernels read them."""
    return utf8_buffers(texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts)


@lru_cache(16)
def permutations(family: str, count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw a family's a and b (count,) as its library does; NumPy keeps RandomState's streams as they are."""
    random, prime = np.random.RandomState(seed), (1 << 61) - 1
    if family == "affine32":
        a = random.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        return a, random.randint(0, 1 << 32, count, dtype=np.uint32)
    if family == "mersenne64":
        return random.randint(1, prime, count, dtype=np.uint64), random.randint(0, prime, count, dtype=np.uint64)
    drawn = [[random.randint(low, prime, dtype=np.uint64) for low in (1, 0)] for _ in range(count)]
    a, b = np.array(drawn, np.uint64).T.copy()
    return a, b
