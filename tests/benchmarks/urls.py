"""The URL filter beside datatrove's, on the same URLs and lists, in turns; decisions compared.

    python tests/benchmarks/urls.py DOCS.jsonl.zst… [--sample 2] [--rounds 2] [--peer-env DIR]

The lists are those that datatrove ships (UT1's domains cut to a million, its URLs, three lists of words). The URLs are
the documents' own and as many again made up over listed and unlisted hosts. Both sides decide as FineWeb did; penstock
also counts every rule and names the entry. Prints one JSON line: URLs and MB of URLs per CPU-second in one process,
best of the rounds; `differ`, URLs decided differently; seconds of CPU and MB of memory that the lists take.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beside import in_turns
from process_tree import environment_python, load_average, peak_mb

DOMAINS = 1_000_000
URLS = 100_000
BATCH = 1000
PACKAGES = ("datatrove==0.10.0", "tldextract", "fasteners", "pyahocorasick", "numpy", "regex", "orjson", "xxhash<4")
WORDS = {"hard_words": "banned_words.txt", "soft_words": "soft_banned_words.txt", "subwords": "banned_subwords.txt"}


def prepare_side(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the lists and the URLs."""
    environment = environment_python(arguments.peer_env, PACKAGES).parents[1]
    assets = next(environment.glob("lib/*/site-packages/datatrove/assets"))
    with tarfile.open(assets / "url_filterblacklistsv0_3_0.tar.gz") as archive:
        bodies = {name: archive.extractfile(name).read() for name in ("domains", "urls")}  # type: ignore[union-attr]
    chance = random.Random(1)
    domains = chance.sample(bodies["domains"].decode().split(), DOMAINS)
    (work / "domains").write_text("\n".join(domains))
    (work / "urls").write_bytes(bodies["urls"])
    for name, file in WORDS.items():
        (work / name).write_bytes((assets / file).read_bytes())
    urls = sorted({url for path in arguments.documents for url in urls_of(path)})
    urls = chance.sample(urls, min(len(urls), URLS // 2))
    made = [f"https://{host_of(chance, domains)}/{path_of(chance, urls)}" for _ in range(URLS - len(urls))]
    (work / "tried").write_text(json.dumps([*urls, *made]))
    return {"urls": URLS, "megabytes": round(sum(map(len, [*urls, *made])) / 1e6, 2), "domains": DOMAINS}


def urls_of(path: str) -> list[str]:
    """Read the URLs of a file of documents."""
    import zstandard

    with Path(path).open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        return [url for line in lines if (url := json.loads(line).get("url"))]


def host_of(chance: random.Random, domains: list[str]) -> str:
    """Make up a host, one in twenty listed."""
    name = "".join(chance.choices("abcdefghijklmnop", k=chance.randint(4, 12)))
    if chance.random() < 0.05:
        return chance.choice(["", "www.", f"{name}."]) + chance.choice(domains)
    return chance.choice(["", "www.", "blog."]) + name + chance.choice([".com", ".org", ".co.uk", ".de", ".com.br"])


def path_of(chance: random.Random, urls: list[str]) -> str:
    """Take the path of a real URL."""
    return chance.choice(urls).partition("//")[2].partition("/")[2]


def fields(work: Path) -> dict[str, str]:
    """Name the lists."""
    return {name: str(work / name) for name in ("domains", "urls", *WORDS)}


def penstock_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Load the lists, decide on the URLs."""
    import pyarrow as pa

    from penstock.transforms import UrlFilter

    tried = json.loads((work / "tried").read_text())
    batches = [pa.record_batch({"url": tried[start : start + BATCH]}) for start in range(0, len(tried), BATCH)]
    small = {name: str(work / "hard_words") for name in fields(work)}
    UrlFilter(variant="fineweb", **small).apply(batches[0])  # type: ignore[arg-type]  # compiles
    before, start = peak_mb(), time.process_time()
    step = UrlFilter(variant="fineweb", **fields(work))  # type: ignore[arg-type]
    loading, memory = time.process_time() - start, peak_mb() - before
    start = time.process_time()
    outcomes = [step.apply(batch) for batch in batches]
    seconds = time.process_time() - start
    reasons = [reason for outcome in outcomes for reason in outcome.reasons.to_pylist()]
    return {
        "seconds": seconds, "loading": loading, "memory_mb": memory,
        "decisions": [reason and reason.partition("/")[2] for reason in reasons],
    }  # fmt: skip


def datatrove_side(work: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Do the same with datatrove's filter, in its own environment, its list of suffixes replaced by ours."""
    suffixes = Path(__file__).resolve().parents[2] / "transforms" / "data" / "public_suffix_list.dat"
    os.environ["TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS"] = str(suffixes)
    os.environ["TLDEXTRACT_CACHE"] = str(work / "tldextract")
    from datatrove.data import Document
    from datatrove.pipeline.filters import URLFilter

    lists = {name: Path(path).read_text().splitlines() for name, path in fields(work).items()}
    before, start = peak_mb(), time.process_time()
    one = URLFilter(
        extra_domains=lists["domains"], extra_urls=lists["urls"], banned_words=lists["hard_words"],
        soft_banned_words=lists["soft_words"], banned_subwords=lists["subwords"], use_integrated_lists=False,
    )  # fmt: skip
    one.tldextractor("https://example.org")
    loading, memory = time.process_time() - start, peak_mb() - before
    tried = json.loads((work / "tried").read_text())
    documents = [Document(text="", id=str(number), metadata={"url": url}) for number, url in enumerate(tried)]
    start = time.process_time()
    results = [one.filter(document) for document in documents]
    seconds = time.process_time() - start
    return {
        "seconds": seconds, "loading": loading, "memory_mb": memory,
        "decisions": [result[1] if isinstance(result, tuple) else None for result in results],
    }  # fmt: skip


SIDES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare_side, "penstock": penstock_side, "datatrove": datatrove_side,
}  # fmt: skip


def main() -> int:
    """Measure in turns; print one JSON line."""
    measured = in_turns(__file__, __doc__, "datatrove", PACKAGES, SIDES, sample=2.0)
    if measured is None:
        return 0
    sizes, rounds = measured
    own, peer = (min(one[side]["seconds"] for one in rounds) for side in ("penstock", "datatrove"))
    pairs = zip(rounds[0]["penstock"]["decisions"], rounds[0]["datatrove"]["decisions"], strict=True)
    print(json.dumps({
        "benchmark": "urls", **sizes, "urls_per_cpu_s": round(sizes["urls"] / own),
        "datatrove_urls_per_cpu_s": round(sizes["urls"] / peer), "mb_per_cpu_s": round(sizes["megabytes"] / own, 1),
        "ratio": round(peer / own, 1), "differ": sum(mine != other for mine, other in pairs),
        "dropped": sum(rule is not None for rule in rounds[0]["penstock"]["decisions"]),
        **{name: {side: round(rounds[0][side][name], 1) for side in ("penstock", "datatrove")}
           for name in ("loading", "memory_mb")},
        "load_average": load_average(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
