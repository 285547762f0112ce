"""FineWeb's two expressions for e-mail and IPv4 addresses, matched in one pass over the bytes, in linear time.

datatrove v0.10.0 (`pipeline/formatters/pii.py`) hands them to a backtracking engine, which is quadratic in a long run
of `a.a.a.a`. Here each `@` is looked at once, to its left and its right, and each dot between digits; what comes out is
what `re.sub` would replace, match by match: the leftmost first, none over another.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .pii_scan import find_byte, grown
from .text import ALPHA, DIGIT, Int, code_point, code_point_classes

LOCAL, ALNUM, NUMBER = 1, 2, 4
BYTES = np.zeros(256, np.uint8)
for _marks, _bit in (
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", LOCAL | ALNUM),
    (b"0123456789", LOCAL | ALNUM | NUMBER),
    (b"!#$%&'*+/=?^_`{|}~-", LOCAL),
):
    BYTES[np.frombuffer(_marks, np.uint8)] |= np.uint8(_bit)
BYTES.flags.writeable = False
_AT, _DOT, _HYPHEN, _OPEN, _CLOSE, _COLON = 0x40, 0x2E, 0x2D, 0x5B, 0x5D, 0x3A
_NUMERIC = Path(__file__).parent.parent / "data" / "unicode-14-numeric.txt"


@lru_cache(maxsize=1)
def word_characters() -> NDArray[np.bool_]:
    """Say of every code point whether it is `\\w`: letters, numbers of all kinds, `_`, as of Unicode 14.0."""
    table: NDArray[np.bool_] = (code_point_classes() & (ALPHA | DIGIT)) != 0
    table[ord("_")] = True
    for line in _NUMERIC.read_text("ascii").splitlines():
        if not line.startswith("#"):
            first, last = (int(code, 16) for code in line.split(".."))
            table[first : last + 1] = True
    table.flags.writeable = False
    return table


@kernel
def _word_before(data: NDArray[np.uint8], at: Int, first: Int, words: NDArray[np.bool_]) -> bool:
    """Say whether a word character ends at a byte."""
    if at == first:
        return False
    lead = at - 1
    while lead > first and at - lead < 4 and (data[lead] & 0xC0) == 0x80:
        lead -= 1
    code, width = code_point(data, lead, at)
    return bool(width == at - lead and words[code])


@kernel
def _octet(data: NDArray[np.uint8], at: Int, end: Int, bytes_: NDArray[np.uint8]) -> tuple[Int, Int]:
    """Read a whole run of digits as one number up to 255: (its end, its value), -1 where it is none."""
    value, digits = np.int64(0), 0
    while at < end and bytes_[data[at]] & NUMBER and digits < 4:
        value = 10 * value + np.int64(data[at]) - 48
        digits += 1
        at += 1
    return (at, value) if 0 < digits < 4 and value < 256 else (at, -1)


@kernel
def _bracket(data: NDArray[np.uint8], at: Int, end: Int, bytes_: NDArray[np.uint8]) -> Int:
    """Match `[1.2.3.4]` or `[1.2.3.name:]`: its end, or -1."""
    at += 1
    for _ in range(3):
        at, value = _octet(data, at, end, bytes_)
        if value < 0 or at == end or data[at] != _DOT:
            return -1
        at += 1
    after, value = _octet(data, at, end, bytes_)
    if value >= 0 and after < end and data[after] == _CLOSE:
        return after + 1
    while at < end and (bytes_[data[at]] & ALNUM or data[at] == _HYPHEN):
        at += 1
    # A colon before the bracket, a letter or digit before the colon.
    named = at + 1 < end and data[at] == _COLON and data[at + 1] == _CLOSE and bytes_[data[at - 1]] & ALNUM
    return at + 2 if named else -1


@kernel
def _domain(data: NDArray[np.uint8], at: Int, end: Int, bytes_: NDArray[np.uint8]) -> Int:
    """Match the domain behind an `@`, the longest: its end, or -1."""
    if at < end and data[at] == _OPEN:
        return _bracket(data, at, end, bytes_)
    labels, last = 0, -1
    while at < end and bytes_[data[at]] & ALNUM:
        labels += 1
        while at < end and (bytes_[data[at]] & ALNUM or data[at] == _HYPHEN):
            if bytes_[data[at]] & ALNUM:
                last = at + 1
            at += 1
        if last != at or at == end or data[at] != _DOT:
            break
        at += 1
    return last if labels > 1 else -1


@kernel
def _local(
    data: NDArray[np.uint8], at: Int, first: Int, floor: Int, bytes_: NDArray[np.uint8], words: NDArray[np.bool_]
) -> Int:
    """Find where the name before an `@` begins: the leftmost place at the edge of a word, or -1."""
    start, back = -1, at
    while back > floor:
        byte = data[back - 1]
        if byte == _DOT:
            if back == at or data[back] == _DOT:
                break
        elif not bytes_[byte] & LOCAL:
            break
        back -= 1
        if byte != _DOT:
            word = bytes_[byte] & ALNUM != 0 or byte == 0x5F
            if word != _word_before(data, back, first, words):
                start = back
    return start


@kernel
def fineweb_emails(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], bytes_: NDArray[np.uint8], words: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Find e-mail addresses: (n, 3) row, first byte, end."""
    held = np.empty((64, 3), np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        first, end = offsets[row], offsets[row + 1]
        floor = first
        at = find_byte(data, first, end, _AT)
        while at < end:
            last = _domain(data, at + 1, end, bytes_)
            start = _local(data, at, first, floor, bytes_, words) if last >= 0 else -1
            if start >= 0:
                held = grown(held, count)
                held[count, 0], held[count, 1], held[count, 2] = row, start, last
                count += 1
                floor = last
            at = find_byte(data, max(at + 1, floor), end, _AT)
    return held[:count]


@kernel
def _first_octet(data: NDArray[np.uint8], dot: Int, floor: Int, bytes_: NDArray[np.uint8]) -> Int:
    """Find where the number that ends at a dot begins: the longest of up to three digits that is no more than 255."""
    start, value, scale = dot, np.int64(0), 1
    for back in range(1, 4):
        at = dot - back
        if at < floor or not bytes_[data[at]] & NUMBER:
            break
        value += scale * (np.int64(data[at]) - 48)
        scale *= 10
        if value < 256:
            start = at
    return start


@kernel
def _last_octet(data: NDArray[np.uint8], at: Int, end: Int, bytes_: NDArray[np.uint8]) -> Int:
    """Find where the last number ends: as many digits as still make one; `at` where there is none."""
    value, last = np.int64(0), at
    while last < end and last - at < 3 and bytes_[data[last]] & NUMBER:
        value = 10 * value + np.int64(data[last]) - 48
        if value > 255:
            break
        last += 1
    return last


@kernel
def _ipv4_end(data: NDArray[np.uint8], dot: Int, end: Int, bytes_: NDArray[np.uint8]) -> Int:
    """Match what follows the first number of an address, from its dot on: the end of the last, or -1."""
    at = dot
    for _ in range(2):
        at, value = _octet(data, at + 1, end, bytes_)
        if value < 0 or at == end or data[at] != _DOT:
            return -1
    last = _last_octet(data, at + 1, end, bytes_)
    return last if last > at + 1 else -1


@kernel
def _address(data: NDArray[np.uint8], at: Int, end: Int) -> Int:
    """Read four numbers as 32 bits; -1 where one has a zero before it."""
    address, value, digits = np.int64(0), np.int64(0), 0
    while at < end:
        if data[at] == _DOT:
            address = address << 8 | value
            value, digits = np.int64(0), 0
        else:
            if digits and value == 0:
                return -1
            value = 10 * value + np.int64(data[at]) - 48
            digits += 1
        at += 1
    return address << 8 | value


@kernel
def fineweb_ipv4(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], emails: NDArray[np.int64], bytes_: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Find IPv4 addresses outside the e-mail addresses, the special ones too: (n, 4) row, first byte, end, address.

    The address is -1 where a number has a zero before it: what `ipaddress` refuses.
    """
    held = np.empty((64, 4), np.int64)
    count, email = 0, 0
    for row in range(len(offsets) - 1):
        floor = offsets[row]
        while floor < offsets[row + 1]:
            end = after = offsets[row + 1]
            if email < len(emails) and emails[email, 0] == row:
                end, after = emails[email, 1], emails[email, 2]
                email += 1
            at = find_byte(data, floor, end, _DOT)
            while at < end:
                start = _first_octet(data, at, floor, bytes_)
                last = _ipv4_end(data, at, end, bytes_) if start < at else -1
                if last >= 0:
                    held = grown(held, count)
                    held[count, 0], held[count, 1], held[count, 2] = row, start, last
                    held[count, 3] = _address(data, start, last)
                    count += 1
                    floor = last
                at = find_byte(data, max(at + 1, floor), end, _DOT)
            floor = after
    return held[:count]
