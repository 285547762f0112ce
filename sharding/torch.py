"""The streaming loader for PyTorch: tensors on the device, one copy a batch, made while the step before still runs.

    loader = TorchLoader("run/", batch_size=512, device="cuda")      # rank and world size from torch.distributed
    for batch in loader:
        loss = F.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())

Batches are copied from pinned memory on a stream of their own, so that a step waits for nothing that is already there.
There are no worker processes: threads read ahead, and the state is the numpy loader's few integers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import RequestError, require
from .batch import Batch
from .buffers import Buffers
from .cached import cached_property
from .dataset import TokenData
from .loader import StreamingLoader

torch = require("torch", "torch")
data = require("torch.utils.data", "torch")

# What `torch.nn.functional.cross_entropy` leaves out by default.
IGNORED = -100


class TorchBatch:
    """A batch as tensors on the loader's device: `tokens` and `labels` (b, L) int64; the rest is made when asked for.

    step, position, end: as in `Batch`. numpy: the batch itself, in the host's memory.
    """

    def __init__(self, batch: Batch, buffer: Any) -> None:
        self.step, self.position, self.end, self.numpy = batch.step, batch.position, batch.end, batch
        wide = buffer.long()
        self.tokens, self.labels = wide[:, :-1], wide[:, 1:]

    def __len__(self) -> int:
        return len(self.numpy)

    def _moved(self, array: NDArray[Any]) -> Any:
        return torch.from_numpy(array).to(self.tokens.device, non_blocking=True)

    @cached_property
    def loss_mask(self) -> Any:
        """(b, L) bool: False at a document's last token and in padding."""
        return self._moved(self.numpy.loss_mask)

    @cached_property
    def targets(self) -> Any:
        """(b, L) int64: labels, and -100 where `loss_mask` is False; as cross_entropy takes them."""
        return self.labels.masked_fill(~self.loss_mask, IGNORED)

    @cached_property
    def position_ids(self) -> Any:
        """(b, L) int64: counts from 0 in each piece of a document."""
        return self._moved(self.numpy.position_ids).long()

    @cached_property
    def document_ids(self) -> Any:
        """(b, L) int64: shard << 32 | ordinal of each token's document; -1 for padding."""
        return self._moved(self.numpy.document_ids.view(np.int64))

    @cached_property
    def cu_seqlens(self) -> Any:
        """(pieces + 1,) int32: where each piece starts in the b·L tokens, as variable-length attention takes it."""
        return self._moved(self.numpy.cu_seqlens)

    @cached_property
    def max_seqlen(self) -> int:
        """Length of the longest piece."""
        return int(np.diff(self.numpy.cu_seqlens).max(initial=0))


class TorchLoader(data.IterableDataset):  # type: ignore[misc, name-defined]
    """Iterate over this rank's rows of each global batch as tensors.

    Takes what `StreamingLoader` takes, and:
    device: where tensors go; copies to a GPU run ahead on a stream of their own.
    rank, world_size: those of torch.distributed where it is initialised, else 0 of 1.
    unequal: let ranks have slices of different size; else a batch size that W does not divide is refused, because ranks
    that wait for each other's gradients would weigh rows unequally.
    """

    def __init__(
        self,
        path: str | Path | TokenData,
        batch_size: int,
        *,
        device: Any = "cpu",
        rank: int | None = None,
        world_size: int | None = None,
        unequal: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        found_rank, found_world = _distributed()
        self.rank = found_rank if rank is None else rank
        self.world_size = found_world if world_size is None else world_size
        if not unequal:
            _check_equal(batch_size, self.world_size, arguments.get("tail", "drop"))
        self.device = torch.device(device)
        self.loader = StreamingLoader(path, batch_size, rank=self.rank, world_size=self.world_size, **arguments)
        self._position, self._moves = self.loader.position, 0
        if self.device.type == "cuda":
            self.loader.buffers = Buffers(arguments.get("prefetch", 2) + 4, _pinned)

    def __len__(self) -> int:
        """Batches in `epochs`; TypeError where the loader never ends."""
        return len(self.loader)

    @property
    def position(self) -> int:
        """Rows of the global order that came before the next batch."""
        return self._position

    @property
    def step(self) -> int:
        """Number of the next batch."""
        return self.loader.step_at(self._position)

    def state_dict(self) -> dict[str, Any]:
        """Where this loader stands, the same on every rank; a StreamingLoader reads it too."""
        return {**self.loader.state_dict(), "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where a state was saved, as `StreamingLoader.load_state_dict`."""
        self.loader.load_state_dict(state)
        self._position = self.loader.position
        self._moves += 1

    def seek(self, step: int) -> None:
        """Stand before a step's batch."""
        self.loader.seek(step)
        self._position = self.loader.position
        self._moves += 1

    def __iter__(self) -> Iterator[TorchBatch]:
        if (worker := data.get_worker_info()) is not None:
            raise RequestError(
                f"TorchLoader reads ahead in threads; {worker.num_workers} worker processes of a DataLoader would give "
                "batches more than once and keep where they stand to themselves: pass num_workers=0"
            )
        while True:
            # Copies run one batch ahead of what the caller has had: start again from there.
            self.loader.stand(self._position)
            moves = self._moves
            for batch in self._on_device() if self.device.type == "cuda" else self._on_host():
                self._position = batch.end
                yield batch
                if self._moves != moves:
                    break
            else:
                return

    def _on_host(self) -> Iterator[TorchBatch]:
        for batch in self.loader:
            yield TorchBatch(batch, torch.from_numpy(batch.buffer).to(self.device))

    def _on_device(self) -> Iterator[TorchBatch]:
        stream = torch.cuda.Stream(self.device)
        copied: deque[tuple[Batch, Any, Any]] = deque()
        # A batch's pinned memory is used again when nobody holds the batch: hold it until its copy is done.
        under_way: deque[tuple[Batch, Any]] = deque()
        try:
            for batch in self.loader:
                with torch.cuda.stream(stream):
                    buffer = torch.from_numpy(batch.buffer).to(self.device, non_blocking=True)
                    copied.append((batch, buffer, stream.record_event()))
                under_way.append((batch, copied[-1][2]))
                while under_way and under_way[0][1].query():
                    under_way.popleft()
                if len(copied) > 1:
                    yield _arrived(*copied.popleft())
            while copied:
                yield _arrived(*copied.popleft())
        finally:
            stream.synchronize()


def _arrived(batch: Batch, buffer: Any, event: Any) -> TorchBatch:
    """Make the current stream wait for a copy; the batch it came from is held by what is returned."""
    current = torch.cuda.current_stream(buffer.device)
    current.wait_event(event)
    buffer.record_stream(current)
    return TorchBatch(batch, buffer)


def _pinned(size: int) -> NDArray[np.int32]:
    array: NDArray[np.int32] = torch.empty(size, dtype=torch.int32, pin_memory=True).numpy()
    return array


def _distributed() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _check_equal(batch_size: int, world_size: int, tail: str) -> None:
    if world_size > 0 and batch_size % world_size:
        below = batch_size // world_size * world_size
        nearest = below if below and batch_size - below <= below + world_size - batch_size else below + world_size
        raise RequestError(
            f"a batch of {batch_size} rows is not shared equally by {world_size} ranks; the nearest batch_size that is "
            f"is {nearest}. Pass unequal=True to go on with slices of {batch_size // world_size} and "
            f"{batch_size // world_size + 1}"
        )
    if world_size > 1 and tail == "short":
        raise RequestError(
            f"the last batch would be short and its slices on {world_size} ranks unequal: "
            "pass tail='drop', tail='pad' or unequal=True"
        )
