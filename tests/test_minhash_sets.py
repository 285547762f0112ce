"""Normalisations, units and shingle sets against plain Python; exact Jaccard against Python's sets."""

from __future__ import annotations

import random
import re
import string
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from test_minhash import M64, NAMED, simplify

from penstock.transforms.kernels.normalisations import table_of
from penstock.transforms.kernels.shingle_sets import jaccard, jaccard_pairs
from penstock.transforms.kernels.simplify import simplify_rows
from penstock.transforms.minhash import MinHash, content_digests
from penstock.transforms.step import utf8_buffers


def slim(text: str) -> str:
    """SlimPajama's definition (to_hash.py), word for word."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", text.strip())


def plain(text: str, words: bool) -> str:
    return " ".join(text.split()) if words else text


def normalised(text: str, normalisation: str, unit: str) -> str:
    if normalisation == "none":
        return plain(text, unit == "words")
    return simplify(text) if normalisation == "fineweb" else slim(text)


def ngrams(text: str, method: MinHash) -> list[str]:
    """The n-grams of a text, as substrings of the normalised text."""
    text, n = normalised(text, method.normalisation, method.unit), method.ngram
    if method.unit == "characters":
        return [text[at : at + n] for at in range(len(text) - n + 1)]
    words = text.split(" ") if text else []
    return [" ".join(words[at : at + n]) for at in range(len(words) - n + 1)]


def shingle(units: Iterable[str]) -> int:
    """The documented rolling hash of one n-gram."""
    k, total = 0x9E3779B97F4A7C15, 0
    for unit in units:
        value = 0xCBF29CE484222325
        for byte in unit.encode():
            value = (value ^ byte) * 0x100000001B3 & M64
        total = (total * k + value) & M64
    return (total ^ total >> 29) * k & M64


def expected_set(text: str, method: MinHash) -> list[int]:
    words = method.unit == "words"
    return sorted({shingle(gram.split(" ") if words else gram) for gram in ngrams(text, method)})


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the tables are Unicode 14's")
def test_slimpajama_is_its_authors() -> None:
    codes = [*range(0xD800), *range(0xE000, 0x30000), *range(0xE0000, 0xE0400), 0x10FFFF]
    blocks = [codes[at : at + 256] for at in range(0, len(codes), 256)]
    texts = ["".join(f"a{chr(code)}b {chr(code)}\n" for code in block) for block in blocks]
    texts += [*NAMED.values(), "...", ". . .", " - a - ", "a.\n.b", "It's: 3.14!", "ΣΑΣ.Σ' Α.Σ.\u0301", "İ" * 5_000]
    for words in (True, False):
        offsets, data = simplify_rows(*utf8_buffers(pa.array(texts)), *table_of("slimpajama", words))
        assert [data[a:b].tobytes().decode() for a, b in pairwise(offsets)] == [slim(text) for text in texts]


def test_no_normalisation_changes_nothing() -> None:
    texts = [*NAMED.values(), "\x00 a\x00", " \u3000", "A  B\t"]
    for words in (True, False):
        offsets, data = simplify_rows(*utf8_buffers(pa.array(texts)), *table_of("none", words))
        assert [data[a:b].tobytes().decode() for a, b in pairwise(offsets)] == [plain(text, words) for text in texts]


def mixed(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    words = [
        "The",
        "quick",
        "fox,",
        "13",
        "naïve;",
        "漢字",
        "한국",
        "ΟΔΟΣ",
        "👩‍👩‍👧",
        "שָׁלוֹם",
        "a\x00b",
        ".",
        "\n\n",
        "end",
    ]
    return [" ".join(chance.choices(words, k=chance.choice((0, 1, 2, 4, 5, 9, 60, 300)))) for _ in range(count)]


@pytest.mark.parametrize("normalisation", ["fineweb", "slimpajama", "none"])
@pytest.mark.parametrize(("unit", "ngram"), [("words", 1), ("words", 5), ("characters", 1), ("characters", 13)])
def test_sets_are_those_of_the_texts_ngrams(normalisation: str, unit: str, ngram: int) -> None:
    method = MinHash(normalisation=normalisation, unit=unit, ngram=ngram)  # type: ignore[arg-type]
    texts = mixed(30, ngram)
    offsets, values = method.shingle_sets(pa.array([*texts, None]))
    assert (str(offsets.dtype), str(values.dtype)) == ("int64", "uint64")
    assert (offsets[0], offsets[-1]) == (0, len(values))
    found = [values[a:b].tolist() for a, b in pairwise(offsets)]
    assert found == [*(expected_set(text, method) for text in texts), []]
    assert [bool(one) for one in found] == method.signatures(pa.array([*texts, None]))[1].tolist()


def test_sets_stand_alone() -> None:
    texts = pa.array([*mixed(40, 3), "x" * 1_000_000, None, "y z " * 50_000])
    method = MinHash(unit="characters", ngram=8)
    offsets, values = method.shingle_sets(texts)
    for part in (
        texts.slice(5, 30),
        texts.cast(pa.large_string()).slice(5, 30),
        pa.chunked_array([texts.slice(5, 30)]),
    ):
        starts, some = method.shingle_sets(part)
        assert np.array_equal(starts + offsets[5], offsets[5:36])
        assert np.array_equal(some, values[offsets[5] : offsets[35]])
    assert np.diff(offsets)[-3:].tolist() == [1, 0, 4]
    assert [len(one) for one in method.shingle_sets(pa.array([], pa.string()))] == [1, 0]


@pytest.mark.parametrize("count", [16, 17, 256, 257, 70_000])
def test_sets_of_many_sizes_are_sorted(count: int) -> None:
    """Repeats among them; sizes about those at which more bits are dealt by."""
    text = " ".join(f"w{chr(97 + number % 26)}x{'abcdefghij'[number % 10]}{number:b}" for number in range(count))
    method = MinHash(ngram=1, normalisation="none")
    offsets, values = method.shingle_sets(pa.array([text + " " + text[: len(text) // 2], text]))
    again = values[offsets[1] :]
    assert len(again) == count
    assert (again[1:] > again[:-1]).all()
    assert set(again.tolist()) <= set(values[: offsets[1]].tolist())
    assert again[:5].tolist() == sorted(shingle([word]) for word in text.split())[:5]


def test_jaccard_is_pythons() -> None:
    chance = np.random.default_rng(0)
    sets = [np.unique(chance.integers(0, 60, chance.integers(0, 50), np.uint64)) for _ in range(40)]
    sets += [np.array([2**64 - 1], np.uint64), np.array([0, 2**64 - 1], np.uint64), np.empty(0, np.uint64)]
    offsets = np.cumsum([0, *map(len, sets)]).astype(np.int64)
    pairs = np.array([(i, j) for i in range(len(sets)) for j in range(len(sets))], np.int64)
    shared, union = jaccard_pairs(offsets, np.concatenate(sets), pairs)
    for (i, j), both, either in zip(pairs.tolist(), shared.tolist(), union.tolist(), strict=True):
        one, two = set(sets[i].tolist()), set(sets[j].tolist())
        assert (both, either) == (len(one & two), len(one | two))
        assert jaccard(sets[i], sets[j]) == (len(one & two) / len(one | two) if one | two else 0.0)
    assert [len(one) for one in jaccard_pairs(offsets, np.concatenate(sets), np.empty((0, 2), np.int64))] == [0, 0]


@pytest.mark.parametrize("body", [b"\xff\xfe\xfd", b"a \xe2\x82", b"\xf7\xbf\xbf\xbf z", b"\x80\xce", b"\xc0\x80 a"])
@pytest.mark.parametrize("normalisation", ["fineweb", "slimpajama", "none"])
@pytest.mark.parametrize("unit", ["words", "characters"])
def test_bytes_that_are_not_utf8_do_no_harm(body: bytes, normalisation: str, unit: str) -> None:
    offsets = np.array([0, len(body), 2 * len(body)], np.int32)
    array = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(body * 2))
    method = MinHash(normalisation=normalisation, unit=unit, ngram=1)  # type: ignore[arg-type]
    starts, values = method.shingle_sets(array)
    assert np.array_equal(values[: starts[1]], values[starts[1] :])
    digests = content_digests(array, normalisation)  # type: ignore[arg-type]
    assert np.array_equal(digests[0], digests[1])


def test_the_chance_to_meet() -> None:
    assert MinHash().threshold == pytest.approx(0.719, abs=5e-4)  # the figures of datatrove's minhash.py
    assert MinHash().match_probability(0.8) == pytest.approx(0.924, abs=5e-4)
    assert [MinHash().match_probability(edge) for edge in (0.0, 1.0)] == [0.0, 1.0]
