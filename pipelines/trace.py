"""Trace: from a training step or a row back to documents, URLs and decisions; from a URL to its fate.

A step costs arithmetic and the tables of the shards it touches; copies dropped in a document's favour cost one reading
of the clusters table, a URL one reading of the ledger's URL column. Each function gives plain values, ready for JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import RequestError
from ..sharding.course import Course, Reading
from ..sharding.dataset import TokenData, open_tokens
from ..sharding.documents import Documents
from ..sharding.plan import State
from ..sharding.tools.purge import is_purged
from .directory import RunDirectory
from .tables import read_row, row_groups
from .thresholds import thresholds

COPIES = 5  # named of each document
MOST_ROWS = 1 << 20
#: What a document is known by; its other columns are scores.
IDENTITY = ("id", "url", "source", "path", "place", "source_id", "language", "stream", "shard", "ordinal")
_RANGES = ("row_tokens", "document_tokens", "shard_tokens")

Json = dict[str, Any]


def trace_step(
    path: str, state: Mapping[str, Any], step: int, *, rank: int | None = None, world_size: int | None = None
) -> Json:
    """Say what a training step contained: rows, the pieces of documents in them, what was decided on each document.

    `state` is what a loader's `state_dict()` gave, before or after the step; its plan says what the step was. With rank
    and world size, that rank's rows; else all of the global batch.
    """
    check_rank(rank, world_size)
    run, saved = RunDirectory.find(path), State.from_dict(state)
    first, last = saved.plan.extent(step)
    if first < saved.position < last:  # the data ended in this batch
        last = saved.position
        if rank is not None:
            raise RequestError(
                f"step {step} is the last of its data, positions {first} to {last}: which of its rows a rank had "
                "depends on the loader's tail=, which no state holds; leave out --rank"
            )
    if last - first > MOST_ROWS:
        raise RequestError(f"step {step} has {last - first:,} rows, more than the {MOST_ROWS:,} traced at once")
    reading = course_of(path, saved).at(first)
    documents = Documents(standing(path, reading.data))
    batch = reading.positions.sorted_by_lane(np.arange(first, last, dtype=np.int64)[None])[0]
    if rank is not None and world_size is not None:
        batch = batch[rank * len(batch) // world_size : (rank + 1) * len(batch) // world_size]
    places, order = reading.positions.places(batch), reading.data.generation.pack(reading.pack)
    out = {shard: left_out(documents, reading, shard) for shard in set(places.shards.tolist())}
    rows = [
        {
            "position": position,
            "epoch": epoch,
            **row_of(documents, shard, group * order.group_rows + row, reading.pack, out[shard]),
        }
        for position, epoch, shard, group, row in zip(
            *map(np.ndarray.tolist, (batch, places.epochs, places.shards, places.groups, places.rows)), strict=True
        )
    ]
    head = {"step": step, "positions": [first, last], "rank": rank, "world_size": world_size, "seed": saved.seed}
    generation = reading.data.generation
    data = {"generation": generation.number, "pack": reading.pack, "tokens_sha256": generation.tokens_sha256}
    return {**head, **data, **finished(run, rows)}


def check_rank(rank: int | None, world_size: int | None) -> None:
    """Refuse a rank that the world does not have."""
    if world_size is not None and world_size < 1:
        raise RequestError(f"a world has at least one rank, --world-size is {world_size}")
    if rank is not None and world_size is None:
        raise RequestError(f"--rank {rank} is one of how many? add --world-size")
    if rank is not None and world_size is not None and not 0 <= rank < world_size:
        raise RequestError(f"there is no rank {rank} of {world_size}: ranks are 0 to {world_size - 1}")


def course_of(path: str, saved: State) -> Course:
    """Say what a state's plan means on these token files; RequestError where they are others."""
    data = open_tokens(path, saved.plan.last.generation)
    if data.generation.tokens_sha256 != saved.tokens_sha256:
        raise RequestError(
            f"this state reads data with tokens_sha256 {saved.tokens_sha256}, the token files here have "
            f"{data.generation.tokens_sha256}: give the folder that the training run read"
        )
    course = Course(data, saved.plan, saved.seed, saved.shuffle)
    course.told()
    return course


def trace_row(path: str, shard: int, row: int, pack: str | None = None) -> Json:
    """Say what lies in one row of a shard (its number in the generation's order), as `trace_step` does."""
    run, documents = RunDirectory.find(path), Documents(open_tokens(path))
    generation = documents.data.generation
    name = generation.pack(pack).pack.name
    head = {"generation": generation.number, "pack": name, "tokens_sha256": generation.tokens_sha256}
    gone = documents.reader(shard).gone.tolist()
    return {**head, **finished(run, [row_of(documents, shard, row, name, gone)])}


def standing(path: str, data: TokenData) -> TokenData:
    """Give the data set as it can be read: where older shards were purged, today's have the same documents and rows."""
    return open_tokens(path) if is_purged(data.store, data.generation.number) else data


def left_out(documents: Documents, read: Reading, shard: int) -> set[int]:
    """Give the ordinals of a shard's documents that came as padding: left out by the plan, or taken down before."""
    out = {one & 0xFFFFFFFF for one in read.without if one >> 32 == shard}
    if documents.data.generation.number == read.data.generation.number:  # else what is gone today was there then
        out.update(documents.reader(shard).gone.tolist())
    return out


