"""What the public PTransforms do to a document batch, as plain functions: no runner is needed to call them.

They are the functions of `penstock run` without its tasks: nothing is committed, so nothing resumes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import RequestError, RunError
from ..sharding.dataset import write_generation
from ..sharding.format import Generation, Pack, ShardEntry, Vocabulary
from ..sharding.store import Store
from ..tokenizer.vocab import Tokenizer
from ..transforms.named import apply_step
from ..transforms.readers import Fields, Piece, check_fields, detect_format, list_files, read, split
from ..transforms.schema import keyed
from ..transforms.step import Outcome, Step, with_columns
from .spool import Spool, vocabulary_of

VOCABULARY = b"penstock.vocabulary"  # metadata of the column `tokens`: whose ids they are
Sorted = tuple[pa.RecordBatch, list[pa.RecordBatch]]  # the rows that are kept, and those that fell out


def list_pieces(source: str, pattern: str, fields: Fields, task_bytes: int) -> Iterator[Piece]:
    """List the files of an input, a large one in ranges of about `task_bytes` where its format can be cut."""
    for number, entry in enumerate(list_files(pattern)):
        kind = detect_format(entry.path)
        if number == 0:  # a wrong mapping shows at once
            check_fields(entry, kind, fields)
        for start, end in split(entry, kind, task_bytes):
            yield Piece(entry.url, source, entry.path, kind, entry.size, start, end)


def read_piece(piece: Piece, fields: Fields) -> Iterator[Sorted]:
    """Read one piece as batches of documents."""
    for outcome in read(piece, fields):
        kept, gone = part(outcome)
        yield kept, [gone]


def apply_steps(batch: pa.RecordBatch, steps: Sequence[Step]) -> Sorted:
    """Apply steps in order; a later one sees only the survivors of the earlier."""
    fallen = []
    for step in steps:
        batch, gone = part(apply_step(step, batch))
        fallen.append(gone)
    return batch, fallen


def part(outcome: Outcome) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Part the rows that are kept from those that fell out; these get the columns `reason` and `error`.

    `reason` is the rule that dropped the row, `error` why it could not be processed: one of the two is null.
    """
    rows = len(outcome.batch)
    errors = pa.nulls(rows, pa.string()) if outcome.errors is None else outcome.errors
    reasons = pc.if_else(pc.is_valid(errors), pa.scalar(None, pa.string()), outcome.reasons)
    stays = pc.and_(pc.is_null(errors), pc.is_null(reasons))
    fallen = with_columns(outcome.batch, {"reason": reasons, "error": errors})
    return outcome.batch.filter(stays), fallen.filter(pc.invert(stays))


def tally(fallen: pa.RecordBatch) -> dict[str, int]:
    """Count the rows that fell out by rule; those with an error are `quarantined`."""
    rules = fallen.column("reason").fill_null("quarantined")
    return {item["values"]: item["counts"] for item in pc.value_counts(rules).to_pylist()}


def tokenize(batch: pa.RecordBatch, tokenizer: Tokenizer) -> pa.RecordBatch:
    """Add the column `tokens`: a list of ids a document, without BOS and EOS; its metadata say whose ids they are."""
    ids = tokenizer.encode(batch.column("text"))
    vocabulary = vocabulary_of(tokenizer)
    field = pa.field("tokens", ids.type, metadata={VOCABULARY: json.dumps(vocabulary.to_json())})
    return batch.append_column(field, ids)


def deal(batch: pa.RecordBatch, shards: int, seed: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Deal documents to shards by a keyed hash of their ids; text and pages stay behind."""
    if "tokens" not in batch.schema.names:
        raise RequestError(f"WriteShards writes tokens, and these documents have {batch.schema.names}: Tokenize first")
    batch = batch.select([name for name in batch.schema.names if name not in ("text", "html")])
    number = keyed(batch.column("id"), f"{seed} shard") % np.uint64(shards)
    for shard in np.unique(number):
        yield int(shard), batch.filter(pa.array(number == shard))


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards of one stream below `output`, a folder or an fsspec URL."""

    output: str
    stream: str
    packs: tuple[Pack, ...]
    bos: bool
    seed: int

    def write(self, number: int, batches: Iterable[pa.RecordBatch]) -> str:
        """Write one shard, its documents in the order of (keyed hash of id, id); give its entry, as JSON.

        The bytes depend on the documents and the seed alone, in whatever batches and order they come.
        """
        batches = list(batches)
        vocabulary = self._vocabulary(batches)
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            spool = Spool(Path(folder, "tokens"), vocabulary)
            for batch in batches:
                named = with_columns(batch.drop_columns(["tokens"]), {"text": pa.nulls(len(batch), pa.string())})
                spool.add(named, batch.column("tokens"))
            spool.close()
            order = spool.shuffled(self.seed)
            entry = spool.put_shard(Store(self.output), self.stream, number, order, self.packs, Path(folder))
        return json.dumps({"vocabulary": vocabulary.to_json(), "shard": entry.to_json()}, sort_keys=True)

    def finish(self, entries: Sequence[str]) -> dict[str, str | int]:
        """Name the shards in a generation, which makes them a data set that the loader opens; say what it holds."""
        if not entries:
            raise RunError(f"no document reached WriteShards, so there is nothing to write to {self.output}")
        values = [json.loads(entry) for entry in entries]
        vocabulary = Vocabulary.from_json(one_of([value["vocabulary"] for value in values]))
        shards = [ShardEntry.from_json(value["shard"]) for value in values]
        generation = Generation.of(0, vocabulary, self.packs, shards)
        write_generation(Store(self.output), generation)
        return {
            "output": self.output,
            "shards": len(shards),
            "documents": sum(shard.documents for shard in shards),
            "tokens": sum(shard.tokens for shard in shards),
            "tokens_sha256": generation.tokens_sha256,
        }

    def _vocabulary(self, batches: Sequence[pa.RecordBatch]) -> Vocabulary:
        fields: list[dict[bytes, bytes]] = [dict(batch.schema.field("tokens").metadata or {}) for batch in batches]
        said = [metadata[VOCABULARY] for metadata in fields if VOCABULARY in metadata]
        if len(said) < len(batches):
            raise RequestError("the column `tokens` does not say whose ids it holds: Tokenize right before WriteShards")
        value = dict(one_of([json.loads(body) for body in said]))
        if self.bos and value["bos_id"] is None:
            raise RequestError(f"bos is true, but the tokenizer {value['name']} has no BOS token")
        return Vocabulary.from_json(value if self.bos else {**value, "bos_id": None})


def one_of(vocabularies: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    """Give the vocabulary that all share; shards of two cannot be one data set."""
    for other in vocabularies[1:]:
        if other != vocabularies[0]:
            raise RequestError(
                f"tokens of two tokenizers meet in WriteShards: {vocabularies[0]['name']} and {other['name']}; "
                "use one, or write two data sets"
            )
    return vocabularies[0]
