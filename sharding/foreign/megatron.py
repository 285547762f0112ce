"""Megatron-LM's indexed data set: `PREFIX.bin` holds the tokens and nothing else, `PREFIX.idx` says where they lie.

    9 bytes  magic MMIDIDX\\0\\0        int32 (sequences,)      tokens of each
    uint64   version, 1               int64 (sequences,)      byte at which each begins
    uint8    code of the type         int64 (documents + 1,)  first sequence of each document
    uint64   sequences                int8  (sequences,)      modes, in multimodal sets only: refused
    uint64   documents + 1

All little-endian (megatron/core/datasets/indexed_dataset.py). There is no checksum, no vocabulary and no EOS in it. A
shard's payload is such a `.bin` as it lies: uint16 has code 8, uint32 none, but ids below 2^31 are the same bytes as
int32, code 4. What is written is one sequence a document, byte for byte as Megatron's own builder writes it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ... import InputError, RequestError
from .chunks import CHUNK_TOKENS, Chunk, Ints, runs, split
from .sources import ForeignFile, Payload, Reading, Target

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
#: Types by code; 6 and 7 are floating numbers, which are no tokens.
CODES = {code: np.dtype(name) for code, name in ((1, "u1"), (2, "i1"), (3, "<i2"), (4, "<i4"), (5, "<i8"), (8, "<u2"))}
_I4, _I8 = np.dtype("<i4"), np.dtype("<i8")
# Documents whose index is read at a time; 20 bytes each.
_BLOCK = 1 << 16


class MegatronWriter:
    """Writes `PREFIX.bin` and `PREFIX.idx`. Holds 4 bytes a document."""

    def __init__(self, target: Target) -> None:
        if target.largest >= 1 << 31:
            raise RequestError(
                f"Megatron's index knows no uint32 and the largest id is {target.largest}: ids from 2^31 on do not "
                "fit its int32; export to parquet or datatrove"
            )
        self._target, self._lengths = target, [np.zeros(0, _I4)]
        self._payload = Payload(target.file(".bin"), target.vocabulary.token, target.link)

    def add(self, chunk: Chunk) -> None:
        """Append documents; RequestError where one has 2^31 tokens, which an index cannot say."""
        lengths = chunk.lengths
        if len(lengths) and int(lengths.max()) >= 1 << 31:
            raise RequestError(
                f"a document has {int(lengths.max())} tokens, Megatron's index counts up to 2^31 - 1: export to "
                "parquet or datatrove"
            )
        self._payload.add(chunk.tokens)
        self._lengths.append(lengths.astype(_I4))

    def close(self) -> None:
        """Write the index."""
        self._payload.close()
        lengths = np.concatenate(self._lengths)
        with self._target.file(".idx").open("xb") as file:
            write_index(file, lengths, 8 if self._target.vocabulary.itemsize == 2 else 4)


def write_index(file: BinaryIO, lengths: NDArray[np.int32], code: int) -> None:
    """Write an index of one sequence a document; lengths (documents,) in tokens of the type of `code`."""
    count, size = len(lengths), CODES[code].itemsize
    file.write(HEADER.pack(MAGIC, 1, code, count, count + 1))
    file.write(np.ascontiguousarray(lengths, _I4).data)
    start = 0
    for first in range(0, count, CHUNK_TOKENS):
        ends = np.cumsum(lengths[first : first + CHUNK_TOKENS], dtype=_I8) * size + start
        file.write(np.concatenate([np.array([start], _I8), ends[:-1]]).data)
        start = int(ends[-1])
    for first in range(0, count + 1, CHUNK_TOKENS):
        file.write(np.arange(first, min(first + CHUNK_TOKENS, count + 1), dtype=_I8).data)


class MegatronSource:
    """Reads a Megatron data set by its `.idx`: 64 Ki documents of the index at a time, tokens in a chunk's worth.

    boundaries: `index`, documents as the index has them; `rows`, each sequence is one; `eos`, all sequences joined.
    """

    def __init__(self, file: ForeignFile, reading: Reading) -> None:
        self.file, self.reading, self.padding = file, reading, 0
        payload = file.beside(f"{file.stem}.bin")
        if payload is None:
            raise InputError(f"{file} has no {file.stem}.bin beside it: a Megatron data set is both")
        self._payload, size = payload, file.size
        magic, version, code, self._sequences, marks = HEADER.unpack(file.read(0, HEADER.size))
        if magic != MAGIC or version != 1:
            raise InputError(f"{file} is no index of Megatron, version 1: it begins with {magic!r}, {version}")
        if code not in CODES:
            raise InputError(f"{file} holds numbers of code {code}, tokens have one of {sorted(CODES)}")
        self._kind, self._pointers = CODES[code], HEADER.size + 4 * self._sequences
        self._marks, end = self._pointers + 8 * self._sequences, self._pointers + 8 * (self._sequences + marks)
        if size == end + self._sequences and self._sequences:
            raise InputError(f"{file} is of a multimodal data set, its sequences have modes: only text can be imported")
        if size != end:
            raise InputError(f"{file} has {size} bytes, its {self._sequences} sequences and {marks} marks make {end}")
        if reading.boundaries == "index":
            self._check_marks(marks)
        self.documents = {"index": marks - 1, "rows": self._sequences, "eos": None}[reading.boundaries]
        self.tokens = sum(int(self._lengths(*block).sum(dtype=np.int64)) for block in _blocks(self._sequences))

    def _check_marks(self, marks: int) -> None:
        edges = self.file.array(_I8, self._marks, 0, 1), self.file.array(_I8, self._marks, max(marks - 1, 0), marks)
        if marks < 1 or int(edges[0][0]) != 0 or int(edges[1][0]) != self._sequences:
            raise InputError(
                f"the document index of {self.file} does not lead from 0 to its {self._sequences} sequences: pass "
                "boundaries=rows (--documents rows) to take each sequence for a document"
            )

    def chunks(self) -> Iterator[Chunk]:
        """Give the documents in the order of the index."""
        sequences = self._documents()
        return split(sequences, self.reading.vocabulary.eos_id) if self.reading.boundaries == "eos" else sequences

    def _documents(self) -> Iterator[Chunk]:
        by_index = self.reading.boundaries == "index"
        for low, high in _blocks(self.documents if by_index and self.documents is not None else self._sequences):
            marks = np.arange(low, high + 1)
            if by_index:
                marks = self.file.array(_I8, self._marks, low, high + 1)
                if not bool((np.diff(marks) >= 0).all()) or not 0 <= int(marks[0]) <= int(marks[-1]) <= self._sequences:
                    raise InputError(f"the document index of {self.file} does not rise between {low} and {high}")
            first, last = int(marks[0]), int(marks[-1])
            lengths = self._lengths(first, last).astype(np.int64)
            pointers = self.file.array(_I8, self._pointers, first, last)
            before = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            ends = before[marks[1:] - first]
            for start, stop in runs(ends):
                one, two = int(marks[start]) - first, int(marks[stop]) - first
                tokens = self._tokens(pointers[one:two], lengths[one:two])
                yield Chunk(tokens, ends[start:stop] - int(before[one]))

    def _lengths(self, first: int, last: int) -> NDArray[np.int32]:
        lengths = self.file.array(_I4, HEADER.size, first, last)
        if len(lengths) and int(lengths.min()) < 0:
            raise InputError(f"{self.file} has a sequence of {int(lengths.min())} tokens: it is damaged")
        return lengths

    def _tokens(self, pointers: Ints, lengths: Ints) -> NDArray[Any]:
        """Read sequences, those that lie one behind the other by one read."""
        size = self._kind.itemsize
        if not len(pointers):
            return np.zeros(0, self._kind)
        stops = pointers + lengths * size
        cuts = np.flatnonzero(pointers[1:] != stops[:-1]) + 1
        firsts, lasts = np.append(0, cuts), np.append(cuts, len(pointers)) - 1
        bodies = [
            self._payload.read(start, stop)
            for start, stop in zip(pointers[firsts].tolist(), stops[lasts].tolist(), strict=True)
        ]
        return np.frombuffer(bodies[0] if len(bodies) == 1 else b"".join(bodies), self._kind)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((low, min(low + _BLOCK, count)) for low in range(0, count, _BLOCK))
