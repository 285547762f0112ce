"""Charts as inline SVG: horizontal places are percentages and text has the page's size, so one fits phone and desk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from .funnel import bytes_text, visible
from .thresholds import Threshold

PLOT = 96  # px of a histogram's bars
LABELS = 20  # px of the text below and above them
Values = NDArray[np.float64]


def text(value: object) -> str:
    """Escape a value for HTML, with control characters made visible."""
    return escape(visible(str(value)), quote=True)


def place(share: float) -> str:
    """Write a horizontal place or width."""
    return f"{round(100 * share, 3):g}%"


def stacked(segments: Sequence[tuple[str, int]], whole: int, title: str, height: int = 14) -> str:
    """Draw a bar of segments (class, count), as wide as its share of `whole`; what is not nothing stays visible."""
    left, rects = 0.0, []
    for kind, count in segments:
        share = count / whole if whole else 0.0
        if count:
            rects.append(
                f'<rect class="{kind}" x="{place(left)}" width="{place(max(share, 0.003))}" height="{height}"/>'
            )
        left += share
    return (
        f'<svg class="bar" width="100%" height="{height}" role="img"><title>{text(title)}</title>{"".join(rects)}</svg>'
    )


@dataclass(frozen=True)
class Axis:
    """Edges of a histogram's bins, and labelled places in [0, 1] along it."""

    edges: Values
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Place a value along the axis; what lies outside stands at its end."""
        edges = self.edges
        bin_ = int(np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2))
        low, high = float(edges[bin_]), float(edges[bin_ + 1])
        within = (value - low) / (high - low) if high > low else 0.0
        return (bin_ + min(1.0, max(0.0, within))) / (len(edges) - 1)


def score_axis(values: Values, cuts: Sequence[float]) -> Axis:
    """Choose an axis on which the body of the values and every threshold are seen; the ends hold what lies beyond.

    Small counts have a bin each, counts that span orders of magnitude half an octave, all else about 30 round steps.
    """
    low, high = float(values.min()), float(values.max())
    reach = max([float(np.quantile(values, 0.98, method="higher")), *(1.4 * cut for cut in cuts)])
    if low >= 0 and np.all(values == np.floor(values)):
        if reach <= 24:
            return Axis(np.arange(0.0, math.floor(reach) + 2.0))
        if reach > 20 * max(1.0, min([float(np.median(values)), *cuts])):
            tops = range(1, math.ceil(2 * math.log2(reach)) + 1)
            edges = np.array([0.0, 1.0, *(2 ** (half / 2) for half in tops)], np.float64)
            return Axis(np.unique(edges), logarithmic=True)
    start = 0.0 if 0 <= low < reach / 2 else min([low, *cuts])
    end = max(min(reach, max([high, *cuts])), start + 1e-9 * max(1.0, abs(start)))
    if start == 0 and 0.6 < end < 1.001:  # a share, which rounding may have pushed beyond 1
        end = 1.0
    step = nice((end - start) / 32)
    numbers = np.arange(math.floor(start / step + 1e-9), math.ceil(end / step - 1e-9) + 1)
    return Axis(numbers.astype(np.float64) * step)


def nice(step: float) -> float:
    """Round a step up to 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def number(value: float) -> str:
    """Write an axis label."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def histogram(values: Values, cuts: Sequence[Threshold], title: str) -> str:
    """Draw how values are spread, those that a threshold drops in the colour of what is rejected.

    Bars grow with the square root of the count, so that a tail of few stays visible.
    """
    axis = score_axis(values, [cut.value for cut in cuts])
    edges = axis.edges
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    dropped = np.zeros(len(values), bool)
    for cut in cuts:
        dropped |= cut.beyond(values)
    gone, stay = (np.bincount(bins[mask], minlength=len(edges) - 1) for mask in (dropped, ~dropped))
    marks = [_threshold(axis, cut) for cut in cuts]
    ticks = [(axis.at(value), number(value)) for value in _ticks(axis)]
    return bars([("kept", stay), ("rejected", gone)], ticks, title, marks, root=True)


def lengths(series: Sequence[tuple[str, NDArray[np.int64]]], edges: NDArray[np.int64], title: str) -> str:
    """Draw counts by classes of length in bytes, one series upon the other."""
    used = np.flatnonzero(sum(counts for _, counts in series))
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 1)
    first, last = max(0, min(first, last - 8)), max(last, first + 8)
    axis = Axis(edges[first : last + 2].astype(np.float64))
    powers = [
        power for power in (1, 10, 100, *(10**n for n in range(3, 10))) if axis.edges[0] <= power <= axis.edges[-1]
    ]
    ticks = [(axis.at(power), bytes_text(power).replace(".00", "").replace(".0", "")) for power in powers]
    return bars([(kind, counts[first : last + 1]) for kind, counts in series], ticks, title, [], root=False)


def _ticks(axis: Axis) -> list[float]:
    """Choose about five round values to label."""
    low, high = float(axis.edges[0]), float(axis.edges[-1])
    if axis.logarithmic:
        powers = [0.0, *(10.0**power for power in range(12) if 10.0**power <= high)]
        return powers[:: max(1, math.ceil(len(powers) / 6))]
    step = nice((high - low) / 5)
    return [
        round(step * index, 12) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _threshold(axis: Axis, cut: Threshold) -> str:
    at, side = axis.at(cut.value), "end" if axis.at(cut.value) > 0.5 else "start"
    shift = -5 if side == "end" else 5
    arrow = f"{number(cut.value)} →" if cut.drops in ("above", "from") else f"← {number(cut.value)}"
    return (
        f'<line class="cut" x1="{place(at)}" x2="{place(at)}" y1="2" y2="{PLOT + LABELS}"/>'
        f'<text class="cut" x="{place(at)}" dx="{shift}" y="12" text-anchor="{side}">{arrow}</text>'
    )


def bars(
    series: Sequence[tuple[str, NDArray[np.int64]]],
    ticks: Sequence[tuple[float, str]],
    title: str,
    marks: Sequence[str],
    *,
    root: bool,
) -> str:
    """Draw bins side by side, the series of a bin upon each other, with the ticks below."""
    total = np.sum([counts for _, counts in series], axis=0)
    tall, bins, parts = int(total.max(initial=1)) or 1, len(total), []
    for index in range(bins):
        height = PLOT * (math.sqrt(total[index] / tall) if root else total[index] / tall)
        height, base = max(height, 1.5) if total[index] else 0.0, float(PLOT + LABELS)
        for kind, counts in series:
            if not counts[index]:
                continue
            part = height * int(counts[index]) / int(total[index])
            base -= part
            across = f'x="{place((index + 0.06) / bins)}" width="{place(0.88 / bins)}"'
            parts.append(f'<rect class="{kind}" {across} y="{base:.1f}" height="{part:.1f}"/>')
    floor = PLOT + LABELS
    parts.append(f'<line class="axis" x1="0" x2="100%" y1="{floor}" y2="{floor}"/>')
    last = -1.0
    for at, label in ticks:
        if at - last < 0.13:
            continue
        anchor = "start" if at < 0.06 else "end" if at > 0.94 else "middle"
        parts.append(f'<text x="{place(at)}" y="{floor + 15}" text-anchor="{anchor}">{text(label)}</text>')
        last = at
    body = "".join([*parts, *marks])
    return (
        f'<svg class="chart" width="100%" height="{floor + LABELS}" role="img"><title>{text(title)}</title>{body}</svg>'
    )
