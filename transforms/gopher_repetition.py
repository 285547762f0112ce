"""Gopher's repetition rules (Rae et al. 2021, arXiv:2112.11446, Appendix A1.1 and Table A1) in named variants.

A document goes when too much of it has been said before. What a copy is, and over what it is measured, differs between
published implementations; each variant is one of them. Outside FineWeb's, a text in which nothing stands twice never
goes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from .kernels.gopher_variants import NO_BLANKS, RUNS
from .kernels.repetition import REPETITION, repetition_counts, repetition_counts_of
from .kernels.repetition_variants import (
    COVER,
    EMPTY_COPIES,
    FIRST,
    GRAMS,
    LONGEST,
    SEGMENTS,
    SPACED_BLANKS,
    gram_counts,
    segment_counts,
)
from .kernels.text import code_point_classes
from .step import Filter, Scores, Share, above, first_reason, ratio, utf8
from .words import UNICODE, WHITESPACE, WordsField, beginning_alphanumeric, words_fingerprint, words_of

Ratio = Annotated[float, Field(ge=0)]  # of counts that do not contain one another: may pass 1
Variant = Literal["fineweb", "paper", "dclm", "dolma", "dolma_v1"]

#: How each variant reads lines and paragraphs, and how it counts n-grams.
_WAYS: dict[str, tuple[int, int]] = {
    "paper": (NO_BLANKS | SPACED_BLANKS, COVER),
    "dclm": (NO_BLANKS, LONGEST),
    "dolma": (RUNS, FIRST),
    "dolma_v1": (EMPTY_COPIES, FIRST),
}
#: Fields that a variant has other defaults for than Table A1.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "dclm": {"words": UNICODE},
    "dolma": {"dup_para_frac": None, "dup_para_char_frac": None, "dup_line_char_frac": 0.30},
}
_DEFAULTS["dolma_v1"] = _DEFAULTS["dolma"]

_PARAGRAPHS, _LINES = ("dup_para_frac", "dup_para_char_frac"), ("dup_line_frac", "dup_line_char_frac")
_TABLE_A1 = (_LINES[0], _PARAGRAPHS[0], _LINES[1], _PARAGRAPHS[1])
_TOPS, _REPEATED = range(2, 5), range(5, 11)
#: What the scores that are no n-gram's are called as rules; n-grams': of the top one, of all that are repeated.
_NAMES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "fineweb": ((*_PARAGRAPHS, *_LINES), "top_{}_gram", "duplicated_{}_n_grams"),
    "paper": (
        (
            "duplicate_line_fraction",
            "duplicate_paragraph_fraction",
            "duplicate_line_character_fraction",
            "duplicate_paragraph_character_fraction",
        ),
        "top_{}_gram_character_fraction",
        "duplicate_{}_gram_character_fraction",
    ),
    "dclm": (
        ("line_count", "paragraph_count", "line_characters", "paragraph_characters"),
        "most_common_{}_gram",
        "all_repeated_{}_grams",
    ),
    "dolma": (
        ("fraction_of_duplicate_lines", "fraction_of_characters_in_duplicate_lines"),
        "fraction_of_characters_in_most_common_{}grams",
        "fraction_of_characters_in_duplicate_{}grams",
    ),
}
_NAMES["dolma_v1"] = _NAMES["dolma"]


def _scores_of(variant: str) -> tuple[str, ...]:
    """Name a variant's scores, which are its thresholds' fields too, in the order of its rules."""
    segments = {"fineweb": (*_PARAGRAPHS, *_LINES), "paper": _TABLE_A1, "dclm": _TABLE_A1}.get(variant, _LINES)
    return (*segments, *(f"top_{n}_gram" for n in _TOPS), *(f"duplicated_{n}_n_grams" for n in _REPEATED))


def _rules_of(variant: str) -> tuple[str, ...]:
    """Name a variant's rules, one a score."""
    segments, top, repeated = _NAMES[variant]
    return (*segments, *(top.format(n) for n in _TOPS), *(repeated.format(n) for n in _REPEATED))


