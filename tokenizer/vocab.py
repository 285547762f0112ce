"""One `Tokenizer` for three file formats and two engines each: the ids and the fingerprint depend on the file alone.

    tokenizer = load_tokenizer("cl100k_base.tiktoken")     # or tokenizer.json, or a SentencePiece .model
    tokenizer.encode(pa.array(["some text", None]))        # list<uint32>; null reads as empty

Text is never special: `<|endoftext|>` in a document becomes the tokens of its characters. Nothing is added around a
document. The fast engine is 2 to 30 times the reference and stays only behind the equality gate (`gate.py`).
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from .. import CorruptDataError, InputError, MissingExtraError, PenstockError, RequestError, require
from . import engines, gate, proto
from .definition import Definition, Source, digest
from .huggingface import read_huggingface
from .ranks import read_ranks_file
from .token_bytes import token_bytes

_ENGINES = ("auto", "fast", "reference")
_MOST_TOKENS = 2**31 - 1  # offsets of an Arrow list


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids. Everything but `engine` is decided by the vocabulary file.

    vocab_size: largest id + 1. dtype: uint16 where vocab_size <= 65536, else uint32. fingerprint: SHA-256 of behaviour,
    in hex.
    """

    name: str
    vocab_size: int
    eos_id: int | None
    bos_id: int | None
    dtype: np.dtype[Any]
    fingerprint: str

    @property
    def engine(self) -> str:
        """Name the library that encodes."""
        ...

    def encode(self, texts: pa.Array) -> pa.ListArray:
        """Give the ids of each text as list<uint16> or list<uint32>: no BOS, no EOS, null as empty."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Give back the text of ids; control tokens by name."""
        ...


def load_tokenizer(
    path: str | Path, *, engine: str = "auto", eos: str | None = None, bos: str | None = None
) -> FileTokenizer:
    """Open a vocabulary: SentencePiece `.model`, Hugging Face `tokenizer.json` or `.tiktoken` ranks.

    `path` may be local or an fsspec URL, and a folder that holds one of them. `engine`: "auto" takes fastokens where it
    is installed, reads the file and passes the gate; "fast" insists on it; "reference" leaves it out. `eos` and `bos`
    name a token that replaces the one the file gives (for `tokenizer.json`: the `tokenizer_config.json` beside it, else
    a usual name). The same file and arguments give the same object within a process.

    Raises `InputError` (no such file, empty, no known format), `CorruptDataError` (a damaged file) and `RequestError`
    (an unknown token or engine, a rank file without a known split pattern, a control token that text would become).
    """
    if engine not in _ENGINES:
        raise RequestError(f"engine={engine!r} is none of {', '.join(_ENGINES)}")
    return _open(read_source(path), engine, eos, bos)


def require_eos(tokenizer: Tokenizer) -> int:
    """Give the id that ends a document, or say how to name one."""
    if tokenizer.eos_id is None:
        raise RequestError(
            f"{tokenizer.name} names no end-of-document token: give one of its control tokens, "
            "load_tokenizer(path, eos='…') or tokenizer.eos in the recipe"
        )
    return tokenizer.eos_id


