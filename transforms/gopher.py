"""Gopher's rules (Rae et al. 2021, arXiv:2112.11446, Appendix A1.1 and Table A1), as FineWeb applied them.

The paper leaves open what a word, a line and a copy is, and published implementations differ. `variant="fineweb"`
decides as datatrove v0.10.0 does (`pipeline/filters/gopher_quality_filter.py`, `gopher_repetition_filter.py`), rule
by rule and in its order, given the same words; `words="whitespace"` says which: `str.split`. Lengths are code points.

A threshold of None switches its rule off. (datatrove reads 0 as off too; here 0 is a threshold like any other.) Where
datatrove divides by nothing (no words, no lines), the share is 0 and the rule does not fire.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from .kernels.quality import GOPHER, StopWords, gopher_counts
from .kernels.repetition import REPETITION, repetition_counts
from .kernels.text import code_point_classes
from .step import Filter, Scores, Share, above, below, first_reason, ratio, utf8

Count = Annotated[int, Field(ge=0)]
Length = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0)]  # of counts that do not contain one another: may pass 1
Word = Annotated[str, Field(pattern=r"^\S+$")]


class GopherQuality(Filter):
    """Drop documents that do not read like prose: too short, too long, few stop words, many symbols.

    Scores: `words`, `nonsymbol_words` (those with a code point that is no punctuation), their `mean_word_length` in
    code points, `hash_ratio` and `ellipsis_ratio` (marks over words), `bullet_line_ratio` and `ellipsis_line_ratio`
    (shares of the lines of `str.splitlines`, blank ones included), `alpha_word_ratio` (words with a letter over
    words) and `stop_words` (different ones present).

    datatrove's ways, kept: stop words are told by case ("The" is none) and counted once each; a document at its
    threshold stays; the rule on stop words is called gopher_enough_stop_words.

    >>> text = "the cat sat on the mat and that was that"
    >>> batch = pa.record_batch({"text": [text, "cat mat " * 6]})
    >>> GopherQuality(min_doc_words=5).reasons(batch).to_pylist()
    [None, 'gopher_quality/gopher_enough_stop_words']
    """

    kind: Literal["gopher_quality"] = "gopher_quality"
    variant: Literal["fineweb"] = "fineweb"
    words: Literal["whitespace"] = "whitespace"
    # Defaults: Rae et al. 2021, Appendix A1.1, "Quality Filtering"; the same in datatrove and FineWeb.
    min_doc_words: Count | None = 50
    max_doc_words: Count | None = 100_000
    min_avg_word_length: Length | None = 3
    max_avg_word_length: Length | None = 10
    max_symbol_word_ratio: Ratio | None = 0.1  # for # and for ellipses, each alone
    max_bullet_lines_ratio: Share | None = 0.9
    max_ellipsis_lines_ratio: Share | None = 0.3
    min_alpha_words_ratio: Share | None = 0.8  # datatrove's `max_non_alpha_words_ratio`, which it is not
    min_stop_words: Count | None = 2
    stop_words: tuple[Word, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")

    @model_validator(mode="after")
    def _keeps_some(self) -> GopherQuality:
        """Refuse bounds that no document lies between."""
        for name in ("doc_words", "avg_word_length"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{name} is {least} and max_{name} is {most}: every document would be dropped")
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row; counts int64, ratios float64."""
        counts = gopher_counts(*utf8(batch), code_point_classes(), _stop_word_table(self.stop_words))
        of = dict(zip(GOPHER, counts.T, strict=True))
        return {
            "words": of["words"],
            "nonsymbol_words": of["nonsymbol_words"],
            "mean_word_length": ratio(of["nonsymbol_characters"], of["nonsymbol_words"]),
            "hash_ratio": ratio(of["hashes"], of["words"]),
            "ellipsis_ratio": ratio(of["ellipses"], of["words"]),
            "bullet_line_ratio": ratio(of["bullet_lines"], of["lines"]),
            "ellipsis_line_ratio": ratio(of["ellipsis_lines"], of["lines"]),
            "alpha_word_ratio": ratio(of["alpha_words"], of["words"]),
            "stop_words": of["stop_words"],
        }

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say which rule drops each row, the first in datatrove's order; null where it is kept."""
        length, some = scores["mean_word_length"], scores["nonsymbol_words"] > 0
        symbols, words = self.max_symbol_word_ratio, scores["words"] > 0
        return first_reason(
            {
                f"{self.kind}/{rule}": fired
                for rule, fired in {
                    "gopher_short_doc": below(scores["nonsymbol_words"], self.min_doc_words),
                    "gopher_long_doc": above(scores["nonsymbol_words"], self.max_doc_words),
                    "gopher_below_avg_threshold": below(length, self.min_avg_word_length) & some,
                    "gopher_above_avg_threshold": above(length, self.max_avg_word_length) & some,
                    "gopher_too_many_hashes": above(scores["hash_ratio"], symbols),
                    "gopher_too_many_ellipsis": above(scores["ellipsis_ratio"], symbols),
                    "gopher_too_many_bullets": above(scores["bullet_line_ratio"], self.max_bullet_lines_ratio),
                    "gopher_too_many_end_ellipsis": above(scores["ellipsis_line_ratio"], self.max_ellipsis_lines_ratio),
                    "gopher_below_alpha_threshold": below(scores["alpha_word_ratio"], self.min_alpha_words_ratio)
                    & words,
                    "gopher_enough_stop_words": below(scores["stop_words"], self.min_stop_words),
                }.items()
            }
        )


