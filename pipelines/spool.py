"""A shard on its way: encoded documents spooled to a local file, put in order, written as token files.

`penstock run` and `WriteShards` both write through this, so equal documents and an equal seed give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..sharding.format import Pack, ShardEntry, Vocabulary
from ..sharding.shard import write_shard
from ..sharding.store import Store
from ..tokenizer import Tokenizer
from ..tokenizer.vocab import require_eos
from ..transforms.schema import id_words, keyed
from .kept_edits import without_edits

GATHER_TOKENS = 1 << 22  # tokens moved at once when documents are put in order
TABLE_ROWS = 1 << 16  # documents in a row group of a shard's table


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """Say what the token files need to know of a tokenizer; RequestError where it names no end of a document."""
    return Vocabulary(
        dtype=np.dtype(tokenizer.dtype).name,
        size=tokenizer.vocab_size,
        fingerprint=tokenizer.fingerprint,
        eos_id=require_eos(tokenizer),
        bos_id=tokenizer.bos_id,
        name=tokenizer.name,
    )


class Spool:
    """Documents' tokens in a local file as they were encoded, to be put in order afterwards."""

    def __init__(self, path: Path, vocabulary: Vocabulary) -> None:
        self._path, self._vocabulary = path, vocabulary
        self._dtype = np.dtype(vocabulary.dtype).newbyteorder("<")
        self._file = path.open("wb")
        self._lengths: list[np.ndarray] = []
        self._tables: list[pa.Table] = []
        self.table = pa.table({})  # the documents, a row each, in the order of the file; once it is closed

    def add(self, batch: pa.RecordBatch, lists: pa.Array) -> None:
        """Append a batch: BOS where the vocabulary has one, the document's tokens, EOS."""
        offsets = np.asarray(lists.offsets).astype(np.int64)
        values = np.asarray(lists.values)[offsets[0] : offsets[-1]]
        lead = [] if self._vocabulary.bos_id is None else [self._vocabulary.bos_id]
        lengths = np.diff(offsets) + 1 + len(lead)
        out = np.empty(int(lengths.sum()), self._dtype)
        ends = np.cumsum(lengths)
        inside = np.ones(len(out), bool)
        inside[ends - 1] = False
        if lead:
            inside[ends - lengths] = False
            out[ends - lengths] = lead[0]
        out[ends - 1] = self._vocabulary.eos_id
        out[inside] = values
        self._file.write(out.tobytes())
        self._lengths.append(lengths)
        self._tables.append(pa.Table.from_batches([without_edits(batch).drop_columns(["text"])]))

    def take_over(self, tokens: np.ndarray, table: pa.Table) -> None:
        """Append documents that are already encoded; `end` in the table says where each ends."""
        self._file.write(tokens.astype(self._dtype, copy=False).tobytes())
        self._lengths.append(np.diff(table.column("end").to_numpy().astype(np.int64), prepend=0))
        self._tables.append(table.drop_columns(["end"]))

    def close(self) -> pa.Table:
        """Finish the file; give the documents' table, in the order of the file."""
        self._file.close()
        self.lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        self.table = pa.concat_tables(self._tables).combine_chunks()
        return self.table

    def shuffled(self, seed: int) -> np.ndarray:
        """Order the documents by (keyed hash of id, id), whatever the order of the file; gives their rows, (n,)."""
        ids = self.table.column("id").combine_chunks()
        return np.lexsort((*id_words(ids).byteswap().T[::-1], keyed(ids, f"{seed} order")))

    def ordered(self, order: np.ndarray, path: Path) -> tuple[Path, np.ndarray]:
        """Write the documents of `order` to a file; give it and the cumulative ends in tokens, uint64."""
        tokens = np.memmap(self._path, self._dtype, "r") if self._path.stat().st_size else np.zeros(0, self._dtype)
        starts = (np.cumsum(self.lengths) - self.lengths)[order]
        lengths = self.lengths[order]
        ends = np.cumsum(lengths)
        with path.open("wb") as file:
            for first, last in _runs(ends):
                file.write(tokens[ragged(starts[first:last], lengths[first:last])].tobytes())
        return path, ends.astype(np.uint64)

    def put_shard(
        self, store: Store, stream: str, number: int, order: np.ndarray, packs: Sequence[Pack], folder: Path
    ) -> ShardEntry:
        """Write the documents of `order` as a shard's files; `folder` is local and holds its payload meanwhile."""
        payload, ends = self.ordered(order, folder / "payload")
        documents = io.BytesIO()
        table = self.table.take(pa.array(order))
        pq.write_table(table, documents, compression="zstd", row_group_size=TABLE_ROWS)
        return write_shard(
            store,
            stream=stream,
            number=number,
            payload=payload,
            ends=ends,
            vocabulary=self._vocabulary,
            packs=packs,
            documents=documents.getvalue(),
        )


def _runs(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut documents into runs of about 4 Mi tokens."""
    first = 0
    while first < len(ends):
        base = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, base + GATHER_TOKENS, side="right")))
        yield first, last
        first = last


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Give the indices of [start, start + length) of every document, one after another."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
