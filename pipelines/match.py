"""Match: which documents are the same. Signatures by part, one shuffle of packed digests, spanning forests, one
union-find.

Nothing but 24 bytes a document and band crosses the shuffle: a 128-bit digest and an address (part << 32 | row). Each
part links its own repeats and sends one address a digest, so a digest that half the corpus shares stays small; a
bucket of n addresses costs n − 1 edges. Where a runner keeps its shuffle in memory, bands go in rounds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..sharding.store import Store
from ..transforms.kernels.graph import components, link, spanning_forest
from ..transforms.kernels.minhash import digest_bands
from ..transforms.minhash import content_digests
from ..transforms.schema import id_words
from .clusters import settle_clusters
from .duplicates import Dedup
from .keep import keep_columns, keep_keys
from .runners import Job
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .views import EVERYTHING, Part, View, put_array, put_strings

PACKED = np.dtype([("high", "<u8"), ("low", "<u8"), ("address", "<u8")])
GROUP_BYTES = 64 << 20  # of one (band, hash range); the bound is 256 MiB
LOCAL_SHUFFLE_BYTES = 512 << 20  # a round of bands; Beam's local runner takes about 6 bytes of memory a byte
CONTENT = -1  # the band of whole contents
URL = -2  # the band of URLs


@dataclass(frozen=True)
class Shuffle:
    """How digests are dealt: these bands now, each in so many hash ranges."""

    bands: tuple[int, ...]
    ranges: int

    def keys(self) -> list[str]:
        """Name every group of the shuffle."""
        return [f"band{band:+04d}-{number:04d}" for band in self.bands for number in range(self.ranges)]


def match_stage(run: Store, dedup: Dedup, parts: Sequence[Part], upstream: Sequence[str] = ()) -> Stage:
    """Address the `duplicates` stage: its parameters and the contents of the parts it reads, not their places."""
    own = dedup.model_dump(mode="json", exclude={"url", "lines", "substrings"})
    value = {"dedup": own, "parts": [part.key for part in parts], "upstream": list(upstream)}
    return Stage.of(run, "duplicates", value, package_versions("pyarrow", "numba"))


def url_stage(run: Store, dedup: Dedup, parts: Sequence[Part]) -> Stage:
    """Address the `urls` stage."""
    assert dedup.url is not None
    value = {"url": dedup.url.model_dump(mode="json"), "parts": [part.key for part in parts]}
    return Stage.of(run, "urls", value, package_versions("pyarrow", "numba"))


def sign_key(part: Part) -> str:
    """Name the receipt of a part's signatures."""
    return f"sign-{part.number:06d}"


