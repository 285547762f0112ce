"""What a process holds of the files that a step names: loaded once, and again if a file changes and it is asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from .. import InputError

T = TypeVar("T")


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Say of a file that cannot be read which it is, as InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror or error}") from error


def stamp(path: str | Path) -> tuple[int, int]:
    """Give what changes with a file: its time and size."""
    stat = Path(path).stat()
    return stat.st_mtime_ns, stat.st_size


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
