"""FineWeb-2's rules by language beside datatrove's own filters with the same published thresholds; decisions compared.

    python tests/benchmarks/fineweb2_peers.py DOCS.jsonl.zst… --fineweb2 CLONE [--megabytes 60] [--rounds 1]
        [--peer-env DIR]

CLONE is a checkout of https://github.com/huggingface/fineweb-2, whose `configs/*.yml` datatrove's side reads itself:
what penstock's table and its `multilingual` step make of them is what is compared. Languages are told by lid.176, once,
before either side; both take the words that whitespace separates, and keep any score, so that each document meets the
rules. Both sides see the same documents, of every language that has at least LEAST of them. Prints one JSON line:
documents, `differ` (whose first rule is another one) and `languages`; MB of UTF-8 text a CPU-second; `routing`, the
share of penstock's time that is not spent in the steps themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beside import in_turns
from corpus import texts_of
from end_to_end import PEER_PACKAGES
from process_tree import load_average, peak_mb

BATCH, LEAST = 1000, 20


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tell the languages; write the documents; compile the kernels."""
    import pyarrow as pa

    from penstock.transforms import LanguageId, fineweb2

    texts = texts_of(arguments.documents, arguments.megabytes)
    batch = LanguageId().apply(pa.record_batch({"text": pa.array(texts, pa.large_string())})).batch
    found = batch.column("language").to_pylist()
    known = {label for label, count in Counter(found).items() if count >= LEAST and label in fineweb2.languages()}
    rows = [[fineweb2.languages()[label], text] for label, text in zip(found, texts, strict=True)
            if label in known and text.strip()]  # fmt: skip
    (work / "rows.json").write_text(json.dumps(rows))
    step().apply(batch_of(rows[:2]))
    size = sum(len(text.encode()) for _, text in rows) / 1e6
    return {"megabytes": round(size, 1), "documents": len(rows), "languages": dict(Counter(label for label, _ in rows))}


def step() -> Any:
    """Make the step: FineWeb-2's rules, any score of a language."""
    from penstock.transforms import Multilingual

    return Multilingual(preset="fineweb2", preset_fields={"language_score": None})


def batch_of(rows: list[list[str]]) -> Any:
    """Put documents into a batch."""
    import pyarrow as pa

    languages, texts = zip(*rows, strict=True)
    return pa.record_batch({"language": pa.array(languages, pa.string()), "text": pa.array(texts, pa.large_string())})


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Route all documents, in their order; then time the steps alone on documents put together by language."""
    rows = json.loads((work / "rows.json").read_text())
    batches = [batch_of(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    step().apply(batches[0].slice(0, 2))  # loads the kernels
    loaded, start, decisions = peak_mb(), time.process_time(), []
    for batch in batches:
        decisions += step().apply(batch).reasons.to_pylist()
    seconds = time.process_time() - start
    rise = peak_mb() - loaded
    alone = 0.0
    for label in sorted({label for label, _ in rows}):
        own = [row for row in rows if row[0] == label]
        for first in range(0, len(own), BATCH):
            left = batch_of(own[first : first + BATCH])
            start = time.process_time()
            for one in step().steps_of(label):
                outcome = one.apply(left)
                left = outcome.batch.filter(outcome.reasons.is_null())
            alone += time.process_time() - start
    return {"seconds": seconds, "alone": alone, "memory_mb": [round(loaded), round(rise)],
            "decisions": [reason and reason.partition("/")[2] for reason in decisions]}  # fmt: skip


def filters_of(clone: Path, label: str) -> list[Any]:
    """Make datatrove's filters for a language, as FineWeb-2's script makes them."""
    import yaml
    from datatrove.pipeline import filters as rules

    own = yaml.safe_load((clone / "configs" / f"{label}.yml").read_text(encoding="utf-8"))
    return [
        rules.GopherRepetitionFilter(
            language=label, dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0,
            dup_line_frac=own["dup_line_frac"], top_n_grams=own["top_n_grams"], dup_n_grams=own["dup_n_grams"],
        ),
        rules.FineWebQualityFilter(
            language=label, short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=own["line_punct_thr"],
            new_line_ratio=own["new_line_ratio"],
        ),
        rules.GopherQualityFilter(
            language=label, max_avg_word_length=own["max_avg_word_length"],
            min_avg_word_length=own["min_avg_word_length"], stop_words=own["stopwords"],
            max_non_alpha_words_ratio=own["max_non_alpha_words_ratio"], min_stop_words=2,
        ),
    ]  # fmt: skip


def rule(filters: list[Any], document: Any) -> Any:
    """Name the first rule of datatrove's filters that drops a document."""
    return next((found[1] for one in filters if isinstance(found := one.filter(document), tuple)), None)


def datatrove_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run datatrove's filters in its own environment."""
    import datatrove_side as peer
    from datatrove.data import Document

    peer.whitespace_words()
    rows = json.loads((work / "rows.json").read_text())
    made = {label: filters_of(arguments.fineweb2, label) for label in {label for label, _ in rows}}
    start = time.process_time()
    decisions = [rule(made[label], Document(text=text, id=str(number))) for number, (label, text) in enumerate(rows)]
    return {"seconds": time.process_time() - start, "decisions": decisions}


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "datatrove": datatrove_side,
}  # fmt: skip


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "datatrove", PEER_PACKAGES, SIDES, sample=0.0, paths=("fineweb2",))
    if measured is None:
        return 0
    sizes, rounds = measured
    mine, other = rounds[0]["penstock"], rounds[0]["datatrove"]
    own, peer = (sizes["megabytes"] / min(one[side]["seconds"] for one in rounds) for side in ("penstock", "datatrove"))
    pairs = list(zip(mine["decisions"], other["decisions"], strict=True))
    print(json.dumps({
        "benchmark": "fineweb2_peers", **sizes, "differ": sum(one != two for one, two in pairs),
        "dropped": sum(one is not None for one, _ in pairs), "rules": dict(Counter(one for one, _ in pairs if one)),
        "mb_per_cpu_s": round(own, 1), "datatrove_mb_per_cpu_s": round(peer, 2), "ratio": round(own / peer, 1),
        "routing": round(1 - mine["alone"] / mine["seconds"], 2), "memory_mb_loaded_and_rise": mine["memory_mb"],
        "load_average": load_average(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
