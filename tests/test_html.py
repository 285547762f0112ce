"""penstock's own extractor: a page's text, block by block, beside a slow one; and what it takes for furniture."""

from __future__ import annotations

import random
from html import escape
from html.entities import html5
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from page_templates import Score, label, score
from read_rows import rows_of

from penstock.transforms import ExtractHtml
from penstock.transforms.kernels import html_names
from penstock.transforms.kernels.html_text import extract
from penstock.transforms.step import utf8_buffers

QUICKSTART = Path(__file__).parents[1] / "examples" / "data" / "quickstart.warc.gz"
PROSE = "Here is a sentence of some length, which goes on and on so that nobody takes it for a menu. "


def text_of(page: str, *, everything: bool = True, bullets: bool = True) -> str:
    offsets, data = extract(*utf8_buffers(pa.array([page])), everything, bullets)
    assert offsets.tolist() == [0, len(data)]
    return data.tobytes().decode()


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("", ""),
        ("a", "a"),
        (" a \n b\t", "a b"),
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("<p>a<p>b<div>c</div>d", "a\n\nb\n\nc\nd"),
        ("a<div>b</div>c", "a\nb\nc"),
        ("a<br>b<br><br>c", "a\nb\n\nc"),
        ("<b>a</b> <i>b</i>c", "a bc"),
        ("a <b> b</b>", "a b"),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>", "• a\n• b\n\n• c"),
        ("<ol><li>a</li> <li>b</li></ol>x", "1. a\n2. b\n\nx"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd"),
        ("<table><tr><td>a<td>b<tr><th>c</th><td><p>d</p></td></table>", "a\tb\nc\td"),
        ("<table><tr><td>a<td><pre>b\n c</pre></table>", "a\n\nb\n c"),
        ("x<pre>\n a\r\n  b\n</pre>y", "x\n\n a\n  b\n\ny"),
        ("<pre>a<br>b &lt;c&gt;</pre>", "a\nb <c>"),
        ("a<script>if (a < b) x('</p>')</script>b<style>c</style>", "ab"),
        ("<title>t</title><body>a", "a"),
        ("a<!-- b > c -->d<!-->e<!doctype x>f<?php g ?>h", "adefh"),
        ("a < b <3 </>c", "a < b <3 c"),
        ("a<b", "a"),
        ("a</b></p></nothing>b", "ab"),
        ("<p hidden>a</p><p style='x: y; display : none'>b</p><p aria-hidden=true>c</p>d", "d"),
        ("<a href='x>y' title=\"'>\">a</a>", "a"),
        (
            "&amp;&copy&notit;&notin;&#8364;&#x20AC;&#128;&#0;&#xD800;&bogus;&;&#;&NotEqualTilde;",
            "&©¬it;∉€€€\ufffd\ufffd&bogus;&;&#;≂̸",
        ),
        ("a&nbsp;b\xa0 c", "a b c"),
        ("\0a\0b", "ab"),
        ("<P CLASS=x>A<P>B", "A\n\nB"),
        ("<table><tr><td>a</div></p>b</table>c", "ab\n\nc"),
        ("<a>x<a>y</a>z", "xyz"),
        ("<my-tag><p>a</my-tag>b", "ab"),
        ("中文<p>文字<b>粗</b>体</p>العربية <b>نص</b>", "中文\n\n文字粗体\n\nالعربية نص"),
    ],
)
def test_text_of_a_page(page: str, text: str) -> None:
    assert text_of(page) == text


def test_every_character_reference_reads_as_in_python() -> None:
    for name, value in html5.items():
        expected = " ".join(value.replace("\xa0", " ").split()) if value.strip() != value or "\xa0" in value else value
        assert text_of(f"x&{name}y").removeprefix("x").removesuffix("y").strip() == expected.strip(), name


