"""Gopher's rules in other variants and with other words, against slow oracles written from each source."""

from __future__ import annotations

import re
from collections import Counter
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from test_filters import (  # the suite that every filter passes, here for each variant
    batch,
    test_a_slice_sees_only_its_rows,
    test_an_empty_batch_tells_the_columns,
    test_bytes_that_are_no_utf8_harm_no_neighbour,
    test_is_a_step,
    test_neither_order_nor_cut_matters,
    test_null_reads_as_empty,
    test_reasons_replay_from_the_columns_alone,
)
from test_gopher import STOP_WORDS, quality_oracle, repetition_oracle, share, texts
from word_oracles import fasttext_words, unicode_words

from penstock.transforms.gopher import GopherQuality
from penstock.transforms.gopher_repetition import GopherRepetition
from penstock.transforms.step import Filter

SUITE = (
    test_a_slice_sees_only_its_rows,
    test_an_empty_batch_tells_the_columns,
    test_bytes_that_are_no_utf8_harm_no_neighbour,
    test_is_a_step,
    test_neither_order_nor_cut_matters,
    test_null_reads_as_empty,
    test_reasons_replay_from_the_columns_alone,
)
VARIANTS = ("paper", "dclm", "dolma", "dolma_v1")
Scored = dict[str, float]


