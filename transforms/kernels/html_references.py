"""Character references of HTML: &amp;, &#8364;, &copy without its semicolon; and code points as UTF-8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inner
from .html_names import REFERENCE_BYTES, REFERENCE_CODES, REFERENCE_SLOTS, REFERENCE_SPANS, WINDOWS
from .text import Int

_HASH, _SEMICOLON = ord("#"), ord(";")
_ALNUM = np.isin(np.arange(256), list(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))


@inner
def put(code: Int, out: NDArray[np.uint8], size: Int) -> Int:
    """Write a code point as UTF-8."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size], out[size + 1] = 0xC0 | code >> 6, 0x80 | code & 0x3F
        return size + 2
    if code < 0x10000:
        out[size], out[size + 1], out[size + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
        return size + 3
    out[size], out[size + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 0x3F
    out[size + 2], out[size + 3] = 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
    return size + 4


@inner
def _numeric(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """Read &#…; — its code point (0: none) and where it ends."""
    first, code, base = at + 2, np.int64(0), np.int64(10)
    if first < end and data[first] | 32 == 120:
        first, base = first + 1, np.int64(16)
    at = first
    while at < end:
        digit = np.int64(data[at])
        value = digit - 48 if 48 <= digit <= 57 else (digit | 32) - 87
        if not _ALNUM[digit] or value >= base or value < 0 or (base == 10 and digit > 57):
            break
        code = min(code * base + value, np.int64(0x110000))
        at += 1
    if at == first:
        return 0, at
    if at < end and data[at] == _SEMICOLON:
        at += 1
    if code == 0 or code > 0x10FFFF or 0xD800 <= code < 0xE000:
        return 0xFFFD, at
    return (WINDOWS[code - 128] if 128 <= code < 160 else code), at


@inner
def _named(data: NDArray[np.uint8], start: Int, end: Int) -> Int:
    """Find a reference by its name, its semicolon included where it has one: its number, or -1."""
    value = np.int64(5381)
    for at in range(start, end):
        value = (value * 33 + np.int64(data[at])) & 0xFFFFFFFF
    slot = (value ^ value >> 13) & (len(REFERENCE_SLOTS) - 1)
    while REFERENCE_SLOTS[slot] >= 0:
        number = REFERENCE_SLOTS[slot]
        first = REFERENCE_SPANS[number]
        if REFERENCE_SPANS[number + 1] - first == end - start:
            step = np.int64(0)
            while step < end - start and REFERENCE_BYTES[first + step] == data[start + step]:
                step += 1
            if step == end - start:
                return number
        slot = (slot + 1) & (len(REFERENCE_SLOTS) - 1)
    return -1


@inner
def reference(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int, Int]:
    """Read the character reference at an ampersand: one or two code points (0: it is none), and where it ends."""
    if at + 1 < end and data[at + 1] == _HASH:
        code, after = _numeric(data, at, end)
        return code, 0, after
    last = at + 1
    while last < end and last < at + 32 and _ALNUM[data[last]]:
        last += 1
    if last < end and data[last] == _SEMICOLON:
        number = _named(data, at + 1, last + 1)
        if number >= 0:
            return REFERENCE_CODES[number, 0], REFERENCE_CODES[number, 1], last + 1
    for stop in range(min(last, at + 7), at + 2, -1):  # the old ones need no semicolon; the longest counts
        number = _named(data, at + 1, stop)
        if number >= 0:
            return REFERENCE_CODES[number, 0], REFERENCE_CODES[number, 1], stop
    return 0, 0, at
