"""The texts of files, for what is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..transforms.readers import Fields, Piece, detect_format, list_files, read


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