@dataclass(frozen=True)
class Sign:
    """Digest one part: signatures, repeats within the part, and what the shuffle needs of the rest."""

    stage: Stage
    dedup: Dedup
    shuffle: Shuffle
    view: View = EVERYTHING
    by_url: bool = False

    def __call__(self, part: Part) -> Iterator[tuple[str, bytes]]:
        """Commit the part's signatures unless they stand; emit (band and range, packed digests and addresses)."""
        receipt = run_task(self.stage, sign_key(part), partial(self.compute, part))
        for band in self.shuffle.bands:
            at = f"band{band:+04d}"
            if at not in receipt["bands"]:
                continue
            start, end = receipt["bands"][at]
            packed = np.frombuffer(self.stage.store.read(receipt["digests"], start=start, end=end), PACKED)
            # Sorted by digest: a hash range is a slice.
            edges = [math.ceil((1 << 64) * number / self.shuffle.ranges) for number in range(1, self.shuffle.ranges)]
            cuts = [0, *np.searchsorted(packed["high"], np.array(edges, np.uint64)).tolist(), len(packed)]
            for number, (first, last) in enumerate(itertools.pairwise(cuts)):
                if last > first:
                    yield f"{at}-{number:04d}", packed[first:last].tobytes()

    def compute(self, part: Part, folder: Path, meter: Meter) -> Receipt:
        """Read the part's text; write what is known of its documents, digests sorted by band, and its own forest."""
        with meter.on("signatures"):
            documents, bands = self._urls(part) if self.by_url else self._digests(part)
        rows = documents.rows.astype(np.uint64)
        addresses = (np.uint64(part.number) << np.uint64(32)) + rows
        path, places, edges = folder / "digests", {}, []
        with path.open("wb") as file, meter.on("link"):
            for band, (digests, at) in sorted(bands.items()):
                edges.append(link(digests, addresses[at]))
                packed = first_of_each(digests, addresses[at])
                places[f"band{band:+04d}"] = [file.tell(), file.tell() + packed.nbytes]
                file.write(packed.tobytes())
            file.write(b"end")
        store = self.stage.store
        return {
            "part": part.key,
            "documents": len(rows),
            "id_sum": str(int(documents.ids[:, 0].sum(dtype=np.uint64))),
            "bands": places,
            "digests": store.put(path, "data/digests-", ".bin"),
            "rows": put_array(store, rows, "rows"),
            "ids": put_array(store, documents.ids, "ids"),
            "contents": put_array(store, documents.contents, "contents"),
            "keys": put_array(store, documents.keys, "keys"),
            "own": None if documents.own is None else put_strings(store, documents.own, "own"),
            "forest": put_array(store, spanning_forest(np.concatenate(edges)), "forest"),
        }

    def _digests(self, part: Part) -> tuple[Documents, dict[int, tuple[np.ndarray, np.ndarray]]]:
        """Give what is known of the documents, and by band the digests and the documents that have them."""
        minhash, keep = self.dedup.minhash, self.dedup.keep
        gathered: list[Documents] = [Documents.none(keep)]
        banded, longs = [], []
        for rows, batch in self.view.batches(part, ["id", "text", "source_id", *keep_columns(keep)]):
            gathered.append(Documents.of(part.source, rows, batch, keep, self.dedup.normalisation))
            if minhash is not None:
                values, long = minhash.signatures(batch.column("text"))
                banded.append(digest_bands(values, minhash.bands))
                longs.append(long)
        documents = Documents.joined(gathered)
        numbers = np.arange(len(documents.rows))
        long = np.concatenate(longs or [np.zeros(len(numbers), bool)])
        # A text shorter than a shingle has no signature: its content is all there is to compare.
        whole = numbers if self.dedup.exact else numbers[~long]
        bands = {CONTENT: (documents.contents[whole], whole)}
        if minhash is not None:
            stacked = np.concatenate(banded or [np.zeros((minhash.bands, 0, 2), np.uint64)], axis=1)
            bands.update(
                {band: (np.ascontiguousarray(stacked[band][long]), numbers[long]) for band in range(minhash.bands)}
            )
        return documents, bands

    def _urls(self, part: Part) -> tuple[Documents, dict[int, tuple[np.ndarray, np.ndarray]]]:
        """Give what is known of the documents that have a URL, and its digests."""
        assert self.dedup.url is not None
        keep = self.dedup.url.keep
        gathered, digests = [Documents.none(keep)], [np.zeros((0, 2), np.uint64)]
        columns = ["id", "text", "url", "source_id", *keep_columns(keep)]
        for rows, batch in self.view.batches(part, columns):
            has = batch.column("url").is_valid()
            rows, batch = rows[np.asarray(has)], batch.filter(has)
            gathered.append(Documents.of(part.source, rows, batch, keep, "none"))
            digests.append(content_digests(batch.column("url")))
        documents = Documents.joined(gathered)
        return documents, {URL: (np.concatenate(digests), np.arange(len(documents.rows)))}


_PAIRS = ("ids", "contents", "keys")


@dataclass(frozen=True)
class Documents:
    """What the choice of who stays needs of documents."""

    rows: np.ndarray  # (n,) int64, rising
    ids: np.ndarray  # (n, 2) uint64
    contents: np.ndarray  # (n, 2) uint64: digests
    keys: np.ndarray  # (n, policies) uint64, see `keep`
    own: pa.Array | None  # the user's own ids, where there are any

    @classmethod
    def none(cls, keep: Sequence[str]) -> Documents:
        """Give no documents."""
        pairs = np.zeros((0, 2), np.uint64)
        return cls(np.zeros(0, np.int64), pairs, pairs, np.zeros((0, len(keep)), np.uint64), pa.array([], pa.string()))

    @classmethod
    def of(
        cls, source: str, rows: np.ndarray, batch: pa.RecordBatch, keep: Sequence[str], normalisation: Any
    ) -> Documents:
        """Read it off a batch with texts."""
        contents = content_digests(batch.column("text"), normalisation)
        own = batch.column("source_id") if "source_id" in batch.schema.names else pa.nulls(len(batch), pa.string())
        return cls(rows, id_words(batch.column("id")).copy(), contents, keep_keys(keep, source, batch), own)

    @classmethod
    def joined(cls, some: Sequence[Documents]) -> Documents:
        """Put batches behind one another."""
        rows = np.concatenate([one.rows for one in some])
        ids, contents, keys = (np.concatenate([getattr(one, name) for one in some]) for name in _PAIRS)
        own = pa.chunked_array([one.own for one in some], pa.string()).combine_chunks()
        return cls(rows, ids, contents, keys, None if own.null_count == len(own) else own)


