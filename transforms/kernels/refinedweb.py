"""RefinedWeb's rules on lines, as DCLM's modifiers apply them one after another, each over the whole page.

A modifier that drops lines strips the page after it, so the first and the last line that are left lose their outer
space before the next one looks. Lines are kept as stretches of the text, so that all of it is one list of cuts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .characters import ALNUM, SPLIT, WORD
from .text import DIGIT, NEWLINE, SPACE, Int, code_point, stripped

#: Columns of `line_cuts`' counts.
LINES = (
    "lines",
    "uppercase_lines",
    "numeric_lines",
    "counter_lines",
    "short_lines",
    "blank_lines",
    "kept_lines",
    "words",
    "words_left",
)
#: Why a cut was made: rule numbers of `line_cuts`, from 1.
RULES = ("uppercase", "numeric", "counter", "short", "blank", "strip")
#: Largest share of capitals, of digits, drop counters, fewest words, drop blank lines and strip at the end. A share of
#: 2 and no words switch a rule off.
LineLimits = tuple[float, float, bool, int, bool]

_UPPERCASE, _NUMERIC, _COUNTER, _SHORT, _BLANK, _STRIP = 1, 2, 3, 4, 5, 6
_COMMA, _DOT, _KELVIN = 44, 46, 0x212A
_COUNTED = (
    *("likes", "shares", "comments", "retweets", "reposts", "quotes"),
    *("bookmarks", "upvotes", "downvotes", "downloads", "views", "followers"),
)
_NOUNS = np.frombuffer("".join(f"{noun}\n" for noun in _COUNTED).encode(), np.uint8)
_SMALL_K = 107
_N_CART, _READ_MORE, _GN = (np.frombuffer(letters, np.uint8) for letters in (b"n cart", b"read more", b"gn-"))


@kernel
def _letter(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """Read a code point in lower case where that is ASCII: (code, bytes)."""
    code, width = code_point(data, at, end)
    if 65 <= code <= 90:
        return code + 32, width
    if code == _KELVIN:
        return np.int64(_SMALL_K), width
    return code, width


@kernel
def _after_noun(data: NDArray[np.uint8], at: Int, end: Int) -> Int:
    """Give the end of the counted noun at a byte, in any case; -1 for none. No noun begins with another."""
    first = 0
    while first < len(_NOUNS):
        here, step = at, first
        while _NOUNS[step] != NEWLINE and here < end:
            code, width = _letter(data, here, end)
            if code != _NOUNS[step]:
                break
            here, step = here + width, step + 1
        if _NOUNS[step] == NEWLINE:
            return here
        while _NOUNS[first] != NEWLINE:
            first += 1
        first += 1
    return -1


@kernel
def is_counter(data: NDArray[np.uint8], at: Int, end: Int, classes: NDArray[np.uint8], bits: NDArray[np.uint8]) -> bool:
    """Say whether a line is a number, perhaps K, M or B, space and a counted noun, with marks around."""
    code, width = np.int64(0), np.int64(0)
    while at < end:
        code, width = code_point(data, at, end)
        if bits[code] & WORD:
            break
        at += width
    if at >= end or not classes[code] & DIGIT:
        return False
    while at < end and (classes[code] & DIGIT or code in (_COMMA, _DOT)):
        at += width
        if at < end:
            code, width = code_point(data, at, end)
    if at < end:
        code, width = _letter(data, at, end)
        if code == _SMALL_K or code == 109 or code == 98:
            at += width
    space = at
    while at < end:
        code, width = code_point(data, at, end)
        if not classes[code] & SPACE:
            break
        at += width
    at = _after_noun(data, at, end) if at > space else -1
    while 0 <= at < end:
        code, width = code_point(data, at, end)
        if bits[code] & WORD:
            return False
        at += width
    return bool(at >= 0)


@kernel
def _measure(data: NDArray[np.uint8], line: NDArray[np.int64], end: Int, bits: NDArray[np.uint8]) -> Int:
    """Count code points, capitals, digits, words and tokens of a line, line[4:9], from line[2] to a newline or the end.

    Gives where that is. A token is a word of fastText's that begins with a letter or digit.
    """
    at = line[2]
    length = upper = figures = words = tokens = np.int64(0)
    space = gap = np.int64(1)
    while at < end:
        code, width = np.int64(data[at]), 1
        if code >= 0x80:
            code, width = code_point(data, at, end)
        elif code == NEWLINE:
            break
        at += width
        length += 1
        kind = np.int64(bits[code])
        upper += kind & 1  # UPPER, FIGURE, ALNUM, BLANK, SPLIT by their places
        figures += kind >> 1 & 1
        words += space & (~kind >> 4)
        space = kind >> 4 & 1
        tokens += gap & (~kind >> 5) & (kind >> 2)
        gap = kind >> 5
    line[4], line[5], line[6], line[7], line[8] = length, upper, figures, words, tokens
    return at


@kernel
def _strip(
    data: NDArray[np.uint8],
    lines: NDArray[np.int64],
    count: Int,
    classes: NDArray[np.uint8],
    bits: NDArray[np.uint8],
) -> Int:
    """Leave out what `str.strip` does of the lines that are left: blank lines at both ends, and outer space.

    Gives how many lines go.
    """
    gone = np.int64(0)
    for side in range(2):
        for step in range(count):
            line = lines[step if side == 0 else count - 1 - step]
            if line[9]:
                continue
            first, last = stripped(data, line[2], line[3], classes)
            if first < last:
                if side == 0 and first > line[2]:
                    line[2] = first
                    _measure(data, line, line[3], bits)
                if side == 1 and last < line[3]:
                    line[3] = last
                    _measure(data, line, last, bits)
                break
            line[9] = _STRIP
            gone += 1
    return gone


@kernel
def _drop_lines(
    data: NDArray[np.uint8],
    lines: NDArray[np.int64],
    count: Int,
    classes: NDArray[np.uint8],
    bits: NDArray[np.uint8],
    limits: LineLimits,
) -> None:
    """Set lines[:, 9] to the rule that drops a line, rule by rule."""
    uppercase, numeric, counter, fewest, blank = limits
    for rule in range(_UPPERCASE, _BLANK + 1):
        if (
            (rule == _UPPERCASE and uppercase > 1)
            or (rule == _NUMERIC and numeric > 1)
            or (rule == _COUNTER and not counter)
            or (rule == _SHORT and fewest == 0)
            or (rule == _BLANK and not blank)
        ):
            continue
        for number in range(count):
            line = lines[number]
            if line[9] or line[4] == 0:
                continue
            drop = False
            if rule == _UPPERCASE:
                drop = line[5] / line[4] > uppercase
            elif rule == _NUMERIC:
                drop = line[6] / line[4] > numeric
            elif rule == _COUNTER:
                drop = line[6] > 0 and is_counter(data, line[2], line[3], classes, bits)
            elif rule == _SHORT:
                drop = line[7] < fewest
            else:
                drop = line[7] == 0
            line[9] = rule * np.int64(drop)
        if rule != _SHORT:
            _strip(data, lines, count, classes, bits)


@kernel
def _put_cuts(
    lines: NDArray[np.int64], count: Int, row: Int, cuts: NDArray[np.int64], size: Int, counts: NDArray[np.int64]
) -> Int:
    """List what goes of one text: (row, first byte, end, rule); a line takes the newline to its left with it."""
    kept = np.int64(0)
    for number in range(count):
        line = lines[number]
        rule = line[9]
        counts[0] += 1
        counts[8] += line[8] * (rule == 0)
        if rule:
            counts[rule] += rule != _STRIP
            first, last = line[0] - (kept > 0), line[1] + (kept == 0)
            cuts[size, 0], cuts[size, 1], cuts[size, 2], cuts[size, 3] = row, first, last, rule
            size += 1
            continue
        kept += 1
        for side in range(2):
            first, last = (line[0], line[2]) if side == 0 else (line[3], line[1])
            if first < last:
                cuts[size, 0], cuts[size, 1], cuts[size, 2], cuts[size, 3] = row, first, last, _STRIP
                size += 1
    counts[6] = kept
    return size


@kernel
def line_cuts(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    bits: NDArray[np.uint8],
    limits: LineLimits,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the lines that go: counts (rows, len(LINES)), and cuts (n, 4): row, first byte, end, rule from 1.

    Texts of which no line is left have no cuts.
    """
    rows = len(offsets) - 1
    counts = np.zeros((rows, 9), np.int64)
    most = total = np.int64(0)
    for row in range(rows):
        here = np.int64(1)
        for at in range(offsets[row], offsets[row + 1]):
            here += data[at] == NEWLINE
        total += here
        most = max(most, here)
    cuts = np.empty((total + 2 * rows, 4), np.int64)
    # First byte and end; those left; code points, capitals, digits, words, tokens; the rule that drops it.
    lines = np.empty((most, 10), np.int64)
    size: Int = np.int64(0)
    for row in range(rows):
        count = np.int64(0)
        at, end = offsets[row] - 1, offsets[row + 1]
        while at < end:
            line = lines[count]
            line[0] = line[2] = at + 1
            at = _measure(data, line, end, bits)
            line[1] = line[3] = at
            line[9] = 0
            counts[row, 7] += line[8]
            count += 1
        _drop_lines(data, lines, count, classes, bits, limits)
        before = size
        size = _put_cuts(lines, count, row, cuts, size, counts[row])
        size = size if counts[row, 6] else before
    return counts, cuts[:size].copy()


