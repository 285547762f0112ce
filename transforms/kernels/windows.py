"""Windows of n units (bytes, words, tokens) that occur again: found by anchors, so that not every window is compared.

The anchor of a window is the leftmost of its grams, of half a window, with the least hash (winnowing: Schleimer et al.
2003). What a window's anchor is depends on the window alone, so equal windows have equal anchors at equal places.
Neighbours mostly share one: a *run* is the windows of a text that have one anchor, a dozen or two. Equal runs are
told by one digest; only runs that share a gram and are not equal need a digest for each of their windows. Digests are
two polynomials mod 2^64 over random values of units, 128 bits together; sums over prefixes give that of any stretch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .minhash import _fmix64
from .text import Int

Words = NDArray[np.uint64]
Bounds = NDArray[np.int64]
#: What the units of a text are: numbers (m,) uint8 or int32 of rows of a table (values, 2) uint64.
Symbols = NDArray[np.uint8] | NDArray[np.int32]

#: Odd, and 5 mod 8, so that their powers repeat as late as they can.
_K1, _K2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD95)
_LENGTH = np.uint64(0xA24BAED4963EE407)

#: A place packs the first window of a run and how many there are: first << 16 | count.
COUNT_BITS = 16


@kernel
def _powers(most: Int) -> Words:
    powers = np.ones((most + 1, 2), np.uint64)
    for at in range(most):
        powers[at + 1, 0], powers[at + 1, 1] = powers[at, 0] * _K1, powers[at, 1] * _K2
    return powers


@kernel
def _sum(symbols: Symbols, table: Words, start: Int, end: Int, sums: Words) -> None:
    """Sum up the prefixes of symbols[start:end]: sums (end - start + 1 or more, 2)."""
    low = high = np.uint64(0)
    sums[0, 0] = sums[0, 1] = low
    for at in range(start, end):
        symbol = symbols[at]
        low, high = low * _K1 + table[symbol, 0], high * _K2 + table[symbol, 1]
        sums[at - start + 1, 0], sums[at - start + 1, 1] = low, high


@kernel
def _stretch(sums: Words, powers: Words, start: Int, length: Int) -> tuple[np.uint64, np.uint64]:
    """Hash a stretch to two numbers of 64 bits, neither of them mixed."""
    low = sums[start + length, 0] - sums[start, 0] * powers[length, 0]
    return low, sums[start + length, 1] - sums[start, 1] * powers[length, 1]


@kernel
def _least(keys: Words, start: Int, width: Int) -> Int:
    """Find the leftmost of the least keys of a window."""
    best = start
    for at in range(start + 1, start + width):
        best = at if keys[at] < keys[best] else best
    return best


@kernel
def _longest(bounds: Bounds) -> Int:
    longest = np.int64(0)
    for row in range(len(bounds) - 1):
        longest = max(longest, bounds[row + 1] - bounds[row])
    return longest


@kernel
def find_runs(bounds: Bounds, symbols: Symbols, table: Words, n: Int, gram: Int) -> tuple[Words, Words]:
    """Find the runs of every text: places (m,) counted from bounds[0], rising, and digests (m, 2).

    bounds (texts + 1,) into symbols. The high half of a digest tells the anchor's gram, both halves tell the run.
    """
    longest, total = _longest(bounds), np.int64(0)
    for row in range(len(bounds) - 1):
        total += max(bounds[row + 1] - bounds[row] - n + 1, 0)
    places, digests = np.empty(total, np.uint64), np.empty((total, 2), np.uint64)
    sums, keys = np.empty((longest + 1, 2), np.uint64), np.empty(longest + 1, np.uint64)
    powers, width, runs = _powers(2 * n), n - gram + 1, np.int64(0)
    for row in range(len(bounds) - 1):
        start, windows = bounds[row], bounds[row + 1] - bounds[row] - n + 1
        if windows < 1:
            continue
        _sum(symbols, table, start, bounds[row + 1], sums)
        weight = powers[gram, 0]
        for at in range(windows + n - gram):
            keys[at] = _fmix64(sums[at + gram, 0] - sums[at, 0] * weight)
        first, anchor = np.int64(0), _least(keys, 0, width)
        for window in range(1, windows + 1):
            best = anchor
            if window == windows:
                best = np.int64(-1)
            elif anchor < window:
                best = _least(keys, window, width)
            elif keys[window + width - 1] < keys[anchor]:
                best = np.int64(window + width - 1)
            if best != anchor:
                low, high = _stretch(sums, powers, first, window - 1 - first + n)
                length = np.uint64(window - first) * _LENGTH
                digests[runs, 0] = _fmix64(keys[anchor] + _LENGTH)
                digests[runs, 1] = _fmix64(_fmix64(low + length) ^ high)
                places[runs] = np.uint64(start - bounds[0] + first) << np.uint64(COUNT_BITS) | np.uint64(window - first)
                runs += 1
                first, anchor = np.int64(window), best
    return places[:runs].copy(), digests[:runs].copy()


@kernel
def digest_windows(symbols: Symbols, table: Words, origin: Int, places: Words, n: Int) -> tuple[Words, Words]:
    """Digest every window of runs: the windows' first units (m,) as the places count, and digests (m, 2).

    origin: the unit in `symbols` from which places are counted. No run reaches over the end of a text.
    """
    mask, total, most = np.uint64((1 << COUNT_BITS) - 1), np.int64(0), np.int64(0)
    for place in places:
        total += np.int64(place & mask)
        most = max(most, np.int64(place & mask))
    firsts, digests = np.empty(total, np.uint64), np.empty((total, 2), np.uint64)
    sums, powers = np.empty((most + n, 2), np.uint64), _powers(n)
    at = np.int64(0)
    for place in places:
        first, count = place >> np.uint64(COUNT_BITS), np.int64(place & mask)
        start = origin + np.int64(first)
        _sum(symbols, table, start, start + count - 1 + n, sums)
        for step in range(count):
            low, high = _stretch(sums, powers, step, n)
            firsts[at] = first + np.uint64(step)
            digests[at, 0], digests[at, 1] = _fmix64(low), _fmix64(high)
            at += 1
    return firsts, digests


@kernel
def cover(bounds: Bounds, places: Words, base: Int, n: Int) -> tuple[Bounds, Bounds]:
    """Join the windows of runs to what they cover of each text: rows (m,) and spans (m, 2), counted as bounds are.

    places: rising, counted so that bounds[0] is `base`; those of other texts are gone past.
    """
    rows, spans = np.empty(len(places), np.int64), np.empty((len(places), 2), np.int64)
    mask, moved = np.uint64((1 << COUNT_BITS) - 1), bounds[0] - base
    row, last, cuts = np.int64(0), np.int64(-1), np.int64(0)
    for place in places:
        start = np.int64(place >> np.uint64(COUNT_BITS)) + moved
        end = start + np.int64(place & mask) - 1 + n
        if start < bounds[0] or end > bounds[len(bounds) - 1]:
            continue
        while bounds[row + 1] <= start:
            row += 1
        if last == row and start <= spans[cuts - 1, 1]:
            spans[cuts - 1, 1] = max(spans[cuts - 1, 1], end)
            continue
        rows[cuts], spans[cuts, 0], spans[cuts, 1] = row, start, end
        last = row
        cuts += 1
    return rows[:cuts].copy(), spans[:cuts].copy()


@kernel
def shrink(data: NDArray[np.uint8], rows: Bounds, spans: Bounds) -> tuple[Bounds, Bounds]:
    """Draw spans of bytes in to the bounds of code points; what holds none whole is left out."""
    kept = np.int64(0)
    for number in range(len(rows)):
        row, start, end = rows[number], spans[number, 0], spans[number, 1]
        while start < end and (data[start] & 0xC0) == 0x80:
            start += 1
        while end > start and end < len(data) and (data[end] & 0xC0) == 0x80:
            end -= 1
        if start < end:
            rows[kept], spans[kept, 0], spans[kept, 1] = row, start, end
            kept += 1
    return rows[:kept], spans[:kept]
