"""Recipes, stages, runs and the command line. The only room that knows Apache Beam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import lazily

if TYPE_CHECKING:
    from .ptransforms import ApplySteps, Deduplicate, ReadDocuments, Tokenize, WriteShards

_LAZY = dict.fromkeys(("ReadDocuments", "ApplySteps", "Deduplicate", "Tokenize", "WriteShards"), ".ptransforms")
__all__ = ["ApplySteps", "Deduplicate", "ReadDocuments", "Tokenize", "WriteShards"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return lazily(_LAZY[name], __name__, name)
    raise AttributeError(f"module 'penstock.pipelines' has no attribute {name!r}")
