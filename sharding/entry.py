"""What is said of a shard: whose tokens it holds, its counts, the SHA-256 of every member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .pack import PackCount

#: Members of every shard, whatever its packs, by suffix; the header gives the checksums of the others.
MEMBERS = (".bin", ".json", ".ends.npy", ".sums.npy", ".docs.parquet")


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
        return cls(**known_fields(cls, values))


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
        packs = {name: PackCount(**known_fields(PackCount, count)) for name, count in values["packs"].items()}
        return cls(**{**known_fields(cls, values), "packs": packs})


def known_fields(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Take what a value class knows; a newer minor version may say more."""
    return {field.name: values[field.name] for field in fields(kind)}
