"""Jobs that share a cache and are killed: others go on, a restart has nothing to clean up, and nothing is left behind.

Children are forked, so that each starts with everything imported; they end by `os._exit` or a signal.
"""

from __future__ import annotations

import gc
import hashlib
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import faulty_server as faulty
import numpy as np
import pytest
from forks import ended, fork
from loader_files import LARGE, put_data
from s3_server import s3_server

from penstock.sharding import StreamingLoader, leases
from penstock.sharding.cache import BlockCache
from penstock.sharding.dataset import TokenData, open_tokens
from penstock.sharding.format import Pack
from penstock.sharding.store import Store

pytest.importorskip("aiohttp")
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
BATCH = 16
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(
        tmp_path_factory.mktemp("kills") / "set", LARGE, (Pack(256, "concat"),),
        {"train/a": (2600, 2200), "train/b": (30,)}, group_bytes=1 << 16,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(data: TokenData) -> Iterator[faulty.FaultyServer]:
    server = faulty.FaultyServer(Path(data.store.url))
    yield server
    server.stop()


@pytest.fixture
def there(server: faulty.FaultyServer, data: TokenData) -> TokenData:
    return TokenData(Store(server.url), data.generation)


def orphans(before: set[Path]) -> set[Path]:
    """What is new in /dev/shm and no living process has mapped: other tests may be at work there."""
    new = set(SHARED_MEMORY.iterdir() if SHARED_MEMORY.is_dir() else ()) - before
    mapped = ""
    for maps in Path("/proc").glob("[0-9]*/maps") if new else ():
        with suppress(OSError):
            mapped += maps.read_text()
    return {path for path in new if str(path) not in mapped and path.exists()}


@pytest.fixture(autouse=True)
def nothing_in_shared_memory() -> Iterator[None]:
    """Whatever a test kills, nothing stays in /dev/shm."""
    before = set(SHARED_MEMORY.iterdir() if SHARED_MEMORY.is_dir() else ())
    yield
    assert not orphans(before)


def epoch(data: TokenData, **arguments: Any) -> StreamingLoader:
    return StreamingLoader(data, BATCH, epochs=1, tail="short", **arguments)


def digest(loader: StreamingLoader) -> str:
    """SHA-256 over the rest of an epoch."""
    total = hashlib.sha256()
    for batch in loader:
        total.update(batch.buffer.tobytes())
    return total.hexdigest()


def check_nothing_is_left(folder: Path) -> None:
    """No lock is held, so that all can be evicted, parts of the dead too."""
    gc.collect()
    for _ in range(100):  # the kernel frees a dead process's locks a moment after it has gone
        if BlockCache(folder, 1).trim() == 0:
            break
        time.sleep(0.05)
    assert not list(folder.glob("??/*"))
    assert {path.name for path in folder.iterdir() if not path.is_dir()} <= {"trim.lock", "written"}


class Deadly:
    """A module of the protocol's whose `times`th call of one function is its last; of a write, half is done."""

    def __init__(self, module: Any, name: str, times: int, done: bool) -> None:
        self._module, self._name, self._left, self._done = module, name, times, done

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)
        return self._deadly if name == self._name else function

    def _deadly(self, *arguments: Any, **named: Any) -> Any:
        function = getattr(self._module, self._name)
        self._left -= 1
        if self._left > 0:
            return function(*arguments, **named)
        if self._name == "pwrite":
            function(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
        elif self._done:
            function(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
        return None


@pytest.mark.parametrize(
    ("module", "name", "times", "done"),
    [
        ("os", "open", 3, True),
        ("fcntl", "flock", 2, True),
        ("os", "ftruncate", 2, True),
        ("os", "pwrite", 1, True),
        ("os", "pwrite", 4, True),
        ("os", "rename", 2, False),
        ("os", "rename", 2, True),
        ("mmap", "mmap", 3, True),
    ],
)
def test_a_fill_killed_at_any_moment_leaves_nothing_to_clean_up(
    data: TokenData, there: TokenData, tmp_path: Path, module: str, name: str, times: int, done: bool
) -> None:
    def work() -> None:
        setattr(leases, module, Deadly(getattr(leases, module), name, times, done))
        digest(epoch(there, cache=tmp_path))

    assert ended(fork(work)) == -signal.SIGKILL
    loader = epoch(there, cache=tmp_path)
    assert digest(loader) == digest(epoch(data))
    del loader
    check_nothing_is_left(tmp_path)


def test_a_reader_killed_between_steps_goes_on_from_its_state(
    data: TokenData, there: TokenData, tmp_path: Path
) -> None:
    """Each of several processes takes a few steps from where the one before stood, and is killed."""
    whole = [batch.buffer.tobytes() for batch in epoch(data)]
    done, state, seen = tmp_path / "done", epoch(there).state_dict(), list[bytes]()
    while True:
        loader = StreamingLoader.from_state(there, state, epochs=1, tail="short", cache=tmp_path / "cache")
        if not (batches := list(islice(loader, 7))):
            break
        seen += [batch.buffer.tobytes() for batch in batches]
        state = loader.state_dict()

        def work(state: dict[str, Any] = state) -> None:
            again = StreamingLoader.from_state(there, state, epochs=1, tail="short", cache=tmp_path / "cache")
            for batch in again:
                done.write_bytes(batch.buffer.tobytes())
                os.kill(os.getpid(), signal.SIGKILL)

        done.write_bytes(b"")
        expected = 0 if len(seen) == len(whole) else -signal.SIGKILL
        assert ended(fork(work)) == expected
        assert expected == 0 or done.read_bytes() == whole[len(seen)]
    assert seen == whole


def test_what_is_asked_for_ahead_is_not_evicted(
    server: faulty.FaultyServer, data: TokenData, there: TokenData, tmp_path: Path
) -> None:
    """Another job that wants all the room gets none of what this one needs next: nothing is read twice."""
    loader = epoch(there, cache=tmp_path)
    batches = iter(loader)
    buffers = [next(batches).buffer]
    (fetching,) = loader._fetching.values()
    while fetching._pending:
        time.sleep(0.01)
    asked = server.served
    BlockCache(tmp_path, 1).trim()
    buffers += [batch.buffer for batch in batches]
    assert np.array_equal(np.concatenate(buffers), np.concatenate([batch.buffer for batch in epoch(data)]))
    assert server.served == asked


def test_files_that_cannot_grow_are_read_past(data: TokenData, there: TokenData, tmp_path: Path) -> None:
    """A real write that ends in its middle, as on a full disk."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        (tmp_path / "digest").write_text(digest(epoch(there, cache=tmp_path / "cache")))

    assert ended(fork(work)) == 0
    assert (tmp_path / "digest").read_text() == digest(epoch(data))
    assert all(path.stat().st_size <= 50_000 for path in (tmp_path / "cache").glob("??/*"))
    check_nothing_is_left(tmp_path / "cache")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_the_folder_of_another_user_is_read_and_left_alone(
    server: faulty.FaultyServer, data: TokenData, there: TokenData
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="penstock-cache-"))
    folder.chmod(0o755)
    try:
        digest(epoch(there, cache=folder))
        for path in islice(sorted(folder.glob("??/*")), 0, None, 2):
            path.unlink()
        stands, before, report = sorted(folder.rglob("*")), server.served, os.pipe()

        def work() -> None:
            os.setuid(65_534)
            os.write(report[1], digest(epoch(there, cache=folder)).encode())

        assert ended(fork(work)) == 0
        assert os.read(report[0], 100).decode() == digest(epoch(data))
        assert sorted(folder.rglob("*")) == stands
        assert server.served > before, "what was not there was read from the store"
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def bucket(data: TokenData, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The data set in an S3 server on loopback."""
    with s3_server(monkeypatch, "tokens") as client:
        for path in Path(data.store.url).rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "tokens", f"set/{path.relative_to(data.store.url)}")
        yield "s3://tokens/set"


def test_two_jobs_share_a_cache_before_an_object_store_and_one_is_killed(
    data: TokenData, bucket: str, tmp_path: Path
) -> None:
    cache, wanted = tmp_path / "cache", digest(epoch(data))

    def job(name: str, dies_at: int | None) -> Callable[[], None]:
        def work() -> None:
            total = hashlib.sha256()
            for batch in epoch(open_tokens(bucket), cache=cache):
                if batch.step == dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                total.update(batch.buffer.tobytes())
            (tmp_path / name).write_text(total.hexdigest())

        return work

    children = [fork(job("steady", None)), fork(job("killed", 3))]
    assert [ended(child) for child in children] == [0, -signal.SIGKILL]
    assert ended(fork(job("again", None))) == 0
    assert [(tmp_path / name).read_text() for name in ("steady", "again")] == [wanted, wanted]
    check_nothing_is_left(cache)
