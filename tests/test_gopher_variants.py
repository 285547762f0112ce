"""Gopher's rules in other variants and with other words, against slow oracles written from each source."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pydantic
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_filters import (  # the suite that every filter passes, here for each variant
    ODD,
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
from word_oracles import fasttext_words, pairs_of, unicode_words

from penstock.pipelines.thresholds import FIELDS, thresholds
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
VARIANTS: tuple[Any, ...] = ("paper", "dclm", "dolma", "dolma_v1")
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
    again = [line for line in lines if counts[line] > 1 and (line.strip() or empty)]
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


WORDS: dict[str, Any] = {
    "whitespace": str.split,
    "unicode": unicode_words,
    "fasttext": fasttext_words,
    "word_oracles:pairs": pairs_of,
}


@pytest.mark.parametrize("kind", [GopherQuality, GopherRepetition])
@pytest.mark.parametrize("name", [*VARIANTS, "fineweb"])
@settings(max_examples=25)
@given(rows=texts)
def test_scores_are_the_oracles(kind: Any, name: str, rows: list[str]) -> None:
    for words, split in WORDS.items():
        if (name, words) != ("fineweb", "whitespace"):
            found = scored(kind(variant=name, words=words), rows)
            assert found == [oracle(kind, name, text, split(text)) for text in rows], words


#: What DCLM's, dolma's and datatrove's own code decides; made by tests/data/make_gopher_golden.py, which says how.
GOLDEN = json.loads((Path(__file__).parent / "data" / "gopher_peers.json").read_text(encoding="utf-8"))
OUR_TEXTS = json.loads((Path(__file__).parent / "data" / "datatrove_quality.json").read_text(encoding="utf-8"))["texts"]
KINDS: dict[str, Any] = {"quality": GopherQuality, "repetition": GopherRepetition}
CASES: dict[str, dict[str, Any]] = {
    "dclm": {"variant": "dclm"},
    "dolma": {"variant": "dolma"},
    "dolma_v1": {"variant": "dolma_v1"},
    "fineweb_unicode": {"variant": "fineweb", "words": "unicode"},
    "fineweb_pairs": {"variant": "fineweb", "words": "word_oracles:pairs"},
}


def departs(case: str, text: str, rule: str | None) -> bool:
    """Say whether we depart from dolma here, as GopherRepetition's docstring has it."""
    if not case.startswith("dolma") or rule is None:
        return False
    if found := re.fullmatch(r"fraction_of_characters_in_most_common_(\d)grams", rule):
        n = int(found[1])
        return not repeated(text.split(), n)  # an n-gram that stands once
    blank = sum(not line.strip() for line in re.split(r"\n+", text))
    return case == "dolma" and blank > 1 and rule == "fraction_of_duplicate_lines"


def compare(part: str, rows: list[str]) -> dict[str, int]:
    """Compare all decisions; count those in which we depart from a peer on purpose."""
    departed = Counter[str]()
    for case, golden in GOLDEN["cases"].items():
        name, _, kind = case.partition(".")
        step: Filter = KINDS[kind](**CASES[name])
        mine = [rule and rule.partition("/")[2] for rule in step.reasons(batch(rows)).to_pylist()]
        for text, rule, number in zip(rows, mine, golden[part], strict=True):
            other = None if number is None else golden["rules"][number]
            if other == "division by zero":
                assert not text.strip()
            elif rule != other:
                assert departs(name, text, other), (case, rule, other, text)
                departed[case] += 1
    return dict(departed)


def test_decides_as_the_peers_own_code_does() -> None:
    assert set(compare("texts", OUR_TEXTS)) <= {"dolma.repetition", "dolma_v1.repetition"}


