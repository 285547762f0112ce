"""Make `quality.bin`, a small classifier for `dclm.yaml` to run with: `python make_quality.py` (needs [classifier]).

Good are the handbook's and the databases' English pages of quickstart.warc.gz, others its API references. It only
stands in for DCLM's model: 8 dimensions, words that stand 10 times, no word n-grams.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from penstock.transforms import ExtractHtml
from penstock.transforms.readers import Piece, list_files, read

HERE = Path(__file__).parent
CLASSES = {"positive": r"debian-handbook/html/en-US|postgresql-doc|sqlite3-doc", "negative": r"javadoc-|rust-web-doc"}


def main() -> int:
    """Extract the pages, train on them."""
    (entry,) = list_files(str(HERE / "quickstart.warc.gz"))
    texts: dict[str, list[str]] = {name: [] for name in CLASSES}
    for outcome in read(Piece(entry.url, "web", entry.path, "warc", entry.size)):
        batch = ExtractHtml().apply(outcome.batch.filter(outcome.reasons.is_null())).batch
        for url, text in zip(batch["url"].to_pylist(), batch["text"].to_pylist(), strict=True):
            for name, pattern in CLASSES.items():
                if text and re.search(pattern, url or ""):
                    texts[name].append(text)
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "penstock", "classifier", "train", "--output", str(Path(folder) / "quality.bin")]
        for name, found in texts.items():
            path = Path(folder) / f"{name}.jsonl"
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in found))
            words += [f"--{name}", str(path)]
        small = [
            "--dim",
            "8",
            "--min-count",
            "10",
            "--word-ngrams",
            "1",
            "--bucket",
            "1",
            "--epoch",
            "20",
            "--lr",
            "0.5",
        ]
        subprocess.run([*words, *small], check=True)
        (HERE / "quality.bin").write_bytes((Path(folder) / "quality.bin").read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
