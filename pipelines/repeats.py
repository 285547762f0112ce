"""Repeats: lines and substrings that stood before in the corpus, cut out part by part.

Units meet by digest in an exchange (`repeat_lists.py`, `repeat_methods.py`), then each part reads its text again and
cuts. A document that is left with too little goes whole, and what it had first goes with it. Where the lists of all
parts are joined, memory holds 24 bytes a cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.edits import Cuts, edit
from ..transforms.kernels.digests import group_entries
from ..transforms.repeated_lines import Lines, too_little
from ..transforms.repeated_spans import Substrings
from .clusters import CLUSTERS, put_removals
from .duplicates import repeats_value
from .repeat_lists import Again
from .repeat_methods import Launch, LineMethod, Method, SpanMethod, runs_stage
from .runners import Job
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .tables import parquet
from .token_units import keep_tokenizer, warm_units
from .views import CutList, Part, View, get_array, put_array

Repeats = Lines | Substrings


def repeats_stage(run: Store, settings: Repeats, parts: Sequence[Part], upstream: Sequence[str] = ()) -> Stage:
    """Address the `lines` or `substrings` stage: settings, contents of the parts, and what earlier kinds took."""
    value = {
        "repeats": repeats_value(settings),
        "parts": [part.key for part in parts],
        "upstream": list(upstream),
    }
    name = "lines" if isinstance(settings, Lines) else "substrings"
    return Stage.of(run, name, value, package_versions("pyarrow", "numba"))


def cut_repeats(
    stage: Stage, settings: Repeats, parts: Sequence[Part], view: View, launch: Launch, local: bool
) -> Receipt:
    """Find what stood before; commit the list of cuts and the documents that they leave too little of.

    The receipt has `put_removals`' fields, those that `cut_list` reads, and `cut_spans`, `cut_bytes`, `cut_documents`.
    """
    standing = stage.receipt("repeats")
    if standing is not None:
        return standing
    method: Method = (
        LineMethod(settings, view)
        if isinstance(settings, Lines)
        else SpanMethod(settings, view, keep_tokenizer(stage.store, settings))
    )
    cut = _Cut(stage, settings, method, method.find(stage, parts, launch, local))
    done = stage.committed()
    if missing := [part for part in parts if cut_key(part) not in done]:
        launch(Job("cut", missing, cut))
    return run_task(stage, "repeats", partial(_join, stage, parts))


def cut_list(stage: Stage, settings: Repeats, receipt: Receipt) -> CutList:
    """Name the cuts of a receipt of `cut_repeats`, for the views of later kinds."""
    return CutList(stage.store, settings.kind, receipt["cuts"], receipt["cut_bounds"])


def signed_stage(stage: Stage, settings: Repeats) -> Stage:
    """Give the stage in which the parts' signatures stand, `fates` in them."""
    return stage if isinstance(settings, Lines) else runs_stage(stage)


def cut_key(part: Part) -> str:
    """Name the receipt of a part's cuts."""
    return f"cut-{part.number:06d}"


def warm_repeats(settings: Repeats) -> None:
    """Compile what finding repeats needs, before workers start."""
    texts = pa.array(["One line.\nOne line.", "déjà vu"], pa.large_string())
    if isinstance(settings, Lines):
        lines = settings.units(texts)
        numbers, digests = lines.digests()
        lines.cuts(numbers)
        group_entries(digests, numbers.astype(np.uint64))
    else:
        kernels = Substrings() if settings.unit == "bytes" else Substrings(unit="words")  # which tokens share
        if settings.unit == "tokens":
            warm_units()
        units = replace(kernels.units(texts), length=2)
        places, digests = units.runs()
        group_entries(digests, places)
        units.windows(places)
        units.cuts(places)
    edit(pa.record_batch({"text": texts}), settings.kind, Cuts(np.array([0]), np.array([[0, 1]])))
    too_little(texts, np.array([0]), np.array([[0, 1]]), settings.left)


@dataclass(frozen=True)
class _Cut:
    """Cut one part unless its receipt stands."""

    stage: Stage
    settings: Repeats
    method: Method
    again: tuple[Again, ...]

    def __call__(self, part: Part) -> None:
        run_task(self.stage, cut_key(part), partial(self.compute, part))

    def compute(self, part: Part, folder: Path, meter: Meter) -> Receipt:
        """Write the cuts of documents that stay, (n, 3) row, first byte, end; and the documents that go."""
        cuts, gone, sizes = [np.zeros((0, 3), np.int64)], [], np.zeros(2, np.int64)
        with meter.on("cut"):
            for numbers, batch, rows, spans in self.method.cuts(part, self.again):
                goes = too_little(batch.column("text"), rows, spans, self.settings.left)
                gone.append(_removed(part, numbers, batch, np.flatnonzero(goes), self.settings))
                rows, spans = rows[~goes[rows]], spans[~goes[rows]]
                cuts.append(np.column_stack([numbers[rows], spans]))
                sizes += len(np.unique(rows)), int(np.sum(spans[:, 1] - spans[:, 0]))
        joined, store, path = np.concatenate(cuts), self.stage.store, folder / "removed.parquet"
        pq.write_table(pa.concat_tables([CLUSTERS.empty_table(), *gone]), path, compression="zstd")
        return {
            "part": part.key,
            "cuts": put_array(store, joined.astype(np.uint64), "cuts"),
            "removed": store.put(path, "data/removed-", ".parquet"),
            "cut_spans": len(joined),
            "cut_documents": int(sizes[0]),
            "cut_bytes": int(sizes[1]),
        }


def _removed(
    part: Part, numbers: NDArray[np.int64], batch: pa.RecordBatch, rows: NDArray[np.int64], settings: Repeats
) -> pa.Table:
    """Give the rows that go as the table of removals has them; no one document stays in their place."""
    taken = batch.take(pa.array(rows))
    held: dict[str, Any] = {
        "id": taken.column("id"),
        "part": pa.array([part.number] * len(rows), pa.int32()),
        "row": pa.array(numbers[rows], pa.int64()),
        "kind": pa.array(["line" if isinstance(settings, Lines) else "substring"] * len(rows), pa.string()),
    }
    if "source_id" in taken.schema.names:
        held["source_id"] = taken.column("source_id").cast(pa.string())
    columns = [held.get(field.name, pa.nulls(len(rows), field.type)) for field in CLUSTERS]
    return pa.table(columns, schema=CLUSTERS)


def _join(stage: Stage, parts: Sequence[Part], folder: Path, meter: Meter) -> Receipt:
    """Join the parts' lists."""
    receipts, store = stage.receipts(list(map(cut_key, parts))), stage.store
    with meter.on("join"):
        cuts = [get_array(store, receipt["cuts"]) for receipt in receipts]
        tables = []
        for receipt in receipts:
            with parquet(store, receipt["removed"]) as file:
                tables.append(file.read(use_threads=False))
        removed = put_removals(store, parts, pa.concat_tables([CLUSTERS.empty_table(), *tables]), folder)
        bounds = np.cumsum([0, *map(len, cuts)]).astype(np.uint64)
        return {
            **removed,
            "cuts": put_array(store, np.concatenate([np.zeros((0, 3), np.uint64), *cuts]), "cuts"),
            "cut_bounds": put_array(store, bounds, "cut-bounds"),
            **{name: sum(one[name] for one in receipts) for name in ("cut_spans", "cut_documents", "cut_bytes")},
        }
