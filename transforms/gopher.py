"""Gopher's quality rules (Rae et al. 2021, arXiv:2112.11446, Appendix A1.1, "Quality Filtering") in named variants.

The paper leaves open what a word, a line, a symbol and a bullet is, and published implementations differ in it. Each
variant is one of them, whole; a text's decision changes with the variant for about one document in ten. FineWeb's words
by white space are counted in one pass; other variants and words take two passes and a list of the words.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from .kernels import gopher_variants as ways
from .kernels.gopher_variants import LINE_MARKS, WORD_COUNTS, line_marks, stop_word_codes, word_counts
from .kernels.quality import GOPHER, StopWords, gopher_counts
from .kernels.text import code_point_classes
from .step import Filter, Scores, Share, above, below, first_reason, ratio, utf8
from .words import FASTTEXT, WHITESPACE, WordsField, beginning_alphanumeric, words_fingerprint, words_of

Count = Annotated[int, Field(ge=0)]
Length = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0)]  # of counts that do not contain one another: may pass 1
Word = Annotated[str, Field(pattern=r"^\S+$")]
Variant = Literal["fineweb", "paper", "dclm", "dolma", "dolma_v1"]
Counts = dict[str, NDArray[np.int64]]

_DCLM_LINES = ways.STRIPPED | ways.NO_BLANKS | ways.BULLET | ways.DISC | ways.STAR | ways.DASH | ways.DOTS
#: How each variant reads lines.
_LINES: dict[str, int] = {
    "fineweb": ways.BREAKS | ways.STRIPPED | ways.BULLET | ways.DASH | ways.DOTS,
    "paper": _DCLM_LINES,
    "dclm": _DCLM_LINES | ways.SPACED_DOTS,
    "dolma": ways.RUNS | ways.STAR | ways.DASH,
    "dolma_v1": ways.STAR | ways.DASH,
}
#: Rules in order: the rule's name, the score that it looks at, the threshold, and which side of it goes.
_Rule = tuple[str, str, str, str]
_DOLMA: tuple[_Rule, ...] = (
    ("word_count", "word_count", "min_doc_words", "below"),
    ("word_count", "word_count", "max_doc_words", "above"),
    ("median_word_length", "median_word_length", "min_avg_word_length", "below"),
    ("median_word_length", "median_word_length", "max_avg_word_length", "above"),
    ("symbol_to_word_ratio", "symbol_ratio", "max_symbol_word_ratio", "above"),
    ("fraction_of_words_with_alpha_character", "alpha_word_ratio", "min_alpha_words_ratio", "below"),
    ("required_word_count", "stop_words", "min_stop_words", "below"),
    ("fraction_of_lines_starting_with_bullet_point", "bullet_line_ratio", "max_bullet_lines_ratio", "above"),
    ("fraction_of_lines_ending_with_ellipsis", "ellipsis_line_ratio", "max_ellipsis_lines_ratio", "above"),
)
_RULES: dict[str, tuple[_Rule, ...]] = {
    "fineweb": (
        ("gopher_short_doc", "nonsymbol_words", "min_doc_words", "below"),
        ("gopher_long_doc", "nonsymbol_words", "max_doc_words", "above"),
        ("gopher_below_avg_threshold", "mean_word_length", "min_avg_word_length", "below"),
        ("gopher_above_avg_threshold", "mean_word_length", "max_avg_word_length", "above"),
        ("gopher_too_many_hashes", "hash_ratio", "max_symbol_word_ratio", "above"),
        ("gopher_too_many_ellipsis", "ellipsis_ratio", "max_symbol_word_ratio", "above"),
        ("gopher_too_many_bullets", "bullet_line_ratio", "max_bullet_lines_ratio", "above"),
        ("gopher_too_many_end_ellipsis", "ellipsis_line_ratio", "max_ellipsis_lines_ratio", "above"),
        ("gopher_below_alpha_threshold", "alpha_word_ratio", "min_alpha_words_ratio", "below"),
        ("gopher_enough_stop_words", "stop_words", "min_stop_words", "below"),
    ),
    "paper": (
        ("too_few_words", "word_count", "min_doc_words", "below"),
        ("too_many_words", "word_count", "max_doc_words", "above"),
        ("short_words", "mean_word_length", "min_avg_word_length", "below"),
        ("long_words", "mean_word_length", "max_avg_word_length", "above"),
        ("hash_to_word_ratio", "hash_ratio", "max_symbol_word_ratio", "above"),
        ("ellipsis_to_word_ratio", "ellipsis_ratio", "max_symbol_word_ratio", "above"),
        ("bullet_lines", "bullet_line_ratio", "max_bullet_lines_ratio", "above"),
        ("ellipsis_lines", "ellipsis_line_ratio", "max_ellipsis_lines_ratio", "above"),
        ("alphabetic_words", "alpha_word_ratio", "min_alpha_words_ratio", "below"),
        ("stop_words", "stop_words", "min_stop_words", "below"),
    ),
    "dclm": (
        ("page_length", "word_count", "min_doc_words", "below"),
        ("page_length", "word_count", "max_doc_words", "above"),
        ("word_length", "mean_word_length", "min_avg_word_length", "below"),
        ("word_length", "mean_word_length", "max_avg_word_length", "above"),
        ("symbol_ratio", "symbol_ratio", "max_symbol_word_ratio", "above"),
        ("bullet_count", "bullet_line_ratio", "max_bullet_lines_ratio", "above"),
        ("ellipsis_count", "ellipsis_line_ratio", "max_ellipsis_lines_ratio", "above"),
        ("alphabetic_word_ratio", "alpha_word_ratio", "min_alpha_words_ratio", "below"),
        ("stop_word", "stop_words", "min_stop_words", "below"),
    ),
    "dolma": _DOLMA,
    "dolma_v1": _DOLMA,
}


class GopherQuality(Filter):
    r"""Drop documents that do not read like prose: too short, too long, few stop words, many symbols.

    A document at its threshold stays. Lengths are code points. Rules stand in each variant's order, under its own
    names:

                          fineweb        paper          dclm             dolma          dolma_v1
        words counted     not all marks  all            alphanumeric     all            all
                                                        at first
        word length       mean of those  mean           mean, str.split  median         median
        symbols, over     # and          # and          # ... …          words with     words with
        words             ... …          ... …          and . . .        # or …         # or …
                          each alone     each alone     together
        lines             splitlines     cut at \n,     cut at \n,       cut at runs    cut at \n
                                         not blank      not blank        of \n
        space at ends     stripped       stripped       stripped         stays          stays
        begins a bullet   • -            • ● * -        • ● * -          * -            * -
        an ellipsis ends  ... …          ... …          ... … . . .      …              …
        stop words        different      different      each time        each time      each time
        told by case      yes            no             no               yes            yes

    fineweb: datatrove 0.10.0, `pipeline/filters/gopher_quality_filter.py`, decision for decision, given the same words.
    dclm: DCLM, `baselines/mappers/filters/content_filters.py` at 361714b, as `dclm_baseline_refinedweb.yaml` calls it;
    its length rule counts fastText's words, all others `str.split`'s. dolma and dolma_v1: dolma 1.2.1,
    `taggers/gopher.py`, gopher_v2 and gopher_v1, with the thresholds of `configs/dolma-v1_6/mixing/cc-head.yaml`.
    paper: the paper's words; where it is silent, every word counts, case does not, and a bullet is any mark that one of
    the other variants takes for one.

    Scores: fineweb has `words` and `nonsymbol_words` (those with a code point that is no punctuation), others
    `word_count`; `mean_word_length` or `median_word_length`; `hash_ratio` and `ellipsis_ratio`, or `symbol_ratio`;
    `bullet_line_ratio`, `ellipsis_line_ratio`, `alpha_word_ratio` (words with a letter over words) and `stop_words`.
    Nothing of nothing is 0: outside fineweb, where such a rule does not fire, a text without words has short ones.

    `words` left unset are the variant's: fasttext for dclm, whitespace for others. None switches a rule off.

    >>> text = "the cat sat on the mat and that was that"
    >>> batch = pa.record_batch({"text": [text, "cat mat " * 6]})
    >>> GopherQuality(min_doc_words=5).reasons(batch).to_pylist()
    [None, 'gopher_quality/gopher_enough_stop_words']
    >>> GopherQuality(variant="dclm", min_doc_words=5).reasons(batch).to_pylist()
    [None, 'gopher_quality/stop_word']
    """

    kind: Literal["gopher_quality"] = "gopher_quality"
    variant: Variant = "fineweb"
    words: WordsField = WHITESPACE
    # Defaults: Rae et al. 2021, Appendix A1.1, "Quality Filtering"; the same in datatrove, FineWeb, DCLM and dolma.
    min_doc_words: Count | None = 50
    max_doc_words: Count | None = 100_000
    min_avg_word_length: Length | None = 3  # of dolma's median
    max_avg_word_length: Length | None = 10
    max_symbol_word_ratio: Ratio | None = 0.1  # fineweb, paper: for # and for ellipses, each alone
    max_bullet_lines_ratio: Share | None = 0.9
    max_ellipsis_lines_ratio: Share | None = 0.3
    min_alpha_words_ratio: Share | None = 0.8  # datatrove's `max_non_alpha_words_ratio`, which it is not
    min_stop_words: Count | None = 2
    stop_words: tuple[Word, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, fields: Any) -> Any:
        """Write the variant's words where none are given."""
        if isinstance(fields, dict) and fields.get("variant") == "dclm":
            return {"words": FASTTEXT, **fields}
        return fields

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
        if self.variant == "fineweb":
            return _fineweb_scores(self._fineweb_counts(batch))
        of, counted = self._counts(batch)
        dolma = self.variant in ("dolma", "dolma_v1")
        scores = {"word_count": counted}
        if dolma:
            half = of["twice_median_length"]
            scores["median_word_length"] = half / 2
            scores["symbol_ratio"] = ratio(of["marked_words"], of["words"])
        elif self.variant == "dclm":
            symbols = of["hashes"] + of["ellipses"] + of["spaced_ellipses"]
            scores["mean_word_length"] = ratio(of["characters"], of["words"])
            scores["symbol_ratio"] = ratio(symbols, of["words"])
        else:
            scores["mean_word_length"] = ratio(of["characters"], of["words"])
            scores["hash_ratio"] = ratio(of["hashes"], of["words"])
            scores["ellipsis_ratio"] = ratio(of["ellipses"], of["words"])
        different = "different_stop_words" if self.variant == "paper" else "stop_words"
        return {**scores, **_shares(of), "stop_words": of[different]}

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say which rule drops each row, the first in the variant's order; null where it is kept."""
        fired: dict[str, NDArray[np.bool_]] = {}
        for rule, score, field, side in _RULES[self.variant]:
            values = scores[score]
            here = below(values, getattr(self, field)) if side == "below" else above(values, getattr(self, field))
            if self.variant == "fineweb" and score in ("mean_word_length", "alpha_word_ratio"):
                here = here & (scores["nonsymbol_words" if score == "mean_word_length" else "words"] > 0)
            name = f"{self.kind}/{rule}"
            fired[name] = fired[name] | here if name in fired else here
        return first_reason(fired)

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, and the source of a tokenizer of the user's own."""
        return {**super().fingerprint(), **words_fingerprint(self.words)}

    def _fineweb_counts(self, batch: pa.RecordBatch) -> Counts:
        """Count in one pass where words are those between white space."""
        if self.words == WHITESPACE:
            counts = gopher_counts(*utf8(batch), code_point_classes(), _stop_word_table(self.stop_words))
            return dict(zip(GOPHER, counts.T, strict=True))
        of = self._counts(batch)[0]
        return {**of, "stop_words": of["different_stop_words"]}

    def _counts(self, batch: pa.RecordBatch) -> tuple[Counts, NDArray[np.int64]]:
        """Count words and lines; and the words that the rule on length counts."""
        offsets, data = utf8(batch)
        classes = code_point_classes()
        words = words_of(self.words, offsets, data)
        split = words_of(WHITESPACE, offsets, data) if self.variant == "dclm" else words
        listed = stop_word_codes(self.stop_words, self.variant in ("paper", "dclm"))
        of = dict(zip(WORD_COUNTS, word_counts(*split, classes, listed).T, strict=True))
        of.update(zip(LINE_MARKS, line_marks(offsets, data, classes, _LINES[self.variant]).T, strict=True))
        return of, np.diff(beginning_alphanumeric(words).rows) if self.variant == "dclm" else of["words"]


