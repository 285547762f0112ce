"""The command line: it parses, calls, prints. Everything heavy is imported by the command that needs it.

Exit codes: 0 done; 1 the run failed; 2 the request is wrong. Errors are one sentence on stderr; `--debug` shows the
traceback.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .. import PenstockError, RequestError, RunError, __version__
from .classifier import add_classifier
from .cli_exchange_tokens import add_exchange
from .cli_token_tools import add_token_tools
from .cli_tokens import add_tokens
from .cli_tools import add_command, add_tokenizer, add_tools, add_trace
from .dedup_cli import add_dedup, runner_options
from .index_cli import add_index


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; give its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of a terminal that shows less than Unicode
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    words, beam_options = split_options(words)
    parser = build_parser()
    try:
        arguments = parser.parse_args(words)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    arguments.beam_options = beam_options
    if arguments.command is None:
        parser.print_help()
        return 2
    return guarded(arguments.call, arguments)


def guarded(call: Callable[[Any], int], arguments: Any) -> int:
    """Call a command; turn its errors into one sentence and an exit code."""
    try:
        return call(arguments)
    except KeyboardInterrupt:
        print("penstock: interrupted; what is committed is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (PenstockError, OSError) as error:
        if arguments.debug:
            raise
        print(f"penstock: {sentence(error)}", file=sys.stderr)
        missing = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
        wrong = isinstance(error, RequestError) or (isinstance(error, missing) and not isinstance(error, RunError))
        return 2 if wrong else 1
    except Exception as error:
        if arguments.debug:
            raise
        if isinstance(error, ModuleNotFoundError) and not (error.name or "penstock").startswith("penstock"):
            print(f"penstock: {error.name} is not installed: pip install 'penstock[curate]'", file=sys.stderr)
            return 2
        what = f"{type(error).__name__}: {sentence(error)}"
        print(f"penstock: a fault that penstock did not foresee, {what}; --debug shows where", file=sys.stderr)
        return 1


def sentence(error: BaseException) -> str:
    """Say an error in one line."""
    from .failures import full_disk

    if isinstance(error, OSError) and not isinstance(error, PenstockError):
        if (full := full_disk(error)) is not None:
            return full
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return " ".join(str(error).split())


def split_options(words: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Part the words after `--`, which are Beam's."""
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], tuple(words[at + 1 :])


def build_parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(
        prog="penstock", description="From web archives to packed token shards to GPU workers."
    )
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    parser.set_defaults(command=None, debug=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add_run(commands)
    add_dedup(commands, add_runner)
    add_index(commands, add_command)
    add_tokenizer(commands)
    add_tools(commands)
    add_token_tools(commands)
    add_tokens(commands)
    add_trace(commands)
    add_exchange(commands)
    add_classifier(commands, add_command)
    return parser


def add_runner(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a job runs."""
    parser.add_argument(
        "--runner", default="local", help="local (default), spark, flink, dataflow, or a Beam runner's name"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="local worker processes; one a core by default")
    parser.add_argument(
        "--spark-master", metavar="URL", help="master for a job server that penstock starts; local[*] by default"
    )
    parser.add_argument("--job-endpoint", metavar="HOST:PORT", help="a Beam job server that already runs")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def add_run(commands: Any) -> None:
    """`penstock run`."""
    parser = add_command(
        commands, "run", run_command, "run a recipe, or what is missing of it; Beam's own options after --"
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]GLOB",
        help="in the place of the recipe's inputs; may be repeated",
    )
    parser.add_argument("--output", metavar="DIR", help="folder or URL of the run; runs/<name> by default")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change one field of the recipe, steps.2.minimum=0.7",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="plan, run a sample and say what the run would give; write nothing"
    )
    parser.add_argument("--sample", metavar="SHARE|MB", help="of the input, for --dry-run: 0.05, or 20MB")
    parser.add_argument("--json", action="store_true", help="what --dry-run finds, as JSON")
    add_runner(parser)


def run_command(arguments: Any) -> int:
    """Run a recipe."""
    from .recipe import Recipe
    from .run import run

    recipe = Recipe.from_yaml(arguments.recipe, arguments.set, arguments.input)
    if arguments.dry_run:
        from .estimate_table import dry_run

        return dry_run(recipe, arguments.sample, runner_options(arguments), as_json=arguments.json)
    if arguments.sample or arguments.json:
        raise RequestError("--sample and --json are for --dry-run")
    output = arguments.output or f"runs/{recipe.name}"
    manifest = run(recipe, output, options=runner_options(arguments), quiet=arguments.quiet)
    closing(output, manifest)
    return 0


def closing(output: str, manifest: dict[str, Any]) -> None:
    """Print the funnel, where things lie, and what to do next."""
    from .report import funnel_table

    print(funnel_table(manifest))
    print()
    if manifest["tables"]["clusters"]:
        print(f"duplicates     {output}/{manifest['tables']['clusters']}")
    if manifest["stages"]["text"]:
        print(f"text           {output}/text/{manifest['stages']['text']}/data/")
    if manifest["tokens_sha256"]:
        print(f"tokens         {output}/tokens/{manifest['stages']['tokens']}/")
        print(f"tokens_sha256  {manifest['tokens_sha256']}")
    print(f"report         {output}/report.html")
    print()
    if manifest["tokens_sha256"]:
        print(f"next: penstock verify {output}    then: penstock cat {output} --limit 3")
    else:
        print(f"next: open {output}/report.html")
