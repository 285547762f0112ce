"""Where the words of a text begin and end, for each definition of a word: 180 (Unicode) to 450 MB/s a core.

Words are spans of bytes, listed for a whole batch: those of row i are `rows[i]` to `rows[i + 1]`. Unicode's are the
segments of UAX #29 that hold a letter or a digit, found in one pass by a table of states, with a look ahead past marks
where rules WB6, WB7b and WB12 need it.

The table, `transforms/data/words.npz`, is made by tests/data/make_words_table.py: bounds of words as in Unicode 16.0;
letters, digits and lower case as in 14.0, like the other tables here. One byte a code point:

    bits 0-4  Word_Break    bit 5  Extended_Pictographic    bit 6  str.isalnum
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import SPACE, Int, code_point

ALPHANUMERIC = 64  # bit of `word_classes`
_CLASS, _KIND, _PICTOGRAPH = 63, 31, 32
#: Values of Word_Break; 0 is Other.
_RETURN, _FEED, _NEWLINE, _EXTEND, _FORMAT, _ZWJ, _LETTER, _HEBREW, _NUMBER, _LOW_LINE = range(1, 11)
_MID_LETTER, _MID_NUMBER, _MID_BOTH, _QUOTE, _DOUBLE_QUOTE, _KATAKANA, _REGIONAL, _SPACES = range(11, 19)
#: A state is the Word_Break of the code point that marks hang on, whether a mark hangs on it (the last of them a joiner
#: or another), and whether it is the second of two regional indicators.
_JOINER, _MARK, _SECOND = 32, 64, 128
#: What a code point does to the segment before it: end it, join it, or join it if what follows is a letter, a number,
#: a Hebrew letter; the last joins in any case, and more closely before a letter.
_BREAK, _JOIN, _IF_LETTER, _IF_NUMBER, _IF_HEBREW, _JOIN_OR_LETTER = range(6)
_DATA = Path(__file__).parent.parent / "data" / "words.npz"
_FASTTEXT_SPACES = (0, 9, 10, 11, 12, 13, 32)


class Words(NamedTuple):
    """The words of a batch: first word of each row (n + 1,), first byte and end of each word (m,), and the bytes."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    data: NDArray[np.uint8]


@lru_cache(maxsize=1)
def word_classes() -> NDArray[np.uint8]:
    """Give the table: (1114112,) uint8, read-only."""
    with np.load(_DATA) as held:
        table: NDArray[np.uint8] = held["blocks"][held["index"]].reshape(-1)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def lower_case() -> NDArray[np.int32]:
    """Give the lower case of every code point that has one of a single code point, else itself: (1114112,) int32."""
    with np.load(_DATA) as held:
        cases = held["cases"]
    table = np.arange(0x110000, dtype=np.int32)
    table[cases[:, 0]] = cases[:, 1]
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def fasttext_classes() -> NDArray[np.uint8]:
    """Give the separators of fastText's tokenizer as SPACE: ASCII white space and NUL; (1114112,) uint8, read-only."""
    table = np.zeros(0x110000, np.uint8)
    table[list(_FASTTEXT_SPACES)] = SPACE
    table.flags.writeable = False
    return table


