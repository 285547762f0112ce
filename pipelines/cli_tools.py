"""The commands that look into what stands: tokenizer, inspect, verify, cat, report, trace."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import CorruptDataError, InputError, RequestError


def add_command(commands: Any, name: str, call: Callable[[Any], int], text: str) -> argparse.ArgumentParser:
    """Add one command."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(call=call)
    return parser


def add_tokenizer(commands: Any) -> None:
    """`penstock tokenizer`."""
    parser = add_command(commands, "tokenizer", tokenizer_command, "train a vocabulary from text, or show one")
    actions = parser.add_subparsers(dest="action", metavar="train|info", required=True)
    train = actions.add_parser("train", help="train a SentencePiece vocabulary; the same bytes on every run")
    train.add_argument("--input", action="append", required=True, metavar="GLOB")
    train.add_argument("--output", required=True, metavar="FILE.model")
    train.add_argument("--vocab-size", type=int, default=8000)
    train.add_argument("--model-type", choices=("bpe", "unigram"), default="bpe")
    train.add_argument("--text-field", default="text")
    info = actions.add_parser("info", help="show a vocabulary and its fingerprint")
    info.add_argument("path", metavar="FILE")


def add_tools(commands: Any) -> None:
    """`penstock inspect | verify | cat | report`."""
    inspect = add_command(commands, "inspect", inspect_command, "show what a run's token files hold")
    inspect.add_argument("dir", metavar="DIR")
    inspect.add_argument("--tables", action="store_true", help="read the shards' tables too: what they alone tell")
    inspect.add_argument("--generation", type=int, metavar="N", help="the current one by default")
    verify = add_command(commands, "verify", verify_command, "check every checksum and count of what a run wrote")
    verify.add_argument("dir", metavar="DIR")
    cat = add_command(commands, "cat", cat_command, "print documents back from the token files, as JSON lines")
    cat.add_argument("dir", metavar="DIR")
    cat.add_argument("--stream", help="of this stream only, e.g. train or validation")
    cat.add_argument("--shard", type=int, metavar="N", help="of the N-th shard of the manifest only")
    cat.add_argument("--limit", type=int, default=10, help="documents; 10 by default, 0 for all")
    report = add_command(commands, "report", report_command, "print a run's funnel and write its page anew")
    report.add_argument("dir", metavar="DIR")
    report.add_argument(
        "--sweep",
        nargs="*",
        action="extend",
        metavar="FIELD[=v1,v2,…|lo:hi:n]",
        help="how many documents stay as a threshold moves, from the scores in the ledger; without FIELD, all of them",
    )
    report.add_argument("--json", action="store_true", help="what --sweep finds, as JSON")


def add_trace(commands: Any) -> None:
    """`penstock trace`."""
    parser = add_command(
        commands,
        "trace",
        trace_command,
        "from a training step or a row to documents and decisions; from a URL to its fate",
    )
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("--state", metavar="FILE", help="a loader's state, as JSON")
    parser.add_argument("--step", type=int)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--world-size", type=int)
    parser.add_argument("--shard", type=int, metavar="N")
    parser.add_argument("--row", type=int, metavar="I")
    parser.add_argument("--pack")
    parser.add_argument("--url", metavar="PATTERN", help="a part of a URL, or a glob")
    parser.add_argument("--json", action="store_true")


def tokenizer_command(arguments: Any) -> int:
    """Train a vocabulary, or show one."""
    from ..tokenizer.train import describe, train_sentencepiece
    from .recipe import MOST_PIECES
    from .texts import texts_of

    if arguments.action == "info":
        try:
            print(json.dumps(describe(arguments.path), indent=1, ensure_ascii=False))
        except CorruptDataError as error:  # the user's file, not a run's
            raise InputError(str(error)) from error
        return 0
    target = Path(arguments.output)
    if not target.parent.is_dir():
        raise RequestError(f"--output {target}: the folder {target.parent} is not there")
    if arguments.vocab_size > MOST_PIECES:
        raise RequestError(f"--vocab-size is {arguments.vocab_size}; a vocabulary has at most {MOST_PIECES:,} pieces")
    texts = texts_of(arguments.input, arguments.text_field)
    target.write_bytes(train_sentencepiece(texts, arguments.vocab_size, model_type=arguments.model_type))
    print(json.dumps(describe(str(target)), indent=1, ensure_ascii=False))
    return 0


def inspect_command(arguments: Any) -> int:
    """Show what token files hold."""
    from ..sharding.tools import inspect

    found = inspect(arguments.dir, arguments.generation, tables=arguments.tables)
    print(json.dumps(found, indent=1, ensure_ascii=False))
    return 0


def verify_command(arguments: Any) -> int:
    """Check what a run wrote."""
    from .verify import verify

    print(json.dumps(verify(arguments.dir), indent=1, ensure_ascii=False))
    return 0


def cat_command(arguments: Any) -> int:
    """Print documents back."""
    from ..sharding.tools import cat
    from .directory import RunDirectory
    from .vocabulary import run_tokenizer

    # Token files that came from elsewhere have no tokenizer beside them: their ids are printed.
    decode = run_tokenizer(arguments.dir) if RunDirectory.find(arguments.dir) else None
    for document in cat(
        arguments.dir, stream=arguments.stream, shard=arguments.shard, limit=arguments.limit or None, decode=decode
    ):
        print(json.dumps(document, ensure_ascii=False, default=str))
    return 0


def report_command(arguments: Any) -> int:
    """Print the funnel and write the page."""
    from .directory import RunDirectory
    from .report import funnel_table, write_report

    run = RunDirectory.open(arguments.dir)
    if arguments.sweep is not None:
        return sweep_command(run, arguments)
    if arguments.json:
        raise RequestError("--json is for --sweep")
    print(funnel_table(run.manifest))
    write_report(run.store, run.manifest)
    print(f"\nreport         {run.store.url}/report.html")
    return 0


def sweep_command(run: Any, arguments: Any) -> int:
    """Say how many documents stay as thresholds move."""
    from .sweep import sweep
    from .sweep_table import sweep_table

    found = sweep(run, arguments.sweep)
    print(json.dumps(found, indent=1, ensure_ascii=False) if arguments.json else sweep_table(found))
    return 0


def trace_command(arguments: Any) -> int:
    """Trace a step, a row or a URL."""
    from . import trace

    return int(trace.command(arguments))
