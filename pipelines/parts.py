"""The ingest's receipts reduced to two tables: a row per part, a row per row group. What comes after reads these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..sharding.store import Store
from .recipe import digest
from .stage import Receipt
from .survivors import RowGroup
from .tables import put_table
from .views import StoredPart

PARTS = pa.schema(
    [
        ("part", pa.int32()),
        ("source", pa.string()),
        ("path", pa.string()),  # of the part's first file
        ("start", pa.int64()),
        ("documents_object", pa.string()),
        ("ledger_object", pa.string()),
        ("documents", pa.int64()),
        ("bytes", pa.int64()),
        ("id_sum", pa.string()),
    ]
)
ROW_GROUPS = pa.schema(
    [
        ("part", pa.int32()),
        ("row_group", pa.int32()),
        ("stream", pa.string()),
        ("documents", pa.int64()),
        ("bytes", pa.int64()),
        ("id_sum", pa.string()),
    ]
)


def number_parts(store: Store, receipts: Sequence[Receipt]) -> tuple[list[StoredPart], list[RowGroup]]:
    """Number the parts in the order of (input, path, range); a part's key names its place and its content."""
    parts, groups = [], []
    for number, receipt in enumerate(in_order(receipts)):
        name = receipt["documents"]
        place = [receipt["source"], receipt["path"], receipt["start"]]
        row = 0
        for at, group in enumerate(receipt["row_groups"]):
            counts = (group["documents"], group["bytes"], group["id_sum"])
            groups.append(RowGroup(number, digest(place), name, at, row, group["stream"], *counts))
            row += group["documents"]
        parts.append(StoredPart(number, digest([*place, name]), store, name, row, receipt["source"]))
    return parts, groups


def in_order(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Sort an ingest's receipts by (input, path, range): the n-th is part n."""
    return sorted(receipts, key=lambda receipt: (receipt["source"], receipt["path"], receipt["start"]))


def write_tables(
    store: Store, receipts: Sequence[Receipt], parts: Sequence[StoredPart], groups: Sequence[RowGroup]
) -> dict[str, str]:
    """Commit both tables under the stage; give their names in it."""
    rows: list[dict[str, Any]] = []
    # By place, not by object: parts that keep nothing have equal objects, and so one name.
    for part, receipt in zip(parts, in_order(receipts), strict=True):
        rows.append(
            {
                **{name: receipt[name] for name in ("source", "path", "start")},
                "part": part.number,
                "documents_object": part.object,
                "ledger_object": receipt["ledger"],
                "documents": part.documents,
                "bytes": sum(group["bytes"] for group in receipt["row_groups"]),
                "id_sum": receipt["tally"]["id_sum_kept"],
            }
        )
    names = ROW_GROUPS.names
    listed = [
        dict(zip(names, (g.part, g.number, g.stream, g.documents, g.bytes, g.id_sum), strict=True)) for g in groups
    ]
    return {
        "parts": put_table(store, pa.Table.from_pylist(rows, PARTS), "parts-"),
        "row_groups": put_table(store, pa.Table.from_pylist(listed, ROW_GROUPS), "row_groups-"),
    }
