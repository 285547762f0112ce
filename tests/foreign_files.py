"""Token files of others, written and read here by their plain definitions: the slow oracle of the exporters' tests."""

from __future__ import annotations

import csv
import gzip
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CODES: dict[int, Any] = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}


def write_megatron(prefix: Path, sequences: Sequence[Sequence[int]], marks: Sequence[int], code: int) -> None:
    """Sequences one behind the other, and the first sequence of each document."""
    kind = CODES[code]
    prefix.parent.mkdir(parents=True, exist_ok=True)
    bodies = [np.array(sequence, kind).tobytes() for sequence in sequences]
    prefix.with_suffix(".bin").write_bytes(b"".join(bodies))
    pointers = [sum(map(len, bodies[:at])) for at in range(len(bodies))]
    with prefix.with_suffix(".idx").open("wb") as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sequences), len(marks)))
        for layout, values in (("i", map(len, sequences)), ("q", pointers), ("q", marks)):
            for value in values:
                file.write(struct.pack("<" + layout, value))


def read_megatron(prefix: Path) -> list[list[int]]:
    """The documents of a prefix."""
    body = prefix.with_suffix(".idx").read_bytes()
    magic, version, code, sequences, marks = struct.unpack_from("<9sQBQQ", body)
    assert (magic, version) == (b"MMIDIDX\0\0", 1)
    lengths = struct.unpack_from(f"<{sequences}i", body, 34)
    pointers = struct.unpack_from(f"<{sequences}q", body, 34 + 4 * sequences)
    documents = struct.unpack_from(f"<{marks}q", body, 34 + 12 * sequences)
    assert len(body) == 34 + 12 * sequences + 8 * marks
    payload = prefix.with_suffix(".bin").read_bytes()
    kind = np.dtype(CODES[code])
    each = [
        np.frombuffer(payload, kind, length, pointer).tolist()
        for length, pointer in zip(lengths, pointers, strict=True)
    ]
    return [[token for sequence in each[low:high] for token in sequence] for low, high in pairwise(documents)]


def read_datatrove(path: Path) -> list[list[int]]:
    """The documents of a `.ds`."""
    name, tokens, _ = path.with_name(path.name + ".metadata").read_text().split("\n")
    body = path.read_bytes()
    width = int(name.split("|")[-1])
    assert len(body) == int(tokens) * width
    flat = np.frombuffer(body, f"<u{width}").tolist()
    index = path.with_name(path.name + ".index").read_bytes()
    ends = struct.unpack(f"<{len(index) // 8}Q", index)
    assert ends[-1] == len(flat)
    return [flat[start:end] for start, end in zip((0, *ends), ends, strict=False)]


def read_olmo(path: Path, kind: str) -> list[list[int]]:
    """The documents of an OLMo array."""
    flat = np.fromfile(path, kind).tolist()
    with gzip.open(path.with_suffix(".csv.gz"), "rt", newline="") as text:
        rows = list(csv.reader(text))
    assert int(rows[-1][1]) == len(flat)
    return [flat[int(row[0]) : int(row[1])] for row in rows]


def read_parquet(path: Path) -> list[list[int]]:
    """The documents of a Parquet file."""
    import pyarrow.parquet as pq

    column: list[list[int]] = pq.read_table(path).column("input_ids").to_pylist()
    return column


def read_llmc(path: Path, eos: int) -> list[list[int]]:
    """The documents of an llm.c file, by EOS."""
    magic, version, count = np.fromfile(path, "<i4", 3).tolist()
    kind = {(20240520, 1): "<u2", (20240801, 7): "<u4"}[magic, version]
    flat = np.fromfile(path, kind, offset=1024).tolist()
    assert len(flat) == count
    return cut(flat, eos)


def cut(flat: Sequence[int], eos: int) -> list[list[int]]:
    """Cut behind every EOS."""
    documents: list[list[int]] = [[]]
    for token in flat:
        documents[-1].append(token)
        if token == eos:
            documents.append([])
    return documents if documents[-1] else documents[:-1]
