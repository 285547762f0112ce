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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import RequestError
from .arguments import Mixing, check_reading, check_share, checked_positions, epochs_asked, first_plan, whole_numbers
from .batch import Batch
from .blocks import Blocks
from .buffers import Buffers
from .cache import CACHE_BYTES, BlockCache, cache_folder
from .changes import changed, without
from .course import Course, Reading
from .dataset import TokenData, open_tokens
from .fetching import Fetching
from .format import PackOrder
from .look_ahead import batches
from .plan import Plan, Shuffle, State, check_same
from .positions import Places
from .quarantine import Corrupt, Quarantined, check_corrupt
from .schedule import Job, Schedule, Tail
from .threads import Pool, ahead
from .whole import Document, documents

_CHANGES = ("batch_size", "weights", "split", "pack", "generation", "caps")


class StreamingLoader:
    """Iterate over this rank's rows of each global batch, from where the loader stands.

    path: a run's folder, its `tokens/`, a store's URL, or opened TokenData.
    batch_size: rows of the *global* batch; rank r of W gets rows ⌊rB/W⌋ to ⌊(r+1)B/W⌋ of it, sorted by lane.
    pack: name of the pack where there are several.
    weights: streams and their weights (7 and 3, or 0.7 and 0.3), or a list of (position, weights) where they change;
        without them all streams of `split` ("train" or "validation"), each by its rows, so that an epoch gives every
        row once (where several streams have more than 2^31 rows in all, to within the rounding of their weights).
    shuffle: "block", lanes of blocks, each of which one rank reads; "full", one permutation of all rows, whatever that
        costs in reads; None, as the payload lies.
    epochs: ends after so many times all rows; by stream, {"web": 1, "code": 4}, each stream gives exactly its own;
        without it positions run on, each epoch in a new order.
    caps: epochs after which a stream leaves the mixture, and the others share its places by their weights.
    tail: what becomes of the last batch then: "drop" it for good, "pad" it with rows masked whole, "carry" it over to
        whoever goes on with more epochs, or give it "short".
    prefetch: batches made ahead by a thread; 0 makes them in the caller's.
    threads: blocks read at once.
    stall: seconds after which a block that does not come is an error.
    corrupt: what becomes of a block that stays damaged or lost, read again past the cache: "raise" an error, or
        "quarantine" it: its rows are padding, masked whole, and `quarantined` lists it.
    cache, cache_bytes: folder and size of the block cache for remote stores; see `cache`.
    options: for the store's client.

    Raises RequestError for what cannot be asked, StoreError and CorruptDataError, naming rank, position and block, for
    what cannot be read.
    """

    _state: State
    _course: Course
    _schedule: Schedule

    def __init__(
        self,
        path: str | Path | TokenData,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pack: str | None = None,
        weights: Mixing | None = None,
        split: str = "train",
        shuffle: Shuffle = "block",
        epochs: int | Mapping[str, int] | None = None,
        caps: Mapping[str, int] | None = None,
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
        batch_size, seed, rank, world_size = whole_numbers(batch_size, seed, rank, world_size)
        check_share(batch_size, rank, world_size, tail, shuffle)
        check_reading(prefetch, threads, stall)
        check_corrupt(corrupt)
        data = path if isinstance(path, TokenData) else open_tokens(path, generation, **(options or {}))
        self._data, self.rank, self.world_size, self.tail = data, rank, world_size, tail
        self._prefetch, self._threads, self._stall, self._corrupt = prefetch, threads, stall, corrupt
        self._cache = cache_folder() if cache is None else Path(cache), cache_bytes
        self.buffers = Buffers(prefetch + 2)
        #: What the thread that makes batches does with each last; adapters have it lay out what they move.
        self.finish: Callable[[Batch], Any] = _as_made
        order = data.generation.pack(pack)
        self.epochs, weights, caps = epochs_asked(epochs, weights, caps, order)
        plan = first_plan(batch_size, data.generation.number, order.pack.name, split, weights, caps)
        self._rebuild = {
            "path": data, "batch_size": batch_size, "seed": seed, "rank": rank, "world_size": world_size, "pack": pack,
            "weights": weights, "split": split, "shuffle": shuffle, "epochs": self.epochs, "caps": caps, "tail": tail,
            "prefetch": prefetch, "threads": threads, "stall": stall, "corrupt": corrupt, "cache": cache,
            "cache_bytes": cache_bytes,
        }  # fmt: skip
        self._start()
        self._adopt(State(0, seed, shuffle, data.generation.tokens_sha256, plan))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._rebuild, self._state)

    @classmethod
    def from_state(cls, path: str | Path | TokenData, state: Mapping[str, Any], **arguments: Any) -> StreamingLoader:
        """Make the loader that saved a state, standing where it stood; `arguments` say what the state leaves open.

        Another batch_size, weights, split, pack, generation or caps are what `change` makes of them from there on.
        """
        saved = State.from_dict(state)
        last = saved.plan.last
        changes = {name: arguments.pop(name) for name in _CHANGES if name in arguments}
        mixed = {"split": last.mixture} if isinstance(last.mixture, str) else {"weights": dict(last.mixture)}
        asked = {"seed": saved.seed, "shuffle": saved.shuffle, "pack": last.pack, **mixed}
        data = path if isinstance(path, TokenData) else open_tokens(path, **(arguments.get("options") or {}))
        loader = cls(data.at(last.generation), last.batch_size, **{**asked, **arguments})
        check_same(replace(saved, plan=Plan((replace(last, from_position=0, caps=(), without=()),))), loader._state)
        loader._adopt(saved)
        loader.change(**changes)
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
    def data(self) -> TokenData:
        """The data set as it is read here."""
        return self._course.at(self.position).data

    @property
    def seed(self) -> int:
        """Key of the order."""
        return self._state.seed

    @property
    def step(self) -> int:
        """Number of the next batch."""
        return self.step_at(self.position)

    @property
    def batch_size(self) -> int:
        """Rows of a global batch here."""
        return self.plan.segment(self.position).batch_size

    @property
    def pack(self) -> PackOrder:
        """The pack that is read here."""
        reading = self._course.at(self.position)
        return reading.data.generation.pack(reading.pack)

    @property
    def epoch_rows(self) -> int:
        """Rows of all streams of the mixture together."""
        return self._course.epoch_rows

    @property
    def quarantined(self) -> list[Quarantined]:
        """The blocks that this rank has set aside, with the positions whose rows came as padding."""
        return [record for fetching in self._fetching.values() for record in fetching.blocks.quarantine.records]

    def __len__(self) -> int:
        """Batches in `epochs`, from the first; TypeError where the loader never ends."""
        if (steps := self._schedule.steps) is None:
            raise TypeError("this loader has no end; pass epochs=, or stop after a number of steps")
        return steps

    def progress(self) -> dict[str, dict[str, float]]:
        """Say for each stream how many rows of this pack it has given before here, and how many epochs that is."""
        rows = {name: shape.rows for name, shape in self.pack.streams.items()}
        had = self._course.had(self.position)
        return {name: {"rows": count, "epochs": count / rows[name]} for name, count in sorted(had.items())}

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, the same on every rank: plain values for JSON. See `plan`."""
        return self._state.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where a state was saved, in its plan. Another batch size goes on from there in its own batches.

        Another seed, shuffle, pack, mixture, generation or other data: RequestError, with both values.
        """
        saved = State.from_dict(state)
        check_same(saved, self._state)
        size, plan = self.plan.last.batch_size, saved.plan
        if plan.last.batch_size != size:
            plan = plan.resized(saved.position, size)
        self._adopt(replace(saved, plan=plan.cut(saved.position)))

    def change(
        self,
        *,
        at: int | None = None,
        batch_size: int | None = None,
        weights: Mixing | None = None,
        split: str | None = None,
        pack: str | None = None,
        generation: int | None = None,
        caps: Mapping[str, int] | None = None,
    ) -> None:
        """Read otherwise from here on, or from the position `at` on; what is not named stays as it is.

        Weights may change inside a batch, the others cut it there. What was planned from there on is planned no more,
        unless only the batch size changes. Appends a segment to the plan, which stands in the state.
        """
        state = changed(self._course, self._state, at, batch_size, weights, split, pack, generation, caps)
        if state is not self._state:
            self._adopt(state)

    def skip(self, steps: range | tuple[int, int] | None = None, documents: Iterable[int] = ()) -> None:
        """Leave out steps to come, or from here on documents by their ids; both stand in the plan.

        steps: range(first, past); the steps behind them move up. documents: ids as batches have them; their places
        become padding, and every other row stays what it was.
        """
        self._adopt(without(self._state, self.step, steps, documents))

    def seek(self, step: int) -> None:
        """Stand before a step's batch, by the plan's batch sizes; costs the same for any step."""
        self.stand(self.plan.extent(step)[0])

    def stand(self, position: int) -> None:
        """Stand where a batch of the plan begins."""
        self._state = replace(self._state, position=position)

    def step_at(self, position: int) -> int:
        """Number of the batch that comes at a position; where the data has ended, of the batches that came."""
        return self._schedule.step(position)

    def at(self, step: int) -> Batch:
        """Give this rank's rows of one step, and leave the loader where it stands."""
        return self._made(self._schedule.job(step))

    def rows(self, positions: NDArray[np.int64] | Sequence[int]) -> Batch:
        """Give the rows at these positions, in this order, whatever the rank: random access to the endless order."""
        asked = checked_positions(positions)
        reading, places = self._located(asked)
        return self._made(Job(-1, -1, -1, asked, places, reading))

    def places(self, positions: NDArray[np.int64] | Sequence[int]) -> Places:
        """Say where the rows at these positions lie: shard, group, row in the group and epoch of each, (n,) int64."""
        return self._located(checked_positions(positions))[1]

    def _located(self, asked: NDArray[np.int64]) -> tuple[Reading, Places]:
        reading = self._course.at(int(asked.min()) if asked.size else self.position)
        if reading.end is not None and asked.max(initial=0) >= reading.end:
            raise RequestError(f"pack or data change at position {reading.end}: ask for rows on either side apart")
        return reading, reading.positions.places(asked)

    def documents(self, epoch: int = 0) -> Iterator[Document]:
        """Iterate over this rank's share of an epoch's whole documents, for those who pack themselves."""
        reading, leg = self._course.at(self.position), self._course.leg(self.position)
        blocks = self._fetch(reading).blocks
        return documents(reading.positions.shards(leg), blocks, self.seed, epoch, self.rank, self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            state = self._state
            for batch in ahead(partial(self._batches, state.position), self._prefetch):
                self._state = state = replace(state, position=batch.end)
                yield batch
                if self._state is not state:
                    break  # The caller has moved the loader.
            else:
                return self._end()

    def _end(self) -> None:
        """Leave the rows of a dropped batch out for good, so that whoever goes on begins behind them."""
        end = self._schedule.end
        if self.tail == "drop" and end is not None and self.position < end:
            plan = self.plan.skipping(self.position, end)
            self._adopt(replace(self._state, position=end, plan=plan))

    def _batches(self, position: int) -> Iterator[Batch]:
        """Make batches in order; the blocks of those to come are asked for before they are needed."""
        jobs = self._schedule.jobs(position)
        made = batches(jobs, lambda job: self._fetch(job.reading), self._prefetch, self.buffers)
        return map(self.finish, made)

    def _made(self, job: Job) -> Batch:
        fetching = self._fetch(job.reading)
        return fetching.made(job, fetching.ask(job), self.buffers)

    def _adopt(self, state: State) -> None:
        """Stand somewhere in a plan, and know what it means on the data."""
        course = Course(self._data, state.plan, state.seed, state.shuffle)
        state = replace(state, plan=course.told())
        end = course.end
        if self.epochs is not None:
            last = course.pack_start + self.epochs * course.epoch_rows
            end = last if end is None else min(end, last)
        self._state, self._course = state, course
        self._schedule = Schedule(course, self.rank, self.world_size, end, self.tail)

    def _start(self) -> None:
        self._process, self._pool = os.getpid(), Pool(self._threads)
        self._fetching: dict[tuple[int, str, frozenset[int]], Fetching] = {}

    def _fetch(self, reading: Reading) -> Fetching:
        """Give what reads blocks; anew in a forked process: it has no threads, and locks may stay locked there."""
        if self._process != os.getpid():
            self._start()
        key = reading.data.generation.number, reading.pack, reading.without
        if key not in self._fetching:
            generation = reading.data.generation
            cache, pack = BlockCache(*self._cache), generation.pack(reading.pack)
            blocks = Blocks(reading.data.store, generation, pack, cache, self._corrupt, without=reading.without)
            self._fetching[key] = Fetching(blocks, self._pool, self.rank, self._stall)
        return self._fetching[key]


def _as_made(batch: Batch) -> Batch:
    return batch


def _rebuilt(arguments: dict[str, Any], state: State) -> StreamingLoader:
    loader = StreamingLoader(**arguments)
    loader._adopt(state)
    return loader
