"""What a word is: Unicode's bounds against the rules read one by one, a user's tokenizer, and what is refused."""

from __future__ import annotations

import sys
import unicodedata
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_oracles import fasttext_words, pairs_of, unicode_segments, unicode_words

from penstock import RunError
from penstock.transforms import FineWebQuality, GopherQuality, GopherRepetition
from penstock.transforms.kernels import words as kernels
from penstock.transforms.step import utf8_buffers
from penstock.transforms.words import words_of

#: Of each value of Word_Break one code point or more; letters with marks, pictographs that are letters, flags.
PIECES = [
    *"aZ1_.,:;'\" \t\n\r-#éж中かアｱー½²٣א״·", "\r\n", "\u0308", "\u200d", "\u00ad", "\u2019",
    "\U0001f1e6", "\U0001f1e7", "❤", "👍",
    "ℹ", "Ⓜ", "\u2003", "\u3000", "\u0b95\u0bbf", "\ufe0f", "\u2028", "\x85", "\x0b", "\x00", "👩‍👩‍👧",
]  # fmt: skip
woven = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
texts = st.lists(st.one_of(woven, st.text(max_size=12)), min_size=1, max_size=6)


def found(words: str, rows: list[str]) -> list[list[str]]:
    offsets, data = utf8_buffers(pa.array(rows, pa.string()))
    return spans(words_of(words, offsets, data))


def spans(words: kernels.Words) -> list[list[str]]:
    body = words.data.tobytes()
    each = [body[start:end].decode() for start, end in zip(words.starts, words.ends, strict=True)]
    return [each[start:end] for start, end in zip(words.rows, words.rows[1:], strict=False)]


@settings(max_examples=400)
@given(texts)
def test_words_are_the_oracles(rows: list[str]) -> None:
    assert found("unicode", rows) == [unicode_words(text) for text in rows]
    assert found("whitespace", rows) == [text.split() for text in rows]
    assert found("fasttext", rows) == [fasttext_words(text) for text in rows]
    offsets, data = utf8_buffers(pa.array(rows, pa.string()))
    every = kernels.unicode_words(offsets, data, kernels.word_classes(), kernels.word_rules(), 0)
    assert spans(kernels.Words(*every, data)) == [unicode_segments(text) for text in rows]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("The quick (“brown”) fox can’t jump 32.3 feet, right?",
         ["The", "quick", "brown", "fox", "can’t", "jump", "32.3", "feet", "right"]),
        ("a.b a. b 1,000 1,a x_1 e.g. U.S.A.", ["a.b", "a", "b", "1,000", "1", "a", "x_1", "e.g", "U.S.A"]),
        ("春眠 カタカナ ひら", ["春", "眠", "カタカナ", "ひ", "ら"]),
        ("שלום צה\"ל ג'", ["שלום", "צה\"ל", "ג'"]),
        ("👍🏽 🇫🇷🇩🇪 ... --- !!!", []),
        ("naïve cafe\u0301 кот", ["naïve", "cafe\u0301", "кот"]),
        ("a½b\x00c\u200dd", ["a", "½", "b", "c\u200dd"]),
    ],
)  # fmt: skip
def test_unicode_words(text: str, words: list[str]) -> None:
    assert found("unicode", [text]) == [words]


def test_words_that_touch_fit() -> None:
    rows = ["a½" * 1000, "中" * 1000, "a" * 1_000_000, "1 " * 1000]
    assert [len(words) for words in found("unicode", rows)] == [2000, 1000, 1, 1000]


def test_bytes_that_are_no_utf8_harm_no_neighbour() -> None:
    broken = [b"\xe2\x80", b"\xff\xfe\xf5 \xc3", b"ab", b"\xe2"]
    offsets, data = np.cumsum([0, *map(len, broken)], dtype=np.int64), np.frombuffer(b"".join(broken), np.uint8)
    rows = words_of("unicode", offsets, data).rows
    assert np.diff(rows).tolist()[2] == 1


