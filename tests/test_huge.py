"""A data set of 2^33 tokens and 10^8 rows, as sparse files: nothing overflows, and what is far is as near as the rest.

The payload is a hole with a few windows of tokens in it, on both sides of 2^31, 2^32 and at the end. Its tables are
those a writer would give, made without reading it: all blocks of a hole have one checksum. Its SHA-256 is made up,
which nobody checks who only reads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xxhash
from numpy.typing import NDArray

from penstock.sharding import StreamingLoader
from penstock.sharding.best_fit import best_fit
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.format import Generation, Pack, PackCount, ShardEntry, Vocabulary
from penstock.sharding.npy import npy_bytes
from penstock.sharding.order import Order, stream_key
from penstock.sharding.packing import NO_DOCUMENT, PackTable
from penstock.sharding.shard import BLOCK_BYTES, shard_header, shard_name, write_shard
from penstock.sharding.store import Store, sha256

EOS = 0
VOCABULARY = Vocabulary("uint16", 60_000, "5" * 64, eos_id=EOS, bos_id=None, name="sparse")
TOKENS = 1 << 33
ROWS, SHORT, LONG = Pack(2048, "concat"), Pack(64, "concat"), Pack(1 << 20, "best_fit")
PACKS = (ROWS, SHORT, LONG)
#: Windows of tokens that are not zero: 4,096 around each of these.
MIDDLES = (2048, 1 << 31, 1 << 32, (1 << 32) + (1 << 31), TOKENS - 2048)


def document_ends() -> NDArray[np.uint64]:
    """Documents of 500,000 to 501,000 tokens; the last one ends with the payload."""
    ends = np.cumsum(500_000 + np.arange(TOKENS // 500_000, dtype=np.int64) * 7919 % 1000)
    return np.append(ends[ends < TOKENS - 1000], TOKENS).astype(np.uint64)


ENDS = document_ends()


def tokens(start: int, stop: int) -> NDArray[np.uint16]:
    """What the payload holds there."""
    at = np.arange(start, stop)
    inside = np.any([np.abs(at * 2 + 1 - 2 * middle) < 4096 for middle in MIDDLES], axis=0)
    low, high = np.searchsorted(ENDS, np.array([start, stop], np.uint64), side="right")
    found = np.where(inside, at * 31 % 59_999 + 1, 0)
    found[ENDS[low:high].astype(np.int64) - 1 - start] = EOS
    return found.astype(np.uint16)


def put_payload(path: Path) -> NDArray[np.uint64]:
    """Write the sparse payload and give its blocks' checksums."""
    sums = np.full(TOKENS * 2 // BLOCK_BYTES, xxhash.xxh3_64_intdigest(bytes(BLOCK_BYTES)), np.uint64)
    with path.open("wb") as file:
        file.truncate(TOKENS * 2)
        for middle in MIDDLES:
            for block in range((middle - 2048) * 2 // BLOCK_BYTES, ((middle + 2047) * 2) // BLOCK_BYTES + 1):
                body = tokens(block * BLOCK_BYTES // 2, (block + 1) * BLOCK_BYTES // 2).tobytes()
                file.seek(block * BLOCK_BYTES)
                file.write(body)
                sums[block] = xxhash.xxh3_64_intdigest(body)
    if path.stat().st_blocks * 512 > 1 << 28:
        pytest.skip("this file system has no sparse files")
    return sums


def count(pack: Pack) -> tuple[PackCount, bytes | None]:
    """A shard's rows in a pack, and the table of the pack if it has one."""
    size = pack.group_rows(2)
    if pack.policy == "best_fit":
        pieces = best_fit(ENDS, pack.length, size)
        return PackTable(pack, size, ENDS, pieces).count, npy_bytes(pieces)
    rows = -(-TOKENS // pack.length)
    cut = int(np.count_nonzero(ENDS[:-1] % pack.length))
    return PackCount(size, rows, -(-rows // size), rows // size, rows + cut), None


def put_huge(folder: Path) -> ShardEntry:
    """Write the huge shard, number 1 of its stream."""
    payload = folder / "data" / "payload"
    counts = {pack.name: count(pack) for pack in PACKS}
    bodies = {".ends.npy": npy_bytes(ENDS), ".sums.npy": npy_bytes(put_payload(payload)), ".docs.parquet": b"none"}
    members = {".bin": sha256(b"made up"), **{suffix: sha256(body) for suffix, body in bodies.items()}}
    bodies[".json"] = shard_header("train", 1, members, {"tokens": TOKENS, "documents": len(ENDS)})
    members[".json"] = sha256(bodies[".json"])
    name = shard_name("train", 1, members)
    tables = {pack.suffix: counts[pack.name][1] for pack in PACKS}
    bodies |= {suffix: table for suffix, table in tables.items() if table is not None}
    members |= {suffix: sha256(bodies[suffix]) for suffix in tables if suffix in bodies}
    payload.rename(folder / "data" / f"{name}.bin")
    for suffix, body in bodies.items():
        (folder / "data" / f"{name}{suffix}").write_bytes(body)
    packs = {pack: rows for pack, (rows, _) in counts.items()}
    return ShardEntry(name, "train", 1, TOKENS, len(ENDS), members[".bin"], members, packs)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    folder = tmp_path_factory.mktemp("huge")
    (folder / "spool").write_bytes(np.append(np.full(4095, 9), EOS).astype(np.uint16).tobytes())
    small = write_shard(
        Store(folder), stream="train", number=0, payload=folder / "spool", ends=np.array([4096], np.uint64),
        vocabulary=VOCABULARY, packs=PACKS, documents=b"none",
    )  # fmt: skip
    write_generation(Store(folder), Generation.of(0, VOCABULARY, PACKS, [small, put_huge(folder)]))
    return open_tokens(folder)


def positions_of(data: TokenData, pack: Pack, rows: list[int], epoch: int = 0) -> NDArray[np.int64]:
    """Positions at which rows of the huge shard come in an epoch, from the inverse of the order."""
    shape = data.generation.pack(pack.name).streams["train"]
    counts = data.generation.shards[1].packs[pack.name]
    small = data.generation.shards[0].packs[pack.name]
    asked = np.array(rows)
    full = asked < counts.full_groups * counts.group_rows
    # Rows of short groups are numbered behind those of all full ones, shard by shard.
    tail = shape.groups * shape.rows_per_group + small.short_rows - counts.full_groups * counts.group_rows
    numbers = asked + np.where(full, small.full_groups * small.group_rows, tail)
    return Order(shape, stream_key(0, "train")).ordinals(np.full_like(numbers, epoch), numbers)


def check_row(batch_row: NDArray[np.int32], ids: NDArray[np.uint64], mask: NDArray[np.bool_], start: int) -> None:
    """One row of concat against the formulas: tokens, labels, ids of documents, where labels count."""
    at = np.arange(start, start + len(ids))
    ordinals = np.searchsorted(ENDS, at.astype(np.uint64), side="right").astype(np.uint64)
    assert np.array_equal(ids, np.uint64(1 << 32) | ordinals)
    assert np.array_equal(batch_row[:-1], tokens(start, start + len(ids)))
    assert np.array_equal(mask, ENDS[ordinals.astype(np.int64)].astype(np.int64) - 1 > at)
    labels = tokens(start + 1, min(start + len(ids) + 1, TOKENS))
    assert np.array_equal(batch_row[1 : 1 + len(labels)][mask[: len(labels)]], labels[mask[: len(labels)]])


@pytest.mark.parametrize("pack", [ROWS, SHORT])
def test_rows_beyond_2_to_the_31_and_32_and_the_last_are_what_they_should_be(data: TokenData, pack: Pack) -> None:
    loader = StreamingLoader(data, 8, pack=pack.name)
    assert loader.epoch_rows == (TOKENS + 4096) // pack.length
    starts = [start for middle in MIDDLES for start in (middle - 2048, middle - pack.length, middle)]
    starts += [int(ENDS[at]) // pack.length * pack.length for at in (0, 8_500, len(ENDS) - 2)]
    starts.append(TOKENS - pack.length)
    for epoch in (0, 10**9):
        positions = positions_of(data, pack, [start // pack.length for start in starts], epoch)
        batch = loader.rows(positions)
        assert batch.positions.tolist() == positions.tolist()
        for row, start in enumerate(starts):
            check_row(batch.buffer[row], batch.document_ids[row], batch.loss_mask[row], start)
    assert max(positions) > 10**9 * loader.epoch_rows > 1 << 51


def test_offsets_and_pieces_of_best_fit_are_64_bits_wide(data: TokenData) -> None:
    loader = StreamingLoader(data, 2, pack=LONG.name)
    table = data.reader(1).table(LONG)
    batch = loader.rows(positions_of(data, LONG, [table.rows - 1, table.rows // 2]))
    for row, number in enumerate((table.rows - 1, table.rows // 2)):
        starts, segments = table.pieces(number)
        assert starts.max() > 1 << 31
        held = np.concatenate(
            [
                tokens(start, start + length)
                for start, length in zip(starts.tolist(), segments["length"].tolist(), strict=True)
            ]
        )
        assert np.array_equal(batch.tokens[row][: len(held)], held)
        ids = batch.document_ids[row]
        known = ids[ids != NO_DOCUMENT]
        assert np.array_equal(known, np.repeat(segments["document"], segments["length"]) | np.uint64(1 << 32))
        assert np.array_equal(segments["offset"], starts - np.append(0, ENDS).astype(np.int64)[segments["document"]])


def test_steps_far_away_are_reached_and_rows_of_an_epoch_differ(data: TokenData) -> None:
    """Of 10^8 rows: every rank's share of a step in the epoch number a million, and its place in the state."""
    loader = StreamingLoader(data, 4096, pack=SHORT.name, rank=383, world_size=384)
    assert loader.epoch_rows > 10**8
    step = 10**6 * loader.epoch_rows // 4096 + 7
    loader.seek(step)
    batch = next(iter(loader))
    assert (batch.step, batch.end) == (step, (step + 1) * 4096)
    assert batch.positions.min() >= step * 4096
    assert loader.position == (step + 1) * 4096 == loader.state_dict()["position"]
    places = loader.places(range(step * 4096, step * 4096 + 20_000))
    keys = (places.shards << 40) + (places.groups << 20) + places.rows
    assert len(np.unique(keys)) == 20_000
    assert places.groups.max() > (1 << 27) / 8192 * 0.9


def test_documents_at_the_far_end_come_whole(data: TokenData) -> None:
    count = len(ENDS)
    loader = StreamingLoader(data, 8, pack=ROWS.name, rank=count - 1, world_size=count)
    held = {document.document_id: document.tokens for document in loader.documents()}
    last = held[(1 << 32) | count - 1]
    assert np.array_equal(last, tokens(int(ENDS[-2]), TOKENS))
    assert last[-1] == EOS
    assert last[-2] != EOS


def test_a_hole_is_read_in_its_blocks(data: TokenData) -> None:
    reader = data.reader(1)
    for start in (0, 1 << 31, (1 << 32) + 5, TOKENS - 3):
        assert np.array_equal(reader.tokens(start, start + 70_000), tokens(start, min(start + 70_000, TOKENS)))
