"""FineWeb-2's last edits as steps of one's own: functions over a batch, named in `fineweb2.yaml` by their import path.

A function takes a `pa.RecordBatch` and fields from the recipe. It gives the batch, edited as here; or a mask of the
rows it keeps, or an array of reasons (see `penstock.transforms.FunctionStep`).
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from penstock.transforms.step import with_columns


def symbol_lines(batch: pa.RecordBatch, symbols: str = "|") -> pa.RecordBatch:
    """Put a break between paragraphs in the place of lines that hold nothing but these symbols and spaces.

    As datatrove's `SymbolLinesFormatter(symbols_to_remove=[...], replace_char="\\n")`; lines are those of
    `str.splitlines`, and are joined by newlines again.
    """
    marks = frozenset(symbols)

    def edit(text: str) -> str:
        kept: list[str] = []
        removed = False  # the line before was
        for line in text.splitlines():
            held = frozenset(line) - {" "}
            only = bool(held) and held <= marks and bool(line.strip())
            if not only:
                kept.append(line)
            elif not removed:
                kept.append("\n")
            removed = only
        return "\n".join(kept)

    return edited(batch, edit)


def fix_encoding(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Repair text that was decoded with the wrong charset, with ftfy (Speer 2019) and datatrove's settings for it."""
    import ftfy

    settings = ftfy.TextFixerConfig(
        fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, fix_line_breaks=False,
        normalization=None,
    )  # fmt: skip
    return edited(batch, lambda text: ftfy.fix_text(text, config=settings))


def edited(batch: pa.RecordBatch, edit: Callable[[str], str]) -> pa.RecordBatch:
    """Apply an edit to every text."""
    texts = [None if text is None else edit(text) for text in batch["text"].to_pylist()]
    return with_columns(batch, {"text": pa.array(texts, batch.schema.field("text").type)})
