"""Match: which documents are the same. Digests by part, exchanged by hash, spanning forests, one union-find.

Each part links its own repeats and sends one address a digest, so a digest that half the corpus shares stays small; a
bucket of n addresses costs n − 1 edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..sharding.store import Store
from ..transforms.kernels.graph import by_other, spanning_forest
from ..transforms.kernels.minhash import digest_bands
from ..transforms.minhash import content_digests
from ..transforms.schema import id_words
from .duplicates import Dedup
from .exchange import Digests, Packed, exchange, fold, pack, put_bands, repeats, sign_key
from .forests import Forest, merge_forests, put_forest
from .keep import keep_columns, keep_keys
from .runners import Job
from .settle import Match, settle_clusters, settled_key, warm_settle
from .stage import Meter, Receipt, Stage, package_versions
from .stars import contract
from .views import EVERYTHING, Fates, Part, View, put_array, put_strings

__all__ = ["Link", "Sign", "match", "match_stage", "sign_key", "url_stage", "warm_match"]
CONTENT = -1  # the band of whole contents
URL = -2  # the band of URLs
Banded = dict[int, tuple[np.ndarray, np.ndarray]]  # by band: digests (n, 2), and which documents have them (n,)
CONTRACT_NODES = 128 << 20  # that one union-find in the client may hold: about 76 bytes each


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


@dataclass(frozen=True)
class Sign:
    """Digest one part: signatures, repeats within the part, and what the exchange needs of the rest."""

    stage: Stage
    dedup: Dedup
    view: View = EVERYTHING
    by_url: bool = False

    def __call__(self, part: Part, folder: Path, meter: Meter) -> Receipt:
        """Read the part's text; write what is known of its documents, entries by band, and its own forest."""
        fates = Fates()
        with meter.on("signatures"):
            documents, bands = self._urls(part, fates) if self.by_url else self._digests(part, fates)
        rows = documents.rows.astype(np.uint64)
        addresses = (np.uint64(part.number) << np.uint64(32)) + rows
        held, edges = {}, []
        with meter.on("link"):
            for band, (digests, at) in bands.items():
                held[f"band{band:+04d}"], linked = fold(pack(digests, addresses[at]))
                edges.append(linked)
            forest = spanning_forest(np.concatenate(edges))
        store = self.stage.store
        return {
            "part": part.key,
            "documents": len(rows),
            "id_sum": str(int(documents.ids[:, 0].sum(dtype=np.uint64))),
            **fates.put(store),
            **put_bands(store, folder, held),
            "rows": put_array(store, rows, "rows"),
            "ids": put_array(store, documents.ids, "ids"),
            "contents": put_array(store, documents.contents, "contents"),
            "texts": put_array(store, documents.texts, "contents"),  # mostly the same object
            "keys": put_array(store, documents.keys, "keys"),
            "own": None if documents.own is None else put_strings(store, documents.own, "own"),
            **put_forest(store, forest),
        }

    def _digests(self, part: Part, fates: Fates) -> tuple[Documents, Banded]:
        """Give what is known of the documents, and by band the digests and the documents that have them."""
        minhash, keep = self.dedup.minhash, self.dedup.keep
        gathered: list[Documents] = [Documents.none(keep)]
        banded, longs = [], []
        for rows, batch in self.view.batches(part, ["id", "text", "source_id", *keep_columns(keep)], fates):
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

    def _urls(self, part: Part, fates: Fates) -> tuple[Documents, Banded]:
        """Give what is known of the documents that have a URL, and its digests."""
        assert self.dedup.url is not None
        keep = self.dedup.url.keep
        gathered, digests = [Documents.none(keep)], [np.zeros((0, 2), np.uint64)]
        columns = ["id", "text", "url", "source_id", *keep_columns(keep)]
        for rows, batch in self.view.batches(part, columns, fates):
            has = batch.column("url").is_valid()
            rows, batch = rows[np.asarray(has)], batch.filter(has)
            gathered.append(Documents.of(part.source, rows, batch, keep, "none"))
            digests.append(content_digests(batch.column("url")))
        documents = Documents.joined(gathered)
        return documents, {URL: (np.concatenate(digests), np.arange(len(documents.rows)))}