class Oracle:
    """Random trees, their HTML, and their text written slowly from the tree."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.breaks = 0
        self.space = False
        self.text = ""

    def ink(self, words: str) -> None:
        for character in words:
            if character in " \n\t":
                self.space = True
                continue
            if self.text and self.breaks:
                self.text = self.text.rstrip(" \t") + "\n" * self.breaks
            elif self.text and self.space and not self.text.endswith("\n"):
                self.text += " "
            self.breaks, self.space = 0, False
            self.text += character

    def words(self) -> str:
        word = self.random.choice(["a", "b ", " c", "<", "&", "é", "漢", "  d\n", "&amp;", "x"])
        self.ink(word)
        return escape(word)

    def inline(self, depth: int) -> str:
        if depth == 0 or self.random.random() < 0.6:
            return self.words()
        tag = self.random.choice(["b", "i", "span", "a", "my-own"])
        inner = "".join(self.inline(depth - 1) for _ in range(self.random.randint(0, 2)))
        return f"<{tag}>{inner}</{tag}>"

    def block(self, depth: int) -> str:
        tag, apart = self.random.choice([("p", 2), ("div", 1), ("h2", 2), ("section", 1), ("blockquote", 2)])
        self.breaks = max(self.breaks, apart)
        inside = self.inline if tag in ("p", "h2") or depth == 0 else self.flow
        inner = "".join(inside(max(depth - 1, 0)) for _ in range(self.random.randint(0, 3)))
        self.breaks = max(self.breaks, apart)
        return f"<{tag}>{inner}</{tag}>"

    def flow(self, depth: int) -> str:
        kind = self.random.random()
        if kind < 0.4:
            return self.inline(depth)
        if kind < 0.5:
            self.breaks = min(self.breaks + 1, 2)
            return self.random.choice(["<br>", "<br/>", "<BR >"])
        return self.block(depth)


def test_random_pages_read_as_a_slow_writer_reads_them() -> None:
    for seed in range(600):
        oracle = Oracle(seed)
        page = "".join(oracle.flow(3) for _ in range(6))
        assert text_of(page) == oracle.text.strip(" \t\n"), page


def test_damaged_pages_read_the_same_alone_and_among_others() -> None:
    random_ = random.Random(3)
    pieces = "<p < > </td> <table> <tr><td> &am &#x ' \" = <!-- -- <script> </script 漢 a <li> </ul> <pre>"
    pages = ["".join(random_.choices([*pieces.split(), " "], k=random_.randint(0, 60))) for _ in range(500)]
    offsets, data = extract(*utf8_buffers(pa.array(pages)), False, True)
    whole = [data[a:b].tobytes().decode() for a, b in pairwise(offsets.tolist())]
    assert whole == [text_of(page, everything=False) for page in pages]
    assert all(len(text.encode()) <= 2 * len(page.encode()) for page, text in zip(pages, whole, strict=True))


@pytest.mark.parametrize(
    "furniture",
    [
        "<nav><a href=/>Home</a> and more</nav>",
        "<ul><li><a>One page</a><li><a>Another page</a><li><a>A third page</a></ul>",
        "<div class='site-footer'>Imprint</div>",
        "<div id=cookieBanner>We use cookies</div>",
        "<div role=navigation>Up</div>",
        "<h3>See also</h3><ul class=related><li><a>x</a></ul>",
        "<aside><p>Also read this</aside>",
        "<section class=comments><p>First! said a reader, who had not read it.</section>",
        "<form><button>Send</button><select><option>x</select></form>",
    ],
)
def test_furniture_is_left_out(furniture: str) -> None:
    page = f"<h1>Title</h1><div><p>{PROSE * 3}</p><p>{PROSE}</p>{{}}</div>"
    prose = f"Title\n\n{(PROSE * 3).strip()}\n\n{PROSE.strip()}"
    assert text_of(page.format(furniture), everything=False) == prose
    assert text_of(page.format("").replace("<h1>", furniture + "<h1>"), everything=False) == prose


@pytest.mark.parametrize(
    "content",
    [
        "<div class=sidebar-layout><h1>A title</h1><p>Text.</div>",
        "<pre class=comment># a comment</pre>",
        "<p>A text with <a>one</a>, <a>two</a> and <a>three</a> links in it, as an encyclopaedia has.</p>",
        "<table><tr><td>1<td>2</table>",
        "<p>Short.</p>",
    ],
)
def test_content_stays(content: str) -> None:
    page = f"<div><p>{PROSE * 3}</p>{content}<p>{PROSE}</p></div>"
    assert text_of(content) in text_of(page, everything=False)


def test_a_page_of_links_alone_still_has_its_text() -> None:
    assert text_of("<ul>" + "<li><a>An entry of an index</a>" * 9 + "</ul>", everything=False).count("entry") == 9


def test_the_tables_of_names_agree() -> None:
    for name, number in html_names.NUMBER.items():
        if number > html_names.OTHER:
            at = np.searchsorted(html_names.KEYS, np.uint64(html_names.packed(name)))
            assert html_names.NUMBERS[at] == number


@pytest.mark.long
def test_real_pages_keep_what_they_must_in_order() -> None:
    pages = [label(row["url"], row["html"]) for row in rows_of(QUICKSTART) if row["html"]]
    labelled = [page for page in pages if page is not None]
    texts = ExtractHtml().apply(pa.record_batch({
        "text": pa.nulls(len(labelled), pa.string()), "html": [page.html for page in labelled],
    })).batch["text"].to_pylist()  # fmt: skip
    total, east, right = Score(), Score(), Score()
    for page, text in zip(labelled, texts, strict=True):
        score(page, text or "", total)
        if any(f"-{language}" in page.url or f"/{language}" in page.url for language in ("ja", "zh", "ko")):
            score(page, text or "", east)
        if "/ar-MA/" in page.url or "/fa-IR/" in page.url:
            score(page, text or "", right)
    found = total.shares()
    assert len(labelled) > 400
    assert found["must_have"] > 94
    assert found["must_not_have"] < 2
    assert found["code"] > 95
    assert found["in_order"] > 97
    for some in (east.shares(), right.shares()):
        assert some["must_have"] > 88
        assert some["in_order"] > 95  # a text that stands twice is found at its first place
