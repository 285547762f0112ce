"""Texts as the tokens of a byte-level vocabulary, for substrings of n tokens: ids, and the bytes of each in the text.

A token's bytes come from the vocabulary and are compared with the text's, so that no cut is ever a byte off.
With fastokens and cl100k 64 MB/s a core, where encoding alone has 85. Texts with repeats are encoded again: stretches
of 50 tokens are cut at 14 MB/s a core, those of 100 bytes at 20. Opening cl100k takes a process 1.5 s and 70 MB.
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
from ..transforms.kernels.tokens import place_tokens
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
        bounds, ids = found.offsets.to_numpy().astype(np.int64), found.values.to_numpy().astype(np.int32)
        spans, wrong = place_tokens(bounds, ids, *_spelled(self.tokenizer.token_bytes), *utf8_buffers(texts))
        if wrong >= 0:
            raise RequestError(
                f"the tokens that {self.tokenizer.name} gives for the text {str(texts[wrong].as_py())[:60]!r} do not "
                "join to it byte for byte, as it changes texts before it encodes them: take another vocabulary, or "
                "unit: bytes"
            )
        return bounds, ids, spans


def _spelled(tokens: pa.LargeBinaryArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Give the bytes of all tokens as kernels read them: starts (vocab_size + 1,), and the bytes."""
    _, starts, body = tokens.buffers()
    return np.frombuffer(starts, np.int64, len(tokens) + 1), np.frombuffer(body, np.uint8)


def warm_units() -> None:
    """Compile what places tokens; any vocabulary's do it."""
    place_tokens(np.array([0, 1]), np.array([0], np.int32), *_spelled(pa.array([b"a"], pa.large_binary())),
                 *utf8_buffers(pa.array(["a"])))  # fmt: skip


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
