"""RefinedWeb's edits against a slow oracle and against what DCLM's own mappers made of the same texts."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.transforms.edits import undo
from penstock.transforms.kernels.web_addresses import top_level_domains
from penstock.transforms.refinedweb import RefinedWebLines, RefinedWebText

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "tests" / "data" / "dclm_edits.json").read_text(encoding="utf-8"))
DOMAINS = (ROOT / "transforms" / "data" / "top-level-domains.txt").read_text(encoding="utf-8").split()
#: Longest first, so that an alternation reads as DCLM's trie does.
ANY_DOMAIN = "|".join(sorted(map(re.escape, DOMAINS), key=len, reverse=True))
TAIL = r"[-a-zA-Z0-9()@:%_\+.~#?&//=]*"
HOST = re.compile(rf"\s{{0,10}}(?:(?:https?|ftp)://)?[-a-zA-Z0-9@:%._\+~#=]{{1,256}}\.(?:{ANY_DOMAIN})\b{TAIL}")
IPV4 = re.compile(rf"\s{{0,10}}\b(?:(?:https?|ftp)://)?(?:[0-2]?[0-9]{{1,2}}\.){{3}}[0-2]?[0-9]{{1,2}}{TAIL}")
NOUNS = "likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|views|followers"
COUNTER = re.compile(rf"^\W*\d[,.\d]*[kmb]?\s+(?:{NOUNS})\W*$")
PHRASES = (
    re.compile(r"\s?items in cart", re.IGNORECASE),
    re.compile(r"\s?read more...$", re.IGNORECASE),
    re.compile(r"^sign-in\s?", re.IGNORECASE),
)
PIECES = [
    *("3 likes", "1,024 Shares!", "- 5K views", "5\u212a li\u212aes", "7.5m downloads", "x 3 likes", "\u0663 views"),
    *("items in cart", "2 Items In Cart", "Read more...", "read more+-*", "read more..", "Sign-in", "SIGN-IN now"),
    *("\u017fign-in here", "Read items in cart more...", "ALL CAPITALS", "Half CAPS", "ÄÖÜ ß", "12 345", "123", "²³①"),
    *("http://a.example.com/x?y=1", "www.example.co.uk", "me@example.org", "foo.COM", "ftp://ftp.gnu.org/", "x.com-y"),
    *(
        "10.1.2.3",
        "https://1.2.3.4:80/a",
        "1.2.3.4.5",
        "300.1.1.1",
        "1234.1.1.1",
        "a1.2.3.4",
        "x1.1.1.1.1",
        "\u06611.2.3.4",
    ),
    *(
        "xhttp://foo.com",
        "a" * 300 + ".com",
        ".com",
        ".co.uk.net",
        "e.g.",
        "foo.भारत",
        "foo.भारतx",
        "example.рф",
        "a.b",
    ),
    *("In", "It", "The", "word", "two words", "a longer line of some words that is prose", "👍", "\x00", "_", "é"),
    *("a.com." + "b" * 260, "c" * 250 + ".com.net.org", "http://", "://x.com", "a.com/b.net c.org", "İn.com", "\u3000"),
]
GAPS = ["\n", "\n", "\n\n", "\n\n\n\n", " ", " ", "", "  ", "\t", "\u00a0", "\x0b", "            "]
woven = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(GAPS)), max_size=25).map(
    lambda pairs: "".join(part for pair in pairs for part in pair)
)
texts = st.lists(st.one_of(woven, st.text(max_size=60)), min_size=1, max_size=5)


def batch(rows: list[str]) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(rows, pa.string())})


def text_oracle(text: str, everywhere: bool) -> tuple[str | None, str]:
    """Say what DCLM's url_removal_modifier and newline_removal_modifier do."""
    if everywhere or re.match(ANY_DOMAIN, text, re.IGNORECASE):
        text = HOST.sub("", text)
    text = IPV4.sub("", text)
    return (None if text else "empty"), re.sub(r"\n{3,}", "\n\n", text)


def word_count(text: str) -> int:
    return sum(word[:1].isalnum() for word in re.split(r"[ \n\r\t\v\f\0]+", text))


