"""Which rows of a batch, and which part of each row, a rank of a training run gets.

Ranks that share the batches (data parallel, sharded or not) get different rows. Tensor- and pipeline-parallel ranks
work on the same rows, so they pass the same data rank. Context-parallel ranks share rows too, each a part of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .. import RequestError
from .cargo import Context, Cut


@dataclass(frozen=True)
class Share:
    """Rank `rank` of the `world_size` that share the batches, and the part of each row."""

    rank: int
    world_size: int
    context: Context


def share(
    rank: int | None,
    world_size: int | None,
    context: str | tuple[int, int] | None,
    cut: Cut,
    mesh: Any,
    data: str | Sequence[str] | None,
    found: tuple[int, int],
) -> Share:
    """Work out a rank's share from numbers, or from a device mesh and the names of its dimensions.

    found: rank and size of all processes together, for who says nothing else.
    """
    if mesh is not None:
        if (rank, world_size) != (None, None):
            raise RequestError("pass mesh and data, or rank and world_size: both say which rows this rank gets")
        part = _along(mesh, [context])[0] if isinstance(context, str) else context or (0, 1)
        return Share(*_joined(_along(mesh, _data_names(mesh, data, context))), Context(*part, cut))
    if data is not None or isinstance(context, str):
        name = context if data is None else data
        raise RequestError(f"{name!r} names a dimension of a device mesh: pass mesh=")
    if context is not None and (rank is None or world_size is None):
        raise RequestError(
            "context ranks get the same rows, so which rows is not theirs to say: with context=(rank, size) also pass "
            "rank and world_size of the data-parallel ranks, or pass mesh="
        )
    own = found[0] if rank is None else rank
    return Share(own, found[1] if world_size is None else world_size, Context(*(context or (0, 1)), cut))


def _data_names(mesh: Any, data: str | Sequence[str] | None, context: Any) -> list[str]:
    names = list(mesh.mesh_dim_names or ())
    if data is None:
        left = [name for name in names if name != context]
        if len(left) != 1:
            raise RequestError(f"say which of the mesh's dimensions {names} share the batches: data='dp', or several")
        return left
    asked = [data] if isinstance(data, str) else list(data)
    if context in asked:
        raise RequestError(f"dimension {context!r} is asked to share the batches and to cut their rows: it does one")
    return asked


def _along(mesh: Any, names: Sequence[str]) -> list[tuple[int, int]]:
    """Rank and size along each dimension, outermost first; flattened dimensions have names too."""
    try:
        return [(mesh[name].get_local_rank(), mesh[name].size()) for name in names]
    except KeyError as error:
        raise RequestError(f"the mesh has dimensions {list(mesh.mesh_dim_names or ())}, not {list(names)}") from error


def _joined(places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    rank = 0
    for own, size in places:
        rank = rank * size + own
    return rank, prod(size for _, size in places)


def check_equal(batch_size: int, world_size: int, tail: str) -> None:
    """Refuse batches that ranks do not share equally: ranks that wait for each other would weigh rows unequally."""
    if batch_size % world_size:
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