class GopherRepetition(Filter):
    r"""Drop documents made largely of repeated lines, paragraphs or n-grams of words.

    Scores, each named as its rule: `dup_line_frac` and `dup_para_frac`, shares of the lines (cut at runs of newlines)
    and paragraphs (cut at runs of two and more, in the stripped text) that are second or later copies; `…_char_frac`,
    their code points over those of the text; `top_n_gram`, the length with spaces of the most frequent n-gram times
    its count, over the text's; `duplicated_n_n_grams`, the code points (without spaces) of repeated n-grams over the
    text's, found from left to right, each repetition passed at its end.

    datatrove's ways, kept: paragraphs come before lines; among n-grams equally frequent the first counts, and one
    that stands once counts too, so that a short text without any repetition may go as `top_2_gram`; a text that
    begins *and* ends with a newline has an empty line twice; duplicate n-grams are compared with their words joined
    ("a bc" is "ab c").

    >>> batch = pa.record_batch({"text": ["spam\nspam\nspam", " ".join(map(str, range(40)))]})
    >>> GopherRepetition().reasons(batch).to_pylist()
    ['gopher_repetition/dup_line_frac', None]
    """

    kind: Literal["gopher_repetition"] = "gopher_repetition"
    variant: Literal["fineweb"] = "fineweb"
    words: Literal["whitespace"] = "whitespace"
    # Defaults: Rae et al. 2021, Table A1; the same in datatrove and FineWeb.
    dup_para_frac: Share | None = 0.30
    dup_para_char_frac: Share | None = 0.20
    dup_line_frac: Share | None = 0.30
    dup_line_char_frac: Share | None = 0.20
    top_2_gram: Ratio | None = 0.20
    top_3_gram: Ratio | None = 0.18
    top_4_gram: Ratio | None = 0.16
    duplicated_5_n_grams: Share | None = 0.15
    duplicated_6_n_grams: Share | None = 0.14
    duplicated_7_n_grams: Share | None = 0.13
    duplicated_8_n_grams: Share | None = 0.12
    duplicated_9_n_grams: Share | None = 0.11
    duplicated_10_n_grams: Share | None = 0.10

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: shares, float64, in the order in which the rules stand."""
        counts = repetition_counts(*utf8(batch), code_point_classes())
        of = dict(zip(REPETITION, counts.T, strict=True))
        text = of["characters"]
        scores = {
            "dup_para_frac": ratio(of["repeated_paragraphs"], of["paragraphs"]),
            "dup_para_char_frac": ratio(of["repeated_paragraph_characters"], text),
            "dup_line_frac": ratio(of["repeated_lines"], of["lines"]),
            "dup_line_char_frac": ratio(of["repeated_line_characters"], text),
        }
        for n in range(2, 5):
            scores[f"top_{n}_gram"] = ratio(of[f"top_{n}_gram_characters"], text)
        for n in range(5, 11):
            scores[f"duplicated_{n}_n_grams"] = ratio(of[f"repeated_{n}_gram_characters"], text)
        return scores

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say which rule drops each row, the first in datatrove's order; null where it is kept."""
        return first_reason(
            {f"{self.kind}/{rule}": above(scores[rule], getattr(self, rule)) for rule in _REPETITION_RULES}
        )


_REPETITION_RULES = (
    "dup_para_frac",
    "dup_para_char_frac",
    "dup_line_frac",
    "dup_line_char_frac",
    *(f"top_{n}_gram" for n in range(2, 5)),
    *(f"duplicated_{n}_n_grams" for n in range(5, 11)),
)


@lru_cache(maxsize=16)
def _stop_word_table(words: tuple[str, ...]) -> StopWords:
    """Lay stop words out for the kernel: where each first byte's words begin, where each word begins, their bytes."""
    ordered = sorted({word.encode() for word in words})
    buckets = np.searchsorted(np.array([word[0] for word in ordered], np.int64), np.arange(257)).astype(np.int64)
    spans = np.cumsum([0, *map(len, ordered)], dtype=np.int64)
    return buckets, spans, np.frombuffer(b"".join(ordered), np.uint8)
