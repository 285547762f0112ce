"""Normalisations over UTF-8 buffers; FineWeb's: lower case, numbers to 0, punctuation to spaces, marks dropped.

It gives `" ".join(simplify_text(text).split())` of datatrove (`utils/text.py`, commit a649de79) for the Unicode version
of the table, with one difference: kept combining marks (two dozen spacing vowel signs and musical stems) stay in the
order of the text, where NFD may swap neighbours.

The table, `transforms/data/simplify.npz`, is made by tests/data/make_simplify_table.py and pinned to one version of
Unicode, so that results do not depend on the Python that runs. Other tables of the same layout give other
normalisations (`normalisations.py`). One uint32 a code point:

    bits 0-2    what to do: keep, separate, digit, drop, replace, sigma
    bit 3       may stand between the digits of one number
    bits 4, 5   Cased and Case_Ignorable, which decide what a capital sigma becomes
    bits 8-12   bytes of the replacement;  bits 13-31  its place in the pool
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel

Bytes = NDArray[np.uint8]
Offsets = NDArray[np.int64]

#: What is done to a code point.
SEPARATOR, DIGIT, DROPPED, REPLACED, SIGMA = 1, 2, 3, 4, 5
RARE = 6  # of `what`: these bits of digits and dropped marks, and of no other, are those of a digit
_DECIMAL, _CASED, _IGNORABLE = 8, 16, 32
_SPACE = 32
_ZERO = 48

#: No text grows by more: a Hangul syllable of 3 bytes becomes three letters of 3.
GROWTH = 3


@kernel
def simplify_rows(offsets: Offsets, data: Bytes, table: NDArray[np.uint32], pool: Bytes) -> tuple[Offsets, Bytes]:
    """Normalise every text: words joined by one space, as offsets (n + 1,) and bytes."""
    rows = len(offsets) - 1
    out = np.empty(GROWTH * (offsets[rows] - offsets[0]) + 8, np.uint8)
    ends = np.zeros(rows + 1, np.int64)
    for row in range(rows):
        ends[row + 1] = simplify_text(data, offsets[row], offsets[row + 1], table, pool, out, ends[row])
    return ends, out[: ends[rows]].copy()


@kernel
def simplify_text(
    data: Bytes, start: int, end: int, table: NDArray[np.uint32], pool: Bytes, out: Bytes, first: int
) -> int:
    """Write the normalised data[start:end] to out[first:], which needs 3 bytes for each and one more; give its end."""
    at = first
    gap = True  # nothing, or a space, stands before `at`
    here = start
    while here < end:
        byte = data[here]
        if byte < 128:
            entry = table[byte]
            what = entry & 7
            if what & RARE != DIGIT:
                # Without branches: most bytes are letters and single spaces, and word ends are hard to predict.
                separates = what == SEPARATOR
                out[at] = _SPACE if separates else byte | (_SPACE if what == REPLACED else 0)
                at += 1 - (separates & gap)
                gap = separates
                here += 1
                continue
            width = 1
        else:
            code, width = decode(data, here, end)
            entry = table[code]
            what = entry & 7
        if what == SEPARATOR:
            out[at] = _SPACE
            at += not gap
        elif what == DIGIT:
            out[at] = _ZERO
            at += 1
            width = after_number(data, here + width, end, table) - here
        elif what == REPLACED:
            length, place = int(np.int64((entry >> 8) & 31)), int(np.int64(entry >> 13))
            for byte_number in range(length):
                out[at + byte_number] = pool[place + byte_number]
            at += length
        elif what == SIGMA:
            out[at] = 0xCF
            out[at + 1] = 0x82 if is_final(data, start, here, end, table) else 0x83
            at += 2
        elif what != DROPPED:
            for byte_number in range(width):
                out[at + byte_number] = data[here + byte_number]
            at += width
        gap = what == SEPARATOR or (gap and what == DROPPED)
        here += width
    return at - 1 if gap and at > first else at


@kernel
def decode(data: Bytes, here: int, end: int) -> tuple[int, int]:
    """Read a code point of two bytes or more and its width; what is not UTF-8 reads as U+FFFD, never beyond `end`."""
    lead = int(np.int64(data[here]))
    if lead < 0xC2 or lead > 0xF4:
        return 0xFFFD, 1
    width = 2 if lead < 0xE0 else (3 if lead < 0xF0 else 4)
    if here + width > end:
        return 0xFFFD, end - here
    code = lead & (0x7F >> width)
    for place in range(here + 1, here + width):
        code = (code << 6) | (int(np.int64(data[place])) & 0x3F)
    return code if code < 0x110000 else 0xFFFD, width


@kernel
def _entry(data: Bytes, here: int, end: int, table: NDArray[np.uint32]) -> tuple[int, int]:
    """Look up the code point that starts at `here`, and its width."""
    if data[here] < 128:
        return int(np.int64(table[data[here]])), 1
    code, width = decode(data, here, end)
    return int(np.int64(table[code])), width


@kernel
def after_number(data: Bytes, here: int, end: int, table: NDArray[np.uint32]) -> int:
    """Find the end of a number from behind its first digit: digits, then perhaps one separator and more digits."""
    whole = True
    while here < end:
        entry, width = _entry(data, here, end, table)
        if entry & 7 != DIGIT:
            after = here + width
            if not (whole and entry & _DECIMAL and after < end and _entry(data, after, end, table)[0] & 7 == DIGIT):
                break
            whole = False
        here += width
    return here


@kernel
def is_final(data: Bytes, start: int, here: int, end: int, table: NDArray[np.uint32]) -> bool:
    """Say whether the capital sigma at `here` ends a word (Unicode's Final_Sigma, as `str.lower` applies it)."""
    before = here
    entry = _IGNORABLE
    while entry & _IGNORABLE and before > start:
        before -= 1
        while before > start and data[before] & 0xC0 == 0x80:
            before -= 1
        entry, _ = _entry(data, before, end, table)
    if not entry & _CASED:
        return False
    after = here + 2
    entry = _IGNORABLE
    while entry & _IGNORABLE and after < end:
        entry, width = _entry(data, after, end, table)
        after += width
    return not entry & _CASED
