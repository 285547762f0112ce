"""From a position in rows to the place of its row: stream, ordinal, epoch, shard, group. Pure, the same on every rank.

A global batch is B consecutive positions sorted by lane; rank r of W takes rows ⌊rB/W⌋ to ⌊(r+1)B/W⌋ of it. So the rows
of a step depend neither on rank nor on world size, and a rank keeps meeting the same blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import xxhash

from .. import RequestError
from .cohorts import cohort_of, shared_weights
from .format import Generation, PackOrder
from .mixture import Mixture, mixture
from .order import Order, stream_key
from .permutation import Ints

VALIDATION = "validation"


@dataclass(frozen=True)
class Places:
    """Where rows lie, an entry each: shard (in the generation's order), group in the shard, row in the group, epoch."""

    shards: Ints
    groups: Ints
    rows: Ints
    epochs: Ints

    def __getitem__(self, which: slice) -> Places:
        return Places(self.shards[which], self.groups[which], self.rows[which], self.epochs[which])


@dataclass(frozen=True)
class _Stream:
    """A stream's order, and the running counts of full groups and of short groups' rows over its shards."""

    order: Order
    first_shard: int
    full_groups: Ints
    short_rows: Ints

    def places(self, ordinals: Ints) -> Places:
        size = self.order.geometry.rows_per_group
        epochs, rows = self.order.rows(ordinals)
        groups, within = np.divmod(rows, size)
        short = rows - self.order.geometry.groups * size
        full_shard = np.searchsorted(self.full_groups, groups, side="right") - 1
        short_shard = np.searchsorted(self.short_rows, short, side="right") - 1
        in_full = short < 0
        shard = np.where(in_full, full_shard, short_shard)
        group = np.where(in_full, groups - self.full_groups[full_shard], np.diff(self.full_groups)[shard])
        within = np.where(in_full, within, short - self.short_rows[short_shard])
        return Places(shard + self.first_shard, group, within, epochs)


class Positions:
    """The order of a data set's rows for one pack, mixture and seed."""

    def __init__(self, generation: Generation, pack: PackOrder, mixed: Mixture, seed: int) -> None:
        self.mixture = mixed
        self._streams = [_stream(generation, pack, name, seed) for name in mixed.names]
        shapes = {name: asdict(pack.streams[name]) for name in mixed.names}
        counts = [(s.first_shard, s.full_groups.tolist(), s.short_rows.tolist()) for s in self._streams]
        told = json.dumps([pack.pack.name, mixed.weights, shapes, counts])
        self.fingerprint = xxhash.xxh3_64_hexdigest(told.encode())

    @property
    def epoch_rows(self) -> int:
        """Rows of all streams together: with default weights, so many positions give every row once."""
        return sum(stream.order.geometry.rows for stream in self._streams)

    @property
    def shards(self) -> list[int]:
        """Numbers of the streams' shards in the generation's order."""
        held = (range(stream.first_shard, stream.first_shard + len(stream.full_groups) - 1) for stream in self._streams)
        return [shard for shards in held for shard in shards]

    def sorted_by_lane(self, positions: Ints) -> Ints:
        """Sort batches (n, B) of positions, each within itself, by lane and then by position."""
        flat = positions.ravel()
        streams, ordinals = self.mixture.split(flat)
        lanes = np.empty_like(flat)
        for number, stream in enumerate(self._streams):
            here = streams == number
            lanes[here] = stream.order.lanes(ordinals[here])
        order = np.argsort(lanes.reshape(positions.shape), axis=-1, kind="stable")
        return np.take_along_axis(positions, order, axis=-1)

    def places(self, positions: Ints) -> Places:
        """Where the rows of these positions (n,) lie."""
        streams, ordinals = self.mixture.split(positions)
        parts = np.empty((4, len(positions)), dtype=np.int64)
        for number, stream in enumerate(self._streams):
            here = np.flatnonzero(streams == number)
            if here.size:
                found = stream.places(ordinals[here])
                parts[:, here] = found.shards, found.groups, found.rows, found.epochs
        return Places(*parts)


def _stream(generation: Generation, pack: PackOrder, name: str, seed: int) -> _Stream:
    counts = generation.shards.groups(pack.pack.name, name)
    full, short = (np.concatenate([np.zeros(1, np.int64), np.cumsum(column)]) for column in counts)
    first = generation.shards.where(name).start
    return _Stream(Order(pack.streams[name], stream_key(seed, name)), first, full, short)


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
