"""Best-fit packing beside plain best-fit and first-fit decreasing with segment trees: documents a CPU-second, and fill.

    python tests/benchmarks/packing.py [--tokens 20000000] [--rounds 2]

Lengths are log-normal with a fixed seed, like web pages (median 490), manuals (mean 1,700) and chapters of books (mean
10,000). For each and for rows of 2,048 and 8,192 tokens, one JSON line in the end gives:

    documents_per_cpu_second   ours, and both peers', the best of some rounds in turns
    over                       ours over each peer's, the median of the rounds
    fill                       share of tokens in rows that are no padding, whole rows of a shard
    split                      share of documents that lie in more than one row, `concat` beside it

The peers pack a shard as a whole, which our groups of 1 MiB may not, as a group is one read. A group loses what is left
of about one row, so it has the peers' fill where it has as many rows as they do; within a group ours is the longest run
of pieces that best-fit decreasing gets into its rows (`penstock_one_group` packs all as a single group).
`best_fit_tree` is Ding et al.'s (2024, arXiv:2404.10830) algorithm as OLMo-core's loader has it: a
tree over rooms 1 to L, a leaf for each room that some row has. `first_fit_tree` has a leaf for each row. Both are plain
Python, like theirs. Memory is the process's peak before any peer ran, for a quarter of the tokens and for all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from penstock.sharding.best_fit import best_fit, cut
from penstock.sharding.format import Pack

#: Median and spread of the logarithms.
KINDS = {"web": (490, 1.0), "manuals": (1000, 1.03), "books": (5000, 1.18)}
LENGTHS = (2048, 8192)


def lengths_of(kind: str, tokens: int) -> Any:
    """Document lengths of about so many tokens."""
    median, spread = KINDS[kind]
    chance = np.random.default_rng(0)
    lengths = chance.lognormal(np.log(median), spread, int(tokens / median)).astype(np.int64) + 2
    return lengths[: int(np.searchsorted(np.cumsum(lengths), tokens)) + 1]


def ours(lengths: Any, length: int, group_rows: int | None = None) -> int:
    """Rows that our table has."""
    rows = group_rows or Pack(length, "best_fit").group_rows(2)
    return int(best_fit(np.cumsum(lengths).astype(np.uint64), length, rows)["row"][-1]) + 1


def one_group(lengths: Any, length: int) -> int:
    """Rows that our table has where nothing is grouped, as nothing is for the peers."""
    return ours(lengths, length, 1 << 31)


def best_fit_tree(lengths: Any, length: int) -> int:
    """Best-fit decreasing over a whole shard: the least room that holds a piece, found in a tree over rooms."""
    pieces = np.sort(cut(np.cumsum(lengths), length)[1])[::-1].tolist()
    size = 1 << length.bit_length()
    tree = [0] * (2 * size)
    rows: list[list[int]] = [[] for _ in range(length + 1)]
    content: list[list[int]] = []

    def put(room: int, value: int) -> None:
        at = room + size
        tree[at] = value
        while at > 1:
            at >>= 1
            tree[at] = max(tree[2 * at], tree[2 * at + 1])

    put(length, length)
    for number, piece in enumerate(pieces):
        at = 1
        while at < size:  # The left child has the smaller rooms; take it where one of them is large enough.
            at = 2 * at if tree[2 * at] >= piece else 2 * at + 1
        room = at - size
        if rows[room]:
            row = rows[room].pop()
        else:
            row = len(content)
            content.append([])
        if not rows[room] and room != length:
            put(room, 0)
        content[row].append(number)
        left = room - piece
        rows[left].append(row)
        if left and len(rows[left]) == 1:
            put(left, left)
    return len(content)


def first_fit_tree(lengths: Any, length: int) -> int:
    """First-fit decreasing over a whole shard: the first row that holds a piece, found in a tree over rows."""
    pieces = np.sort(cut(np.cumsum(lengths), length)[1])[::-1].tolist()
    size = 1 << len(pieces).bit_length()
    tree = [length] * (2 * size)
    most = 0
    for piece in pieces:
        at = 1
        while at < size:
            at = 2 * at if tree[2 * at] >= piece else 2 * at + 1
        most = max(most, at - size)
        tree[at] -= piece
        while at > 1:
            at >>= 1
            tree[at] = max(tree[2 * at], tree[2 * at + 1])
    return most + 1


PACKERS: dict[str, Callable[[Any, int], int]] = {
    "penstock": ours, "penstock_one_group": one_group, "best_fit_tree": best_fit_tree, "first_fit_tree": first_fit_tree,
}  # fmt: skip


def peak() -> int:
    """Most memory this process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(lengths: Any, length: int, rounds: int) -> dict[str, Any]:
    """Run all in turns."""
    tokens, took = int(lengths.sum()), dict[str, list[float]]()
    rows: dict[str, int] = {}
    for _ in range(rounds):
        for name, pack in PACKERS.items():
            start = time.process_time()
            rows[name] = pack(lengths, length)
            took.setdefault(name, []).append(time.process_time() - start)
    ends = np.cumsum(lengths)
    crossing = (ends - lengths) // length != (ends - 1) // length
    ratios = {
        name: round(statistics.median(peer / own for peer, own in zip(took[name], took["penstock"], strict=True)), 2)
        for name in PACKERS
    }
    return {
        "documents": len(lengths),
        "documents_per_cpu_second": {name: round(len(lengths) / min(took[name])) for name in PACKERS},
        "over": ratios,
        "fill": {name: round(tokens / (count * length), 5) for name, count in rows.items()},
        "split": {"best_fit": round(float((lengths > length).mean()), 4), "concat": round(float(crossing.mean()), 4)},
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tokens", type=int, default=20_000_000, help="tokens of each shard")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    memory = {"before": peak()}
    for tokens in (options.tokens // 4, options.tokens):
        ours(lengths_of("web", tokens), LENGTHS[0])
        memory[f"{tokens}_tokens"] = peak()
    found = {
        f"{kind}-{length}": measure(lengths_of(kind, options.tokens), length, options.rounds)
        for kind in KINDS
        for length in LENGTHS
    }
    print(json.dumps({"cores": os.cpu_count(), "tokens": options.tokens, "peak_mb": memory, **found}))


if __name__ == "__main__":
    main()
