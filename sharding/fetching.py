"""A batch's blocks asked for before they are needed, waited for, and put together; what goes wrong is told by name.

Threads read: at hand are the blocks that were read last, on their way those that somebody has asked for. A block that
does not come in time is an error which says whose it was, and nothing is left behind that another try would wait for.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from threading import Lock

from .. import CorruptDataError, PenstockError, StoreError
from .batch import Batch
from .block import Block
from .blocks import Blocks
from .buffers import Buffers
from .schedule import Job
from .threads import Pool

# The blocks of a batch, by shard and group: at hand, or on their way.
Asked = dict[tuple[int, int], "Block | Future[Block]"]


class Fetching:
    """Reads what batches need, for one rank. stall: seconds after which a block that does not come is an error."""

    def __init__(self, blocks: Blocks, pool: Pool, rank: int, stall: float) -> None:
        self.blocks, self._pool, self._rank, self._stall = blocks, pool, rank, stall
        self._lock = Lock()
        self._pending: dict[tuple[int, int], Future[Block]] = {}
        self.process = os.getpid()

    def ask(self, job: Job) -> Asked:
        """Find a job's blocks, and have those read that are not at hand."""
        keys = set(zip(job.places.shards.tolist(), job.places.groups.tolist(), strict=True))
        return {key: self.blocks.held(*key) or self._read(key) for key in keys}

    def made(self, job: Job, asked: Asked, buffers: Buffers) -> Batch:
        """Wait for what was asked for and put the batch together."""
        held = {key: block if isinstance(block, Block) else self._wait(job, key, block) for key, block in asked.items()}
        keys = zip(job.places.shards.tolist(), job.places.groups.tolist(), strict=True)
        places: list[tuple[Block, int] | None] = [
            (held[key], row) for key, row in zip(keys, job.places.rows.tolist(), strict=True)
        ]
        places += [None] * (len(job.positions) - len(places))
        return Batch(job.step, job.start, job.end, job.positions, places, self.blocks.padding, buffers)

    def _read(self, key: tuple[int, int]) -> Future[Block]:
        with self._lock:
            future = self._pending.get(key)
            if future is None:
                future = self._pending[key] = self._pool.submit(partial(self.blocks.get, *key))
                future.add_done_callback(lambda _: self._pending.pop(key, None))
        return future

    def _wait(self, job: Job, key: tuple[int, int], block: Future[Block]) -> Block:
        """Wait for a block; what goes wrong is told with rank, position, block and store."""
        place = f"rank {self._rank}, position {job.start}, {self.blocks.named(*key)}"
        try:
            return block.result(timeout=self._stall)
        except FutureTimeoutError:
            raise StoreError(
                f"{place}: nothing came for {self._stall:g} s; the store hangs or is out of reach. "
                "Load the last state and go on, or raise stall="
            ) from None
        except CorruptDataError as error:
            raise CorruptDataError(f"{place}: {error}") from error
        except (PenstockError, OSError) as error:
            raise StoreError(f"{place}: {error}") from error