def test_bounds_are_those_of_uniseg() -> None:
    uniseg = pytest.importorskip("uniseg.wordbreak")
    chance = np.random.default_rng(1)
    rows = ["".join(chance.choice(np.array(PIECES, object), 40)) for _ in range(200)]
    expected = [[word for word in uniseg.words(text) if any(char.isalnum() for char in word)] for text in rows]
    assert found("unicode", rows) == expected


def test_the_table_knows_what_python_knows() -> None:
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip("letters and digits are pinned to Unicode 14.0, this Python has others")
    classes, lower = kernels.word_classes(), kernels.lower_case()
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        assert bool(classes[code] & kernels.ALPHANUMERIC) == char.isalnum()
        assert chr(lower[code]) == (char.lower() if len(char.lower()) == 1 else char)


def test_a_users_tokenizer_gives_the_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["one two three", "", "a b"]
    assert found("word_oracles:pairs", rows) == [pairs_of(text) for text in rows]
    step = GopherQuality(words="word_oracles:pairs")
    assert step.measure(pa.record_batch({"text": rows}))["words"].tolist() == [3, 0, 2]
    assert step.measure(pa.record_batch({"text": rows}).slice(2, 1))["words"].tolist() == [2]
    source = Path(sys.modules["word_oracles"].__file__ or "").read_bytes()
    digest = step.fingerprint()["words_source"]
    assert digest == sha256(source).hexdigest()
    assert "words_source" not in GopherQuality(words="unicode").fingerprint()


def test_fineweb_counts_these_words_over_its_newlines() -> None:
    rows = ["one, two\nthree - four\n", "\n", "中文\n字"]
    step = FineWebQuality(words="unicode")
    assert step.measure(pa.record_batch({"text": rows}))["list_ratio"].tolist() == [2 / 4, 0.0, 1 / 3]
    others = {name: value.tolist() for name, value in step.measure(pa.record_batch({"text": rows})).items()}
    usual = FineWebQuality().measure(pa.record_batch({"text": rows}))
    assert all(others[name] == value.tolist() for name, value in usual.items() if name != "list_ratio")


BAD = """
import pyarrow as pa
def a_list(texts): return [[]] * len(texts)
def one_less(texts): return pa.array([["a"]] * (len(texts) - 1), pa.list_(pa.string()))
def numbers(texts): return pa.array([[1]] * len(texts), pa.list_(pa.int64()))
def nulls(texts): return pa.array([[None]] * len(texts), pa.list_(pa.string()))
def null_list(texts): return pa.array([None] * len(texts), pa.list_(pa.string()))
def nothing(texts): return pa.array([[]] * len(texts))
def chunked(texts): return pa.chunked_array([pa.array([["a", "b"]] * len(texts), pa.large_list(pa.large_string()))])
value = 3
"""


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "bad_words.py").write_text(BAD)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "bad_words"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a_list", "gave a list, not a list array"),
        ("one_less", "gave 1 lists of words for 2 texts"),
        ("null_list", "gave 0 lists of words for 2 texts"),
        ("numbers", "lists of int64"),
        ("nulls", "with 2 nulls"),
    ],
)
def test_a_tokenizer_that_gives_something_else_is_told(bad: str, name: str, said: str) -> None:
    with pytest.raises(RunError, match=said):
        found(f"{bad}:{name}", ["a", "b"])


def test_a_tokenizer_may_give_any_list_of_strings(bad: str) -> None:
    assert found(f"{bad}:nothing", ["a", "b"]) == [[], []]
    assert found(f"{bad}:chunked", ["a", "b"]) == [["a", "b"]] * 2


@pytest.mark.parametrize("kind", [GopherQuality, GopherRepetition, FineWebQuality])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("spacy", "known are whitespace, unicode, fasttext"),
        ("no_such_module:words", "cannot be imported: ModuleNotFoundError"),
        ("word_oracles:no_such", "cannot be imported: AttributeError"),
        ("word_oracles:KINDS", "that is no function"),
        ("a b:c", "known are"),
        (None, "words"),
    ],
)
def test_what_is_no_definition_of_a_word_is_refused(kind: Any, words: Any, said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        kind(words=words)
