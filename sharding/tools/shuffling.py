"""How far batches are from those of a true permutation: how varied they are on sorted data, how far neighbours go.

Data sorted by source is the hardest case: each stream's stored rows are taken as 64 sources, one after the other. A
batch of n rows of N drawn without order holds n·p·(1 - p)·(N - n)/(N - 1) more or less of each source, squared; the
ratio of what is found to that is 1 for a true permutation, 1.2 is a good block shuffle (DESIGN: 1.24 at a window of 32
groups), 64 is no shuffle. Neighbours of a true permutation end (1 - 1/√2)·N rows apart, in the median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..format import Generation, PackOrder
from ..permutation import Ints
from ..positions import Places

#: Contiguous sources that each stream's stored rows are taken for.
SOURCES = 64
#: Median distance of two different places drawn by chance, of the whole.
PERMUTED_DISTANCE = 1 - 2**-0.5


@dataclass(frozen=True)
class Stored:
    """Where rows lie in the stored order of a data set: stream by stream, shard by shard."""

    stream: Ints  # of each shard
    before: Ints  # rows of its stream before each shard
    rows: Ints  # of each stream
    group_rows: int

    @classmethod
    def of(cls, generation: Generation, pack: PackOrder) -> Stored:
        """Count the rows of a generation's shards."""
        table = generation.shards
        stream, counts = (table.records[name].astype(np.int64) for name in ("stream", f"rows.{pack.pack.name}"))
        rows = np.array(list(table.by_stream(f"rows.{pack.pack.name}").values()), np.int64)
        before = np.cumsum(counts) - counts
        return cls(stream, before - (np.cumsum(rows) - rows)[stream], rows, pack.group_rows)

    def sources(self, places: Places) -> tuple[Ints, Ints]:
        """(stream, source within it) of each row."""
        stream = self.stream[places.shards]
        offsets = self.before[places.shards] + places.groups * self.group_rows + places.rows
        return stream, offsets * SOURCES // self.rows[stream]


def batch_variance(stored: Stored, places: Places, batches: int) -> tuple[float, float]:
    """Variance of counts of a source in a batch over a true permutation's, and its standard error.

    places: rows of so many batches of one size, one after the other. Batches that hold a whole stream tell nothing.
    """
    stream, source = stored.sources(places)
    batch = np.arange(len(stream)) // (len(stream) // batches)
    found = ideal = 0.0
    for number, total in enumerate(stored.rows.tolist()):
        here = stream == number
        drawn = np.bincount(batch[here], minlength=batches).astype(np.float64)
        drawn = np.where(drawn < total, drawn, 0)
        counts = np.bincount(batch[here] * SOURCES + source[here], minlength=batches * SOURCES)
        sizes = np.diff(-(-np.arange(SOURCES + 1) * total // SOURCES)) / max(total, 1)
        strays = counts.reshape(batches, SOURCES) - np.outer(drawn, sizes)
        found += float((strays[drawn > 0] ** 2).sum())
        ideal += float((drawn * (total - drawn) / max(total - 1, 1)).sum() * (sizes * (1 - sizes)).sum())
    freedom = max(1, batches * (SOURCES - 1))
    return (found / ideal, (2 / freedom) ** 0.5) if ideal else (1.0, 0.0)
