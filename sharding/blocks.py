"""Groups of rows at hand: the tokens of each as one block, mapped where they are local, from the block cache where not.

A block holds a view of its tokens and says where its rows lie; rows are copied out singly, straight into a batch, so
that nothing is decoded that is not used. Copying a row of 2,048 tokens takes 0.6 µs.
"""

from __future__ import annotations

import random
import resource
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import CorruptDataError, StoreError
from .cache import HELD_SHARE, BlockCache
from .cached import cached_property
from .format import Generation, PackOrder
from .packing import Layout, PackTable
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


class Block:
    """The rows of one group. Holds a map of its tokens, and the shard's tables only while they are asked for."""

    def __init__(self, blocks: Blocks, shard: int, group: int, reader: ShardReader) -> None:
        self._blocks, self._shard, self._group = blocks, shard, group
        self._pack = blocks.pack.pack
        start, stop = reader.table(self._pack).span(group)
        tokens = reader.tokens(start, stop + 1)
        # Ids are below 2^31, so signed words hold them; 16-bit ids are widened where they are copied.
        self.tokens: NDArray[Any] = tokens.view(np.int32) if tokens.dtype.itemsize == 4 else tokens
        self._ends_shard = stop == reader.entry.tokens

    @cached_property
    def layout(self) -> Layout:
        """Where the pieces of each row lie; made when first asked for, which `concat` without masks never does."""
        return self._blocks.table(self._shard).layout(self._group, self._shard)

    @cached_property
    def _cuts(self) -> tuple[memoryview, memoryview]:
        """First piece of each row; start and stop of each piece. Reading numbers from a memoryview costs half."""
        layout = self.layout
        stops = layout.starts + layout.sizes
        return layout.first.data, np.stack([layout.starts, stops], axis=1).ravel().data

    def slices(self, row: int) -> list[NDArray[Any]]:
        """The tokens of a row and the one behind it, in order, as views."""
        length, tokens = self._pack.length, self.tokens
        if self._pack.policy == "concat" and (row + 1) * length < len(tokens):
            return [tokens[row * length : (row + 1) * length + 1]]
        first, cuts = self._cuts
        bounds = iter(cuts[2 * first[row] : 2 * first[row + 1]].tolist())
        spare = self._blocks.padding
        # A start of -1 is padding.
        slices = [tokens[a:b] if a >= 0 else spare[: b - a] for a, b in zip(bounds, bounds, strict=True)]
        if self._ends_shard and sum(map(len, slices)) == length:
            slices.append(spare[:1])  # The row ends with the shard: no token lies behind it.
        return slices

    def segments(self, row: int) -> NDArray[Any]:
        """SEGMENT records of a row."""
        low, high = self.layout.first[row : row + 2].tolist()
        return self.layout.segments[low:high]


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
    """

    def __init__(
        self, store: Store, generation: Generation, pack: PackOrder, cache: BlockCache, limit: int = 4096
    ) -> None:
        self.store, self.pack, self._generation = store, pack, generation
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
