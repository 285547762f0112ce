"""datatrove's side of `end_to_end.py`, run by the interpreter of its own environment; prints one JSON line.

    python datatrove_side.py WARCS OUTPUT lid.176.ftz tokenizer.json whitespace|shipped

Workers are forked, where datatrove starts them from a fork server: what is set here (the language model's file, words
by whitespace, the clock) holds in them too, and they need not import everything again. Its sums of time by step are
taken in CPU seconds. Extraction runs in datatrove's sandbox, a process a task; `extraction` is that process's CPU time.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature, minhash
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.extractors.base import BaseExtractor
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils import lid, stats, word_tokenizers

WORKERS = int(os.environ.get("BENCH_WORKERS", "2"))
SENTENCE = re.compile(r"\S.*?(?:[.!?][\"')\]]*(?=\s)|$)", re.MULTILINE)


class Sandboxed:
    """Notes what an extractor's sandbox spent; it has ended, and been waited for, when `run` ends."""

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Extract as datatrove does."""
        before = cpu(resource.RUSAGE_CHILDREN)
        yield from super().run(data, rank, world_size)  # type: ignore[misc]
        self.stat_update("sandbox_ms", value=round(1000 * (cpu(resource.RUSAGE_CHILDREN) - before)))  # type: ignore[attr-defined]


class Resiliparse(Sandboxed, BaseExtractor):
    """Main content by resiliparse with penstock's options, in datatrove's own sandbox."""

    name = "resiliparse"

    def __init__(self, timeout: float = 30) -> None:
        super().__init__(timeout)

    def extract(self, text: str) -> str:
        """Extract the main content."""
        from resiliparse.extract.html2text import extract_plain_text

        return extract_plain_text(
            text, preserve_formatting=True, main_content=True, list_bullets=True, alt_texts=False, links=False,
            form_fields=False, noscript=False, comments=False, post_meta=True,
        ).strip()  # fmt: skip


class Shipped(Sandboxed, Trafilatura):
    """Trafilatura as FineWeb had it."""


class Whitespace(word_tokenizers.WordTokenizer):
    """Words as `str.split` gives them; sentences end at an end mark before whitespace. Counts its calls."""

    calls = 0

    def word_tokenize(self, text: str) -> list[str]:
        """Split at whitespace."""
        Whitespace.calls += 1
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Split behind end marks."""
        Whitespace.calls += 1
        return SENTENCE.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Give the sentences' places."""
        Whitespace.calls += 1
        return [found.span() for found in SENTENCE.finditer(text)]


class UsedWhitespace:
    """Last in a pipeline: fails a task whose steps took their words from elsewhere."""

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Pass documents on; look at the count when one has come all the way."""
        before, passed = Whitespace.calls, 0
        for document in data:
            passed += 1
            assert Whitespace.calls > before, "a document went through without the words by whitespace"
            yield document
        assert not passed or "spacy" not in sys.modules, "spaCy was loaded: a step took its words from it"


def whitespace_words() -> None:
    """Give every step words by whitespace: `utils.text` looks the function up at each call, `minhash` at import."""
    words = Whitespace()
    word_tokenizers.load_word_tokenizer = minhash.load_word_tokenizer = lambda _: words


def local_settings(model: str) -> None:
    """Read the language model from a file instead of the network; sum up CPU seconds instead of wall seconds."""
    lid.cached_asset_path_or_download = lambda *_, **__: model
    stats.time = SimpleNamespace(perf_counter=time.process_time)


def cpu(who: int) -> float:
    """Give the CPU seconds of this process or of its children that have ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def run(pipeline: list[Any], logs: Path, tasks: int) -> dict[str, Any]:
    """Run one stage; give its wall and CPU seconds, and those of its steps."""
    before, start = cpu(resource.RUSAGE_SELF) + cpu(resource.RUSAGE_CHILDREN), time.perf_counter()
    LocalPipelineExecutor(
        pipeline=pipeline, tasks=tasks, workers=min(tasks, WORKERS), logging_dir=str(logs), start_method="fork"
    ).run()
    spent = cpu(resource.RUSAGE_SELF) + cpu(resource.RUSAGE_CHILDREN) - before
    steps = {}
    for step in json.loads((logs / "stats.json").read_text()):
        held, name = step["stats"], re.sub(r"[^ -~]+ *", "", step["name"]).lstrip(" -")  # emoji apart
        rules = {rule: total(value) for rule, value in held.items() if rule.startswith("dropped")}
        counts = {"in": total(held.get("total")), "out": total(held.get("forwarded")), **rules}
        if "tokens" in held:
            counts["tokens"] = total(held["tokens"])
        if "sandbox_ms" in held:
            counts["extraction_cpu_s"] = round(total(held["sandbox_ms"]) / 1000, 2)
        steps[name] = {"cpu_s": round(total(step["time_stats"]), 2), **counts}
    return {"wall_s": round(time.perf_counter() - start, 2), "cpu_s": round(spent, 2), "steps": steps}


def total(value: Any) -> Any:
    """Read one of datatrove's sums."""
    return value["total"] if isinstance(value, dict) else value or 0


def main(warcs: str, output: Path, model: str, tokenizer: str, words: str) -> None:
    """Run the recipe's stages."""
    local_settings(model)
    if words == "whitespace":
        whitespace_words()
    files, logs = len(os.listdir(warcs)), output / "logs"
    seen = [UsedWhitespace()] if words == "whitespace" else []
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    extractor = Resiliparse() if words == "whitespace" else Shipped(favour_precision=True, timeout=30)
    documents, signatures, buckets, remove, kept = (
        str(output / name) for name in ("documents", "signatures", "buckets", "remove", "kept")
    )
    ingest = [
        WarcReader(warcs), extractor, LanguageFilter("en", language_threshold=0.65), GopherRepetitionFilter(),
        GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter(), *seen,
        JsonlWriter(documents),
    ]  # fmt: skip
    tokens = DocumentTokenizer(str(output / "tokens"), tokenizer, eos_token="<|endoftext|>", seed=0)
    stages = {
        "imports": {"cpu_s": round(time.process_time(), 2)},
        "ingest": run(ingest, logs / "ingest", files),
        "signatures": run([JsonlReader(documents), MinhashDedupSignature(signatures, config)], logs / "sign", files),
        "buckets": run([MinhashDedupBuckets(signatures, buckets, config=config)], logs / "buckets", config.num_buckets),
        "cluster": run([MinhashDedupCluster(buckets, remove, config)], logs / "cluster", 1),
        "filter": run([JsonlReader(documents), MinhashDedupFilter(remove), JsonlWriter(kept)], logs / "filter", files),
        "tokens": run([JsonlReader(kept), tokens], logs / "tokens", files),
    }
    print(json.dumps({"words": words, "stages": stages}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:6])