@pytest.mark.long
def test_decides_on_real_documents_as_the_peers_own_code_does(shared_data: Path) -> None:
    held: dict[str, str] = {}
    wanted = set(GOLDEN["ids"])
    for name in ("docs_english", "docs_multilingual"):
        with (shared_data / f"{name}.jsonl.zst").open("rb") as file:
            for line in zstandard.ZstdDecompressor().stream_reader(file).readall().split(b"\n"):
                if line[:120].split(b'"')[3:4] and line[:120].split(b'"')[3].decode() in wanted:
                    document = json.loads(line)
                    held[document["id"]] = document["text"][: GOLDEN["longest"]]
    departed = compare("documents", [held[number] for number in GOLDEN["ids"]])
    assert set(departed) <= {"dolma.repetition", "dolma_v1.repetition"}


def test_the_golden_decisions_name_nearly_every_rule() -> None:
    assert sum(len(case["rules"]) for case in GOLDEN["cases"].values()) > 80


once = st.permutations([f"{first}{second}" for first in "abcdefghijklm" for second in "nopqrs"])


@settings(max_examples=30)
@given(
    words=once, size=st.integers(1, 78), gaps=st.lists(st.sampled_from([" ", "\n", " \n"]), min_size=78, max_size=78)
)
def test_a_text_in_which_nothing_stands_twice_never_goes(words: list[str], size: int, gaps: list[str]) -> None:
    """Short or long, in one line or many, with newlines at its ends; blank lines are another's test."""
    text = "".join(word + gap for word, gap in zip(words[:size], gaps, strict=False))
    for name in VARIANTS:
        for around in (text, text.strip(), f"\n{text.strip()}"):
            assert reason(GopherRepetition(variant=name), around) is None, name
        if name != "dolma_v1":
            for apart in (text.replace("\n", "\n\n"), f"\n{text}\n", text.replace(" ", "\n\n \n")):
                assert reason(GopherRepetition(variant=name), apart) is None, name


@settings(max_examples=30)
@given(text=texts.map(lambda rows: rows[0]))
def test_blank_lines_change_nothing(text: str) -> None:
    """Where a newline stands, one more makes no difference in lines; in `paper`, none at a paragraph's end either."""
    more = text.replace("\n\n", "\n \t\n\n")
    for kind in (GopherQuality, GopherRepetition):
        assert scored(kind(variant="paper"), [text]) == scored(kind(variant="paper"), [more])
    doubled = text.replace("\n", "\n\n")
    for name in ("paper", "dclm"):
        lines = [scored(GopherRepetition(variant=name), [one])[0]["dup_line_frac"] for one in (text, doubled)]
        assert lines[0] == lines[1]
        assert scored(GopherQuality(variant=name), [text]) == scored(GopherQuality(variant=name), [doubled])


GOOD = "the word of that day\n" * 20
SHORT: dict[str, Any] = {"min_avg_word_length": None, "min_alpha_words_ratio": None}


