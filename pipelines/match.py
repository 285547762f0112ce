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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..sharding.store import Store
from ..transforms.kernels.graph import components, link, spanning_forest
from ..transforms.kernels.minhash import digest_bands
from ..transforms.minhash import content_digests
from ..transforms.schema import id_words
from .clusters import Part, put_array, settle_clusters
from .recipe import Dedup
from .runners import Job
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .tables import parquet

PACKED = np.dtype([("high", "<u8"), ("low", "<u8"), ("address", "<u8")])
GROUP_BYTES = 64 << 20  # of one (band, hash range); the bound is 256 MiB
LOCAL_SHUFFLE_BYTES = 512 << 20  # a round of bands; Beam's local runner takes about 6 bytes of memory a byte
CONTENT = -1  # the band of whole contents


@dataclass(frozen=True)
class Shuffle:
    """How digests are dealt: these bands now, each in so many hash ranges."""

    bands: tuple[int, ...]
    ranges: int

    def keys(self) -> list[str]:
        """Name every group of the shuffle."""
        return [f"band{band:+04d}-{number:04d}" for band in self.bands for number in range(self.ranges)]


def match_stage(run: Store, dedup: Dedup, parts: Sequence[Part]) -> Stage:
    """Address the `duplicates` stage: its parameters and the contents of the parts it reads, not their places."""
    value = {"dedup": dedup.model_dump(mode="json"), "parts": [part.key for part in parts]}
    return Stage.of(run, "duplicates", value, package_versions("pyarrow", "numba"))


def sign_key(part: Part) -> str:
    """Name the receipt of a part's signatures."""
    return f"sign-{part.number:06d}"


@dataclass(frozen=True)
class Sign:
    """Digest one part: signatures, repeats within the part, and what the shuffle needs of the rest."""

    stage: Stage
    dedup: Dedup
    shuffle: Shuffle

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
        """Read the part's text by row group; write its ids, lengths, digests sorted by band, and its own forest."""
        with meter.on("signatures"):
            ids, lengths, bands = self._digests(part)
        addresses = (np.uint64(part.number) << np.uint64(32)) + np.arange(len(ids), dtype=np.uint64)
        path, places, edges = folder / "digests", {}, []
        with path.open("wb") as file, meter.on("link"):
            for band, (digests, rows) in sorted(bands.items()):
                edges.append(link(digests, addresses[rows]))
                packed = first_of_each(digests, addresses[rows])
                places[f"band{band:+04d}"] = [file.tell(), file.tell() + packed.nbytes]
                file.write(packed.tobytes())
            file.write(b"end")
        store = self.stage.store
        return {
            "part": part.key,
            "documents": len(ids),
            "bands": places,
            "digests": store.put(path, "data/digests-", ".bin"),
            "ids": put_array(store, ids, "ids"),
            "lengths": put_array(store, lengths, "lengths"),
            "forest": put_array(store, spanning_forest(np.concatenate(edges)), "forest"),
        }

    def _digests(self, part: Part) -> tuple[np.ndarray, np.ndarray, dict[int, tuple[np.ndarray, np.ndarray]]]:
        """Give ids (n, 2), lengths in bytes (n,), and by band the digests and the rows that have them."""
        minhash = self.dedup.minhash
        ids, lengths, contents, banded, longs = [], [], [], [], []
        with parquet(part.store, part.name) as file:
            for batch in file.iter_batches(batch_size=4096, columns=["id", "text"], use_threads=False):
                texts = batch.column("text")
                ids.append(id_words(batch.column("id")).copy())
                lengths.append(np.asarray(pc.binary_length(texts).fill_null(0), np.uint64))
                contents.append(content_digests(texts))
                if minhash is not None:
                    values, long = minhash.signatures(texts)
                    banded.append(digest_bands(values, minhash.bands))
                    longs.append(long)
        empty = np.zeros((0, 2), np.uint64)
        rows = np.arange(sum(map(len, ids)))
        content = np.concatenate(contents or [empty])
        long = np.concatenate(longs or [np.zeros(len(rows), bool)])
        # A text shorter than a shingle has no signature: its content is all there is to compare.
        whole = rows if self.dedup.exact else rows[~long]
        bands = {CONTENT: (content[whole], whole)}
        if minhash is not None:
            stacked = np.concatenate(banded or [np.zeros((minhash.bands, 0, 2), np.uint64)], axis=1)
            bands.update(
                {band: (np.ascontiguousarray(stacked[band][long]), rows[long]) for band in range(minhash.bands)}
            )
        return np.concatenate(ids or [empty]), np.concatenate(lengths or [np.zeros(0, np.uint64)]), bands


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
    ranges = max(1, math.ceil(band_bytes / GROUP_BYTES))
    at_once = max(1, LOCAL_SHUFFLE_BYTES // max(1, band_bytes)) if local else len(bands)
    return [Shuffle(tuple(bands[i : i + at_once]), ranges) for i in range(0, len(bands), at_once)]


def match(stage: Stage, dedup: Dedup, parts: Sequence[Part], launch: Callable[[Job], None], local: bool) -> Receipt:
    """Find every cluster; commit `clusters` and the removal list; give the stage's last receipt.

    `launch` runs a job; `local` says that its shuffle lies in this machine's memory, so that bands go in rounds.
    """
    signs = list(map(sign_key, parts))
    done = stage.receipt("clusters")
    if done is not None and set(signs) <= stage.committed():
        return done
    shuffles = plan_shuffles(dedup, sum(part.documents for part in parts), local)
    for shuffle in shuffles:
        launch(Job("match", parts, Sign(stage, dedup, shuffle), Link(stage)))
    signed = stage.receipts(signs)
    # A group that no digest fell into has no receipt.
    linked = sorted(key for key in stage.committed() if key.startswith("link-"))
    forests = [receipt["forest"] for receipt in [*signed, *stage.receipts(linked)]]
    return run_task(
        stage, "clusters", lambda folder, meter: settle_clusters(stage, dedup.keep, parts, signed, forests, folder)
    )


def warm_match(dedup: Dedup) -> None:
    """Compile what matching needs, before workers start."""
    texts = pa.array(["one two three four five six seven", "déjà vu", "one two three four five six seven"])
    digests = content_digests(texts)
    if dedup.minhash is not None:
        dedup.minhash.digests(texts)
    components(spanning_forest(link(digests, np.arange(3, dtype=np.uint64))))
