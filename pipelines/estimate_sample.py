"""A dry run's sample through the run's own steps, deduplication, tokenizer and writers, in a scratch folder."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import RequestError
from ..sharding.store import Store
from ..tokenizer import load_tokenizer
from ..tokenizer.train import train_sentencepiece
from ..tokenizer.vocab import FileTokenizer
from ..transforms.kernels.graph import components, link, spanning_forest
from ..transforms.kernels.minhash import digest_bands
from ..transforms.minhash import content_digests
from ..transforms.readers import read
from ..transforms.schema import document_ids, id_words
from .corpus import JsonText, ParquetText
from .duplicates import Dedup
from .estimate_scan import Population
from .estimate_weights import Estimate, Values
from .ingest import READER, Ingest, ingest_stage, output_schema
from .ledger import PartWriter
from .publish import pack_values, run_vocabulary
from .recipe import Recipe
from .spool import Spool
from .stage import Meter
from .survivors import Survivors
from .views import EVERYTHING

KEPT, REJECTED, QUARANTINED = 0, 1, 2
FATES = {"kept": KEPT, "rejected": REJECTED, "quarantined": QUARANTINED}


@dataclass(frozen=True)
class Growth:
    """What a sample and a half of it weigh on disk, by a size."""

    size: float = 0.0
    disk: int = 0
    half_size: float = 0.0
    half_disk: int = 0

    def grown(self, size: float) -> Estimate:
        """Predict what `size` weighs: the middle between a share that stays what it is, and one that goes on falling.

        The first adds what the sample's second half has added, the second lowers the share with each doubling as much
        as the last one has. Half of their difference is the error.
        """
        if size <= 0 or self.size <= 0 or self.half_size <= 0 or self.size <= self.half_size:
            return Estimate(self.disk * size / self.size if self.size else 0.0, 0.0)
        share, half = self.disk / self.size, self.half_disk / self.half_size
        added = max(0.0, (self.disk - self.half_disk) / (self.size - self.half_size))
        straight = max(0.0, self.disk + added * (size - self.size))
        falling = share * min(1.0, share / half) ** max(0.0, math.log2(size / self.size)) * size
        return Estimate(math.sqrt(straight * falling), abs(straight - falling) / 2)


@dataclass
class Outcomes:
    """What the steps made of some records, in the order asked for."""

    fates: NDArray[np.int8]
    steps: NDArray[np.int32]
    rules: list[str | None]
    bytes: NDArray[np.float64]  # of text when the fate was decided
    texts: dict[int, str]  # of kept records, by their number
    batch: pa.RecordBatch  # the documents that were kept, in the order of their numbers
    documents: Growth  # bytes on disk by bytes of text
    ledger: Growth  # by rows, the texts of rejected rows apart
    seconds: dict[str, float]  # CPU by what it was spent on


def process(
    recipe: Recipe, population: Population, rows: NDArray[np.int64], folder: Path, ranks: Values | None = None
) -> Outcomes:
    """Read records again, decode them, send them through the steps as an ingest task does.

    `ranks`, in [0, 1), say which half of them is weighed apart.
    """
    folder.mkdir()
    streams = recipe.tokens.streams if recipe.tokens else ()
    meter, ingest = Meter(), Ingest(ingest_stage(recipe, Store(folder)), recipe)
    writer = PartWriter(folder, output_schema(recipe.steps), streams, recipe.rejected_text)
    ids, decoding = [], 0.0
    for number, unit in enumerate(population.units):
        places = population.places[rows[population.unit[rows] == number]]
        ids.append(id_words(document_ids(unit.piece.source, unit.piece.path, places.tolist()))[:, 0])
        if not len(places):
            continue
        among = Among(frozenset(places.tolist()))
        fields = recipe.inputs[unit.piece.source].fields
        for outcome in meter.through("read", read(unit.piece, fields, wanted=among)):
            among.pause()
            ingest.batch(outcome, writer, meter)
        decoding += among.seconds
    with meter.on("write"):
        writer.close()
    meter.seconds["decode"] = decoding
    return _outcomes(np.concatenate(ids), writer, meter, ranks)


class Among:
    """Wants the records at some places, and takes the time from each of them to the next: what decoding takes."""

    def __init__(self, places: frozenset[int]) -> None:
        self._places, self._since = places, 0.0
        self.seconds = 0.0

    def __call__(self, place: int, _: bytes) -> bool:
        """Say whether a record is among them."""
        if self._since:
            self.seconds += time.process_time() - self._since
        wanted = place in self._places
        self._since = time.process_time() if wanted else 0.0
        return wanted

    def pause(self) -> None:
        """Leave out what is done with a batch."""
        if self._since:
            self.seconds += time.process_time() - self._since
        self._since = 0.0


def _outcomes(ids: NDArray[np.uint64], writer: PartWriter, meter: Meter, ranks: Values | None) -> Outcomes:
    """Read back what a task would have committed."""
    ledger = pq.ParquetFile(writer.ledger_path).read(["id", "fate", "step", "rule", "bytes"], use_threads=False)
    order = np.argsort(ids, kind="stable")
    at = order[np.searchsorted(ids[order], id_words(ledger.column("id"))[:, 0])]
    fates, steps, sizes = (
        np.full(len(ids), QUARANTINED, np.int8),
        np.full(len(ids), READER, np.int32),
        np.zeros(len(ids)),
    )
    fates[at] = [FATES[fate] for fate in ledger.column("fate").to_pylist()]
    steps[at] = ledger.column("step").to_numpy()
    sizes[at] = ledger.column("bytes").to_numpy()
    rules: list[str | None] = [None] * len(ids)
    for row, rule in zip(at.tolist(), ledger.column("rule").to_pylist(), strict=True):
        rules[row] = rule
    table = pq.ParquetFile(writer.document_path).read(use_threads=False)
    numbers = order[np.searchsorted(ids[order], id_words(table.column("id"))[:, 0])] if len(table) else np.zeros(0, int)
    table = table.take(pa.array(np.argsort(numbers))).combine_chunks()
    numbers = np.sort(numbers)
    batch = table.to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], table.schema)
    texts = dict(zip(numbers.tolist(), batch.column("text").to_pylist(), strict=True))
    documents = ledger_growth = Growth()
    if ranks is not None:
        own = pq.ParquetFile(writer.ledger_path)
        names = [name for name in own.schema_arrow.names if name not in ("text", "raw")]
        ledger_growth = growth(own.read(names, use_threads=False), ranks[at] < 0.5, np.ones(len(at)))
        documents = growth(pa.Table.from_batches([batch]), ranks[numbers] < 0.5, sizes[numbers])
    return Outcomes(fates, steps, rules, sizes, texts, batch, documents, ledger_growth, dict(meter.seconds))


def growth(table: pa.Table, half: NDArray[np.bool_], sizes: Values) -> Growth:
    """Weigh a table as the ingest writes it, and half of it."""
    weights = []
    for rows in (table, table.filter(pa.array(half))):
        body = io.BytesIO()
        pq.write_table(rows, body, compression="zstd", compression_level=1, row_group_size=1 << 30)
        weights.append(body.tell())
    return Growth(float(sizes.sum()), weights[0], float(sizes[half].sum()), weights[1])


def copies(dedup: Dedup, texts: list[str]) -> NDArray[np.int64]:
    """Number the cluster of each text, as the run's deduplication finds it."""
    made = pa.array(texts, pa.large_string())
    rows, contents = np.arange(len(texts), dtype=np.uint64), content_digests(made)
    enough = np.zeros(len(texts), bool)
    edges = []
    if dedup.minhash is not None:
        values, enough = dedup.minhash.signatures(made)
        digests = digest_bands(values, dedup.minhash.bands)
        edges += [link(np.ascontiguousarray(band[enough]), rows[enough]) for band in digests]
    whole = rows if dedup.exact else rows[~enough]
    edges.append(link(contents[whole.astype(np.int64)], whole))
    nodes, labels = components(spanning_forest(np.concatenate(edges)))
    found = -1 - np.arange(len(texts), dtype=np.int64)
    found[nodes.astype(np.int64)] = labels
    return found