@pytest.mark.parametrize(
    ("name", "text", "fields", "rule"),
    [
        ("paper", GOOD, {}, None),
        ("paper", "The Word Of That day\n" * 20, {}, None),  # case aside
        ("paper", "the the the word is here today\n" * 20, {}, "stop_words"),  # counted once
        ("dclm", "the the the word is here today\n" * 20, {}, None),  # each time
        ("dclm", "TOUS τΟΥΣ ΤΟΥΣ word " * 20, {"stop_words": ("τους",)}, None),  # a sigma at the end
        ("dclm", "CAFÉ au LAIT CAFÉ here " * 20, {"stop_words": ("café",)}, None),
        ("dolma", "The Word Of That day\n" * 20, {}, "required_word_count"),
        ("dolma", "the the word is here today\n" * 20, {}, None),
        ("paper", "the of " * 24 + "x", {}, "too_few_words"),  # 49 words
        ("paper", "the of " * 25, {"min_avg_word_length": 2.5}, None),  # at its thresholds it stays
        ("dclm", GOOD[: 21 * 10], {}, None),  # 50 words
        ("dclm", GOOD[: 21 * 9] + "the (word) of that", {}, "page_length"),  # no letter at first: 48
        ("dclm", "the\u00a0of " * 49 + "and be", {"min_avg_word_length": None}, None),  # fastText splits no such space
        ("dclm", "the\u00a0of " * 48 + "be", {"min_avg_word_length": None}, "page_length"),
        ("dclm", GOOD + "# ... . . . … " * 2, SHORT, None),  # 8 marks over 112 words
        ("dclm", GOOD + "# ... . . . … " * 3, SHORT, "symbol_ratio"),  # 12 over 118
        ("paper", GOOD + "# ... . . . … " * 3, SHORT, None),  # 3, and 6
        ("dolma", GOOD + "#a#b# …… " * 5, {}, None),  # 10 words with marks over 110
        ("dolma", GOOD + "#a#b# …… " * 7, {}, "symbol_to_word_ratio"),
        ("dclm", "● the word of that day\n" * 20, SHORT, "bullet_count"),
        ("dolma", "* the word of that day\n" * 20, {}, "fraction_of_lines_starting_with_bullet_point"),
        ("dolma", " * the word of that day\n" * 20, {}, None),  # not at its very beginning
        ("dclm", "- the word of that day\n" * 9 + "and so on", {**SHORT, "min_doc_words": 1}, None),  # nine in ten
        ("dclm", GOOD.replace("day", "day . . ."), {**SHORT, "max_symbol_word_ratio": None}, "ellipsis_count"),
        ("paper", GOOD.replace("day", "day . . ."), SHORT, None),
        ("dolma", GOOD.replace("day", "day..."), {}, None),  # three full stops are none
        ("dolma", GOOD.replace("day", "day…"), {"max_symbol_word_ratio": None},
         "fraction_of_lines_ending_with_ellipsis"),
        ("dolma", "a bb the of " * 30, {}, "median_word_length"),  # 2
        ("dolma", "the of dog be " * 30, {}, "median_word_length"),  # 2.5
        ("dolma", "the of dog bee " * 30, {}, None),  # 3
        ("dclm", "the word of that 12345\n" * 20 + "99999 " * 20, {}, "alphabetic_word_ratio"),
        ("dclm", "", {"min_doc_words": None}, "word_length"),  # as DCLM: no words
    ],
)  # fmt: skip
def test_quality_rules(name: Any, text: str, fields: dict[str, Any], rule: str | None) -> None:
    assert reason(GopherQuality(variant=name, **fields), text) == rule


NUMBERS = " ".join(map(str, range(1000)))
TENS = [" ".join(map(str, range(ten, ten + 10))) for ten in range(0, 400, 10)]


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("paper", "one two three four five six seven eight nine ten", None),  # FineWeb's drops it as top_3_gram
        ("paper", "\n".join(["one"] * 3 + TENS[:7]), None),  # three of ten
        ("paper", "\n".join(["one"] * 3 + TENS[:6]), "duplicate_line_fraction"),
        ("dclm", "\n".join(["one"] * 3 + TENS[:6]), "line_count"),
        ("dclm", " \n\n ", "no_lines"),
        ("paper", "one and the same\n \n" * 2 + "\n".join(TENS), "duplicate_paragraph_fraction"),
        ("dclm", "one and the same\n\n" * 2 + "\n".join(TENS), "paragraph_count"),
        ("dclm", "one and the same\n \n" * 2 + "\n".join(TENS), None),  # a line of space parts nothing there
        ("dolma", "\n\n\n".join("abcdefgh"), None),
        ("dolma_v1", "\n\n\n".join("abcdefgh"), "fraction_of_duplicate_lines"),
        ("paper", "la " * 40, "top_2_gram_character_fraction"),  # of which the share is 1
        ("dclm", NUMBERS + " as well" * 500, "most_common_2_gram"),
        ("dclm", NUMBERS + "! " + NUMBERS, "all_repeated_5_grams"),
        ("dolma", NUMBERS + " " + NUMBERS, "fraction_of_characters_in_duplicate_5grams"),
        ("dclm", "ab c d e f x ab c d e f", "all_repeated_5_grams"),
        ("dclm", "ab c d e f x a bc d e f", None),  # compared word by word
    ],
)  # fmt: skip
def test_repetition_rules(name: Any, text: str, rule: str | None) -> None:
    tops: dict[str, Any] = {} if "as well" in text or text[:2] == "la" else {f"top_{n}_gram": None for n in (2, 3, 4)}
    assert reason(GopherRepetition(variant=name, **tops), text) == rule


