"""Read a fastText model file into the tables that the language kernel uses.

Supported are supervised models with hierarchical softmax and vectors of 16, without word n-grams: lid.176.ftz, and the
like of it dense or quantised. Format and semantics are those of facebookresearch/fastText at 1142dc4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import RequestError

DIM = 16
END_OF_SENTENCE = b"</s>"
LABEL = b"__label__"

_MAGIC = 793712314
_VERSIONS = (11, 12)
_LONGEST_NGRAM = 64
_UNBUILT = 10**15  # weight of a node that is still to be built
_ARGS = "dim ws epoch minCount neg wordNgrams loss model bucket minn maxn lrUpdateRate".split()  # noqa: SIM905
_LOSSES = {1: "hierarchical softmax", 2: "negative sampling", 3: "softmax", 4: "one-vs-all"}
_MODELS = {1: "cbow", 2: "skipgram", 3: "supervised"}


class Tables(NamedTuple):
    """What the kernel reads; n-gram rows stand behind the words' in the order of their buckets."""

    rows: NDArray[np.float32]  # (words + kept n-grams + 1, 16); the last is zeros
    bitmap: NDArray[np.uint64]  # a bit a bucket: its n-grams have a row
    rank: NDArray[np.int64]  # bits set before each word of the bitmap
    slots: NDArray[np.int64]  # hash table of entry numbers, -1 free
    starts: NDArray[np.int64]  # (entries + 1,) into names
    names: NDArray[np.uint8]
    output: NDArray[np.float32]  # (labels, 16)
    left: NDArray[np.int64]  # (2 · labels - 1,) the Huffman tree; -1 at its leaves, the labels
    right: NDArray[np.int64]
    words: int  # entries before the labels
    sentence_end: int  # the row of `</s>`, -1 where there is none
    bucket: int
    inverse: int  # 2^32 // bucket
    shortest: int  # characters of an n-gram, `<` and `>` among them
    longest: int


@dataclass(frozen=True)
class FastTextModel:
    """Tables and the names of the labels, without their prefix."""

    tables: Tables
    labels: tuple[str, ...]


class _Reader:
    """Takes values off the bytes of a file and says where they end too early."""

    def __init__(self, body: bytes, name: str) -> None:
        self.body, self.name, self.at = body, name, 0

    def wrong(self, why: str) -> RequestError:
        return RequestError(f"{self.name} is not a usable fastText model: {why}")

    def array(self, dtype: str, count: int, what: str) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize * count
        if count < 0 or self.at + size > len(self.body):
            left = len(self.body) - self.at
            raise self.wrong(f"the {what} need {size} bytes from byte {self.at} on, and the file has {left} left")
        values = np.frombuffer(self.body, dtype, count, self.at)
        self.at += size
        return values

    def one(self, dtype: str, what: str) -> int:
        return int(self.array(dtype, 1, what)[0])

    def name_of_entry(self) -> bytes:
        end = self.body.find(b"\0", self.at)
        if end < 0:
            raise self.wrong(f"an entry of the dictionary that starts at byte {self.at} does not end")
        start, self.at = self.at, end + 1
        return self.body[start:end]


