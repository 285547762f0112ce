"""A pack: rows of one length over a payload that is already there, and how many a shard has of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .. import InputError

#: Bytes of payload in a group of rows, one range read.
GROUP_BYTES = 1 << 20
#: best_fit wants this many rows in a group, and takes up to so many bytes for them. Measured share of tokens in full
#: groups of 8 / 32 / 64 / 128 / 256 rows: web-like lengths (median 490) 99.5 / 99.5 / 99.7 / 99.6 / 99.8 %, manuals
#: (mean 1,700) 98.3 / 99.1 / 99.4 / 99.5 / 99.7 %, books' chapters (mean 10,000) 95.5 / 97.4 / 98.7 / 98.9 / 99.3 %.
FITTING_ROWS, FITTING_BYTES = 64, 4 << 20
Policy = Literal["concat", "best_fit"]


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
