"""Lines, paragraphs and spans of sentences that stood before: digested, and cut where they are told to be repeats.

Each unit (or window of units) has a 128-bit digest and a number in its part. Of equal digests the one with the smallest
address stays: the first in the order of parts, rows and units, within a document too, whatever ran when.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from .kernels.digests import digest_spans
from .kernels.normalisations import table_of
from .kernels.segments import UNITS, Segments, cut_segments, find_segments
from .kernels.simplify import simplify_rows
from .kernels.splice import taken
from .kernels.text import code_point_classes
from .minhash import Normalisation
from .step import utf8_buffers

Count = Annotated[int, Field(ge=0, le=1 << 20)]


class Lines(BaseModel):
    """Cut out lines, paragraphs or sentences that stood before in the corpus, in another document or the same.

    C4's rule (Raffel et al. 2020, arXiv:1910.10683, section 2.2) is `unit: sentence, window: 3`: of a span of three
    sentences that occurs more than once, all but the first go. A document with fewer units than a window is one window.
    cc_net's (Wenzek et al. 2020, arXiv:1911.00359) is `unit: line, normalisation: fineweb`.

    >>> texts = pa.array(["Menu\\nOne.", "Menu\\nTwo.\\nMenu"])
    >>> lines = Lines()
    >>> numbers, digests, count = lines.digests(texts)
    >>> count, bool((digests[0] == digests[2]).all())
    (5, True)
    >>> lines.cuts(texts, np.array([False, False, True, False, True]))[1].tolist()  # bytes from each text's beginning
    [[0, 5], [9, 14]]
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    unit: Literal["line", "paragraph", "sentence"] = "line"
    window: Annotated[int, Field(ge=1, le=64)] = 1  # neighbouring units that must be repeated together
    normalisation: Normalisation = "none"  # of what is compared; what is cut is cut as it stands
    minimum_words: Count = 0  # a window with fewer is never cut; one that is blank never is
    minimum_characters: Count = 0  # the same, of characters that are no space
    left: Annotated[int, Field(ge=1, le=1 << 20)] = 1  # words; with fewer a document goes whole; datatrove: 50

    @property
    def kind(self) -> str:
        """Name it as the column `edits` does."""
        return f"dedup/{self.unit}"

    def digests(self, texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint64], int]:
        """Digest the windows of n texts that may be cut: numbers (m,), digests (m, 2), and how many windows there are.

        Windows are numbered from the first of these texts, the ones that may not be cut too.
        """
        offsets, data = utf8_buffers(texts)
        segments = self._segments(offsets, data)
        spans, blank = np.ascontiguousarray(segments[:, 1:3]), segments[:, 4] == 0
        if self.normalisation != "none":
            ends, data = simplify_rows(*taken(data, spans), *table_of(self.normalisation, True))
            spans, blank = np.column_stack([ends[:-1], ends[1:]]), np.diff(ends) == 0
        digests, (first, end) = digest_spans(data, spans), self._windows(segments)
        if self.window > 1:
            places = 16 * np.column_stack([first, end])
            digests = digest_spans(np.ascontiguousarray(digests).reshape(-1).view(np.uint8), places)
        sums = np.cumsum(np.concatenate([np.zeros((1, 3), np.int64), np.column_stack([segments[:, 3:], ~blank])]), 0)
        words, inked, written = (sums[end] - sums[first]).T
        wanted = np.flatnonzero(
            (words >= self.minimum_words) & (inked >= self.minimum_characters) & (written > 0) & (inked > 0)
        )
        return wanted, digests[wanted], len(first)

    def cuts(self, texts: pa.Array, repeats: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cut the windows of n texts that are repeats: rows (k,), spans (k, 2) in bytes from each text's beginning."""
        offsets, data = utf8_buffers(texts)
        segments = self._segments(offsets, data)
        first, end = self._windows(segments)
        steps = np.zeros(len(segments) + 1, np.int64)
        np.add.at(steps, first[repeats], 1)
        np.add.at(steps, end[repeats], -1)
        rows, spans = cut_segments(data, segments, np.cumsum(steps)[:-1] > 0)
        return rows, spans - offsets[rows][:, None]

    def windows(self, texts: pa.Array) -> int:
        """Count the windows of n texts."""
        return len(self._windows(self._segments(*utf8_buffers(texts)))[0])

    def _segments(self, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Segments:
        return find_segments(offsets, data, code_point_classes(), UNITS.index(self.unit))

    def _windows(self, segments: Segments) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give each window's first segment and the one behind its last; none reaches over the end of a text."""
        numbers, rows = np.arange(len(segments)), segments[:, 0]
        if self.window == 1:
            return numbers, numbers + 1
        ends = np.searchsorted(rows, rows, "right")
        starts = np.searchsorted(rows, rows, "left")
        first = numbers[(numbers + self.window <= ends) | (numbers == starts)]
        return first, np.minimum(first + self.window, ends[first])


def words_left(texts: pa.Array) -> NDArray[np.int64]:
    """Count the words of n texts, separated by space: (n,)."""
    segments = find_segments(*utf8_buffers(texts), code_point_classes(), UNITS.index("line"))
    return np.bincount(segments[:, 0], segments[:, 3], len(texts)).astype(np.int64)
