"""Children of a test: work done in a fork, and how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def fork(work: Callable[[], Any]) -> int:
    """Run `work` in a child; give its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait; 0 for success, -9 where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