def read_model(body: bytes, name: str) -> FastTextModel:
    """Read a model from the bytes of its file; RequestError where they are damaged or another kind of model."""
    reader = _Reader(body, name)
    if reader.one("<i4", "magic") != _MAGIC:
        raise reader.wrong(f"it starts with {body[:4].hex()} and not with {_MAGIC.to_bytes(4, 'little').hex()}")
    version = reader.one("<i4", "version")
    if version not in _VERSIONS:
        raise reader.wrong(f"its version is {version}; versions 11 and 12 are known")
    args = dict(zip(_ARGS, reader.array("<i4", len(_ARGS), "settings").tolist(), strict=True))
    reader.array("<f8", 1, "settings")
    if version == 11:  # supervised models of that version had no subwords, whatever they say
        args["maxn"] = 0
    _refuse(reader, args)
    words, entries, counts, prune = _dictionary(reader, args["bucket"])
    rows, output = _input(reader), _output(reader)
    if reader.at != len(body):
        raise reader.wrong(f"it ends at byte {reader.at} by its own account, and has {len(body)}")
    rows, bitmap, rank = _ngram_rows(reader, rows, words, args["bucket"], prune)
    slots, starts, names = _vocabulary(entries)
    labels = entries[words:]
    if min(counts[words:]) < 0 or sum(counts[words:]) >= _UNBUILT:
        raise reader.wrong("a label's count is negative or beyond belief")
    if len(output) != len(labels):
        raise reader.wrong(f"it has {len(labels)} labels and {len(output)} rows to tell them apart")
    left, right = _tree(counts[words:])
    ends = entries.index(END_OF_SENTENCE) if END_OF_SENTENCE in entries[:words] else -1
    sizes = (words, ends, args["bucket"], (1 << 32) // args["bucket"], args["minn"], args["maxn"])
    tables = Tables(rows, bitmap, rank, slots, starts, names, output, left, right, *sizes)
    return FastTextModel(tables, tuple(label.removeprefix(LABEL).decode("utf-8", "replace") for label in labels))


def _refuse(reader: _Reader, args: dict[str, int]) -> None:
    """Refuse, in words, what the kernel does not do."""
    model, loss = _MODELS.get(args["model"]), _LOSSES.get(args["loss"])
    if model != "supervised":
        raise reader.wrong(f"it is a {model or args['model']} model, and only supervised ones have labels")
    if loss != "hierarchical softmax":
        raise reader.wrong(f"it was trained with {loss or args['loss']}; only hierarchical softmax is supported")
    for setting, only in (("dim", DIM), ("wordNgrams", 1)):
        if args[setting] != only:
            raise reader.wrong(f"its {setting} is {args[setting]}; only {only} is supported")
    if not 0 <= args["maxn"] <= _LONGEST_NGRAM:
        raise reader.wrong(f"its maxn is {args['maxn']}; n-grams of up to {_LONGEST_NGRAM} characters are supported")
    if args["bucket"] <= 0 or args["minn"] < 0:
        raise reader.wrong(f"its bucket is {args['bucket']} and its minn {args['minn']}; bucket > 0, minn ≥ 0")


def _dictionary(reader: _Reader, bucket: int) -> tuple[int, list[bytes], list[int], NDArray[np.int64] | None]:
    """Read the entries, words first: how many are words, names, counts, kept buckets with rows (None: all are kept)."""
    size, words, labels = reader.array("<i4", 3, "sizes of the dictionary").tolist()
    _, pruned = reader.array("<i8", 2, "sizes of the dictionary").tolist()
    if words < 0 or labels < 1 or words + labels != size:
        raise reader.wrong(f"{words} words and {labels} labels do not make the {size} entries of its dictionary")
    names, counts = [], []
    for number in range(size):
        names.append(reader.name_of_entry())
        counts.append(reader.one("<i8", "counts of the dictionary"))
        if reader.one("i1", "types of the dictionary") != (number >= words):
            raise reader.wrong(f"entry {number} of its dictionary, {names[-1]!r}, is out of place: words, then labels")
    if pruned < 0:
        return words, names, counts, None
    prune = reader.array("<i4", 2 * pruned, "kept n-grams").reshape(-1, 2).astype(np.int64)
    if len(prune) and (prune.min() < 0 or prune[:, 0].max() >= bucket):
        raise reader.wrong(f"a kept n-gram has a bucket or row outside of 0 to {bucket}")
    return words, names, counts, prune


def _input(reader: _Reader) -> NDArray[np.float32]:
    """Read the input matrix, dense or product-quantised."""
    if not reader.one("u1", "kind of the matrix"):
        return _dense(reader, "input matrix")
    with_norms = reader.one("u1", "kind of the matrix")
    count, columns = reader.array("<i8", 2, "sizes of the matrix").tolist()
    codes = reader.array("u1", reader.one("<i4", "sizes of the matrix"), "codes")
    centroids = _centroids(reader)
    if columns != DIM or count * len(centroids) != len(codes):
        raise reader.wrong(f"a matrix of {count} rows by {columns} does not go with {len(codes)} codes")
    codes = codes.reshape(count, len(centroids))
    rows = np.hstack([part[codes[:, number]] for number, part in enumerate(centroids)])
    if with_norms:
        norm_codes = reader.array("u1", count, "norms")
        norms = _centroids(reader)[0]
        rows = norms[norm_codes] * rows
    return np.ascontiguousarray(rows, np.float32)


def _centroids(reader: _Reader) -> list[NDArray[np.float32]]:
    """Read a product quantiser: (256, width) for each part of a vector, the last perhaps narrower."""
    dim, parts, width, last = reader.array("<i4", 4, "sizes of the quantiser").tolist()
    if parts < 1 or width < 1 or last < 1 or (parts - 1) * width + last != dim:
        raise reader.wrong(f"its quantiser cuts {dim} numbers into {parts} parts of {width}, the last of {last}")
    values = reader.array("<f4", dim * 256, "centroids")
    ends = [*(256 * width * part for part in range(parts)), 256 * dim]
    return [values[ends[part] : ends[part + 1]].reshape(256, -1) for part in range(parts)]


def _output(reader: _Reader) -> NDArray[np.float32]:
    if reader.one("u1", "kind of the output matrix"):
        raise reader.wrong("its output matrix is quantised; only a dense one is supported")
    return _dense(reader, "output matrix")


def _dense(reader: _Reader, what: str) -> NDArray[np.float32]:
    rows, columns = reader.array("<i8", 2, f"sizes of the {what}").tolist()
    if columns != DIM or rows < 0:
        raise reader.wrong(f"its {what} has {rows} rows of {columns}; rows of {DIM} are supported")
    return reader.array("<f4", rows * columns, f"values of the {what}").reshape(rows, columns).astype(np.float32)


def _ngram_rows(
    reader: _Reader, rows: NDArray[np.float32], words: int, bucket: int, prune: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint64], NDArray[np.int64]]:
    """Sort the n-grams' rows by bucket and mark the buckets that have one: a row is found by counting bits."""
    if prune is None:
        prune = np.column_stack([np.arange(bucket)] * 2)
    prune = prune[np.argsort(prune[:, 0], kind="stable")]
    if len(rows) < words + (int(prune[:, 1].max()) + 1 if len(prune) else 0):
        raise reader.wrong(f"{len(rows)} rows are too few for {words} words and {len(prune)} n-grams")
    if (np.diff(prune[:, 0]) == 0).any():
        raise reader.wrong("a bucket of n-grams is kept twice")
    marks = np.zeros(-(-bucket // 64) * 64, np.uint8)
    marks[prune[:, 0]] = 1
    bitmap = np.packbits(marks, bitorder="little").view("<u8").astype(np.uint64)
    ones = marks.reshape(-1, 64).sum(axis=1, dtype=np.int64)
    zeros = np.zeros((1, DIM), np.float32)
    return np.concatenate([rows[:words], rows[words + prune[:, 1]], zeros]), bitmap, np.cumsum(ones) - ones


def _vocabulary(entries: list[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Put the entries into an open hash table by the low bits of fastText's hash."""
    size = 16
    while size < 2 * len(entries):
        size *= 2
    slots = np.full(size, -1, np.int64)
    for number, entry in enumerate(entries):
        value = 2166136261
        for byte in entry:
            value = (value ^ (byte | 0xFFFFFF00 if byte > 127 else byte)) * 16777619 & 0xFFFFFFFF
        slot = value & (size - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = number
    starts = np.cumsum([0, *map(len, entries)]).astype(np.int64)
    return slots, starts, np.frombuffer(b"".join(entries), np.uint8).copy()


def _tree(counts: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Build the Huffman tree as fastText does: labels in the file's order, a leaf before a node only if smaller."""
    labels = len(counts)
    weights = counts + [_UNBUILT] * (labels - 1)
    left = np.full(2 * labels - 1, -1, np.int64)
    right = left.copy()
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
        weights[new] = weights[pair[0]] + weights[pair[1]]
    return left, right
