"""C4's line rules against a slow oracle, written from datatrove's filter; what a sentence is, is our definition."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.transforms.c4 import C4Paragraphs, C4Quality
from penstock.transforms.kernels.text import PUNCTUATION, TERMINAL_PUNCTUATION

SYMBOLS = set(PUNCTUATION) | set(TERMINAL_PUNCTUATION)
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
PIECES = [
    *(
        "word",
        "prose is here",
        "J.",
        "U.S.",
        "e.g.",
        "end.",
        "end...",
        "end?",
        'said "so."',
        "(yes!)",
        "3.",
        "句。句",
        "!",
    ),
    *(
        "lorem ipsum",
        "LOREM Ipsum",
        "loremipsum",
        "JavaScript",
        "java",
        "script",
        "{",
        "}",
        "Terms of Use",
        "privacy policy",
    ),
    *(
        "coo\u212aie policy",
        "uses cookies",
        "use of cooKIES",
        "USE cookies",
        "cookİes",
        "cookie",
        "policy",
        "uses",
        "\u212a",
    ),
    *(
        "[1]",
        "[]",
        "[edit]",
        "[citation needed]",
        "[१२]",
        "[",
        "]",
        "[[1]2]",
        "[Edit]",
        "java[3]script",
        "x" * 1001,
        "\x00",
        "👍",
    ),
]
GAPS = [" ", " ", " ", "", "\n", "\n", "\r\n", "\r", "\x1c", "\x1f", "\x85", "\u2029", "\u00a0", "  ", "\t"]
woven = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(GAPS)), max_size=40).map(
    lambda pairs: "".join(part for pair in pairs for part in pair)
)
texts = st.lists(st.one_of(woven, st.text(max_size=80)), min_size=1, max_size=6)
steps = st.builds(
    lambda variant, longest, **rules: C4Quality(
        variant=variant, **rules, **({"max_page_length": longest} if variant == "c4" else {})
    ),
    variant=st.sampled_from(["fineweb", "c4"]),
    longest=st.sampled_from([None, 60, 190_000]),
    remove_citations=st.booleans(),
    filter_no_terminal_punct=st.booleans(),
    min_num_sentences=st.sampled_from([None, 0, 1, 3, 5]),
    min_words_per_line=st.sampled_from([None, 0, 1, 3]),
    max_word_length=st.sampled_from([None, 5, 1000]),
    filter_lorem_ipsum=st.booleans(),
    filter_javascript=st.booleans(),
    filter_curly_bracket=st.booleans(),
    filter_policy=st.booleans(),
)


def sentences(line: str) -> int:
    """Count sentences word by word; the kernel goes by code points."""
    count, inside = 0, False
    for word in line.split():
        for char in word:
            if char not in SYMBOLS and not inside:
                count, inside = count + 1, True
            if char in "。．！？｡":
                inside = False
        core = word.rstrip("\"'’”»)]}」】》〉）")
        before, letter = core[-3:-2], core[-2:-1]
        initial = letter.isalpha() and not (before.isalpha() or before.isdecimal())
        if core.endswith(".") and (letter == "." or initial):
            continue
        if core and core[-1] in TERMINAL_PUNCTUATION:
            inside = False
    return max(count, 1)


def oracle(step: C4Quality, text: str) -> tuple[str | None, str]:
    """Say what datatrove's C4QualityFilter, or C4's own clean_page, returns, and the text it leaves."""
    count, kept = 0, []
    c4 = step.variant == "c4"
    if step.max_page_length is not None and len(text) > step.max_page_length:
        return "long_page", text
    for line in text.splitlines():
        line = line.strip()
        words = line.split()
        if step.max_word_length is not None and any(len(word) > step.max_word_length for word in words):
            continue
        if step.remove_citations:
            line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", line)
        marks = (".", "?", "!", '"') if c4 else (".", "?", "!", '"', "'")
        if step.filter_no_terminal_punct and (not line.endswith(marks) or line.endswith("...")):
            continue
        words = line.split() if c4 else words
        if step.min_words_per_line is not None and len(words) < step.min_words_per_line:
            continue
        lower = line.lower()
        if step.filter_lorem_ipsum and "lorem ipsum" in lower:
            return "lorem_ipsum", text
        if step.filter_javascript and "javascript" in lower:
            continue
        if step.filter_curly_bracket and "{" in line:
            return "curly_bracket", text
        if step.filter_policy and any(phrase in lower for phrase in POLICY):
            continue
        count += sentences(line)
        kept.append(line)
    if step.min_num_sentences is not None and count < step.min_num_sentences:
        return "too_few_sentences", text
    return None, "\n".join(kept).strip()


def outcomes(step: C4Quality, rows: list[str]) -> list[tuple[str | None, str]]:
    outcome = step.apply(pa.record_batch({"text": pa.array(rows, pa.string())}))
    rules = [reason and reason.removeprefix("c4_quality/") for reason in outcome.reasons.to_pylist()]
    return list(zip(rules, outcome.batch["text"].to_pylist(), strict=True))


@settings(max_examples=300)
@given(steps, texts)
def test_decides_and_edits_as_the_oracle(step: C4Quality, rows: list[str]) -> None:
    assert outcomes(step, rows) == [oracle(step, text) for text in rows]


@settings(max_examples=100)
@given(steps, texts)
def test_page_rules_replay_from_scores_measured_with_others(step: C4Quality, rows: list[str]) -> None:
    """Which page rules are on changes no score."""
    off = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "min_num_sentences": None}
    off |= {"max_page_length": None}
    scores = step.model_copy(update=off).measure(pa.record_batch({"text": pa.array(rows, pa.string())}))
    replayed = [reason and reason.removeprefix("c4_quality/") for reason in step.decide(scores).to_pylist()]
    assert replayed == [oracle(step, text)[0] for text in rows]


@settings(max_examples=100)
@given(texts)
def test_every_line_has_one_fate(rows: list[str]) -> None:
    scores = C4Quality().measure(pa.record_batch({"text": pa.array(rows, pa.string())}))
    fates = ("long_word", "no_end_mark", "few_word", "javascript", "policy", "kept")
    assert np.sum([scores[f"{fate}_lines"] for fate in fates], axis=0).tolist() == scores["lines"].tolist()
    assert scores["lines"].tolist() == [len(text.splitlines()) for text in rows]


FIVE = "One is here. Two is. Three too. Four as well. And five."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (FIVE, FIVE),
        (f"  {FIVE}\t\r\n\n", FIVE),
        (f"Home\n{FIVE}\nRead more...\nTwo words.", FIVE),
        (f"{FIVE}[1]", FIVE),
        (f"{FIVE} [1]", ""),  # a space is left, and no end mark at the end
        (f"[edit] {FIVE}", FIVE),
        (f"{FIVE}\n[12][edit][citation needed] As a b.", f"{FIVE}\n As a b."),  # inside, the space stays
        (f"{FIVE}\nA [1] [2] dot.", f"{FIVE}\nA   dot."),  # words are counted before marks are removed
        (f"{FIVE}\nPlease enable JAVASCRIPT now.", FIVE),
        (f"{FIVE}\nThe java[1]script of it.", FIVE),  # after the removal
        (f"{FIVE}\nThis site uses coo\u212aies.", FIVE),  # the Kelvin sign in lower case is a k
        (f"{FIVE}\nSee our Terms of Use.", FIVE),
        (f"{FIVE}\nIt is {'x' * 1001} here.", FIVE),
        (f"{FIVE}\nIt is {'é' * 1000} here.", f"{FIVE}\nIt is {'é' * 1000} here."),
        (f"{FIVE}\u2028The next line is kept.", f"{FIVE}\nThe next line is kept."),
    ],
)
def test_edits(text: str, left: str) -> None:
    assert outcomes(C4Quality(), [text]) == [(None, left) if left else ("too_few_sentences", text)]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"{FIVE}\nIt says lorem ipsum here.\nAn {{ is here.", "lorem_ipsum"),
        (f"{FIVE}\nAn {{ is here.\nIt says lorem ipsum here.", "curly_bracket"),
        (f"{FIVE}\nIt says lorem ipsum and {{ here.", "lorem_ipsum"),
        (f"{FIVE}\nlorem ipsum\na {{ b", None),  # lines without an end mark are gone before
        (f"{FIVE}\nThe javascript has a {{ here.", None),
        (f"{FIVE}\nThe {'{'} privacy policy is here.", "curly_bracket"),
        ("", "too_few_sentences"),
    ],
)
def test_page_rules(text: str, rule: str | None) -> None:
    assert outcomes(C4Quality(), [text])[0][0] == rule


def test_fineweb_asks_for_no_end_mark() -> None:
    text = f"A headline of words\n{FIVE}"
    assert outcomes(C4Quality(filter_no_terminal_punct=False), [text]) == [(None, text)]


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three? Four", 4),
        ("J. R. Smith of the U.S. wrote it, e.g. here.", 1),
        ('Wait... what. (He left.) "So?" he said.', 4),
        ("1. The first. 2. The second.", 4),
        ("no mark at all", 1),
        ("* * * !!! ---", 1),
        ("Yes!!! And then... no.", 2),
        ("これは文です。これも文です！そして", 3),
        ("क्या यह वाक्य है। हाँ।", 2),
        ("See example.com for v1.2 of it.", 1),
    ],
)
def test_sentences(line: str, count: int) -> None:
    rule = C4Quality(filter_no_terminal_punct=False, min_words_per_line=None)
    assert rule.measure(pa.record_batch({"text": [line]}))["sentences"].tolist() == [count]
    assert sentences(line) == count


def test_dropped_pages_and_null_keep_their_text() -> None:
    outcome = C4Quality(min_num_sentences=None).apply(pa.record_batch({"text": ["a { b is it.", None, "gone"]}))
    assert outcome.batch["text"].to_pylist() == ["a { b is it.", None, ""]
    assert outcome.reasons.to_pylist() == ["c4_quality/curly_bracket", None, None]


def test_refuses_a_field_of_another_variant() -> None:
    options: dict[str, Any] = {"split_paragraph": False}
    with pytest.raises(ValueError, match="split_paragraph"):
        C4Quality(**options)


def test_c4_is_built_to_its_own_numbers() -> None:
    step = C4Quality(variant="c4")
    assert (step.min_words_per_line, step.min_num_sentences, step.max_page_length) == (5, 3, 190_000)
    assert C4Quality(variant="c4", max_page_length=None, min_num_sentences=5).min_num_sentences == 5
    assert C4Quality.model_validate_json(step.model_dump_json()) == step
    with pytest.raises(ValueError, match="variant fineweb has no such rule"):
        C4Quality(max_page_length=100)


THREE = "One is here. Two is here. Three is."


@pytest.mark.parametrize(
    ("text", "rule", "left"),
    [
        (THREE, None, THREE),
        ("One is here now. Two is here.", "too_few_sentences", None),
        (f"{THREE}\nIt ends in a quote'", None, THREE),
        (f'{THREE}\nIt ends in a quote"', None, f'{THREE}\nIt ends in a quote"'),
        (f"{THREE}\nThese are four words.", None, THREE),
        (
            f"{THREE}\nFour words [1] are here.",
            None,
            f"{THREE}\nFour words  are here.".replace("\nFour words  are here.", ""),
        ),
        (f"{THREE}\nFive words [1] are kept here.", None, f"{THREE}\nFive words  are kept here."),
        (f"{THREE}\nThe lorem ipsum is {{ here.", "lorem_ipsum", None),
        (f"{THREE}\nlorem ipsum is.", None, THREE),  # a line of three words is gone before
        (f"{THREE}\nA curly {{ bracket is here.", "curly_bracket", None),
        (f"{THREE}\nA curly {{ bracket with javascript.", None, THREE),
        (f"{THREE} {'x ' * 95_000}", "long_page", None),
    ],
)
def test_c4s_own_code(text: str, rule: str | None, left: str | None) -> None:
    assert outcomes(C4Quality(variant="c4"), [text]) == [(rule, text if left is None else left)]


def paragraphs(text: str, least: int, length: int) -> bool:
    lengths = sorted(map(len, text.split("\n")), reverse=True)
    return len(lengths) >= least and lengths[least - 1] >= length


@settings(max_examples=100)
@given(st.lists(st.lists(st.text("aé漢👍 \r", max_size=6), max_size=8).map("\n".join), min_size=1), st.integers(1, 4))
def test_paragraphs_as_the_oracle(rows: list[str], least: int) -> None:
    step = C4Paragraphs(min_paragraphs=least, min_paragraph_length=3)
    reasons = step.reasons(pa.record_batch({"text": pa.array(rows, pa.string())})).to_pylist()
    assert [reason is None for reason in reasons] == [paragraphs(text, least, 3) for text in rows]


def test_paragraphs_at_the_threshold() -> None:
    rows = ["é" * 200 + "\n" + "a" * 300 + "\n\n" + "b" * 200, "\n".join(["a" * 300, "b" * 300, "c" * 199]), "a" * 600]
    assert [why is None for why in C4Paragraphs().reasons(pa.record_batch({"text": rows})).to_pylist()] == [1, 0, 0]
