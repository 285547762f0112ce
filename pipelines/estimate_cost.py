"""What a run will cost: CPU seconds by stage, and how long so many workers take for them.

Constants of starting, measured on a machine of two slow cores: 2.5 s until a run plans, 3 s until worker processes
work, 0.4 s for a stage and 0.5 s for the report; 0.2 s of training a
vocabulary whatever the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..transforms.named import step_kind
from .estimate_sample import KEPT

if TYPE_CHECKING:
    from .estimate import Findings

START, WORKERS, STAGE, REPORT = 2.5, 3.0, 0.4, 0.5  # seconds
TRAIN = 0.2  # of training, whatever the text


@dataclass(frozen=True)
class Cost:
    """Seconds by stage."""

    workers: int
    cpu: dict[str, float]
    by: dict[str, float]  # of the documents stage, by step
    wall: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "workers": self.workers,
            "cpu_seconds": {name: round(value, 2) for name, value in self.cpu.items()},
            "by": {name: round(value, 2) for name, value in self.by.items()},
            "wall_seconds": {name: round(value, 2) for name, value in self.wall.items()},
            "cpu_total": round(sum(self.cpu.values()), 1),
            "wall_total": round(sum(self.wall.values()), 1),
        }


def cost_of(found: Findings, workers: int, compiling: float) -> Cost:
    """Scale what the sample took to the whole."""
    by = ingest_seconds(found)
    cpu, seconds, made = {"documents": sum(by.values())}, found.seconds, found.published
    passed, kept = found.passed_bytes.value, found.kept_bytes.value
    if found.recipe.dedup is not None:
        cpu["duplicates"] = found.match_seconds * passed
    ratio = kept / max(1, made.text_bytes)
    if found.recipe.text is not None:
        cpu["text"] = seconds.get("text", 0.0) * ratio
    if found.recipe.tokens is not None and made.why is None:
        train = found.recipe.tokenizer.train if found.recipe.tokenizer else None
        if train is not None:
            more = min(train.sample_bytes, kept) / max(1, made.trained_bytes)
            cpu["tokenizer"] = TRAIN + max(0.0, seconds.get("train", 0.0) - TRAIN) * more
        cpu["tokens"] = (seconds.get("tokenize", 0.0) + seconds.get("write tokens", 0.0)) * ratio
    return Cost(workers, cpu, by, walls(found, cpu, workers, compiling))


def ingest_seconds(found: Findings) -> dict[str, float]:
    """Scale the ingest's CPU time, step by step, by the bytes of the records that reach each."""
    sample, outcomes, spent = found.sample, found.outcomes, found.outcomes.seconds
    sizes = found.population.sizes[sample.rows]
    whole, scale = float(found.population.sizes.sum()), sample.scale
    decode = spent.get("decode", 0.0)
    made = {"read": (found.scan_seconds + decode * whole / max(1.0, float(sizes.sum()))) * scale}
    for number, step in enumerate(found.recipe.steps):
        name = f"{number} {step_kind(step)}"
        reached = (outcomes.steps >= number) | (outcomes.fates == KEPT)
        if found.recipe.score_rejected:
            reached = outcomes.steps >= 0
        taken = max(1.0, float(sizes[reached].sum()))
        made[name] = spent.get(name, 0.0) * float(sample.weights[reached] @ sizes[reached]) / taken * scale
    made["write"] = spent.get("write", 0.0) * whole / max(1.0, float(sizes.sum())) * scale
    return made


def walls(found: Findings, cpu: dict[str, float], workers: int, compiling: float) -> dict[str, float]:
    """Deal each stage's work to the workers."""
    from .launcher import IN_PROCESS_BYTES, input_weight

    sizes = [float(task.bytes) for task in found.tasks]
    shards = 1
    if found.recipe.tokens is not None:
        shards = max(1, math.ceil(found.kept_bytes.value / found.recipe.tokens.shard_bytes))
    parts = {"documents": sizes, "duplicates": sizes, "text": sizes, "tokenizer": [1.0], "tokens": [1.0] * shards}
    weights = {"documents": float(input_weight(found.tasks))}
    wall, forked = {"start": START + compiling}, False
    for stage, seconds in cpu.items():
        heavy = weights.get(stage, found.passed_bytes.value) >= IN_PROCESS_BYTES
        apart = len(parts[stage]) > 1 and heavy and workers > 1
        wall[stage] = STAGE + makespan(parts[stage], workers if apart else 1) * seconds
        if apart and not forked:
            wall[stage] += WORKERS
            forked = True
    wall["report"] = REPORT
    return wall


def makespan(sizes: Sequence[float], workers: int) -> float:
    """Say what share of the work the busiest of so many workers does, who take the next task when they are done."""
    held = np.zeros(max(1, workers))
    for size in sizes:
        held[int(held.argmin())] += size
    return float(held.max() / max(1e-9, held.sum()))
