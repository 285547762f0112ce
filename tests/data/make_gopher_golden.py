"""Make tests/data/gopher_peers.json: what DCLM's, dolma's and datatrove's own code decides.

    DCLM=DIR DOLMA=DIR python tests/data/make_gopher_golden.py DATA tests/data/gopher_peers.json

Run in the environment that tests/benchmarks/gopher_peers.py makes for the peers; DCLM and DOLMA as there, DATA is
../shared/data. Texts are those of datatrove_quality.json, and documents of DATA of which only the ids are kept.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import zstandard

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
LONGEST, EACH = 3000, 100  # code points of a document; one document in so many


def main(data: Path, path: Path) -> None:
    """Write the decisions: for each case the rules, and for each text and document the number of its rule, or null."""
    from gopher_peers_side import deciders

    texts = json.loads((ROOT / "tests" / "data" / "datatrove_quality.json").read_text(encoding="utf-8"))["texts"]
    documents = []
    for name in ("docs_english", "docs_multilingual"):
        with (data / f"{name}.jsonl.zst").open("rb") as file:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
            documents += [json.loads(line) for number, line in enumerate(lines) if number % EACH == 0]
    every = [*texts, *(document["text"][:LONGEST] for document in documents)]
    cases = {}
    for case, decide in deciders(Path(os.environ["DCLM"]), Path(os.environ["DOLMA"])).items():
        found = [decide(text) for text in every]
        rules = sorted({rule for rule in found if rule is not None})
        numbers = [None if rule is None else rules.index(rule) for rule in found]
        cases[case] = {"rules": rules, "texts": numbers[: len(texts)], "documents": numbers[len(texts) :]}
    held = {"longest": LONGEST, "ids": [document["id"] for document in documents], "cases": cases}
    path.write_text(json.dumps(held, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
