"""Work done ahead by threads: copying and reading release the interpreter's lock. No thread keeps a process up."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


# What a pool's threads take their calls from; None tells them to end.
_Given = tuple[Future[Any], Callable[[], Any]]
_Calls = queue.SimpleQueue[_Given | None]


class Pool:
    """Daemon threads that run calls in the order in which they are given. A call that hangs does not hold up exit.

    They end when nobody holds the pool any more, and hold nothing of a call that is done.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._started = threads, 0
        self._lock = threading.Lock()
        self._calls, self._finish = self._begin()

    def renew(self) -> None:
        """Begin with new threads; those that hang are left behind, and end when their call does."""
        with self._lock:
            self._finish()
            self._started = 0
            self._calls, self._finish = self._begin()

    def _begin(self) -> tuple[_Calls, weakref.finalize[Any, Pool]]:
        calls: _Calls = queue.SimpleQueue()
        finish = weakref.finalize(self, calls.put, None)
        finish.atexit = False
        return calls, finish

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run `call` as soon as a thread is free."""
        future: Future[T] = Future()
        with self._lock:
            self._calls.put((future, call))
            if self._started < self._threads:
                self._started += 1
                threading.Thread(target=_work, args=(self._calls,), name="penstock-read", daemon=True).start()
        return future


def _work(calls: _Calls) -> None:
    while (given := calls.get()) is not None:
        future, call = given
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        del given, future, call
    calls.put(None)  # for the next thread


def stacks() -> str:
    """Say where each of the loader's threads is this moment."""
    frames = sys._current_frames()
    told = []
    for thread in threading.enumerate():
        if thread.name.startswith("penstock-") and (frame := frames.get(thread.ident or 0)) is not None:
            told.append(f"{thread.name} ({thread.ident}):\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(told)


class _End:
    """What a thread says last: what it failed with, if it did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(values: Callable[[], Iterator[T]], depth: int) -> Iterator[T]:
    """Iterate in a thread of its own, `depth` values ahead; an error comes where its value would have come."""
    if depth < 1:
        yield from values()
        return
    made: queue.Queue[T | _End] = queue.Queue(depth)
    stopped = threading.Event()

    def put(value: T | _End) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                made.put(value, timeout=0.1)
                return

    def work() -> None:
        error = None
        try:
            for value in values():
                put(value)
                if stopped.is_set():
                    return
        except BaseException as raised:
            error = raised
        put(_End(error))

    threading.Thread(target=work, name="penstock-batches", daemon=True).start()
    try:
        while not isinstance(value := made.get(), _End):
            yield value
        if value.error is not None:
            raise value.error
    finally:
        stopped.set()
