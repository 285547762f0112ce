"""The streaming loader: batches of packed rows, a function of (seed, position) alone.

    loader = StreamingLoader("run/", batch_size=512, seed=0, rank=rank, world_size=world_size)
    for batch in loader:
        batch.tokens, batch.labels          # this rank's rows, (b, L) int32
        loader.state_dict()                 # the next batch is the first one after this state

Nothing is built, drawn or replayed: where a loader stands is one integer, so it seeks to step 10^12 as fast as to 0,
and the number of ranks may change at any step. Reading is arithmetic, a copy, and a checksum when a block is first met.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import check_reading, check_share, checked_positions, whole_numbers
from .batch import Batch
from .blocks import Blocks
from .buffers import Buffers
from .cache import CACHE_BYTES, BlockCache, cache_folder
from .dataset import TokenData, open_tokens
from .fetching import Fetching
from .plan import Plan, Segment, State, check_same
from .positions import Positions, choose_streams
from .quarantine import Corrupt, Quarantined, check_corrupt
from .schedule import Job, Schedule, Tail
from .threads import Pool, ahead
from .whole import Document, documents


class StreamingLoader:
    """Iterate over this rank's rows of each global batch, from where the loader stands.

    path: a run's folder, its `tokens/`, a store's URL, or opened TokenData.
    batch_size: rows of the *global* batch; rank r of W gets rows ⌊rB/W⌋ to ⌊(r+1)B/W⌋ of it, sorted by lane.
    pack: name of the pack where there are several.
    weights: streams and their weights (7 and 3, or 0.7 and 0.3); without them all streams of `split` ("train" or
        "validation"), each by its rows, so that an epoch gives every row once (where several streams have more than
        2^31 rows in all, to within the rounding of their weights: see `mixture`).
    epochs: ends after so many times all rows; without it positions run on, each epoch in a new order.
    tail: what becomes of the last batch then: "drop" it, give it "short", or "pad" it with rows masked whole.
    prefetch: batches made ahead by a thread; 0 makes them in the caller's.
    threads: blocks read at once.
    stall: seconds after which a block that does not come is an error.
    corrupt: what becomes of a block that stays damaged or lost, read again past the cache: "raise" an error, or
        "quarantine" it: its rows are padding, masked whole, and `quarantined` lists it. See `quarantine`.
    cache, cache_bytes: folder and size of the block cache for remote stores; see `cache`.
    options: for the store's client.

    Raises RequestError for what cannot be asked, StoreError and CorruptDataError, naming rank, position and block, for
    what cannot be read.
    """

    def __init__(
        self,
        path: str | Path | TokenData,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pack: str | None = None,
        weights: Mapping[str, float] | None = None,
        split: str = "train",
        epochs: int | None = None,
        tail: Tail = "drop",
        generation: int | None = None,
        prefetch: int = 2,
        threads: int = 8,
        stall: float = 300.0,
        corrupt: Corrupt = "raise",
        cache: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        batch_size, seed, rank, world_size, epochs = whole_numbers(batch_size, seed, rank, world_size, epochs)
        check_share(batch_size, rank, world_size, epochs, tail)
        check_reading(prefetch, threads, stall)
        check_corrupt(corrupt)
        data = path if isinstance(path, TokenData) else open_tokens(path, generation, **(options or {}))
        self.data, self.rank, self.world_size, self.seed, self.epochs = data, rank, world_size, seed, epochs
        self.pack = data.generation.pack(pack)
        mixed = choose_streams(self.pack, split, weights)
        self.positions = Positions(data.generation, self.pack, mixed, seed)
        asked = split if weights is None else mixed.weights
        segment = Segment(0, batch_size, data.generation.number, self.pack.pack.name, asked, self.positions.fingerprint)
        self._state = State(0, seed, data.generation.tokens_sha256, Plan((segment,)))
        end = None if epochs is None else epochs * self.positions.epoch_rows
        self._schedule = Schedule(self.positions, rank, world_size, end, tail)
        self._prefetch, self._stall, self._corrupt = prefetch, stall, corrupt
        self._cache = cache_folder() if cache is None else Path(cache), cache_bytes
        self._threads, self.buffers = threads, Buffers(prefetch + 2)
        self._start()
        self._rebuild = {
            "path": data, "batch_size": batch_size, "seed": seed, "rank": rank, "world_size": world_size, "pack": pack,
            "weights": weights, "split": split, "epochs": epochs, "tail": tail, "prefetch": prefetch,
            "threads": threads, "stall": stall, "corrupt": corrupt, "cache": cache, "cache_bytes": cache_bytes,
        }  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._rebuild, self._state)

    @classmethod
    def from_state(cls, path: str | Path | TokenData, state: Mapping[str, Any], **arguments: Any) -> StreamingLoader:
        """Make the loader that saved a state, standing where it stood; `arguments` say what the state leaves open."""
        saved = State.from_dict(state)
        last = saved.plan.last
        mixed = {"split": last.mixture} if isinstance(last.mixture, str) else {"weights": dict(last.mixture)}
        asked = {"batch_size": last.batch_size, "seed": saved.seed, "pack": last.pack, "generation": last.generation}
        loader = cls(path, **{**asked, **mixed, **arguments})
        loader.load_state_dict(state)
        return loader

    @property
    def position(self) -> int:
        """Rows of the global order that came before the next batch."""
        return self._state.position

    @property
    def plan(self) -> Plan:
        """What was asked for from which position on."""
        return self._state.plan

    @property
    def step(self) -> int:
        """Number of the next batch."""
        return self.step_at(self.position)

    @property
    def batch_size(self) -> int:
        """Rows of a global batch from here on."""
        return self._state.plan.last.batch_size

    @property
    def epoch_rows(self) -> int:
        """Rows of all streams together."""
        return self.positions.epoch_rows

    @property
    def quarantined(self) -> list[Quarantined]:
        """The blocks that this rank has set aside, with the positions whose rows came as padding."""
        return self._fetching.blocks.quarantine.blocks

    def __len__(self) -> int:
        """Batches in `epochs`, from the first; TypeError where the loader never ends."""
        steps = self._schedule.steps(self._state.plan)
        if steps is None:
            raise TypeError("this loader has no end; pass epochs=, or stop after a number of steps")
        return steps

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, the same on every rank: plain values for JSON. See `plan`."""
        return self._state.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where a state was saved, in its plan. Another batch size goes on from there in its own batches.

        Another seed, pack, mixture, generation or other data: RequestError, with both values.
        """
        saved = State.from_dict(state)
        check_same(saved, self._state)
        segment = replace(self._state.plan.last, from_position=saved.position)
        changed = segment.batch_size != saved.plan.last.batch_size
        if changed or not saved.plan.begins_batch(saved.position):  # after the short last batch of an epoch
            saved = replace(saved, plan=saved.plan.continued(segment))
        self._state = saved

    def seek(self, step: int) -> None:
        """Stand before a step's batch, by the plan's batch sizes; costs the same for any step."""
        self.stand(self._state.plan.extent(step)[0])

    def stand(self, position: int) -> None:
        """Stand where a batch of the plan begins."""
        self._state = replace(self._state, position=position)

    def step_at(self, position: int) -> int:
        """Number of the batch that comes at a position; where the data has ended, of the batches that came."""
        return self._schedule.step(self.plan, position)

    def at(self, step: int) -> Batch:
        """Give this rank's rows of one step, and leave the loader where it stands."""
        return self._made(self._schedule.job(self._state.plan, step))

    def rows(self, positions: NDArray[np.int64] | Sequence[int]) -> Batch:
        """Give the rows at these positions, in this order, whatever the rank: random access to the endless order."""
        asked = checked_positions(positions)
        return self._made(Job(-1, -1, -1, asked, self.positions.places(asked)))

    def _made(self, job: Job) -> Batch:
        fetching = self._fetch()
        return fetching.made(job, fetching.ask(job), self.buffers)

    def documents(self, epoch: int = 0) -> Iterator[Document]:
        """Iterate over this rank's share of an epoch's whole documents, for those who pack themselves."""
        return documents(self.positions.shards, self._fetch().blocks, self.seed, epoch, self.rank, self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            state = self._state
            for batch in ahead(partial(self._batches, state), self._prefetch):
                self._state = state = replace(state, position=batch.end)
                yield batch
                if self._state is not state:
                    break  # The caller has moved the loader.
            else:
                return

    def _batches(self, state: State) -> Iterator[Batch]:
        """Make batches in order; the blocks of those to come are asked for before they are needed."""
        jobs = self._schedule.jobs(state.plan, state.position)
        return self._fetch().batches(jobs, self._prefetch, self.buffers)

    def _start(self) -> None:
        blocks = Blocks(self.data.store, self.data.generation, self.pack, BlockCache(*self._cache), self._corrupt)
        self._fetching = Fetching(blocks, Pool(self._threads), self.rank, self._stall)

    def _fetch(self) -> Fetching:
        """Begin anew in a forked process: it has no threads, so reads under way never end and locks stay locked."""
        if self._fetching.process != os.getpid():
            self._start()
        return self._fetching


def _rebuilt(arguments: dict[str, Any], state: State) -> StreamingLoader:
    loader = StreamingLoader(**arguments)
    loader.load_state_dict(state.to_dict())
    return loader
