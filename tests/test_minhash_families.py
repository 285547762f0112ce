"""Each family against the library whose signatures it claims: datasketch as it runs, datatrove as it ran."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import random
import unicodedata
from pathlib import Path
from typing import Any

import datasketch
import numpy as np
import pyarrow as pa
import pytest
import xxhash
from datasketch.hashfunc import sha1_hash32
from planted_pairs import PLANTED, planted
from test_minhash import documents, murmur3_x64_128
from test_minhash_sets import mixed, ngrams

from penstock.transforms.kernels.shingle_sets import jaccard_pairs
from penstock.transforms.minhash import MinHash, permutations

#: Made by tests/data/make_minhash_golden.py from datatrove's own code; never changed by hand.
GOLDEN = json.loads((Path(__file__).parent / "data" / "datatrove_minhash.json").read_text(encoding="utf-8"))
FAMILIES = ("affine32", "mersenne64", "mersenne32")
HASHES = {"xxhash": "xxh64", "sha1": "sha1"}


def sha1_hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.sha1(data).digest()[:8], "little")


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['hash']}-{case['ngram']}")
def test_mersenne64_is_datatroves_from_text(case: dict[str, Any]) -> None:
    settings = {name: case[name] for name in ("bands", "rows", "ngram", "seed")}
    method = MinHash(family="mersenne64", shingle_hash=HASHES[case["hash"]], **settings)  # type: ignore[arg-type]
    values, enough = method.signatures(pa.array(GOLDEN["texts"]))
    assert values.dtype == np.uint64
    for row, has, expected in zip(values, enough, case["signatures"], strict=True):
        assert bool(has) == (expected is not None)
        if expected is None:
            assert (row == 2**64 - 1).all()
        else:
            digest = hashlib.sha256(row.astype("<u8").tobytes()).hexdigest()
            assert [*row[:2].tolist(), digest] == expected


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the tables are Unicode 14's")
@pytest.mark.parametrize("family", ["affine32", "mersenne32"])
@pytest.mark.parametrize(
    ("normalisation", "unit", "ngram", "seed"),
    [("fineweb", "words", 5, 1), ("slimpajama", "characters", 13, 42), ("none", "words", 1, 2**32 - 1)],
)
def test_signatures_are_datasketchs_from_text(
    family: str, normalisation: str, unit: str, ngram: int, seed: int
) -> None:
    """SHA-1 is datasketch's own hash: nothing is given to it but n-grams. 13 characters: SlimPajama's pipeline."""
    named = {"family": family, "normalisation": normalisation, "unit": unit, "ngram": ngram, "seed": seed}
    method = MinHash(bands=130, rows=1, shingle_hash="sha1", **named)  # type: ignore[arg-type]
    texts = mixed(40, seed)
    values, enough = method.signatures(pa.array(texts))
    for text, found, has in zip(texts, values, enough, strict=True):
        scheme = "legacy" if family == "mersenne32" else family
        expected = datasketch.MinHash(130, seed=seed, scheme=scheme)
        expected.update_batch([gram.encode() for gram in ngrams(text, method)])
        assert np.array_equal(found, expected.hashvalues)
        assert has == (not expected.is_empty())


def test_the_default_hash_is_that_of_the_familys_library() -> None:
    assert MinHash(family="mersenne32").shingle_hash == "sha1"
    assert MinHash(family="mersenne64") == MinHash(family="mersenne64", shingle_hash="xxh64")
    assert MinHash(family="mersenne64").model_dump()["shingle_hash"] == "xxh64"
    assert MinHash().shingle_hash == "rolling"
    method = MinHash(family="mersenne64", shingle_hash="rolling")
    assert MinHash.model_validate(method.model_dump()) == pickle.loads(pickle.dumps(method)) == method


@pytest.mark.parametrize(("name", "function"), [("xxh64", xxhash.xxh64_intdigest), ("sha1", sha1_hash64)])
def test_hashes_of_every_length(name: Any, function: Any) -> None:
    """One n-gram of all of a text, one permutation: equal values are equal hashes."""
    chance = random.Random(0)
    for length in [*range(1, 131), 183, 184, 1000]:
        text = "".join(map(chr, chance.choices([*range(128), 233, 0x6F22, 0x1F600], k=length)))
        named: dict[str, Any] = {"bands": 1, "rows": 1, "ngram": length, "unit": "characters", "normalisation": "none"}
        if length > 1024:
            continue
        found = MinHash(family="mersenne64", shingle_hash=name, **named).signatures(pa.array([text]))[0]
        (a,), (b,) = permutations("mersenne64", 1, 1)
        assert int(found[0, 0]) == (function(text.encode()) * int(a) + int(b)) % 2**64 % (2**61 - 1)


def test_products_around_the_prime_are_reduced() -> None:
    """Multiples of p, and what lies about them, up to 2^64: the wrap and both folds."""
    from penstock.transforms.kernels import minhash_families as families

    prime, chance = 2**61 - 1, random.Random(1)
    offsets, data = np.array([0, 1]), np.frombuffer(b"x", np.uint8)
    hashed = xxhash.xxh64_intdigest(b"x")
    sums = [k * prime + d for k in range(9) for d in range(-9, 10)] + [chance.randrange(2**64) for _ in range(99)]
    a = np.array([chance.randrange(2**64) for _ in sums], np.uint64)
    b = np.array([(total - int(one) * hashed) % 2**64 for total, one in zip(sums, a, strict=True)], np.uint64)
    table = MinHash(normalisation="none")._table()
    for family, mask in ((families.MERSENNE64, 2**64 - 1), (families.MERSENNE32, 2**32 - 1)):
        if family == families.MERSENNE32:
            hashed &= mask
            b = np.array([(total - int(one) * hashed) % 2**64 for total, one in zip(sums, a, strict=True)], np.uint64)
        values, _ = families.sign_family(offsets, data, *table, a, b, family, families.XXH64, False, 1)
        assert values[0].tolist() == [total % 2**64 % prime & mask for total in sums]


@pytest.mark.parametrize("family", FAMILIES)
def test_band_digests_are_of_the_values_as_bytes(family: Any) -> None:
    method = MinHash(family=family, bands=5, rows=7)
    texts = pa.array(["one two three four five six", "eins zwei drei vier fünf sechs sieben"])
    digests = method.digests(texts)
    for row, signature in enumerate(method.signatures(texts)[0]):
        for band in range(5):
            part = signature[band * 7 : band * 7 + 7]
            body = part.astype("<u8" if family == "mersenne64" else "<u4").tobytes()
            assert tuple(digests[band, row].tolist()) == murmur3_x64_128(body, band)
    assert method.digests(pa.array([], pa.string())).shape == (5, 0, 2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unit", ["words", "characters"])
def test_rows_stand_alone(family: Any, unit: Any) -> None:
    texts = documents(60, 7)
    texts[5], texts[6] = "x" * 100_000, "a b\x00c\n" * 5_000
    whole = pa.array([*texts, None])
    method = MinHash(family=family, unit=unit, shingle_hash="xxh64")
    values, enough = method.signatures(whole)
    assert not enough[-1]
    assert values[-1].tolist() == [np.iinfo(values.dtype).max] * 112
    part = whole.slice(3, 30)
    for sliced in (part, whole.cast(pa.large_string()).slice(3, 30), pa.chunked_array([part])):
        found, flags = method.signatures(sliced)
        assert np.array_equal(found, values[3:33])
        assert np.array_equal(flags, enough[3:33])
    order = np.random.default_rng(0).permutation(len(whole))
    assert np.array_equal(method.signatures(whole.take(pa.array(order)))[0], values[order])


@pytest.mark.parametrize("family", ["affine32", "mersenne64"])
@pytest.mark.parametrize("jaccard", PLANTED)
def test_planted_pairs_meet_as_often_as_theory_says(family: Any, jaccard: float) -> None:
    """400 pairs: within four standard errors; tests/benchmarks/minhash_truth.py has 20,000 and two points."""
    method, pairs = MinHash(family=family), 400
    texts = pa.array(planted(jaccard, pairs, seed=round(100 * jaccard)))
    offsets, values = method.shingle_sets(texts)
    both, either = jaccard_pairs(offsets, values, np.arange(2 * pairs).reshape(-1, 2))
    assert np.allclose(both / either, jaccard, atol=1e-9)
    digests = method.digests(texts)
    rate = (digests[:, 0::2] == digests[:, 1::2]).all(axis=2).any(axis=0).mean()
    theory = method.match_probability(jaccard)
    assert abs(rate - theory) < 4 * math.sqrt(theory * (1 - theory) / pairs)


def test_datasketchs_own_hash_is_the_one_meant() -> None:
    assert (
        sha1_hash32(b"abc") == sha1_hash64(b"abc") & 0xFFFFFFFF == int.from_bytes(bytes.fromhex("a9993e36"), "little")
    )
