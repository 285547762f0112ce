"""The words of a text as 64-bit numbers, normalised on the way: `simplify.py` and FNV-1a in one walk.

The normalised bytes go into the hash and are not written: the product's latency hides behind the look-ups of the next
bytes, and the end of a word, which no processor foresees, costs no jump. The same numbers as `shingles.roll` takes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .shingles import FNV_PRIME, FNV_START, Words64
from .simplify import DIGIT, DROPPED, RARE, REPLACED, SEPARATOR, SIGMA, Bytes, after_number, decode, is_final


@kernel
def hash_words(data: Bytes, start: int, end: int, table: NDArray[np.uint32], pool: Bytes, words: Words64) -> int:
    """Write the hash of each normalised word of data[start:end] to `words`, one place for two bytes and one more.

    Gives how many there are.
    """
    count = 0
    word = FNV_START
    gap = np.uint64(1)  # no byte of a word was seen since the last separator
    here = start
    while here < end:
        byte = data[here]
        if byte < 128:
            what = table[byte] & 7
            if what & RARE != DIGIT:
                separates = np.uint64(what == SEPARATOR)
                words[count] = word
                count += int(np.int64(separates & ~gap))
                letter = np.uint64(byte) | np.uint64(what & REPLACED) << np.uint64(3)  # 4 makes the bit of lower case
                # Masks, not a condition: the compiler would make a jump of it.
                ends = np.uint64(0) - separates
                word = (((word ^ letter) * FNV_PRIME) & ~ends) | (FNV_START & ends)
                gap = separates
                here += 1
                continue
            entry, width = table[byte], 1
        else:
            code, width = decode(data, here, end)
            entry = table[code]
            what = entry & 7
        if what == SEPARATOR:
            words[count] = word
            count += gap == 0
            word = FNV_START
        elif what == DIGIT:
            word = (word ^ np.uint64(48)) * FNV_PRIME
            width = after_number(data, here + width, end, table) - here
        elif what == REPLACED:
            length, place = int(np.int64((entry >> 8) & 31)), int(np.int64(entry >> 13))
            for byte_number in range(place, place + length):
                word = (word ^ np.uint64(pool[byte_number])) * FNV_PRIME
        elif what == SIGMA:
            word = (word ^ np.uint64(0xCF)) * FNV_PRIME
            word = (word ^ np.uint64(0x82 if is_final(data, start, here, end, table) else 0x83)) * FNV_PRIME
        elif what != DROPPED:
            for byte_number in range(here, here + width):
                word = (word ^ np.uint64(data[byte_number])) * FNV_PRIME
        gap = np.uint64(what == SEPARATOR or (gap == 1 and what == DROPPED))
        here += width
    words[count] = word
    return count + int(gap == 0)
