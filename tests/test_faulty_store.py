"""A store that fails in every way it can: the loader ends in bounded time, and no row comes twice or is missed."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_server as faulty
import numpy as np
import pytest
from loader_files import EOS, LARGE, put_data

from penstock import CorruptDataError, RequestError, StoreError
from penstock.sharding import StreamingLoader, reads
from penstock.sharding.answers import denied, retry_after, throttled
from penstock.sharding.batch import Batch
from penstock.sharding.cache import BlockCache
from penstock.sharding.dataset import TokenData, open_tokens
from penstock.sharding.format import Pack
from penstock.sharding.reads import RemoteReads
from penstock.sharding.store import Store

pytest.importorskip("aiohttp")
BATCH = 16
NONE = 2**64 - 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    """Two shards of some five groups each, and one of a single short group."""
    return put_data(
        tmp_path_factory.mktemp("faulty") / "set", LARGE, (Pack(256, "concat"),),
        {"train/a": (2600, 2200), "train/b": (30,)}, group_bytes=1 << 16,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(data: TokenData) -> list[Batch]:
    return list(StreamingLoader(data, BATCH, epochs=1, tail="short"))


@pytest.fixture
def server(data: TokenData) -> Iterator[faulty.FaultyServer]:
    server = faulty.FaultyServer(Path(data.store.url))
    yield server
    server.stop()


@pytest.fixture
def loader(server: faulty.FaultyServer, data: TokenData, tmp_path: Path) -> StreamingLoader:
    return remote(server, data, tmp_path)


def remote(server: faulty.FaultyServer, data: TokenData, cache: Path, **arguments: Any) -> StreamingLoader:
    there = TokenData(Store(server.url), data.generation)
    arguments = {"epochs": 1, "tail": "short", "cache": cache, **arguments}
    return StreamingLoader(there, BATCH, **arguments)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become milliseconds."""
    for name, value in {
        "_PAUSE": 0.001, "_THROTTLED_PAUSE": 0.001, "_LONGEST_PAUSE": 0.01, "_ATTEMPT": 0.2, "_DEADLINE": 20.0,
        "_SECONDS_A_BYTE": 0.0, "_HEDGE_FIRST": 0.05, "_HEDGE_FLOOR": 0.02,
    }.items():  # fmt: skip
        monkeypatch.setattr(reads, name, value)


@contextmanager
def no_time() -> Iterator[None]:
    """Let a read have half a second with all its tries."""
    before, reads._DEADLINE = reads._DEADLINE, 0.5
    yield
    reads._DEADLINE = before


def same(batches: list[Batch], wanted: list[Batch]) -> bool:
    return len(batches) == len(wanted) and all(
        np.array_equal(one.buffer, other.buffer) and np.array_equal(one.positions, other.positions)
        for one, other in zip(batches, wanted, strict=True)
    )


TROUBLES = [
    faulty.throttles, faulty.forgets_credentials, faulty.stalls, faulty.crawls, faulty.cuts_short, faulty.resets,
]  # fmt: skip


@pytest.mark.parametrize("trouble", [*TROUBLES, faulty.lies])
def test_what_passes_changes_nothing(
    server: faulty.FaultyServer, loader: StreamingLoader, whole: list[Batch], trouble: faulty.Trouble
) -> None:
    server.misbehave(trouble, times=1 if trouble is faulty.lies else 2)
    assert same(list(loader), whole)
    assert server.left == 0


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_lasts_is_told_in_time_and_the_same_loader_goes_on_after(
    server: faulty.FaultyServer, data: TokenData, tmp_path: Path, trouble: faulty.Trouble
) -> None:
    """Rows come as they lie, and the cache is too small to look far ahead: so most is still to be read then."""
    whole = list(StreamingLoader(data, BATCH, epochs=1, tail="short", shuffle=None))
    loader = remote(server, data, tmp_path, shuffle=None, cache_bytes=1 << 20)
    got = [next(iter(loader))]
    server.misbehave(trouble)
    start = time.monotonic()
    told = rf"rank 0, position \d+, block \d+ of shard \S+ in {server.url}: "
    with no_time(), pytest.raises(StoreError, match=told):
        got.extend(loader)
    assert time.monotonic() - start < 30
    got = got[: loader.step]
    server.misbehave(None)
    got += list(loader)
    assert same(got, whole)


def test_bytes_that_stay_wrong_are_told_by_block(server: faulty.FaultyServer, loader: StreamingLoader) -> None:
    server.misbehave(faulty.lies)
    with pytest.raises(CorruptDataError, match=r"rank 0, position 0, block \d+ of shard .*does not match its checksum"):
        next(iter(loader))
    server.misbehave(None)
    assert len(next(iter(loader))) == BATCH


