"""What starts a run's jobs: that workers are forked from a process that is ready for them."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from penstock.pipelines import launcher as module
from penstock.pipelines.launcher import IN_PROCESS_BYTES, Launcher
from penstock.pipelines.progress import Progress
from penstock.pipelines.runners import RunnerOptions
from penstock.sharding.store import Store


class Server:
    """Notes what it is to load."""

    def __init__(self) -> None:
        self.loads: list[object] = []

    def prepare(self, load: object) -> None:
        """Note it."""
        self.loads.append(load)


def test_what_is_prepared_before_the_first_job_is_loaded_when_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, options = Server(), RunnerOptions(workers=2)
    monkeypatch.setattr(module, "session", lambda options, _: nullcontext(options))
    monkeypatch.setattr(module, "fork_server", lambda: server)
    launcher = Launcher(Store(str(tmp_path)), options, Progress(quiet=True))
    first, second = partial(print, 1), partial(print, 2)
    launcher.prepare(first)
    launcher.fit(1, IN_PROCESS_BYTES)
    assert server.loads == [], "a job of one task runs in this process"
    launcher.fit(2, IN_PROCESS_BYTES)
    launcher.fit(2, IN_PROCESS_BYTES)
    assert server.loads == [first]
    launcher.prepare(second)
    assert server.loads == [first, second]
