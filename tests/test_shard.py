"""Shards: what is written is read back, streamed and by ranges; every kind of damage has its name."""

from __future__ import annotations

import pickle
import shutil
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from token_files import LARGE, PACKS, SMALL, document_of, documents_of, put_shard

from penstock import CorruptDataError, InputError, PenstockError
from penstock.sharding.canonical import SHARD_MAGIC, canonical
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.format import Generation, ShardEntry, Vocabulary
from penstock.sharding.shard import BLOCK_BYTES, ShardReader, write_shard
from penstock.sharding.store import Store, sha256
from penstock.sharding.tools import verify

#: The document that was taken down.
GONE = 7
LENGTHS = [700 + at * 37 % 400 for at in range(120)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of three blocks each, both with tokens that are not learned and a document that was taken down."""
    folder = tmp_path_factory.mktemp("written")
    shards = {("web", 0): LENGTHS, ("web", 1): LENGTHS[::-1]}
    entries = [
        put_shard(folder / "set", folder / "spool", stream, at, lengths, loss=[[3 + at, 9]], gone=[GONE + at])
        for (stream, at), lengths in shards.items()
    ]
    write_generation(Store(folder / "set"), Generation.of(0, SMALL, PACKS, entries))
    return folder / "set"


@pytest.fixture
def data(written: Path, tmp_path: Path) -> TokenData:
    """A copy that a test may damage."""
    shutil.copytree(written, tmp_path / "set")
    return open_tokens(tmp_path / "set")


def expected(vocabulary: Vocabulary = SMALL) -> list[int]:
    return [token for at, length in enumerate(LENGTHS) for token in document_of(vocabulary, at, length, at == GONE)]


def test_tokens_come_back_by_ranges(data: TokenData) -> None:
    reader, tokens = data.reader(0), expected()
    block = BLOCK_BYTES // 2
    for start, stop in [(0, 1), (0, len(tokens)), (block - 1, block + 1), (block, 2 * block), (5, 5), (90_000, 10**9)]:
        assert reader.tokens(start, stop).tolist() == tokens[start:stop]
    assert not reader.tokens(0, 10).flags.writeable
    assert reader.ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert reader.header["largest_id"] == max(tokens)
    with pytest.raises(IndexError):
        reader.tokens(7, 6)


def test_a_remote_shard_is_read_by_whole_blocks(written: Path, data: TokenData) -> None:
    remote = Store("memory://shards/set")
    for name in data.store.list():
        remote.put_named(written / name, name)
    asked: list[tuple[str, str, int, int | None]] = []

    def fetch(name: str, digest: str, start: int, end: int | None) -> bytes:
        asked.append((name, digest, start, end))
        return remote.read(name, start, end)

    entry = data.generation.shards[0]
    reader = ShardReader(remote, entry, SMALL, 0, fetch)
    assert reader.tokens(40_000, 40_003).tolist() == expected()[40_000:40_003]
    assert (entry.path(".bin"), entry.sha256, BLOCK_BYTES, 2 * BLOCK_BYTES) in asked
    assert {name for name, *_ in asked} == {entry.path(".bin"), entry.path(".sums.npy")}
    plain = ShardReader(remote, entry, SMALL)
    assert plain.tokens(0, 10**9).tolist() == expected()
    for pack in PACKS:
        mine, theirs = plain.table(pack), data.reader(0).table(pack)
        assert mine.count == theirs.count == entry.packs[pack.name]
        assert mine.layout(0).copies.tolist() == theirs.layout(0).copies.tolist()


def test_a_reader_travels_and_is_shared_by_threads(data: TokenData) -> None:
    reader = data.reader(0)
    reader.tokens(0, 10)
    other = pickle.loads(pickle.dumps(reader))
    assert other.tokens(0, 10**9).tolist() == expected()
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(int(reader.tokens(0, 10**9).sum()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [sum(expected())] * 4


def test_equal_content_has_an_equal_name_and_is_written_once(data: TokenData, tmp_path: Path) -> None:
    before = {name: (tmp_path / "set" / name).stat().st_mtime_ns for name in data.store.list("data/")}
    marks: dict[str, Any] = {"loss": [[3, 9]], "gone": [GONE]}
    entry = put_shard(tmp_path / "set", tmp_path / "spool", "web", 0, LENGTHS, **marks)
    assert entry == data.generation.shards[0]
    assert {name: (tmp_path / "set" / name).stat().st_mtime_ns for name in data.store.list("data/")} == before
    changed = put_shard(tmp_path / "set", tmp_path / "spool", "web", 0, LENGTHS, documents=b"other documents", **marks)
    assert changed.sha256 == entry.sha256
    assert changed.name != entry.name


def test_any_stream_name_makes_a_safe_and_its_own_file_name(tmp_path: Path) -> None:
    streams = ["web/en", "web.en", "web en", "../../etc", "日本語", "", "a" * 300, "train\n\0"]
    entries = [put_shard(tmp_path / "set", tmp_path / "spool", stream, 7, [3, 4]) for stream in streams]
    assert [entry.stream for entry in entries] == streams
    assert len({entry.name for entry in entries}) == len(streams)
    assert all(len(entry.name) < 80 and entry.name.replace("-", "").replace("_", "").isalnum() for entry in entries)
    assert {path.parent for path in (tmp_path / "set").rglob("*.bin")} == {tmp_path / "set" / "data"}


def test_what_is_not_the_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    spool, store = tmp_path / "spool", Store(tmp_path / "set")

    def attempt(tokens: list[int], ends: list[int], vocabulary: Vocabulary = SMALL) -> None:
        spool.write_bytes(np.array(tokens, vocabulary.token).tobytes())
        write_shard(store, stream="s", number=0, payload=spool, ends=np.array(ends, np.uint64), vocabulary=vocabulary,
                    packs=PACKS, documents=b"d")  # fmt: skip

    for tokens, ends, words in [
        ([], [], "one or more tokens"),
        ([5, 0], [], "must lead to the payload's 2 tokens"),
        ([5, 0, 5, 0], [2], "must lead to the payload's 4 tokens"),
        ([5, 0], [0, 2], "must rise"),
        ([5, 0, 0], [2, 2, 3], "must rise"),
        ([5, 6], [2], "does not end with EOS"),
        ([5, 6, 5, 0], [2, 4], "does not end with EOS"),
        ([1000, 0], [2], "the id 1000, the vocabulary small ends at 999"),
    ]:
        with pytest.raises(ValueError, match=words):
            attempt(tokens, ends)
    spool.write_bytes(b"123456")
    with pytest.raises(ValueError, match="of 4 bytes"):
        write_shard(store, stream="s", number=0, payload=spool, ends=np.array([1], np.uint64), vocabulary=LARGE,
                    packs=PACKS, documents=b"d")  # fmt: skip
    assert store.list() == []
    attempt([5, 0], [2])


def test_a_large_payload_is_streamed(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    tokens = np.full(32 << 19, 7, "<u2")
    ends = np.arange(1 << 20, len(tokens) + 1, 1 << 20).astype(np.uint64)
    tokens[ends.astype(np.int64) - 1] = 0
    tokens.tofile(spool)
    del tokens
    tracemalloc.start()
    entry = write_shard(Store(tmp_path / "set"), stream="s", number=0, payload=spool, ends=ends, vocabulary=SMALL,
                        packs=PACKS, documents=b"d")  # fmt: skip
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert entry.tokens * 2 == 32 << 20
    assert peak < 28 << 20


def flip(path: Path, at: int) -> None:
    body = bytearray(path.read_bytes())
    body[at] ^= 1
    path.write_bytes(body)


def read_all(data: TokenData, shard: int = 0) -> None:
    """What a loader and the tools touch of a shard."""
    reader = data.reader(shard)
    assert reader.header["magic"] == SHARD_MAGIC
    for pack in PACKS:
        reader.table(pack)
    assert len(reader.loss) == len(reader.gone) == 1
    reader.tokens(0, 10**9)
    reader.member(".docs.parquet")


def member(data: TokenData, suffix: str, shard: int = 0) -> Path:
    path = data.store.local(data.generation.shards[shard].path(suffix))
    assert path is not None
    return path


SUFFIXES = [".bin", ".json", ".ends.npy", ".sums.npy", ".best_fit-64.npy", ".docs.parquet", ".loss.npy", ".gone.npy"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_flipped_bit_is_found_in_every_member(data: TokenData, suffix: str, place: str) -> None:
    path = member(data, suffix)
    flip(path, {"first": 0, "middle": path.stat().st_size // 2, "last": -1}[place])
    with pytest.raises(CorruptDataError, match=data.generation.shards[0].name):
        read_all(data)
    read_all(data, 1)


def test_a_flipped_bit_is_found_anywhere(data: TokenData) -> None:
    """Thirty places a member, chosen by a fixed seed: magic, header, padding, data."""
    chance = np.random.default_rng(5)
    for suffix in SUFFIXES:
        path = member(data, suffix)
        body = path.read_bytes()
        for at in chance.integers(0, len(body), 30).tolist():
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([body[at] ^ 1 << int(chance.integers(8))]))
            with pytest.raises(CorruptDataError, match=data.generation.shards[0].name):
                read_all(data)
            with path.open("r+b") as file:
                file.seek(at)
                file.write(body[at : at + 1])
        read_all(data)


def test_shards_that_were_exchanged_whole_are_found(data: TokenData) -> None:
    for suffix in SUFFIXES:
        here, there = member(data, suffix), member(data, suffix, 1)
        body = here.read_bytes()
        shutil.copy(there, here)
        there.write_bytes(body)
    for shard in range(2):
        with pytest.raises(CorruptDataError, match=data.generation.shards[shard].name):
            read_all(data, shard)


def test_a_payload_from_before_a_takedown_is_found(data: TokenData, tmp_path: Path) -> None:
    """A copy that put an old file back: as long as the new one, and most of its blocks are the same."""
    old = put_shard(tmp_path / "old", tmp_path / "spool", "web", 0, LENGTHS)
    shutil.copy(tmp_path / "old" / old.path(".bin"), member(data, ".bin"))
    with pytest.raises(CorruptDataError, match=r"block 0 \(bytes 0 to 65536"):
        read_all(data)
    with pytest.raises(CorruptDataError, match="does not match its SHA-256"):
        verify(data.store.url)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["cut", "emptied", "longer", "gone", "swapped"])
def test_other_damage_is_found_in_every_member(data: TokenData, suffix: str, damage: str) -> None:
    path = member(data, suffix)
    body = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "swapped":
        shutil.copy(member(data, suffix, 1), path)
    else:
        path.write_bytes({"cut": body[:-1], "emptied": b"", "longer": body + b"\0"}[damage])
    with pytest.raises(CorruptDataError, match=data.generation.shards[0].name):
        read_all(data)


def test_the_block_is_named_and_the_others_are_read(data: TokenData) -> None:
    flip(member(data, ".bin"), BLOCK_BYTES + 100)
    reader, block = data.reader(0), BLOCK_BYTES // 2
    assert reader.tokens(0, block).tolist() == expected()[:block]
    with pytest.raises(CorruptDataError, match=rf"block 1 \(bytes {BLOCK_BYTES} to {2 * BLOCK_BYTES} of data/web-"):
        reader.tokens(block + 5, block + 6)
    assert len(reader.tokens(2 * block, 10**9))


@pytest.mark.parametrize("change", [lambda body: body[:-10], lambda body: body[:70_000] + b"!" + body[70_001:]])
def test_a_remote_payload_is_verified_too(data: TokenData, change: Callable[[bytes], bytes]) -> None:
    entry = data.generation.shards[0]

    def fetch(name: str, digest: str, start: int, end: int | None) -> bytes:
        body = member(data, name.removeprefix(entry.path(""))).read_bytes()
        return change(body)[start:end] if name.endswith(".bin") else body[start:end]

    remote = Store("memory://verified/set")
    for suffix in entry.members:
        remote.put_named(member(data, suffix), entry.path(suffix))
    with pytest.raises(CorruptDataError, match=r"cut short|block 1 "):
        ShardReader(remote, entry, SMALL, 0, fetch).tokens(0, 10**9)


def with_members(data: TokenData, **bodies: bytes) -> ShardEntry:
    """The first shard, listed with the checksums of other bodies: a writer's mistake, not a damaged disk."""
    entry = data.generation.shards[0]
    members = dict(entry.members)
    for suffix, body in bodies.items():
        member(data, suffix).write_bytes(body)
        members[suffix] = sha256(body)
    return replace(entry, members=members)


def test_a_header_of_a_newer_major_is_refused(data: TokenData) -> None:
    header = canonical({**data.reader(0).header, "version": [2, 0]})
    reader = ShardReader(data.store, with_members(data, **{".json": header}), SMALL)
    with pytest.raises(InputError, match=r"format 2\.0, this penstock reads 1\.x"):
        print(reader.header)


@pytest.mark.parametrize("body", [b"no array at all", b"\x93NUMPY\x01\x00", documents_of("s", 0, 3)])
def test_a_table_that_is_none_is_refused(data: TokenData, body: bytes) -> None:
    reader = ShardReader(data.store, with_members(data, **{".ends.npy": body}), SMALL)
    with pytest.raises(CorruptDataError, match="is no table of penstock"):
        print(reader.ends)


def test_a_table_of_another_shape_is_refused(data: TokenData) -> None:
    ends = member(data, ".sums.npy").read_bytes()
    reader = ShardReader(data.store, with_members(data, **{".ends.npy": ends}), SMALL)
    with pytest.raises(PenstockError, match="it belongs to another shard"):
        print(reader.ends)
