"""fastText's labels for a text, compiled: supervised models of any dimension, loss and n-grams, dense or quantised.

Rows are added in float32 one after another in the library's order, so the vector of a text is the library's to the bit.
Only where words have subwords (and the loss reads no table of steps) a word's vector is remembered and words are added
whole, which is within 5e-5 of the library. The rows of a model of gigabytes are read where they lie.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .fasttext import (
    END,
    LONGEST_KEY,
    PIECE,
    SEPARATES,
    copy_text,
    find_entry,
    find_rows,
    hash_of,
    is_label,
    kept_row,
    mix,
    padded,
    word_key,
)
from .fasttext_labels import ranked
from .fasttext_model import FastTextModel, Tables, hash_byte
from .fasttext_reader import HIERARCHICAL, SOFTMAX

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Longs = NDArray[np.int64]

_FLUSH = 1024  # rows that are found before they are added
_MEMO_BYTES = 4 << 20


class Memo(NamedTuple):
    """Words that were met: a direct-mapped table, entry 0 for longer ones; with that alone, none are kept."""

    keys: NDArray[np.uint64]  # (entries, 4)
    counts: NDArray[np.int64]
    sums: Floats  # (entries, dim)


def new_memo(model: FastTextModel) -> Memo:
    """Make an empty memo for one thread, of a power of two and one entries; of one where the model needs none."""
    tables, entries = model.tables, 0
    if tables.longest and tables.loss in (HIERARCHICAL, SOFTMAX):
        entries = 1 << max((_MEMO_BYTES // (4 * model.dim)).bit_length() - 1, 6)
    return Memo(
        np.zeros((entries + 1, 4), np.uint64),
        np.zeros(entries + 1, np.int64),
        np.zeros((entries + 1, model.dim), np.float32),
    )


def predict(
    offsets: Longs,
    data: Bytes,
    model: FastTextModel,
    memo: Memo,
    top: int = 1,
    threshold: float = 0.0,
    wanted: int = -1,
) -> tuple[Longs, NDArray[np.float64]]:
    """Label n texts, as `fasttext.predict` does: numbers (n, top) and scores (n, top)."""
    text, wide = padded(offsets)
    hashes = np.empty(len(text) // 2 + 2 if model.tables.word_ngrams > 1 else 1, np.int32)
    hidden = np.zeros((len(offsets) - 1, model.dim), np.float64)
    counts = np.zeros(len(hidden), np.int64)
    _vectors(offsets, data, model.tables, memo, text, wide, hashes, hidden, counts)
    return ranked(hidden, counts, model.tables, top, threshold, wanted)


@kernel
def _vectors(
    offsets: Longs,
    data: Bytes,
    tables: Tables,
    memo: Memo,
    text: Bytes,
    wide: NDArray[np.uint64],
    hashes: NDArray[np.int32],
    hidden: NDArray[np.float64],
    counts: Longs,
) -> None:
    """Fill in the vectors of n texts (n, dim) and how many rows each is the mean of (n,)."""
    dims = memo.sums.shape[1]
    sums = np.zeros((1, dims), np.float32)
    found = np.empty(_FLUSH + PIECE * tables.longest + 8, np.int64)
    for row in range(len(offsets) - 1):
        size = copy_text(offsets, data, row, text)
        for d in range(dims):
            sums[0, d] = np.float32(0)
        if len(memo.keys) > 1:
            count, words = _sum_remembered(text, wide, size + 1, tables, memo, found, hashes, sums)
        else:
            count, words = _sum_in_order(text, size + 1, tables, found, hashes, sums)
        counts[row] = count + _sum_word_ngrams(tables, hashes, words, found, sums)
        if counts[row]:
            share = np.float32(1.0 / counts[row])
            for d in range(dims):
                hidden[row, d] = np.float32(sums[0, d] * share)


@kernel
def _sum_in_order(
    text: Bytes, end: int, tables: Tables, found: Longs, hashes: NDArray[np.int32], sums: Floats
) -> tuple[int, int]:
    """Add the rows of text[1:end] and of the end of the line; give how many rows and how many words were met."""
    count = waiting = words = 0
    here = 1
    while True:
        while here < end and SEPARATES[text[here]]:
            here += 1
        if here >= end:
            break
        start = here
        value = np.uint32(2166136261)
        while not SEPARATES[text[here]]:
            value = hash_byte(value, text[here])
            here += 1
        if here - start == 4 and _ends(text, start):
            break
        entry = find_entry(text, start, here, value, tables)
        if entry >= tables.words or (entry < 0 and is_label(text, start, here)):
            continue
        words = _keep_hash(hashes, words, value, tables)
        if tables.longest == 0:
            found[waiting] = entry
            waiting += entry >= 0
        for piece in range(start - 1, here + 1 if tables.longest else start - 1, PIECE):
            waiting = find_rows(text, start, here, entry if piece < start else -1, piece, tables, found, waiting)
            if waiting > _FLUSH:
                _add_rows(tables, found, waiting, sums, 0)
                count, waiting = count + waiting, 0
        if waiting > _FLUSH:
            _add_rows(tables, found, waiting, sums, 0)
            count, waiting = count + waiting, 0
    found[waiting] = tables.sentence_end
    waiting += tables.sentence_end >= 0
    _add_rows(tables, found, waiting, sums, 0)
    return count + waiting, _keep_hash(hashes, words, hash_of(_END_BYTES, 0, 4), tables)


_END_BYTES = np.frombuffer(b"</s>", np.uint8).copy()


@kernel
def _ends(text: Bytes, at: int) -> bool:
    return bool(text[at] == 60 and text[at + 1] == 47 and text[at + 2] == 115 and text[at + 3] == 62)


@kernel
def _keep_hash(hashes: NDArray[np.int32], words: int, value: np.uint32, tables: Tables) -> int:
    """Keep a word's hash for the n-grams of words, where there are such."""
    if tables.word_ngrams > 1:
        hashes[words] = np.int32(value)
        return words + 1
    return 0