def test_all_threads_may_hang_and_the_loader_goes_on(
    server: faulty.FaultyServer, data: TokenData, whole: list[Batch], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A store whose client never comes back, which no deadline of ours ends: threads are left behind."""
    hang = threading.Event()

    class Hangs(Store):
        hanging = True

        def local(self, name: str) -> Path | None:
            if self.hanging and threading.current_thread().name == "penstock-read":
                hang.wait()
            return super().local(name)

    store = Hangs(data.store.url)
    loader = StreamingLoader(TokenData(store, data.generation), BATCH, epochs=1, tail="short", threads=2, stall=0.2)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"rank 0, position 0, block \d+ of shard .*nothing came for 0.2 s"):
            next(iter(loader))
    assert "penstock-read" in caplog.text
    assert "hang.wait()" in caplog.text
    store.hanging = False
    assert same(list(loader), whole)
    hang.set()


def test_a_stall_tells_which_requests_have_no_answer(
    server: faulty.FaultyServer, data: TokenData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.misbehave(faulty.stalls)
    loader = remote(server, data, tmp_path, stall=0.1)
    with pytest.raises(
        StoreError, match=r"without an answer: data/\S+\.bin, byte \d+ to byte \d+: asked \d+\.\d s ago"
    ):
        next(iter(loader))
    assert "penstock-request" in caplog.text
    server.misbehave(None)
    server.over.set()
    assert next(iter(loader)).step == 0


# Damage that stays: raised, or set aside.


@pytest.fixture
def copy(data: TokenData, tmp_path: Path) -> TokenData:
    shutil.copytree(data.store.url, tmp_path / "copy")
    return open_tokens(tmp_path / "copy")


def damage(data: TokenData, shard: int, at: int) -> None:
    path = Path(data.store.url) / data.generation.shards[shard].path(".bin")
    body = bytearray(path.read_bytes())
    body[at] ^= 1
    path.write_bytes(body)


def masked(batch: Batch) -> list[int]:
    """Positions of rows that are padding; all that is told of them says so."""
    rows = [row for row in range(len(batch)) if (batch.document_ids[row] == NONE).all()]
    for row in rows:
        assert not batch.loss_mask[row].any()
        assert (batch.buffer[row] == EOS).all()
    return [int(batch.positions[row]) for row in rows]


def check_coverage(batches: list[Batch], whole: list[Batch]) -> list[int]:
    """Shapes and positions are those of the undamaged, and so is every row that is not set aside; gives those."""
    assert len(batches) == len(whole)
    gone = []
    for got, wanted in zip(batches, whole, strict=True):
        assert np.array_equal(got.positions, wanted.positions)
        lost = masked(got)
        good = ~np.isin(got.positions, lost)
        assert np.array_equal(got.buffer[good], wanted.buffer[good])
        assert np.array_equal(got.loss_mask[good], wanted.loss_mask[good])
        gone += lost
    return gone


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_damaged_block_is_set_aside_by_name(
    copy: TokenData, whole: list[Batch], caplog: pytest.LogCaptureFixture, prefetch: int
) -> None:
    damage(copy, 0, 150_000)
    loader = StreamingLoader(copy, BATCH, epochs=2, tail="short", corrupt="quarantine", prefetch=prefetch)
    batches = list(loader)
    rows = sum(len(batch) for batch in whole)
    first = [batch for batch in batches if batch.end <= rows]
    gone = check_coverage(first, whole[: len(first)])
    records = sorted(loader.quarantined, key=lambda record: record.group)
    # The group, and the one before it, whose last label is its first token.
    assert [record.group for record in records] == [1, 2]
    for record in records:
        assert (record.shard, record.pack) == (copy.generation.shards[0].name, "concat-256")
        assert "does not match its checksum" in record.reason
        assert len(record.positions) == 2 * 65_536 // 4 // 256, "two epochs"
    assert set(gone) == {at for record in records for at in record.positions if at < first[-1].end}
    told = [entry.message for entry in caplog.records if "is set aside" in entry.message]
    assert sorted(told) == [
        f"block {record.group} of shard {record.shard} is set aside, its rows come masked: {record.reason}"
        for record in records
    ]


def test_a_lost_shard_is_set_aside_and_the_state_goes_on(copy: TokenData, whole: list[Batch]) -> None:
    (Path(copy.store.url) / copy.generation.shards[1].path(".ends.npy")).unlink()
    loader = StreamingLoader(copy, BATCH, epochs=1, tail="short", corrupt="quarantine")
    batches = [next(iter(loader))]
    again = StreamingLoader.from_state(copy, loader.state_dict(), epochs=1, tail="short", corrupt="quarantine")
    batches += again
    gone = check_coverage(batches, whole)
    shard = copy.generation.shards[1]
    assert len(gone) == shard.packs["concat-256"].rows
    assert {record.shard for record in again.quarantined} == {shard.name}
    assert all("has lost" in record.reason for record in again.quarantined)
    with pytest.raises(CorruptDataError, match="has lost"):
        list(StreamingLoader(copy, BATCH, epochs=1))


def test_bytes_that_stay_wrong_are_set_aside(
    server: faulty.FaultyServer, data: TokenData, whole: list[Batch], tmp_path: Path
) -> None:
    loader = remote(server, data, tmp_path, corrupt="quarantine")
    server.misbehave(faulty.lies)
    gone = check_coverage(list(loader), whole)
    assert sorted(gone) == list(range(sum(len(batch) for batch in whole)))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_store_out_of_reach_is_never_set_aside(
    server: faulty.FaultyServer, data: TokenData, tmp_path: Path, trouble: faulty.Trouble
) -> None:
    server.misbehave(trouble)
    loader = remote(server, data, tmp_path, corrupt="quarantine")
    with no_time(), pytest.raises(StoreError):
        next(iter(loader))
    assert loader.quarantined == []


def test_a_disk_that_is_not_mounted_is_not_a_data_set_that_lost_everything(copy: TokenData) -> None:
    loader = StreamingLoader(copy, BATCH, corrupt="quarantine")
    shutil.rmtree(copy.store.url)
    with pytest.raises(StoreError, match=r"no longer holds generations/0.json: .*not mounted"):
        next(iter(loader))
    assert loader.quarantined == []


def test_refuses_another_answer_to_damage(data: TokenData) -> None:
    with pytest.raises(RequestError, match="'ignore'; it is one of raise, quarantine"):
        StreamingLoader(data, BATCH, corrupt="ignore")  # type: ignore[arg-type]


# Reads, one by one.


class Told(Store):
    """A store that does what the next function says, and then gives 8 bytes."""

    def __init__(self, *steps: Any) -> None:
        super().__init__("memory://told")
        self.steps, self.lock = list(steps), threading.Lock()

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        with self.lock:
            step = self.steps.pop(0) if self.steps else None
        if step is not None:
            step()
        return b"8 bytes."


def fails(error: BaseException) -> Any:
    def fail() -> None:
        raise StoreError("it fails") from error

    return fail


def read_all(store: Store, folder: Path, count: int) -> RemoteReads:
    remote_reads = RemoteReads(store, BlockCache(folder))
    for number in range(count):
        assert remote_reads._read(f"{number}", 0, 8) == b"8 bytes."
    return remote_reads


def test_a_late_answer_is_not_waited_for(tmp_path: Path) -> None:
    """After reads of no time, one hangs: the hedge answers, and is the only request more."""
    hang = threading.Event()
    found = read_all(Told(*[None] * 30, hang.wait), tmp_path, 31)
    assert (found.counts.reads, found.counts.requests, found.counts.hedges) == (31, 32, 1)
    assert [request.name for request in found.under_way.values()] == ["30"]
    hang.set()


def test_the_first_good_answer_wins_and_a_hedge_that_fails_is_not_the_end(tmp_path: Path) -> None:
    found = read_all(Told(lambda: time.sleep(0.1), fails(OSError("reset"))), tmp_path, 1)
    assert (found.counts.requests, found.counts.hedges) == (2, 1)


def test_a_slow_store_is_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is late: hedges stay at one in twenty, and the one that is free at first."""
    monkeypatch.setattr(RemoteReads, "_late", lambda self: 0.0)
    found = read_all(Told(*[lambda: time.sleep(0.002)] * 200), tmp_path, 100)
    assert 1 <= found.counts.hedges <= 100 * reads._HEDGE_SHARE + 1
    assert found.counts.requests == 100 + found.counts.hedges


def test_a_store_that_throttles_gets_no_hedge(tmp_path: Path) -> None:
    throttling = fails(web_error(503))
    found = read_all(Told(throttling, lambda: time.sleep(0.1)), tmp_path, 1)
    assert (found.counts.requests, found.counts.hedges) == (2, 0)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that reads make, which take no time here."""
    pauses: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append)
    monkeypatch.setattr(reads, "time", clock)
    monkeypatch.setattr(reads, "_DEADLINE", 1000.0)
    return pauses


def test_pauses_double_with_full_jitter_up_to_the_longest(
    tmp_path: Path, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "_PAUSE", 1.0)
    monkeypatch.setattr(reads, "_LONGEST_PAUSE", 8.0)
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr(reads, "random", SimpleNamespace(uniform=draw))
    read_all(Told(*[fails(OSError("reset"))] * 6), tmp_path, 1)
    assert drawn == [(0, 1), (0, 2), (0, 4), (0, 8), (0, 8), (0, 8)]
    assert slept == [1, 2, 4, 8, 8, 8]


def test_waits_as_long_as_the_store_says(tmp_path: Path, slept: list[float]) -> None:
    read_all(Told(fails(web_error(503, {"Retry-After": "7"}))), tmp_path, 1)
    assert 7 <= slept[0] <= 7.01


def test_a_wait_beyond_the_deadline_is_told_at_once(tmp_path: Path, slept: list[float]) -> None:
    with pytest.raises(StoreError, match=r"it fails.*tried 1 times"):
        read_all(Told(fails(web_error(503, {"Retry-After": "5000"}))), tmp_path, 1)
    assert slept == []


def test_what_is_refused_is_not_asked_for_ten_times(tmp_path: Path, slept: list[float]) -> None:
    with pytest.raises(StoreError, match="tried 3 times"):
        read_all(Told(*[fails(PermissionError("no"))] * 20), tmp_path, 1)


def test_requests_that_hang_do_not_pile_up_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "_MOST_REQUESTS", 2)
    monkeypatch.setattr(reads, "_TRIES", 3)
    hang = threading.Event()
    with pytest.raises(
        StoreError, match=r"2 requests to memory://told have no answer, the oldest: 0, byte 0 to byte 8"
    ):
        read_all(Told(*[hang.wait] * 9), tmp_path, 1)
    hang.set()


def test_neighbours_are_one_request_and_what_the_cache_holds_is_none(tmp_path: Path) -> None:
    class Counts(Store):
        asked: list[tuple[Any, Any]]

        def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
            self.asked.append((start, end))
            return bytes(range(start or 0, end or 0))

    store = Counts("memory://counts")
    store.asked = []
    remote_reads = RemoteReads(store, BlockCache(tmp_path))
    remote_reads("x", "0" * 64, 10, 20)
    remote_reads.together("x", "0" * 64, [(0, 11), (10, 20), (19, 30), (29, 40)])
    assert store.asked == [(10, 20), (0, 11), (19, 40)]
    for start, end in ((0, 11), (10, 20), (19, 30), (29, 40)):
        assert bytes(remote_reads("x", "0" * 64, start, end)) == bytes(range(start, end))
    assert len(store.asked) == 3


# What clients tell.


def web_error(status: int, headers: dict[str, str] | None = None) -> BaseException:
    """As aiohttp and gcsfs have it."""
    error = RuntimeError("web")
    error.status, error.headers = status, headers or {}  # type: ignore[attr-defined]
    return error


def boto_error(status: int, code: str, headers: dict[str, str] | None = None) -> BaseException:
    """As botocore has it: a dictionary."""
    error = RuntimeError("boto")
    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    error.response = {"Error": {"Code": code}, "ResponseMetadata": meta}  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (web_error(503, {"Retry-After": "3"}), (True, False, 3.0)),
        (web_error(429), (True, False, None)),
        (web_error(500, {"retry-after": "x"}), (False, False, None)),
        (web_error(403), (False, True, None)),
        (boto_error(503, "SlowDown", {"retry-after": "2.5"}), (True, False, 2.5)),
        (boto_error(400, "RequestLimitExceeded"), (True, False, None)),
        (boto_error(403, "ExpiredToken"), (False, True, None)),
        (PermissionError("no"), (False, True, None)),
        (type("NoCredentialsError", (Exception,), {})(), (False, True, None)),
        (ConnectionResetError("reset"), (False, False, None)),
    ],
)
def test_what_a_client_tells_is_found_along_the_causes(cause: BaseException, expected: Any) -> None:
    middle = OSError("translated")
    middle.__cause__ = cause
    error = StoreError("in words")
    error.__cause__ = middle
    assert (throttled(error), denied(error), retry_after(error)) == expected


def test_a_date_is_a_time_to_wait_for() -> None:
    told = retry_after(
        web_error(503, {"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))})
    )
    assert told is not None
    assert 50 < told <= 60
