"""Order as arithmetic: the n-th row a stream gives is a function of (seed, n), for any n up to 2^62.

Nothing is stored, so a loader can stand anywhere at once: 300 ns a row in arrays of thousands, 1 µs in arrays of 512.

A full shuffle makes every rank read every block. So a stream's full groups (about 1 MiB, R rows each, one range read)
are first dealt, by a full permutation, to C lanes. A lane plays its groups in windows of about M, all rows of a window
permuted. A global batch sorted by lane and cut into ranks then meets each block from one rank or two, where a full
shuffle would meet it from nearly all. What does not fill the lanes (fewer than C groups, and the short group at each
shard's end) is the tail. Every lane has a contiguous share of it, so that the tail's blocks too lie with a rank or two;
it permutes its share whole and plays it evenly among its groups. Lanes take turns whatever they play, so any B places
hold each lane B/C times: ranks per block are 1.00 at 64 ranks, where a tail out of turn made them 1.7. A stream of
under 128 groups has one lane and is shuffled whole.

    ordinal ─→ epoch, place          ordinal mod rows; every epoch has its own keys
    place   ─→ lane index, turn      p mod C, p div C
    turn    ─→ k of the groups, or of the lane's share of the tail: exact even dealing
    k       ─→ window, j             the window that holds group k div R; j = permutation of its rows
    j       ─→ slot                  (first group of the window + j div R) · C + lane index
    slot    ─→ group                 permutation of all full groups
    row     =  group · R + j mod R   rows of short groups are numbered after all those of full groups

Shuffling of documents happens when shards are written and carries the load; blocks and rows are shuffled here. These
functions are part of the format: a change of one bit is a new major version; `tests/test_order.py` pins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xxhash
from numpy.typing import NDArray

from .cached import cached_property
from .permutation import LARGEST_DOMAIN, Ints, Words, derive, permute, unpermute

# Groups in flight over all lanes: marin #2917 saw no loss of quality from 512 on. 2,048 of 1 MiB are 2 GiB in all.
BLOCKS_IN_FLIGHT = 2048
# A lane plays at least this many groups; what is left over, the tail, is below 1/8 of the stream then.
_GROUPS_A_LANE = 8
# Streams of fewer groups are shuffled whole.
_FEW_GROUPS = 128
# Sorting lanes of different streams side by side: a lane is a fraction of this.
LANE_SCALE = 1 << 16


@dataclass(frozen=True)
class Geometry:
    """Numbers that fix how a stream's rows are walked; stored with the pack, never derived again from a later rule.

    groups: full groups over all shards. rows_per_group: R. tail_rows: rows of the short groups at shards' ends.
    lanes: C, a power of two. window: M, in groups.
    """

    groups: int
    rows_per_group: int
    tail_rows: int
    lanes: int
    window: int

    def __post_init__(self) -> None:
        if min(self.groups, self.tail_rows) < 0 or min(self.rows_per_group, self.window) < 1:
            raise ValueError(f"a stream has no negative counts, and a group and a window hold at least 1: {self}")
        if self.rows > LARGEST_DOMAIN:
            raise ValueError(f"a stream holds at most 2^62 rows, not {self.rows}")
        if self.lanes < 1 or self.lanes & (self.lanes - 1) or self.lanes > LANE_SCALE:
            raise ValueError(f"lanes must be a power of two up to {LANE_SCALE}, not {self.lanes}")

    @property
    def rows(self) -> int:
        """Rows an epoch gives."""
        return self.groups * self.rows_per_group + self.tail_rows

    @property
    def groups_per_lane(self) -> int:
        """Groups that each lane plays in an epoch."""
        return self.groups // self.lanes

    @property
    def laned_groups(self) -> int:
        """Groups played in lanes; one lane alone would only be a narrower shuffle, so then none is."""
        return self.groups_per_lane * self.lanes if self.lanes > 1 else 0

    @property
    def body_rows(self) -> int:
        """Rows of groups played in lanes; the others are the tail."""
        return self.laned_groups * self.rows_per_group


def geometry(groups: int, rows_per_group: int, tail_rows: int) -> Geometry:
    """Choose lanes and window for a stream of this size.

    Lanes: the largest power of two that leaves every lane 8 groups, at most 256, or 1,024 from 2^18 groups (256 GiB of
    tokens) on, where more ranks share the work; one below 128 groups. Window: what keeps 2,048 groups in flight, at
    least 8; so within its lanes a stream of up to 2 GiB is shuffled whole.
    """
    most = 1024 if groups >= 1 << 18 else 256
    lanes = 1 << (min(most, groups // _GROUPS_A_LANE).bit_length() - 1) if groups >= _FEW_GROUPS else 1
    return Geometry(groups, rows_per_group, tail_rows, lanes, max(8, BLOCKS_IN_FLIGHT // lanes))


def stream_key(seed: int, stream: str) -> int:
    """Key of a stream: of its name, so that another stream beside it changes nothing in this one's order."""
    return int(derive(seed, xxhash.xxh3_64_intdigest(stream.encode()))[0])


