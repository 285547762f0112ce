"""Survey a run for its report: ledger and clusters read row group by row group into counts, samples and examples.

Memory is bounded whatever the size of the run: one row group and samples of fixed size. What is sampled is chosen by a
keyed hash of the id, so the same run gives the same page. A ledger of more than five million rows is read in part: whole
part files, chosen by the hash of their content's name; counts on the page then come from the manifest, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.schema import id_words
from .ledger import LEDGER, SAMPLE_ONE_IN, keyed

SURVEY_ROWS = 5_000_000
SAMPLE_ROWS = 16_384  # values held of each score
EXAMPLES = 3  # of each rule
MOST_RULES = 200  # with examples
MOST_ERRORS = 1_000  # told apart; what comes later is counted as one
PLACES = 5  # of each error
CLUSTERS = 12
MEMBERS = 4  # dropped copies named of each cluster
#: Edges of length classes, half an octave each: 0, 1, 1.4, 2, … 2^31 bytes.
LENGTH_EDGES = np.array([0, *(round(2 ** (half / 2)) for half in range(2, 63))], np.int64)
OTHER_ERRORS = "other errors"
_NOT_READ = {"text", "raw", "stream", "source_id"}


@dataclass(frozen=True)
class Record:
    """One record as the page shows it."""

    id: str  # hex
    source: str
    path: str
    place: int
    url: str | None
    language: str | None
    bytes: int
    scores: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None


@dataclass
class ErrorGroup:
    """Quarantined records that failed alike."""

    documents: int = 0
    places: list[str] = field(default_factory=list)


@dataclass
class Cluster:
    """Documents found to be the same: how many, which one stays, some of the others."""

    size: int
    cluster: bytes
    kept: bytes
    members: list[tuple[bytes, int, int]]  # (id, part, row), the smallest ids
    text: str | None = None


@dataclass
class Survey:
    """What the report knows beyond the manifest."""

    parts: int = 0
    parts_read: int = 0
    rows_read: int = 0
    lengths: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # fate → documents in each length class
    scored: dict[str, int] = field(default_factory=dict)
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    examples: dict[str, list[Record]] = field(default_factory=dict)
    errors: dict[str, ErrorGroup] = field(default_factory=dict)
    clusters: list[Cluster] = field(default_factory=list)
    cluster_sizes: dict[int, int] = field(default_factory=dict)  # size → clusters
    found: dict[bytes, Record] = field(default_factory=dict)  # records of the clusters shown, by id


def survey(store: Store, manifest: Mapping[str, Any]) -> Survey:
    """Read what a run's report needs from its tables. A table that the run did not write leaves its part empty."""
    made, tables = Survey(), manifest.get("tables") or {}
    parts = read_parts(store, tables.get("parts"))
    if tables.get("clusters"):
        _Clusters(made).read(store, tables["clusters"])
        for cluster in made.clusters:
            cluster.text = _text_of(store, parts, *cluster.members[0][1:])
    wanted = {name for cluster in made.clusters for name in (cluster.kept, *(member[0] for member in cluster.members))}
    made.parts = len(parts)
    ledger = _Ledger(made, wanted, str((manifest.get("recipe") or {}).get("rejected_text", "sample")))
    for part in chosen_parts(parts):
        made.parts_read += 1
        for file, rows, group in row_groups(store, part["ledger"], skip=_NOT_READ):
            ledger.add(rows, lambda file=file, group=group: file.read_row_group(group, columns=["text"]).column("text"))
    ledger.finish()
    return made


def read_parts(store: Store, name: str | None) -> dict[int, dict[str, Any]]:
    """Read the table of parts, by part number; `documents` and `ledger` are names of objects of the run."""
    if not name:
        return {}
    folder = name.rpartition("/")[0]
    with store.open(name) as file:
        rows = pq.read_table(file).to_pylist()
    return {
        row["part"]: {**row, "documents": f"{folder}/{row['documents_object']}", "ledger": f"{folder}/{row['ledger_object']}"}
        for row in rows
    }


def chosen_parts(parts: Mapping[int, Mapping[str, Any]], most: int | None = None) -> list[Mapping[str, Any]]:
    """Choose whole parts up to five million kept documents, by the hash of their names; give them in order."""
    chosen: list[int] = []
    left = SURVEY_ROWS if most is None else most
    for number in sorted(parts, key=lambda number: xxhash.xxh3_64_intdigest(parts[number]["ledger"].encode())):
        if left <= 0:
            break
        left -= int(parts[number].get("ledger_rows") or parts[number].get("documents_in") or _rows(parts[number]))
        chosen.append(number)
    return [parts[number] for number in sorted(chosen)]


def _rows(part: Mapping[str, Any]) -> int:
    return max(1, int(part.get("rows") or 1))


def row_groups(store: Store, name: str, skip: Iterable[str] = (), only: Iterable[str] = ()) -> Iterator[tuple[Any, pa.Table, int]]:
    """Give a Parquet object's row groups one by one: (file, rows, number)."""
    with store.open(name) as handle:
        file = pq.ParquetFile(handle)
        names = list(only) or [column for column in file.schema_arrow.names if column not in set(skip)]
        for group in range(file.num_row_groups):
            yield file, file.read_row_group(group, columns=names), group


def words(value: Any) -> str | None:
    """Give a string scalar as text; bytes that are not UTF-8 show as replacement characters, null as None."""
    if not value.is_valid:
        return None
    buffer = value.as_buffer()
    return bytes(buffer).decode("utf-8", "replace") if buffer is not None else ""
