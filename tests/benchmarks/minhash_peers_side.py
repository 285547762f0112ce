"""One peer's part of tests/benchmarks/minhash.py, run by a Python that has it: text to signature, 14 x 8, 5 words.

    python tests/benchmarks/minhash_peers_side.py datatrove|gaoya|rensa TEXTS.json

datatrove: its own `get_shingles` (normalisation, n-grams, XXH64) and `get_signature`, with words by white space in the
place of spaCy's. gaoya: `insert_document`, which splits, lower-cases and hashes, and fills its index too. rensa:
`text.lower().split()` and n-grams joined in Python, then its fastest call. Prints CPU seconds as a JSON line; for
datatrove a digest of each signature too.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BANDS, ROWS, NGRAM = 14, 8, 5


def datatrove(texts: list[str]) -> dict[str, Any]:
    """Sign as FineWeb's pipeline does; texts with no shingle have no digest."""
    import numpy as np
    from datatrove.pipeline.dedup import minhash

    minhash.load_word_tokenizer = lambda _: SimpleNamespace(word_tokenize=str.split)
    step = minhash.MinhashDedupSignature("unused", minhash.MinhashConfig(NGRAM, BANDS, ROWS, seed=1))
    signed, start = [], time.process_time()
    for text in texts:
        shingles = step.get_shingles(text)
        signed.append(step.get_signature(shingles) if len(shingles) else None)
    spent = time.process_time() - start
    bodies = [None if one is None else np.array(one, "<u8").tobytes() for one in signed]
    return {"signing": spent, "digests": [body and hashlib.sha256(body).hexdigest() for body in bodies]}


def gaoya(texts: list[str]) -> dict[str, Any]:
    """Insert into an index of 32-bit values."""
    from gaoya.minhash import MinHashStringIndex  # type: ignore[import-not-found]

    index = MinHashStringIndex(32, 0.75, BANDS, ROWS, None, "word", True, (NGRAM, NGRAM))
    start = time.process_time()
    for number, text in enumerate(texts):
        index.insert_document(number, text)
    return {"signing": time.process_time() - start}


def rensa(texts: list[str]) -> dict[str, Any]:
    """Sign a thousand texts a call."""
    from rensa import RMinHash

    start = time.process_time()
    for first in range(0, len(texts), 1000):
        shingles = []
        for text in texts[first : first + 1000]:
            words = text.lower().split()
            shingles.append([" ".join(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)])
        RMinHash.digest_matrix_from_token_sets(shingles, BANDS * ROWS, 1)
    return {"signing": time.process_time() - start}


PEERS: dict[str, Callable[[list[str]], dict[str, Any]]] = {"datatrove": datatrove, "gaoya": gaoya, "rensa": rensa}

if __name__ == "__main__":
    print(json.dumps(PEERS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))))
