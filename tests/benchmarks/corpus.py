"""Documents to measure with: JSON lines, mixed by a fixed seed, cut to a size, and a sample for a slower peer."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path


def texts_of(paths: list[str], megabytes: float) -> list[str]:
    """Read the texts of `.jsonl` and `.jsonl.zst` files, so many MB of UTF-8; again where it falls short."""
    texts = [text for path in paths for text in lines_of(path)]
    random.Random(1).shuffle(texts)
    taken, size = [], 0
    while texts and size < megabytes * 1e6:
        for text in texts:
            taken.append(text)
            size += len(text.encode())
            if size >= megabytes * 1e6:
                break
    return taken


def lines_of(path: str) -> Iterator[str]:
    """Read the texts of one file."""
    import zstandard

    with Path(path).open("rb") as file:
        raw = zstandard.ZstdDecompressor().stream_reader(file) if path.endswith(".zst") else file
        for line in io.TextIOWrapper(raw, encoding="utf-8"):
            yield json.loads(line)["text"]


def sample_of(texts: list[str], megabytes: float) -> list[str]:
    """Take every n-th text, about so many MB of UTF-8."""
    sizes = [len(text.encode()) for text in texts]
    step = max(1, round(sum(sizes) / (megabytes * 1e6)))
    return texts[::step]


def put(texts: list[str], path: Path) -> float:
    """Write texts as a JSON list; give their MB of UTF-8."""
    path.write_text(json.dumps(texts))
    return sum(len(text.encode()) for text in texts) / 1e6


def get(path: Path) -> list[str]:
    """Read what `put` wrote."""
    texts: list[str] = json.loads(path.read_text())
    return texts
