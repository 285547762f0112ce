"""Small token data sets for tests, and the golden one in tests/data/tokens-v1.

The golden files say what format 1 is. They were written once, by `python tests/token_files.py`, and are never written
again: a reader of format 1 must read them for ever, a writer of format 1 must give these bytes. Who changes the
format's bytes raises `canonical.VERSION`, writes tests/data/tokens-v2 beside them and leaves these alone. Only the
bytes of docs.parquet are pyarrow's: the test hands them over as they lie here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.sharding.cohorts import next_cohort
from penstock.sharding.dataset import TokenData, open_tokens, write_generation
from penstock.sharding.format import Generation, Pack, ShardEntry, Vocabulary
from penstock.sharding.generations import add_pack, append_shards
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


def document_of(vocabulary: Vocabulary, document: int, length: int, gone: bool = False) -> list[int]:
    """The tokens of a document as they lie in a payload, EOS alone where it was taken down."""
    return [vocabulary.eos_id] * length if gone else tokens_of(vocabulary, document, length)


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
    loss: Any = None,
    gone: Sequence[int] = (),
) -> ShardEntry:
    """Write one shard of documents of these lengths."""
    tokens = [token for ordinal, length in enumerate(lengths)
              for token in document_of(vocabulary, ordinal, length, ordinal in gone)]  # fmt: skip
    spool.write_bytes(np.array(tokens, vocabulary.token).tobytes())
    documents = documents or documents_of(stream, number, len(lengths), frozenset(gone))
    return write_shard(
        Store(folder), stream=stream, number=number, payload=spool, ends=np.cumsum(lengths).astype(np.uint64),
        vocabulary=vocabulary, packs=packs, documents=documents, loss=loss, gone=np.array(gone, np.uint64),
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


#: Document lengths of the golden files by (stream, shard number); those behind the first generation are appended.
_LENGTHS = [at * at % 97 + 2 for at in range(40)]
Places = dict[tuple[str, int], list[int]]
GOLDEN_SHARDS: dict[Vocabulary, Places] = {
    SMALL: {("train/en", 0): _LENGTHS[:20], ("train/en", 1): _LENGTHS[20:], ("validation", 0): [200, 2, 64, 63, 65]},
    LARGE: {("train", 0): [200, 2, 64, 63, 65]},
}
GOLDEN_MARKS: dict[Vocabulary, dict[tuple[str, int], dict[str, Any]]] = {
    SMALL: {
        ("train/en", 1): {"loss": [[0, 9], [9, 10], [600, 640]], "gone": [3, 19]},
        ("validation", 0): {"loss": [[1, 3]]},
    },
    LARGE: {("train", 0): {"loss": [[201, 203]], "gone": [1]}},
}
GOLDEN_PACK = Pack(16, "best_fit")
GOLDEN_MORE: Places = {("train/en", 0): _LENGTHS[5:15], ("new", 0): [33]}


def put_golden(
    folder: Path,
    spool: Path,
    vocabulary: Vocabulary,
    documents: Callable[[str, int], bytes | None] = lambda stream, number: None,
) -> None:
    """Write the golden data set of a vocabulary: generation 0, one with a pack more; of uint16 one with cohorts."""
    marks = GOLDEN_MARKS[vocabulary]
    entries = [put_shard(folder, spool, *place, lengths, vocabulary, PACKS, documents(*place), **marks.get(place, {}))
               for place, lengths in GOLDEN_SHARDS[vocabulary].items()]  # fmt: skip
    write_generation(Store(folder), Generation.of(0, vocabulary, PACKS, entries))
    add_pack(folder, GOLDEN_PACK)
    if vocabulary is SMALL:
        data = open_tokens(folder)
        places = [(next_cohort(stream, data.generation.streams), number, lengths)
                  for (stream, number), lengths in GOLDEN_MORE.items()]  # fmt: skip
        append_shards(data, [put_shard(folder, spool, stream, number, lengths, vocabulary, (*PACKS, GOLDEN_PACK),
                                       documents(stream, number)) for stream, number, lengths in places])  # fmt: skip
    spool.unlink()


def write_golden() -> None:
    """Write the golden files, where there are none."""
    for vocabulary in GOLDEN_SHARDS:
        folder = GOLDEN / vocabulary.dtype
        if folder.exists():
            raise SystemExit(f"{folder} stands and is never written again")
        folder.mkdir(parents=True)
        put_golden(folder, GOLDEN / "spool", vocabulary)


if __name__ == "__main__":
    write_golden()
