"""Bare arrays of tokens: OLMo's and dolma's `.npy`, real `.npy` of NumPy, raw `.bin` of nanoGPT and llm.c.

    NAME.npy          OLMo, dolma: raw tokens without a header, whatever the name says; or NumPy's own file, (n,) ids,
                      or (rows, L) of them
    NAME.csv.gz       dolma: start,end,id,src,loc of each document, in tokens; OLMo-core packs by it
    NAME.label_mask   OLMo-core (`label_mask_paths`): a byte a token, 1 where it is learned; where not all are
    NAME.bin          raw uint16 or uint32; llm.c puts 256 int32 before them: magic, version, tokens

(dolma/tokenizer/memmap_writer.py, olmo_core/data/utils.py, llm.c/dev/data/data_common.py.) Which it is, the first bytes
say. A raw array says neither its type nor its documents: the type is asked for, documents end where EOS stands.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from ... import InputError, require
from .chunks import Chunk, runs, split, without_padding
from .sources import ForeignFile, Payload, Reading, Target, blocks

#: Types by the magic number of llm.c's header: GPT-2's and Llama 3's.
LLMC: dict[int, np.dtype[Any]] = {20240520: np.dtype("<u2"), 20240801: np.dtype("<u4")}
_LLMC_BYTES = 1024
_BLOCK = 1 << 16
_NPY = b"\x93NUMPY"


class NpyWriter:
    """Writes OLMo's arrays: `NAME.npy`, `NAME.csv.gz`, and `NAME.label_mask` where some tokens are not learned.

    A document's id in the table is its id here; src and loc say where it came from, where that is known.
    """

    def __init__(self, target: Target) -> None:
        self._payload = Payload(target.file(".npy"), target.vocabulary.token, target.link)
        # No time in the gzip's header: equal documents give equal bytes.
        self._raw = target.file(".csv.gz").open("xb")
        self._zipped = gzip.GzipFile("", "wb", 4, self._raw, 0)
        self._text = io.TextIOWrapper(self._zipped, "utf-8", newline="")
        self._table = csv.writer(self._text)
        self._mask: BinaryIO | None = target.file(".label_mask").open("xb") if target.marked else None

    def add(self, chunk: Chunk) -> None:
        """Append documents."""
        ends = chunk.ends + self._payload.tokens
        known = [_column(chunk, name) for name in ("id", "path", "place")]
        self._table.writerows(zip((ends - chunk.lengths).tolist(), ends.tolist(), *known, strict=True))
        if self._mask is not None:
            self._mask.write((np.ones(len(chunk.tokens), np.bool_) if chunk.learned is None else chunk.learned).data)
        self._payload.add(chunk.tokens)

    def close(self) -> None:
        """Finish."""
        self._payload.close()
        self._text.close()
        self._raw.close()
        if self._mask is not None:
            self._mask.close()


def _column(chunk: Chunk, name: str) -> list[Any]:
    if chunk.columns is None or name not in chunk.columns.column_names:
        return [0 if name == "place" else ""] * len(chunk)
    return ["" if value is None else value for value in chunk.columns.column(name).to_pylist()]


class LlmcWriter:
    """Writes llm.c's `NAME.bin`: 256 int32, then tokens. It has room for 2^31 - 1 of them, and for no documents."""

    def __init__(self, target: Target) -> None:
        self._token, self._file, self._tokens = target.vocabulary.token, target.file(".bin").open("xb"), 0
        self._file.write(bytes(_LLMC_BYTES))

    def add(self, chunk: Chunk) -> None:
        """Append documents."""
        self._tokens += len(chunk.tokens)
        if self._tokens >= 1 << 31:
            raise InputError("a file of llm.c counts up to 2^31 - 1 tokens, this shard has more: export to npy")
        self._file.write(np.ascontiguousarray(chunk.tokens.astype(self._token, copy=False)).view(np.uint8).data)

    def close(self) -> None:
        """Write the header."""
        magic, version = (20240520, 1) if self._token.itemsize == 2 else (20240801, 7)
        self._file.seek(0)
        self._file.write(np.array([magic, version, self._tokens], "<i4").data)
        self._file.close()


