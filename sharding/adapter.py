"""What adapters share: a numpy loader inside that reads ahead, and where the caller stands, which is behind it.

A state says where the *caller* stands, so nothing that was made ahead and not yet had is lost with a checkpoint. Where
more batches are under way than the adapter knows of (in a DataLoader's workers, in a trainer that looks ahead), take
the state of the last batch that was used: `state_at(batch)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from .. import RequestError
from .loader import StreamingLoader
from .plan import Plan
from .quarantine import Quarantined

T = TypeVar("T")


class Adapter:
    """A loader for one framework: what it gives is its own, where it stands is the numpy loader's."""

    loader: StreamingLoader

    def _follow(self, *loaders: StreamingLoader) -> None:
        """Stand where these stand, which all are asked the same; the first says where."""
        self.loader, self._loaders = loaders[0], loaders
        self._position, self._moves = loaders[0].position, 0

    def __len__(self) -> int:
        """Batches in `epochs`; TypeError where the loader never ends."""
        return len(self.loader)

    @property
    def position(self) -> int:
        """Rows of the global order that came before the next batch."""
        return self._position

    @property
    def step(self) -> int:
        """Number of the next batch."""
        return self.loader.step_at(self._position)

    @property
    def plan(self) -> Plan:
        """What was asked for from which position on."""
        return self.loader.plan

    @property
    def quarantined(self) -> list[Quarantined]:
        """Blocks of this process that are read as padding, as `StreamingLoader.quarantined`."""
        return [record for loader in self._loaders for record in loader.quarantined]

    def state_dict(self) -> dict[str, Any]:
        """Where the caller stands, the same on every rank; any loader of the same data reads it."""
        return {**self.loader.state_dict(), "position": self._position}

    def state_at(self, batch: Any) -> dict[str, Any]:
        """Give the state right after a batch, whatever has been made or had since.

        batch: one that this loader or a copy of it in a worker gave, or its `end`.
        """
        end = batch["end"] if isinstance(batch, Mapping) else getattr(batch, "end", batch)
        try:
            return {**self.loader.state_dict(), "position": int(end)}
        except (TypeError, ValueError):
            raise RequestError(
                f"state_at takes a batch that the loader gave, or its `end`, not a {type(batch).__name__}"
            ) from None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where a state was saved, as `StreamingLoader.load_state_dict`."""
        self._move(lambda loader: loader.load_state_dict(state))

    def seek(self, step: int) -> None:
        """Stand before a step's batch."""
        self._move(lambda loader: loader.seek(step))

    def change(self, **changes: Any) -> None:
        """Read otherwise from here on, or from a position on, as `StreamingLoader.change`."""
        self._allow(changes)
        self._move(lambda loader: loader.change(**changes))

    def _allow(self, changes: Mapping[str, Any]) -> None:
        """Refuse what the framework's ranks cannot have; all that the numpy loader can, unless an adapter says more."""

    def skip(self, steps: range | tuple[int, int] | None = None, documents: Iterable[int] = ()) -> None:
        """Leave out steps to come, or from here on documents, as `StreamingLoader.skip`."""
        left_out = tuple(documents)
        self._move(lambda loader: loader.skip(steps, left_out))

    def _move(self, call: Callable[[StreamingLoader], None]) -> None:
        """Change where the numpy loaders stand or what they do from there on; iteration goes on from there."""
        self._stand()
        for loader in self._loaders:
            call(loader)
        self._position = self.loader.position
        self._moves += 1

    def _stand(self) -> None:
        for loader in self._loaders:
            loader.stand(self._position)

    def _each(self, made: Callable[[], Iterator[tuple[int, T]]]) -> Iterator[T]:
        """Give what is made from where the caller stands; `made` gives (end, batch), and may be ahead."""
        while True:
            self._stand()
            moves = self._moves
            for end, batch in made():
                self._position = end
                yield batch
                if self._moves != moves:
                    break
            else:
                self._position = self.loader.position  # behind a last batch that was dropped
                return
