"""The tools on token files, by one door.

inspect    sum them up
verify     check every byte and count
cat        give documents back
locate     say which documents lie in a row
simulate   say what so many nodes would read, hold and see
takedown   take documents down, in a new generation
"""

from __future__ import annotations

from .differences import diff
from .inspection import inspect
from .merging import merge
from .readback import cat, locate
from .removal import takedown
from .simulation import simulate
from .verification import refuse, verify

__all__ = ["cat", "diff", "inspect", "locate", "merge", "refuse", "simulate", "takedown", "verify"]
