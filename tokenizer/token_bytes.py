"""The bytes that each token stands for, where tokens join to the text as it is: byte-level BPE.

SentencePiece's pieces, and those of a `tokenizer.json` of another kind, stand for text that has been normalised, with a
space put before it or what is unknown left out. A table of 100,000 tokens takes 2 MB and 0.1 s, once a process.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from .. import RequestError
from .definition import Definition


def token_bytes(definition: Definition) -> pa.LargeBinaryArray:
    """Give the bytes of every id, (vocab_size,); empty where no text becomes the id.

    Raises `RequestError` for a vocabulary that is not byte-level. One that is may normalise besides: who needs tokens
    that join compares them with the text.
    """
    if definition.format == "tiktoken":
        return _by_id(definition, {place: token for token, place in definition.ranks.items()})
    file = json.loads(definition.body) if definition.format == "huggingface" else {}
    if not (definition.model == "bpe" and _holds_byte_level(file.get("pre_tokenizer"))):
        raise RequestError(
            f"{definition.name} ({definition.format}, {definition.model}) is not byte-level, so its tokens do not join "
            "to the text byte for byte: name a byte-level vocabulary (.tiktoken, a tokenizer.json of GPT-2's or "
            "Llama 3's kind), or take unit: bytes"
        )
    found = {int(place): _spelled(name) for name, place in file["model"]["vocab"].items()}
    added = {int(token["id"]): str(token["content"]) for token in file.get("added_tokens") or []}
    literals = set(definition.literals)
    return _by_id(definition, found | {place: name.encode() for place, name in added.items() if name in literals})


def _by_id(definition: Definition, found: dict[int, bytes]) -> pa.LargeBinaryArray:
    return pa.array([found.get(place, b"") for place in range(definition.vocab_size)], pa.large_binary())


def _holds_byte_level(pre_tokenizer: Any) -> bool:
    if not isinstance(pre_tokenizer, dict):
        return False
    inner = pre_tokenizer.get("pretokenizers") or []
    return pre_tokenizer.get("type") == "ByteLevel" or any(map(_holds_byte_level, inner))


def _letters() -> dict[int, int]:
    """Tell the letters that spell bytes in a vocabulary (GPT-2, encoder.py): code point → byte.

    A byte that prints in Latin-1 is its own letter, the others are those from U+0100 on.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {byte: byte for byte in shown} | {0x100 + place: byte for place, byte in enumerate(others)}


_LETTERS = _letters()


def _spelled(name: str) -> bytes:
    """Give the bytes that a token's letters spell; none for a name that is not spelled so."""
    return bytes(_LETTERS[ord(letter)] for letter in name) if all(ord(one) in _LETTERS for one in name) else b""