def first_of_each(digests: np.ndarray, addresses: np.ndarray) -> np.ndarray:
    """Keep the smallest address of each digest; packed, sorted by digest."""
    packed = np.empty(len(addresses), PACKED)
    packed["high"], packed["low"], packed["address"] = digests[:, 0], digests[:, 1], addresses
    packed = packed[np.lexsort((addresses, packed["low"], packed["high"]))]
    new = np.ones(len(packed), bool)
    new[1:] = (packed["high"][1:] != packed["high"][:-1]) | (packed["low"][1:] != packed["low"][:-1])
    return packed[new]


@dataclass(frozen=True)
class Link:
    """Link the equal digests of one group."""

    stage: Stage

    def __call__(self, key: str, values: Iterable[bytes]) -> None:
        """Commit the group's edges, n − 1 a bucket, whatever order the values come in."""
        run_task(self.stage, f"link-{key}", partial(self.compute, values))

    def compute(self, values: Iterable[bytes], folder: Path, meter: Meter) -> Receipt:
        """Join the parts' packed digests and link them."""
        with meter.on("link"):
            packed = np.concatenate([np.frombuffer(value, PACKED) for value in values])
            digests = np.stack([packed["high"], packed["low"]], axis=1)
            edges = spanning_forest(link(digests, np.ascontiguousarray(packed["address"])))
        return {"addresses": len(packed), "edges": len(edges), "forest": put_array(self.stage.store, edges, "forest")}


def plan_shuffles(dedup: Dedup, documents: int, local: bool) -> list[Shuffle]:
    """Deal the bands into rounds, and each band into as many hash ranges as the number of documents asks for."""
    bands = [CONTENT, *range(dedup.minhash.bands if dedup.minhash else 0)]
    band_bytes = documents * PACKED.itemsize
    ranges = ranges_of(documents)
    at_once = max(1, LOCAL_SHUFFLE_BYTES // max(1, band_bytes)) if local else len(bands)
    return [Shuffle(tuple(bands[i : i + at_once]), ranges) for i in range(0, len(bands), at_once)]


def ranges_of(documents: int) -> int:
    """Say into how many hash ranges a band of so many documents is dealt."""
    return max(1, math.ceil(documents * PACKED.itemsize / GROUP_BYTES))


def match(
    stage: Stage,
    dedup: Dedup,
    parts: Sequence[Part],
    launch: Callable[[Job], None],
    local: bool,
    view: View = EVERYTHING,
    by_url: bool = False,
) -> Receipt:
    """Find every cluster; commit `clusters` and the removal list; give the stage's last receipt.

    `launch` runs a job; `local` says that its shuffle lies in this machine's memory, so that bands go in rounds.
    """
    signs = list(map(sign_key, parts))
    done = stage.receipt("clusters")
    if done is not None and set(signs) <= stage.committed():
        return done
    documents = sum(part.documents for part in parts)
    shuffles = [Shuffle((URL,), ranges_of(documents))] if by_url else plan_shuffles(dedup, documents, local)
    for shuffle in shuffles:
        launch(Job("match", parts, Sign(stage, dedup, shuffle, view, by_url), Link(stage)))
    signed = stage.receipts(signs)
    # A group that no digest fell into has no receipt.
    linked = sorted(key for key in stage.committed() if key.startswith("link-"))
    forests = [receipt["forest"] for receipt in [*signed, *stage.receipts(linked)]]
    keep, kind = (dedup.url.keep, "url") if by_url and dedup.url else (dedup.keep, None)
    return run_task(
        stage, "clusters", lambda folder, meter: settle_clusters(stage, keep, kind, parts, signed, forests, folder)
    )


def warm_match(dedup: Dedup) -> None:
    """Compile what matching needs, before workers start."""
    texts = pa.array(["one two three four five six seven", "déjà vu", "one two three four five six seven"])
    digests = content_digests(texts, dedup.normalisation)
    if dedup.minhash is not None:
        dedup.minhash.digests(texts)
    components(spanning_forest(link(digests, np.arange(3, dtype=np.uint64))))
