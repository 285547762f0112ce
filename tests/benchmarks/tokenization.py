"""Tokenize text never seen before: penstock beside the library that defines the format, in turns, batch by batch.

    python tests/benchmarks/tokenization.py VOCABULARY TEXTS.jsonl.zst … [--megabytes 25] [--engine auto]

VOCABULARY is whatever `load_tokenizer` opens. penstock goes from an Arrow array to an Arrow list array; the peer from a
list of strings to lists of ids in its usual call (tiktoken `encode_ordinary`, Hugging Face `encode_batch_fast`,
sentencepiece `encode`), each in one thread. Ids are compared. Prints one JSON line: MB of UTF-8 per CPU-second on both
sides, their ratio, documents that differ, and the peak memory of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")

import pyarrow as pa

from penstock.tokenizer import load_tokenizer
from penstock.tokenizer.vocab import FileTokenizer
from penstock.transforms.schema import BATCH_BYTES, BATCH_DOCUMENTS

Peer = Callable[[list[str]], list[list[int]]]


def texts_of(paths: list[str], megabytes: float) -> list[str]:
    """Read JSON lines, mix them by a fixed seed, keep so many MB of UTF-8."""
    import zstandard

    texts: list[str] = []
    for path in paths:
        with Path(path).open("rb") as file:
            raw = zstandard.ZstdDecompressor().stream_reader(file) if path.endswith(".zst") else file
            texts += [json.loads(line)["text"] for line in io.TextIOWrapper(raw, encoding="utf-8")]
    random.Random(1).shuffle(texts)
    size = 0
    for place, text in enumerate(texts):
        size += len(text.encode())
        if size > megabytes * 1e6:
            return texts[: place + 1]
    return texts


def peer_of(tokenizer: FileTokenizer) -> tuple[str, Peer]:
    """Open the defining library in its usual way, on the same vocabulary with its control tokens out of reach."""
    definition = tokenizer._definition
    if definition.format == "tiktoken":
        import tiktoken
        from tiktoken_ext import openai_public

        # The library's own text of a pattern, where it differs from the published one: it matches the same.
        pattern = openai_public.r50k_pat_str if definition.name in ("r50k_base", "p50k_base") else definition.pattern
        encoding = tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=dict(definition.ranks), special_tokens={})
        return f"tiktoken {tiktoken.__version__}", lambda texts: [encoding.encode_ordinary(text) for text in texts]
    if definition.format == "huggingface":
        import tokenizers

        opened = tokenizers.Tokenizer.from_str(definition.body.decode())
        opened.encode_special_tokens = True
        return f"tokenizers {tokenizers.__version__}", lambda texts: [
            one.ids for one in opened.encode_batch_fast(texts, add_special_tokens=False)
        ]
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=definition.body)
    return f"sentencepiece {sentencepiece.__version__}", lambda texts: processor.encode(texts, num_threads=1)


def batches_of(texts: list[str]) -> list[list[str]]:
    """Cut as a run does: 1,000 documents or 8 MiB."""
    batches: list[list[str]] = []
    held = BATCH_BYTES
    for text in texts:
        size = len(text.encode())
        if held + size > BATCH_BYTES or len(batches[-1]) >= BATCH_DOCUMENTS:
            batches.append([])
            held = 0
        batches[-1].append(text)
        held += size
    return batches


def in_turns(tokenizer: FileTokenizer, peer: Peer, batches: list[list[str]]) -> tuple[float, float, int, int]:
    """Give the CPU seconds of both, documents that differ, tokens."""
    ours = theirs = 0.0
    different = tokens = 0
    for batch in batches:
        array = pa.array(batch)
        start = time.process_time()
        found = tokenizer.encode(array)
        middle = time.process_time()
        expected = peer(batch)
        ours, theirs = ours + middle - start, theirs + time.process_time() - middle
        tokens += len(found.flatten())
        different += sum(row != other for row, other in zip(found.to_pylist(), expected, strict=True))
    return ours, theirs, different, tokens


def peak() -> float:
    """Give this process's peak memory in MB; a child's own, where getrusage would give what it inherits."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def memory(vocabulary: str, engine: str, file: str) -> None:
    """Print the peak before opening, after it, and after encoding what lies in an Arrow file."""
    before = peak()
    tokenizer = load_tokenizer(vocabulary, engine=engine)
    opened = peak()
    with pa.memory_map(file) as source:
        for batch in pa.ipc.open_stream(source):
            tokenizer.encode(batch.column(0))
    print(json.dumps({"imports_mb": round(before), "opened_mb": round(opened), "peak_mb": round(peak())}))


def main() -> None:
    """Measure, print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("vocabulary")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--megabytes", type=float, default=25.0)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        memory(arguments.vocabulary, arguments.engine, arguments.texts[0])
        return
    batches = batches_of(texts_of(arguments.texts, arguments.megabytes))
    tokenizer = load_tokenizer(arguments.vocabulary, engine=arguments.engine)
    name, peer = peer_of(tokenizer)
    ours, theirs, different, tokens = in_turns(tokenizer, peer, batches)
    size = sum(len(text.encode()) for batch in batches for text in batch) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/texts.arrow"
        with pa.ipc.new_stream(file, pa.schema({"text": pa.string()})) as writer:
            for batch in batches:
                writer.write_batch(pa.record_batch({"text": pa.array(batch, pa.string())}))
        command = [sys.executable, __file__, arguments.vocabulary, file, "--engine", arguments.engine, "--memory"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = {
        "benchmark": "tokenization",
        "vocabulary": tokenizer.name,
        "engine": tokenizer.library,
        "peer": name,
        "documents": sum(map(len, batches)),
        "megabytes": round(size, 1),
        "tokens": tokens,
        "mb_per_cpu_s": round(size / ours, 2),
        "peer_mb_per_cpu_s": round(size / theirs, 2),
        "ratio": round(theirs / ours, 2),
        "documents_that_differ": different,
        **json.loads(done.stdout),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
