"""Publish: the survivors as token shards. A document shuffle by files: nothing crosses a runner's shuffle.

Row groups are dealt to shards by a keyed permutation and cut by cumulative bytes, so that a shard of 512 MiB meets
about 64 row groups from different parts. A shard task reads its row groups, drops duplicates, applies the `final`
edits, encodes to a local file, orders by (keyed hash of id, id) and writes. Validation is split off in the same read;
slices are merged behind a GroupByKey of names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .. import RequestError
from ..sharding.format import Pack, ShardEntry, Vocabulary
from ..sharding.store import Store
from ..tokenizer import Tokenizer
from ..transforms.named import step_fingerprint
from ..transforms.schema import id_sum, keyed
from .heartbeat import Heartbeat
from .kept_edits import KeptEdits
from .recipe import Recipe, digest
from .spool import Spool, vocabulary_of
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .survivors import RowGroup, Survivors, tallied
from .tables import get_table, put_table
from .vocabulary import RunTokenizer


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


def tokens_stage(recipe: Recipe, run: Store, upstream: Sequence[str], vocabulary: Vocabulary) -> Stage:
    """Address the `tokens` stage; the vocabulary says what stands in every shard's header, EOS among it."""
    assert recipe.tokens is not None
    value = {
        "seed": recipe.seed,
        "tokens": recipe.tokens.model_dump(mode="json"),
        "final": [step_fingerprint(step) for step in recipe.final],
        "vocabulary": vocabulary.to_json(),
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
        threshold = np.uint64(int(self._share() * (1 << 64)))
        accounts, masks, edits = [], [], KeptEdits(folder)
        with Heartbeat(self.stage.run, task.key, "tokens") as heartbeat:
            for group in task.row_groups:
                with meter.on("read"):
                    batch, account = self.survivors.read(group)
                with meter.on("tokenize"):
                    lists = tokenizer.encode(batch.column("text"))
                with meter.on("write"):
                    spooled.add(edits.take(batch), lists)
                held_out = keyed(batch.column("id"), f"{self.recipe.seed} validation") < threshold
                masks.append(held_out)
                parted = {
                    "train": batch.column("id").filter(pa.array(~held_out)),
                    "validation": batch.column("id").filter(pa.array(held_out)),
                }
                accounts.append({**account, **tallied(parted)})
                heartbeat.add(len(batch), group.bytes)
        with meter.on("write"):
            table = spooled.close()
            ids = table.column("id").combine_chunks()
            order = spooled.shuffled(self.recipe.seed)
            out = np.concatenate(masks)[order]
            entry = self._shard(
                f"train/{task.stream}" if self._streams() else "train", task.number, spooled, order[~out], folder
            )
            return {
                "stream": task.stream,
                "number": task.number,
                "row_groups": accounts,
                "documents": len(table),
                "id_sum": str(id_sum(ids)),
                "shard": None if entry is None else entry.to_json(),
                "edits": edits.put(self.stage.store),
                "validation": self._slice(spooled, order[out], folder),
            }

    def _streams(self) -> bool:
        assert self.recipe.tokens is not None
        return bool(self.recipe.tokens.streams)

    def _shard(self, stream: str, number: int, spooled: Spool, order: np.ndarray, folder: Path) -> ShardEntry | None:
        """Write the documents of `order` as a shard; none, no shard."""
        if not len(order):
            return None
        return spooled.put_shard(self.stage.store, stream, number, order, pack_values(self.recipe), folder)

    def _slice(self, spooled: Spool, order: np.ndarray, folder: Path) -> dict[str, Any] | None:
        """Leave the validation documents of this shard for the task that merges them."""
        if not len(order):
            return None
        payload, ends = spooled.ordered(order, folder / "validation")
        table = spooled.table.take(pa.array(order)).append_column("end", pa.array(ends))
        store = self.stage.store
        return {
            "tokens": store.put(payload, "slices/", ".bin"),
            "documents": put_table(store, table, "slices/"),
            "rows": len(order),
        }


def merge_key(key: str) -> str:
    """Name the receipt of the validation shard that a validation key stands for."""
    return f"validation-{digest(key)[:20]}"


def published(stage: Stage, tasks: Sequence[ShardTask], share: float) -> list[Receipt] | None:
    """Read the shards' receipts; None unless all stand, and every validation shard that their slices are for."""
    committed, keys = stage.committed(), [task.key for task in tasks]
    if not set(keys) <= committed:
        return None
    receipts = stage.receipts(keys)
    held_out = [task for task, receipt in zip(tasks, receipts, strict=True) if receipt["validation"] is not None]
    return receipts if {merge_key(validation_key(task, share)) for task in held_out} <= committed else None


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
        run_task(self.stage, merge_key(key), partial(self.compute, key, slices))

    def compute(self, key: str, slices: Sequence[dict[str, Any]], folder: Path, meter: Meter) -> Receipt:
        """Read the slices, order their documents, write the shard."""
        stream, number = json.loads(key)
        store, dtype = self.stage.store, np.dtype(self.vocabulary.dtype).newbyteorder("<")
        spooled = Spool(folder / "tokens", self.vocabulary)
        with meter.on("write"):
            for item in slices:
                table = get_table(store, item["documents"])
                spooled.take_over(np.frombuffer(store.read(item["tokens"]), dtype), table)
            table = spooled.close()
            assert self.recipe.tokens is not None
            name = f"validation/{stream}" if self.recipe.tokens.streams else "validation"
            order = spooled.shuffled(self.recipe.seed)
            entry = spooled.put_shard(store, name, number, order, pack_values(self.recipe), folder)
        return {
            "stream": stream,
            "number": number,
            "documents": len(table),
            "id_sum": str(id_sum(table.column("id").combine_chunks())),
            "shard": entry.to_json(),
        }


def pack_values(recipe: Recipe) -> list[Pack]:
    """Give the recipe's packs as the format knows them."""
    assert recipe.tokens is not None
    return [Pack(length=pack.length, policy=pack.policy) for pack in recipe.tokens.packs]


def run_vocabulary(recipe: Recipe, tokenizer: Tokenizer) -> Vocabulary:
    """Say what the token files of this run hold: BOS only where the recipe asks for it."""
    assert recipe.tokens is not None
    if recipe.tokens.bos and tokenizer.bos_id is None:
        raise RequestError(
            f"tokens.bos is true, but the tokenizer {tokenizer.name} has no BOS token: leave bos out, or name a "
            "tokenizer that has one"
        )
    made = vocabulary_of(tokenizer)
    return made if recipe.tokens.bos else replace(made, bos_id=None)
