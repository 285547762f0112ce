"""Token shards, packs, order and the streaming loader. NumPy, fsspec and xxhash; nothing heavier is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import lazily

if TYPE_CHECKING:
    from .loader import StreamingLoader

_LAZY = {"StreamingLoader": ".loader"}
__all__ = ["StreamingLoader"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return lazily(_LAZY[name], __name__, name)
    raise AttributeError(f"module 'penstock.sharding' has no attribute {name!r}")
