"""Extractors side by side: what pages must and must not give, code, tables, order, and speed; in turns.

    python tests/benchmarks/extraction.py web.warc.gz [--every 20] [--evaluation trafilatura/tests] [--rounds 2]

Pages of the WARC are labelled by the templates of their sites (`tests/page_templates.py`). `--evaluation` names the
folder `tests` of a checkout of trafilatura: 990 pages of news, blogs and companies with segments that an extractor
should and should not give, by its authors. Prints one JSON line: percentages, and MB of HTML per CPU-second, the best
of the rounds; `f1` is of wanted segments found against unwanted ones given; `memory_mb`, the peak before and its rise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from page_templates import Page, Score, label, score, squeezed
from process_tree import load_average, peak_mb

EXTRACTORS: dict[str, dict[str, Any]] = {
    "penstock": {},
    "resiliparse": {"extractor": "resiliparse"},
    "resiliparse_all_text": {"extractor": "resiliparse", "main_content": False},
    "trafilatura_as_fineweb": {"extractor": "trafilatura"},
}


def labelled_pages(path: str, every: int) -> list[Page]:
    """Label one page in so many of a WARC, by the hash of its address."""
    from read_rows import rows_of

    pages = []
    for row in rows_of(Path(path)):
        if row["html"] and int(hashlib.sha256(row["url"].encode()).hexdigest()[:6], 16) % every == 0:
            pages.append(label(row["url"], row["html"]))
    return [page for page in pages if page is not None]


def evaluation_pages(folder: Path) -> list[Page]:
    """Read the pages and segments that trafilatura's authors keep."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    pages = []
    for url, entry in json.loads((folder / "evaldata.json").read_text()).items():
        path = next(
            (at for at in (folder / "eval" / entry["file"], folder / "cache" / entry["file"]) if at.exists()), None
        )
        if path is not None:
            body = path.read_bytes()
            wanted, unwanted = (list(map(squeezed, entry.get(name) or [])) for name in ("with", "without"))
            pages.append(Page(url, bytes_to_str(body, detect_encoding(body) or "utf-8"), wanted, unwanted))
    return pages


def texts_of(pages: list[Page], fields: dict[str, Any]) -> tuple[list[str], float]:
    """Extract the pages in batches; give their texts and the CPU-seconds."""
    import pyarrow as pa

    from penstock.transforms import ExtractHtml

    step, found, seconds = ExtractHtml(**fields), [], 0.0
    step.apply(pa.record_batch({"text": pa.nulls(1, pa.string()), "html": ["<p>compile"]}))
    for at in range(0, len(pages), 100):
        html = pa.array([page.html for page in pages[at : at + 100]])
        batch = pa.record_batch({"text": pa.nulls(len(html), pa.string()), "html": html})
        start = time.process_time()
        outcome = step.apply(batch)
        seconds += time.process_time() - start
        found += [text or "" for text in outcome.batch["text"].to_pylist()]
    return found, seconds


def measure(pages: list[Page], rounds: int, judge: Callable[[list[Page], list[str]], dict[str, Any]]) -> dict[str, Any]:
    """Run each extractor in turns; give what the judge says, and the speed."""
    size = sum(len(page.html.encode()) for page in pages) / 1e6
    seconds: dict[str, list[float]] = {name: [] for name in EXTRACTORS}
    told: dict[str, Any] = {}
    for _ in range(rounds):
        for name, fields in EXTRACTORS.items():
            texts, took = texts_of(pages, fields)
            seconds[name].append(took)
            told[name] = judge(pages, texts)
    fastest = {name: min(took) for name, took in seconds.items()}
    for name, took in fastest.items():
        told[name] |= {"mb_per_cpu_s": round(size / took, 1), "ratio": round(took / fastest["penstock"], 1)}
    return {"pages": len(pages), "megabytes": round(size, 1), **told}


def by_templates(pages: list[Page], texts: list[str]) -> dict[str, Any]:
    """Score texts against the labels of their pages."""
    total = Score()
    for page, text in zip(pages, texts, strict=True):
        score(page, text, total)
    return total.shares()


def by_segments(pages: list[Page], texts: list[str]) -> dict[str, Any]:
    """Score texts by the segments that they should and should not hold."""
    found = wanted = given = unwanted = 0
    for page, text in zip(pages, texts, strict=True):
        body = squeezed(text)
        found += sum(segment in body for segment in page.must)
        given += sum(segment in body for segment in page.must_not)
        wanted, unwanted = wanted + len(page.must), unwanted + len(page.must_not)
    precision, recall = found / (found + given), found / wanted
    shares = {"must_have": 100 * recall, "must_not_have": 100 * given / unwanted}
    return {name: round(share, 1) for name, share in shares.items()} | {
        "f1": round(2 * precision * recall / (precision + recall), 3)
    }


def main() -> int:
    """Measure; print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("warc")
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--evaluation", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    before = peak_mb()
    result = {"documentation": measure(labelled_pages(arguments.warc, arguments.every), arguments.rounds, by_templates)}
    if arguments.evaluation is not None:
        result["web"] = measure(evaluation_pages(arguments.evaluation), arguments.rounds, by_segments)
    memory = [round(before), round(peak_mb() - before)]
    print(json.dumps({"benchmark": "extraction", **result, "memory_mb": memory, "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
