"""A text in pieces: its words laid out one after the other, its lines or paragraphs listed; by blocks of 64 bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import kernel
from .blocks import ALL, NONE, ONE, TOP, WIDTH, Bare, below, count, lowest, move, read, within
from .grams import PREFIX
from .text import GOLDEN, MIX, NEWLINE, Int, load64


@kernel
def _word_hash(data: Bare, start: Int, end: Int) -> Any:
    """Hash a word; up to seven bytes past its end are read, and left out."""
    length = np.uint64(end - start)
    at = start
    value = length * GOLDEN
    while end - at > 8:
        value = (value ^ load64(data, at)) * MIX
        value ^= value >> np.uint64(32)
        at += 8
    return (value ^ load64(data, at) & ALL >> np.uint64(64 - 8 * (end - at))) * MIX


@kernel
def lay_out(
    data: Bare, at: Int, end: Int, classes: Bare, stream: Bare, starts: Bare, characters: Bare, hashes: Bare
) -> Int:
    """Write the words one after the other into `stream`; count them.

    starts and characters: bytes and code points before each word, and in all. hashes: of each word.
    """
    words = size = total = spill = first = np.int64(0)
    open_ = NONE
    while at <= end:  # past the last byte all is space, so that every word ends
        white, _, _, _, tails, _, _, _, _, _, _, _, _, spill = read(data, at, end, spill, classes)
        ink = ~white
        heads, bounds = ink & ~tails, ink ^ (ink << ONE | open_)
        inside = open_ != NONE
        while bounds:
            place = at + lowest(bounds)
            if inside:
                for step in range(0, place - first, WIDTH):
                    move(data, first + step, stream, size + step)
                hashes[words] = _word_hash(data, first, place)
                size += place - first
                words += 1
            else:
                first = place
                starts[words], characters[words] = size, total + count(heads & (bounds ^ bounds - ONE) >> ONE)
            inside = not inside
            bounds &= bounds - ONE
        total += count(heads)
        open_ = ink >> TOP
        at += WIDTH
    starts[words], characters[words] = size, total
    for step in range(PREFIX):
        stream[size + step] = 0
    return words


@kernel
def segments(data: Bare, at: Int, end: Int, least: Int, spans: Bare) -> tuple[Int, Int]:
    """Cut at runs of at least so many newlines, as `re.split` does: a newline at an end leaves an empty segment.

    Give how many there are, and the code points of all; spans: three numbers each, first byte, end, code points.
    """
    found = points = begun = np.int64(0)  # segments; code points before this block, before this segment
    start, first, after = at, at, at - 1  # of this segment, of this run of newlines, the byte behind it
    while at < end:
        live = below(end - at)
        heads = ~within(data, at, 0x80, 0xBF) & live
        newlines = within(data, at, NEWLINE, NEWLINE) & live
        while newlines:
            place = at + lowest(newlines)
            if place != after:
                first = place
            after = place + 1
            here = points + count(heads & (newlines ^ newlines - ONE))
            if after - first == least:
                spans[3 * found], spans[3 * found + 1], spans[3 * found + 2] = start, first, here - least - begun
                found += 1
            if after - first >= least:
                start, begun = after, here
            newlines &= newlines - ONE
        points += count(heads)
        at += WIDTH
    spans[3 * found], spans[3 * found + 1], spans[3 * found + 2] = start, end, points - begun
    return found + 1, points