class FileTokenizer:
    """A `Tokenizer` read from a file. Pickles with the file's bytes, so it opens on a machine that has no such path."""

    def __init__(self, source: Source, engine: str = "auto", eos: str | None = None, bos: str | None = None) -> None:
        self._source, self._asked, self._ends = source, engine, (eos, bos)
        definition = self._definition = define(source, eos, bos)
        self.name = definition.name
        self.vocab_size = definition.vocab_size
        self.dtype = np.dtype(np.uint16 if definition.vocab_size <= 65_536 else np.uint32)
        self.eos_id = definition.control[definition.eos] if definition.eos is not None else None
        self.bos_id = definition.control[definition.bos] if definition.bos is not None else None
        self._reference = engines.reference_engine(definition)
        self._fast = self._open_fast() if engine != "reference" else None
        reached = gate.reached(self._reference, definition)
        if reached is not None:
            raise RequestError(
                f"in {self.name} the text {reached!r} becomes the control token of that name, so a document could hold "
                "what only a pipeline may write: take another EOS or BOS, or another vocabulary"
            )
        probes = [found.tolist() for found in self._reference.encode(gate.PROBES)]
        self.fingerprint = digest({"behaviour": definition.behaviour, "probes": probes})

    @property
    def engine(self) -> str:
        """Name the library that encodes: fastokens, tiktoken, tokenizers or sentencepiece."""
        return self.library.partition(" ")[0]

    @property
    def library(self) -> str:
        """Name the library that encodes, with its version; it enters a run's record and no fingerprint."""
        return (self._fast or self._reference).library

    def encode(self, texts: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """Give the ids of each text, (n,) list<uint16> or list<uint32>; null reads as empty."""
        found = self._encode(_strings(texts))
        offsets = np.zeros(len(found) + 1, np.int64)
        np.cumsum([len(ids) for ids in found], out=offsets[1:])
        if offsets[-1] > _MOST_TOKENS:
            raise RequestError(
                f"{len(found):,} texts are {offsets[-1]:,} tokens an array holds {_MOST_TOKENS:,}: give smaller batches"
            )
        values = np.concatenate(found) if found else np.empty(0, np.uint32)
        if len(values) and int(values.max()) >= self.vocab_size:
            raise CorruptDataError(
                f"{self.name} declares ids below {self.vocab_size} and {self.library} gives {values.max()}"
            )
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values.astype(self.dtype)))

    def decode(self, ids: Sequence[int]) -> str:
        """Give back the text of ids, control tokens by name."""
        names = {place: name for name, place in self._definition.control.items()}
        out: list[str] = []
        run: list[int] = []
        for place in [int(one) for one in ids]:
            if not 0 <= place < self.vocab_size:
                raise RequestError(f"{place} is no id of {self.name}, whose ids are below {self.vocab_size}")
            if place in names and place != self._definition.unknown:
                out += [self._reference.decode(run) if run else "", names[place]]
                run = []
            else:
                run.append(place)
        return "".join([*out, self._reference.decode(run) if run else ""])

    @cached_property
    def token_bytes(self) -> pa.LargeBinaryArray:
        """Give the bytes of every id, (vocab_size,); `RequestError` where tokens are not the text's bytes."""
        return token_bytes(self._definition)

    def check(self, texts: pa.Array | Sequence[str | None]) -> bool:
        """Encode texts with both engines; a difference turns the fast one off, warns, and gives False.

        For the first documents of a job: what a fixed set cannot foresee, the data may hold.
        """
        if self._fast is None:
            return True
        strings = _strings(texts) if isinstance(texts, (pa.Array, pa.ChunkedArray)) else [text or "" for text in texts]
        return self._passes(self._fast, strings)

    def describe(self) -> dict[str, Any]:
        """Say what the vocabulary is, as `penstock tokenizer info` prints it."""
        definition = self._definition
        return {
            "name": self.name,
            "format": definition.format,
            "model": definition.model,
            "vocab_size": self.vocab_size,
            "dtype": self.dtype.name,
            "eos": definition.eos,
            "eos_id": self.eos_id,
            "bos": definition.bos,
            "bos_id": self.bos_id,
            "unknown_id": definition.unknown,
            "control_tokens": len(definition.control),
            "engine": self.library,
            "reference": self._reference.library,
            "fingerprint": self.fingerprint,
            "sha256": self._source.sha256,
        }

    def _encode(self, strings: list[str]) -> list[engines.Ids]:
        if self._fast is None:
            return self._reference.encode(strings)
        try:
            return self._fast.encode(strings)
        except (ValueError, RuntimeError):  # a text beyond a limit of its regex engine; the ids are the same
            return self._reference.encode(strings)

    def _open_fast(self) -> engines.Engine | None:
        try:
            fast = engines.fast_engine(self._definition)
        except (MissingExtraError, RequestError):
            if self._asked == "fast":
                raise
            return None
        texts = [*gate.adversarial(), *gate.about(self._definition, self._reference)]
        return fast if self._passes(fast, texts) else None

    def _passes(self, fast: engines.Engine, strings: Sequence[str]) -> bool:
        found = gate.difference(fast, self._reference, strings)
        if found is None:
            return True
        self._fast = None
        said = f"{self.name}: the fast engine is off and {self._reference.library} encodes: {found}"
        warnings.warn(said, RuntimeWarning, stacklevel=3)
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        engine = self._asked if self._fast is not None else "reference"
        return _open, (self._source, engine, *self._ends)


@lru_cache(maxsize=8)
def _open(source: Source, engine: str, eos: str | None, bos: str | None) -> FileTokenizer:
    return FileTokenizer(source, engine, eos, bos)


def describe(
    path: str | Path, *, engine: str = "auto", eos: str | None = None, bos: str | None = None
) -> dict[str, Any]:
    """Say what a vocabulary file is: format, size, EOS and BOS, engine, fingerprint."""
    return load_tokenizer(path, engine=engine, eos=eos, bos=bos).describe()


