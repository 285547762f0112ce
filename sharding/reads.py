"""Range reads of a remote store that always end: hedged, tried again, within a deadline; kept in the block cache.

A request that is later than most get a second one beside it, and the first good answer wins (Dean and Barroso, "The
Tail at Scale", CACM 56(2), 2013: deferred to the 95th percentile, hedges add about 5 % of load and take most of the
tail). What fails is asked for again after a pause drawn from all of [0, bound), the bound doubling ("full jitter",
Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), or when the store says (Retry-After). A store
that throttles is not hedged for a while. A client that hangs is left behind with its thread; a thread a request costs
0.1 ms, where a request takes 20 ms and more.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from .. import StoreError
from .answers import denied, retry_after, throttled
from .cache import BlockCache
from .store import MissingObjectError, Store

# Tries of one read, fewer where the store says no rather than not now, and the seconds it may take with all of them:
# below the loader's `stall`, so that what went wrong is told and not only that nothing came.
_TRIES, _DENIED_TRIES, _DEADLINE = 10, 3, 120.0
# Seconds that one request may take, and for each byte beside (256 KiB/s); an object of unknown size has the deadline.
_ATTEMPT, _SECONDS_A_BYTE = 20.0, 1 / (256 << 10)
# Bound of the first pause in seconds, of the first where the store throttles, and of any.
_PAUSE, _THROTTLED_PAUSE, _LONGEST_PAUSE = 0.25, 1.0, 20.0
# Hedges: at most this share of reads, after a latency that this share of the last reads kept, and no sooner than this.
_HEDGE_SHARE, _HEDGE_QUANTILE, _HEDGE_FLOOR = 0.05, 0.95, 0.05
# Latencies remembered; hedges before there are so many come after this many seconds; none so long after a throttling.
_REMEMBERED, _ENOUGH, _HEDGE_FIRST, _HEDGE_REST = 256, 20, 0.5, 30.0
# Requests that may be under way at once, those that hang among them.
_MOST_REQUESTS = 512


@dataclass(frozen=True)
class Request:
    """A request under way: the bytes [start, end) of an object, since when, and which try it is."""

    name: str
    start: int
    end: int | None
    attempt: int
    hedge: bool
    since: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        kind = "a hedge of try" if self.hedge else "try"
        end = "the end" if self.end is None else f"byte {self.end}"
        asked = time.monotonic() - self.since
        return f"{self.name}, byte {self.start} to {end}: asked {asked:.1f} s ago, {kind} {self.attempt + 1}"


@dataclass
class Counts:
    """What was asked of the store: reads, requests with those of hedges and further tries, and bytes that came."""

    reads: int = 0
    requests: int = 0
    hedges: int = 0
    bytes: int = 0


class RemoteReads:
    """Range reads of a remote store. Shared by threads; picklable as its two arguments.

    under_way: requests that have no answer yet. counts: what was asked so far.
    """

    def __init__(self, store: Store, cache: BlockCache) -> None:
        self.store, self.cache = store, cache
        self.under_way: dict[int, Request] = {}
        self.counts = Counts()
        self._lock = threading.Lock()
        self._latencies: deque[float] = deque(maxlen=_REMEMBERED)
        self._hedges_left, self._no_hedge_until, self._last = 1.0, 0.0, 0

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteReads, (self.store, self.cache)

    def __call__(self, name: str, digest: str, start: int, end: int | None) -> memoryview:
        """Give the bytes [start, end) of an object whose content has this SHA-256; None is its end.

        Raises MissingObjectError at once, StoreError when the tries or the deadline are used up.
        """
        return self.cache.get(_place(digest, start, end), partial(self._read, name, start, end))

    def past_the_cache(self, name: str, digest: str, start: int, end: int | None) -> memoryview:
        """Give the same bytes from the store itself."""
        return memoryview(self._read(name, start, end))

    def together(self, name: str, digest: str, ranges: Sequence[tuple[int, int]]) -> None:
        """Put neighbouring ranges of an object into the cache by one request; those it holds cost nothing."""
        lacking = [(start, end) for start, end in ranges if not self.cache.holds(_place(digest, start, end))]
        while lacking:
            many = next((at for at in range(1, len(lacking)) if lacking[at][0] > lacking[at - 1][1]), len(lacking))
            run, lacking = lacking[:many], lacking[many:]
            low = run[0][0]
            body = memoryview(self._read(name, low, run[-1][1]))
            for start, end in run:
                part = body[start - low : end - low]
                self.cache.get(_place(digest, start, end), lambda part=part: part)  # type: ignore[misc]

    def _read(self, name: str, start: int, end: int | None) -> bytes:
        began = time.monotonic()
        size_time = _DEADLINE if end is None else (end - start) * _SECONDS_A_BYTE
        deadline = began + _DEADLINE + size_time
        with self._lock:
            self.counts.reads += 1
            self._hedges_left = min(self._hedges_left + _HEDGE_SHARE, 1 / _HEDGE_SHARE)
        for attempt in range(_TRIES):
            try:
                return self._attempt(name, start, end, attempt, min(deadline, time.monotonic() + _ATTEMPT + size_time))
            except MissingObjectError:
                raise
            except StoreError as error:
                pause = self._pause(error, attempt)
                last = attempt + 1 >= (_DENIED_TRIES if denied(error) else _TRIES)
                if last or time.monotonic() + pause > deadline:
                    tried = f"tried {attempt + 1} times in {time.monotonic() - began:.1f} s"
                    raise StoreError(f"{error} ({tried})") from error
                time.sleep(pause)
        raise AssertionError

    def _pause(self, error: StoreError, attempt: int) -> float:
        """Seconds to wait before the next try: as the store says and no less, with full jitter on top."""
        first = _PAUSE
        if throttled(error):
            first = _THROTTLED_PAUSE
            self._no_hedge_until = time.monotonic() + _HEDGE_REST
        return (retry_after(error) or 0.0) + random.uniform(0, min(_LONGEST_PAUSE, first * 2**attempt))

    def _attempt(self, name: str, start: int, end: int | None, attempt: int, deadline: float) -> bytes:
        """Ask once, and once more beside it if the answer is late; the first good answer wins."""
        answers: SimpleQueue[bytes | BaseException] = SimpleQueue()
        ask = partial(self._ask, answers, name, start, end, attempt)
        ask(hedge=False)
        asked, failures = 1, list[BaseException]()
        hedge_at = time.monotonic() + self._late()
        while len(failures) < asked:
            may_hedge = asked == 1 and not failures and hedge_at < deadline
            try:
                answer = answers.get(timeout=max(0.0, (hedge_at if may_hedge else deadline) - time.monotonic()))
            except Empty:
                if not may_hedge:
                    break
                if self._take_hedge():
                    ask(hedge=True)
                    asked += 1
                else:
                    hedge_at = deadline
                continue
            if not isinstance(answer, BaseException):
                return answer
            failures.append(answer)
        if failures:
            raise failures[0]
        wanted = "all" if end is None else end - start
        raise StoreError(
            f"{self.store.url}/{name} gave no answer for {wanted} bytes from byte {start} on in time: "
            "the store hangs, is out of reach, or slower than 256 KiB/s"
        )

    def _late(self) -> float:
        """Seconds after which an answer is late."""
        with self._lock:
            known = sorted(self._latencies)
        if len(known) < _ENOUGH:
            return max(_HEDGE_FIRST, _HEDGE_FLOOR)
        return max(known[int(_HEDGE_QUANTILE * (len(known) - 1))], _HEDGE_FLOOR)

    def _take_hedge(self) -> bool:
        with self._lock:
            allowed = self._hedges_left >= 1 and time.monotonic() >= self._no_hedge_until
            if allowed:
                self._hedges_left -= 1
                self.counts.hedges += 1
        return allowed

    def _ask(
        self, answers: SimpleQueue[Any], name: str, start: int, end: int | None, attempt: int, *, hedge: bool
    ) -> None:
        """Send a request from a thread of its own, which nobody has to wait for."""
        request = Request(name, start, end, attempt, hedge)
        with self._lock:
            if len(self.under_way) >= _MOST_REQUESTS:
                raise StoreError(
                    f"{len(self.under_way)} requests to {self.store.url} have no answer, the oldest: "
                    f"{next(iter(self.under_way.values()))}; the store hangs or is out of reach"
                )
            self._last += 1
            number = self._last
            self.under_way[number] = request
            self.counts.requests += 1
        work = partial(self._request, answers, number, request)
        threading.Thread(target=work, name="penstock-request", daemon=True).start()

    def _request(self, answers: SimpleQueue[Any], number: int, request: Request) -> None:
        try:
            body = self.store.read(request.name, request.start, request.end)
            wanted = None if request.end is None else request.end - request.start
            if not body or (wanted is not None and len(body) != wanted):
                raise StoreError(
                    f"{self.store.url}/{request.name} gave {len(body)} bytes from byte {request.start} on, not "
                    f"{'all' if wanted is None else wanted}: it was cut short, or the store fails"
                )
        except BaseException as error:  # told to whoever waits for the answer
            answers.put(error)
        else:
            with self._lock:
                self.counts.bytes += len(body)
                self._latencies.append(time.monotonic() - request.since)
            answers.put(body)
        finally:
            with self._lock:
                del self.under_way[number]


def _place(digest: str, start: int, end: int | None) -> str:
    """Name of a range in the cache, by its content's identity."""
    return f"{digest[:32]}-{start}-{'end' if end is None else end}"
