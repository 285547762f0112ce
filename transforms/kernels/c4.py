"""C4's line rules: what each line is dropped for, and the text that is left: 400 MB/s a core on a slow machine, 4 to 5
times what a loop over code points made beside it.

The order of the rules is datatrove's (`filters/c4_filters.py`): long word, citations, end mark, few words, lorem ipsum,
javascript, curly bracket, policy, sentences. The two rules that drop a page are noted and gone past, so that all are
scored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .blocks import ONE, PAST, WIDTH, Bare, bare, below, lowest, move, readable, spare
from .c4_masks import BRACKETS, FIELDS, LINES, LONG, PHRASES, SENTENCES, WORDS, inked_part, scan, total
from .c4_phrases import CURLY, JAVASCRIPT, LOREM, POLICY, phrase
from .text import DIGIT, NEWLINE, Int, code_point, stripped

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
#: Remove citations, ask for an end mark, least words of a line, longest word, drop javascript lines, drop policy lines,
#: and go by C4's own code, where ' is no end mark and words are counted after citation marks are gone.
LineRules = tuple[bool, bool, int, int, bool, bool, bool]

_OPEN, _CLOSE, _DOT = ord("["), ord("]"), ord(".")
_EDIT, _NEEDED = np.frombuffer(b"[edit]", np.uint8), np.frombuffer(b"[citation needed]", np.uint8)


@kernel
def _mentions(data: Bare, start: Int, end: Int, masks: Bare, place: Int) -> Int:
    """Find what a line mentions: bits of lorem ipsum, javascript, a curly bracket, a policy phrase.

    place: where it begins in the masks.
    """
    found: Int = np.int64(0)
    stop = place + end - start
    for block in range(place >> 6, (stop >> 6) + 1):
        held = masks[block * FIELDS + PHRASES] & ~below(place - block * WIDTH) & below(stop - block * WIDTH)
        while held:
            found |= phrase(data, start - place + block * WIDTH + lowest(held), start, end)
            held &= held - ONE
    return found


@kernel
def _citation(data: Bare, at: Int, end: Int, classes: Bare) -> Int:
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
def _without_citations(data: Bare, at: Int, end: Int, classes: Bare, out: Bare, size: Int) -> tuple[Int, Int]:
    """Copy a line to `out` without its citation marks: where the copy ends, and the marks left out."""
    removed = np.int64(0)
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
def _ends(data: Bare, start: Int, end: Int, reference: bool) -> Any:
    """Say whether a line ends in one of . ? ! " ' (not ' by the reference code) and not in three full stops."""
    if end == start:
        return False
    last = data[end - 1]
    if last != _DOT:
        return last == 63 or last == 33 or last == 34 or (last == 39 and not reference)
    return end - start < 3 or data[end - 2] != _DOT or data[end - 3] != _DOT


@kernel
def _stays(
    data: Bare, start: Int, end: Int, masks: Bare, place: Int, words: Int, rules: LineRules, counts: Bare
) -> Any:
    """Say whether a line stays; count why not, and its sentences where it does."""
    _, end_marks, min_words, _, javascript, policy, reference = rules
    if end_marks and not _ends(data, start, end, reference):
        counts[2] += 1
        return False
    if words < min_words:
        counts[3] += 1
        return False
    found = _mentions(data, start, end, masks, place)
    if found & LOREM and counts[9] == 0:
        counts[9] = counts[0]
    if javascript and found & JAVASCRIPT:
        counts[4] += 1
        return False
    if found & CURLY and counts[10] == 0:
        counts[10] = counts[0]
    if policy and found & POLICY:
        counts[5] += 1
        return False
    counts[6] += 1
    counts[8] += max(total(masks, SENTENCES, place, place + end - start), 1)
    return True


@kernel
def _append(data: Bare, start: Int, end: Int, out: Bare, size: Int) -> Int:
    """Copy lines to `out`, and a newline: where they end. Nothing where `start` is negative."""
    if start < 0:
        return size
    for step in range(0, end - start, WIDTH):
        move(data, start + step, out, size + step)
    out[size + end - start] = NEWLINE
    return size + end - start + 1


@kernel
def _clean_page(
    data: Bare, at: Int, end: Int, classes: Bare, rules: LineRules, masks: Bare, others: Bare, out: Bare, size: Int,
    counts: Bare,
) -> Int:  # fmt: skip
    """Write the lines of a page that stay to `out`, from `size` on, each with a newline: where they end.

    Lines that stand one after the other in the page are copied at once.
    """
    scan(data, at, end, classes, rules[3], masks)
    start = np.int64(0)
    first = last = np.int64(-1)  # what stays and is not yet copied
    for block in range((end - at) // WIDTH + 1):
        cuts = masks[block * FIELDS + LINES]
        while cuts:
            stop = block * WIDTH + lowest(cuts)
            cuts &= cuts - ONE
            line, after = inked_part(masks, start, stop)
            long_ = total(masks, LONG, start, stop + 1)
            start = stop + 1
            counts[0] += 1
            if long_:
                counts[1] += 1
                continue
            words = total(masks, WORDS, line, after)
            if rules[0] and total(masks, BRACKETS, line, after):
                size = _append(data, first, last, out, size)
                first = np.int64(-1)
                stop, removed = _without_citations(data, at + line, at + after, classes, out, size)
                counts[7] += removed
                scan(out, size, stop, classes, rules[3], others)
                if rules[6]:
                    words = total(others, WORDS, np.int64(0), stop - size)
                if _stays(out, size, stop, others, np.int64(0), words, rules, counts):
                    out[stop] = NEWLINE
                    size = stop + 1
            elif _stays(data, at + line, at + after, masks, line, words, rules, counts):
                if first < 0 or at + line != last + 1 or data[last] != NEWLINE:
                    size = _append(data, first, last, out, size)
                    first = at + line
                last = at + after
    return _append(data, first, last, out, size)


@kernel
def c4_clean(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], rules: LineRules
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Apply the line rules: counts (rows, len(C4)), and the text that is left as offsets (rows + 1) and bytes."""
    rows = len(offsets) - 1
    counts, room = np.zeros((rows, 11), np.int64), spare(offsets, data)
    starts = np.zeros(rows + 1, np.int64)
    out = np.empty(offsets[rows] - offsets[0] + rows + PAST, np.uint8)
    longest = np.int64(0)
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    masks = np.empty((longest // WIDTH + 2) * FIELDS, np.uint64)
    others = np.empty(len(masks), np.uint64)  # of a line without its citations
    begin = np.int64(0)
    for row in range(rows):
        text, at, end = readable(data, offsets[row], offsets[row + 1], room)
        size = _clean_page(
            text, at, end, bare(classes), rules, bare(masks), bare(others), bare(out), begin, bare(counts[row:])
        )
        first, last = stripped(bare(out), begin, size, bare(classes))
        if first > begin:
            for step in range(last - first):
                out[begin + step] = out[first + step]
        begin += last - first
        starts[row + 1] = begin
    return counts, starts, out[:begin]
