"""Token ids in Parquet, as HF datasets and their trainers have them: a list column `input_ids`, one row a document.

    input_ids        list of whole numbers; uint16, int32, or int64 where ids do not fit
    attention_mask   optional: 0 is padding, and left out when read
    labels           optional: ids again, -100 where a token is not learned (not shifted: trainers shift them)
    loss_mask        optional: 0 where a token is not learned
    id, source, …    one value a row, carried both ways

Or one row of a pack a row: `input_ids`, `labels` (-100 in padding, and at the first token of each document, which no
other may predict) and `position_ids`, which say where documents begin to attention that has no room for a mask.
Row groups hold a chunk, 2 Mi tokens, so a reader holds little; zstd halves 32-bit ids and does little for 16-bit ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import InputError, require
from ..format import Pack
from ..packing import NO_DOCUMENT, PackTable
from ..shard import ShardReader
from .chunks import CHUNK_TOKENS, Chunk, learned_between, split, without_padding
from .sources import ForeignFile, Reading, Target

IGNORED = -100
#: Rows looked at together at most, however short they are.
_ROWS = 1 << 16
#: Columns of token lists, which are not carried as values.
_LISTS = ("attention_mask", "labels", "loss_mask")


class ParquetWriter:
    """Writes `NAME.parquet`, a row a document."""

    def __init__(self, target: Target) -> None:
        self._target, self._token = target, token_type(target.vocabulary.itemsize, target.largest)
        self._file: Any = None

    def add(self, chunk: Chunk) -> None:
        """Append documents, one row group."""
        pa = require("pyarrow", "curate")
        tokens = lists(chunk.tokens.astype(self._token), chunk.lengths)
        columns = {"input_ids": tokens}
        if self._target.marked:
            learned = np.ones(len(chunk.tokens), np.bool_) if chunk.learned is None else chunk.learned
            columns["loss_mask"] = lists(learned, chunk.lengths)
        known = pa.table({}) if chunk.columns is None else chunk.columns
        table = pa.table({**{name: known.column(name) for name in known.column_names}, **columns})
        if self._file is None:
            self._file = open_parquet(self._target, table.schema)
        self._file.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        if self._file is not None:
            self._file.close()


class PackedWriter:
    """Writes the rows of a pack to `NAME.parquet`, a row a row, padded with EOS."""

    def __init__(self, target: Target) -> None:
        self._target, self._token = target, token_type(target.vocabulary.itemsize, target.largest)
        self._file: Any = None

    def add_group(self, reader: ShardReader, pack: Pack, group: int) -> int:
        """Append the rows of a group; give their number. Documents taken down are padding."""
        pa = require("pyarrow", "curate")
        rows, labels, positions = packed_rows(reader, reader.table(pack), group)
        names = {
            "input_ids": rows.ravel().astype(self._token),
            "labels": labels.ravel().astype(np.int64 if self._token == np.int64 else np.int32),
            "position_ids": positions.ravel(),
        }
        lengths = np.full(len(rows), pack.length)
        made = pa.table({name: lists(values, lengths) for name, values in names.items()})
        if self._file is None:
            self._file = open_parquet(self._target, made.schema)
        self._file.write_table(made)
        return len(rows)

    def close(self) -> None:
        """Write the footer."""
        if self._file is not None:
            self._file.close()


def packed_rows(
    reader: ShardReader, table: PackTable, group: int
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int32]]:
    """Lay out a group's rows: tokens, labels with -100 where nothing is learned, positions; (rows, length) each."""
    start, stop = table.span(group)
    layout = table.layout(group, out=reader.gone.astype(np.int64))
    tokens, segments = reader.tokens(start, stop), layout.segments
    lengths, nothing = segments["length"].astype(np.int64), segments["document"] == NO_DOCUMENT
    positions = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    documents = np.where(nothing, 0, segments["document"]).astype(np.int64)
    begins = np.where(nothing, start, table.tokens_of(documents)[:, 0] + segments["offset"])
    padding = np.repeat(nothing, lengths)
    at = np.where(padding, 0, np.repeat(begins - start, lengths) + positions)
    body = np.where(padding, reader.vocabulary.eos_id, tokens[at])
    learned = ~padding & (positions > 0)
    if (marks := learned_between(reader.loss, start, stop)) is not None:
        learned &= marks[at]
    shape = (layout.rows, table.pack.length)
    return (
        body.reshape(shape),
        np.where(learned, body.astype(np.int64), IGNORED).reshape(shape),
        positions.astype(np.int32).reshape(shape),
    )


def token_type(itemsize: int, largest: int) -> np.dtype[Any]:
    """Choose a list's type: uint16, else int32, which trainers know better than uint32; int64 for ids from 2^31 on."""
    if itemsize == 2:
        return np.dtype(np.uint16)
    return np.dtype(np.int32 if largest < 1 << 31 else np.int64)