@lru_cache(maxsize=32)
def reversed_bits(lanes: int) -> Ints:
    """Lane numbers by lane index, bits reversed: any run of ordinals spreads evenly over the lanes (van der Corput)."""
    width = lanes.bit_length() - 1
    return np.array([int(format(lane, f"0{width}b")[::-1], 2) if width else 0 for lane in range(lanes)], dtype=np.int64)


# What a key is for. A number is never used for two things.
_WINDOW, _GROUPS, _TAIL = 1, 2, 3


class _Deal:
    """How groups and tail take turns in every lane: exact, even, in closed form both ways.

    The rarer of the two comes every so many turns: its step, a number with `scale` binary places. Not in all lanes at
    once: the shift is the lane index's share of a step. In lane index l its i-th row comes at turn
    (i · step + shift) div 2^scale, which is where row i · C + l of all has its even place in the epoch. Products stay
    below 2^63: none passes twice rows · 2^scale.
    """

    def __init__(self, shape: Geometry) -> None:
        self._lanes, self._body = shape.lanes, shape.body_rows
        self._tail = shape.rows - shape.body_rows
        self._rarer = min(self._body, self._tail)
        self._scale = min(32, 62 - (shape.rows - 1).bit_length())
        # Where groups are the rarer each lane has as many rows of them: none in the last turn, which not all have.
        places = shape.rows - shape.rows % shape.lanes if self._body < self._tail else shape.rows
        self._step = max(2 << self._scale, (places << self._scale) // max(1, self._rarer))
        # Shares of the tail stand in the order of lane numbers, so that neighbours read the same blocks.
        sizes = self.share(reversed_bits(shape.lanes))
        self.starts: Ints = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])

    def share(self, lane: Ints) -> Ints:
        """Rows of the tail that a lane index plays."""
        return -((lane - self._tail) // self._lanes)

    def played(self, lane: Ints, turn: Ints) -> tuple[NDArray[np.bool_], Ints]:
        """(plays a group, number among the lane's rows of groups or of the tail) of each turn of a lane index."""
        shift, rarer = lane * (self._step // self._lanes), -((lane - self._rarer) // self._lanes)
        before = np.clip(-((shift - (turn << self._scale)) // self._step), 0, rarer)
        rare = (before < rarer) & ((before * self._step + shift) >> self._scale == turn)
        return rare == (self._body < self._tail), np.where(rare, before, turn - before)

    def turn(self, lane: Ints, body: NDArray[np.bool_], number: Ints) -> Ints:
        """The inverse: the turn at which a lane index plays this row."""
        shift, rarer = lane * (self._step // self._lanes), -((lane - self._rarer) // self._lanes)
        # The i-th of the rarer has (i · (step - 2^scale) + shift) div 2^scale of the others before it.
        before = -((shift - ((number + 1) << self._scale)) // (self._step - (1 << self._scale)))
        rare = (np.minimum(number, rarer) * self._step + shift) >> self._scale
        return np.where(body == (self._body < self._tail), rare, number + np.clip(before, 0, rarer))


@dataclass(frozen=True)
class Order:
    """The order of one stream: ordinals to (epoch, row) and back. Rows are numbered as in the module's docstring."""

    geometry: Geometry
    key: int

    @cached_property
    def _deal(self) -> _Deal:
        return _Deal(self.geometry)

    def lanes(self, ordinals: Ints) -> Ints:
        """Lane of each ordinal as a fraction of `LANE_SCALE`: comparable between streams of different sizes."""
        lanes = self.geometry.lanes
        numbers: Ints = reversed_bits(lanes)[ordinals % self.geometry.rows % lanes] * (LANE_SCALE // lanes)
        return numbers

    def rows(self, ordinals: Ints) -> tuple[Ints, Ints]:
        """(epoch, row) of each ordinal; within an epoch every row of the stream comes exactly once."""
        epochs, places = np.divmod(np.asarray(ordinals, dtype=np.int64), self.geometry.rows)
        keys = derive(self.key, epochs)
        turns, lanes = np.divmod(places, self.geometry.lanes)
        body, numbers = self._deal.played(lanes, turns)
        rows = np.empty_like(places)
        for part, play in ((body, self._body), (~body, self._tail)):
            if part.any():
                rows[part] = play(lanes[part], numbers[part], keys[part])
        return epochs, rows

    def ordinals(self, epochs: Ints, rows: Ints) -> Ints:
        """When a row comes in an epoch: the inverse of `rows`."""
        shape = self.geometry
        keys = derive(self.key, epochs)
        slots, within = np.divmod(rows, shape.rows_per_group)
        full = rows < shape.groups * shape.rows_per_group
        if full.any():
            slots[full] = unpermute(slots[full], shape.groups, derive(keys[full], _GROUPS))
        body = full & (slots < shape.laned_groups)
        lanes, numbers = np.empty_like(rows), np.empty_like(rows)
        if body.any():
            lanes[body], numbers[body] = self._unbody(slots[body], within[body], keys[body])
        if not body.all():
            left = (slots - shape.laned_groups) * shape.rows_per_group + within
            tail = np.where(full, left, rows - shape.body_rows)[~body]
            lanes[~body], numbers[~body] = self._untail(tail, keys[~body])
        places = self._deal.turn(lanes, body, numbers) * shape.lanes + lanes
        return np.asarray(epochs * shape.rows + places, dtype=np.int64)

    def _body(self, lane: Ints, k: Ints, keys: Words) -> Ints:
        shape = self.geometry
        window, first, size = self._window(lane, k // shape.rows_per_group)
        j = permute(k - first * shape.rows_per_group, size * shape.rows_per_group, derive(keys, _WINDOW, lane, window))
        nth, within = np.divmod(j, shape.rows_per_group)
        groups = permute((first + nth) * shape.lanes + lane, shape.groups, derive(keys, _GROUPS))
        return groups * shape.rows_per_group + within

    def _unbody(self, slots: Ints, within: Ints, keys: Words) -> tuple[Ints, Ints]:
        shape = self.geometry
        block, lane = np.divmod(slots, shape.lanes)
        window, first, size = self._window(lane, block)
        j = (block - first) * shape.rows_per_group + within
        k = unpermute(j, size * shape.rows_per_group, derive(keys, _WINDOW, lane, window))
        return lane, k + first * shape.rows_per_group

    def _window(self, lane: Ints, block: Ints) -> tuple[Ints, Ints, Ints]:
        """(number, first block, blocks) of the window that holds a lane's block.

        Lanes change windows one after the other and not all at once, so that new blocks are asked for at an even rate:
        the first window is longer by the lane's share of a window, the last takes the rest. No window is shorter than M
        unless the lane is.
        """
        shape = self.geometry
        blocks, width = shape.groups_per_lane, shape.window
        shift = lane * width // shape.lanes
        last = np.maximum(1, (blocks - shift) // width) - 1
        number = np.clip((block - shift) // width, 0, last)
        first = np.where(number == 0, 0, shift + number * width)
        end = np.where(number == last, blocks, shift + (number + 1) * width)
        return number, first, end - first

    def _tail(self, lane: Ints, number: Ints, keys: Words) -> Ints:
        shape, deal = self.geometry, self._deal
        starts = deal.starts[reversed_bits(shape.lanes)[lane]]
        tail = starts + permute(number, deal.share(lane), derive(keys, _TAIL, lane))
        left = tail < (shape.groups - shape.laned_groups) * shape.rows_per_group
        rows = tail + shape.body_rows
        if left.any():
            slots, within = np.divmod(tail[left], shape.rows_per_group)
            groups = permute(shape.laned_groups + slots, shape.groups, derive(keys[left], _GROUPS))
            rows[left] = groups * shape.rows_per_group + within
        return rows

    def _untail(self, tail: Ints, keys: Words) -> tuple[Ints, Ints]:
        deal = self._deal
        number = np.searchsorted(deal.starts, tail, side="right") - 1
        lane = reversed_bits(self.geometry.lanes)[number]
        return lane, unpermute(tail - deal.starts[number], deal.share(lane), derive(keys, _TAIL, lane))
