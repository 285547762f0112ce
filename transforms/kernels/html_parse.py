"""HTML as a table of nodes in the page's order: elements and stretches of text, their parents, where each ends.

One pass over the bytes, in time that grows with them alone. Not the tree of the HTML standard to the last page: what is
left open is closed by what may not stand in it (a paragraph by a block, an item by an item, a cell by a cell), a stray
end tag is passed over, and formatting that overlaps is not untangled; the order of the text is always the page's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import inner
from .html_names import (
    CELLS,
    CLOSES_P,
    ENDS,
    GROUP,
    KEYS,
    KINDS,
    NUMBER,
    NUMBERS,
    OTHER,
    PARAGRAPH,
    PARTS,
    RAW,
    ROWS,
    SCOPE,
    SURE,
    TABLES,
    TEXT,
    UNTIL,
    VOID,
    WORD_BITS,
    WORD_BYTES,
    WORD_FIRST,
    WORD_SPANS,
    packed,
)
from .text import Int

#: Columns of a node.
TAG, PARENT, END, FIRST, LAST, WORDS = range(6)
COLUMNS = 6
HIDDEN = 8  # beside the bits of words: the element says that it is not shown
FAR = 512  # open elements that an end tag, or one that is implied, is looked for in

_HTML, _BODY, _HEAD = (NUMBER[name] for name in ("html", "body", "head"))
_LT, _GT, _SLASH, _BANG, _QUESTION, _DASH, _EQUALS = map(ord, "<>/!?-=")
_SPACE = np.isin(np.arange(256), list(b"\t\n\f\r "))
_ENDS_NAME = np.isin(np.arange(256), list(b"\t\n\f\r >/="))
_LETTER = np.isin(np.arange(256), list(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))


_NAMING = [np.uint64(packed(name)) for name in ("class", "id", "role")]
_CLASS, _ID, _ROLE = _NAMING
_HIDDEN, _STYLE, _ARIA = (np.uint64(packed(name)) for name in ("hidden", "style", "aria-hidden"))
_NONE = np.frombuffer(b"display:none", np.uint8).copy()
_TRUE = np.frombuffer(b"true", np.uint8).copy()


@inner
def _lower(byte: Any) -> Int:
    wide = np.int64(byte)
    return wide + 32 if 65 <= wide <= 90 else wide


@inner
def read_name(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Any, Int]:
    """Pack the name that begins at a byte, in lower case, as `packed` does: the key, and where the name ends."""
    key = np.uint64(0)
    length: Int = np.int64(0)
    while at < end:
        byte = data[at]
        if _ENDS_NAME[byte]:
            break
        if length < 7:
            key |= np.uint64(_lower(byte)) << np.uint64(8 * length)
        length += 1
        at += 1
    return key | np.uint64(min(length, 255)) << np.uint64(56), at


@inner
def _number(key: Any) -> Int:
    """Find an element's number by its key."""
    low, high = np.int64(0), np.int64(len(KEYS))
    while low < high:
        middle = (low + high) // 2
        if KEYS[middle] < key:
            low = middle + 1
        else:
            high = middle
    return NUMBERS[low] if low < len(KEYS) and KEYS[low] == key else np.int64(OTHER)


@inner
def _holds(data: NDArray[np.uint8], start: Int, end: Int, mark: NDArray[np.uint8]) -> bool:
    """Say whether a value reads `mark`, space and case aside."""
    step: Int = np.int64(0)
    for at in range(start, end):
        if _SPACE[data[at]]:
            continue
        step = step + 1 if _lower(data[at]) == mark[step] else np.int64(_lower(data[at]) == mark[0])
        if step == len(mark):
            return True
    return False


@inner
def _words(data: NDArray[np.uint8], start: Int, end: Int) -> Int:
    """Find the bits of the words in a value."""
    bits = np.int64(0)
    for at in range(start, end):
        byte = _lower(data[at])
        for word in range(WORD_FIRST[byte], WORD_FIRST[byte + 1]):
            first, last = WORD_SPANS[word], WORD_SPANS[word + 1]
            if at + last - first <= end:
                step = np.int64(1)
                while step < last - first and _lower(data[at + step]) == WORD_BYTES[first + step]:
                    step += 1
                whole = (
                    at == start or not _LETTER[data[at - 1]] or data[at] < 97
                )  # where a word begins, inWordsLikeThis too
                if step == last - first and (whole or WORD_BITS[word] == SURE):
                    bits |= WORD_BITS[word]
    return bits


@inner
def _attributes(data: NDArray[np.uint8], at: Int, end: Int) -> tuple[Int, Int]:
    """Read the attributes of a tag: where it ends, and the bits of its words."""
    bits = np.int64(0)
    while at < end:
        byte = data[at]
        if byte == _GT:
            return at + 1, bits
        if _ENDS_NAME[byte]:
            at += 1
            continue
        key, at = read_name(data, at, end)
        while at < end and _SPACE[data[at]]:
            at += 1
        first = last = at
        if at < end and data[at] == _EQUALS:
            at += 1
            while at < end and _SPACE[data[at]]:
                at += 1
            if at < end and (data[at] == 34 or data[at] == 39):
                quote, first = data[at], at + 1
                at = first
                while at < end and data[at] != quote:
                    at += 1
                last = at
                at = min(at + 1, end)
            else:
                first = at
                while at < end and not _SPACE[data[at]] and data[at] != _GT:
                    at += 1
                last = at
        if key == _CLASS or key == _ID or key == _ROLE:  # noqa: SIM109 (a tuple is slow to compile)
            bits |= _words(data, first, last)
        elif (
            key == _HIDDEN
            or (key == _STYLE and _holds(data, first, last, _NONE))
            or (key == _ARIA and _holds(data, first, last, _TRUE))
        ):
            bits |= HIDDEN
    return end, bits