def lines_oracle(text: str) -> tuple[str | None, str]:
    """Say what DCLM's seven line modifiers and its filter on removed words do, in their order."""
    before, left = word_count(text), text
    for drops in (
        lambda line: sum(map(str.isupper, line)) / len(line) > 0.5,
        lambda line: sum(map(str.isdigit, line)) / len(line) > 0.999999,
        lambda line: COUNTER.search(line.lower()),
    ):
        left = "\n".join(line for line in left.split("\n") if not line or not drops(line)).strip()
    left = "\n".join(line for line in left.split("\n") if not line or len(line.split()) >= 2)
    for phrase in PHRASES:
        lines = []
        for line in left.split("\n"):
            changed = phrase.sub("", line) if len(line.split()) <= 10 else line
            if not line or changed.strip():
                lines.append(changed)
        left = "\n".join(lines).strip()
    if not left:
        return "empty", text
    if before == 0:
        return "no_words", text
    return ("removed_words", text) if (before - word_count(left)) / before > 0.05 else (None, left)


def outcomes(step: Any, rows: list[str]) -> list[tuple[str | None, str]]:
    """Apply a step; give rules and texts, and see that every edit can be undone."""
    outcome = step.apply(batch(rows))
    for text, left, edits in zip(rows, outcome.batch["text"], outcome.batch["edits"], strict=True):
        assert undo(left.as_py(), edits.as_py()) == text
    rules = [reason and reason.partition("/")[2] for reason in outcome.reasons.to_pylist()]
    return list(zip(rules, outcome.batch["text"].to_pylist(), strict=True))


@settings(max_examples=80)
@given(texts, st.booleans())
def test_text_is_edited_as_the_oracle_does(rows: list[str], everywhere: bool) -> None:
    step = RefinedWebText(remove_urls="everywhere" if everywhere else "dclm")
    assert outcomes(step, rows) == [text_oracle(text, everywhere) for text in rows]


@settings(max_examples=80)
@given(texts)
def test_lines_are_edited_as_the_oracle_does(rows: list[str]) -> None:
    assert outcomes(RefinedWebLines(), rows) == [lines_oracle(text) for text in rows]


def test_edits_and_decisions_are_dclms() -> None:
    """What tests/data/make_dclm_golden.py got from DCLM's own code; never changed by hand."""
    rows = [one["text"] for one in GOLDEN]
    for step, name in ((RefinedWebText(), "after_text"), (RefinedWebLines(), "after_lines")):
        for (rule, left), one in zip(outcomes(step, rows), GOLDEN, strict=True):
            assert (None if rule else left) == one[name], one["text"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("See example.com now.", "See now."),
        ("See   http://example.com/a_(b)?c=1#d, now", "See, now"),
        ("mail me@example.org", "mail"),
        ("EXAMPLE.COM and example.Com stay", "EXAMPLE.COM and example.Com stay"),
        ("version 1.2.3.4-rc1 goes", "version goes"),
        ("0.1.2 stays, 256.1.1.1 goes", "0.1.2 stays, goes"),
        ("foo.notadomain stays", "foo.notadomain stays"),
        ("a" + " " * 12 + "x.org", "a  "),
        ("a\n\n\n\n\nb\n\n\n", "a\n\nb\n\n"),
    ],
)
def test_what_an_address_is(text: str, left: str) -> None:
    assert outcomes(RefinedWebText(remove_urls="everywhere"), [text]) == [(None, left)]


def test_dclm_looks_at_the_first_letters_of_a_page() -> None:
    rows = ["In example.com", "in. example.com", "When example.com", " In example.com"]
    assert [left for _, left in outcomes(RefinedWebText(), rows)] == ["In", "in.", *rows[2:]]


def test_a_page_of_one_address_is_empty() -> None:
    assert outcomes(RefinedWebText(), ["in.example.com", "", "\n\n\n"]) == [
        ("empty", ""),
        ("empty", ""),
        (None, "\n\n"),
    ]


def test_the_list_of_domains_is_dclms() -> None:
    assert (len(DOMAINS), DOMAINS[0], DOMAINS[-1]) == (1591, "aaa", "zw")
    assert top_level_domains()[2].max() == 1591


FILL = "These are words of a page that is long enough to lose a line of few words and stay. " * 2


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("ABCD efgh", "ABCD efgh"),  # 4 of 9
        ("ABCDE fgh", None),  # 5 of 9
        ("ABC def", "ABC def"),
        ("AB c", "AB c"),  # a half is not beyond it
        ("123", None),
        ("12 3", "12 3"),
        ("  123", None),  # the page is stripped before digits are counted, and this line is its last
        ("3 likes", None),
        ("* 1,024.5K   Views *", None),
        ("3 likes it", "3 likes it"),
        ("3likes and more", "3likes and more"),
        ("one", None),
        ("two words", "two words"),
        ("3 items in cart", "3"),
        ("a b c d e f g h i j items in cart", "a b c d e f g h i j items in cart"),  # more than ten words
        ("Items in cart", None),
        ("Go on, read more!!!", "Go on,"),
        ("Read more... here", "Read more... here"),
        ("Sign-in to go", "to go"),
        ("Please sign-in here", "Please sign-in here"),
    ],
)
def test_what_a_line_is_dropped_for(line: str, left: str | None) -> None:
    step = RefinedWebLines(max_removed_word_ratio=None)
    assert outcomes(step, [FILL.strip() + "\n" + line])[0] == (
        None,
        "\n".join([FILL.strip(), *([left] if left else [])]),
    )


