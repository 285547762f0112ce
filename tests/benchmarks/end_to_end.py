"""The same recipe through penstock and through datatrove, in turns, on the same input and cores.

    python tests/benchmarks/end_to_end.py --warc web.warc.gz [--shipped] [--rounds 2] [--peer-env DIR]

WARC → language, Gopher, C4 and FineWeb rules → MinHash 14 × 8 → tokens with one tokenizer.json. By default both sides
extract with resiliparse and take what whitespace separates for a word; with `--shipped` datatrove runs as it ships
(trafilatura, spaCy's words). The peer lives in a virtual environment of its own, made on first use (its language model
is read from penstock's own file: nothing is downloaded at run time).

Prints one JSON line: wall and CPU seconds, MB/s of decoded WARC per CPU-second, peak memory, both sides stage by stage,
the ratios, and what penstock takes beyond its bare kernels (the same functions called in a loop, no runs or commits).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEER_PACKAGES = (
    "datatrove==0.10.0", "numpy", "nltk", "spacy", "tldextract", "warcio", "faust-cchardet", "python-magic", "trafilatura",
    "fasttext-numpy2-wheel", "fasteners", "resiliparse", "tokenizers", "xxhash", "orjson", "regex", "lxml_html_clean",
)  # fmt: skip
FILES = 4


def members(path: Path) -> Iterator[bytes]:
    """Give the gzip members of a WARC file, each a record."""
    data = path.read_bytes()
    while data:
        stream = zlib.decompressobj(wbits=31)
        stream.decompress(data)
        yield data[: len(data) - len(stream.unused_data)]
        data = stream.unused_data


def cut(path: Path, folder: Path, files: int, limit: int | None) -> tuple[int, int]:
    """Deal a WARC's records to `files` files, so that both sides can use every core; give records and decoded bytes."""
    folder.mkdir(parents=True)
    offsets = [0]
    with path.open("rb") as file:
        held, buffer = zlib.decompressobj(wbits=31), b""
        decoded = 0
        while limit is None or len(offsets) <= limit:
            buffer = buffer or file.read(1 << 20)
            if not buffer:
                break
            decoded += len(held.decompress(buffer))
            if held.eof:
                offsets.append(file.tell() - len(held.unused_data))
                buffer, held = held.unused_data, zlib.decompressobj(wbits=31)
            else:
                buffer = b""
    with path.open("rb") as file:
        for number in range(files):
            start, end = (offsets[len(offsets[1:]) * at // files] for at in (number, number + 1))
            file.seek(start)
            (folder / f"part-{number}.warc.gz").write_bytes(file.read(end - start))
    return len(offsets) - 1, decoded


def make_tokenizer(warc: Path, target: Path) -> None:
    """Train the byte-level BPE of 8,000 ids that both sides use, on the first pages."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from penstock.transforms import ExtractHtml
    from penstock.transforms.readers import Piece, read

    texts: list[str] = []
    for outcome in read(Piece(str(warc), "web", warc.name, "warc", warc.stat().st_size)):
        texts += [text for text in ExtractHtml().apply(outcome.batch).batch.column("text").to_pylist() if text]
        if sum(map(len, texts)) > 2_000_000:
            break
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(target))


def peer_python(folder: Path) -> Path:
    """Make the peer's virtual environment unless it stands."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PEER_PACKAGES], check=True)
    return python


def measured(command: list[str], environment: dict[str, str] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command; give the JSON of its last line, and wall seconds, CPU seconds and peak memory of its process tree."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = {"wall_s": round(time.perf_counter() - start, 2), "cpu_s": round(cpu, 2), "peak_rss_mb": after.ru_maxrss // 1024}
    return json.loads(done.stdout.strip().splitlines()[-1]), figures


def recipe(warcs: Path, tokenizer: Path, extractor: str) -> dict[str, Any]:
    """Write penstock's side of the recipe."""
    return {
        "name": "bench",
        "inputs": {"web": {"path": str(warcs)}},
        "task_bytes": 1,  # a task a file, as the peer has it
        "steps": [
            {"extract_html": {"extractor": extractor}}, {"language_id": {"minimum": 0.65, "languages": ["en"]}},
            "gopher_repetition", "gopher_quality", {"c4_quality": {"filter_no_terminal_punct": False}}, "fineweb_quality",
        ],
        "dedup": {"exact": False},
        "tokenizer": {"path": str(tokenizer), "eos": "<|endoftext|>"},
        "tokens": {"packs": [{"length": 2048, "policy": "concat"}]},
    }  # fmt: skip


def penstock_side(work: Path) -> None:
    """Run penstock's side in this process; print its manifest's figures."""
    from penstock import Recipe, run
    from penstock.pipelines.runners import RunnerOptions

    value = json.loads((work / "recipe.json").read_text())
    manifest = run(Recipe.from_value(value), work / "out", options=RunnerOptions(workers=2), quiet=True)
    keys = ("documents_in", "kept", "rejected", "duplicates", "tokens", "cost")
    print(json.dumps({key: manifest[key] for key in keys}))


def bare_side(work: Path) -> None:
    """Call the same functions in a loop: read, steps, signatures, tokens; print CPU seconds by function."""
    import pyarrow.compute as pc

    from penstock import Recipe
    from penstock.pipelines.ingest import warm
    from penstock.pipelines.match import warm_match
    from penstock.pipelines.recipe import step_kind
    from penstock.tokenizer import load_tokenizer
    from penstock.transforms.kernels.minhash import digest_bands
    from penstock.transforms.readers import Piece, read

    value = Recipe.from_value(json.loads((work / "recipe.json").read_text()))
    tokenizer = load_tokenizer(value.tokenizer.path)
    warm(value.steps)
    warm_match(value.dedup)
    spent: dict[str, float] = {}

    def on(name: str, start: float) -> None:
        spent[name] = spent.get(name, 0.0) + time.process_time() - start

    for path in sorted(Path(value.inputs["web"].path).iterdir()):
        outcomes = read(Piece(str(path), "web", path.name, "warc", path.stat().st_size))
        while True:
            start = time.process_time()
            outcome = next(outcomes, None)
            on("read", start)
            if outcome is None:
                break
            batch = outcome.batch
            for step in (None, *value.steps):
                if step is not None:
                    start = time.process_time()
                    outcome = step.apply(batch)
                    on(step_kind(step), start)
                stays = outcome.reasons.is_null()
                if outcome.errors is not None:
                    stays = pc.and_(stays, outcome.errors.is_null())
                batch = outcome.batch.filter(stays)
            start = time.process_time()
            digest_bands(value.dedup.minhash.signatures(batch.column("text"))[0], 14)
            on("minhash", start)
            start = time.process_time()
            tokenizer.encode(batch.column("text"))
            on("tokenize", start)
    print(json.dumps({"cpu_s": round(sum(spent.values()), 2), "by": {name: round(value, 3) for name, value in spent.items()}}))


def one_round(work: Path, peer: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both sides once, one after the other."""
    shutil.rmtree(work / "out", ignore_errors=True)
    shutil.rmtree(work / "peer", ignore_errors=True)
    own, own_figures = measured([sys.executable, __file__, "--side", "penstock", "--work", str(work)])
    bare, _ = measured([sys.executable, __file__, "--side", "bare", "--work", str(work)])
    theirs, peer_figures = measured(
        [str(peer), str(HERE / "datatrove_side.py"), str(work / "warcs"), str(work / "peer"), str(work / "lid.176.ftz"),
         str(work / "tokenizer.json"), "shipped" if arguments.shipped else "whitespace"],
        {"PATH": f"{peer.parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    return {"penstock": {**own_figures, **own}, "datatrove": {**peer_figures, **theirs}, "bare": bare}


def main() -> int:
    """Prepare, run the rounds, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--warc", type=Path)
    parser.add_argument("--records", type=int, help="only the first records")
    parser.add_argument("--shipped", action="store_true", help="datatrove as it ships: trafilatura and spaCy's words")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer-env", type=Path, default=Path.home() / ".cache" / "penstock" / "datatrove-env")
    parser.add_argument("--side", choices=("penstock", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        {"penstock": penstock_side, "bare": bare_side}[arguments.side](arguments.work)
        return 0
    import penstock.transforms

    model = Path(penstock.transforms.__file__).parent / "data" / "lid.176.ftz"
    peer = peer_python(arguments.peer_env)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        work = Path(folder)
        records, decoded = cut(arguments.warc, work / "warcs", FILES, arguments.records)
        shutil.copy(model, work / "lid.176.ftz")
        make_tokenizer(work / "warcs" / "part-0.warc.gz", work / "tokenizer.json")
        extractor = "trafilatura" if arguments.shipped else "resiliparse"
        (work / "recipe.json").write_text(json.dumps(recipe(work / "warcs", work / "tokenizer.json", extractor)))
        rounds = [one_round(work, peer, arguments) for _ in range(arguments.rounds)]
    print(json.dumps({"benchmark": "end_to_end", "records": records, "decoded_mb": round(decoded / 1e6, 1), **verdict(rounds, decoded)}))
    return 0


def verdict(rounds: list[dict[str, Any]], decoded: int) -> dict[str, Any]:
    """Take the quickest round of each side; give rates, ratios and overhead."""
    best = {side: min((r[side] for r in rounds), key=lambda figures: figures["cpu_s"]) for side in ("penstock", "datatrove", "bare")}
    for side in best.values():
        side["mb_per_cpu_s"] = round(decoded / 1e6 / side["cpu_s"], 2)
    own, peer, bare = best["penstock"], best["datatrove"], best["bare"]
    tasks = sum(stage["cpu_seconds"] for stage in own["cost"].values())
    return {
        **best, "ratio_cpu": round(peer["cpu_s"] / own["cpu_s"], 2), "ratio_wall": round(peer["wall_s"] / own["wall_s"], 2),
        "ratio_memory": round(peer["peak_rss_mb"] / own["peak_rss_mb"], 2),
        "overhead_of_tasks": round(tasks / bare["cpu_s"] - 1, 3), "overhead_of_the_run": round(own["cpu_s"] / bare["cpu_s"] - 1, 3),
    }  # fmt: skip


if __name__ == "__main__":
    assert gzip is not None
    sys.exit(main())
