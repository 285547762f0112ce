"""A batch's blocks asked for before they are needed, waited for, and put together; what goes wrong is told by name.

Threads read: at hand are the blocks that were read last, on their way those that somebody has asked for. Neighbouring
groups of a remote shard asked for at once are one read.

A block that does not come in time is an error which says whose it was and what hangs, and nothing is left behind that
another try would wait for. One that cannot be read is an error, or is set aside (`quarantine`): its rows are padding.
"""

from __future__ import annotations

import logging
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from threading import Lock

from .. import CorruptDataError, PenstockError, StoreError
from .batch import Batch
from .block import Block
from .blocks import Blocks
from .buffers import Buffers
from .quarantine import Quarantined
from .schedule import Job
from .threads import Pool, stacks

Key = tuple[int, int]
Found = Block | Quarantined
# The blocks of a batch, by shard and group: at hand, or on their way.
Asked = dict[Key, "Found | Future[Found]"]
# Those of them that are to be read.
Promised = dict[Key, "Future[Found]"]
# Bytes of one read at most where groups are neighbours.
_TOGETHER_BYTES = 8 << 20
_log = logging.getLogger("penstock.loader")


class Fetching:
    """Reads what batches need, for one rank. stall: seconds after which a block that does not come is an error."""

    def __init__(self, blocks: Blocks, pool: Pool, rank: int, stall: float) -> None:
        self.blocks, self._pool, self._rank, self._stall = blocks, pool, rank, stall
        self._lock = Lock()
        self._pending: Promised = {}

    def ask(self, job: Job, promised: Promised | None = None) -> Asked:
        """Find a job's blocks, among those promised to it before too, and have those read that are not at hand."""
        lacking: Promised = {}
        asked = self.find(job, lacking, promised)
        self.read(lacking)
        return asked

    def find(self, job: Job, lacking: Promised, promised: Promised | None = None) -> Asked:
        """Find a job's blocks; those not at hand and not on their way are put into `lacking`, for `read`."""
        known = promised or {}
        found = self.blocks.at_hand(job.places.keys)
        return {key: block or known.get(key) or self._promise(key, lacking) for key, block in found.items()}

    def read(self, lacking: Promised) -> None:
        """Have blocks read in their order, neighbours together."""
        most = 1 if self.blocks.local else max(1, _TOGETHER_BYTES // self.blocks.group_bytes)
        left = dict(lacking)
        for key in lacking:
            if key in left:
                self._pool.submit(partial(self._run, {one: left.pop(one) for one in _neighbours(key, left, most)}))

    def made(self, job: Job, asked: Asked, buffers: Buffers) -> Batch:
        """Wait for what was asked for and put the batch together."""
        found = {key: self._wait(job, key, one) if isinstance(one, Future) else one for key, one in asked.items()}
        keys = job.places.keys
        for key, record in found.items():
            if isinstance(record, Quarantined):
                positions = zip(job.positions.tolist(), keys, strict=False)
                self.blocks.quarantine.note(record, [position for position, one in positions if one == key])
        held = {key: one if isinstance(one, Block) else None for key, one in found.items()}
        blocks = [held[key] for key in keys]
        padding = self.blocks.padding
        return Batch(job.step, job.start, job.end, job.positions, blocks, job.places.rows, padding, buffers)

    def _promise(self, key: Key, lacking: Promised) -> Future[Found]:
        with self._lock:
            if (future := self._pending.get(key)) is not None:
                return future
            future = self._pending[key] = lacking[key] = Future()
        future.add_done_callback(partial(self._forget, key))
        return future

    def _forget(self, key: Key, future: Future[Found]) -> None:
        with self._lock:
            if self._pending.get(key) is future:
                del self._pending[key]

    def _run(self, promised: Promised) -> None:
        """Read neighbouring blocks, in a thread of the pool."""
        wanted = {key: future for key, future in promised.items() if future.set_running_or_notify_cancel()}
        try:
            if len(wanted) > 1:
                shards, groups = zip(*wanted, strict=True)
                self.blocks.together(shards[0], groups)
        except CorruptDataError:
            pass  # of which block it is told below
        except BaseException as error:
            for future in wanted.values():
                future.set_exception(error)
            return
        for key, future in wanted.items():
            try:
                future.set_result(self.blocks.get(*key))
            except BaseException as error:
                future.set_exception(error)

    def _wait(self, job: Job, key: Key, block: Future[Found]) -> Found:
        """Wait for a block; what goes wrong is told with rank, position, block and store."""
        place = f"rank {self._rank}, position {job.start}, {self.blocks.named(*key)}"
        try:
            return block.result(timeout=self._stall)
        except CancelledError:  # by an iteration that has ended, and asked for it first
            lacking: Promised = {}
            again = self._promise(key, lacking)
            self.read(lacking)
            return self._wait(job, key, again)
        except FutureTimeoutError:
            error: PenstockError = self._stalled(place)
        except CorruptDataError as damage:
            error = CorruptDataError(f"{place}: {damage}")
            error.__cause__ = damage
        except (PenstockError, OSError) as failure:
            error = StoreError(f"{place}: {failure}")
            error.__cause__ = failure
        self._start_over()
        raise error

    def _start_over(self) -> None:
        """Leave behind what is being read: another try is not told of failures that began before it."""
        with self._lock:
            self._pending.clear()
        self.blocks.start_over()
        self._pool.renew()

    def _stalled(self, place: str) -> StoreError:
        """Tell what hangs."""
        requests, threads = self.blocks.reading(), stacks()
        told = "".join(f"; without an answer: {request}" for request in requests[:3])
        more = f", and {len(requests) - 3} more" if len(requests) > 3 else ""
        error = StoreError(
            f"{place}: nothing came for {self._stall:g} s; the store hangs or is out of reach{told}{more}. "
            "Load the last state and go on, or raise stall="
        )
        _log.error("%s\nRequests without an answer:\n%s\nThreads:\n%s", error, "\n".join(requests), threads)
        if hasattr(error, "add_note"):  # from Python 3.11 on
            error.add_note(f"The threads that read:\n{threads}")
        return error


def _neighbours(key: Key, among: Promised, most: int) -> list[Key]:
    """The groups around one, without a gap, that are among those to be read; at most so many."""
    shard, low = key
    high = low + 1
    while high - low < most and (shard, high) in among:
        high += 1
    while high - low < most and (shard, low - 1) in among:
        low -= 1
    return [(shard, group) for group in range(low, high)]
