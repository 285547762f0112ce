"""A supervised fastText model as the kernels read it: any dimension, loss, n-grams, dense or quantised.

A dense matrix stays where it lies in the file (mapped: only the rows that texts meet are read, and processes share
them). Quantised rows are multiplied out up to 256 MiB; above, they are read as codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import RequestError
from . import kernel
from .fasttext_reader import HIERARCHICAL, SOFTMAX, Dictionary, Matrix, ModelFile, names_of, read_file

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

DIM = 16  # of the models that the narrow kernel reads
END_OF_SENTENCE = b"</s>"
LABEL = b"__label__"

_UNBUILT = 10**15  # weight of a node that is still to be built
_MULTIPLIED_OUT = 256 << 20  # bytes of quantised rows


class Tables(NamedTuple):
    """What the kernels read; n-gram rows stand behind the words', in the order of their buckets."""

    rows: Floats  # (words + n-grams + 1, dim), the last of zeros, for the narrow kernel; else as in the file
    codes: Bytes  # (rows, parts) of quantised rows, or none
    centroids: Floats
    width: int
    norms: Floats
    bitmap: NDArray[np.uint64]  # where n-grams were pruned, a bit a bucket: its n-grams have a row
    rank: NDArray[np.int64]  # bits set before each word of the bitmap
    slots: NDArray[np.uint64]  # hash table: entry number + 1, above it the entry's hash; 0 free
    starts: NDArray[np.int64]  # of each entry's name in `names`
    ends: NDArray[np.int64]
    names: Bytes
    output: Floats  # (labels, dim)
    across: Floats  # (dim, labels), the same; (dim, 0) where labels are leaves of a tree
    left: NDArray[np.int64]  # (2 · labels - 1,) the Huffman tree; -1 at its leaves, the labels
    right: NDArray[np.int64]
    parent: NDArray[np.int64]
    loss: int
    words: int  # entries before the labels
    sentence_end: int  # the row of `</s>`, -1 where there is none
    bucket: int
    inverse: int  # 2^32 // bucket
    pruned: bool
    shortest: int  # characters of an n-gram, `<` and `>` among them
    longest: int
    word_ngrams: int


@dataclass(frozen=True)
class FastTextModel:
    """Tables and the names of the labels, without their prefix."""

    tables: Tables
    labels: tuple[str, ...]
    dim: int

    @property
    def narrow(self) -> bool:
        """Whether the kernel for vectors of 16 reads it: lid.176 and the like."""
        return _narrow(self.dim, self.tables.loss, self.tables.word_ngrams)


def _narrow(dim: int, loss: int, word_ngrams: int) -> bool:
    # The other losses read a table of steps, which want the library's order of summation.
    return dim == DIM and loss in (HIERARCHICAL, SOFTMAX) and word_ngrams <= 1


def read_model(body: Any, name: str) -> FastTextModel:
    """Read a model from the bytes of its file, or from a map of it; RequestError where they are damaged."""
    file = read_file(body, name)
    dictionary, args = file.dictionary, file.args
    words, counts = dictionary.words, dictionary.counts[dictionary.words :].tolist()
    if min(counts) < 0 or sum(counts) >= _UNBUILT:
        raise wrong(name, "a label's count is negative or beyond belief")
    if file.output.rows != len(counts):
        raise wrong(name, f"it has {len(counts)} labels and {file.output.rows} rows to tell them apart")
    labels = tuple(
        label.removeprefix(LABEL).decode("utf-8", "replace")
        for label in names_of(file, range(words, words + len(counts)))
    )
    return FastTextModel(_tables(file, counts, name), labels, args["dim"])


def wrong(name: str, why: str) -> RequestError:
    """Say what is wrong with a model."""
    return RequestError(f"{name} is not a usable fastText model: {why}")


