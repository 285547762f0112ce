"""Exact substrings: every stretch of n bytes, words or tokens that stood before is cut, the first stays.

Lee et al. (2022, arXiv:2107.06499) sort all suffixes of a corpus; memory and time bound that to blocks, and what two
blocks share is missed. Here equal windows of n units meet by their digests, over the whole corpus at bounded memory,
and the result is what comparing every window with every earlier one gives:

1. The windows of a text fall into runs by their anchors (`kernels/windows.py`), one for 18 bytes at n = 100. Equal runs
   are found by digest: all windows of the later one are repeats.
2. Of the others, those that share a gram with another run are looked at window by window (8 % of technical text).
3. What the repeated windows of a text cover is cut, drawn in to whole code points.

Equal to deduplicate-text-datasets, window by window, on 6 MB of documentation, at 6 times its speed: 14 MB/s a core of
a busy machine, Parquet and exchange included, where its suffix array has 2.3. For each byte of text 2 to 3 bytes cross
the exchange.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .. import RequestError
from .kernels.text import code_point_classes
from .kernels.units import find_words
from .kernels.windows import COUNT_BITS, cover, digest_windows, find_runs, shrink
from .step import utf8_buffers


class Encode(Protocol):
    """Texts as tokens, whose bytes join to the texts."""

    @property
    def vocab_size(self) -> int:
        """Give the largest id + 1."""
        ...

    def __call__(self, texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
        """Encode n texts: bounds (n + 1,) into ids (m,), and spans (m, 2) in the bytes of the array's buffer."""
        ...


class Substrings(BaseModel):
    """Cut out every stretch of `length` units that stood before in the corpus, in another document or the same.

    100 bytes are the 50 BPE tokens of Lee et al. Words are told whatever space is between them, and take the space
    behind them along. Tokens are those of a byte-level vocabulary file; what stood before at another place in a word
    has other tokens at its ends. Overlapping occurrences count: of 101 equal letters one is left.

    >>> texts = pa.array(["A wood of old oaks.", "It is a wood of old oaks!"])
    >>> units = Substrings(length=12).units(texts)
    >>> places, digests = units.runs()
    >>> len(places) == len(digests) > 0
    True
    >>> units.cuts(np.array([26 << 16 | 5], np.uint64))[1].tolist()  # windows 26 to 30 of this batch's bytes
    [[7, 23]]
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    length: Annotated[int, Field(ge=2, le=10_000)] = 100  # units; Lee et al. section 3.1.1: 50 tokens, 100 bytes of ids
    unit: Literal["bytes", "words", "tokens"] = "bytes"
    tokenizer: str | None = None  # of tokens: tokenizer.json or .tiktoken, a path or an fsspec URL
    left: Annotated[int, Field(ge=1, le=1 << 20)] = 1  # words; a document that cuts leave fewer goes whole

    @model_validator(mode="after")
    def _tokens_of_what(self) -> Substrings:
        if self.unit == "tokens" and not self.tokenizer:
            raise ValueError("unit is tokens, of no vocabulary: name its file, `tokenizer`, or take unit bytes")
        if self.unit != "tokens" and self.tokenizer is not None:
            raise ValueError(f"unit is {self.unit}, which need no `tokenizer`: leave it out, or take unit tokens")
        return self

    @property
    def kind(self) -> str:
        """Name it as the column `edits` does."""
        return "dedup/substring"

    def units(self, texts: pa.Array, encode: Encode | None = None) -> Units:
        """Take n texts apart; tokens by `encode`, which the caller opens from the file that the settings name."""
        offsets, data = utf8_buffers(texts)
        if self.unit == "bytes":
            return Units(self.length, offsets, data, _values(256), offsets, data, None)
        if self.unit == "tokens":
            if encode is None:
                raise RequestError(f"units are tokens of {self.tokenizer}, and nothing was given that encodes")
            bounds, ids, spans = encode(texts)
            return Units(self.length, bounds, ids, _values(encode.vocab_size), offsets, data, spans)
        bounds, spans, values = find_words(offsets, data, code_point_classes())
        values.flags.writeable = False  # as the table of tokens is, so that kernels compile once
        return Units(self.length, bounds, np.arange(len(spans), dtype=np.int32), values, offsets, data, spans)

    def count(self, texts: pa.Array, encode: Encode | None = None) -> int:
        """Count the units of n texts."""
        bounds = self.units(texts, encode).bounds
        return int(bounds[-1] - bounds[0])


@dataclass(frozen=True)
class Units:
    """A batch's texts as units, told by rows of a table of random numbers; places count from the batch's first unit."""

    length: int
    bounds: NDArray[np.int64]  # (texts + 1,) into symbols
    symbols: NDArray[np.uint8] | NDArray[np.int32]
    table: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]
    spans: NDArray[np.int64] | None  # (symbols, 2) bytes of each, None where a byte is one

    def __len__(self) -> int:
        return int(self.bounds[-1] - self.bounds[0])

    def runs(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Find the runs: places (m,) as first window << 16 | count, digests (m, 2)."""
        return find_runs(self.bounds, self.symbols, self.table, self.length, gram_of(self.length))

    def windows(self, places: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Digest each window of some runs: first units (m,), digests (m, 2)."""
        return digest_windows(self.symbols, self.table, self.bounds[0], places, self.length)

    def cuts(self, places: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cut what windows cover, places rising: rows (k,), spans (k, 2) in bytes from each text's beginning."""
        rows, spans = cover(self.bounds, places, 0, self.length)
        if self.spans is not None and len(rows):
            spans = np.column_stack([self.spans[spans[:, 0], 0], self.spans[spans[:, 1] - 1, 1]])
        rows, spans = shrink(self.data, rows, spans)
        return rows, spans - self.offsets[rows][:, None]


def gram_of(length: int) -> int:
    """Choose how long a gram is: the longer, the more runs; the shorter, the more of them that share one by chance."""
    return max(1, 2 * length // 3)


def places_of(windows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Give windows as runs of one."""
    return windows << np.uint64(COUNT_BITS) | np.uint64(1)


@lru_cache(2)
def _values(count: int) -> NDArray[np.uint64]:
    """Draw two random numbers of 64 bits for each unit (splitmix64): (count, 2), read-only."""
    state = np.arange(1, 2 * count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values = (state ^ (state >> np.uint64(31))).reshape(count, 2)
    values.flags.writeable = False
    return values
