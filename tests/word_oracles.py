"""Slow definitions of a word. Unicode's is read off UAX #29's rules, one after the other, on lists of code points."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from penstock.transforms.kernels.words import word_classes

KINDS = (
    "Other CR LF Newline Extend Format ZWJ ALetter Hebrew_Letter Numeric ExtendNumLet MidLetter MidNum MidNumLet "
    "Single_Quote Double_Quote Katakana Regional_Indicator WSegSpace"
).split()  # noqa: SIM905
LETTERS = ("ALetter", "Hebrew_Letter")
MARKS = ("Extend", "Format", "ZWJ")
BREAKS = ("CR", "LF", "Newline")
WORDS = (*LETTERS, "Numeric", "Katakana", "ExtendNumLet")


@lru_cache(maxsize=1)
def table() -> list[int]:
    return [int(bits) for bits in np.asarray(word_classes())]


def fasttext_words(text: str) -> list[str]:
    return [word for word in re.split(r"[ \n\r\t\v\f\0]+", text) if word]


def unicode_words(text: str) -> list[str]:
    return [segment for segment in unicode_segments(text) if any(char.isalnum() for char in segment)]


def unicode_segments(text: str) -> list[str]:
    """Cut a text at the bounds of words."""
    kinds = [KINDS[table()[ord(char)] & 31] for char in text]
    pictographs = [bool(table()[ord(char)] & 32) for char in text]
    cuts = [0, *(at for at in range(1, len(text)) if bound(kinds, pictographs, at)), len(text)]
    return [text[start:end] for start, end in zip(cuts, cuts[1:], strict=False) if start < end]


def bound(kinds: list[str], pictographs: list[bool], at: int) -> bool:
    """Say whether the rules WB3 to WB999 put a bound before a code point."""
    if (kinds[at - 1], kinds[at]) == ("CR", "LF"):
        return False
    if kinds[at - 1] in BREAKS or kinds[at] in BREAKS:
        return True
    if (kinds[at - 1] == "ZWJ" and pictographs[at]) or (kinds[at - 1] == kinds[at] == "WSegSpace"):
        return False
    if kinds[at] in MARKS:
        return False
    before, after = bases(kinds[:at])[::-1], bases([*kinds[at:]])  # nearest first; after[0] is this one
    one, two, here, follow = (*before, "", "")[0], (*before, "", "")[1], after[0], (*after, "")[1]
    joined = (
        (one in LETTERS and here in LETTERS)
        or (one in LETTERS and here in ("MidLetter", "MidNumLet", "Single_Quote") and follow in LETTERS)
        or (two in LETTERS and one in ("MidLetter", "MidNumLet", "Single_Quote") and here in LETTERS)
        or (one == "Hebrew_Letter" and here == "Single_Quote")
        or (one == "Hebrew_Letter" and here == "Double_Quote" and follow == "Hebrew_Letter")
        or (two == "Hebrew_Letter" and one == "Double_Quote" and here == "Hebrew_Letter")
        or (one in (*LETTERS, "Numeric") and here in (*LETTERS, "Numeric"))
        or (two == "Numeric" and one in ("MidNum", "MidNumLet", "Single_Quote") and here == "Numeric")
        or (one == "Numeric" and here in ("MidNum", "MidNumLet", "Single_Quote") and follow == "Numeric")
        or (one == here == "Katakana")
        or (one in WORDS and here == "ExtendNumLet")
        or (one == "ExtendNumLet" and here in WORDS)
        or (one == here == "Regional_Indicator" and regional(before) % 2 == 1)
    )
    return not joined


def bases(kinds: list[str]) -> list[str]:
    """Leave out what hangs on a code point (WB4): marks, but at the start and behind a line's end."""
    return [kind for at, kind in enumerate(kinds) if kind not in MARKS or at == 0 or kinds[at - 1] in BREAKS]


def regional(before: list[str]) -> int:
    """Count the regional indicators just before."""
    return next((at for at, kind in enumerate(before) if kind != "Regional_Indicator"), len(before))
