"""What stays of a file, written in its own format, beside pyarrow and a loop over lines, in turns.

    python tests/benchmarks/rewriting.py DOCS.jsonl.zst… [--megabytes 100] [--gone 0.2] [--rounds 3]

Parquet: pyarrow reads each row group, filters and writes it with the same codec. JSON lines: a loop over the file's
lines that writes those that stay (it numbers no records, knows no damage), and one that parses and writes each, as who
filters with a library does. `same`: both kept the same documents. Prints one JSON line: MB of JSON lines per CPU-second
in one process without threads, the best of the rounds; memory at its peak.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import texts_of
from process_tree import load_average, peak_mb

from penstock.transforms.readers import Fields, Piece
from penstock.transforms.rewriters import rewrite
from penstock.transforms.verdicts import Verdicts

CODECS = ("zstd", "snappy")
Side = Callable[[Path, Path, Any], None]


def ours(source: Path, target: Path, stays: Any) -> None:
    """Write what stays as the output of a deduplication does."""
    kind = "parquet" if source.suffix == ".parquet" else "jsonl"
    piece = Piece(str(source), "web", source.name, kind, source.stat().st_size)
    verdicts = Verdicts(np.arange(len(stays)), np.flatnonzero(~stays))
    with target.open("wb") as file:
        written = sum(met.written for met in rewrite(piece, Fields(), verdicts, file))
    assert written == stays.sum()


def pyarrows(source: Path, target: Path, stays: Any) -> None:
    """Read, filter, write."""
    table, first = pq.ParquetFile(source), 0
    codec = table.metadata.row_group(0).column(0).compression
    with pq.ParquetWriter(target, table.schema_arrow, compression=codec) as writer:
        for number in range(table.num_row_groups):
            group = table.read_row_group(number, use_threads=False)
            writer.write_table(group.filter(pa.array(stays[first : first + len(group)])))
            first += len(group)


def lines(source: Path, target: Path, stays: Any) -> None:
    """Copy the lines that stay."""
    with source.open("rb") as file, target.open("wb") as out:
        out.writelines(line for line, stay in zip(file, stays.tolist(), strict=True) if stay)


def parsed(source: Path, target: Path, stays: Any) -> None:
    """Parse every line and write those that stay."""
    with source.open(encoding="utf-8") as file, target.open("w", encoding="utf-8") as out:
        for line, stay in zip(file, stays.tolist(), strict=True):
            record = json.loads(line)
            if stay:
                out.write(json.dumps(record, ensure_ascii=False) + "\n")


def texts_in(path: Path) -> list[str]:
    """Read back what was written."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).column("text").to_pylist())
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def measure(source: Path, sides: dict[str, Side], stays: Any, megabytes: float, rounds: int) -> dict[str, Any]:
    """Run the sides in turns; give the rates, our ratio to each, and whether all kept the same."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.process_time()
            side(source, source.with_name(f"{name}{source.suffix}"), stays)
            spent = time.process_time() - start
            best[name] = min(best.get(name, spent), spent)
    kept = [texts_in(source.with_name(f"{name}{source.suffix}")) for name in sides]
    rates = {name: round(megabytes / spent, 1) for name, spent in best.items()}
    ratios = {f"to_{name}": round(best[name] / best["penstock"], 2) for name in sides if name != "penstock"}
    return {**rates, **ratios, "same": all(each == kept[0] for each in kept)}


def main() -> None:
    """Write the files, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--gone", type=float, default=0.2, help="share of the documents")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows = [
        {"id": number, "text": text} for number, text in enumerate(texts_of(arguments.documents, arguments.megabytes))
    ]
    stays = np.random.default_rng(1).random(len(rows)) >= arguments.gone
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:
        plain = Path(work) / "docs.jsonl"
        plain.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        megabytes = plain.stat().st_size / 1e6
        found: dict[str, Any] = {"megabytes": round(megabytes, 1), "documents": len(rows), "gone": arguments.gone}
        for codec in CODECS:
            path = Path(work) / f"{codec}.parquet"
            pq.write_table(pa.Table.from_pylist(rows), path, compression=codec, row_group_size=10_000)
            sides: dict[str, Side] = {"penstock": ours, "pyarrow": pyarrows}
            found[f"parquet_{codec}"] = measure(path, sides, stays, megabytes, arguments.rounds)
        sides = {"penstock": ours, "lines": lines, "parsed": parsed}
        found["jsonl"] = measure(plain, sides, stays, megabytes, arguments.rounds)
    print(json.dumps({**found, "peak_mb": peak_mb(), "load": load_average()}))


if __name__ == "__main__":
    main()
