"""fastText's label for a text, compiled: models of 16 dimensions without word n-grams, as lid.176 is.

Labels equal those of the library on 60,000 documents and passages and 80,000 random mixes; scores lie within 5e-5
(of the library's sum in float32: within 1e-3 where one word is repeated 100,000 times).

The library's sums run in float32 over every n-gram; here a word's rows are added in float32 and the words in float64,
which is nearer to the exact sum. Exponential and logarithm are our own, so that a score is the same on every machine.
Some 70 to 100 MB a second and core against 7 to 15 of the library: words come again, and a table remembers them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .fasttext_labels import ranked
from .fasttext_model import DIM, Tables, hash_byte
from .fasttext_reader import HIERARCHICAL
from .floats import exp, log

Bytes = NDArray[np.uint8]
Word = np.uint64

MEMO_BITS = 14
LONGEST_KEY = 32  # bytes of a word that the memo holds
PIECE = 64  # n-gram starts of a long word that are looked up together
_PAD = 40  # bytes that may be read behind a text

_EACH = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_BLANKS = np.uint64(0x2121212121212121)
_ONE = np.uint64(1)
_NONE = np.uint64(0)
END = np.uint64(int.from_bytes(b"</s>", "little"))
_LABEL = np.frombuffer(b"__label__", np.uint8).copy()
SEPARATES = np.isin(np.arange(256), list(b"\0\t\n\v\f\r "))


def predict(
    offsets: NDArray[np.int64],
    data: Bytes,
    tables: Tables,
    memo: NDArray[np.uint64],
    top: int = 1,
    threshold: float = 0.0,
    wanted: int = -1,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Label n texts: label numbers (n, top), -1 where there are no more, and scores (n, top), the likeliest first.

    A newline is read as a space: the same as the library's `predict(text.replace("\\n", " "), top, threshold)`. With a
    label's number as `wanted`, its score alone. `memo` is scratch that belongs to one thread and one model, and changes
    nothing but the time: see `new_memo`.
    """
    text, wide = padded(offsets)
    hidden = np.zeros((len(offsets) - 1, DIM), np.float64)
    counts = np.zeros(len(hidden), np.int64)
    _vectors(offsets, data, tables, memo, text, wide, hidden, counts)
    if top > 1 or threshold > 0.0 or wanted >= 0 or tables.loss != HIERARCHICAL:
        return ranked(hidden, counts, tables, top, threshold, wanted)
    numbers, scores = _best_labels(hidden, counts, tables)
    return numbers[:, None], scores[:, None]


def padded(offsets: NDArray[np.int64]) -> tuple[Bytes, NDArray[np.uint64]]:
    """Make room for the longest text and what may be read behind it; as bytes, and as 8-byte words at every byte.

    The words are for the compiler, which emits plain unaligned loads.
    """
    longest = int(np.diff(offsets).max(initial=0))
    text = np.zeros(longest + _PAD + 2, np.uint8)
    return text, np.ndarray((longest + _PAD - 6,), np.uint64, text.data, strides=(1,))


def new_memo(bits: int = MEMO_BITS) -> NDArray[np.uint64]:
    """Make an empty memo: an entry has 32 bytes of a word, 64 of its vector, its count of rows; 0 is for long words."""
    return np.zeros(((1 << bits) + 1, 16), np.uint64)


