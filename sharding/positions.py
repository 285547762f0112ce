"""From a position in rows to the place of its row: stream, ordinal, epoch, shard, group. Pure, the same on every rank.

A global batch is B consecutive positions sorted by lane; rank r of W takes rows ⌊rB/W⌋ to ⌊(r+1)B/W⌋ of it. So the rows
of a step depend neither on rank nor on world size, and a rank keeps meeting the same blocks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import numpy as np
import xxhash

from .. import RequestError
from .cached import cached_property
from .cohorts import cohort_of, shared_weights
from .format import Generation, PackOrder
from .mixture import Mixture, mixture
from .order import Geometry, Order, stream_key
from .permutation import Ints
from .plan import Shuffle

VALIDATION = "validation"


@dataclass(frozen=True)
class Places:
    """Where rows lie, an entry each: shard (in the generation's order), group in the shard, row in the group, epoch."""

    shards: Ints
    groups: Ints
    rows: Ints
    epochs: Ints

    @cached_property
    def keys(self) -> list[tuple[int, int]]:
        """Shard and group of each row, as plain numbers."""
        return list(zip(self.shards.tolist(), self.groups.tolist(), strict=True))

    def __getitem__(self, which: slice) -> Places:
        return Places(self.shards[which], self.groups[which], self.rows[which], self.epochs[which])


@dataclass(frozen=True)
class Leg:
    """A mixture from a position on.

    origin: the position from which it would have to run to stand where it does at `start`; less than that where it goes
    on after something else. ordinals: at which each of its streams stands at the origin.
    """

    start: int
    origin: int
    mixture: Mixture
    ordinals: tuple[int, ...]

    def begun(self) -> Iterator[tuple[str, int]]:
        """Give each stream and its ordinal at the origin."""
        return zip(self.mixture.names, self.ordinals, strict=True)

    def had(self, position: int) -> dict[str, int]:
        """Rows that each stream has given before a position of this leg, by name."""
        names = self.mixture.names
        rows = (self.mixture.count(name, position - self.origin) for name in names)
        return {name: ordinal + more for name, ordinal, more in zip(names, self.ordinals, rows, strict=True)}


@dataclass(frozen=True)
class _Stream:
    """A stream's order, None for the payload's; running counts of its shards' full groups, short groups' rows, rows."""

    order: Order | None
    geometry: Geometry
    first_shard: int
    full_groups: Ints
    short_rows: Ints
    rows: Ints

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the stream's geometry and of the rows of its shards; not of where it stands among other streams."""
        counts = np.concatenate([self.full_groups, self.short_rows]).astype("<i8").tobytes()
        return xxhash.xxh3_64_hexdigest(json.dumps(asdict(self.geometry)).encode() + counts)

    def lanes(self, ordinals: Ints) -> Ints:
        """Lane of each ordinal, comparable between streams."""
        return np.zeros_like(ordinals) if self.order is None else self.order.lanes(ordinals)

    def places(self, ordinals: Ints) -> Places:
        """Where the rows of these ordinals lie."""
        return self._in_payload(ordinals) if self.order is None else self._shuffled(self.order, ordinals)

    def _shuffled(self, order: Order, ordinals: Ints) -> Places:
        size = self.geometry.rows_per_group
        epochs, rows = order.rows(ordinals)
        groups, within = np.divmod(rows, size)
        short = rows - self.geometry.groups * size
        full_shard = np.searchsorted(self.full_groups, groups, side="right") - 1
        short_shard = np.searchsorted(self.short_rows, short, side="right") - 1
        in_full = short < 0
        shard = np.where(in_full, full_shard, short_shard)
        group = np.where(in_full, groups - self.full_groups[full_shard], np.diff(self.full_groups)[shard])
        within = np.where(in_full, within, short - self.short_rows[short_shard])
        return Places(shard + self.first_shard, group, within, epochs)

    def _in_payload(self, ordinals: Ints) -> Places:
        epochs, rows = np.divmod(ordinals, self.geometry.rows)
        shard = np.searchsorted(self.rows, rows, side="right") - 1
        groups, within = np.divmod(rows - self.rows[shard], self.geometry.rows_per_group)
        return Places(shard + self.first_shard, groups, within, epochs)


class Positions:
    """The order of a data set's rows for one pack, under mixtures that follow each other, and one seed.

    legs: by rising start. Each stream's ordinals run on over them without a gap, so changes repeat nothing.
    """

    def __init__(
        self, generation: Generation, pack: PackOrder, legs: Sequence[Leg], seed: int, shuffle: Shuffle = "block"
    ) -> None:
        self.legs = tuple(legs)
        self._starts = np.array([leg.start for leg in legs], np.int64)
        self._stream = cache(partial(_stream, generation, pack, seed=seed, shuffle=shuffle))
        self._told = pack.pack.name, shuffle

    def order(self, mixed: Mixture) -> str:
        """Hash of everything besides the seed that decides the order of the rows of a mixture."""
        streams = {name: self._stream(name).fingerprint for name in mixed.names}
        return xxhash.xxh3_64_hexdigest(json.dumps([*self._told, mixed.weights, streams]).encode())

    def epoch_rows(self, leg: Leg) -> int:
        """Rows of all streams of a leg: with default weights, so many positions give every row once."""
        return sum(self._stream(name).geometry.rows for name in leg.mixture.names)

    def shards(self, leg: Leg) -> list[int]:
        """Numbers of the shards of a leg's streams in the generation's order."""
        streams = (self._stream(name) for name in leg.mixture.names)
        held = (range(stream.first_shard, stream.first_shard + len(stream.rows) - 1) for stream in streams)
        return [shard for shards in held for shard in shards]

    def _parts(self, positions: Ints) -> Iterator[tuple[_Stream, Ints, Ints]]:
        """Part positions (n,) by stream: the stream, which positions are its own, their ordinals."""
        if not positions.size:
            return
        low, high = np.searchsorted(self._starts, [positions.min(), positions.max()], side="right").tolist()
        which = None if low == high else np.searchsorted(self._starts, positions, side="right")
        for number in range(low, high + 1):
            leg = self.legs[number - 1]
            inside = None if which is None else np.flatnonzero(which == number)
            if inside is not None and not inside.size:
                continue
            streams, ordinals = leg.mixture.split((positions if inside is None else positions[inside]) - leg.origin)
            for index, (name, first) in enumerate(zip(leg.mixture.names, leg.ordinals, strict=True)):
                here = np.flatnonzero(streams == index)
                if here.size:
                    yield self._stream(name), here if inside is None else inside[here], ordinals[here] + first

    def sorted_by_lane(self, positions: Ints) -> Ints:
        """Sort batches (n, B) of positions, each within itself, by lane and then by position."""
        flat = positions.ravel()
        lanes = np.empty_like(flat)
        for stream, here, ordinals in self._parts(flat):
            lanes[here] = stream.lanes(ordinals)
        order = np.argsort(lanes.reshape(positions.shape), axis=-1, kind="stable")
        return np.take_along_axis(positions, order, axis=-1)

    def places(self, positions: Ints) -> Places:
        """Where the rows of these positions (n,) lie."""
        parts = np.empty((4, len(positions)), dtype=np.int64)
        for stream, here, ordinals in self._parts(positions):
            found = stream.places(ordinals)
            parts[:, here] = found.shards, found.groups, found.rows, found.epochs
        return Places(*parts)


def _stream(generation: Generation, pack: PackOrder, name: str, seed: int, shuffle: Shuffle) -> _Stream:
    counts = (*generation.shards.groups(pack.pack.name, name), generation.shards.rows(pack.pack.name, name))
    full, short, rows = (np.concatenate([np.zeros(1, np.int64), np.cumsum(column)]) for column in counts)
    shape, key = pack.streams[name], stream_key(seed, name)
    # One lane holds all rows in one permutation.
    order = None if shuffle is None else Order(replace(shape, lanes=1) if shuffle == "full" else shape, key)
    return _Stream(order, shape, generation.shards.where(name).start, full, short, rows)


def is_validation(stream: str) -> bool:
    """Say whether a stream holds held-out documents: `validation`, `validation/` and what it is for, their cohorts."""
    name, _ = cohort_of(stream)
    return name == VALIDATION or name.startswith(f"{VALIDATION}/")


def choose_streams(pack: PackOrder, split: str, weights: Mapping[str, float] | None) -> Mixture:
    """Mix the streams that `weights` names; without it all of the split, each by its rows, so that epochs come out.

    A name means all cohorts of it that are not named themselves: they share its weight by their rows.
    """
    rows = {name: shape.rows for name, shape in pack.streams.items() if shape.rows}
    if weights is not None:
        shared, unknown = shared_weights(weights, rows)
        if unknown:
            names = ", ".join(sorted(rows))
            raise RequestError(f"there is no stream {', '.join(unknown)} with rows: streams are {names}")
        return mixture(shared)
    if split not in ("train", VALIDATION):
        raise RequestError(f"split is 'train' or 'validation', not {split!r}; name single streams by weights=")
    chosen = {name: count for name, count in rows.items() if is_validation(name) == (split == VALIDATION)}
    if not chosen:
        raise RequestError(f"split {split!r} of this data set has no rows: its streams are {', '.join(sorted(rows))}")
    return mixture(chosen)
