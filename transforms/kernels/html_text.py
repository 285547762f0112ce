"""The text of chosen nodes: lines where the page has blocks, an empty line where it sets them apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inner, kernel
from .html_choose import ALL, ITEMS, WEIGHTS, choose, weigh
from .html_names import APART, BLOCK, CELL, HEADING, KINDS, NUMBER, TEXT
from .html_parse import COLUMNS, END, FIRST, LAST, PARENT, TAG, parse
from .html_references import put, reference
from .text import Int

_BR, _LI, _OL, _PRE, _TABLE, _P = (NUMBER[name] for name in ("br", "li", "ol", "pre", "table", "p"))
_AMPERSAND, _NEWLINE, _BLANK, _TAB, _RETURN, _HARD = map(ord, "&\n \t\r\xa0")
_SPACE = np.isin(np.arange(256), list(b"\t\n\f\r "))
_STOPS = np.isin(np.arange(256), list(b"\0\t\n\f\r &\xc2"))  # what is not copied as it is, or may not be
_LONGEST_CELL = 400  # characters, and nodes, of a cell that is written in one line
#: State of the writer: bytes written, line breaks that wait, whether a space waits, inside pre, inside a flat cell.
SIZE, BREAKS, WAITS, VERBATIM, FLAT = range(5)


@inner
def _flush(out: NDArray[np.uint8], state: NDArray[np.int64]) -> None:
    """Write what waits before the next ink: line breaks, or a space; nothing at the start."""
    size = state[SIZE]
    if size and state[BREAKS]:
        while size and (out[size - 1] == _BLANK or out[size - 1] == _TAB) and not state[VERBATIM]:
            size -= 1
        for _ in range(state[BREAKS]):
            out[size] = _NEWLINE
            size += 1
    elif size and state[WAITS] and out[size - 1] != _NEWLINE and out[size - 1] != _TAB:
        out[size] = _BLANK
        size += 1
    state[SIZE], state[BREAKS], state[WAITS] = size, 0, 0


@inner
def _space(byte: Int, out: NDArray[np.uint8], state: NDArray[np.int64]) -> None:
    """Take note of a space, or write it where space counts."""
    if not state[VERBATIM]:
        state[WAITS] = 1
    elif byte != _RETURN and not (byte == _NEWLINE and state[VERBATIM] == 2):
        if state[BREAKS]:
            _flush(out, state)
        out[state[SIZE]] = byte
        state[SIZE] += 1


@inner
def _write(data: NDArray[np.uint8], at: Int, end: Int, out: NDArray[np.uint8], state: NDArray[np.int64]) -> None:
    """Write a stretch of text: references resolved, runs of space made one (outside of `pre`), NUL left out."""
    while at < end:
        byte = np.int64(data[at])
        code, second, after = byte, np.int64(0), at + 1
        if byte == _AMPERSAND:
            code, second, after = reference(data, at, end)
            if code == 0:
                code, after = byte, at + 1
        elif byte == 0xC2 and at + 1 < end and data[at + 1] == _HARD:
            code, after = np.int64(_HARD), at + 2
        if code == _HARD:  # a space that does not break is a space
            code = np.int64(_BLANK)
        if code < 128 and _SPACE[code]:
            _space(code, out, state)
        elif code:
            if state[BREAKS] or state[WAITS]:
                _flush(out, state)
            size = state[SIZE]
            if byte == _AMPERSAND:
                size = put(code, out, size)
                if second:
                    size = put(second, out, size)
            else:
                out[size] = byte
                size += 1
                while after < end and not _STOPS[data[after]]:
                    out[size] = data[after]
                    size += 1
                    after += 1
            state[SIZE] = size
        if state[VERBATIM] == 2 and code != _RETURN:
            state[VERBATIM] = 1
        at = after


@inner
def _flat(nodes: NDArray[np.int32], cell: Int, weights: NDArray[np.int32]) -> bool:
    """Say whether a cell is one of a table of data: short, and without blocks but a paragraph or two."""
    if weights[cell, ALL] > _LONGEST_CELL or nodes[cell, END] - cell > _LONGEST_CELL:
        return False
    blocks = 0
    for node in range(cell + 1, nodes[cell, END]):
        tag = nodes[node, TAG]
        blocks += tag in (_P, _LI)
        if blocks > 2 or tag in (_TABLE, _PRE) or KINDS[tag] & HEADING:
            return False
    return True


@inner
def _ordinal(nodes: NDArray[np.int32], item: Int, weights: NDArray[np.int32]) -> Int:
    """Give the number of an item of an ordered list, from 1; 0 in another list."""
    parent = nodes[item, PARENT]
    weights[parent, ITEMS] += 1
    return np.int64(weights[parent, ITEMS]) if nodes[parent, TAG] == _OL else np.int64(0)


@inner
def _breaks(state: NDArray[np.int64], lines: Int) -> None:
    """Ask for line breaks before the next ink; in a flat cell, for a space."""
    if state[FLAT]:
        state[WAITS] = 1
    else:
        state[BREAKS] = max(state[BREAKS], lines)


@inner
def _bullet(number: Int, out: NDArray[np.uint8], state: NDArray[np.int64]) -> None:
    """Write an item's mark: a bullet, or its number and a full stop."""
    _flush(out, state)
    size = state[SIZE]
    if number == 0:
        size = put(np.int64(0x2022), out, size)
    else:
        digits = np.int64(1)
        while digits * 10 <= number:
            digits *= 10
        while digits:
            out[size] = 48 + number // digits % 10
            size += 1
            digits //= 10
        out[size] = 46
        size += 1
    out[size] = _BLANK
    state[SIZE] = size + 1