@kernel
def _reads(data: NDArray[np.uint8], at: Int, start: Int, end: Int, letters: NDArray[np.uint8]) -> bool:
    """Say whether letters stand at a byte in any case, within start..end."""
    if at < start or at + len(letters) > end:
        return False
    step = 0
    while step < len(letters) and data[at + step] | 32 == letters[step]:
        step += 1
    return step == len(letters)


@kernel
def may_have_phrase(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say which texts have "n cart", "read more" or "gn-" in some case: (rows,). What has no i, k or s, which have odd
    capitals."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        for at in range(start, end - 1):
            if data[at] == 32:
                follows = data[at + 1] | 32
                if (follows == 99 and _reads(data, at - 1, start, end, _N_CART)) or (
                    follows == 109 and _reads(data, at - 4, start, end, _READ_MORE)
                ):
                    found[row] = True
            elif data[at] == 45 and _reads(data, at - 2, start, end, _GN):
                found[row] = True
        if end > start and data[end - 1] == 45 and _reads(data, end - 3, start, end, _GN):
            found[row] = True
    return found


@kernel
def fasttext_words(offsets: NDArray[np.int64], data: NDArray[np.uint8], bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the words that fastText's tokenizer gives and that begin with a letter or a digit: (rows,).

    It splits at space, tab, newline, vertical tab, form feed, return and NUL.
    """
    rows = len(offsets) - 1
    counts = np.zeros(rows, np.int64)
    for row in range(rows):
        words = np.int64(0)
        gap = True
        end = offsets[row + 1]
        for at in range(offsets[row], end):
            splits = bits[data[at]] & SPLIT != 0 and data[at] < 0x80
            if gap and not splits:
                code, _ = code_point(data, at, end)
                words += bits[code] & ALNUM != 0
            gap = splits
        counts[row] = words
    return counts