def lists(values: NDArray[Any], lengths: NDArray[Any]) -> Any:
    """Make a list column of values that lie one behind the other; 64-bit offsets only where 32 do not do."""
    pa = require("pyarrow", "curate")
    kind, offset = (pa.ListArray, np.int32) if len(values) < 1 << 31 else (pa.LargeListArray, np.int64)
    offsets = np.concatenate([np.zeros(1, offset), np.cumsum(lengths).astype(offset)])
    return kind.from_arrays(pa.array(offsets), pa.array(values))


def open_parquet(target: Target, schema: Any) -> Any:
    """Open `NAME.parquet` for writing: zstd, no dictionary of token ids, no statistics over them."""
    parquet = require("pyarrow.parquet", "curate")
    plain = [field.name for field in schema if not str(field.type).startswith(("list", "large_list"))]
    return parquet.ParquetWriter(
        target.file(".parquet"), schema, compression="zstd", use_dictionary=plain, write_statistics=plain
    )


class ParquetSource:
    """Reads documents, or rows of several, from a Parquet file; a chunk at a time."""

    def __init__(self, file: ForeignFile, reading: Reading) -> None:
        parquet = require("pyarrow.parquet", "curate")
        pa = require("pyarrow", "curate")
        self.file, self.reading, self.padding, column = file, reading, 0, reading.column
        try:
            self._parquet = parquet.ParquetFile(file.open())
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{file} is no Parquet file: {error}") from error
        self._schema, metadata = self._parquet.schema_arrow, self._parquet.metadata
        if column not in self._schema.names:
            raise InputError(f"{file} has no column {column!r}, it has {', '.join(self._schema.names)}: say its column")
        kind = self._schema.field(column).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)) or (
            not pa.types.is_integer(kind.value_type)
        ):
            raise InputError(f"column {column!r} of {file} is {kind}: token ids are lists of whole numbers")
        self._rows = metadata.num_rows
        leaf = [metadata.schema.column(at).path.split(".")[0] for at in range(metadata.num_columns)].index(column)
        #: As the footer has it, which counts an empty list as one; exact once the file is read.
        self.tokens = sum(metadata.row_group(at).column(leaf).num_values for at in range(metadata.num_row_groups))
        self._batch_rows = max(1, min(_ROWS, CHUNK_TOKENS * self._rows // max(1, self.tokens)))
        self.documents = None if reading.boundaries == "eos" else self._rows

    def chunks(self) -> Iterator[Chunk]:
        """Give the documents in the file's order."""
        rows = self._by_row()
        return split(rows, self.reading.vocabulary.eos_id) if self.reading.boundaries == "eos" else rows

    def _by_row(self) -> Iterator[Chunk]:
        pa = require("pyarrow", "curate")
        names = self._schema.names
        lists_there = [name for name in _LISTS if name in names and name != self.reading.column]
        carried = [
            name
            for name in names
            if name not in (self.reading.column, *_LISTS) and not pa.types.is_nested(self._schema.field(name).type)
        ]
        columns = [self.reading.column, *lists_there, *carried]
        for batch in self._parquet.iter_batches(batch_size=self._batch_rows, columns=columns, use_threads=False):
            chunk = self._chunk(batch, lists_there)
            yield Chunk(chunk.tokens, chunk.ends, chunk.learned, pa.Table.from_batches([batch.select(carried)]))

    def _chunk(self, batch: Any, lists_there: list[str]) -> Chunk:
        tokens, lengths = self._values_of(batch, self.reading.column)
        self.tokens -= int((lengths == 0).sum())
        learned: NDArray[np.bool_] | None = None
        masks = {}
        for name in lists_there:
            values, others = self._values_of(batch, name)
            if not np.array_equal(lengths, others):
                raise InputError(f"lists of {name!r} and {self.reading.column!r} in {self.file} differ in length")
            masks[name] = values
        attended = masks["attention_mask"] != 0 if "attention_mask" in masks else None
        if "loss_mask" in masks:
            learned = masks["loss_mask"] != 0
        if "labels" in masks:
            found = masks["labels"] != IGNORED
            other = found & (masks["labels"] != tokens)
            if attended is not None:
                other &= attended
            if other.any():
                raise InputError(
                    f"{self.file} has labels that are neither -100 nor the token at their place: labels shifted by the "
                    "writer, or of another task, cannot be carried; drop the column"
                )
            learned = found if learned is None else learned & found
        chunk = Chunk(tokens, np.cumsum(lengths), learned)
        if attended is not None:
            chunk = chunk.only(attended)
        if self.reading.pad_id is not None:
            chunk = without_padding(chunk, self.reading.pad_id, self.reading.vocabulary.eos_id)
        self.padding += len(tokens) - len(chunk.tokens)
        return chunk

    def _values_of(self, batch: Any, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        pc = require("pyarrow.compute", "curate")
        column = batch.column(name)
        values = column.flatten()
        if column.null_count or values.null_count:
            raise InputError(f"column {name!r} of {self.file} has nulls: every row is a list of numbers")
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        return values.to_numpy(zero_copy_only=False), lengths
