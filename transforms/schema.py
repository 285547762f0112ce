"""The columns of a document batch, and how a document gets its id.

A document batch is a `pa.RecordBatch` of at most 1,000 documents or 8 MiB of text, whichever comes first. Steps add
columns to the right of these and never remove one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import xxhash

BATCH_DOCUMENTS = 1_000
BATCH_BYTES = 8 << 20

ID = pa.binary(16)

#: What every reader yields. `html` is the decoded page of formats that need extraction, null elsewhere.
#:
#: `place` is a byte offset in the file as it is stored where that finds the bytes: of the line in plain JSONL, of the
#: record in plain WARC, of the record's gzip member in gzipped WARC (as in Common Crawl's index; rows that share a
#: member count on by one). Elsewhere it is an ordinal: of the line in compressed JSONL, of the row in Parquet; 0 in a
#: text file. It never depends on how a file is cut into tasks.
DOCUMENT = pa.schema(
    [
        pa.field("id", ID, nullable=False),  # 128-bit hash of (source, path, place)
        pa.field("source", pa.string(), nullable=False),  # name of the input in the recipe
        pa.field("path", pa.string(), nullable=False),  # of the file, relative to the input's root
        pa.field("place", pa.int64(), nullable=False),  # in the file as stored: see below
        pa.field("source_id", pa.string()),  # the user's own id, where a column is mapped to it
        pa.field("url", pa.string()),
        pa.field("text", pa.string()),  # null until a page is extracted
        pa.field("html", pa.string()),
        pa.field("language", pa.string()),
        pa.field("metadata", pa.string()),  # a JSON object of what the record also held
    ]
)


def document_ids(source: str, path: str, places: Iterable[int]) -> pa.FixedSizeBinaryArray:
    """Hash (source, path, place) to 16 bytes each: the same wherever the files lie and however they are cut."""
    head = xxhash.xxh3_128(f"{source}\0{path}\0".encode())
    out = bytearray()
    for place in places:
        state = head.copy()
        state.update(int(place).to_bytes(8, "little"))
        out += state.digest()
    return pa.FixedSizeBinaryArray.from_buffers(ID, len(out) // 16, [None, pa.py_buffer(bytes(out))])


def id_words(ids: pa.FixedSizeBinaryArray) -> np.ndarray:
    """View ids as (n, 2) little-endian uint64 words."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    data = ids.buffers()[1]
    if data is None:
        return np.empty((0, 2), "<u8")
    return np.frombuffer(data, "<u8")[2 * ids.offset : 2 * (ids.offset + len(ids))].reshape(-1, 2)


def id_sum(ids: pa.FixedSizeBinaryArray) -> int:
    """Sum the first 8 bytes of each id, little-endian, modulo 2**64: equal sums mean equal sets."""
    return int(id_words(ids)[:, 0].sum(dtype=np.uint64)) if len(ids) else 0


def keyed(ids: pa.Array, key: str) -> np.ndarray:
    """Hash ids with a key to uint64 (n,).

    The same for an id wherever and whenever it is asked (splitmix64 finaliser).
    """
    words = id_words(ids)
    with np.errstate(over="ignore"):
        mixed = words[:, 0] ^ np.uint64(xxhash.xxh3_64_intdigest(key.encode()))
        for addend in (words[:, 1], np.uint64(0x9E3779B97F4A7C15)):
            mixed = mixed + addend
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray(mixed, np.uint64)
