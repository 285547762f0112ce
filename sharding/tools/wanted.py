"""Documents looked for in token files by id, URL pattern or source: read from docs.parquet, a row group at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ... import RequestError, require
from ..canonical import canonical
from ..documents import Documents
from .url_patterns import matching

_COLUMNS = ("id", "url", "source")


@dataclass(frozen=True)
class Wanted:
    """What is looked for; a document is found by any of it. URLs: patterns as in `url_patterns`."""

    ids: frozenset[bytes] = frozenset()
    urls: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @classmethod
    def of(cls, ids: Sequence[str], urls: Sequence[str], sources: Sequence[str]) -> Wanted:
        """Read what was asked for; ids are 32 hex digits. RequestError for what is none, and for nothing at all."""
        read = set()
        for word in ids:
            try:
                value = bytes.fromhex(word)
            except ValueError:
                value = b""
            if len(value) != 16:
                raise RequestError(f"{word!r} is no document's id: ids are 32 hex digits, as cat and trace print them")
            read.add(value)
        for name, words in (("url", urls), ("source", sources)):
            if any(not word.strip("*") for word in words):
                raise RequestError(f"an empty {name} would be every document's: say which documents are meant")
        if not (read or urls or sources):
            raise RequestError("say which documents: by id, URL pattern or source")
        return cls(frozenset(read), tuple(urls), tuple(sources))

    @property
    def told(self) -> dict[str, Any]:
        """What a list may keep of it: counts, and a hash of all that was asked for."""
        asked = {
            "ids": sorted(one.hex() for one in self.ids),
            "urls": sorted(self.urls),
            "sources": sorted(self.sources),
        }
        counts = {name: len(words) for name, words in asked.items()}
        return {**counts, "sha256": hashlib.sha256(canonical(asked)).hexdigest()}


@dataclass(frozen=True)
class Hit:
    """A document that was found: its ordinal in the shard, and by which kind of question, `id`, `url` or `source`."""

    ordinal: int
    id: bytes | None
    url: str | None
    source: str | None
    by: str


@dataclass
class Found:
    """How many documents each id, pattern and source has found."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def missing(self, wanted: Wanted) -> dict[str, list[str]]:
        """Give what found nothing."""
        asked = {"id": sorted(one.hex() for one in wanted.ids), "url": wanted.urls, "source": wanted.sources}
        return {kind: [word for word in words if not self.counts[kind, word]] for kind, words in asked.items()}


def search(documents: Documents, shard: int, wanted: Wanted, found: Found) -> Iterator[Hit]:
    """Find a shard's documents in the order of the payload; what was found by which question goes to `found`."""
    table = documents.table(shard)
    columns = [name for name in _COLUMNS if name in table.schema_arrow.names]
    first = 0
    for group in range(table.num_row_groups):
        rows = table.read_row_group(group, columns=columns, use_threads=False)
        by: dict[int, str] = {}
        for kind, mask in _masks(rows, wanted, found):
            for hit in mask.to_numpy().nonzero()[0].tolist():
                by.setdefault(hit, kind)
        for number in sorted(by):
            values = {name: rows.column(name)[number].as_py() for name in columns}
            yield Hit(first + number, values.get("id"), values.get("url"), values.get("source"), by[number])
        first += len(rows)


def _masks(rows: Any, wanted: Wanted, found: Found) -> Iterator[tuple[str, Any]]:
    """For each question, which rows answer it."""
    arrow, compute = require("pyarrow", "curate"), require("pyarrow.compute", "curate")
    held = {name: rows.column(name) for name in rows.column_names}
    if wanted.ids and "id" in held:
        mask = compute.is_in(held["id"], arrow.array(sorted(wanted.ids), held["id"].type))
        found.counts.update(("id", one.hex()) for one in held["id"].filter(mask).to_pylist())
        yield "id", mask
    answers = [("url", word, matching) for word in wanted.urls]
    answers += [("source", word, compute.equal) for word in wanted.sources]
    for kind, word, answer in answers:
        if kind in held:
            mask = compute.fill_null(answer(held[kind], word), False)
            found.counts[kind, word] += int(compute.sum(mask).as_py() or 0)
            yield kind, mask
