"""What a training run has asked for and how far it is: frozen values, and the few integers a checkpoint keeps.

A plan is a list of segments, each from a position on: generation, pack, mixture and batch size. A change during
training appends a segment, so any later reader can say what every step contained. The state is position, plan and
fingerprints: about 250 bytes of JSON, the same on every rank; world size is not in it, and so may change freely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import RequestError

STATE_VERSION = 1
#: Positions end here: beyond, products of the order's arithmetic leave 64 bits.
LARGEST_POSITION = 1 << 62


@dataclass(frozen=True)
class Segment:
    """What is read from a position on.

    from_position: in rows of the global order. batch_size: global, in rows. mixture: "train", "validation", or the
    streams and weights asked for. order: hash of everything that decides the order of rows besides the seed.
    """

    from_position: int
    batch_size: int
    generation: int
    pack: str
    mixture: str | tuple[tuple[str, int], ...]
    order: str


@dataclass(frozen=True)
class Plan:
    """Segments by position, the first from 0. A segment's last batch is cut where the next begins."""

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        starts = [segment.from_position for segment in self.segments]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise RequestError(f"a plan's segments start at 0 and then at rising positions, not at {starts}")
        if min(segment.batch_size for segment in self.segments) < 1:
            raise RequestError("a batch has at least 1 row; raise batch_size")

    @property
    def last(self) -> Segment:
        """The segment that stands from its position on for ever."""
        return self.segments[-1]

    def step(self, position: int) -> int:
        """Number of the batch that holds a position."""
        steps = 0
        for segment, after in zip(self.segments, self.segments[1:], strict=False):
            if position < after.from_position:
                return steps + (position - segment.from_position) // segment.batch_size
            steps += _batches(segment, after)
        return steps + (position - self.last.from_position) // self.last.batch_size

    def extent(self, step: int) -> tuple[int, int]:
        """First and past-the-last position of a step's batch: arithmetic, whatever the step."""
        if step < 0:
            raise RequestError(f"steps count from 0; there is no step {step}")
        if step > LARGEST_POSITION // max(segment.batch_size for segment in self.segments):
            raise RequestError(f"step {step} lies beyond position 2^62, where the order of rows ends")
        for segment, after in zip(self.segments, self.segments[1:], strict=False):
            if step < _batches(segment, after):
                start = segment.from_position + step * segment.batch_size
                return start, min(start + segment.batch_size, after.from_position)
            step -= _batches(segment, after)
        start = self.last.from_position + step * self.last.batch_size
        return start, start + self.last.batch_size

    def begins_batch(self, position: int) -> bool:
        """Whether a batch begins at a position, not before it."""
        return self.extent(self.step(position))[0] == position

    def continued(self, segment: Segment) -> Plan:
        """This plan up to where `segment` starts, then that one; no new segment where nothing changes."""
        kept = tuple(old for old in self.segments if old.from_position < segment.from_position)
        if kept and replace(kept[-1], from_position=segment.from_position) == segment:
            whole = (segment.from_position - kept[-1].from_position) % segment.batch_size == 0
            return Plan(kept) if whole else Plan((*kept, segment))
        return Plan((*kept, segment))


def _batches(segment: Segment, after: Segment) -> int:
    return -(-(after.from_position - segment.from_position) // segment.batch_size)


@dataclass(frozen=True)
class State:
    """How far a run is, of which data, in which order."""

    position: int
    seed: int
    tokens_sha256: str
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON keeps."""
        segments = []
        for segment in self.plan.segments:
            values = {"from": segment.from_position, **asdict(segment)}
            del values["from_position"]
            if not isinstance(segment.mixture, str):
                values["mixture"] = dict(segment.mixture)
            segments.append(values)
        head = {"version": STATE_VERSION, "position": self.position, "seed": self.seed}
        return {**head, "tokens_sha256": self.tokens_sha256, "plan": segments}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> State:
        """Read what `to_dict` gave; refuses another version and what it does not know, in words."""
        version = values.get("version") if isinstance(values, Mapping) else None
        if version != STATE_VERSION:
            raise RequestError(
                f"this is not a loader state of version {STATE_VERSION} (its version is {version!r}); "
                "give what state_dict() returned, and read newer states with a newer penstock"
            )
        known = {"version", "position", "seed", "tokens_sha256", "plan"}
        try:
            if set(values) != known:
                raise ValueError(f"its fields are {sorted(values)}")
            segments = tuple(_segment(dict(segment)) for segment in values["plan"])
            state = cls(int(values["position"]), int(values["seed"]), str(values["tokens_sha256"]), Plan(segments))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"this loader state is damaged: {error!r}; give what state_dict() returned") from error
        if not 0 <= state.position <= LARGEST_POSITION:
            raise RequestError(f"this loader state is damaged: its position is {state.position}")
        return state


def _segment(values: dict[str, Any]) -> Segment:
    mixture = values["mixture"]
    if not isinstance(mixture, str):
        values["mixture"] = tuple((str(name), int(weight)) for name, weight in dict(mixture).items())
    return Segment(from_position=int(values.pop("from")), **values)


def check_same(saved: State, wanted: State) -> None:
    """Refuse to go on from `saved` with a loader made as `wanted`, unless both read the same rows in the same order."""
    then, now = saved.plan.last, wanted.plan.last
    pairs = (
        ("data with tokens_sha256", saved.tokens_sha256, wanted.tokens_sha256, "open the data it was saved with"),
        ("generation", then.generation, now.generation, "open the generation it was saved with"),
        ("pack", then.pack, now.pack, f"pass pack={then.pack!r}"),
        ("seed", saved.seed, wanted.seed, f"pass seed={saved.seed}"),
        ("mixture", _shown(then.mixture), _shown(now.mixture), "pass the weights or split it was saved with"),
        ("order of rows", then.order, now.order, "the pack's tables are not those it was saved with"),
    )
    for name, old, new, way in pairs:
        if old != new:
            raise RequestError(f"this state was saved with {name} {old}, the loader reads {name} {new}: {way}")


def _shown(mixture: str | tuple[tuple[str, int], ...]) -> str:
    return mixture if isinstance(mixture, str) else ", ".join(f"{name}={weight}" for name, weight in mixture)
