"""C4's line rules: what each line is dropped for, and the text that is left: 225 MB/s a core.

The order of the rules is datatrove's (`filters/c4_filters.py`): long word, citations, end mark, few words, lorem ipsum,
javascript, curly bracket, policy, sentences. The two rules that drop a page are noted and gone past, so that all are
scored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import (
    ALPHA,
    BREAK,
    CLOSER,
    DIGIT,
    FULL_WIDTH_END,
    SPACE,
    SYMBOL,
    TERMINAL,
    Int,
    after_break,
    code_point,
    stripped,
)

#: Columns of `c4_clean`'s counts; `…_line` is the number, from 1, of the first such line, 0 where there is none.
C4 = (
    "lines",
    "long_word_lines",
    "no_end_mark_lines",
    "few_word_lines",
    "javascript_lines",
    "policy_lines",
    "kept_lines",
    "citations",
    "sentences",
    "lorem_ipsum_line",
    "curly_bracket_line",
)
#: Remove citations, ask for an end mark, least words of a line, longest word, drop javascript lines, drop policy lines.
LineRules = tuple[bool, bool, int, int, bool, bool]

_LOREM, _JAVASCRIPT, _CURLY, _POLICY = 1, 2, 4, 8
_NEWLINE, _OPEN, _CLOSE, _DOT = 10, ord("["), ord("]"), ord(".")
_SMALL_K, _BRACE = ord("k"), ord("{")


def _letters(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


_EDIT, _NEEDED = _letters("[edit]"), _letters("[citation needed]")
_JAVASCRIPT_WORD, _LOREM_IPSUM = _letters("javascript"), _letters("lorem ipsum")
_TERMS_OF_USE, _PRIVACY_POLICY = _letters("terms of use"), _letters("privacy policy")
_COO, _IE_POLICY, _USES_COO, _USE_OF_COO, _USE_COO, _IES = map(
    _letters, ("coo", "ie policy", "uses coo", "use of coo", "use coo", "ies")
)
#: Two bytes worth a look, the rare letter of a phrase and the next: ja of javascript; m and space or s of lorem and
#: terms; va of privacy; ki of cookie, the Kelvin sign (which `lower` makes a k); and the bracket before anything.
_RARE, _NEXT = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
for _bit, (_rare, _next) in enumerate((("jJ", "aA"), ("mM", " sS"), ("vV", "aA"), ("kK", "iI"), ("\xe2", "\x84"))):
    _RARE[list(_rare.encode("latin-1"))] |= np.uint8(1 << _bit)
    _NEXT[list(_next.encode("latin-1"))] |= np.uint8(1 << _bit)
_RARE[ord("{")] |= np.uint8(32)
_NEXT |= np.uint8(32)


@kernel
def _reads(data: NDArray[np.uint8], at: Int, start: Int, end: Int, phrase: NDArray[np.uint8]) -> bool:
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
def _cookie(data: NDArray[np.uint8], at: Int, after: Int, start: Int, end: Int) -> bool:
    """Say whether the k at a byte (its next at `after`) belongs to one of the policy phrases about cookies."""
    if not _reads(data, at - 3, start, end, _COO):
        return False
    if _reads(data, after, start, end, _IE_POLICY):
        return True
    return _reads(data, after, start, end, _IES) and (
        _reads(data, at - 8, start, end, _USES_COO)
        or _reads(data, at - 10, start, end, _USE_OF_COO)
        or _reads(data, at - 7, start, end, _USE_COO)
    )


@kernel
def _inspect(data: NDArray[np.uint8], start: Int, end: Int) -> Int:
    """Find what a line mentions: bits of lorem ipsum, javascript, a curly bracket, a policy phrase."""
    if end == start:
        return 0
    found = _CURLY if data[end - 1] == _BRACE else 0
    for at in range(start, end - 1):
        letter = data[at]
        if not _RARE[letter] & _NEXT[data[at + 1]]:
            continue
        if letter == _BRACE:
            found |= _CURLY
        elif _reads(data, at, start, end, _JAVASCRIPT_WORD):
            found |= _JAVASCRIPT
        elif _reads(data, at - 4, start, end, _LOREM_IPSUM):
            found |= _LOREM
        else:
            kelvin = letter == 0xE2 and at + 3 <= end and data[at + 2] == 0xAA
            policy = _reads(data, at - 3, start, end, _TERMS_OF_USE) or _reads(
                data, at - 3, start, end, _PRIVACY_POLICY
            )
            if policy or (
                (kelvin or letter | 32 == _SMALL_K) and _cookie(data, at, at + (3 if kelvin else 1), start, end)
            ):
                found |= _POLICY
    return found


@kernel
def _citation(data: NDArray[np.uint8], at: Int, end: Int, classes: NDArray[np.uint8]) -> Int:
    """Give the end of the citation mark at a byte ([, digits or none, ]; [edit]; [citation needed]), or the byte."""
    after = at + 1
    while after < end:
        code, width = code_point(data, after, end)
        if not classes[code] & DIGIT:
            break
        after += width
    if after < end and data[after] == _CLOSE:
        return after + 1
    for mark in (_EDIT, _NEEDED):
        if at + len(mark) <= end:
            step = 0
            while step < len(mark) and data[at + step] == mark[step]:
                step += 1
            if step == len(mark):
                return at + step
    return at


@kernel
def _sentences(data: NDArray[np.uint8], start: Int, end: Int, classes: NDArray[np.uint8]) -> Int:
    """Count the sentences of a line, at least one; `transforms/c4.py` says what a sentence is."""
    sentences = inside = pending = np.int64(0)
    before = last = last_code = np.int64(0)  # classes of the last two code points, and the last one
    at = start
    while at < end:
        code, width = np.int64(data[at]), 1
        if code >= 0x80:
            code, width = code_point(data, at, end)
        kind = np.int64(classes[code])
        at += width
        if kind & SYMBOL and not kind & SPACE:
            if kind & TERMINAL:
                initial = last & ALPHA != 0 and before & (ALPHA | DIGIT) == 0
                pending = np.int64(code != _DOT or (last_code != _DOT and not initial))
                inside &= kind & FULL_WIDTH_END == 0
            else:
                pending &= kind & CLOSER != 0
        else:  # without a branch: space ends what is pending, anything else begins or goes on
            ink = 1 - (kind & SPACE)
            sentences += ink & (1 - inside)
            inside = ink | (inside & (1 - pending))
            pending = np.int64(0)
        before, last, last_code = last, kind, code
    return max(sentences, 1)


@kernel
def _ends(data: NDArray[np.uint8], start: Int, end: Int) -> Any:
    """Say whether a line ends in one of . ? ! " ' and not in three full stops."""
    if end == start:
        return False
    last = data[end - 1]
    if last != _DOT:
        return last == 63 or last == 33 or last == 34 or last == 39
    return end - start < 3 or data[end - 2] != _DOT or data[end - 3] != _DOT


