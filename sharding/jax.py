"""The streaming loader for JAX: global arrays, of which each process reads only the rows of its own devices.

    loader = JaxLoader("run/", batch_size=512, sharding=NamedSharding(mesh, P("data")))
    for batch in loader:                                       # a dictionary of (512, L) arrays, laid out as asked
        state, loss = train_step(state, batch)

The rows of a step are those of the numpy loader, whatever the mesh: a row's place in the global array is its place in
the global batch. So a mesh may change between runs, and where a run stands is the same few integers on every process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from .. import RequestError, require
from .adapter import Adapter
from .batch import Batch
from .cargo import PER_TOKEN, check_fields
from .dataset import TokenData
from .loader import StreamingLoader

jax = require("jax", "jax")
# Arrays of 64 bits need a switch of JAX's: positions in documents go as 32 bits, and ids of documents do not go.
_FIELDS = tuple(name for name in PER_TOKEN if name != "document_ids")


class JaxLoader(Adapter):
    """Iterate over global batches: dictionaries of tokens, labels and `fields`, each (batch_size, L).

    Takes what `StreamingLoader` takes but rank and world size, and:
    sharding: how arrays (batch_size, L) lie on the devices; a Mesh means rows cut along its first axis.
    fields: outputs besides tokens and labels: "position_ids", "document_positions", "segment_ids", "loss_mask".

    Arrays are on their way to the devices one batch ahead of the one that is given.
    """

    def __init__(
        self,
        path: str | Path | TokenData,
        batch_size: int,
        *,
        sharding: Any,
        fields: Sequence[str] = (),
        **arguments: Any,
    ) -> None:
        self._set_up(partial(StreamingLoader, path, batch_size, **arguments), sharding, fields)

    @classmethod
    def from_state(
        cls,
        path: str | Path | TokenData,
        state: Mapping[str, Any],
        *,
        sharding: Any,
        fields: Sequence[str] = (),
        **arguments: Any,
    ) -> JaxLoader:
        """Make the loader that saved a state, standing where it stood; see `StreamingLoader.from_state`."""
        made = cls.__new__(cls)
        made._set_up(partial(StreamingLoader.from_state, path, state, **arguments), sharding, fields)
        return made

    def _set_up(self, share: Callable[..., StreamingLoader], sharding: Any, fields: Sequence[str]) -> None:
        if isinstance(sharding, jax.sharding.Mesh):
            sharding = jax.sharding.NamedSharding(sharding, jax.sharding.PartitionSpec(sharding.axis_names[0]))
        self.sharding = sharding
        self.fields = tuple(dict.fromkeys(("tokens", "labels", *check_fields(fields, _FIELDS))))
        whole = share()
        if whole.tail == "short":
            raise RequestError("a short last batch is an array of another shape: pass tail='pad' or tail='drop'")
        held = _held(sharding, (whole.batch_size, whole.pack.pack.length))
        self._follow(*(share(rank=rank, world_size=world) for rank, world in held))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens of a global batch here."""
        return self.loader.batch_size, self.loader.pack.pack.length

    def _allow(self, changes: Mapping[str, Any]) -> None:
        _held(self.sharding, (changes.get("batch_size") or self.loader.batch_size, self.shape[1]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._each(self._ahead)

    def at(self, step: int) -> dict[str, Any]:
        """Give the global batch of one step, and leave the loader where it stands. All processes call it."""
        return self._global([loader.at(step) for loader in self._loaders])

    def _ahead(self) -> Iterator[tuple[int, dict[str, Any]]]:
        under_way: deque[tuple[int, dict[str, Any]]] = deque()
        for batches in zip(*self._loaders, strict=True):
            under_way.append((batches[0].end, self._global(batches)))
            if len(under_way) > 1:
                yield under_way.popleft()
        yield from under_way

    def _global(self, batches: Sequence[Batch]) -> dict[str, Any]:
        made = {}
        shape = len(batches[0]) * self.loader.world_size, batches[0].tokens.shape[1]
        for name in self.fields:
            here = [getattr(batch, name) for batch in batches]
            local = here[0] if len(here) == 1 else np.concatenate(here)
            if local.dtype == np.int64:
                local = local.astype(np.int32)
            made[name] = jax.make_array_from_process_local_data(self.sharding, local, shape)
        return made


def _held(sharding: Any, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Cut the rows of this process's devices into equal slices, as few as it takes: (rank, world size) of each.

    Almost always one slice: devices of a process stand next to each other in a mesh.
    """
    try:
        places = sharding.addressable_devices_indices_map(shape)
    except ValueError as error:
        raise RequestError(f"batches of {shape[0]} rows of {shape[1]} tokens are not cut as asked: {error}") from error
    rows = sorted({where[0].indices(shape[0])[:2] for where in places.values()})
    runs: list[list[int]] = []
    for start, stop in rows:
        if runs and runs[-1][1] == start:
            runs[-1][1] = stop
        else:
            runs.append([start, stop])
    size = gcd(shape[0], *(end for run in runs for end in run))
    return [(start // size, shape[0] // size) for run in runs for start in range(run[0], run[1], size)]
