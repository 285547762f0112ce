"""Packs against slow oracles: every token in one row, groups as stated, rows as a naive reader would build them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import EOS, check_rows, ends_of, naive, naive_rows, payload, pieces_of, table_of

from penstock.sharding.best_fit import PIECE, best_fit, cut
from penstock.sharding.format import Pack
from penstock.sharding.packing import NO_DOCUMENT, SEGMENT, PackTable
from penstock.sharding.rows import Rows

lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def rows_needed(pieces: Sequence[int], length: int) -> int:
    """Best-fit decreasing, as the paper says it, one piece at a time."""
    rooms: list[int] = []
    for piece in sorted(pieces, reverse=True):
        fitting = [room for room in rooms if room >= piece]
        if fitting:
            rooms[rooms.index(min(fitting))] -= piece
        else:
            rooms.append(length - piece)
    return len(rooms)


@settings(max_examples=120)
@given(lengths_of, st.integers(1, 24), st.integers(1, 6))
def test_best_fit_places_every_token_once_and_keeps_its_word_on_groups(
    lengths: list[int], length: int, rows: int
) -> None:
    table = best_fit(ends_of(lengths), length, rows)
    known = dict(pieces_of(lengths, length))
    assert sorted(table["start"].tolist()) == sorted(known)
    by_row: dict[int, list[int]] = {}
    for start, row in table.tolist():
        by_row.setdefault(row, []).append(start)
    assert list(by_row) == list(range(len(by_row)))
    assert all(starts == sorted(starts) for starts in by_row.values())
    fill = {row: sum(known[start] for start in starts) for row, starts in by_row.items()}
    assert max(fill.values()) <= length
    groups: list[list[int]] = [[] for _ in range(0, len(by_row), rows)]
    for row, starts in by_row.items():
        groups[row // rows] += starts
    for before, after in pairwise(groups):
        assert max(before) < min(after), "a group is a range of tokens"
    for number, after in enumerate(groups[1:]):
        room = length - min(fill[row] for row in range(number * rows, (number + 1) * rows))
        assert known[min(after)] > room, "a group ends only where the next piece fits nowhere"
    assert [starts[0] for starts in by_row.values()] == sorted(starts[0] for starts in by_row.values())


@settings(max_examples=100)
@given(lengths_of, st.integers(1, 24))
def test_one_group_is_packed_as_the_paper_says(lengths: list[int], length: int) -> None:
    table = best_fit(ends_of(lengths), length, 10**6)
    assert int(table["row"][-1]) + 1 == rows_needed([size for _, size in pieces_of(lengths, length)], length)


def read(table: PackTable, tokens: Any, rows: Sequence[int], shard: int = 0) -> Rows:
    """Rows as a loader reads them: by the group's range and one token more, as its layout says."""
    buffer, segments = [], [np.zeros(0, SEGMENT)]
    for row in rows:
        group, at = divmod(row, table.group_rows)
        start, stop = table.span(group)
        held, layout = tokens[start : stop + 1].tolist(), table.layout(group, shard)
        low, high = layout.copied[at : at + 2].tolist()
        line: list[int] = []
        for first, last in layout.copies[low:high].tolist():
            line += [EOS] * (last - first) if first < 0 else held[first:last]
        assert len(line) == table.pack.length + 1
        buffer.append(line)
        low, high = layout.first[at : at + 2].tolist()
        segments.append(layout.segments[low:high])
    return Rows(np.array(buffer, np.int32), np.concatenate(segments))


