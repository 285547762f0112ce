"""The public PTransforms give what the plain functions give, on a runner; nothing falls out unseen."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from penstock import InputError, RequestError, RunError
from penstock.pipelines import ApplySteps, Deduplicate, ReadDocuments, Tokenize, WriteShards, batches
from penstock.pipelines.beam_coder import RecordBatchCoder
from penstock.sharding import StreamingLoader
from penstock.sharding.dataset import open_tokens
from penstock.sharding.format import Pack
from penstock.tokenizer import load_tokenizer
from penstock.transforms.readers import Fields
from penstock.transforms.schema import DOCUMENT, document_ids
from penstock.transforms.step import Outcome

HERE = Path(__file__).parent
TOKENIZER = HERE / "data" / "tokenizers" / "bpe.model"


class Short:
    """A user's own step: drops texts below 40 characters, sets aside those that say so, adds a column."""

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        texts = batch.column("text").to_pylist()
        lengths = [len(text or "") for text in texts]
        reasons = pa.array(["short/characters" if length < 40 else None for length in lengths], pa.string())
        errors = pa.array(["cannot be read" if "broken" in (text or "") else None for text in texts], pa.string())
        return Outcome(batch.append_column("short.characters", pa.array(lengths)), reasons, errors)


def documents(count: int = 3000, seed: int = 5) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    words = ["stream", "of", "water", "and", "some", "words", "für", "上", "broken"]
    rows = []
    for number in range(count):
        text = " ".join(chance.choices(words[:-1], k=chance.randint(1, 30)))
        rows.append({"text": text if number % 50 else f"{text} broken", "url": f"https://example.org/{number}"})
    return rows


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 documents in three files: more than one batch a file."""
    folder = tmp_path_factory.mktemp("lines")
    for number in range(3):
        body = "".join(json.dumps(row) + "\n" for row in documents()[number::3])
        (folder / f"{number}.jsonl").write_text(body, encoding="utf-8")
    return folder


def run(pipeline: beam.Pipeline) -> Any:
    result = pipeline.run()
    result.wait_until_finish()
    return result


def rows_of(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    columns = [batch.column(name).to_pylist() for name in batch.schema.names if name in ("url", "reason", "error")]
    return list(zip(*columns, strict=True))


def test_what_is_kept_and_what_falls_out_are_the_documents(lines: Path) -> None:
    pipeline = beam.Pipeline(FnApiRunner())
    read = pipeline | ReadDocuments({"web": lines}, task_bytes=20_000)
    kept, rejected = read | ApplySteps([Short()], with_rejected=True)
    expected_kept: list[Any] = []
    expected_rejected: list[Any] = []
    for row in documents():
        if "broken" in row["text"]:
            expected_rejected.append((row["url"], None, "cannot be read"))
        elif len(row["text"]) < 40:
            expected_rejected.append((row["url"], "short/characters", None))
        else:
            expected_kept.append((row["url"],))
    assert_that(kept | "Kept rows" >> beam.FlatMap(rows_of), equal_to(expected_kept), label="kept")
    assert_that(rejected | "Lost rows" >> beam.FlatMap(rows_of), equal_to(expected_rejected), label="rejected")
    counters = run(pipeline).metrics().query(beam.metrics.MetricsFilter().with_namespace("penstock"))["counters"]
    counted: Counter[str] = Counter()
    for counter in counters:
        if "ApplySteps" in counter.key.step:
            counted[counter.key.metric.name] += counter.result
    broken = sum(error is not None for _, _, error in expected_rejected)
    assert counted == {
        "kept": len(expected_kept),
        "short/characters": len(expected_rejected) - broken,
        "quarantined": broken,
    }


def test_ids_are_those_of_the_input_name_and_place_however_a_file_is_cut(lines: Path) -> None:
    found = []
    for task_bytes in (5_000, 1 << 20):
        pieces = list(batches.list_pieces("web", str(lines), Fields(), task_bytes))
        kept = [batch for piece in pieces for batch, _ in batches.read_piece(piece, Fields())]
        found.append({(row["id"], row["url"]) for batch in kept for row in batch.to_pylist()})
    assert len(pieces) == 3
    assert found[0] == found[1]
    first = document_ids("web", "0.jsonl", [0])[0].as_py()
    assert (first, documents()[0]["url"]) in found[0]


def test_steps_see_only_what_earlier_steps_kept() -> None:
    texts = ["a", "b" * 50]
    batch = pa.RecordBatch.from_pylist(
        [{"id": bytes(16), "source": "s", "path": "p", "place": 0, "text": text} for text in texts], DOCUMENT
    )
    kept, fallen = batches.apply_steps(batch, [Short(), Short()])
    assert kept.column("text").to_pylist() == ["b" * 50]
    assert [batches.tally(one) for one in fallen] == [{"short/characters": 1}, {}]


@pytest.mark.parametrize(
    ("steps", "says"),
    [(["no_such_step"], "no_such_step"), ([{"gopher_quality": {"min_words": 1}}], "min_words"), ([3], "3")],
    ids=str,
)
def test_a_wrong_step_is_refused_where_the_pipeline_is_built(steps: list[Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        ApplySteps(steps)


def write(lines: Path, output: Path, *, task_bytes: int = 1 << 20, **choices: Any) -> Any:
    """Run the whole pipeline; give what `WriteShards` says."""
    pipeline = beam.Pipeline(FnApiRunner())
    said = output.parent / f"{output.name}.said"
    (
        pipeline
        | ReadDocuments({"web": lines}, task_bytes=task_bytes)
        | ApplySteps([Short()])
        | Tokenize(TOKENIZER)
        | WriteShards(output, packs=["best_fit-64", "concat-128"], **choices)
        | beam.Map(lambda value, said=said: said.write_text(json.dumps(value)))
    )
    run(pipeline)
    return json.loads(said.read_text())


def test_shards_hold_every_kept_document_and_feed_the_loader(lines: Path, tmp_path: Path) -> None:
    said = write(lines, tmp_path / "tokens", shards=3)
    texts = [row["text"] for row in documents() if len(row["text"]) >= 40 and "broken" not in row["text"]]
    tokenizer = load_tokenizer(TOKENIZER)
    expected = Counter((*ids, tokenizer.eos_id) for ids in tokenizer.encode(pa.array(texts)).to_pylist())
    data = open_tokens(tmp_path / "tokens")
    found: Counter[tuple[int, ...]] = Counter()
    for number in range(3):
        reader = data.reader(number)
        tokens = np.asarray(reader.tokens(0, reader.entry.tokens))
        found.update(tuple(part.tolist()) for part in np.split(tokens, reader.ends.astype(int)[:-1]))
    assert found == expected
    assert said == {
        "output": str(tmp_path / "tokens"),
        "shards": 3,
        "documents": len(texts),
        "tokens": sum(len(ids) * count for ids, count in expected.items()),
        "tokens_sha256": data.generation.tokens_sha256,
    }
    batch = next(iter(StreamingLoader(tmp_path / "tokens", batch_size=2, pack="best_fit-64")))
    assert batch.tokens.shape == (2, 64)


def test_bytes_depend_on_documents_shards_and_seed_alone(lines: Path, tmp_path: Path) -> None:
    def digest(name: str, **choices: Any) -> str:
        return str(write(lines, tmp_path / name, **choices)["tokens_sha256"])

    first = digest("first", shards=2)
    assert digest("cut", shards=2, task_bytes=5_000) == first
    assert digest("seed", shards=2, seed=1) != first


def test_a_shard_is_the_same_whatever_the_order_and_cut_of_batches(tmp_path: Path) -> None:
    dealt = tokens_of("bpe.model", [f"text {n} of it" for n in range(40)])
    writer = batches.ShardWriter(str(tmp_path), "train", (Pack.named("concat-16"),), bos=False, seed=0)
    cut = [dealt.slice(25, 15), dealt.slice(0, 25)]
    assert writer.write(0, cut) == writer.write(0, [dealt])


def test_dealing_sends_each_document_to_one_shard(lines: Path) -> None:
    (piece, *_) = batches.list_pieces("web", str(lines), Fields(), 1 << 20)
    batch, _ = next(iter(batches.read_piece(piece, Fields())))
    tokens = batches.tokenize(batch, load_tokenizer(TOKENIZER))
    dealt = dict(batches.deal(tokens, 4, 0))
    assert sorted(dealt) == [0, 1, 2, 3]
    assert sorted(i for part in dealt.values() for i in part.column("id").to_pylist()) == sorted(
        tokens.column("id").to_pylist()
    )
    assert all("text" not in part.schema.names and "html" not in part.schema.names for part in dealt.values())


def tokens_of(file: str, texts: list[str]) -> pa.RecordBatch:
    rows = [{"id": bytes([n] * 16), "source": "s", "path": "p", "place": n, "text": t} for n, t in enumerate(texts)]
    batch = batches.tokenize(
        pa.RecordBatch.from_pylist(rows, DOCUMENT), load_tokenizer(HERE / "data/tokenizers" / file)
    )
    return next(batches.deal(batch, 1, 0))[1]


def test_what_cannot_become_a_data_set_is_refused(tmp_path: Path) -> None:
    writer = batches.ShardWriter(str(tmp_path), "train", (Pack.named("concat-16"),), bos=False, seed=0)
    one, other = tokens_of("bpe.model", ["a text"]), tokens_of("unigram.model", ["a text"])
    with pytest.raises(RequestError, match="two tokenizers"):
        writer.write(0, [one, other])
    with pytest.raises(RequestError, match="does not say whose ids"):
        writer.write(0, [one.replace_schema_metadata(None).cast(pa.schema(list(map(bare, one.schema))))])
    with pytest.raises(RequestError, match="Tokenize first"):
        list(batches.deal(one.drop_columns(["tokens"]), 1, 0))
    with pytest.raises(RunError, match="no document reached WriteShards"):
        writer.finish([])
    with pytest.raises(RequestError, match="shards is 0"):
        WriteShards(tmp_path, shards=0)
    with pytest.raises(InputError, match="there is no pack"):
        WriteShards(tmp_path, packs=["worst_fit-3"])


def bare(field: pa.Field) -> pa.Field:
    return field.remove_metadata()


@pytest.mark.parametrize("cut", [(0, 2), (1, 1), (2, 0)], ids=["whole", "slice", "empty"])
def test_the_coder_gives_back_a_batch_with_its_schema_and_weighs_it_unencoded(cut: tuple[int, int]) -> None:
    batch = tokens_of("bpe.model", ["some words", "more"]).slice(*cut)
    coder = RecordBatchCoder()
    back = coder.decode(coder.encode(batch))
    assert back.equals(batch)
    assert back.schema.equals(batch.schema, check_metadata=True)
    assert coder.get_impl().estimate_size(batch) == batch.nbytes


def test_every_batch_between_transforms_is_coded_so(lines: Path, tmp_path: Path) -> None:
    pipeline = beam.Pipeline(FnApiRunner())
    kept, rejected = pipeline | ReadDocuments(lines, with_rejected=True)
    kept, dropped = kept | ApplySteps([Short()], with_rejected=True)
    tokens = kept | Tokenize(TOKENIZER)
    tokens | WriteShards(tmp_path)
    for collection in (kept, rejected, dropped, tokens):
        assert isinstance(beam.coders.registry.get_coder(collection.element_type), RecordBatchCoder)
    graph, _ = pipeline.to_runner_api(return_context=True)
    ours = [coder for coder in graph.components.coders.values() if b"RecordBatchCoder" in coder.spec.payload]
    assert ours
    labels = [transform.unique_name for transform in graph.components.transforms.values()]
    assert len(labels) == len(set(labels))


def copies(seed: int) -> list[pa.RecordBatch]:
    """Give 300 documents in five batches: each text three times, the second changed a little, the third not at all."""
    chance, rows = random.Random(1), []
    for number in range(100):
        words = [f"w{chance.getrandbits(30):x}" for _ in range(120)]
        changed = [*words[:60], "changed", *words[60:]]
        rows += [(f"{number}-{copy}", " ".join(text)) for copy, text in enumerate((words, changed, words))]
    random.Random(seed).shuffle(rows)
    batches = []
    for part in range(5):
        mine = rows[part::5]
        ids = pa.array([name.encode().ljust(16) for name, _ in mine], pa.binary(16))
        texts = pa.array([text for _, text in mine], pa.string())
        batches.append(pa.record_batch({"id": ids, "text": texts}))
    return batches


@pytest.mark.parametrize("seed", [1, 2])
def test_deduplicate_keeps_the_longest_of_each_cluster_whatever_the_order(seed: int) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        made = pipeline | beam.Create(copies(seed), reshuffle=False).with_output_types(pa.RecordBatch)
        kept, removed = made | Deduplicate({"keep": "longest"}, with_removed=True)
        names = kept | beam.FlatMap(lambda batch: batch.column("id").to_pylist())
        assert_that(names, equal_to([f"{number}-1".encode().ljust(16) for number in range(100)]), label="kept")
        assert_that(removed | beam.Map(lambda batch: batch.to_pylist()), removals_hold, label="removed")


def removals_hold(values: list[list[dict[str, Any]]]) -> None:
    (rows,) = values
    assert len(rows) == 200
    assert {row["cluster_size"] for row in rows} == {3}
    assert {row["kind"] for row in rows} == {"near"}
    assert not {row["id"] for row in rows} & {row["kept_id"] for row in rows}


def test_deduplicate_refuses_what_needs_another_look() -> None:
    with pytest.raises(RequestError, match="lines needs another look"):
        Deduplicate({"lines": {}})
    with pytest.raises(RequestError, match="is no policy"):
        Deduplicate({"keep": "newst"})
