"""Rows by number, for frameworks that bring their own sampler: Grain's MapDataset, torch's map-style DataLoader.

    rows = Rows(StreamingLoader("run/", batch_size=512, seed=0))
    len(rows), rows[7]["tokens"], rows[:512]["labels"]

Row i is the row at position i of the loader's order: shuffled and mixed already, and rows read in order meet the same
blocks close together. A sampler that shuffles once more is right too, but reads blocks all over the data.
A row asked for singly costs 0.1 ms, almost all of it arithmetic that a slice does for all its rows at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import xxhash
from numpy.typing import NDArray

from .. import RequestError
from .cargo import PER_TOKEN, check_fields
from .loader import StreamingLoader
from .plan import LARGEST_POSITION

#: A row's arrays (L,) by name, or those of n rows (n, L).
Row = dict[str, NDArray[Any]]


class Rows:
    """The rows of a loader's order as a sequence: `rows[i]` gives arrays (L,) by name, a slice or a list (n, L).

    loader: whose data, pack, seed, mixture and split count; where it stands and its rank do not.
    epochs: so many times all rows, one after another and each in an order of its own; None goes on to position 2^62.
    fields: outputs besides tokens and labels, e.g. ("loss_mask", "position_ids").

    Picklable; threads may share it.
    """

    def __init__(self, loader: StreamingLoader, *, epochs: int | None = 1, fields: Sequence[str] = ()) -> None:
        if epochs is not None and epochs < 1:
            raise RequestError(f"epochs is {epochs}; pass 1 or more, or None to go on for ever")
        self.loader = loader
        self.fields = tuple(dict.fromkeys(("tokens", "labels", *check_fields(fields, PER_TOKEN))))
        self._count = LARGEST_POSITION if epochs is None else epochs * loader.epoch_rows

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        """The same for the same rows, whichever process: Grain compares it when it loads a checkpoint."""
        asked = {name: value for name, value in self.loader.state_dict().items() if name != "position"}
        order = xxhash.xxh3_64_hexdigest(json.dumps(asked, sort_keys=True).encode())
        return f"Rows({self.loader.data.store.url!r}, order={order}, rows={self._count}, fields={self.fields})"

    def __getitem__(self, which: SupportsIndex | slice | Sequence[int] | NDArray[Any]) -> Row:
        """Give one row's arrays (L,), or (n, L) for a slice or a list of n numbers; negative ones count from the end.

        IndexError where there is no such row.
        """
        if isinstance(which, slice):
            return self._arrays(range(*which.indices(self._count)))
        if isinstance(which, (Sequence, np.ndarray)):
            return self._arrays(which)
        return {name: array[0] for name, array in self._arrays([index(which)]).items()}

    def __getitems__(self, which: Sequence[int]) -> list[Row]:
        """Give several rows at once, as torch's DataLoader asks for a batch."""
        arrays = self._arrays(which)
        return [{name: array[at] for name, array in arrays.items()} for at in range(len(which))]

    def _arrays(self, which: Iterable[int]) -> Row:
        positions = [self._position(number) for number in which]
        batch = self.loader.rows(positions)
        return {name: getattr(batch, name) for name in self.fields}

    def _position(self, number: int) -> int:
        if not -self._count <= number < self._count:
            raise IndexError(f"there is no row {number}: rows go from 0 to {self._count - 1}")
        return int(number) + (self._count if number < 0 else 0)
