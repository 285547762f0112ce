"""Charts of a deduplication: a pair's chance to meet by its similarity, how similar what went was, cluster sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..transforms.minhash import MinHash
from .report_charts import LABELS, PLOT, bars, place, text

STEPS = 100  # of the curve
#: Sizes of clusters are drawn in classes; the first number of each.
SIZES = (2, 3, 4, 6, 11, 21, 51, 101, 1_001, 10_001)


def curve(minhash: MinHash, verify: float | None, title: str) -> str:
    """Draw the chance of a match over similarity from 0 to 1, its threshold, and the similarity that is asked for."""
    top, floor = float(LABELS), float(PLOT + LABELS)
    chances = [minhash.match_probability(step / STEPS) for step in range(STEPS + 1)]
    if verify is not None:
        chances = [chance if step / STEPS >= verify else 0.0 for step, chance in enumerate(chances)]
    heights = [floor - (floor - top) * chance for chance in chances]
    lines = "".join(
        f'<line class="curve" x1="{place(step / STEPS)}" x2="{place((step + 1) / STEPS)}" '
        f'y1="{heights[step]:.1f}" y2="{heights[step + 1]:.1f}"/>'
        for step in range(STEPS)
    )
    grid = "".join(
        f'<line class="axis" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>' for at in (top, (top + floor) / 2, floor)
    )
    marks = _mark(minhash.threshold, f"threshold {minhash.threshold:.2f}", 12)
    if verify is not None:
        marks += _mark(verify, f"verified from {verify:g}", 30)
    ticks = "".join(_tick(at / 10, floor) for at in range(0, 11, 2))
    scale = "".join(
        f'<text x="0" y="{at - 4:.0f}">{share} %</text>' for at, share in ((top, 100), ((top + floor) / 2, 50))
    )
    return (
        f'<svg class="chart" width="100%" height="{PLOT + 2 * LABELS}" role="img"><title>{text(title)}</title>'
        f"{grid}{scale}{lines}{marks}{ticks}</svg>"
    )


def similarities(bins: NDArray[np.int64], title: str) -> str:
    """Draw how similar the documents that went were to the one that stayed, on the axis of the curve."""
    ticks = [(at / 10, f"{at / 10:g}") for at in range(0, 11, 2)]
    return bars([("duplicates", bins)], ticks, title, [], root=True)


def size_classes(sizes: Mapping[int, int]) -> list[tuple[str, int, int]]:
    """Sum clusters by classes of size: (name, clusters, documents in them), up to the last that has any."""
    made: list[tuple[str, int, int]] = []
    for first, beyond in zip(SIZES, (*SIZES[1:], None), strict=True):
        mine = {size: count for size, count in sizes.items() if size >= first and (beyond is None or size < beyond)}
        last = f"{first:,} –  {beyond - 1:,}".replace("  ", " ") if beyond is not None else f"{first:,} and more"
        name = f"{first:,}" if beyond == first + 1 else last
        made.append((name, sum(mine.values()), sum(size * count for size, count in mine.items())))
    while made and not made[-1][1]:
        made.pop()
    return made


def _mark(at: float, label: str, height: int) -> str:
    side, shift = ("end", -5) if at > 0.5 else ("start", 5)
    return (
        f'<line class="cut" x1="{place(at)}" x2="{place(at)}" y1="2" y2="{PLOT + LABELS}"/>'
        f'<text class="cut" x="{place(at)}" dx="{shift}" y="{height}" text-anchor="{side}">{text(label)}</text>'
    )


def _tick(at: float, floor: float) -> str:
    anchor = "start" if at < 0.06 else "end" if at > 0.94 else "middle"
    return f'<text x="{place(at)}" y="{floor + 15:.0f}" text-anchor="{anchor}">{at:g}</text>'


def text_bar(share: float, width: int = 20) -> str:
    """Draw a share as text."""
    return "█" * round(share * width) + "·" * (width - round(share * width))


def curve_points(minhash: MinHash, verify: float | None) -> Sequence[tuple[float, float]]:
    """Give the chance of a match at similarities 0.5, 0.55 … 0.95; nothing below `verify` holds."""
    points = [step / 100 for step in range(50, 100, 5)]
    return [(at, 0.0 if verify is not None and at < verify else minhash.match_probability(at)) for at in points]
