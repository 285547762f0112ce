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
from .text import Int, load64

_ONES, _HIGH = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
CONTEXT = 4  # bytes that a pattern looks at beside a match
#: Bytes that may lie before and behind the byte looked for: the longest match and the context.
IPV4_BEFORE, IPV4_AFTER = 3 + CONTEXT, 20 + CONTEXT
IPV6_BEFORE, IPV6_AFTER = 4 + CONTEXT, 48 + CONTEXT
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
PEM = np.frombuffer(b"-----BEGIN ", np.uint8)
PEM_AFTER = 16_384  # bytes of a private key, at most

DIGIT, LETTER, HEX, TOKEN, GAP, CAPITAL, NAME = 1, 2, 4, 8, 16, 32, 64
CLASSES = np.zeros(256, np.uint8)
for _marks, _bit in (
    (b"0123456789", DIGIT | HEX | TOKEN),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", LETTER | TOKEN | CAPITAL),
    (b"abcdefghijklmnopqrstuvwxyz", LETTER | TOKEN),
    (b"ABCDEFabcdef", HEX),
    (b"_-.", TOKEN),
    (b" -.()/", GAP),
    (b"_%+'-", NAME),
):
    CLASSES[np.frombuffer(_marks, np.uint8)] |= np.uint8(_bit)
CLASSES.flags.writeable = False


@kernel
def find_byte(data: NDArray[np.uint8], at: Int, end: Int, byte: Int) -> Int:
    """Find a byte: its first place in [at, end), or `end`."""
    pattern = np.uint64(byte) * _ONES
    while at + 8 <= end:
        word = load64(data, at) ^ pattern
        if (word - _ONES) & ~word & _HIGH:
            break
        at += 8
    while at < end and data[at] != byte:
        at += 1
    return at


@kernel
def grown(held: NDArray[np.int64], count: Int) -> NDArray[np.int64]:
    """Give room for one row more: the array itself, or a copy of twice its size."""
    if count < len(held):
        return held
    larger = np.empty((2 * len(held), held.shape[1]), np.int64)
    larger[:count] = held[:count]
    return larger


@kernel
def _window(held: NDArray[np.int64], count: Int, row: Int, first: Int, end: Int) -> Int:
    """Add a window, or make the last one longer where they touch; give the count."""
    if count and held[count - 1, 0] == row and held[count - 1, 2] >= first:
        held[count - 1, 2] = max(end, held[count - 1, 2])
        return count
    held[count, 0], held[count, 1], held[count, 2] = row, first, end
    return count + 1


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
                count = _window(held, count, row, max(first, at - before), min(end, at + after))
            at = find_byte(data, at + 1, end, byte)
    return held[:count]


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
        kept = _window(held, kept, held[one, 0], held[one, 1], held[one, 2])
    return held[:kept]


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
                count = _window(held, count, row, at, min(end, at + PEM_AFTER))
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
