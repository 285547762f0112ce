"""Estimate a run without running it: its inputs planned, a keyed sample sent through its own steps, nothing written.

    plan → survey (every record cut from its file, none decoded) → sample → steps → copies → text and tokens → totals

How each total is found:
    funnel      weighted counts of the sample (`estimate_weights`)
    duplicates  a sample of documents hardly ever holds both of a pair. So the copies of up to 300 sampled survivors are
                looked for among all records that were read, by sketches of their raw bytes; up to 4 of each are sent
                through the steps and compared as the run compares. One that has m copies, itself among them, stands
                for 1/m kept documents (Birnbaum and Sirken 1965, network sampling). Copies that share no sketch, or
                lie in what was not read, are missed: duplicates are rather under- than overestimated
    tokens      the sample's survivors encoded; with a vocabulary to be trained, see `estimate_sample`
    disk        the sample written by the run's own writers, and half of it: more documents compress better, by how
                much more is read off the two (the middle between that they do so no further, and that they go on)
    time        CPU seconds of each step on the sample, scaled by the bytes that reach it; tasks dealt to the workers,
                with constants for what starting costs

The numbers are a function of the input, the recipe and the size of the sample; times alone differ from call to call.
"""

from __future__ import annotations

import math
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import RequestError
from ..transforms.named import step_kind
from .compiling import compile_kernels
from .estimate_cost import Cost, cost_of
from .estimate_sample import KEPT, Outcomes, Published, copies, process, publish_sample, timed
from .estimate_scan import Population, mates, survey_input
from .estimate_weights import Estimate, Sample, draw
from .ingest import READER, check_streams
from .ledger import SAMPLE_CHARACTERS, SAMPLE_ONE_IN
from .plan import IngestTask, plan_inputs, require_tasks
from .publish import run_vocabulary
from .recipe import Recipe
from .stage import spool
from .vocabulary import given_tokenizer

DOCUMENTS = 2_000  # sampled where nothing is asked for
LOOKED_UP = 300  # survivors whose copies are looked for
MATES = 4  # of each that are sent through the steps
ENCODING = 150 << 20  # bytes that a row group takes while it is encoded and written


@dataclass
class Findings:
    """What a dry run found out, before it is said."""

    recipe: Recipe
    tasks: list[IngestTask]
    population: Population
    sample: Sample
    outcomes: Outcomes
    passed: Estimate
    passed_bytes: Estimate
    kept: Estimate
    kept_bytes: Estimate
    published: Published
    looked_up: int = 0
    followers: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # CPU of this dry run
    match_seconds: float = 0.0  # CPU of matching, for a byte of text

    @property
    def scan_seconds(self) -> float:
        """Say what it takes to cut the records that were read from their files, without decoding them."""
        return self.population.seconds


def size_of(asked: str | None, population: Population) -> float:
    """Say how many records to sample: of what was read, a share, or megabytes of records as they are read."""
    n, total = len(population.sizes), float(population.sizes.sum())
    if asked is None:
        return float(min(n, DOCUMENTS))
    text = asked.strip().lower()
    try:
        if text.endswith("mb"):
            value = float(text.removesuffix("mb")) * 1e6 / max(total, 1.0)
        elif text.endswith("%"):
            value = float(text.removesuffix("%")) / 100
        else:
            value = float(text)
            if value > 1:
                raise ValueError
        if not value > 0:
            raise ValueError
    except ValueError:
        raise RequestError(
            f"--sample {asked}: give a share of the records, as 0.05 or 5%, or megabytes, as 20MB"
        ) from None
    return min(1.0, value) * n


def estimate(recipe: Recipe, asked: str | None, workers: int) -> dict[str, Any]:
    """Plan a run and estimate what it gives; `asked` is the sample's size, as the command line has it."""
    seconds: dict[str, float] = {}
    started = time.perf_counter(), time.process_time()
    tasks = plan_inputs(recipe)
    require_tasks(tasks)
    if (given := given_tokenizer(recipe)) is not None:
        run_vocabulary(recipe, given)
    if asked is not None:
        size_of(asked, Population.empty())
    compiled = time.perf_counter()
    with timed(seconds, "compile"):
        compile_kernels(recipe.steps, recipe.dedup)
        check_streams(recipe)
    compiling = time.perf_counter() - compiled
    with timed(seconds, "survey"):
        population = survey_input(recipe, tasks, recipe.dedup is not None)
    if not len(population.sizes):
        raise RequestError("the inputs hold no record: there is nothing to estimate")
    sample = draw(population, size_of(asked, population))
    with spool() as folder, timed(seconds, "sample"):
        found = sampled(recipe, tasks, population, sample, folder, seconds)
    cost = cost_of(found, workers, compiling)
    spent = {"wall": time.perf_counter() - started[0], "cpu": time.process_time() - started[1]}
    return said(found, cost, spent)


