"""Steps over document batches, readers, extraction. No Beam inside: a step works in a notebook, in Ray, in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import lazily

if TYPE_CHECKING:
    from .badwords import BadWords
    from .c4 import C4Paragraphs, C4Quality
    from .classifier import QualityClassifier
    from .decontaminate import Decontaminate
    from .extract import ExtractHtml
    from .fineweb import FineWebQuality
    from .function_step import FunctionStep
    from .gopher import GopherQuality
    from .gopher_repetition import GopherRepetition
    from .language import LanguageId
    from .language_score import LanguageScore
    from .line_edits import LineEdits
    from .minhash import MinHash
    from .normalise import Normalise
    from .perplexity import Perplexity
    from .pii import RedactPii
    from .refinedweb import RefinedWebLines, RefinedWebText
    from .route import Multilingual
    from .sampling import Sample
    from .urls import UrlFilter

#: Public steps and where each lives; loaded at first use, because numba and the readers cost a second to import.
STEPS = {
    "ExtractHtml": "extract",
    "LanguageId": "language",
    "GopherQuality": "gopher",
    "GopherRepetition": "gopher_repetition",
    "C4Quality": "c4",
    "C4Paragraphs": "c4",
    "BadWords": "badwords",
    "RefinedWebText": "refinedweb",
    "RefinedWebLines": "refinedweb",
    "LineEdits": "line_edits",
    "FineWebQuality": "fineweb",
    "MinHash": "minhash",
    "Normalise": "normalise",
    "RedactPii": "pii",
    "Sample": "sampling",
    "LanguageScore": "language_score",
    "Multilingual": "route",
    "FunctionStep": "function_step",
    "QualityClassifier": "classifier",
    "Perplexity": "perplexity",
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
    "c4_paragraphs": "C4Paragraphs",
    "bad_words": "BadWords",
    "refinedweb_text": "RefinedWebText",
    "refinedweb_lines": "RefinedWebLines",
    "line_edits": "LineEdits",
    "fineweb_quality": "FineWebQuality",
    "normalise": "Normalise",
    "redact_pii": "RedactPii",
    "sample": "Sample",
    "language_score": "LanguageScore",
    "multilingual": "Multilingual",
    "quality_classifier": "QualityClassifier",
    "perplexity": "Perplexity",
    "url_filter": "UrlFilter",
    "decontaminate": "Decontaminate",
}
__all__ = [
    "BadWords",
    "C4Paragraphs",
    "C4Quality",
    "Decontaminate",
    "ExtractHtml",
    "FineWebQuality",
    "FunctionStep",
    "GopherQuality",
    "GopherRepetition",
    "LanguageId",
    "LanguageScore",
    "LineEdits",
    "MinHash",
    "Multilingual",
    "Normalise",
    "Perplexity",
    "QualityClassifier",
    "RedactPii",
    "RefinedWebLines",
    "RefinedWebText",
    "Sample",
    "UrlFilter",
]


def __getattr__(name: str) -> Any:
    if name in STEPS:
        return lazily(f".{STEPS[name]}", __name__, name)
    raise AttributeError(f"module 'penstock.transforms' has no attribute {name!r}")
