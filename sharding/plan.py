"""What a training run has asked for and how far it is: frozen values, and the few integers a checkpoint keeps.

A plan is a list of segments, each from a position on: batch size, generation, pack, mixture, what repeats how often,
which documents are left out; and ranges of positions that are skipped. A change during training appends a segment, so
any later reader can say what every step contained. The state is position, plan and fingerprints: about 250 bytes of
JSON while nothing changes, 150 more a change, the same on every rank; world size is not in it, so it may change freely.

Positions count rows of the global order and run on for ever. A batch is cut where the batch size, the generation, the
pack or the documents left out change and where a skipped range begins; another mixture begins inside a batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from .. import RequestError
from .cached import cached_property

STATE_VERSION = 1
#: Positions end here: beyond, products of the order's arithmetic leave 64 bits.
LARGEST_POSITION = 1 << 62

#: Blocks and rows by lanes; all rows by one permutation, whatever that costs in reads; none, as the payload lies.
Shuffle = Literal["block", "full"] | None
#: Streams and their whole numbers, sorted by name.
Weights = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Segment:
    """What is read from a position on.

    from_position: in rows of the global order. batch_size: global, in rows. mixture: "train", "validation", or the
    streams and weights asked for. order: hash of everything that decides the order of rows besides the seed. caps:
    streams that leave the mixture after so many epochs of theirs. without: ids of documents that are left out.
    """

    from_position: int
    batch_size: int
    generation: int
    pack: str
    mixture: str | Weights
    order: str
    caps: Weights = ()
    without: tuple[int, ...] = ()

    @property
    def batches(self) -> tuple[int, int, str, tuple[int, ...]]:
        """What no batch may mix."""
        return self.batch_size, self.generation, self.pack, self.without

    def to_dict(self) -> dict[str, Any]:
        """As plain values; what is empty is left out."""
        values: dict[str, Any] = {"from": self.from_position, "batch_size": self.batch_size}
        values |= {"generation": self.generation, "pack": self.pack, "order": self.order}
        values["mixture"] = self.mixture if isinstance(self.mixture, str) else dict(self.mixture)
        if self.caps:
            values["caps"] = dict(self.caps)
        if self.without:
            values["without"] = list(self.without)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Segment:
        """Read what `to_dict` gave; KeyError, TypeError or ValueError where it is something else."""
        given = dict(values)
        mixture = given["mixture"]
        given["mixture"] = mixture if isinstance(mixture, str) else _weights(mixture)
        given["from_position"] = int(given.pop("from"))
        given["caps"] = _weights(given.get("caps", {}))
        given["without"] = tuple(int(document) for document in given.get("without", ()))
        return cls(**given)


def _weights(values: Any) -> Weights:
    return tuple((str(name), int(weight)) for name, weight in dict(values).items())


@dataclass(frozen=True)
class Run:
    """Batches of one size over the positions [start, end), the last one maybe short; `step` is the first one's number.

    end: None in the last run, which goes on for ever.
    """

    start: int
    end: int | None
    batch_size: int
    step: int


@dataclass(frozen=True)
class Plan:
    """Segments by position, the first from 0; and the ranges [first, past) of positions that are never read.

    An empty range only cuts a batch in two.
    """

    segments: tuple[Segment, ...]
    skips: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        starts = [segment.from_position for segment in self.segments]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise RequestError(f"a plan's segments start at 0 and then at rising positions, not at {starts}")
        if min(segment.batch_size for segment in self.segments) < 1:
            raise RequestError("a batch has at least 1 row; raise batch_size")
        apart = all(past < first for (_, past), (first, _) in zip(self.skips, self.skips[1:], strict=False))
        if not apart or not all(0 <= first <= past for first, past in self.skips):
            raise RequestError(
                f"a plan's skips are ranges of rising positions, apart from each other, not {self.skips}"
            )

    @property
    def last(self) -> Segment:
        """The segment that stands from its position on for ever."""
        return self.segments[-1]

    def segment(self, position: int) -> Segment:
        """Give the segment that holds a position."""
        return self.segments[bisect_right(self._starts, position) - 1]

    @cached_property
    def _starts(self) -> list[int]:
        return [segment.from_position for segment in self.segments]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Ranges of batches of one size, without gap or overlap in steps."""
        cuts = [segment.from_position for segment, before in zip(self.segments[1:], self.segments, strict=False)
                if segment.batches != before.batches]  # fmt: skip
        runs: list[Run] = []
        step = start = 0
        for end, resumed in sorted([*self.skips, *((cut, cut) for cut in cuts)]):
            if end > start:
                size = self.segment(start).batch_size
                runs.append(Run(start, end, size, step))
                step += -(-(end - start) // size)
            start = max(start, resumed)
        return (*runs, Run(start, None, self.segment(start).batch_size, step))

    @cached_property
    def _run_starts(self) -> list[int]:
        return [run.start for run in self.runs]

    @cached_property
    def _run_steps(self) -> list[int]:
        return [run.step for run in self.runs]

    def step(self, position: int) -> int:
        """Number of the batch that holds a position; of the next one, where it is skipped."""
        number = max(0, bisect_right(self._run_starts, position) - 1)
        run = self.runs[number]
        if run.end is not None and position >= run.end:
            return self.runs[number + 1].step
        return run.step + max(0, position - run.start) // run.batch_size

    def extent(self, step: int) -> tuple[int, int]:
        """First and past-the-last position of a step's batch: arithmetic, whatever the step."""
        if step < 0:
            raise RequestError(f"steps count from 0; there is no step {step}")
        run = self.runs[bisect_right(self._run_steps, step) - 1]
        start = run.start + (step - run.step) * run.batch_size
        if start > LARGEST_POSITION - run.batch_size:
            raise RequestError(f"step {step} lies beyond position 2^62, where the order of rows ends")
        return start, start + run.batch_size if run.end is None else min(start + run.batch_size, run.end)

    def alike(self, step: int, last: int) -> list[int]:
        """Where the batches [step, last) start, as long as they are whole ones of one run; the first in any case."""
        run = self.runs[bisect_right(self._run_steps, step) - 1]
        start = run.start + (step - run.step) * run.batch_size
        whole = last - step if run.end is None else min(last - step, (run.end - start) // run.batch_size)
        return [start + number * run.batch_size for number in range(max(1, whole))]

    def begins_batch(self, position: int) -> bool:
        """Whether a batch begins at a position, or behind the skipped ones from there on; not before it."""
        return self.extent(self.step(position))[0] >= position

    def continued(self, segment: Segment) -> Plan:
        """This plan up to where `segment` starts, then that one; no new segment where nothing changes."""
        kept = tuple(old for old in self.segments if old.from_position < segment.from_position)
        if kept and replace(kept[-1], from_position=segment.from_position) == segment:
            plan = replace(self, segments=kept)
            return plan if plan.begins_batch(segment.from_position) else plan.cut(segment.from_position)
        return replace(self, segments=(*kept, segment))

    def cut(self, position: int) -> Plan:
        """Have a batch begin at a position."""
        return self if self.begins_batch(position) else self.skipping(position, position)

    def edited(self, position: int, edit: Callable[[Segment], Segment]) -> Plan:
        """This plan with every segment from a position on edited; the one in force there is cut in two."""
        here = replace(self.segment(position), from_position=position)
        kept = [old for old in self.segments if old.from_position < position]
        later = [old for old in self.segments if old.from_position > position]
        return replace(self, segments=(*kept, *map(edit, [here, *later])))

    def resized(self, position: int, batch_size: int) -> Plan:
        """This plan with batches of another size from a position on."""
        return self.edited(position, lambda segment: replace(segment, batch_size=batch_size))

    def skipping(self, first: int, past: int) -> Plan:
        """This plan without the positions [first, past)."""
        apart = [skip for skip in self.skips if skip[1] < first or skip[0] > past]
        near = [skip for skip in self.skips if skip not in apart] + [(first, past)]
        joined = (min(skip[0] for skip in near), max(skip[1] for skip in near))
        return replace(self, skips=tuple(sorted([*apart, joined])))


@dataclass(frozen=True)
class State:
    """How far a run is, of which data, in which order."""

    position: int
    seed: int
    shuffle: Shuffle
    tokens_sha256: str
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON keeps."""
        head = {"version": STATE_VERSION, "position": self.position, "seed": self.seed, "shuffle": self.shuffle}
        values = {**head, "tokens_sha256": self.tokens_sha256, "plan": [part.to_dict() for part in self.plan.segments]}
        return {**values, "skips": [list(skip) for skip in self.plan.skips]} if self.plan.skips else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> State:
        """Read what `to_dict` gave; refuses another version and what it does not know, in words."""
        version = values.get("version") if isinstance(values, Mapping) else None
        if version != STATE_VERSION:
            raise RequestError(
                f"this is not a loader state of version {STATE_VERSION} (its version is {version!r}); "
                "give what state_dict() returned, and read newer states with a newer penstock"
            )
        needed = {"version", *(field.name for field in fields(cls))}
        try:
            if set(values) - {"skips"} != needed:
                raise ValueError(f"its fields are {sorted(values)}")
            segments = tuple(Segment.from_dict(segment) for segment in values["plan"])
            skips = tuple((int(first), int(past)) for first, past in values.get("skips", ()))
            shuffle = values["shuffle"]
            if shuffle not in ("block", "full", None):
                raise ValueError(f"its shuffle is {shuffle!r}")
            head = int(values["position"]), int(values["seed"]), shuffle, str(values["tokens_sha256"])
            state = cls(*head, Plan(segments, skips))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"this loader state is damaged: {error!r}; give what state_dict() returned") from error
        if not 0 <= state.position <= LARGEST_POSITION:
            raise RequestError(f"this loader state is damaged: its position is {state.position}")
        return state


def check_same(saved: State, wanted: State) -> None:
    """Refuse to go on from `saved` with a loader made as `wanted`, unless both read the same rows in the same order."""
    then, now = saved.plan.last, wanted.plan.last
    change = "; to change it from there on, StreamingLoader.from_state(path, state, {}=…)"
    pairs = (
        ("generation", then.generation, now.generation, "open the generation it was saved with", "generation"),
        ("data with tokens_sha256", saved.tokens_sha256, wanted.tokens_sha256, "open the data it was saved with", ""),
        ("pack", then.pack, now.pack, f"pass pack={then.pack!r}", "pack"),
        ("seed", saved.seed, wanted.seed, f"pass seed={saved.seed}", ""),
        ("shuffle", saved.shuffle, wanted.shuffle, f"pass shuffle={saved.shuffle!r}", ""),
        ("mixture", shown(then.mixture), shown(now.mixture), "pass the weights or split it was saved with", "weights"),
        ("caps", shown(then.caps), shown(now.caps), "pass the caps it was saved with", "caps"),
        ("order of rows", then.order, now.order, "the pack's tables are not those it was saved with", ""),
    )
    for name, old, new, way, argument in pairs:
        if old != new:
            raise RequestError(
                f"this state was saved with {name} {old}, the loader reads {name} {new}: {way}"
                + (change.format(argument) if argument else "")
            )


def shown(mixture: str | Weights) -> str:
    """Give a mixture for people."""
    return mixture if isinstance(mixture, str) else ", ".join(f"{name}={weight}" for name, weight in mixture) or "none"
