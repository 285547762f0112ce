"""Lines, paragraphs and spans of sentences that stood before: digested, and cut where they are told to be repeats.

Each unit (or window of units) has a 128-bit digest and a number in its part. Of equal digests the one with the smallest
address stays: the first in the order of parts, rows and units, within a document too, whatever ran when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from .kernels.digests import digest_spans
from .kernels.normalisations import table_of
from .kernels.segments import UNITS, Segments, cut_segments, few_words, find_lines, find_segments
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
    >>> units = Lines().units(texts)
    >>> numbers, digests = units.digests()
    >>> numbers.tolist(), bool((digests[0] == digests[2]).all())
    ([0, 1, 2, 3, 4], True)
    >>> units.cuts(np.array([2, 4]))[1].tolist()  # bytes from each text's beginning
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

    def units(self, texts: pa.Array) -> Windows:
        """Take n texts apart."""
        offsets, data = utf8_buffers(texts)
        if self.unit == "line" and max(self.minimum_words, self.minimum_characters) <= 1:
            segments = find_lines(offsets, data, code_point_classes())
        else:
            segments = find_segments(offsets, data, code_point_classes(), UNITS.index(self.unit))
        numbers, rows = np.arange(len(segments)), segments[:, 0]
        if self.window == 1:
            return Windows(self, offsets, data, segments, numbers, numbers + 1)
        starts, ends = (np.searchsorted(rows, rows, side) for side in ("left", "right"))
        first = numbers[(numbers + self.window <= ends) | (numbers == starts)]
        return Windows(self, offsets, data, segments, first, np.minimum(first + self.window, ends[first]))


@dataclass(frozen=True)
class Windows:
    """A batch's texts as windows of units, numbered from the first; none reaches over the end of a text."""

    settings: Lines
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]
    segments: Segments
    first: NDArray[np.int64]  # (windows,) segment
    end: NDArray[np.int64]  # (windows,) the segment behind the last

    def __len__(self) -> int:
        return len(self.first)

    def digests(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Digest the windows that may be cut: numbers (m,), digests (m, 2)."""
        settings, first, end = self.settings, self.first, self.end
        spans, blank, data = self.segments[:, 1:3].copy(), self.segments[:, 4] == 0, self.data
        if settings.normalisation != "none":
            ends, data = simplify_rows(*taken(data, spans), *table_of(settings.normalisation, True))
            spans, blank = np.column_stack([ends[:-1], ends[1:]]), blank | (np.diff(ends) == 0)
        digests = digest_spans(data, spans)
        if settings.window > 1:
            digests = digest_spans(digests.reshape(-1).view(np.uint8), 16 * np.column_stack([first, end]))
        wanted = _summed(~blank, first, end) > 0
        if settings.minimum_words > 1 or settings.minimum_characters > 1:
            wanted &= _summed(self.segments[:, 3], first, end) >= settings.minimum_words
            wanted &= _summed(self.segments[:, 4], first, end) >= settings.minimum_characters
        numbers = np.flatnonzero(wanted)
        return numbers, digests[numbers]

    def cuts(self, repeats: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cut the windows of these numbers: rows (k,), spans (k, 2) in bytes from each text's beginning."""
        steps = np.zeros(len(self.segments) + 1, np.int64)
        np.add.at(steps, self.first[repeats], 1)
        np.add.at(steps, self.end[repeats], -1)
        rows, spans = cut_segments(self.data, self.segments, np.cumsum(steps)[:-1] > 0)
        return rows, spans - self.offsets[rows][:, None]


def too_little(texts: pa.Array, rows: NDArray[np.int64], spans: NDArray[np.int64], least: int) -> NDArray[np.bool_]:
    """Say which of n texts are left fewer than `least` words, which space separates, by what `cuts` gave: (n,)."""
    offsets, data = utf8_buffers(texts)
    return few_words(offsets, data, code_point_classes(), rows, spans + offsets[rows][:, None], least)


def _summed(
    values: NDArray[np.int64] | NDArray[np.bool_], first: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Sum up values over windows."""
    sums: NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    return np.subtract(sums[end], sums[first])
