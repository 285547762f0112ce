"""Make tests/data/datatrove_minhash.json: what datatrove's own code signs, words by whitespace.

    python tests/data/make_minhash_golden.py tests/data/datatrove_minhash.json

Run in an environment with datatrove 0.10.0. Of each signature there stand the first two values and the SHA-256 of all,
as little-endian uint64.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from datatrove.pipeline.dedup import minhash
from datatrove.utils.hashing import HashConfig

WORDS = ["The", "quick", "Brown", "fox,", "jumps", "over", "13", "lazy", "dogs", "—", "naïvely;", "漢字", "한국", "end"]
WORDS += ["ΟΔΟΣ", "3.14", "السلام", "don't", "İstanbul", "👩\u200d👩\u200d👧"]
CASES = [
    {"hash": "xxhash", "ngram": 5, "bands": 14, "rows": 8, "seed": 1},  # datatrove's default
    {"hash": "sha1", "ngram": 5, "bands": 14, "rows": 8, "seed": 1},  # FineWeb's
    {"hash": "xxhash", "ngram": 1, "bands": 3, "rows": 5, "seed": 7},
    {"hash": "sha1", "ngram": 13, "bands": 20, "rows": 13, "seed": 2**32 - 1},
]


def texts() -> list[str]:
    """Make texts of 1 to 900 words: shingles below and above one block of each hash."""
    chance = random.Random(0)
    made = [" ".join(chance.choices(WORDS, k=count)) for count in (1, 5, 6, 13, 14, 40, 255, 256, 260, 261, 900)]
    long = ["".join(chance.choices("abcdefgh", k=size)) for size in (3, 5, 7, 12, 25, 31, 32, 55, 56, 63, 64, 119, 200)]
    return [*made, " ".join(long)]


def main(path: Path) -> None:
    """Write texts, cases, and for each case the signature of each text, or null where there is none."""
    minhash.load_word_tokenizer = lambda _: SimpleNamespace(word_tokenize=str.split)
    found = []
    for case in CASES:
        config = minhash.MinhashConfig(
            n_grams=case["ngram"],
            num_buckets=case["bands"],
            hashes_per_bucket=case["rows"],
            seed=case["seed"],
            hash_config=HashConfig(precision=64, hash_fc=case["hash"]),
        )
        step = minhash.MinhashDedupSignature("unused", config)
        signed: list[list[int | str] | None] = []
        for text in texts():
            shingles = step.get_shingles(text)
            if not len(shingles):
                signed.append(None)
                continue
            values = np.array(step.get_signature(shingles), "<u8").reshape(-1)
            signed.append([*values[:2].tolist(), hashlib.sha256(values.tobytes()).hexdigest()])
        found.append({**case, "signatures": signed})
    path.write_text(json.dumps({"texts": texts(), "cases": found}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
