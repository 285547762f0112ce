"""Exponential and logarithm from additions and multiplications alone: the same on every machine, whatever its libm."""

from __future__ import annotations

import numpy as np

from . import kernel


@kernel
def exp(x: float) -> float:
    """e**x to 1e-14 of itself for |x| ≤ 700, from additions and multiplications alone: the same on every machine."""
    power = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - power * 0.6931471803691238) - power * 1.9082149292705877e-10  # ln 2 in two parts; |r| < 0.35
    r2 = r * r  # Taylor's series, in halves that do not wait for each other
    low = (1.0 + r) + (1 / 2 + r * (1 / 6)) * r2
    middle = (1 / 24 + r * (1 / 120)) + (1 / 720 + r * (1 / 5040)) * r2
    high = (1 / 40320 + r * (1 / 362880)) + (1 / 3628800 + r * (1 / 39916800)) * r2
    total = low + (middle + high * (r2 * r2)) * (r2 * r2)
    return float(total * np.int64((np.int64(power) + 1023) << 52).view(np.float64))


@kernel
def log(x: float) -> float:
    """The natural logarithm of a normal x > 0, to 1e-13, without libm."""
    bits = np.float64(x).view(np.int64)
    power = (bits >> 52) - 1023
    m = np.int64((bits & 0xFFFFFFFFFFFFF) | (1023 << 52)).view(np.float64)
    if m > 1.4142135623730951:
        m *= 0.5
        power += 1
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    q2 = q * q
    low = (1.0 + q * (1 / 3)) + (1 / 5 + q * (1 / 7)) * q2
    total = low + ((1 / 9 + q * (1 / 11)) + (1 / 13 + q * (1 / 15)) * q2) * (q2 * q2)
    return power * 0.6931471803691238 + (2.0 * s * total + power * 1.9082149292705877e-10)
