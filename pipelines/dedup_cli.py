"""`penstock dedup`: deduplication from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .. import RequestError
from .cli_tools import add_command


def add_dedup(commands: Any, add_runner: Callable[[argparse.ArgumentParser], None]) -> None:
    """`penstock dedup`."""
    parser = add_command(commands, "dedup", dedup_command, "deduplicate Parquet, JSON lines or any supported input")
    parser.add_argument("--input", action="append", required=True, metavar="[NAME=]GLOB")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--text-field", default="text")
    parser.add_argument("--id-field", help="the column of your own ids, named in every removal")
    parser.add_argument("--url-field", help="the column of URLs; `url` where there is one")
    parser.add_argument(
        "--index", metavar="DIR", help="drop what matches documents of earlier runs, whose digests lie there, and add"
    )
    parser.add_argument("--batch", metavar="NAME", help="what this run's documents are called in the index")
    parser.add_argument(
        "--explain", type=int, default=0, metavar="N", help="print N removals beside what stays, their words compared"
    )
    _add_kinds(parser)
    _add_output(parser)
    add_runner(parser)


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_argument_group("what is a duplicate")
    kinds.add_argument("--exact", action="store_true", help="whole contents only, no MinHash")
    kinds.add_argument(
        "--normalise", default="none", metavar="NAME", help="of whole contents: none, fineweb, slimpajama"
    )
    kinds.add_argument("--bands", type=int, default=14)
    kinds.add_argument("--rows", type=int, default=8)
    kinds.add_argument("--ngram", type=int, default=5, help="words, or characters, in a shingle")
    kinds.add_argument("--unit", default="words", help="of n-grams: words or characters")
    kinds.add_argument("--family", default="affine32", help="affine32, mersenne64 (datatrove), mersenne32 (datasketch)")
    kinds.add_argument("--shingles", default="fineweb", metavar="NAME", help="normalisation: fineweb, slimpajama, none")
    kinds.add_argument("--seed", type=int, default=1)
    kinds.add_argument("--verify", type=float, metavar="J", help="an edge holds at this true Jaccard similarity")
    kinds.add_argument("--url", action="store_true", help="one document a URL, the newest by the field `date`")
    kinds.add_argument("--lines", choices=("line", "paragraph", "sentence"), help="cut those that stood before")
    kinds.add_argument("--window", type=int, default=1, metavar="N", help="lines at once; C4's rule is 3 sentences")
    kinds.add_argument(
        "--substrings", type=int, metavar="N", help="cut runs of N units that stood before; 100 bytes are usual"
    )
    kinds.add_argument("--substring-unit", choices=("bytes", "words", "tokens"), help="of those runs; bytes by default")
    kinds.add_argument("--substring-tokenizer", metavar="FILE", help="whose tokens: tokenizer.json or .tiktoken")
    who = parser.add_argument_group("which one stays")
    who.add_argument(
        "--keep",
        action="append",
        metavar="POLICY",
        help="longest (default), smallest_id, newest[:COLUMN], highest:COLUMN, priority:INPUT,INPUT; repeat for ties",
    )
    who.add_argument("--url-keep", action="append", metavar="POLICY", help="the same, of one URL; newest by default")
    who.add_argument(
        "--guard", type=int, metavar="N", help="report clusters of more than N documents; 1,000 by default"
    )
    who.add_argument("--split", action="store_true", help="split those by edges of true similarity")


def _add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("what is written")
    output.add_argument(
        "--format", choices=("parquet", "jsonl"), help="documents as a table; the input's own by default"
    )
    output.add_argument("--annotate", action="store_true", help="mark duplicates in columns, remove nothing")
    output.add_argument("--annotation-prefix", default="", metavar="PREFIX", help="of the names of those columns")


def runner_options(arguments: Any) -> Any:
    """Gather the options that say where a job runs."""
    from .runners import RunnerOptions

    return RunnerOptions(
        runner=arguments.runner,
        workers=arguments.workers,
        spark_master=arguments.spark_master,
        job_endpoint=arguments.job_endpoint,
        beam_options=arguments.beam_options,
    )


def dedup_value(arguments: Any) -> dict[str, Any]:
    """Give what a command line asks for as the fields of a `DedupJob`."""
    minhash = {
        "bands": arguments.bands, "rows": arguments.rows, "ngram": arguments.ngram, "seed": arguments.seed,
        "unit": arguments.unit, "family": arguments.family, "normalisation": arguments.shingles,
    }  # fmt: skip
    guard: dict[str, Any] = {"split": arguments.split}
    if arguments.guard is not None:
        guard["size"] = arguments.guard
    if arguments.exact and arguments.verify is not None:
        raise RequestError("--exact compares whole contents, which --verify has nothing to add to: leave one out")
    dedup: dict[str, Any] = {
        "minhash": None if arguments.exact else minhash,
        "normalisation": arguments.normalise,
        "keep": arguments.keep or ["longest"],
        "verify": arguments.verify,
        "guard": guard,
    }
    if arguments.url:
        dedup["url"] = {"keep": arguments.url_keep or ["newest"]}
    if arguments.lines:
        dedup["lines"] = {"unit": arguments.lines, "window": arguments.window}
    spans = {
        "length": arguments.substrings, "unit": arguments.substring_unit, "tokenizer": arguments.substring_tokenizer
    }  # fmt: skip
    asked = {name: value for name, value in spans.items() if value is not None}
    if asked and arguments.substrings is None:
        raise RequestError(
            "--substring-unit and --substring-tokenizer say what is counted, and nothing says how many: --substrings N"
        )
    if asked:
        dedup["substrings"] = asked
    output = {
        "format": arguments.format or "input",
        "annotate": arguments.annotate,
        "prefix": arguments.annotation_prefix,
    }
    return {"dedup": dedup, "output": output}


def dedup_command(arguments: Any) -> int:
    """Deduplicate."""
    from .dedup import dedup_job, deduplicate

    value = dedup_value(arguments)
    fields = {"text": arguments.text_field, "id": arguments.id_field, "url": arguments.url_field}
    job = dedup_job(arguments.input, fields=fields, **value)
    output = arguments.output
    asked = {"index": arguments.index, "batch": arguments.batch}
    manifest = deduplicate(job, output, options=runner_options(arguments), quiet=arguments.quiet, **asked)
    closing(output, manifest, arguments.explain)
    return 0


def closing(output: str, manifest: dict[str, Any], pairs: int) -> None:
    """Print what became of the documents, where things lie, and so many pairs with the words in which they differ."""
    from ..sharding.store import Store
    from .dedup_summary import dedup_summary, explain
    from .dedup_survey import survey_duplicates

    print(dedup_summary(manifest, survey_duplicates(Store(output), manifest), output))
    if pairs:
        print(f"\n{explain(output, pairs)}")
