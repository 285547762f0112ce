"""The libraries that turn text into ids, behind one small protocol. Each is known to one class here and nowhere else.

One thread in each: a worker process fills a core. MB/s of UTF-8 text per CPU-second, text never seen before, one slow
core (`tests/benchmarks/tokenization.py`, in turns): fastokens 75 to 100 where tiktoken reaches 14 to 19 and tokenizers
2 to 3; SentencePiece BPE 5, by segments 10 on many languages and 16 on English; unigram 30. None is quadratic on 2 M
spaces, newlines, letters or Han characters.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import CorruptDataError, RequestError, RunError, require
from .definition import Definition
from .segments import Segments

Ids = NDArray[np.uint32]


class Engine(Protocol):
    """Text to ids, one array a text."""

    library: str

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Encode each text; nothing is added around it and no control token is read in it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Give back the text of ids, none of them a control token."""
        ...


def reference_engine(definition: Definition) -> Engine:
    """Open the library that defines the format."""
    _one_thread()
    if definition.format == "sentencepiece":
        return SentencePiece(definition)
    return HuggingFace(definition) if definition.format == "huggingface" else Tiktoken(definition)


def fast_engine(definition: Definition) -> Engine:
    """Open fastokens, or sentencepiece by segments, on the vocabulary; `RequestError` says why it cannot be."""
    if definition.format == "sentencepiece":
        return Segments(definition)
    _one_thread()
    return Fastokens(definition)


def _one_thread() -> None:
    # Read when the libraries start: a run is parallel by processes, and a pool of threads does not survive a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")


class SentencePiece:
    """The sentencepiece library: BPE and unigram models."""

    def __init__(self, definition: Definition) -> None:
        sentencepiece = require("sentencepiece", "curate")
        self.library = f"sentencepiece {sentencepiece.__version__}"
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=definition.body)
        except (RuntimeError, ValueError) as error:
            raise CorruptDataError(
                f"{definition.name} is damaged: sentencepiece refuses it ({_brief(error)})"
            ) from error
        self._encode = getattr(self._processor, "EncodeAsNumpy", self._processor.EncodeAsIds)  # arrays since 0.2.2

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Encode each text."""
        return [np.asarray(self._encode(text), np.uint32) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids."""
        return str(self._processor.decode(list(ids)))


class HuggingFace:
    """The tokenizers library: any `tokenizer.json`."""

    def __init__(self, definition: Definition) -> None:
        tokenizers = require("tokenizers", "curate")
        self.library = f"tokenizers {tokenizers.__version__}"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(definition.body.decode())
        except Exception as error:  # the binding raises bare Exception
            raise CorruptDataError(f"{definition.name} is damaged: tokenizers refuses it ({_brief(error)})") from error
        self._tokenizer.encode_special_tokens = True

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Encode each text."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, np.uint32) for one in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


# White_Space, which is `\s` in Rust's regex and not in Python's (U+001C to U+001F) nor in PCRE2 (U+180E).
_SPACE = r"\t-\r\x{85}\p{Z}"
_SPACES = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
_LONG_SPACE = re.compile(f"(?<!{_SPACES}){_SPACES}{{10000,}}")


class Tiktoken:
    """The tiktoken library: byte-level BPE over ranks."""

    def __init__(self, definition: Definition) -> None:
        tiktoken = require("tiktoken", "curate")
        self.library = f"tiktoken {tiktoken.__version__}"
        self._name = definition.name
        self._newlines = r"[\r\n" in definition.pattern.replace(r"[^\r\n", "")
        try:
            self._encoding = tiktoken.Encoding(
                definition.name,
                pat_str=_without_backtracking(definition.pattern),
                mergeable_ranks=dict(definition.ranks),
                special_tokens=dict(definition.control),
            )
        except ValueError as error:
            raise RequestError(f"the split pattern of {definition.name} does not compile: {_brief(error)}") from error

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Encode each text."""
        return [self._one(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids."""
        try:
            return str(self._encoding.decode(list(ids)))
        except KeyError as error:  # ids between the ranks and the special tokens stand for nothing
            raise RequestError(f"{error.args[0]}: {self._name} leaves that id empty") from error

    def _one(self, text: str) -> Ids:
        try:
            found: Ids = self._encoding.encode_to_numpy(text, disallowed_special=())
            return found
        except ValueError:
            pieces = _cut_at_long_space(text, self._newlines)
        try:
            return np.concatenate([self._encoding.encode_to_numpy(piece, disallowed_special=()) for piece in pieces])
        except ValueError as error:
            raise RunError(
                f"tiktoken cannot split a text of {len(text):,} characters with the pattern of {self._name}: "
                f"{_brief(error)}"
            ) from error


