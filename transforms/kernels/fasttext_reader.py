"""Take a fastText model file apart: settings, dictionary, matrices, each where it lies in the file.

Nothing is copied that need not be: the file may be a map of gigabytes, of which a run touches the rows it meets. Format
and semantics are those of facebookresearch/fastText at 1142dc4, versions 11 and 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import RequestError
from . import kernel

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4

_MAGIC = 793712314
_VERSIONS = (11, 12)
_ARGS = "dim ws epoch minCount neg wordNgrams loss model bucket minn maxn lrUpdateRate".split()  # noqa: SIM905
_MODELS = {1: "cbow", 2: "skipgram", 3: "supervised"}
_LONGEST_NGRAM = 64
_UNENDED, _MISPLACED = -1, -2


class Dictionary(NamedTuple):
    """The entries, words first: entry i is named by the file's bytes from starts[i] to ends[i]."""

    words: int
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    counts: NDArray[np.int64]
    prune: NDArray[np.int64] | None  # (kept, 2): bucket and row of each n-gram that is kept; None: all are


class Matrix(NamedTuple):
    """Rows of numbers, as they are or product-quantised: then `values` is empty, and the file's centroids lie flat."""

    rows: int
    columns: int
    values: Floats  # (rows, columns), or (0, columns)
    codes: Bytes  # (rows, parts), or (0, 1)
    centroids: Floats  # 256 of each part after another; the last part may be narrower
    width: int  # numbers in a part
    norms: Floats  # (rows,) of a quantised matrix, 1 where the file has none

    @property
    def quantised(self) -> bool:
        """Whether the rows are codes."""
        return not len(self.values) and len(self.codes) > 0

    def dense(self) -> Floats:
        """Give the rows as numbers."""
        if not self.quantised:
            return self.values
        rows = np.empty((self.rows, self.columns), np.float32)
        for part in range(self.codes.shape[1]):
            first = part * self.width
            some = min(self.width, self.columns - first)
            centroids = self.centroids[first * 256 : first * 256 + some * 256].reshape(256, some)
            rows[:, first : first + some] = centroids[self.codes[:, part]]
        rows *= self.norms[:, None]
        return rows

    def take(self, order: NDArray[np.int64]) -> Matrix:
        """Give these rows in this order, copied."""
        if self.quantised:
            return self._replace(rows=len(order), codes=self.codes[order], norms=self.norms[order])
        return self._replace(rows=len(order), values=self.values[order])


class ModelFile(NamedTuple):
    """What a model file holds."""

    args: dict[str, int]
    names: Bytes  # the whole file
    dictionary: Dictionary
    input: Matrix
    output: Matrix


class Reader:
    """Takes values off the bytes of a file and says where they end too early."""

    def __init__(self, body: Any, name: str) -> None:
        self.body = np.frombuffer(body, np.uint8)
        self.body.flags.writeable = False
        self.name, self.at = name, 0

    def wrong(self, why: str) -> RequestError:
        """Say what is wrong with the file."""
        return RequestError(f"{self.name} is not a usable fastText model: {why}")

    def array(self, dtype: str, count: int, what: str) -> NDArray[Any]:
        """Take `count` numbers, where they lie."""
        size = np.dtype(dtype).itemsize * count
        left = len(self.body) - self.at
        if count < 0 or size > left:
            raise self.wrong(f"the {what} need {size} bytes from byte {self.at} on, and the file has {left} left")
        values = np.frombuffer(self.body, dtype, count, self.at) if count else np.zeros(0, dtype)
        self.at += size
        return values

    def one(self, dtype: str, what: str) -> int:
        """Take one number."""
        return int(self.array(dtype, 1, what)[0])


def read_file(body: Any, name: str) -> ModelFile:
    """Read the bytes or the map of a model file; RequestError where it is damaged or has no labels."""
    reader = Reader(body, name)
    if reader.one("<i4", "magic") != _MAGIC:
        start = bytes(reader.body[:4]).hex()
        raise reader.wrong(f"it starts with {start} and not with {_MAGIC.to_bytes(4, 'little').hex()}")
    version = reader.one("<i4", "version")
    if version not in _VERSIONS:
        raise reader.wrong(f"its version is {version}; versions 11 and 12 are known")
    args = dict(zip(_ARGS, reader.array("<i4", len(_ARGS), "settings").tolist(), strict=True))
    reader.array("<f8", 1, "settings")
    if version == 11:  # supervised models of that version had no subwords, whatever they say
        args["maxn"] = 0
    _refuse(reader, args)
    dictionary = _dictionary(reader, args["bucket"])
    quantised = bool(reader.one("u1", "kind of the matrix"))
    rows = _matrix(reader, args["dim"], "input matrix", quantised)
    output = _matrix(reader, args["dim"], "output matrix", bool(reader.one("u1", "kind of the matrix")) and quantised)
    if reader.at != len(reader.body):
        raise reader.wrong(f"it ends at byte {reader.at} by its own account, and has {len(reader.body)}")
    return ModelFile(args, reader.body, dictionary, rows, output)


