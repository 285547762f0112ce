"""A shard written anew without some of its documents: their tokens are EOS, their records null but for the id.

Everything keeps its place: ends, packs, rows and the order of all other documents are what they were, so a loader goes
on where it stood. One pass over the payload, 8 MiB at a time; docs.parquet a row group at a time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ... import CorruptDataError, require
from ..documents import Documents
from ..entry import ShardEntry
from ..shard import ShardReader, write_shard

Ints = NDArray[np.int64]
_TOKENS_AT_ONCE = 1 << 22


def write_without(documents: Documents, shard: int, ordinals: Sequence[int], folder: Path) -> ShardEntry:
    """Write a shard anew without the documents `ordinals`, beside those that are gone already; give its entry.

    folder: a local one, for the payload meanwhile. Equal content is written once, so this may be done again.
    """
    reader = documents.data.reader(shard)  # one of its own: its map of the payload goes with it
    gone = np.union1d(reader.gone.astype(np.int64), np.asarray(ordinals, np.int64))
    payload = folder / "payload"
    _write_payload(reader, gone, payload)
    written = write_shard(
        reader.store, stream=reader.entry.stream, number=reader.entry.number, payload=payload, ends=reader.ends,
        vocabulary=reader.vocabulary, packs=(), documents=_records(documents, shard, gone), loss=reader.loss, gone=gone,
    )  # fmt: skip
    payload.unlink()
    return _with_packs(reader, written)


def _write_payload(reader: ShardReader, gone: Ints, payload: Path) -> None:
    """Copy the payload, verified, with EOS in the place of every token of what is gone."""
    ends = reader.ends.astype(np.int64)
    stops = ends[gone]
    starts = np.where(gone > 0, ends[gone - 1], 0)
    with payload.open("wb") as file:
        for first in range(0, reader.entry.tokens, _TOKENS_AT_ONCE):
            tokens = reader.tokens(first, first + _TOKENS_AT_ONCE).copy()
            last = first + len(tokens)
            inside = slice(int(np.searchsorted(stops, first, "right")), int(np.searchsorted(starts, last)))
            for start, stop in zip(starts[inside].tolist(), stops[inside].tolist(), strict=True):
                tokens[max(0, start - first) : max(0, stop - first)] = reader.vocabulary.eos_id
            tokens.tofile(file)


def _records(documents: Documents, shard: int, gone: Ints) -> bytes:
    """Make docs.parquet anew: rows of what is gone keep their place and id, and nothing else."""
    arrow, parquet = require("pyarrow", "curate"), require("pyarrow.parquet", "curate")
    table, body, first = documents.table(shard), io.BytesIO(), 0
    with parquet.ParquetWriter(body, table.schema_arrow, compression="zstd") as writer:
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group, use_threads=False)
            here = np.arange(first, first + len(rows))
            taken = arrow.array(here - first, mask=np.isin(here, gone))  # a null takes a null
            held = {name: rows.column(name) for name in rows.column_names}
            columns = [column if name == "id" else column.take(taken) for name, column in held.items()]
            writer.write_table(arrow.table(columns, schema=table.schema_arrow), row_group_size=max(1, len(rows)))
            first += len(rows)
    return body.getvalue()


def _with_packs(reader: ShardReader, written: ShardEntry) -> ShardEntry:
    """Give the new shard the packs of the old: document ends are the same, so tables are too, byte for byte."""
    old = reader.entry
    if written.members[".ends.npy"] != old.members[".ends.npy"]:
        raise CorruptDataError(f"{old.path('.ends.npy')} is not as penstock writes it: restore it from a copy")
    tables = {pack: f".{pack}.npy" for pack in old.packs if f".{pack}.npy" in old.members}
    for suffix in tables.values():
        reader.store.put_named(bytes(reader.member(suffix)), written.path(suffix))
    members = {**written.members, **{suffix: old.members[suffix] for suffix in tables.values()}}
    return replace(written, members=members, packs=old.packs)
