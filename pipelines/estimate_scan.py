"""What a dry run knows of all records that it may read: where they lie, how long they are, which look alike.

A record is cut from its file and not decoded: 100 to 250 MB a second and core. What is left of it without HTML tags
says about how much text it has. A sketch of that, MinHash in many narrow bands, finds records that may be copies (of
those that a run finds, about 9 in 10 share a band); the run's own steps and deduplication decide whether they are. Both
cost about a second for 100 MB. Up to 256 MiB of input are read; of more, whole files and ranges
chosen by keyed hash, two of a file at most.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from ..transforms.files import FileEntry
from ..transforms.minhash import MinHash
from ..transforms.readers import Piece, read, split
from ..transforms.schema import document_ids, keyed
from .plan import IngestTask
from .recipe import Recipe

READ_BYTES = 256 << 20  # of input
UNIT_BYTES = 4 << 20  # the smallest range that a large file is cut into
UNITS_OF_A_FILE = 2
SKETCH = MinHash(bands=24, rows=3)  # of pairs of similarity 0.4, four of five meet
SKETCH_BYTES = 16 << 10  # of a record's head, without tags
_TAG = re.compile(rb"<[^>]{0,4096}>")
HELD_BYTES = 8 << 20


@dataclass
class Unit:
    """A file or a range of one, and the records in it."""

    piece: Piece
    places: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # as they lie in the file, inflated
    contents: list[int] = field(default_factory=list)  # without tags


@dataclass
class Population:
    """The records that were read, in the order of the plan."""

    units: list[Unit]
    read_bytes: int  # of input
    total_bytes: int
    unit: NDArray[np.int64]  # (n,) number of each record's unit
    places: NDArray[np.int64]
    sizes: NDArray[np.float64]  # as they lie in the file, inflated
    contents: NDArray[np.float64]  # without tags: about the size of the text
    draws: NDArray[np.float64]  # (n,) keyed hash of the id, in [0, 1)
    sketches: NDArray[np.uint64]  # (bands, n)
    seconds: float = 0.0  # CPU of reading, sketches apart

    @classmethod
    def empty(cls) -> Population:
        """Give one of no records."""
        none = np.zeros(0)
        numbers = none.astype(np.int64)
        return cls([], 0, 0, numbers, numbers, none, none, none, np.zeros((0, 0), np.uint64))

    @property
    def whole(self) -> bool:
        """Say whether all of the input was read."""
        return self.read_bytes == self.total_bytes


def survey_input(recipe: Recipe, tasks: Sequence[IngestTask], sketched: bool) -> Population:
    """Read the records of the plan's files, or of a keyed choice of ranges; `sketched` asks for sketches."""
    pieces = [piece for task in tasks for piece in task.pieces]
    total = sum({(piece.source, piece.path): piece.size for piece in pieces}.values())
    chosen = pieces if total <= READ_BYTES else choose(pieces, recipe.seed)
    units, banded, draws = [], [], []
    before, spent = time.process_time(), 0.0
    for piece in chosen:
        unit = Unit(piece)
        sketcher = Sketcher(unit, sketched)
        for _ in read(piece, recipe.inputs[piece.source].fields, wanted=sketcher.note):
            pass  # batches of no rows
        units.append(unit)
        banded.append(sketcher.close())
        spent += sketcher.seconds
        ids = document_ids(piece.source, piece.path, unit.places)
        draws.append((keyed(ids, f"{recipe.seed} dry run") >> np.uint64(11)) * 2.0**-53)
    return Population(
        units,
        sum(piece.bytes for piece in chosen) if chosen is not pieces else total,
        total,
        np.repeat(np.arange(len(units)), [len(unit.places) for unit in units]),
        np.concatenate([np.array(unit.places, np.int64) for unit in units]),
        np.concatenate([np.array(unit.sizes, np.float64) for unit in units]),
        np.concatenate([np.array(unit.contents, np.float64) for unit in units]),
        np.concatenate(draws),
        np.concatenate(banded, axis=1),
        time.process_time() - before - spent,
    )


