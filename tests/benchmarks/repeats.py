"""Repeated lines and substrings of 100 bytes beside deduplicate-text-datasets (Lee et al. 2022), in turns.

    python tests/benchmarks/repeats.py DOCS.jsonl.zst… [--megabytes 40] [--sample 6] [--peer DEDUP_DATASET]
        [--tokenizer FILE]

penstock: the whole stage in one process, from Parquet parts of 8 MB to the list of cuts, files in a scratch folder.
The peer, where its binary is given (`cargo build --release`, commit 4e9888a): `make`, `self-similar`, `collect` on the
sample, one thread. `equal_repeats`: on the sample, of the windows of 100 bytes within a document that occur again, all
but the first of each are what penstock cuts. Prints one JSON line: MB of UTF-8 text per CPU-second, the best of the
rounds; the share of bytes cut; bytes sent to the exchange for each byte of text; memory with the kernels loaded, and
its rise while measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus import get, put, sample_of, texts_of
from process_tree import load_average, peak_mb, run_tree

LENGTH, PART_BYTES = 100, 8_000_000


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the parts and the sample; compile the kernels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from penstock.pipelines.repeats import warm_repeats

    texts = texts_of(arguments.documents, arguments.megabytes)
    size, number, held = 0.0, 0, 0
    groups: list[list[str]] = [[]]
    for text in texts:
        if held > PART_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(text)
        held += len(text.encode())
        size += len(text.encode()) / 1e6
    for at, group in enumerate(groups):
        ids = [(number + row).to_bytes(16, "little") for row in range(len(group))]
        table = pa.table({"id": pa.array(ids, pa.binary(16)), "text": pa.array(group, pa.large_string())})
        pq.write_table(table, work / f"part-{at:04d}.parquet", compression="zstd")
        number += len(group)
    sample = sample_of(texts, arguments.sample)
    for settings in kinds(arguments.tokenizer).values():
        warm_repeats(settings)
    return {
        "megabytes": round(size, 1), "documents": len(texts), "parts": len(groups),
        "sample_megabytes": round(put(sample, work / "sample"), 2),
    }  # fmt: skip


def kinds(tokenizer: str | None) -> dict[str, Any]:
    """Name what is measured; 50 tokens, as Lee et al. count, where a byte-level vocabulary is given."""
    from penstock.transforms.repeated_lines import Lines
    from penstock.transforms.repeated_spans import Substrings

    return {
        "lines": Lines(), "lines_fineweb": Lines(normalisation="fineweb"),
        "sentences_3": Lines(unit="sentence", window=3), "substrings": Substrings(length=LENGTH),
        "substrings_50_words": Substrings(length=50, unit="words"),
        **({"substrings_50_tokens": Substrings(length=50, unit="tokens", tokenizer=tokenizer)} if tokenizer else {}),
    }  # fmt: skip


def penstock_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run each kind over the parts; find the repeated windows of the sample."""
    import pyarrow.parquet as pq

    from penstock.pipelines.repeats import cut_repeats, repeats_stage, warm_repeats
    from penstock.pipelines.token_units import open_units
    from penstock.pipelines.views import EVERYTHING, StoredPart
    from penstock.sharding.store import Store
    from penstock.tokenizer import load_tokenizer

    store, names = Store(str(work)), sorted(path.name for path in work.glob("part-*.parquet"))
    parts = [
        StoredPart(number, name, store, name, pq.read_metadata(work / name).num_rows, "docs")
        for number, name in enumerate(names)
    ]
    found: dict[str, Any] = {}
    for name, settings in kinds(arguments.tokenizer).items():
        warm_repeats(settings)
        if getattr(settings, "tokenizer", None):
            open_units(load_tokenizer(settings.tokenizer))  # once a process, 2 s: its engine is held to the reference
        with tempfile.TemporaryDirectory(dir=work) as folder:
            stage, before, start = repeats_stage(Store(folder), settings, parts), peak_mb(), time.process_time()
            receipt = cut_repeats(stage, settings, parts, EVERYTHING, run_here, True)
            spent = time.process_time() - start
            sent = sum(path.stat().st_size for path in Path(folder).rglob("digests-*"))
        found[name] = {
            "seconds": spent, "cut_bytes": receipt["cut_bytes"], "cuts": receipt["cut_spans"],
            "documents_gone": receipt["duplicates"], "sent_bytes": sent,
            "memory_mb": [round(before), round(peak_mb() - before)],
        }  # fmt: skip
    return {"kinds": found, "repeats": repeated(get(work / "sample"))}


def run_here(job: Any) -> None:
    """Run the tasks of a job in this process."""
    for task in job.tasks:
        job.map(task)


def repeated(texts: list[str]) -> list[int]:
    """Give the first byte of every repeated window, counted in the joined texts, summed up to compare."""
    import numpy as np
    import pyarrow as pa

    from penstock.transforms.kernels.digests import REPEAT, SHARED, group_entries
    from penstock.transforms.repeated_spans import Substrings

    units = Substrings(length=LENGTH).units(pa.array(texts, pa.large_string()))
    places, digests = units.runs()
    entries, flags = group_entries(digests, np.arange(len(places), dtype=np.uint64))
    whole, shared = (places[np.sort(entries[flags == flag, 2]).astype(np.int64)] for flag in (REPEAT, SHARED))
    firsts, digests = units.windows(shared)
    entries, flags = group_entries(digests, firsts)
    starts, counts = (whole >> np.uint64(16)).astype(np.int64), (whole & np.uint64(0xFFFF)).astype(np.int64)
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return checked(np.concatenate([np.repeat(starts, counts) + steps, entries[flags == REPEAT, 2].astype(np.int64)]))


