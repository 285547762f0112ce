"""Deduplication as a job of its own: a recipe without steps, whose survivors come out as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..transforms.readers import Piece, detect_format, list_files, read
from ..transforms.rows import Fields
from .recipe import Recipe, replace_inputs


def dedup_recipe(
    inputs: Sequence[str],
    *,
    exact_only: bool = False,
    bands: int = 14,
    rows: int = 8,
    ngram: int = 5,
    keep: str = "smallest_id",
    text_field: str = "text",
    id_field: str | None = None,
    output_format: str | None = None,
) -> Recipe:
    """Write the recipe of a deduplication.

    Read, match, write the survivors in the input's format (JSON lines or Parquet).
    """
    fields = {"text": text_field, "id": id_field}
    named: dict[str, Any] = replace_inputs({"input": {"fields": fields}}, inputs)
    # Survivors are written in the format of the first file, as far as they can be; pages want their text extracted.
    kinds = [detect_format(entry.path) for item in named.values() for entry in list_files(item["path"])]
    minhash = None if exact_only else {"bands": bands, "rows": rows, "ngram": ngram}
    return Recipe.from_value(
        {
            "name": "dedup",
            "inputs": named,
            "steps": ["extract_html"] if "warc" in kinds else [],
            "dedup": {"exact": True, "minhash": minhash, "keep": keep},
            "text": {"format": output_format or ("jsonl" if kinds[0] == "jsonl" else "parquet")},
        },
        "penstock dedup",
    )


def texts_of(patterns: Sequence[str], text_field: str = "text") -> Iterator[str]:
    """Read the texts of files, in order, as a vocabulary's training reads them."""
    for pattern in patterns:
        for entry in list_files(pattern):
            piece = Piece(entry.url, "input", entry.path, detect_format(entry.path), entry.size)
            for outcome in read(piece, Fields(text=text_field)):
                keep = outcome.reasons.is_null()
                if outcome.errors is not None:
                    keep = [
                        a and b for a, b in zip(keep.to_pylist(), outcome.errors.is_null().to_pylist(), strict=True)
                    ]
                yield from (
                    text
                    for text, kept in zip(outcome.batch.column("text").to_pylist(), keep, strict=True)
                    if kept and text
                )
