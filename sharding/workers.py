"""A worker process of a DataLoader: it makes every n-th batch, and n of them give all in order, each once.

A DataLoader asks its workers in turn, so worker w of n makes the steps s + w, s + w + n, …. Each says where it stands
when it is asked (torchdata's StatefulDataLoader does after every batch that the caller has had); the furthest of them
is where the caller stands, from which a loader with another number of workers, or none, goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import RequestError
from .batch import Batch
from .loader import StreamingLoader
from .strides import strided

# Batches under way in a worker beside the one that is asked for.
_AHEAD = 1


class Worker:
    """Worker `number` of `workers`: `step` is the next it makes, `position` the end of the last it made."""

    def __init__(self, number: int, workers: int, loader: StreamingLoader) -> None:
        self.number, self.workers = number, workers
        self.stand(loader)

    def stand(self, loader: StreamingLoader) -> None:
        """Begin where the loader stands."""
        self._begin = (loader.step + self.number, loader.position)
        self.step, self.position = self._begin

    def state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        """Where this worker stands; `state` is the loader's, which stays where the worker was started."""
        return {"loader": state, "step": self.step, "position": self.position, "workers": self.workers}

    def load(self, state: Mapping[str, Any]) -> None:
        """Stand where a worker of the same number stood."""
        if state["workers"] != self.workers:
            raise RequestError(
                f"this is the state of one of {state['workers']} workers, here are {self.workers}: load the whole "
                "state into the loader, before the DataLoader is made around it"
            )
        self._begin = self.step, self.position = state["step"], state["position"]

    def batches(self, loader: StreamingLoader) -> Iterator[Batch]:
        """Make this worker's batches from where it began: each iteration over a DataLoader begins there."""
        self.step, self.position = self._begin
        return self._made(loader)

    def _made(self, loader: StreamingLoader) -> Iterator[Batch]:
        for batch in strided(loader, self._begin[0], self.workers, _AHEAD):
            self.step, self.position = batch.step + self.workers, batch.end
            yield batch


def is_worker(state: Mapping[str, Any]) -> bool:
    """Say whether this is what `Worker.state_dict` gave."""
    return "workers" in state


def consumed(state: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """Find a loader's own state in that of a StatefulDataLoader around it, and how many steps later that was saved."""
    if "_snapshot" in state:
        parts = [worker["dataset_state"] for worker in state["_snapshot"]["_worker_snapshots"].values()]
        furthest = max(part["position"] for part in parts)
        return {**parts[0]["loader"], "position": furthest}, state["_steps_since_snapshot"]
    return state.get("dataset_state", state), 0
