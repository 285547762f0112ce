"""Small fastText models with random weights, written without the library, and a slow reader of them: the oracle."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HS, NS, SOFTMAX, OVA = 1, 2, 3, 4


@dataclass
class Toy:
    """A model as fastText writes it: dense, or quantised (one centroid a row) where `pruned` or `quantised`."""

    words: list[bytes]
    labels: list[bytes]
    minn: int = 2
    maxn: int = 4
    bucket: int = 97
    pruned: dict[int, int] | None = None
    version: int = 12
    seed: int = 0
    dim: int = 16
    loss: int = HS
    word_ngrams: int = 1
    quantised: bool = False
    output_quantised: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        rows = len(self.words) + (self.bucket if self.pruned is None else len(self.pruned))
        self.input = generator.normal(size=(rows, self.dim)).astype("<f4")
        self.output = (generator.normal(size=(len(self.labels), self.dim)) * self.scale).astype("<f4")
        self.counts = sorted((int(count) for count in generator.integers(1, 999, len(self.labels))), reverse=True)
        self.quantised = self.quantised or self.pruned is not None

    def body(self, **args: int) -> bytes:
        values = {"dim": self.dim, "ws": 5, "epoch": 1, "min_count": 1, "neg": 5, "word_ngrams": self.word_ngrams}
        values |= {"loss": self.loss, "model": 3}
        values |= {"bucket": self.bucket, "minn": self.minn, "maxn": self.maxn, "lr": 100, **args}
        entries = [*zip(self.words, [5] * len(self.words), [0] * len(self.words), strict=True)]
        entries += zip(self.labels, self.counts, [1] * len(self.labels), strict=True)
        pairs = self.pruned or {}
        return b"".join(
            [
                struct.pack("<ii12id", 793712314, self.version, *values.values(), 1e-4),
                struct.pack("<iii", len(entries), len(self.words), len(self.labels)),
                struct.pack("<qq", 1_000, -1 if self.pruned is None else len(pairs)),
                *(name + b"\0" + struct.pack("<qb", count, kind) for name, count, kind in entries),
                *(struct.pack("<ii", *pair) for pair in pairs.items()),
                self.codes(self.input) if self.quantised else self.dense(self.input),
                self.codes(self.output) if self.output_quantised else self.dense(self.output),
            ]
        )

    def dense(self, matrix: NDArray[np.float32]) -> bytes:
        return struct.pack("<?qq", False, *matrix.shape) + matrix.tobytes()

    def codes(self, matrix: NDArray[np.float32]) -> bytes:
        """Parts of 3 numbers, the last perhaps narrower, over rows halved, with norms of 2."""
        rows, dim = matrix.shape
        parts = -(-dim // 3)
        centroids = np.zeros((256, dim), "<f4")
        centroids[:rows] = matrix / 2
        codes = bytes(row for row in range(rows) for _ in range(parts))
        values = b"".join(centroids[:, at : at + 3].tobytes() for at in range(0, dim, 3))
        head = struct.pack("<??qqi", True, True, rows, dim, len(codes))
        tail = bytes(rows) + struct.pack("<iiii", 1, 1, 1, 1) + np.full(256, 2, "<f4").tobytes()
        return head + codes + struct.pack("<iiii", dim, parts, 3, dim - 3 * (parts - 1)) + values + tail

    def hidden(self, text: str) -> NDArray[np.float64] | None:
        rows: list[int] = []
        hashes: list[int] = []
        tokens = [token for token in re.split(b"[\0\t\n\v\f\r ]+", text.encode()) if token]
        for token in [*tokens, b"</s>"]:
            if token in self.words:
                rows.append(self.words.index(token))
            elif token in self.labels or token.startswith(b"__label__"):
                continue
            value = fnv(token)
            hashes.append(value - (1 << 32) if value >= 1 << 31 else value)
            if token == b"</s>":
                break
            rows += self.ngrams("<" + token.decode() + ">")
        for first in range(len(hashes)):
            mixed = hashes[first]
            for other in hashes[first + 1 : first + self.word_ngrams]:
                mixed = (mixed * 116049371 + other) % (1 << 64)
                rows += self.row_of(mixed % self.bucket)
        return self.input[rows].astype(float).mean(axis=0) if rows else None

    def ngrams(self, word: str) -> list[int]:
        rows = []
        for start in range(len(word)):
            for n in range(self.minn, (0 if self.version == 11 else self.maxn) + 1):
                gram = word[start : start + n]
                if len(gram) < n or n == 0 or (gram in ("<", ">") and start in (0, len(word) - 1)):
                    continue
                rows += self.row_of(fnv(gram.encode()) % self.bucket)
        return rows

    def row_of(self, bucket: int) -> list[int]:
        if self.pruned is None:
            return [len(self.words) + bucket]
        return [len(self.words) + self.pruned[bucket]] if bucket in self.pruned else []

    def shares(self, text: str) -> dict[str, float] | None:
        """Score every label; None where nothing is known of the text."""
        hidden = self.hidden(text)
        if hidden is None:
            return None
        dots = self.output.astype(float) @ hidden
        if self.loss == HS:
            found = self.paths(hidden)
        elif self.loss == SOFTMAX:
            powers = np.exp(dots - dots.max())
            found = dict(enumerate(powers / powers.sum() + 1e-5))
        else:
            found = {number: stepped(float(np.float32(dot))) + 1e-5 for number, dot in enumerate(dots)}
        return {self.labels[number].decode().removeprefix("__label__"): score for number, score in found.items()}

    def paths(self, hidden: NDArray[np.float64]) -> dict[int, float]:
        """Multiply out the path to each leaf of the Huffman tree."""
        leaves: list[tuple[float, object]] = []
        leaves += [(count, number) for number, count in enumerate(self.counts)][::-1]
        inner: list[tuple[float, object]] = []
        for number in range(len(self.labels) - 1):
            pair = []
            for _ in range(2):
                take = leaves if leaves and (not inner or leaves[0][0] < inner[0][0]) else inner
                pair.append(take.pop(0))
            inner.append((pair[0][0] + pair[1][0], (number, pair[0][1], pair[1][1])))
        found: dict[int, float] = {}
        waiting: list[tuple[float, object]] = [(1.0, (inner or leaves)[0][1])]
        while waiting:
            share, node = waiting.pop()
            if isinstance(node, tuple):
                right = 1 / (1 + math.exp(-float(self.output[node[0]] @ hidden)))
                waiting += [(share * (1 - right + 1e-5), node[1]), (share * (right + 1e-5), node[2])]
            else:
                found[node] = share  # type: ignore[index]
        return found

    def answer(self, text: str) -> tuple[str | None, float]:
        """The likeliest label and its score."""
        found = self.shares(text)
        return max(found.items(), key=lambda item: item[1]) if found else (None, 0.0)


def stepped(dot: float) -> float:
    """The sigmoid as fastText's table has it: 512 steps between -8 and 8."""
    if abs(dot) > 8:
        return float(dot > 0)
    return 1 / (1 + math.exp(8 - int((dot + 8) * 32) / 32))


def fnv(token: bytes) -> int:
    value = 2166136261
    for byte in token:
        value = (value ^ (byte - 256 if byte > 127 else byte) & 0xFFFFFFFF) * 16777619 % 2**32
    return value
