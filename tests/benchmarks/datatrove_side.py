"""datatrove's side of `end_to_end.py`, run by the interpreter of its own environment; prints one JSON line.

    python datatrove_side.py WARCS OUTPUT lid.176.ftz tokenizer.json whitespace|shipped
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.extractors.base import BaseExtractor
from datatrove.pipeline.filters import (
    C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter, LanguageFilter,
)  # fmt: skip
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils import lid, word_tokenizers

TASKS = WORKERS = int(os.environ.get("BENCH_WORKERS", "2"))


class Resiliparse(BaseExtractor):
    """Main content by resiliparse, in datatrove's own sandbox."""

    name = "resiliparse"

    def __init__(self, timeout: float = 30) -> None:
        super().__init__(timeout)

    def extract(self, text: str) -> str:
        """Extract the main content, as penstock does."""
        from resiliparse.extract.html2text import extract_plain_text

        return extract_plain_text(text, main_content=True)


class Whitespace(word_tokenizers.WordTokenizer):
    """Words as `str.split` gives them."""

    def word_tokenize(self, text: str) -> list[str]:
        """Split at whitespace."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Split behind end marks."""
        import re

        return [part for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Not asked for by this recipe."""
        raise NotImplementedError


def local_model(path: str) -> None:
    """Read the language model from a file instead of the network."""
    lid.cached_asset_path_or_download = lambda *_, **__: path


def whitespace_words() -> None:
    """Give every step the same words as penstock's."""
    import importlib
    import pkgutil

    import datatrove.pipeline

    word_tokenizers.load_word_tokenizer = lambda _: Whitespace()
    for module in pkgutil.walk_packages(datatrove.pipeline.__path__, "datatrove.pipeline."):
        held = sys.modules.get(module.name)
        if held is not None and hasattr(held, "load_word_tokenizer"):
            held.load_word_tokenizer = word_tokenizers.load_word_tokenizer
    text = importlib.import_module("datatrove.utils.text")
    for name in ("load_word_tokenizer",):
        if hasattr(text, name):
            setattr(text, name, word_tokenizers.load_word_tokenizer)


def run(pipeline: list, output: Path, stage: str, tasks: int = TASKS) -> dict:
    """Run one stage; give its wall and CPU seconds."""
    before, start = usage(), time.perf_counter()
    LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=min(tasks, WORKERS), logging_dir=str(output / "logs" / stage)).run()
    return {"wall_s": round(time.perf_counter() - start, 2), "cpu_s": round(usage() - before, 2)}


def usage() -> float:
    """CPU seconds of this process and its children."""
    return sum(u.ru_utime + u.ru_stime for u in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


def main(warcs: str, output: Path, model: str, tokenizer: str, words: str) -> None:
    """Run the recipe's stages."""
    local_model(model)
    if words == "whitespace":
        whitespace_words()
    files = len(os.listdir(warcs))
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    extractor = Resiliparse() if words == "whitespace" else Trafilatura(favour_precision=True, timeout=30)
    stages = {
        "ingest": run(
            [
                WarcReader(warcs), extractor, LanguageFilter("en", language_threshold=0.65), GopherRepetitionFilter(),
                GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter(),
                JsonlWriter(str(output / "documents")),
            ], output, "ingest", files,
        ),
        "signatures": run([JsonlReader(str(output / "documents")), MinhashDedupSignature(str(output / "sig"), config)], output, "sig", files),
        "buckets": run([MinhashDedupBuckets(str(output / "sig"), str(output / "buckets"), config=config)], output, "buckets", 14),
        "cluster": run([MinhashDedupCluster(str(output / "buckets"), str(output / "remove"), config)], output, "cluster", 1),
        "filter": run(
            [JsonlReader(str(output / "documents")), MinhashDedupFilter(str(output / "remove")), JsonlWriter(str(output / "kept"))],
            output, "filter", files,
        ),
        "tokens": run(
            [JsonlReader(str(output / "kept")), DocumentTokenizer(str(output / "tokens"), tokenizer, eos_token="<|endoftext|>", seed=0)],
            output, "tokens", files,
        ),
    }  # fmt: skip
    kept = sum(json.loads(path.read_text())[-1]["stats"].get("documents", {}).get("total", 0) for path in (output / "logs" / "tokens").glob("stats.json"))
    print(json.dumps({"stages": stages, "kept": kept}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:6])
