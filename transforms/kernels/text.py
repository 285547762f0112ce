"""Text as kernels read it: what each code point is, how UTF-8 is walked, how stretches of it are hashed and compared.

One byte of classes for each of the 1,114,112 code points (1.1 MB, of which a document touches a few pages). Letters and
digits are those of Unicode 14.0 (`transforms/data/unicode-14.txt`), not those of the running Python, so that a document
is judged alike on every machine. Lengths are code points, as Python's `len` counts them.

The sets of marks are those of datatrove's `utils/text.py` (v0.10.0, commit a649de79), because its published decisions
depend on them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel

#: A whole number: `int` where Python sees it, an int64 where compiled.
Int = Any

#: Class bits of a code point.
SPACE = 1  # what `str.split` splits at
BREAK = 2  # where `str.splitlines` ends a line; always SPACE too
SYMBOL = 4  # in PUNCTUATION or TERMINAL_PUNCTUATION
TERMINAL = 8  # in TERMINAL_PUNCTUATION
ALPHA = 16  # `str.isalpha`
DIGIT = 32  # `\d` of a regular expression
CLOSER = 64  # may stand between the end mark of a sentence and the next space
FULL_WIDTH_END = 128  # ends a sentence with no space after it

#: datatrove's PUNCTUATION: common marks, and the control characters but tab and newline.
PUNCTUATION = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»" + "".join(
    chr(code) for first, end in ((0, 9), (11, 13), (13, 32), (127, 160)) for code in range(first, end)
)
#: datatrove's TERMINAL_PUNCTUATION: 159 marks that end a sentence, of all scripts; neither quotes nor brackets.
TERMINAL_PUNCTUATION = (
    "!.?\u0589\u061d\u061e\u061f\u06d4\u0700\u0701\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u104a\u104b"
    "\u1362\u1367\u1368\u166e\u1735\u1736\u17d4\u17d5\u17d6\u17d9\u17da\u1803\u1809\u1944\u1945\u1aa8\u1aa9\u1aaa"
    "\u1aab\u1b5a\u1b5b\u1b5e\u1b5f\u1b7d\u1b7e\u1c3b\u1c3c\u1c7e\u1c7f\u203c\u203d\u2047\u2048\u2049\u2e2e\u2e3c"
    "\u2e53\u2e54\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9\uaa5d\uaa5e\uaa5f"
    "\uaaf0\uaaf1\uabeb\ufe52\ufe56\ufe57\uff01\uff0e\uff1f\uff61\U00010a56\U00010a57\U00010f55\U00010f56\U00010f57"
    "\U00010f58\U00010f59\U00010f86\U00010f87\U00010f88\U00010f89\U00011047\U00011048\U000110be\U000110bf\U000110c0"
    "\U000110c1\U00011141\U00011142\U00011143\U000111c5\U000111c6\U000111cd\U000111de\U000111df\U00011238\U00011239"
    "\U0001123b\U0001123c\U000112a9\U0001144b\U0001144c\U000115c2\U000115c3\U000115c9\U000115ca\U000115cb\U000115cc"
    "\U000115cd\U000115ce\U000115cf\U000115d0\U000115d1\U000115d2\U000115d3\U000115d4\U000115d5\U000115d6\U000115d7"
    "\U00011641\U00011642\U0001173c\U0001173d\U0001173e\U00011944\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c"
    "\U00011c41\U00011c42\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016a6e\U00016a6f\U00016af5\U00016b37\U00016b38"
    "\U00016b44\U00016e98\U0001bc9f\U0001da88"
)
_CLOSERS = "\"'’”»)]}」】》〉）"
_FULL_WIDTH_ENDS = "。．！？｡"
_SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_BREAKS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
_UNICODE = Path(__file__).parent.parent / "data" / "unicode-14.txt"

NEWLINE, RETURN = 10, 13

#: Odd multipliers of the hashes. A hash only finds candidates: equality is decided on the bytes.
MIX = np.uint64(0x9FB21C651E98DF25)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=1)
def code_point_classes() -> NDArray[np.uint8]:
    """Give the class bits of every code point: (1114112,) uint8, read-only."""
    table = np.zeros(0x110000, np.uint8)
    for marks, bits in (
        (_SPACES, SPACE),
        (_BREAKS, BREAK),
        (PUNCTUATION, SYMBOL),
        (TERMINAL_PUNCTUATION, SYMBOL | TERMINAL),
        (_CLOSERS, CLOSER),
        (_FULL_WIDTH_ENDS, FULL_WIDTH_END),
    ):
        table[[ord(mark) for mark in set(marks)]] |= np.uint8(bits)
    for line in _UNICODE.read_text("ascii").splitlines():
        if not line.startswith("#"):
            span, kind = line.split()
            first, last = (int(code, 16) for code in span.split(".."))
            table[first : last + 1] |= np.uint8(ALPHA if kind == "alpha" else DIGIT)
    table.flags.writeable = False
    return table


@kernel
def code_point(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """Decode the code point at a byte: (code, bytes). A byte that begins none counts alone, as U+FFFD.

    Reads nothing past `end`, whatever the bytes.
    """
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        width, code = 2, lead & 0x1F
    elif lead < 0xF0:
        width, code = 3, lead & 0x0F
    else:
        width, code = 4, lead & 0x07
    if lead < 0xC2 or at + width > end:
        return 0xFFFD, 1
    for step in range(1, width):
        code = code << 6 | (np.int64(data[at + step]) & 0x3F)
    if code > 0x10FFFF:
        return 0xFFFD, 1
    return code, width


@kernel
def after_break(data: NDArray[np.uint8], at: Int, end: Int, code: Int) -> Int:
    """Give the byte at which the next line begins, `at` being the one after the break `code`: \\r\\n is one break."""
    return at + 1 if code == RETURN and at < end and data[at] == NEWLINE else at


@kernel
def stripped(data: NDArray[np.uint8], start: Int, end: Int, classes: NDArray[np.uint8]) -> tuple[Int, Int]:
    """Leave out the space at both ends, as `str.strip` does: first byte and end of what is left."""
    while start < end:
        code, width = code_point(data, start, end)
        if not classes[code] & SPACE:
            break
        start += width
    while end > start:
        last = end - 1
        while last > start and end - last < 4 and (data[last] & 0xC0) == 0x80:
            last -= 1
        code, width = code_point(data, last, end)
        if width != end - last or not classes[code] & SPACE:
            break
        end = last
    return start, end


@kernel
def segments(data: NDArray[np.uint8], at: Int, end: Int, least: Int, spans: NDArray[np.int64]) -> Int:
    """Cut at runs of at least so many newlines, as `re.split` does: a newline at an end leaves an empty segment."""
    count, start, characters = 0, at, 0
    while at < end:
        if data[at] == NEWLINE:
            run = at
            while run < end and data[run] == NEWLINE:
                run += 1
            if run - at >= least:
                spans[count, 0], spans[count, 1], spans[count, 2] = start, at, characters
                count += 1
                start, characters = run, 0
            else:
                characters += run - at
            at = run
        else:
            characters += (data[at] & 0xC0) != 0x80
            at += 1
    spans[count, 0], spans[count, 1], spans[count, 2] = start, end, characters
    return count + 1


@kernel
def load64(data: NDArray[np.uint8], at: Int) -> Any:
    """Read eight bytes as one little-endian number; the compiler makes one load of it."""
    first = np.uint64(at)
    word = np.uint64(data[first])
    for step in range(1, 8):
        word |= np.uint64(data[first + np.uint64(step)]) << np.uint64(8 * step)
    return word


@kernel
def hash_bytes(data: NDArray[np.uint8], start: Int, end: Int) -> Any:
    """Hash a stretch of bytes to 64 bits."""
    value = np.uint64(end - start) * GOLDEN
    at = start
    while at + 8 <= end:
        value = (value ^ load64(data, at)) * MIX
        value ^= value >> np.uint64(32)
        at += 8
    if at < end and end - start >= 8:
        value = (value ^ load64(data, end - 8)) * MIX
    else:
        while at < end:
            value = (value ^ np.uint64(data[at])) * MIX
            at += 1
    return value ^ (value >> np.uint64(29))


@kernel
def same_bytes(data: NDArray[np.uint8], one: Int, other: Int, length: Int) -> bool:
    """Say whether two stretches of one buffer hold the same bytes."""
    at = 0
    while at + 8 <= length:
        if load64(data, one + at) != load64(data, other + at):
            return False
        at += 8
    while at < length:
        if data[one + at] != data[other + at]:
            return False
        at += 1
    return True


@kernel
def table_size(entries: Int) -> Int:
    """Size a hash table: the power of two that leaves at least half of it free."""
    size = 8
    while size < 2 * entries:
        size *= 2
    return size


@kernel
def repeated(
    data: NDArray[np.uint8],
    spans: NDArray[np.int64],
    count: Int,
    hashes: NDArray[np.uint64],
    slots: NDArray[np.int32],
) -> tuple[Int, Int]:
    """Count the second and later copies among stretches of text, and their code points.

    spans: (count or more, 3) first byte, end, code points; hashes and slots are scratch, (count) and
    (`table_size(count)`) or more.
    """
    copies = 0
    characters = 0
    if count < 2:
        return copies, characters
    size = table_size(count)
    slots[:size] = 0
    for item in range(count):
        start, end = spans[item, 0], spans[item, 1]
        value = hash_bytes(data, start, end)
        hashes[item] = value
        slot = np.int64((value * GOLDEN) >> np.uint64(32)) & (size - 1)
        while slots[slot] != 0:
            other = np.int64(slots[slot]) - 1
            first, last = spans[other, 0], spans[other, 1]
            if hashes[other] == value and last - first == end - start and same_bytes(data, first, start, end - start):
                copies += 1
                characters += spans[item, 2]
                break
            slot = (slot + 1) & (size - 1)
        if slots[slot] == 0:
            slots[slot] = item + 1
    return copies, characters
