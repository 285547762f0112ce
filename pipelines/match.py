"""Match: which documents are the same. Digests by part, exchanged by hash, spanning forests, one union-find.

Each part links its own repeats and sends one address a digest, so a digest that half the corpus shares stays small; a
bucket of n addresses costs n − 1 edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..sharding.store import Store
from ..transforms.kernels.graph import spanning_forest
from ..transforms.kernels.minhash import digest_bands
from ..transforms.minhash import content_digests
from ..transforms.schema import id_words
from .clusters import Part, put_array, settle_clusters
from .exchange import Digests, Packed, exchange, fold, pack, put_bands, sign_key
from .recipe import Dedup
from .runners import Job
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .tables import parquet

__all__ = ["Link", "Sign", "match", "match_stage", "sign_key", "warm_match"]
CONTENT = -1  # the band of whole contents


def match_stage(run: Store, dedup: Dedup, parts: Sequence[Part]) -> Stage:
    """Address the `duplicates` stage: its parameters and the contents of the parts it reads, not their places."""
    value = {"dedup": dedup.model_dump(mode="json"), "parts": [part.key for part in parts]}
    return Stage.of(run, "duplicates", value, package_versions("pyarrow", "numba"))


@dataclass(frozen=True)
class Sign:
    """Digest one part: signatures, repeats within the part, and what the exchange needs of the rest."""

    stage: Stage
    dedup: Dedup

    def __call__(self, part: Part, folder: Path, meter: Meter) -> Receipt:
        """Read the part's text by row group; write its ids, lengths, entries by band, and its own forest."""
        with meter.on("signatures"):
            ids, lengths, bands = self._digests(part)
        addresses = (np.uint64(part.number) << np.uint64(32)) + np.arange(len(ids), dtype=np.uint64)
        held, edges = {}, []
        with meter.on("link"):
            for band, (digests, rows) in bands.items():
                held[f"band{band:+04d}"], repeats = fold(pack(digests, addresses[rows]))
                edges.append(repeats)
            forest = spanning_forest(np.concatenate(edges))
        store = self.stage.store
        return {
            "part": part.key,
            "documents": len(ids),
            **put_bands(store, folder, held),
            "ids": put_array(store, ids, "ids"),
            "lengths": put_array(store, lengths, "lengths"),
            "forest": put_array(store, forest, "forest"),
            "edges": len(forest),
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


@dataclass(frozen=True)
class Link:
    """Link the equal digests of one group: n - 1 edges a bucket, those of each bucket a star.

    Buckets whose addresses are all of parts numbered `foreign` or above, of earlier runs, give none.
    """

    stage: Stage
    foreign: int

    def __call__(self, entries: Packed, folder: Path, meter: Meter) -> Receipt:
        """Commit the group's edges, a forest, for an address is in one bucket of a band."""
        with meter.on("link"):
            _, edges = fold(entries, self.foreign << 32)
        forest = put_array(self.stage.store, edges, "forest")
        return {"addresses": len(entries), "edges": len(edges), "forest": forest}


def match(
    stage: Stage,
    dedup: Dedup,
    parts: Sequence[Part],
    launch: Callable[[Job], None],
    local: bool,
    extra: Sequence[Digests] = (),
) -> Receipt:
    """Find every cluster; commit `clusters` and the removal list; give the stage's last receipt.

    `launch` runs a job; `local` says that its workers share this machine. `extra`: digests of earlier runs, numbered
    from len(parts) on, which are matched against and never with one another.
    """
    signs = list(map(sign_key, parts))
    done = stage.receipt("clusters")
    if done is not None and set(signs) <= stage.committed():
        return done
    signed, linked = exchange(stage, parts, Sign(stage, dedup), Link(stage, len(parts)), launch, local, extra=extra)
    forests = [receipt["forest"] for receipt in [*signed, *linked]]
    return run_task(
        stage, "clusters", lambda folder, meter: settle_clusters(stage, dedup.keep, parts, signed, forests, folder)
    )


def warm_match(dedup: Dedup) -> None:
    """Compile what matching needs, before workers start."""
    texts = pa.array(["one two three four five six seven", "déjà vu", "one two three four five six seven"])
    digests = content_digests(texts)
    if dedup.minhash is not None:
        dedup.minhash.digests(texts)
    spanning_forest(fold(pack(digests, np.arange(3, dtype=np.uint64)))[1])
