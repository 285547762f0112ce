"""What C4's own code needs beside the line rules of `c4.py`: the marks that end a sentence; and mC4's paragraph rule.

Only . ? ! end a sentence there: the marks that its Punkt looks at.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import FULL_WIDTH_END, NEWLINE, TERMINAL, Int, code_point_classes


@lru_cache(maxsize=1)
def reference_classes() -> NDArray[np.uint8]:
    """Give the class bits of every code point, with no marks but . ? ! that end a sentence."""
    table = code_point_classes().copy()
    table &= np.uint8(255 - TERMINAL - FULL_WIDTH_END)
    table[[ord(mark) for mark in ".?!"]] |= np.uint8(TERMINAL)
    table.flags.writeable = False
    return table


@kernel
def paragraph_counts(offsets: NDArray[np.int64], data: NDArray[np.uint8], nth: Int) -> NDArray[np.int64]:
    """Count lines (what newlines separate) and the code points of the n-th longest, 0 where there are fewer: (rows, 2).

    nth: from 1; scratch is one number for each of so many.
    """
    rows = len(offsets) - 1
    counts = np.zeros((rows, 2), np.int64)
    longest = np.empty(nth, np.int64)  # descending
    for row in range(rows):
        longest[:] = 0
        length = np.int64(0)
        for at in range(offsets[row], offsets[row + 1] + 1):
            if at < offsets[row + 1] and data[at] != NEWLINE:
                length += (data[at] & 0xC0) != 0x80
                continue
            counts[row, 0] += 1
            place = nth - 1
            if length > longest[place]:
                while place > 0 and longest[place - 1] < length:
                    longest[place] = longest[place - 1]
                    place -= 1
                longest[place] = length
            length = np.int64(0)
        counts[row, 1] = longest[nth - 1]
    return counts
