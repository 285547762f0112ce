"""Small token data sets for tests, and the golden one in tests/data/tokens-v1.

The golden files say what format 1 is. They were written once, by `python tests/token_files.py`, and are never written
again: a reader of format 1 must read them for ever, a writer of format 1 must give these bytes. Who changes the
format's bytes raises `canonical.VERSION`, writes tests/data/tokens-v2 beside them and leaves these alone. Only the
bytes of docs.parquet are pyarrow's: the test hands them over as they lie here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.format import Generation, Pack, ShardEntry, Vocabulary
from penstock.sharding.shard import write_shard
from penstock.sharding.store import Store

GOLDEN = Path(__file__).parent / "data" / "tokens-v1"
SMALL = Vocabulary("uint16", 1000, "5" * 64, eos_id=0, bos_id=None, name="small")
LARGE = Vocabulary("uint32", 100_000, "7" * 64, eos_id=2, bos_id=1, name="large")
PACKS = (Pack(64, "best_fit"), Pack(32, "concat"))


def tokens_of(vocabulary: Vocabulary, document: int, length: int) -> list[int]:
    """The `length` tokens of a document, EOS (and BOS) in it: a formula, so that a test can say what belongs where."""
    body = [(document * 7919 + at * 104_729) % (vocabulary.size - 3) + 3 for at in range(length)]
    if vocabulary.bos_id is not None:
        body[0] = vocabulary.bos_id
    return [*body[:-1], vocabulary.eos_id]


def record(stream: str, number: int, ordinal: int) -> dict[str, object]:
    """What is known of a document."""
    name = f"{stream}/{number}/{ordinal}"
    url = f"https://example.org/{name}"
    return {"id": name.encode().ljust(16, b".")[-16:], "source": "web", "url": url, "score": 0.5}


def documents_of(stream: str, number: int, count: int, gone: Set[int] = frozenset()) -> bytes:
    """The bytes of a docs.parquet, seven documents a row group; of those that are gone only ids are left."""
    body = io.BytesIO()
    rows = [record(stream, number, ordinal) for ordinal in range(count)]
    rows = [row if at not in gone else {name: row[name] if name == "id" else None for name in row}
            for at, row in enumerate(rows)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), body, row_group_size=7)
    return body.getvalue()


def put_shard(
    folder: Path,
    spool: Path,
    stream: str,
    number: int,
    lengths: Sequence[int],
    vocabulary: Vocabulary = SMALL,
    packs: Sequence[Pack] = PACKS,
    documents: bytes | None = None,
) -> ShardEntry:
    """Write one shard of documents of these lengths."""
    tokens = [token for ordinal, length in enumerate(lengths) for token in tokens_of(vocabulary, ordinal, length)]
    spool.write_bytes(np.array(tokens, vocabulary.token).tobytes())
    return write_shard(
        Store(folder), stream=stream, number=number, payload=spool, ends=np.cumsum(lengths).astype(np.uint64),
        vocabulary=vocabulary, packs=packs, documents=documents or documents_of(stream, number, len(lengths)),
    )  # fmt: skip


def put_tokens(
    folder: Path,
    spool: Path,
    shards: Mapping[tuple[str, int], Sequence[int]],
    vocabulary: Vocabulary = SMALL,
    packs: Sequence[Pack] = PACKS,
) -> TokenData:
    """Write a data set: document lengths by (stream, shard number)."""
    entries = [put_shard(folder, spool, *place, lengths, vocabulary, packs) for place, lengths in shards.items()]
    write_generation(Store(folder), Generation.of(0, vocabulary, packs, entries))
    return open_tokens(folder)


#: Document lengths of the golden files by (stream, shard number).
_LENGTHS = [at * at % 97 + 2 for at in range(40)]
GOLDEN_SHARDS: dict[Vocabulary, dict[tuple[str, int], list[int]]] = {
    SMALL: {("train/en", 0): _LENGTHS[:20], ("train/en", 1): _LENGTHS[20:], ("validation", 0): [200, 2, 64, 63, 65]},
    LARGE: {("train", 0): [200, 2, 64, 63, 65]},
}


def write_golden() -> None:
    """Write the golden files, where there are none."""
    for vocabulary, shards in GOLDEN_SHARDS.items():
        folder = GOLDEN / vocabulary.dtype
        if folder.exists():
            raise SystemExit(f"{folder} stands and is never written again")
        folder.mkdir(parents=True)
        put_tokens(folder, GOLDEN / "spool", shards, vocabulary)
        (GOLDEN / "spool").unlink()


if __name__ == "__main__":
    write_golden()
