"""What `LineEdits` cuts by rules of its own: citation marks, counters, listed lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .c4 import _citation
from .refinedweb import is_counter
from .text import NEWLINE, Int, stripped
from .trie import Trie

#: Rules by their number in the cuts of `edit_cuts`.
RULES = ("citation", "counter", "line")
_CITATION, _COUNTER, _LINE = 0, 1, 2
_OPEN = 91


@kernel
def _is_listed(data: NDArray[np.uint8], at: Int, end: Int, lines: Trie) -> bool:
    """Say whether a whole stretch is one of the strings of a trie."""
    classes, table, ends = lines
    state = np.int64(0)
    while at < end:
        state = np.int64(table[state, classes[data[at]]])
        if state == 0:
            return False
        at += 1
    return bool(ends[state] > 0)


@kernel
def edit_cuts(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    bits: NDArray[np.uint8],
    lines: Trie,
    citations: bool,
    counters: bool,
) -> NDArray[np.int64]:
    """Find what goes: (n, 4) of row, first byte, end, rule. A line takes a newline with it, the one to its left.

    A line is told stripped; the first lines of a text that go take the newline to their right.
    """
    most = np.int64(0)
    for at in range(offsets[0], offsets[len(offsets) - 1]):
        most += (data[at] == NEWLINE) + (data[at] == _OPEN)
    cuts = np.empty((most + len(offsets) - 1, 4), np.int64)
    count = np.int64(0)
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        kept = False
        while at <= end:
            stop, marks = at, count
            while stop < end and data[stop] != NEWLINE:
                after = stop
                if citations and data[stop] == _OPEN:
                    after = _citation(data, stop, end, classes)
                    if after > stop:
                        cuts[count, 0], cuts[count, 1], cuts[count, 2], cuts[count, 3] = row, stop, after, _CITATION
                        count += 1
                stop = max(after, stop + 1)
            first, last = stripped(data, at, stop, classes)
            rule = -1
            if counters and is_counter(data, first, last, classes, bits):
                rule = _COUNTER
            elif first < last and _is_listed(data, first, last, lines):
                rule = _LINE
            if rule >= 0:
                count = marks  # the line goes whole
                begin = at - 1 if kept else at
                cuts[count, 0], cuts[count, 1], cuts[count, 2], cuts[count, 3] = row, begin, stop, rule
                if not kept and stop < end:
                    cuts[count, 2] = stop + 1
                count += 1
            kept = kept or rule < 0
            at = stop + 1
    return cuts[:count].copy()
