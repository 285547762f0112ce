"""Cohorts: what was appended to a stream stands beside it as `NAME+1`, `NAME+2`, …, a stream with an order of its own.

So the rows of NAME keep their places. Whoever names NAME means all its cohorts, which share its weight by their rows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fractions import Fraction

from .mixture import exact_weight

_COHORT = re.compile(r"(?P<name>.*)\+(?P<number>[1-9][0-9]*)", re.DOTALL)


def cohort_of(stream: str) -> tuple[str, int]:
    """Part a stream's name into what it is a cohort of and which; a stream that was not appended is number 0."""
    found = _COHORT.fullmatch(stream)
    return (found["name"], int(found["number"])) if found else (stream, 0)


def means(name: str, stream: str) -> bool:
    """Say whether who names NAME means a stream: it is the one named, or a cohort of it."""
    return name in (stream, cohort_of(stream)[0])


def next_cohort(name: str, streams: Collection[str]) -> str:
    """Name the stream that is appended to NAME next: NAME itself where there is none yet."""
    known = [number for base, number in map(cohort_of, streams) if base == name]
    return f"{name}+{max(known) + 1}" if known else name


def shared_weights(
    weights: Mapping[str, int | float | Fraction], rows: Mapping[str, int]
) -> tuple[dict[str, Fraction], list[str]]:
    """Share each name's weight by rows among its cohorts, those left out that `weights` names themselves.

    rows: of all streams that have any. Gives the weights by stream, and the names of which there is no stream.
    """
    shared: dict[str, Fraction] = {}
    unknown = []
    for name, weight in weights.items():
        exact = exact_weight(name, weight)
        meant = {name} | {stream for stream in rows if cohort_of(stream)[0] == name and stream not in weights}
        held = {stream: count for stream, count in rows.items() if stream in meant}
        if exact and not held:
            unknown.append(name)
        shared |= {stream: exact * count / sum(held.values()) for stream, count in held.items()}
    return shared, sorted(unknown)
