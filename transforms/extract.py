"""Turn HTML into text: by a compiled extractor of penstock's own, or by resiliparse or trafilatura.

Those two are quadratic in places, so a page that would hold a worker for minutes is set aside by counting its tags
before it is parsed, never by a clock, which would decide otherwise on another machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from .. import require
from .kernels.html_text import extract as extract_own
from .rows import RAW_BYTES
from .step import Outcome, StepModel, utf8_buffers, with_columns

#: Characters of a page that is still parsed. A parsed page takes up to 40 times its size in memory.
LARGEST_PAGE = 16 << 20
#: Tags times nesting depth of a page that is still parsed; measured with resiliparse 2.0.1: 50 ns each, so about 3 s.
MOST_WORK = 1 << 26
#: `<` of a page that penstock's own extractor parses, in time that grows with them: 110 bytes of memory each.
MOST_TAGS = 1 << 21
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
#: Options that an extractor has not.
_LACKS = {
    "penstock": ("alt_texts", "links", "comments", "form_fields", "noscript", "post_meta", "skip_elements"),
    "trafilatura": ("list_bullets", "form_fields", "noscript", "post_meta", "skip_elements"),
    "resiliparse": (),
}


class ExtractHtml(StepModel):
    """Put the text of `html` into `text`, and empty `html`, so that later steps carry text alone.

    Rows without html pass as they are. A page without text goes as `extract_html/empty`; one that cannot be extracted
    is set aside with an error. Text keeps line breaks between blocks, which the line rules need.

    `penstock` leaves out what a page names as navigation, footer, side bar, consent, comments and the like, and lists
    of links, and takes the part with the prose; it keeps code as it stands and the row of a table on one line.
    Measured by `tests/benchmarks/extraction.py`: README has the figures beside the other two. `resiliparse`, also
    taken where one of its options is set, and `trafilatura` (as FineWeb ran it) give what those libraries give.

    >>> page = pa.record_batch({"text": pa.nulls(1, pa.string()), "html": ["<nav>Home</nav><p>Hello <b>you</b>"]})
    >>> ExtractHtml(main_content=False).apply(page).batch.column("text").to_pylist()
    ['Home\\n\\nHello you']
    """

    kind: Literal["extract_html"] = "extract_html"
    version = 2
    extractor: Literal["penstock", "resiliparse", "trafilatura"] = "penstock"
    main_content: bool = Field(default=True, description="leave out navigation, headers, footers and advertisements")
    alt_texts: bool = Field(
        default=False,
        description="keep the alternative texts of images (resiliparse; trafilatura: image references)",
    )
    links: bool = Field(default=False, description="write link targets behind their texts (not penstock)")
    comments: bool = Field(
        default=False, description="keep readers' comments, which FineWeb leaves out (resiliparse, trafilatura)"
    )
    list_bullets: bool = Field(
        default=True, description="write bullets and numbers before list items (not trafilatura)"
    )
    form_fields: bool = Field(default=False, description="keep form fields and their values (resiliparse)")
    noscript: bool = Field(default=False, description="keep what is shown where scripts do not run (resiliparse)")
    post_meta: bool = Field(default=True, description="keep author and date lines of posts (resiliparse)")
    skip_elements: tuple[str, ...] = Field(
        default=(), description="CSS selectors of elements to leave out (resiliparse)"
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_extractor(cls, fields: Any) -> Any:
        """Take resiliparse where one of its options is asked for, and no extractor."""
        if isinstance(fields, dict) and "extractor" not in fields:
            asked = [name for name in _LACKS["penstock"] if fields.get(name)]
            if asked or fields.get("post_meta") is False:
                return {**fields, "extractor": "resiliparse"}
        return fields

    @model_validator(mode="after")
    def _fits_extractor(self) -> ExtractHtml:
        for name in _LACKS[self.extractor]:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is no option of {self.extractor}; leave it out, or use extractor: resiliparse"
                )
        if self.skip_elements:
            try:
                _resiliparse(self)("<p>x</p>")
            except Exception as error:
                raise ValueError(f"skip_elements {list(self.skip_elements)} holds what is no CSS selector") from error
        return self

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides the text: the options, the step's version and the extractor's release."""
        release = {} if self.extractor == "penstock" else {"release": _release(self.extractor)}
        return {**super().fingerprint(), **release}

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Extract each page of the batch."""
        html, given = batch.column("html").cast(pa.string()), batch.column("text")
        texts, errors = self._own(html) if self.extractor == "penstock" else self._by_library(html)
        reasons = pc.if_else(
            pc.and_(html.is_valid(), pc.equal(texts, "")), "extract_html/empty", pa.scalar(None, pa.string())
        )
        texts = pc.if_else(html.is_valid(), texts, given.cast(pa.string()))
        columns = {
            "text": texts.cast(pa.string() if pa.types.is_null(given.type) else given.type),
            "html": pa.nulls(len(batch), pa.string()),
        }
        bad = errors.null_count < len(batch)
        raw = [
            page.as_py()[:RAW_BYTES].encode()[:RAW_BYTES] if error.is_valid else None
            for page, error in zip(html, errors, strict=True)
        ] if bad else []  # fmt: skip
        return Outcome(
            with_columns(batch, columns), reasons, errors if bad else None, pa.array(raw, pa.binary()) if bad else None
        )

    def _own(self, html: pa.StringArray) -> tuple[pa.StringArray, pa.StringArray]:
        """Extract by penstock's kernels: texts, null where a page is refused, and why."""
        sizes = pc.fill_null(pc.utf8_length(html), 0).to_numpy(zero_copy_only=False)
        errors: list[str | None] = [None] * len(html)
        for row in np.flatnonzero(sizes > MOST_TAGS):  # a page has fewer tags than characters
            errors[row] = refuse_large(html[row].as_py())
        refused = pa.array(errors, pa.string())
        pages = pc.if_else(refused.is_null(), html, pa.scalar(None, pa.string()))
        offsets, data = extract_own(*utf8_buffers(pages), not self.main_content, self.list_bullets)
        texts = pa.LargeStringArray.from_buffers(len(html), pa.py_buffer(offsets), pa.py_buffer(data))
        return pc.if_else(refused.is_null(), texts.cast(pa.string()), pa.scalar(None, pa.string())), refused

    def _by_library(self, html: pa.StringArray) -> tuple[pa.StringArray, pa.StringArray]:
        """Extract page by page: texts, null where one cannot be extracted, and why."""
        extract = _resiliparse(self) if self.extractor == "resiliparse" else _trafilatura(self)
        pages = html.to_pylist()
        made = [(None, None) if page is None else extract_page(extract, page) for page in pages]
        return pa.array([text for text, _ in made], pa.string()), pa.array([error for _, error in made], pa.string())


def refuse_large(page: str) -> str | None:
    """Say why a page would take too much memory; null where it would not."""
    if len(page) > LARGEST_PAGE:
        return f"the page has more than {LARGEST_PAGE} characters"
    return f"the page has more than {MOST_TAGS} tags" if page.count("<") > MOST_TAGS else None


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