def _tables(file: ModelFile, counts: list[int], name: str) -> Tables:
    args, dictionary = file.args, file.dictionary
    narrow = _narrow(args["dim"], args["loss"], args["wordNgrams"])
    rows, bitmap, rank = _ngram_rows(file, name)
    slots = _vocabulary(dictionary, file.names)
    if narrow or (rows.quantised and 4 * rows.rows * rows.columns <= _MULTIPLIED_OUT):
        values = rows.dense()
        rows = rows._replace(values=np.vstack([values, np.zeros((1, DIM), np.float32)]) if narrow else values)
        rows = rows._replace(codes=np.zeros((0, 1), np.uint8))
    output = file.output.dense().astype(np.float32, order="C")  # a copy, so of one type too
    left, right, parent = _tree(counts) if args["loss"] == HIERARCHICAL else [np.full(1, -1, np.int64)] * 3
    across = np.ascontiguousarray(output.T) if args["loss"] != HIERARCHICAL else np.zeros((args["dim"], 0), np.float32)
    bucket = args["bucket"]
    ends = _find(dictionary, slots, file.names, END_OF_SENTENCE)
    hashing = (bucket, (1 << 32) // bucket if bucket > 0 else 0, dictionary.prune is not None)
    ngrams = (args["minn"], max(args["maxn"], 0), max(args["wordNgrams"], 1))
    # One type for a map and for bytes, wherever rows happen to begin, so that kernels compile once.
    parts = (plain(rows.values), plain(rows.codes), plain(rows.centroids), rows.width, plain(rows.norms), bitmap, rank)
    names = (slots, dictionary.starts, dictionary.ends, file.names)
    return Tables(
        *parts, *names, output, across, left, right, parent, args["loss"], dictionary.words, ends, *hashing, *ngrams
    )


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """Give a view of an array that claims no alignment and cannot be written to."""
    view = array.view()
    view.setflags(write=False, align=False)
    return view


def _ngram_rows(file: ModelFile, name: str) -> tuple[Matrix, NDArray[np.uint64], NDArray[np.int64]]:
    """Sort the rows of kept n-grams by bucket and mark the buckets that have one: a row is found by counting bits."""
    rows, words, bucket, prune = file.input, file.dictionary.words, file.args["bucket"], file.dictionary.prune
    hashed = file.args["maxn"] > 0 or file.args["wordNgrams"] > 1
    if prune is None:
        if rows.rows < words + bucket * hashed:
            raise wrong(name, f"{rows.rows} rows are too few for {words} words and {bucket * hashed} n-grams")
        return rows, np.zeros(1, np.uint64), np.zeros(1, np.int64)
    prune = prune[np.argsort(prune[:, 0], kind="stable")]
    if rows.rows < words + (int(prune[:, 1].max()) + 1 if len(prune) else 0):
        raise wrong(name, f"{rows.rows} rows are too few for {words} words and {len(prune)} n-grams")
    if (np.diff(prune[:, 0]) == 0).any():
        raise wrong(name, "a bucket of n-grams is kept twice")
    marks = np.zeros(max(-(-bucket // 64), 1) * 64, np.uint8)
    marks[prune[:, 0]] = 1
    bitmap = np.packbits(marks, bitorder="little").view("<u8").astype(np.uint64)
    ones = marks.reshape(-1, 64).sum(axis=1, dtype=np.int64)
    order = np.concatenate([np.arange(words), words + prune[:, 1]])
    return rows.take(order), bitmap, np.cumsum(ones) - ones


def _vocabulary(dictionary: Dictionary, names: Bytes) -> NDArray[np.uint64]:
    """Put the entries into an open hash table by the low bits of fastText's hash."""
    size = 16
    while size < 2 * len(dictionary.starts):
        size *= 2
    slots = np.zeros(size, np.uint64)
    fill_slots(names, dictionary.starts, dictionary.ends, slots)
    return slots


@kernel
def hash_byte(value: np.uint32, byte: np.uint8) -> np.uint32:
    """One step of FNV-1a as fastText takes it, the byte's sign extended; the casts keep it at 32 bits."""
    signed = np.uint32(np.uint32(np.uint32(byte) ^ np.uint32(0x80)) - np.uint32(0x80))
    return np.uint32(np.uint32(value ^ signed) * np.uint32(16777619))


@kernel
def fill_slots(names: Bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], slots: NDArray[np.uint64]) -> None:
    """Enter every name; where two are equal, the first is found."""
    for number in range(len(starts)):
        value = np.uint32(2166136261)
        for at in range(starts[number], ends[number]):
            value = hash_byte(value, names[at])
        slot = np.int64(value) & (len(slots) - 1)
        while slots[slot] != np.uint64(0):
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = (np.uint64(value) << np.uint64(32)) | np.uint64(number + 1)


def _find(dictionary: Dictionary, slots: NDArray[np.uint64], names: Bytes, word: bytes) -> int:
    """Find a word's row: -1 where there is none."""
    value = 2166136261
    for byte in word:  # ASCII
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    slot = value & (len(slots) - 1)
    while slots[slot]:
        number = (int(slots[slot]) & 0xFFFFFFFF) - 1
        if bytes(names[dictionary.starts[number] : dictionary.ends[number]]) == word:
            return number if number < dictionary.words else -1
        slot = (slot + 1) & (len(slots) - 1)
    return -1


def _tree(counts: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Build the Huffman tree as fastText does: labels in the file's order, a leaf before a node only if smaller."""
    labels = len(counts)
    weights = counts + [_UNBUILT] * (labels - 1)
    left, right, parent = (np.full(2 * labels - 1, -1, np.int64) for _ in range(3))
    leaf, node = labels - 1, labels
    for new in range(labels, 2 * labels - 1):
        pair = []
        for _ in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                pair.append(leaf)
                leaf -= 1
            else:
                pair.append(node)
                node += 1
        left[new], right[new] = pair
        parent[pair] = new
        weights[new] = weights[pair[0]] + weights[pair[1]]
    return left, right, parent
