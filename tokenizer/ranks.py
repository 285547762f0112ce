"""Rank files (`.tiktoken`): lines of `base64 rank`, with a split pattern that the file itself does not hold."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from .. import CorruptDataError, RequestError
from .definition import BOS_NAMES, EOS_NAMES, Definition, Source, digest, named, pick, read_json

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN = _CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
_SCANNED = frozenset({_CL100K, _O200K, _QWEN})  # fastokens 0.3.5
_FIM = {"<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260}


@dataclass(frozen=True)
class Ranks:
    """A published rank file: its SHA-256, its split pattern as first published, its special tokens."""

    sha256: str
    pattern: str
    special: Mapping[str, int]


# Digests and special tokens: tiktoken_ext/openai_public.py (tiktoken 0.14), llama_models/llama3/tokenizer.py,
# Qwen/tokenization_qwen.py. The patterns are those of the original releases, which accept the same strings.
KNOWN = {
    "cl100k_base": Ranks(
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        _CL100K,
        {"<|endoftext|>": 100257, **_FIM, "<|endofprompt|>": 100276},
    ),
    "o200k_base": Ranks(
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        _O200K,
        {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    "r50k_base": Ranks(
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", _GPT2, {"<|endoftext|>": 50256}
    ),
    "p50k_base": Ranks(
        "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069", _GPT2, {"<|endoftext|>": 50256}
    ),
    "llama3": Ranks(
        "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
        _CL100K,
        {"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001},
    ),
    "qwen": Ranks(
        "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186",
        _QWEN,
        {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645},
    ),
}
_ALIASES = {
    "gpt2": "r50k_base",
    "cl100k": "cl100k_base",
    "o200k": "o200k_base",
    "r50k": "r50k_base",
    "p50k": "p50k_base",
}


def read_ranks_file(source: Source, eos: str | None, bos: str | None) -> Definition:
    """Read a rank file; its split pattern is known by name or digest, or stands in NAME.json beside it."""
    ranks = _read_ranks(source)
    stem = source.name.partition(".")[0]
    name = next((known for known, one in KNOWN.items() if one.sha256 == source.sha256), _ALIASES.get(stem, stem))
    side = read_json(source.side, f"{stem}.json") if source.side else {}
    known = KNOWN.get(name, Ranks("", "", {}))
    pattern, special = str(side.get("pattern") or known.pattern), dict(side.get("special_tokens") or known.special)
    if not pattern:
        raise RequestError(
            f"{source.name} is a rank file without a known split pattern (known by name or digest are "
            f"{', '.join(KNOWN)}): "
            f'put {stem}.json beside it with {{"pattern": "…", '
            f'"special_tokens": {{"<|endoftext|>": {max(ranks.values()) + 1}}}}}'
        )
    taken = {place: token for token, place in ranks.items()}
    for token, place in special.items():
        if not isinstance(place, int) or place < 0 or place in taken:
            raise RequestError(
                f"special token {token!r} of {source.name} has the id {place!r}, which is not free: "
                f"{len(ranks)} ranks reach up to {max(taken)}"
            )
    eos = pick(eos, named(side.get("eos")), EOS_NAMES, special, "eos", source.name)
    bos = pick(bos, named(side.get("bos")), BOS_NAMES, special, "bos", source.name)
    behaviour = {
        "format": "tiktoken",
        "pattern": pattern,
        "ranks": [[base64.b64encode(token).decode(), place] for place, token in sorted(taken.items())],
        "special": sorted(special.items()),
    }
    return Definition(
        "tiktoken",
        "bpe",
        name,
        source.body,
        max(max(taken), max(special.values(), default=0)) + 1,
        special,
        eos,
        bos,
        None,
        digest(behaviour),
        ranks=ranks,
        pattern=pattern,
        scanned=pattern in _SCANNED,
    )


def _read_ranks(source: Source) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(source.body.splitlines(), 1):
        if line.strip():
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error) as error:
                raise CorruptDataError(
                    f"{source.name} is damaged: line {number} is no `base64 rank` pair: {line[:40]!r}"
                ) from error
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise CorruptDataError(
            f"{source.name} is damaged: {len(missing)} of the 256 single bytes have no rank, such as {missing[0]:#04x}"
        )
    if len(set(ranks.values())) != len(ranks):
        raise CorruptDataError(f"{source.name} is damaged: {len(ranks)} tokens share {len(set(ranks.values()))} ranks")
    return ranks
