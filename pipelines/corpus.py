"""The survivors as text: one Parquet or JSONL file for each part, in the order of the input, for those who want a
corpus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from ..sharding.store import Store
from ..transforms.named import step_fingerprint
from ..transforms.schema import id_sum
from .heartbeat import Heartbeat
from .kept_edits import KeptEdits
from .recipe import Recipe
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .survivors import RowGroup, Survivors, tallied


@dataclass(frozen=True)
class TextTask:
    """One part's row groups."""

    part: int
    row_groups: tuple[RowGroup, ...]

    @property
    def key(self) -> str:
        """Name the task's receipt."""
        return f"text-{self.part:06d}"

    @property
    def name(self) -> str:
        """Name the task, for people."""
        return f"the text of part {self.part}"


def text_stage(recipe: Recipe, run: Store, upstream: Sequence[str]) -> Stage:
    """Address the `text` stage."""
    assert recipe.text is not None
    value = {
        "text": recipe.text.model_dump(mode="json"),
        "final": [step_fingerprint(step) for step in recipe.final],
        "upstream": list(upstream),
    }
    return Stage.of(run, "text", value, package_versions("pyarrow", "zstandard"))


@dataclass(frozen=True)
class WriteText:
    """Write one part's survivors."""

    stage: Stage
    recipe: Recipe
    survivors: Survivors

    def __call__(self, task: TextTask) -> Iterator[Any]:
        """Run the task unless it is committed; emits nothing."""
        run_task(self.stage, task.key, partial(self.compute, task))
        return iter(())

    def compute(self, task: TextTask, folder: Path, meter: Meter) -> Receipt:
        """Read, drop, edit, write."""
        assert self.recipe.text is not None
        suffix = {"parquet": ".parquet", "jsonl": ".jsonl.zst"}[self.recipe.text.format]
        path, accounts, documents, total = folder / f"text{suffix}", [], 0, 0
        with Heartbeat(self.stage.run, task.key, "text") as heartbeat, path.open("wb") as file:
            writer, edits = ParquetText(file) if suffix == ".parquet" else JsonText(file), KeptEdits(folder)
            for group in task.row_groups:
                with meter.on("read"):
                    batch, account = self.survivors.read(group)
                with meter.on("write"):
                    writer.write(edits.take(batch))
                accounts.append({**account, **tallied({"kept": batch.column("id")})})
                documents += len(batch)
                total = (total + id_sum(batch.column("id"))) % (1 << 64)
                heartbeat.add(len(batch), group.bytes)
            writer.close()
        name = self.stage.store.put(path, f"data/{task.part:06d}-", suffix) if documents else None
        return {
            "part": task.part,
            "text": name,
            "edits": edits.put(self.stage.store),
            "row_groups": accounts,
            "documents": documents,
            "id_sum": str(total),
        }


class ParquetText:
    """Survivors as Parquet, zstd, a row group as it stood."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: Any = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a row group."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, batch.schema, compression="zstd")
        if len(batch):
            self._writer.write_table(pa.Table.from_batches([batch]), row_group_size=1 << 30)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


class JsonText:
    """Survivors as JSON lines in one zstd stream: id in hex, `metadata` as an object."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer: Any = zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a row group."""
        for row in batch.to_pylist():
            row["id"] = row["id"].hex()
            if row["metadata"] is not None:
                row["metadata"] = json.loads(row["metadata"])
            self._writer.write(_line({name: value for name, value in row.items() if value is not None}) + b"\n")

    def close(self) -> None:
        """Finish the stream."""
        self._writer.close()


def _line(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:  # half a surrogate pair in a field of the user's: as JSON escapes it
        return json.dumps(row, default=str).encode()