def _without_backtracking(pattern: str) -> str:
    r"""Write a published pattern so that it matches the same and needs no stack a character.

    `\s*[\r\n]+` runs to the last newline of a run of space and `\s+(?!\S)` at a text's end takes the whole run;
    tiktoken's engine keeps one state a character for both and gives up at about a million.
    """
    newlines = pattern.replace(r"|\s*[\r\n]+|", r"|(?:[^\S\r\n]*+[\r\n]++)++|")
    return newlines.replace(r"|\s+(?!\S)|", r"|\s++$|\s+(?!\S)|")


def _cut_at_long_space(text: str, newlines: bool) -> list[str]:
    r"""Cut a text where the published patterns cut it anyway: before the last character of a long run of space.

    `\s+(?!\S)` leaves that one to what follows. A pattern with a newline rule takes a run that ends in a newline whole.
    """
    cuts = [0]
    for run in _LONG_SPACE.finditer(text):
        whole = newlines and text[run.end() - 1] in "\r\n"
        cuts.append(run.end() if whole or run.end() == len(text) else run.end() - 1)
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True) if end > start]


class Fastokens:
    """fastokens: byte-level BPE of rank files and `tokenizer.json`, 5 to 30 times the reference, behind the gate."""

    def __init__(self, definition: Definition) -> None:
        fastokens = require("fastokens", "fast")
        from importlib.metadata import version

        self.library = f"fastokens {version('fastokens')}"
        try:
            if definition.format == "huggingface":
                self._tokenizer: Any = fastokens.Tokenizer.from_json_str(definition.body.decode())
            else:
                self._tokenizer = _from_ranks(fastokens, definition)
        except (ValueError, RuntimeError, OSError) as error:
            raise RequestError(f"fastokens does not read {definition.name}: {_brief(error)}") from error

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Encode each text: a call a text stays in this thread, a call for a batch would wake a pool."""
        encode = self._tokenizer.encode_batch_flat
        return [np.frombuffer(encode([text], split_special_tokens=True)[0], "<u4") for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids."""
        return str(self._tokenizer.decode(list(ids)))


def _from_ranks(fastokens: Any, definition: Definition) -> Any:
    pattern = definition.pattern if definition.scanned else _spell_out_space(definition.pattern)
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        path = Path(folder) / "ranks.tiktoken"
        path.write_bytes(definition.body)
        return fastokens.Tokenizer.from_tiktoken(str(path), pattern=pattern, special_tokens={})


def _spell_out_space(pattern: str) -> str:
    r"""Write `\s` and `\S` as the characters that tiktoken means by them.

    A pattern that fastokens has no scanner for goes through PCRE2, whose `\s` has U+180E besides: 1,283 of 120,000
    adversarial texts read differently.
    """
    out: list[str] = []
    inside = False
    for part in re.split(r"(\\.|\[\^?\]?|\])", pattern):
        if part == r"\s":
            part = _SPACE if inside else f"[{_SPACE}]"
        elif part == r"\S" and not inside:
            part = f"[^{_SPACE}]"
        elif part[:1] == "[":
            inside = True
        elif part == "]":
            inside = False
        out.append(part)
    return "".join(out)


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
