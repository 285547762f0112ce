"""What the benchmarks of `penstock dedup` share: a corpus in files, the command, and its answer as sets of ids.

Documents are those of JSON lines, and of a WARC's pages as penstock extracts them (`extract_html`, defaults; pages that
it rejects are left out). They are cut in blocks of 64 that stay together, since the web pages stand next to the same
page of another version: a sample of blocks keeps its near-duplicates. Every document gets an id of its own.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

BLOCK = 64  # documents that stay together
COLUMNS = ("id", "text", "source", "url", "lang")
Document = dict[str, str]


def read_documents(paths: Iterable[str]) -> Iterator[Document]:
    """Read JSON lines (`.zst` or plain), and WARCs by their extracted text; documents without text are left out."""
    number = 0
    for path in paths:
        for value in pages_of(Path(path)) if ".warc" in path else lines_of(path):
            if value["text"].strip():
                yield {**{name: str(value.get(name) or "") for name in COLUMNS}, "id": f"d{number:08}"}
                number += 1


def lines_of(path: str) -> Iterator[dict[str, Any]]:
    """Read JSON lines."""
    import zstandard

    with Path(path).open("rb") as file:
        raw = zstandard.ZstdDecompressor().stream_reader(file) if path.endswith(".zst") else file
        for line in io.TextIOWrapper(raw, encoding="utf-8"):
            yield json.loads(line)


def pages_of(path: Path) -> Iterator[dict[str, Any]]:
    """Extract the text of a WARC's pages with penstock."""
    from penstock.transforms import ExtractHtml
    from penstock.transforms.readers import Piece, read

    for outcome in read(Piece(str(path), "web", path.name, "warc", path.stat().st_size)):
        result = ExtractHtml().apply(outcome.batch)
        rows = result.batch.select(["text", "url"]).to_pylist()
        for row, why, before in zip(rows, result.reasons.to_pylist(), outcome.reasons.to_pylist(), strict=True):
            if row["text"] and why is None and before is None:
                yield {**row, "source": "web"}


def some_blocks(documents: Sequence[Document], megabytes: float) -> list[Document]:
    """Take blocks from all over, about so many MB of text."""
    blocks = [documents[start : start + BLOCK] for start in range(0, len(documents), BLOCK)]
    size = megabytes_of(documents)
    wanted = max(1, min(len(blocks), round(len(blocks) * megabytes / size))) if size else 0
    return [one for number in range(wanted) for one in blocks[len(blocks) * number // wanted]]


@lru_cache(1)
def planted() -> list[Document]:
    """Make 50 times a document, the same in capitals, and with one word of 200 changed (Jaccard 0.95)."""
    chance, made = random.Random(3), []
    for number in range(50):
        words = ["".join(chance.choices("bcdfghklmnprst", k=7)) for _ in range(200)]
        changed = [*words[:99], "another", *words[100:]]
        texts = " ".join(words), " ".join(words).upper(), " ".join(changed)
        made += [{"id": f"p{number:02}{place}", "text": text} for place, text in enumerate(texts)]
    return [{**dict.fromkeys(COLUMNS, ""), **one} for one in made]


def megabytes_of(documents: Iterable[Document]) -> float:
    """Sum up the text, in MB of UTF-8."""
    return sum(len(one["text"].encode()) for one in documents) / 1e6


def put(documents: Sequence[Document], folder: Path, files: int, suffix: str = "parquet", copies: int = 1) -> float:
    """Deal documents to files by blocks in turn, Parquet or JSON lines; give the MB of text.

    Each further copy of a document has a letter more on every word: another document, near the copies of its likes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    dealt: list[list[Document]] = [[] for _ in range(files)]
    for start in range(0, len(documents), BLOCK):
        dealt[start // BLOCK % files] += documents[start : start + BLOCK]
    schema, size = pa.schema([(name, pa.string()) for name in COLUMNS]), 0.0
    for number, rows in enumerate(dealt):
        path = folder / f"part-{number:03}.{suffix}"
        if suffix == "jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            continue
        with pq.ParquetWriter(path, schema) as writer:
            for made in (rows if not copy else [marked(row, copy) for row in rows] for copy in range(copies)):
                size += megabytes_of(made)
                writer.write_table(pa.Table.from_pylist(made, schema), row_group_size=2000)
    return size


def marked(document: Document, copy: int) -> Document:
    """Put a letter behind every word."""
    letter = chr(ord("a") + copy)
    text = document["text"].replace(" ", f"{letter} ").replace("\n", f"{letter}\n")
    return {**document, "id": f"{document['id']}{letter}", "text": text}


def command(source: Path, output: Path, *options: str, suffix: str = "parquet") -> list[str]:
    """Give the command line of a deduplication with penstock."""
    penstock = str(Path(sys.executable).with_name("penstock"))
    given = ["--input", f"{source}/*.{suffix}", "--output", str(output), "--id-field", "id", "--quiet", *options]
    return [penstock, "dedup", *given]


def has_option(name: str) -> bool:
    """Say whether penstock's command has an option."""
    words = [*command(Path(), Path())[:2], "--help"]
    return name in subprocess.run(words, check=True, capture_output=True, text=True).stdout


def partition(labels: Iterable[tuple[str, Any]]) -> set[frozenset[str]]:
    """Gather ids by label: the clusters of two and more."""
    held: dict[Any, set[str]] = defaultdict(set)
    for one, label in labels:
        held[label].add(one)
    return {frozenset(ids) for ids in held.values() if len(ids) > 1}


def answer(source: Path, output: Path) -> tuple[set[str], set[frozenset[str]]]:
    """Read a run's answer: the ids kept, and the clusters of two and more.

    The ids kept are those in the survivors' files; that they are the ids of the input but for those that the clusters
    remove is checked.
    """
    rows = removed_by(output)
    clusters = partition(chain(rows, ((kept, kept) for _, kept in rows)))
    removed = {one for one, _ in rows}
    kept = survivors(output)
    if set(kept) != ids_of(source) - removed or len(kept) != len(set(kept)):
        raise SystemExit(f"{output}: {len(kept)} survivors, {len(removed)} removed: not the documents of {source}")
    return set(kept), clusters


def removed_by(output: Path) -> list[tuple[str, str]]:
    """Read which document a run removed for which."""
    import pyarrow.parquet as pq

    manifest = json.loads((output / "manifest.json").read_text())
    table = pq.read_table(output / manifest["tables"]["clusters"]).to_pydict()
    rows = zip(table["source_id"], table["kept_source_id"], strict=True)
    return [(one, kept) for one, kept in rows if one != kept]


def ids_of(folder: Path) -> set[str]:
    """Read the ids of a folder of Parquet or JSON lines."""
    return set(chain.from_iterable(column_of(path, "id") for path in folder.iterdir()))


def survivors(output: Path) -> list[str]:
    """Read the ids in a run's output files."""
    manifest = json.loads((output / "manifest.json").read_text())
    data = output / "output" / manifest["stages"]["output"] / "data"
    return list(chain.from_iterable(column_of(path, "id") for path in sorted(data.rglob("part-*"))))


def column_of(path: Path, name: str) -> list[str]:
    """Read a column of Parquet, or of JSON lines."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        column: list[str] = pq.read_table(path, columns=[name])[name].to_pylist()
        return column
    return [value[name] for value in lines_of(str(path))]
