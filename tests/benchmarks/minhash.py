"""MinHash 14 x 8 beside datasketch: text to signature, and signatures to clusters, in turns.

    python tests/benchmarks/minhash.py DOCS.jsonl.zst… [--megabytes 50] [--sample 2] [--rows 1000000]
        [--datatrove PYTHON] [--peers PYTHON]

Signatures: penstock from the text, FineWeb's normalisation in it; datasketch (`affine32`, the same permutations,
XXH32 of a shingle) from `text.lower().split()`, which is less work, and from shingles that lie ready. Clusters, in
memory (`clusters.py` measures them through files, as a run makes them): digests of the bands, links and components
here; `MinHashLSH` of 14 x 8, each row inserted, then asked for, and a union-find there; on made signatures, of which
a tenth repeat another row in some bands. `same_clusters`: on the rows that both had. Families: each with its default
hash of an n-gram, FineWeb's SHA-1, and characters; datatrove, gaoya and rensa sign the sample as
`minhash_peers_side.py` says, where a Python that has them is named. `same_as_datatrove`: texts of the sample whose
mersenne64 signature is datatrove's, and all that are long enough. Prints one JSON line: MB of UTF-8 text and rows per
CPU-second, in one process, the best of the rounds; memory with the data loaded and its rise while measuring.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from corpus import get, put, sample_of, texts_of
from process_tree import load_average, peak_mb, run_tree

BANDS, ROWS, NGRAM, BATCH = 14, 8, 5, 1000
PEERS_SIDE = str(Path(__file__).with_name("minhash_peers_side.py"))
METHODS: dict[str, dict[str, Any]] = {
    "affine32": {},
    "mersenne64": {"family": "mersenne64"},
    "mersenne64_sha1": {"family": "mersenne64", "shingle_hash": "sha1"},
    "mersenne32": {"family": "mersenne32"},
    "affine32_characters": {"unit": "characters", "ngram": 24},
}


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the documents and the sample; compile the kernels."""
    texts = texts_of(arguments.documents, arguments.megabytes)
    sample = sample_of(texts, arguments.sample)
    size, some = put(texts, work / "texts"), put(sample, work / "sample")
    sign(["compile me, and then all the rest"])
    clusters(made(100))
    return {
        "megabytes": round(size, 1), "documents": len(texts),
        "sample_megabytes": round(some, 2), "sample_documents": len(sample),
    }  # fmt: skip


def sign(texts: list[str]) -> float:
    """Sign texts as one batch; give CPU seconds."""
    import pyarrow as pa

    from penstock.transforms.minhash import MinHash

    array, method = pa.array(texts, pa.large_string()), MinHash(bands=BANDS, rows=ROWS, ngram=NGRAM)
    start = time.process_time()
    method.signatures(array)
    return time.process_time() - start


