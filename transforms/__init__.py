"""Steps over document batches, readers, extraction. No Beam inside: a step works in a notebook, in Ray, in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import lazily

if TYPE_CHECKING:
    from .c4 import C4Quality
    from .decontaminate import Decontaminate
    from .extract import ExtractHtml
    from .fineweb import FineWebQuality
    from .gopher import GopherQuality, GopherRepetition
    from .language import LanguageId
    from .minhash import MinHash
    from .urls import UrlFilter

#: Public steps and where each lives; loaded at first use, because numba and the readers cost a second to import.
STEPS = {
    "ExtractHtml": "extract",
    "LanguageId": "language",
    "GopherQuality": "gopher",
    "GopherRepetition": "gopher",
    "C4Quality": "c4",
    "FineWebQuality": "fineweb",
    "MinHash": "minhash",
    "UrlFilter": "urls",
    "Decontaminate": "decontaminate",
}
#: The name of each step in a recipe, and in its reasons and columns.
KINDS = {
    "extract_html": "ExtractHtml",
    "language_id": "LanguageId",
    "gopher_quality": "GopherQuality",
    "gopher_repetition": "GopherRepetition",
    "c4_quality": "C4Quality",
    "fineweb_quality": "FineWebQuality",
    "url_filter": "UrlFilter",
    "decontaminate": "Decontaminate",
}
__all__ = [
    "C4Quality",
    "Decontaminate",
    "ExtractHtml",
    "FineWebQuality",
    "GopherQuality",
    "GopherRepetition",
    "LanguageId",
    "MinHash",
    "UrlFilter",
]


def __getattr__(name: str) -> Any:
    if name in STEPS:
        return lazily(f".{STEPS[name]}", __name__, name)
    raise AttributeError(f"module 'penstock.transforms' has no attribute {name!r}")