def row_of(documents: Documents, shard: int, row: int, pack: str, out: Collection[int]) -> Json:
    """Give one row as its place and the pieces of documents in it; `out` are ordinals that come as padding."""
    pieces = [{**piece, "left_out": piece["ordinal"] in out} for piece in documents.row(shard, row, pack)]
    stream = documents.data.generation.shards[shard].stream
    return {"stream": stream, "shard": shard, "row": row, "pieces": pieces}


def finished(run: RunDirectory | None, rows: Sequence[Json]) -> Json:
    """Part what is known of documents from the rows, and add what the run decided on each."""
    known = {piece["id"]: piece for row in rows for piece in row["pieces"]}
    copies = {} if run is None else dropped_copies(run, known)
    found = {name: decisions(run, piece, copies.get(name)) for name, piece in known.items()}
    thin = [
        {**row, "pieces": [{name: piece[name] for name in ("id", "left_out", *_RANGES)} for piece in row["pieces"]]}
        for row in rows
    ]  # fmt: skip
    return {"passed": [] if run is None else run.kinds(), "rows": thin, "documents": found}


def decisions(run: RunDirectory | None, values: Mapping[str, Any], copies: Json | None) -> Json:
    """Give a kept document's identity, its scores, the threshold it came nearest to, and the copies it stands for."""
    skip = {*IDENTITY, *_RANGES, "row", "left_out", "metadata", "html", "text"}
    scores = {name: score for name, score in values.items() if name not in skip and score is not None}
    identity = {name: values.get(name) for name in IDENTITY}
    return {
        **identity,
        "scores": scores,
        "closest": None if run is None else closest(run, scores, identity["language"]),
        "copies": copies or {"dropped": 0},
    }


def closest(run: RunDirectory, scores: Mapping[str, Any], language: str | None) -> Json | None:
    """Find the threshold that a document of a language came nearest to."""
    margins = [
        (cut.margin(score), name, score, cut)
        for name, score in scores.items()
        if isinstance(score, (int, float))
        for cut in thresholds(run.manifest, name, language)
    ]
    if not margins:
        return None
    margin, name, score, cut = min(margins, key=lambda item: item[:2])
    return {"score": name, "value": score, "drops": cut.drops, "threshold": cut.value, "margin": round(margin, 6)}


def dropped_copies(run: RunDirectory, ids: Iterable[str]) -> dict[str, Json]:
    """Count, for kept documents, the copies that were dropped in their favour, and name some of them."""
    clusters, wanted = run.table("clusters"), pa.array(sorted(map(bytes.fromhex, ids)), pa.binary(16))
    if clusters is None or not len(wanted):
        return {}
    found: dict[str, list[tuple[str, int, int]]] = {}
    for rows, _ in row_groups(run.store, clusters, ["id", "kept_id", "part", "row"]):
        for copy in rows.filter(pc.is_in(rows.column("kept_id"), wanted)).to_pylist():
            found.setdefault(copy["kept_id"].hex(), []).append((copy["id"].hex(), copy["part"], copy["row"]))
    parts, columns = run.parts() if found else {}, ("url", "source", "path", "place")
    return {
        kept: {
            "dropped": len(copies),
            "some": [
                {"id": name, **read_row(run.store, parts[part].documents, row, columns)}
                for name, part, row in sorted(copies)[:COPIES]
            ],
        }
        for kept, copies in found.items()
    }


def read_state(path: str) -> Json:
    """Read a loader's state from a JSON file: what `state_dict()` gave, or a checkpoint that holds it as `loader`."""
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"--state {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"--state {path} is not JSON: {error}; write state_dict() with json.dump") from error
    if isinstance(state, dict) and isinstance(state.get("loader"), dict):
        state = state["loader"]
    if not isinstance(state, dict):
        raise RequestError(f"--state {path} holds no loader state; write state_dict() with json.dump")
    return state


def command(arguments: Any) -> int:
    """Run `penstock trace`; print text or JSON."""
    from .trace_text import step_text, urls_text
    from .trace_url import trace_url

    given = [name for name in ("state", "shard", "url") if getattr(arguments, name) is not None]
    if len(given) != 1:
        named = " and ".join(f"--{name}" for name in given) or "nothing"
        raise RequestError(f"trace what? give --state with --step, or --shard with --row, or --url; {named} was given")
    if given == ["url"]:
        found = trace_url(arguments.dir, arguments.url)
    elif given == ["shard"]:
        if arguments.row is None:
            raise RequestError(f"--shard {arguments.shard} has many rows: add --row")
        found = trace_row(arguments.dir, arguments.shard, arguments.row, arguments.pack)
    else:
        if arguments.step is None:
            raise RequestError(f"--state {arguments.state} knows every step: add --step")
        ranks = {"rank": arguments.rank, "world_size": arguments.world_size}
        found = trace_step(arguments.dir, read_state(arguments.state), arguments.step, **ranks)
    if arguments.json:
        print(json.dumps(found, indent=1, ensure_ascii=False, default=str))
    else:
        print(urls_text(found) if given == ["url"] else step_text(found))
    return 0
