"""Survey a run for its report: ledger and clusters read row group by row group into counts, samples and examples.

Memory is bounded whatever the size of the run: one row group and samples of fixed size. What is sampled is chosen by a
keyed hash of the id, so the same run gives the same page. Of a ledger of more than five million rows a part is read:
whole files, chosen by the hash of their names. The funnel is exact in any case: it comes from the manifest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from ..sharding.store import Store
from ..transforms.schema import id_words, keyed
from .dedup_examples import read_examples
from .dedup_survey import Duplicates, settings_of, survey_duplicates, tables_of
from .dedup_texts import DedupTexts
from .ledger import LEDGER, SAMPLE_ONE_IN
from .tables import RowGroup, parquet, read_parts, row_groups, row_values

SURVEY_ROWS = 5_000_000
SAMPLE_ROWS = 16_384  # values held of each score
EXAMPLES = 3  # of each rule
MOST_RULES = 200  # that have examples
MOST_ERRORS = 1_000  # told apart; the rest is counted as one
PLACES = 5  # of each error
WEIGHED = 4_000_000  # duplicates whose bytes are summed; 32 MB of ids
#: Edges of length classes, half an octave each: 0, 1, 2, 3, 4, 6, 8, 11, … 2^31 bytes.
LENGTH_EDGES = np.unique([0, 1, *(round(2 ** (half / 2)) for half in range(2, 63))]).astype(np.int64)
OTHER_ERRORS = "other errors"
_COLUMNS = [name for name in LEDGER.names if name not in ("text", "raw", "stream", "source_id")]
_SHOWN = ("id", "source", "path", "place", "url", "language", "bytes")


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

    @property
    def where(self) -> str:
        """Name the record by its place in the input, as a recipe's `quarantine` does."""
        return f"{self.source}/{self.path}#{self.place}"


@dataclass
class ErrorGroup:
    """Quarantined records that failed alike."""

    documents: int = 0
    records: list[Record] = field(default_factory=list)


@dataclass
class Survey:
    """What the report knows beyond the manifest."""

    parts: int = 0
    parts_read: int = 0
    rows_read: int = 0
    lengths: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # fate → documents in each length class
    scored: dict[str, int] = field(default_factory=dict)  # rows that have the score
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    examples: dict[str, list[Record]] = field(default_factory=dict)
    errors: dict[str, ErrorGroup] = field(default_factory=dict)
    duplicates: Duplicates = field(default_factory=Duplicates)
    found: dict[bytes, Record] = field(default_factory=dict)  # records of the clusters shown, by id
    duplicate_bytes: int | None = None  # of text; None where not every duplicate was met


def survey(run: Store, manifest: Mapping[str, Any]) -> Survey:
    """Read what a run's report needs from its tables. A table that the run did not write leaves its part empty."""
    tables, rejected_text = manifest.get("tables") or {}, (manifest.get("recipe") or {}).get("rejected_text", "sample")
    made, parts = Survey(), read_parts(run, tables.get("parts"))
    made.parts = len(parts)
    gone = np.zeros(0, np.uint64)
    if listed := tables_of(run, manifest):
        texts = DedupTexts(run, manifest)
        made.duplicates = survey_duplicates(run, manifest, texts)
        read_examples(made.duplicates, texts, settings_of(manifest))
        gone = duplicate_words(run, [name for name, _ in listed])
    wanted = {
        name
        for cluster in made.duplicates.clusters
        for name in (cluster.kept, *(member[0] for member in cluster.members))
    }
    ledger = LedgerSurvey(made, wanted, rejected_text, gone)
    for part in sorted(parts.values(), key=lambda part: xxhash.xxh3_128_digest(part.ledger.encode())):
        if made.rows_read >= SURVEY_ROWS:
            break
        made.parts_read += 1
        with parquet(run, part.ledger) as file:
            scores = [item.name for item in file.schema_arrow if item.name not in LEDGER.names and is_number(item.type)]
            for number in range(file.num_row_groups):
                ledger.add(RowGroup(file, number), scores)
    ledger.finish()
    return made