@pytest.fixture(params=[*VARIANTS, "fineweb, unicode"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[GopherQuality, GopherRepetition], ids=lambda kind: str(kind.__name__))
def filter_(request: pytest.FixtureRequest, variant: str) -> Filter:
    name, _, words = variant.partition(", ")
    step: Filter = request.param(variant=name, **({"words": words} if words else {}))
    return step


def scored(step: Filter, rows: list[str]) -> list[Scored]:
    scores = step.measure(batch(rows))
    return [{name: value[row].item() for name, value in scores.items()} for row in range(len(rows))]


def reason(step: Filter, text: str) -> str | None:
    rule: str | None = step.reasons(batch([text]))[0].as_py()
    return rule and rule.partition("/")[2]


def lines_of(text: str, end: str = "\n") -> list[str]:
    return [line for part in text.split(end) if (line := part.strip())]


def shares(words: list[str], lines: list[str], bullets: tuple[str, ...], ends: tuple[str, ...]) -> Scored:
    return {
        "bullet_line_ratio": share(sum(line.startswith(bullets) for line in lines), len(lines)),
        "ellipsis_line_ratio": share(sum(line.endswith(ends) for line in lines), len(lines)),
        "alpha_word_ratio": share(sum(any(char.isalpha() for char in word) for word in words), len(words)),
    }


def paper_quality(text: str, words: list[str]) -> Scored:
    return {
        "word_count": len(words),
        "mean_word_length": share(sum(map(len, words)), len(words)),
        "hash_ratio": share(text.count("#"), len(words)),
        "ellipsis_ratio": share(text.count("...") + text.count("…"), len(words)),
        **shares(words, lines_of(text), ("•", "●", "*", "-"), ("...", "…")),
        "stop_words": len(STOP_WORDS & {word.lower() for word in words}),
    }


def dclm_quality(text: str, words: list[str]) -> Scored:
    split = text.split()
    return {
        "word_count": sum(word[0].isalnum() for word in words),
        "mean_word_length": share(sum(map(len, split)), len(split)),
        "symbol_ratio": share(sum(map(text.count, ("#", "...", ". . .", "…"))), len(split)),
        **shares(split, lines_of(text), ("•", "●", "*", "-"), ("...", ". . .", "…")),
        "stop_words": sum(word.lower() in STOP_WORDS for word in split),
    }


def dolma_quality(text: str, words: list[str], lines: list[str]) -> Scored:
    return {
        "word_count": len(words),
        "median_word_length": float(median(map(len, words))) if words else 0.0,
        "symbol_ratio": share(sum("#" in word or "…" in word for word in words), len(words)),
        **shares(words, lines, ("*", "-"), ("…",)),
        "stop_words": sum(word in STOP_WORDS for word in words),
    }


def every_copy(items: list[str]) -> tuple[int, int]:
    """Count all of what stands more than once, and its characters."""
    counts = Counter(items)
    return sum(counts[item] > 1 for item in items), sum(len(item) for item in items if counts[item] > 1)


def grams_of(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def covered(words: list[str], n: int, chosen: set[tuple[str, ...]]) -> int:
    places = {at + step for at, gram in enumerate(grams_of(words, n)) if gram in chosen for step in range(n)}
    return sum(len(words[place]) for place in places)


def most_frequent(words: list[str], n: int) -> list[tuple[str, ...]]:
    counts = Counter(grams_of(words, n))
    times = max(counts.values(), default=0)
    return [gram for gram in counts if counts[gram] == times > 1]


def repeated(words: list[str], n: int) -> set[tuple[str, ...]]:
    return {gram for gram, times in Counter(grams_of(words, n)).items() if times > 1}


def segment_scores(lines: list[str], paragraphs: list[str]) -> Scored:
    return {
        "dup_line_frac": share(every_copy(lines)[0], len(lines)),
        "dup_para_frac": share(every_copy(paragraphs)[0], len(paragraphs)),
        "dup_line_char_frac": share(every_copy(lines)[1], sum(map(len, lines))),
        "dup_para_char_frac": share(every_copy(paragraphs)[1], sum(map(len, paragraphs))),
    }


def dclm_repetition(text: str, words: list[str]) -> Scored:
    words = [word for word in words if word[0].isalnum()]
    total, lines = sum(map(len, words)), lines_of(text)
    scores: Scored = {"lines": len(lines), **segment_scores(lines, lines_of(text, "\n\n"))}
    for n in (2, 3, 4):
        frequent = most_frequent(words, n)
        length = max((sum(map(len, gram)) for gram in frequent), default=0)
        scores[f"top_{n}_gram"] = share(length * (grams_of(words, n).count(frequent[0]) if frequent else 0), total)
    return scores | {
        f"duplicated_{n}_n_grams": share(covered(words, n, repeated(words, n)), total) for n in range(5, 11)
    }


def paper_repetition(text: str, words: list[str]) -> Scored:
    total = sum(map(len, words))
    blocks, block = [], ""
    for line in [*text.split("\n"), ""]:
        block = f"{block}\n{line}" if line.strip() else blocks.append(block) or ""  # type: ignore[func-returns-value]
    scores = segment_scores(lines_of(text), [stripped for block in blocks if (stripped := block.strip())])
    for n in (2, 3, 4):
        most = max((covered(words, n, {gram}) for gram in most_frequent(words, n)), default=0)
        scores[f"top_{n}_gram"] = share(most, total)
    return scores | {
        f"duplicated_{n}_n_grams": share(covered(words, n, repeated(words, n)), total) for n in range(5, 11)
    }


def dolma_repetition(words: list[str], lines: list[str], empty: bool) -> Scored:
    counts, total = Counter(lines), sum(map(len, words))
    again = [line for line in lines if counts[line] > 1 and (line or empty)]
    scores = {
        "dup_line_frac": share(len(again), len(lines)),
        "dup_line_char_frac": share(sum(map(len, again)), total),
    }
    for n in (2, 3, 4):
        first = most_frequent(words, n)[:1]
        scores[f"top_{n}_gram"] = share(sum(sum(map(len, gram)) for gram in grams_of(words, n) if gram in first), total)
    for n in range(5, 11):
        grams, twice = grams_of(words, n), repeated(words, n)
        lengths = [sum(map(len, gram)) for gram in grams]
        ours = sum(length for gram, length in zip(grams, lengths, strict=True) if gram in twice)
        scores[f"duplicated_{n}_n_grams"] = share(ours, sum(lengths))
    return scores


def oracle(kind: type[Filter], variant: str, text: str, words: list[str]) -> Scored:
    lines = re.split(r"\n+", text) if variant == "dolma" else text.split("\n")
    if kind is GopherQuality:
        if variant.startswith("dolma"):
            return dolma_quality(text, words, lines)
        if variant == "fineweb":
            return quality_oracle(text, given_words=words)
        return paper_quality(text, words) if variant == "paper" else dclm_quality(text, words)
    if variant.startswith("dolma"):
        return dolma_repetition(words, lines, variant == "dolma_v1")
    if variant == "fineweb":
        return repetition_oracle(text, words)
    return paper_repetition(text, words) if variant == "paper" else dclm_repetition(text, words)


WORDS = {"whitespace": str.split, "unicode": unicode_words, "fasttext": fasttext_words}


@pytest.mark.parametrize("kind", [GopherQuality, GopherRepetition])
@pytest.mark.parametrize("name", [*VARIANTS, "fineweb"])
@settings(max_examples=40)
@given(rows=texts)
def test_scores_are_the_oracles(kind: Any, name: str, rows: list[str]) -> None:
    for words, split in WORDS.items():
        if (name, words) != ("fineweb", "whitespace"):
            found = scored(kind(variant=name, words=words), rows)
            assert found == [oracle(kind, name, text, split(text)) for text in rows], words
