"""A batch as tensors: moved to their device in one copy, on a stream of its own where the device is a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import require
from .batch import Batch
from .cached import cached_property
from .cargo import Cargo, Context, output
from .rows import Varlen

torch = require("torch", "torch")

# What `torch.nn.functional.cross_entropy` leaves out by default.
IGNORED = -100


class TorchBatch:
    """A batch as tensors on the loader's device: `tokens` and `labels` (b, L) int64; the rest is made when asked for.

    step, position, end: as in `Batch`. numpy: the batch itself, in the host's memory and not cut by context ranks.
    batch["tokens"] is batch.tokens, for code that is also given the dictionaries of a DataLoader's workers.
    """

    def __init__(self, batch: Batch, there: dict[str, Any], context: Context) -> None:
        self.step, self.position, self.end, self.numpy = batch.step, batch.position, batch.end, batch
        self._there, self._context = there, context
        wide = there["buffer"].long()  # at once where they are wide
        self.tokens, self.labels = wide[..., :-1].flatten(1), wide[..., 1:].flatten(1)

    def __len__(self) -> int:
        return len(self.numpy)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def _output(self, name: str) -> Any:
        there = self._there.get(name)
        if there is None:
            array = output(self.numpy, name, self._context)
            there = torch.from_numpy(array).to(self.tokens.device, non_blocking=True)
        return there

    @cached_property
    def loss_mask(self) -> Any:
        """(b, L) bool: False at a document's last token and in padding."""
        return self._output("loss_mask")

    @cached_property
    def targets(self) -> Any:
        """(b, L) int64: labels, and -100 where `loss_mask` is False; as cross_entropy takes them."""
        return self.labels.masked_fill(~self.loss_mask, IGNORED)

    @cached_property
    def position_ids(self) -> Any:
        """(b, L) int64: counts from 0 in each piece of a document."""
        return self._output("position_ids").long()

    @cached_property
    def document_positions(self) -> Any:
        """(b, L) int64: which of its document's tokens each is, also where a document goes on from another row."""
        return self._output("document_positions")

    @cached_property
    def segment_ids(self) -> Any:
        """(b, L) int32: the pieces of documents in each row, from 1; 0 for padding."""
        return self._output("segment_ids")

    @cached_property
    def document_ids(self) -> Any:
        """(b, L) int64: shard << 32 | ordinal of each token's document; -1 for padding."""
        return self._output("document_ids")

    @cached_property
    def cu_seqlens(self) -> Any:
        """(pieces + 1,) int32: where each piece starts in the b·L tokens, as variable-length attention takes it.

        Of whole rows, also where context ranks cut them.
        """
        return self._output("cu_seqlens")

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest piece, of whole rows."""
        return self.numpy.max_seqlen

    def varlen(self, pieces: int) -> Varlen:
        """Give `cu_seqlens` on the device in the shape (pieces + 1,), for compiled graphs, and `max_seqlen`.

        RequestError where the batch has more pieces; see `penstock.sharding.pieces.count_pieces`.
        """
        there, longest = self.numpy.varlen(pieces)
        return Varlen(torch.from_numpy(there).to(self.tokens.device, non_blocking=True), longest)

    def to_dict(self, fields: Sequence[str] = ()) -> dict[str, Any]:
        """Give tokens, labels, `fields`, step, position and end as plain values, which collate and pickle."""
        names = dict.fromkeys(("tokens", "labels", *fields))
        numbers = {"step": self.step, "position": self.position, "end": self.end}
        return {**{name: self[name] for name in names}, **numbers}


class SideStream:
    """Copies to a GPU on a stream of their own, which a step on the current stream does not wait for."""

    def __init__(self, device: Any) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def copy(self, memory: NDArray[np.int32]) -> tuple[Any, Any]:
        """Begin to copy pinned memory: the tensor it goes to, and the event that says it is there."""
        with torch.cuda.stream(self._stream):
            there = torch.from_numpy(memory).to(self._device, non_blocking=True)
            return there, self._stream.record_event()

    def arrive(self, there: Any, done: Any) -> None:
        """Make what the current stream does from here on wait for a copy, and keep its memory until that is done."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)
        there.record_stream(current)

    def close(self) -> None:
        """Wait for the copies under way, so that their pinned memory may go."""
        self._stream.synchronize()


def here(cargo: Cargo) -> dict[str, Any]:
    """View a cargo's arrays as tensors, where they are."""
    return {name: torch.from_numpy(cargo.array(name)) for name in cargo.places}


def there(cargo: Cargo, memory: Any) -> dict[str, Any]:
    """View the arrays of a cargo that a device holds in `memory`."""
    found = {}
    for name, (start, kind, shape) in cargo.places.items():
        part = memory.view(torch.uint8)[start : start + prod(shape) * kind.itemsize]
        found[name] = part.view(getattr(torch, kind.name)).view(shape)
    return found


def pinned(device: Any, size: int) -> NDArray[np.int32]:
    """Give numbers in memory from which a GPU copies by itself."""
    # In a thread of its own the current device is GPU 0, on which a context would be made.
    with torch.cuda.device(device):
        array: NDArray[np.int32] = torch.empty(size, dtype=torch.int32, pin_memory=True).numpy()
    return array
