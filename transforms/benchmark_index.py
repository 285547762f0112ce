"""Benchmark items as an index of their n-grams: normalised text, grams, and the items that hold each.

33,053 items with 879,000 different 13-grams take 7 s, and 520 MB while they are laid out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from .. import InputError
from .files import FileEntry, detect_format, list_files
from .kernels.decontaminate import Index
from .kernels.item_grams import Grams, build_grams, different_words, equal_runs, gram_hashes, word_starts
from .kernels.simplify import simplify_rows
from .readers import Fields, Piece, read
from .step import utf8_buffers

#: Most bytes of the items' normalised text.
LARGEST = 1 << 31


class ItemFields(BaseModel):
    """Which fields of the user's records hold what of an item.

    `query` is what a model is asked, and stands before `text`; `id` names the item, by default `path#place`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = "text"
    query: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Item:
    """One benchmark item."""

    name: str
    query: str
    text: str


@dataclass(frozen=True)
class Rules:
    """Which n-grams of an item count: of `ngram` words; of the whole item, from `shortest` words on (0: none such)."""

    ngram: int
    shortest: int
    different: int  # words, at least: "0 0 0 0", which every table of numbers is, says nothing
    query_ngrams: bool  # those that lie in the query alone too


@dataclass(frozen=True)
class BenchmarkIndex:
    """What the kernel looks up. `left_out` items have too few words to be told from chance."""

    names: pa.Array
    sha256: str
    long: Grams
    short: Grams
    key: int
    shorter: int
    index: Index
    left_out: int


@lru_cache(1)
def simplify_table() -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Unfold the table of the normalisation: one entry a code point, and the pool of replacements."""
    with np.load(Path(__file__).parent / "data" / "simplify.npz") as stored:
        return stored["blocks"][stored["index"]].reshape(-1), stored["pool"]


def benchmark_files(patterns: Sequence[str]) -> list[FileEntry]:
    """List the files of benchmarks, as inputs are listed."""
    return [entry for pattern in patterns for entry in list_files(pattern)]


def read_items(entries: Sequence[FileEntry], fields: ItemFields) -> list[Item]:
    """Read every item. InputError: a file or a record cannot be read; a benchmark with a gap protects from nothing."""
    items = []
    query = (fields.query,) if fields.query else ()
    mapped = Fields(text=fields.text, id=fields.id, metadata=query)
    for entry in entries:
        piece = Piece(entry.url, "benchmark", entry.path, detect_format(entry.path), entry.size)
        for outcome in read(piece, mapped):
            batch = outcome.batch
            for row, error in enumerate(outcome.errors.to_pylist() if outcome.errors is not None else ()):
                if error is not None:
                    raise InputError(f"{entry.path}#{batch['place'][row]}: the item cannot be read: {error}")
            columns = (batch.column(name).to_pylist() for name in ("place", "source_id", "text", "metadata"))
            for place, name, text, metadata in zip(*columns, strict=True):
                asked = json.loads(metadata or "{}").get(fields.query) if fields.query else ""
                if not isinstance(asked, str):
                    raise InputError(f"{entry.path}#{place}: the field {fields.query!r} holds {asked!r} and not a text")
                items.append(Item(name or f"{entry.path}#{place}", asked, text or ""))
    return items


def build_index(items: Sequence[Item], rules: Rules) -> BenchmarkIndex:
    """Index items by their n-grams, as the rules say."""
    ngram, shortest = rules.ngram, rules.shortest
    offsets, text, own = _normalised(items)
    starts, first = word_starts(offsets, text)
    words = np.diff(first)
    begin = np.zeros(len(items), np.int64) if rules.query_ngrams else np.maximum(own - ngram + 1, 0)
    counts = np.maximum(words - ngram + 1 - begin, 0)
    whole = (words < ngram) & (words >= shortest) & (shortest > 0)
    item = np.repeat(np.arange(len(items)), counts)
    place = np.arange(len(item)) - np.repeat(np.cumsum(counts) - counts, counts) + begin[item]
    item = np.concatenate([item, np.flatnonzero(whole)])
    place = np.concatenate([place, np.zeros(int(whole.sum()), np.int64)])
    lengths = np.where(whole[item], words[item], ngram).astype(np.int32)
    behind = np.append(starts, 0)[np.minimum(first[item] + place + lengths, len(starts))] - 1
    ends = np.where(place + lengths == words[item], offsets[item + 1], behind)
    begins = starts[first[item] + place]
    some = different_words(text, begins, ends) >= rules.different
    return _index(items, text, (begins[some], ends[some], lengths[some]), item[some], rules)


def _normalised(items: Sequence[Item]) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Normalise items, query before text: offsets, bytes, and the number of words of each query."""
    parts = []
    for texts in ([item.query for item in items], [item.text for item in items]):
        offsets, data = simplify_rows(*utf8_buffers(pa.array(texts, pa.large_string())), *simplify_table())
        parts.append([bytes(data[a:b]) for a, b in pairwise(offsets.tolist())])
    joined = [b" ".join(part for part in pair if part) for pair in zip(*parts, strict=True)]
    offsets = np.cumsum([0, *map(len, joined)], dtype=np.int64)
    if offsets[-1] >= LARGEST:
        raise InputError(f"the benchmarks have {offsets[-1]} bytes of text, and at most {LARGEST - 1} fit: split them")
    own = np.array([part.count(b" ") + 1 if part else 0 for part in parts[0]], np.int64)
    return offsets, np.frombuffer(b"".join(joined), np.uint8), own


def _index(
    items: Sequence[Item],
    text: NDArray[np.uint8],
    grams: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]],
    item: NDArray[np.int64],
    rules: Rules,
) -> BenchmarkIndex:
    """Make equal grams one, and list the items of each."""
    starts, ends, lengths = grams
    hashes = gram_hashes(text, starts, ends, lengths, 0)
    same = equal_runs(text, starts, ends, hashes, np.argsort(hashes, kind="stable"))
    kept, number = np.unique(same, return_inverse=True)
    pairs = np.unique(number.astype(np.int64) * (len(items) + 1) + item)
    gram, holder = np.divmod(pairs, len(items) + 1)
    first = np.searchsorted(gram, np.arange(len(kept) + 1))
    totals = np.bincount(holder, minlength=len(items)).astype(np.int32)
    starts, ends, lengths, hashes = starts[kept], ends[kept], lengths[kept], hashes[kept]
    long, short = (np.flatnonzero(lengths == rules.ngram), np.flatnonzero(lengths < rules.ngram))
    prefixes = gram_hashes(text, starts[short], ends[short], lengths[short], rules.shortest)
    return BenchmarkIndex(
        names=pa.array([each.name for each in items], pa.large_string()),
        sha256=_digest(items),
        long=build_grams(hashes[long], long),
        short=build_grams(prefixes, short),
        key=rules.ngram,
        shorter=rules.shortest if len(short) else 0,
        index=(text, np.column_stack([starts, ends]), lengths, first, holder.astype(np.int32), totals),
        left_out=int((totals == 0).sum()),
    )


def _digest(items: Sequence[Item]) -> str:
    """Hash what the items say, however their files are written."""
    total = sha256()
    for item in items:
        for part in (item.name, item.query, item.text):
            body = part.encode("utf-8", "surrogatepass")
            total.update(len(body).to_bytes(8, "little") + body)
    return total.hexdigest()