def choose(pieces: Sequence[Piece], seed: int) -> list[Piece]:
    """Choose files by keyed hash, and two ranges of each where it can be cut, until there is enough to read."""

    def rank(piece: Piece) -> int:
        name = f"{seed}\0{piece.source}\0{piece.path}\0{piece.start}"
        return xxhash.xxh3_64_intdigest(name.encode())

    files = {(piece.source, piece.path): piece for piece in pieces}
    chosen: list[Piece] = []
    held = 0
    for piece in sorted((Piece(p.url, p.source, p.path, p.format, p.size) for p in files.values()), key=rank):
        if held >= READ_BYTES:
            break
        entry = FileEntry(piece.url, piece.path, piece.size, "")
        ranges = split(entry, piece.format, max(UNIT_BYTES, piece.size // 16))
        cut = [Piece(piece.url, piece.source, piece.path, piece.format, piece.size, a, b) for a, b in ranges]
        for unit in sorted(cut, key=rank)[:UNITS_OF_A_FILE]:
            chosen.append(unit)
            held += unit.bytes
    return sorted(chosen, key=lambda unit: (unit.source, unit.path, unit.start))


class Sketcher:
    """Notes the records of a unit and sketches them, a few megabytes at a time; none is wanted."""

    def __init__(self, unit: Unit, sketched: bool) -> None:
        self._unit, self._sketched = unit, sketched
        self._held: list[bytes] = []
        self._size = 0
        self.seconds = 0.0
        self._made: list[NDArray[np.uint64]] = [np.zeros((SKETCH.bands if sketched else 0, 0), np.uint64)]

    def note(self, place: int, body: bytes) -> bool:
        """Take a record."""
        before = time.process_time()
        content = _TAG.sub(b" ", body).replace(b"\\n", b" ")  # JSON's line ends too
        self._unit.places.append(place)
        self._unit.sizes.append(len(body))
        self._unit.contents.append(len(content))
        self._held.append(content[:SKETCH_BYTES])
        self._size += len(self._held[-1])
        if self._size >= HELD_BYTES:
            self._flush()
        self.seconds += time.process_time() - before
        return False

    def close(self) -> NDArray[np.uint64]:
        """Give (bands, n)."""
        before = time.process_time()
        self._flush()
        self.seconds += time.process_time() - before
        return np.concatenate(self._made, axis=1)

    def _flush(self) -> None:
        if self._held:
            done = sum(made.shape[1] for made in self._made)
            self._made.append(
                sketches(self._held, done) if self._sketched else np.zeros((0, len(self._held)), np.uint64)
            )
        self._held, self._size = [], 0


def sketches(bodies: Sequence[bytes], first: int) -> NDArray[np.uint64]:
    """Give 64 bits a band, (bands, n); what is too short for a shingle is told apart by its number, from `first` on."""
    offsets = np.cumsum([0, *map(len, bodies)], dtype=np.int64)
    texts = pa.LargeStringArray.from_buffers(len(bodies), pa.py_buffer(offsets), pa.py_buffer(b"".join(bodies)))
    values, enough = SKETCH.signatures(texts)
    mixed = np.zeros((len(bodies), SKETCH.bands), np.uint64)
    for column in np.moveaxis(values.reshape(len(bodies), SKETCH.bands, SKETCH.rows), 2, 0):
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    mixed[~enough] = np.flatnonzero(~enough).astype(np.uint64)[:, None] + np.uint64(first)
    return np.ascontiguousarray(mixed.T)


def mates(population: Population, of: NDArray[np.int64], most: int) -> tuple[list[list[int]], list[int]]:
    """Find, for some records, the `most` that share the most bands with each, and how many share one at all."""
    counts: list[dict[int, int]] = [{} for _ in range(len(of))]
    for band in population.sketches:
        order = np.argsort(band, kind="stable")
        ranked = band[order]
        first, last = (np.searchsorted(ranked, band[of], side=side) for side in ("left", "right"))
        for at, (start, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
            for other in order[start:end].tolist():
                if other != of[at]:
                    counts[at][other] = counts[at].get(other, 0) + 1
    best = [sorted(found, key=lambda other: (-found[other], population.draws[other]))[:most] for found in counts]
    return best, [len(found) for found in counts]