@contextmanager
def timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Charge the CPU time of a block."""
    before = time.process_time()
    yield
    seconds[what] = seconds.get(what, 0.0) + time.process_time() - before


@dataclass
class Published:
    """What a sample of survivors weighs as text and as tokens, by byte of text and by document."""

    text_bytes: int = 0
    text_disk: int = 0
    trained_bytes: int = 0  # of text, which a vocabulary was trained on
    tokens: int = 0
    token_error: float = 0.0  # share
    token_width: int = 2
    document_disk: int = 0  # beside the tokens themselves
    why: str | None = None  # there is no number of tokens


def publish_sample(recipe: Recipe, batch: pa.RecordBatch, folder: Path, seconds: dict[str, float]) -> Published:
    """Edit, write and encode a sample of survivors as the last stages do."""
    batch = Survivors(Store(folder), EVERYTHING, recipe.final).edit(batch)
    made = Published(int(pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0))
    if not len(batch):
        made.why = "no sampled document was kept"
        return made
    if recipe.text is not None:
        body = io.BytesIO()
        with timed(seconds, "text"):
            writer = (ParquetText if recipe.text.format == "parquet" else JsonText)(body)
            writer.write(batch)
            writer.close()
        made.text_disk = body.tell()
    if recipe.tokens is not None:
        try:
            _encode(recipe, batch, folder, seconds, made)
        except RequestError as error:
            made.why = str(error)
    return made


def _encode(recipe: Recipe, batch: pa.RecordBatch, folder: Path, seconds: dict[str, float], made: Published) -> None:
    """Encode with the given tokenizer; with one to be trained, by one that is trained on half of the sample.

    On what it was trained on a vocabulary does better than on other text, and the run's, trained on more, lies between
    the two: the middle is given.
    """
    texts, choice = batch.column("text"), recipe.tokenizer
    assert choice is not None
    if choice.path is not None:
        tokenizer = load_tokenizer(choice.path, eos=choice.eos)
        tokenizer.encode(texts.slice(0, 1))  # what is made at the first call is made once
        with timed(seconds, "tokenize"):
            lists = tokenizer.encode(texts)
        made.tokens = len(lists.flatten()) + len(texts) * (2 if recipe.tokens and recipe.tokens.bos else 1)
    else:
        tokenizer, lists = _trained(recipe, texts, folder, seconds, made)
    made.token_width = np.dtype(tokenizer.dtype).itemsize
    vocabulary = run_vocabulary(recipe, tokenizer)
    with timed(seconds, "write tokens"):
        spool = Spool(folder / "tokens", vocabulary)
        spool.add(batch, lists)
        spool.close()
        store = Store(folder / "shard")
        spool.put_shard(store, "train", 0, spool.shuffled(recipe.seed), pack_values(recipe), folder)
    payload = sum(store.size(name) for name in store.list() if name.endswith(".bin"))
    made.document_disk = sum(map(store.size, store.list())) - payload


def _trained(
    recipe: Recipe, texts: pa.Array, folder: Path, seconds: dict[str, float], made: Published
) -> tuple[FileTokenizer, pa.ListArray]:
    """Train on every other document, encode all; give the tokenizer and the lists."""
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.train is not None
    train, path = recipe.tokenizer.train, folder / "half.model"
    learned = np.arange(len(texts)) % 2 == 0
    weights = np.asarray(pc.binary_length(texts).to_numpy(zero_copy_only=False), np.float64)
    with timed(seconds, "train"):
        half = texts.filter(pa.array(learned)).to_pylist()
        path.write_bytes(train_sentencepiece(half, train.vocab_size, model_type=train.model_type))
    made.trained_bytes = int(weights[learned].sum())
    tokenizer = load_tokenizer(path)
    tokenizer.encode(texts.slice(0, 1))  # what is made at the first call is made once
    with timed(seconds, "tokenize"):
        lists = tokenizer.encode(texts)
    counts = np.diff(np.asarray(lists.offsets)).astype(np.float64)
    low, high = (counts[mine].sum() / max(1.0, weights[mine].sum()) for mine in (learned, ~learned))
    high = max(low, high) if not learned.all() else low
    made.tokens = round((low + high) / 2 * made.text_bytes) + len(texts)
    made.token_error = float((high - low) / max(1e-9, high + low) / 2)
    return tokenizer, lists
