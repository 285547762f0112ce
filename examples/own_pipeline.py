"""penstock's transforms inside a Beam pipeline of your own: read, filter, count, tokenize, write token shards.

Between them stands a step of one's own, an ordinary Beam transform over Arrow batches. Nothing is committed on the way:
a pipeline that fails starts anew. For runs that resume and whose documents add up, use `penstock run`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from penstock.pipelines import ApplySteps, Deduplicate, ReadDocuments, Tokenize, WriteShards
from penstock.sharding import StreamingLoader
from penstock.tokenizer.train import train
from penstock.transforms import ExtractHtml
from penstock.transforms.readers import Fields, Piece, list_files, read

HERE = Path(__file__).parent
STEPS = ("extract_html", "language_id", "gopher_repetition", {"gopher_quality": {"min_stop_words": None}})


def train_vocabulary(source: str, path: Path) -> Path:
    """Train a small vocabulary on the pages of a WARC: the same readers and steps, without Beam."""
    entry = list_files(source)[0]
    extract = ExtractHtml()
    outcomes = read(Piece(entry.url, "web", entry.path, "warc", entry.size), Fields())
    texts = (text for outcome in outcomes for text in extract.apply(outcome.batch).batch.column("text").to_pylist())
    train(filter(None, texts), path, 2000)
    return path


def languages(batch: pa.RecordBatch) -> Iterator[str]:
    """Your own code: what a batch says of its documents."""
    yield from batch.column("language").to_pylist()


def reasons(batch: pa.RecordBatch) -> Iterator[str]:
    """Why each document of a batch of rejected ones fell out."""
    for reason, error in zip(*(batch.column(name).to_pylist() for name in ("reason", "error")), strict=True):
        yield reason or f"an error: {error}"


def main(argv: list[str]) -> int:
    """Run the pipeline, then take a batch from what it wrote."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Other options are Beam's.", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", nargs="?", default=str(HERE / "data" / "quickstart.warc.gz"), help="a WARC file")
    parser.add_argument("output", nargs="?", help="a folder; a new one by default")
    asked, beam_options = parser.parse_known_args(argv)
    output = asked.output or tempfile.mkdtemp(prefix="own-pipeline-")
    # Beam's own default runner first tries to download another one: name one.
    options = PipelineOptions(beam_options or ["--runner=FnApiRunner"])
    vocabulary = train_vocabulary(asked.input, Path(tempfile.mkdtemp()) / "vocabulary.model")
    with beam.Pipeline(options=options) as pipeline:
        documents, unread = pipeline | ReadDocuments({"web": asked.input}, with_rejected=True)
        passed, rejected = documents | ApplySteps(STEPS, with_rejected=True)
        kept = passed | Deduplicate({"keep": "longest"})
        _ = (
            kept
            | "Languages" >> beam.FlatMap(languages)
            | "Count languages" >> beam.combiners.Count.PerElement()
            | "Print languages" >> beam.MapTuple(lambda language, count: print(f"  kept, {language}: {count}"))
        )
        _ = (
            (unread, rejected)
            | "All that fell out" >> beam.Flatten()
            | "Reasons" >> beam.FlatMap(reasons)
            | "Count reasons" >> beam.combiners.Count.PerElement()
            | "Print reasons" >> beam.MapTuple(lambda reason, count: print(f"  {reason}: {count}"))
        )
        _ = kept | Tokenize(vocabulary) | WriteShards(output, packs=["best_fit-512"], shards=2) | beam.Map(print)
    batch = next(iter(StreamingLoader(output, batch_size=4)))
    print(f"a batch of {batch.tokens.shape} tokens from {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
