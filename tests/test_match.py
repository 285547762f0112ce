"""Matching documents: the same clusters whichever way the digests meet and the forests are merged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.match import match, match_stage
from penstock.pipelines.runners import Job
from penstock.pipelines.views import Fates, Rows
from penstock.sharding.store import Store


@dataclass(frozen=True)
class Texts:
    """A part in memory."""

    number: int
    texts: tuple[str, ...]
    source: str = "made"

    @property
    def key(self) -> str:
        return f"part-{self.number}"

    @property
    def name(self) -> str:
        return self.key

    @property
    def documents(self) -> int:
        return len(self.texts)

    def batches(self, columns: Sequence[str], fates: Fates | None = None) -> Iterator[Rows]:
        ids = [f"{self.number:08d}{row:08d}".encode() for row in range(len(self.texts))]
        if ids:
            held = {"id": pa.array(ids, pa.binary(16)), "text": pa.array(self.texts)}
            yield np.arange(len(ids)), pa.record_batch({name: held[name] for name in columns if name in held})


def made_parts() -> list[Texts]:
    """Make documents of which a third repeat another, exactly or but for a word at the end, across parts."""
    random = np.random.default_rng(3)
    texts: list[str] = []
    for _ in range(300):
        words = " ".join("".join(word) for word in random.choice(list("aeioubdgklmnprst"), (40, 6)))
        earlier = texts[int(random.integers(len(texts)))] if texts else words
        texts.append([words, words, earlier, earlier + " more"][int(random.integers(4))])
    return [Texts(0, tuple(texts[:100])), Texts(1, ()), Texts(2, tuple(texts[100:]))]


def here(job: Job) -> None:
    groups: dict[str, list[bytes]] = defaultdict(list)
    for task in reversed(job.tasks):
        for key, value in job.map(task) or ():
            groups[key].append(value)
    for key, values in groups.items():
        assert job.reduce is not None
        job.reduce(key, values)


WAYS = {"by shuffle": (False, {}), "by star rounds": (True, {"contract_nodes": 0})}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_clusters(tmp_path: Path, way: str) -> None:
    parts, dedup = made_parts(), Dedup()
    local, options = WAYS[way]
    receipts = []
    for name, held, more in (("files", True, {}), ("other", local, options)):
        stage = match_stage(Store(tmp_path / name), dedup, parts)
        more_options: dict[str, Any] = dict(more)
        receipts.append((stage, match(stage, dedup, parts, here, held, **more_options)))
    (one, first), (two, second) = receipts
    assert 60 < first["duplicates"] < 200
    assert first["clusters"] == second["clusters"]
    assert one.store.read(first["clusters"]) == two.store.read(second["clusters"])
    assert first["removals"] == second["removals"]
