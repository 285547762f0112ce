"""The recipe of a small run without models, which tests of runs, crashes and the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def recipe_over(folder: Path, **fields: Any) -> dict[str, Any]:
    """A recipe over the folder of the fixture `corpus`: dedup, a small vocabulary, two packs, a validation share."""
    return {
        "name": "small",
        "inputs": {"docs": {"path": str(folder), "fields": {"text": "text", "id": "key"}}},
        "dedup": {},
        "text": {"format": "jsonl"},
        "tokenizer": {"train": {"vocab_size": 400}},
        "tokens": {"validation": 0.1, "packs": [{"length": 64}, {"length": 128, "policy": "concat"}]},
        **fields,
    }
