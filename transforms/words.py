"""What a word is: one field that rules share, and the words of a batch as spans of bytes.

    whitespace       what `str.split` gives
    unicode          the segments of Unicode's word bounds (UAX #29, Unicode 16.0) that hold a letter or a digit:
                     "can't" and "3.5" are one word, every ideograph is one, marks are none
    fasttext         what fastText's own tokenizer gives: cut at ASCII white space and NUL alone
    module:function  a tokenizer of one's own: takes a pyarrow array of texts (large_string, none null) and gives a
                     list array with each text's words, strings; empty words are left out

A tokenizer of one's own is recorded in fingerprints with the digest of its module's source. The first three run at
150 to 300 MB/s a core; one written in Python at what it takes, once a step and batch.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AfterValidator

from .. import RunError
from .kernels.text import code_point_classes
from .kernels.words import (
    ALPHANUMERIC,
    Words,
    fasttext_classes,
    split_words,
    unicode_words,
    word_classes,
    word_rules,
    words_beginning,
)
from .step import utf8_buffers

WHITESPACE, UNICODE, FASTTEXT = "whitespace", "unicode", "fasttext"
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

#: A user's tokenizer: texts to lists of words.
Tokenizer = Callable[[pa.LargeStringArray], pa.Array]


def _known(words: str) -> str:
    """Refuse what is no definition of a word, and a tokenizer that cannot be imported."""
    if words in (WHITESPACE, UNICODE, FASTTEXT):
        return words
    if not _OWN.fullmatch(words):
        raise ValueError(
            f"words is {words!r}; known are {WHITESPACE}, {UNICODE}, {FASTTEXT}, or the import path of a function that "
            "gives the words of texts, `module:function`"
        )
    if not callable(_tokenizer(words)):
        raise ValueError(f"words is {words!r}, and that is no function")
    source_digest(words)
    return words


#: The field of a step that says what a word is.
WordsField = Annotated[str, AfterValidator(_known)]


@lru_cache(maxsize=16)
def _tokenizer(words: str) -> Tokenizer:
    """Import a user's tokenizer."""
    module, _, name = words.partition(":")
    try:
        found: Tokenizer = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # it is the user's code
        raise ValueError(
            f"the words {words!r} cannot be imported: {type(error).__name__}: {error}; start from the folder that "
            "holds the module, or name that in PYTHONPATH"
        ) from error
    return found


def source_digest(words: str) -> str | None:
    """Give the SHA-256 of the source of a user's tokenizer (its module's, else its own); None for a built-in one."""
    if ":" not in words:
        return None
    tokenizer = _tokenizer(words)
    for code in (sys.modules.get(getattr(tokenizer, "__module__", "")), tokenizer):
        with suppress(OSError, TypeError):
            return sha256(inspect.getsource(code).encode()).hexdigest()  # type: ignore[arg-type]
    raise ValueError(
        f"the words {words!r} have no source file, so runs could not tell them from others of that name: put the "
        "function into a module"
    )


def words_fingerprint(words: str) -> dict[str, Any]:
    """Name what decides what the words are, beside their name."""
    digest = source_digest(words)
    return {} if digest is None else {"words_source": digest}


def words_of(words: str, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Words:
    """Find the words of texts given as offsets (n + 1,) and bytes. RunError: a user's tokenizer gave something else."""
    if words == WHITESPACE:
        return Words(*split_words(offsets, data, code_point_classes()), data)
    if words == FASTTEXT:
        return Words(*split_words(offsets, data, fasttext_classes()), data)
    if words == UNICODE:
        return Words(*unicode_words(offsets, data, word_classes(), word_rules(), ALPHANUMERIC), data)
    return _given(words, offsets, data)


def beginning_alphanumeric(words: Words) -> Words:
    """Leave only words that begin with a letter or a digit."""
    return Words(*words_beginning(*words, word_classes(), ALPHANUMERIC), words.data)


def _given(words: str, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> Words:
    """Ask a user's tokenizer."""
    rows = len(offsets) - 1
    texts = pa.LargeStringArray.from_buffers(rows, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(data))
    found = _tokenizer(words)(texts)
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    if not isinstance(found, (pa.ListArray, pa.LargeListArray)):
        raise RunError(f"the words {words!r} gave a {type(found).__name__}, not a list array of strings")
    if len(found) != rows or found.null_count:
        raise RunError(f"the words {words!r} gave {len(found) - found.null_count} lists of words for {rows} texts")
    values = found.flatten()
    if pa.types.is_null(values.type):
        values = values.cast(pa.large_string())
    kinds = (pa.string(), pa.large_string(), pa.string_view())
    if values.type not in kinds or values.null_count:
        raise RunError(
            f"the words {words!r} gave lists of {values.type} with {values.null_count} nulls, not of strings"
        )
    counts = pc.list_value_length(found).to_numpy(zero_copy_only=False)
    ends, body = utf8_buffers(values)
    some = np.diff(ends) > 0
    firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    left = np.concatenate([[0], np.cumsum(some)]).astype(np.int64)[firsts]
    return Words(left, np.ascontiguousarray(ends[:-1][some]), np.ascontiguousarray(ends[1:][some]), body)
