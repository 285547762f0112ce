"""Blocks that stay damaged or lost, set aside by name: their rows come as padding, masked whole.

So shapes, positions and the order of everything else stay what they are, and a training run goes on without rows that
nobody can read. A block is set aside only where the store still holds the data set's generation: a store that is out of
reach, or a disk that is not mounted, looks like one that has lost everything, and that is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal, get_args

from .. import CorruptDataError, RequestError, StoreError
from .format import Generation
from .store import Store

Corrupt = Literal["raise", "quarantine"]
_log = logging.getLogger("penstock.loader")


@dataclass
class Quarantined:
    """A group of rows that cannot be read. shard, pack: their names; group: its number in the shard, for that pack.

    positions: those at which its rows would have come and padding came instead, so far, in the order of reading.
    """

    shard: str
    pack: str
    group: int
    reason: str
    positions: list[int] = field(default_factory=list)


class Quarantine:
    """The blocks that a loader has set aside. Shared by threads; `corrupt="raise"` sets none aside."""

    def __init__(self, store: Store, generation: Generation, pack: str, corrupt: Corrupt = "raise") -> None:
        self._store, self._generation, self._pack, self._corrupt = store, generation, pack, corrupt
        self._lock = Lock()
        self._held: dict[tuple[int, int], Quarantined] = {}

    @property
    def sets_aside(self) -> bool:
        """Whether damaged blocks are set aside, and not an error."""
        return self._corrupt == "quarantine"

    @property
    def records(self) -> list[Quarantined]:
        """All that were set aside, in the order in which they were met."""
        with self._lock:
            return list(self._held.values())

    def find(self, shard: int, group: int) -> Quarantined | None:
        """Give a block's record if it was set aside."""
        return self._held.get((shard, group))

    def take(self, shard: int, group: int, error: CorruptDataError) -> Quarantined:
        """Set a block aside; raises the error where none is to be, StoreError where the store itself is gone."""
        if not self.sets_aside:
            raise error
        name = f"generations/{self._generation.number}.json"
        if not self._store.exists(name):
            raise StoreError(
                f"{self._store.url} no longer holds {name}: it is not this data set, not mounted or out of reach, so "
                f"nothing is set aside ({error})"
            ) from error
        record = Quarantined(self._generation.shards[shard].name, self._pack, group, str(error))
        with self._lock:
            if (known := self._held.setdefault((shard, group), record)) is record:
                _log.error("block %d of shard %s is set aside, its rows come masked: %s", group, record.shard, error)
        return known

    def note(self, record: Quarantined, positions: Iterable[int]) -> None:
        """Remember at which positions padding came for a block's rows."""
        with self._lock:
            record.positions += [position for position in positions if position not in record.positions]


def check_corrupt(corrupt: str) -> None:
    """Refuse what is none of the answers to damage."""
    if corrupt not in get_args(Corrupt):
        raise RequestError(f"corrupt is {corrupt!r}; it is one of {', '.join(get_args(Corrupt))}")
