"""Where personal data may stand: e-mail addresses, and places that a rule's regular expression is worth running at.

A scan looks for the byte that a kind cannot be without (`@`, a dot between digits, a colon behind hex digits) eight
bytes at a time, and for its nearest neighbours. A window holds every match whole, with some bytes of context on either
side, and next to nothing else; all scans are linear, whatever the bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .pii_runs import ACCOUNTS, NUMBERS, PREFIXES, TOKENS, run_windows
from .pii_scan import CLASSES, CONTEXT, DIGIT, HEX, LETTER, NAME, add_window, find_byte, grown
from .text import Int

#: Bytes that may lie before and behind the byte looked for: the longest match and the context.
IPV4_BEFORE, IPV4_AFTER = 3 + CONTEXT, 20 + CONTEXT
IPV6_BEFORE, IPV6_AFTER = 4 + CONTEXT, 48 + CONTEXT
PEM = np.frombuffer(b"-----BEGIN ", np.uint8)
PEM_AFTER = 16_384  # bytes of a private key, at most


@kernel
def _letter(data: NDArray[np.uint8], at: Int, end: Int, classes: NDArray[np.uint8]) -> Int:
    """Give the bytes of the letter or digit at a byte: ASCII, or one of U+00C0 to U+057F; 0 where there is none."""
    if classes[data[at]] & (DIGIT | LETTER):
        return 1
    return 2 if 0xC3 <= data[at] <= 0xD5 and at + 1 < end and (data[at + 1] & 0xC0) == 0x80 else 0


@kernel
def _domain(data: NDArray[np.uint8], at: Int, end: Int, classes: NDArray[np.uint8]) -> Int:
    """Match two and more labels with dots between, the longest: its end, or -1."""
    labels, last = 0, np.int64(-1)
    while at < end:
        width = _letter(data, at, end, classes)
        if not width:
            break
        labels += 1
        while width or (at < end and data[at] == 0x2D):
            at += max(width, 1)
            if width:
                last = at
            width = _letter(data, at, end, classes) if at < end else 0
        if last != at or at == end or data[at] != 0x2E:
            break
        at += 1
    return last if labels > 1 else -1


@kernel
def _name(data: NDArray[np.uint8], at: Int, floor: Int, classes: NDArray[np.uint8]) -> Int:
    """Find where the name before an `@` begins: the leftmost letter, digit or `_` from which it goes on; or -1."""
    start, back = np.int64(-1), at
    while back > floor:
        byte = data[back - 1]
        if byte == 0x2E:
            if back == at or data[back] == 0x2E:
                break
            back -= 1
        elif classes[byte] & (DIGIT | LETTER | NAME):
            back -= 1
            if classes[byte] & (DIGIT | LETTER) or byte == 0x5F:
                start = back
        elif (byte & 0xC0) == 0x80 and back - 2 >= floor and 0xC3 <= data[back - 2] <= 0xD5:
            back -= 2
            start = back
        else:
            break
    return start


@kernel
def emails(offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find what is written as an e-mail address, whatever its last label: (n, 3) row, first byte, end."""
    held = np.empty((64, 3), np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        floor, end = offsets[row], offsets[row + 1]
        at = find_byte(data, floor, end, 0x40)
        while at < end:
            start = _name(data, at, floor, classes)
            last = _domain(data, at + 1, end, classes) if start >= 0 else -1
            if last >= 0:
                held = grown(held, count)
                held[count, 0], held[count, 1], held[count, 2] = row, start, last
                count += 1
                floor = last
            at = find_byte(data, max(at + 1, floor), end, 0x40)
    return held[:count]


@kernel
def _is_ipv4(data: NDArray[np.uint8], at: Int, first: Int, end: Int, classes: NDArray[np.uint8]) -> bool:
    """Say whether the dot is the first of three with one to three digits between them."""
    if at == first or not classes[data[at - 1]] & DIGIT:
        return False
    for part in range(3):
        digits = 0
        at += 1
        while at < end and classes[data[at]] & DIGIT:
            digits += 1
            at += 1
        if digits == 0 or (part < 2 and (digits > 3 or at == end or data[at] != 0x2E)):
            return False
    return True


@kernel
def _is_ipv6(data: NDArray[np.uint8], at: Int, first: Int, end: Int, classes: NDArray[np.uint8]) -> bool:
    """Say whether the colon stands behind the first four digits of a global address (2000::/3), and goes on."""
    if at - 4 < first or at + 1 >= end or not (data[at - 4] == 0x32 or data[at - 4] == 0x33):
        return False
    for back in range(1, 4):
        if not classes[data[at - back]] & HEX:
            return False
    return bool(data[at + 1] == 0x3A or classes[data[at + 1]] & HEX)


@kernel
def byte_windows(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], byte: Int, before: Int, after: Int, classes: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Give the windows of `.` (IPv4) or `:` (IPv6): (n, 3) row, first byte, end; none over another."""
    held = np.empty((64, 3), np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        first, end = offsets[row], offsets[row + 1]
        at = find_byte(data, first, end, byte)
        while at < end:
            if _is_ipv4(data, at, first, end, classes) if byte == 0x2E else _is_ipv6(data, at, first, end, classes):
                held = grown(held, count)
                count = add_window(held, count, row, max(first, at - before), min(end, at + after))
            at = find_byte(data, at + 1, end, byte)
    return held[:count]


@kernel
def pem_windows(offsets: NDArray[np.int64], data: NDArray[np.uint8], begin: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Give the windows behind `-----BEGIN `, 16 KiB each: (n, 3), none over another."""
    held = np.empty((64, 3), np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        end = offsets[row + 1]
        at = find_byte(data, offsets[row], end, 0x2D)
        while at < end:
            same = 0
            while same < len(begin) and at + same < end and data[at + same] == begin[same]:
                same += 1
            if same == len(begin):
                held = grown(held, count)
                count = add_window(held, count, row, at, min(end, at + PEM_AFTER))
            at = find_byte(data, at + 1, end, 0x2D)
    return held[:count]


def windows(scan: str, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[Any]:
    """Give the windows of one kind of scan: (n, 3) row, first byte, end; rising, none over another."""
    found: NDArray[Any]
    if scan == "email":
        found = emails(offsets, data, CLASSES)
    elif scan == "ipv4":
        found = byte_windows(offsets, data, 0x2E, IPV4_BEFORE, IPV4_AFTER, CLASSES)
    elif scan == "ipv6":
        found = byte_windows(offsets, data, 0x3A, IPV6_BEFORE, IPV6_AFTER, CLASSES)
    elif scan == "pem":
        found = pem_windows(offsets, data, PEM)
    else:
        number = {"number": NUMBERS, "token": TOKENS, "iban": ACCOUNTS}[scan]
        found = run_windows(offsets, data, number, CLASSES, PREFIXES)
    return found
