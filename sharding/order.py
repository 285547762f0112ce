"""Order as arithmetic: the n-th row a stream gives is a function of (seed, n), for any n up to 2^62.

A permutation of [0, n) is a hash-Feistel network: alternating halves, the splitmix64 finaliser as the round function,
cycle walking back into the domain. Nothing is stored, any index costs the same, and the inverse exists. Closed-form
shuffles with weaker rounds are measurably not random; this one is held against a true permutation in the tests. It
costs 180 to 240 ns a row in arrays of thousands, 1 µs in arrays of 512.

A full shuffle makes every rank read every block. So a stream's full groups (about 1 MiB, R rows each, one range read)
are first dealt, by a full permutation, to C lanes. A lane plays its groups in windows of about M, all rows of a window
permuted. A global batch sorted by lane and cut into ranks then meets each block from one rank or two, where a full
shuffle would meet it from nearly all. What does not fill the lanes (fewer than C groups, and the short group at each
shard's end) is played last in the epoch, as one full permutation of its own.

    ordinal ─→ epoch, place p        p = ordinal mod rows; every epoch has its own keys
    p       ─→ lane index, k         p mod C, p div C          (while p lies in the body)
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
from typing import Any

import numpy as np
import xxhash
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

# Half-rounds. Statistics are those of a true permutation from 3 on; 6 leaves room for domains of a few bits.
ROUNDS = 6
LARGEST_DOMAIN = 1 << 62
# Increment and finaliser of splitmix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_POWERS = np.left_shift(np.uint64(1), np.arange(63, dtype=np.uint64))
# Groups in flight over all lanes: marin #2917 saw no loss of quality from 512 on. 2,048 of 1 MiB are 2 GiB in all.
BLOCKS_IN_FLIGHT = 2048
# A lane plays at least this many groups, so that what is left over for the tail stays below 1/8 of the stream.
_GROUPS_A_LANE = 8
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
    def body_rows(self) -> int:
        """Rows played in lanes; the rest of the epoch is its tail."""
        return self.groups_per_lane * self.lanes * self.rows_per_group


def geometry(groups: int, rows_per_group: int, tail_rows: int) -> Geometry:
    """Choose lanes and window for a stream of this size.

    Lanes: the largest power of two that leaves every lane 8 groups, at most 256, or 1,024 from 2^18 groups (256 GiB of
    tokens) on, where more ranks share the work. Window: what keeps 2,048 groups in flight, at least 8; so within its
    lanes a stream of up to 2 GiB is shuffled whole.
    """
    most = 1024 if groups >= 1 << 18 else 256
    lanes = 1 << (max(1, min(most, groups // _GROUPS_A_LANE)).bit_length() - 1)
    return Geometry(groups, rows_per_group, tail_rows, lanes, max(8, BLOCKS_IN_FLIGHT // lanes))


def mix(words: Words) -> Words:
    """Scramble 64-bit words: the finaliser of splitmix64, a bijection."""
    words = words ^ (words >> np.uint64(30))
    words *= _MIX_1
    words ^= words >> np.uint64(27)
    words *= _MIX_2
    words ^= words >> np.uint64(31)
    return words


def _words(values: ArrayLike | int) -> Words:
    """As an array of at least one dimension: NumPy warns when scalars overflow, and hashing lives by overflow."""
    if isinstance(values, int):
        values = values & 0xFFFFFFFFFFFFFFFF
    return np.atleast_1d(np.asarray(values)).astype(np.uint64, copy=False)


def derive(key: ArrayLike | int, *parts: ArrayLike | int) -> Words:
    """Make a new key from a key and numbers; broadcasts, so that each element may have a key of its own."""
    words = _words(key)
    for part in parts:
        words = mix(words ^ mix(_words(part) + np.uint64(_GAMMA)))
    return words


def stream_key(seed: int, stream: str) -> int:
    """Key of a stream: of its name, so that another stream beside it changes nothing in this one's order."""
    return int(derive(seed, xxhash.xxh3_64_intdigest(stream.encode()))[0])


