"""The script that most of a text is written in, by the Unicode property of its characters.

Spaces, digits, punctuation and what is common to scripts count for none. Japanese is `Hira` or `Hani`, whichever has
more characters. Some 200 MB a second and core on Latin text, 290 to 480 on Chinese and Japanese.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import code_point

_UNICODE = Path(__file__).parent.parent / "data" / "scripts.txt"
_LINES = [line.split("\t") for line in _UNICODE.read_text("ascii").splitlines() if not line.startswith("#")]
#: Codes of ISO 15924, in the order in which ties are decided.
SCRIPTS = tuple(name for name, _ in _LINES)


def _table() -> NDArray[np.uint8]:
    """Number the script of each code point, from 1; 0 is none."""
    table = np.zeros(0x110000, np.uint8)
    for number, (_, spans) in enumerate(_LINES):
        for span in spans.split(" "):
            first, _, last = span.partition("-")
            table[int(first, 16) : int(last or first, 16) + 1] = number + 1
    table.flags.writeable = False
    return table


_TABLE = _table()


def dominant_scripts(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the script of most characters of each of n texts (n,), into SCRIPTS; -1 where no character has one."""
    return _dominant(offsets, data, _TABLE, len(SCRIPTS))


@kernel
def _dominant(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], table: NDArray[np.uint8], scripts: int
) -> NDArray[np.int64]:
    found = np.empty(len(offsets) - 1, np.int64)
    counts = np.zeros(scripts + 1, np.int64)
    for row in range(len(found)):
        counts[:] = 0
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            code, width = code_point(data, at, end)
            counts[table[code]] += 1
            at += width
        counts[0] = 0
        most = np.argmax(counts)
        found[row] = most - 1 if counts[most] else -1
    return found