def _strings(texts: pa.Array | pa.ChunkedArray) -> list[str]:
    if isinstance(texts, pa.ChunkedArray):
        return [text for chunk in texts.chunks for text in _strings(chunk)]
    if not isinstance(texts, pa.Array):
        raise RequestError(f"encode takes a pyarrow array of strings and got {type(texts).__name__}: pa.array(texts)")
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        try:
            texts = texts.cast(pa.large_string())
        except pa.ArrowException as error:
            raise RequestError(f"encode takes an array of strings and got {texts.type}") from error
    try:
        found: list[str] = (texts.fill_null("") if texts.null_count else texts).to_pylist()
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"a text column holds bytes that are not UTF-8: {error}") from error
    return found


def vocabulary_files(path: str | Path) -> dict[str, bytes]:
    """Give the files that a copy of the vocabulary needs, by name: itself, and the one it is read with."""
    source = read_source(path)
    return {source.name: source.body} | ({source.side_name: source.side} if source.side else {})


def vocabulary_digests(path: str | Path) -> dict[str, str]:
    """Give the SHA-256 of each of those files, by name: what a fingerprint knows a vocabulary by."""
    return {name: hashlib.sha256(body).hexdigest() for name, body in vocabulary_files(path).items()}


def read_source(path: str | Path) -> Source:
    """Read a vocabulary file and the one beside it that says more; `InputError` if it is not there or empty."""
    fsspec = require("fsspec", "curate")
    try:
        store, root = fsspec.core.url_to_fs(str(path))
        if store.isdir(root):
            root = _in_folder(store, root, path)
        body = store.cat_file(root)
    except FileNotFoundError as error:
        raise InputError(f"no vocabulary file at {path}") from error
    except InputError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"cannot read the vocabulary file {path}: {error}") from error
    except Exception as error:
        if "://" not in str(path):
            raise
        # Clients of object stores raise their own classes for credentials, names and timeouts.
        raise InputError(f"cannot read the vocabulary file {path}: {type(error).__name__}: {error}") from error
    if not body.strip():
        raise InputError(f"the vocabulary file {path} is empty")
    folder, _, name = root.rpartition("/")
    sides = {"huggingface": ["tokenizer_config.json"], "tiktoken": [f"{name}.json", f"{Path(name).stem}.json"]}
    for side in sides.get(_format(body, name) or "", []):
        if store.exists(f"{folder}/{side}"):
            return Source(name, body, store.cat_file(f"{folder}/{side}"), side)
    return Source(name, body)


def _in_folder(store: Any, root: str, path: str | Path) -> str:
    names = sorted(entry.rpartition("/")[2] for entry in store.ls(root, detail=False))
    found = [name for name in names if name == "tokenizer.json" or name.endswith((".model", ".tiktoken"))]
    if len(found) != 1:
        raise InputError(
            f"{path} is a folder with {len(found)} vocabulary files ({', '.join(found) or 'none'}): "
            "name a tokenizer.json, a .model or a .tiktoken file"
        )
    return f"{root.rstrip('/')}/{found[0]}"


def define(source: Source, eos: str | None = None, bos: str | None = None) -> Definition:
    """Read what the file says; `eos` and `bos` name tokens that replace the ones it gives.

    `InputError` for a file in no known format, `CorruptDataError` for a damaged one, `RequestError` for what is asked.
    """
    readers = {"huggingface": read_huggingface, "tiktoken": read_ranks_file, "sentencepiece": proto.read_sentencepiece}
    if (read := readers.get(_format(source.body, source.name) or "")) is not None:
        try:
            return read(source, eos, bos)
        except PenstockError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            # Damage that no reader foresaw: a number where a name should be, half a surrogate pair in a merge.
            raise CorruptDataError(f"{source.name} is damaged: it does not parse ({error!r})") from error
    raise InputError(
        f"{source.name} is no vocabulary that is known: it begins with {source.body[:12]!r}, "
        "and a SentencePiece .model, a Hugging Face tokenizer.json or a .tiktoken rank file is expected"
    )


def _format(body: bytes, name: str) -> str | None:
    head = body.lstrip()[:4096]
    if head[:1] == b"{":
        return "huggingface"
    if name.endswith(".tiktoken") or re.match(rb"[A-Za-z0-9+/]+=*[ \t]+\d+\s", head):
        return "tiktoken"
    return "sentencepiece" if proto.looks_like_model(body) else None
