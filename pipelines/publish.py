"""Publish: the survivors as token shards. A document shuffle by files: nothing crosses a runner's shuffle.

Row groups are dealt to shards by a keyed permutation and cut by cumulative bytes, so that a shard of 512 MiB meets
about 64 row groups from different parts. A shard task reads its row groups, drops duplicates, applies the `final`
edits, encodes to a local file, orders by (keyed hash of id, id) and writes. Validation is split off in the same read;
slices are merged behind a GroupByKey of names.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import RequestError
from ..sharding.format import Pack, ShardEntry, Vocabulary
from ..sharding.shard import write_shard
from ..sharding.store import Store
from ..tokenizer import Tokenizer
from ..tokenizer.vocab import require_eos
from ..transforms.schema import id_sum, id_words
from .heartbeat import Heartbeat
from .ledger import keyed
from .recipe import Recipe, digest, step_fingerprint
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .survivors import RowGroup, Survivors
from .vocabulary import RunTokenizer

GATHER_TOKENS = 1 << 22  # tokens moved at once when documents are put in order


@dataclass(frozen=True)
class ShardTask:
    """One training shard: its stream, number and row groups in the order in which they are read."""

    stream: str
    number: int
    row_groups: tuple[RowGroup, ...]

    @property
    def name(self) -> str:
        """Name the shard, for people."""
        return f"shard {self.number} of stream {self.stream!r}"

    @property
    def key(self) -> str:
        """Name the task's receipt."""
        return f"shard-{digest(self.stream)[:12]}-{self.number:05d}"


def tokens_stage(recipe: Recipe, run: Store, upstream: Sequence[str], tokenizer_fingerprint: str) -> Stage:
    """Address the `tokens` stage."""
    assert recipe.tokens is not None
    value = {
        "seed": recipe.seed,
        "tokens": recipe.tokens.model_dump(mode="json"),
        "final": [step_fingerprint(step) for step in recipe.final],
        "tokenizer": tokenizer_fingerprint,
        "upstream": list(upstream),
    }
    return Stage.of(run, "tokens", value, package_versions("pyarrow"))


def deal(row_groups: Iterable[RowGroup], seed: int, shard_bytes: int) -> list[ShardTask]:
    """Deal each stream's row groups to shards: keyed permutation, then cut by cumulative bytes of text."""
    streams: dict[str, list[RowGroup]] = {}
    for group in row_groups:
        streams.setdefault(group.stream, []).append(group)
    tasks = []
    for stream, groups in sorted(streams.items()):
        groups.sort(key=lambda group: (digest([seed, group.part_key, group.number]), group.part_key, group.number))
        held: list[RowGroup] = []
        number = size = 0
        for group in groups:
            if held and size + group.bytes > shard_bytes:
                tasks.append(ShardTask(stream, number, tuple(held)))
                held, size, number = [], 0, number + 1
            held.append(group)
            size += group.bytes
        tasks.append(ShardTask(stream, number, tuple(held)))
    return tasks


