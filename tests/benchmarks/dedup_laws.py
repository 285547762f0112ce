"""The same set: `penstock dedup --laws` of `dedup.py`, on the command line, at size.

What is kept and what is one cluster is a function of the set of documents: the same for shuffled input, for the same
documents in 1, 7 and 40 files, as JSON lines and as Parquet, with 1 and 2 workers. Each case is a run of the command;
texts kept are compared as a multiset of digests, clusters as sets of ids.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from dedup_corpus import answer, command, megabytes_of, put, read_documents, some_blocks

CASES = {  # files, format, shuffled, workers
    "7 files": (7, "parquet", False, 2), "1 worker": (7, "parquet", False, 1), "1 file": (1, "parquet", False, 2),
    "40 files": (40, "parquet", False, 2), "shuffled": (7, "parquet", True, 2), "jsonl": (7, "jsonl", False, 2),
    "jsonl, 40 files, shuffled, 1 worker": (40, "jsonl", True, 1),
}  # fmt: skip


def laws(work: Path, paths: list[str], megabytes: float, options: list[str]) -> dict[str, Any]:
    """Run every case; give what each found, and whether it is what the first one found."""
    documents = some_blocks(list(read_documents(paths)), megabytes)
    texts = {one["id"]: one["text"] for one in documents}
    cases, first = {}, None
    for name, (files, suffix, shuffled, workers) in CASES.items():
        rows = random.Random(5).sample(documents, len(documents)) if shuffled else documents
        source, output = work / "in", work / "out"
        put(rows, source, files, suffix)
        words = command(source, output, "--workers", str(workers), *options, suffix=suffix)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        kept, clusters = answer(source, output)
        found = Counter(texts[one] for one in kept), clusters
        first = first or found
        cases[name] = {
            "kept": len(kept), "clusters": len(clusters), "same_texts": found[0] == first[0],
            "same_clusters": clusters == first[1],
        }  # fmt: skip
        shutil.rmtree(source)
        shutil.rmtree(output)
    holds = all(one["same_texts"] and one["same_clusters"] for one in cases.values())
    size = round(megabytes_of(documents), 1)
    return {"benchmark": "dedup_laws", "documents": len(documents), "mb": size, "holds": holds, "cases": cases}