@inner
def _enter(
    nodes: NDArray[np.int32],
    node: Int,
    weights: NDArray[np.int32],
    bullets: bool,
    out: NDArray[np.uint8],
    state: NDArray[np.int64],
) -> None:
    """Write what an element's start means."""
    tag = nodes[node, TAG]
    kind = KINDS[tag]
    if tag == _BR:
        if state[VERBATIM]:
            out[state[SIZE]] = _NEWLINE
            state[SIZE] += 1
        else:
            _breaks(state, min(state[BREAKS] + 1, np.int64(2)))
    elif kind & CELL:
        flat = _flat(nodes, node, weights)
        if state[SIZE] and not state[BREAKS] and not state[FLAT]:
            if not flat:
                state[BREAKS] = 1
            elif out[state[SIZE] - 1] != _NEWLINE:
                out[state[SIZE]] = _TAB
                state[SIZE] += 1
                state[WAITS] = 0
        state[FLAT] += flat or state[FLAT] > 0
    elif kind & BLOCK:
        _breaks(state, np.int64(2 if kind & APART else 1))
        if tag == _LI and bullets and weights[node, ALL] and not state[FLAT]:
            _bullet(_ordinal(nodes, node, weights), out, state)
        if tag == _PRE:
            _flush(out, state)
            state[VERBATIM] = 2  # a line break right behind the tag is not part of it


@inner
def _leave(tag: Int, out: NDArray[np.uint8], state: NDArray[np.int64]) -> None:
    """Do what an element's end means."""
    kind = KINDS[tag]
    if tag == _PRE:
        state[VERBATIM] = 0
        while state[SIZE] and _SPACE[out[state[SIZE] - 1]]:
            state[SIZE] -= 1
    if kind & CELL:
        state[FLAT] = max(state[FLAT] - 1, 0)
    elif kind & BLOCK:
        _breaks(state, np.int64(2 if kind & APART else 1))


@inner
def write(
    data: NDArray[np.uint8],
    base: Int,
    nodes: NDArray[np.int32],
    root: Int,
    keep: NDArray[np.uint8],
    weights: NDArray[np.int32],
    bullets: bool,
    stack: NDArray[np.int32],
    out: NDArray[np.uint8],
    state: NDArray[np.int64],
) -> None:
    """Write the text of the nodes that stay under an element, from out[state[SIZE]] on."""
    depth, node, last = np.int64(0), np.int64(root), np.int64(nodes[root, END])
    while node < last or depth:
        while depth and nodes[stack[depth - 1], END] <= node:
            depth -= 1
            _leave(nodes[stack[depth], TAG], out, state)
        if node >= last:
            continue
        if not keep[node]:
            node = np.int64(nodes[node, END])
        elif nodes[node, TAG] == TEXT:
            _write(data, base + nodes[node, FIRST], base + nodes[node, LAST], out, state)
            node += 1
        else:
            _enter(nodes, node, weights, bullets, out, state)
            stack[depth] = node
            depth += 1
            node += 1


@inner
def _most_tags(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Int:
    """Count the `<` of the row that has most."""
    most = np.int64(0)
    for row in range(len(offsets) - 1):
        tags = np.int64(0)
        for at in range(offsets[row], offsets[row + 1]):
            tags += data[at] == 60
        most = max(most, tags)
    return most


@kernel
def extract(
    offsets: NDArray[np.int64], data: NDArray[np.uint8], everything: bool, bullets: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Give the text of each page as offsets (rows + 1) and bytes; scratch is 110 bytes a `<` of the largest page."""
    rows, size = len(offsets) - 1, 2 * _most_tags(offsets, data) + 3
    nodes, weights = np.empty((size, COLUMNS), np.int32), np.empty((size, WEIGHTS), np.int32)
    stack, keep = np.empty(size, np.int32), np.empty(size, np.uint8)
    starts, state = np.zeros(rows + 1, np.int64), np.zeros(5, np.int64)
    out = np.empty(2 * (offsets[rows] - offsets[0]) + 64, np.uint8)  # a bullet is no longer than the tags of its item
    begin = np.int64(0)
    for row in range(rows):
        base = offsets[row]
        count = parse(data, base, offsets[row + 1], nodes, stack)
        weigh(data, base, nodes, count, weights)
        root = choose(nodes, count, weights, keep, everything)
        for place in range(len(state)):
            state[place] = 0
        write(data, base, nodes, root, keep, weights, bullets, stack, out[begin:], state)
        end = state[SIZE]
        while end and _SPACE[out[begin + end - 1]]:
            end -= 1
        begin += end
        starts[row + 1] = begin
    return starts, out[:begin]
