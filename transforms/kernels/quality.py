"""Counts behind Gopher's quality rules, in one pass over blocks of 64 bytes: XXX MB/s a core.

Kernels count; they never divide. The shares and thresholds stand in `transforms/gopher.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inlined, kernel
from .blocks import (
    NONE,
    ONE,
    TOP,
    WIDTH,
    Bare,
    Mask,
    bare,
    below,
    count,
    leading,
    lowest,
    reach,
    read,
    readable,
    spare,
    within,
)
from .text import BREAK, SPACE, Int, code_point, stripped

#: Columns of `gopher_counts`.
GOPHER = (
    "words",
    "nonsymbol_words",
    "nonsymbol_characters",
    "alpha_words",
    "hashes",
    "ellipses",
    "lines",
    "bullet_lines",
    "ellipsis_lines",
    "stop_words",
)

#: Sorted stop words: those of first byte b are `first[b]` to `first[b + 1]`, word i is `marks[start[i] : start[i +
#: 1]]`.
StopWords = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]

_HASH, _DOT, _DASH = 35, 46, 45


@kernel
def _stop_word(data: Bare, at: Int, length: Int, stop_words: tuple[Bare, Bare, Bare]) -> Int:
    """Find a word among the stop words: its number, or -1."""
    buckets, spans, marks = stop_words
    first = data[at]
    for number in range(buckets[first], buckets[first + 1]):
        start = spans[number]
        if spans[number + 1] - start == length:
            step = 1
            while step < length and marks[start + step] == data[at + step]:
                step += 1
            if step == length:
                return number
    return -1


@kernel
def _ends_line(data: Bare, start: Int, at: Int, end: Int, classes: Bare) -> bool:
    """Say whether the word that ends at a byte has an ellipsis for its end, and is its line's last."""
    if at - start < 3:
        return False
    one, two, three = data[at - 3], data[at - 2], data[at - 1]
    if not ((one == two == three == _DOT) or (one == 0xE2 and two == 0x80 and three == 0xA6)):
        return False
    while at < end:
        code, width = code_point(data, at, end)
        if not classes[code] & SPACE:
            return False
        if classes[code] & BREAK:
            return True
        at += width
    return True


@kernel
def _stop_words(
    data: Bare,
    start: Int,
    at: Int,
    starts: tuple[Mask, Mask],
    ends: Mask,
    classes: Bare,
    stop_words: tuple[Bare, Bare, Bare],
    missing: Bare,
    longest: Int,
    found: Bare,
) -> None:
    """Find stop words among the words that end in a block; starts: where words begin in it and in the one before.

    missing: how many of each length (its index) are yet to be found. Two short words may look like one of their joint
    length: no stop word has space in it.
    """
    for length in range(1, longest + 1):
        if missing[length] == 0:
            continue
        matches = ends
        if length <= WIDTH:
            matches &= starts[1] >> np.uint64(WIDTH - length) | (starts[0] << np.uint64(length - 1)) << ONE
        while matches:
            place = at + lowest(matches) - length
            matches &= matches - ONE
            if place < start or (
                length > WIDTH and place > start and stripped(data, start, place, classes)[1] == place
            ):
                continue
            word = _stop_word(data, place, length, stop_words)
            if word >= 0 and not found[word]:
                found[word] = 1
                missing[length] -= 1


@kernel
def _symbol_characters(words: Mask, white: Mask, heads: Mask, begun: Int) -> Int:
    """Count the code points of the words that end at some places of a block; of its first, `begun` lie before it."""
    characters = np.int64(0)
    while words:
        under = (words & (NONE - words)) - ONE
        gap = white & under
        if gap:
            characters += count(heads & under & ~below(WIDTH - leading(gap)))
        else:
            characters += begun + count(heads & under)
        words &= words - ONE
    return characters


@inlined
def _count_words(
    white: Mask, heads: Mask, letters: Mask, nonsymbol: Mask, carry: tuple[Mask, Mask, Mask, Mask], counts: Bare
) -> tuple[Mask, Mask, Mask, Mask, Mask, Mask]:
    """Count the words that end in a block: where words begin, and where they end, and the carry.

    carry: whether a word is open, has a letter, has a code point that is no symbol; its code points so far.
    """
    open_, letter, meaning, begun = carry
    ink = ~white
    starts, ends = ink & ~(ink << ONE | open_), white & (ink << ONE | open_)
    counts[0] += count(ends)
    lettered, letter = reach(ink, letters, letter)
    counts[3] += count(lettered)
    meant, meaning = reach(ink, nonsymbol, meaning)
    counts[1] += count(meant)
    counts[2] += count(heads)
    if ends & ~meant:
        counts[2] -= _symbol_characters(ends & ~meant, white, heads, np.int64(begun))
    if white:
        begun = NONE
    begun += np.uint64(count(heads & ~below(WIDTH - leading(white))))
    return starts, ends, ink >> TOP, letter, meaning, begun


