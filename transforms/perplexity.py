"""Score documents by the perplexity of a KenLM language model, as cc_net does (Wenzek et al. 2020, arXiv:1911.00359).

A document's perplexity is 10^(-Σ log10 p / Σ (tokens + 1)) over its sentences, rounded to 0.1. KenLM is a guest of this
module (`pip install 'penstock[classifier]'`, built from source); it holds the interpreter's lock, so workers are
processes. Some 1.2 to 1.7 MB of text a second and core with SentencePiece, of which normalisation takes two thirds.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from .. import InputError, require
from .held import readable, stamp
from .step import Outcome, Scores, StepModel, first_reason, with_columns

ANY = ""  # the language of a model that is for all
BUCKETS = ("head", "middle", "tail", "all")
Percent = Annotated[int, Field(ge=0, le=100)]

#: cc_net's `text_normalizer.py`: marks of other scripts and typesetters, as ASCII (`１` included, as there).
_MARKS = str.maketrans(
    {
        **dict.fromkeys("，、", ","), **dict.fromkeys("„”“«»１」「《》", '"'), **dict.fromkeys("´’", "'"),
        **dict.fromkeys("∶：", ":"), **dict.fromkeys("–━►", "-"), "。": ".", "？": "?", "！": "!", "（": "(", "）": ")",
        "；": ";", "—": " - ", "．": ". ", "～": "~", "…": "...", "〈": "<", "〉": ">", "【": "[", "】": "]", "％": "%",
    }
)  # fmt: skip
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)))
_DIGIT = re.compile(r"\d")


class Perplexity(StepModel):
    """Write `perplexity` and `perplexity_bucket`; drop what a language model finds too odd.

    `model` and `tokenizer` are a file for all documents, or a mapping of languages (the column `language`) to files; a
    document without a model has a null perplexity, the bucket `all`, and stays. Buckets are cc_net's: `head` below the
    percentile `head` of a reference, `middle` below `tail`, else `tail`, by a table with a column a language (its
    `data/cutoff.csv`; `penstock classifier cutoffs` writes one).

    Variants: `cc_net` lower-cases, strips accents, writes digits as 0 and marks as ASCII, and removes control
    characters, line ends too, so that the words on either side join; its models and cut-offs were made so. `datatrove`
    (and edugp/kenlm) keeps case and accents. `lines` is `cc_net` line by line, each a sentence of its own.
    """

    files = ("model", "tokenizer", "cutoffs")
    kind: Literal["perplexity"] = "perplexity"
    model: str | dict[str, str]  # KenLM, .arpa or binary
    tokenizer: str | dict[str, str] | None = None  # SentencePiece; None parts at spaces
    variant: Literal["cc_net", "datatrove", "lines"] = "cc_net"
    maximum: Annotated[float, Field(gt=0)] | None = None  # kept if perplexity <= maximum; data-juicer 1500
    language: str | None = None  # of all documents; None reads the column `language`
    cutoffs: str | None = None  # CSV: percentiles down, languages across
    head: Percent = 30  # cc_net, `mine.py`
    tail: Percent = 60  # cc_net, `mine.py`
    keep: tuple[Literal["head", "middle", "tail", "all"], ...] | None = None  # buckets to keep; None keeps all

    @model_validator(mode="after")
    def _check(self) -> Perplexity:
        """Refuse what is not installed, what cannot be read and what does not go together, before anything runs."""
        require("kenlm", "classifier")
        if self.head > self.tail:
            raise ValueError(f"head is {self.head} and tail {self.tail}: percentiles, the head's the smaller")
        if self.keep is not None and self.cutoffs is None:
            raise ValueError(f"keep is {list(self.keep)}, and without cutoffs every document's bucket is 'all'")
        for path in (*by_language(self.model).values(), *by_language(self.tokenizer).values()):
            digest(path)
        self._bounds()
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: `perplexity` (n,), NaN where there is no model, and `perplexity_bucket` (n,) str."""
        languages = self._languages(batch)
        found = np.full(len(batch), np.nan)
        buckets = np.full(len(batch), "all", object)
        bounds = self._bounds()
        for row, (text, language) in enumerate(zip(batch.column("text").to_pylist(), languages, strict=True)):
            scorer = self._scorer(language)
            if scorer is not None:
                found[row] = scorer.perplexity(text or "", self.variant)
                if language in bounds:
                    buckets[row] = bucket(found[row], *bounds[language])
        return {"perplexity": found, "perplexity_bucket": buckets}

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each row is dropped; null where it is kept."""
        values = np.asarray(scores["perplexity"], float)
        above = values > (np.inf if self.maximum is None else self.maximum)
        rules = {"perplexity/above_maximum": above}
        if self.keep is not None:
            rules["perplexity/bucket"] = np.array([name not in self.keep for name in scores["perplexity_bucket"]], bool)
        return first_reason(rules)

    def reasons(self, batch: pa.RecordBatch) -> pa.StringArray:
        """Measure and decide."""
        return self.decide(self.measure(batch))

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Set the columns `perplexity` (float64) and `perplexity_bucket` (string), and give the reasons."""
        scores = self.measure(batch)
        columns = {
            "perplexity": pa.array(scores["perplexity"], pa.float64(), from_pandas=True),
            "perplexity_bucket": pa.array(scores["perplexity_bucket"], pa.string()),
        }
        return Outcome(with_columns(batch, columns), self.decide(scores))

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, with digests of files in place of their paths."""
        files: dict[str, Any] = {"cutoffs": None if self.cutoffs is None else digest(self.cutoffs)}
        for name in ("model", "tokenizer"):
            files[name] = {language: digest(path) for language, path in by_language(getattr(self, name)).items()}
        return {**super().fingerprint(), **files}

    def _languages(self, batch: pa.RecordBatch) -> Iterable[str | None]:
        if self.language is not None or "language" not in batch.schema.names:
            return [self.language] * len(batch)
        names: list[str | None] = batch.column("language").to_pylist()
        return names

    def _scorer(self, language: str | None) -> Scorer | None:
        models, tokenizers = by_language(self.model), by_language(self.tokenizer)
        key = ANY if ANY in models else language
        if key is None or key not in models:
            return None
        pieces = tokenizers.get(ANY, tokenizers.get(language or ANY))
        return load(*stamped(models[key]), *(stamped(pieces) if pieces else (None, 0, 0)))

    def _bounds(self) -> Mapping[str | None, tuple[float, float]]:
        if self.cutoffs is None:
            return {}
        rows = read_cutoffs(*stamped(self.cutoffs))
        if missing := [percent for percent in (self.head, self.tail) if percent not in rows]:
            raise InputError(f"cutoffs {self.cutoffs!r} has no row for percentile {missing[0]}")
        return {name: (rows[self.head][name], rows[self.tail][name]) for name in rows[self.head]}


class Scorer:
    """A language model and its tokenizer, loaded."""

    def __init__(self, model: str, tokenizer: str | None) -> None:
        kenlm = require("kenlm", "classifier")
        quiet = kenlm.Config()
        quiet.show_progress, quiet.arpa_complain = False, kenlm.ARPALoadComplain.NONE
        try:
            self.model = kenlm.Model(model, quiet)
        except (OSError, RuntimeError) as error:
            raise InputError(f"model {model!r} cannot be read by KenLM: {' '.join(str(error).split())}") from error
        self.pieces = None
        if tokenizer is not None:
            self.pieces = require("sentencepiece", "curate").SentencePieceProcessor()
            try:
                self.pieces.load(tokenizer)
            except (OSError, RuntimeError) as error:
                raise InputError(f"tokenizer {tokenizer!r} cannot be read by SentencePiece: {error}") from error

    def perplexity(self, text: str, variant: str) -> float:
        """Score one text."""
        total, tokens = 0.0, 0
        for sentence in text.split("\n") if variant == "lines" else [text]:
            line = normalise(sentence, plain=variant != "datatrove")
            if self.pieces is not None:
                line = " ".join(self.pieces.encode_as_pieces(line))
            total += self.model.score(line)
            tokens += len(line.split()) + 1
        return float(round(10.0 ** min(-total / tokens, 300.0), 1))


def normalise(line: str, plain: bool = True) -> str:
    """Normalise a text as cc_net does; with `plain`, lower-case and without accents."""
    line = line.strip()
    if plain:
        line = line.lower()
        if not line.isascii():  # ASCII has no accents to ask for
            line = unicodedata.normalize("NFD", line)
            line = "".join(char for char in line if unicodedata.category(char) != "Mn")
    return _DIGIT.sub("0", line).translate(_MARKS).translate(_CONTROL)


def bucket(value: float, head: float, tail: float) -> str:
    """Name the bucket of a perplexity between two bounds."""
    return "head" if value < head else "middle" if value < tail else "tail"


def by_language(value: str | Mapping[str, str] | None) -> Mapping[str, str]:
    """Give files by language; one for all stands under ANY."""
    return {} if value is None else {ANY: value} if isinstance(value, str) else value


def stamped(path: str) -> tuple[str, int, int]:
    """Give a file's path, time and size; InputError where it cannot be read."""
    with readable(repr(path)):
        return path, *stamp(path)


def digest(path: str) -> str:
    """Digest a file's bytes."""
    return _digest(*stamped(path))


@lru_cache(64)
def _digest(path: str, _modified: int, _size: int) -> str:
    state = sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


@lru_cache(64)
def load(
    model: str, _modified: int, _size: int, tokenizer: str | None, _tokenizer_modified: int, _tokenizer_size: int
) -> Scorer:
    """Load a model once a process, and again if its files change."""
    return Scorer(model, tokenizer)


@lru_cache(16)
def read_cutoffs(path: str, _modified: int, _size: int) -> Mapping[int, Mapping[str | None, float]]:
    """Read a table of percentiles: the first column says which, the others are languages."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    try:
        return {int(row[0]): dict(zip(rows[0][1:], map(float, row[1:]), strict=True)) for row in rows[1:] if row}
    except (ValueError, IndexError) as error:
        raise InputError(f"cutoffs {path!r} is no table of percentiles by language: {error}") from error
