"""Token data sets for the loader's tests: groups of a few rows, so that small files have lanes and windows.

Needs nothing but NumPy and penstock's base, so that the tests of the adapters run where only theirs is installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from penstock.sharding import pack as token_pack
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.format import Generation, Pack, Vocabulary
from penstock.sharding.shard import write_shard
from penstock.sharding.store import Store

EOS = 0
VOCABULARY = Vocabulary("uint16", 60_000, "5" * 64, eos_id=EOS, bos_id=None, name="small")
LARGE = Vocabulary("uint32", 100_000, "7" * 64, eos_id=EOS, bos_id=None, name="large")
PACKS = (Pack(16, "concat"), Pack(32, "best_fit"))
#: Shards by stream, and documents in each. train/a has so many groups that its rows are played in lanes.
SHARDS: Mapping[str, Sequence[int]] = {"train/a": (400, 300, 5), "train/b": (60, 1), "validation/a": (40,)}


def document_tokens(stream: str, number: int, documents: int, size: int) -> list[list[int]]:
    """Tokens of each document of a shard, EOS in them, from a fixed seed."""
    chance = np.random.default_rng([number, *stream.encode()])
    lengths = np.minimum(chance.geometric(1 / 30, documents), 200)
    return [[*chance.integers(1, size, length - 1).tolist(), EOS] for length in lengths.tolist()]


def put_data(
    folder: Path,
    vocabulary: Vocabulary = VOCABULARY,
    packs: Sequence[Pack] = PACKS,
    shards: Mapping[str, Sequence[int]] = SHARDS,
    group_bytes: int = 128,
) -> TokenData:
    """Write a data set of groups of about `group_bytes`."""
    folder.mkdir(parents=True)
    entries = []
    with mock.patch.multiple(token_pack, GROUP_BYTES=group_bytes, FITTING_ROWS=4):
        for stream, counts in shards.items():
            for number, count in enumerate(counts):
                documents = document_tokens(stream, number, count, vocabulary.size)
                ends = np.cumsum([len(tokens) for tokens in documents]).astype(np.uint64)
                spool = folder / "spool"
                spool.write_bytes(np.concatenate(documents).astype(vocabulary.token).tobytes())
                entries.append(write_shard(
                    Store(folder), stream=stream, number=number, payload=spool, ends=ends, vocabulary=vocabulary,
                    packs=packs, documents=b"none",
                ))  # fmt: skip
                spool.unlink()
        write_generation(Store(folder), Generation.of(0, vocabulary, packs, entries))
    return open_tokens(folder)
