"""Named points at which a test can kill the process, to prove that a run resumes from there."""

from __future__ import annotations

import os
import signal

#: Names of `crash_point`, in the order in which one write meets them; `register_crash_points` adds more.
CRASH_POINTS: list[str] = ["object-spooled", "object-written", "receipt-spooled", "receipt-committed"]
_met: dict[str, int] = {}


def register_crash_points(*names: str) -> None:
    """Add names at which a test can kill the process; naming one twice is fine."""
    CRASH_POINTS.extend(name for name in names if name not in CRASH_POINTS)


def crash_point(name: str) -> None:
    """Die by SIGKILL here where the variable PENSTOCK_CRASH_AT says `name`, or `name:3` for the third time."""
    if name not in CRASH_POINTS:
        raise ValueError(f"crash point {name!r} is not registered: register_crash_points({name!r})")
    wanted, _, time = os.environ.get("PENSTOCK_CRASH_AT", "").partition(":")
    if wanted != name:
        return
    _met[name] = _met.get(name, 0) + 1
    if _met[name] == int(time or 1):
        os.kill(os.getpid(), signal.SIGKILL)
