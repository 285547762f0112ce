"""Kernels compiled before workers start: by several processes the first time on a machine, from disk ever after."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable, Sequence
from functools import partial

from ..transforms import LanguageScore
from ..transforms.kernels.cache import cold
from ..transforms.named import built_in, distinct, inner_steps
from ..transforms.step import Step
from .duplicates import Dedup
from .fork_server import start
from .ingest import warm
from .match import warm_match
from .repeats import warm_repeats
from .runners_preflight import cores


def compile_kernels(steps: Sequence[Step], dedup: Dedup | None) -> Callable[[], None]:
    """Have all that these steps and this deduplication use compiled; give the call that loads it into a process."""
    # A user's own step has nothing of ours to compile, nor has a threshold on a column that may come from one.
    own = [step for step in distinct(inner_steps(steps)) if built_in(step) and not isinstance(step, LanguageScore)]
    if cold() and cores() > 1:
        parts = [partial(load_kernels, [step], None) for step in own]
        compile_apart([*([] if dedup is None else [partial(load_kernels, (), dedup)]), *parts], cores())
    load = partial(load_kernels, own, dedup)
    load()
    return load


def load_kernels(steps: Sequence[Step], dedup: Dedup | None) -> None:
    """Have every kernel that these steps and this deduplication use compiled and loaded in this process."""
    warm(steps)
    if dedup is not None:
        warm_match(dedup)
        for settings in (dedup.lines, dedup.substrings):
            if settings is not None:
                warm_repeats(settings)


def compile_apart(calls: Sequence[Callable[[], None]], processes: int) -> None:
    """Deal these calls to so many processes; what they compile is on disk then.

    What fails there is not told: this process makes the same calls next, and tells.
    """
    running = [_start(dealt) for first in range(processes) if (dealt := calls[first::processes])]
    try:
        for process in running:
            process.wait()
    finally:
        for process in running:
            process.kill()
            process.wait()


def _start(calls: Sequence[Callable[[], None]]) -> subprocess.Popen[bytes]:
    silent = subprocess.DEVNULL
    return start(__name__, "make_calls", pickle.dumps(calls).hex(), stdout=silent, stderr=silent)


def make_calls(pickled: str) -> None:
    """Make pickled calls (this runs in a process of its own)."""
    for call in pickle.loads(bytes.fromhex(pickled)):
        call()
