"""The commands that compare, join, simulate and take down: `penstock diff | merge | simulate | takedown`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import RequestError
from .cli_tools import add_command


def add_token_tools(commands: Any) -> None:
    """`penstock diff | merge | simulate | takedown`."""
    add_diff(commands)
    add_merge(commands)
    add_simulate(commands)
    add_takedown(commands)


def add_diff(commands: Any) -> None:
    """`penstock diff`."""
    text = "say what differs between two data sets of tokens, or two generations of one; exits with 1 where they differ"
    parser = add_command(commands, "diff", diff_command, text)
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B", nargs="?", help="A itself, if it is left out")
    parser.add_argument(
        "--generations", type=int, nargs=2, metavar=("N", "M"), help="of A and of B; without B, the last two by default"
    )
    parser.add_argument("--json", action="store_true")


def diff_command(arguments: Any) -> int:
    """Compare two data sets."""
    from ..sharding.dataset import open_tokens
    from ..sharding.tools.differences import diff
    from .token_text import diff_text

    numbers = arguments.generations or (None, None)
    if arguments.b is None and arguments.generations is None:
        current = open_tokens(arguments.a).generation
        if current.parent is None:
            raise RequestError(f"{arguments.a} has one generation, {current.number}: name another data set to compare")
        numbers = current.parent, current.number
    found = diff(arguments.a, arguments.b or arguments.a, *numbers)
    print(json.dumps(found, indent=1, ensure_ascii=False) if arguments.json else diff_text(found))
    return 0 if found["equal"] else 1


def add_merge(commands: Any) -> None:
    """`penstock merge`."""
    parser = add_command(commands, "merge", merge_command, "make one data set of tokens of several, by links or copies")
    parser.add_argument("dirs", metavar="DIR", nargs="+")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder or URL of the new data set")
    parser.add_argument(
        "--prefix", nargs="+", metavar="P", help="one a data set, '' for none: a/ makes train/web into train/a/web"
    )
    parser.add_argument("--json", action="store_true")


def merge_command(arguments: Any) -> int:
    """Merge data sets."""
    from ..sharding.tools.merging import merge
    from .token_text import merge_text

    found = merge(arguments.dirs, arguments.output, prefixes=arguments.prefix)
    print(json.dumps(found, indent=1, ensure_ascii=False) if arguments.json else merge_text(found, arguments.output))
    return 0


def add_simulate(commands: Any) -> None:
    """`penstock simulate`."""
    text = "say what nodes will read, hold and see of token files, from their manifest alone"
    parser = add_command(commands, "simulate", simulate_command, text)
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("--batch-size", type=int, required=True, metavar="B", help="rows of the global batch")
    parser.add_argument("--nodes", type=int, required=True, metavar="W")
    parser.add_argument("--ranks-per-node", type=int, default=8, metavar="G", help="data-parallel ranks; 8 by default")
    parser.add_argument("--pack", help="where there are several")
    parser.add_argument("--weights", nargs="+", metavar="STREAM=W", help="without them all streams, each by its rows")
    parser.add_argument("--split", default="train", help="train (default) or validation")
    parser.add_argument("--shuffle", default="block", help="block (default) or full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, metavar="N", help="how long it trains; one epoch by default")
    parser.add_argument(
        "--tokens-per-second", type=float, metavar="T", help="of one rank; 12,273 by default (Llama 3 8B, H100, FP8)"
    )
    parser.add_argument("--generation", type=int, metavar="N", help="the current one by default")
    parser.add_argument("--json", action="store_true")


def weights_of(words: Sequence[str] | None) -> dict[str, float] | None:
    """Read `train/web=7 train/code=3`."""
    if words is None:
        return None
    found: dict[str, float] = {}
    for word in words:
        name, _, weight = word.rpartition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            name = ""
        if not name:
            raise RequestError(f"--weights {word}: write STREAM=WEIGHT, e.g. train/web=7")
    return found


def simulate_command(arguments: Any) -> int:
    """Simulate."""
    from ..sharding.tools.simulation import TOKENS_PER_SECOND, simulate
    from .simulate_table import simulate_table

    rate = TOKENS_PER_SECOND if arguments.tokens_per_second is None else arguments.tokens_per_second
    found = simulate(
        arguments.dir, arguments.batch_size, arguments.nodes, ranks_per_node=arguments.ranks_per_node,
        pack=arguments.pack, weights=weights_of(arguments.weights), split=arguments.split, shuffle=arguments.shuffle,
        seed=arguments.seed, steps=arguments.steps, tokens_per_second=rate, generation=arguments.generation,
    )  # fmt: skip
    print(json.dumps(found, indent=1) if arguments.json else simulate_table(found))
    return 0


def add_takedown(commands: Any) -> None:
    """`penstock takedown`."""
    text = "take documents out of token files, in a new generation in which all others keep their place"
    parser = add_command(commands, "takedown", takedown_command, text)
    parser.add_argument("dir", metavar="DIR")
    for name, shown, words in (
        ("--id", "HEX|@FILE", "a document's id, or a file with one a line"),
        ("--url", "PATTERN", "a part of a URL, or a glob, as trace --url takes it"),
        ("--source", "NAME", "every document of an input of the recipe"),
    ):
        parser.add_argument(name, action="append", default=[], metavar=shown, help=f"{words}; may be repeated")
    parser.add_argument("--reason", default="", metavar="TEXT", help="for the list of what went")
    parser.add_argument("--signed-by", default="", metavar="NAME", help="for the list of what went")
    parser.add_argument("--dry-run", action="store_true", help="say what would go; write nothing")
    parser.add_argument(
        "--purge", action="store_true", help="remove what only older generations hold; they cannot be read any more"
    )
    parser.add_argument("--json", action="store_true")


def ids_of(words: Sequence[str]) -> list[str]:
    """Read `HEX` and `@FILE`; blank lines and what follows a # are left out."""
    found = []
    for word in words:
        if word.startswith("@"):
            lines = (line.partition("#")[0].strip() for line in Path(word[1:]).read_text(encoding="utf-8").splitlines())
            found += [line for line in lines if line]
        else:
            found.append(word)
    return found


def takedown_command(arguments: Any) -> int:
    """Take documents down; say what else holds their text."""
    from ..sharding.tools.removal import takedown
    from .takedown_places import ELSEWHERE, places
    from .token_text import takedown_text

    found = takedown(
        arguments.dir, ids=ids_of(arguments.id), urls=arguments.url, sources=arguments.source,
        reason=arguments.reason, signed_by=arguments.signed_by, dry_run=arguments.dry_run, purge=arguments.purge,
    )  # fmt: skip
    found["not_touched"] = [*places(arguments.dir, bool(found["purged"])), *ELSEWHERE]
    print(json.dumps(found, indent=1, ensure_ascii=False) if arguments.json else takedown_text(found))
    return 0
