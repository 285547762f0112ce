"""From a token back to its document: what NAME.docs.parquet knows, by shard and ordinal or by a row of a pack.

The cold half of a shard, opened late and only here; pyarrow is imported when a table is first read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .. import InputError, require
from .dataset import TokenData
from .shard import ShardReader

#: Shards and row groups kept open: a step's rows come back to the same few.
_OPEN_SHARDS, _OPEN_GROUPS = 8, 4
#: Documents read at a time when many are asked for.
_BATCH = 1000


class Documents:
    """What is known of the documents of a data set. Shards count in the generation's order."""

    def __init__(self, data: TokenData) -> None:
        self.data = data
        self.reader = lru_cache(_OPEN_SHARDS)(self._reader)
        self.table = lru_cache(_OPEN_SHARDS)(self._table)
        self._group = lru_cache(_OPEN_GROUPS)(self._read_group)

    def _reader(self, shard: int) -> ShardReader:
        """Open a shard."""
        count = len(self.data.generation.shards)
        if not 0 <= shard < count:
            raise InputError(f"there is no shard {shard}: this data set has shards 0 to {count - 1}")
        return self.data.reader(shard)

    def _table(self, shard: int) -> Any:
        """Open a shard's docs.parquet, verified whole."""
        parquet = require("pyarrow.parquet", "curate")
        return parquet.ParquetFile(io.BytesIO(self.reader(shard).member(".docs.parquet")))

    def _read_group(self, shard: int, group: int) -> Any:
        return self.table(shard).read_row_group(group, use_threads=False)

    def records(self, shard: int, ordinals: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Give what is known of documents, as asked for: stream, shard, ordinal and the columns, hashes in hex.

        Refuses an ordinal that the shard does not have, InputError.
        """
        entry = self.reader(shard).entry
        metadata = self.table(shard).metadata
        ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
        for first in range(0, len(ordinals), _BATCH):
            part = ordinals[first : first + _BATCH]
            if not 0 <= min(part) <= max(part) < entry.documents:
                raise InputError(f"there is no such document in shard {shard}, it has {entry.documents}: {part}")
            found = self._rows(shard, np.asarray(part), ends)
            for ordinal in part:
                values = {
                    name: value.hex() if isinstance(value, bytes) else value for name, value in found[ordinal].items()
                }
                yield {"stream": entry.stream, "shard": shard, "ordinal": ordinal, **values}

    def _rows(self, shard: int, wanted: Any, ends: Any) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        groups = np.searchsorted(ends, wanted, side="right")
        for group in np.unique(groups).tolist():
            inside = np.unique(wanted[groups == group])
            base = int(ends[group - 1]) if group else 0
            found.update(zip(inside.tolist(), self._group(shard, group).take(inside - base).to_pylist(), strict=True))
        return found

    def row(self, shard: int, row: int, pack: str | None = None) -> list[dict[str, Any]]:
        """Say which documents lie in a row: one dict a piece, in the row's order.

        Beside the document's record: `row_tokens`, where the piece lies in the row; `document_tokens`, which of its
        document's tokens it is; `shard_tokens`, where these lie in NAME.bin. Ranges are [first, past the last).
        """
        chosen = self.data.generation.pack(pack).pack
        table = self.reader(shard).table(chosen)
        if not 0 <= row < table.rows:
            raise InputError(f"there is no row {row} in shard {shard}: pack {chosen.name} has {table.rows} there")
        starts, segments = table.pieces(row)
        lengths = segments["length"].astype(np.int64)
        columns = (np.cumsum(lengths) - lengths, segments["offset"], starts)
        known = self.records(shard, segments["document"].astype(np.int64).tolist())
        return [
            {**record, "row": row, "row_tokens": [at, at + length], "document_tokens": [offset, offset + length],
             "shard_tokens": [start, start + length]}
            for record, length, at, offset, start in zip(known, lengths.tolist(), *map(np.ndarray.tolist, columns),
                                                         strict=True)
        ]  # fmt: skip
