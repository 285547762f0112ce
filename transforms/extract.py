"""Turn HTML into text: resiliparse (35 MB/s of HTML a core) by default, trafilatura (0.4 MB/s) by choice.

Both are quadratic in places, so a page that would hold a worker for minutes is set aside by counting its tags before it
is parsed, never by a clock, which would decide otherwise on another machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from .. import require
from .rows import RAW_BYTES
from .step import Outcome, StepModel, with_columns

#: Characters of a page that is still parsed. A parsed page takes up to 40 times its size in memory.
LARGEST_PAGE = 16 << 20
#: Tags times nesting depth of a page that is still parsed; measured with resiliparse 2.0.1: 50 ns each, so about 3 s.
MOST_WORK = 1 << 26
#: Attributes of one tag, and the squares of those of many summed up; parsing is quadratic in them (10,000 take 0.2 s).
MOST_ATTRIBUTES, MOST_SQUARES = 10_000, 3 * 10_000**2
#: Of these there may be so many on a page: parsing is quadratic in them (10,000 options take up to 4 s).
MOST_OF = {"option": 10_000, "body": 1_000, "html": 1_000}
# Elements that nest and do not close by themselves when a sibling opens.
_NESTING = re.compile(
    r"<(/?)(?:address|article|aside|b|big|blockquote|center|code|details|div|dl|em|fieldset|figure|font|footer|form|header|"
    r"i|main|nav|ol|optgroup|rb|rp|rt|rtc|s|section|small|span|strike|strong|sub|sup|table|tt|u|ul|"
    r"[a-z][a-z0-9]*-[^\s/>]*)(?=[\s/>])",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[a-z/!?]", re.IGNORECASE)
_OWN_OPTIONS = ("list_bullets", "form_fields", "noscript", "post_meta", "skip_elements")  # that trafilatura has not


class ExtractHtml(StepModel):
    """Put the text of `html` into `text`, and empty `html`, so that later steps carry text alone.

    Rows without html pass as they are. A page without text goes as `extract_html/empty`; one that cannot be extracted
    is set aside with an error. Text keeps line breaks between blocks, which the line rules need.

    >>> page = pa.record_batch({"text": pa.nulls(1, pa.string()), "html": ["<nav>Home</nav><p>Hello <b>you</b>"]})
    >>> ExtractHtml(main_content=False).apply(page).batch.column("text").to_pylist()
    ['Home\\n\\nHello you']
    """

    kind: Literal["extract_html"] = "extract_html"
    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse"
    main_content: bool = Field(default=True, description="leave out navigation, headers, footers and advertisements")
    alt_texts: bool = Field(
        default=False, description="keep the alternative texts of images (trafilatura: image references)"
    )
    links: bool = Field(default=False, description="write link targets behind their texts")
    comments: bool = Field(default=False, description="keep readers' comments; FineWeb leaves them out")
    list_bullets: bool = Field(default=True, description="write bullets and numbers before list items (resiliparse)")
    form_fields: bool = Field(default=False, description="keep form fields and their values (resiliparse)")
    noscript: bool = Field(default=False, description="keep what is shown where scripts do not run (resiliparse)")
    post_meta: bool = Field(default=True, description="keep author and date lines of posts (resiliparse)")
    skip_elements: tuple[str, ...] = Field(
        default=(), description="CSS selectors of elements to leave out (resiliparse)"
    )

    @model_validator(mode="after")
    def _fits_extractor(self) -> ExtractHtml:
        if self.extractor == "trafilatura":
            for name in _OWN_OPTIONS:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is an option of resiliparse; leave it out, or use extractor: resiliparse")
        if self.skip_elements:
            try:
                _resiliparse(self)("<p>x</p>")
            except Exception as error:
                raise ValueError(f"skip_elements {list(self.skip_elements)} holds what is no CSS selector") from error
        return self

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides the text: the options, the step's version and the extractor's release."""
        return {**super().fingerprint(), "release": _release(self.extractor)}

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Extract each page of the batch."""
        extract = _resiliparse(self) if self.extractor == "resiliparse" else _trafilatura(self)
        pages, texts = batch.column("html").to_pylist(), batch.column("text").to_pylist()
        reasons: list[str | None] = [None] * len(pages)
        errors: list[str | None] = [None] * len(pages)
        raw: list[bytes | None] = [None] * len(pages)
        for row, page in enumerate(pages):
            if page is None:
                continue
            texts[row], errors[row] = extract_page(extract, page)
            if errors[row] is not None:
                raw[row] = page[:RAW_BYTES].encode()[:RAW_BYTES]
            elif not texts[row]:
                reasons[row] = "extract_html/empty"
        columns = {"text": pa.array(texts, pa.string()), "html": pa.nulls(len(pages), pa.string())}
        bad = any(error is not None for error in errors)
        return Outcome(
            with_columns(batch, columns),
            pa.array(reasons, pa.string()),
            pa.array(errors, pa.string()) if bad else None,
            pa.array(raw, pa.binary()) if bad else None,
        )


def extract_page(extract: Callable[[str], str | None], page: str) -> tuple[str | None, str | None]:
    """Extract one page: its text, or null and why there is none."""
    refusal = refuse_page(page)
    if refusal is not None:
        return None, refusal
    try:
        text = (extract(page) or "").strip()
        text.encode()  # what goes on is valid Unicode
    except BaseException as error:  # a panic of a compiled extractor is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return None, f"the page cannot be extracted: {type(error).__name__}"
    return text, None


def refuse_page(page: str) -> str | None:
    """Say why a page would take too long or too much memory to parse; null where it would not."""
    if len(page) > LARGEST_PAGE:
        return f"the page has more than {LARGEST_PAGE} characters"
    tags = page.count("<")
    # Each element that nests has a tag that opens it: few of those, and it need not be looked for where they stand.
    opening = tags - page.count("</")
    if tags * opening > MOST_WORK and tags * nesting(page) > MOST_WORK:
        return f"the page is nested too deeply: its {tags} tags times their depth exceed {MOST_WORK}"
    if len(page) > 2 * MOST_ATTRIBUTES:
        most, squares = most_attributes(page)
        if most > MOST_ATTRIBUTES or squares > MOST_SQUARES:
            return f"a tag of the page has more than {MOST_ATTRIBUTES} attributes, or several have nearly so many"
    for name, most in MOST_OF.items():
        begin = [f"<{name[0]}", f"<{name[0].upper()}"] if opening > most else []
        if sum(map(page.count, begin)) > most and page.lower().count(f"<{name}") > most:
            return f"the page has more than {most} tags <{name}>"
    return None


def nesting(page: str) -> int:
    """Bound how deep the elements of a page nest, as a parser that never closes one by itself would see it."""
    depth = deepest = 0
    for tag in _NESTING.finditer(page):
        depth = max(depth - 1, 0) if tag[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def most_attributes(page: str) -> tuple[int, int]:
    """Bound how many attributes a tag of a page has, the words between its name and the next `>`; and sum the squares.

    Looks at stretches without `>` of 20,000 characters or more, which are found by jumping; shorter ones hold fewer.
    """
    most, squares, span, at = 0, 0, 2 * MOST_ATTRIBUTES, 0
    while at < len(page):
        last = page.rfind(">", at, at + span)
        if last >= 0:
            at = last + 1
            continue
        end = page.find(">", at)
        part = page[at : end if end >= 0 else None]
        if tag := _TAG.search(part):
            words = len(part[tag.start() :].split())
            most, squares = max(most, words), squares + words * words
        at += len(part)
    return most, squares


def _resiliparse(step: ExtractHtml) -> Callable[[str], str | None]:
    from resiliparse.extract.html2text import extract_plain_text

    return partial(
        extract_plain_text,
        preserve_formatting=True,
        main_content=step.main_content,
        list_bullets=step.list_bullets,
        alt_texts=step.alt_texts,
        links=step.links,
        form_fields=step.form_fields,
        noscript=step.noscript,
        comments=step.comments,
        post_meta=step.post_meta,
        skip_elements=list(step.skip_elements) or None,
    )


def _trafilatura(step: ExtractHtml) -> Callable[[str], str | None]:
    """Trafilatura as FineWeb ran it, but for `deduplicate`, which remembers the pages before: order would decide."""
    trafilatura = require("trafilatura", "trafilatura")
    if not step.main_content:
        return partial(trafilatura.html2txt, clean=True)
    return partial(
        trafilatura.extract,
        favor_precision=True,
        include_comments=step.comments,
        include_images=step.alt_texts,
        include_links=step.links,
        deduplicate=False,
    )


def _release(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
