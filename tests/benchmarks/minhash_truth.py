"""How often planted pairs meet in a band, beside theory: 14 x 8, texts of words that stand once, similarity known.

    python tests/benchmarks/minhash_truth.py [--pairs 20000]

Each pair's similarity is computed exactly too, from the sets of n-grams. Prints one JSON line: for each family and
similarity the share of pairs with an equal digest in at least one band, 1 − (1 − j^8)^14, and the difference in points.
Fails where a difference is 2 points or more.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.transforms.kernels.shingle_sets import jaccard_pairs
from penstock.transforms.minhash import MinHash

sys.path.insert(0, str(Path(__file__).parents[1]))
from planted_pairs import PLANTED, planted

BATCH = 1000
METHODS: dict[str, dict[str, Any]] = {
    "affine32": {},
    "affine32_sha1": {"shingle_hash": "sha1"},
    "mersenne64": {"family": "mersenne64"},
    "mersenne64_rolling": {"family": "mersenne64", "shingle_hash": "rolling"},
    "mersenne32": {"family": "mersenne32"},
}


def main() -> int:
    """Measure; print one JSON line; 1 where theory and truth are too far apart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    pairs = parser.parse_args().pairs
    methods = {name: MinHash(**fields) for name, fields in METHODS.items()}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in methods}
    for jaccard in PLANTED:
        met = dict.fromkeys(methods, 0)
        for start in range(0, pairs, BATCH):
            texts = pa.array(planted(jaccard, min(BATCH, pairs - start), seed=start))
            offsets, values = MinHash().shingle_sets(texts)
            both, either = jaccard_pairs(offsets, values, np.arange(len(texts)).reshape(-1, 2))
            assert np.allclose(both / either, jaccard), "the pairs are not what they should be"
            for name, method in methods.items():
                digests = method.digests(texts)
                met[name] += int((digests[:, 0::2] == digests[:, 1::2]).all(axis=2).any(axis=0).sum())
        for name, method in methods.items():
            rate, theory = met[name] / pairs, method.match_probability(jaccard)
            found[name][str(jaccard)] = [round(rate, 4), round(theory, 4), round(100 * (rate - theory), 2)]
    worst = max(abs(each[2]) for one in found.values() for each in one.values())
    print(json.dumps({"benchmark": "minhash_truth", "pairs": pairs, "rates": found, "worst_points": worst}))
    return int(worst >= 2)


if __name__ == "__main__":
    sys.exit(main())
