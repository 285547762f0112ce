"""From a text's vector to its likeliest labels, as each of fastText's losses scores them.

Hierarchical softmax multiplies the turns of a Huffman tree; softmax is the plain one; one-vs-all and negative sampling
read a sigmoid from a table of 512 steps between -8 and 8, so that many labels may score alike. All add 1e-5 to a share
before its logarithm, and give the exponential of it back: scores may exceed 1 by so much. Equals come in the order in
which the library's heap leaves them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .fasttext_model import Tables
from .fasttext_reader import HIERARCHICAL, SOFTMAX
from .floats import exp, log

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

#: fastText's table: value i stands for [-8 + i / 32, -8 + (i + 1) / 32); the last is 8 itself. Rounding to float32
#: leaves nothing of the last bit, in which one libm differs from another.
SIGMOIDS = np.array([1.0 / (1.0 + math.exp(8.0 - step / 32)) for step in range(513)], np.float32)


def ranked(
    hidden: Doubles, counts: Longs, tables: Tables, top: int, threshold: float, wanted: int
) -> tuple[Longs, Doubles]:
    """Rank the labels of n vectors (n, dim): numbers (n, top), -1 where no more are, and scores (n, top).

    A text whose count of rows is 0 has none. With `wanted` a label's number, its own score alone.
    """
    numbers = np.full((len(hidden), top), -1, np.int64)
    scores = np.zeros(numbers.shape, np.float64)
    _rank_rows(hidden, counts, tables, threshold, wanted, numbers, scores)
    return numbers, scores


@kernel
def _rank_rows(
    hidden: Doubles, counts: Longs, tables: Tables, threshold: float, wanted: int, numbers: Longs, scores: Doubles
) -> None:
    stack = np.empty(len(tables.left) + 2, np.int64)
    scratch = np.empty(max(len(tables.left) + 2, len(tables.output)), np.float64)
    best = np.empty(numbers.shape[1] + 1, np.int64)
    best_scores = np.empty(numbers.shape[1] + 1, np.float64)
    for row in range(len(hidden)):
        if counts[row]:
            held = _rank_labels(hidden[row], tables, threshold, wanted, scratch, stack, best, best_scores)
            for at in range(held):
                numbers[row, at], scores[row, at] = best[at], best_scores[at]


@kernel
def _rank_labels(
    hidden: Doubles,
    tables: Tables,
    threshold: float,
    wanted: int,
    scratch: Doubles,
    stack: Longs,
    numbers: Longs,
    scores: Doubles,
) -> int:
    """Fill numbers (k + 1,) and scores (k + 1,) with the k likeliest labels, likeliest first, and give their number.

    With `wanted` a label's number: its own score alone, none where it is out of the library's sight.
    """
    held = 0
    if tables.loss == HIERARCHICAL:
        if wanted >= 0:
            held = _follow(hidden, tables, threshold, wanted, stack, numbers, scores)
        else:
            held = _descend(hidden, tables, threshold, scratch, stack, numbers, scores)
    else:
        _shares(hidden, tables, scratch)
        for label in range(len(tables.output)):
            share = scratch[label]
            if share >= threshold and (wanted < 0 or label == wanted):
                # This spares a logarithm, with room for what its rounding may do.
                if held + 1 == len(scores) and share < scratch[numbers[0]] * 0.999999 - 1e-9:
                    continue
                score = np.float64(np.float32(log(share + 1e-5)))
                if held + 1 < len(scores) or score >= scores[0]:
                    held = _push(numbers, scores, held, label, score)
    for last in range(held - 1, 0, -1):
        _sink(numbers, scores, last)
    for at in range(held):
        scores[at] = np.float64(np.float32(exp(scores[at])))
    return held


@kernel
def _push(numbers: Longs, scores: Doubles, held: int, number: int, score: float) -> int:
    """Push a label into a heap whose least is on top, and let that fall out where there are more than asked for.

    Step by step what C++'s heap does in the library: it decides the order of equals.
    """
    _lift(numbers, scores, held, number, score)
    if held + 1 < len(scores):
        return held + 1
    _sink(numbers, scores, held)
    return held


@kernel
def _lift(numbers: Longs, scores: Doubles, hole: int, number: int, score: float) -> None:
    while hole > 0 and scores[(hole - 1) // 2] > score:
        above = (hole - 1) // 2
        numbers[hole], scores[hole] = numbers[above], scores[above]
        hole = above
    numbers[hole], scores[hole] = number, score


@kernel
def _sink(numbers: Longs, scores: Doubles, last: int) -> None:
    """Move the top of a heap of last + 1 to its end, and what stood there to its place."""
    number, score = numbers[last], scores[last]
    numbers[last], scores[last] = numbers[0], scores[0]
    hole = child = 0
    while child < (last - 1) // 2:
        child = 2 * (child + 1)
        if scores[child] > scores[child - 1]:
            child -= 1
        numbers[hole], scores[hole] = numbers[child], scores[child]
        hole = child
    if last % 2 == 0 and last > 1 and child == (last - 2) // 2:
        child = 2 * child + 1
        numbers[hole], scores[hole] = numbers[child], scores[child]
        hole = child
    _lift(numbers, scores, hole, number, score)


@kernel
def _shares(hidden: Doubles, tables: Tables, shares: Doubles) -> None:
    """Give each label its share by softmax or by the table of sigmoids; all labels at once, a dimension at a time."""
    across, labels = tables.across, len(tables.output)
    for label in range(labels):
        shares[label] = 0.0
    for d in range(len(hidden)):
        value = hidden[d]
        for label in range(labels):
            shares[label] += across[d, label] * value
    if tables.loss == SOFTMAX:
        most, total = shares[0], 0.0
        for label in range(labels):
            most = max(most, shares[label])
        for label in range(labels):
            shares[label] = exp(max(np.float64(np.float32(shares[label] - most)), -700.0))
            total += shares[label]
        for label in range(labels):
            shares[label] = np.float64(np.float32(shares[label] / total))
    else:
        for label in range(labels):
            dot = np.float32(shares[label])
            if dot < np.float32(-8):
                shares[label] = 0.0
            elif dot > np.float32(8):
                shares[label] = 1.0
            else:
                shares[label] = SIGMOIDS[int((dot + np.float32(8)) * np.float32(32))]


@kernel
def _turn(hidden: Doubles, tables: Tables, node: int) -> tuple[float, float]:
    """Give the logarithms of a node's two turns, left and right, in float32 as the library has them."""
    row, dims = node - len(tables.output), len(hidden)
    dot0 = dot1 = dot2 = dot3 = 0.0
    whole = dims - dims % 4
    for d in range(0, whole, 4):
        dot0 += tables.output[row, d] * hidden[d]
        dot1 += tables.output[row, d + 1] * hidden[d + 1]
        dot2 += tables.output[row, d + 2] * hidden[d + 2]
        dot3 += tables.output[row, d + 3] * hidden[d + 3]
    for d in range(whole, dims):
        dot0 += tables.output[row, d] * hidden[d]
    dot = max(min((dot0 + dot1) + (dot2 + dot3), 700.0), -700.0)
    share = np.float32(1.0 / (1.0 + exp(-dot)))
    rest = np.float32(1.0 - share)
    return np.float64(np.float32(log(np.float64(rest) + 1e-5))), np.float64(np.float32(log(np.float64(share) + 1e-5)))


