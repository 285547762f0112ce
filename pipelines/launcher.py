"""Where a run writes and how its jobs are started: opened, refused in words, in this process or by workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from .. import RequestError, RunError, StoreError
from ..sharding.store import Store
from ..transforms.files import EXTENSIONS, reads_from
from .chunks import chunk
from .fork_server import fork_server
from .heartbeat import deaths
from .plan import IngestTask
from .progress import Progress
from .recipe import Input
from .runners import Job, RunnerOptions, preflight, run_job, session

IN_PROCESS_BYTES = 64 << 20  # starting workers costs more than the work below this
#: Folders of a run.
STAGES = (
    *("documents", "urls", "duplicates", "lines", "substrings-runs", "substrings-windows", "substrings"),
    *("output", "text", "tokenizer", "tokens", "tasks"),
)
COMPRESSED = (".gz", ".zst", ".parquet")  # weigh about four times their size in text


@dataclass
class Launcher:
    """Starts the jobs of one run."""

    store: Store
    options: RunnerOptions
    progress: Progress
    shared: bool = False  # what jobs share has been started
    loads: list[Callable[[], None]] = field(default_factory=list)  # what waits for it to start
    ending: ExitStack = field(default_factory=ExitStack)

    @property
    def local(self) -> bool:
        """Whether the workers share this machine."""
        return self.options.runner == "local"

    def fit(self, tasks: int, weight: int) -> RunnerOptions:
        """Say where a job of so many tasks runs. What jobs share is started by the first, and serves the others too."""
        if self.local and (tasks == 1 or weight < IN_PROCESS_BYTES):
            return replace(self.options, in_process=True)
        if not self.shared:
            self.options = self.ending.enter_context(session(self.options, self.progress.say))
            self.shared = True
            self.load()
        return self.options

    def prepare(self, load: Callable[[], None]) -> None:
        """Have what workers are forked from load its kernels: now, or as soon as it runs."""
        self.loads.append(load)
        if self.shared:
            self.load()

    def load(self) -> None:
        """Send what waits to the process that workers are forked from."""
        while self.loads:
            load = self.loads.pop(0)
            if (server := fork_server()) is not None:
                server.prepare(load)

    def launch(self, job: Job, tasks: int, weight: int) -> None:
        """Run a job: in this process where it has one task, or less work than starting workers costs."""
        try:
            run_job(chunk(job, self.store), self.fit(tasks, weight))
        except RunError as error:
            if found := [said for said in deaths(self.store) if said.startswith("a process ended while at ")]:
                raise type(error)("; ".join([str(error), *found])) from error
            raise


@contextmanager
def launched(
    inputs: Mapping[str, Input],
    output: str,
    options: RunnerOptions,
    store_options: dict[str, Any] | None,
    progress: Progress,
) -> Iterator[Launcher]:
    """Open a run's folder and start its jobs until the block ends."""
    if not output:
        raise RequestError("the output is empty: name a folder or a URL")
    preflight(options)
    launcher = Launcher(open_output(inputs, output, store_options or {}), options, progress)
    for said in deaths(launcher.store):
        progress.say(f"earlier, {said}")
    with launcher.ending:
        yield launcher


def open_output(inputs: Mapping[str, Input], output: str, store_options: dict[str, Any]) -> Store:
    """Open the run's folder; refuse one that cannot hold a run, or that a later run would read as its input."""
    store = Store(output, **store_options)
    folder = store.local("")
    try:
        store.require_exclusive()
        if folder is None:
            store.probe()
    except StoreError as error:
        raise RequestError(str(error)) from error
    written = [f"{stage}/0/data/0{extension}" for stage in STAGES for extension in EXTENSIONS]
    for name, item in inputs.items():
        if reads_from(item.path, output, written):
            raise RequestError(
                f"the output {output} and the input {name!r} ({item.path}) lie in one another: the next run would read "
                "what this one wrote; put the output elsewhere"
            )
    if folder is None:
        return store
    standing = next(path for path in (folder, *folder.parents) if path.exists())
    if not standing.is_dir():
        raise RequestError(f"the output {output} cannot be a folder: {standing} is a file")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise RequestError(f"the output {output} may not be written: permission denied for {standing}")
    return store


def input_weight(tasks: Sequence[IngestTask]) -> int:
    """Weigh the input in bytes of text."""
    return sum(task.bytes * (4 if task.pieces[0].path.endswith(COMPRESSED) else 1) for task in tasks)
