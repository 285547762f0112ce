"""The kinds of deduplication one after the other, each over what the one before left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..sharding.store import Store, crash_point
from .dedup_index import Pinned
from .duplicates import Dedup
from .guard import guard_line
from .keep import require_columns
from .match import match, match_stage, sign_key, url_stage
from .progress import Progress
from .reconcile import NOTHING, Removed
from .repeats import Repeats, cut_key, cut_list, cut_repeats, repeats_stage, signed_stage
from .runners import Job
from .stage import Receipt, Stage
from .summary import cost
from .views import EVERYTHING, Part, RemovalList, View


@dataclass(frozen=True)
class Work:
    """Where and how a chain runs."""

    store: Store  # the run's folder
    launch: Callable[[Job], None]
    local: bool  # its runner keeps its shuffle in this machine's memory
    progress: Progress
    similarity: bool = False  # of removed documents to those that stay, where nothing is verified, too


@dataclass(frozen=True)
class Found:
    """What the kinds so far found."""

    view: View = EVERYTHING
    stages: dict[str, str] = field(default_factory=dict)  # kind of stage → hash
    tables: tuple[str, ...] = ()  # of removals, from the run's folder
    costs: dict[str, Any] = field(default_factory=dict)
    removed: Removed = NOTHING
    first: Stage | None = None  # its signatures met every record of the input

    @property
    def upstream(self) -> list[str]:
        """Name what was found, for the hash of what comes after."""
        return list(self.stages.values())

    def with_removals(self, stage: Stage, receipt: Receipt, costs: Any) -> Found:
        """Add what a stage found."""
        view = replace(self.view, removed=(*self.view.removed, RemovalList.of(stage.store, receipt)))
        total = self.removed.documents + int(receipt["duplicates"])
        id_sum = (self.removed.id_sum + int(receipt["id_sum"])) % (1 << 64)
        return replace(
            self,
            view=view,
            stages={**self.stages, stage.name: stage.hash},
            tables=(*self.tables, f"{stage.name}/{stage.hash}/{receipt['clusters']}"),
            costs={**self.costs, stage.name: costs},
            removed=Removed(total, id_sum),
            first=self.first or stage,
        )


def find_duplicates(work: Work, dedup: Dedup, parts: Sequence[Part], index: Pinned | None = None) -> Found:
    """Run the kinds that are asked for, against earlier batches where there are any; what stands is taken as it stands.

    Whoever gives an index calls `add_batch` once the run's results are committed.
    """
    require_columns(dedup.keep, parts)
    require_columns(dedup.url.keep if dedup.url else (), parts, "url.keep")
    found, pinned = Found(), [f"index-{index.digest}"] if index is not None else []
    if dedup.url is not None:
        stage = url_stage(work.store, dedup, parts, pinned)
        found = _documents(work, dedup, parts, stage, found, index, by_url=True)
    if dedup.documents:
        stage = match_stage(work.store, dedup, parts, [*found.upstream, *pinned])
        found = _documents(work, dedup, parts, stage, found, index, by_url=False)
    for settings in (dedup.lines, dedup.substrings):
        if settings is not None:
            found = _repeats(work, settings, parts, found)
    return found


def _repeats(work: Work, settings: Repeats, parts: Sequence[Part], found: Found) -> Found:
    """Cut lines or substrings that stood before; documents that keep too little go."""
    stage = repeats_stage(work.store, settings, parts, found.upstream)
    keys = list(map(cut_key, parts))
    with work.progress.stage(stage, stage.name, keys):
        receipt = cut_repeats(stage, settings, parts, found.view, work.launch, work.local)
    stage.require([receipt["clusters"], receipt["cuts"]])
    crash_point("stage-done")
    first = found.first or signed_stage(stage, settings)
    found = found.with_removals(stage, receipt, cost([*stage.receipts(keys), receipt]))
    cut = (*found.view.cut, cut_list(stage, settings, receipt))
    return replace(found, view=replace(found.view, cut=cut), first=first)


def _documents(
    work: Work, dedup: Dedup, parts: Sequence[Part], stage: Stage, found: Found, index: Pinned | None, *, by_url: bool
) -> Found:
    """Find whole documents that go, by URL or by what they say."""
    keys = list(map(sign_key, parts))
    with work.progress.stage(stage, stage.name, keys):
        call = partial(match, stage, dedup, parts, work.launch, work.local, found.view, index=index)
        receipt = call(by_url=by_url, similarity=work.similarity and not by_url)
    if (line := guard_line(dedup.guard, receipt["guarded_count"], receipt["guarded"])) is not None:
        work.progress.say(line)
    stage.require([receipt["clusters"]])
    crash_point("stage-done")
    return found.with_removals(stage, receipt, cost([*stage.receipts(keys), receipt]))
