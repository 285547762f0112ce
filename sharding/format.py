"""The token files, format 1: what lies in a data set, and the values that say so.

    generations/N.json      the data set: vocabulary, packs, shards, `tokens_sha256`; the highest N is current
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

NAME is stream, number and a digest over the shard's members, packs' tables left out: these follow from the document
ends, so a pack is added later and renames nothing. Equal names hold equal bytes, and a retried task writes nothing
twice. The way from ends to table is part of the format: a better packer is another policy, with another name. What no
generation lists is garbage. A generation appears whole by create-if-absent and is never
changed; append and takedown make the next, a reader pins one. JSON is canonical: keys sorted, no spaces, ASCII.

`tokens_sha256` is the SHA-256 over the shards' payload digests (32 raw bytes each) in the order (stream, number): equal
data sets have equal sums whatever their packs. A global document id is shard << 32 | ordinal, the shard counted in that
order. Version is [major, minor]: readers take any minor of their major and refuse newer majors. A change that a reader
of version 1 would misread is a new major, and the golden files in tests/data/tokens-v1 stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import numpy as np

from .. import CorruptDataError, InputError
from .cached import cached_property
from .canonical import MAGIC, VERSION
from .order import Geometry, geometry

#: Bytes of payload in a group of rows, one range read.
GROUP_BYTES = 1 << 20
#: best_fit wants this many rows in a group, and takes up to so many bytes for them. Measured share of tokens in full
#: groups of 8 / 32 / 64 / 128 / 256 rows: web-like lengths (median 490) 99.5 / 99.5 / 99.7 / 99.6 / 99.8 %, manuals
#: (mean 1,700) 98.3 / 99.1 / 99.4 / 99.5 / 99.7 %, books' chapters (mean 10,000) 95.5 / 97.4 / 98.7 / 98.9 / 99.3 %.
FITTING_ROWS, FITTING_BYTES = 64, 4 << 20
#: Members of every shard, whatever its packs, by suffix; the header gives the checksums of the others.
MEMBERS = (".bin", ".json", ".ends.npy", ".sums.npy", ".docs.parquet")
Policy = Literal["concat", "best_fit"]


@dataclass(frozen=True)
class Vocabulary:
    """What tokens mean. `dtype` is uint16 where all of `size` ids fit, else uint32; `fingerprint` is of behaviour."""

    dtype: str
    size: int
    fingerprint: str
    eos_id: int
    bos_id: int | None
    name: str

    def __post_init__(self) -> None:
        if self.dtype not in ("uint16", "uint32"):
            raise ValueError(f"tokens are uint16 or uint32, not {self.dtype}")
        if not 0 < self.size <= 1 << 8 * self.itemsize:
            raise ValueError(f"a vocabulary of {self.size} ids does not fit {self.dtype}")
        for name, value in (("EOS", self.eos_id), ("BOS", self.bos_id)):
            if value is not None and not 0 <= value < self.size:
                raise ValueError(f"{name} is {value}, the vocabulary has ids 0 to {self.size - 1}")

    @property
    def itemsize(self) -> int:
        """Bytes a token."""
        return 2 if self.dtype == "uint16" else 4

    @property
    def token(self) -> np.dtype[Any]:
        """Type of a token on disk, little-endian."""
        return np.dtype(self.dtype).newbyteorder("<")

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vocabulary:
        """Read what `to_json` gave."""
        return cls(**_fields(cls, values))


@dataclass(frozen=True)
class Pack:
    """Rows of `length` tokens over the same payload: a table, not a copy."""

    length: int
    policy: Policy

    def __post_init__(self) -> None:
        if self.policy not in ("concat", "best_fit"):
            raise ValueError(f"a pack's policy is concat or best_fit, not {self.policy}")
        if not 1 <= self.length <= 1 << 30:
            raise ValueError(f"a row has 1 to 2^30 tokens, not {self.length}")

    @property
    def name(self) -> str:
        """`best_fit-2048`."""
        return f"{self.policy}-{self.length}"

    @property
    def suffix(self) -> str:
        """Suffix of the member that holds its table, where its policy needs one: `.best_fit-2048.npy`."""
        return f".{self.name}.npy"

    def group_rows(self, itemsize: int) -> int:
        """R, the rows of a full group: 1 MiB of payload; up to 4 MiB where best_fit would have few rows to fill."""
        row = self.length * itemsize
        least = min(FITTING_ROWS, FITTING_BYTES // row) if self.policy == "best_fit" else 1
        return max(1, GROUP_BYTES // row, least)

    @classmethod
    def named(cls, name: str) -> Pack:
        """Read `best_fit-2048`."""
        policy, _, length = name.partition("-")
        if policy not in ("concat", "best_fit") or not length.isdecimal():
            raise InputError(f"there is no pack {name!r}: a pack is named like best_fit-2048 or concat-2048")
        return cls(int(length), "concat" if policy == "concat" else "best_fit")


@dataclass(frozen=True)
class PackCount:
    """A shard's rows in one pack. All groups but a short last one are full: R rows; the rows hold `pieces` in all."""

    group_rows: int
    rows: int
    groups: int
    full_groups: int
    pieces: int

    @property
    def short_rows(self) -> int:
        """Rows of the short group; 0 where there is none."""
        return self.rows - self.full_groups * self.group_rows


