"""datatrove's tokenized files, which nanotron trains from: `NAME.ds` and three small files beside it.

    NAME.ds            the tokens and nothing else, uint16 or uint32
    NAME.ds.index      uint64 (documents,): where each document ends, in tokens; neither magic nor count
    NAME.ds.metadata   three lines: tokenizer|bytes a token, tokens, tokens for people
    NAME.ds.loss       where some tokens are not learned: a byte a token, 1 where it is (a label's byte, as ours)

(datatrove/pipeline/tokens/tokenizer.py.) Read by `DatatroveFolderDataset` and by nanotron's `tokenized_bytes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ... import InputError
from .chunks import Chunk, runs, split
from .sources import ForeignFile, Payload, Reading, Target, blocks

_U8 = np.dtype("<u8")
_BLOCK = 1 << 17
# As its writer puts a count for people.
_PREFIXES = ("", "k", "M", "G", "T", "P")


class DatatroveWriter:
    """Writes `NAME.ds`, its index and metadata, and its loss bytes where some tokens are not learned."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._payload = Payload(target.file(".ds"), target.vocabulary.token, target.link)
        self._index = target.file(".ds.index").open("xb")
        self._loss: BinaryIO | None = target.file(".ds.loss").open("xb") if target.marked else None

    def add(self, chunk: Chunk) -> None:
        """Append documents."""
        self._index.write((chunk.ends + self._payload.tokens).astype(_U8).data)
        if self._loss is not None:
            learned = np.ones(len(chunk.tokens), np.bool_) if chunk.learned is None else chunk.learned
            self._loss.write(learned.data)
        self._payload.add(chunk.tokens)

    def close(self) -> None:
        """Write the metadata."""
        self._payload.close()
        self._index.close()
        if self._loss is not None:
            self._loss.close()
        vocabulary, tokens = self._target.vocabulary, self._payload.tokens
        text = f"{vocabulary.name}|{vocabulary.itemsize}\n{tokens}\n{metric(tokens)}"
        self._target.file(".ds.metadata").write_text(text, encoding="utf-8")


def metric(tokens: int) -> str:
    """Write a count with three digits and a prefix of thousands, `1.23 MT`."""
    power = min((len(str(tokens)) - 1) // 3, len(_PREFIXES) - 1)
    value = tokens / 1000**power
    digits = max(0, 2 - (len(str(int(value))) - 1))
    return f"{value:.{digits}f} {_PREFIXES[power]}T"


class DatatroveSource:
    """Reads `NAME.ds` by its index; without one, or with boundaries `eos`, it is cut behind every EOS."""

    def __init__(self, file: ForeignFile, reading: Reading) -> None:
        self.file, self.reading, self.padding = file, reading, 0
        index = file.beside(f"{file.path}.index")
        if index is None and reading.boundaries != "eos":
            raise InputError(f"{file} has no .index beside it: pass boundaries=eos (--documents eos)")
        self._index, self._loss = index, file.beside(f"{file.path}.loss")
        self.documents = None if index is None or reading.boundaries == "eos" else index.size // 8
        size, width = file.size, self._width()
        self._kind, self.tokens = np.dtype(f"<u{width}"), size // width
        if size % width:
            raise InputError(f"{file} has {size} bytes, its tokens have {width} each: it was cut short")
        if self._loss is not None and self._loss.size != self.tokens:
            raise InputError(f"{self._loss} has {self._loss.size} bytes, a byte a token makes {self.tokens}")

    def _width(self) -> int:
        """Bytes a token, as the metadata or the index says; both must agree with the file."""
        said = self.file.beside(f"{self.file.path}.metadata")
        if said is not None:
            head, _, rest = said.read(0, said.size).decode("utf-8", "replace").partition("\n")
            width = head.rpartition("|")[2].strip()
            if width not in ("2", "4"):
                raise InputError(f"{said} gives {head!r} where tokenizer|2 or tokenizer|4 is due")
            count = rest.split("\n")[0].strip()
            if count.isdecimal() and int(count) * int(width) != self.file.size:
                raise InputError(f"{said} says {count} tokens of {width} bytes, {self.file} has {self.file.size} bytes")
            return int(width)
        if self._index is not None and self._index.size and self.reading.dtype is None:
            held = self._index.size // 8
            last = int(self._index.array(_U8, 0, held - 1, held)[0])
            if last and self.file.size in (2 * last, 4 * last):
                return self.file.size // last
        return self.reading.token.itemsize

    def chunks(self) -> Iterator[Chunk]:
        """Give the documents in the file's order."""
        if self.documents is None:
            return split(self._stream(), self.reading.vocabulary.eos_id)
        return self._documents(self.documents)

    def _stream(self) -> Iterator[Chunk]:
        first = 0
        for tokens in blocks(self.file, self._kind, 0, self.tokens):
            yield Chunk(tokens, np.zeros(0, np.int64), self._learned(first, first + len(tokens)))
            first += len(tokens)

    def _documents(self, documents: int) -> Iterator[Chunk]:
        assert self._index is not None
        start = 0
        for low in range(0, documents, _BLOCK):
            ends = self._index.array(_U8, 0, low, min(low + _BLOCK, documents)).astype(np.int64)
            if not bool((np.diff(ends, prepend=start) >= 0).all()) or int(ends[-1]) > self.tokens:
                raise InputError(f"{self._index} does not rise to the {self.tokens} tokens of {self.file}")
            for first, last in runs(ends - start):
                stop = int(ends[last - 1])
                begin = int(ends[first - 1]) if first else start
                yield Chunk(
                    self.file.array(self._kind, 0, begin, stop), ends[first:last] - begin, self._learned(begin, stop)
                )
            start = int(ends[-1])
        if start != self.tokens:
            raise InputError(f"{self._index} ends at token {start}, {self.file} has {self.tokens} tokens")

    def _learned(self, start: int, stop: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
        return None if self._loss is None else self._loss.array(np.dtype(np.uint8), 0, start, stop) != 0
