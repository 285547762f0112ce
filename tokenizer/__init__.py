"""Text to token ids: SentencePiece, Hugging Face `tokenizer.json` and tiktoken ranks behind one `Tokenizer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import lazily

if TYPE_CHECKING:
    from .vocab import Tokenizer, load_tokenizer

_LAZY = {"Tokenizer": ".vocab", "load_tokenizer": ".vocab"}
__all__ = ["Tokenizer", "load_tokenizer"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return lazily(_LAZY[name], __name__, name)
    raise AttributeError(f"module 'penstock.tokenizer' has no attribute {name!r}")
