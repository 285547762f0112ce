"""Whether the real readers of other formats read our exports, and we what their writers write; and how fast both are.

    python tests/benchmarks/token_readers.py --peers PYTHON [--mtok 8] [--rounds 2] [--formats megatron,datatrove,…]

PYTHON is one of an environment with megatron-core, torch, datatrove, datasets and ai2-olmo-core (those that are there
are asked). For each format and 16-bit and 32-bit ids: token files of random documents are exported, read by the peer's
own reader and compared; the same documents are written by the peer's own writer, imported and compared. Rates are MB of
tokens a CPU-second, the export in turns with the peer's writer, medians of the rounds. An import does more than a read:
checksums, SHA-256, ids, records of documents, fsync; packing is left out. Memory is of a process that does nothing
else, at one and at four times the tokens.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from token_readers_side import WINDOW, digest_of

from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.foreign.exporting import export_tokens
from penstock.sharding.foreign.importing import import_tokens
from penstock.sharding.format import Generation, Vocabulary
from penstock.sharding.shard import write_shard
from penstock.sharding.store import Store

FORMATS = ("megatron", "datatrove", "parquet", "npy")
SHARDS = 4


@dataclass(frozen=True)
class Corpus:
    """The same documents as token files, and as two arrays."""

    data: TokenData
    tokens: Path
    ends: Path
    width: int

    @property
    def bytes(self) -> int:
        """Bytes of tokens."""
        return sum(shard.tokens for shard in self.data.generation.shards) * self.width

    def documents(self) -> list[Any]:
        """Every document."""
        return np.split(np.load(self.tokens, mmap_mode="r"), np.load(self.ends)[:-1])


def corpus(folder: Path, mtok: float, width: int) -> Corpus:
    """Write shards of documents of log-normal length, about 1,000 tokens on average, from a fixed seed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance = np.random.default_rng(0)
    vocabulary = Vocabulary(f"uint{8 * width}", 50_000 if width == 2 else 130_000, "0" * 64, 0, None, "random")
    folder.mkdir(parents=True)
    entries, bodies, lengths_of = [], [], []
    for number in range(SHARDS):
        lengths = chance.lognormal(np.log(600), 1.0, int(mtok * 1e6 / SHARDS / 990)).astype(np.int64) + 2
        ends = np.cumsum(lengths)
        body = chance.integers(1, vocabulary.size, int(ends[-1])).astype(vocabulary.token)
        body[ends - 1] = vocabulary.eos_id
        body.tofile(folder / "spool")
        ids = pa.array([f"{number:08d}{at:08d}".encode() for at in range(len(ends))], pa.binary(16))
        pq.write_table(pa.table({"id": ids, "source": pa.repeat("web", len(ends))}), folder / "docs")
        entries.append(write_shard(
            Store(folder / "set"), stream="train", number=number, payload=folder / "spool",
            ends=ends.astype(np.uint64), vocabulary=vocabulary, packs=(), documents=(folder / "docs").read_bytes(),
        ))  # fmt: skip
        bodies.append(body)
        lengths_of.append(lengths)
    write_generation(Store(folder / "set"), Generation.of(0, vocabulary, (), entries))
    np.save(folder / "tokens.npy", np.concatenate(bodies))
    np.save(folder / "ends.npy", np.cumsum(np.concatenate(lengths_of)))
    return Corpus(open_tokens(folder / "set"), folder / "tokens.npy", folder / "ends.npy", width)


class Peer:
    """The other side, a process of another Python."""

    def __init__(self, python: str) -> None:
        side = Path(__file__).with_name("token_readers_side.py")
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [python, str(side)], stdin=pipe, stdout=pipe, text=True, stderr=subprocess.DEVNULL
        )

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Ask for one thing and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in asked.items()}),
              file=self._process.stdin, flush=True)  # fmt: skip
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def close(self) -> None:
        """Let it go."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def windows(body: Any, length: int) -> Any:
    """Whole windows of an array, one behind the other."""
    return body[: len(body) // length * length]


def expected(held: Corpus, to: str) -> str:
    """What the peer's reader should say of an export."""
    if to in ("megatron", "parquet"):
        return digest_of(held.documents())
    bodies, places, starts = [], [], 0
    for number, shard in enumerate(held.data.generation.shards):
        reader = held.data.reader(number)
        length = WINDOW if to == "datatrove" else WINDOW - 1
        body = windows(reader.tokens(0, shard.tokens), length)
        ends = reader.ends.astype(np.int64)
        bodies.append(body)
        places.append(list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)))
        # Positions are 0 where a window begins, and where a document does inside one.
        starts += len(body) // WINDOW + int(((ends < len(body)) & (ends % WINDOW > 0)).sum())
    sha = digest_of_flat(np.concatenate(bodies))
    return json.dumps([sha, starts]) if to == "datatrove" else json.dumps([sha, places])