def _refuse(reader: Reader, args: dict[str, int]) -> None:
    """Refuse, in words, what has no labels or makes no sense."""
    model = _MODELS.get(args["model"])
    if model != "supervised":
        raise reader.wrong(f"it is a {model or args['model']} model, and only supervised ones have labels")
    if not HIERARCHICAL <= args["loss"] <= ONE_VS_ALL:
        raise reader.wrong(f"it was trained with loss {args['loss']}; hs, ns, softmax and ova (1 to 4) are known")
    if args["dim"] < 1:
        raise reader.wrong(f"its dim is {args['dim']}; dim > 0")
    if args["maxn"] > _LONGEST_NGRAM:
        raise reader.wrong(f"its maxn is {args['maxn']}; n-grams of up to {_LONGEST_NGRAM} characters are supported")
    hashed = args["maxn"] > 0 or args["wordNgrams"] > 1
    if args["bucket"] < hashed or args["minn"] < 0:
        raise reader.wrong(f"its bucket is {args['bucket']} and its minn {args['minn']}; bucket > 0, minn ≥ 0")


def _dictionary(reader: Reader, bucket: int) -> Dictionary:
    """Read the entries, words first."""
    size, words, labels = reader.array("<i4", 3, "sizes of the dictionary").tolist()
    _, pruned = reader.array("<i8", 2, "sizes of the dictionary").tolist()
    if words < 0 or labels < 1 or words + labels != size:
        raise reader.wrong(f"{words} words and {labels} labels do not make the {size} entries of its dictionary")
    if 10 * size > len(reader.body) - reader.at:
        left = len(reader.body) - reader.at
        raise reader.wrong(f"the {size} entries of its dictionary need more than the {left} bytes that are left")
    starts, ends, counts = (np.zeros(size, np.int64) for _ in range(3))
    fault, number, end = scan_entries(reader.body, reader.at, words, starts, ends, counts)
    if fault == _UNENDED:
        raise reader.wrong(f"an entry of the dictionary that starts at byte {starts[number]} does not end")
    if fault == _MISPLACED:
        entry = bytes(reader.body[starts[number] : ends[number]])
        raise reader.wrong(f"entry {number} of its dictionary, {entry!r}, is out of place: words, then labels")
    reader.at = int(end)
    prune = None
    if pruned >= 0:
        prune = reader.array("<i4", 2 * pruned, "kept n-grams").reshape(-1, 2).astype(np.int64)
        if len(prune) and (prune.min() < 0 or prune[:, 0].max() >= bucket):
            raise reader.wrong(f"a kept n-gram has a bucket or row outside of 0 to {bucket}")
    return Dictionary(words, starts, ends, counts, prune)


@kernel
def scan_entries(
    body: Bytes,
    at: int,
    words: int,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Find the entries of a dictionary from byte `at` on: 0 or what is wrong, the entry where, the byte behind."""
    for number in range(len(starts)):
        starts[number] = at
        while at < len(body) and body[at] != 0:
            at += 1
        if at + 10 > len(body):
            return -1, number, at
        ends[number] = at
        count = np.uint64(0)
        for byte in range(8):
            count |= np.uint64(body[at + 1 + byte]) << np.uint64(8 * byte)
        counts[number] = np.int64(count)
        if body[at + 9] != (number >= words):
            return -2, number, at
        at += 10
    return 0, 0, at


def _matrix(reader: Reader, dim: int, what: str, quantised: bool) -> Matrix:
    """Read a matrix, dense or product-quantised."""
    none, no_codes = np.zeros(0, np.float32), np.zeros((0, 1), np.uint8)
    with_norms = quantised and reader.one("u1", "kind of the matrix")
    rows, columns = reader.array("<i8", 2, f"sizes of the {what}").tolist()
    if columns != dim or rows < 0:
        raise reader.wrong(f"its {what} has {rows} rows of {columns}; rows of {dim} go with its settings")
    if not quantised:
        values = reader.array("<f4", rows * columns, f"values of the {what}").reshape(rows, columns)
        return Matrix(rows, columns, values, no_codes, none, 1, none)
    codes = reader.array("u1", reader.one("<i4", "sizes of the matrix"), "codes")
    parts, width, centroids = _centroids(reader, columns)
    if rows * parts != len(codes):
        raise reader.wrong(f"a matrix of {rows} rows by {columns} does not go with {len(codes)} codes")
    norms = np.ones(rows, np.float32)
    if with_norms:
        norm_codes = reader.array("u1", rows, "norms")
        norms = _centroids(reader, 1)[2][norm_codes]
    return Matrix(
        rows, columns, np.zeros((0, columns), np.float32), codes.reshape(rows, parts), centroids, width, norms
    )


def _centroids(reader: Reader, columns: int) -> tuple[int, int, Floats]:
    """Read a product quantiser: how many parts a vector is cut into, their width, 256 centroids of each."""
    dim, parts, width, last = reader.array("<i4", 4, "sizes of the quantiser").tolist()
    if parts < 1 or width < 1 or last < 1 or last > width or (parts - 1) * width + last != dim or dim != columns:
        raise reader.wrong(f"its quantiser cuts {dim} numbers into {parts} parts of {width}, the last of {last}")
    return parts, width, reader.array("<f4", dim * 256, "centroids").astype(np.float32)


def names_of(file: ModelFile, entries: Sequence[int]) -> list[bytes]:
    """Give the names of entries."""
    starts, ends = file.dictionary.starts, file.dictionary.ends
    return [bytes(file.names[starts[entry] : ends[entry]]) for entry in entries]
