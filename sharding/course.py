"""What a plan means on the data: which rows its positions are, over changes of mixture, pack and generation.

Ordinals of a stream run on over every change within one pack, so exactly once holds over all of them; another pack is
another order of other rows, and begins anew (or goes on, where the plan comes back to it). A stream that has a cap
leaves the mixture where its next row would come, and the others share its places by their weights. Nothing is stored of
this: it follows from the plan and the counts of rows, in a few products a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .. import RequestError
from .cached import cached_property
from .cohorts import cohort_of
from .dataset import TokenData
from .mixture import Mixture, mixture
from .plan import LARGEST_POSITION, Plan, Segment, Shuffle, Weights, shown
from .positions import Leg, Positions, choose_streams


@dataclass(frozen=True)
class Reading:
    """Positions that are read from one generation, one pack and without the same documents: no batch has two of these.

    end: past its last position; None where it goes on for ever.
    """

    start: int
    end: int | None
    data: TokenData
    pack: str
    without: frozenset[int]
    positions: Positions


@dataclass
class _Read:
    """What of a pack has been read: rows by stream, and the last mixture up to which position."""

    had: dict[str, int]
    last: Leg | None = None
    stop: int = 0

    def leg(self, start: int, mixed: Mixture) -> Leg:
        """Begin a mixture, or go on with the last one where it is the same."""
        if self.last is not None and self.last.mixture == mixed:
            return replace(self.last, start=start, origin=start - (self.stop - self.last.origin))
        return Leg(start, start, mixed, tuple(self.had.get(name, 0) for name in mixed.names))

    def to(self, leg: Leg, stop: int) -> None:
        """Read a leg up to a position."""
        self.had |= leg.had(stop)
        self.last, self.stop = leg, stop


class Course:
    """The rows of a plan's positions. `end`: where every stream is at its cap; None where data never end."""

    def __init__(self, data: TokenData, plan: Plan, seed: int, shuffle: Shuffle) -> None:
        self.plan, self.seed, self.shuffle = plan, seed, shuffle
        self.end: int | None = None
        self._opened = {data.generation.number: data}
        self._data = data
        read: dict[str, _Read] = {}
        legs: list[list[Leg]] = []
        for number, segment in enumerate(plan.segments):
            until = plan.segments[number + 1].from_position if number + 1 < len(plan.segments) else None
            legs.append(self._legs(segment, read.setdefault(segment.pack, _Read({})), until))
        self.readings = tuple(self._readings(legs))

    def at(self, position: int) -> Reading:
        """Give what a position is read from."""
        return next(reading for reading in reversed(self.readings) if reading.start <= position)

    def leg(self, position: int) -> Leg:
        """Give the mixture in force at a position."""
        return next(leg for leg in reversed(self.at(position).positions.legs) if leg.start <= position)

    def had(self, position: int) -> dict[str, int]:
        """Rows that each stream has given of the pack in force before a position, skipped ones included, by name."""
        held: dict[str, int] = {}
        pack = self.plan.segment(position).pack
        for reading in self.readings:
            if reading.pack == pack:
                for leg in reading.positions.legs:
                    if leg.start <= position:
                        held |= leg.had(position)
        return held

    def told(self) -> Plan:
        """The plan with each segment's order in it; RequestError where one that was told is not that of these data."""
        return replace(self.plan, segments=tuple(map(self._told, self.plan.segments)))

    def _told(self, segment: Segment) -> Segment:
        mixed = mixture_of(self._open(segment.generation), segment)
        order = self.at(segment.from_position).positions.order(mixed)
        if segment.order not in ("", order):
            raise RequestError(
                f"the plan was made with order of rows {segment.order} from position {segment.from_position} on, "
                f"generation {segment.generation} here has {order} in pack {segment.pack}: "
                "the pack's tables are not those it was made with; open the data it was made with"
            )
        return replace(segment, order=order)

    @cached_property
    def pack_start(self) -> int:
        """Position from which the last pack is in force without a break."""
        last = self.readings[-1].pack
        return next((before.end or 0 for before in reversed(self.readings) if before.pack != last), 0)

    @cached_property
    def epoch_rows(self) -> int:
        """Rows of all streams of the last mixture together."""
        positions = self.readings[-1].positions
        return positions.epoch_rows(positions.legs[0])

    def _open(self, generation: int) -> TokenData:
        if generation not in self._opened:
            self._opened[generation] = self._data.at(generation)
        return self._opened[generation]

    def _legs(self, segment: Segment, read: _Read, until: int | None) -> list[Leg]:
        """Part a segment where streams reach their caps; `read` becomes what of the pack is read at its end."""
        data = self._open(segment.generation)
        rows = {name: shape.rows for name, shape in data.generation.pack(segment.pack).streams.items()}
        weights, legs = dict(mixture_of(data, segment).weights), []
        caps = caps_of(segment.caps, rows)
        start: int | None = segment.from_position
        while start is not None:
            weights = {name: weight for name, weight in weights.items()
                       if name not in caps or read.had.get(name, 0) < caps[name]}  # fmt: skip
            if not weights:
                if until is not None:
                    raise RequestError(
                        f"every stream of {shown(segment.mixture)} has reached its cap ({shown(segment.caps)}) at "
                        f"position {start}, before the plan changes at {until}: raise the caps or change earlier"
                    )
                self.end = start
                break
            leg = read.leg(start, mixture(weights))
            legs.append(leg)
            ends = {name: caps[name] - ordinal for name, ordinal in leg.begun() if name in caps}
            full = [leg.origin + leg.mixture.position(name, rows_left) for name, rows_left in ends.items()]
            start = min((at for at in full if at < (LARGEST_POSITION if until is None else until)), default=None)
            if (stop := until if start is None else start) is not None:
                read.to(leg, stop)
        return legs

    def _readings(self, legs: list[list[Leg]]) -> list[Reading]:
        found: list[Reading] = []
        segments = self.plan.segments
        firsts = [number for number, segment in enumerate(segments)
                  if not number or segment.batches[1:] != segments[number - 1].batches[1:]]  # fmt: skip
        for first, after in zip(firsts, [*firsts[1:], len(segments)], strict=True):
            segment, data = segments[first], self._open(segments[first].generation)
            joined: list[Leg] = []
            for leg in (leg for part in legs[first:after] for leg in part):
                if not joined or replace(joined[-1], start=leg.start) != leg:  # else it only goes on
                    joined.append(leg)
            positions = Positions(data.generation, data.generation.pack(segment.pack), joined, self.seed, self.shuffle)
            end = segments[after].from_position if after < len(segments) else None
            without = frozenset(segment.without)
            found.append(Reading(segment.from_position, end, data, segment.pack, without, positions))
        return found


def mixture_of(data: TokenData, segment: Segment) -> Mixture:
    """Give the mixture that a segment asks for, streams by name."""
    pack = data.generation.pack(segment.pack)
    if isinstance(segment.mixture, str):
        return choose_streams(pack, segment.mixture, None)
    return choose_streams(pack, "train", dict(segment.mixture))


def caps_of(caps: Weights, rows: Mapping[str, int]) -> dict[str, int]:
    """Give the rows after which streams leave the mixture; a name's cap holds for each of its cohorts."""
    told = dict(caps)
    found = {
        name: told[key] * count for name, count in rows.items() for key in (cohort_of(name)[0], name) if key in told
    }
    if unknown := sorted(set(told) - set(rows) - {cohort_of(name)[0] for name in rows}):
        raise RequestError(f"there is no stream {', '.join(unknown)} to cap: streams are {', '.join(sorted(rows))}")
    return found