def digest_of_flat(tokens: Any) -> str:
    """SHA-256 of tokens as uint32."""
    import hashlib

    return hashlib.sha256(tokens.astype("<u4").tobytes()).hexdigest()


def compare(held: Corpus, to: str, peer: Peer, work: Path, rounds: int) -> dict[str, Any]:
    """Export, read there; write there, import; equal or not, and rates."""
    rates: dict[str, list[float]] = {"export": [], "peer_write": [], "import": [], "peer_read": []}
    told: dict[str, Any] = {}
    for _ in range(rounds):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        start = time.process_time()
        receipt = export_tokens(held.data, work / "out", to)
        rates["export"].append(held.bytes / (time.process_time() - start) / 1e6)
        common = {"format": to, "width": held.width}
        wrote = peer.ask(do="write", folder=work / "theirs", tokens=held.tokens, ends=held.ends, **common)
        names = [file["path"] for file in receipt["files"]]
        read = peer.ask(do="read", folder=work / "out", names=names, **common)
        if problem := wrote.get("error") or read.get("error"):
            return {"error": problem}
        rates["peer_write"].append(held.bytes / wrote["seconds"] / 1e6)
        rates["peer_read"].append(held.bytes / read["seconds"] / 1e6)
        start = time.process_time()
        done = import_tokens(
            work / "theirs", work / "set", to, vocabulary=held.data.generation.vocabulary, frame="keep", packs=()
        )
        rates["import"].append(held.bytes / (time.process_time() - start) / 1e6)
        back = open_tokens(work / "set")
        bodies = [back.reader(at).tokens(0, shard.tokens) for at, shard in enumerate(back.generation.shards)]
        ends = np.cumsum(np.concatenate([np.diff(back.reader(at).ends.astype(np.int64), prepend=0)
                                         for at in range(len(bodies))]))  # fmt: skip
        told = {
            "they_read_our_export": read["digest"] == expected(held, to),
            "we_import_their_files": np.array_equal(np.concatenate(bodies), np.load(held.tokens))
            and np.array_equal(ends, np.load(held.ends)),
            "documents": done["documents"], "tokens": done["tokens"],
        }  # fmt: skip
        if to == "megatron":
            export_tokens(back, work / "again", to, merge=True)
            told["their_files_come_back_byte_for_byte"] = all(
                (work / "again" / f"train-000{suffix}").read_bytes() == (work / "theirs" / f"text{suffix}").read_bytes()
                for suffix in (".bin", ".idx")
            )
    ratio = statistics.median(one / two for one, two in zip(rates["export"], rates["peer_write"], strict=True))
    told["mb_per_cpu_second"] = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    return {**told, "export_over_peer_write": round(ratio, 2)}


MEMORY = """
import resource, shutil, sys, tempfile
from penstock.sharding.foreign.exporting import export_tokens
from penstock.sharding.foreign.importing import import_tokens
with tempfile.TemporaryDirectory() as folder:
    export_tokens(sys.argv[1], folder + "/out", sys.argv[2])
    if sys.argv[3] == "import":
        import_tokens(folder + "/out", folder + "/set", sys.argv[2], shard_bytes=4 << 20, shuffle=0)
    told = open("/proc/self/status").read().split()
    print(int(told[told.index("VmHWM:") + 1]) // 1024)
"""


def memory(small: Corpus, big: Corpus, to: str) -> dict[str, list[int]]:
    """Peak memory in MB, mapped files included, of an export, and of an export and a shuffled import."""
    found = {}
    for what in ("export", "import"):
        found[what] = [
            int(subprocess.run([sys.executable, "-c", MEMORY, held.data.store.url, to, what],
                               capture_output=True, text=True, check=True).stdout)
            for held in (small, big)
        ]  # fmt: skip
    return found


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="of an environment that holds the peers")
    parser.add_argument("--mtok", type=float, default=8, help="million tokens")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--formats", default=",".join(FORMATS))
    options = parser.parse_args()
    found: dict[str, Any] = {"mtok": options.mtok}
    peer = Peer(options.peers)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        held = {width: corpus(root / f"u{width}", options.mtok, width) for width in (2, 4)}
        four = corpus(root / "four", 4 * options.mtok, 2)
        for to in options.formats.split(","):
            told = {
                f"uint{8 * width}": compare(one, to, peer, root / "work", options.rounds) for width, one in held.items()
            }
            found[to] = {**told, "peak_mb_at_1_and_4_times": memory(held[2], four, to)}
    peer.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
