"""How lines and how substrings find what stood before: what they send to an exchange, and what they cut of a part.

Lines take one exchange. Substrings take two: of runs of windows, then of the windows of runs that share a gram and are
not equal (`transforms/repeated_spans.py`). A part's units lie in memory, 50 to 100 bytes each: a run for 18 bytes of
text at n = 100, a window for 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..transforms.kernels.windows import COUNT_BITS
from ..transforms.repeated_lines import Lines
from ..transforms.repeated_spans import Encode, Substrings, Units, places_of
from .exchange import exchange, put_bands, sign_key
from .repeat_lists import Again, Link, Listed, Numbers, joint, listed, sent
from .runners import Job
from .stage import Meter, Receipt, Stage
from .token_units import TokenUnits
from .views import Fates, Part, View, get_array, put_array
from .vocabulary import RunTokenizer

COLUMNS = ("id", "source_id", "text")
Launch = Callable[[Job], None]
#: Rows of the part, the batch, and its cuts: rows of the batch (n,), spans (n, 2) from each text's beginning.
Cutting = tuple[NDArray[np.int64], pa.RecordBatch, NDArray[np.int64], NDArray[np.int64]]


class Method(Protocol):
    """How one kind of repeats is found and cut."""

    def find(self, stage: Stage, parts: Sequence[Part], launch: Launch, local: bool) -> tuple[Again, ...]:
        """Run the exchanges."""

    def cuts(self, part: Part, again: Sequence[Again]) -> Iterator[Cutting]:
        """Cut what they found of a part."""


@dataclass(frozen=True)
class LineMethod:
    """Windows of lines, paragraphs or sentences."""

    settings: Lines
    view: View

    def find(self, stage: Stage, parts: Sequence[Part], launch: Launch, local: bool) -> tuple[Again, ...]:
        """Run one exchange."""
        _, linked = exchange(stage, parts, partial(self._sign, stage), Link(stage, len(parts)), launch, local)
        return (Again(stage, listed(stage, linked, "repeats")),)

    def _sign(self, stage: Stage, part: Part, folder: Path, meter: Meter) -> Receipt:
        fates, base, numbers, digests = Fates(), 0, [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.uint64)]
        with meter.on("digests"):
            for _, batch in self.view.batches(part, ["text"], fates):
                units = self.settings.units(batch.column("text"))
                found, made = units.digests()
                numbers.append((found + base).astype(np.uint64))
                digests.append(made)
                base += len(units)
        receipt = {"part": part.key, "units": base, **fates.put(stage.store)}
        return receipt | _put(stage, part, np.concatenate(numbers), np.concatenate(digests), folder, meter)

    def cuts(self, part: Part, again: Sequence[Again]) -> Iterator[Cutting]:
        """Read the part again; cut the lines whose numbers are listed."""
        base, numbers = 0, again[0].of(part)
        for rows, batch in self.view.batches(part, COLUMNS):
            units = self.settings.units(batch.column("text"))
            first, end = np.searchsorted(numbers, np.array([base, base + len(units)], np.uint64)).tolist()
            yield rows, batch, *units.cuts(numbers[first:end].astype(np.int64) - base)
            base += len(units)


def runs_stage(stage: Stage) -> Stage:
    """Give the stage of a substrings stage's first exchange."""
    return replace(stage, name=f"{stage.name}-runs")


