"""Rewrite a file range by range, and say what the reader says of its records; used by the tests of rewriters."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.transforms.readers import Fields, Piece, detect_format, list_files, read, split
from penstock.transforms.rewriters import rewrite
from penstock.transforms.rows import LARGEST_RECORD
from penstock.transforms.step import Outcome
from penstock.transforms.verdicts import Met, Notes, TextCuts, Verdicts


def pieces_of(path: Path, task_bytes: int = 1 << 40, kind: str | None = None) -> list[Piece]:
    (entry,) = list_files(str(path))
    kind = kind or detect_format(entry.path)
    return [
        Piece(entry.url, "web", entry.path, kind, entry.size, start, end)
        for start, end in split(entry, kind, task_bytes)
    ]


def documents_in(outcome: Outcome) -> Any:
    """Which rows the reader does not refuse."""
    kept = outcome.reasons.is_null().to_numpy(zero_copy_only=False)
    return kept if outcome.errors is None else kept & outcome.errors.is_null().to_numpy(zero_copy_only=False)


def read_piece(piece: Piece, fields: Fields | None = None, largest: int = LARGEST_RECORD) -> tuple[Any, list[int]]:
    """Which records of a piece are documents, by its reader, and the places of all."""
    outcomes = list(read(piece, fields, largest=largest))
    said = [np.zeros(0, bool), *map(documents_in, outcomes)]
    return np.concatenate(said), [place for each in outcomes for place in each.batch.column("place").to_pylist()]


class Rewritten:
    """What a file became: the body of each range, the rows met, what was set aside."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.bodies: list[bytes] = []
        self.met: list[Met] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.bodies)

    @property
    def written(self) -> int:
        return sum(met.written for met in self.met)

    @property
    def places(self) -> list[int]:
        return [place for met in self.met for place in met.places.tolist()]

    @property
    def set_aside(self) -> list[dict[str, Any]]:
        """The records that the reader refuses and that are not in the output."""
        out = []
        for met in self.met:
            if met.refused is not None and met.aside is not None:
                refused, nulls = met.refused, pa.nulls(len(met.refused.batch))
                columns = (
                    refused.batch.column("place"),
                    refused.reasons,
                    refused.errors or nulls,
                    refused.raw or nulls,
                )
                rows = zip(*(column.to_pylist() for column in columns), met.aside.tolist(), strict=True)
                out += [dict(zip(("place", "rule", "error", "raw"), row[:4], strict=True)) for row in rows if row[4]]
        return out

    @property
    def edits(self) -> list[dict[str, Any]]:
        return [row for met in self.met if met.edits is not None for row in met.edits.to_pylist()]


def rewrite_file(
    path: Path,
    gone: Iterable[int] = (),
    *,
    fields: Fields | None = None,
    cuts: dict[int, list[tuple[int, int]]] | None = None,
    notes: Notes | None = None,
    task_bytes: int = 1 << 40,
    kind: str | None = None,
    largest: int = LARGEST_RECORD,
) -> Rewritten:
    """Rewrite every range of a file; `gone` and `cuts` name records of the file, `notes` holds a row for each."""
    done, first = Rewritten(path.name), 0
    spans = [(row, span) for row, held in sorted((cuts or {}).items()) for span in held]
    cut = TextCuts("lines", np.array([row for row, _ in spans], np.int64), np.array([s for _, s in spans], np.int64))
    read_in = [read_piece(piece, fields, largest) for piece in pieces_of(path, task_bytes, kind)]
    whole = Verdicts(
        np.flatnonzero(np.concatenate([np.zeros(0, bool), *(said for said, _ in read_in)])),
        np.array(sorted(gone), np.int64),
        (cut,) if spans else (),
        notes,
    )
    for piece, (said, places) in zip(pieces_of(path, task_bytes, kind), read_in, strict=True):
        out = io.BytesIO()
        met = list(rewrite(piece, fields or Fields(), whole.within(first, 1 << 60), out, largest))
        done.met += met
        done.bodies.append(out.getvalue())
        assert [place for each in met for place in each.places.tolist()] == places
        first += len(said)
    return done
