"""The streaming loader for PyTorch: tensors on the device, one copy a batch, made while the step before still runs.

    loader = TorchLoader("run/", batch_size=512, device="cuda")      # rank and world size from torch.distributed
    for batch in loader:
        loss = F.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())

Batches are copied from pinned memory on a stream of their own, so that a step waits for nothing that is already there.
Threads read ahead and no worker process is needed: the state is the numpy loader's few integers. A DataLoader or
torchdata's StatefulDataLoader with workers may stand around it all the same: each of N workers then makes every N-th
batch, and they arrive in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import require
from .adapter import Adapter
from .buffers import Buffers
from .cached import cached_property
from .cargo import Cargo, Context, Cut, check_fields, lays_out, load, output
from .dataset import TokenData
from .loader import StreamingLoader
from .ranks import check_equal, share
from .rows import Varlen
from .workers import Worker, consumed, is_worker

torch = require("torch", "torch")
data = require("torch.utils.data", "torch")

# Batches whose pinned memory is kept for the next: those under way and those that the caller may hold.
_KEPT = 16
# What `torch.nn.functional.cross_entropy` leaves out by default.
IGNORED = -100


class TorchBatch:
    """A batch as tensors on the loader's device: `tokens` and `labels` (b, L) int64; the rest is made when asked for.

    step, position, end: as in `Batch`. numpy: the batch itself, in the host's memory and not cut by context ranks.
    batch["tokens"] is batch.tokens, for code that is also given the dictionaries of a DataLoader's workers.
    """

    def __init__(self, cargo: Cargo, memory: Any, context: Context) -> None:
        batch = self.numpy = cargo.batch
        self.step, self.position, self.end = batch.step, batch.position, batch.end
        self._context, self._there = context, {name: _view(memory, *place) for name, place in cargo.places.items()}
        wide = self._there["buffer"].long()
        self.tokens, self.labels = (part.flatten(1) for part in (wide[..., :-1], wide[..., 1:]))

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


class TorchLoader(Adapter, data.IterableDataset):  # type: ignore[misc, name-defined]
    """Iterate over this rank's rows of each global batch as tensors.

    Takes what `StreamingLoader` takes, and:
    device: where tensors go; copies to a GPU run ahead on a stream of their own.
    fields: outputs besides tokens and labels that every batch will be asked for: made by the thread that reads, and
        moved in the same copy; e.g. ("position_ids", "targets").
    dicts: give dictionaries of tokens, labels, `fields`, step, position and end, as trainers expect them, and as
        workers of a DataLoader give them anyway.
    rank, world_size: of the ranks that share the batches; those of torch.distributed where it is initialised, else 0
        of 1. Tensor- and pipeline-parallel peers pass the same and get the same rows.
    mesh, data: a DeviceMesh, and the name or names of its dimensions that share the batches, outermost first; instead
        of rank and world_size.
    context, cut: (rank, size), or the name of a dimension of `mesh`: these ranks get the same rows, each its share of
        every row, "contiguous" or "zigzag"; see `Context`. Labels, masks and positions are made before the cut.
    unequal: let ranks have slices of different size; else a batch size that W does not divide is refused, because ranks
        that wait for each other's gradients would weigh rows unequally.

    In a DataLoader pass batch_size=None. Each iteration with workers starts where this loader stood when they were
    started; they do not move it. A checkpoint is StatefulDataLoader's state, or `state_at` of the last batch used.
    """

    def __init__(
        self,
        path: str | Path | TokenData,
        batch_size: int,
        *,
        device: Any = "cpu",
        fields: Sequence[str] = (),
        dicts: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        mesh: Any = None,
        data: str | Sequence[str] | None = None,
        context: str | tuple[int, int] | None = None,
        cut: Cut = "contiguous",
        unequal: bool = False,
        **arguments: Any,
    ) -> None:
        mine = share(rank, world_size, context, cut, mesh, data, _distributed())
        loader = StreamingLoader(path, batch_size, rank=mine.rank, world_size=mine.world_size, **arguments)
        if not unequal:
            check_equal(batch_size, mine.world_size, arguments.get("tail", "drop"))
        self._around(loader, _Options(torch.device(device), check_fields(fields), dicts, unequal, mine.context))

    def _around(self, loader: StreamingLoader, options: _Options) -> None:
        super().__init__()
        options.context.check(loader.pack.pack.length)
        self._options, self.device = options, options.device
        self.rank, self.world_size = loader.rank, loader.world_size
        self._worker: Worker | None = None
        self._follow(loader)
        self._lay_out(Buffers(_KEPT))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.loader, self._options, self._position)

    def at(self, step: int) -> TorchBatch:
        """Give this rank's rows of one step, and leave the loader where it stands."""
        return self._on_host(self._laid_out(self.loader.at(step)))

    def state_dict(self) -> dict[str, Any]:
        """Where the caller stands, the same on every rank; any loader of the same data reads it.

        In a DataLoader's worker it is where that worker stands, as StatefulDataLoader asks for it.
        """
        state, worker = super().state_dict(), self._in_worker()
        return state if worker is None else worker.state_dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where a state was saved, as `StreamingLoader.load_state_dict`.

        Takes the state of a StatefulDataLoader around such a loader as well, whatever its number of workers was.
        """
        worker = self._in_worker()
        if worker is not None and is_worker(state):
            super().load_state_dict(state["loader"])
            worker.load(state)
            return
        own, later = consumed(state)
        super().load_state_dict(own)
        if later:
            self.seek(self.step + later)
        if worker is not None:
            worker.stand(self.loader)

    def __iter__(self) -> Iterator[Any]:
        fields = self._options.fields
        if (worker := self._in_worker()) is not None:
            made = worker.batches(self.loader)
            return (self._on_host(self._laid_out(batch)).to_dict(fields) for batch in made)
        batches = self._each(self._on_gpu if self.device.type == "cuda" else self._on_cpu)
        return (batch.to_dict(fields) for batch in batches) if self._options.dicts else batches

    def _in_worker(self) -> Worker | None:
        """Say which worker of a DataLoader this process is; None where it is none."""
        if (info := data.get_worker_info()) is None:
            return None
        if self._worker is None:
            self._worker = Worker(info.id, info.num_workers, self.loader)
            # What was pinned is another process's; these go through the DataLoader, which pins.
            self.device, self.loader.buffers = torch.device("cpu"), Buffers(_KEPT)
            self._lay_out(Buffers(_KEPT))
        return self._worker

    def _lay_out(self, buffers: Buffers) -> None:
        """Have batches laid out, in memory from `buffers`, by the thread that makes them."""
        options = self._options
        self._laid_out = partial(load, fields=options.fields, context=options.context, buffers=buffers)
        self.loader.finish = self._laid_out

    def _on_host(self, cargo: Cargo) -> TorchBatch:
        return TorchBatch(cargo, torch.from_numpy(cargo.memory).to(self.device), self._options.context)

    def _on_cpu(self) -> Iterator[tuple[int, TorchBatch]]:
        for cargo in self._cargoes():
            yield cargo.end, self._on_host(cargo)

    def _cargoes(self) -> Iterator[Cargo]:
        return iter(self.loader)  # type: ignore[arg-type]  # as `finish` makes them

    def _on_gpu(self) -> Iterator[tuple[int, TorchBatch]]:
        device = torch.device("cuda", torch.cuda.current_device() if self.device.index is None else self.device.index)
        pinned = Buffers(_KEPT, partial(_pinned, device))
        if lays_out(self._options.fields, self._options.context):
            self._lay_out(pinned)
        else:
            self.loader.buffers = pinned
        return self._ahead(SideStream(device))

    def _ahead(self, side: SideStream) -> Iterator[tuple[int, TorchBatch]]:
        """Copy one batch ahead of the one that is given."""
        copied: deque[tuple[Cargo, Any, Any]] = deque()
        # A cargo's memory is used again when nobody holds it: hold it until its copy is done.
        under_way: deque[tuple[Cargo, Any]] = deque()
        try:
            for cargo in self._cargoes():
                there, done = side.copy(cargo.memory)
                copied.append((cargo, there, done))
                under_way.append((cargo, done))
                while under_way and under_way[0][1].query():
                    under_way.popleft()
                if len(copied) > 1:
                    yield self._arrived(side, *copied.popleft())
            while copied:
                yield self._arrived(side, *copied.popleft())
        finally:
            side.close()

    def _arrived(self, side: SideStream, cargo: Cargo, there: Any, done: Any) -> tuple[int, TorchBatch]:
        side.arrive(there, done)
        return cargo.end, TorchBatch(cargo, there, self._options.context)


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


@dataclass(frozen=True)
class _Options:
    """What a TorchLoader is asked besides what its numpy loader is."""

    device: Any
    fields: tuple[str, ...]
    dicts: bool
    unequal: bool
    context: Context


def _rebuilt(loader: StreamingLoader, options: _Options, position: int) -> TorchLoader:
    made = TorchLoader.__new__(TorchLoader)
    loader.stand(position)
    made._around(loader, options)
    return made


def _view(memory: Any, start: int, kind: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    size = prod(shape) * kind.itemsize
    whole = memory.view(torch.uint8)[start : start + size]
    return whole.view(getattr(torch, kind.name)).view(shape)


def _pinned(device: Any, size: int) -> NDArray[np.int32]:
    # In a thread of its own the current device is GPU 0, on which a context would be made.
    with torch.cuda.device(device):
        array: NDArray[np.int32] = torch.empty(size, dtype=torch.int32, pin_memory=True).numpy()
    return array


def _distributed() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
