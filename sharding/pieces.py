"""How many pieces of documents rows have: what `Batch.varlen` is to be asked for, so that its shape never changes.

    counts = count_pieces("run/", pack="best_fit-2048")
    batch.varlen(counts.bound(rows=32))               # no batch of 32 rows has more
    batch.varlen(counts.at(rows=32, share=0.999999))  # one batch in a million has more, and raises RequestError

A generation says the mean at once, pieces by rows; the rest is in the shards' tables, about 1 % of the tokens, each
read and looked through once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import RequestError
from .cohorts import means
from .dataset import TokenData, open_tokens


@dataclass(frozen=True)
class PieceCounts:
    """shares: (most + 1,) float64, the share of rows that have 0, 1, … pieces, padding counted as one."""

    shares: NDArray[np.float64]

    @property
    def most(self) -> int:
        """Pieces of the fullest row."""
        return len(self.shares) - 1

    @property
    def mean(self) -> float:
        """Pieces a row."""
        return float(self.shares @ np.arange(len(self.shares)))

    def bound(self, rows: int) -> int:
        """Pieces that no batch of so many rows goes beyond, whatever its rows."""
        return self.most * rows

    def at(self, rows: int, share: float) -> int:
        """Pieces that this share of batches does not go beyond, were rows drawn independently: the sum's quantile.

        Shares closer to 1 than 10^-12 drown in rounding: then the bound.
        """
        if rows < 0 or not 0 <= share <= 1:
            raise RequestError(
                f"pieces are told for 0 rows or more and a share from 0 to 1, not for {rows} and {share}"
            )
        if not rows or share > 1 - 1e-12:
            return self.bound(rows)
        size = self.bound(rows) + 1
        sums = np.fft.irfft(np.fft.rfft(self.shares, size) ** rows, size)
        return int(np.searchsorted(np.cumsum(sums), share))


def count_pieces(
    path: str | Path | TokenData, pack: str | None = None, weights: Mapping[str, float] | None = None
) -> PieceCounts:
    """Count the pieces of every row of a pack.

    weights: streams and their weights, as the loader takes them; without it all streams, each by its rows.
    Documents that are left out change nothing: their pieces become padding.
    """
    data = path if isinstance(path, TokenData) else open_tokens(path)
    chosen = data.generation.pack(pack).pack
    streams: dict[str, NDArray[np.float64]] = {}
    for shard, entry in enumerate(data.generation.shards):
        name = entry.stream if weights is None else next((n for n in weights if means(n, entry.stream)), None)
        if name is not None:
            counts = np.bincount(data.reader(shard).table(chosen).pieces_per_row()).astype(np.float64)
            streams[name] = _sum(streams.get(name, np.zeros(0)), counts)
    if lacking := set(weights or {}) - set(streams):
        names = ", ".join(data.generation.streams)
        raise RequestError(f"there is no stream {', '.join(sorted(lacking))}: streams are {names}")
    if not streams:
        raise RequestError(f"{data.store.url} has no shards, so its rows have no pieces to count")
    total: NDArray[np.float64] = np.zeros(0)
    for name, counts in streams.items():
        total = _sum(total, counts if weights is None else weights[name] * counts / counts.sum())
    return PieceCounts(total / total.sum())


def _sum(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    size = max(len(left), len(right))
    return np.pad(left, (0, size - len(left))) + np.pad(right, (0, size - len(right)))
