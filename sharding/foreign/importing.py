"""Import: token files of others become a data set of ours, with ids, packs, checksums, and a generation at the end.

Files are streamed one after another, documents framed (`chunks.Frame`), named by the id rule (hash of input, path and
ordinal), split off for validation by a keyed hash of the id, and written as shards in their order, or shuffled
(`intake`). Nothing is seen of it until its generation stands, which is written last and only if documents and tokens
add up: what the files say they hold, less padding, plus what was added at the edges, is what the shards have.

What was exported by penstock says itself what its tokens mean and which stream each file is of: an import of an export
gives the same shards, and so the same `tokens_sha256`. Memory is a few chunks and one shard's tables.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ... import InputError, ReconciliationError, RequestError, require
from ..canonical import parse
from ..dataset import write_generation
from ..format import Generation, Pack, Vocabulary
from ..positions import is_validation
from ..store import Store
from .arrays import ArraySource
from .chunks import Chunk, Frame, check_frame, framed
from .datatrove import DatatroveSource
from .exporting import EXPORT_MAGIC, RECEIPT
from .intake import InOrder, Intake, Shuffled, keyed_ids
from .megatron import MegatronSource
from .parquet_rows import ParquetSource
from .sources import Boundaries, ForeignFile, Reading, Source, foreign_files

#: What reads each format, and the suffix of its files.
SOURCES: dict[str, tuple[Callable[[ForeignFile, Reading], Source], str]] = {
    "megatron": (MegatronSource, ".idx"),
    "parquet": (ParquetSource, ".parquet"),
    "npy": (ArraySource, ".npy"),
    "datatrove": (DatatroveSource, ".ds"),
    "raw": (ArraySource, ".bin"),
    "llmc": (ArraySource, ".bin"),
}
SHARD_BYTES = 512 << 20
_ANY = 1 << 62
PACKS = (Pack(2048, "best_fit"),)


@dataclass(frozen=True)
class Importing:
    """How foreign tokens become shards.

    reading: how files are read. stream: of all documents. source: name of the input, part of every id. frame: what is
    done about EOS and BOS. shard_bytes: a shard is no longer, unless one document is. shuffle: seed of the shuffle of
    documents; None keeps their order. validation: share of documents, by a hash of the id that no seed changes.
    scratch: local folder for spools, as large as a shard, or as all tokens where they are shuffled.
    """

    reading: Reading
    stream: str = "train"
    source: str = "import"
    frame: Frame = "ensure"
    packs: tuple[Pack, ...] = PACKS
    shard_bytes: int = SHARD_BYTES
    shuffle: int | None = None
    validation: float = 0.0
    scratch: str | Path | None = None

    def __post_init__(self) -> None:
        check_frame(self.frame)
        if not 0 <= self.validation < 1:
            raise RequestError(f"validation is {self.validation}; it is a share of the documents, from 0 to below 1")
        if self.shard_bytes < 1 << 10:
            raise RequestError(f"shard_bytes is {self.shard_bytes}; a shard has 1,024 bytes or more")
        if not self.stream:
            raise RequestError("a stream has a name, like train or train/web")


def import_tokens(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path | Store,
    kind: str,
    *,
    vocabulary: Vocabulary | None = None,
    boundaries: Boundaries = "index",
    dtype: str | None = None,
    column: str = "input_ids",
    pad_id: int | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Make a data set at `output`, generation 0, of files in another format; give its counts and tokens_sha256.

    inputs: files, folders or globs, local or in a store. kind: megatron, parquet, npy, datatrove, raw or llmc (which
    are read alike). vocabulary: what the tokens mean; files exported by penstock say it themselves. boundaries, dtype,
    column, pad_id: see `Reading`; the rest: see `Importing`. InputError and RequestError for what cannot be read so,
    ReconciliationError where counts do not add up.
    """
    if kind not in SOURCES:
        raise RequestError(f"there is no format {kind!r} to import from: {', '.join(SOURCES)}")
    if dtype is not None and kind in ("megatron", "parquet"):
        raise RequestError(f"files of {kind} say themselves of what type their tokens are: leave out the dtype")
    if pad_id is not None and kind in ("megatron", "datatrove"):
        raise RequestError(f"files of {kind} have no rows, and so no padding at their ends: leave out the padding's id")
    store = output if isinstance(output, Store) else Store(output)
    store.require_exclusive()
    if store.list("generations/"):
        raise RequestError(f"{store.url} holds a data set already: import into a new folder")
    files = foreign_files([inputs] if isinstance(inputs, (str, Path)) else inputs, SOURCES[kind][1])
    exports = _Exports(files)
    if (vocabulary := vocabulary or exports.vocabulary) is None:
        raise RequestError(
            f"{files[0]} does not say what its tokens mean: name the tokenizer, or the size of its vocabulary and EOS"
        )
    reading = Reading(vocabulary, boundaries, dtype, column, pad_id)
    return _Run(store, SOURCES[kind][0], files, exports, Importing(reading, **how)).write()