@dataclass(frozen=True)
class Publish:
    """Write one training shard; leave its validation slice."""

    stage: Stage
    recipe: Recipe
    survivors: Survivors
    tokenizer: RunTokenizer
    vocabulary: Vocabulary

    def __call__(self, task: ShardTask) -> Iterator[tuple[str, bytes]]:
        """Commit the shard unless it stands; emit (validation shard, its slice's names)."""
        receipt = run_task(self.stage, task.key, partial(self.compute, task))
        if receipt["validation"] is not None:
            yield validation_key(task, self._share()), json.dumps(receipt["validation"]).encode()

    def _share(self) -> float:
        assert self.recipe.tokens is not None
        return self.recipe.tokens.validation

    def compute(self, task: ShardTask, folder: Path, meter: Meter) -> Receipt:
        """Read, drop, edit, encode, order, write."""
        spooled = Spool(folder / "tokens", self.vocabulary)
        tokenizer = self.tokenizer.load()
        accounts = []
        with Heartbeat(self.stage.run, task.key, "tokens") as heartbeat:
            for group in task.row_groups:
                with meter.on("read"):
                    batch, account = self.survivors.read(group)
                with meter.on("tokenize"):
                    lists = tokenizer.encode(batch.column("text"))
                with meter.on("write"):
                    spooled.add(batch, lists)
                held_out = keyed(batch.column("id"), f"{self.recipe.seed} validation") < np.uint64(
                    int(self._share() * (1 << 64))
                )
                accounts.append({**account, "validation": int(held_out.sum()), "train": int((~held_out).sum())})
                heartbeat.add(len(batch), group.bytes)
        with meter.on("write"):
            table = spooled.close()
            ids = table.column("id").combine_chunks()
            order = np.lexsort((*id_words(ids).byteswap().T[::-1], keyed(ids, f"{self.recipe.seed} order")))
            out = keyed(ids, f"{self.recipe.seed} validation")[order] < np.uint64(int(self._share() * (1 << 64)))
            entry = self._shard(
                f"train/{task.stream}" if self._streams() else "train", task.number, spooled, table, order[~out], folder
            )
            return {
                "stream": task.stream,
                "number": task.number,
                "row_groups": accounts,
                "documents": len(table),
                "id_sum": str(id_sum(ids)),
                "shard": None if entry is None else entry.to_json(),
                "validation": self._slice(spooled, table, order[out], folder),
            }

    def _streams(self) -> bool:
        assert self.recipe.tokens is not None
        return bool(self.recipe.tokens.streams)

    def _shard(
        self, stream: str, number: int, spooled: Spool, table: pa.Table, order: np.ndarray, folder: Path
    ) -> ShardEntry | None:
        """Write the documents of `order` as a shard; none, no shard."""
        if not len(order):
            return None
        payload, ends = spooled.ordered(order, folder / f"payload-{len(order)}")
        return put_shard(
            self.stage.store, stream, number, payload, ends, self.vocabulary, self.recipe, table.take(pa.array(order))
        )

    def _slice(self, spooled: Spool, table: pa.Table, order: np.ndarray, folder: Path) -> dict[str, Any] | None:
        """Leave the validation documents of this shard for the task that merges them."""
        if not len(order):
            return None
        payload, ends = spooled.ordered(order, folder / "validation")
        body = io.BytesIO()
        pq.write_table(table.take(pa.array(order)).append_column("end", pa.array(ends)), body, compression="zstd")
        store = self.stage.store
        return {
            "tokens": store.put(payload, "slices/", ".bin"),
            "documents": store.put(body.getvalue(), "slices/", ".parquet"),
            "rows": len(order),
        }