@kernel
def _descend(
    hidden: Doubles,
    tables: Tables,
    threshold: float,
    waiting: Doubles,
    stack: Longs,
    numbers: Longs,
    scores: Doubles,
) -> int:
    """Search the tree, left before right, leaving what is worse than the worst of those held."""
    least = np.float64(np.float32(log(threshold + 1e-5)))
    stack[0], waiting[0] = len(tables.left) - 1, 0.0
    depth, held = 1, 0
    while depth:
        depth -= 1
        node, score = stack[depth], waiting[depth]
        if score < least or (held + 1 == len(scores) and score < scores[0]):
            continue
        if node < len(tables.output):
            held = _push(numbers, scores, held, node, score)
            continue
        left, right = _turn(hidden, tables, node)
        stack[depth], waiting[depth] = tables.right[node], np.float64(np.float32(score + right))
        stack[depth + 1], waiting[depth + 1] = tables.left[node], np.float64(np.float32(score + left))
        depth += 2
    return held


@kernel
def _follow(
    hidden: Doubles,
    tables: Tables,
    threshold: float,
    wanted: int,
    stack: Longs,
    numbers: Longs,
    scores: Doubles,
) -> int:
    """Score one label: the turns from the root to it."""
    least = np.float64(np.float32(log(threshold + 1e-5)))
    depth, node = 0, wanted
    while node >= 0:
        stack[depth] = node
        node = tables.parent[node]
        depth += 1
    score = 0.0
    for at in range(depth - 1, 0, -1):
        left, right = _turn(hidden, tables, stack[at])
        score = np.float64(np.float32(score + (left if tables.left[stack[at]] == stack[at - 1] else right)))
    if score < least:
        return 0
    numbers[0], scores[0] = wanted, score
    return 1