@kernel
def _sum_remembered(
    text: Bytes,
    wide: NDArray[np.uint64],
    end: int,
    tables: Tables,
    memo: Memo,
    found: Longs,
    hashes: NDArray[np.int32],
    sums: Floats,
) -> tuple[int, int]:
    """As `_sum_in_order`, word by word: a word's rows are added up once and remembered."""
    count = words = 0
    dims = sums.shape[1]
    if tables.sentence_end >= 0:
        found[0], count = tables.sentence_end, 1
        _add_rows(tables, found, 1, sums, 0)
    here = 1
    while True:
        while here < end and SEPARATES[text[here]]:
            here += 1
        if here >= end:
            break
        k0, k1, k2, k3, length = word_key(wide[here], wide[here + 8], wide[here + 16], wide[here + 24])
        if k0 == END and length == 4 and SEPARATES[text[here + 4]]:
            break
        slot = 1 + (mix(k0, k1, k2, k3) & (len(memo.keys) - 2))
        if length == LONGEST_KEY or not SEPARATES[text[here + length]]:
            slot = 0
            while not SEPARATES[text[here + length]]:
                length += 1
        key = memo.keys
        if slot == 0 or key[slot, 0] != k0 or key[slot, 1] != k1 or key[slot, 2] != k2 or key[slot, 3] != k3:
            key[slot, 0], key[slot, 1], key[slot, 2], key[slot, 3] = k0, k1, k2, k3
            _remember(text, here, here + length, tables, memo, found, slot)
        if memo.counts[slot] >= 0:
            for d in range(dims):
                sums[0, d] += memo.sums[slot, d]
            count += memo.counts[slot]
            if tables.word_ngrams > 1:
                words = _keep_hash(hashes, words, hash_of(text, here, here + length), tables)
        here += length
    return count, _keep_hash(hashes, words, hash_of(_END_BYTES, 0, 4), tables)


@kernel
def _remember(text: Bytes, start: int, end: int, tables: Tables, memo: Memo, found: Longs, slot: int) -> None:
    """Put a word's sum and number of rows into the memo: -1 for a label, which is no word."""
    entry = find_entry(text, start, end, hash_of(text, start, end), tables)
    for d in range(memo.sums.shape[1]):
        memo.sums[slot, d] = np.float32(0)
    memo.counts[slot] = 0
    if entry >= tables.words or (entry < 0 and is_label(text, start, end)):
        memo.counts[slot] = -1
        return
    for piece in range(start - 1, end + 1, PIECE):
        rows = find_rows(text, start, end, entry if piece < start else -1, piece, tables, found, 0)
        _add_rows(tables, found, rows, memo.sums, slot)
        memo.counts[slot] += rows


@kernel
def _sum_word_ngrams(tables: Tables, hashes: NDArray[np.int32], words: int, found: Longs, sums: Floats) -> int:
    """Add the rows of n-grams of words, hashed as fastText does; give their number."""
    count = waiting = 0
    bucket = np.uint64(max(tables.bucket, 1))
    for first in range(words):
        value = np.uint64(np.int64(hashes[first]))
        for last in range(first + 1, min(words, first + tables.word_ngrams)):
            value = np.uint64(value * np.uint64(116049371) + np.uint64(np.int64(hashes[last])))
            row, kept = kept_row(int(np.int64(value % bucket)), tables)
            found[waiting] = row
            waiting += kept
            if waiting > _FLUSH:
                _add_rows(tables, found, waiting, sums, 0)
                count, waiting = count + waiting, 0
    _add_rows(tables, found, waiting, sums, 0)
    return count + waiting


@kernel
def _add_rows(tables: Tables, found: Longs, count: int, sums: Floats, slot: int) -> None:
    """Add the found rows to sums[slot], in float32 and in their order."""
    dims = sums.shape[1]
    if len(tables.codes):
        for at in range(count):
            _add_codes(tables, found[at], sums, slot)
        return
    rows = tables.rows
    whole = count - count % 4
    for at in range(0, whole, 4):
        r0, r1, r2, r3 = found[at], found[at + 1], found[at + 2], found[at + 3]
        for d in range(dims):
            sums[slot, d] = (((sums[slot, d] + rows[r0, d]) + rows[r1, d]) + rows[r2, d]) + rows[r3, d]
    for at in range(whole, count):
        r0 = found[at]
        for d in range(dims):
            sums[slot, d] += rows[r0, d]


@kernel
def _add_codes(tables: Tables, row: int, sums: Floats, slot: int) -> None:
    """Add a quantised row: a centroid for each part, times the row's norm."""
    dims = sums.shape[1]
    norm = tables.norms[row]
    for part in range(tables.codes.shape[1]):
        first = part * tables.width
        some = min(tables.width, dims - first)
        base = first * 256 + np.int64(tables.codes[row, part]) * some
        for d in range(some):
            sums[slot, first + d] += np.float32(norm * tables.centroids[base + d])
