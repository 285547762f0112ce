"""What a batch gives against rows built token by token: both policies, spans without loss, documents left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_rows import EOS, check_rows, naive, naive_rows, padding, payload, table_of

from penstock import RequestError
from penstock.sharding.batch import Batch
from penstock.sharding.block import Block
from penstock.sharding.buffers import Buffers
from penstock.sharding.left_out import by_shard
from penstock.sharding.packing import PackTable

POLICIES = ["best_fit", "concat"]


class Shards:
    """Keeps the blocks of shards that lie in memory, as `Blocks` keeps those of a data set."""

    def __init__(self, first: PackTable, kind: Any, without: Any = ()) -> None:
        self.pack = SimpleNamespace(pack=first.pack)
        self.padding = np.full(first.pack.length + 1, EOS, np.int32 if kind == np.uint32 else kind)
        self.without, self.kind, self._tables, self._readers = dict(without), kind, [first], list[Any]()

    def add(self, table: PackTable, tokens: Any, gone: Any, spans: Any) -> None:
        tokens = tokens.astype(self.kind)
        self._tables[len(self._readers) :] = [table]
        self._readers.append(SimpleNamespace(
            shard=len(self._readers), table=lambda _: table, tokens=lambda start, stop: tokens[start:stop],
            entry=SimpleNamespace(tokens=len(tokens)), gone=np.array(sorted(gone), np.uint64),
            loss=np.array(spans, np.uint64).reshape(-1, 2),
        ))  # fmt: skip

    def table(self, shard: int) -> PackTable:
        return self._tables[shard]

    def block(self, shard: int, group: int) -> Block:
        return Block(self, shard, group, self._readers[shard])  # type: ignore[arg-type]

    def batch(self, places: list[tuple[int, int] | None]) -> Batch:
        """Rows by (shard, row of the shard), None for one of padding; a block that comes again is the same."""
        blocks: dict[tuple[int, int], Block] = {}
        held: list[tuple[Block, int] | None] = []
        for place in places:
            if place is None:
                held.append(None)
                continue
            group, row = divmod(place[1], self.table(place[0]).group_rows)
            key = place[0], group
            held.append((blocks.setdefault(key, self.block(*key)), row))
        positions = np.array([-1 if place is None else 0 for place in places], np.int64)
        return Batch(0, 0, len(places), positions, held, self.padding, Buffers(1))


def spans_of(marks: list[int]) -> list[tuple[int, int]]:
    """Disjoint rising ranges, some of which touch."""
    edges = sorted(set(marks))
    return list(zip(edges[::2], edges[1::2], strict=False))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_batch_is_what_a_reader_token_by_token_gives(policy: str, data: Any) -> None:
    """Two shards, any lengths, marks of all kinds, rows in any order and rows of padding."""
    draw = data.draw
    length, rows, kind = (
        draw(st.integers(1, 24)),
        draw(st.integers(1, 6)),
        draw(st.sampled_from([np.uint16, np.uint32])),
    )
    shards: Any = None
    expected: dict[tuple[int, int] | None, Any] = {None: padding(length)}
    hidden: set[int] = set()
    for shard in range(2):
        lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=30))
        ordinals = st.sets(st.integers(0, len(lengths) - 1))
        gone, asked = draw(st.one_of(st.just(set()), ordinals)), draw(st.one_of(st.just(set()), ordinals))
        spans = spans_of(draw(st.lists(st.integers(0, sum(lengths)), max_size=20)))
        table = table_of(lengths, length, rows, policy)
        shards = shards or Shards(table, kind)
        if asked:
            shards.without[shard] = np.array(sorted(asked))
        # Each shard has tokens of its own, so that one seen in a wrong place is found.
        tokens = payload(lengths).astype(np.int64)
        tokens[tokens != EOS] += shard << 12
        shards.add(table, tokens, gone, spans)
        owners = np.repeat(np.arange(len(lengths)), lengths)
        hidden |= set(tokens[np.isin(owners, list(gone | asked))].tolist()) - {EOS}
        for row, pieces in enumerate(naive_rows(lengths, table)):
            told = naive(lengths, pieces, length, shard, gone | asked, spans)
            for token in told:
                for name in ("tokens", "labels"):
                    token[name] = token[name] + (shard << 12) if token[name] else token[name]
            expected[shard, row] = told
    wanted = draw(st.lists(st.sampled_from(list(expected)), max_size=12)) + list(expected)
    batch = shards.batch(wanted)
    check_rows(batch, [expected[place] for place in wanted])
    assert not hidden & set(batch.buffer.ravel().tolist()), "tokens of documents left out are seen nowhere"
    pieces = len(batch.cu_seqlens) - 1
    fixed = batch.varlen(pieces + 3)
    assert fixed.cu_seqlens.tolist() == [*batch.cu_seqlens.tolist(), *[batch.tokens.size] * 3]
    assert fixed.max_seqlen == batch.max_seqlen
    assert np.array_equal(batch.varlen(pieces).cu_seqlens, batch.cu_seqlens)


def one_shard(lengths: list[int], length: int, rows: int, policy: str, gone: Any = (), spans: Any = ()) -> Shards:
    table = table_of(lengths, length, rows, policy)
    shards = Shards(table, np.uint16)
    shards.add(table, payload(lengths), gone, spans)
    return shards


def test_varlen_says_how_many_pieces_there_are() -> None:
    batch = one_shard([3, 3, 2], 8, 1, "concat").batch([(0, 0)])
    assert batch.varlen(3).cu_seqlens.tolist() == [0, 3, 6, 8]
    with pytest.raises(RequestError, match=r"has 3 pieces, varlen was asked for 2: pass 3 or more"):
        batch.varlen(2)


def test_a_batch_of_no_rows_has_every_output() -> None:
    batch = one_shard([3], 8, 1, "concat").batch([])
    check_rows(batch, [])
    assert batch.varlen(2).cu_seqlens.tolist() == [0, 0, 0]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_group_that_is_gone_whole_is_padding(policy: str) -> None:
    lengths = [8, 5, 3, 9, 7]
    shards = one_shard(lengths, 8, 2, policy, gone=range(5))
    batch = shards.batch([(0, row) for row in range(shards.table(0).rows)])
    assert not batch.buffer.any()
    assert not batch.loss_mask.any()
    assert not batch.segment_ids.any()
    assert set(batch.document_ids.ravel().tolist()) == {2**64 - 1}


def test_the_label_behind_a_row_is_neither_learned_in_a_span_nor_shown_when_left_out() -> None:
    lengths, spans = [8, 8, 8], [(4, 5)]
    plain = one_shard(lengths, 4, 6, "concat").batch([(0, row) for row in range(6)])
    assert plain.labels[0].tolist() == [2, 3, 4, 5]
    assert plain.loss_mask[0].all()
    muted = one_shard(lengths, 4, 6, "concat", spans=spans).batch([(0, row) for row in range(6)])
    assert muted.loss_mask[0].tolist() == [True, True, True, False]
    assert np.array_equal(muted.loss_mask[1:], plain.loss_mask[1:])
    assert np.array_equal(muted.buffer, plain.buffer)
    gone = one_shard(lengths, 4, 6, "concat", gone=[1]).batch([(0, row) for row in range(6)])
    assert plain.buffer[1, -1] == 9
    assert gone.buffer[1].tolist() == [5, 6, 7, EOS, EOS]
    assert not gone.buffer[2:4].any()
    assert np.array_equal(gone.buffer[4:], plain.buffer[4:])


def test_what_is_left_out_must_be_a_document_of_the_data() -> None:
    data: Any = SimpleNamespace(shards=[SimpleNamespace(documents=3), SimpleNamespace(documents=2)])
    held = by_shard({(1 << 32) + 1, 2, 0}, data)
    assert {shard: ordinals.tolist() for shard, ordinals in held.items()} == {0: [0, 2], 1: [1]}
    for wrong in (3, (1 << 32) + 2, 2 << 32, 2**64 - 1, -1):
        with pytest.raises(RequestError, match=f"document {wrong} "):
            by_shard({wrong}, data)
