"""Make tests/data/fineweb2.json: what datatrove's filters decide with FineWeb-2's configs, in its own environment.

    python tests/data/make_fineweb2_golden.py FINEWEB2

The texts are `variants` of the passages in tests/data/language.jsonl, by the language that stands beside each; FINEWEB2
is a checkout of https://github.com/huggingface/fineweb-2. Words are what whitespace separates. The filters are made as
`fineweb-2-pipeline.py` makes them (tests/benchmarks/fineweb2_peers.py).
"""

from __future__ import annotations

import json
import re
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def variants(text: str) -> list[str]:
    """Give a passage as it is, and its words five times in other orders: as lines, a paragraph, an ellipsis, a list."""
    words = text.split()
    turned = [
        word for turn in range(5) for word in sorted(words, key=lambda word: sha256(f"{turn}{word}".encode()).digest())
    ]
    rows = [" ".join(turned[start : start + 23]) for start in range(0, len(turned), 23)]
    return [
        text, ".\n".join(rows) + ".", " ".join(turned) + ".", "...\n".join(rows) + "...", "\n".join([*rows[:3], *rows]),
        "\n".join(turned[:99]), " # ".join(rows) + "." if len(rows) > 1 else "-".join(turned),
    ]  # fmt: skip


def main(clone: Path) -> None:
    """Write the decisions: for each passage of a language with a config, the rule that drops each variant, or null."""
    sys.path.append(str(HERE.parent / "benchmarks"))
    import datatrove_side
    import fineweb2_peers
    from datatrove.data import Document

    datatrove_side.whitespace_words()
    source = (HERE / "make_fineweb2_table.py").read_text(encoding="utf-8")
    pairs = re.search(r'LID_176 = """(.*?)"""', source, re.DOTALL)[1].split()  # type: ignore[index]
    labels = dict(zip(pairs[::2], pairs[1::2], strict=True))
    found: list[list[Any] | None] = []
    for line in (HERE / "language.jsonl").read_text(encoding="utf-8").strip("\n").split("\n"):
        row = json.loads(line)
        if row["language"] not in labels or not row["text"].strip():
            found.append(None)
            continue
        filters = fineweb2_peers.filters_of(clone, labels[row["language"]])
        found.append([fineweb2_peers.rule(filters, Document(text=text, id="")) for text in variants(row["text"])])
    versions = {"datatrove": metadata.version("datatrove")}
    (HERE / "fineweb2.json").write_text(json.dumps({"versions": versions, "rules": found}, indent=0) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
