"""Gopher's rules against slow oracles, written from datatrove's filters with `str.split` for its tokenizer."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.transforms.gopher import GopherQuality
from penstock.transforms.gopher_repetition import GopherRepetition
from penstock.transforms.kernels.text import PUNCTUATION, TERMINAL_PUNCTUATION

SYMBOLS = set(PUNCTUATION) | set(TERMINAL_PUNCTUATION)
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
#: Few words, so that n-grams meet again, some of them with their borders elsewhere ("ab a" and "a ba").
PIECES = ["a", "b", "ab", "ba", "the", "of", "é", "漢", "12", "1", "2", "#", "...", "…", "-", "•", ".", "\x00", "👍"]
GAPS = [" ", " ", " ", "  ", "\n", "\n\n", "\n\n\n", "\r\n", "\t", "\x1f", "\x85", "\u2028", "\u00a0", ""]
woven = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(GAPS)), max_size=60).map(
    lambda pairs: "".join(part for pair in pairs for part in pair)
)
texts = st.lists(st.one_of(woven, st.text(max_size=80), woven.map(lambda text: text * 3)), min_size=1, max_size=8)


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def quality_oracle(
    text: str, stop_words: set[str] = STOP_WORDS, given_words: list[str] | None = None
) -> dict[str, float]:
    words = text.split() if given_words is None else given_words
    nonsymbol = [word for word in words if any(char not in SYMBOLS for char in word)]
    lines = text.splitlines()
    return {
        "words": len(words),
        "nonsymbol_words": len(nonsymbol),
        "mean_word_length": float(np.mean([len(word) for word in nonsymbol])) if nonsymbol else 0.0,
        "hash_ratio": share(text.count("#"), len(words)),
        "ellipsis_ratio": share(text.count("...") + text.count("…"), len(words)),
        "bullet_line_ratio": share(sum(line.lstrip().startswith(("•", "-")) for line in lines), len(lines)),
        "ellipsis_line_ratio": share(sum(line.rstrip().endswith(("...", "…")) for line in lines), len(lines)),
        "alpha_word_ratio": share(sum(any(char.isalpha() for char in word) for word in words), len(words)),
        "stop_words": len(stop_words & set(words)),
    }


def copies(items: list[str]) -> tuple[int, int]:
    """Count second and later copies, and their characters."""
    seen: set[str] = set()
    again = [item for item in items if item in seen or seen.add(item)]  # type: ignore[func-returns-value]
    return len(again), sum(map(len, again))


def top(words: list[str], n: int) -> int:
    grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    if not grams:
        return 0
    gram, times = grams.most_common(1)[0]
    return len(gram) * times


def passed(words: list[str], n: int) -> int:
    """Add up repeated n-grams from left to right, going past each."""
    seen: set[str] = set()
    total = at = 0
    while at < len(words) - n + 1:
        gram = "".join(words[at : at + n])
        if gram in seen:
            total += len(gram)
            at += n
        else:
            seen.add(gram)
            at += 1
    return total


def repetition_oracle(text: str, given_words: list[str] | None = None) -> dict[str, float]:
    paragraphs, lines = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    words = text.split() if given_words is None else given_words
    scores = {
        "dup_para_frac": share(copies(paragraphs)[0], len(paragraphs)),
        "dup_para_char_frac": share(copies(paragraphs)[1], len(text)),
        "dup_line_frac": share(copies(lines)[0], len(lines)),
        "dup_line_char_frac": share(copies(lines)[1], len(text)),
    }
    scores |= {f"top_{n}_gram": share(top(words, n), len(text)) for n in (2, 3, 4)}
    return scores | {f"duplicated_{n}_n_grams": share(passed(words, n), len(text)) for n in range(5, 11)}


def scores_of(step: GopherQuality | GopherRepetition, rows: list[str]) -> list[dict[str, float]]:
    scores = step.measure(pa.record_batch({"text": pa.array(rows, pa.string())}))
    return [{name: value[row].item() for name, value in scores.items()} for row in range(len(rows))]


def reason(step: GopherQuality | GopherRepetition, text: str) -> str | None:
    rule: str | None = step.reasons(pa.record_batch({"text": [text]}))[0].as_py()
    return rule


@settings(max_examples=150)
@given(texts)
def test_quality_scores_are_the_oracles(rows: list[str]) -> None:
    assert scores_of(GopherQuality(), rows) == [quality_oracle(text) for text in rows]


@settings(max_examples=250)
@given(texts)
def test_repetition_scores_are_the_oracles(rows: list[str]) -> None:
    assert scores_of(GopherRepetition(), rows) == [repetition_oracle(text) for text in rows]


@settings(max_examples=120)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(20, 400))
def test_repetition_of_few_letters_and_moving_borders(seed: int, letters: int, length: int) -> None:
    """Words of one and two letters: most n-grams stand twice, many with their borders elsewhere."""
    chance = np.random.default_rng(seed)
    word = np.array([*"abcd"[:letters], *(x + y for x in "abcd"[:letters] for y in "abcd"[:letters])])
    text = " ".join(chance.choice(word, length))
    assert scores_of(GopherRepetition(), [text]) == [repetition_oracle(text)]


@pytest.mark.long
def test_real_documents_score_as_the_oracles(shared_data: Path) -> None:
    rows: list[str] = []
    for name in ("docs_english", "docs_multilingual"):
        with (shared_data / f"{name}.jsonl.zst").open("rb") as file:
            head = zstandard.ZstdDecompressor().stream_reader(file).read(2_500_000)
        rows += [json.loads(line)["text"] for line in head.split(b"\n")[:-1]][:150:2]
    rows = [text[:30_000] for text in rows]
    assert sum(map(len, rows)) > 500_000
    assert scores_of(GopherQuality(), rows) == [quality_oracle(text) for text in rows]
    assert scores_of(GopherRepetition(), rows) == [repetition_oracle(text) for text in rows]


@pytest.mark.long
def test_large_documents_with_few_and_many_repetitions() -> None:
    chance = np.random.default_rng(3)
    rows = [
        " ".join(map(str, chance.integers(0, 10**6, 40_000))),
        " ".join(map(str, chance.integers(0, 40, 40_000))),
        "\n".join(f"line {i % 977} of many, word for word" for i in range(6_000)),
        "ab" * 30_000 + " " + "ba" * 30_000,
        "",
    ]
    assert scores_of(GopherRepetition(), rows) == [repetition_oracle(text) for text in rows]
    assert scores_of(GopherQuality(), rows) == [quality_oracle(text) for text in rows]


GOOD = "the word of that day\n" * 20
NO_STOP: dict[str, Any] = {"min_doc_words": None, "min_stop_words": None}


@pytest.mark.parametrize(
    ("text", "fields", "rule"),
    [
        (GOOD, {}, None),
        ("the of " * 24 + "x", {}, "gopher_short_doc"),  # 49 words
        ("the of " * 25, {"min_avg_word_length": 2.5}, None),  # 50 words of 2.5 on average: at its thresholds it stays
        ("the of " * 25, {}, "gopher_below_avg_threshold"),
        ("the of " * 25 + "--- " * 9, {"min_avg_word_length": 2.5}, None),  # words of symbols alone do not count
        ("the of " * 51, {"max_doc_words": 100}, "gopher_long_doc"),
        ("abcdefghijkl " * 60, {}, "gopher_above_avg_threshold"),
        (GOOD + "# " * 15, {}, "gopher_too_many_hashes"),
        (GOOD + "... " * 15, {}, "gopher_too_many_ellipsis"),
        (GOOD + "…" * 15, {}, "gopher_too_many_ellipsis"),
        ("- the word of that day\n" * 20, {}, "gopher_too_many_bullets"),
        ("\u3000•the word of that day\r\n" * 20, {}, "gopher_too_many_bullets"),
        ("- the word of that day\n" * 9 + "and so on", {"min_doc_words": 1}, None),  # nine in ten is the threshold
        ("the word of that and long\nday of the winter...  \n" * 20, {}, "gopher_too_many_end_ellipsis"),
        ("the word of that 12345\n" * 20 + "99999 " * 20, {}, "gopher_below_alpha_threshold"),
        ("The Word Of That day\n" * 20, {}, "gopher_enough_stop_words"),  # told by case
        ("the the the word is here today\n" * 20, {}, "gopher_enough_stop_words"),  # counted once
        ("der Baum und die Wiese\n" * 20, {"stop_words": ("der", "und")}, None),
        ("слово и дело было в начале\n" * 20, {"stop_words": ("и", "в", "не")}, None),
        ("", NO_STOP, None),
        ("!!! ??? ---", NO_STOP, "gopher_below_alpha_threshold"),  # no mean of no words
    ],
)
def test_quality_rules(text: str, fields: dict[str, Any], rule: str | None) -> None:
    assert reason(GopherQuality(**fields), text) == (rule and f"gopher_quality/{rule}")


def test_zero_is_a_threshold_and_none_is_not() -> None:
    assert reason(GopherQuality(max_symbol_word_ratio=0), GOOD + "#") == "gopher_quality/gopher_too_many_hashes"
    assert reason(GopherQuality(max_symbol_word_ratio=None), GOOD + "#" * 99) is None


NUMBERS = " ".join(map(str, range(1000)))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", None),
        (NUMBERS, None),
        ("one two three four five six seven eight nine ten", "top_3_gram"),  # nothing repeated: datatrove's way
        ("\n\n".join(["one"] * 2 + ["two", NUMBERS]), None),
        ("\n\n".join(["one"] * 3 + ["two", NUMBERS]), "dup_para_frac"),
        ("\n\n".join([NUMBERS, NUMBERS, *"abcdef"]), "dup_para_char_frac"),
        ("\n".join(["one"] * 3 + ["two", NUMBERS]), "dup_line_frac"),
        ("\n" + NUMBERS + "\n", "dup_line_frac"),  # an empty line before and one after
        ("\n".join([NUMBERS, NUMBERS, *"abcdef"]), "dup_line_char_frac"),
        (NUMBERS + " as well" * 500, "top_2_gram"),
        (NUMBERS + " " + NUMBERS, "duplicated_5_n_grams"),
    ],
)
def test_repetition_rules(text: str, rule: str | None) -> None:
    assert reason(GopherRepetition(), text) == (rule and f"gopher_repetition/{rule}")


def test_a_repetition_score_at_its_threshold_stays() -> None:
    text = "\n".join("aabcdefghi")  # one line in ten
    assert repetition_oracle(text)["dup_line_frac"] == 0.1
    rules: dict[str, Any] = dict.fromkeys(repetition_oracle(text))
    assert reason(GopherRepetition(**(rules | {"dup_line_frac": 0.1})), text) is None
    assert reason(GopherRepetition(**(rules | {"dup_line_frac": 0.099})), text) == "gopher_repetition/dup_line_frac"


def test_duplicate_n_grams_are_compared_joined() -> None:
    scores = scores_of(GopherRepetition(), ["ab c d e f a bc d e f"])[0]
    assert scores["duplicated_5_n_grams"] == 6 / 21
