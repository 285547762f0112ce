"""C4's line rules (Raffel et al. 2020, JMLR 21(140), section 2.2), as its own code has them or as FineWeb applied them.

`variant="c4"` follows the code that made C4 (TensorFlow Datasets, `text/c4_utils.py`, commit 0560e686; the rules on
lines and pages are the same up to its last version), `variant="fineweb"` datatrove v0.10.0
(`pipeline/filters/c4_filters.py`). What a sentence is stands in `C4Quality`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from .kernels.c4 import C4, c4_clean
from .kernels.c4_reference import paragraph_counts, reference_classes
from .kernels.text import code_point_classes
from .step import Filter, Outcome, Scores, above, below, first_reason, utf8, with_columns

_ENDLESS = 2**62  # longer than any word
#: What the reference code asks for where datatrove asks for something else (`_MIN_NUM_SENTENCES`,
#: `_MIN_WORDS_PER_LINE`, `is_valid_length`).
_REFERENCE = {"min_num_sentences": 3, "min_words_per_line": 5, "max_page_length": 190_000}


class C4Quality(Filter):
    r"""Drop lines that are no prose, remove citation marks, and drop pages of filler, of code, or of too few sentences.

    A line (`str.splitlines`) is stripped and goes through the rules in this order: dropped if a word has more than
    `max_word_length` code points; citation marks ([1], [], [edit], [citation needed]) removed; dropped if it does not
    end in . ? ! " ' or ends in three full stops; dropped if it had fewer than `min_words_per_line` words before the
    removal; *page* dropped on "lorem ipsum"; line dropped on "javascript"; *page* dropped on {; line dropped on
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies" (case aside).
    What is left is joined by newlines and stripped; then the page is dropped if it has fewer than `min_num_sentences`
    sentences. A page that is dropped keeps its text as it was.

    That is `variant="fineweb"`. `variant="c4"` differs so: a page of more than `max_page_length` code points is dropped
    before all else; ' is no end mark; words are counted after the removal; and the defaults are 5 words a line, 3
    sentences a page, 190,000 code points. It adds the score `characters`. Not here, because they are steps of their
    own: C4's language (langdetect >= 0.99), bad words (`BadWords`), and the removal of repeated URLs and lines.

    The filler and bracket rules see only lines that the rules before them left, and drop a page at the first of them:
    `lorem_ipsum_line` and `curly_bracket_line` are the number of that line, from 1, or 0. All else is scored as if they
    were off. The other scores: `sentences`, `lines`, `kept_lines`, `citations`, and one count of lines for each rule.

    Sentences under `words="whitespace"` (datatrove asks a tokenizer of the language: spaCy's sentencizer for English).
    A kept line has at least one, and none runs over its end. A sentence begins at the first code point that is neither
    space nor one of datatrove's PUNCTUATION, and ends with a word whose last code point, closing quotes and brackets
    aside, is one of datatrove's 159 TERMINAL_PUNCTUATION; but a full stop does not end it after another full stop (an
    ellipsis), nor after a letter that follows neither letter nor digit (J. or U.S. or e.g.). The marks 。．！？｡ end
    one inside a word too. In `variant="c4"` only . ? ! end one, as for NLTK's Punkt, trained on English, which C4 asked
    and which knows abbreviations. Three kept lines are three sentences to both, so that only pages of one or two can
    fare otherwise: 8 of 7,607 documents of real text did (`tests/benchmarks/rules_peers.py`).

    None switches off a rule with a threshold, False the others. Only `min_num_sentences`, `filter_lorem_ipsum` and
    `filter_curly_bracket` can be replayed from scores: the others edit.

    >>> line = "One is here. Two is. Three too. Four as well. And five."
    >>> texts = [f"Menu\n{line}[1]\nPlease enable JavaScript now.", f"{line}\nx = {{ a and b."]
    >>> batch = pa.record_batch({"text": texts})
    >>> outcome = C4Quality().apply(batch)
    >>> outcome.reasons.to_pylist(), outcome.batch["text"][0].as_py()
    ([None, 'c4_quality/curly_bracket'], 'One is here. Two is. Three too. Four as well. And five.')
    """

    kind: Literal["c4_quality"] = "c4_quality"
    variant: Literal["fineweb", "c4"] = "fineweb"
    words: Literal["whitespace"] = "whitespace"
    # Defaults: datatrove's C4QualityFilter. FineWeb (`examples/fineweb.py`) sets filter_no_terminal_punct to False.
    # Those of variant "c4" stand in _REFERENCE.
    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_num_sentences: Annotated[int, Field(ge=0)] | None = 5
    min_words_per_line: Annotated[int, Field(ge=0, le=1 << 31)] | None = 3
    max_word_length: Annotated[int, Field(ge=1, le=1 << 31)] | None = 1000
    max_page_length: Annotated[int, Field(ge=0)] | None = None  # code points; variant "c4"
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    filter_curly_bracket: bool = True
    filter_policy: bool = True

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, fields: Any) -> Any:
        """Fill in what the reference code asks for."""
        if isinstance(fields, dict) and fields.get("variant") == "c4":
            return {**_REFERENCE, **fields}
        return fields

    @model_validator(mode="after")
    def _fits_variant(self) -> C4Quality:
        if self.variant == "fineweb" and self.max_page_length is not None:
            raise ValueError(
                f"max_page_length is {self.max_page_length}, and variant fineweb has no such rule: use variant c4"
            )
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: counts, int64."""
        return self._clean(batch)[0]

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each page is dropped, by which came first on the page; null where it is kept."""
        none = np.zeros(len(scores["sentences"]), np.int64)
        lorem = np.asarray(scores["lorem_ipsum_line"]) if self.filter_lorem_ipsum else none
        curly = np.asarray(scores["curly_bracket_line"]) if self.filter_curly_bracket else none
        long = {}
        if "characters" in scores:
            long[f"{self.kind}/long_page"] = above(scores["characters"], self.max_page_length)
        return first_reason(
            {
                **long,
                f"{self.kind}/lorem_ipsum": (lorem > 0) & ((curly == 0) | (lorem <= curly)),
                f"{self.kind}/curly_bracket": curly > 0,
                f"{self.kind}/too_few_sentences": below(scores["sentences"], self.min_num_sentences),
            }
        )

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Edit the text of pages that are kept, add the scores as columns `c4_quality.score`, and give the reasons."""
        scores, cleaned = self._clean(batch)
        reasons = self.decide(scores)
        kind = batch.schema.field("text").type
        text = batch.column("text").cast(pa.large_string())
        edited = pc.if_else(pc.and_(reasons.is_null(), text.is_valid()), cleaned, text).cast(kind)
        columns = {f"{self.kind}.{name}": pa.array(values) for name, values in scores.items()}
        return Outcome(with_columns(batch, {"text": edited, **columns}), reasons)

    def _clean(self, batch: pa.RecordBatch) -> tuple[dict[str, NDArray[Any]], pa.LargeStringArray]:
        reference = self.variant == "c4"
        rules = (
            self.remove_citations,
            self.filter_no_terminal_punct,
            self.min_words_per_line or 0,
            self.max_word_length or _ENDLESS,
            self.filter_javascript,
            self.filter_policy,
            reference,
        )
        classes = reference_classes() if reference else code_point_classes()
        counts, offsets, data = c4_clean(*utf8(batch), classes, rules)
        text = pa.LargeStringArray.from_buffers(len(batch), pa.py_buffer(offsets), pa.py_buffer(data))
        scores = dict(zip(C4, counts.T, strict=True))
        if reference:  # code points of the page before the rules
            length = pc.utf8_length(batch.column("text").cast(pa.large_string()).fill_null(""))
            scores["characters"] = length.to_numpy(zero_copy_only=False)
        return scores, text


class C4Paragraphs(Filter):
    r"""Drop pages without so many long lines, as mC4 did (Xue et al. 2021, arXiv:2010.11934: three of 200 characters).

    Decides as `paragraph_filter` of TensorFlow Datasets' `text/c4_utils.py` and datatrove's `C4ParagraphFilter`. Lines
    are what newlines separate, blank ones among them, and are not stripped; lengths are code points.

    Scores: `lines`, and `nth_longest`, the length of the line that is `min_paragraphs`-th by length, 0 where there are
    fewer lines.

    >>> batch = pa.record_batch({"text": ["word " * 50 + "\n" + "word " * 40, "word " * 90]})
    >>> C4Paragraphs(min_paragraphs=2).reasons(batch).to_pylist()
    [None, 'c4_paragraphs/few_paragraphs']
    """

    kind: Literal["c4_paragraphs"] = "c4_paragraphs"
    min_paragraphs: Annotated[int, Field(ge=1, le=1000)] = 3  # both: c4_utils.py, `paragraph_filter`
    min_paragraph_length: Annotated[int, Field(ge=0)] | None = 200

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: counts, int64."""
        lines, longest = paragraph_counts(*utf8(batch), self.min_paragraphs).T
        return {"lines": lines, "nth_longest": longest}

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each page is dropped; null where it is kept."""
        return first_reason({f"{self.kind}/few_paragraphs": below(scores["nth_longest"], self.min_paragraph_length)})
