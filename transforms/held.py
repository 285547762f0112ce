"""What a process holds of the files that a step names: loaded once, and again if a file changes and it is asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """The last things loaded, by the fields that name them. Two threads that load one at once load it twice."""

    def __init__(self, most: int = 2) -> None:
        self._most = most
        self._held: dict[Hashable, tuple[Any, T]] = {}

    def get(self, key: Hashable, stamps: Callable[[], Any], load: Callable[[], T], fresh: bool) -> T:
        """Give what `load` makes for a key; `fresh` loads it again if `stamps` has another value by now."""
        held = self._held.get(key)
        if held is not None and (not fresh or held[0] == stamps()):
            return held[1]
        made = (stamps(), load())
        while len(self._held) >= self._most:
            self._held.pop(next(iter(self._held)), None)
        self._held[key] = made
        return made[1]
