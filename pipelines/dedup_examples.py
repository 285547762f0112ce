"""Examples of what a deduplication removed, with their texts: chosen over all similarities, compared where need be.

Where no similarity was computed, that of the 48 near pairs held is computed here: an account of how precise the match
was, at the cost of reading 96 documents.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from .dedup_survey import CLASSES, ELSEWHERE, Duplicates, Pair, binned
from .dedup_texts import DedupTexts, Shown
from .duplicates import Dedup

PAIRS = 12


def read_examples(made: Duplicates, texts: DedupTexts, dedup: Dedup | None, pairs: int = PAIRS) -> None:
    """Read the texts of examples: of so many pairs, spread over similarity, and of one copy of each cluster."""
    near = [pair for pair in made.pairs if pair.alike == "unknown"]
    computes = bool(near) and dedup is not None and dedup.minhash is not None
    held = chosen(made.pairs, pairs)
    if computes:
        held = [*near, *chosen([pair for pair in made.pairs if pair.alike != "unknown"], pairs)]
    wanted = [(place, id_) for pair in held for place, id_ in zip(pair.places, pair.ids, strict=True) if place]
    wanted += [((part, row), id_) for cluster in made.clusters for id_, part, row in cluster.members[:1]]
    found = texts.read(wanted)
    for cluster in made.clusters:
        cluster.text = found[cluster.members[0][1:]].text
    held = [
        replace(pair, shown=(found[pair.places[0]], found[pair.places[1]] if pair.places[1] else _earlier(pair)))
        for pair in held
    ]
    if computes and dedup is not None:
        held = [pair if pair.alike != "unknown" else replace(pair, similarity=_jaccard(pair, dedup)) for pair in held]
        values = [pair.similarity for pair in held if pair.kind == "near" and pair.similarity is not None]
        made.sampled = len(values)
        made.similarities = made.similarities + binned(np.array(values, np.float64))
    made.pairs = chosen(held, pairs)


def _earlier(pair: Pair) -> Shown:
    batch = ELSEWHERE if pair.batch is None else f"the batch {pair.batch}"
    return Shown(pair.ids[1].hex(), pair.own[1], absent=f"it came in {batch}, of which an index holds no text")


def _jaccard(pair: Pair, dedup: Dedup) -> float | None:
    """Compute the similarity of a pair whose texts are at hand."""
    assert dedup.minhash is not None
    assert pair.shown is not None
    both = [shown.text for shown in pair.shown]
    if any(text is None for text in both):
        return None
    offsets, values = dedup.minhash.shingle_sets(pa.array(both, pa.string()))
    one, two = values[offsets[0] : offsets[1]], values[offsets[1] : offsets[2]]
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / max(1, len(one) + len(two) - shared)


def chosen(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Choose so many pairs: one of each class in turn, few of those that are no news, and of one kept document few.

    They come in the order of the classes, the most similar first.
    """
    left = {name: _varied([pair for pair in pairs if pair.alike == name]) for name in (*CLASSES[2:], "exact", "url")}
    plain = max(1, count // 6)
    left |= {name: left[name][:plain] for name in ("url", "exact") if any(left[other] for other in CLASSES[2:])}
    taken = [pair for turn in itertools.zip_longest(*left.values()) for pair in turn if pair is not None][:count]
    return sorted(taken, key=lambda pair: (CLASSES.index(pair.alike), -(pair.similarity or 0.0), pair.ids))


def _varied(pairs: Sequence[Pair]) -> list[Pair]:
    """Put the first pair of each kept document before the others."""
    seen: Counter[bytes] = Counter()
    turns = []
    for pair in pairs:
        turns.append(seen[pair.ids[1]])
        seen[pair.ids[1]] += 1
    return [pairs[at] for at in sorted(range(len(pairs)), key=turns.__getitem__)]
