"""SentencePiece BPE, each distinct segment once: two to three times the library on real text, with its ids.

SentencePiece merges over a whole document. But no merge crosses a place that no piece spans: before a run of a
character that pieces hold only at their start (a space, a digit, most brackets) the text can be cut, and its segments
repeat. They are cut in NumPy, made distinct by Arrow, encoded by the library, and put back. Exact for BPE whose
normaliser leaves text as it is; unigram sums scores over the whole document and is never exact in parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import RequestError, require
from .definition import Definition

_SPACE = "\u2581"  # SentencePiece's sign for a space; a text that holds it goes to the library whole
_KNOWN = 1 << 18  # segments kept between batches: about 70 MB of Python objects
_LONGEST = 32  # characters of a segment worth keeping
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"  # normalizer_spec.add_dummy_prefix = false; the last value of a field counts


def starters(pieces: Iterable[str]) -> bytes:
    """Give the ASCII characters before a run of which no piece reaches: each stands in pieces only at their start."""
    inner = set()
    for piece in pieces:
        text = piece.replace(_SPACE, " ")
        inner |= {after for before, after in pairwise(text) if before != after}
    return bytes(code for code in range(128) if chr(code) not in inner)


class Segments:
    """The sentencepiece library over distinct segments; for models that `proto` finds can be cut."""

    def __init__(self, definition: Definition) -> None:
        if b" " not in definition.starters:
            raise RequestError(
                f"no fast engine reads {definition.name}: only SentencePiece BPE with byte fallback, identity "
                "normalisation and no piece across a space can be cut into segments"
            )
        sentencepiece = require("sentencepiece", "curate")
        self.library = f"segments over sentencepiece {sentencepiece.__version__}"
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=definition.body)
        self._bare = sentencepiece.SentencePieceProcessor(model_proto=definition.body + _NO_DUMMY_PREFIX)
        self._prefix = " " if definition.dummy_prefix else ""
        self._starts = np.zeros(256, np.bool_)
        self._starts[list(definition.starters)] = True
        self._known: dict[str, list[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Encode each text."""
        found = self._cut([self._prefix + text if text else "" for text in texts])
        for place, text in enumerate(texts):
            if _SPACE in text:
                found[place] = np.array(self._processor.encode(text), np.uint32)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids."""
        return str(self._processor.decode(list(ids)))

    def _cut(self, texts: list[str]) -> list[NDArray[np.uint32]]:
        array = pa.array(texts, pa.large_string())
        _, offsets, data = array.buffers()
        if data is None or data.size == 0:
            return [np.empty(0, np.uint32) for _ in texts]
        body = np.frombuffer(data, np.uint8)
        bounds = np.frombuffer(offsets, np.int64)[: len(texts) + 1]
        body = body[: bounds[-1]]
        cut = self._starts[body]
        cut[1:] &= body[1:] != body[:-1]
        cut[bounds[:-1][bounds[:-1] < len(body)]] = True
        starts = np.flatnonzero(cut)
        edges = pa.py_buffer(np.append(starts, len(body)).astype(np.int64))
        segments = pa.LargeStringArray.from_buffers(len(starts), edges, data).dictionary_encode()
        ids, lengths = self._distinct(segments.dictionary.to_pylist())
        codes = segments.indices.to_numpy()
        ends = np.zeros(len(codes) + 1, np.int64)
        np.cumsum(lengths[codes], out=ends[1:])
        heads = np.zeros(len(lengths), np.int64)
        np.cumsum(lengths[:-1], out=heads[1:])
        whole = ids[np.repeat(heads[codes] - ends[:-1], lengths[codes]) + np.arange(ends[-1])]
        rows = ends[np.searchsorted(starts, bounds)]
        return [whole[start:end] for start, end in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True)]

    def _distinct(self, segments: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Give the ids of all segments in a row, and how many each has."""
        rows = [self._known.get(segment) for segment in segments]
        fresh = [segment for segment, row in zip(segments, rows, strict=True) if row is None]
        new = dict(zip(fresh, self._bare.encode(fresh, num_threads=1), strict=True)) if fresh else {}
        whole = [new[segment] if row is None else row for segment, row in zip(segments, rows, strict=True)]
        if len(self._known) + len(new) > _KNOWN:  # begin again with what this batch met
            self._known, new = {}, dict(zip(segments, whole, strict=True))
        self._known |= {segment: row for segment, row in new.items() if len(segment) <= _LONGEST}
        lengths = np.fromiter(map(len, whole), np.int64, len(whole))
        return np.fromiter(chain.from_iterable(whole), np.uint32, int(lengths.sum())), lengths
