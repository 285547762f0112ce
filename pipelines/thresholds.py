"""Which scores a recipe's thresholds cut, and on which side: what a report draws and a trace measures against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Thresholds whose fields are not named after their scores: score → (field, what goes), both of one kind of step.
FIELDS: dict[str, tuple[tuple[str, str], ...]] = {
    "gopher_quality.nonsymbol_words": (("min_doc_words", "below"), ("max_doc_words", "above")),
    "gopher_quality.mean_word_length": (("min_avg_word_length", "below"), ("max_avg_word_length", "above")),
    "gopher_quality.hash_ratio": (("max_symbol_word_ratio", "above"),),
    "gopher_quality.ellipsis_ratio": (("max_symbol_word_ratio", "above"),),
    "gopher_quality.bullet_line_ratio": (("max_bullet_lines_ratio", "above"),),
    "gopher_quality.ellipsis_line_ratio": (("max_ellipsis_lines_ratio", "above"),),
    "gopher_quality.alpha_word_ratio": (("min_alpha_words_ratio", "below"),),
    # `stop_words` is the list as well, so a maximum of that name would be misread.
    "gopher_quality.stop_words": (("min_stop_words", "below"),),
    "c4_quality.sentences": (("min_num_sentences", "below"),),
    "fineweb_quality.line_punct_ratio": (("line_punct_thr", "below"),),
    "fineweb_quality.short_line_ratio": (("short_line_thr", "above"),),
    "fineweb_quality.char_dup_ratio": (("char_duplicates_ratio", "above"),),
    "fineweb_quality.list_ratio": (("new_line_ratio", "above"),),
    "language_score": (("minimum", "up to"),),
    "decontaminate.ngrams": (("min_ngrams", "from"),),
    "decontaminate.item_share": (("min_item_share", "from"),),
    "decontaminate.spans": (("max_cuts", "above"),),
    "url_filter.soft_words": (("soft_words_threshold", "from"),),
}
#: Scores whose column does not begin with the kind of their step.
KINDS = {"language_score": "language_id"}
SIGNS = {"below": "<", "up to": "≤", "above": ">", "from": "≥"}


def kind_of(score: str) -> str:
    """Name the kind of step that gives a score column."""
    return KINDS.get(score, score.partition(".")[0])


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


def thresholds(manifest: Mapping[str, Any], score: str) -> Sequence[Threshold]:
    """Find the thresholds of a score column, `kind.score`, among the fields of the recipe's steps.

    A step of one's own is understood where its field is named `min_score`, `max_score`, or as the score (a maximum). A
    field that is null switches its rule off, and a score of more than 0 drops nothing.
    """
    kind, name = kind_of(score), short(score)
    pairs = FIELDS.get(score, ((f"min_{name}", "below"), (f"max_{name}", "above"), (name, "above")))
    found = []
    steps = (manifest.get("recipe") or {}).get("steps") or ()
    for own, step in zip(manifest.get("steps") or (), steps, strict=False):
        fields = dict(next(iter(step.values())) or {}) if own == kind and isinstance(step, Mapping) else {}
        for field, drops in pairs:
            value = fields.get(field)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                continue
            if value or drops != "up to":
                found.append(Threshold(float(value), drops, field))
    return found
