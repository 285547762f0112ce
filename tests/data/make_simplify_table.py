"""Make transforms/data/simplify.npz from this Python's `unicodedata`: run with a Python of the Unicode version to pin.

    python tests/data/make_simplify_table.py transforms/data/simplify.npz

The layout is described in transforms/kernels/simplify.py. tests/test_minhash.py checks every code point of the result.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np

WORD, SEPARATOR, DIGIT, DROPPED, REPLACED, SIGMA = range(6)
DECIMAL, CASED, IGNORABLE = 8, 16, 32
# PUNCTUATION and the decimal separators of datatrove/utils/text.py, commit a649de79.
PUNCTUATION = set("!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»") | {
    chr(c) for c in (*range(9), *range(11, 13), *range(13, 32), *range(127, 160))
}
DECIMALS = set(".,،٫⎖⎗⎘")


def entry(char: str, pool: dict[str, int]) -> int:
    """Describe one code point; `pool` maps what replaces it to its place among the bytes, and grows."""
    flags = DECIMAL * (char in DECIMALS)
    cased = (" " + char + "Σ").lower().endswith("ς")
    flags |= CASED * cased
    flags |= IGNORABLE * (not cased and ("A" + char + "Σ").lower().endswith("ς"))
    lower = char.lower()
    becomes = "".join(c for c in unicodedata.normalize("NFD", lower) if unicodedata.category(c) != "Mn")
    if char == "Σ":
        return flags | SIGMA
    if unicodedata.category(char) == "Nd":
        return flags | DIGIT
    if char in PUNCTUATION or char.isspace():
        return flags | SEPARATOR
    if not becomes:
        return flags | DROPPED
    if becomes == char:
        return flags | WORD
    if becomes not in pool:
        last = next(reversed(pool), "")
        pool[becomes] = pool.get(last, 0) + len(last.encode())
    return flags | REPLACED | len(becomes.encode()) << 8 | pool[becomes] << 13


def main(path: Path) -> None:
    """Write the table: blocks of 256 code points, each different block once."""
    pool: dict[str, int] = {}
    entries = np.zeros(0x110000, np.uint32)
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            entries[code] = entry(chr(code), pool)
    blocks, index = np.unique(entries.reshape(-1, 256), axis=0, return_inverse=True)
    np.savez_compressed(
        path,
        blocks=blocks,
        index=index.reshape(-1).astype(np.uint16),
        pool=np.frombuffer("".join(pool).encode(), np.uint8),
        unicode=np.array(unicodedata.unidata_version),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
