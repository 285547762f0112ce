"""Documents at hand, between token files and the formats of others: a few million tokens, and where each document ends.

What reads a format gives chunks and what writes one takes them, so neither knows the other. A chunk is cut only between
documents: memory is a chunk of 2 Mi tokens, or the longest document. Framing (BOS, EOS) looks at the ends alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ... import InputError, RequestError
from ..format import Vocabulary

Ints = NDArray[np.int64]
#: Tokens read or written at a time.
CHUNK_TOKENS = 1 << 21
#: What becomes of EOS (and BOS, where the vocabulary has one) at the edges of a document that is read.
#:
#:     ensure   what stands is kept, what lacks is added
#:     keep     nothing is added; a document without it is refused
#:     append   added to every document, also where it stands already
Frame = Literal["ensure", "keep", "append"]


@dataclass(frozen=True)
class Chunk:
    """Documents one after another.

    tokens: (n,) of any integer type. ends: (documents,) int64, where each ends, from the chunk's start. learned: (n,)
    bool, None where all tokens are learned. columns: an Arrow table with a row a document, or None.
    """

    tokens: NDArray[Any]
    ends: Ints
    learned: NDArray[np.bool_] | None = None
    columns: Any = None

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> Ints:
        """(documents,) tokens of each."""
        return np.diff(self.ends, prepend=0)

    def part(self, first: int, last: int) -> Chunk:
        """Give the documents [first, last), as views."""
        start = int(self.ends[first - 1]) if first else 0
        stop = int(self.ends[last - 1]) if last else 0
        return Chunk(
            self.tokens[start:stop],
            self.ends[first:last] - start,
            None if self.learned is None else self.learned[start:stop],
            None if self.columns is None else self.columns.slice(first, last - first),
        )

    def take(self, documents: NDArray[Any]) -> Chunk:
        """Give the documents of these numbers (n,), in this order, copied."""
        lengths = self.lengths[documents]
        index = ragged(self.ends[documents] - lengths, lengths)
        return Chunk(
            self.tokens[index],
            np.cumsum(lengths),
            None if self.learned is None else self.learned[index],
            None if self.columns is None else self.columns.take(documents),
        )

    def only(self, inside: NDArray[np.bool_]) -> Chunk:
        """Leave out single tokens: those where `inside` (n,) is False. Documents stay, if empty."""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(inside)])
        learned = None if self.learned is None else self.learned[inside]
        return replace(self, tokens=self.tokens[inside], ends=before[self.ends], learned=learned)


def ragged(starts: NDArray[Any], lengths: NDArray[Any]) -> Ints:
    """Give the indices of [start, start + length) of every document, one after another."""
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.repeat(starts - before, lengths) + np.arange(int(lengths.sum())), np.int64)


def runs(ends: Ints, limit: int = CHUNK_TOKENS) -> Iterator[tuple[int, int]]:
    """Cut documents into runs [first, last) of at most so many tokens; a longer document is a run of its own."""
    first = start = 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + limit, side="right")))
        yield first, last
        first, start = last, int(ends[last - 1])


def learned_of(chunks: Sequence[Chunk]) -> NDArray[np.bool_] | None:
    """Join what is learned of chunks; None where all is."""
    if all(chunk.learned is None for chunk in chunks):
        return None
    return np.concatenate(
        [np.ones(len(chunk.tokens), np.bool_) if chunk.learned is None else chunk.learned for chunk in chunks]
    )


def split(chunks: Iterable[Chunk], eos: int) -> Iterator[Chunk]:
    """Cut a stream of tokens anew, after every EOS; what lies behind the last one is a document too."""
    left: list[Chunk] = []
    for chunk in chunks:
        left.append(replace(chunk, columns=None))
        ends = np.flatnonzero(chunk.tokens == eos) + 1
        if len(ends):
            held = sum(len(part.tokens) for part in left[:-1])
            whole = _joined(left)
            cut = held + int(ends[-1])
            learned = whole.learned
            yield Chunk(whole.tokens[:cut], ends + held, None if learned is None else learned[:cut])
            left = [replace(whole, tokens=whole.tokens[cut:], learned=None if learned is None else learned[cut:])]
    if left and len((rest := _joined(left)).tokens):
        yield Chunk(rest.tokens, np.array([len(rest.tokens)]), rest.learned)


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(np.concatenate([chunk.tokens for chunk in chunks]), np.zeros(0, np.int64), learned_of(chunks))


def without_padding(chunk: Chunk, pad: int, eos: int) -> Chunk:
    """Cut the padding off the end of each row. Where rows are padded with EOS, the first one stays: it ends a document.

    A row of nothing but padding becomes empty.
    """
    places = np.where(chunk.tokens != pad, np.arange(len(chunk.tokens)), -1)
    last = np.maximum.accumulate(np.concatenate([np.full(1, -1), places]))[chunk.ends]
    starts = chunk.ends - chunk.lengths
    stops = np.where(last >= starts, last + 1 + (pad == eos), starts)
    change = np.zeros(len(chunk.tokens) + 1, np.int8)
    np.add.at(change, np.minimum(stops, chunk.ends), 1)
    np.add.at(change, chunk.ends, -1)
    return chunk.only(np.cumsum(change[:-1]) == 0)


def check_frame(frame: str) -> None:
    """Refuse what is no way to frame documents."""
    if frame not in get_args(Frame):
        raise RequestError(f"EOS is handled as one of {', '.join(get_args(Frame))}, not {frame!r}")


def framed(chunk: Chunk, vocabulary: Vocabulary, frame: Frame, place: str, first: int = 0) -> tuple[Chunk, int]:
    """Give a chunk whose documents all end with EOS (and begin with BOS), in the vocabulary's type; and tokens added.

    InputError, naming `place` and the document (the chunk's are counted from `first`), where an id is not the
    vocabulary's, or where `keep` finds a document without EOS.
    """
    tokens = _words(chunk.tokens, vocabulary, place)
    ends, starts = chunk.ends, chunk.ends - chunk.lengths
    full = chunk.lengths > 0
    wanted = np.zeros((len(chunk), 2), np.bool_)
    for column, at, token in ((0, starts, vocabulary.bos_id), (1, ends - 1, vocabulary.eos_id)):
        if token is None:
            continue
        stands = np.zeros(len(chunk), np.bool_)
        stands[full] = tokens[at[full]] == token
        if frame == "keep" and not stands.all():
            raise InputError(
                f"document {first + int(np.argmin(stands))} of {place} {'ends' if column else 'begins'} without "
                f"{'EOS' if column else 'BOS'}, {token}: pass frame=ensure (--eos ensure) to have it added"
            )
        wanted[:, column] = True if frame == "append" else ~stands
    learned = chunk.learned
    if added := int(wanted.sum()):
        # In this order a document's EOS stands before the next one's BOS, and an empty one's BOS before its EOS.
        at = np.stack([starts, ends], axis=1)[wanted]
        values = np.broadcast_to([vocabulary.bos_id or 0, vocabulary.eos_id], wanted.shape)[wanted]
        tokens = np.insert(tokens, at, values.astype(tokens.dtype))
        learned = None if learned is None else np.insert(learned, at, True)
        ends = ends + np.cumsum(wanted.sum(axis=1))
    return Chunk(tokens, ends, learned, chunk.columns), added


def _words(tokens: NDArray[Any], vocabulary: Vocabulary, place: str) -> NDArray[Any]:
    if len(tokens):
        for found in (int(tokens.min()), int(tokens.max())):
            if not 0 <= found < vocabulary.size:
                raise InputError(
                    f"{place} holds the id {found}, the vocabulary {vocabulary.name} has ids 0 to "
                    f"{vocabulary.size - 1}: it was encoded with another tokenizer, or its numbers are of another type"
                )
    return np.asarray(tokens).astype(vocabulary.token, copy=False)


def unlearned_spans(learned: NDArray[np.bool_], first: int) -> Ints:
    """Give the ranges (n, 2) of tokens that are not learned, counted from `first`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], learned, [True]])))
    return edges.reshape(-1, 2).astype(np.int64) + first


def joined_spans(parts: Sequence[Ints]) -> Ints | None:
    """Join rising ranges (n, 2) that may touch; None where there are none."""
    flat = np.concatenate([np.zeros(0, np.int64), *(part.ravel() for part in parts)])
    if not len(flat):
        return None
    inner = flat[1:-1].reshape(-1, 2)
    return np.concatenate([flat[:1], inner[inner[:, 0] != inner[:, 1]].ravel(), flat[-1:]]).reshape(-1, 2)


def learned_between(spans: NDArray[np.uint64], start: int, stop: int) -> NDArray[np.bool_] | None:
    """Say which of the tokens [start, stop) are learned, told the ranges (n, 2) that are not; None where all are."""
    held = spans.astype(np.int64)
    inside = held[(held[:, 1] > start) & (held[:, 0] < stop)]
    if not len(inside):
        return None
    change = np.zeros(stop - start + 1, np.int8)
    np.add.at(change, np.maximum(inside[:, 0], start) - start, 1)
    np.add.at(change, np.minimum(inside[:, 1], stop) - start, -1)
    return np.asarray(np.cumsum(change[:-1]) == 0)
