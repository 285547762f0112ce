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

from . import inner, kernel
from .minhash import _fmix64
from .text import Int

Words = NDArray[np.uint64]
Bounds = NDArray[np.int64]
#: What the units of a text are: numbers (m,) uint8 or int32 of rows of a table (values, 2) uint64.
Symbols = NDArray[np.uint8] | NDArray[np.int32]

#: Odd, and 5 mod 8, so that their powers repeat as late as they can.
_K1, _K2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD95)
_LENGTH, _ONE = np.uint64(0xA24BAED4963EE407), np.uint64(1)

#: A place packs the first window of a run and how many there are: first << 16 | count.
COUNT_BITS = 16
_COUNT, _MERGED = np.uint64((1 << COUNT_BITS) - 1), np.uint64(1 << (COUNT_BITS - 1))


@kernel
def _powers(most: Int) -> Words:
    powers = np.ones((most + 1, 2), np.uint64)
    for at in range(most):
        powers[at + 1, 0], powers[at + 1, 1] = powers[at, 0] * _K1, powers[at, 1] * _K2
    return powers


@inner
def _sum(symbols: Symbols, table: Words, start: Int, count: Int, lows: Words, highs: Words) -> None:
    """Sum up the prefixes of some symbols: lows and highs (count + 1 or more,)."""
    low = high = lows[0] = highs[0] = np.uint64(0)
    first = np.uint64(start)
    for at in range(np.uint64(count)):  # unsigned, so that no index is looked at for its sign
        symbol = np.uint64(symbols[first + at])
        low, high = low * _K1 + table[symbol, 0], high * _K2 + table[symbol, 1]
        lows[at + _ONE], highs[at + _ONE] = low, high


@inner
def _least(keys: Words, start: Int, width: Int) -> Int:
    """Find the leftmost of the least keys of a window."""
    best, least = start, keys[start]
    for at in range(start + _ONE, start + width):
        if keys[at] < least:
            best, least = at, keys[at]
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
    total, longest, powers = np.int64(0), _longest(bounds), _powers(2 * n)
    for row in range(len(bounds) - 1):
        total += max(bounds[row + 1] - bounds[row] - n + 1, 0)
    places, digests = np.empty(total, np.uint64), np.empty((total, 2), np.uint64)
    lows, highs = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64)
    keys = np.empty(longest + 1, np.uint64)
    weight, width, runs = powers[gram, 0], np.uint64(n - gram + 1), np.uint64(0)
    for row in range(len(bounds) - 1):
        count = bounds[row + 1] - bounds[row]
        if count < n:
            continue
        _sum(symbols, table, bounds[row], count, lows, highs)
        grams, windows = np.uint64(count - gram + 1), np.uint64(count - n + 1)
        for step in range(grams):
            keys[step] = lows[step + np.uint64(gram)] - lows[step] * weight
        first, origin = np.uint64(0), np.uint64(bounds[row] - bounds[0])
        begun, again = runs, False
        anchor = _least(keys, first, width)
        while first < windows:
            # The run ends where the anchor is left behind, or before a window whose last gram is less.
            last, least = min(anchor + _ONE, windows) + width - _ONE, keys[anchor]
            at = first + width
            while at < last and keys[at] >= least:
                at += _ONE
            end = at + _ONE - width
            length = end - first
            stretch = length + np.uint64(n) - _ONE
            low = lows[first + stretch] - lows[first] * powers[stretch, 0]
            high = highs[first + stretch] - highs[first] * powers[stretch, 1]
            digests[runs, 0] = _fmix64(np.uint64(least + _LENGTH))
            digests[runs, 1] = _fmix64(np.uint64(_fmix64(np.uint64(low + length * _LENGTH)) ^ high))
            # What repeats its neighbour again and again, as a row of dashes does, is one run, whose digest says so.
            same = runs > begun and digests[runs, 0] == digests[runs - _ONE, 0]
            same = same and digests[runs, 1] == digests[runs - _ONE, 1]
            if same and again and places[runs - _ONE] & _COUNT < _MERGED:
                places[runs - _ONE] += length
            else:
                places[runs] = (origin + first) << np.uint64(COUNT_BITS) | length
                runs += _ONE
                again = bool(same)
            first = end
            if first < windows:
                anchor = at if at < last else _least(keys, first, width)
    return places[: np.int64(runs)].copy(), digests[: np.int64(runs)].copy()


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
    lows, highs, powers = np.empty(most + n, np.uint64), np.empty(most + n, np.uint64), _powers(n)
    at, length = np.uint64(0), np.uint64(n)
    for place in places:
        first, count = place >> np.uint64(COUNT_BITS), place & mask
        _sum(symbols, table, origin + np.int64(first), np.int64(count) - 1 + n, lows, highs)
        for step in range(count):
            firsts[at] = first + step
            digests[at, 0] = _fmix64(np.uint64(lows[step + length] - lows[step] * powers[length, 0]))
            digests[at, 1] = _fmix64(np.uint64(highs[step + length] - highs[step] * powers[length, 1]))
            at += _ONE
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