def is_number(kind: pa.DataType) -> bool:
    """Say whether a column's values can stand on an axis."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


class LedgerSurvey:
    """Count and sample the ledger, row group by row group; neither their order nor their cut decides what is chosen."""

    def __init__(self, made: Survey, wanted: set[bytes], rejected_text: str, gone: NDArray[np.uint64]) -> None:
        self.made, self.rejected_text, self.gone = made, rejected_text, gone
        self._met = self._weight = 0
        self.wanted = pa.array(sorted(wanted), pa.binary(16))
        self._scores: dict[str, tuple[NDArray[np.uint64], NDArray[np.float64]]] = {}
        self._examples: dict[str, list[tuple[int, Record]]] = {}

    def add(self, group: RowGroup, scores: Sequence[str]) -> None:
        """Take a row group into the account."""
        if not group.rows:
            return
        rows = group.read([*_COLUMNS, *scores])
        ids = rows.column("id").combine_chunks()
        ranks = keyed(ids, "report")
        self.made.rows_read += len(rows)
        self._lengths(rows)
        self._weigh(rows, id_words(ids)[:, 0])
        for name in scores:
            self._sample(name, rows.column(name), ranks)
        self._reject(rows, group, scores, ids, ranks)
        self._quarantine(rows)
        if len(self.wanted):
            for row in np.flatnonzero(pc.is_in(ids, self.wanted).to_numpy(zero_copy_only=False)).tolist():
                self.made.found[ids[row].as_py()] = record(rows, row, ())

    def finish(self) -> None:
        """Hand over what was sampled."""
        if self._met == len(self.gone) > 0:
            self.made.duplicate_bytes = self._weight
        self.made.scores = {name: values for name, (_, values) in self._scores.items()}
        self.made.examples = {rule: [example for _, example in held] for rule, held in self._examples.items()}
        for group in self.made.errors.values():
            group.records.sort(key=_by_place)

    def _weigh(self, rows: pa.Table, words: NDArray[np.uint64]) -> None:
        """Sum the bytes of duplicates: found by the first 8 bytes of their ids, as the sums of ids are."""
        if len(self.gone):
            hits = self.gone[np.minimum(np.searchsorted(self.gone, words), len(self.gone) - 1)] == words
            self._met += int(hits.sum())
            self._weight += int(rows.column("bytes").to_numpy()[hits].sum())

    def _lengths(self, rows: pa.Table) -> None:
        """Count lengths of texts by fate; what the reader dropped had no text yet."""
        sizes, steps = rows.column("bytes").to_numpy(), rows.column("step").to_numpy()
        for fate in ("kept", "rejected"):
            chosen = (steps >= 0) | (fate == "kept")
            chosen &= pc.equal(rows.column("fate"), fate).to_numpy()
            classes = np.searchsorted(LENGTH_EDGES, sizes[chosen], side="right") - 1
            counts = np.bincount(classes, minlength=len(LENGTH_EDGES))
            self.made.lengths[fate] = counts + self.made.lengths.get(fate, np.zeros(len(counts), np.int64))

    def _sample(self, name: str, column: pa.ChunkedArray, ranks: NDArray[np.uint64]) -> None:
        """Hold the values of the 16,384 rows of smallest rank that have this score."""
        values = column.cast(pa.float64(), safe=False).to_numpy()
        fine = np.isfinite(values)
        self.made.scored[name] = self.made.scored.get(name, 0) + int(fine.sum())
        old_ranks, old = self._scores.get(name, (np.zeros(0, np.uint64), np.zeros(0)))
        ranks, values = np.concatenate([old_ranks, ranks[fine]]), np.concatenate([old, values[fine]])
        order = np.argsort(ranks, kind="stable")[:SAMPLE_ROWS]
        self._scores[name] = ranks[order], values[order]

    def _reject(
        self, rows: pa.Table, group: RowGroup, scores: Sequence[str], ids: pa.Array, ranks: NDArray[np.uint64]
    ) -> None:
        """Hold three examples of each rule: those whose text the ledger has before the others, then by rank."""
        texts = {"all": np.ones(len(rows), bool), "none": np.zeros(len(rows), bool)}.get(self.rejected_text)
        if texts is None:
            texts = keyed(ids, "rejected text") % np.uint64(SAMPLE_ONE_IN) == 0
        order = (ranks >> np.uint64(1)) | (np.uint64(1) << np.uint64(63)) * ~texts
        rules = (
            pc.if_else(pc.equal(rows.column("fate"), "rejected"), rows.column("rule"), None)
            .combine_chunks()
            .dictionary_encode()
        )
        codes = rules.indices.fill_null(-1).to_numpy()
        text: pa.Table | None = None
        for code, rule in enumerate(rules.dictionary.to_pylist()):
            if rule not in self._examples and len(self._examples) >= MOST_RULES:
                continue
            held = self._examples.setdefault(rule, [])
            (mine,) = np.nonzero(codes == code)
            for row in mine[np.argsort(order[mine], kind="stable")[:EXAMPLES]].tolist():
                if len(held) == EXAMPLES and int(order[row]) >= held[-1][0]:
                    break
                if texts[row] and text is None:
                    text = group.read(["text"])
                held.append((int(order[row]), record(rows, row, scores, text)))
                held.sort(key=lambda item: (item[0], item[1].id))
                del held[EXAMPLES:]

    def _quarantine(self, rows: pa.Table) -> None:
        """Count quarantined records by error, with the first places of each."""
        chosen = np.flatnonzero(pc.equal(rows.column("fate"), "quarantined").to_numpy())
        for row in chosen.tolist():
            found = record(rows, row, ())
            error = row_values(rows.select(["error"]), row)["error"] or "no error recorded"
            if error not in self.made.errors and len(self.made.errors) >= MOST_ERRORS:
                error = OTHER_ERRORS
            group = self.made.errors.setdefault(error, ErrorGroup())
            group.documents += 1
            group.records.append(found)
            if len(group.records) > 4 * PLACES:
                group.records = sorted(group.records, key=_by_place)[:PLACES]


def _by_place(item: Record) -> tuple[str, str, int]:
    return item.source, item.path, item.place


def record(rows: pa.Table, row: int, scores: Sequence[str], text: pa.Table | None = None) -> Record:
    """Take one row out of a ledger's row group."""
    values = row_values(rows.select([*_SHOWN, *scores]), row)
    own = {name: values.pop(name) for name in scores}
    return Record(
        **{**values, "id": values["id"].hex()},
        scores={name: score for name, score in own.items() if score is not None},
        text=row_values(text, row)["text"] if text is not None else None,
    )


def duplicate_words(run: Store, names: Sequence[str]) -> NDArray[np.uint64]:
    """Read the first 8 bytes of every duplicate's id, sorted; of more than four million, none."""
    held, count = [np.zeros(0, np.uint64)], 0
    for rows, _ in itertools.chain.from_iterable(row_groups(run, name, ["id"]) for name in names):
        held.append(id_words(rows.column("id").combine_chunks())[:, 0].copy())
        count += len(rows)
        if count > WEIGHED:
            return held[0]
    return np.sort(np.concatenate(held))