def sampled(
    recipe: Recipe,
    tasks: list[IngestTask],
    population: Population,
    sample: Sample,
    folder: Path,
    seconds: dict[str, float],
) -> Findings:
    """Send the sample through the run's stages."""
    ranks = population.draws[sample.rows] / sample.chances
    outcomes = process(recipe, population, sample.rows, folder / "sample", ranks)
    stays = outcomes.fates == KEPT
    passed, passed_bytes = sample.total(stays), sample.total(np.where(stays, outcomes.bytes, 0.0))
    found = Findings(
        recipe,
        tasks,
        population,
        sample,
        outcomes,
        passed,
        passed_bytes,
        passed,
        passed_bytes,
        Published(),
        seconds=seconds,
    )
    if recipe.dedup is not None and stays.any():
        deduplicate(found, folder)
    found.published = publish_sample(recipe, outcomes.batch, folder, seconds)
    return found


def deduplicate(found: Findings, folder: Path) -> None:
    """Find the copies of some survivors, and what share of the documents and of their bytes stays."""
    sample, outcomes, dedup = found.sample, found.outcomes, found.recipe.dedup
    assert dedup is not None
    stays = np.flatnonzero(outcomes.fates == KEPT)
    texts = {int(sample.rows[number]): text for number, text in outcomes.texts.items()}
    everything = len(sample.rows) == len(found.population.places) and found.population.whole
    best: list[list[int]] = [[] for _ in stays]
    picks, many, followers = stays, [0] * len(stays), 0
    if not everything:
        ranks = sample.population.draws[sample.rows[stays]] / sample.chances[stays]
        picks = stays[np.argsort(ranks, kind="stable")[:LOOKED_UP]]
        best, many = mates(found.population, sample.rows[picks], MATES)
        others = np.array(sorted({other for near in best for other in near} - set(sample.rows.tolist())), np.int64)
        more = process(found.recipe, found.population, others, folder / "followers")
        texts |= {int(others[number]): text for number, text in more.texts.items()}
        followers = len(others)
    rows, before = sorted(texts), time.process_time()
    labels = dict(zip(rows, copies(dedup, [texts[row] for row in rows]).tolist(), strict=True))
    found.match_seconds = (time.process_time() - before) / max(1, sum(map(len, texts.values())))
    clusters = Counter(labels.values())
    shares = np.zeros(len(sample.rows))
    for pick, near, all_of_them in zip(picks.tolist(), best, many, strict=True):
        label = labels[int(sample.rows[pick])]
        same = clusters[label] - 1 if everything else sum(labels.get(other) == label for other in near)
        shares[pick] = 1 / (1 + (all_of_them if near and same == MATES else same))
    looked = np.zeros(len(sample.rows), bool)
    looked[picks] = True
    mean, spread = sample.mean(shares, looked)
    heavy = Sample(sample.population, sample.rows, sample.chances, sample.weights * outcomes.bytes, sample.known)
    heavy_mean, heavy_spread = heavy.mean(shares, looked)
    found.kept = found.passed.scaled(mean, spread / mean if mean else 0.0)
    found.kept_bytes = found.passed_bytes.scaled(heavy_mean, heavy_spread / heavy_mean if heavy_mean else 0.0)
    found.looked_up, found.followers = len(picks), followers


def funnel(found: Findings) -> list[dict[str, Any]]:
    """Predict what each rule of each step drops, in the order of the steps, the largest first."""
    kinds, outcomes = ["read", *map(step_kind, found.recipe.steps)], found.outcomes
    names = np.array([rule or "" for rule in outcomes.rules], object)
    keys = sorted(
        {(int(s), int(f), str(r)) for s, f, r in zip(outcomes.steps, outcomes.fates, names, strict=True) if f != KEPT}
    )
    rows = []
    for step, fate, rule in keys:
        mine = (outcomes.steps == step) & (outcomes.fates == fate) & (names == rule)
        rows.append(
            {"step": step, "kind": kinds[step - READER], "rule": rule or None, "documents": found.sample.total(mine)}
        )
    return sorted(rows, key=lambda row: (row["step"], -row["documents"].value))


