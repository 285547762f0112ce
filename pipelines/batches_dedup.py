"""What the PTransform `Deduplicate` does, as plain functions: a batch signed, equal digests linked, clusters settled.

A witness is 48 bytes and 8 a policy: a document's digest in a band, its id, the digest of its content, the numbers that
its policies sort by. Documents are named by their ids, which must differ; places do not count, as nothing is committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .. import RequestError
from ..transforms.kernels.graph import components
from ..transforms.kernels.minhash import digest_bands
from ..transforms.minhash import content_digests
from ..transforms.schema import ID, id_words
from .clusters import Members, binary_ids
from .duplicates import Dedup
from .exchange import HASHES, fold, pack
from .keep import keep_keys

#: What settling clusters gives: a row for every document that goes.
REMOVED = pa.schema([("id", ID), ("kept_id", ID), ("cluster", ID), ("cluster_size", pa.int64()), ("kind", pa.string())])
CONTENT = "content"


def check_batches(dedup: Dedup) -> None:
    """Refuse kinds that need more than one look at the documents."""
    if dedup.further:
        raise RequestError(
            f"Deduplicate compares whole documents once, and {', '.join(dedup.further)} needs another look at them: "
            "use `penstock dedup`, or a recipe's `dedup`"
        )


def witness(policies: int) -> np.dtype[np.void]:
    """Describe a witness."""
    names = ["high", "low", "id0", "id1", "content0", "content1", *(f"key{number}" for number in range(policies))]
    return np.dtype([(name, "<u8") for name in names])


def sign_batch(batch: pa.RecordBatch, dedup: Dedup, ranges: int) -> Iterator[tuple[str, bytes]]:
    """Digest a batch: (band and hash range, witnesses)."""
    if not len(batch):
        return
    texts = batch.column("text")
    contents, ids = content_digests(texts, dedup.normalisation), id_words(batch.column("id"))
    keys = np.concatenate([keep_keys(dedup.keep, source, rows) for source, rows in by_source(batch)])
    rows = np.empty(len(batch), witness(len(dedup.keep)))
    rows["id0"], rows["id1"], rows["content0"], rows["content1"] = *ids.T, *contents.T
    for place in range(len(dedup.keep)):
        rows[f"key{place}"] = keys[:, place]
    enough = np.zeros(len(batch), bool)
    bands: dict[str, NDArray[np.uint64]] = {}
    if dedup.minhash is not None:
        values, enough = dedup.minhash.signatures(texts)
        bands = {f"{number:03d}": made for number, made in enumerate(digest_bands(values, dedup.minhash.bands))}
    everything = np.ones(len(batch), bool)
    for band, digests, here in [
        (CONTENT, contents, everything if dedup.exact else ~enough),
        *((band, digests, enough) for band, digests in bands.items()),
    ]:
        made = rows[here]
        made["high"], made["low"] = digests[here].T
        number = (made["high"] // np.uint64(-(-HASHES // ranges) if ranges > 1 else HASHES - 1)).astype(np.int64)
        for at in np.unique(number).tolist():
            yield f"{band}-{min(at, ranges - 1):04d}", made[number == at].tobytes()


def by_source(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Part a batch where its source changes."""
    if "source" not in batch.schema.names:
        yield "", batch
        return
    names = batch.column("source").to_pylist()
    starts = [row for row, name in enumerate(names) if row == 0 or name != names[row - 1]]
    for start, end in zip(starts, [*starts[1:], len(batch)], strict=True):
        yield names[start] or "", batch.slice(start, end - start)


def link_witnesses(values: Iterable[bytes], policies: int) -> bytes:
    """Link equal digests: pairs of witnesses, the first of a digest by its id with each of the others."""
    rows = np.frombuffer(b"".join(values), witness(policies))
    rows = rows[np.lexsort((rows["id1"].byteswap(), rows["id0"].byteswap()))]
    digests = np.stack([rows["high"], rows["low"]], axis=1)
    _, edges = fold(pack(digests, np.arange(len(rows), dtype=np.uint64)))
    return rows[edges.astype(np.int64)].tobytes()


def settle(values: Iterable[bytes], keep: Sequence[str]) -> pa.RecordBatch:
    """Turn pairs into clusters; say who goes and for whom."""
    rows = np.frombuffer(b"".join(values), witness(len(keep)))
    ids, first, ends = np.unique(
        np.stack([rows["id0"], rows["id1"]], axis=1), axis=0, return_index=True, return_inverse=True
    )
    nodes, labels = components(ends.reshape(-1, 2).astype(np.uint64))
    at = nodes.astype(np.int64)
    held, named = rows[first[at]], np.ascontiguousarray(ids[at]).reshape(-1, 2)
    contents = np.stack([held["content0"], held["content1"]], axis=1)
    keys = np.stack([held[f"key{place}"] for place in range(len(keep))], axis=1)
    members = Members(nodes, np.searchsorted(nodes, labels), named, contents, contents, keys, None)
    kept = members.chosen(keep)[members.roots]
    gone = np.flatnonzero(kept != np.arange(len(kept)))
    roots, stays = members.roots[gone], kept[gone]
    same = np.all(contents[stays] == contents[gone], axis=1)
    return pa.RecordBatch.from_arrays(
        [
            *(binary_ids(named[which]) for which in (gone, stays, members.smallest()[roots])),
            pa.array(members.sizes()[roots]),
            pc.if_else(pa.array(same), "exact", "near"),
        ],
        schema=REMOVED,
    )


def drop(batch: pa.RecordBatch, removed: pa.Array) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Part a batch into the documents that stay and those that go."""
    goes = pc.is_in(batch.column("id"), value_set=removed)
    return batch.filter(pc.invert(goes)), batch.filter(goes)
