"""The block cache: one fetch a machine, never above its cap for long, and nothing left over by a killed process."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.sharding import cache as cache_module
from penstock.sharding import leases
from penstock.sharding.cache import BlockCache, cache_folder

SPAWN = multiprocessing.get_context("spawn")


def body(name: str) -> bytes:
    return name.encode() * 1000


def never() -> bytes:
    raise AssertionError("this block was to come from the cache")


def names(count: int) -> list[str]:
    return [f"{number:02x}-block" for number in range(count)]


def test_a_block_is_fetched_once_by_any_number_of_threads_and_loaders(tmp_path: Path) -> None:
    fetched = []
    gate = threading.Barrier(8)

    def fetch() -> bytes:
        fetched.append(1)
        time.sleep(0.05)
        return body("aa")

    cache = BlockCache(tmp_path)
    seen: list[bytes] = []

    def work() -> None:
        gate.wait()
        seen.append(bytes(cache.get("aa", fetch)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [body("aa")] * 8
    assert len(fetched) == 1
    assert bytes(pickle.loads(pickle.dumps(cache)).get("aa", never)) == body("aa")


def test_a_fetch_that_fails_fails_for_all_and_leaves_nothing(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path)

    def fails() -> bytes:
        raise TimeoutError("out of reach")

    with pytest.raises(TimeoutError, match="out of reach"):
        cache.get("aa", fails)
    assert bytes(cache.get("aa", lambda: body("aa"))) == body("aa")


def test_eviction_takes_the_oldest_and_never_what_is_in_use(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, limit=20 * len(body("00-block")))
    held = cache.get("00-block", lambda: body("00-block"))
    for name in names(9)[1:]:
        cache.get(name, partial(body, name))
    del cache
    other = BlockCache(tmp_path, limit=5 * len(body("00-block")))
    for number, name in enumerate(names(9)):
        os.utime(tmp_path / name[:2] / name, ns=(number, number))
    other.trim()
    left = {path.name for path in tmp_path.glob("??/*")}
    assert "00-block" in left, "the oldest, but in use"
    assert left == {"00-block", *names(9)[6:]}
    assert bytes(held) == body("00-block")


def test_bytes_outlive_their_file(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path)
    held = cache.get("aa", lambda: body("aa"))
    cache.drop("aa")
    assert not list(tmp_path.glob("??/*"))
    assert bytes(held) == body("aa")
    assert bytes(cache.get("aa", lambda: b"new")) == b"new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_read_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("penstock.sharding.leases.os.rename", refuse)
    cache = BlockCache(tmp_path)
    assert bytes(cache.get("aa", lambda: body("aa"))) == body("aa")
    assert all(path.stat().st_size == 0 for path in tmp_path.glob("??/.*"))


def test_the_part_of_a_dead_writer_is_taken_over_or_removed(tmp_path: Path) -> None:
    part = tmp_path / "aa" / ".aa.part"
    part.parent.mkdir()
    part.write_bytes(b"half a bl")
    assert bytes(BlockCache(tmp_path).get("aa", lambda: body("aa"))) == body("aa")
    assert not part.exists()
    part.write_bytes(b"half a bl")
    BlockCache(tmp_path).trim()
    assert not part.exists()


def test_does_not_wait_for_ever_for_another_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "PATIENCE", 0.1)
    with leases.part(tmp_path / "aa" / "aa") as writer:
        assert writer is not None
        assert bytes(BlockCache(tmp_path).get("aa", lambda: body("aa"))) == body("aa")


def use(folder: Path, seed: int, seconds: float) -> None:
    """Read blocks at random from a cache too small for them, and check each."""
    cache, chance, until = BlockCache(folder, 20 * len(body("00-block"))), random.Random(seed), time.time() + seconds
    while time.time() < until:
        name = chance.choice(names(64))
        if bytes(cache.get(name, partial(body, name))) != body(name):
            os._exit(3)
        if chance.random() < 0.1:
            cache._open.clear()


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.glob("??/*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_processes_share_a_folder_and_may_be_killed(tmp_path: Path) -> None:
    steady = [SPAWN.Process(target=use, args=(tmp_path, seed, 1.5)) for seed in range(2)]
    killed = [SPAWN.Process(target=use, args=(tmp_path, seed, 60.0)) for seed in range(10, 13)]
    for process in [*steady, *killed]:
        process.start()
    until, largest, count = time.time() + 1.0, 0, len(steady) + len(killed)
    while time.time() < until:
        largest = max(largest, folder_bytes(tmp_path))
        time.sleep(0.005)
    # All five together: at most the cap, and what each of them writes this moment.
    assert largest <= (20 + count) * len(body("00-block"))
    for process in killed:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    for process in [*steady, *killed]:
        process.join(60)
    assert [process.exitcode for process in steady] == [0, 0]
    cache = BlockCache(tmp_path, 20 * len(body("00-block")))
    for _ in range(100):  # The kernel frees a dead process's locks a moment after it has gone.
        if cache.trim() <= cache.limit:
            break
        time.sleep(0.05)
    assert cache.trim() <= cache.limit
    assert not list(tmp_path.glob("??/.*"))
    for path in tmp_path.glob("??/*"):
        assert path.read_bytes() == body(path.name)


def test_what_the_dead_have_counted_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that was written since the last look, by who died before it looked: the next writer looks itself."""
    monkeypatch.setattr(cache_module, "_PATIENCE", 3600.0)
    cache = BlockCache(tmp_path, 1 << 20)
    cache.get("00", lambda: b"block")
    (tmp_path / "written").write_bytes(bytes(1 << 10))
    assert bytes(cache.get("01", lambda: b"other")) == b"other"
    assert (tmp_path / "written").stat().st_size == 0


def test_what_each_may_hold_is_less_the_more_processes_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_LOOK", 0.0)
    caches = [BlockCache(tmp_path, 8000) for _ in range(4)]
    for number, cache in enumerate(caches):
        cache.get(f"0{number}", lambda: b"block")
    assert caches[3].held_bytes == 8000 // 8 // 4
    assert caches[0].held_bytes == 8000 // 8
    (tmp_path / "users" / "of-one-that-was-killed").touch()
    del caches[1:3], cache
    gc.collect()
    caches[0].get("09", lambda: b"block")
    assert caches[0].held_bytes == 8000 // 8 // 2
    assert len(list((tmp_path / "users").iterdir())) == 2


def test_the_folder_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("PENSTOCK_CACHE", raising=False)
    assert cache_folder() == Path("/x/penstock")
    monkeypatch.setenv("PENSTOCK_CACHE", "/fast/disk")
    assert cache_folder() == Path("/fast/disk")
