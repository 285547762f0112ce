"""What a batch gives against rows built token by token: both policies, spans without loss, documents left out."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from loader_files import PACKS, VOCABULARY, put_data
from packed_rows import EOS, OUTPUTS, check_rows, naive, naive_rows, padding, payload, table_of

from penstock import RequestError
from penstock.sharding import StreamingLoader
from penstock.sharding import pack as token_pack
from penstock.sharding.batch import Batch
from penstock.sharding.block import Block
from penstock.sharding.buffers import Buffers
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.format import Generation
from penstock.sharding.left_out import by_shard
from penstock.sharding.packing import NO_DOCUMENT, PackTable
from penstock.sharding.pieces import count_pieces
from penstock.sharding.shard import write_shard
from penstock.sharding.store import Store

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
            loss=np.array(spans, np.uint64).reshape(-1, 2), span=lambda _, group: table.span(group),
        ))  # fmt: skip

    def table(self, shard: int) -> PackTable:
        return self._tables[shard]

    def block(self, shard: int, group: int) -> Block:
        return Block(self, shard, group, self._readers[shard])  # type: ignore[arg-type]

    def batch(self, places: list[tuple[int, int] | None]) -> Batch:
        """Rows by (shard, row of the shard), None for one of padding; a block that comes again is the same."""
        blocks: dict[tuple[int, int], Block] = {}
        held: list[Block | None] = []
        rows = np.zeros(len(places), np.int64)
        for at, place in enumerate(places):
            if place is None:
                held.append(None)
                continue
            group, row = divmod(place[1], self.table(place[0]).group_rows)
            key = place[0], group
            held.append(blocks.setdefault(key, self.block(*key)))
            rows[at] = row
        positions = np.array([-1 if place is None else 0 for place in places], np.int64)
        return Batch(0, 0, len(places), positions, held, rows, self.padding, Buffers(1))


def some(chance: np.random.Generator, count: int) -> set[int]:
    """None, some or nearly all of `count` things."""
    return set(np.flatnonzero(chance.random(count) < chance.choice([0, 0, 0.1, 0.4, 0.95])).tolist())


def spans_of(chance: np.random.Generator, tokens: int) -> list[tuple[int, int]]:
    """Disjoint rising ranges, some of which touch."""
    edges = sorted(set(chance.integers(0, tokens + 1, chance.integers(0, 21)).tolist()))
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    return [
        half for low, high in spans for half in ([(low, low + 1), (low + 1, high)] if high - low > 5 else [(low, high)])
    ]


def row_oracle(chance: np.random.Generator, policy: str) -> tuple[Shards, dict[Any, Any], set[int]]:
    """Two shards of any lengths with marks of all kinds: how to read them, their rows, tokens that must not be seen."""
    length, rows = int(chance.integers(1, 25)), int(chance.integers(1, 7))
    kind = [np.uint16, np.uint32][int(chance.integers(2))]
    expected: dict[Any, Any] = {None: padding(length)}
    hidden: set[int] = set()
    shards: Any = None
    for shard in range(2):
        lengths = chance.integers(1, 41, chance.integers(1, 31)).tolist()
        gone, asked, spans = some(chance, len(lengths)), some(chance, len(lengths)), spans_of(chance, sum(lengths))
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
    return shards, expected, hidden


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(40))
def test_a_batch_is_what_a_reader_token_by_token_gives(policy: str, seed: int) -> None:
    """Rows in any order, again and again, and rows of padding."""
    chance = np.random.default_rng(seed)
    shards, expected, hidden = row_oracle(chance, policy)
    known = list(expected)
    wanted = [known[at] for at in chance.integers(0, len(known), chance.integers(0, 13)).tolist()] + known
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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    return put_data(tmp_path_factory.mktemp("batch") / "set")


@pytest.mark.parametrize("pack", [pack.name for pack in PACKS])
def test_pieces_are_counted_as_batches_have_them(data: TokenData, pack: str) -> None:
    counts = count_pieces(data, pack, {"train/a": 1})
    loader = StreamingLoader(data, 1, pack=pack, weights={"train/a": 1})
    every = loader.rows(range(loader.epoch_rows))
    a_row = (every.position_ids == 0).sum(axis=1)
    assert np.allclose(counts.shares, np.bincount(a_row) / len(every))
    assert counts.most == a_row.max()
    assert np.isclose(counts.mean, a_row.mean())
    sums = np.random.default_rng(0).choice(a_row, (4000, 32)).sum(axis=1)
    for share in (0.5, 0.9, 0.99):
        assert abs(counts.at(32, share) - np.quantile(sums, share)) <= 3
    assert counts.at(32, 1.0) == counts.bound(32) == 32 * counts.most
    assert counts.at(1, 1 - 1e-9) <= counts.most
    assert counts.at(0, 0.5) == 0


def test_pieces_of_a_mixture_are_weighed_and_unknown_streams_refused(data: TokenData) -> None:
    one, other = (count_pieces(data, PACKS[1].name, {name: 1}) for name in ("train/a", "train/b"))
    both = count_pieces(data, PACKS[1].name, {"train/a": 3, "train/b": 1})
    assert np.isclose(both.mean, 0.75 * one.mean + 0.25 * other.mean)
    assert count_pieces(data, PACKS[1].name).most == max(one.most, other.most)
    with pytest.raises(RequestError, match="there is no stream train/c: streams are train/a"):
        count_pieces(data, PACKS[1].name, {"train/c": 1})
    with pytest.raises(RequestError, match="share from 0 to 1"):
        one.at(3, 1.5)


#: Documents of the marked data by shard, tokens each; those taken down; ranges of tokens not to be learned.
LENGTHS = [[int(length) for length in np.random.default_rng(shard).integers(1, 60, 70)] for shard in range(3)]
GONE = [[0, 5, 6, 69], [], [10]]
SPANS = [[], [(0, 7), (7, 9), (300, 400), (1000, 1001)], [(20, 500)]]
#: Left out by the plan: of a shard that has marks, of one that has none.
WITHOUT = {11, 5, (1 << 32) + 3, (2 << 32) + 69}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    """A data set with marks of both kinds."""
    folder = tmp_path_factory.mktemp("marked")
    entries = []
    with mock.patch.multiple(token_pack, GROUP_BYTES=128, FITTING_ROWS=4):
        for shard, lengths in enumerate(LENGTHS):
            tokens = payload(lengths)
            for ordinal in GONE[shard]:
                tokens[sum(lengths[:ordinal]) : sum(lengths[: ordinal + 1])] = EOS
            tokens.tofile(spool := folder / "spool")
            entries.append(write_shard(
                Store(folder), stream="train", number=shard, payload=spool, ends=np.cumsum(lengths).astype(np.uint64),
                vocabulary=VOCABULARY, packs=PACKS, documents=b"none", loss=np.array(SPANS[shard]).reshape(-1, 2),
                gone=np.array(GONE[shard], np.int64),
            ))  # fmt: skip
            spool.unlink()
        write_generation(Store(folder), Generation.of(0, VOCABULARY, PACKS, entries))
    return open_tokens(folder)


def learned(shard: int, without: Collection[int]) -> int:
    """Labels of a shard that are learned: every token of a document but its first, where no range has it."""
    spans = {at for low, high in SPANS[shard] for at in range(low, high)}
    begins = np.cumsum([0, *LENGTHS[shard]]).tolist()
    kept = [o for o in range(len(LENGTHS[shard])) if o not in GONE[shard] and (shard << 32 | o) not in without]
    return sum(at not in spans for o in kept for at in range(begins[o] + 1, begins[o + 1]))


@pytest.mark.parametrize("pack", [pack.name for pack in PACKS])
@pytest.mark.parametrize("without", [frozenset(), WITHOUT])
def test_an_epoch_learns_each_label_once_and_ranks_give_what_one_alone_gives(
    marked: TokenData, pack: str, without: Any
) -> None:
    def batches_of(**asked: Any) -> list[Batch]:
        loader = StreamingLoader(marked, 50, pack=pack, epochs=1, tail="short", prefetch=0, **asked)
        loader.skip(documents=without)
        return list(loader)

    alone = batches_of()
    assert sum(int(batch.loss_mask.sum()) for batch in alone) == sum(learned(shard, without) for shard in range(3))
    left_out = {shard << 32 | ordinal for shard, ordinals in enumerate(GONE) for ordinal in ordinals} | set(without)
    every = {shard << 32 | ordinal for shard, lengths in enumerate(LENGTHS) for ordinal in range(len(lengths))}
    seen = np.unique(np.concatenate([batch.document_ids.ravel() for batch in alone])).tolist()
    assert set(seen) - {NO_DOCUMENT} == every - left_out
    for world_size in (3, 7):
        ranks = [batches_of(rank=rank, world_size=world_size) for rank in range(world_size)]
        for step, whole in enumerate(alone):
            for name in (*OUTPUTS, "labels"):
                parts = [getattr(batches[step], name) for batches in ranks]
                assert np.array_equal(np.concatenate(parts), getattr(whole, name)), name


def test_whole_documents_come_without_those_left_out_and_with_their_ranges(marked: TokenData) -> None:
    loader = StreamingLoader(marked, 8, pack="concat-16")
    loader.skip(documents=WITHOUT)
    found = {document.document_id: document for document in loader.documents()}
    for shard, lengths in enumerate(LENGTHS):
        begins, spans = np.cumsum([0, *lengths]).tolist(), {at for span in SPANS[shard] for at in range(*span)}
        for ordinal, (begin, end) in enumerate(pairwise(begins)):
            document = found.pop(shard << 32 | ordinal, None)
            if ordinal in GONE[shard] or (shard << 32 | ordinal) in WITHOUT:
                assert document is None
                continue
            assert document is not None
            assert document.tokens.tolist() == payload(lengths)[begin:end].tolist()
            unlearned = [at for low, high in document.unlearned.tolist() for at in range(low, high)]
            assert unlearned == [at - begin for at in range(begin, end) if at in spans]
    assert not found
