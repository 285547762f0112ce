"""PTransforms over document batches for people's own Beam pipelines: read, apply steps, deduplicate, tokenize, write.

    documents = pipeline | ReadDocuments({"web": "crawl/*.warc.gz"})
    kept, rejected = documents | ApplySteps([ExtractHtml(), "gopher_quality"], with_rejected=True)
    kept | Deduplicate() | Tokenize("tokenizer.json") | WriteShards("tokens/", shards=8)

The same functions as `penstock run`, and the same ids and decisions; but no receipts, so no resume and no accounts that
must add up. What falls out is counted by rule in Beam's metrics (namespace `penstock`) and is a second output where it
is asked for. `WriteShards` sends tokens through the runner's shuffle: for more than memory holds on one machine, use
`penstock run`, which shuffles by files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsList, PCollection, TaggedOutput
from pydantic import ValidationError

from .. import RequestError
from ..sharding.format import Pack
from ..tokenizer import load_tokenizer
from ..transforms.named import parse_step
from ..transforms.readers import Fields
from ..transforms.schema import ID
from ..transforms.step import Step
from . import beam_coder as beam_coder  # registers how a batch is coded
from .batches import ShardWriter, Sorted, apply_steps, deal, list_pieces, read_piece, tally, tokenize
from .batches_dedup import check_batches, drop, link_witnesses, settle, sign_batch
from .duplicates import Dedup
from .recipe import causes, fault

TASK_BYTES = 64 << 20  # of input read by one element, as in `penstock run`
_REJECTED = "rejected"


class ReadDocuments(beam.PTransform):  # type: ignore[misc]
    """Read WARC, JSON lines, Parquet and text as batches of at most 1,000 documents.

    `inputs`: input names to paths, folders, globs or fsspec URLs; a document's id is made of its input's name, so a
    single path is the input `documents`. `fields` maps the records' fields. With `with_rejected` the result is two
    PCollections: documents, and those that the reader refused, with columns `reason` and `error`.
    """

    def __init__(
        self,
        inputs: str | Path | Mapping[str, str | Path],
        *,
        fields: Fields | None = None,
        with_rejected: bool = False,
        task_bytes: int = TASK_BYTES,
    ) -> None:
        super().__init__()
        named = inputs if isinstance(inputs, Mapping) else {"documents": inputs}
        self.inputs = sorted((name, str(path)) for name, path in named.items())
        self.fields, self.with_rejected, self.task_bytes = fields or Fields(), with_rejected, task_bytes

    def expand(self, begin: Any) -> Any:
        """Wire: list, cut, spread, read."""
        return (
            begin
            | "Inputs" >> beam.Create(self.inputs, reshuffle=False)
            | "List" >> beam.FlatMapTuple(partial(list_pieces, fields=self.fields, task_bytes=self.task_bytes))
            | "Spread" >> beam.Reshuffle()
            | "Read" >> _Sort(partial(read_piece, fields=self.fields), self.with_rejected)
        )


class ApplySteps(beam.PTransform):  # type: ignore[misc]
    """Apply steps in order; a later one sees only what the earlier ones kept.

    `steps` are values, or as a recipe writes them: `"c4_quality"`, `{"language_id": {"minimum": 0.65}}`,
    `"my_module:MyStep"`; a wrong one is refused here, not in a worker. With `with_rejected` the result is two
    PCollections: the kept, and what each step dropped, with columns `reason` and `error`.
    """

    def __init__(self, steps: Sequence[Step | str | Mapping[str, Any]], *, with_rejected: bool = False) -> None:
        super().__init__()
        self.steps = tuple(_step(step) for step in steps)
        self.with_rejected = with_rejected

    def expand(self, documents: PCollection) -> Any:
        """Wire: apply."""
        return documents | "Apply" >> _Sort(partial(_applied, steps=self.steps), self.with_rejected)


class Deduplicate(beam.PTransform):  # type: ignore[misc]
    """Keep one document of each cluster of copies and near-copies.

    `dedup` is a `Dedup` or its fields; whole documents are compared, exactly and by MinHash. With `with_removed` the
    result is two PCollections: documents, and a batch that names every document that goes and the one kept for it. The
    ids of all documents differ. Clusters are settled by one worker, with about 400 bytes a document that has a copy;
    `penstock dedup` and `penstock run` settle more, resume, and know further kinds.
    """

    def __init__(
        self, dedup: Dedup | Mapping[str, Any] | None = None, *, with_removed: bool = False, ranges: int = 8
    ) -> None:
        super().__init__()
        self.dedup = dedup if isinstance(dedup, Dedup) else _dedup(dedup or {})
        check_batches(self.dedup)
        if ranges < 1:
            raise RequestError(f"ranges is {ranges}; it must be 1 or more")
        self.with_removed, self.ranges = with_removed, ranges

    def expand(self, documents: PCollection) -> Any:
        """Wire: sign, group, link, gather, settle, drop."""
        policies = len(self.dedup.keep)
        removed = (
            documents
            | "Sign" >> beam.FlatMap(sign_batch, self.dedup, self.ranges).with_output_types(tuple[str, bytes])
            | "Group" >> beam.GroupByKey()
            | "Link" >> beam.Map(_linked, policies).with_output_types(tuple[str, bytes])
            | "Gather" >> beam.GroupByKey()
            | "Settle" >> beam.Map(_settled, self.dedup.keep).with_output_types(pa.RecordBatch)
        )
        kept = documents | "Drop" >> beam.ParDo(_Drop(), AsList(removed)).with_output_types(pa.RecordBatch)
        return (kept, removed) if self.with_removed else kept


class Tokenize(beam.PTransform):  # type: ignore[misc]
    """Add the column `tokens`: a list of ids a document, without BOS and EOS.

    `tokenizer`: path or URL of a SentencePiece `.model`, `tokenizer.json` or `.tiktoken` that every worker reaches.
    `eos` and `bos` name a token where the file names none.
    """

    def __init__(self, tokenizer: str | Path, *, eos: str | None = None, bos: str | None = None) -> None:
        super().__init__()
        self.load = partial(load_tokenizer, str(tokenizer), eos=eos, bos=bos)

    def expand(self, documents: PCollection) -> PCollection:
        """Wire: encode."""
        return documents | "Encode" >> beam.ParDo(_Encode(self.load)).with_output_types(pa.RecordBatch)


class WriteShards(beam.PTransform):  # type: ignore[misc]
    """Write documents with `tokens` as a data set that `StreamingLoader` opens; give one element that says what it is.

    The bytes depend on the documents, `shards` and `seed` alone. `packs` are named like `best_fit-2048`. Shards are
    grouped whole in a worker: choose `shards` so that one is at most about 512 MiB. `output` holds no other data set.
    """

    def __init__(
        self,
        output: str | Path,
        *,
        packs: Sequence[str | Pack] = ("best_fit-2048",),
        shards: int = 1,
        stream: str = "train",
        bos: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if shards < 1:
            raise RequestError(f"shards is {shards}; it must be 1 or more")
        named = tuple(pack if isinstance(pack, Pack) else Pack.named(pack) for pack in packs)
        self.shards, self.seed = shards, seed
        self.writer = ShardWriter(str(output), stream, named, bos, seed)

    def expand(self, documents: PCollection) -> PCollection:
        """Wire: deal, group, write, finish."""
        entries = (
            documents
            | "Deal" >> beam.FlatMap(deal, self.shards, self.seed).with_output_types(tuple[int, pa.RecordBatch])
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.MapTuple(self.writer.write).with_output_types(str)
        )
        return (
            documents.pipeline
            | "Once" >> beam.Create([None], reshuffle=False)
            | "Finish" >> beam.Map(_finish, self.writer, AsList(entries))
        )


class _Sort(beam.PTransform):  # type: ignore[misc]
    """Run `work`; the kept rows are the output, those that fell out are counted, and a second output if asked for."""

    def __init__(self, work: Callable[[Any], Iterable[Sorted]], with_rejected: bool) -> None:
        super().__init__()
        self.work, self.with_rejected = work, with_rejected

    def expand(self, elements: PCollection) -> Any:
        """Wire: one ParDo of two outputs."""
        outputs = elements | "Sort" >> beam.ParDo(_SortRows(self.work)).with_outputs(_REJECTED, main="kept")
        for output in (outputs.kept, outputs[_REJECTED]):
            output.element_type = pa.RecordBatch
        return (outputs.kept, outputs[_REJECTED]) if self.with_rejected else outputs.kept


class _SortRows(beam.DoFn):  # type: ignore[misc]
    def __init__(self, work: Callable[[Any], Iterable[Sorted]]) -> None:
        self.work = work

    def process(self, element: Any) -> Iterator[Any]:
        for kept, fallen in self.work(element):
            for batch in fallen:
                for rule, count in tally(batch).items():
                    Metrics.counter("penstock", rule).inc(count)
                if len(batch):
                    yield TaggedOutput(_REJECTED, batch)
            Metrics.counter("penstock", "kept").inc(len(kept))
            if len(kept):
                yield kept


class _Encode(beam.DoFn):  # type: ignore[misc]
    def __init__(self, load: Callable[[], Any]) -> None:
        self.load = load

    def setup(self) -> None:
        self.tokenizer = self.load()  # the same object within a process

    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        yield tokenize(batch, self.tokenizer)


def _applied(batch: pa.RecordBatch, steps: Sequence[Step]) -> Iterator[Sorted]:
    yield apply_steps(batch, steps)


class _Drop(beam.DoFn):  # type: ignore[misc]
    def process(self, batch: pa.RecordBatch, removed: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        ids = pa.concat_arrays([pa.array([], ID), *(rows.column("id") for rows in removed)])
        kept, gone = drop(batch, ids)
        Metrics.counter("penstock", "duplicates").inc(len(gone))
        if len(kept):
            yield kept


def _linked(group: tuple[str, Iterable[bytes]], policies: int) -> tuple[str, bytes]:
    return "", link_witnesses(group[1], policies)


def _settled(group: tuple[str, Iterable[bytes]], keep: Sequence[str]) -> pa.RecordBatch:
    return settle(group[1], keep)


def _dedup(value: Mapping[str, Any]) -> Dedup:
    try:
        return Dedup.model_validate(value)
    except ValidationError as error:
        raise RequestError("dedup: " + "; ".join(map(fault, causes(error.errors())))) from error


def _finish(_: None, writer: ShardWriter, entries: list[str]) -> dict[str, str | int]:
    return writer.finish(entries)


def _step(value: Step | str | Mapping[str, Any]) -> Step:
    try:
        return parse_step(value)
    except ValueError as error:
        raise RequestError(str(error)) from error
