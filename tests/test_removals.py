"""One table of removals: who went by which kind, and who stayed in the end."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.pipelines.clusters import CLUSTERS
from penstock.pipelines.removals import join_removals
from penstock.sharding.store import Store


def table(store: Store, kind: str, pairs: list[tuple[int, int | None]]) -> str:
    """Commit a table in which the first row of part 0 of each pair went for the second."""
    rows = []
    for gone, kept in sorted(pairs):
        known = {} if kept is None else {"kept_id": bytes([kept]) * 16, "kept_source_id": f"d{kept}", "kept_part": 0}
        about = {"id": bytes([gone]) * 16, "part": 0, "row": gone, "kind": kind, "similarity": 0.9, "kept_row": kept}
        rows.append(about | known)
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, CLUSTERS), body)
    return store.put(body.getvalue(), f"{kind}/clusters-", ".parquet")


def test_no_kind_and_one_kind_have_their_own(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert join_removals(store, []) is None
    name = table(store, "near", [(2, 1)])
    assert join_removals(store, [name]) == name


def test_a_removal_names_who_stayed_in_the_end(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    tables = [
        table(store, "url", [(1, 2), (3, 4), (7, 8)]),
        table(store, "near", [(2, 5), (6, 9)]),
        table(store, "line", [(5, 9), (8, None)]),
    ]
    name = join_removals(store, tables)
    assert name is not None
    assert name == join_removals(store, tables)
    found = pq.read_table(store.local(name)).to_pylist()
    assert [(row["kind"], row["row"], row["kept_row"], row["kept_source_id"]) for row in found] == [
        ("url", 1, 9, "d9"),  # 1 → 2 → 5 → 9
        ("url", 3, 4, "d4"),
        ("url", 7, 8, "d8"),  # nobody stayed for 8, whose lines all stood before
        ("near", 2, 9, "d9"),
        ("near", 6, 9, "d9"),
        ("line", 5, 9, "d9"),
        ("line", 8, None, None),
    ]
    assert [row["similarity"] is None for row in found] == [True, False, False, True, False, False, False]
    assert [row["kept_id"] for row in found if row["row"] == 1] == [bytes([9]) * 16]
