"""A keyed sample of records and what it says of all of them.

Each record is drawn by itself: those whose keyed hash falls below their chance, two fifths of it equal for all and the
rest by the square root of the size, the cheapest way to totals of bytes (whose cost grows with size). Totals are sums
weighted by 1 / chance, calibrated so that the known numbers, of records in each stretch of the input and of their
bytes, come out exactly (Deville and Särndal 1992, "Calibration Estimators in Survey Sampling"): inputs sorted by their
source do no harm. Errors are one standard deviation, from the residuals; twice that holds 19 times of 20.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .estimate_scan import Population

STRETCH = 40  # sampled records in each stretch whose number is held
EQUAL = 0.4  # share of a chance that is the same for all records
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A total and its standard error."""

    value: float
    error: float

    def scaled(self, factor: float, more: float = 0.0) -> Estimate:
        """Multiply by a factor that is itself uncertain by the share `more`."""
        value = self.value * factor
        return Estimate(value, math.hypot(self.error * factor, value * more))

    def as_json(self) -> dict[str, float]:
        """Give both as JSON, rounded to what they are good for."""
        return {"value": round(self.value), "error": round(self.error)}


@dataclass
class Sample:
    """Chosen records (m,), their chances, and weights that add up to what is known of all."""

    population: Population
    rows: NDArray[np.int64]
    chances: Values
    weights: Values
    known: Values  # (m, k) what the weights are calibrated on

    @property
    def scale(self) -> float:
        """Say how many times the input is as large as what was read."""
        return self.population.total_bytes / max(1, self.population.read_bytes)

    def total(self, values: NDArray[np.bool_] | Values) -> Estimate:
        """Estimate the sum over all records of a value known for the sampled ones, (m,)."""
        values = np.asarray(values, np.float64)
        fitted = _fit(self.known, 1 / self.chances, values)
        rest = values - self.known @ fitted
        within = float((((1 - self.chances) / self.chances**2) * rest**2).sum())
        value = max(0.0, float(self.weights @ values))
        return Estimate(value * self.scale, math.sqrt(within * self.scale**2 + self.between(values)))

    def mean(self, values: Values, of: NDArray[np.bool_]) -> tuple[float, float]:
        """Average a value over the records of a kind; with its standard error."""
        w = self.weights * of
        if w.sum() <= 0:
            return 0.0, 0.0
        mean = float(w @ values / w.sum())
        spread = float((w**2 * (1 - self.chances) * (values - mean) ** 2).sum()) / float(w.sum()) ** 2
        return mean, math.sqrt(spread)

    def between(self, values: Values) -> float:
        """Weigh how much the ranges that were read differ from one another."""
        units, scale = self.population.units, self.scale
        if scale <= 1 or len(units) < 2:
            return 0.0
        sums = np.bincount(self.population.unit[self.rows], self.weights * values, len(units))
        sizes = np.array([unit.piece.bytes for unit in units], np.float64)
        rest = sums - sizes * (sums.sum() / max(1.0, sizes.sum()))
        return float(scale**2 * (1 - 1 / scale) * len(units) / (len(units) - 1) * (rest**2).sum())


def draw(population: Population, wanted: float) -> Sample:
    """Draw about `wanted` records."""
    n, sizes = len(population.contents), population.contents
    chances = np.ones(n)
    if wanted < n:
        roots = np.sqrt(sizes + 1)
        chances = np.minimum(1.0, wanted * (EQUAL / n + (1 - EQUAL) * roots / roots.sum()))
    rows = np.flatnonzero(population.draws < chances)
    stretches = np.arange(n) * max(1, round(len(rows) / STRETCH)) // max(1, n)
    z = np.zeros((n, int(stretches[-1]) + 2 if n else 1))
    if n:
        z[np.arange(n), stretches] = 1.0
        z[:, -1] = sizes / max(1.0, sizes.mean())
    weights = 1 / chances[rows]
    gap = z.sum(axis=0) - weights @ z[rows]
    known = z[rows]
    calibrated = weights * (1 + known @ _solve_gap(known, weights, gap)) if len(rows) else weights
    return Sample(population, rows, chances[rows], calibrated, known)


def _fit(known: Values, weights: Values, values: Values) -> Values:
    """Give the weighted least squares of values on what is known."""
    weighted = known * weights[:, None]
    return np.asarray(np.linalg.pinv(weighted.T @ known) @ (weighted.T @ values))


def _solve_gap(known: Values, weights: Values, gap: Values) -> Values:
    """Give what closes the gap between known totals and weighted sums of the sample."""
    return np.asarray(np.linalg.pinv((known * weights[:, None]).T @ known) @ gap)
