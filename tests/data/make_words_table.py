"""Make transforms/data/words.npz: how Unicode bounds words, what `str.isalnum` holds of, and simple lower case.

    python tests/data/make_words_table.py transforms/data/words.npz

Word_Break and Extended_Pictographic are read from the package uniseg, whose Unicode version gets pinned (0.10.1 has
16.0); letters, digits and lower case from this Python's `unicodedata` (3.11 has 14.0, as transforms/data/unicode-14.txt).
The layout is described in transforms/kernels/words.py.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np
from uniseg import unidata_version
from uniseg.emoji import extended_pictographic
from uniseg.wordbreak import word_break

KINDS = [
    "Other",
    "CR",
    "LF",
    "Newline",
    "Extend",
    "Format",
    "ZWJ",
    "ALetter",
    "Hebrew_Letter",
    "Numeric",
    "ExtendNumLet",
    "MidLetter",
    "MidNum",
    "MidNumLet",
    "Single_Quote",
    "Double_Quote",
    "Katakana",
    "Regional_Indicator",
    "WSegSpace",
]
PICTOGRAPH, ALPHANUMERIC = 32, 64


def entry(char: str) -> int:
    """Describe one code point."""
    flags = ALPHANUMERIC * char.isalnum() | PICTOGRAPH * bool(extended_pictographic(char))
    return KINDS.index(word_break(char).value) | flags


def main(path: Path) -> None:
    """Write the table: blocks of 256 code points, each different block once; and pairs of upper and lower case."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    entries = np.zeros(0x110000, np.uint8)
    entries[codes] = [entry(chr(code)) for code in codes]
    blocks, index = np.unique(entries.reshape(-1, 256), axis=0, return_inverse=True)
    pairs = [(code, ord(low)) for code in codes if len(low := chr(code).lower()) == 1 and ord(low) != code]
    np.savez_compressed(
        path,
        blocks=blocks,
        index=index.reshape(-1).astype(np.uint16),
        cases=np.array(pairs, np.int32),
        unicode=np.array([unidata_version, unicodedata.unidata_version]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