def families_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Sign the sample by each method, twice, the better counts; digest what mersenne64 gives, as the peers' side does.

    The sets of the same n-grams are measured too.
    """
    import pyarrow as pa

    from penstock.transforms.minhash import MinHash

    texts = pa.array(get(work / "sample"), pa.large_string())
    methods = {name: MinHash(bands=BANDS, rows=ROWS, **fields) for name, fields in METHODS.items()}
    jobs: dict[str, Callable[[], Any]] = {
        **{name: partial(method.signatures, texts) for name, method in methods.items()},
        "shingle_sets": partial(MinHash().shingle_sets, texts),
    }
    spent = {name: min(cpu_of(job) for _ in range(3)) for name, job in jobs.items()}
    values, enough = methods["mersenne64"].signatures(texts)
    digests = [
        hashlib.sha256(row.astype("<u8").tobytes()).hexdigest() if has else None
        for row, has in zip(values, enough, strict=True)
    ]
    return {"signing": spent, "digests": digests}


def cpu_of(job: Callable[[], Any]) -> float:
    """Give the CPU seconds of a call."""
    start = time.process_time()
    job()
    return time.process_time() - start


def made(rows: int) -> Any:
    """Make signatures (rows, 112) uint32, the same first ones for any number; a tenth of them repeat an earlier one."""
    import numpy as np

    found = np.empty((-(-rows // BATCH) * BATCH, BANDS * ROWS), np.uint32)
    for number in range(len(found) // BATCH):
        chance = np.random.default_rng(number)
        values = chance.integers(0, 1 << 32, (BATCH, BANDS, ROWS), np.uint32)
        copies = chance.integers(BATCH // 10, BATCH, BATCH // 10)
        shared = chance.random((len(copies), BANDS)) < chance.random((len(copies), 1))
        values[copies] = np.where(shared[:, :, None], values[chance.integers(0, copies)], values[copies])
        found[number * BATCH : (number + 1) * BATCH] = values.reshape(BATCH, -1)
    return found[:rows]


def clusters(signatures: Any) -> Any:
    """Give each row's cluster, as the smallest row in it: int64 (rows,)."""
    import numpy as np

    from penstock.pipelines.exchange import pack, repeats
    from penstock.transforms.kernels.graph import components
    from penstock.transforms.kernels.minhash import digest_bands

    places = np.arange(len(signatures), dtype=np.uint64)
    edges = [repeats(pack(digests, places)) for digests in digest_bands(signatures, BANDS)]
    nodes, labels = components(np.concatenate(edges))
    found = places.astype(np.int64)
    found[nodes.astype(np.int64)] = labels
    return found


def penstock_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Sign all documents; cluster all rows."""
    texts = get(work / "texts")
    sign(["first call of the process, as words"])
    loaded = peak_mb()
    signing = sum(sign(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH))
    signed, texts = peak_mb(), []
    signatures, head = made(arguments.rows), clusters(made(arguments.peer_rows))
    held, start = peak_mb(), time.process_time()
    clusters(signatures)
    clustering = time.process_time() - start
    memory = {"signing": [round(loaded), round(signed - loaded)], "clustering": [round(held), round(peak_mb() - held)]}
    return {"signing": signing, "clustering": clustering, "clusters": head.tolist(), "memory_mb": memory}


def datasketch_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Sign the sample and cluster the first rows with datasketch."""
    from datasketch import MinHash
    from xxhash import xxh32_intdigest

    texts = get(work / "sample")
    named = {"num_perm": BANDS * ROWS, "seed": 1, "scheme": "affine32", "hashfunc": xxh32_intdigest}
    empty = MinHash(**named)
    loaded, start, given = peak_mb(), time.process_time(), 0.0
    for text in texts:
        words = text.lower().split()
        shingles = [" ".join(words[at : at + NGRAM]).encode() for at in range(len(words) - NGRAM + 1)]
        middle, signature = time.process_time(), empty.copy()
        signature.update_batch(shingles)
        given += time.process_time() - middle
    signing, signed, rows = time.process_time() - start, peak_mb(), made(arguments.peer_rows)
    hashes = [MinHash(**named, hashvalues=row, permutations=empty.permutations) for row in rows]
    held, start = peak_mb(), time.process_time()
    found = asked(hashes)
    clustering = time.process_time() - start
    memory = {"signing": [round(loaded), round(signed - loaded)], "clustering": [round(held), round(peak_mb() - held)]}
    return {"signing": signing, "given": given, "clustering": clustering, "clusters": found, "memory_mb": memory}


def asked(hashes: list[Any]) -> list[int]:
    """Insert every row, ask for each, join what meets; give each row's cluster as the smallest row in it."""
    from datasketch import MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    for number, one in enumerate(hashes):
        index.insert(number, one, check_duplication=False)
    roots = list(range(len(hashes)))

    def root(number: int) -> int:
        while roots[number] != number:
            roots[number] = number = roots[roots[number]]
        return number

    for number, one in enumerate(hashes):
        for other in index.query(one):
            low, high = sorted((root(number), root(other)))
            roots[high] = low
    return [root(number) for number in range(len(hashes))]


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "datasketch": datasketch_side, "families": families_side,
}  # fmt: skip


