"""C4's first look at a page: what stands where, as masks of its blocks, from which lines are judged without a second.

A sentence is what `transforms/c4.py` says.
"""

from __future__ import annotations

import numpy as np

from . import inlined, kernel
from .blocks import NONE, ONE, TOP, WIDTH, Bare, Mask, below, count, leading, lowest, reach, read, within
from .phrases import candidates
from .text import Int

#: What `scan` writes of each block: ink; where lines end; where words begin; where words end that are too long; where
#: sentences begin; letters that may belong to a phrase, and curly brackets; square brackets.
INK, LINES, WORDS, LONG, SENTENCES, PHRASES, BRACKETS = map(np.int64, range(7))
FIELDS = np.int64(8)  # numbers a block: a line of the processor's cache
#: What one block tells the next of sentences.
Carry = tuple[Mask, Mask, Mask, Mask, Mask, Mask]

_OPEN = ord("[")


@inlined
def _long_words(white: Mask, ends: Mask, heads: Mask, begun: Mask, most: Int) -> Mask:
    """Find the ends of words of more than `most` code points; of the block's first word `begun` lie before it."""
    found = NONE
    if np.int64(begun) > most - WIDTH:
        while ends:
            under = (ends & (NONE - ends)) - ONE
            gap = white & under
            length = (
                count(heads & under & ~below(WIDTH - leading(gap))) if gap else np.int64(begun) + count(heads & under)
            )
            if length > most:
                found |= under + ONE
            ends &= ends - ONE
    return found


@inlined
def _cuts(
    data: Bare, at: Int, plain: Mask, tails: Mask, letters: Mask, inked: Mask, closers: Mask, ends: Mask, carry: Carry
) -> tuple[Mask, Carry]:
    """Find the places after marks that end a sentence and the closers behind them.

    Not after a full stop that follows another or a letter that follows neither letter nor digit. carry: of the block
    before, whether it ends in letter or digit, in such a letter, in a full stop, in a mark; and two carries of `reach`.
    """
    joined, lone, dotted, marked, initial, closing = carry
    dots = within(data, at, 46, 46) & plain
    alone = letters & ~tails & ~(inked << ONE | joined)
    initials, initial = reach(tails, alone << ONE | lone, initial)
    marks = (within(data, at, 33, 33) | within(data, at, 63, 63)) & plain | ends
    marks |= dots & ~(dots << ONE | dotted | initials)
    shut = within(data, at, 34, 34) | within(data, at, 39, 39) | within(data, at, 41, 41)
    shut |= within(data, at, 93, 93) | within(data, at, 125, 125)
    after, closing = reach(shut & plain | closers, marks << ONE | marked, closing)
    return after, (inked >> TOP, alone >> TOP, dots >> TOP, marks >> TOP, initial, closing)


@kernel
def scan(data: Bare, at: Int, end: Int, classes: Bare, most: Int, masks: Bare) -> None:
    """Read a page: write what stands where to `masks`, `FIELDS` numbers a block. Long words: of more than `most`."""
    spill, place = np.int64(0), np.int64(0)
    carry = (NONE, NONE, NONE, NONE, NONE, NONE)
    open_ = begun = start = NONE
    fresh = ONE  # a line begins
    while at <= end:  # past the last byte all is space, so that every word ends
        white, breaks, joined, _, tails, nonsymbol, letters, inked, covered, closers, marks, wide, _, spill = read(
            data, at, end, spill, classes
        )
        ink, live = ~white, below(end - at)
        after, carry = _cuts(data, at, live & ~covered, tails, letters, inked, closers, marks, carry)
        lines = breaks << ONE | fresh
        sentences, start = reach(~nonsymbol, after & white | wide | lines, start)
        heads, ends = ink & ~tails, white & (ink << ONE | open_)
        masks[place + LONG] = _long_words(white, ends, heads, begun, most)
        begun = (NONE if white else begun) + np.uint64(count(heads & ~below(WIDTH - leading(white))))
        cut = breaks & ~joined
        if at + WIDTH > end:  # the last line may have no break
            last = ONE << np.uint64(end - at)
            cut |= last & ~lines
        masks[place + INK], masks[place + LINES] = ink, cut
        masks[place + WORDS] = ink & ~(ink << ONE | open_)
        masks[place + SENTENCES] = sentences
        masks[place + PHRASES] = candidates(data, at) & live
        masks[place + BRACKETS] = within(data, at, _OPEN, _OPEN) & live
        open_, fresh = ink >> TOP, breaks >> TOP
        at, place = at + WIDTH, place + FIELDS


@kernel
def total(masks: Bare, field: Int, start: Int, end: Int) -> Int:
    """Count the places of a field from one to before another."""
    block, last = start >> 6, end >> 6
    first = masks[block * FIELDS + field] & ~below(start & 63)
    if block == last:
        return count(first & below(end & 63))
    found = count(first)
    for between in range(block + 1, last):
        found += count(masks[between * FIELDS + field])
    return found + count(masks[last * FIELDS + field] & below(end & 63))


@kernel
def inked_part(masks: Bare, start: Int, end: Int) -> tuple[Int, Int]:
    """Give the first place of ink from one to before another, and the one after the last; (start, start) for none."""
    first = start
    held = masks[(first >> 6) * FIELDS + INK] & ~below(first & 63)
    while not held:
        first = (first | 63) + 1
        if first >= end:
            return start, start
        held = masks[(first >> 6) * FIELDS + INK]
    first = (first & ~63) + lowest(held)
    if first >= end:
        return start, start
    last = end
    held = masks[(last >> 6) * FIELDS + INK] & below(last & 63)
    while not held:
        last = (last & ~63) - 1
        held = masks[(last >> 6) * FIELDS + INK]
    return first, (last & ~63) + WIDTH - leading(held)
