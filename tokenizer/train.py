"""Train a SentencePiece vocabulary: the same texts in the same order give the same bytes, on every run and machine.

Repeatable because nothing else goes in: an iterator (no path in the model), an in-memory writer, one thread (a parallel
sum is another sum), no sampling by the library (the caller's keyed sample is the sample), no self-test samples.

Choices, after Llama (Touvron et al. 2023, arXiv:2302.13971, section 2: byte fallback, digits split):
    identity normalisation, no white space removed, bytes for unknown characters: decoding gives the text back, where
    NFKC would fold `x²` to `x2` and full-width forms to ASCII for good. Only U+2581, SentencePiece's own sign for a
    space, comes back as a space. Pieces of spaces alone are allowed, for indented code.
    ids: 0 <unk> (no text reaches it), 1 <s>, 2 </s>, 3 to 258 the bytes, then pieces. There is no padding id.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from .. import RequestError, require
from .vocab import describe

__all__ = ["describe", "train", "train_sentencepiece"]

_RESERVED = 3 + 256  # <unk> <s> </s> and the bytes
_LONGEST = 1 << 16  # bytes of a line for the trainer, which drops longer ones: they are cut here instead
_CUT = _LONGEST // 4  # characters, of up to 4 bytes


def train_sentencepiece(
    texts: Iterable[str],
    vocab_size: int,
    *,
    model_type: Literal["bpe", "unigram"] = "bpe",
    character_coverage: float = 0.9995,
) -> bytes:
    """Train a vocabulary of exactly `vocab_size` pieces and give the `.model` file's bytes.

    `character_coverage`: share of the characters met that get a piece of their own; bytes stand for the rest.
    A text is trained on line by line. The texts are held in memory: give a sample (10 to 1,000 MB are usual).

    Raises `RequestError` where the texts are too few for that many pieces, or have too many characters for that few; it
    says how many are possible. The vocabulary is never shrunk in silence: a model's embedding has its size.
    """
    sentencepiece = require("sentencepiece", "curate")
    if model_type not in ("bpe", "unigram"):
        raise RequestError(f"model_type={model_type!r} is neither bpe nor unigram")
    if vocab_size <= _RESERVED:
        raise RequestError(
            f"vocab_size={vocab_size} leaves no piece: <unk>, <s>, </s> and bytes take {_RESERVED} ids; ask for more"
        )
    if not 0.0 < character_coverage <= 1.0:
        raise RequestError(f"character_coverage={character_coverage} is not in (0, 1]")
    lines, model = _Lines(texts), io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=True,
            character_coverage=character_coverage,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=_LONGEST,
            input_sentence_size=0,
            shuffle_input_sentence=False,
            self_test_sample_size=0,
            num_threads=1,
            minloglevel=3,
        )
    except RuntimeError as error:
        raise lines.failure or _refusal(error, vocab_size, lines.count) from error
    if lines.failure is not None:
        raise lines.failure
    return model.getvalue()


def train(texts: Iterable[str], path: str | Path, vocab_size: int, **choices: Any) -> dict[str, Any]:
    """Train, write the model to `path` and describe it; `choices` are those of `train_sentencepiece`."""
    body = train_sentencepiece(texts, vocab_size, **choices)
    try:
        Path(path).write_bytes(body)
    except OSError as error:
        raise RequestError(f"the vocabulary cannot be written to {path}: {error.strerror}") from error
    return describe(path)


class _Lines:
    """The texts line by line. Keeps what its source raised, which the library would turn into words of its own."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.count = 0
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self._texts:
                for line in re.split("[\n\0]", text):  # the trainer drops lines with a NUL
                    for start in range(0, len(line), _CUT):
                        self.count += 1
                        yield line[start : start + _CUT]
        except Exception as error:
            self.failure = error
            raise


def _refusal(error: RuntimeError, vocab_size: int, lines: int) -> RequestError:
    said = str(error)
    if most := re.search(r"value <= (\d+)", said):
        return RequestError(
            f"{lines:,} lines of text are too few for {vocab_size:,} pieces: "
            f"give more text, or a vocab_size of at most {int(most[1]):,}"
        )
    if least := re.search(r"required_chars\. \d+ vs (\d+)", said):
        return RequestError(
            f"the text has more characters than {vocab_size:,} pieces hold: give a vocab_size of at least "
            f"{int(least[1]):,}, or a lower character_coverage"
        )
    if "sentences_.empty()" in said:
        return RequestError("there is no text to train a vocabulary on")
    return RequestError(f"sentencepiece cannot train on these texts: {said.splitlines()[0][:200]}")
