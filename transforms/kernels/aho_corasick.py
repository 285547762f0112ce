"""Many patterns sought at once in one pass (Aho & Corasick 1975): a table of moves over the bytes that patterns hold.

A move is one load, whatever the number of patterns; a second, from the same row, says whether a pattern ends there. The
table has a row for each prefix and a column for each different byte of the patterns: 2,000 words of eight letters take
2.4 MB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .text import Int

Bytes = NDArray[np.uint8]

#: classes: (256,) column of each byte; moves: (states * width,) rows, a state being where its row begins: HIT, the
#: state itself or the longest suffix of it that is a pattern, 0 for none; STAY, the state itself; OTHER, for bytes in
#: no pattern; a column for each of their bytes. ends: (states,) the pattern that ends there, or -1; shorter: (states,)
#: the next state whose pattern ends there too, 0 for none.
Automaton = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int32], NDArray[np.uint32]]

HIT, STAY, OTHER = 0, 1, 2


@kernel
def build_automaton(starts: NDArray[np.uint32], marks: Bytes) -> Automaton:
    """Lay out the patterns marks[starts[i]:starts[i + 1]], none of them empty or there twice."""
    classes = np.full(256, OTHER, np.uint32)
    columns = OTHER + 1
    for byte in marks:
        if classes[byte] == OTHER:
            classes[byte] = columns
            columns += 1
    states = len(marks) + 1
    moves = np.zeros((states, columns), np.int32)
    ends, shorter = np.full(states, -1, np.int32), np.zeros(states, np.int32)
    count = 1
    for pattern in range(len(starts) - 1):
        state = 0
        for at in range(np.int64(starts[pattern]), np.int64(starts[pattern + 1])):
            column = classes[marks[at]]
            if moves[state, column] == 0:
                moves[state, column] = count
                count += 1
            state = moves[state, column]
        ends[state] = pattern
    _join(moves[:count], ends, shorter)
    for state in range(count):
        moves[state, HIT] = state if ends[state] >= 0 else shorter[state]
        moves[state, STAY] = state
    rows = (moves[:count].astype(np.uint32) * np.uint32(columns)).reshape(-1)
    return classes, rows, ends[:count].copy(), shorter[:count].astype(np.uint32) * np.uint32(columns)


@kernel
def _join(moves: NDArray[np.int32], ends: NDArray[np.int32], shorter: NDArray[np.int32]) -> None:
    """Turn the tree of prefixes into moves for every byte, by breadth: what fails goes on from the longest suffix."""
    states, columns = moves.shape
    suffix, queue = np.zeros(states, np.int32), np.empty(states, np.int32)
    read = write = 0
    for column in range(OTHER, columns):
        if moves[0, column] != 0:
            queue[write] = moves[0, column]
            write += 1
    while read < write:
        state = queue[read]
        read += 1
        behind = suffix[state]
        shorter[state] = behind if ends[behind] >= 0 else shorter[behind]
        for column in range(OTHER, columns):
            after = moves[state, column]
            if after == 0:
                moves[state, column] = moves[behind, column]
            else:
                suffix[after] = moves[behind, column]
                queue[write] = after
                write += 1


@kernel
def columns_of(automaton: Automaton, read_as: Bytes) -> NDArray[np.uint32]:
    """Give the column of each byte (256,), taken for what `read_as` says; STAY where that is 0: it is passed over."""
    columns = np.full(256, STAY, np.uint32)
    for byte in range(256):
        if read_as[byte] != 0:
            columns[byte] = automaton[0][read_as[byte]]
    return columns


@kernel
def count_patterns(
    data: Bytes,
    start: Int,
    end: Int,
    columns: NDArray[np.uint32],
    automaton: Automaton,
    seen: NDArray[np.int32],
    mark: Int,
) -> tuple[Int, Int]:
    """Count the different patterns in data[start:end] and name the one that ends first, -1 for none.

    columns: of `columns_of`. seen: a number for each pattern, of which none is `mark`; those found are set to it.
    """
    _, moves, ends, shorter = automaton
    state, found, first = np.uint32(0), 0, np.int64(-1)
    width = len(moves) // len(ends)
    for at in range(start, end):
        state = moves[state + columns[data[at]]]
        hit = moves[state]
        while hit != 0:
            number = np.int64(hit) // width
            pattern = np.int64(ends[number])
            if first < 0:
                first = pattern
            if seen[pattern] != mark:
                seen[pattern] = mark
                found += 1
            hit = shorter[number]
    return found, first
