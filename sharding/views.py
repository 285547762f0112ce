"""Rows by number, for frameworks that bring their own sampler: Grain's MapDataset, torch's map-style DataLoader.

    rows = Rows(StreamingLoader("run/", batch_size=512, seed=0))
    len(rows), rows[7]["tokens"], rows[:512]["labels"]

Row i is the row at position i of the loader's order: shuffled and mixed already, and rows read in order meet the same
blocks close together. A sampler that shuffles once more is right too, but reads blocks all over the data.

Where a row lies is arithmetic that costs little more for a hundred rows than for one. So rows asked for singly but one
after another (by several threads, or every n-th) are made 64 at a time; those all over the data are made one by one.
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
from .blocks import Recent
from .cargo import PER_TOKEN, check_fields
from .loader import StreamingLoader
from .plan import LARGEST_POSITION

# Rows made together once two of them have been asked for, and how many such chunks are kept or remembered.
_CHUNK, _KEPT, _REMEMBERED = 64, 16, 1024
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
        if len({(segment.pack, segment.generation) for segment in loader.plan.segments}) > 1:
            raise RequestError("this loader's plan changes pack or data on the way: make one of the pack to be read")
        self.loader = loader
        self.fields = tuple(dict.fromkeys(("tokens", "labels", *check_fields(fields, PER_TOKEN))))
        self._count = LARGEST_POSITION if epochs is None else epochs * loader.epoch_rows
        self._chunks: Recent[Row] = Recent(_KEPT)
        self._touched: Recent[int] = Recent(_REMEMBERED)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.loader, self._count, self.fields)

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
        return self._row(self._position(index(which)))

    def __getitems__(self, which: Sequence[int]) -> list[Row]:
        """Give several rows at once, as torch's DataLoader asks for a batch."""
        arrays = self._arrays(which)
        return [{name: array[at] for name, array in arrays.items()} for at in range(len(which))]

    def _arrays(self, which: Iterable[int]) -> Row:
        return self._read([self._position(number) for number in which])

    def _row(self, position: int) -> Row:
        chunk, place = divmod(position, _CHUNK)
        arrays = self._chunks.peek([chunk])[chunk]
        if arrays is None:
            if self._touched.get(chunk, lambda: position) == position:
                return {name: array[0] for name, array in self._read([position]).items()}
            last = min((chunk + 1) * _CHUNK, self._count)
            arrays = self._chunks.get(chunk, lambda: self._read(range(chunk * _CHUNK, last)))
        return {name: array[place] for name, array in arrays.items()}

    def _read(self, positions: Sequence[int]) -> Row:
        batch = self.loader.rows(positions)
        return {name: getattr(batch, name) for name in self.fields}

    def _position(self, number: int) -> int:
        if not -self._count <= number < self._count:
            raise IndexError(f"there is no row {number}: rows go from 0 to {self._count - 1}")
        return int(number) + (self._count if number < 0 else 0)


def _rebuilt(loader: StreamingLoader, count: int, fields: tuple[str, ...]) -> Rows:
    rows = Rows(loader, fields=fields)
    rows._count = count
    return rows