@pytest.mark.parametrize("policy", ["best_fit", "concat"])
@settings(max_examples=60)
@given(lengths_of, st.integers(1, 24), st.integers(1, 6), st.randoms())
def test_rows_are_those_of_a_naive_reader(policy: str, lengths: list[int], length: int, rows: int, dice: Any) -> None:
    table, tokens, shard = table_of(lengths, length, rows, policy), payload(lengths), 2**32 - 1
    expected = [naive(lengths, pieces, length, shard) for pieces in naive_rows(lengths, table)]
    assert len(expected) == table.rows == table.count.rows
    assert table.count.pieces == sum(len(pieces) for pieces in naive_rows(lengths, table))
    assert table.pieces_per_row().tolist() == [sum(token["position_ids"] == 0 for token in row) for row in expected]
    wanted = [dice.randrange(table.rows) for _ in range(7)] + list(range(table.rows))
    got = read(table, tokens, wanted, shard)
    check_rows(got, [expected[row] for row in wanted])
    assert sum(int((row != NO_DOCUMENT).sum()) for row in got.document_ids[7:]) == sum(lengths)


def test_a_cut_document_goes_on_in_the_label_behind_its_row() -> None:
    lengths = [20, 3]
    table = table_of(lengths, 8, 1, "best_fit")
    row = read(table, payload(lengths), [0])
    assert row.tokens[0, -1] == 8
    assert row.labels[0, -1] == 9
    assert row.loss_mask.all()
    starts, segments = table.pieces(1)
    assert starts.tolist() == [8]
    assert segments["offset"].tolist() == [8]


@pytest.mark.parametrize("policy", ["best_fit", "concat"])
def test_arithmetic_beyond_32_bits(policy: str) -> None:
    big = 2**33 + 5
    lengths = [big, 100, 2**20, 7]
    table = table_of(lengths, 2**20, 2**14, policy)
    assert table.count.rows == table.rows
    assert table.span(0)[0] == 0
    start, stop = table.span(table.groups - 1)
    assert stop == sum(lengths)
    assert start > 2**33 or table.groups == 1
    starts, segments = table.pieces(table.rows - 1)
    assert int(starts[-1] + segments["length"][-1]) in (big, big + 100, sum(lengths) - 7, sum(lengths))
    placed, rows = table.placed()
    assert int(placed.max()) > 2**32
    assert placed.dtype == rows.dtype == np.int64
    assert int(best_fit(ends_of(lengths), 2**20, 2**14)["start"].max()) == big + 100 + 2**20
    long = table.layout(table.groups - 1, 2**32 - 1)
    assert int(long.segments["document"].astype(object)[0]) >> 32 == 2**32 - 1


def test_cut_is_at_multiples_of_the_length_from_each_document() -> None:
    starts, lengths = cut(np.array([5, 13, 14]), 4)
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == pieces_of([5, 8, 1], 4)


def test_groups_out_of_range_are_refused() -> None:
    table = table_of([5, 5], 4, 2, "best_fit")
    for number in (-1, table.groups):
        with pytest.raises(IndexError):
            table.span(number)


def web_lengths() -> Any:
    """Lengths as of web pages, without libm: sums of squares of keyed integers, median about 500, a long tail."""
    words = np.arange(1, 20_001, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    unit = (words >> np.uint64(40)).astype(np.int64)
    return 20 + unit % 700 + (unit % 1013 > 950) * (unit % 9001)


def test_fill_at_one_mebibyte(record_property: Any) -> None:
    lengths = web_lengths()
    pack = Pack(2048, "best_fit")
    table = best_fit(ends_of(lengths), 2048, pack.group_rows(2))
    rows = int(table["row"][-1]) + 1
    fill = int(lengths.sum()) / (rows * 2048)
    record_property("fill", fill)
    print(f"fill of best_fit-2048: {fill:.4f} of {rows} rows")
    assert fill > 0.99
    assert rows >= 2 * pack.group_rows(2)


def test_the_table_is_pinned() -> None:
    """Equal input gives equal tables in every version of format 1; a change here changes the bytes of data sets."""
    table = best_fit(ends_of(web_lengths()), 512, 64)
    assert table.dtype == PIECE
    pinned = "19c2f4f32298d07f31812d2a665d832c6eae8a54b2b95be3f3118ccdc65063bd"
    assert hashlib.sha256(table.tobytes()).hexdigest() == pinned