def test_a_page_exactly_at_the_threshold_is_kept() -> None:
    row = "a b " + "word " * 17 + "\none"  # one of twenty words
    assert outcomes(RefinedWebLines(), [row])[0][0] is None
    assert outcomes(RefinedWebLines(), ["a b " + "word " * 16 + "\none"])[0][0] == "removed_words"


def test_pages_without_words_or_text() -> None:
    rows = ["", " \n ", "---- ----\n*** ***", "SHOUT"]
    assert [rule for rule, _ in outcomes(RefinedWebLines(), rows)] == ["empty", "empty", "no_words", "empty"]


def test_rules_are_switched_off_one_by_one() -> None:
    off: dict[str, Any] = {"max_uppercase_ratio": None, "max_numeric_ratio": None, "min_words_per_line": None}
    off |= {"remove_counters": False, "remove_phrases": False, "max_removed_word_ratio": None}
    row = " ALL CAPS\n123\n3 likes\none\nitems in cart\n \n"
    assert outcomes(RefinedWebLines(**off), [row]) == [(None, row)]
    for name, expected in {
        "max_uppercase_ratio": "123\n3 likes\none\nitems in cart",
        "max_numeric_ratio": "ALL CAPS\n3 likes\none\nitems in cart",
        "min_words_per_line": " ALL CAPS\n3 likes\nitems in cart\n",
        "remove_counters": "ALL CAPS\n123\none\nitems in cart",
        "remove_phrases": "ALL CAPS\n123\n3 likes\none",
    }.items():
        default = RefinedWebLines.model_fields[name].default
        assert outcomes(RefinedWebLines(**{**off, name: default}), [row]) == [(None, expected)], name


def test_what_was_cut_is_named() -> None:
    row = FILL * 4 + "\n3 likes\nSign-in to see it all"
    outcome = RefinedWebLines().apply(batch([row, "gone"]))
    assert outcome.reasons.to_pylist() == [None, "refinedweb_lines/empty"]
    edits = outcome.batch["edits"].to_pylist()
    assert [(one["step"], one["round"], one["removed"]) for one in edits[0]] == [
        ("refinedweb_lines/counter", 0, "\n3 likes"),
        ("refinedweb_lines/sign_in", 1, "Sign-in "),
    ]
    assert edits[1] is None
    assert "edits" not in RefinedWebLines(record_edits=False).apply(batch([row])).batch.schema.names


def test_bytes_that_are_no_utf8_stay_as_they_are() -> None:
    body = b"Sign-in \xff to it all\nand so on \xc3 " + FILL.encode()
    offsets = pa.array([0, len(body)], pa.int32()).buffers()[1]
    column = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(body))
    left = RefinedWebLines(record_edits=False).apply(pa.record_batch({"text": column})).batch["text"]
    assert left[0].as_buffer().to_pybytes() == body.removeprefix(b"Sign-in ").rstrip()


def test_slices_nulls_and_order_change_nothing() -> None:
    rng = random.Random(3)
    rows: list[str | None] = [
        "".join(rng.choice(PIECES) + rng.choice(GAPS) for _ in range(rng.randint(0, 30))) for _ in range(60)
    ]
    rows[5] = None
    for step in (RefinedWebText(remove_urls="everywhere"), RefinedWebLines(max_removed_word_ratio=0.3)):
        whole = step.apply(pa.record_batch({"text": pa.array(rows, pa.large_string())}))
        part = step.apply(pa.record_batch({"text": pa.array(rows, pa.large_string())}).slice(4, 30))
        assert part.batch.equals(whole.batch.slice(4, 30))
        assert part.reasons.equals(whole.reasons.slice(4, 30))
        for number, row in enumerate(rows):
            alone = step.apply(pa.record_batch({"text": pa.array([row], pa.large_string())}))
            assert alone.batch["text"][0] == whole.batch["text"][number]
        schema = step.apply(batch([])).batch.schema
        assert schema == step.apply(batch(["x y"])).batch.schema


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="max_uppercase_ratio"):
        RefinedWebLines(max_uppercase_ratio=value)
    with pytest.raises(ValueError, match="max_newlines"):
        RefinedWebText(max_newlines=0)
