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
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from .. import require
from .adapter import Adapter
from .buffers import Buffers
from .cargo import Cargo, Context, Cut, check_fields, lays_out, load
from .dataset import TokenData
from .format import PackOrder
from .loader import StreamingLoader
from .ranks import Share, check_equal, share
from .tensors import SideStream, TorchBatch, here, pinned, there
from .workers import Worker, consumed, is_worker

torch = require("torch", "torch")
data = require("torch.utils.data", "torch")

__all__ = ["TorchBatch", "TorchLoader"]

# Batches whose pinned memory is kept for the next: those under way and those that the caller may hold.
_KEPT = 16


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

    In a DataLoader pass batch_size=None; its workers give dictionaries of CPU tensors, and pin_memory=True pins them.
    Each iteration with workers starts where this loader stood when they were started; they do not move it. So a
    checkpoint is StatefulDataLoader's state, or `state_at` of the last batch used.
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
        parts: dict[str, Any] = {"mesh": mesh, "data": data, "context": context, "cut": cut, "unequal": unequal}
        mine, options = _options(device=device, fields=fields, dicts=dicts, rank=rank, world_size=world_size, **parts)
        shared = {**arguments, "rank": mine.rank, "world_size": mine.world_size}
        self._around(StreamingLoader(path, batch_size, **shared), options)

    def _around(self, loader: StreamingLoader, options: _Options) -> None:
        super().__init__()
        self._options, self.device = options, options.device
        self.rank, self.world_size = loader.rank, loader.world_size
        self._worker: Worker | None = None
        self._follow(loader)
        self._check()
        self._lay_out(Buffers(_KEPT))
        if self.device.type == "cpu":  # copied once, as wide as torch takes them
            self.loader.buffers = Buffers(_KEPT, kind=np.int64)

    def _check(self, batch_size: int | None = None, pack: PackOrder | None = None) -> None:
        """Refuse batches, here or to come, that ranks that wait for each other do not share equally."""
        if not self._options.unequal:
            check_equal(batch_size or self.loader.batch_size, self.world_size, self.loader.tail)
        self._options.context.check((pack or self.loader.pack).pack.length)

    def _allow(self, changes: Mapping[str, Any]) -> None:
        packs = {order.pack.name: order for order in self.loader.data.generation.packs}
        self._check(changes.get("batch_size"), packs.get(changes.get("pack", "")))

    @classmethod
    def from_state(cls, path: str | Path | TokenData, state: Mapping[str, Any], **arguments: Any) -> TorchLoader:
        """Make the loader that saved a state, standing where it stood; see `StreamingLoader.from_state`.

        arguments: those of `StreamingLoader.from_state` and those of a TorchLoader that a state does not hold.
        """
        own = {name: arguments.pop(name) for name in _OWN if name in arguments}
        mine, options = _options(**own)
        shared = {**arguments, "rank": mine.rank, "world_size": mine.world_size}
        made = cls.__new__(cls)
        made._around(StreamingLoader.from_state(path, consumed(state)[0], **shared), options)
        return made

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
        self._check()
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
            self.device, self.loader.buffers = torch.device("cpu"), Buffers(_KEPT, kind=np.int64)
            self._lay_out(Buffers(_KEPT))
        return self._worker

    def _lay_out(self, buffers: Buffers) -> None:
        """Have batches laid out, in memory from `buffers`, by the thread that makes them."""
        fields, context, wide = self._options.fields, self._options.context, self.device.type == "cpu"
        self._laid_out = partial(load, fields=fields, context=context, buffers=buffers, wide=wide)
        self.loader.finish = self._laid_out

    def _on_host(self, cargo: Cargo) -> TorchBatch:
        views = {name: view.to(self.device) for name, view in here(cargo).items()}
        return TorchBatch(cargo.batch, views, self._options.context)

    def _on_cpu(self) -> Iterator[tuple[int, TorchBatch]]:
        for cargo in self._cargoes():
            yield cargo.end, self._on_host(cargo)

    def _cargoes(self) -> Iterator[Cargo]:
        return iter(self.loader)  # type: ignore[arg-type]  # as `finish` makes them

    def _on_gpu(self) -> Iterator[tuple[int, TorchBatch]]:
        device = torch.device("cuda", torch.cuda.current_device() if self.device.index is None else self.device.index)
        buffers = Buffers(_KEPT, partial(pinned, device))
        if lays_out(self._options.fields, self._options.context):
            self._lay_out(buffers)
        else:
            self.loader.buffers = buffers
        return self._ahead(SideStream(device))

    def _ahead(self, side: SideStream) -> Iterator[tuple[int, TorchBatch]]:
        """Copy one batch ahead of the one that is given."""
        copied: deque[tuple[Cargo, Any, Any]] = deque()
        # A cargo's memory is used again when nobody holds it: hold it until its copy is done.
        under_way: deque[tuple[Cargo, Any]] = deque()
        try:
            for cargo in self._cargoes():
                memory, done = side.copy(cargo.memory)
                copied.append((cargo, memory, done))
                under_way.append((cargo, done))
                while under_way and under_way[0][1].query():
                    under_way.popleft()
                if len(copied) > 1:
                    yield self._arrived(side, *copied.popleft())
            while copied:
                yield self._arrived(side, *copied.popleft())
        finally:
            side.close()

    def _arrived(self, side: SideStream, cargo: Cargo, memory: Any, done: Any) -> tuple[int, TorchBatch]:
        side.arrive(memory, done)
        return cargo.end, TorchBatch(cargo.batch, there(cargo, memory), self._options.context)


@dataclass(frozen=True)
class _Options:
    """What a TorchLoader is asked besides what its numpy loader is."""

    device: Any
    fields: tuple[str, ...]
    dicts: bool
    unequal: bool
    context: Context


def _options(
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
) -> tuple[Share, _Options]:
    mine = share(rank, world_size, context, cut, mesh, data, _distributed())
    return mine, _Options(torch.device(device), check_fields(fields), dicts, unequal, mine.context)


_OWN = tuple(signature(_options).parameters)


def _rebuilt(loader: StreamingLoader, options: _Options, position: int) -> TorchLoader:
    made = TorchLoader.__new__(TorchLoader)
    loader.stand(position)
    made._around(loader, options)
    return made


def _distributed() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
