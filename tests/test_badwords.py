"""Listed words: which places count, in each variant, against the regular expressions of those who defined them."""

from __future__ import annotations

import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penstock.transforms.badwords import BadWords
from penstock.transforms.schema import document_ids

ENTRIES = ["damn", "bad phrase", "c++", "3d", "straße", "ΟΔΟΣ", "çà", "x", "文字", "a b", "a b c", "naïve"]
GLUE = [" ", " ", "_", "é", "²", "\u0301", "\n", "a", "-", "İ", "Σ", ".", "9", "\u3000", "👍", "\x00"]


def folded(text: str) -> str:
    return text.lower().replace("ς", "σ")


ANY = "|".join(re.escape(folded(entry)) for entry in ENTRIES)
FLANKED = re.compile(rf"(?:\W|^)(?:{ANY})(?:\W|$)")  # datatrove and mC4
C4 = re.compile(rf"[^a-z](?:{ANY})[^a-z]")
ORACLES: dict[str, Callable[[str], bool]] = {
    "en": lambda text: FLANKED.search(text) is not None,
    "zh": lambda text: re.search(ANY, text) is not None,
    "c4": lambda text: any(C4.search(line) for line in text.split("\n")),
}


@pytest.fixture
def lists(tmp_path: Path) -> str:
    path = tmp_path / "list.txt"
    path.write_text("\ufeff" + "\r\n".join(ENTRIES) + "\n\n  \n", encoding="utf-8")
    return str(path)


def batch(texts: list[str | None], **columns: list[str | None]) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(texts, pa.string()), **columns})


def woven(count: int) -> list[str]:
    rng = random.Random(7)
    parts = [*ENTRIES, *map(str.upper, ENTRIES), *GLUE, *GLUE]
    return ["".join(rng.choices(parts, k=rng.randint(0, 9))) for _ in range(count)]


@pytest.mark.parametrize("way", list(ORACLES))
def test_decides_as_the_expressions_do(way: str, lists: str) -> None:
    step = BadWords(lists=lists, variant="c4") if way == "c4" else BadWords(lists=lists, default_language=way)
    texts = woven(3000)
    found = (step.measure(batch(list(texts)))["matches"] > 0).tolist()
    expected = [ORACLES[way](folded(text)) for text in texts]
    assert found == expected
    assert 300 < sum(expected) < 2900


@pytest.mark.parametrize(
    ("text", "matches", "word"),
    [
        ("damn", 1, "damn"),
        ("Damn, DAMN!", 2, "damn"),
        ("damned god-damn_ undamn", 0, None),
        ("a b c", 1, "a b c"),  # the longest at the place
        ("x a b", 2, "x"),  # the first on the page
        ("in c++, c++y", 1, "c++"),
        ("a bad  phrase, a bad\nphrase", 0, None),
        ("le çà\u0301", 1, "çà"),  # a combining mark is no word character
        ("STRASSE Straße", 1, "straße"),
        ("οδος ΟΔΟΣ οδοσ", 3, "οδος"),
        ("3D 3d² 3d", 2, "3d"),
        ("damn\x00", 1, "damn"),
        ("", 0, None),
        ("damn " * 200_000, 200_000, "damn"),
        ("d" * (1 << 20), 0, None),
    ],
)
def test_whole_words_count(text: str, matches: int, word: str | None, lists: str) -> None:
    scores = BadWords(lists=lists).measure(batch([text]))
    assert (scores["matches"].tolist(), scores["word"].tolist()) == ([matches], [word])


@pytest.mark.parametrize(
    ("text", "matches"),
    [("a damn.", 1), ("damn it.", 0), ("so damn", 0), ("édamn9", 1), ("damn\n damn\ndamn.", 0), ("1damnx", 0)],
)
def test_c4_asks_for_a_character_on_both_sides_in_the_line(text: str, matches: int, lists: str) -> None:
    assert BadWords(lists=lists, variant="c4").measure(batch([text]))["matches"].tolist() == [matches]


def test_each_language_has_its_list(tmp_path: Path) -> None:
    paths = {}
    for language, entry in {"en": "gift", "de": "mist", "zh": "性"}.items():
        paths[language] = str(tmp_path / language)
        Path(paths[language]).write_text(entry, encoding="utf-8")
    texts: list[str | None] = ["gift mist", "gift mist", "a性b", "a性b", "gift", None, "gift"]
    languages: list[str | None] = ["en", "de", "zh", "zh-Latn", "fr", "en", None]
    step = BadWords(lists=paths)
    assert step.measure(batch(texts, language=languages))["word"].tolist() == [
        *("gift", "mist", "性", "性"), None, None, "gift",
    ]  # fmt: skip
    assert step.measure(batch(["gift mist"]))["word"].tolist() == ["gift"]
    assert BadWords(lists=paths, default_language="de").measure(batch(["gift mist"]))["word"].tolist() == ["mist"]


def test_a_share_of_the_pages_is_kept_by_their_ids(lists: str) -> None:
    ids = document_ids("web", "file", range(4000))
    rows = pa.record_batch({"id": ids, "text": pa.array(["damn"] * 4000, pa.string())})
    half = BadWords(lists=lists, keep_fraction=0.5).apply(rows)
    assert 1850 < half.reasons.null_count < 2150
    draws = half.batch["bad_words.draw"].to_numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    order = pa.array(np.random.default_rng(0).permutation(4000))
    assert BadWords(lists=lists, keep_fraction=0.5).reasons(rows.take(order)).equals(half.reasons.take(order))
    other = BadWords(lists=lists, keep_fraction=0.5, seed=1).reasons(rows)
    assert 1700 < sum(a == b for a, b in zip(half.reasons.is_null(), other.is_null(), strict=True)) < 2300
    assert BadWords(lists=lists, keep_fraction=1.0).reasons(rows).null_count == 4000
    assert BadWords(lists=lists).reasons(rows).null_count == 0
    same = batch(["damn", "damn"])  # without ids, by the text
    assert len(set(BadWords(lists=lists).measure(same)["draw"].tolist())) == 1


def test_the_fingerprint_has_the_lists_and_not_their_places(lists: str, tmp_path: Path) -> None:
    step = BadWords(lists=lists)
    moved = tmp_path / "moved.txt"
    moved.write_bytes(Path(lists).read_bytes())
    assert BadWords(lists=str(moved)).fingerprint() == step.fingerprint()
    assert lists not in str(step.fingerprint())
    by_language = BadWords(lists={"en": lists}).fingerprint()
    assert by_language["lists"] == {"en": step.fingerprint()["lists"]}
    moved.write_text("other words")
    assert BadWords(lists=str(moved)).fingerprint() != step.fingerprint()
    assert pickle.loads(pickle.dumps(step)) == step


def test_a_list_that_cannot_be_used_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        BadWords(lists=str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="has no entry"):
        BadWords(lists={"en": str(tmp_path / "empty.txt")})
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="not UTF-8 at byte 3"):
        BadWords(lists=str(tmp_path / "latin.txt"))
    with pytest.raises(ValueError, match="keep_fraction"):
        BadWords(lists=str(tmp_path / "empty.txt"), keep_fraction=2)