@inner
def _after_raw(data: NDArray[np.uint8], at: Int, end: Int, key: Any) -> Int:
    """Find the end tag of an element whose content is no markup, or the end."""
    while at + 2 < end:
        if data[at] == _LT and data[at + 1] == _SLASH:
            found, _ = read_name(data, at + 2, end)
            if found == key:
                return at
        at += 1
    return end


@inner
def _after_comment(data: NDArray[np.uint8], at: Int, end: Int) -> Int:
    """Pass what begins with <! or <?: a comment ends at -->, all else at >."""
    if at + 3 < end and data[at + 1] == _BANG and data[at + 2] == _DASH and data[at + 3] == _DASH:
        at += 4
        if at < end and data[at] == _GT:
            return at + 1
        while at < end:
            if data[at] == _GT and data[at - 1] == _DASH and data[at - 2] == _DASH:
                return at + 1
            at += 1
        return end
    while at < end and data[at] != _GT:
        at += 1
    return min(at + 1, end)


@inner
def _close(nodes: NDArray[np.int32], stack: NDArray[np.int32], depth: Int, to: Int, count: Int) -> Int:
    """Close the open elements from the top down to place `to`; give the depth that is left."""
    while depth > to:
        depth -= 1
        nodes[stack[depth], END] = count
    return depth


@inner
def _imply(nodes: NDArray[np.int32], stack: NDArray[np.int32], depth: Int, wanted: Int, until: Int, count: Int) -> Int:
    """Close the nearest open element of the wanted groups, if it is not past one of `until`."""
    for place in range(depth - 1, max(depth - FAR, 0), -1):
        group = GROUP[nodes[stack[place], TAG]]
        if group & wanted:
            return _close(nodes, stack, depth, np.int64(place), count)
        if group & until:
            break
    return depth


@inner
def _end_tag(nodes: NDArray[np.int32], stack: NDArray[np.int32], depth: Int, tag: Int, count: Int) -> Int:
    """Close the nearest open element of a tag, and all in it; nothing where a table stands between."""
    part_of_table = GROUP[tag] & (TABLES | ROWS | PARTS)
    for place in range(depth - 1, max(depth - FAR, 0), -1):
        open_ = nodes[stack[place], TAG]
        if open_ == tag:
            return _close(nodes, stack, depth, np.int64(place), count)
        if GROUP[open_] & TABLES or (KINDS[open_] & SCOPE and not part_of_table):
            break
    return depth


@inner
def _add(nodes: NDArray[np.int32], count: Int, tag: Int, parent: Int, first: Int, last: Int, words: Int) -> Int:
    """Add a node; give the number of nodes."""
    nodes[count, TAG], nodes[count, PARENT], nodes[count, END] = tag, parent, count + 1
    nodes[count, FIRST], nodes[count, LAST], nodes[count, WORDS] = first, last, words
    return count + 1


@inner
def _past_end_tag(
    data: NDArray[np.uint8],
    at: Int,
    end: Int,
    nodes: NDArray[np.int32],
    stack: NDArray[np.int32],
    depth: Int,
    count: Int,
) -> tuple[Int, Int]:
    """Read an end tag: the byte behind it, and the depth that is left."""
    key, at = read_name(data, at + 2, end)
    while at < end and data[at] != _GT:
        at += 1
    tag = _number(key)
    if tag not in (OTHER, _HTML, _BODY):
        depth = _end_tag(nodes, stack, depth, tag, count)
    return min(at + 1, end), depth


@inner
def parse(data: NDArray[np.uint8], at: Int, end: Int, nodes: NDArray[np.int32], stack: NDArray[np.int32]) -> Int:
    """Fill `nodes`, the page itself being node 0; give their number.

    A node has its tag (TEXT: a stretch of text), its parent, the node after its last descendant, its first byte and
    end, and the bits of its words. nodes and stack have a place for each `<` of the page twice, and three more.
    """
    base, zero, text = at, np.int64(0), np.int64(TEXT)
    count = _add(nodes, zero, np.int64(OTHER), zero, zero, end - at, zero)
    stack[0] = 0
    depth = np.int64(1)
    while at < end:
        start = at
        while at < end and data[at] != _LT:
            at += 1
        if at > start:
            count = _add(nodes, count, text, np.int64(stack[depth - 1]), start - base, at - base, zero)
        if at + 1 >= end:
            break
        mark = data[at + 1]
        if mark in (_BANG, _QUESTION):
            at = _after_comment(data, at, end)
        elif mark == _SLASH:
            at, depth = _past_end_tag(data, at, end, nodes, stack, depth, count)
        elif _LETTER[mark]:
            key, after = read_name(data, at + 1, end)
            at, bits = _attributes(data, after, end)
            tag = _number(key)
            if tag in (_HTML, _BODY, _HEAD, OTHER):
                continue
            if KINDS[tag] & CLOSES_P:
                depth = _imply(nodes, stack, depth, np.int64(PARAGRAPH), np.int64(CELLS | TABLES), count)
            if ENDS[tag]:
                depth = _imply(nodes, stack, depth, ENDS[tag], UNTIL[tag], count)
            stack[depth] = count
            count = _add(nodes, count, tag, np.int64(stack[depth - 1]), at - base, at - base, bits)
            if KINDS[tag] & RAW:
                at = _after_raw(data, at, end, key)
            elif not KINDS[tag] & VOID:
                depth += 1
        else:  # a bracket that begins nothing is text
            count = _add(nodes, count, text, np.int64(stack[depth - 1]), at - base, at + 1 - base, zero)
            at += 1
    _close(nodes, stack, depth, zero, count)
    return count
