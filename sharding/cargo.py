"""A batch's arrays laid one behind the other in one memory, so that a single copy moves them to a device; and the share
of them that falls to one of several context-parallel ranks, which cut each row between them.

Laying out costs one more copy of the tokens on the host, in the thread that makes batches; without extra fields, cuts
and widening the batch's own memory goes as it is. NumPy alone: the adapters give the memory (pinned) and move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .. import RequestError
from .batch import Batch
from .buffers import Buffers

Cut = Literal["contiguous", "zigzag"]
#: Outputs of a batch with an entry a token, besides tokens and labels.
PER_TOKEN = ("loss_mask", "position_ids", "document_positions", "segment_ids", "document_ids")
#: Outputs of a batch that can be asked for ahead.
FIELDS = (*PER_TOKEN, "targets", "cu_seqlens")
# Where an array may start: the widest kind of number, document_ids, has 8 bytes.
_ALIGNED = 8
# Memory is asked for in steps of so many bytes, so that batches with a few more pieces find some of their size.
_STEP = 1 << 16


@dataclass(frozen=True)
class Context:
    """The share of every row that falls to rank `rank` of `size` ranks.

    contiguous: L / size tokens each. zigzag: of 2·size chunks, chunks rank and 2·size - 1 - rank, so that under a
    causal mask all ranks have the same work, as Megatron-LM and Llama 3 (arXiv:2407.21783, §3.3.2) cut rows.
    """

    rank: int = 0
    size: int = 1
    cut: Cut = "contiguous"

    def __post_init__(self) -> None:
        if self.cut not in get_args(Cut):
            raise RequestError(f"the cut of a row is {self.cut!r}; it is one of {', '.join(get_args(Cut))}")
        if self.size < 1 or not 0 <= self.rank < self.size:
            raise RequestError(f"context rank is {self.rank} of {self.size}; ranks go from 0 to size - 1")

    @property
    def pieces(self) -> int:
        """Chunks that a row is cut into."""
        return self.size * (2 if self.cut == "zigzag" and self.size > 1 else 1)

    def chunks(self, length: int) -> list[slice]:
        """Where this rank's chunks of a row lie."""
        part = length // self.pieces
        numbers = [self.rank] if self.pieces == self.size else [self.rank, self.pieces - 1 - self.rank]
        return [slice(number * part, (number + 1) * part) for number in numbers]

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Give this rank's (b, L / size) of an array (b, L)."""
        if self.size == 1:
            return array
        return np.concatenate([array[:, chunk] for chunk in self.chunks(array.shape[1])], axis=1)

    def of_buffer(self, buffer: NDArray[Any]) -> NDArray[Any]:
        """Give this rank's chunks of (b, L + 1), each with the token behind it: (b, chunks, L / pieces + 1)."""
        if self.size == 1:
            return buffer[:, None]
        chunks = self.chunks(buffer.shape[1] - 1)
        return np.stack([buffer[:, chunk.start : chunk.stop + 1] for chunk in chunks], axis=1)

    def check(self, length: int) -> None:
        """Refuse rows that are not cut equally."""
        if rest := length % self.pieces:
            below = length - rest
            nearest = below if below and 2 * rest <= self.pieces else below + self.pieces
            sizes = [size for size in range(1, self.size) if length % (size * self.pieces // self.size) == 0]
            raise RequestError(
                f"rows of {length} tokens are not cut equally into {self.pieces} {self.cut} chunks for {self.size} "
                f"context ranks; the nearest length that is is {nearest} (add a pack of it), the nearest number of "
                f"ranks {sizes[-1] if sizes else 1}"
            )


@dataclass(frozen=True)
class Cargo:
    """Arrays in one memory. places: first byte, kind of number and shape of each; `buffer` holds the tokens."""

    batch: Batch
    memory: NDArray[np.int32]
    places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]]

    @property
    def end(self) -> int:
        """Position past the batch's last row."""
        return self.batch.end

    def array(self, name: str) -> NDArray[Any]:
        """Give one of the arrays, a view."""
        start, kind, shape = self.places[name]
        return np.ndarray(shape, kind, self.memory.data, start)


def load(batch: Batch, fields: Sequence[str], context: Context, buffers: Buffers, wide: bool = False) -> Cargo:
    """Lay out a batch's tokens and the `fields` asked for; the memory comes from `buffers`.

    wide: tokens as int64, for a device that would have to widen them itself while somebody waits.
    """
    arrays, wide = {"buffer": context.of_buffer(batch.buffer)}, wide and batch.buffer.itemsize < 8
    if not (wide or lays_out(fields, context)):
        return Cargo(batch, batch.buffer.reshape(-1), {"buffer": (0, batch.buffer.dtype, arrays["buffer"].shape)})
    arrays |= {name: output(batch, name, context) for name in needed(fields)}
    places, size = {}, 0
    for name, array in arrays.items():
        kind = np.dtype(np.int64) if wide and name == "buffer" else array.dtype
        places[name] = (size, kind, array.shape)
        size += -(-array.size * kind.itemsize // _ALIGNED) * _ALIGNED
    memory = buffers.take(1, -(-size // _STEP) * _STEP // 4).reshape(-1)
    cargo = Cargo(batch, memory, places)
    for name, array in arrays.items():
        cargo.array(name)[...] = array
    return cargo


def lays_out(fields: Sequence[str], context: Context) -> bool:
    """Say whether `load` takes memory of its own; else the batch's goes as it is."""
    return bool(needed(fields)) or context.size > 1


def output(batch: Batch, name: str, context: Context) -> NDArray[Any]:
    """Give one output of a batch as this rank of the context has it; unsigned ids as signed ones, which torch has."""
    array: NDArray[Any] = getattr(batch, name)
    if array.dtype == np.uint64:
        array = array.view(np.int64)
    return context.of(array) if name in PER_TOKEN else array


def needed(fields: Sequence[str]) -> list[str]:
    """Name the outputs of a batch that fields are made of."""
    made = ("loss_mask" if name == "targets" else name for name in fields if name not in ("tokens", "labels"))
    return list(dict.fromkeys(made))


def check_fields(fields: Sequence[str], known: Sequence[str] = FIELDS) -> tuple[str, ...]:
    """Give the fields as a tuple, or refuse what is none."""
    named = (fields,) if isinstance(fields, str) else tuple(fields)
    unknown = [name for name in named if name not in ("tokens", "labels", *known)]
    if unknown:
        raise RequestError(f"a batch has no {', '.join(map(repr, unknown))}; fields are {', '.join(known)}")
    return named
