"""From a URL to its fate: kept and where, dropped as a copy of what, rejected by which rule, set aside and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .. import RequestError
from ..sharding.dataset import open_tokens
from ..sharding.documents import Documents
from ..sharding.tools.url_patterns import matching
from ..transforms.edits import COLUMN as EDITS
from .directory import RunDirectory
from .ledger import LEDGER
from .tables import row_groups, row_values
from .thresholds import concerns, kind_of_rule, thresholds
from .trace import Json, closest

LISTED = 100
_NAMED = ("url", "source", "path", "place")


def trace_url(path: str, pattern: str, most: int = LISTED) -> Json:
    """Say what became of every record whose URL contains `pattern`, or matches it whole where it holds `*`.

    Case counts; `*` stands for anything, and no other character is special, because URLs are full of `?` and `[`. At
    most `most` records are listed. A URL that the run never met: RequestError.
    """
    run = RunDirectory.open(path)
    if run.table("parts") is None:
        raise RequestError(
            f"{path} is a deduplication alone, which keeps no ledger: what went, and for whom, stands in "
            f"{path}/{run.table('clusters')}"
        )
    found: list[Json] = []
    met = matched = 0
    for part in run.parts().values():
        for urls, group in row_groups(run.store, part.ledger, ["url"]):
            hits = pc.indices_nonzero(pc.fill_null(matching(urls.column("url"), pattern), False))
            met, matched = met + len(urls), matched + len(hits)
            if len(hits) and len(found) < most:
                rows = group.read([name for name in group.names if name not in ("text", "raw", EDITS)]).take(hits)
                found += [row_values(rows, row) for row in range(min(len(rows), most - len(found)))]
    if not found:
        verb = "matches" if "*" in pattern else "contains"
        raise RequestError(f"none of the {met:,} records of this run has a URL that {verb} {pattern!r}; case counts")
    settled = Settled(run, found)
    return {"pattern": pattern, "matched": matched, "records": [settled.fate(record) for record in found]}


class Settled:
    """What the stages after the ledger decided on some of its records."""

    def __init__(self, run: RunDirectory, records: Iterable[Mapping[str, Any]]) -> None:
        self.run = run
        kept = {record["id"]: {name: record[name] for name in _NAMED} for record in records if record["fate"] == "kept"}
        self.duplicates = self._duplicates(set(kept))
        originals = {copy["kept_id"] for copy in self.duplicates.values()}
        self.places = self._places(kept.keys() - self.duplicates.keys() | originals)
        self.originals = {**kept, **self._originals(originals - self.places.keys() - kept.keys())}

    def fate(self, record: Json) -> Json:
        """Sum up one record: who it is, what became of it, and why."""
        scores = {name: score for name, score in record.items() if name not in LEDGER.names and score is not None}
        names = (*_NAMED, "source_id", "language", "bytes", "fate")
        told: Json = {"id": record["id"].hex(), **{name: record[name] for name in names}, "scores": scores}
        if record["fate"] != "kept":
            return {**told, **self._fell(record, scores)}
        copy = self.duplicates.get(record["id"])
        if copy is None:
            return {
                **told,
                **self.places.get(record["id"], {}),
                "closest": closest(self.run, scores, record["language"]),
            }
        original = {"id": copy["kept_id"].hex(), **self.originals.get(copy["kept_id"], {})}
        original |= self.places.get(copy["kept_id"], {})
        return {**told, "fate": "duplicate", "kept": original, "cluster_size": copy["cluster_size"]}

    def _fell(self, record: Mapping[str, Any], scores: Mapping[str, Any]) -> Json:
        """Say at which step a record fell out, and what spoke against it."""
        kinds, number = self.run.kinds(), record["step"]
        kind = "read" if number < 0 else kinds[number] if number < len(kinds) else str(number)
        if record["fate"] == "quarantined":
            return {"step": number, "kind": kind, "error": record["error"]}
        rules = kind_of_rule(record["rule"], kind)
        beyond = [
            {"score": name, "value": score, "drops": cut.drops, "threshold": cut.value}
            for name, score in scores.items()
            if concerns(rules, name) and isinstance(score, (int, float))
            for cut in thresholds(self.run.manifest, name, record["language"])
            if cut.beyond(score)
        ]
        return {"step": number, "kind": kind, "rule": record["rule"], "beyond": beyond}

    def _duplicates(self, ids: set[bytes]) -> dict[bytes, Json]:
        clusters, found = self.run.table("clusters"), {}
        if clusters is not None and ids:
            wanted = pa.array(sorted(ids), pa.binary(16))
            for rows, _ in row_groups(self.run.store, clusters, ["id", "kept_id", "cluster_size"]):
                found.update({row["id"]: row for row in rows.filter(pc.is_in(rows.column("id"), wanted)).to_pylist()})
        return found

    def _places(self, ids: set[bytes]) -> dict[bytes, Json]:
        """Find kept documents in the token files: stream, shard, ordinal and URL."""
        found: dict[bytes, Json] = {}
        if not ids or not (self.run.manifest.get("stages") or {}).get("tokens"):
            return found
        documents = Documents(open_tokens(self.run.store.url, **self.run.store.options))
        wanted = pa.array(sorted(ids), pa.binary(16))
        for shard, entry in enumerate(documents.data.generation.shards):
            table, first = documents.table(shard), 0
            for group in range(table.num_row_groups):
                column = table.read_row_group(group, columns=["id"], use_threads=False).column("id")
                hits = pc.indices_nonzero(pc.is_in(column, wanted)).to_pylist()
                gone = set(documents.reader(shard).gone.tolist()) if hits else ()
                for record in documents.records(shard, [first + hit for hit in hits]) if hits else ():
                    place = {"stream": entry.stream, "shard": shard, "ordinal": record["ordinal"]}
                    more = {"taken_down": True} if record["ordinal"] in gone else {"url": record["url"]}
                    found[bytes.fromhex(record["id"])] = {**place, **more}
                first += len(column)
            if len(found) == len(ids):
                break
        return found

    def _originals(self, ids: set[bytes]) -> dict[bytes, Json]:
        """Find the URLs of kept documents in the ledger, where there are no token files that know them."""
        found: dict[bytes, Json] = {}
        if ids:
            wanted = pa.array(sorted(ids), pa.binary(16))
            for part in self.run.parts().values():
                for rows, _ in row_groups(self.run.store, part.ledger, ["id", *_NAMED]):
                    hits = rows.filter(pc.is_in(rows.column("id"), wanted))
                    for number in range(len(hits)):
                        values = row_values(hits, number)
                        found[values.pop("id")] = values
        return found
