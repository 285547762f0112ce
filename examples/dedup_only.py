"""Deduplicate documents you already have, and read who was dropped for whom.

python examples/dedup_only.py [INPUT [OUTPUT [RUNNER]]]

Without arguments it writes a small JSON-lines file with near-duplicates in it and deduplicates that. The same as
`penstock dedup --input INPUT --output OUTPUT`, from Python.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

from penstock import run
from penstock.pipelines.dedup import dedup_recipe


def sample(path: Path) -> Path:
    """Write 60 documents: 20 texts, each as it is, with another ending, and copied whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number in range(20):
            letter = chr(ord("a") + number)  # digits tell no texts apart: normalised, they are all 0
            words = [letter + word for word in ("river", "dam", "pipe", "valve", "wheel", "spillway")]
            text = " ".join(f"The {words[i % 6]} feeds the {words[i * 5 % 6]} number {i}." for i in range(40))
            for copy, ending in enumerate(("", " And that is all there is to say.", "")):
                file.write(json.dumps({"name": f"doc-{number}-{copy}", "text": text + ending}) + "\n")
    return path


def main(argv: list[str]) -> int:
    """Deduplicate, and print the first removals."""
    output = argv[1] if len(argv) > 1 else "runs/dedup_only"
    source = argv[0] if argv else str(sample(Path("runs/dedup_only_input.jsonl")))
    recipe = dedup_recipe([source], id_field=None if argv else "name")
    manifest = run(recipe, output, runner=argv[2] if len(argv) > 2 else "local")
    print(f"{manifest['documents_in']} documents in, {manifest['kept']} kept, {manifest['duplicates']} duplicates")
    removed = pq.read_table(f"{output}/{manifest['tables']['clusters']}")
    for row in removed.slice(0, 5).to_pylist():
        gone, kept = (row[name] or row[name.replace("source_", "")].hex() for name in ("source_id", "kept_source_id"))
        print(f"  {gone} goes for {kept} (a cluster of {row['cluster_size']})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