_PAIRS = ("ids", "contents", "texts", "keys")


@dataclass(frozen=True)
class Documents:
    """What the choice of who stays needs of documents."""

    rows: np.ndarray  # (n,) int64, rising
    ids: np.ndarray  # (n, 2) uint64
    contents: np.ndarray  # (n, 2) uint64: digests of the normalised texts
    texts: np.ndarray  # (n, 2) uint64: digests of the texts as they are
    keys: np.ndarray  # (n, policies) uint64, see `keep`
    own: pa.Array | None  # the user's own ids, where there are any

    @classmethod
    def none(cls, keep: Sequence[str]) -> Documents:
        """Give no documents."""
        pairs = np.zeros((0, 2), np.uint64)
        keys = np.zeros((0, len(keep)), np.uint64)
        return cls(np.zeros(0, np.int64), pairs, pairs, pairs, keys, pa.array([], pa.string()))

    @classmethod
    def of(
        cls, source: str, rows: np.ndarray, batch: pa.RecordBatch, keep: Sequence[str], normalisation: Any
    ) -> Documents:
        """Read it off a batch with texts."""
        texts = content_digests(batch.column("text"))
        contents = texts if normalisation == "none" else content_digests(batch.column("text"), normalisation)
        own = batch.column("source_id") if "source_id" in batch.schema.names else pa.nulls(len(batch), pa.string())
        return cls(rows, id_words(batch.column("id")).copy(), contents, texts, keep_keys(keep, source, batch), own)

    @classmethod
    def joined(cls, some: Sequence[Documents]) -> Documents:
        """Put batches behind one another."""
        rows = np.concatenate([one.rows for one in some])
        held = {name: np.concatenate([getattr(one, name) for one in some]) for name in _PAIRS}
        own = pa.chunked_array([one.own for one in some], pa.string()).combine_chunks()
        return cls(rows, own=None if own.null_count == len(own) else own, **held)


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
            edges = by_other(repeats(entries, self.foreign << 32))
        return {"addresses": len(entries), **put_forest(self.stage.store, edges)}


def match(
    stage: Stage,
    dedup: Dedup,
    parts: Sequence[Part],
    launch: Callable[[Job], None],
    local: bool,
    view: View = EVERYTHING,
    *,
    by_url: bool = False,
    extra: Sequence[Digests] = (),
    contract_nodes: int = CONTRACT_NODES,
    similarity: bool = False,
) -> Receipt:
    """Find every cluster; commit `clusters` and the removal list; give the stage's last receipt.

    `launch` runs a job; `local` says that its workers share this machine. `by_url` matches URLs instead of texts.
    `extra`: digests of earlier runs, numbered from len(parts) on, which are matched against and never with one another.
    Where more than `contract_nodes` documents may be in clusters, star rounds find the components, which are the same.
    `similarity` has the true similarity of each document to the one that stays for it worked out where nothing is
    verified, too.
    """
    done = stage.receipt(settled_key(dedup, by_url, similarity))
    if done is not None and set(map(sign_key, parts)) <= stage.committed():
        return done
    sign, link = Sign(stage, dedup, view, by_url), Link(stage, len(parts))
    signed, linked = exchange(stage, parts, sign, link, launch, local, extra=extra)
    forests = merge_forests(stage, list(map(Forest.of, [*signed, *linked])), launch)
    if sum(forest.edges for forest in forests) > contract_nodes:
        forests = contract(stage, forests, launch)
    ended = Match(stage, dedup, parts, signed, launch, view, by_url, similarity)
    return settle_clusters(ended, [forest.name for forest in forests])


def warm_match(dedup: Dedup) -> None:
    """Compile what matching needs, before workers start."""
    texts = pa.array(["one two three four five six seven", "déjà vu", "one two three four five six seven"])
    digests = content_digests(texts, dedup.normalisation)
    if dedup.minhash is not None:
        dedup.minhash.digests(texts)
    packed = pack(digests, np.arange(3, dtype=np.uint64))
    fold(packed)
    spanning_forest(by_other(repeats(packed)))
    warm_settle(dedup, texts)