@kernel
def split_words(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """List what stands between code points of the class SPACE: rows, starts, ends."""
    rows = np.zeros(len(offsets), np.int64)
    most = (offsets[-1] - offsets[0]) // 2 + len(offsets)
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            code, width = np.int64(data[at]), 1
            if code >= 0x80:
                code, width = code_point(data, at, end)
            if classes[code] & SPACE:
                at += width
                continue
            starts[count] = at
            at += width
            while at < end:
                code, width = np.int64(data[at]), 1
                if code >= 0x80:
                    code, width = code_point(data, at, end)
                if classes[code] & SPACE:
                    break
                at += width
            ends[count] = at
            count += 1
        rows[row + 1] = count
    return rows, starts[:count], ends[:count]


def _action(state: int, kind: int, pictograph: bool) -> int:
    """Say what a code point does in a state (Unicode Standard Annex 29, version 16.0, section 4.1.1)."""
    base, marks = state & _KIND, state & (_JOINER | _MARK)
    letters, words = (_LETTER, _HEBREW), (_LETTER, _HEBREW, _NUMBER)
    if base == _RETURN and kind == _FEED and not marks:  # WB3
        return _JOIN
    if base in (_RETURN, _FEED, _NEWLINE) or kind in (_RETURN, _FEED, _NEWLINE):  # WB3a, WB3b
        return _BREAK
    if (state & _JOINER and pictograph) or (base == kind == _SPACES and not marks):  # WB3c, WB3d
        return _JOIN
    if kind in (_EXTEND, _FORMAT, _ZWJ):  # WB4
        return _JOIN
    if (base in words and kind in words) or base == kind == _KATAKANA:  # WB5, WB8, WB9, WB10, WB13
        return _JOIN
    if kind == _LOW_LINE and base in (*words, _KATAKANA, _LOW_LINE):  # WB13a
        return _JOIN
    if base == _LOW_LINE and kind in (*words, _KATAKANA):  # WB13b
        return _JOIN
    if base in letters and kind in (_MID_LETTER, _MID_BOTH, _QUOTE):  # WB6, WB7, WB7a
        return _JOIN_OR_LETTER if (base, kind) == (_HEBREW, _QUOTE) else _IF_LETTER
    if base == _HEBREW and kind == _DOUBLE_QUOTE:  # WB7b, WB7c
        return _IF_HEBREW
    if base == _NUMBER and kind in (_MID_NUMBER, _MID_BOTH, _QUOTE):  # WB11, WB12
        return _IF_NUMBER
    if base == kind == _REGIONAL and not state & _SECOND:  # WB15, WB16
        return _JOIN
    return _BREAK  # WB999


@lru_cache(maxsize=1)
def word_rules() -> NDArray[np.uint16]:
    """Give, for each state and class of a code point, the next state and 256 times what to do: (256, 64) uint16."""
    table = np.zeros((256, 64), np.uint16)
    for state in range(256):
        for kind in range(_SPACES + 1):
            for pictograph in (0, _PICTOGRAPH):
                action, after = _action(state, kind, bool(pictograph)), kind
                if action == _JOIN and kind in (_EXTEND, _FORMAT, _ZWJ):
                    after = state & ~(_JOINER | _MARK) | (_JOINER if kind == _ZWJ else _MARK)
                elif action == _BREAK and kind == _ZWJ:
                    after = kind | _JOINER
                elif action == _JOIN and kind == _REGIONAL:
                    after = kind | _SECOND
                table[state, kind | pictograph] = action << 8 | after
    table.flags.writeable = False
    return table


@kernel
def _bridged(data: NDArray[np.uint8], at: Int, end: Int, table: NDArray[np.uint8], action: Int) -> bool:
    """Say whether the code point that follows, marks apart, is the one that an action waits for."""
    while at < end:
        code, width = code_point(data, at, end)
        kind = np.int64(table[code]) & _KIND
        if kind < _EXTEND or kind > _ZWJ:
            if action == _IF_NUMBER:
                return kind == _NUMBER
            return kind == _HEBREW or (kind == _LETTER and action != _IF_HEBREW)
        at += width
    return False


@kernel
def unicode_words(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    table: NDArray[np.uint8],
    rules: NDArray[np.uint16],
    wanted: Int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """List the segments in which a code point has the bit `wanted`; all if it is 0: rows, starts, ends."""
    rows = np.zeros(len(offsets), np.int64)
    size = offsets[-1] - offsets[0]
    most = (size - size // 3 if wanted else size) + len(offsets)  # of two words that touch, one has two bytes
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        first, flags, state = at, np.uint8(0), np.uint16(_NEWLINE)  # nothing joins to it
        while at < end:
            code, width = np.int64(data[at]), 1
            if code >= 0x80:
                code, width = code_point(data, at, end)
            bits = table[code]
            before, rule = state, rules[state, bits & np.uint8(_CLASS)]
            state = rule & np.uint16(255)
            if rule >> 8 != _JOIN:
                action, after = rule >> 8, at + width
                # Most marks stand before a space: no need to call.
                if action and after < end and data[after] > 32 and _bridged(data, after, end, table, action):
                    state = before & np.uint16(_KIND) | np.uint16(_MARK)  # what follows joins to it
                elif action != _JOIN_OR_LETTER:
                    if flags & wanted == wanted and at > first:
                        starts[count], ends[count] = first, at
                        count += 1
                    first, flags = at, np.uint8(0)
            flags |= bits
            at += width
        if flags & wanted == wanted and at > first:
            starts[count], ends[count] = first, at
            count += 1
        rows[row + 1] = count
    return rows, starts[:count], ends[:count]


@kernel
def words_beginning(
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    data: NDArray[np.uint8],
    table: NDArray[np.uint8],
    bit: Int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Leave only words whose first code point has a bit of a table: rows, starts, ends."""
    left = np.zeros(len(rows), np.int64)
    firsts, stops = np.empty(len(starts), np.int64), np.empty(len(starts), np.int64)
    count = 0
    for row in range(len(rows) - 1):
        for word in range(rows[row], rows[row + 1]):
            code, _ = code_point(data, starts[word], ends[word])
            if table[code] & bit:
                firsts[count], stops[count] = starts[word], ends[word]
                count += 1
        left[row + 1] = count
    return left, firsts[:count], stops[:count]
