"""RefinedWeb's edits (Penedo et al. 2023, arXiv:2306.01116, Appendix G.2) as DCLM-Baseline applied them.

Both steps edit and decide as the mappers that `dclm_baseline_refinedweb.yaml` names (mlfoundations/dclm, commit
361714bd, `baselines/mappers/modifiers.py` and `filters/content_filters.py`): addresses and runs of newlines go before
the page rules, lines after them. What they cut is kept in `edits`, so that it can be undone. 125 and 57 MB/s a core
with the edits recorded, DCLM's own 3.2 and 1.8; 7,607 documents came out of both as the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from .edits import Cuts, edit, in_bytes, line_cut
from .kernels.characters import characters
from .kernels.refinedweb import LINES, RULES, fasttext_words, line_cuts, may_have_phrase
from .kernels.text import code_point_classes
from .kernels.web_addresses import ipv4_cuts, newline_cuts, top_level_domains, url_cuts
from .step import Filter, Outcome, Scores, Share, StepModel, above, first_reason, ratio, utf8, with_columns


class RefinedWebText(StepModel):
    r"""Remove web addresses from the text, and newlines beyond two in a row.

    An address is a name with a dot before one of IANA's top-level domains (lower case, as of DCLM's list), with http,
    https or ftp before it or without, and what follows it; then, in what is left, four numbers with dots (so a version
    1.2.3.4 as well). Up to ten spaces before an address go with it. A page that is empty then goes as
    `refinedweb_text/empty`.

    DCLM's way, kept by `remove_urls="dclm"`: it asks whether the *first letters* of a page are those of a top-level
    domain (`re.match` where `re.search` was meant), and removes names only from pages that so begin: "In", "It", "The"
    or "How" do, "When" and "We" do not. `everywhere` looks at all pages. Addresses of numbers go from all.

    >>> step = RefinedWebText(remove_urls="everywhere")
    >>> step.apply(pa.record_batch({"text": ["See https://example.com/a?b or 10.0.0.1.\n\n\n\nEnd"]})).batch["text"][0]
    <pyarrow.StringScalar: 'See or\n\nEnd'>
    """

    kind: Literal["refinedweb_text"] = "refinedweb_text"
    remove_urls: Literal["dclm", "everywhere"] | None = "dclm"  # url_removal_modifier; None leaves them
    max_newlines: Annotated[int, Field(ge=1)] | None = 2  # newline_removal_modifier
    record_edits: bool = True

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Edit `text`, in up to three rounds of edits, and give the reasons."""
        classes, (bits, lower) = code_point_classes(), characters()
        empty = np.zeros(len(batch), bool)
        if self.remove_urls is not None:
            domains, everywhere = top_level_domains(), self.remove_urls == "everywhere"
            cuts = url_cuts(*utf8(batch), classes, bits, lower, domains, everywhere)
            batch = self._edit(batch, "url", *cuts)
            batch = self._edit(batch, "ipv4", *ipv4_cuts(*utf8(batch), classes, bits))
            empty = np.diff(utf8(batch)[0]) == 0
        if self.max_newlines is not None:
            batch = self._edit(batch, "newlines", *newline_cuts(*utf8(batch), self.max_newlines))
        return Outcome(batch, first_reason({f"{self.kind}/empty": empty}))

    def _edit(
        self, batch: pa.RecordBatch, rule: str, rows: NDArray[np.int64], spans: NDArray[np.int64]
    ) -> pa.RecordBatch:
        names = pa.repeat(pa.scalar(f"{self.kind}/{rule}"), len(rows))
        return edit(batch, self.kind, Cuts(rows, spans, rules=names), record=self.record_edits)


@dataclass(frozen=True)
class _Round:
    """Cuts of one round, in bytes from the start of each text, so that they hold whichever rows are edited."""

    rows: NDArray[np.int64]
    spans: NDArray[np.int64]
    rules: NDArray[np.object_]

    def of(self, batch: pa.RecordBatch, wanted: NDArray[np.bool_]) -> Cuts:
        """Place the cuts of wanted rows in a batch."""
        chosen = wanted[self.rows] if len(self.rows) else np.zeros(0, bool)
        rows = self.rows[chosen]
        rules = pa.array(self.rules[chosen].tolist(), pa.string())
        return Cuts(rows, self.spans[chosen] + utf8(batch)[0][rows][:, None], rules=rules)