def checked(places: Any) -> list[int]:
    """Sum up a set of places: how many, and a digest of them."""
    import hashlib

    import numpy as np

    body = np.sort(places).astype("<i8").tobytes()
    return [len(places), int.from_bytes(hashlib.sha256(body).digest()[:6], "little")]


def peer_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the suffix array of the peer over the sample; give its windows but the first of each."""
    import numpy as np

    texts, at, folder = get(work / "sample"), 0, work / "peer"
    bounds = []
    (folder / "cache").mkdir(parents=True)
    with (folder / "data").open("wb") as file:
        for number, text in enumerate(texts):
            at += file.write(b"\xff\xff" + struct.pack("<I", number))  # its own separators
            bounds.append(at)
            at += file.write(text.encode())
    steps = [
        ["make", "--data-file", "data"],
        ["self-similar", "--data-file", "data", "--length-threshold", str(LENGTH), "--cache-dir", "cache",
         "--num-threads", "1"],
        ["collect", "--data-file", "data", "--cache-dir", "cache", "--length-threshold", str(LENGTH)],
    ]  # fmt: skip
    start = os.times()
    for step in steps:
        subprocess.run([arguments.peer, *step], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    end, width = os.times(), (folder / "data.table.bin").stat().st_size // at
    found, sizes = (numbers(folder / "cache", name, width) for name in ("dups", "sizes"))
    starts = np.array([*bounds, at + 6])
    row = np.searchsorted(starts, found, "right") - 1
    inside = (row >= 0) & (found + LENGTH <= starts[np.minimum(row + 1, len(starts) - 1)] - 6)
    order = np.lexsort((found[inside], np.repeat(np.arange(len(sizes)), sizes)[inside]))
    cluster = np.repeat(np.arange(len(sizes)), sizes)[inside][order]
    again = np.r_[False, cluster[1:] == cluster[:-1]]
    places = (found - 6 * (row + 1))[inside][order][again]
    spent = end.children_user + end.children_system - start.children_user - start.children_system
    return {"seconds": spent, "repeats": checked(places)}


def numbers(folder: Path, name: str, width: int) -> Any:
    """Read one of the peer's files, numbers of so many bytes."""
    import numpy as np

    raw = np.frombuffer(next(folder.glob(f"{name}_*")).read_bytes(), np.uint8).reshape(-1, width).astype(np.int64)
    return sum(raw[:, byte] << (8 * byte) for byte in range(width))


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "peer": peer_side,
}  # fmt: skip


def verdict(rounds: list[dict[str, dict[str, Any]]], sizes: dict[str, Any]) -> dict[str, Any]:
    """Give rates, shares and the ratio."""
    figures: dict[str, Any] = {}
    for name, one in rounds[0]["penstock"]["kinds"].items():
        spent = min(each["penstock"]["kinds"][name]["seconds"] for each in rounds)
        figures[name] = {
            "mb_per_cpu_s": round(sizes["megabytes"] / spent, 1),
            "share_cut": round(one["cut_bytes"] / sizes["megabytes"] / 1e6, 4),
            "sent_per_byte": round(one["sent_bytes"] / sizes["megabytes"] / 1e6, 2),
            **{key: one[key] for key in ("cuts", "documents_gone", "memory_mb")},
        }
    if "peer" in rounds[0]:
        peer = sizes["sample_megabytes"] / min(each["peer"]["seconds"] for each in rounds)
        figures["peer"] = {
            "mb_per_cpu_s": round(peer, 2),
            "ratio": round(figures["substrings"]["mb_per_cpu_s"] / peer, 1),
            "repeats": rounds[0]["peer"]["repeats"][0],
            "equal_repeats": rounds[0]["peer"]["repeats"] == rounds[0]["penstock"]["repeats"],
        }
    return figures


def main() -> int:
    """Measure in turns; print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("documents", nargs="*")
    parser.add_argument("--megabytes", type=float, default=40.0)
    parser.add_argument("--sample", type=float, default=6.0, help="MB that the peer gets")
    parser.add_argument("--peer", help="the binary of deduplicate-text-datasets")
    parser.add_argument("--tokenizer", metavar="FILE", help="whose tokens are counted, too: .tiktoken, tokenizer.json")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds that one side may take")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.work, arguments)))
        return 0
    sides = ["penstock", *(["peer"] if arguments.peer else [])]
    amounts = ["--megabytes", str(arguments.megabytes), "--sample", str(arguments.sample)]
    amounts += ["--peer", os.path.abspath(arguments.peer)] if arguments.peer else []
    amounts += ["--tokenizer", os.path.abspath(arguments.tokenizer)] if arguments.tokenizer else []
    files = [os.path.abspath(path) for path in arguments.documents]
    rounds, sizes = [], {}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as work:

            def side(name: str, work: str = work) -> dict[str, Any]:
                command = [sys.executable, __file__, "--side", name, "--work", work, *amounts, *files]
                return run_tree(command, arguments.limit)[0]

            sizes = side("prepare")
            rounds.append({name: side(name) for name in sides})
    figures = verdict(rounds, sizes)
    print(json.dumps({"benchmark": "repeats", **sizes, **figures, "load_average": load_average()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