@kernel
def _scan_line(
    data: NDArray[np.uint8], at: Int, end: Int, classes: NDArray[np.uint8]
) -> tuple[Int, Int, Int, Int, Int]:
    """Read one line: where the next begins, the stripped line's first byte and end, its words, its longest word."""
    first = last = at
    words = longest = length = np.int64(0)
    space = np.int64(1)
    while at < end:
        code, width = np.int64(data[at]), 1
        if code >= 0x80:
            code, width = code_point(data, at, end)
        kind = np.int64(classes[code])
        at += width
        if kind & BREAK:
            at = after_break(data, at, end, code)
            break
        ink = 1 - (kind & SPACE)
        words += space & ink
        space = 1 - ink
        length = (length + 1) * ink
        longest = max(longest, length)
        first = at if words == 0 else first
        last = at if ink else last
    return at, min(first, last), last, words, longest


@kernel
def _copy(
    data: NDArray[np.uint8],
    at: Int,
    end: Int,
    out: NDArray[np.uint8],
    size: Int,
    classes: NDArray[np.uint8],
    citations: bool,
) -> tuple[Int, Int]:
    """Copy a line to `out`, without its citation marks if asked: where the copy ends, and the marks left out."""
    brackets = 0
    source, target = np.uint64(at), np.uint64(size)
    for step in range(np.uint64(end - at)):  # unsigned, so that the compiler takes many bytes at a time
        byte = data[source + step]
        out[target + step] = byte
        brackets |= byte == _OPEN
    if not brackets or not citations:
        return size + end - at, 0
    removed = 0
    while at < end:
        byte = data[at]
        if byte == _OPEN:
            after = _citation(data, at, end, classes)
            if after > at:
                removed += 1
                at = after
                continue
        out[size] = byte
        size += 1
        at += 1
    return size, removed


@kernel
def _clean_page(
    data: NDArray[np.uint8],
    at: Int,
    end: Int,
    classes: NDArray[np.uint8],
    rules: LineRules,
    out: NDArray[np.uint8],
    size: Int,
    counts: NDArray[np.int64],
) -> Int:
    """Write the lines of a page that stay to `out`, from `size` on, each with a newline: where they end."""
    citations, end_marks, min_words, max_length, javascript, policy = rules
    while at < end:
        at, first, last, words, longest = _scan_line(data, at, end, classes)
        counts[0] += 1
        if longest > max_length:
            counts[1] += 1
            continue
        stop, removed = _copy(data, first, last, out, size, classes, citations)
        counts[7] += removed
        if end_marks and not _ends(out, size, stop):
            counts[2] += 1
            continue
        if words < min_words:
            counts[3] += 1
            continue
        found = _inspect(out, size, stop)
        if found & _LOREM and counts[9] == 0:
            counts[9] = counts[0]
        if javascript and found & _JAVASCRIPT:
            counts[4] += 1
            continue
        if found & _CURLY and counts[10] == 0:
            counts[10] = counts[0]
        if policy and found & _POLICY:
            counts[5] += 1
            continue
        counts[6] += 1
        counts[8] += _sentences(out, size, stop, classes)
        out[stop] = _NEWLINE
        size = stop + 1
    return size


@kernel
def c4_clean(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], rules: LineRules
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Apply the line rules: counts (rows, len(C4)), and the text that is left as offsets (rows + 1) and bytes."""
    rows = len(offsets) - 1
    counts = np.zeros((rows, 11), np.int64)
    starts = np.zeros(rows + 1, np.int64)
    out = np.empty(offsets[rows] - offsets[0] + rows, np.uint8)
    begin: Int = np.int64(0)  # a bare 0 is a type of its own, for which all below would be compiled twice
    for row in range(rows):
        size = _clean_page(data, offsets[row], offsets[row + 1], classes, rules, out, begin, counts[row])
        first, last = stripped(out, begin, size, classes)
        if first > begin:
            for step in range(last - first):
                out[begin + step] = out[first + step]
        begin += last - first
        starts[row + 1] = begin
    return counts, starts, out[:begin]
