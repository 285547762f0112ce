"""Who stays of each cluster: one pass over its documents, 8 bytes a document, no sort.

The smaller in each of these, in turn, wins: the policies' numbers; the user's own id, shorter before longer in code
points, then by code point; the text's digest; the record's id. About 10 M documents a second and core.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import inner, kernel
from .simplify import Bytes, Offsets

Places = NDArray[np.int64]


@kernel
def choose(
    roots: Places,
    keys: NDArray[np.uint64],
    by_id: bool,
    offsets: Offsets,
    data: Bytes,
    has: NDArray[np.bool_],
    texts: NDArray[np.uint64],
    ids: Bytes,
) -> Places:
    """Give, at the place of each cluster's root, the place of the document that stays; elsewhere −1.

    `roots` (n,) names each one's cluster; keys (n, policies), the smaller the better; own ids as offsets (n + 1,),
    bytes and which are there (n,), no element where there are none at all; digests of texts (n, 2), ids (n, 16).
    `by_id`: of documents without an own id, the record's id decides before the text.
    """
    best = np.full(len(roots), -1, np.int64)
    for row in range(len(roots)):
        held = best[roots[row]]
        if held < 0 or _before(row, held, keys, by_id, offsets, data, has, texts, ids):
            best[roots[row]] = row
    return best


@inner
def _before(
    row: int,
    held: int,
    keys: NDArray[np.uint64],
    by_id: bool,
    offsets: Offsets,
    data: Bytes,
    has: NDArray[np.bool_],
    texts: NDArray[np.uint64],
    ids: Bytes,
) -> bool:
    """Say whether a row comes before the one that was best so far."""
    for policy in range(keys.shape[1]):
        if keys[row, policy] != keys[held, policy]:
            return bool(keys[row, policy] < keys[held, policy])
    named = False
    if len(has):
        if has[row] != has[held]:
            return bool(has[row])
        if has[row]:
            named = True
            order = _own_order(data, offsets[row], offsets[row + 1], offsets[held], offsets[held + 1])
            if order:
                return order < 0
    if named or not by_id:
        for word in range(2):
            if texts[row, word] != texts[held, word]:
                return bool(texts[row, word] < texts[held, word])
    for byte in range(16):
        if ids[row, byte] != ids[held, byte]:
            return bool(ids[row, byte] < ids[held, byte])
    return row < held


@inner
def _own_order(data: Bytes, a: int, a_end: int, b: int, b_end: int) -> int:
    """Compare two strings by code points, shorter first: UTF-8 sorts as code points do."""
    length = 0
    for place in range(a, a_end):
        length += (data[place] & 0xC0) != 0x80
    for place in range(b, b_end):
        length -= (data[place] & 0xC0) != 0x80
    if length:
        return length
    for place in range(min(a_end - a, b_end - b)):
        if data[a + place] != data[b + place]:
            return -1 if data[a + place] < data[b + place] else 1
    return (a_end - a) - (b_end - b)
