"""Where web addresses stand in a text, as DCLM's `url_removal_modifier` finds them with two regular expressions.

An address is found by its dot: what stands before it and its top-level domain behind are read only there, so that text
without dots passes at the speed of a search for one byte.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .characters import WORD, put_code_point
from .text import SPACE, Int, code_point
from .trie import Trie, build_trie

_DOMAINS = Path(__file__).parent.parent / "data" / "top-level-domains.txt"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_HOST, _TAIL = 1, 2  # may stand in a host's name; may stand behind the domain
_BYTES = np.zeros(256, np.uint8)
_BYTES[list(f"{_LETTERS}-@:%._+~#=".encode())] |= np.uint8(_HOST)
_BYTES[list(f"{_LETTERS}-()@:%_+.~#?&/=".encode())] |= np.uint8(_TAIL)
_NEWLINE, _DOT, _SLASH, _COLON, _ZERO, _TWO, _NINE = 10, 46, 47, 58, 48, 50, 57
_LONGEST_HOST, _MOST_SPACES = 256, 10


def _letters(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


_HTTP, _HTTPS, _FTP = _letters("http"), _letters("https"), _letters("ftp")


@lru_cache(maxsize=1)
def top_level_domains() -> Trie:
    """Build the trie of DCLM's list: IANA's root zone in lower case, internationalised names as they read."""
    return build_trie([line.encode() for line in _DOMAINS.read_text("utf-8").splitlines()])


@kernel
def word_before(data: NDArray[np.uint8], start: Int, at: Int, bits: NDArray[np.uint8]) -> Int:
    """Say whether the code point that ends before a byte is a word character; 0 at the start."""
    if at <= start:
        return 0
    first = at - 1
    while first > start and at - first < 4 and (data[first] & 0xC0) == 0x80:
        first -= 1
    code, _ = code_point(data, first, at)
    return np.int64(bits[code] & WORD != 0)


@kernel
def word_at(data: NDArray[np.uint8], at: Int, end: Int, bits: NDArray[np.uint8]) -> Int:
    """Say whether the code point at a byte is a word character; 0 at the end."""
    if at >= end:
        return 0
    code, _ = code_point(data, at, end)
    return np.int64(bits[code] & WORD != 0)


@kernel
def _domain_end(data: NDArray[np.uint8], at: Int, end: Int, domains: Trie, bits: NDArray[np.uint8]) -> Int:
    """Give the end of the longest top-level domain at a byte that ends between a word and what is none; -1 for none."""
    classes, table, final = domains
    state, found, here = np.int64(0), np.int64(-1), at
    while here < end:
        state = np.int64(table[state, classes[data[here]]])
        if state == 0:
            break
        here += 1
        if final[state] and word_before(data, at, here, bits) != word_at(data, here, end, bits):
            found = here
    return found


@kernel
def _begins_with_domain(data: NDArray[np.uint8], at: Int, end: Int, domains: Trie, lower: NDArray[np.int32]) -> bool:
    """Say whether a text begins with a top-level domain, in any case, whatever follows."""
    classes, table, final = domains
    letter = np.empty(4, np.uint8)
    state = np.int64(0)
    while at < end:
        code, width = code_point(data, at, end)
        at += width
        code = np.int64(lower[code])
        if code == 0x130 or code == 0x131:  # dotted and dotless I, and long s: one letter with i and s to `re`
            code = np.int64(105)
        elif code == 0x17F:
            code = np.int64(115)
        size = put_code_point(code, letter, np.int64(0))
        for step in range(size):
            state = np.int64(table[state, classes[letter[step]]])
            if state == 0:
                return False
        if final[state]:
            return True
    return False


@kernel
def _stands(data: NDArray[np.uint8], at: Int, start: Int, word: NDArray[np.uint8]) -> bool:
    """Say whether a word ends at a byte, not before start."""
    if at - len(word) < start:
        return False
    step = 0
    while step < len(word) and data[at - len(word) + step] == word[step]:
        step += 1
    return step == len(word)


@kernel
def _scheme_start(data: NDArray[np.uint8], at: Int, start: Int) -> Int:
    """Give where the http://, https:// or ftp:// begins that ends at a byte; the byte where there is none."""
    if at - 6 < start or data[at - 1] != _SLASH or data[at - 2] != _SLASH or data[at - 3] != _COLON:
        return at
    for word in (_HTTPS, _HTTP, _FTP):
        if _stands(data, at - 3, start, word):
            return at - 3 - len(word)
    return at


@kernel
def _space_start(data: NDArray[np.uint8], at: Int, start: Int, classes: NDArray[np.uint8]) -> Int:
    """Go back over the spaces before a byte, ten at the most."""
    for _ in range(_MOST_SPACES):
        if at <= start:
            break
        first = at - 1
        while first > start and at - first < 4 and (data[first] & 0xC0) == 0x80:
            first -= 1
        code, width = code_point(data, first, at)
        if width != at - first or not classes[code] & SPACE:
            break
        at = first
    return at


