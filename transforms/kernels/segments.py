"""Lines, paragraphs and sentences of texts, and what goes with those that are cut. Some 150 MB/s a core.

Line: what newlines separate. Paragraph: lines without a blank one between them. Sentence: it ends behind a mark that
ends one and the closers behind that, where space follows (or at once behind 。！？ and their like), and at a newline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inlined, kernel
from .text import CLOSER, FULL_WIDTH_END, NEWLINE, SPACE, TERMINAL, Int, code_point

UNITS = ("line", "paragraph", "sentence")
_LINE, _PARAGRAPH, _SENTENCE = 0, 1, 2

#: Segments (m, 5): row, first byte, end, words, characters that are no space; then how many there are.
Segments = NDArray[np.int64]


@inlined
def _put(found: Segments, count: Int, row: Int, start: Int, end: Int, words: Int, inked: Int) -> Int:
    found[count, 0], found[count, 1], found[count, 2] = row, start, end
    found[count, 3], found[count, 4] = words, inked
    return count + 1


@kernel
def _most(offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], unit: Int) -> Int:
    """Bound the number of segments: each but a text's last ends at a byte that can end one."""
    most = len(offsets) - 1
    for at in range(offsets[0], offsets[len(offsets) - 1]):
        byte = data[at]
        most += byte == NEWLINE or (unit == _SENTENCE and (byte >= 0xC0 or (byte < 0x80 and classes[byte] & TERMINAL)))
    return most


@kernel
def find_segments(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8], unit: Int
) -> Segments:
    """Find the segments of every text, in order; blank lines are some, blank paragraphs and sentences none."""
    found, count = np.empty((_most(offsets, data, classes, unit), 5), np.int64), np.int64(0)
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        begin = line = last = np.int64(at)  # of the segment, of the line; end of the ink so far
        words, inked, written = np.int64(0), np.int64(0), np.int64(0)  # written: ink before this line
        inside, closing = False, np.int64(0)  # in a word; 1 behind an end mark, 2 behind one that needs no space
        while at < end:
            code, width = np.int64(data[at]), np.int64(1)
            if code >= 0x80:
                code, width = code_point(data, at, end)
            kind = classes[code]
            if closing and not kind & (CLOSER | TERMINAL):
                if closing == 2 or kind & SPACE:
                    count = _put(found, count, row, begin, last, words, inked)
                    words, inked, inside = np.int64(0), np.int64(0), False
                closing = np.int64(0)
            if code == NEWLINE:
                if unit == _LINE or (unit == _SENTENCE and inked) or (inked and inked == written):
                    stop = at if unit == _LINE else last
                    count = _put(found, count, row, begin, stop, words, inked)
                    words, inked = np.int64(0), np.int64(0)
                written, inside, line = inked, False, at + 1
                begin = begin if inked else line
            elif kind & SPACE:
                inside = False
            else:
                if not inked:
                    begin = at if unit == _SENTENCE else line
                words += not inside
                inked += 1
                inside, last = True, at + width
                if unit == _SENTENCE and kind & TERMINAL:
                    closing = np.int64(2 if kind & FULL_WIDTH_END else 1)
            if unit == _PARAGRAPH and code != NEWLINE and inked > written:
                last = at + width  # a paragraph keeps the space at the ends of its lines
            at += width
        if inked or unit == _LINE:
            count = _put(found, count, row, begin, end if unit == _LINE else last, words, inked)
    return found[:count].copy()


@kernel
def find_lines(offsets: NDArray[np.int64], data: NDArray[np.uint8], classes: NDArray[np.uint8]) -> Segments:
    """Find lines as `find_segments` does, at four times its speed; of words and characters it says none or one."""
    most = len(offsets) - 1
    for at in range(offsets[0], offsets[len(offsets) - 1]):
        most += data[at] == NEWLINE
    found, count = np.empty((most, 5), np.int64), np.int64(0)
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        while start <= end:
            ink = stop = np.int64(start)
            while stop < end and data[np.uint64(stop)] != NEWLINE:
                stop += 1
            while ink < stop:
                code, width = code_point(data, ink, stop)
                if not classes[code] & SPACE:
                    break
                ink += width
            count = _put(found, count, row, start, stop, ink < stop, ink < stop)
            start = stop + 1
    return found[:count]


@kernel
def few_words(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    rows: NDArray[np.int64],
    spans: NDArray[np.int64],
    least: Int,
) -> NDArray[np.bool_]:
    """Say which texts have fewer words than `least` left by their cuts: (texts,); those that nothing is cut of do not.

    spans: (n, 2) first byte and end in `data`, rising in each row.
    """
    few = np.zeros(len(offsets) - 1, np.bool_)
    cut = np.int64(0)
    while cut < len(rows):
        row, words, inside = rows[cut], np.int64(0), False
        at, end = offsets[row], offsets[row + 1]
        while at < end and words < least:
            if cut < len(rows) and rows[cut] == row and at == spans[cut, 0]:
                at = spans[cut, 1]
                cut += 1
                continue
            code, width = code_point(data, at, end)
            ink = not classes[code] & SPACE
            words += ink and not inside
            inside = ink
            at += width
        few[row] = words < least
        while cut < len(rows) and rows[cut] == row:
            cut += 1
    return few


@kernel
def cut_segments(data: NDArray[np.uint8], segments: Segments, goes: NDArray[np.bool_]) -> tuple[Segments, Segments]:
    """Join neighbours that go to one cut each, with what is between them: rows (n,), spans (n, 2).

    A cut takes what lies to its left up to the segment before; in the middle of a paragraph's sentences, the first of
    a line take what lies to their right; so do the first of a text. Space at both ends of a text stays.
    """
    rows, spans = np.empty(len(goes), np.int64), np.empty((len(goes), 2), np.int64)
    count = at = np.int64(0)
    while at < len(goes):
        if not goes[at]:
            at += 1
            continue
        first, row = at, segments[at, 0]
        while at < len(goes) and goes[at] and segments[at, 0] == row:
            at += 1
        start, end = segments[first, 1], segments[at - 1, 2]
        before = first > 0 and segments[first - 1, 0] == row
        behind = at < len(goes) and segments[at, 0] == row
        left = segments[first - 1, 2] if before else start
        right = segments[at, 1] if behind else end
        if before and not (behind and _broken(data, left, start) and not _broken(data, end, right)):
            right = end
        else:
            left = start
        rows[count], spans[count, 0], spans[count, 1] = row, left, right
        count += 1
    return rows[:count].copy(), spans[:count].copy()


@inlined
def _broken(data: NDArray[np.uint8], start: Int, end: Int) -> bool:
    """Say whether a newline lies in a stretch."""
    while start < end and data[start] != NEWLINE:
        start += 1
    return bool(start < end)
