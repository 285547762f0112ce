"""n-grams of a benchmark's words found in documents, compiled: candidates by a rolling hash, decided on the bytes.

Texts are normalised as for MinHash (`simplify.py`), words with one space between. A sum of word hashes rolls over n
words; two bits of a bitmap answer "no" for nearly every n-gram of clean text, so that a hash table is hardly asked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .item_grams import FNV_PRIME, FNV_START, LOW, Grams, Ints, mixed, same_stretch, two_bits, weight_of
from .simplify import GROWTH, Bytes, Offsets, after_number, decode, simplify_text
from .text import MIX, Int

#: Words whose n-grams are asked for at once.
BLOCK = 1024

#: Of the last words: where they begin, their hashes; of a block: the hashes of long and of short keys.
Scratch = tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]
Words32 = NDArray[np.uint32]

#: What all grams are: (grams, 2) first byte and end in the index's text, and words of each; the items that hold gram i,
#: items[first[i] : first[i + 1]], rising; how many different grams each item has.
Index = tuple[Bytes, Ints, NDArray[np.int32], Ints, NDArray[np.int32], NDArray[np.int32]]

#: Columns of `contamination`: grams found, words of the text, words in them, runs of such words, the item of which the
#: largest share was found (-1: none), its different grams found, its grams.
COLUMNS = ("ngrams", "words", "matched_words", "spans", "item", "item_ngrams_matched", "item_ngrams")

_SEPARATOR, _DIGIT, _DROPPED = 1, 2, 3  # of the table of `simplify.py`


@kernel
def _grown(hits: Ints, count: Int) -> Ints:
    if count < len(hits):
        return hits
    larger = np.empty((2 * len(hits), 3), np.int64)
    larger[:count] = hits[:count]
    return larger


@kernel
def _probe(
    slots: NDArray[np.uint64],
    value: np.uint64,
    text: Bytes,
    start: Int,
    end: Int,
    word: Int,
    index: Index,
    hits: Ints,
    count: Int,
) -> tuple[Ints, Int]:
    """Add the grams that stand at text[start:], the `word`-th word, to hits: gram, first word, end."""
    marks, spans, lengths = index[0], index[1], index[2]
    size = len(slots)
    slot = np.int64(value >> np.uint64(32)) & (size - 1)
    while slots[slot] != 0:
        held = slots[slot]
        if held >> np.uint64(32) == value & LOW:
            gram = np.int64(held & LOW) - 1
            stop = start + spans[gram, 1] - spans[gram, 0]
            whole = stop <= end and (stop == end or text[stop] == 32)
            if whole and same_stretch(marks, spans[gram, 0], spans[gram, 1], text, start, stop):
                hits = _grown(hits, count)
                hits[count, 0], hits[count, 1], hits[count, 2] = gram, word, word + lengths[gram]
                count += 1
        slot = (slot + 1) & (size - 1)
    return hits, count


@kernel
def _find(
    text: Bytes, end: Int, long: Grams, short: Grams, key: Int, shorter: Int, index: Index, scratch: Scratch, hits: Ints
) -> tuple[Ints, Int, Int]:
    """Find the grams in text[:end], normalised: hits, how many, and the words of the text.

    key, shorter: words in the keys of the long grams and of the short ones (0: there are none).
    """
    places, values, longs, shorts = scratch
    out, out_shorter = weight_of(key), weight_of(shorter)
    mask = len(places) - 1
    total = total_shorter = np.uint64(0)
    words = count = here = 0
    text[end] = 32
    values[:] = 0
    while here < end:
        block = 0
        while here < end and block < BLOCK:
            places[words & mask] = here
            word = FNV_START
            while text[here] != 32:
                word = (word ^ np.uint64(text[here])) * FNV_PRIME
                here += 1
            here += 1
            total = total * MIX + word - values[(words - key) & mask] * out
            longs[block] = mixed(total)
            if shorter:
                total_shorter = total_shorter * MIX + word - values[(words - shorter) & mask] * out_shorter
                shorts[block] = mixed(total_shorter)
            values[words & mask] = word
            words += 1
            block += 1
        hits, count = _look(longs, long, block, words, key, text, end, index, places, hits, count)
        if shorter:
            hits, count = _look(shorts, short, block, words, shorter, text, end, index, places, hits, count)
    return hits, count, words


@kernel
def _look(
    hashes: NDArray[np.uint64],
    grams: Grams,
    block: Int,
    words: Int,
    key: Int,
    text: Bytes,
    end: Int,
    index: Index,
    places: Ints,
    hits: Ints,
    count: Int,
) -> tuple[Ints, Int]:
    """Ask for the keys that end at the last `block` words: a loop of its own, so that its loads overlap."""
    bits, slots = grams
    mask, last = len(places) - 1, len(bits) - 1
    for step in range(max(0, block - words + key - 1), block):
        value = hashes[step]
        two = two_bits(value)
        if bits[np.int64(value >> np.uint64(20)) & last] & two == two:
            first = words - block + step + 1 - key
            hits, count = _probe(slots, value, text, places[first & mask], end, first, index, hits, count)
    return hits, count


@kernel
def _runs(hits: Ints, count: Int) -> tuple[Ints, Int]:
    """Merge hits into runs of words that lie in them, rising and apart: (n, 2) first word and end."""
    order = np.argsort(hits[:count, 1])
    runs = np.empty((count, 2), np.int64)
    made = 0
    for place in order:
        first, end = hits[place, 1], hits[place, 2]
        if made and first <= runs[made - 1, 1]:
            runs[made - 1, 1] = max(runs[made - 1, 1], end)
        else:
            runs[made, 0], runs[made, 1] = first, end
            made += 1
    return runs, made


@kernel
def _best(hits: Ints, count: Int, index: Index, held: NDArray[np.int32]) -> tuple[Int, Int, Int]:
    """Name the item of whose grams the largest share was found (of equal ones the first), that number, and its grams.

    held: (items,) zero before and after.
    """
    first, items, totals = index[3], index[4], index[5]
    grams = np.unique(hits[:count, 0])
    best, most = np.int64(-1), np.int64(0)
    for gram in grams:
        for place in range(first[gram], first[gram + 1]):
            held[items[place]] += 1
    for gram in grams:
        for place in range(first[gram], first[gram + 1]):
            item = np.int64(items[place])
            found = np.int64(held[item])
            held[item] = 0
            if found == 0:
                continue
            ahead = -1 if best < 0 else most * np.int64(totals[item]) - found * np.int64(totals[best])
            if ahead < 0 or (ahead == 0 and item < best):
                best, most = item, found
    return best, most, np.int64(totals[best])


@kernel
def contamination(
    offsets: Offsets,
    data: Bytes,
    table: Words32,
    pool: Bytes,
    long: Grams,
    short: Grams,
    key: Int,
    shorter: Int,
    index: Index,
) -> tuple[Ints, Ints]:
    """Find benchmark items in each text: COLUMNS (n, 7), and the runs of words in grams (m, 3): row, first, end."""
    rows, longest, ring = len(offsets) - 1, 0, 2 * BLOCK
    while ring <= BLOCK + key:
        ring *= 2
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    text = np.empty(GROWTH * longest + 8, np.uint8)
    scratch = (
        np.zeros(ring, np.int64),
        np.zeros(ring, np.uint64),
        np.empty(BLOCK, np.uint64),
        np.empty(BLOCK, np.uint64),
    )
    counts, found = np.zeros((rows, len(COLUMNS)), np.int64), np.empty((16, 3), np.int64)
    hits, held, total = np.empty((16, 3), np.int64), np.zeros(len(index[5]), np.int32), 0
    for row in range(rows):
        counts[row, 4] = -1
        end = simplify_text(data, offsets[row], offsets[row + 1], table, pool, text, 0)
        hits, count, words = _find(text, end, long, short, key, shorter, index, scratch, hits)
        counts[row, 0], counts[row, 1] = count, words
        if count == 0:
            continue
        runs, made = _runs(hits, count)
        for run in range(made):
            found = _grown(found, total)
            found[total, 0], found[total, 1], found[total, 2] = row, runs[run, 0], runs[run, 1]
            counts[row, 2] += runs[run, 1] - runs[run, 0]
            total += 1
        counts[row, 3] = made
        counts[row, 4], counts[row, 5], counts[row, 6] = _best(hits, count, index, held)
    return counts, found[:total].copy()


@kernel
def run_bytes(offsets: Offsets, data: Bytes, runs: Ints, table: Words32, margin: Int) -> Ints:
    """Give runs of words, rising by row and place, as bytes of `data` (n, 2), `margin` code points wider."""
    spans = np.empty((len(runs), 2), np.int64)
    row, at, word = np.int64(-1), np.int64(0), np.int64(0)
    for run in range(len(runs)):
        if runs[run, 0] != row:
            row = runs[run, 0]
            at, word = offsets[row], np.int64(-1)
        end = offsets[row + 1]
        first, last = at, at
        while word < runs[run, 2] - 1 and at < end:
            first_byte, at = _next_word(data, at, end, table)
            word += 1
            if word == runs[run, 1]:
                first = first_byte
            last = at
        for _ in range(margin):
            while first > offsets[row]:
                first -= 1
                if data[first] & 0xC0 != 0x80:
                    break
            while last < end:
                last += 1
                if last == end or data[last] & 0xC0 != 0x80:
                    break
        spans[run, 0], spans[run, 1] = first, last
    return spans


@kernel
def _next_word(data: Bytes, at: Int, end: Int, table: Words32) -> tuple[Int, Int]:
    """Find the next word that normalisation leaves, as it stands in the text: first byte and end."""
    first = np.int64(-1)
    while at < end:
        code, width = (np.int64(data[at]), 1) if data[at] < 128 else decode(data, at, end)
        what = table[code] & 7
        if what == _SEPARATOR:
            if first >= 0:
                break
        elif what != _DROPPED and first < 0:
            first = at
        at = after_number(data, at + width, end, table) if what == _DIGIT else at + width
    return first, at
