"""Exchange: entries with equal digests meet, by files where one machine does the work, by one shuffle elsewhere.

An entry is a 128-bit digest and an address, any uint64: 24 bytes. Job 1 signs parts: each part's entries, by band and
sorted by digest, are one object. Job 2 has a task for each band and hash range, a group of at most about 64 MiB; a
range is a slice of each object, found with one read, for digests are uniform. On a cluster the slices go through
Beam's GroupByKey instead, keyed the same. Both ways commit the same receipts and the same bytes.

Measured by files: 20 M documents of 15 bands are 7.2 GB of entries; a worker that signed took 288 MB, one that linked
280 MB. Beam's local runner takes about 6 bytes of memory a shuffled byte.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import CorruptDataError
from ..sharding.store import Store
from ..transforms.kernels.entries import fold_entries, join_entries, repeated_entries, sort_entries
from .runners import Job
from .stage import THREADS, Meter, Receipt, Stage, run_task

PACKED = np.dtype([("high", "<u8"), ("low", "<u8"), ("address", "<u8")])
Packed = NDArray[np.void]
#: Entries by the name of their band: sorted by digest, of each digest the smallest address.
Bands = Mapping[str, Packed]
GROUP_BYTES = 64 << 20  # of one band and hash range; the bound is 256 MiB
HERE_BYTES = 16 << 20  # linked by the client itself: starting a job costs more
HASHES = 1 << 64  # what the first words of digests are below


def sign_key(part: Any) -> str:
    """Name the receipt of a part's signatures."""
    return f"sign-{part.number:06d}"


def put_bands(store: Store, folder: Path, bands: Bands) -> Receipt:
    """Commit a part's entries as one object; give what a receipt says of it: `digests` and the `bands`' places."""
    path, places = folder / "digests", {}
    with path.open("wb") as file:
        for band, packed in sorted(bands.items()):
            start = file.tell()
            file.write(np.ascontiguousarray(packed, PACKED).view(np.uint8).data)
            places[band] = [start, file.tell()]
        file.write(b"end")  # no object is empty
    return {"digests": store.put(path, "data/digests-", ".bin"), "bands": places}


def pack(digests: NDArray[np.uint64], addresses: NDArray[np.uint64]) -> Packed:
    """Join digests (n, 2) and addresses (n,) to entries (n,)."""
    return join_entries(digests, addresses).reshape(-1).view(PACKED)


def fold(entries: Packed) -> tuple[Packed, NDArray[np.uint64]]:
    """Fold entries in any order to one a digest, its smallest address, sorted by digest, and to edges (m, 2).

    An edge is (smallest address, other), in the order of digests: all but the smallest address are repeats.
    """
    firsts, edges = fold_entries(sort_entries(_words(entries)), ~np.uint64(0))
    return firsts.reshape(-1).view(PACKED), edges


def repeats(entries: Packed, foreign: int = HASHES - 1) -> NDArray[np.uint64]:
    """Give the edges that `fold` gives, and nothing else: entries that a sketch tells to stand alone are not sorted.

    Digests of which all addresses are `foreign` or above give no edge.
    """
    return fold_entries(sort_entries(repeated_entries(_words(entries))), np.uint64(foreign))[1]


def _words(entries: Packed) -> NDArray[np.uint64]:
    """View entries as three words each; writable, for kernels are compiled for those alone."""
    return np.require(entries, PACKED, ["C", "W"]).view(np.uint64).reshape(-1, 3)


