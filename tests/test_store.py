"""The store: exclusive creation raced by real processes and killed midway, ranges, listings, words."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import StoreError
from penstock.sharding import crash, roots
from penstock.sharding.store import CRASH_POINTS, MissingObjectError, Store, crash_point, register_crash_points

KEYS = 100


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A moto server on loopback with one bucket; proves logic and error paths, never a race (its check and its store
    are two steps)."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs", minversion="2024.12")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="bucket")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(tmp_path / "root")
    return bucket(request.getfixturevalue("s3"), tmp_path.name)


def bucket(endpoint: str, prefix: str) -> Store:
    return Store(f"s3://bucket/{prefix}", key="x", secret="x", endpoint_url=endpoint)


def test_what_is_written_is_read_whole_and_by_range(store: Store, tmp_path: Path) -> None:
    body = bytes(range(256)) * 10
    name = store.put(body, "data/part-", ".bin")
    assert name == f"data/part-{hashlib.sha256(body).hexdigest()[:32]}.bin"
    assert store.read(name) == body
    assert store.read(name, 5, 9) == body[5:9]
    assert store.read(name, start=2000) == body[2000:]
    assert store.read(name, end=7) == body[:7]
    assert store.size(name) == len(body)
    spooled = tmp_path / "spooled"
    spooled.write_bytes(body)
    assert store.put(spooled, "data/part-", ".bin") == name
    with store.open(name) as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == body[-3:]


def test_one_creates_and_the_others_read_what_stands(store: Store) -> None:
    assert store.create("receipts/a.json", b"first")
    assert not store.create("receipts/a.json", b"second")
    assert store.commit_once("receipts/a.json", b"third") == b"first"
    assert store.commit_once("receipts/b.json", b"mine") == b"mine"
    assert store.read("receipts/a.json") == b"first"


def test_listing_is_fresh_sorted_and_relative(store: Store) -> None:
    assert store.list() == []
    for name in ("b/2", "a/x/1", "a/y", "ab"):
        store.create(name, b"1")
    assert store.list() == ["a/x/1", "a/y", "ab", "b/2"]
    assert store.list("a") == ["a/x/1", "a/y", "ab"]
    assert store.list("a/") == ["a/x/1", "a/y"]
    assert store.child("a").list() == ["x/1", "y"]
    assert store.list("none/at/all") == []
    assert store.exists("a/y")
    assert not store.exists("a")
    other = pickle.loads(pickle.dumps(store))
    other.create("a/z", b"1")
    assert store.list("a/") == ["a/x/1", "a/y", "a/z"]


def test_replace_overwrites_and_probe_leaves_nothing(store: Store) -> None:
    store.replace("manifest.json", b"one")
    store.replace("manifest.json", b"two, longer")
    assert store.read("manifest.json") == b"two, longer"
    store.probe()
    assert store.list() == ["manifest.json"]


def test_what_is_missing_is_named(store: Store) -> None:
    for act in (store.read, store.size):
        with pytest.raises(MissingObjectError, match="nowhere"):
            act("nowhere")
    with pytest.raises(FileNotFoundError):
        store.read("nowhere", 0, 4)


def test_nothing_is_ever_empty(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="at least one byte"):
        store.create("a", b"")
    with pytest.raises(ValueError, match="at least one byte"):
        store.put(tmp_path / "empty", "a", "")
    with pytest.raises(ValueError, match="at least one byte"):
        store.replace("a", b"")


def test_a_damaged_object_is_not_taken_for_written(store: Store) -> None:
    store.create("data/x-0011.bin", b"torn")
    with pytest.raises(StoreError, match="4 bytes where its content has 9"):
        store.put_named(b"not torn!", "data/x-0011.bin")


def create_many(root: str, barrier: object, writer: str, won: object) -> None:
    store = Store(root)
    for key in range(KEYS):
        barrier.wait()  # type: ignore[attr-defined]
        if store.create(f"r/{key}", f"{writer} {key}".encode() * 50):
            won.put((key, writer))  # type: ignore[attr-defined]
    won.put(None)  # type: ignore[attr-defined]


def test_two_processes_race_and_each_key_has_one_winner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(2), context.Queue()
    writers = [context.Process(target=create_many, args=(str(tmp_path), barrier, name, won)) for name in "ab"]
    for writer in writers:
        writer.start()
    winners: list[tuple[int, str]] = []
    for _ in range(2):
        winners.extend(iter(lambda: won.get(timeout=60), None))
    for writer in writers:
        writer.join()
    assert sorted(key for key, _ in winners) == list(range(KEYS))
    for key, writer_name in winners:
        assert Store(tmp_path).read(f"r/{key}") == f"{writer_name} {key}".encode() * 50


KILLED = """
import sys
from penstock.sharding.store import Store
store = Store(sys.argv[1])
for key in range(10**6):
    store.create(f"r/{key}", b"x" * 100_000)
    print(key, flush=True)