@kernel
def _count_dots(
    data: Bare,
    start: Int,
    at: Int,
    end: Int,
    threes: Mask,
    tips: Mask,
    free: Int,
    classes: Bare,
    counts: Bare,
) -> Int:
    """Count ellipses of three dots, none over another, and lines that end in an ellipsis (`tips`: words that do).

    free: the first byte that no ellipsis has used; given back.
    """
    while tips:
        counts[8] += _ends_line(data, start, at + lowest(tips), end, classes)
        tips &= tips - ONE
    while threes:
        place = at + lowest(threes)
        if place >= free + 2:
            counts[5] += 1
            free = place + 1
        threes &= threes - ONE
    return free


@kernel
def _bullets(data: Bare, at: Int, end: Int, firsts: Mask) -> Int:
    """Count the bullets among the first words of lines."""
    bullets = np.int64(0)
    while firsts:
        place = at + lowest(firsts)
        bullets += end - place >= 3 and data[place] == 0xE2 and data[place + 1] == 0x80 and data[place + 2] == 0xA2
        firsts &= firsts - ONE
    return bullets


@kernel
def _gopher_row(
    data: Bare,
    start: Int,
    end: Int,
    classes: Bare,
    stop_words: tuple[Bare, Bare, Bare],
    missing: Bare,
    longest: Int,
    found: Bare,
    counts: Bare,
) -> None:
    """Count one document."""
    at = free = start
    spill = np.int64(0)
    ink = letter = meaning = begun = NONE
    before = dots_before = first = tip = NONE  # of the block before
    fresh = ONE  # a line begins
    while at <= end:  # past the last byte all is space, so that every word ends
        white, breaks, joined, _, tails, nonsymbol, letters, _, covered, _, _, _, ellipses, spill = read(
            data, at, end, spill, classes
        )
        starts, ends, ink, letter, meaning, begun = _count_words(
            white, ~(white | tails), letters, nonsymbol, (ink, letter, meaning, begun), counts
        )
        _stop_words(data, start, at, (starts, before), ends, classes, stop_words, missing, longest, found)
        lines = breaks << ONE | fresh
        firsts, first = reach(white, lines, first)
        dots = within(data, at, _DOT, _DOT) & ~(covered | white)
        threes = dots & (dots << ONE | dots_before >> TOP) & (dots << np.uint64(2) | dots_before >> np.uint64(62))
        tips = threes
        if covered:
            tips |= within(data, at, 0xA6, 0xA6)
            counts[7] += _bullets(data, at, end, firsts & covered)
        if threes or tips or tip:
            free = _count_dots(data, start, at, end, threes, (tips << ONE | tip) & ends, free, classes, counts)
        counts[4] += count(within(data, at, _HASH, _HASH) & ~(covered | white))
        counts[5] += ellipses
        counts[6] += count(breaks & ~joined)
        counts[7] += count(firsts & within(data, at, _DASH, _DASH))
        if at + WIDTH > end:  # the last line may have no break
            counts[6] += np.int64(~(lines >> np.uint64(end - at)) & ONE)
        before, dots_before, tip, fresh = starts, dots, tips >> TOP, breaks >> TOP
        at += WIDTH


@kernel
def gopher_counts(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], stop_words: StopWords
) -> NDArray[np.int64]:
    """Count what Gopher's quality rules look at: (rows, len(GOPHER))."""
    rows = len(offsets) - 1
    counts, room = np.zeros((rows, 10), np.int64), spare(offsets, data)
    words = (bare(stop_words[0]), bare(stop_words[1]), bare(stop_words[2]))
    bounds = stop_words[1]
    found = np.empty(len(bounds) - 1, np.uint8)  # scratch: a flag a stop word
    longest = np.int64(0)
    for word in range(len(found)):
        longest = max(longest, bounds[word + 1] - bounds[word])
    missing = np.empty(longest + 1, np.int64)  # scratch: how many of each length are not found
    for row in range(rows):
        missing[:] = 0
        for word in range(len(found)):
            found[word] = 0
            missing[bounds[word + 1] - bounds[word]] += 1
        text, start, end = readable(data, offsets[row], offsets[row + 1], room)
        _gopher_row(text, start, end, bare(classes), words, bare(missing), longest, bare(found), bare(counts[row:]))
        for word in range(len(found)):
            counts[row, 9] += found[word]
    return counts
