"""Groups of rows at hand, mapped where their tokens are local, from the block cache where they are not."""

from __future__ import annotations

import random
import resource
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import CorruptDataError, StoreError
from .block import Block
from .cache import HELD_SHARE, BlockCache
from .format import Generation, PackOrder
from .left_out import by_shard
from .packing import PackTable
from .shard import Fetch, ShardReader
from .store import MissingObjectError, Store

T = TypeVar("T")
# Tries of one read, and the pause before the second in seconds; it doubles, with jitter, as object stores advise.
_TRIES = 5
_PAUSE = 0.25
# Shards whose tables are kept: about 5 MB each for 256 MiB of tokens.
_READERS = 64
# Blocks that are held however small the cache is.
_FEW_BLOCKS = 8
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

    def peek(self, key: Any) -> T | None:
        """Give a value that is held, without counting that as a use."""
        return self._held.get(key)


class RemoteReads:
    """Range reads of a remote store: tried again where the store fails, kept in the block cache. Picklable."""

    def __init__(self, store: Store, cache: BlockCache) -> None:
        self.store, self.cache = store, cache

    def __call__(self, name: str, digest: str, start: int, end: int | None) -> memoryview:
        """Give the bytes [start, end) of an object whose content has this SHA-256; None is its end."""
        place = f"{digest[:32]}-{start}-{'end' if end is None else end}"
        return self.cache.get(place, lambda: self._read(name, start, end))

    def past_the_cache(self, name: str, digest: str, start: int, end: int | None) -> memoryview:
        """Give the same bytes from the store itself."""
        return memoryview(self._read(name, start, end))

    def _read(self, name: str, start: int, end: int | None) -> bytes:
        for attempt in range(_TRIES):
            try:
                body = self.store.read(name, start, end)
                if not body or (end is not None and len(body) != end - start):
                    wanted = "all" if end is None else end - start
                    raise StoreError(
                        f"{self.store.url}/{name} gave {len(body)} bytes from byte {start} on, not "
                        f"{wanted}: it was cut short, or the store fails"
                    )
                return body
            except MissingObjectError:
                raise
            except StoreError:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
        raise AssertionError


class Blocks:
    """The blocks of one pack of a data set. Shared by threads.

    limit: blocks held at once; each keeps a map, of its shard where that is local, else of itself in the cache, where
    it cannot be evicted then: so of those at most an eighth of the cache, and a few. padding: a row of padding, EOS.
    without: ids of documents that come as padding.
    """

    def __init__(
        self,
        store: Store,
        generation: Generation,
        pack: PackOrder,
        cache: BlockCache,
        limit: int = 4096,
        without: Collection[int] = (),
    ) -> None:
        self.store, self.pack, self._generation = store, pack, generation
        self.without = by_shard(without, generation)
        self.local = bool(generation.shards) and store.local(generation.shards[0].path(".bin")) is not None
        self._fetch = None if self.local else RemoteReads(store, cache)
        self._readers: Recent[ShardReader] = Recent(_READERS)
        if not self.local:
            group = pack.group_rows * pack.pack.length * generation.vocabulary.itemsize
            limit = min(limit, max(_FEW_BLOCKS, cache.limit // HELD_SHARE // group))
        files = min(limit, len(generation.shards)) if self.local else limit
        self._blocks: Recent[Block] = Recent(limit if (allowed := _allow_files(files)) == files else allowed)
        kind = np.int32 if generation.vocabulary.itemsize == 4 else np.uint16
        self.padding: NDArray[Any] = np.full(pack.pack.length + 1, generation.vocabulary.eos_id, kind)

    def held(self, shard: int, group: int) -> Block | None:
        """Give a block if it is at hand."""
        return self._blocks.peek((shard, group))

    def get(self, shard: int, group: int) -> Block:
        """Give a block, verified. What is wrong in the cache is read once more from the store."""
        return self._blocks.get((shard, group), lambda: self._block(shard, group))

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
        return ShardReader(self.store, entry, self._generation.vocabulary, shard, fetch)

    def _block(self, shard: int, group: int) -> Block:
        return self.read(shard, lambda reader: Block(self, shard, group, reader))

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


def _allow_files(files: int) -> int:
    """Let this process open so many more files if the hard limit lets it: each map keeps one open. How many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return files if soft == resource.RLIM_INFINITY else max(1, min(files, soft - _OTHER_FILES))
