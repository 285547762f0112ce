"""The peers' side of `dedup.py`, run by the interpreter of each one's own environment; prints one JSON line.

    python dedup_peers_side.py rensa|rensa_split|text_dedup|datatrove|datatrove_shipped run|read INPUT OUTPUT

`run` is the job: a folder of Parquet in, the survivors out, word 5-grams, 14 bands of 8. `read`, not measured, writes
what came of it to OUTPUT/answer.json: the ids kept, and the clusters as lists of ids.

rensa is a library; the job around it is what its README shows: Python gives it token sets, full-set `RMinHash` and
`RMinHashLSH` do the rest, what the index answers is joined by a union-find. `rensa` normalises as FineWeb does, as fast
as Python's `re` and `str` do it; `rensa_split` only takes `text.lower().split()`, less work than was asked for.
text-dedup splits at what is no letter, digit or underscore, and has no other way. datatrove takes words by whitespace,
`datatrove_shipped` spaCy's, as it comes. Texts under five words: text-dedup takes them whole, the others let them pass.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BANDS, ROWS, NGRAM = 14, 8, 5
WORKERS = int(os.environ.get("BENCH_WORKERS", "2"))
NUMBER = re.compile(r"\d+([.,،٫⎖⎗⎘]\d+)?")
PUNCTUATION = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»" + "".join(
    map(chr, [*range(9), 11, 12, *range(13, 32), *range(127, 160)])
)  # datatrove's
PUNCTUATED = re.compile(f"[{re.escape(PUNCTUATION)}]+")


def fineweb_words() -> Callable[[str], list[str]]:
    """Give the function that normalises as FineWeb does and splits at whitespace; `re` is quick with 16 bits only."""
    marks = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Mn"]
    low, high = (re.compile(f"[{''.join(filter(kind, marks))}]+") for kind in ("\U00010000".__gt__, "\uffff".__lt__))

    def words(text: str) -> list[str]:
        text = PUNCTUATED.sub(" ", NUMBER.sub("0", text.lower()))
        if text.isascii():
            return text.split()
        text = low.sub("", unicodedata.normalize("NFD", text))
        return (high.sub("", text) if max(text) > "\uffff" else text).split()

    return words


def plain_words() -> Callable[[str], list[str]]:
    """Give the function that lowers and splits at whitespace."""
    return lambda text: text.lower().split()


def shingles(words: list[str]) -> list[str]:
    """Join every five words."""
    return [" ".join(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)]


def rensa(source: Path, output: Path, words: Callable[[str], list[str]]) -> dict[str, Any]:
    """Read Parquet, sign, index, ask, join, write the survivors; the first row of a cluster stays."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from rensa import RMinHash, RMinHashLSH

    table = pa.concat_tables([pq.read_table(path) for path in sorted(source.glob("*.parquet"))])
    rows, hashes = [], []
    for start in range(0, table.num_rows, 1000):
        texts = table["text"].slice(start, 1000).to_pylist()
        tokens = [shingles(words(text)) for text in texts]
        enough = [number for number, one in enumerate(tokens) if one]
        rows += [start + number for number in enough]
        hashes += RMinHash.from_token_sets([tokens[number] for number in enough], num_perm=BANDS * ROWS, seed=1)
    index = RMinHashLSH(threshold=0.72, num_perm=BANDS * ROWS, num_bands=BANDS)
    index.insert_many(hashes, 0)
    roots = list(range(table.num_rows))

    def root(number: int) -> int:
        while roots[number] != number:
            roots[number] = number = roots[roots[number]]
        return number

    for number, found in enumerate(index.query_all(hashes)):
        for other in found:
            low, high = sorted((root(rows[number]), root(rows[other])))
            roots[high] = low
    labels = [root(number) for number in range(table.num_rows)]
    output.mkdir(parents=True)
    keep = pa.array([label == number for number, label in enumerate(labels)])
    pq.write_table(table.filter(keep), output / "kept.parquet")
    pq.write_table(pa.table({"id": table["id"], "cluster": labels}), output / "clusters.parquet")
    return {"kept": sum(keep.to_pylist())}


def rensa_answer(_: Path, output: Path) -> tuple[list[str], Iterable[tuple[str, Any]]]:
    """Read the survivors and the labels."""
    import pyarrow.parquet as pq

    labels = pq.read_table(output / "clusters.parquet").to_pydict()
    kept = pq.read_table(output / "kept.parquet", columns=["id"])["id"].to_pylist()
    return kept, zip(labels["id"], labels["cluster"], strict=True)


