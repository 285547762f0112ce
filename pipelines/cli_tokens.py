"""The commands that make the next generation of token files without touching a token: `penstock pack | append`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .cli_tools import add_command

if TYPE_CHECKING:
    from ..sharding.format import Generation

# Laid out by best_fit in about half a second.
DOCUMENTS_A_WORKER = 200_000


def add_tokens(commands: Any) -> None:
    """`penstock pack | append`."""
    add_pack_command(commands)
    add_append_command(commands)


def add_pack_command(commands: Any) -> None:
    """`penstock pack`."""
    text = "add a pack to finished token files: rows of another length or policy over the same tokens"
    parser = add_command(commands, "pack", pack_command, text)
    parser.add_argument("dir", metavar="DIR", help="a run's folder, its tokens/, or a data set of tokens")
    parser.add_argument("--length", type=int, required=True, metavar="N", help="tokens a row")
    parser.add_argument("--policy", choices=("best_fit", "concat"), default="best_fit")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; one a core by default")


def pack_command(arguments: Any) -> int:
    """Add a pack; print what it came to."""
    from .. import RequestError
    from ..sharding.dataset import open_tokens
    from ..sharding.generations import add_pack, split_documents
    from ..sharding.pack import Pack

    try:
        pack = Pack(arguments.length, arguments.policy)
    except ValueError as error:
        raise RequestError(f"--length {arguments.length}: {error}") from error
    data = open_tokens(arguments.dir)
    made = add_pack(data, pack, arguments.workers or default_workers(data.generation.shards.total("documents")))
    print(
        json.dumps({**summary(made), **pack_summary(made, pack.name), "split_documents": split_documents(data, pack)})
    )
    return 0


def default_workers(documents: int) -> int:
    """A process a core, as far as each has enough to do to be worth its start, 0.3 s."""
    return max(1, min(len(os.sched_getaffinity(0)), documents // DOCUMENTS_A_WORKER))


def add_append_command(commands: Any) -> None:
    """`penstock append`."""
    text = "append another data set of tokens of the same vocabulary: its streams become cohorts, train/web+1"
    parser = add_command(commands, "append", append_command, text)
    parser.add_argument("dir", metavar="DIR", help="a run's folder, its tokens/, or a data set of tokens")
    parser.add_argument("other", metavar="OTHER", help="the same of what is appended; it stays as it is")


def append_command(arguments: Any) -> int:
    """Append a data set; print what it came to."""
    from ..sharding.dataset import open_tokens
    from ..sharding.generations import append

    data = open_tokens(arguments.dir)
    made = append(data, arguments.other)
    added = made.streams[len(data.generation.streams) :]
    tokens = made.shards.by_stream("tokens")
    print(json.dumps({**summary(made), "streams": {name: {"tokens": tokens[name]} for name in added}}))
    return 0


def summary(made: Generation) -> dict[str, Any]:
    """Say which generation was made and what it holds."""
    shards = made.shards
    return {
        "generation": made.number, "parent": made.parent, "made": made.made, "shards": len(shards),
        "documents": shards.total("documents"), "tokens": shards.total("tokens"), "tokens_sha256": made.tokens_sha256,
    }  # fmt: skip


def pack_summary(made: Generation, name: str) -> dict[str, Any]:
    """Count a pack's rows; which share of them are tokens."""
    order = made.pack(name)
    rows, pieces = made.shards.total(f"rows.{name}"), made.shards.total(f"pieces.{name}")
    return {
        "pack": name, "rows": rows, "rows_a_group": order.group_rows,
        "fill": round(made.shards.total("tokens") / (rows * order.pack.length), 6) if rows else None,
        "pieces": pieces,
    }  # fmt: skip
