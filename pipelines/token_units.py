"""Texts as the tokens of a byte-level vocabulary, for substrings of n tokens: ids, and the bytes of each in the text.

A token's bytes come from the vocabulary and are compared with the text's, so that no cut is ever a byte off; that
takes a tenth of what encoding does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import CorruptDataError, RecipeError, RequestError
from ..sharding.store import Store
from ..tokenizer import load_tokenizer
from ..tokenizer.gate import PROBES
from ..tokenizer.vocab import FileTokenizer, vocabulary_files
from ..transforms.repeated_spans import Substrings
from ..transforms.step import utf8_buffers
from .duplicates import Dedup
from .vocabulary import RunTokenizer, put_given


@dataclass(frozen=True)
class TokenUnits:
    """Encode texts, and say where each token lies."""

    tokenizer: FileTokenizer

    @property
    def vocab_size(self) -> int:
        """Give the largest id + 1."""
        return self.tokenizer.vocab_size

    def __call__(self, texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
        """Encode n texts: bounds (n + 1,) into ids (m,), and spans (m, 2) in the bytes of the array's buffer.

        Raises `RequestError` for a text to which its tokens do not join.
        """
        found = self.tokenizer.encode(texts)
        bounds, ids = found.offsets.to_numpy().astype(np.int64), found.values.to_numpy()
        joined = self.tokenizer.token_bytes.take(pa.array(ids))
        _, at, body = joined.buffers()
        edges = np.frombuffer(at, np.int64, len(ids) + 1) if len(ids) else np.zeros(1, np.int64)
        spelled = np.frombuffer(body, np.uint8, int(edges[-1])) if len(ids) else np.zeros(0, np.uint8)
        offsets, data = utf8_buffers(texts)
        row = _unequal(offsets, data[offsets[0] : offsets[-1]], edges[bounds], spelled)
        if row is not None:
            text = str(texts[row].as_py())
            raise RequestError(
                f"the tokens that {self.tokenizer.name} gives for the text {text[:60]!r} do not join to it byte for "
                "byte, as it changes texts before it encodes them: take another vocabulary, or unit: bytes"
            )
        edges = edges + offsets[0]
        return bounds, ids.astype(np.int32), np.column_stack([edges[:-1], edges[1:]])


def _unequal(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], edges: NDArray[np.int64], spelled: NDArray[np.uint8]
) -> int | None:
    """Find the first text whose bytes are not those that its tokens spell; None where all are."""
    ends = offsets[1:] - offsets[0]
    longer = np.flatnonzero(ends != edges[1:])
    if len(longer):
        row = int(longer[0])
        data, spelled = data[: edges[row]], spelled[: edges[row]]
    if np.array_equal(data, spelled):
        return row if len(longer) else None
    return int(np.searchsorted(ends, np.argmax(data != spelled), "right"))


def open_units(tokenizer: FileTokenizer) -> TokenUnits:
    """Give a tokenizer's units; `RequestError` where its tokens do not join even to a few awkward texts."""
    units = TokenUnits(tokenizer)
    units(pa.array(PROBES))
    return units


def check_units(dedup: Dedup | None) -> None:
    """Refuse a vocabulary that gives no units before anything is read."""
    if dedup is not None and dedup.substrings is not None and dedup.substrings.tokenizer is not None:
        try:
            open_units(load_tokenizer(dedup.substrings.tokenizer))
        except CorruptDataError as error:
            raise RecipeError(f"dedup.substrings.tokenizer: {error}") from error


def keep_tokenizer(store: Store, settings: Substrings) -> RunTokenizer | None:
    """Put the vocabulary that the settings name beside a stage, where workers find it; None where they name none."""
    if settings.tokenizer is None:
        return None
    return RunTokenizer(store, put_given(store, vocabulary_files(settings.tokenizer)), None)
