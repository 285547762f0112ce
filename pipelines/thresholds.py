"""Which scores a recipe's thresholds cut, and on which side: what a report draws and a trace measures against."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..transforms import fineweb2

#: Thresholds whose fields are not named after their scores: score → (field, what goes), both of one kind of step.
FIELDS: dict[str, tuple[tuple[str, str], ...]] = {
    "gopher_quality.nonsymbol_words": (("min_doc_words", "below"), ("max_doc_words", "above")),
    "gopher_quality.mean_word_length": (("min_avg_word_length", "below"), ("max_avg_word_length", "above")),
    # What other variants than FineWeb's count.
    "gopher_quality.word_count": (("min_doc_words", "below"), ("max_doc_words", "above")),
    "gopher_quality.median_word_length": (("min_avg_word_length", "below"), ("max_avg_word_length", "above")),
    "gopher_quality.symbol_ratio": (("max_symbol_word_ratio", "above"),),
    "gopher_quality.hash_ratio": (("max_symbol_word_ratio", "above"),),
    "gopher_quality.ellipsis_ratio": (("max_symbol_word_ratio", "above"),),
    "gopher_quality.bullet_line_ratio": (("max_bullet_lines_ratio", "above"),),
    "gopher_quality.ellipsis_line_ratio": (("max_ellipsis_lines_ratio", "above"),),
    "gopher_quality.alpha_word_ratio": (("min_alpha_words_ratio", "below"),),
    # `stop_words` is the list as well, so a maximum of that name would be misread.
    "gopher_quality.stop_words": (("min_stop_words", "below"),),
    "c4_quality.sentences": (("min_num_sentences", "below"),),
    "c4_quality.characters": (("max_page_length", "above"),),
    "c4_paragraphs.nth_longest": (("min_paragraph_length", "below"),),
    "refinedweb_lines.removed_word_ratio": (("max_removed_word_ratio", "above"),),
    "fineweb_quality.line_punct_ratio": (("line_punct_thr", "below"),),
    "fineweb_quality.short_line_ratio": (("short_line_thr", "above"),),
    "fineweb_quality.char_dup_ratio": (("char_duplicates_ratio", "above"),),
    "fineweb_quality.list_ratio": (("new_line_ratio", "above"),),
    "language_score": (("minimum", "up to"),),
    "quality_classifier.score": (("minimum", "below"),),
    "perplexity": (("maximum", "above"),),
    "decontaminate.ngrams": (("min_ngrams", "from"),),
    "decontaminate.item_share": (("min_item_share", "from"),),
    "decontaminate.spans": (("max_cuts", "above"),),
    "url_filter.soft_words": (("soft_words_threshold", "from"),),
}
#: Thresholds on a score that another kind of step gives: score → kind → (field, what goes).
OTHERS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "language_score": {"language_score": (("minimum", "below"),)},
}
#: The kind of step that has rules by language, and gives the reasons of the steps that it holds.
MULTILINGUAL = "multilingual"
#: Scores whose column does not begin with the kind of their step.
KINDS = {"language": "language_id", "language_score": "language_id"}
#: Fields that are true or false, and of which only `decide` takes notice: score → fields.
SWITCHES: dict[str, tuple[str, ...]] = {
    "c4_quality.lorem_ipsum_line": ("filter_lorem_ipsum",),
    "c4_quality.curly_bracket_line": ("filter_curly_bracket",),
    "fineweb_quality.line_punct_ratio": ("line_punct_exclude_zero",),
}
SIGNS = {"below": "<", "up to": "≤", "above": ">", "from": "≥"}


def kind_of(score: str) -> str:
    """Name the kind of step that gives a score column."""
    return KINDS.get(score, score.partition(".")[0])


def columns_of(kind: str, names: Iterable[str]) -> dict[str, str]:
    """Find the ledger's columns that hold the scores of a kind of step: score → column."""
    return {
        name.removeprefix(f"{kind}."): name for name in names if name.startswith(f"{kind}.") or KINDS.get(name) == kind
    }


def pairs_of(score: str) -> tuple[tuple[str, str], ...]:
    """Name the fields that may cut a score column, and what goes: below, up to, above, or where a switch is on."""
    name = short(score)
    cuts = FIELDS.get(score, ((f"min_{name}", "below"), (f"max_{name}", "above"), (name, "above")))
    return (*cuts, *((field, "where") for field in SWITCHES.get(score, ())))