def verdict(rounds: list[dict[str, dict[str, Any]]], sizes: dict[str, Any], rows: int, some: int) -> dict[str, Any]:
    """Give rates and ratios."""

    def least(side: str, name: str) -> float:
        return min(float(one[side][name]) for one in rounds)

    own, linked = sizes["megabytes"] / least("penstock", "signing"), rows / least("penstock", "clustering")
    peer, given = (sizes["sample_megabytes"] / least("datasketch", name) for name in ("signing", "given"))
    asked_rate = some / least("datasketch", "clustering")
    return {
        "signatures": {
            "mb_per_cpu_s": round(own, 1), "datasketch_mb_per_cpu_s": round(peer, 2), "ratio": round(own / peer, 1),
            "datasketch_from_shingles_mb_per_cpu_s": round(given, 2), "ratio_from_shingles": round(own / given, 1),
        },
        "clusters": {
            "rows": rows, "rows_per_cpu_s": round(linked), "datasketch_rows": some,
            "datasketch_rows_per_cpu_s": round(asked_rate), "ratio": round(linked / asked_rate, 1),
            "same_clusters": rounds[0]["penstock"]["clusters"] == rounds[0]["datasketch"]["clusters"],
        },
        "memory_mb_loaded_and_rise": {side: rounds[0][side]["memory_mb"] for side in ("penstock", "datasketch")},
    }  # fmt: skip


def families(rounds: list[dict[str, dict[str, Any]]], megabytes: float, peers: list[str]) -> dict[str, Any]:
    """Give the families' and the peers' rates, and how much of the peers' each family reaches."""
    own = {
        name: megabytes / min(one["families"]["signing"][name] for one in rounds) for name in (*METHODS, "shingle_sets")
    }
    other = {name: megabytes / min(one[name]["signing"] for one in rounds) for name in peers}
    found: dict[str, Any] = {
        "mb_per_cpu_s": {name: round(rate, 2) for name, rate in (own | other).items()},
        "ratio": {f"{name}_to_{peer}": round(own[name] / rate, 1) for peer, rate in other.items() for name in METHODS},
    }
    if "datatrove" in peers:
        pairs = list(zip(rounds[0]["families"]["digests"], rounds[0]["datatrove"]["digests"], strict=True))
        found["same_as_datatrove"] = [
            sum(a == b and a is not None for a, b in pairs),
            sum(b is not None for _, b in pairs),
        ]
    return found


def main() -> int:
    """Measure in turns; print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("documents", nargs="*")
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--sample", type=float, default=2.0, help="MB that datasketch gets")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds that one side may take")
    parser.add_argument("--datatrove", help="a Python that has datatrove")
    parser.add_argument("--peers", help="a Python that has gaoya and rensa")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.work, arguments)))
        return 0
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        amounts = ["--megabytes", str(arguments.megabytes), "--sample", str(arguments.sample)]
        amounts += ["--rows", str(arguments.rows), "--peer-rows", str(arguments.peer_rows), "--work", work]
        files = [os.path.abspath(path) for path in arguments.documents]

        def side(name: str) -> dict[str, Any]:
            return run_tree([sys.executable, __file__, "--side", name, *amounts, *files], arguments.limit)[0]

        def peer(name: str) -> dict[str, Any]:
            return run_tree([pythons[name], PEERS_SIDE, name, str(Path(work) / "sample")], arguments.limit)[0]

        named = {"datatrove": arguments.datatrove, "gaoya": arguments.peers, "rensa": arguments.peers}
        pythons = {name: python for name, python in named.items() if python}
        sizes = side("prepare")
        sides = ("penstock", "datasketch", "families")
        rounds = [
            {**{name: side(name) for name in sides}, **{name: peer(name) for name in pythons}}
            for _ in range(arguments.rounds)
        ]
    figures = verdict(rounds, sizes, arguments.rows, arguments.peer_rows)
    figures["families"] = families(rounds, sizes["sample_megabytes"], list(pythons))
    print(json.dumps({"benchmark": "minhash", **sizes, **figures, "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
