"""Beam kept silent: it logs each error four times over, and reports a closed connection with a traceback."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .. import require


class _Silence:
    """How many jobs of this process want Beam silent; the first sets it so, the last puts it back."""

    lock = threading.Lock()
    wanted = 0
    ending = ExitStack()


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Beam silent while a job runs: two tiny jobs write 228 lines otherwise, and what matters is raised."""
    with _Silence.lock:
        if not _Silence.wanted:
            _Silence.ending.enter_context(_silenced())
        _Silence.wanted += 1
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.wanted -= 1
            if not _Silence.wanted:
                _Silence.ending.close()


@contextmanager
def _silenced() -> Iterator[None]:
    root, beam = logging.getLogger(), logging.getLogger("apache_beam")
    level, hook = beam.level, threading.excepthook
    spare = logging.lastResort if not root.handlers else None  # else Beam's first line would configure the root logger
    root.addFilter(_not_of_beam)
    beam.setLevel(logging.CRITICAL + 1)
    if spare is not None:
        root.addHandler(spare)
    try:
        require("apache_beam", "curate")
        from .workers import ignore_broken_connections

        ignore_broken_connections()
        yield
    finally:
        if spare is not None:
            root.removeHandler(spare)
        beam.setLevel(level)
        root.removeFilter(_not_of_beam)
        threading.excepthook = hook


def _not_of_beam(record: logging.LogRecord) -> bool:
    return f"{os.sep}apache_beam{os.sep}" not in record.pathname
