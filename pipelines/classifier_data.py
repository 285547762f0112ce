"""Examples for a classifier: a keyed sample of files' texts, the same whatever the order and number of the files.

A text's key is a hash of the seed and its bytes: the smallest keys are the sample, their order is that of the training,
and a part of the key says whether a text is held out. So equal texts fall together, and none is on both sides.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from .. import InputError, RequestError
from ..transforms.files import list_files, open_input
from ..transforms.readers import detect_format
from .texts import texts_of

#: What fastText reads as the end of a text, or as a label: a text must bring neither into a training file.
_END = re.compile(r"(?:^|(?<=[\0\t\n\v\f\r ]))</s>(?=[\0\t\n\v\f\r ]|$)")
_LABEL = re.compile(r"(?:^|(?<=[\0\t\n\v\f\r ]))__label__[^\0\t\n\v\f\r ]*")


class Example(NamedTuple):
    """A text of a class; examples sort by their keys."""

    key: int
    label: str
    text: str


def line_of(text: str) -> str:
    """Write a text as one line for fastText, with what a prediction would leave out left out."""
    end = _END.search(text)
    return " ".join(_LABEL.sub("", text[: end.start()] if end else text).replace("\0", " ").split("\n")).strip()


def key_of(text: str, seed: int) -> int:
    """Hash a text to 64 bits."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed)


def smallest(texts: Iterable[str], label: str, most: int | None, seed: int) -> list[Example]:
    """Keep the `most` texts of the smallest keys, each once, in that order; memory holds no more than those."""
    held: dict[int, Example] = {}
    largest: list[int] = []
    for text in texts:
        line = line_of(text)
        key = key_of(line, seed)
        if not line or key in held or (most is not None and len(held) >= most and key > -largest[0]):
            continue
        held[key] = Example(key, label, line)
        if most is not None:
            heapq.heappush(largest, -key)
            if len(held) > most:
                del held[-heapq.heappop(largest)]
    return sorted(held.values())


def held_out(example: Example, share: float) -> bool:
    """Whether an example is for testing: by bits of its key that its place in the sample does not depend on."""
    return (example.key * 0x9E3779B97F4A7C15 >> 32) % (1 << 32) < share * (1 << 32)


def columns(patterns: Sequence[str], *names: str) -> Iterator[tuple[Any, ...]]:
    """Read columns of Parquet files, row by row."""
    for pattern in patterns:
        for entry in list_files(pattern):
            if detect_format(entry.path) != "parquet":
                raise RequestError(f"scores are read from Parquet files (a run's documents), and {entry.path} is none")
            with open_input(entry.url, entry.size) as file:
                table = pq.ParquetFile(file)
                if missing := [name for name in names if name not in table.schema_arrow.names]:
                    present = ", ".join(table.schema_arrow.names)
                    raise InputError(f"{entry.path} has no column {missing[0]!r}; it has {present}")
                for batch in table.iter_batches(256, columns=list(names)):
                    yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)


def scored_texts(
    patterns: Sequence[str], column: str, text_field: str, at_least: float | None, below: float | None
) -> Iterator[str]:
    """Read the texts of Parquet files whose score lies on one side of a bound."""
    for score, text in columns(patterns, column, text_field):
        if score is None or not text:
            continue
        if (at_least is not None and score >= at_least) or (below is not None and score < below):
            yield text


def percentiles_by(patterns: Sequence[str], column: str, by: str) -> dict[str, NDArray[np.float64]]:
    """Give percentiles 0 to 100 of a score, for each value of another column, by name."""
    found: dict[str, list[float]] = {}
    for score, name in columns(patterns, column, by):
        if score is not None and name is not None:
            found.setdefault(str(name), []).append(float(score))
    return {name: np.percentile(values, range(101)) for name, values in sorted(found.items())}


def texts(
    patterns: Sequence[str], text_field: str, column: str | None, at_least: float | None, below: float | None
) -> Iterator[str]:
    """Read the texts of a class: all of its files', or those that a score picks."""
    if column is None:
        return texts_of(patterns, text_field)
    return scored_texts(patterns, column, text_field, at_least, below)
