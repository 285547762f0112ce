"""Read a file as rows that a test can look at; used by the tests of every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock.transforms.readers import Fields, Piece, detect_format, list_files, read, split
from penstock.transforms.schema import DOCUMENT, document_ids

Row = dict[str, Any]


def rows_of(path: Path | str, fields: Fields | None = None, task_bytes: int = 1 << 40, **options: Any) -> list[Row]:
    """Read a file range by range; each row as a dictionary with its reason, error and raw bytes."""
    (entry,) = list_files(str(path))
    kind = detect_format(entry.path)
    out: list[Row] = []
    for start, end in split(entry, kind, task_bytes):
        piece = Piece(entry.url, "web", entry.path, kind, entry.size, start, end)
        for outcome in read(piece, fields, **options):
            assert outcome.batch.schema.equals(DOCUMENT)
            nulls = [None] * outcome.batch.num_rows
            extra = (
                outcome.reasons.to_pylist(),
                *(c.to_pylist() if c else nulls for c in (outcome.errors, outcome.raw)),
            )
            rows = zip(outcome.batch.to_pylist(), *extra, strict=True)
            out += [{**row, "reason": why, "error": error, "raw": raw} for row, why, error, raw in rows]
    places = [row["place"] for row in out]
    assert len(set(places)) == len(places)
    assert [row["id"] for row in out] == document_ids("web", entry.path, places).to_pylist()
    return out


def texts(rows: list[Row]) -> list[str | None]:
    return [row["text"] for row in rows if row["error"] is None and row["reason"] is None]


def errors(rows: list[Row]) -> list[str]:
    return [row["error"] for row in rows if row["error"] is not None]


def jsonl(*records: Any) -> bytes:
    return b"".join(
        (r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode()) + b"\n" for r in records
    )