@kernel
def _tail_end(data: NDArray[np.uint8], at: Int, end: Int) -> Int:
    while at < end and _BYTES[data[at]] & _TAIL:
        at += 1
    return at


@kernel
def _find_host(
    data: NDArray[np.uint8], at: Int, start: Int, end: Int, domains: Trie, bits: NDArray[np.uint8]
) -> tuple[Int, Int]:
    """Find the address whose name holds the dot at `at`, not before start: first byte, end of its domain; -1 for none.

    `at` is the first dot from start on before a top-level domain. An expression that reads 1 to 256 bytes of the name
    and then a dot starts as far to the left as it can, and takes the last such dot.
    """
    first = at
    while first > start and at - first < _LONGEST_HOST and _BYTES[data[first - 1]] & _HOST:
        first -= 1
    last = -1
    if first < at:
        last = _domain_end(data, at + 1, end, domains, bits)
    here = at + 1
    while here < end and here - first <= _LONGEST_HOST and _BYTES[data[here]] & _HOST:
        if data[here] == _DOT:
            stop = _domain_end(data, here + 1, end, domains, bits)
            last = stop if stop >= 0 else last
        here += 1
    return first, last


@kernel
def url_cuts(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    bits: NDArray[np.uint8],
    lower: NDArray[np.int32],
    domains: Trie,
    everywhere: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find addresses by their domains, with the spaces before: rows (cuts,), and first byte and end (cuts, 2).

    everywhere: or only in texts that begin with the letters of a top-level domain, as DCLM looks.
    """
    dots = np.int64(0)
    for at in range(offsets[0], offsets[len(offsets) - 1]):
        dots += data[at] == _DOT
    rows, spans = np.empty(dots, np.int64), np.empty((dots, 2), np.int64)
    count = np.int64(0)
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        if not everywhere and not _begins_with_domain(data, start, end, domains, lower):
            continue
        at = start
        while at < end:
            if data[at] != _DOT or _domain_end(data, at + 1, end, domains, bits) < 0:
                at += 1
                continue
            first, stop = _find_host(data, at, start, end, domains, bits)
            if stop < 0:
                at += 1
                continue
            first = _space_start(data, _scheme_start(data, first, start), start, classes)
            rows[count], spans[count, 0], spans[count, 1] = row, first, _tail_end(data, stop, end)
            at = start = spans[count, 1]
            count += 1
    return rows[:count], spans[:count]


@kernel
def _octet_end(data: NDArray[np.uint8], at: Int, end: Int) -> Int:
    """Give the dot behind one to three digits (the first of three at most 2) at a byte; -1 where they are none."""
    here = at
    while here < end and here - at < 4 and _ZERO <= data[here] <= _NINE:
        here += 1
    digits = here - at
    if digits == 0 or digits > 3 or here >= end or data[here] != _DOT or (digits == 3 and data[at] > _TWO):
        return -1
    return here


@kernel
def ipv4_cuts(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], bits: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find addresses of four numbers, with the spaces before: rows (cuts,), and first byte and end (cuts, 2)."""
    dots = np.int64(0)
    for at in range(offsets[0], offsets[len(offsets) - 1]):
        dots += data[at] == _DOT
    rows, spans = np.empty(dots // 3, np.int64), np.empty((dots // 3, 2), np.int64)
    count = np.int64(0)
    for row in range(len(offsets) - 1):
        start = text = offsets[row]
        end = offsets[row + 1]
        at = start
        while at < end:
            if not _ZERO <= data[at] <= _NINE:
                at += 1
                continue
            here = at
            for _ in range(3):
                here = _octet_end(data, here, end) + 1
                if here == 0:
                    break
            first = _scheme_start(data, at, start)
            if word_before(data, text, first, bits):
                first = at  # no boundary before the scheme
            if here > 0 and here < end and _ZERO <= data[here] <= _NINE and not word_before(data, text, first, bits):
                stop = _tail_end(data, here + 1, end)
                rows[count], spans[count, 0], spans[count, 1] = row, _space_start(data, first, start, classes), stop
                count += 1
                at = start = stop
                continue
            while at < end and _ZERO <= data[at] <= _NINE:
                at += 1
    return rows[:count], spans[:count]


@kernel
def newline_cuts(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], most: Int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find what a run of newlines has beyond so many: rows (cuts,), and first byte and end (cuts, 2)."""
    total = np.int64(0)
    for at in range(offsets[0], offsets[len(offsets) - 1]):
        total += data[at] == _NEWLINE
    total //= most + 1
    rows, spans = np.empty(total, np.int64), np.empty((total, 2), np.int64)
    count = np.int64(0)
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            if data[at] != _NEWLINE:
                at += 1
                continue
            first = at
            while at < end and data[at] == _NEWLINE:
                at += 1
            if at - first > most:
                rows[count], spans[count, 0], spans[count, 1] = row, first + most, at
                count += 1
    return rows[:count], spans[:count]