class _Exports:
    """What `export.json` says of files that penstock wrote; nothing of others."""

    def __init__(self, files: Sequence[ForeignFile]) -> None:
        self._streams: dict[tuple[Store, str], str] = {}
        merged = False
        vocabularies = []
        folders = {(file.store, file.path.rpartition("/")[0]) for file in files}
        for store, folder in sorted(folders, key=lambda item: (item[0].url, item[1])):
            name = f"{folder}/{RECEIPT}".lstrip("/")
            if store.exists(name):
                told = parse(store.read(name), EXPORT_MAGIC, f"{store.url}/{name}")
                vocabularies.append(Vocabulary.from_json(told["vocabulary"]))
                merged |= told["merged"] or told["pack"] is not None
                for file in told["files"]:
                    self._streams[store, f"{folder}/{file['path']}".lstrip("/")] = file["stream"]
        if len(set(vocabularies)) > 1:
            raise InputError(f"these exports are of several vocabularies: {', '.join(v.name for v in vocabularies)}")
        self.vocabulary = vocabularies[0] if vocabularies else None
        #: Whether each file is a shard.
        self.whole = not merged and all(self.stream(file) is not None for file in files)

    def stream(self, file: ForeignFile) -> str | None:
        """The stream that a file was exported from; None where it was not."""
        return self._streams.get((file.store, file.path))


