"""Ask DCLM's own mappers again what they make of the texts in dclm_edits.json.

    python tests/data/make_dclm_golden.py CHECKOUT

CHECKOUT is one of github.com/mlfoundations/dclm (commit 361714bd); run in the environment of
tests/benchmarks/rules_peers.py. The texts are woven from pieces that its expressions look for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent / "benchmarks"))
    from rules_peers import dclm

    target = HERE / "dclm_edits.json"
    rules = dclm(Path(sys.argv[1]).resolve())
    made = [
        {
            "text": one["text"],
            "after_text": rules["refinedweb_text"](one["text"]),
            "after_lines": rules["refinedweb_lines"](one["text"]),
        }
        for one in json.loads(target.read_text(encoding="utf-8"))
    ]
    target.write_text(json.dumps(made, indent=0) + "\n", encoding="utf-8")
