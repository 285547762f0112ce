"""Sweep: how many documents stay as a threshold moves, by replaying the steps' decisions over a finished run's ledger.

What is said of each value, and how sure it is:
    passed the rules    exact where every row's fate follows from recorded scores: always for a stricter threshold, for
                        a looser one where the run had `score_rejected` and no step that edits text had dropped the row;
                        else from `least` (none of the rows that later steps never scored stays) to `most` (all do)
    kept                after deduplication. A cluster stays while one member does, and may fall into more where one
                        that linked the others goes: `least` to `most`. Where rows come in that were never compared
                        with others, the run's own share of duplicates is applied: an estimate
    bytes, tokens       of kept text: the run's own bytes and tokens for a document that passed, an estimate

Memory is bounded: a row group of 20,000 rows, and a count for each cluster and value up to 128 MB; beyond that the
run's own share of duplicates stands in for the clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import RunError
from ..sharding.store import Store
from ..transforms.schema import id_words
from ..transforms.step import Scores
from .directory import RunDirectory
from .replay import QUARANTINED, UNKNOWN, Codes, Group, Replay, ReplayStep, replay_steps, scores_of
from .sweep_grid import Field, chosen, named
from .tables import parquet, row_groups

MOST_DUPLICATES = 4_000_000  # whose clusters are held
MOST_CELLS = 1 << 25  # clusters × values
SAMPLED = ("id", "fate", "step")  # columns that say where a row stands


@dataclass
class Tally:
    """What becomes of rows: kept for certain, open (no known rule drops them), and dropped, by (step, rule)."""

    kept: int = 0
    kept_bytes: int = 0
    open: int = 0
    open_bytes: int = 0
    lost: int = 0  # dropped for certain, by a rule that is not known
    gained: int = 0  # kept here and not by the run
    rules: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, decisions: Codes, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Count rows by what the steps decide on them, (steps, n); give those that are kept for certain."""
        steps = len(decisions)
        dropped, unknown = decisions >= QUARANTINED, decisions == UNKNOWN
        at = np.where(dropped.any(axis=0), dropped.argmax(axis=0), steps)
        dark = np.where(unknown.any(axis=0), unknown.argmax(axis=0), steps)
        kept, maybe, sure = (at == dark), (at == steps) & (dark < steps), at < dark
        self.kept += int(kept.sum())
        self.kept_bytes += int(sizes[kept].sum())
        self.open += int(maybe.sum())
        self.open_bytes += int(sizes[maybe].sum())
        self.lost += int((dark < at).sum() - maybe.sum())
        columns = np.flatnonzero(sure)
        pairs, counts = np.unique(
            (at[columns].astype(np.int64) << 32) | decisions[at[columns], columns], return_counts=True
        )
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            key = (pair >> 32, pair & 0xFFFFFFFF)
            self.rules[key] = self.rules.get(key, 0) + count
        return np.asarray(kept)


@dataclass
class Point:
    """One value of one field."""

    of: Field
    value: Any
    step: Any  # the step with this value
    own: bool  # the run's
    tally: Tally = field(default_factory=Tally)
    survivors: NDArray[np.int32] | None = None  # by cluster


