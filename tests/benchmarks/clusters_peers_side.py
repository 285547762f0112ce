"""The peers of `clusters.py`: made signatures to clusters by datasketch, rensa and datatrove, each in its own way.

datasketch and rensa: an index of 14 bands of 8, each row inserted, then asked for, and a union-find of what meets.
datatrove: its stages 2 and 3, over files as its stage 1 writes them. What makes and carries rows in is not in the time.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

BANDS, ROWS, BATCH = 14, 8, 1000


def made(first: int, rows: int) -> Any:
    """Make signatures (rows, 112) uint32 of rows from `first` on; a tenth repeat an earlier one of their thousand."""
    import numpy as np

    found = np.empty((rows, BANDS * ROWS), np.uint32)
    for at in range(0, rows, BATCH):
        chance = np.random.default_rng(first + at)
        values = chance.integers(0, 1 << 32, (BATCH, BANDS, ROWS), np.uint32)
        copies = chance.integers(BATCH // 10, BATCH, BATCH // 10)
        shared = chance.random((len(copies), BANDS)) < chance.random((len(copies), 1))
        values[copies] = np.where(shared[:, :, None], values[chance.integers(0, copies)], values[copies])
        found[at : at + BATCH] = values.reshape(BATCH, -1)[: rows - at]
    return found


def datasketch_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Insert every row, ask for each, join what meets."""
    from datasketch import MinHash, MinHashLSH
    from xxhash import xxh32_intdigest

    named = {"num_perm": BANDS * ROWS, "seed": 1, "scheme": "affine32", "hashfunc": xxh32_intdigest}
    empty = MinHash(**named)
    rows = made(0, arguments.peer_rows)
    hashes = [MinHash(**named, hashvalues=row, permutations=empty.permutations) for row in rows]
    start = time.process_time()
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    for number, one in enumerate(hashes):
        index.insert(number, one, check_duplication=False)
    found = joined(len(hashes), ((number, other) for number, one in enumerate(hashes) for other in index.query(one)))
    return {"clustering": time.process_time() - start, "clusters": found}


def joined(rows: int, pairs: Any) -> list[int]:
    """Give each row's cluster, as the smallest row in it."""
    roots = list(range(rows))

    def root(number: int) -> int:
        while roots[number] != number:
            roots[number] = number = roots[roots[number]]
        return number

    for number, other in pairs:
        low, high = sorted((root(number), root(other)))
        roots[high] = low
    return [root(number) for number in range(rows)]


def rensa_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Insert every row, ask for each, join what meets; signatures get in by way of how rensa pickles them."""
    import numpy as np
    from rensa import RMinHash, RMinHashLSH

    empty = RMinHash(num_perm=BANDS * ROWS, seed=1)
    head = empty.__getstate__()[: -5 * BANDS * ROWS]  # what follows are the values, all bits set: 5 bytes each
    rows = made(0, arguments.rensa_rows).astype(np.uint64)[:, :, None]
    shifted = rows >> (np.arange(5, dtype=np.uint64) * np.uint64(7))
    last = np.maximum(1, ((shifted > 0).sum(axis=2)))[:, :, None] - 1
    at = np.arange(5)
    coded = ((shifted & np.uint64(127)) | np.where(at < last, np.uint64(128), np.uint64(0))).astype(np.uint8)
    hashes = []
    for values, held in zip(coded, at <= last, strict=True):
        one = RMinHash(num_perm=BANDS * ROWS, seed=1)
        one.__setstate__(head + values[held].tobytes())
        hashes.append(one)
    assert hashes[-1].digest() == rows[-1, :, 0].tolist()
    start = time.process_time()
    index = RMinHashLSH(threshold=0.7, num_perm=BANDS * ROWS, num_bands=BANDS)
    index.insert_many(hashes)
    near = index.query_all(hashes)
    found = joined(len(hashes), ((number, other) for number, others in enumerate(near) for other in others))
    return {"clustering": time.process_time() - start, "clusters": found[: arguments.peer_rows]}


def datatrove_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run stages 2 and 3 over files as stage 1 writes them."""
    import numpy as np
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(num_buckets=BANDS, hashes_per_bucket=ROWS, hash_config=HashConfig(precision=32))
    signatures, folder = made(0, arguments.peer_rows), work / "datatrove"
    for band in range(BANDS):
        values = np.column_stack([signatures[:, ROWS * band : ROWS * (band + 1)], np.arange(len(signatures))])
        file = folder / "signatures" / f"bucket_{band:03d}" / "00000.minhash.sig"
        file.parent.mkdir(parents=True)
        file.write_bytes(values[np.lexsort(values.T[::-1])].astype("<u4").tobytes())
    start = time.process_time()
    paths = [str(folder / name) for name in ("signatures", "pairs", "removals")]
    for band in range(BANDS):
        MinhashDedupBuckets(*paths[:2], config=config).run(None, band, BANDS)
    MinhashDedupCluster(*paths[1:], config=config, save_cluster_id=True).run()
    spent = time.process_time() - start
    pairs = np.frombuffer((folder / "removals" / "000000.clusters").read_bytes(), "<u4").reshape(-1, 2)
    found = list(range(arguments.peer_rows))
    firsts: dict[int, int] = {}
    for row, cluster in sorted(pairs.tolist()):
        found[row] = firsts.setdefault(cluster, row)
    shutil.rmtree(folder)
    return {"clustering": spent, "clusters": found}