class _Run:
    """One import under way."""

    def __init__(
        self, store: Store, source: Callable[[ForeignFile, Reading], Source], files: Sequence[ForeignFile],
        exports: _Exports, how: Importing,
    ) -> None:  # fmt: skip
        self.store, self.files, self.exports, self.how = store, files, exports, how
        self._open, self._vocabulary = source, how.reading.vocabulary
        self._intakes: dict[str, Intake] = {}
        self._totals: dict[str, int] = {}
        self.documents = self.tokens = self.padding = self.added = 0

    def write(self) -> dict[str, Any]:
        """Read every file, write shards, add up, commit the generation."""
        require("pyarrow", "curate")
        with tempfile.TemporaryDirectory(prefix="penstock-import-", dir=self.how.scratch) as scratch:
            self._folder = Path(scratch)
            if self.how.shuffle is not None:
                self._weigh()
            for file in self.files:
                self._read(file, self._open(file, self.how.reading))
            for intake in self._intakes.values():
                intake.close()
        entries = [entry for intake in self._intakes.values() for entry in intake.entries]
        if not entries:
            raise InputError(f"there is no document in {', '.join(map(str, self.files[:3]))}: nothing was imported")
        for name, expected in (("documents", self.documents), ("tokens", self.tokens + self.added)):
            written = sum(getattr(entry, name) for entry in entries)
            if written != expected:
                raise ReconciliationError(f"{expected} {name} were read or added, the shards have {written}")
        generation = Generation.of(0, self._vocabulary, self.how.packs, entries, made="import")
        write_generation(self.store, generation)
        return {
            "files": len(self.files), "documents": self.documents, "tokens": self.tokens + self.added,
            "tokens_read": self.tokens, "tokens_added": self.added, "padding_left_out": self.padding,
            "shards": len(entries), "tokens_sha256": generation.tokens_sha256,
            "streams": {stream: sum(entry.tokens for entry in entries if entry.stream == stream)
                        for stream in generation.streams},
        }  # fmt: skip

    def _weigh(self) -> None:
        """Add up the tokens of each stream, as the files say, so that a shuffle knows its shards before it begins."""
        for file in self.files:
            stream, tokens = self.exports.stream(file) or self.how.stream, self._open(file, self.how.reading).tokens
            self._totals[stream] = self._totals.get(stream, 0) + tokens

    def _read(self, file: ForeignFile, source: Source) -> None:
        """Send the documents of a file on their way, and hold their number against what the file says of itself."""
        exported = self.exports.stream(file)
        stream, ordinal, tokens = exported or self.how.stream, 0, 0
        for chunk in source.chunks():
            tokens += len(chunk.tokens)
            whole, added = framed(chunk, self._vocabulary, self.how.frame, str(file), ordinal)
            self.added += added
            self._send(stream, replace(whole, columns=self._known(file, ordinal, whole, exported is not None)))
            ordinal += len(chunk)
        if source.documents not in (None, ordinal) or tokens + source.padding != source.tokens:
            raise ReconciliationError(
                f"{file} says it has {source.documents} documents and {source.tokens} tokens, {ordinal} and {tokens} "
                f"were read, {source.padding} were padding: it is damaged, or it changed meanwhile"
            )
        self.documents, self.tokens, self.padding = (
            self.documents + ordinal, self.tokens + tokens, self.padding + source.padding
        )  # fmt: skip
        if self.exports.whole:
            for intake in self._intakes.values():
                intake.cut()

    def _send(self, stream: str, chunk: Chunk) -> None:
        if not self.how.validation or is_validation(stream):
            self._intake(stream).add(chunk)
            return
        share = self.how.validation
        limit = np.uint64(int(share * (1 << 64)))
        out = keyed_ids(chunk.columns, 0, "validation") < limit
        for name, inside, part in ((stream, ~out, 1 - share), (_validation_of(stream), out, share)):
            if inside.any():
                taken = chunk if inside.all() else chunk.take(np.flatnonzero(inside))
                self._intake(name, part, stream).add(taken)

    def _intake(self, stream: str, share: float = 1.0, of: str = "") -> Intake:
        """What makes shards of a stream, which is a share of the documents of another."""
        if stream not in self._intakes:
            how, folder = self.how, self._folder / f"stream-{len(self._intakes)}"
            common = (self.store, stream, self._vocabulary, how.packs)
            if how.shuffle is None:
                limit = _ANY if self.exports.whole else how.shard_bytes
                self._intakes[stream] = InOrder(*common, limit, folder)
            else:
                # Buckets differ in size by chance: a tenth of room lets nearly every one be a shard.
                size = self._totals.get(of or stream, 0) * self._vocabulary.itemsize * share
                buckets = max(1, ceil(1.1 * size / how.shard_bytes))
                self._intakes[stream] = Shuffled(*common, how.shard_bytes, folder, buckets, how.shuffle)
        return self._intakes[stream]

    def _known(self, file: ForeignFile, first: int, chunk: Chunk, exported: bool) -> Any:
        """Say what is known of documents: columns of the file, and id, source, path, place where it has none.

        An id of another's is kept as `source_id`; an id of ours, from an export, stays the document's id.
        """
        pa = require("pyarrow", "curate")
        known = pa.table({}) if chunk.columns is None else chunk.columns
        columns = {name: known.column(name) for name in known.column_names}
        ids, others = None, columns.pop("id", None)
        if others is not None and exported:
            try:
                ids = pa.array([bytes.fromhex(value) for value in others.to_pylist()], pa.binary(16))
            except (ValueError, TypeError, pa.ArrowInvalid):
                ids = None
        if others is not None and ids is None:
            columns.setdefault("source_id", others.cast(pa.string()))
        count, places = len(chunk), range(first, first + len(chunk))
        made = {
            "id": document_ids(self.how.source, file.path, places) if ids is None else ids,
            "source": pa.repeat(self.how.source, count),
            "path": pa.repeat(file.path, count),
            "place": pa.array(np.arange(first, first + count)),
        }
        return pa.table({**made, **columns})


def unnamed_vocabulary(size: int, eos_id: int, bos_id: int | None = None) -> Vocabulary:
    """Describe tokens of a tokenizer that is not at hand: its fingerprint is `unknown`, and equals no tokenizer's."""
    dtype = "uint16" if size <= 1 << 16 else "uint32"
    try:
        return Vocabulary(dtype, size, "unknown", eos_id, bos_id, "unknown")
    except ValueError as error:
        raise RequestError(f"{error}: say the vocabulary's size, and EOS and BOS among its ids") from error


def _validation_of(stream: str) -> str:
    """Name the stream that a stream's validation documents go to: train/web gives validation/web."""
    head, _, rest = stream.partition("/")
    return f"validation/{rest if head == 'train' else stream}".rstrip("/")


def document_ids(source: str, path: str, places: Sequence[int]) -> Any:
    """Hash (input, path, ordinal) to 16 bytes each, as readers of text do: an Arrow array."""
    pa = require("pyarrow", "curate")
    head, out = xxhash.xxh3_128(f"{source}\0{path}\0".encode()), bytearray()
    for place in places:
        state = head.copy()
        state.update(place.to_bytes(8, "little"))
        out += state.digest()
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(places), [None, pa.py_buffer(bytes(out))])
