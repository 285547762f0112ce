"""C4's line rules (Raffel et al. 2020, JMLR 21(140), section 2.2), as FineWeb applied them.

Decides and edits as datatrove v0.10.0 does (`pipeline/filters/c4_filters.py`), which is not the reference code: it
asks 3 words of a line and 5 sentences of a page where the reference asks 5 and 3, and takes ' for an end mark. What a
sentence is stands in `C4Quality`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from .kernels.c4 import C4, c4_clean
from .kernels.text import code_point_classes
from .step import Filter, Outcome, Scores, below, first_reason, utf8, with_columns

_ENDLESS = 2**62  # longer than any word


class C4Quality(Filter):
    r"""Drop lines that are no prose, remove citation marks, and drop pages of filler, of code, or of too few sentences.

    A line (`str.splitlines`) is stripped and goes through the rules in this order: dropped if a word has more than
    `max_word_length` code points; citation marks ([1], [], [edit], [citation needed]) removed; dropped if it does not
    end in . ? ! " ' or ends in three full stops; dropped if it had fewer than `min_words_per_line` words before the
    removal; *page* dropped on "lorem ipsum"; line dropped on "javascript"; *page* dropped on {; line dropped on
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies" (case aside).
    What is left is joined by newlines and stripped; then the page is dropped if it has fewer than `min_num_sentences`
    sentences. A page that is dropped keeps its text as it was.

    The filler and bracket rules see only lines that the rules before them left, and drop a page at the first of them:
    `lorem_ipsum_line` and `curly_bracket_line` are the number of that line, from 1, or 0. All else is scored as if they
    were off. The other scores: `sentences`, `lines`, `kept_lines`, `citations`, and one count of lines for each rule.

    Sentences under `words="whitespace"` (datatrove asks a tokenizer of the language: spaCy's sentencizer for
    English). A kept line has at least one, and none runs over its end. A sentence begins at the first code point that
    is neither space nor one of datatrove's PUNCTUATION, and ends with a word whose last code point, closing quotes
    and brackets aside, is one of datatrove's 159 TERMINAL_PUNCTUATION; but a full stop does not end it after another
    full stop (an ellipsis), nor after a letter that follows neither letter nor digit (J. or U.S. or e.g.). The marks
    。．！？｡ end one inside a word too.

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
    variant: Literal["fineweb"] = "fineweb"
    words: Literal["whitespace"] = "whitespace"
    # Defaults: datatrove's C4QualityFilter. FineWeb (`examples/fineweb.py`) sets filter_no_terminal_punct to False.
    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_num_sentences: Annotated[int, Field(ge=0)] | None = 5
    min_words_per_line: Annotated[int, Field(ge=0, le=1 << 31)] | None = 3
    max_word_length: Annotated[int, Field(ge=1, le=1 << 31)] | None = 1000
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    filter_curly_bracket: bool = True
    filter_policy: bool = True

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: counts, int64."""
        return self._clean(batch)[0]

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each page is dropped, by which came first on the page; null where it is kept."""
        none = np.zeros(len(scores["sentences"]), np.int64)
        lorem = np.asarray(scores["lorem_ipsum_line"]) if self.filter_lorem_ipsum else none
        curly = np.asarray(scores["curly_bracket_line"]) if self.filter_curly_bracket else none
        return first_reason(
            {
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
        rules = (
            self.remove_citations,
            self.filter_no_terminal_punct,
            self.min_words_per_line or 0,
            self.max_word_length or _ENDLESS,
            self.filter_javascript,
            self.filter_policy,
        )
        counts, offsets, data = c4_clean(*utf8(batch), code_point_classes(), rules)
        text = pa.LargeStringArray.from_buffers(len(batch), pa.py_buffer(offsets), pa.py_buffer(data))
        return dict(zip(C4, counts.T, strict=True)), text
