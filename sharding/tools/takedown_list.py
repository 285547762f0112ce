"""The list of what a takedown took: JSON lines, first the whole (reason, who, when, counts), then a line a document.

    {"magic": "penstock-takedown", "generation": 1, "parent": 0, "reason": …, "signed_by": …, "when": …, "documents": …,
     "tokens": …, "shards": …, "asked": {"ids": 2, "urls": 1, "sources": 0, "sha256": …}}
    {"id": …, "url_sha256": …, "source": …, "stream": …, "number": …, "ordinal": …, "tokens": …, "by": "url"}

The object's name holds its SHA-256 and the generation names it. URLs are hashed: a list that is kept must not keep what
was taken out. About 300 bytes a document; written as documents are found, never held.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ... import CorruptDataError
from ..canonical import VERSION, canonical, parse
from ..shard import ShardReader
from ..store import Store, sha256
from .wanted import Hit

MAGIC = "penstock-takedown"
#: Documents told of; the list has all.
SHOWN = 100
_HEAD_BYTES = 1 << 16


@dataclass
class TakedownList:
    """A list being made in a local folder."""

    folder: Path
    documents: int = 0
    tokens: int = 0
    shards: int = 0
    already: int = 0
    streams: Counter[str] = field(default_factory=Counter)
    shown: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reader: ShardReader, hits: Sequence[Hit]) -> list[int]:
        """List a shard's hits that are not gone yet; give their ordinals."""
        gone = set(reader.gone.tolist()) if hits else set()
        fresh = [hit for hit in hits if hit.ordinal not in gone]
        self.already += len(hits) - len(fresh)
        self.documents += len(fresh)
        self.shards += bool(fresh)
        self.streams[reader.entry.stream] += len(fresh)
        with (self.folder / "lines").open("ab") as file:
            for hit in fresh:
                line = _line(reader, hit)
                self.tokens += line["tokens"]
                file.write(canonical(line))
                if len(self.shown) < SHOWN:
                    self.shown.append({**line, "url": hit.url})
        return [hit.ordinal for hit in fresh]

    @property
    def counts(self) -> dict[str, int]:
        """Documents, tokens and shards listed."""
        return {"documents": self.documents, "tokens": self.tokens, "shards": self.shards}

    def put(self, store: Store, generation: int, **told: Any) -> str:
        """Write the list beside the data set, under a name that holds its hash; give the name."""
        whole = self.folder / "list"
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        head = {"magic": MAGIC, "version": list(VERSION), "generation": generation, "parent": generation - 1}
        with whole.open("wb") as file, (self.folder / "lines").open("rb") as lines:
            file.write(canonical({**head, **told, "when": when, **self.counts}))
            shutil.copyfileobj(lines, file)
        name = f"takedowns/{generation}-{sha256(whole)[:32]}.jsonl"
        store.put_named(whole, name)
        return name


def _line(reader: ShardReader, hit: Hit) -> dict[str, Any]:
    """What is told of a document."""
    start = int(reader.ends[hit.ordinal - 1]) if hit.ordinal else 0
    return {
        "id": None if hit.id is None else hit.id.hex(),
        "url_sha256": None if hit.url is None else hashlib.sha256(hit.url.encode()).hexdigest(),
        "source": hit.source, "stream": reader.entry.stream, "number": reader.entry.number, "ordinal": hit.ordinal,
        "tokens": int(reader.ends[hit.ordinal]) - start, "by": hit.by,
    }  # fmt: skip


def read_head(store: Store, name: str) -> dict[str, Any]:
    """Read a list's first line: what is said of the whole."""
    return parse(store.read(name, 0, _HEAD_BYTES).partition(b"\n")[0], MAGIC, f"{store.url}/{name}")


def read_list(store: Store, name: str) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Read a list: its head, and its documents one by one. CorruptDataError where it is not what was written."""
    place = f"{store.url}/{name}"
    body = store.read(name)
    if hashlib.sha256(body).hexdigest()[:32] not in name:
        raise CorruptDataError(f"{place} does not match the SHA-256 in its name: restore it from a copy")
    first, _, rest = body.partition(b"\n")
    return parse(first, MAGIC, place), map(json.loads, rest.splitlines())