def said(found: Findings, cost: Cost, spent: dict[str, float]) -> dict[str, Any]:
    """Give everything as JSON values."""
    population, sample, published = found.population, found.sample, found.published
    records = Estimate(len(population.sizes) * sample.scale, sample.between(np.ones(len(sample.rows))) ** 0.5)
    tokens = tokens_of(found)
    return {
        "name": found.recipe.name,
        "inputs": {"files": files(found.tasks), "bytes": population.total_bytes, "tasks": len(found.tasks)},
        "sample": {
            "read_bytes": population.read_bytes,
            "records_read": len(population.sizes),
            "records": len(sample.rows),
            "record_bytes": round(float(population.sizes[sample.rows].sum())),
            "copies_looked_for": found.looked_up,
            "copies_read": found.followers,
            **{name: round(value, 2) for name, value in spent.items()},
        },
        "documents_in": records.as_json(),
        "funnel": [{**row, "documents": row["documents"].as_json()} for row in funnel(found)],
        "passed": found.passed.as_json(),
        "passed_bytes": found.passed_bytes.as_json(),
        "duplicates": duplicates(found).as_json() if found.recipe.dedup else None,
        "not_foreseen": found.recipe.dedup.further if found.recipe.dedup else [],
        "kept": found.kept.as_json(),
        "kept_bytes": found.kept_bytes.as_json(),
        "tokens": None if tokens is None else tokens.as_json(),
        "no_tokens": published.why,
        "disk": {name: value.as_json() for name, value in disk(found, tokens).items()},
        "cost": cost.as_json(),
        "peak_memory_bytes": memory(found),
        "whole_input_read": population.whole,
    }


def files(tasks: list[IngestTask]) -> int:
    """Count the input's files."""
    return len({(piece.source, piece.path) for task in tasks for piece in task.pieces})


def duplicates(found: Findings) -> Estimate:
    """Say how many documents deduplication drops."""
    share = 1 - found.kept.value / found.passed.value if found.passed.value else 0.0
    spread = max(0.0, found.kept.error**2 - (found.passed.error * (1 - share)) ** 2) ** 0.5
    return Estimate(found.passed.value * share, (spread**2 + (found.passed.error * share) ** 2) ** 0.5)


def tokens_of(found: Findings) -> Estimate | None:
    """Predict the tokens; None where there are none, or where they cannot be told."""
    made = found.published
    if found.recipe.tokens is None or made.why is not None or not made.text_bytes:
        return None
    return found.kept_bytes.scaled(made.tokens / made.text_bytes, made.token_error)


def disk(found: Findings, tokens: Estimate | None) -> dict[str, Estimate]:
    """Predict what each stage leaves on disk, in bytes."""
    outcomes, made, recipe, sample = found.outcomes, found.published, found.recipe, found.sample
    stays = outcomes.fates == KEPT
    records = len(found.population.sizes) * sample.scale
    texts = outcomes.documents.grown(found.passed_bytes.value)
    share = texts.value / max(1.0, found.passed_bytes.value)
    written = {"all": 1.0, "sample": 1 / SAMPLE_ONE_IN, "none": 0.0}[recipe.rejected_text]
    rejected = sample.total(np.where(stays, 0.0, np.minimum(outcomes.bytes, SAMPLE_CHARACTERS)))
    rows = outcomes.ledger.grown(records)
    whole = {
        "documents": Estimate(texts.value, math.hypot(texts.error, found.passed_bytes.error * share)),
        "ledger": Estimate(rows.value + rejected.value * written * share, rows.error),
    }
    if recipe.dedup is not None:
        bands = 1 + (recipe.dedup.minhash.bands if recipe.dedup.minhash else 0)
        # 24 bytes a band for each digest that a part sends, 24 for id and length; a row of the clusters about 60.
        each = found.kept.scaled(24 * bands)
        whole["duplicates"] = Estimate(each.value + 24 * found.passed.value + 76 * duplicates(found).value, each.error)
    if recipe.text is not None:
        whole["text"] = found.kept_bytes.scaled(made.text_disk / max(1, made.text_bytes), 0.08)
    if tokens is not None and recipe.tokens is not None:
        twice = 1 + recipe.tokens.validation  # slices stay beside the validation shard that they make
        beside = found.kept.value * made.document_disk / max(1, len(outcomes.batch))
        whole["tokens"] = Estimate((tokens.value * made.token_width + beside) * twice, tokens.error * made.token_width)
    return whole


def memory(found: Findings) -> int:
    """Predict the peak memory of one process: what the sample took, and what a vocabulary is trained on."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    train = found.recipe.tokenizer.train if found.recipe.tokens and found.recipe.tokenizer else None
    held = min(train.sample_bytes, round(found.kept_bytes.value)) if train is not None else 0
    return peak + 8 * held + (ENCODING if found.recipe.tokens else 0)