def test_a_top_n_gram_that_overlaps_itself_covers_its_text_once() -> None:
    assert scored(GopherRepetition(variant="paper"), ["la " * 40])[0]["top_2_gram"] == 1.0
    assert scored(GopherRepetition(variant="dclm"), ["la " * 40])[0]["top_2_gram"] == 39 * 4 / 80


def test_unset_fields_take_the_variants_values_and_say_so() -> None:
    step = GopherRepetition(variant="dolma")
    assert (step.dup_para_frac, step.dup_para_char_frac, step.dup_line_char_frac) == (None, None, 0.30)
    assert step.model_dump()["dup_line_char_frac"] == step.fingerprint()["dup_line_char_frac"] == 0.30
    assert GopherRepetition(variant="dolma", dup_line_char_frac=None).dup_line_char_frac is None
    assert GopherQuality(variant="dclm").words == "fasttext"
    assert GopherRepetition(variant="dclm").words == "unicode"
    assert GopherRepetition(variant="dclm", words="whitespace").words == "whitespace"
    assert GopherRepetition().words == GopherQuality(variant="paper").words == "whitespace"
    with pytest.raises(pydantic.ValidationError, match="dolma has no rule on paragraphs"):
        GopherRepetition(variant="dolma", dup_para_frac=0.3)


def test_travels_and_is_equal_by_value(filter_: Filter) -> None:
    kind: Any = type(filter_)
    again = pickle.loads(pickle.dumps(filter_))
    assert again == filter_
    assert type(filter_).model_validate_json(filter_.model_dump_json()) == filter_
    assert again.fingerprint() == filter_.fingerprint() != kind().fingerprint()


def test_without_thresholds_nothing_goes(filter_: Filter) -> None:
    fields = dict.fromkeys(name for name in type(filter_).model_fields if name.startswith(("min", "max", "dup", "top")))
    kind: Any = type(filter_)
    off = kind(**{**filter_.model_dump(include={"variant", "words"}), **fields})
    reasons = set(off.reasons(batch(list(ODD.values()))).to_pylist())
    assert reasons <= {None, "gopher_repetition/no_lines"}


def test_a_report_finds_the_threshold_of_each_score(filter_: Filter) -> None:
    """Every score that a rule looks at is named after its threshold, or listed with it."""
    scores = {f"{filter_.kind}.{name}" for name in filter_.measure(batch(["one"]))}
    recipe = {"steps": [{filter_.kind: filter_.model_dump(mode="json", exclude={"kind"})}]}
    cut = {score for score in scores if thresholds({"recipe": recipe, "steps": [filter_.kind]}, score)}
    assert scores - cut <= {"gopher_quality.words", "gopher_repetition.lines"}
    assert "gopher_quality.words" not in FIELDS  # FineWeb's counts words, but cuts those that are no marks


@pytest.mark.long
def test_large_documents() -> None:
    chance = np.random.default_rng(3)
    rows = [
        " ".join(map(str, chance.integers(0, 40, 6_000))),
        "\n".join(f"line {number % 97} of many, word for word" for number in range(900)),
        "x" * (1 << 18) + " y",
        "",
    ]
    for name in VARIANTS:
        expected = [oracle(GopherRepetition, name, text, text.split()) for text in rows]
        assert scored(GopherRepetition(variant=name, words="whitespace"), rows) == expected
