"""Best-fit packing of documents into rows (Ding et al. 2024, arXiv:2404.10830), group by group.

Documents are cut at multiples of the row's length from their own start, and only there; so all but a document's last
piece fill a row alone. A group takes as many pieces, in the order of the payload, as best-fit decreasing gets into R
rows: each piece, longest first, into the fullest row that still holds it. Which count of pieces that is, a few trials
find; then pieces go on into what room is left until one fits nowhere. So a group that is not a shard's last has
exactly R rows. Pieces of one length are placed together: the work is by distinct lengths, not by documents.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
#: One piece of a table, in row order: its first token in the shard and its row.
PIECE = np.dtype([("start", "<u8"), ("row", "<u4")])
#: Trials for one group's number of pieces; 12 fill no better than 6.
TRIALS = 6


class _Bins:
    """Rows of a group and the room left in each."""

    def __init__(self, length: int) -> None:
        self.length, self.opened = length, 0
        self._rooms: list[int] = []
        self._rows: dict[int, list[int]] = {}

    def _take(self, room: int, count: int) -> list[int]:
        rows = self._rows[room]
        taken = rows[-count:]
        del rows[-count:]
        if not rows:
            del self._rows[room]
            self._rooms.remove(room)
        return taken

    def _put(self, room: int, rows: list[int]) -> None:
        if room and rows:
            if room not in self._rows:
                self._rows[room] = []
                insort(self._rooms, room)
            self._rows[room] += rows

    def place(self, length: int, count: int) -> list[int]:
        """Put `count` pieces of one length each into the fullest row that holds it; give their rows, in turn."""
        placed: list[int] = []
        while count:
            at = bisect_left(self._rooms, length)
            room = self._rooms[at] if at < len(self._rooms) else self.length
            each = room // length
            fill, last = divmod(count, each)
            if at < len(self._rooms):
                fill = min(fill, len(self._rows[room]))
                last = 0 if fill else last
                rows = self._take(room, fill or 1)
            else:
                rows = list(range(self.opened, self.opened + fill + (last > 0)))
                self.opened += len(rows)
            self._put(room - each * length, rows[:fill])
            self._put(room - last * length, rows[fill:])
            placed += [row for row in rows[:fill] for _ in range(each)] if each > 1 else rows[:fill]
            placed += rows[fill:] * last
            count -= fill * each + last
        return placed

    def holds(self, length: int, limit: int) -> bool:
        """Say whether a piece finds room in the first `limit` rows."""
        return self.opened < limit or bool(self._rooms and self._rooms[-1] >= length)


def _fit(lengths: Ints, length: int, limit: int) -> tuple[_Bins, Ints, int]:
    """Best-fit decreasing: bins, each piece's row, and the tokens left over where `limit` rows are not enough."""
    bins = _Bins(length)
    order = np.argsort(-lengths, kind="stable")
    values, counts = np.unique(-lengths, return_counts=True)
    placed: list[int] = []
    for value, count in zip((-values).tolist(), counts.tolist(), strict=True):
        placed += bins.place(value, count)
        if bins.opened > limit:
            return bins, order, int(lengths[order[len(placed) - count :]].sum())
    rows = np.empty(len(lengths), np.int64)
    rows[order] = placed
    return bins, rows, 0


def _group(starts: Ints, lengths: Ints, first: int, length: int, limit: int) -> Ints:
    """Rows of the group that begins with piece `first`: one number a piece, as many pieces as the group takes."""
    bound = int(np.searchsorted(starts, starts[first] + length * limit, side="right")) - 1
    good, bad, tried = first, bound + 1, bound
    bins, rows = _Bins(length), np.zeros(0, np.int64)
    for _ in range(TRIALS):
        trial, placed, over = _fit(lengths[first:tried], length, limit)
        if over:
            bad = tried
            tried = int(np.searchsorted(starts, starts[tried] - over, side="right")) - 1
        else:
            good, bins, rows = tried, trial, placed
            tried = (good + bad) // 2
        tried = max(good + 1, min(tried, bad - 1))
        if good + 1 >= bad:
            break
    more: list[int] = []
    for piece in lengths[good : bound + 1].tolist():
        if not bins.holds(piece, limit):
            break
        more += bins.place(piece, 1)
    return np.concatenate([rows, np.array(more, np.int64)])


def cut(ends: Ints, length: int) -> tuple[Ints, Ints]:
    """Cut documents into pieces at multiples of `length` from their own start; give starts and lengths in tokens."""
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    pieces = -(-(ends - begins) // length)
    before = np.cumsum(pieces) - pieces
    nth = np.arange(int(pieces.sum()), dtype=np.int64) - np.repeat(before, pieces)
    starts = np.repeat(begins, pieces) + nth * length
    return starts, np.minimum(np.repeat(ends, pieces) - starts, length)


def best_fit(ends: NDArray[np.uint64], length: int, group_rows: int) -> NDArray[np.void]:
    """Pack a shard's documents into rows of `length` tokens, `group_rows` rows a group.

    ends: (documents,) rising ends in tokens. Gives the PIECE table (pieces,), row by row, in each row as in the
    payload. Rows are numbered by their first tokens.
    """
    starts, lengths = cut(ends.view(np.int64), length)
    bounds = np.append(starts, ends[-1].astype(np.int64))
    rows = np.empty(len(starts), np.int64)
    first = base = 0
    while first < len(starts):
        group = _group(bounds, lengths, first, length, group_rows)
        rows[first : first + len(group)] = group + base
        first, base = first + len(group), base + int(group.max()) + 1
    _, firsts = np.unique(rows, return_index=True)
    number = np.empty(base, np.int64)
    number[np.argsort(firsts, kind="stable")] = np.arange(base)
    rows = number[rows]
    order = np.argsort(rows, kind="stable")
    table = np.empty(len(starts), PIECE)
    table["start"], table["row"] = starts[order], rows[order]
    return table
