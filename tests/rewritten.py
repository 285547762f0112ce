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
from penstock.transforms.verdicts import KEPT, QUARANTINED, REJECTED, Met, TextCuts, Verdicts


def pieces_of(path: Path, task_bytes: int = 1 << 40, kind: str | None = None) -> list[Piece]:
    (entry,) = list_files(str(path))
    kind = kind or detect_format(entry.path)
    return [
        Piece(entry.url, "web", entry.path, kind, entry.size, start, end)
        for start, end in split(entry, kind, task_bytes)
    ]


def fates(outcome: Outcome) -> list[int]:
    errors = [None] * len(outcome.batch) if outcome.errors is None else outcome.errors.to_pylist()
    return [
        QUARANTINED if error is not None else REJECTED if why is not None else KEPT
        for why, error in zip(outcome.reasons.to_pylist(), errors, strict=True)
    ]


def read_piece(piece: Piece, fields: Fields | None = None, largest: int = LARGEST_RECORD) -> tuple[Any, list[int]]:
    """The fates and places of a piece, by its reader."""
    outcomes = list(read(piece, fields, largest=largest))
    said = [fate for outcome in outcomes for fate in fates(outcome)]
    return np.array(said, np.uint8), [place for each in outcomes for place in each.batch.column("place").to_pylist()]


class Rewritten:
    """What a file became: the body of each range, the rows met, what was set aside."""

    def __init__(self) -> None:
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
        out = []
        for met in self.met:
            if met.set_aside is not None:
                aside = met.set_aside
                nulls = pa.nulls(len(aside.batch))
                columns = (aside.batch.column("place"), aside.reasons, aside.errors or nulls, aside.raw or nulls)
                names = ("place", "rule", "error", "raw")
                out += [
                    dict(zip(names, row, strict=True)) for row in zip(*(c.to_pylist() for c in columns), strict=True)
                ]
        return out


def rewrite_file(
    path: Path,
    gone: Iterable[int] = (),
    *,
    fields: Fields | None = None,
    cuts: dict[int, list[tuple[int, int]]] | None = None,
    notes: pa.RecordBatch | None = None,
    task_bytes: int = 1 << 40,
    kind: str | None = None,
    largest: int = LARGEST_RECORD,
) -> Rewritten:
    """Rewrite every range of a file; `gone` and `cuts` name records of the file, `notes` holds a row for each."""
    done, first, rows = Rewritten(), 0, np.array(sorted(gone), np.int64)
    spans = sorted((cuts or {}).items())
    for piece in pieces_of(path, task_bytes, kind):
        said, places = read_piece(piece, fields, largest)
        mine = [(row - first, span) for row, held in spans if first <= row < first + len(said) for span in held]
        verdicts = Verdicts(
            said,
            rows[(rows >= first) & (rows < first + len(said))] - first,
            TextCuts(
                np.array([row for row, _ in mine], np.int64), np.array([s for _, s in mine], np.int64).reshape(-1, 2)
            ),
            None if notes is None else notes.slice(first, len(said)),
        )
        out = io.BytesIO()
        met = list(rewrite(piece, fields or Fields(), verdicts, out, largest))
        done.met += met
        done.bodies.append(out.getvalue())
        assert [place for each in met for place in each.places.tolist()] == places
        first += len(said)
    return done