@dataclass(frozen=True)
class SpanMethod:
    """Stretches of bytes, words or tokens."""

    settings: Substrings
    view: View
    tokenizer: RunTokenizer | None = None

    def find(self, stage: Stage, parts: Sequence[Part], launch: Launch, local: bool) -> tuple[Again, ...]:
        """Run one exchange of runs and one of windows."""
        runs, windows = runs_stage(stage), replace(stage, name=f"{stage.name}-windows")
        _, linked = exchange(runs, parts, partial(self._sign_runs, runs), Link(runs, len(parts)), launch, local)
        sign = partial(self._sign_windows, windows, runs, listed(runs, linked, "shared"))
        _, others = exchange(windows, parts, sign, Link(windows, len(parts)), launch, local)
        return Again(runs, listed(runs, linked, "repeats")), Again(windows, listed(windows, others, "repeats"))

    def _sign_runs(self, stage: Stage, part: Part, folder: Path, meter: Meter) -> Receipt:
        fates, base, places, digests = Fates(), 0, [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.uint64)]
        with meter.on("runs"):
            starts, encode = [np.zeros(1, np.int64)], self._encode()
            for _, batch in self.view.batches(part, ["text"], fates):
                units = self.settings.units(batch.column("text"), encode)
                found, made = units.runs()
                places.append(found + np.uint64(base << COUNT_BITS))
                digests.append(made)
                starts.append(_starts(units)[1:] + base)
                base += len(units)
        placed, store = np.concatenate(places), stage.store
        receipt = {"part": part.key, "units": base, "places": put_array(store, placed, "places"), **fates.put(store)}
        receipt["starts"] = put_array(store, np.concatenate(starts).astype(np.uint64), "starts")
        numbers = np.arange(len(placed), dtype=np.uint64)
        return receipt | _put(stage, part, numbers, np.concatenate(digests), folder, meter)

    def _sign_windows(
        self, stage: Stage, runs: Stage, shared: Sequence[Listed], part: Part, folder: Path, meter: Meter
    ) -> Receipt:
        numbers, digests = [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.uint64)]
        places = _places(runs, part, joint([one.read(part.number) for one in shared]))
        with meter.on("windows"):
            for _, _, units, moved, inside in self._by_batch(runs, part, places, ["text"]):
                found, made = units.windows(inside)
                counts = np.diff(np.searchsorted(found, _starts(units).astype(np.uint64)))
                numbers.append(found + np.repeat(moved, counts))
                digests.append(made)
        return {"part": part.key} | _put(stage, part, np.concatenate(numbers), np.concatenate(digests), folder, meter)

    def cuts(self, part: Part, again: Sequence[Again]) -> Iterator[Cutting]:
        """Read the part again; cut what the runs and windows that are listed cover."""
        whole, single = again
        places = joint([_places(whole.stage, part, whole.of(part)), places_of(single.of(part))])
        for rows, batch, units, _, inside in self._by_batch(whole.stage, part, places, COLUMNS):
            yield rows, batch, *units.cuts(inside)

    def _encode(self) -> Encode | None:
        return TokenUnits(self.tokenizer.load()) if self.tokenizer is not None else None

    def _by_batch(
        self, runs: Stage, part: Part, places: Numbers, columns: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch, Units, Numbers, Numbers]]:
        """Read a part in batches; give the texts that have places, alone, and the places counted in those.

        Besides: what to add to a unit of each text (texts,) to count it in the part.
        """
        starts, at, encode = _array(runs, part, "starts"), 0, self._encode()
        for rows, batch in self.view.batches(part, columns) if len(places) else ():
            edges, at = starts[at : at + len(rows) + 1], at + len(rows)
            bounds = np.searchsorted(places, edges << np.uint64(COUNT_BITS))
            counts = np.diff(bounds)
            texts = np.flatnonzero(counts)
            if len(texts):
                picked = batch.take(pa.array(texts))
                units = self.settings.units(picked.column("text"), encode)
                moved = edges[texts] - _starts(units)[:-1].astype(np.uint64)
                less = np.repeat(moved << np.uint64(COUNT_BITS), counts[texts])
                yield rows[texts], picked, units, moved, places[bounds[0] : bounds[-1]] - less


def _places(runs: Stage, part: Part, numbers: Numbers) -> Numbers:
    """Give the places of a part's runs by their numbers."""
    return _array(runs, part, "places")[numbers.astype(np.int64)]


def _array(runs: Stage, part: Part, name: str) -> Numbers:
    """Read what the signature of a part's runs left."""
    return get_array(runs.store, runs.receipts([sign_key(part)])[0][name])


def _starts(units: Units) -> NDArray[np.int64]:
    """Count from the batch's first unit where each text begins: (texts + 1,)."""
    starts: NDArray[np.int64] = units.bounds - units.bounds[0]
    return starts


def _put(stage: Stage, part: Part, numbers: Numbers, digests: Numbers, folder: Path, meter: Meter) -> Receipt:
    """Commit a part's units: its own repeats apart, the others for the exchange."""
    with meter.on("link"):
        repeats, packed = sent(part, digests, numbers)
    return {"repeats": put_array(stage.store, repeats, "own"), **put_bands(stage.store, folder, {"unit": packed})}
