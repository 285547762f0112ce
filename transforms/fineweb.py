"""FineWeb's own quality rules (Penedo et al. 2024, arXiv:2406.17557, "Developing additional heuristic filters").

Decides as datatrove v0.10.0 does (`pipeline/filters/fineweb_quality_filter.py`), given the same words.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field

from .kernels.fineweb import FINEWEB, fineweb_counts
from .kernels.text import code_point_classes
from .step import Filter, Scores, Share, above, below, first_reason, ratio, utf8


class FineWebQuality(Filter):
    r"""Drop documents that are lists, menus or lines said twice.

    A line ends at a newline and at nothing else; lines of nothing but space do not count. Scores: `lines`;
    `line_punct_ratio`, the share of them whose very last code point ends a sentence (159 marks of all scripts, no
    quotes; a line that ends in a space or a carriage return does not); `short_line_ratio`, the share of at most
    `short_line_length` code points, space included; `char_dup_ratio`, code points of second and later copies of lines
    over all but newlines; `list_ratio`, newlines (blank lines' too) over words.

    Rules in datatrove's order: empty, line_punct_ratio (below its threshold), short_line_ratio, char_dup_ratio,
    list_ratio (above theirs). None switches one off; `empty` (no lines) always stands.

    >>> prose = "This is a sentence that goes on.\nAnd this is another one, as long."
    >>> batch = pa.record_batch({"text": ["Home\nNews\nContact", prose, " "]})
    >>> FineWebQuality().reasons(batch).to_pylist()
    ['fineweb_quality/line_punct_ratio', None, 'fineweb_quality/empty']
    """

    kind: Literal["fineweb_quality"] = "fineweb_quality"
    variant: Literal["fineweb"] = "fineweb"
    words: Literal["whitespace"] = "whitespace"
    # Defaults: Penedo et al. 2024; the length of a short line and 0.3 as in datatrove and its `examples/fineweb.py`.
    line_punct_thr: Share | None = 0.12
    line_punct_exclude_zero: bool = False  # let a document pass in which no line at all ends a sentence
    short_line_thr: Share | None = 0.67
    short_line_length: Annotated[int, Field(ge=0, le=1 << 31)] = 30
    char_duplicates_ratio: Share | None = 0.01
    new_line_ratio: Annotated[float, Field(ge=0)] | None = 0.3  # not a share: may pass 1

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: `lines` int64, shares float64."""
        counts = fineweb_counts(*utf8(batch), code_point_classes(), self.short_line_length)
        of = dict(zip(FINEWEB, counts.T, strict=True))
        return {
            "lines": of["lines"],
            "line_punct_ratio": ratio(of["ended_lines"], of["lines"]),
            "short_line_ratio": ratio(of["short_lines"], of["lines"]),
            "char_dup_ratio": ratio(of["repeated_characters"], of["characters"]),
            "list_ratio": ratio(of["newlines"], of["words"]),
        }

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say which rule drops each row, the first in datatrove's order; null where it is kept."""
        ended = scores["line_punct_ratio"]
        unended = below(ended, self.line_punct_thr)
        return first_reason(
            {
                f"{self.kind}/empty": scores["lines"] == 0,
                f"{self.kind}/line_punct_ratio": unended & (ended > 0) if self.line_punct_exclude_zero else unended,
                f"{self.kind}/short_line_ratio": above(scores["short_line_ratio"], self.short_line_thr),
                f"{self.kind}/char_dup_ratio": above(scores["char_dup_ratio"], self.char_duplicates_ratio),
                f"{self.kind}/list_ratio": above(scores["list_ratio"], self.new_line_ratio),
            }
        )