@dataclass(frozen=True)
class Digests:
    """One object of an exchange, and where its bands lie in it, in bytes.

    `number`: the part number that its entries have here, in the high halves of their addresses; where it is None,
    addresses stand as they are. So the entries of earlier runs get numbers behind those of this run's parts.
    """

    store: Store
    name: str
    bands: tuple[tuple[str, int, int], ...]
    number: int | None = None

    @classmethod
    def of(cls, store: Store, receipt: Receipt, number: int | None = None) -> Digests:
        """Name it from the receipt that `put_bands` gave a part of."""
        places = tuple((band, start, end) for band, (start, end) in sorted(receipt["bands"].items()))
        return cls(store, receipt["digests"], places, number)

    def slice(self, group: Group) -> Packed:
        """Read the entries of one group. Digests are hashes: their places are known to a few standard deviations."""
        start, end = next(((start, end) for band, start, end in self.bands if band == group.band), (0, 0))
        count, (low, high) = (end - start) // PACKED.itemsize, group.bounds
        margin = 4 * math.isqrt(count) + 8
        while True:
            first = max(0, (count * low) // HASHES - margin)
            last = min(count, (count * high) // HASHES + margin)
            packed = self._entries(start, first, last)
            hashes = packed["high"]
            if (first == 0 or hashes[0] < low) and (last == count or hashes[-1] >= high):
                break
            margin *= 8
        at = [int(np.searchsorted(hashes, np.uint64(edge))) if edge < HASHES else len(hashes) for edge in (low, high)]
        packed = packed[at[0] : at[1]]
        if self.number is not None:
            packed = packed.copy()
            packed["address"] &= np.uint64(0xFFFFFFFF)
            packed["address"] |= np.uint64(self.number << 32)
        return packed

    def _entries(self, start: int, first: int, last: int) -> Packed:
        if last <= first:
            return np.zeros(0, PACKED)
        size = PACKED.itemsize
        body = self.store.read(self.name, start=start + size * first, end=start + size * last)
        if len(body) != size * (last - first):
            raise CorruptDataError(
                f"{self.store.url}/{self.name} is damaged: it ends {size * (last - first) - len(body)} bytes early; "
                "restore it from a copy, or run into another output"
            )
        return np.frombuffer(body, PACKED)


@dataclass(frozen=True)
class Group:
    """The entries of a band in one of so many equal ranges of hashes."""

    band: str
    number: int
    ranges: int

    @property
    def name(self) -> str:
        """Name it."""
        return f"{self.band}-{self.number:04d}-of-{self.ranges:04d}"

    @property
    def key(self) -> str:
        """Name its receipt."""
        return f"link-{self.name}"

    @property
    def bounds(self) -> tuple[int, int]:
        """Give the first hash in it and the first behind it."""
        return -(-HASHES * self.number // self.ranges), -(-HASHES * (self.number + 1) // self.ranges)


def plan_groups(sources: Sequence[Digests], group_bytes: int = GROUP_BYTES) -> list[Group]:
    """Deal each band into as many hash ranges as its entries ask for."""
    sizes: dict[str, int] = {}
    for band, start, end in itertools.chain.from_iterable(source.bands for source in sources):
        sizes[band] = sizes.get(band, 0) + end - start
    dealt = {band: max(1, math.ceil(size / group_bytes)) for band, size in sorted(sizes.items())}
    return [Group(band, number, ranges) for band, ranges in dealt.items() for number in range(ranges)]


def exchange(
    stage: Stage,
    parts: Sequence[Any],
    sign: Callable[[Any, Path, Meter], Receipt],
    link: Callable[[Packed, Path, Meter], Receipt],
    launch: Callable[[Job], None],
    local: bool,
    *,
    extra: Sequence[Digests] = (),
    group_bytes: int = GROUP_BYTES,
) -> tuple[list[Receipt], list[Receipt]]:
    """Sign the parts, bring equal digests together, link each group; give the receipts of parts and of groups.

    `sign(part, folder, meter)` gives a part's receipt, `put_bands`' fields in it; a part has a `number`. `link(entries,
    folder, meter)` gets all entries of a band and hash range, in no order, and gives the group's receipt. Both are
    picklable. `launch` runs a job; `local` says that its workers share one machine, so that files do better than its
    memory. `extra` are objects of earlier runs, which take part but are not signed: the stage's hash must cover them.
    """
    standing = stage.committed()
    if missing := [part for part in parts if sign_key(part) not in standing]:
        launch(Job("sign", missing, _Sign(stage, sign)))
    signed = stage.receipts([sign_key(part) for part in parts])
    sources = [*(Digests.of(stage.store, receipt) for receipt in signed), *extra]
    groups = plan_groups(sources, group_bytes)
    left = [group for group in groups if group.key not in standing]
    if left:
        held = _Plan(tuple(sources), len(parts), tuple(left)).put(stage.run)
        by_file = _LinkGroup(stage, held, link)
        if local and sum(end - start for source in sources for _, start, end in source.bands) <= HERE_BYTES:
            for group in left:
                by_file(group)
        elif local:
            launch(Job("link", left, by_file))
        else:
            launch(Job("link", range(len(parts)), _Deal(stage, held), _LinkShuffled(stage, held, link)))
    return signed, stage.receipts([group.key for group in groups])


@dataclass(frozen=True)
class _Plan:
    """What a link job reads from where: too much to travel in every task."""

    sources: tuple[Digests, ...]
    parts: int  # of this run: the first of the sources, the others are of earlier runs
    groups: tuple[Group, ...]

    def put(self, store: Store) -> str:
        """Keep it beside the run; one that no run needs any more is garbage."""
        return store.put(pickle.dumps(self), "tasks/", ".pickle")


@lru_cache(4)
def _plan(store: Store, name: str) -> _Plan:
    """Read a plan once a process."""
    held: _Plan = pickle.loads(store.read(name))
    return held


@dataclass(frozen=True)
class _Sign:
    """Sign one part unless its receipt stands."""

    stage: Stage
    sign: Callable[[Any, Path, Meter], Receipt]

    def __call__(self, part: Any) -> None:
        run_task(self.stage, sign_key(part), partial(self.sign, part))


@dataclass(frozen=True)
class _LinkGroup:
    """Gather one group from the objects of all parts, and link it."""

    stage: Stage
    plan: str
    link: Callable[[Packed, Path, Meter], Receipt]

    def __call__(self, group: Group) -> None:
        run_task(self.stage, group.key, partial(self.compute, group))

    def compute(self, group: Group, folder: Path, meter: Meter) -> Receipt:
        """Read a slice of each object; memory holds the group twice while they are joined."""
        with meter.on("gather"):
            packed = gather(_plan(self.stage.run, self.plan).sources, group)
        return self.link(packed, folder, meter)


def gather(sources: Sequence[Digests], group: Group) -> Packed:
    """Read all entries of one group; from object stores by threads."""
    read = partial(Digests.slice, group=group)
    if all(source.store.local("") is not None for source in sources):
        return np.concatenate([np.zeros(0, PACKED), *map(read, sources)])
    with ThreadPoolExecutor(THREADS) as pool:
        return np.concatenate([np.zeros(0, PACKED), *pool.map(read, sources)])


@dataclass(frozen=True)
class _Deal:
    """Emit the entries of one object by group."""

    stage: Stage
    plan: str

    def __call__(self, number: int) -> Iterator[tuple[str, bytes]]:
        held = _plan(self.stage.run, self.plan)
        for group in held.groups:
            packed = held.sources[number].slice(group)
            if len(packed) or number == 0:  # a group that nothing fell into has a receipt too
                yield group.key, packed.tobytes()


@dataclass(frozen=True)
class _LinkShuffled:
    """Link what a shuffle brought together with what earlier runs have, which is sorted and crosses no shuffle."""

    stage: Stage
    plan: str
    link: Callable[[Packed, Path, Meter], Receipt]

    def __call__(self, key: str, values: Iterable[bytes]) -> None:
        run_task(self.stage, key, partial(self.compute, key, values))

    def compute(self, key: str, values: Iterable[bytes], folder: Path, meter: Meter) -> Receipt:
        """Join the values, which come in no order."""
        with meter.on("gather"):
            held = _plan(self.stage.run, self.plan)
            (group,) = (group for group in held.groups if group.key == key)
            earlier = gather(held.sources[held.parts :], group)
            packed = np.concatenate([earlier, *(np.frombuffer(value, PACKED) for value in values)])
        return self.link(packed, folder, meter)
