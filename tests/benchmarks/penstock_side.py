"""penstock's side of `end_to_end.py`: what prepares, what is measured, what is compared; each in a process of its own.

    python penstock_side.py prepare|warm|penstock|bare|compare WORK

Prints one JSON line. `WORK/warcs` holds the input.
"""

from __future__ import annotations

import gzip
import importlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any


def prepare_side(work: Path) -> dict[str, Any]:
    """Train the byte-level BPE of 8,000 ids that both sides use, on the first pages of every file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from penstock.transforms import ExtractHtml
    from penstock.transforms.readers import Piece, read

    texts: list[str] = []
    for path in sorted((work / "warcs").iterdir()):
        outcome = next(iter(read(Piece(str(path), "web", path.name, "warc", path.stat().st_size))))
        some = outcome.batch.slice(0, 100)
        texts += [text for text in ExtractHtml().apply(some).batch.column("text").to_pylist() if text]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(work / "tokenizer.json"))
    return {}


def recipe(work: Path) -> dict[str, Any]:
    """Write penstock's side of the recipe: FineWeb's, as far as both sides have it."""
    return {
        "name": "bench",
        "inputs": {"web": {"path": str(work / "warcs")}},
        # A task a file, as the peer has it.
        "task_bytes": max(path.stat().st_size for path in (work / "warcs").iterdir()) + 1,
        "steps": [
            "extract_html", {"language_id": {"minimum": 0.65, "languages": ["en"]}}, "gopher_repetition",
            "gopher_quality", {"c4_quality": {"filter_no_terminal_punct": False}}, "fineweb_quality",
        ],
        "dedup": {"exact": False},
        "tokenizer": {"path": str(work / "tokenizer.json"), "eos": "<|endoftext|>"},
        "tokens": {"packs": [{"length": 2048, "policy": "concat"}], "validation": 0.0},
    }  # fmt: skip


def warm_side(work: Path) -> dict[str, Any]:
    """Compile every kernel of the recipe; give CPU seconds, from the first import on."""
    from penstock import Recipe
    from penstock.pipelines.compiling import load_kernels

    value = Recipe.from_value(recipe(work))
    start = time.process_time()
    load_kernels(value.steps, value.dedup)
    return {"cpu_s": round(time.process_time() - start, 2)}


def penstock_side(work: Path) -> dict[str, Any]:
    """Run penstock's side; give its manifest's figures, and the wall and client CPU seconds of each phase."""
    from penstock import Recipe, run
    from penstock.pipelines.runners import RunnerOptions, cores

    module, phases = importlib.import_module("penstock.pipelines.run"), {"imports": {"cpu_s": time.process_time()}}

    def timed(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return inner(*given)
            finally:
                phases[name] = {"wall_s": time.perf_counter() - wall, "client_cpu_s": time.process_time() - cpu}

        return call

    for name in ("plan_inputs", "compile_kernels", "documents", "duplicates", "publish", "conclude"):
        setattr(module, name, timed(name, getattr(module, name)))
    options = RunnerOptions(workers=cores())
    manifest = run(Recipe.from_value(recipe(work)), work / "out", options=options, quiet=True)
    keys = ("documents_in", "kept", "rejected", "duplicates", "quarantined", "tokens", "cost", "tables", "stages")
    rounded = {name: {key: round(value, 2) for key, value in phase.items()} for name, phase in phases.items()}
    return {**{key: manifest[key] for key in keys}, "phases": rounded}


def bare_side(work: Path) -> dict[str, Any]:
    """Call the same functions in a loop: read, steps, signatures, links, tokens; give CPU seconds by function."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from penstock import Recipe
    from penstock.tokenizer import load_tokenizer
    from penstock.transforms.kernels.graph import components, link, spanning_forest
    from penstock.transforms.named import step_kind
    from penstock.transforms.readers import Piece, read

    value = Recipe.from_value(recipe(work))
    warm_side(work)
    tokenizer, dedup = load_tokenizer(work / "tokenizer.json"), value.dedup
    assert dedup is not None
    assert dedup.minhash is not None
    minhash = dedup.minhash
    tokenizer.encode(pa.array(["warm"]))
    spent: dict[str, float] = defaultdict(float)

    def on(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        start = time.process_time()
        result = call(*arguments)
        spent[name] += time.process_time() - start
        return result

    kept = []
    for path in sorted((work / "warcs").iterdir()):
        outcomes = read(Piece(str(path), "web", path.name, "warc", path.stat().st_size))
        while (outcome := on("read", next, outcomes, None)) is not None:
            batch = settled(outcome)
            for step in value.steps:
                if len(batch):
                    batch = settled(on(step_kind(step), step.apply, batch))
            kept.append(batch.column("text"))
    texts = pa.chunked_array(kept).combine_chunks()

    def unique() -> Any:
        digests, places = minhash.digests(texts), np.arange(len(texts), dtype=np.uint64)
        nodes, labels = components(spanning_forest(np.concatenate([link(band, places) for band in digests])))
        return texts.filter(pa.array(~np.isin(places, nodes[nodes != labels])))

    survivors = on("minhash", unique)
    for start in range(0, len(survivors), 1000):
        on("tokenize", tokenizer.encode, survivors.slice(start, 1000))
    characters = pc.sum(pc.binary_length(texts)).as_py()
    return {
        "cpu_s": round(sum(spent.values()), 2), "by": {name: round(value, 3) for name, value in spent.items()},
        "documents_after_rules": len(texts), "kept": len(survivors), "text_mb_after_rules": round(characters / 1e6, 1),
    }  # fmt: skip


def settled(outcome: Any) -> Any:
    """Keep the rows that did not fall out."""
    stays = outcome.reasons.is_null()
    if outcome.errors is not None:
        import pyarrow.compute as pc

        stays = pc.and_(stays, outcome.errors.is_null())
    return outcome.batch.filter(stays)


def compare_side(work: Path) -> dict[str, Any]:
    """Tell which pages the rules of both sides kept, by URL, and why penstock dropped what only the peer kept."""
    import pyarrow.parquet as pq

    stage = work / "out" / "documents" / json.loads((work / "out" / "manifest.json").read_text())["stages"]["documents"]
    fates: dict[str, str] = {}
    for path in stage.glob("data/ledger-*.parquet"):
        for row in pq.read_table(path, columns=["url", "fate", "rule"]).to_pylist():
            if fates.get(row["url"]) != "kept":  # of pages fetched twice, one that was kept
                fates[row["url"]] = "kept" if row["fate"] == "kept" else row["rule"] or row["fate"]
    bodies = [gzip.decompress(path.read_bytes()) for path in (work / "peer" / "documents").glob("*.gz")]
    peer = {json.loads(line)["metadata"]["url"] for body in bodies for line in body.splitlines()}
    own = {url for url, fate in fates.items() if fate == "kept"}
    return {
        "both": len(own & peer), "only_penstock": len(own - peer), "only_datatrove": len(peer - own),
        "only_datatrove_by_penstocks_rule": dict(Counter(fates.get(url, "not met") for url in peer - own)),
    }  # fmt: skip


SIDES = {
    "prepare": prepare_side, "warm": warm_side, "penstock": penstock_side, "bare": bare_side, "compare": compare_side,
}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]))))