class GopherRepetition(Filter):
    r"""Drop documents made largely of repeated lines, paragraphs or n-grams of words.

    Scores, each named as its threshold: `dup_line_frac` and `dup_para_frac`, shares of lines and paragraphs;
    `…_char_frac`, their code points over those of the text; `top_n_gram`, code points of the most frequent n-gram of 2
    to 4 words; `duplicated_n_n_grams`, of those of 5 to 10 that stand twice or more.

                          fineweb         paper            dclm             dolma            dolma_v1
        copies counted    from the        every            every            every            every
                          second on
        lines             cut at runs     cut at \n,       cut at \n,       cut at runs      cut at \n
                          of \n           not blank        not blank        of \n
        paragraphs        cut at \n\n     cut at blank     cut at \n\n      –                –
                                          lines
        space at ends     text's          stripped         stripped         stays            stays
        over, for lines   the text        all lines        all lines        words            words
        top n-gram        with spaces,    its words, each  longest, times   first, times     first, times
                          first, even     place once       its count        its count        its count
                          if once
        repeated n-grams  jumping, words  each place       each place       each n-gram      each n-gram
                          joined          once             once             whole            whole
        over              the text        words            words            words; all       words; all
                                                                            n-grams whole    n-grams whole
        words             whitespace      whitespace       unicode, alpha-  whitespace       whitespace
                                                           numeric at first

    fineweb: datatrove 0.10.0, `pipeline/filters/gopher_repetition_filter.py`, decision for decision, given the same
    words. Its ways, kept: paragraphs come before lines; an n-gram that stands once counts too, so that a short text
    without any repetition may go as `top_2_gram`; a text that begins *and* ends with a newline has an empty line twice;
    repeated n-grams are compared with their words joined ("a bc" is "ab c"), top ones joined by spaces.

    paper: Table A1 in its order; where the paper is silent, every copy of a line counts as a duplicate, and code points
    are counted over those of the same kind, so that a text of nothing but copies has 1. dclm: DCLM,
    `baselines/mappers/filters/content_filters.py` at 361714b, `massive_web_repetition_filters`: a page without a line
    goes, as `no_lines`. dolma and dolma_v1: dolma 1.2.1, `taggers/gopher.py`, gopher_v2 and gopher_v1, with the
    thresholds of `configs/dolma-v1_6/mixing/cc-head.yaml`: 0.30 for characters of lines, no paragraphs. Departures from
    dolma: an n-gram that stands once scores 0; in `dolma`, empty lines before and after a text are no copies. In
    `dolma_v1` they are, as are blank lines: a text with many goes, as there.

    `words` and thresholds left unset are the variant's. None switches a rule off.

    >>> batch = pa.record_batch({"text": ["spam\nspam\nspam", " ".join(map(str, range(40)))]})
    >>> GopherRepetition().reasons(batch).to_pylist()
    ['gopher_repetition/dup_line_frac', None]
    >>> GopherRepetition(variant="paper").reasons(batch).to_pylist()
    ['gopher_repetition/duplicate_line_fraction', None]
    """

    kind: Literal["gopher_repetition"] = "gopher_repetition"
    variant: Variant = "fineweb"
    words: WordsField = WHITESPACE
    # Defaults: Rae et al. 2021, Table A1; the same in datatrove, FineWeb and DCLM; dolma's others in _DEFAULTS.
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

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, fields: Any) -> Any:
        """Write the variant's words and thresholds where none are given."""
        variant = fields.get("variant") if isinstance(fields, dict) else None
        return {**_DEFAULTS[variant], **fields} if variant in _DEFAULTS else fields

    @model_validator(mode="after")
    def _has_paragraphs(self) -> GopherRepetition:
        """Refuse a threshold on what a variant does not measure."""
        for field in set(_PARAGRAPHS) - set(_scores_of(self.variant)):
            if (value := getattr(self, field)) is not None:
                raise ValueError(f"{field} is {value}, and {self.variant} has no rule on paragraphs: leave it out")
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: shares, float64, in the order in which the rules stand; `lines`, int64, for dclm."""
        return self._fineweb(batch) if self.variant == "fineweb" else self._others(batch)

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say which rule drops each row, the first in the variant's order; null where it is kept."""
        fired = {f"{self.kind}/no_lines": scores["lines"] == 0} if self.variant == "dclm" else {}
        for rule, score in zip(_rules_of(self.variant), _scores_of(self.variant), strict=True):
            fired[f"{self.kind}/{rule}"] = above(scores[score], getattr(self, score))
        return first_reason(fired)

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, and the source of a tokenizer of the user's own."""
        return {**super().fingerprint(), **words_fingerprint(self.words)}

    def _fineweb(self, batch: pa.RecordBatch) -> Scores:
        text = utf8(batch)
        if self.words == WHITESPACE:
            counts = repetition_counts(*text, code_point_classes())
        else:
            counts = repetition_counts_of(*text, code_point_classes(), *words_of(self.words, *text))
        of = dict(zip(REPETITION, counts.T, strict=True))
        characters = of["characters"]
        scores = {
            "dup_para_frac": ratio(of["repeated_paragraphs"], of["paragraphs"]),
            "dup_para_char_frac": ratio(of["repeated_paragraph_characters"], characters),
            "dup_line_frac": ratio(of["repeated_lines"], of["lines"]),
            "dup_line_char_frac": ratio(of["repeated_line_characters"], characters),
        }
        scores |= {f"top_{n}_gram": ratio(of[f"top_{n}_gram_characters"], characters) for n in _TOPS}
        repeated = {n: of[f"repeated_{n}_gram_characters"] for n in _REPEATED}
        return scores | {f"duplicated_{n}_n_grams": ratio(repeated[n], characters) for n in _REPEATED}

    def _others(self, batch: pa.RecordBatch) -> Scores:
        lines, grams = _WAYS[self.variant]
        text = utf8(batch)
        words = words_of(self.words, *text)
        if self.variant == "dclm":
            words = beginning_alphanumeric(words)
        of = dict(zip(SEGMENTS, segment_counts(*text, code_point_classes(), lines).T, strict=True))
        of.update(zip(GRAMS, gram_counts(*words, grams).T, strict=True))
        whole = grams == FIRST  # dolma's: code points of lines over those of words
        scores = {
            "dup_line_frac": ratio(of["repeated_lines"], of["lines"]),
            "dup_para_frac": ratio(of["repeated_paragraphs"], of["paragraphs"]),
            "dup_line_char_frac": ratio(
                of["repeated_line_characters"], of["characters" if whole else "line_characters"]
            ),
            "dup_para_char_frac": ratio(of["repeated_paragraph_characters"], of["paragraph_characters"]),
        }
        scores |= {f"top_{n}_gram": ratio(of[f"top_{n}_gram_characters"], of["characters"]) for n in _TOPS}
        for n in _REPEATED:
            over = of[f"{n}_gram_characters" if whole else "characters"]
            scores[f"duplicated_{n}_n_grams"] = ratio(of[f"repeated_{n}_gram_characters"], over)
        kept = {name: scores[name] for name in _scores_of(self.variant)}
        return {"lines": of["lines"], **kept} if self.variant == "dclm" else kept
