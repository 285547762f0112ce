"""Steps over document batches, readers and extraction. No Beam inside; a step works in a notebook, in Ray, in a test."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Public steps and where each lives; loaded at first use, because numba and the readers cost a second to import.
STEPS = {
    "ExtractHtml": "extract",
    "LanguageId": "language",
    "GopherQuality": "gopher",
    "GopherRepetition": "gopher",
    "C4Quality": "c4",
    "FineWebQuality": "fineweb",
    "MinHash": "minhash",
}
__all__ = list(STEPS)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in STEPS:
        return getattr(import_module(f".{STEPS[name]}", __name__), name)
    raise AttributeError(f"module 'penstock.transforms' has no attribute {name!r}")
