"""`penstock export` and `penstock import`: token files from and to the formats of others."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

from .. import RequestError
from .cli_tools import add_command


def add_exchange(commands: Any) -> None:
    """`penstock export | import`."""
    add_export(commands)
    add_import(commands)


def add_export(commands: Any) -> None:
    """`penstock export`."""
    parser = add_command(commands, "export", export_command, "write token files as other trainers read them")
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT",
        help="megatron (.bin/.idx), parquet (input_ids), npy (OLMo, dolma), datatrove (.ds, nanotron), llmc (.bin)",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="a new local folder")
    parser.add_argument("--stream", action="append", metavar="NAME", help="of this stream only; may be repeated")
    parser.add_argument("--merge", action="store_true", help="a file a stream, not a file a shard")
    parser.add_argument("--link", action="store_true", help="hard links to the tokens instead of copies")
    parser.add_argument("--pack", metavar="PACK", help="rows of a pack instead of documents, in parquet")
    parser.add_argument("--generation", type=int, metavar="N", help="not the current generation")


def add_import(commands: Any) -> None:
    """`penstock import`."""
    parser = add_command(commands, "import", import_command, "make token files of what others tokenized")
    parser.add_argument("input", nargs="+", metavar="INPUT", help="files, folders or globs")
    parser.add_argument(
        "--from", required=True, dest="kind", metavar="FORMAT",
        help="megatron, parquet, npy (NumPy's, or OLMo's without header), datatrove, raw or llmc (.bin)",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="DIR", help="folder or URL of the data set")
    meaning = parser.add_argument_group("what the tokens mean (exports of penstock say it themselves)")
    meaning.add_argument("--tokenizer", metavar="FILE", help="the tokenizer they were made with")
    meaning.add_argument("--like", metavar="DIR", help="token files of the same tokenizer")
    meaning.add_argument("--vocab-size", type=int, metavar="N", help="without a tokenizer: ids are 0 to N - 1")
    meaning.add_argument("--eos-id", type=int, metavar="E")
    meaning.add_argument("--bos-id", type=int, metavar="B", help="where documents begin with BOS")
    reading = parser.add_argument_group("how the files are read")
    reading.add_argument(
        "--documents", default="index", metavar="index|rows|eos",
        help="where documents end: as the file says (default), at each row or sequence, or at each EOS",
    )  # fmt: skip
    reading.add_argument(
        "--eos", default="ensure", metavar="ensure|keep|append",
        help="EOS is added where it lacks (default), must stand, or is added everywhere; BOS likewise",
    )  # fmt: skip
    reading.add_argument("--dtype", help="type of the tokens where the files do not say: uint16, uint32, …")
    reading.add_argument("--column", default="input_ids", help="of token ids in Parquet; input_ids by default")
    reading.add_argument("--pad-id", type=int, metavar="P", help="cut this id off the end of each row")
    writing = parser.add_argument_group("what is written")
    writing.add_argument("--stream", default="train", metavar="NAME")
    writing.add_argument("--source", default="import", metavar="NAME", help="name of the input, part of every id")
    writing.add_argument("--pack", action="append", metavar="PACK", help="best_fit-2048 by default; may be repeated")
    writing.add_argument("--shard-mb", type=int, default=512, metavar="MB", help="a shard's tokens; 512 by default")
    writing.add_argument("--shuffle", type=int, metavar="SEED", help="shuffle documents, through files on the disk")
    writing.add_argument("--validation", type=float, default=0.0, metavar="SHARE", help="of documents, by their ids")
    writing.add_argument("--scratch", metavar="DIR", help="local folder for spools; the system's by default")


def export_command(arguments: Any) -> int:
    """Write token files in another format; print what was written."""
    from ..sharding.foreign.exporting import export_tokens

    receipt = export_tokens(
        arguments.dir,
        arguments.output,
        arguments.to,
        streams=arguments.stream,
        merge=arguments.merge,
        link=arguments.link,
        pack=arguments.pack,
        generation=arguments.generation,
    )
    files = receipt.pop("files")
    print(json.dumps({**receipt, "files": len(files)}, indent=1, ensure_ascii=False))
    return 0


def import_command(arguments: Any) -> int:
    """Make token files of foreign ones; print their counts."""
    from ..sharding.foreign.importing import import_tokens
    from ..sharding.format import Pack

    packs = {} if arguments.pack is None else {"packs": tuple(Pack.named(name) for name in arguments.pack)}
    done = import_tokens(
        arguments.input,
        arguments.output,
        arguments.kind,
        vocabulary=vocabulary_asked(arguments),
        boundaries=arguments.documents,
        dtype=arguments.dtype,
        column=arguments.column,
        pad_id=arguments.pad_id,
        stream=arguments.stream,
        source=arguments.source,
        frame=arguments.eos,
        shard_bytes=arguments.shard_mb << 20,
        shuffle=arguments.shuffle,
        validation=arguments.validation,
        scratch=arguments.scratch,
        **packs,
    )
    print(json.dumps(done, indent=1, ensure_ascii=False))
    print(f"next: penstock verify {arguments.output}    then: penstock inspect {arguments.output}", file=sys.stderr)
    return 0


def vocabulary_asked(arguments: Any) -> Any:
    """Say what the tokens mean: by a tokenizer, by other token files, or by numbers; None where nothing was said."""
    ways = {"--tokenizer": arguments.tokenizer, "--like": arguments.like, "--vocab-size": arguments.vocab_size}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise RequestError(f"{' and '.join(given)} both say what the tokens mean: give one")
    if (arguments.vocab_size is None) != (arguments.eos_id is None):
        raise RequestError("--vocab-size and --eos-id belong together: without a tokenizer, both must be said")
    if arguments.bos_id is not None and arguments.vocab_size is None and arguments.tokenizer is None:
        raise RequestError("--bos-id goes with --tokenizer or --vocab-size: other token files say it themselves")
    if arguments.like is not None:
        from ..sharding.dataset import open_tokens

        return open_tokens(arguments.like).generation.vocabulary
    if arguments.tokenizer is not None:
        from ..tokenizer import load_tokenizer
        from .spool import vocabulary_of

        # A tokenizer may have a BOS that was not used: what is not said to be there is not added.
        return replace(vocabulary_of(load_tokenizer(arguments.tokenizer)), bos_id=arguments.bos_id)
    if arguments.vocab_size is not None:
        from ..sharding.foreign.importing import unnamed_vocabulary

        return unnamed_vocabulary(arguments.vocab_size, arguments.eos_id, arguments.bos_id)
    return None