def _shares(of: Counts) -> Counts | dict[str, NDArray[np.float64]]:
    """Give the scores that every variant has."""
    return {
        "bullet_line_ratio": ratio(of["bullet_lines"], of["lines"]),
        "ellipsis_line_ratio": ratio(of["ellipsis_lines"], of["lines"]),
        "alpha_word_ratio": ratio(of["alpha_words"], of["words"]),
    }


def _fineweb_scores(of: Counts) -> Scores:
    """Give FineWeb's scores."""
    return {
        "words": of["words"],
        "nonsymbol_words": of["nonsymbol_words"],
        "mean_word_length": ratio(of["nonsymbol_characters"], of["nonsymbol_words"]),
        "hash_ratio": ratio(of["hashes"], of["words"]),
        "ellipsis_ratio": ratio(of["ellipses"], of["words"]),
        **_shares(of),
        "stop_words": of["stop_words"],
    }


@lru_cache(maxsize=16)
def _stop_word_table(words: tuple[str, ...]) -> StopWords:
    """Lay stop words out for the kernel: where each first byte's words begin, where each word begins, their bytes."""
    ordered = sorted({word.encode() for word in words})
    buckets = np.searchsorted(np.array([word[0] for word in ordered], np.int64), np.arange(257)).astype(np.int64)
    spans = np.cumsum([0, *map(len, ordered)], dtype=np.int64)
    return buckets, spans, np.frombuffer(b"".join(ordered), np.uint8)