@dataclass(frozen=True)
class ShardEntry:
    """A shard as a generation lists it: `sha256` is the payload's, `members` gives each file's by its suffix."""

    name: str
    stream: str
    number: int
    tokens: int
    documents: int
    sha256: str
    members: Mapping[str, str]
    packs: Mapping[str, PackCount]

    def path(self, suffix: str) -> str:
        """Name of a member in the data set, e.g. `data/NAME.bin`."""
        return f"data/{self.name}{suffix}"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ShardEntry:
        """Read what `to_json` gave."""
        packs = {name: PackCount(**_fields(PackCount, count)) for name, count in values["packs"].items()}
        return cls(**{**_fields(cls, values), "packs": packs})


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
        streams = {stream: Geometry(**_fields(Geometry, shape)) for stream, shape in values["streams"].items()}
        return cls(Pack(**_fields(Pack, values)), values["group_rows"], streams)


@dataclass(frozen=True)
class Generation:
    """A data set as it stood once. Shards lie in the order (stream, number)."""

    number: int
    vocabulary: Vocabulary
    packs: tuple[PackOrder, ...]
    shards: tuple[ShardEntry, ...]

    @classmethod
    def of(cls, number: int, vocabulary: Vocabulary, packs: Iterable[Pack], shards: Iterable[ShardEntry]) -> Generation:
        """Put shards in order and fix the order constants of every pack."""
        ordered = tuple(sorted(shards, key=lambda shard: (shard.stream, shard.number)))
        places = [(shard.stream, shard.number) for shard in ordered]
        for stream, numbers in groupby(places, key=itemgetter(0)):
            if len(set(held := list(numbers))) < len(held):
                raise ValueError(f"stream {stream!r} has two shards of one number: {[number for _, number in held]}")
        return cls(number, vocabulary, tuple(_pack_order(pack, vocabulary, ordered) for pack in packs), ordered)

    @cached_property
    def tokens_sha256(self) -> str:
        """SHA-256 over the raw payload digests in the order of the shards, in hex."""
        return hashlib.sha256(b"".join(bytes.fromhex(shard.sha256) for shard in self.shards)).hexdigest()

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, sorted."""
        return tuple(dict.fromkeys(shard.stream for shard in self.shards))

    def pack(self, name: str | None = None) -> PackOrder:
        """Give a pack by name; the only one where there is one."""
        names = [order.pack.name for order in self.packs]
        if name is None and len(names) == 1:
            return self.packs[0]
        if name not in names:
            asked = "no pack was named" if name is None else f"there is no pack {name!r}"
            raise InputError(f"{asked}: this data set has {', '.join(names) or 'none'}; pass pack=")
        return self.packs[names.index(name)]

    def to_json(self) -> dict[str, Any]:
        """As plain values, with magic and version."""
        return {
            "magic": MAGIC,
            "version": list(VERSION),
            "number": self.number,
            "tokens_sha256": self.tokens_sha256,
            "vocabulary": self.vocabulary.to_json(),
            "packs": [pack.to_json() for pack in self.packs],
            "shards": [shard.to_json() for shard in self.shards],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Generation:
        """Read what `to_json` gave; refuses newer majors and a sum that is not its shards'."""
        generation = cls(
            values["number"],
            Vocabulary.from_json(values["vocabulary"]),
            tuple(PackOrder.from_json(pack) for pack in values["packs"]),
            tuple(ShardEntry.from_json(shard) for shard in values["shards"]),
        )
        if values["tokens_sha256"] != generation.tokens_sha256:
            raise CorruptDataError(
                f"generation {generation.number} says tokens_sha256 {values['tokens_sha256']}, "
                f"its shards give {generation.tokens_sha256}: restore it from a copy"
            )
        if problem := next(_contradictions(generation), None):
            raise CorruptDataError(
                f"generation {generation.number} contradicts itself: {problem}; restore it from a copy"
            )
        return generation


def _fields(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Take what a value class knows; a newer minor version may say more."""
    return {field.name: values[field.name] for field in fields(kind)}


def _contradictions(generation: Generation) -> Iterator[str]:
    """Say where what is told of packs is not what the shards have: rows would be left out, or looked for in vain."""
    tables = {order.pack.suffix for order in generation.packs if order.pack.policy == "best_fit"}
    for shard in generation.shards:
        if lacking := {*MEMBERS, *tables} - set(shard.members):
            yield f"shard {shard.name} has no {', '.join(sorted(lacking))}"
    for order in generation.packs:
        told = {name: (shape.groups, shape.rows_per_group, shape.tail_rows) for name, shape in order.streams.items()}
        have = {
            name: (groups, order.group_rows, tail)
            for name, groups, tail in _stream_groups(order.pack, order.group_rows, generation.shards)
        }
        if told != have:
            yield f"its streams of pack {order.pack.name} have groups, rows a group and tail {told}, its shards {have}"


def _pack_order(pack: Pack, vocabulary: Vocabulary, shards: Sequence[ShardEntry]) -> PackOrder:
    rows = pack.group_rows(vocabulary.itemsize)
    streams = {name: geometry(groups, rows, tail) for name, groups, tail in _stream_groups(pack, rows, shards)}
    return PackOrder(pack, rows, streams)


def _stream_groups(pack: Pack, rows: int, shards: Sequence[ShardEntry]) -> Iterator[tuple[str, int, int]]:
    """Count each stream's full groups of so many rows, and the rows of its shards' short groups."""
    for stream, members in groupby(shards, key=lambda shard: shard.stream):
        groups = tail = 0
        for shard in members:
            count = shard.packs.get(pack.name)
            if count is None or count.group_rows != rows:
                raise ValueError(f"shard {shard.name} does not have the pack {pack.name} with {rows} rows a group")
            groups, tail = groups + count.full_groups, tail + count.short_rows
        yield stream, groups, tail
