"""The phrases that C4's rules look for, found from their rare letters: blocks give candidates, bytes decide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inlined, kernel
from .blocks import Bare, Mask, folded, within
from .text import Int

#: What a line may mention, as bits.
LOREM, JAVASCRIPT, CURLY, POLICY = 1, 2, 4, 8

_BRACE, _A, _C, _K, _M, _O, _P, _S, _V = map(ord, "{ackmopsv")


def _letters(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


_JAVASCRIPT_WORD, _LOREM_IPSUM = _letters("javascript"), _letters("lorem ipsum")
_TERMS_OF_USE, _PRIVACY_POLICY = _letters("terms of use"), _letters("privacy policy")
_IE_POLICY, _USES, _USE_OF, _USE, _IES = map(_letters, ("ie policy", "uses ", "use of ", "use ", "ies"))


@kernel
def _reads(data: Bare, at: Int, start: Int, end: Int, phrase: NDArray[np.uint8]) -> bool:
    """Say whether `phrase` (lower case, ASCII) stands at a byte, in any case, inside start..end."""
    if at < start or at + len(phrase) > end:
        return False
    for step in range(len(phrase)):
        letter = np.int64(data[at + step])
        if 65 <= letter <= 90:
            letter += 32
        if letter != phrase[step]:
            return False
    return True


@kernel
def _cookie(data: Bare, at: Int, start: Int, end: Int) -> bool:
    """Say whether the coo at a byte belongs to one of the policy phrases about cookies; a Kelvin sign lowers to a k."""
    after = at + 3
    if after < end and data[after] | 32 == _K:
        after += 1
    elif after + 3 <= end and data[after] == 0xE2 and data[after + 1] == 0x84 and data[after + 2] == 0xAA:
        after += 3
    else:
        return False
    if _reads(data, after, start, end, _IE_POLICY):
        return True
    return _reads(data, after, start, end, _IES) and (
        _reads(data, at - 5, start, end, _USES)
        or _reads(data, at - 7, start, end, _USE_OF)
        or _reads(data, at - 4, start, end, _USE)
    )


@kernel
def phrase(data: Bare, at: Int, start: Int, end: Int) -> Int:
    """Say what the letter at a byte belongs to: va of javascript and privacy, ms of terms, ps of ipsum, coo."""
    letter = data[at] | 32
    if data[at] == _BRACE:
        return CURLY
    if letter == _V:
        if _reads(data, at - 2, start, end, _JAVASCRIPT_WORD):
            return JAVASCRIPT
        return POLICY if _reads(data, at - 3, start, end, _PRIVACY_POLICY) else 0
    if letter == _M:
        return POLICY if _reads(data, at - 3, start, end, _TERMS_OF_USE) else 0
    if letter == _P:
        return LOREM if _reads(data, at - 7, start, end, _LOREM_IPSUM) else 0
    return POLICY if at + 3 <= end and _cookie(data, at, start, end) else 0


@inlined
def candidates(data: Bare, at: Int) -> Mask:
    """Find letters of a block that may belong to a phrase, by the one or two that follow, and curly brackets."""
    a, s = folded(data, at + 1, _A, _A), folded(data, at + 1, _S, _S)
    coo = folded(data, at, _C, _C) & folded(data, at + 1, _O, _O) & folded(data, at + 2, _O, _O)
    return (
        folded(data, at, _V, _V) & a
        | (folded(data, at, _M, _M) | folded(data, at, _P, _P)) & s
        | coo
        | within(data, at, _BRACE, _BRACE)
    )
