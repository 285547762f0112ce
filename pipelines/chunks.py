"""Tasks too many for one message, kept beside the run: a Beam graph then holds the names of chunks of them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..sharding.store import Store
from .beam_graph import CHUNK, Job


@dataclass(frozen=True)
class TaskChunk:
    """A run of a job's tasks, by the name under which they lie with the run."""

    store: Store
    name: str

    def tasks(self) -> list[Any]:
        """Read the tasks."""
        return list(pickle.loads(self.store.read(self.name)))


def chunk(job: Job, store: Store) -> Job:
    """Put a job's tasks beside the run where they would make the graph large; a few travel in it."""
    if job.expand is not None or len(job.tasks) <= CHUNK:
        return job
    return replace(job, tasks=put_chunks(job.tasks, store), expand=tasks_of)


def put_chunks(tasks: Sequence[Any], store: Store) -> list[TaskChunk]:
    """Write tasks in chunks; a chunk no run needs any more is garbage like any object that no receipt names."""
    bodies = (pickle.dumps(list(tasks[at : at + CHUNK])) for at in range(0, len(tasks), CHUNK))
    return [TaskChunk(store, store.put(body, "tasks/", ".pickle")) for body in bodies]


def tasks_of(held: Any) -> list[Any]:
    """Read the tasks of a chunk, of a plan's or of these, in a worker."""
    return list(held.tasks())
