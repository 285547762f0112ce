"""The token files, format 1: what lies in a data set, and the values that say so.

    generations/N.json      the data set as it stands: vocabulary, packs, streams, `tokens_sha256`, name and SHA-256 of
                            the table of its shards; from which generation (`parent`) and by what it was made (`made`:
                            run, pack, append, takedown, merge; `record` names an object that tells more); the highest
                            N is current
    generations/shards-H.npy  that table, one record a shard (`shard_table`), named after its content
    data/NAME.bin           a shard's tokens: little-endian uint16 or uint32, whole documents, each followed by EOS (and
                            led by BOS where the vocabulary has one), nothing else; np.memmap reads it
    data/NAME.json          its header: magic, version, dtype, counts (64 bits), stream, number, vocabulary with the
                            fingerprint of the tokenizer's behaviour, largest id, SHA-256 of the payload and the tables
    data/NAME.ends.npy      uint64 (documents,): where each document ends, in tokens from the shard's start, rising
    data/NAME.sums.npy      uint64 (blocks,): xxh3_64 of every 64 KiB of the payload, so that what is read is verified
    data/NAME.docs.parquet  one row a document, in the payload's order: id, source, url, language, scores; read late
    data/NAME.loss.npy      optional, uint64 (spans, 2): token ranges [start, stop) that are not learned (`marks`)
    data/NAME.gone.npy      optional, uint64 (n,): ordinals of documents taken down, whose tokens are all EOS
    data/NAME.PACK.npy      the table of a `best_fit` pack (`packing`); `concat` needs none
    generations/N.purged.json  which shards of that generation were removed after a takedown (`purge`)
    takedowns/N-H.jsonl     what a takedown took (`takedown_list`); merges/H.json: what a merge was made of (`merge`);
                            a generation names it as its `record`

NumPy alone reads all of it. The third document of the second shard:

    data = json.load(open("generations/0.json"))
    name = np.load(data["shards"]["table"])["name"][1].decode()
    tokens, ends = np.memmap(f"data/{name}.bin", data["vocabulary"]["dtype"]), np.load(f"data/{name}.ends.npy")
    tokens[ends[1] : ends[2]]

NAME is stream, number and a digest over the shard's members, packs' tables left out: these follow from the document
ends, so a pack is added later and renames nothing. Equal names hold equal bytes, and a retried task writes nothing
twice. The way from ends to table is part of the format: a better packer is another policy, with another name. What no
generation lists is garbage.

A generation appears whole, its table before its JSON, by create-if-absent, and is never changed; a pack added, data
appended, documents taken down make the next (`generations`), a reader pins one. A stream never changes its geometry:
every position's row stays what it was. Appended data are cohorts, streams of their own: `train/web+1` follows
`train/web`. Streams are listed as they came, those of one generation by name, and shards are counted in the order
(stream, number), so that a global document id, shard << 32 | ordinal, holds in every later generation.

`tokens_sha256` is the SHA-256 over the shards' payload digests (32 raw bytes each) in the order of (stream's name,
number): equal data sets have equal sums whatever their packs. JSON is canonical: keys sorted, no spaces, ASCII. A
generation's `seal` is the SHA-256 of its JSON without that field; all else is under a checksum that it leads to.
Version is [major, minor]: readers take any minor of their major, keep the members they do not know, and refuse newer
majors. A change that a reader of version 1 would misread is a new major; the golden files in tests/data/tokens-v1 stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from .. import CorruptDataError, InputError
from .cached import cached_property
from .canonical import MAGIC, VERSION
from .entry import MEMBERS, ShardEntry, Vocabulary, known_fields
from .order import Geometry, geometry
from .pack import Pack, PackCount, Policy
from .shard_table import ShardTable

__all__ = [
    "MEMBERS",
    "Generation",
    "Pack",
    "PackCount",
    "PackOrder",
    "Policy",
    "ShardEntry",
    "ShardTable",
    "Vocabulary",
]


@dataclass(frozen=True)
class PackOrder:
    """What fixes the order of a pack's rows: R, and for each stream its groups, lanes C and window M."""

    pack: Pack
    group_rows: int
    streams: Mapping[str, Geometry]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **asdict(self.pack),
            "group_rows": self.group_rows,
            "streams": {stream: asdict(shape) for stream, shape in self.streams.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PackOrder:
        """Read what `to_json` gave."""
        streams = {stream: Geometry(**known_fields(Geometry, shape)) for stream, shape in values["streams"].items()}
        return cls(Pack(**known_fields(Pack, values)), values["group_rows"], streams)


@dataclass(frozen=True)
class Generation:
    """A data set as it stood once. `parent` is the generation it was made from, `made` says by what.

    record: name of an object that tells more of what was done; its SHA-256 is in its name.
    """

    number: int
    vocabulary: Vocabulary
    packs: tuple[PackOrder, ...]
    shards: ShardTable
    parent: int | None = None
    made: str = "run"
    record: str | None = None

    @classmethod
    def of(
        cls,
        number: int,
        vocabulary: Vocabulary,
        packs: Iterable[Pack],
        shards: Iterable[ShardEntry],
        parent: Generation | None = None,
        made: str = "run",
    ) -> Generation:
        """Put shards in order, a parent's streams first, and fix the order constants of every pack.

        made: what makes it: run, merge, pack, append, takedown. ValueError where two shards have one stream and number.
        """
        listed = list(shards)
        known = parent.streams if parent else ()
        streams = (*known, *sorted({shard.stream for shard in listed} - set(known)))
        place = {stream: number for number, stream in enumerate(streams)}
        listed.sort(key=lambda shard: (place[shard.stream], shard.number))
        for one, other in pairwise(listed):
            if (one.stream, one.number) == (other.stream, other.number):
                raise ValueError(f"stream {one.stream!r} has two shards of one number, {one.number}")
        sizes = {order.pack: order.group_rows for order in parent.packs} if parent else {}
        rows = {pack: sizes.get(pack) or pack.group_rows(vocabulary.itemsize) for pack in packs}
        table = ShardTable.of(listed, streams, {pack.name: size for pack, size in rows.items()})
        return cls.laid_out(number, vocabulary, rows, table, parent, made)

    @classmethod
    def laid_out(
        cls,
        number: int,
        vocabulary: Vocabulary,
        packs: Iterable[Pack],
        shards: ShardTable,
        parent: Generation | None = None,
        made: str = "run",
    ) -> Generation:
        """Fix the order constants of packs over a table; those that a parent has fixed stay."""
        fixed = {order.pack: order.streams for order in parent.packs} if parent else {}
        orders = tuple(_pack_order(pack, shards, fixed.get(pack, {})) for pack in packs)
        return cls(number, vocabulary, orders, shards, parent.number if parent else None, made)

    @cached_property
    def tokens_sha256(self) -> str:
        """SHA-256 over the raw payload digests in the order of the streams' names and the shards' numbers, in hex."""
        digest = hashlib.sha256()
        for stream in sorted(self.streams):
            digest.update(self.shards.records[".bin"][self.shards.where(stream)].tobytes())
        return digest.hexdigest()

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams in the order of their shards: as they came, those of one generation sorted."""
        return self.shards.streams

    def pack(self, name: str | None = None) -> PackOrder:
        """Give a pack by name; the only one where there is one."""
        names = [order.pack.name for order in self.packs]
        if name is None and len(names) == 1:
            return self.packs[0]
        if name not in names:
            asked = "no pack was named" if name is None else f"there is no pack {name!r}"
            raise InputError(f"{asked}: this data set has {', '.join(names) or 'none'}; pass pack=")
        return self.packs[names.index(name)]

    @cached_property
    def _table(self) -> dict[str, Any]:
        body = self.shards.body
        digest = hashlib.sha256(body).hexdigest()
        return {"table": f"generations/shards-{digest[:32]}.npy", "sha256": digest, "count": len(self.shards)}

    @property
    def table(self) -> str:
        """Name of the object that holds `shards.body`."""
        return str(self._table["table"])

    def to_json(self) -> dict[str, Any]:
        """As plain values, with magic and version; the shards' table by its name."""
        return {
            "magic": MAGIC,
            "version": list(VERSION),
            "number": self.number,
            "parent": self.parent,
            "made": self.made,
            **({} if self.record is None else {"record": self.record}),
            "tokens_sha256": self.tokens_sha256,
            "vocabulary": self.vocabulary.to_json(),
            "packs": [pack.to_json() for pack in self.packs],
            "streams": list(self.streams),
            "shards": {
                **self._table,
                "documents": self.shards.total("documents"),
                "tokens": self.shards.total("tokens"),
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], records: Any) -> Generation:
        """Read what `to_json` gave, and the records of its table; refuses a sum or packs that are not its shards'."""
        packs = tuple(PackOrder.from_json(pack) for pack in values["packs"])
        sizes = {order.pack.name: order.group_rows for order in packs}
        table = ShardTable(values["streams"], sizes, records)
        vocabulary = Vocabulary.from_json(values["vocabulary"])
        made = values["parent"], values["made"], values.get("record")
        generation = cls(values["number"], vocabulary, packs, table, *made)
        if problem := next(_contradictions(generation, values), None):
            raise CorruptDataError(
                f"generation {generation.number} contradicts itself: {problem}; restore it from a copy"
            )
        return generation


def _contradictions(generation: Generation, values: Mapping[str, Any]) -> Iterator[str]:
    """Say where what is told is not what the shards have: rows would be left out, or looked for in vain."""
    shards = generation.shards
    tables = (order.pack.suffix for order in generation.packs if order.pack.policy == "best_fit")
    yield from shards.contradictions((*MEMBERS, *tables))
    said = {name: values["shards"][name] for name in ("count", "documents", "tokens")}
    have = {"count": len(shards), "documents": shards.total("documents"), "tokens": shards.total("tokens")}
    if said != have:
        yield f"it says {said}, its shards have {have}"
    if values["tokens_sha256"] != generation.tokens_sha256:
        yield f"it says tokens_sha256 {values['tokens_sha256']}, its shards give {generation.tokens_sha256}"
    for order in generation.packs:
        told = {name: (shape.groups, shape.rows_per_group, shape.tail_rows) for name, shape in order.streams.items()}
        held = {name: (groups, order.group_rows, tail) for name, groups, tail in _stream_groups(order.pack, shards)}
        if told != held:
            yield f"its streams of pack {order.pack.name} have groups, rows a group and tail {told}, its shards {held}"


def _pack_order(pack: Pack, shards: ShardTable, fixed: Mapping[str, Geometry]) -> PackOrder:
    rows = shards.packs[pack.name]
    counts = _stream_groups(pack, shards)
    streams = {name: fixed.get(name) or geometry(groups, rows, tail) for name, groups, tail in counts}
    return PackOrder(pack, rows, streams)


def _stream_groups(pack: Pack, shards: ShardTable) -> Iterator[tuple[str, int, int]]:
    """Count each stream's full groups, and the rows of its shards' short groups."""
    for stream in shards.streams:
        full, short = shards.groups(pack.name, stream)
        yield stream, int(full.sum()), int(short.sum())