def validation_key(task: ShardTask, share: float) -> str:
    """Name the validation shard that a training shard's slice goes to.

    As many slices as make a shard's worth of text.
    """
    return json.dumps([task.stream, task.number // max(1, int(1 / share))])


@dataclass(frozen=True)
class MergeValidation:
    """Merge the validation slices of several shards into one shard."""

    stage: Stage
    recipe: Recipe
    vocabulary: Vocabulary

    def __call__(self, key: str, values: Iterable[bytes]) -> None:
        """Commit the validation shard, whatever order the slices come in."""
        slices = sorted((json.loads(value) for value in values), key=lambda item: (item["tokens"], item["documents"]))
        run_task(self.stage, f"validation-{digest(key)[:20]}", partial(self.compute, key, slices))

    def compute(self, key: str, slices: Sequence[dict[str, Any]], folder: Path, meter: Meter) -> Receipt:
        """Read the slices, order their documents, write the shard."""
        stream, number = json.loads(key)
        store, dtype = self.stage.store, np.dtype(self.vocabulary.dtype).newbyteorder("<")
        spooled = Spool(folder / "tokens", self.vocabulary)
        with meter.on("write"):
            for item in slices:
                table = pq.read_table(io.BytesIO(store.read(item["documents"])))
                spooled.take_over(np.frombuffer(store.read(item["tokens"]), dtype), table)
            table = spooled.close()
            ids = table.column("id").combine_chunks()
            order = np.lexsort((*id_words(ids).byteswap().T[::-1], keyed(ids, f"{self.recipe.seed} order")))
            payload, ends = spooled.ordered(order, folder / "payload")
            assert self.recipe.tokens is not None
            name = f"validation/{stream}" if self.recipe.tokens.streams else "validation"
            entry = put_shard(
                store, name, number, payload, ends, self.vocabulary, self.recipe, table.take(pa.array(order))
            )
        return {
            "stream": stream,
            "number": number,
            "documents": len(table),
            "id_sum": str(id_sum(ids)),
            "shard": entry.to_json(),
        }


class Spool:
    """Documents' tokens in a local file as they were encoded, to be put in order afterwards."""

    def __init__(self, path: Path, vocabulary: Vocabulary) -> None:
        self._path, self._vocabulary = path, vocabulary
        self._dtype = np.dtype(vocabulary.dtype).newbyteorder("<")
        self._file = path.open("wb")
        self._lengths: list[np.ndarray] = []
        self._tables: list[pa.Table] = []

    def add(self, batch: pa.RecordBatch, lists: pa.Array) -> None:
        """Append a batch: BOS where the vocabulary has one, the document's tokens, EOS."""
        offsets = np.asarray(lists.offsets).astype(np.int64)
        values = np.asarray(lists.values)[offsets[0] : offsets[-1]]
        lead = [] if self._vocabulary.bos_id is None else [self._vocabulary.bos_id]
        lengths = np.diff(offsets) + 1 + len(lead)
        out = np.empty(int(lengths.sum()), self._dtype)
        ends = np.cumsum(lengths)
        inside = np.ones(len(out), bool)
        inside[ends - 1] = False
        if lead:
            inside[ends - lengths] = False
            out[ends - lengths] = lead[0]
        out[ends - 1] = self._vocabulary.eos_id
        out[inside] = values
        self._file.write(out.tobytes())
        self._lengths.append(lengths)
        self._tables.append(pa.Table.from_batches([batch.drop_columns(["text"])]))

    def take_over(self, tokens: np.ndarray, table: pa.Table) -> None:
        """Append documents that are already encoded; `end` in the table says where each ends."""
        self._file.write(tokens.astype(self._dtype, copy=False).tobytes())
        self._lengths.append(np.diff(table.column("end").to_numpy().astype(np.int64), prepend=0))
        self._tables.append(table.drop_columns(["end"]))

    def close(self) -> pa.Table:
        """Finish the file; give the documents' table, in the order of the file."""
        self._file.close()
        self.lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        return pa.concat_tables(self._tables).combine_chunks()

    def ordered(self, order: np.ndarray, path: Path) -> tuple[Path, np.ndarray]:
        """Write the documents of `order` to a file; give it and the cumulative ends in tokens, uint64."""
        tokens = np.memmap(self._path, self._dtype, "r") if self._path.stat().st_size else np.zeros(0, self._dtype)
        starts = (np.cumsum(self.lengths) - self.lengths)[order]
        lengths = self.lengths[order]
        ends = np.cumsum(lengths)
        with path.open("wb") as file:
            for first, last in _runs(ends):
                file.write(tokens[ragged(starts[first:last], lengths[first:last])].tobytes())
        return path, ends.astype(np.uint64)


def _runs(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut documents into runs of about 4 Mi tokens."""
    first = 0
    while first < len(ends):
        base = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, base + GATHER_TOKENS, side="right")))
        yield first, last
        first = last


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Give the indices of [start, start + length) of every document, one after another."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def put_shard(
    store: Store,
    stream: str,
    number: int,
    payload: Path,
    ends: np.ndarray,
    vocabulary: Vocabulary,
    recipe: Recipe,
    documents: pa.Table,
) -> ShardEntry:
    """Write a shard's files under the stage."""
    assert recipe.tokens is not None
    body = io.BytesIO()
    pq.write_table(documents, body, compression="zstd", row_group_size=1 << 16)
    return write_shard(
        store,
        stream=stream,
        number=number,
        payload=payload,
        ends=ends,
        vocabulary=vocabulary,
        packs=pack_values(recipe),
        documents=body.getvalue(),
    )


def pack_values(recipe: Recipe) -> list[Pack]:
    """Give the recipe's packs as the format knows them."""
    assert recipe.tokens is not None
    return [Pack(length=pack.length, policy=pack.policy) for pack in recipe.tokens.packs]


def vocabulary_of(recipe: Recipe, tokenizer: Tokenizer) -> Vocabulary:
    """Say what the token files need to know of a tokenizer."""
    assert recipe.tokens is not None
    if recipe.tokens.bos and tokenizer.bos_id is None:
        raise RequestError(f"tokens.bos is true, but the tokenizer {tokenizer.name} has no BOS token")
    return Vocabulary(
        dtype=np.dtype(tokenizer.dtype).name,
        size=tokenizer.vocab_size,
        fingerprint=tokenizer.fingerprint,
        eos_id=require_eos(tokenizer),
        bos_id=tokenizer.bos_id if recipe.tokens.bos else None,
        name=tokenizer.name,
    )