def text_dedup(source: Path, output: Path) -> dict[str, Any]:
    """Run text-dedup's command; XXH3 for SHA-1, as it recommends for speed."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"
    output.mkdir(parents=True)
    os.environ["HF_HOME"] = str(output / "home")
    from text_dedup import minhash

    named = {
        "path": "parquet", "data_files": f"{source}/*.parquet", "split": "train", "cache_dir": output / "cache",
        "output": output / "kept", "column": "text", "idx_column": "id", "ngram": NGRAM, "min_length": 1,
        "num_perm": BANDS * ROWS, "b": BANDS, "r": ROWS, "hash_func": "xxh3", "num_proc": WORKERS,
    }  # fmt: skip
    minhash.main([word for name, value in named.items() for word in (f"--{name}", str(value))] + ["--debug"],
                 standalone_mode=False)  # fmt: skip
    return {}


def text_dedup_answer(_: Path, output: Path) -> tuple[list[str], Iterable[tuple[str, Any]]]:
    """Read the Arrow files and the union-find that `--debug` leaves."""
    import pickle

    import datasets

    with (output / "kept" / "uf.pkl").open("rb") as file:
        found = pickle.load(file)
    kept = datasets.load_from_disk(str(output / "kept"))["id"]
    return list(kept), [(one, found.find(one)) for one in list(found.parent)]


def datatrove(source: Path, output: Path, whitespace: bool) -> dict[str, Any]:
    """Run the four stages, a task a file and a task a band; two workers, forked."""
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove_side import run, whitespace_words

    if whitespace:
        whitespace_words()
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    signatures, buckets, remove, kept, logs = (output / name for name in ("sign", "buckets", "remove", "kept", "logs"))
    files, read = len(list(source.glob("*.parquet"))), ParquetReader(str(source), glob_pattern="*.parquet")
    stages = {
        "signatures": run([read, MinhashDedupSignature(str(signatures), config)], logs / "1", files),
        "buckets": run([MinhashDedupBuckets(str(signatures), str(buckets), config=config)], logs / "2", BANDS),
        "cluster": run([MinhashDedupCluster(str(buckets), str(remove), config, save_cluster_id=True)], logs / "3", 1),
        "filter": run([read, MinhashDedupFilter(str(remove)), ParquetWriter(str(kept), expand_metadata=True)],
                      logs / "4", files),
    }  # fmt: skip
    return {"cpu_s_of_stages": {name: one["cpu_s"] for name, one in stages.items()}}


def datatrove_answer(source: Path, output: Path) -> tuple[list[str], Iterable[tuple[str, Any]]]:
    """Read the survivors, and the clusters' rows by file."""
    import pyarrow.parquet as pq

    kept = [one for path in (output / "kept").glob("*.parquet") for one in pq.read_table(path)["id"].to_pylist()]
    labels = []
    for rank, path in enumerate(sorted(source.glob("*.parquet"))):
        ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
        held = output / "remove" / f"{rank:06}.clusters"
        labels += (
            [(ids[row], one) for row, one in struct.iter_unpack("<2I", held.read_bytes())] if held.exists() else []
        )
    return kept, labels


SIDES: dict[str, tuple[Callable[[Path, Path], dict[str, Any]], Callable[[Path, Path], Any]]] = {
    "rensa": (lambda source, output: rensa(source, output, fineweb_words()), rensa_answer),
    "rensa_split": (lambda source, output: rensa(source, output, plain_words()), rensa_answer),
    "text_dedup": (text_dedup, text_dedup_answer),
    "datatrove": (lambda source, output: datatrove(source, output, True), datatrove_answer),
    "datatrove_shipped": (lambda source, output: datatrove(source, output, False), datatrove_answer),
}


def main(side: str, what: str, source: Path, output: Path) -> None:
    """Run a side, or read its answer."""
    job, answer = SIDES[side]
    if what == "run":
        print("\n" + json.dumps(job(source, output)))
        return
    kept, labels = answer(source, output)
    clusters = defaultdict(list)
    for one, label in labels:
        clusters[label].append(one)
    found = {"kept": sorted(kept), "clusters": sorted(sorted(ids) for ids in clusters.values() if len(ids) > 1)}
    (output / "answer.json").write_text(json.dumps(found))
    print(json.dumps({"kept": len(found["kept"]), "clusters": len(found["clusters"])}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
