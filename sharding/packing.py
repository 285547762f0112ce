"""Packs: which tokens make up which row, group by group, without moving a token.

A shard's payload is cut into groups, contiguous token ranges of about 1 MiB; a full group gives exactly R rows of L
tokens, the last one of a shard may give fewer. So a group is one range read, and how many rows it has is arithmetic.

    concat     row i holds tokens [i·L, (i+1)·L) of the shard; the last row is padded. No table.
    best_fit   documents are cut only at multiples of L from their own start; the pieces of a group are packed into its
               rows by best-fit decreasing (Ding et al. 2024, arXiv:2404.10830). What fits nowhere ends the group. The
               table lists each piece's first token and row, in row order; inside a row pieces stand as in the payload.

A piece's length, its document and whether it continues follow from the document ends. Every token lies in one row.

The rest of a row is padding (EOS, and a document of its own). `labels` are the tokens one ahead; where the next token
belongs to another document, or is not there, `loss_mask` is 0. A piece that was cut continues: its last label is the
next token of its document, read beyond the row. `position_ids` count from 0 in each piece, under both policies:
attention does not reach back into another row, so neither do positions; a segment's `offset` tells where in its
document it starts.

On one busy core, L = 2,048, uint16: groups are laid out at 800 to 1,200 Mtok/s, at 150 where documents have 34 tokens;
once for a block that is held, and for `concat` only when masks or ids are asked for (`rows`).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .format import Pack, PackCount

Ints = NDArray[np.int64]
#: The document of padding.
NO_DOCUMENT = 2**64 - 1
#: No documents, no ranges.
NONE, NO_SPANS = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
#: One piece of a row, or its padding: tokens, document (shard << 32 | ordinal), where in the document it starts, and
#: whether the document goes on behind it.
SEGMENT = np.dtype([("document", "<u8"), ("offset", "<i8"), ("length", "<i4"), ("continues", "?")])


@dataclass(frozen=True)
class Layout:
    """Pieces of a group's rows: those of row r at [first[r], first[r + 1]) of `segments`, SEGMENT records.

    starts: each piece's first token, from the group's; -1 for padding.
    copies: (n, 2) what to copy for a row and the token behind it, those of row r at [copied[r], copied[r + 1]): tokens
    [start, stop) of the group's; from -1 on, as many of padding.
    muted: (n, 2) tokens of a row whose labels are not learned, those of row r at [mutes[r], mutes[r + 1]), rising.
    """

    first: Ints
    segments: NDArray[Any]
    starts: Ints
    copied: Ints
    copies: Ints
    mutes: Ints
    muted: Ints

    @property
    def rows(self) -> int:
        """Rows of the group."""
        return len(self.first) - 1


class PackTable:
    """Where a shard's rows lie in one pack: counts, a group's token range, a group's rows.

    ends: (documents,) ends in tokens. pieces: the pack's PIECE table, row by row; None for concat.
    """

    def __init__(self, pack: Pack, group_rows: int, ends: NDArray[Any], pieces: NDArray[Any] | None) -> None:
        self.pack, self.group_rows = pack, group_rows
        self._ends: Ints = ends.view(np.int64)
        self._total = int(self._ends[-1])
        # Looked up where they are wanted: a shard is opened for one group as a rule, and has 300,000 pieces.
        self._table = pieces
        self.rows = -(-self._total // pack.length) if pieces is None else int(pieces["row"][-1]) + 1
        self.groups = -(-self.rows // group_rows)

    @property
    def count(self) -> PackCount:
        """As a shard's entry has it."""
        pieces = len(self._cuts(0, self.rows)) if self._table is None else len(self._table)
        return PackCount(self.group_rows, self.rows, self.groups, self.rows // self.group_rows, pieces)

    def span(self, group: int) -> tuple[int, int]:
        """Give a group's range of tokens. To lay out its rows, read one token further where the shard has one."""
        first, last = self._extent(group)
        if self._table is None:
            return first * self.pack.length, min(last * self.pack.length, self._total)
        return self._first_token(first), self._first_token(last) if last < self.rows else self._total

    def layout(self, group: int, shard: int = 0, out: Ints = NONE, spans: Ints = NO_SPANS) -> Layout:
        """Say where the pieces of a group's rows lie, for those who copy single rows out of its tokens.

        out: ordinals of documents left out, rising; their pieces become padding. spans: (n, 2) ranges of the shard's
        tokens that are not to be learned, rising.
        """
        first, last = self._extent(group)
        rows, starts, segments = self._pieces(first, last)
        behind = starts + segments["length"]
        ends = behind == self._total
        if len(out):
            documents = segments["document"].astype(np.int64)
            gone = _among(documents, out)
            # The label behind a row is left out, too, where it is another document's.
            ends |= ~segments["continues"] & _among(documents + 1, out)
            segments["document"][gone], segments["offset"][gone], segments["continues"][gone] = NO_DOCUMENT, 0, False
            starts = np.where(gone, -1, starts)
        segments["document"][starts >= 0] |= np.uint64(shard << 32)
        rows, starts, segments, ends = _padded(rows - first, starts, segments, ends, last - first, self.pack.length)
        counted = np.arange(last - first + 1)
        lengths = segments["length"].astype(np.int64)
        mute_rows, muted = _muted(rows, starts, lengths, spans, self.pack.length)
        starts = np.where(starts < 0, -1, starts - self.span(group)[0])
        copy_rows, copies = _copies(rows, starts, lengths, ends)
        return Layout(
            np.searchsorted(rows, counted), segments, starts, np.searchsorted(copy_rows, counted), copies,
            np.searchsorted(mute_rows, counted), muted,
        )  # fmt: skip

    def pieces(self, row: int) -> tuple[Ints, NDArray[Any]]:
        """Give a row's pieces: their first tokens in the shard, and SEGMENT records (without a shard's number)."""
        _, starts, segments = self._pieces(row, row + 1)
        return starts, segments

    def documents(self, group: int) -> tuple[int, int]:
        """Give the range of documents that have tokens in a group."""
        start, stop = self.span(group)
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right").tolist()
        return first, last + 1

    def tokens_of(self, ordinals: Ints) -> Ints:
        """Give the tokens [start, stop) of documents, (n, 2)."""
        starts = np.where(ordinals > 0, self._ends[ordinals - 1], 0)
        return np.stack([starts, self._ends[ordinals]], axis=1)

    def pieces_per_row(self) -> Ints:
        """Count the pieces of every row, padding among them; looks at every piece of the shard."""
        rows, _, segments = self._pieces(0, self.rows)
        fill = np.bincount(rows, segments["length"], self.rows)
        return np.bincount(rows, minlength=self.rows) + (fill < self.pack.length)

    def placed(self) -> tuple[Ints, Ints]:
        """Give every piece of the pack in row order: its first token in the shard, its row."""
        rows, starts, _ = self._pieces(0, self.rows)
        return starts, rows

    def _extent(self, group: int) -> tuple[int, int]:
        if not 0 <= group < self.groups:
            raise IndexError(f"group {group} of {self.groups}")
        return group * self.group_rows, min((group + 1) * self.group_rows, self.rows)

    def _held(self, table: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        """Give the pieces of rows [first, last)."""
        return table[bisect_left(table["row"], first) : bisect_left(table["row"], last)]

    def _first_token(self, row: int) -> int:
        """Give the first token of the group that begins with a row of best_fit."""
        assert self._table is not None
        return int(self._held(self._table, row, row + self.group_rows)["start"].min())

    def _cuts(self, first: int, last: int) -> Ints:
        """First tokens of concat's pieces in rows [first, last): where a row or a document begins."""
        low, high = first * self.pack.length, min(last * self.pack.length, self._total)
        inner = self._ends[np.searchsorted(self._ends, low, side="right") : np.searchsorted(self._ends, high)]
        # Not np.union1d: its first call imports numpy.ma, which evaluates source, and this runs in threads (see `npy`).
        cuts = np.sort(np.concatenate([np.arange(low, high, self.pack.length, dtype=np.int64), inner]))
        return cuts[np.diff(cuts, prepend=-1) > 0]

    def _documents(self, starts: Ints) -> Ints:
        """Give the document of each token, looked up among those of their range alone, which the CPU's cache holds."""
        if not len(starts):
            return starts
        low, high = np.searchsorted(self._ends, [starts.min(), starts.max()], side="right").tolist()
        found: Ints = low + np.searchsorted(self._ends[low : high + 1], starts, side="right")
        return found

    def _pieces(self, first: int, last: int) -> tuple[Ints, Ints, NDArray[Any]]:
        """Rows, first tokens and SEGMENT records of the pieces of rows [first, last)."""
        if self._table is not None:
            held = self._held(self._table, first, last)
            rows, starts = held["row"].astype(np.int64), held["start"].astype(np.int64)
        else:
            starts = self._cuts(first, last)
            rows = starts // self.pack.length
        documents = self._documents(starts)
        ends = self._ends[documents]
        stops = np.minimum(ends, starts + self.pack.length)
        if self._table is None:
            stops = np.minimum(stops, (rows + 1) * self.pack.length)
        segments = np.zeros(len(starts), SEGMENT)
        segments["document"] = documents
        segments["offset"] = starts - np.where(documents, self._ends[documents - 1], 0)
        segments["length"] = stops - starts
        segments["continues"] = stops < ends
        return rows, starts, segments


def _padded(
    rows: Ints, starts: Ints, segments: NDArray[Any], ends: NDArray[np.bool_], count: int, length: int
) -> tuple[Ints, Ints, NDArray[Any], NDArray[np.bool_]]:
    """Add a segment of padding, of no first token (-1), to each row that is not full."""
    room = length - np.bincount(rows, segments["length"], count).astype(np.int64)
    short = room > 0
    held = np.bincount(rows, minlength=count) + short
    places = np.arange(len(rows)) + (np.cumsum(short) - short)[rows]
    pads = np.cumsum(held)[short] - 1
    padded = np.zeros(len(rows) + len(pads), SEGMENT)
    padded[places] = segments
    padded["document"][pads], padded["length"][pads] = NO_DOCUMENT, room[short]
    first, ended = np.full(len(padded), -1), np.zeros(len(padded), np.bool_)
    first[places], ended[places] = starts, ends
    return np.repeat(np.arange(count), held), first, padded, ended


def _copies(rows: Ints, starts: Ints, lengths: Ints, ends: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Rows and ranges of what to copy: each row and a token more, at once what lies one behind the other.

    ends: pieces behind which no token is to be read: one of padding ends the row.
    """
    count = int(rows[-1]) + 1
    last = np.flatnonzero(np.append(rows[1:] != rows[:-1], True))
    behind = np.where(ends[last] | (starts[last] < 0), -1, starts[last] + lengths[last])
    # A piece moves back by one for each row before its own, behind which a token has come.
    places, tokens = np.arange(len(rows)) + rows, last + 1 + np.arange(count)
    merged = np.empty((3, len(rows) + count), np.int64)
    merged[:, places] = rows, starts, lengths
    merged[:, tokens] = np.arange(count), behind, np.ones(count, np.int64)
    rows, starts, lengths = merged
    padding = starts < 0
    follows = padding[1:] & padding[:-1] | ~padding[:-1] & (starts[1:] == starts[:-1] + lengths[:-1])
    begins = np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]) | ~follows))
    first = starts[begins]
    return rows[begins], np.stack([first, first + np.add.reduceat(lengths, begins)], axis=1)


def _muted(rows: Ints, starts: Ints, lengths: Ints, spans: Ints, length: int) -> tuple[Ints, Ints]:
    """Rows, and ranges of their tokens, whose labels lie in `spans`: a label is the next token of the shard."""
    if not len(spans):
        return NONE, NO_SPANS
    ends = np.cumsum(lengths)
    column = ends - lengths - rows * length
    low = np.searchsorted(spans[:, 1] - 1, starts, side="right")
    high = np.searchsorted(spans[:, 0] - 1, starts + lengths, side="left")
    many = np.where(starts < 0, 0, np.maximum(high - low, 0))
    piece = np.repeat(np.arange(len(rows)), many)
    which = np.arange(len(piece)) - np.repeat(np.cumsum(many) - many, many) + low[piece]
    inside = np.clip(spans[which] - 1 - starts[piece, None], 0, lengths[piece, None])
    return rows[piece], inside + column[piece, None]


def _among(documents: Ints, out: Ints) -> NDArray[np.bool_]:
    """Say which documents are among `out`, which rises."""
    at = np.minimum(np.searchsorted(out, documents), len(out) - 1)
    found: NDArray[np.bool_] = out[at] == documents
    return found