class ArraySource:
    """Reads an array of tokens. Its documents: by a table beside it, by rows where it has some, else by EOS."""

    def __init__(self, file: ForeignFile, reading: Reading) -> None:
        self.file, self.reading, self.padding = file, reading, 0
        self._kind, self._start, shape = self._header()
        self.tokens, self._row = int(np.prod(shape)), shape[1] if len(shape) == 2 else None
        size = self._start + self.tokens * self._kind.itemsize
        if file.size != size:
            raise InputError(f"{file} has {file.size} bytes, its tokens end at {size}: it was cut short")
        self._bounds = file.beside(f"{file.stem}.csv.gz") if reading.boundaries == "index" else None
        self._mask = file.beside(f"{file.stem}.label_mask")
        if self._mask is not None and self._mask.size != self.tokens:
            raise InputError(f"{self._mask} has {self._mask.size} bytes, a byte a token makes {self.tokens}")
        self._rows = self._bounds is None and self._row is not None and reading.boundaries != "eos"
        if reading.boundaries == "rows" and self._row is None:
            raise InputError(f"{file} has no rows, it is one array of {self.tokens} tokens: pass boundaries=eos")
        if reading.pad_id is not None and self._row is None:
            raise InputError(f"{file} has no rows, and so no padding at their ends: leave out the padding's id")
        self.documents = shape[0] if self._rows else None

    def _header(self) -> tuple[np.dtype[Any], int, tuple[int, ...]]:
        """Type, first byte and shape of the array, from its first bytes."""
        file, token = self.file, self.reading.token
        head = file.read(0, min(file.size, 12))
        if head.startswith(_NPY):
            return self._numpy_header(head)
        magic, _, count = struct.unpack("<iii", head.ljust(12, b"\0"))
        kind = LLMC.get(magic)
        if kind is not None and file.size == _LLMC_BYTES + count * kind.itemsize:
            return kind, _LLMC_BYTES, (count,)
        if file.size % token.itemsize:
            raise InputError(f"{file} has {file.size} bytes, no whole number of {token.name}: say its dtype")
        return token, 0, (file.size // token.itemsize,)

    def _numpy_header(self, head: bytes) -> tuple[np.dtype[Any], int, tuple[int, ...]]:
        width = 2 if head[6] == 1 else 4
        start = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
        try:
            told = ast.literal_eval(self.file.read(8 + width, start).decode("latin-1"))
            kind, shape, turned = np.dtype(told["descr"]), tuple(told["shape"]), told["fortran_order"]
        except (ValueError, SyntaxError, KeyError, TypeError) as error:
            raise InputError(f"{self.file} begins like an .npy of NumPy, but its header is none: {error!r}") from error
        if kind.kind not in "iu" or len(shape) not in (1, 2) or (turned and len(shape) == 2):
            raise InputError(
                f"{self.file} holds {kind} of shape {shape}{', columns first' if turned else ''}: token ids are whole "
                "numbers, (n,) or (rows, length), rows first"
            )
        return kind, start, shape

    def chunks(self) -> Iterator[Chunk]:
        """Give the documents in the file's order."""
        if self._bounds is not None:
            return self._listed(self._bounds)
        return self._by_row() if self._rows else split(self._stream(), self.reading.vocabulary.eos_id)

    def _chunk(self, first: int, last: int, ends: Any) -> Chunk:
        tokens = self.file.array(self._kind, self._start, first, last)
        learned = None if self._mask is None else self._mask.array(np.dtype(np.uint8), 0, first, last) != 0
        return Chunk(tokens, np.asarray(ends, np.int64), learned)

    def _stream(self) -> Iterator[Chunk]:
        if self._row is not None:
            yield from self._by_row()
            return
        first = 0
        for tokens in blocks(self.file, self._kind, self._start, self.tokens):
            yield self._chunk(first, first + len(tokens), [])
            first += len(tokens)

    def _by_row(self) -> Iterator[Chunk]:
        row, pad = self._row or 1, self.reading.pad_id
        count = self.tokens // row
        for first, last in runs(np.arange(1, count + 1, dtype=np.int64) * row) if count else ():
            chunk = self._chunk(first * row, last * row, np.arange(1, last - first + 1) * row)
            if pad is not None:
                whole = len(chunk.tokens)
                chunk = without_padding(chunk, pad, self.reading.vocabulary.eos_id)
                self.padding += whole - len(chunk.tokens)
            yield chunk

    def _listed(self, bounds: ForeignFile) -> Iterator[Chunk]:
        pa = require("pyarrow", "curate")
        at = 0
        with bounds.open() as file, gzip.open(file, "rt", encoding="utf-8", newline="") as text:
            table = csv.reader(text)
            while rows := list(islice(table, _BLOCK)):
                try:
                    places = np.array([(int(row[0]), int(row[1])) for row in rows])
                except (ValueError, IndexError) as error:
                    raise InputError(f"{bounds} is no table of documents, start,end,id,src,loc: {error}") from error
                starts, ends = places.T
                if not np.array_equal(starts, np.append(at, ends[:-1])) or bool((ends < starts).any()):
                    raise InputError(
                        f"{bounds} leaves out tokens of {self.file}, or names some twice: documents must lie one "
                        "behind the other; remove the table, and pass boundaries=eos"
                    )
                names = pa.table({"id": [row[2] if len(row) > 2 else "" for row in rows]})
                for first, last in runs(ends - at):
                    one, two = int(starts[first]), int(ends[last - 1])
                    chunk = self._chunk(one, two, ends[first:last] - one)
                    yield Chunk(chunk.tokens, chunk.ends, chunk.learned, names.slice(first, last - first))
                at = int(ends[-1])
        if at != self.tokens:
            raise InputError(f"{bounds} ends at token {at}, {self.file} has {self.tokens}: it is of another file")
