"""Deduplicate documents you already have, and read who was dropped for whom.

Without arguments it writes a small JSON-lines file with near-duplicates in it and deduplicates that. The same as
`penstock dedup --input INPUT --output OUTPUT`, from Python.
"""

import argparse
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

from penstock.pipelines.dedup import dedup_job, deduplicate


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", nargs="?", help="a file, folder or glob of Parquet or JSON lines")
    parser.add_argument("output", nargs="?", default="runs/dedup_only")
    parser.add_argument("runner", nargs="?", default="local")
    asked = parser.parse_args(argv)
    source = asked.input or str(sample(Path("runs/dedup_only_input.jsonl")))
    job = dedup_job([source], fields={} if asked.input else {"id": "name"})
    manifest = deduplicate(job, asked.output, runner=asked.runner)
    print(f"{manifest['documents_in']} documents in, {manifest['kept']} kept, {manifest['duplicates']} duplicates")
    removed = pq.read_table(f"{asked.output}/{manifest['tables']['clusters']}")
    for row in removed.slice(0, 5).to_pylist():
        gone, kept = (row[name] or row[name.replace("source_", "")].hex() for name in ("source_id", "kept_source_id"))
        print(f"  {gone} goes for {kept} (a cluster of {row['cluster_size']})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
