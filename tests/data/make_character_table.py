"""Write transforms/data/unicode-14-case.txt: what Python's `str` says of code points beside letters and decimal digits.

    python tests/data/make_character_table.py

Needs a Python whose unicodedata is 14.0.0 (3.11).
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

TARGET = Path(__file__).parents[2] / "transforms" / "data" / "unicode-14-case.txt"
HEAD = """\
# Beside unicode-14.txt, of Unicode 14.0: capitals (str.isupper), digits that are no decimals (str.isdigit), other
# numbers (str.isnumeric), and what str.lower makes of one code point where that is one: first..last/step kind number.
# Derived from the Unicode Character Database, (c) Unicode, Inc.; made by tests/data/make_character_table.py.
"""
KINDS: dict[str, Callable[[str], bool]] = {
    "upper": str.isupper,
    "digit": lambda char: char.isdigit() and not char.isdecimal(),
    "numeric": lambda char: char.isnumeric() and not char.isdigit() and not char.isalpha(),
}


def runs(codes: list[int], step: int) -> Iterator[tuple[int, int]]:
    """Join code points that follow one another by `step`."""
    first = last = codes[0]
    for code in codes[1:]:
        if code - last != step:
            yield first, last
            first = code
        last = code
    yield first, last


def lines() -> Iterator[str]:
    """Give the lines of the table."""
    for kind, holds in KINDS.items():
        for first, last in runs([code for code in range(sys.maxunicode + 1) if holds(chr(code))], 1):
            yield f"{first:04X}..{last:04X} {kind}"
    moved: dict[int, list[int]] = {}
    for code in range(sys.maxunicode + 1):
        lower = chr(code).lower()
        if len(lower) == 1 and ord(lower) != code:
            moved.setdefault(ord(lower) - code, []).append(code)
    for by, codes in sorted(moved.items()):
        step = 2 if by == 1 else 1
        for first, last in runs(codes, step):
            yield f"{first:04X}..{last:04X}/{step} lower {by}"


if __name__ == "__main__":
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    TARGET.write_text(HEAD + "".join(f"{line}\n" for line in lines()), encoding="ascii")
