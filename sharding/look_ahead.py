"""Batches in order, their blocks asked for ahead: all that is to come is known.

Of a local store the next few batches' blocks are asked for. Of a remote one those of some 256 MiB to come: what a rank
of eight has in flight, so that at 50 ms a read all threads are kept reading, and a read that takes 10 s holds up no
step. Only what nobody had asked for before counts and is held; at most 32,768 rows are planned ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from .batch import Batch
from .buffers import Buffers
from .fetching import Asked, Fetching, Promised
from .schedule import Job

# Rows of the jobs planned ahead, at most, and of those planned at once, among whose blocks neighbours are looked for.
_AHEAD_ROWS, _ROWS_AT_ONCE = 32_768, 2048


def batches(
    jobs: Iterable[Job], fetching: Callable[[Job], Fetching], prefetch: int, buffers: Buffers
) -> Iterator[Batch]:
    """Make the batches of jobs in order, with `prefetch` of them asked for ahead, and blocks as far as these allow.

    fetching: gives what reads a job's blocks. What is not being read yet when the caller has had enough never is.
    """
    ahead = _Ahead(iter(jobs), fetching, prefetch)
    try:
        while (following := ahead.pop()) is not None:
            job, asked = following
            made = fetching(job).made(job, asked, buffers)
            ahead.look()  # after that: nothing comes before the first batch
            yield made
    finally:
        ahead.cancel()


class _Ahead:
    """The jobs of one iteration to come: the next few with all their blocks, more of them with those to be read."""

    def __init__(self, coming: Iterator[Job], fetching: Callable[[Job], Fetching], prefetch: int) -> None:
        self._coming, self._fetching, self._prefetch = coming, fetching, prefetch
        self._next: deque[tuple[Job, Asked]] = deque()
        # Blocks that nobody had asked for before are held from here on: the cache cannot evict what is needed next.
        self._later: deque[tuple[Job, Promised]] = deque()
        self._rows = self._bytes = 0

    def pop(self) -> tuple[Job, Asked] | None:
        """Give the next job, it and the few behind it asked for; None at the end."""
        while len(self._next) <= self._prefetch and (job := self._take()) is not None:
            self._next.append(job)
        return self._next.popleft() if self._next else None

    def look(self) -> None:
        """Ask for the blocks of some more jobs at once, up to what may be on its way."""
        if not self._next:
            return
        fetching = self._fetching(self._next[-1][0])
        most, rows = fetching.blocks.ahead_bytes, min(_AHEAD_ROWS, self._rows + _ROWS_AT_ONCE)
        lacking: Promised = {}
        try:
            while self._bytes < most and self._rows < rows and (job := next(self._coming, None)) is not None:
                promised: Promised = {}
                if (its := self._fetching(job)) is not fetching:  # another pack or generation begins
                    fetching.read(lacking)
                    fetching, lacking = its, {}
                fetching.find(job, promised)
                lacking |= promised
                self._later.append((job, promised))
                self._rows += len(job.positions)
                self._bytes += len(promised) * fetching.blocks.group_bytes
        finally:
            fetching.read(lacking)

    def cancel(self) -> None:
        """Let go of what is not being read yet."""
        for asked in [asked for _, asked in self._next] + [promised for _, promised in self._later]:
            for block in asked.values():
                if isinstance(block, Future):
                    block.cancel()

    def _take(self) -> tuple[Job, Asked] | None:
        if self._later:
            job, promised = self._later.popleft()
            self._rows -= len(job.positions)
            self._bytes -= len(promised) * self._fetching(job).blocks.group_bytes
            return job, self._fetching(job).ask(job, promised)
        following = next(self._coming, None)
        return None if following is None else (following, self._fetching(following).ask(following))
