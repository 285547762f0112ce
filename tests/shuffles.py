"""How random an order looks: the statistics, what NumPy's permutation gives for them, and two shuffles that are weak.

Used by tests/test_order.py and tests/benchmarks/order.py. Bounds are NumPy's own spread over seeds, nothing typed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
#: Rows of a batch, and contiguous sources that the rows are sorted by.
BATCH, SOURCES = 256, 64
#: Statistics that say how batches vary: an order may pass below NumPy's, which only means that it mixes more evenly.
VARIANCES = ("batch_variance", "source_variance")
NAMES = ("chi2_of_steps", "distinct_steps", "serial_correlation", "low_bit_flips", *VARIANCES)


def statistics(rows: Ints, total: int) -> dict[str, float]:
    """Of a stretch of an order of `total` rows.

    chi2_of_steps: differences of neighbours, modulo `total`, in 256 bins. distinct_steps: share of distinct ones.
    low_bit_flips: share of neighbours of different parity. batch_variance: of batches' means. source_variance: of how
    many rows a batch has of each source, where the rows are sorted by source. Both over those of drawing by chance.
    """
    steps = np.diff(rows) % total
    counts = np.bincount((steps * (256 / total)).astype(np.int64), minlength=256)
    expected = len(steps) / 256
    batches = rows[: len(rows) // BATCH * BATCH].reshape(-1, BATCH)
    of_source = (batches * (SOURCES / total)).astype(np.int64) + np.arange(len(batches))[:, None] * SOURCES
    taken = np.bincount(of_source.ravel(), minlength=len(batches) * SOURCES) - BATCH / SOURCES
    held_back = 1 - BATCH / total
    return {
        "chi2_of_steps": float(((counts - expected) ** 2).sum() / expected),
        "distinct_steps": len(np.unique(steps)) / len(steps),
        "serial_correlation": float(np.corrcoef(rows[:-1], rows[1:])[0, 1]),
        "low_bit_flips": float(np.mean((rows[:-1] ^ rows[1:]) & 1)),
        "batch_variance": float(batches.mean(axis=1).var() / (total**2 / 12 / BATCH * held_back)),
        "source_variance": float((taken**2).mean() / (BATCH / SOURCES * (1 - 1 / SOURCES) * held_back)),
    }


def by_numpy(seed: int, rows: int, total: int) -> Ints:
    """A true permutation of `total` rows, or so many draws where the stretch is but a small part of it."""
    chance = np.random.default_rng(seed)
    return chance.permutation(total) if rows == total else chance.integers(0, total, rows)


@dataclass(frozen=True)
class Spread:
    """What NumPy gives over some seeds: mean and standard deviation of each statistic."""

    means: dict[str, float]
    deviations: dict[str, float]

    @classmethod
    def of(cls, rows: int, total: int, seeds: int) -> Spread:
        """Measure so many of NumPy's permutations, or stretches."""
        found = [statistics(by_numpy(1000 + seed, rows, total), total) for seed in range(seeds)]
        table = {name: [one[name] for one in found] for name in NAMES}
        return cls(
            {name: float(np.mean(values)) for name, values in table.items()},
            # Where no value ever differs, one row in the stretch counts.
            {name: max(float(np.std(values, ddof=1)), 1 / rows) for name, values in table.items()},
        )

    def scores(self, found: dict[str, float]) -> dict[str, float]:
        """How many of NumPy's standard deviations each statistic lies off NumPy's mean."""
        return {name: (found[name] - self.means[name]) / self.deviations[name] for name in NAMES}


def affine_feistel(total: int, seed: int, rounds: int = 5) -> Ints:
    """A Feistel walk whose round function multiplies and adds, as in Levanter's `_prp.py`: low bits never mix."""
    half = (int(total - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    values, outside = np.arange(total, dtype=np.int64), np.arange(total)
    keys = np.random.default_rng(seed).integers(0, 1 << half, rounds).tolist()
    while outside.size:
        left, right = values[outside] >> half, values[outside] & mask
        for key in keys:
            left, right = right, left ^ ((right * 2654435761 + key) & mask)
        values[outside] = left << half | right
        outside = outside[values[outside] >= total]
    return values


def congruential_walk(total: int, seed: int) -> Ints:
    """x → (5 x + odd) mod 2^k, walked until it is below `total`, as fms-fsdp walks documents."""
    period = 1 << int(total - 1).bit_length()
    odd = int(np.random.default_rng(seed).integers(0, period // 2)) * 2 + 1
    walk, at = np.empty(period, np.int64), seed % period
    for number in range(period):
        walk[number] = at
        at = (5 * at + odd) % period
    return walk[walk < total]