@dataclass
class Clusters:
    """Which cluster a document belongs to, by the first 8 bytes of its id."""

    words: NDArray[np.uint64]
    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, run: Store, name: str) -> Clusters:
        """Read them from a run's table of clusters."""
        words, clusters = [], []
        for rows, _ in row_groups(run, name, ["id", "kept_id", "cluster"]):
            cluster = id_words(rows.column("cluster"))[:, 0]
            for member in ("id", "kept_id"):
                words.append(id_words(rows.column(member))[:, 0])
                clusters.append(cluster)
        found, first = np.unique(np.concatenate(words or [np.zeros(0, np.uint64)]), return_index=True)
        of = np.concatenate(clusters or [np.zeros(0, np.uint64)])[first]
        _, numbers, sizes = np.unique(of, return_inverse=True, return_counts=True)
        return cls(found, numbers, sizes)

    def find(self, ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """Number each document's cluster; -1 where it has no copies."""
        words = id_words(ids)[:, 0]
        if not len(self.words):
            return np.full(len(words), -1, np.int64)
        at = np.minimum(np.searchsorted(self.words, words), len(self.words) - 1)
        return np.where(self.words[at] == words, self.numbers[at], -1)

    def left(self, passed: int, survivors: NDArray[np.int32]) -> tuple[int, int]:
        """Count the documents that deduplication leaves of `passed`: at least, at most."""
        inside, alive = int(survivors.sum()), survivors > 0
        least = passed - inside + int(alive.sum())
        apart = alive & (survivors < self.sizes)
        return least, least + int((survivors[apart] - 1).sum())


def sweep(run: RunDirectory, words: Sequence[str]) -> dict[str, Any]:
    """Sweep the thresholds that `words` name (`FIELD`, `FIELD=v1,v2`, `FIELD=lo:hi:n`; none: all); give what was found.

    Raises RequestError for a field that the run's steps do not have, or a value that they refuse; RunError where the
    ledger does not give the run's own funnel.
    """
    names = ledger_names(run)
    steps = replay_steps(run.manifest, names)
    replay = Replay(steps, bool(run.manifest["recipe"].get("score_rejected")))
    asked = chosen(named(steps), words, lambda number: ledger(run, replay, number))
    points = [Point(at, value, like, own) for at, values in asked for value, like, own in at.variants(values)]
    clusters = clusters_of(run, len(points))
    if clusters is not None:
        for point in points:
            point.survivors = np.zeros(len(clusters.sizes), np.int32)
    own = Tally()
    for rows in ledger(run, replay):
        follow(replay, replay.group(rows), points, own, clusters)
    check_funnel(run.manifest, replay, own)
    return account(run, replay, points, clusters)


def ledger_names(run: RunDirectory) -> list[str]:
    """Name the ledger's columns."""
    for part in run.parts().values():
        with parquet(run.store, part.ledger) as file:
            return list(file.schema_arrow.names)
    return []


def ledger(run: RunDirectory, replay: Replay, step: int | None = None) -> Iterator[pa.Table]:
    """Read the ledger row group by row group: what the replay needs, or the scores of one step."""
    columns = replay.columns() if step is None else [*SAMPLED, *replay.steps[step].columns.values()]
    for part in run.parts().values():
        for rows, _ in row_groups(run.store, part.ledger, columns):
            yield rows


def clusters_of(run: RunDirectory, points: int) -> Clusters | None:
    """Read the clusters where the run has them and they can be held for so many values."""
    name, duplicates = run.table("clusters"), int(run.manifest.get("duplicates") or 0)
    if name is None or duplicates > MOST_DUPLICATES or duplicates * points > MOST_CELLS:
        return None
    return Clusters.of(run.store, name)


def follow(replay: Replay, group: Group, points: Sequence[Point], own: Tally, clusters: Clusters | None) -> None:
    """Count a row group at every point."""
    kept = own.add(group.decisions, group.sizes)
    numbers = clusters.find(group.rows.column("id")) if clusters is not None else None
    moved: dict[int, Moved] = {}
    for point in points:
        step = point.of.step
        if step.number not in moved:
            moved[step.number] = Moved.of(group, step)
        at = moved[step.number]
        decisions = at.decisions.copy()
        decisions[step.number] = replay.decide(point.step, at.scores)
        if step.edits:
            loose = (at.decisions[step.number] >= QUARANTINED) & (decisions[step.number] < QUARANTINED)
            decisions[step.number + 1 :, loose] = UNKNOWN
        stays = at.kept.copy()
        stays[at.places] = point.tally.add(decisions, group.sizes[at.places])
        join(point.tally, at.rest)
        point.tally.gained += int((stays & ~kept).sum())
        if numbers is not None and point.survivors is not None:
            np.add.at(point.survivors, numbers[stays & (numbers >= 0)], 1)


@dataclass
class Moved:
    """What of a row group one step's thresholds can move; the rest is counted once for all of them."""

    places: NDArray[np.int64]
    scores: Scores
    decisions: Codes
    rest: Tally
    kept: NDArray[np.bool_]  # of the rest, among all rows

    @classmethod
    def of(cls, group: Group, step: ReplayStep) -> Moved:
        """Part the rows that an earlier step dropped, or whose decision no score gives, from the others."""
        before = (group.decisions[: step.number] >= QUARANTINED).any(axis=0)
        free = group.free[step.number] & ~before
        rest, kept = Tally(), np.zeros(len(free), bool)
        kept[~free] = rest.add(group.decisions[:, ~free], group.sizes[~free])
        places = np.flatnonzero(free)
        return cls(places, scores_of(step, group.rows, places), group.decisions[:, places], rest, kept)


def join(tally: Tally, rest: Tally) -> None:
    """Add what was counted apart."""
    for name in ("kept", "kept_bytes", "open", "open_bytes", "lost"):
        setattr(tally, name, getattr(tally, name) + getattr(rest, name))
    for key, count in rest.rules.items():
        tally.rules[key] = tally.rules.get(key, 0) + count


def check_funnel(manifest: Mapping[str, Any], replay: Replay, own: Tally) -> None:
    """Hold the replay, at the run's own thresholds, to the run's own funnel."""
    names = {number: rule for rule, number in replay.rules.items()}
    found = {(step, names.get(code)): count for (step, code), count in own.rules.items()}
    wanted: dict[tuple[int, str | None], int] = {}
    for entry in manifest.get("funnel") or ():
        if entry["fate"] != "kept" and entry["step"] >= 0:
            key = (entry["step"], entry["rule"] if entry["fate"] == "rejected" else None)
            wanted[key] = wanted.get(key, 0) + entry["documents"]
    passed = int(manifest["kept"]) + int(manifest["duplicates"])
    if found != wanted or (own.kept, own.open, own.lost) != (passed, 0, 0):
        raise RunError(
            f"the ledger gives {own.kept:,} documents that passed, the run's manifest {passed:,}, rule by rule "
            f"{found} and {wanted}: the run's folder is damaged, run its recipe again"
        )


def account(run: RunDirectory, replay: Replay, points: Sequence[Point], clusters: Clusters | None) -> dict[str, Any]:
    """Say what was found as JSON values."""
    manifest, names = run.manifest, {number: rule for rule, number in replay.rules.items()}
    fields: dict[str, dict[str, Any]] = {}
    for point in points:
        at = point.of
        entry = fields.setdefault(
            at.name,
            {"field": at.name, "scores": list(at.columns), "drops": at.drops, "own": at.own, "points": []},
        )
        entry["points"].append(_point(manifest, names, point, clusters))
    return {
        "run": run.store.url,
        "documents_in": manifest["documents_in"],
        "passed": int(manifest["kept"]) + int(manifest["duplicates"]),
        "kept": manifest["kept"],
        "deduplicated": bool(manifest["stages"].get("duplicates")),
        "score_rejected": replay.score_rejected,
        "fields": list(fields.values()),
        "not_swept": [{"step": step.name, "why": step.why} for step in replay.steps if step.why],
        "held": {step.name: count for step, count in zip(replay.steps, replay.held, strict=True) if count},
    }


def _point(
    manifest: Mapping[str, Any], names: Mapping[int, str], point: Point, clusters: Clusters | None
) -> dict[str, Any]:
    tally, passed_by_run = point.tally, int(manifest["kept"]) + int(manifest["duplicates"])
    by_rule: dict[str, int] = {}
    for (_, code), count in sorted(tally.rules.items()):
        by_rule[names.get(code, "quarantined")] = by_rule.get(names.get(code, "quarantined"), 0) + count
    weight = {entry["fate"]: int(entry["bytes"]) for entry in manifest["funnel"] if entry["fate"] == "kept"}
    share = manifest["kept"] / passed_by_run if passed_by_run else 0.0
    bytes_share = manifest["bytes_kept"] / weight["kept"] if weight.get("kept") else 0.0
    size = {"least": round(tally.kept_bytes * bytes_share)}
    size["most"] = round((tally.kept_bytes + tally.open_bytes) * bytes_share)
    per_byte = manifest["tokens"] / manifest["bytes_kept"] if manifest.get("tokens_sha256") else None
    made = {
        "value": point.value,
        "own": point.own,
        "passed": {"least": tally.kept, "most": tally.kept + tally.open},
        "exact": not tally.open,
        "kept": _kept(point, share, clusters, bool(manifest["stages"].get("duplicates"))),
        "bytes": size,
        "tokens": None if per_byte is None else {name: round(value * per_byte) for name, value in size.items()},
        "rejected_by_rule": by_rule,
        "dropped_by_a_rule_not_known": tally.lost,
    }
    if point.own and per_byte is not None:
        made["tokens"] = {"least": manifest["tokens"], "most": manifest["tokens"]}
    return made


def _kept(point: Point, share: float, clusters: Clusters | None, deduplicated: bool) -> dict[str, Any]:
    """Say what deduplication leaves, and how that is known."""
    tally = point.tally
    if not deduplicated:
        return {"least": tally.kept, "most": tally.kept + tally.open, "known": "exact" if not tally.open else "bounds"}
    if clusters is not None and point.survivors is not None and not tally.open and not tally.gained:
        least, most = clusters.left(tally.kept, point.survivors)
        return {"least": least, "most": most, "known": "exact" if least == most else "bounds"}
    least, most = round(tally.kept * share), round((tally.kept + tally.open) * share)
    return {"least": least, "most": most, "known": "estimate"}