@kernel
def _vectors(
    offsets: NDArray[np.int64],
    data: Bytes,
    tables: Tables,
    memo: NDArray[np.uint64],
    text: Bytes,
    wide: NDArray[np.uint64],
    hidden: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    """Fill in the vectors of n texts (n, 16) and how many rows each is the mean of (n,)."""
    total = np.empty(DIM, np.float64)
    found = np.empty(PIECE * tables.longest + 8, np.int64)
    for row in range(len(offsets) - 1):
        size = copy_text(offsets, data, row, text)
        counts[row] = _sum_words(text, wide, size + 1, tables, memo, found, total)
        if counts[row]:
            share = np.float32(1.0 / counts[row])
            for d in range(DIM):
                hidden[row, d] = np.float32(np.float32(total[d]) * share)


@kernel
def _best_labels(
    hidden: NDArray[np.float64], counts: NDArray[np.int64], tables: Tables
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give the likeliest label of each text by a tree, and its score."""
    numbers = np.full(len(hidden), -1, np.int64)
    scores = np.zeros(len(hidden), np.float64)
    stack = np.empty(len(tables.left) + 2, np.int64)
    waiting = np.empty(len(tables.left) + 2, np.float32)
    for row in range(len(hidden)):
        if counts[row]:
            numbers[row], scores[row] = _best_label(hidden[row], tables, stack, waiting)
    return numbers, scores


@kernel
def copy_text(offsets: NDArray[np.int64], data: Bytes, row: int, text: Bytes) -> int:
    """Copy a text to text[1:], blanks behind it; give its size."""
    size = offsets[row + 1] - offsets[row]
    for at in range(size):
        text[1 + at] = data[offsets[row] + at]
    for at in range(size + 1, size + 1 + _PAD):
        text[at] = 32
    return int(size)


@kernel
def _sum_words(
    text: Bytes,
    wide: NDArray[np.uint64],
    end: int,
    tables: Tables,
    memo: NDArray[np.uint64],
    found: NDArray[np.int64],
    total: NDArray[np.float64],
) -> int:
    """Add up the vectors of text[1:end] and of the end of the line; give the number of rows that were added.

    What it calls are leaves: they get by without counting references to the tables, which costs more than a short word.
    """
    vectors, counts = memo.view(np.float32), memo.view(np.int32)
    for d in range(DIM):
        total[d] = tables.rows[tables.sentence_end, d]  # row -1 is the zeros at the end
    count = 1 if tables.sentence_end >= 0 else 0
    here = 1
    while True:
        while SEPARATES[text[here]] and here < end:
            here += 1
        if here >= end:
            break
        k0, k1, k2, k3, length = word_key(wide[here], wide[here + 8], wide[here + 16], wide[here + 24])
        if k0 == END and length == 4 and SEPARATES[text[here + 4]]:
            break
        slot = 1 + mix(k0, k1, k2, k3) & (len(memo) - 2)
        if length == LONGEST_KEY or not SEPARATES[text[here + length]]:
            slot = 0
            while not SEPARATES[text[here + length]]:
                length += 1
        if slot == 0 or memo[slot, 0] != k0 or memo[slot, 1] != k1 or memo[slot, 2] != k2 or memo[slot, 3] != k3:
            memo[slot, 0], memo[slot, 1], memo[slot, 2], memo[slot, 3] = k0, k1, k2, k3
            entry = find_entry(text, here, here + length, hash_of(text, here, here + length), tables)
            counts[slot, 24] = 0
            first, last = here - 1, here + length
            if entry >= tables.words or (entry < 0 and is_label(text, here, last)):
                _add_rows(tables.rows, found, 0, vectors, slot, True)
                last = first - 1
            for piece in range(first, last + 1, PIECE):
                rows = find_rows(text, here, last, entry if piece == first else -1, piece, tables, found, 0)
                _add_rows(tables.rows, found, rows, vectors, slot, piece == first)
                counts[slot, 24] += rows
        for d in range(DIM):
            total[d] += vectors[slot, 8 + d]
        count += counts[slot, 24]
        here += length
    return count


@kernel
def word_key(w0: Word, w1: Word, w2: Word, w3: Word) -> tuple[Word, Word, Word, Word, int]:
    """Keep the bytes before the first below 0x21, of 32 in little-endian words, the others zero, and count them."""
    k0, length = _until_blank(w0)
    k1, k2, k3 = w1, w2, w3
    if length < 8:
        k1 = k2 = k3 = _NONE
    else:
        k1, more = _until_blank(w1)
        length += more
        if more < 8:
            k2 = k3 = _NONE
        else:
            k2, more = _until_blank(w2)
            length += more
            k3, more = _until_blank(w3 if more == 8 else _NONE)
            length += more
    return k0, k1, k2, k3, length


@kernel
def _until_blank(word: Word) -> tuple[Word, int]:
    """Keep the bytes before the first below 0x21, the others zero, and count them."""
    marks = (word - _BLANKS) & ~word & _HIGH  # exact for the lowest one
    below = ((marks & (~marks + _ONE)) >> np.uint64(7)) - _ONE
    return word & below, int(np.int64(((below & _EACH) * _EACH) >> np.uint64(56)))


@kernel
def mix(k0: Word, k1: Word, k2: Word, k3: Word) -> int:
    """Mix a key into the number of a memo's entry."""
    mixed = k0 + k1 * np.uint64(0x9E3779B97F4A7C15) + k2 * np.uint64(0xC2B2AE3D27D4EB4F) + (k3 << np.uint64(17))
    return int(np.int64((mixed * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(40)))


@kernel
def find_rows(
    text: Bytes, start: int, end: int, entry: int, piece: int, tables: Tables, found: NDArray[np.int64], count: int
) -> int:
    """Append to found[:count] an entry's row and those of the n-grams that start in a piece of a word; count all."""
    if entry >= 0:
        found[count] = entry
        count += 1
    before, after = text[start - 1], text[end]
    text[start - 1], text[end] = 60, 62  # fastText hashes `<word>`; a blank stands on both sides
    for first in range(piece, min(piece + PIECE, end + 1)):
        if text[first] & 0xC0 != 0x80:
            value = np.uint32(2166136261)
            here = first
            for characters in range(1, tables.longest + 1):
                if here > end:
                    break
                value = hash_byte(value, text[here])
                here += 1
                while here <= end and text[here] & 0xC0 == 0x80:
                    value = hash_byte(value, text[here])
                    here += 1
                if characters >= tables.shortest and (characters > 1 or (first >= start and here <= end)):
                    found[count], kept = ngram_row(value, tables)
                    count += kept
    text[start - 1], text[end] = before, after
    return count


@kernel
def _add_rows(
    rows: NDArray[np.float32], found: NDArray[np.int64], count: int, sums: NDArray[np.float32], slot: int, fresh: bool
) -> None:
    """Add the found rows to sums[slot, 8:24], or set it to their sum; four at a time, the last row being of zeros."""
    for at in range(count, count + 3):
        found[at] = len(rows) - 1
    if fresh:
        for d in range(DIM):
            sums[slot, 8 + d] = np.float32(0)
    for at in range(0, count, 4):
        r0, r1, r2, r3 = found[at], found[at + 1], found[at + 2], found[at + 3]
        for d in range(DIM):
            sums[slot, 8 + d] += (rows[r0, d] + rows[r1, d]) + (rows[r2, d] + rows[r3, d])


@kernel
def ngram_row(value: np.uint32, tables: Tables) -> tuple[int, int]:
    """Find the row of an n-gram by its hash, and 1 or 0: whether its bucket was kept."""
    wide = np.int64(value)
    bucket = wide - ((wide * tables.inverse) >> 32) * tables.bucket  # the remainder, or one bucket more: no division
    bucket -= tables.bucket if bucket >= tables.bucket else 0
    return kept_row(int(bucket), tables)


@kernel
def kept_row(bucket: int, tables: Tables) -> tuple[int, int]:
    """Find the row of a bucket, and whether it was kept; no branch on that, for it may be either."""
    if not tables.pruned:
        return tables.words + bucket, 1
    bits = tables.bitmap[bucket >> 6] << np.uint64(63 - (bucket & 63))
    kept = int(np.int64(bits >> np.uint64(63)))
    bits -= (bits >> _ONE) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    ones = int(np.int64((bits * _EACH) >> np.uint64(56)))
    return tables.words + tables.rank[bucket >> 6] + ones - kept, kept


@kernel
def hash_of(text: Bytes, start: int, end: int) -> np.uint32:
    """Hash a token as fastText does."""
    value = np.uint32(2166136261)
    for here in range(start, end):
        value = hash_byte(value, text[here])
    return value


@kernel
def find_entry(text: Bytes, start: int, end: int, value: np.uint32, tables: Tables) -> int:
    """Find a token of this hash in the dictionary: its number, or -1."""
    slot = np.int64(value) & (len(tables.slots) - 1)
    while tables.slots[slot] != _NONE:
        if tables.slots[slot] >> np.uint64(32) == np.uint64(value):
            entry = np.int64(tables.slots[slot] & np.uint64(0xFFFFFFFF)) - 1
            name = tables.starts[entry]
            if tables.ends[entry] - name == end - start:
                same = 0
                while same < end - start and tables.names[name + same] == text[start + same]:
                    same += 1
                if same == end - start:
                    return int(entry)
        slot = (slot + 1) & (len(tables.slots) - 1)
    return -1


@kernel
def is_label(text: Bytes, start: int, end: int) -> bool:
    """Say whether a token without an entry starts as labels do: such a token is left out."""
    same = 0
    while same < len(_LABEL) and start + same < end and text[start + same] == _LABEL[same]:
        same += 1
    return same == len(_LABEL)


@kernel
def _best_label(
    hidden: NDArray[np.float64], tables: Tables, stack: NDArray[np.int64], waiting: NDArray[np.float32]
) -> tuple[int, float]:
    """Search the tree for the likeliest label, left before right; paths worse than the best so far are left."""
    labels = len(tables.output)
    least = np.float32(log(1e-5))
    best, best_score = -1, np.float32(0)
    stack[0], waiting[0] = len(tables.left) - 1, 0.0
    held = 1
    while held:
        held -= 1
        node, score = stack[held], waiting[held]
        if score < least or (best >= 0 and score < best_score):
            continue
        if node < labels:
            best, best_score = node, score
            continue
        dot0 = dot1 = dot2 = dot3 = 0.0
        for d in range(0, DIM, 4):
            dot0 += tables.output[node - labels, d] * hidden[d]
            dot1 += tables.output[node - labels, d + 1] * hidden[d + 1]
            dot2 += tables.output[node - labels, d + 2] * hidden[d + 2]
            dot3 += tables.output[node - labels, d + 3] * hidden[d + 3]
        share = np.float32(1.0 / (1.0 + exp(-((dot0 + dot1) + (dot2 + dot3)))))
        stack[held], waiting[held] = tables.right[node], score + np.float32(log(np.float64(share) + 1e-5))
        rest = np.float32(1.0 - share)
        stack[held + 1], waiting[held + 1] = tables.left[node], score + np.float32(log(np.float64(rest) + 1e-5))
        held += 2
    return best, np.float64(np.float32(exp(np.float64(best_score)))) if best >= 0 else 0.0