#: What is removed from short lines: rule and DCLM's expression (a full stop in the second means any character, as
#: there). `may_have_phrase` looks first for letters of theirs.
_PHRASES = (
    ("items_in_cart", re.compile(r"\s?(?:items in cart)", re.I)),
    ("read_more", re.compile(r"\s?(?:read more...)$", re.I)),
    ("sign_in", re.compile(r"^(?:sign-in)\s?", re.I)),
)


class RefinedWebLines(Filter):
    r"""Drop lines that are no prose, remove three phrases, and drop the page if too many of its words are gone.

    Lines are what newlines separate; empty ones stay. Rules go over the page one after another, and each but the fourth
    strips the page behind it: dropped if more than `max_uppercase_ratio` of a line's code points are capitals; if more
    than `max_numeric_ratio` are digits; if it is a counter ("1,024 likes"); if it has fewer than `min_words_per_line`
    words. Then "items in cart", "Read more..." at the end and "Sign-in" at the beginning are removed from lines of at
    most `max_phrase_line_words` words (the line is dropped if nothing is left). The page goes if no text is left, as
    `empty`; had it no word, as `no_words`; and if more than `max_removed_word_ratio` of its words are gone, as
    `removed_words`. A page that is dropped keeps its text as it was.

    Words of lines are those of `str.split`; words of pages, as DCLM counts them, are what fastText's tokenizer gives
    and begins with a letter or digit. Scores: counts of `lines` and, by rule, of those dropped; `phrase_edits`; `words`
    and `words_left`; `removed_word_ratio`; `bytes_left`.

    >>> text = "A page of more than twenty words is needed here, or else one line that goes is too much of it.\n3 likes"
    >>> outcome = RefinedWebLines(max_removed_word_ratio=0.1).apply(pa.record_batch({"text": [text]}))
    >>> outcome.batch["text"][0].as_py()[-10:], outcome.batch["edits"][0].as_py()[0]["removed"]
    ('uch of it.', '\n3 likes')
    """

    kind: Literal["refinedweb_lines"] = "refinedweb_lines"
    # Defaults: dclm_baseline_refinedweb.yaml.
    max_uppercase_ratio: Share | None = 0.5
    max_numeric_ratio: Share | None = 0.999999
    remove_counters: bool = True
    min_words_per_line: Annotated[int, Field(ge=0)] | None = 2
    remove_phrases: bool = True
    max_phrase_line_words: Annotated[int, Field(ge=0)] = 10
    max_removed_word_ratio: Share | None = 0.05
    record_edits: bool = True

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row; counts int64, the ratio float64."""
        return self._clean(batch)[0]

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each page is dropped; null where it is kept. Only the last rule can be replayed from scores."""
        off = self.max_removed_word_ratio is None
        return first_reason(
            {
                f"{self.kind}/empty": scores["bytes_left"] == 0,
                f"{self.kind}/no_words": (scores["words"] == 0) & (not off),
                f"{self.kind}/removed_words": above(scores["removed_word_ratio"], self.max_removed_word_ratio),
            }
        )

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Edit the text of pages that are kept, add the scores as columns, and give the reasons."""
        scores, rounds = self._clean(batch)
        reasons = self.decide(scores)
        kept = pc.and_(reasons.is_null(), batch.column("text").is_valid()).to_numpy(zero_copy_only=False)
        for one in rounds:
            batch = edit(batch, self.kind, one.of(batch, kept), record=self.record_edits)
        columns = {f"{self.kind}.{name}": pa.array(values) for name, values in scores.items()}
        return Outcome(with_columns(batch, columns), reasons)

    def _clean(self, batch: pa.RecordBatch) -> tuple[dict[str, NDArray[Any]], list[_Round]]:
        """Edit the texts of all rows, to score what is left of them; give the rounds of cuts."""
        bits, _ = characters()
        offsets, data = utf8(batch)
        counts, cuts = line_cuts(offsets, data, code_point_classes(), bits, self._limits())
        of = dict(zip(LINES, counts.T, strict=True))
        rows = np.ascontiguousarray(cuts[:, 0])
        names = np.array([f"{self.kind}/{rule}" for rule in RULES], object)[cuts[:, 3] - 1]
        rounds = [_Round(rows, cuts[:, 1:3] - offsets[rows][:, None], names)]
        everywhere = np.ones(len(batch), bool)
        text = pa.record_batch({"text": batch.column("text").cast(pa.large_string())})
        text = edit(text, self.kind, rounds[0].of(text, everywhere), record=False)
        phrases, left = np.zeros(len(batch), np.int64), of["words_left"].copy()
        for one in self._phrase_rounds(text) if self.remove_phrases else ():
            text = edit(text, self.kind, one.of(text, everywhere), record=False)
            np.add.at(phrases, one.rows[[not name.endswith("/strip") for name in one.rules]], 1)
            rounds.append(one)
        if len(rounds) > 1:
            edited = np.flatnonzero(phrases)
            left[edited] = fasttext_words(*utf8(text.take(pa.array(edited))), bits)
        bytes_left = np.where(of["kept_lines"] == 0, 0, np.diff(utf8(text)[0]))  # those have no cuts
        scores = {
            **{name: of[name] for name in LINES[:-2]},
            "phrase_edits": phrases,
            "words": of["words"],
            "words_left": left,
            "removed_word_ratio": ratio(of["words"] - left, of["words"]),
            "bytes_left": bytes_left,
        }
        return scores, rounds

    def _limits(self) -> tuple[float, float, bool, int, bool]:
        upper, numeric = self.max_uppercase_ratio, self.max_numeric_ratio
        return (
            2.0 if upper is None else upper,
            2.0 if numeric is None else numeric,
            self.remove_counters,
            self.min_words_per_line or 0,
            self.remove_phrases,
        )

    def _phrase_rounds(self, batch: pa.RecordBatch) -> Iterator[_Round]:
        """Give the rounds that remove phrases, each for the text that the one before left."""
        found = np.flatnonzero(may_have_phrase(*utf8(batch))).tolist()
        # Byte by byte, so that what is no UTF-8 comes back as it was.
        values = batch.column("text").cast(pa.large_string()).cast(pa.large_binary())
        texts = {row: values[row].as_py().decode("utf-8", "surrogateescape") for row in found}
        for rule, pattern in _PHRASES if texts else ():
            for name, cuts_of in ((rule, self._phrase_cuts), ("strip", _strip_cuts)):
                rows, spans = [], []
                for row, text in texts.items():
                    cuts = cuts_of(text, pattern)
                    rows += [row] * len(cuts)
                    spans += in_bytes(text, cuts)
                    texts[row] = _without(text, cuts)
                if rows:
                    names = np.full(len(rows), f"{self.kind}/{name}", object)
                    yield _Round(np.array(rows, np.int64), np.array(spans, np.int64), names)

    def _phrase_cuts(self, text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
        """Find what a phrase takes from a text, in code points. A line that is dropped goes with one newline."""
        cuts: list[tuple[int, int]] = []
        at, kept = 0, False
        for line in text.split("\n"):
            end = at + len(line)
            matches: list[tuple[int, int]] = []
            if len(line.split()) <= self.max_phrase_line_words:
                matches = [(at + one.start(), at + one.end()) for one in pattern.finditer(line)]
            if matches and not _without(line, [(first - at, last - at) for first, last in matches]).strip():
                cuts.append(line_cut(text, at, end, kept))
            else:
                cuts += matches
                kept = True
            at = end + 1
        return cuts


def _strip_cuts(text: str, _: object) -> list[tuple[int, int]]:
    """Find the space at the ends of a text."""
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    return [cut for cut in ((0, min(first, last)), (max(last, 0), len(text))) if cut[0] < cut[1]]


def _without(text: str, cuts: Sequence[tuple[int, int]]) -> str:
    """Leave cuts out."""
    at, pieces = 0, []
    for first, last in cuts:
        pieces.append(text[at:first])
        at = last
    return "".join([*pieces, text[at:]])