"""


def test_kill_in_the_middle_leaves_whole_objects_only(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(20):
            writer.stdout.readline()
        writer.kill()
        writer.wait()
        writer.stdout.close()
    names = Store(tmp_path).list()
    assert len(names) >= 20
    assert all(Store(tmp_path).read(name) == b"x" * 100_000 for name in names)


@pytest.mark.parametrize(
    ("point", "stands"),
    [("receipt-spooled", []), ("receipt-committed", ["r/0"]), ("receipt-committed:3", ["r/0", "r/1", "r/2"])],
)
def test_crash_points_kill_where_they_say(tmp_path: Path, point: str, stands: list[str]) -> None:
    environment = {**os.environ, "PENSTOCK_CRASH_AT": point}
    writer = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, capture_output=True)
    assert writer.returncode == -signal.SIGKILL
    assert Store(tmp_path).list() == stands
    for name in stands or ["r/0"]:
        assert Store(tmp_path).commit_once(name, b"x" * 100_000) == b"x" * 100_000


def test_crash_points_are_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "CRASH_POINTS", list(CRASH_POINTS))
    with pytest.raises(ValueError, match="not registered"):
        crash_point("before-lunch")
    register_crash_points("before-lunch", "before-lunch")
    crash_point("before-lunch")
    assert crash.CRASH_POINTS.count("before-lunch") == 1


def test_a_full_disk_is_told_in_words_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.create("before", b"1")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="disk or the quota is full"):
            store.create("data/x", b"body")
        with pytest.raises(StoreError, match="disk or the quota is full"):
            store.put(b"body", "x", "")
    assert store.list() == ["before"]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("url", ["memory://here", "simplecache::s3://bucket/x", "ftp://host/x"])
def test_a_store_without_exclusive_creation_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"cannot hold a run.*use a local folder, s3://"):
        Store(url).create("a", b"1")


def test_a_client_that_does_not_know_the_condition_is_refused(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bucket(s3, "old")

    class Old:
        def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
            raise AssertionError("an old client would overwrite")

    monkeypatch.setattr(roots.Objects, "_client", lambda self: Old())
    with pytest.raises(StoreError, match="does not know exclusive creation"):
        store.create("a", b"1")


@pytest.mark.parametrize("error", [FileExistsError("exists"), OSError(errno.EINVAL, "412"), OSError(412, "failed")])
def test_lost_is_recognised_and_read_back(s3: str, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    store = bucket(s3, f"lost-{error.errno}")
    store.create("a", b"theirs")

    def lose(self: object, path: str, value: bytes, mode: str) -> None:
        raise error

    client = store._root._client()  # type: ignore[attr-defined]
    monkeypatch.setattr(client, "pipe_file", lose.__get__(client))
    assert store.commit_once("a", b"ours") == b"theirs"
    # The client repeated its request after a lost reply and met its own object.
    assert store.create("a", b"theirs")


def test_a_range_of_no_bytes_has_none(s3: str, tmp_path: Path) -> None:
    """To HTTP such a range is none, and the whole object comes."""
    for store in (bucket(s3, "ranges"), Store(tmp_path)):
        store.put_named(b"0123456789", "a")
        assert [store.read("a", start, start) for start in (0, 5, 10)] == [b""] * 3
        assert store.read("a", 7, 3) == b""
        assert store.read("a", 3, 7) == b"3456"


def test_a_creation_that_meets_another_asks_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 409 to one of two writers at the same moment; the next answer says who won."""
    store = bucket(s3, "meeting")
    client = store._root._client()  # type: ignore[attr-defined]
    create, met = client.pipe_file, []

    def meet(path: str, value: bytes, mode: str) -> None:
        met.append(path)
        if len(met) < 3:
            raise OSError(errno.EIO, "An error occurred (ConditionalRequestConflict) when calling PutObject")
        create(path, value, mode=mode)

    monkeypatch.setattr(client, "pipe_file", meet)
    monkeypatch.setattr("penstock.sharding.roots._PAUSE", 0.001)
    assert store.create("a", b"ours")
    assert len(met) == 3


def test_stores_are_equal_by_what_they_name(tmp_path: Path) -> None:
    assert Store(tmp_path) == Store(str(tmp_path)) != Store(tmp_path / "b")
    assert hash(Store(tmp_path)) == hash(Store(str(tmp_path)))
    assert Store("s3://b/x", key="1") != Store("s3://b/x", key="2")


def test_other_failures_are_not_taken_for_lost(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bucket(s3, "broken")

    def conflict(path: str, value: bytes, mode: str) -> None:
        raise OSError(errno.EIO, "ConditionalRequestConflict")

    monkeypatch.setattr(store._root._client(), "pipe_file", conflict)  # type: ignore[attr-defined]
    monkeypatch.setattr("penstock.sharding.roots._PAUSE", 0.001)
    with pytest.raises(StoreError, match="ConditionalRequestConflict"):
        store.create("a", b"ours")
    with pytest.raises(StoreError, match="no-such-bucket"):
        Store("s3://no-such-bucket/x", key="x", secret="x", endpoint_url=s3).put(b"1", "a", "")


def test_probe_finds_a_server_that_ignores_the_condition(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bucket(s3, "careless")
    client = store._root._client()  # type: ignore[attr-defined]
    overwrite = client.pipe_file
    monkeypatch.setattr(client, "pipe_file", lambda path, value, mode="overwrite": overwrite(path, value))
    with pytest.raises(StoreError, match="let a second writer replace"):
        store.probe()


def read_in_child(store: Store, answer: object) -> None:
    answer.put(store.read("a"))  # type: ignore[attr-defined]


def test_a_used_store_survives_a_fork_and_is_shared_by_threads(store: Store) -> None:
    store.create("a", b"seen")
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=read_in_child, args=(store, answer))
    child.start()
    assert answer.get(timeout=60) == b"seen"
    child.join()
    seen: list[bytes] = []
    threads = [threading.Thread(target=lambda: seen.append(store.read("a", 1, 3))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"ee"] * 8


def test_a_file_url_is_a_folder_and_hidden_leftovers_are_not_listed(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    assert store.local("x") == tmp_path / "x"
    (tmp_path / ".x.0123.tmp").write_bytes(b"left by a killed writer")
    assert store.list() == []
    assert Store("memory://x").local("y") is None