def permute(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> Ints:
    """Where `index` goes under the keyed permutation of [0, n).

    All three broadcast: each index may have its own domain and key. 1 <= n <= 2^62, 0 <= index < n.
    """
    return _walk(index, n, key, _forward)


def unpermute(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> Ints:
    """What goes to `index` under the keyed permutation of [0, n): the inverse of `permute`."""
    return _walk(index, n, key, _backward)


def _walk(index: ArrayLike, n: ArrayLike, key: ArrayLike, network: Any) -> Ints:
    """Apply the network until the value is back in [0, n): its own domain is under 2n, so under twice on average."""
    values, sizes, keys = (_words(part) for part in (index, n, key))
    shape = np.broadcast_shapes(values.shape, sizes.shape, keys.shape)
    values = np.broadcast_to(values, shape).ravel()
    sizes, keys = (np.broadcast_to(part, shape).ravel() if part.size > 1 else part.ravel() for part in (sizes, keys))
    bits = np.searchsorted(_POWERS, sizes).astype(np.uint64)
    out = network(values, bits, keys)
    (outside,) = np.nonzero(out >= sizes)
    while outside.size:
        narrow = (part[outside] if part.size > 1 else part for part in (bits, keys))
        out[outside] = network(out[outside], *narrow)
        limit = sizes[outside] if sizes.size > 1 else sizes
        outside = outside[out[outside] >= limit]
    return out.reshape(shape).astype(np.int64)


def _halves(values: Words, bits: Words) -> tuple[Words, Words, Words, Words, Words]:
    one = np.uint64(1)
    low = bits - (bits >> one)
    low_mask, high_mask = (one << low) - one, (one << (bits >> one)) - one
    return values >> low, values & low_mask, low, low_mask, high_mask


def _forward(values: Words, bits: Words, keys: Words) -> Words:
    high, low, width, low_mask, high_mask = _halves(values, bits)
    for turn in range(0, ROUNDS, 2):
        high = high ^ (mix(low ^ (keys + _step(turn))) & high_mask)
        low = low ^ (mix(high ^ (keys + _step(turn + 1))) & low_mask)
    joined: Words = high << width | low
    return joined


def _backward(values: Words, bits: Words, keys: Words) -> Words:
    high, low, width, low_mask, high_mask = _halves(values, bits)
    for turn in range(ROUNDS - 2, -1, -2):
        low = low ^ (mix(high ^ (keys + _step(turn + 1))) & low_mask)
        high = high ^ (mix(low ^ (keys + _step(turn))) & high_mask)
    joined: Words = high << width | low
    return joined


def _step(turn: int) -> np.uint64:
    return np.uint64((turn + 1) * _GAMMA & 0xFFFFFFFFFFFFFFFF)


@lru_cache(maxsize=32)
def reversed_bits(lanes: int) -> Ints:
    """Lane numbers by lane index, bits reversed: any run of ordinals spreads evenly over the lanes (van der Corput)."""
    width = lanes.bit_length() - 1
    return np.array([int(format(lane, f"0{width}b")[::-1], 2) if width else 0 for lane in range(lanes)], dtype=np.int64)


# What a key is for. A number is never used for two things.
_WINDOW, _GROUPS, _TAIL = 1, 2, 3


@dataclass(frozen=True)
class Order:
    """The order of one stream: ordinals to (epoch, row) and back. Rows are numbered as in the module's docstring."""

    geometry: Geometry
    key: int

    def lanes(self, ordinals: Ints) -> Ints:
        """Lane of each ordinal as a fraction of `LANE_SCALE`: comparable between streams of different sizes."""
        lanes = self.geometry.lanes
        numbers: Ints = reversed_bits(lanes)[ordinals % self.geometry.rows % lanes] * (LANE_SCALE // lanes)
        return numbers

    def rows(self, ordinals: Ints) -> tuple[Ints, Ints]:
        """(epoch, row) of each ordinal; within an epoch every row of the stream comes exactly once."""
        shape = self.geometry
        epochs, places = np.divmod(np.asarray(ordinals, dtype=np.int64), shape.rows)
        keys = derive(self.key, epochs)
        rows = np.empty_like(places)
        body = places < shape.body_rows
        if body.any():
            rows[body] = self._body(places[body], keys[body])
        if not body.all():
            rows[~body] = self._tail(places[~body], keys[~body])
        return epochs, rows

    def ordinals(self, epochs: Ints, rows: Ints) -> Ints:
        """When a row comes in an epoch: the inverse of `rows`."""
        shape = self.geometry
        keys = derive(self.key, epochs)
        groups, within = np.divmod(rows, shape.rows_per_group)
        full = rows < shape.groups * shape.rows_per_group
        slots = groups.copy()
        if full.any():
            slots[full] = unpermute(groups[full], shape.groups, derive(keys[full], _GROUPS))
        body = full & (slots < shape.groups_per_lane * shape.lanes)
        places = np.empty_like(rows)
        if body.any():
            places[body] = self._unbody(slots[body], within[body], keys[body])
        if not body.all():
            left = slots - shape.groups_per_lane * shape.lanes
            tail = np.where(full, left * shape.rows_per_group + within, rows - shape.body_rows)[~body]
            places[~body] = shape.body_rows + unpermute(tail, shape.rows - shape.body_rows, derive(keys[~body], _TAIL))
        return np.asarray(epochs * shape.rows + places, dtype=np.int64)

    def _body(self, places: Ints, keys: Words) -> Ints:
        shape = self.geometry
        k, lane = np.divmod(places, shape.lanes)
        window, first, size = self._window(lane, k // shape.rows_per_group)
        j = permute(k - first * shape.rows_per_group, size * shape.rows_per_group, derive(keys, _WINDOW, lane, window))
        nth, within = np.divmod(j, shape.rows_per_group)
        groups = permute((first + nth) * shape.lanes + lane, shape.groups, derive(keys, _GROUPS))
        return groups * shape.rows_per_group + within

    def _unbody(self, slots: Ints, within: Ints, keys: Words) -> Ints:
        shape = self.geometry
        block, lane = np.divmod(slots, shape.lanes)
        window, first, size = self._window(lane, block)
        j = (block - first) * shape.rows_per_group + within
        k = unpermute(j, size * shape.rows_per_group, derive(keys, _WINDOW, lane, window))
        return (k + first * shape.rows_per_group) * shape.lanes + lane

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

    def _tail(self, places: Ints, keys: Words) -> Ints:
        shape = self.geometry
        played = shape.groups_per_lane * shape.lanes
        tail = permute(places - shape.body_rows, shape.rows - shape.body_rows, derive(keys, _TAIL))
        left = tail < (shape.groups - played) * shape.rows_per_group
        rows = tail + shape.body_rows
        if left.any():
            slots, within = np.divmod(tail[left], shape.rows_per_group)
            groups = permute(played + slots, shape.groups, derive(keys[left], _GROUPS))
            rows[left] = groups * shape.rows_per_group + within
        return rows