def short(score: str) -> str:
    """Name a score without its step."""
    return score.partition(".")[2] or score


@dataclass(frozen=True)
class Threshold:
    """Where a rule cuts: what lies below `value`, up to it or above it goes."""

    value: float
    drops: str  # 'below' | 'up to' | 'above' | 'from'
    field: str

    @property
    def sign(self) -> str:
        """Write the comparison that drops."""
        return SIGNS[self.drops]

    def beyond(self, values: Any) -> Any:
        """Say which values the rule drops."""
        if self.drops == "up to":
            return values <= self.value
        if self.drops == "from":
            return values >= self.value
        return values < self.value if self.drops == "below" else values > self.value

    def margin(self, value: float) -> float:
        """Say how far inside a value lies: 0 on the threshold, 1 at the far end of what it allows; negative beyond it.

        The far end is 0 of a maximum, 1 of a minimum that is a share, and twice the threshold of any other minimum.
        """
        minimum = self.drops in ("below", "up to")
        room = 1 - self.value if minimum and 0 < self.value < 1 else abs(self.value) or 1.0
        return (value - self.value if minimum else self.value - value) / room


def concerns(kind: str, score: str) -> bool:
    """Say whether steps of a kind decide by a score column."""
    return kind_of(score) == kind or kind in OTHERS.get(score, {})


def kind_of_rule(rule: str, stage: str) -> str:
    """Name the kind of step that a reason comes from: a step that holds others gives theirs."""
    return rule.partition("/")[0] if stage == MULTILINGUAL else stage


def thresholds(manifest: Mapping[str, Any], score: str, language: str | None = None) -> Sequence[Threshold]:
    """Find the thresholds of a score column, `kind.score`, among the fields of the recipe's steps.

    A step of one's own is understood where its field is named `min_score`, `max_score`, or as the score (a maximum). A
    field that is null switches its rule off, and a score of more than 0 drops nothing. Of rules by language: those of
    `language`; without one, those that are the same for every language of which the run kept documents.
    """
    pairs = pairs_of(score)
    found: list[Threshold] = []
    steps = (manifest.get("recipe") or {}).get("steps") or ()
    for own, step in zip(manifest.get("steps") or (), steps, strict=False):
        fields = dict(next(iter(step.values())) or {}) if isinstance(step, Mapping) else {}
        for kind, cuts in {kind_of(score): pairs, **OTHERS.get(score, {})}.items():
            if own == kind:
                found += _cuts(fields, cuts)
            elif own == MULTILINGUAL:
                found += _common(_cuts_of(fields, met, kind, cuts) for met in _met(manifest, fields, language))
    return found


def _cuts(fields: Mapping[str, Any], pairs: Sequence[tuple[str, str]]) -> list[Threshold]:
    found = []
    for field, drops in pairs:
        value = fields.get(field)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        if value or drops != "up to":
            found.append(Threshold(float(value), drops, field))
    return found


def _met(manifest: Mapping[str, Any], fields: Mapping[str, Any], language: str | None) -> tuple[str, ...]:
    """Name the languages whose thresholds are asked for."""
    if fields.get("column") != "language":  # of what else rows may be routed by, neither record nor manifest tells
        return tuple(fields.get("recipes") or {})
    return (language,) if language else tuple(manifest.get("languages") or ())


def _cuts_of(
    fields: Mapping[str, Any], language: str, kind: str, pairs: Sequence[tuple[str, str]]
) -> list[Threshold] | None:
    """Find the thresholds that a language's own steps have; None where they do not score."""
    recipes = fields.get("recipes") or {}
    steps = recipes.get(language)
    if steps is None and fields.get("preset") and language in fineweb2.languages():
        steps = _preset_dump(language, json.dumps(fields.get("preset_fields") or {}, sort_keys=True))
    for step in steps if steps is not None else recipes.get("default") or ():
        if isinstance(step, Mapping) and kind in step:
            return _cuts(step[kind] or {}, pairs)
    return None


@lru_cache(4096)
def _preset_dump(language: str, own: str) -> list[Any]:
    from ..transforms.named import dump_step  # late: a trace that needs neither starts sooner
    from ..transforms.route import preset_steps

    return [dump_step(step) for step in preset_steps(language, own)]


def _common(sets: Iterable[list[Threshold] | None]) -> list[Threshold]:
    """Give what all agree on, of those that score."""
    known = [cuts for cuts in sets if cuts is not None]
    return [cut for cut in known[0] if all(cut in other for other in known)] if known else []
