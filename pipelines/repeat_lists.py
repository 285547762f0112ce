"""What an exchange says of units: which repeat one with a smaller address, as lists that each part reads its own of.

An address is `part << 40 | number`; numbers rise with the text, so the smallest address is the first in the order of
parts, rows and places, whatever ran when. 24 bytes a unit cross the exchange; a list has 8 a repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..sharding.npy import npy_start
from ..sharding.store import Store
from ..transforms.kernels.digests import REPEAT, SHARED, flag_entries, group_entries
from ..transforms.kernels.entries import sort_entries
from .exchange import PACKED, Packed, sign_key
from .stage import Meter, Receipt, Stage
from .views import Part, get_array, put_array

NUMBER_BITS = 40  # of an address: the number of a unit in its part
Numbers = NDArray[np.uint64]


@dataclass(frozen=True)
class Listed:
    """Numbers of units by part, as one group of an exchange found them."""

    store: Store
    numbers: str
    bounds: str

    @classmethod
    def put(cls, store: Store, addresses: Numbers, parts: int, name: str) -> list[str]:
        """Commit addresses as numbers by part."""
        addresses = np.sort(addresses)
        edges = np.arange(parts + 1, dtype=np.uint64) << np.uint64(NUMBER_BITS)
        bounds = np.searchsorted(addresses, edges).astype(np.uint64)
        numbers = addresses & np.uint64((1 << NUMBER_BITS) - 1)
        return [put_array(store, numbers, name), put_array(store, bounds, f"{name}-bounds")]

    def read(self, part: int) -> Numbers:
        """Read one part's, rising."""
        at = npy_start(self.store.read(self.bounds, start=0, end=10)) + 8 * part
        first, end = np.frombuffer(self.store.read(self.bounds, start=at, end=at + 16), "<u8").tolist()
        if first == end:
            return np.zeros(0, np.uint64)
        at = npy_start(self.store.read(self.numbers, start=0, end=10))
        return np.frombuffer(self.store.read(self.numbers, start=at + 8 * first, end=at + 8 * end), "<u8")


def listed(stage: Stage, receipts: Sequence[Receipt], name: str) -> tuple[Listed, ...]:
    """Name a list of every group."""
    return tuple(Listed(stage.store, *receipt[name]) for receipt in receipts)


@dataclass(frozen=True)
class Again:
    """The repeats of one exchange: what each part found alone, and what the groups did."""

    stage: Stage
    groups: tuple[Listed, ...]

    def of(self, part: Part) -> Numbers:
        """Give a part's, rising."""
        receipt = self.stage.receipts([sign_key(part)])[0]
        return joint([get_array(self.stage.store, receipt["repeats"]), *(one.read(part.number) for one in self.groups)])


@dataclass(frozen=True)
class Link:
    """Say which addresses of a group repeat a smaller one, and which share a half with another digest."""

    stage: Stage
    parts: int

    def __call__(self, packed: Packed, folder: Path, meter: Meter) -> Receipt:
        """Flag the entries; commit the two lists."""
        with meter.on("link"):
            entries, flags = flag_entries(sort_entries(np.ascontiguousarray(packed).view(np.uint64).reshape(-1, 3)))
        store, addresses = self.stage.store, entries[:, 2]
        return {
            "entries": len(packed),
            "repeats": Listed.put(store, addresses[flags == REPEAT], self.parts, "repeats"),
            "shared": Listed.put(store, addresses[flags == SHARED], self.parts, "shared"),
        }


def sent(part: Part, digests: Numbers, numbers: Numbers) -> tuple[Numbers, Packed]:
    """Give the units that repeat one of their own part, rising, and pack the others for the exchange."""
    entries, flags = group_entries(digests, np.uint64(part.number << NUMBER_BITS) | numbers)
    repeats = np.sort(entries[flags == REPEAT, 2]) & np.uint64((1 << NUMBER_BITS) - 1)
    return repeats, entries[flags != REPEAT].view(PACKED).reshape(-1)


def joint(arrays: Sequence[Numbers]) -> Numbers:
    """Join lists and sort them."""
    return np.sort(np.concatenate([np.zeros(0, np.uint64), *arrays]))
