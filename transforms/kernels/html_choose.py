"""Which nodes of a page are its text: what is furniture goes, and what lies outside of the part that holds the prose.

Everything is decided by counts of the page itself (text, text in links, prose) and by names: elements that navigate,
words in classes, ids and roles that say so, lists of links; then the part is taken that holds nearly all prose. Counts
are code points without space. Time grows with the number of nodes alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import inner
from .html_names import BLOCK, DROP, FURNITURE, HEADING, KINDS, LIKELY, NAMES, NUMBER, SURE, TEXT
from .html_parse import END, FIRST, HIDDEN, LAST, PARENT, TAG, WORDS
from .text import Int

#: Columns of a node's weights: text, text in links, text outside of inner blocks, text of blocks that are prose, links,
#: whether it holds a headline or a main part, items that were written of a list.
ALL, LINKED, OWN, PROSE, LINKS, HOLDS, ITEMS = range(7)
WEIGHTS = 7

_A, _H1, _MAIN, _ARTICLE, _P, _PRE, _NAV, _LI = (
    NUMBER[name] for name in ("a", "h1", "main", "article", "p", "pre", "nav", "li")
)
_LISTS = np.isin(np.arange(len(NAMES)), [NUMBER[name] for name in ("ul", "ol", "table", "div", "section", "p")])
_LEAVES = np.isin(np.arange(len(NAMES)), [TEXT, _P, _LI, _PRE])

# Chosen on one half of 990 news, blog and company pages and of 370 pages of documentation, by recall first; the other
# half of the former scored the same. All in percent but the two counts.
_PROSE = 40  # characters of a block that is taken for prose
_SMALL = 40  # share of the page that furniture has at most
_PART = 30  # the same where only a likely word says so
_LINKED = 30  # share of its text in links that makes it furniture then
_SHORT = 100  # or so few characters
_LINKS, _MOSTLY, _MUCH = 3, 70, 60  # a list of links: so many, so much of its text, at most so much of the page
_WHOLE = 92  # share of the prose that the part with the text holds
_AROUND = 20  # share in links of what stands around it, up to which that belongs to it


@inner
def weigh(data: NDArray[np.uint8], base: Int, nodes: NDArray[np.int32], count: Int, weights: NDArray[np.int32]) -> None:
    """Count the text of each stretch."""
    for node in range(count):
        weights[node, ALL] = 0
        if nodes[node, TAG] == TEXT:
            ink = np.int64(0)
            for at in range(base + nodes[node, FIRST], base + nodes[node, LAST]):
                byte = data[at]
                ink += byte > 32 and (byte & 0xC0) != 0x80
            weights[node, ALL] = ink


@inner
def _sum_up(nodes: NDArray[np.int32], count: Int, weights: NDArray[np.int32], keep: NDArray[np.uint8]) -> None:
    """Add up, from the leaves to the page, what stays."""
    for node in range(count):
        if nodes[node, TAG] != TEXT:
            for column in range(WEIGHTS):
                weights[node, column] = 0
    for node in range(count - 1, 0, -1):
        tag, parent = nodes[node, TAG], nodes[node, PARENT]
        if not keep[node]:
            continue
        if tag == TEXT:
            weights[parent, ALL] += weights[node, ALL]
            weights[parent, OWN] += weights[node, ALL]
            continue
        kind = KINDS[tag]
        if tag == _A:
            weights[node, LINKED], weights[node, LINKS] = weights[node, ALL], 1
        elif not kind & BLOCK:
            weights[parent, OWN] += weights[node, OWN]
        elif weights[node, OWN] >= _PROSE:
            weights[node, PROSE] += weights[node, OWN]
        weights[parent, HOLDS] |= weights[node, HOLDS] or tag in (_H1, _MAIN, _ARTICLE)
        for column in (ALL, LINKED, PROSE, LINKS):
            weights[parent, column] += weights[node, column]


@inner
def _drop(nodes: NDArray[np.int32], node: Int, keep: NDArray[np.uint8]) -> Int:
    """Unmark an element and all in it; give the node behind."""
    end = np.int64(nodes[node, END])
    for place in range(node, end):  # a slice would take a second to compile
        keep[place] = 0
    return end


@inner
def _unwanted(nodes: NDArray[np.int32], weights: NDArray[np.int32], node: Int, total: Int) -> Any:
    """Say whether an element is furniture."""
    tag, words = nodes[node, TAG], nodes[node, WORDS]
    kinds = KINDS[tag]
    text, linked, links = np.int64(weights[node, ALL]), np.int64(weights[node, LINKED]), weights[node, LINKS]
    if text == 0 or not (kinds & BLOCK or tag == _A):
        return False
    small = 100 * text <= _SMALL * total
    if kinds & FURNITURE:
        return small or tag == _NAV
    holds = weights[node, HOLDS] or tag in (_MAIN, _ARTICLE, _H1, _PRE)
    if words & SURE and small and not holds:
        return True
    slight = 100 * linked >= _LINKED * text or text < _SHORT
    if words & LIKELY and slight and not holds and 100 * text <= _PART * total:
        return True
    return _LISTS[tag] and links >= _LINKS and 100 * linked >= _MOSTLY * text and 100 * text <= _MUCH * total


@inner
def _prune(nodes: NDArray[np.int32], count: Int, weights: NDArray[np.int32], keep: NDArray[np.uint8]) -> None:
    """Unmark furniture, and headings under which nothing but furniture stood."""
    total = np.int64(weights[0, ALL])
    node: Int = np.int64(1)
    while node < count:
        tag = nodes[node, TAG]
        if keep[node] and tag != TEXT and _unwanted(nodes, weights, node, total):
            node = _drop(nodes, node, keep)
        else:
            node += 1
    stays = goes = np.int64(0)  # text between a heading and the next, or the end
    for place in range(count - 1, 0, -1):
        tag = nodes[place, TAG]
        if tag == TEXT:
            if not KINDS[nodes[nodes[place, PARENT], TAG]] & HEADING:
                stays += weights[place, ALL] * keep[place]
                goes += weights[place, ALL] * (1 - keep[place])
        elif KINDS[tag] & HEADING:
            if tag != _H1 and stays == 0 and goes > 0:
                _drop(nodes, np.int64(place), keep)
            stays = goes = np.int64(0)


@inner
def _part(nodes: NDArray[np.int32], weights: NDArray[np.int32], keep: NDArray[np.uint8]) -> Int:
    """Find the smallest element with nearly all prose, and what stands around it without being links."""
    here, child = np.int64(0), np.int64(1)
    wanted = np.int64(weights[0, PROSE]) * _WHOLE
    while wanted and child < nodes[here, END]:
        if keep[child] and not _LEAVES[nodes[child, TAG]] and 100 * np.int64(weights[child, PROSE]) >= wanted:
            here = child
            child += 1
        else:
            child = np.int64(nodes[child, END])
    while here:
        parent = np.int64(nodes[here, PARENT])
        more = np.int64(weights[parent, ALL]) - weights[here, ALL]
        if 100 * (np.int64(weights[parent, LINKED]) - weights[here, LINKED]) > _AROUND * more:
            break
        here = parent
    return here


@inner
def choose(
    nodes: NDArray[np.int32],
    count: Int,
    weights: NDArray[np.int32],
    keep: NDArray[np.uint8],
    everything: bool,
) -> Int:
    """Mark in `keep` the nodes that stay, all text if asked for everything; give the element to write."""
    for place in range(count):
        keep[place] = 1
    node: Int = np.int64(1)
    while node < count:
        tag = nodes[node, TAG]
        if tag != TEXT and (KINDS[tag] & DROP or nodes[node, WORDS] & HIDDEN):
            node = _drop(nodes, node, keep)
        else:
            node += 1
    _sum_up(nodes, count, weights, keep)
    if everything:
        return np.int64(0)
    _prune(nodes, count, weights, keep)
    _sum_up(nodes, count, weights, keep)
    return _part(nodes, weights, keep)
