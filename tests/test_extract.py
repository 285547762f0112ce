"""HTML becomes text, or a reason, or an error; no page is lost and none holds a worker."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from pydantic import ValidationError
from read_rows import rows_of

from penstock import MissingExtraError
from penstock.transforms import extract
from penstock.transforms.extract import MOST_TAGS, MOST_WORK, ExtractHtml, most_attributes, nesting, refuse_page
from penstock.transforms.schema import DOCUMENT
from penstock.transforms.step import Outcome

SHARED = Path(__file__).parents[2] / "shared" / "data"
ARTICLE = """<html><head><title>T</title><script>var x = 1;</script><style>p {}</style></head><body>
<nav><ul><li><a href=/>Home</a></li><li><a href=/b>Blog</a></li></ul></nav>
<article><h1>A headline of some words</h1>
<p>The first paragraph says <b>something</b> at a length that an extractor takes for content, and a bit more.</p>
<ul><li>One item of a list, with enough words to be read</li><li>another item, which has some words as well</li></ul>
<p>The second one has a <a href="http://x.example/y">link</a> and an image <img src=i alt="ALT TEXT">.</p></article>
<footer>Copyright</footer></body></html>"""


def batch(*pages: str | None, texts: list[str | None] | None = None) -> pa.RecordBatch:
    columns: list[Any] = [[None] * len(pages) for _ in DOCUMENT]
    columns[DOCUMENT.get_field_index("html")] = pages
    columns[DOCUMENT.get_field_index("text")] = texts or [None] * len(pages)
    schema = pa.schema([field.with_nullable(True) for field in DOCUMENT])
    return pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )


def texts(outcome: Outcome) -> list[str | None]:
    found: list[str | None] = outcome.batch.column("text").to_pylist()
    return found


def text_of(page: str, **options: Any) -> str:
    (text,) = texts(ExtractHtml(**options).apply(batch(page)))
    assert text is not None
    return text


def test_a_page_becomes_its_main_text() -> None:
    outcome = ExtractHtml().apply(batch(ARTICLE))
    assert outcome.batch.schema.names == DOCUMENT.names
    assert outcome.batch.column("html").null_count == 1
    assert (outcome.reasons.to_pylist(), outcome.errors, outcome.raw) == ([None], None, None)
    (text,) = texts(outcome)
    assert text is not None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    assert lines[0] == "A headline of some words"
    assert lines[1].startswith("The first paragraph says something at a length")
    assert lines[-1].startswith("The second one has a link and an image")
    assert not any(word in text for word in ("Home", "Copyright", "var x", "ALT TEXT", "http://"))


def test_each_option_does_what_it_says() -> None:
    assert "Home" in text_of(ARTICLE, main_content=False)
    assert "ALT TEXT" in text_of(ARTICLE, alt_texts=True)
    assert "http://x.example/y" in text_of(ARTICLE, links=True)
    assert "A headline" not in text_of(ARTICLE, skip_elements=("h1",))
    assert "• another item" in text_of(ARTICLE, main_content=False)
    assert "• another item" not in text_of(ARTICLE, main_content=False, list_bullets=False)
    assert "typed" in text_of("<p>x</p><input value=typed>", main_content=False, form_fields=True)
    assert "no script" in text_of("<p>x</p><noscript>no script</noscript>", main_content=False, noscript=True)
    comments = ARTICLE.replace(
        "</article>", '</article><div id="comments" class="comments"><p>First! said a reader.</p></div>'
    )
    assert "First!" in text_of(comments, comments=True)
    assert "First!" not in text_of(comments)


def test_rows_without_a_page_pass_as_they_are() -> None:
    outcome = ExtractHtml().apply(batch(None, ARTICLE, None, texts=["given", "old", None]))
    found = texts(outcome)
    assert (found[0], found[2]) == ("given", None)
    assert found[1] is not None
    assert "first paragraph" in found[1]
    assert outcome.reasons.to_pylist() == [None] * 3


@pytest.mark.parametrize(
    "page", ["", " \n", "<html></html>", "<script>1</script>", "<!-- x -->", "\0", "<p>\xa0</p>", "<"[:0]]
)
def test_a_page_without_text_is_rejected(page: str) -> None:
    outcome = ExtractHtml().apply(batch(page))
    assert outcome.reasons.to_pylist() == ["extract_html/empty"]
    assert outcome.batch.column("html").null_count == 1


@pytest.mark.parametrize("extractor", ["penstock", "resiliparse", "trafilatura"])
@pytest.mark.parametrize(
    "word",
    ["a\0b", "😀 漢字", "مرحبا שלום", "\ufffd\u2028\x85\x0b\x1f", "x" * (1 << 20), "&#0;&#xD800;&#x110000;&bogus;"],
)
def test_odd_characters_stay_valid_text(
    extractor: Literal["penstock", "resiliparse", "trafilatura"], word: str
) -> None:
    if extractor == "trafilatura":
        pytest.importorskip("trafilatura")
    outcome = ExtractHtml(extractor=extractor).apply(batch(ARTICLE.replace("something", word)))
    (text,) = texts(outcome)
    assert text is not None
    assert text.encode().decode() == text
    outcome.batch.column("text").validate(full=True)
    if word.isalpha() or word[0] == "😀":
        assert word in text


def test_an_empty_batch_a_slice_and_any_cut_give_the_same() -> None:
    pages = [ARTICLE.replace("headline", f"headline {n}") if n % 3 else None for n in range(20)]
    whole = batch(*pages)
    step = ExtractHtml()
    assert step.apply(whole.slice(0, 0)).batch.schema == step.apply(whole).batch.schema
    assert [text for at in range(0, 20, 7) for text in texts(step.apply(whole.slice(at, 7)))] == texts(
        step.apply(whole)
    )
    assert texts(step.apply(batch(*reversed(pages)))) == texts(step.apply(whole))[::-1]


def test_an_extractor_that_fails_sets_the_page_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):  # what compiled extractors raise
        pass

    def fails(page: str) -> str:
        if "panic" in page:
            raise PanicException
        if "bad" in page:
            raise RuntimeError("at 0x7f00 in /home/me/lib.py")
        return "\ud800" if "surrogate" in page else page

    monkeypatch.setattr(extract, "_resiliparse", lambda step: fails)
    outcome = ExtractHtml(extractor="resiliparse").apply(
        batch("good", "bad" * 600_000, "panic", "surrogate", "also good")
    )
    assert texts(outcome) == ["good", None, None, None, "also good"]
    failed = ["RuntimeError", "PanicException", "UnicodeEncodeError"]
    assert outcome.errors is not None
    assert outcome.raw is not None
    assert outcome.errors.to_pylist() == [None, *(f"the page cannot be extracted: {name}" for name in failed), None]
    assert [raw and len(raw) for raw in outcome.raw.to_pylist()] == [None, 1 << 20, 5, 9, None]

    def interrupted(page: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(extract, "_resiliparse", lambda step: interrupted)
    with pytest.raises(KeyboardInterrupt):
        ExtractHtml(extractor="resiliparse").apply(batch("page"))


HARD = {
    "<div>" * 100_000 + "x": "nested too deeply",
    "<article>" * 100_000 + "x": "nested too deeply",
    "<div>" * 2_000 + "<p>x</p>" * 50_000: "nested too deeply",
    "<x-y><font size=1>" * 20_000: "nested too deeply",
    "<p " + "a " * 20_000 + ">x": "attributes",
    "<p " + "a b c d <b " * 4_000: "attributes",
    ("<p " + "a " * 9_999 + ">") * 5: "several have nearly so many",
    "<rp>" * 40_000: "nested too deeply",
    "<optgroup>" * 40_000: "nested too deeply",
    "<select>" + "<option>x" * 10_001: "more than 10000 tags <option>",
    "<select>" + "<OPTION>x" * 10_001: "more than 10000 tags <option>",
    "<body a=1>" * 1_001: "more than 1000 tags <body>",
    "x " * (9 << 20): "characters",
}


@pytest.mark.parametrize("number", range(len(HARD)))
def test_a_page_that_would_hold_a_worker_is_set_aside(number: int) -> None:
    page, words = list(HARD.items())[number]
    outcome = ExtractHtml(extractor="resiliparse").apply(batch(ARTICLE, page))
    assert outcome.errors is not None
    assert outcome.errors.null_count == 1
    assert words in outcome.errors[1].as_py()
    assert texts(outcome)[1] is None


EASY = {
    "<div>" * 5_000 + "word": "word",
    "<p>x" * 50_000: "x",
    "<ul>" + "<li>x" * 50_000: "x",
    "<br>x" * 50_000: "x",
    "<div><span>x</span></div>" * 50_000: "x",
    "<p title='" + "y " * 9_000 + "'>word": "word",
    "<b>" * 8_000 + "word": "word",
    "word " * 500_000: "word",
    "<table><tr><td>" * 2_000 + "word": "word",
}


@pytest.mark.parametrize("number", range(len(EASY)))
def test_a_page_that_is_only_large_or_odd_is_extracted(number: int) -> None:
    page, word = list(EASY.items())[number]
    assert word in text_of(page, main_content=False)
    assert word in text_of(page, main_content=False, extractor="resiliparse")


@pytest.mark.parametrize(
    "number", [at for at, page in enumerate(HARD) if page.startswith(("<div", "<art", "<x-y", "<rp", "<opt", "<body"))]
)
def test_what_holds_a_library_does_not_hold_the_kernels(number: int) -> None:
    assert text_of(list(HARD)[number] + "<p>The end.", main_content=False).endswith("The end.")


def test_a_page_too_large_for_the_kernels_is_set_aside() -> None:
    outcome = ExtractHtml().apply(batch(ARTICLE, "<b>" * (MOST_TAGS + 1), "x " * (9 << 20), "<b>" * 100_000 + "x"))
    assert outcome.errors is not None
    assert [error and error[:22] for error in outcome.errors.to_pylist()] == [
        None, "the page has more than", "the page has more than", None,
    ]  # fmt: skip
    assert outcome.raw is not None
    assert [raw and len(raw) for raw in outcome.raw.to_pylist()] == [None, 1 << 20, 1 << 20, None]
    assert texts(outcome)[3] == "x"


def test_the_deepest_page_that_is_let_through_does_not_crash() -> None:
    code = "from penstock.transforms.extract import ExtractHtml, extract_page, _resiliparse\n"
    code += "page = '<b>' * 8000 + '<div>' * 150 + 'x'\nprint(extract_page(_resiliparse(ExtractHtml()), page))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "('x', None)", done.stderr


def test_the_guards_count_what_they_say() -> None:
    assert nesting("<div><p><DIV class=a></div><br><span/></div></div><my-tag></my-tag>") == 2
    assert nesting("<divide></div><i>") == 1
    assert most_attributes("<p a b c>" * 9) == (0, 0)
    assert most_attributes(">" + "<p " + "a " * 30_000 + ">" + "<p " + "b " * 20_000) == (30_001, 30_001**2 + 20_001**2)
    assert most_attributes("x " * 100_000) == (0, 0)
    assert refuse_page("<div>" * 8_192) is None
    assert MOST_WORK == 8_192**2
    assert refuse_page("<div>" * 8_193) is not None


def test_trafilatura_by_choice() -> None:
    pytest.importorskip("trafilatura")
    step = ExtractHtml(extractor="trafilatura")
    outcome = step.apply(batch(ARTICLE, ARTICLE, None, "<html></html>"))
    found = texts(outcome)
    assert found[0] is not None
    assert "first paragraph says something" in found[0]
    assert found[0] == found[1]  # no memory of pages before
    assert outcome.reasons.to_pylist() == [None, None, None, "extract_html/empty"]
    assert "Home" in text_of(ARTICLE, extractor="trafilatura", main_content=False)


def test_trafilatura_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'penstock\[trafilatura\]'"):
        ExtractHtml(extractor="trafilatura").apply(batch(ARTICLE))


def test_a_bad_step_is_refused() -> None:
    with pytest.raises(ValidationError, match="form_fields is no option of trafilatura"):
        ExtractHtml(extractor="trafilatura", form_fields=True)
    with pytest.raises(ValidationError, match="links is no option of penstock"):
        ExtractHtml(extractor="penstock", links=True)
    with pytest.raises(ValidationError, match="holds what is no CSS selector"):
        ExtractHtml(skip_elements=("p[",))
    with pytest.raises(ValidationError):
        ExtractHtml.model_validate({"extractor": "goose"})
    with pytest.raises(ValidationError):
        ExtractHtml.model_validate({"main": True})


def test_a_step_is_a_value_and_its_fingerprint_names_the_release() -> None:
    step = ExtractHtml(links=True)
    assert pickle.loads(pickle.dumps(step)) == step
    assert ExtractHtml.model_validate(step.model_dump()) == step
    print_ = step.fingerprint()
    assert print_["release"][0].isdigit()
    assert (print_["kind"], print_["version"], print_["links"]) == ("extract_html", 2, True)
    assert print_["extractor"] == "resiliparse"  # whose option it is
    assert ExtractHtml().extractor == "penstock"
    assert "release" not in ExtractHtml().fingerprint()


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_a_real_crawl_has_text() -> None:
    pages = [row["html"] for row in rows_of(SHARED / "web_small.warc.gz") if row["html"]]
    outcome = ExtractHtml().apply(batch(*pages))
    assert outcome.errors is None
    assert outcome.reasons.null_count > 295
    assert sum(len(text or "") for text in texts(outcome)) > 500_000
