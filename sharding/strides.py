"""Every n-th batch, for one of n processes that share a rank's batches; made ahead by threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import count, islice

from .batch import Batch
from .loader import StreamingLoader
from .threads import Pool


def strided(loader: StreamingLoader, first: int, every: int, ahead: int) -> Iterator[Batch]:
    """Give the batches of steps first, first + every, … to the loader's end, and leave the loader where it stands.

    ahead: batches under way beside the one that is given.
    """
    steps = iter(_steps(loader, first, every))
    for step in islice(steps, 1):
        yield loader.at(step)  # by this thread alone: in a forked process the loader begins anew
    pool = Pool(ahead + 1)
    waiting: deque[Future[Batch]] = deque()
    for step in steps:
        waiting.append(pool.submit(partial(loader.at, step)))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _steps(loader: StreamingLoader, first: int, every: int) -> Iterable[int]:
    try:
        return range(first, len(loader), every)
    except TypeError:  # It has no end.
        return count(first, every)
