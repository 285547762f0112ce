"""What a vocabulary file says, whatever engine encodes with it later: `Definition`, and what its readers share.

Tokens that stand for structure (flagged special in the file, shaped `<|…|>`, or chosen as EOS or BOS) are control
tokens: each reader edits its file so that no text reaches them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import CorruptDataError, RequestError

#: Names that published vocabularies give to their end and start of a document, the likelier first.
EOS_NAMES = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<｜end▁of▁sentence｜>", "<|eos|>", "[EOS]", "<EOT>")
BOS_NAMES = (
    "<|begin_of_text|>",
    "<s>",
    "<bos>",
    "<｜begin▁of▁sentence｜>",
    "<|startoftext|>",
    "<|bos|>",
    "[BOS]",
    "<SOS>",
)
_MARKER = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """A vocabulary file as it was read: it travels inside a pickled tokenizer, so that a worker needs no path."""

    name: str  # file name, no folder: nothing of the machine gets into an output
    body: bytes
    side: bytes = b""  # tokenizer_config.json of a tokenizer.json; NAME.json of a rank file
    side_name: str = ""

    @property
    def sha256(self) -> str:
        """Digest of the file's bytes (the fingerprint is the digest of its behaviour)."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True)
class Definition:
    """A vocabulary, ready for an engine: `body` is the file with its control tokens out of reach of text."""

    format: str  # 'sentencepiece' | 'huggingface' | 'tiktoken'
    model: str  # 'bpe' | 'unigram' | 'word' | 'char' | 'wordpiece' | 'wordlevel'
    name: str
    body: bytes
    vocab_size: int  # largest id + 1
    control: Mapping[str, int]  # tokens that no text becomes
    eos: str | None
    bos: str | None
    unknown: int | None  # id of the unknown token, which text may become
    behaviour: str  # digest of everything that decides ids, however the file was formatted
    literals: tuple[str, ...] = ()  # added tokens that text may become: the gate tries them
    ranks: Mapping[bytes, int] = field(default_factory=dict)
    pattern: str = ""
    starters: bytes = b""  # SentencePiece BPE: ASCII characters before which the text can be cut
    dummy_prefix: bool = True
    scanned: bool = False  # fastokens has a scanner of its own for the pattern, exact where PCRE2 is not


def pick(
    asked: str | None, said: str | None, names: tuple[str, ...], tokens: Mapping[str, int], what: str, file: str
) -> str | None:
    """Choose EOS or BOS: what the caller asks for, else what the file says, else a known name."""
    if asked is not None:
        if asked not in tokens:
            raise RequestError(f"{what}={asked!r} is not a token of {file}; its control tokens: {_first(tokens)}")
        return asked
    return said if said in tokens else next((name for name in names if name in tokens), None)


def _first(tokens: Mapping[str, int]) -> str:
    return ", ".join(list(tokens)[:8]) or "none"


def is_control(token: str, flagged: bool) -> bool:
    """Tell whether a token stands for structure: flagged special, or shaped like a marker."""
    return flagged or _MARKER.fullmatch(token) is not None


def read_json(body: bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object, or say that the file is damaged."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{name} is damaged: it begins like JSON and does not parse ({error})") from error
    if not isinstance(value, dict):
        raise CorruptDataError(f"{name} holds a JSON {type(value).__name__} where an object is expected")
    return value


def named(token: Any) -> str | None:
    """Give the text of a token that a configuration names, as a string or as an object with `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def digest(value: Any) -> str:
    """Hash a value of plain JSON types in the one way that does not depend on how a file was formatted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
