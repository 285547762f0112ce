"""Groups of rows at hand, mapped where their tokens are local, from the block cache where they are not."""

from __future__ import annotations

import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import CorruptDataError
from .block import Block
from .cache import BlockCache
from .format import Generation, PackOrder
from .left_out import by_shard
from .packing import PackTable
from .quarantine import Corrupt, Quarantine, Quarantined
from .reads import Counts, RemoteReads
from .shard import BLOCK_BYTES, Fetch, ShardReader
from .store import Store

T = TypeVar("T")
# Shards kept open. Of a data set of more shards nearly every block opens one again: 0.1 ms.
_READERS = 64
# Blocks that are held however small the cache is.
_FEW_BLOCKS = 8
# Bytes of remote blocks asked for ahead: what a rank of eight has in flight (`order.BLOCKS_IN_FLIGHT`).
_AHEAD_BYTES = 256 << 20
# Files that the rest of the process may want beside the maps of blocks.
_OTHER_FILES = 512


class Recent(Generic[T]):
    """The values got most recently, by key. Threads may make one twice; none waits for another."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._held: OrderedDict[Any, T] = OrderedDict()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """Give the value of a key, made now if it is not held."""
        with self._lock:
            if (held := self._held.get(key)) is not None:
                self._held.move_to_end(key)
                return held
        made = make()
        with self._lock:
            self._held[key] = made
            while len(self._held) > self.limit:
                self._held.popitem(last=False)
        return made

    def drop(self, key: Any) -> None:
        """Forget a value."""
        with self._lock:
            self._held.pop(key, None)

    def peek(self, keys: Iterable[Any]) -> dict[Any, T | None]:
        """Give the values of these keys, None where it is not held, without counting that as a use."""
        # For every row of every batch: no Python is run for a key.
        once = dict.fromkeys(keys)
        return dict(zip(once, map(self._held.get, once), strict=True))


class Blocks:
    """The blocks of one pack of a data set. Shared by threads.

    limit: blocks held at once; each keeps a map, of its shard where that is local, else of itself in the cache, where
    it cannot be evicted then: so of those at most what the cache allows, and a few. corrupt: "quarantine" gives the
    record of a block that stays damaged or lost in its place. without: ids of documents that come as padding. padding:
    a row of padding, EOS.
    """

    def __init__(
        self,
        store: Store,
        generation: Generation,
        pack: PackOrder,
        cache: BlockCache,
        corrupt: Corrupt = "raise",
        limit: int = 4096,
        without: Collection[int] = (),
    ) -> None:
        self.store, self.pack, self._generation = store, pack, generation
        self.without = by_shard(without, generation)
        self.quarantine = Quarantine(store, generation, pack.pack.name, corrupt)
        self.local = bool(generation.shards) and store.local(generation.shards[0].path(".bin")) is not None
        self._fetch = None if self.local else RemoteReads(store, cache)
        self._readers: Recent[ShardReader] = Recent(_READERS)
        self._verified: set[tuple[int, str]] = set()
        #: Bytes that are read for a full group, to whole blocks under a checksum.
        self.group_bytes = pack.group_rows * pack.pack.length * generation.vocabulary.itemsize + BLOCK_BYTES
        files = min(limit, len(generation.shards)) if self.local else self._allowed(limit)
        self._limit = limit if (allowed := _allow_files(files)) == files else allowed
        self._blocks: Recent[Block] = Recent(self._limit)
        kind = np.int32 if generation.vocabulary.itemsize == 4 else np.uint16
        self.padding: NDArray[Any] = np.full(pack.pack.length + 1, generation.vocabulary.eos_id, kind)

    def at_hand(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Block | Quarantined | None]:
        """Give the blocks of these shards and groups, None for one that is not at hand."""
        found: dict[tuple[int, int], Block | Quarantined | None] = {**self._blocks.peek(keys)}
        for key in [key for key, block in found.items() if block is None]:
            found[key] = self.quarantine.find(*key)
        return found

    def get(self, shard: int, group: int) -> Block | Quarantined:
        """Give a block, verified. What is wrong in the cache is read once more from the store."""
        try:
            return self._blocks.get((shard, group), lambda: self._block(shard, group))
        except CorruptDataError as error:
            return self.quarantine.take(shard, group, error)

    def together(self, shard: int, groups: Sequence[int]) -> None:
        """Have neighbouring groups of a remote shard read by one request; they lie in the cache then, not verified."""
        if self._fetch is not None:
            reader = self.reader(shard)
            ranges = [reader.extent(*_with_the_next(*reader.table(self.pack.pack).span(group))) for group in groups]
            self._fetch.together(reader.entry.path(".bin"), reader.entry.sha256, ranges)

    @property
    def ahead_bytes(self) -> int:
        """Bytes of blocks that may be asked for early; 0 where the store is local or the cache small."""
        if self._fetch is None:
            return 0
        allowed = min(_AHEAD_BYTES, self._fetch.cache.held_bytes // 2)
        return allowed if allowed >= _FEW_BLOCKS * self.group_bytes else 0

    def start_over(self) -> None:
        """Let nobody who asks from now on wait for a read that is under way."""
        if self._fetch is not None:
            self._fetch.cache.start_over()

    def reading(self) -> list[str]:
        """Say which requests to the store have no answer yet, the oldest first."""
        return [] if self._fetch is None else [str(request) for request in list(self._fetch.under_way.values())]

    @property
    def counts(self) -> Counts:
        """What was asked of a remote store so far."""
        return Counts() if self._fetch is None else self._fetch.counts

    def reader(self, shard: int) -> ShardReader:
        """Open a shard by its number in the generation's order."""
        return self._readers.get(shard, lambda: self._reader(shard))

    def named(self, shard: int, group: int) -> str:
        """Say which block this is, for people."""
        return f"block {group} of shard {self._generation.shards[shard].name} in {self.store.url}"

    def table(self, shard: int) -> PackTable:
        """Say where the rows of the pack lie in a shard."""
        return self.read(shard, lambda reader: reader.table(self.pack.pack))

    def _reader(self, shard: int) -> ShardReader:
        return self._open(shard, self._fetch)

    def _open(self, shard: int, fetch: Fetch | None) -> ShardReader:
        entry = self._generation.shards[shard]
        return ShardReader(self.store, entry, self._generation.vocabulary, shard, fetch, self._verified)

    def _allowed(self, limit: int) -> int:
        """Blocks that may be held now: other processes may have come to share the cache."""
        if self._fetch is None:
            return limit
        return min(limit, max(_FEW_BLOCKS, self._fetch.cache.held_bytes // self.group_bytes))

    def _block(self, shard: int, group: int) -> Block:
        if self._fetch is not None:
            self._blocks.limit = self._allowed(self._limit)
        return self.read(shard, partial(self._made, shard, group))

    def _made(self, shard: int, group: int, reader: ShardReader) -> Block:
        if self.quarantine.sets_aside:
            reader.table(self.pack.pack)  # where its tables are damaged, that is found while the block can be set aside
        return Block(self, shard, group, reader)

    def read(self, shard: int, call: Callable[[ShardReader], T]) -> T:
        """Call with a shard's reader; where what the cache holds of it is wrong, once more past the cache."""
        try:
            return call(self.reader(shard))
        except CorruptDataError as error:
            return call(self._past_the_cache(shard, error))

    def _past_the_cache(self, shard: int, error: CorruptDataError) -> ShardReader:
        """Forget what the cache holds of a shard, and open it without: other threads may be putting damage back.

        Raises the error where there is no cache to blame for it.
        """
        if self._fetch is None:
            raise error
        self._readers.drop(shard)
        for digest in self._generation.shards[shard].members.values():
            self._fetch.cache.drop(digest[:32])
        return self._open(shard, self._fetch.past_the_cache)


def _with_the_next(start: int, stop: int) -> tuple[int, int]:
    """The tokens that a block reads: those of its group and the one behind, which is its last label."""
    return start, stop + 1


def _allow_files(files: int) -> int:
    """Let this process open so many more files if the hard limit lets it: each map keeps one open. How many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return files if soft == resource.RLIM_INFINITY else max(1, min(files, soft - _OTHER_FILES))
