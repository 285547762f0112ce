"""Where numbers, keys and bank accounts may stand: scans that look at every byte, as no rare one tells of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .pii_scan import CAPITAL, CONTEXT, DIGIT, GAP, LETTER, TOKEN, add_window, grown
from .text import Int

IBAN_AFTER = 48 + CONTEXT
LEAST_DIGITS = 8  # of a number: the shortest of a telephone, a card, a social security number
MOST_GAP = 2  # bytes between two digits of a number
LEAST_TOKEN = 20  # bytes of a key
#: The first three bytes of every published shape of a key, as numbers.
_KEYS = "AKI ASI ghp gho ghu ghs ghr git glp xox sk_ rk_ AIz sk- hf_ npm pyp SG. eyJ"
PREFIXES = np.array(
    [int.from_bytes(prefix.encode(), "big") for prefix in _KEYS.split()],
    np.int64,
)


@kernel
def _numbers(
    data: NDArray[np.uint8],
    at: Int,
    first: Int,
    end: Int,
    classes: NDArray[np.uint8],
    held: NDArray[np.int64],
    count: Int,
) -> tuple[Int, Int]:
    """Add stretches of eight and more digits with at most two bytes of a gap between, and their context."""
    while at < end and count < len(held):
        if not classes[data[at]] & DIGIT:
            at += 1
            continue
        start = last = at
        digits = 0
        while at < end and at - last - 1 <= MOST_GAP:
            if classes[data[at]] & DIGIT:
                digits += 1
                last = at
            elif not classes[data[at]] & GAP:
                break
            at += 1
        at = last + 1
        if digits >= LEAST_DIGITS:
            held[count, 1], held[count, 2] = max(first, start - 2 * CONTEXT), min(end, at + CONTEXT)
            count += 1
    return at, count


@kernel
def _has_prefix(
    data: NDArray[np.uint8], at: Int, end: Int, classes: NDArray[np.uint8], prefixes: NDArray[np.int64]
) -> bool:
    """Say whether a key can begin somewhere in a run: a prefix behind no letter and no digit."""
    inside = False
    while at + 3 <= end:
        if not inside:
            code = np.int64(data[at]) << 16 | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2])
            for prefix in prefixes:
                if code == prefix:
                    return True
        inside = classes[data[at]] & (LETTER | DIGIT) != 0
        at += 1
    return False


@kernel
def _tokens(
    data: NDArray[np.uint8],
    at: Int,
    end: Int,
    classes: NDArray[np.uint8],
    prefixes: NDArray[np.int64],
    held: NDArray[np.int64],
    count: Int,
) -> tuple[Int, Int]:
    """Add runs of twenty and more letters, digits, `_`, `-` and dots that hold a prefix, exactly."""
    while at < end and count < len(held):
        if not classes[data[at]] & TOKEN:
            at += 1
            continue
        start = at
        while at < end and classes[data[at]] & TOKEN:
            at += 1
        if at - start >= LEAST_TOKEN and _has_prefix(data, start, at, classes, prefixes):
            held[count, 1], held[count, 2] = start, at
            count += 1
    return at, count


@kernel
def _accounts(
    data: NDArray[np.uint8],
    at: Int,
    first: Int,
    end: Int,
    classes: NDArray[np.uint8],
    held: NDArray[np.int64],
    count: Int,
) -> tuple[Int, Int]:
    """Add the windows of two capitals and two digits at the beginning of a word; they may lie over one another."""
    while at + 4 <= end and count < len(held):
        if not classes[data[at]] & (LETTER | DIGIT):
            at += 1
            continue
        if (
            classes[data[at]] & classes[data[at + 1]] & CAPITAL
            and classes[data[at + 2]] & classes[data[at + 3]] & DIGIT
        ):
            held[count, 1], held[count, 2] = max(first, at - CONTEXT), min(end, at + IBAN_AFTER)
            count += 1
        while at < end and classes[data[at]] & (LETTER | DIGIT):
            at += 1
    return at if count == len(held) else end, count


NUMBERS, TOKENS, ACCOUNTS = 0, 1, 2


@kernel
def run_windows(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    scan: Int,
    classes: NDArray[np.uint8],
    prefixes: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Give the windows of a scan that looks at every byte: (n, 3) row, first byte, end; none over another.

    The inner loops fill an array that does not change: one that may be replaced is counted at every step, at 20 ns.
    """
    held = np.empty((64, 3), np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        first, end = offsets[row], offsets[row + 1]
        at = first
        while at < end:
            held = grown(held, count)
            before = count
            if scan == NUMBERS:
                at, count = _numbers(data, at, first, end, classes, held, count)
            elif scan == TOKENS:
                at, count = _tokens(data, at, end, classes, prefixes, held, count)
            else:
                at, count = _accounts(data, at, first, end, classes, held, count)
            held[before:count, 0] = row
    return held[:count] if scan != ACCOUNTS else joined(held, count)


@kernel
def joined(held: NDArray[np.int64], count: Int) -> NDArray[np.int64]:
    """Make one window of those that touch."""
    kept = 0
    for one in range(count):
        kept = add_window(held, kept, held[one, 0], held[one, 1], held[one, 2])
    return held[:kept]
