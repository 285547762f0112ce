"""Name the language of each document with fastText's lid.176 (Joulin et al. 2016, arXiv:1607.01759), without fastText.

The model ships with penstock (`transforms/data/lid.176.ftz`, CC BY-SA 3.0, see the licence beside it). Labels equal the
library's `predict(text.replace("\\n", " "))`, scores lie within 5e-5 of it. Whole texts are read: cutting them to 1,000
characters would change 4 % of the labels. Some 70 to 100 MB a second and core on documents, 50 on short passages.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from .. import InputError
from .kernels.fasttext import new_memo, predict
from .kernels.fasttext_model import FastTextModel, read_model
from .step import Outcome, Scores, Share, StepModel, first_reason, utf8, with_columns

LID_176 = Path(__file__).parent / "data" / "lid.176.ftz"


class LanguageId(StepModel):
    """Write `language` and `language_score`; drop what is in another language, or too uncertain.

    FineWeb keeps `LanguageId(languages=("en",), minimum=0.65)`: a score exactly at the minimum is dropped, as there
    (datatrove, `filters/language_filter.py`). FineWeb read the uncompressed lid.176.bin; it can be named as `model`. A
    score is a probability up to rounding: fastText's own exceed 1 by up to 1e-4. An empty text gets a label too.

    >>> batch = pa.record_batch({"text": ["Wo ist der Bahnhof, bitte?", "Where is the station, please?"]})
    >>> outcome = LanguageId(languages=("en",)).apply(batch)
    >>> outcome.batch.column("language").to_pylist(), outcome.reasons.to_pylist()
    (['de', 'en'], ['language_id/not_wanted', None])
    """

    files = ("model",)
    kind: Literal["language_id"] = "language_id"
    languages: tuple[str, ...] | None = None  # labels to keep, as the model writes them; None keeps all
    minimum: Share = 0.0  # kept if score > minimum
    model: str | None = None  # path of another fastText model; None is lid.176.ftz

    @model_validator(mode="after")
    def _check(self) -> LanguageId:
        """Refuse a model that cannot be read and a language that it does not know, before anything runs."""
        if self.languages is not None:
            known = self._loaded().model.labels
            unknown = sorted(set(self.languages) - set(known))
            if unknown or not self.languages:
                some = ", ".join(known[:8])
                raise ValueError(f"languages is {list(self.languages)}, and the model knows {len(known)}: {some}, …")
        elif self.model is not None:
            self._loaded()
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Label each row: `language` (n,) str or None where the model knows nothing of it, `language_score` (n,)."""
        loaded = self._loaded()
        numbers, scores = loaded.predict(*utf8(batch))
        return {"language": loaded.names[numbers], "language_score": scores}

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each row is dropped; null where it is kept."""
        rules: dict[str, NDArray[np.bool_]] = {}
        if self.languages is not None:
            others = [name not in self.languages for name in scores["language"]]
            rules["language_id/not_wanted"] = np.array(others, bool)
        rules["language_id/below_minimum"] = ~(scores["language_score"] > self.minimum)
        return first_reason(rules)

    def reasons(self, batch: pa.RecordBatch) -> pa.StringArray:
        """Measure and decide."""
        return self.decide(self.measure(batch))

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Set the columns `language` (string) and `language_score` (float64), and give the reasons."""
        scores = self.measure(batch)
        columns = {
            "language": pa.array(scores["language"], pa.string()),
            "language_score": pa.array(scores["language_score"], pa.float64()),
        }
        return Outcome(with_columns(batch, columns), self.decide(scores))

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, with the digest of the model's bytes in place of its path."""
        return {**super().fingerprint(), "model": self._loaded().sha256}

    def _loaded(self) -> _Loaded:
        path = Path(self.model) if self.model is not None else LID_176
        try:
            stat = path.stat()
            return _load(path, stat.st_mtime_ns, stat.st_size)
        except OSError as error:
            raise InputError(f"model {str(path)!r} cannot be read: {error.strerror or error}") from error


class _Loaded:
    """A model as a process holds it, with a memo for each thread."""

    def __init__(self, model: FastTextModel, digest: str) -> None:
        self.model, self.sha256 = model, digest
        self.names = _names(model.labels)
        self._memos = threading.local()

    def predict(
        self, offsets: NDArray[np.int64], data: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Label n texts: numbers into `names` (n,), and scores (n,)."""
        if not hasattr(self._memos, "memo"):
            self._memos.memo = new_memo()
        return predict(offsets, data, self.model.tables, self._memos.memo)


def _names(labels: Iterable[str]) -> NDArray[np.object_]:
    """Put the labels into an array whose last element, number -1, is None."""
    return np.array([*labels, None], object)


@lru_cache(4)
def _load(path: Path, _modified: int, _size: int) -> _Loaded:
    """Read a model once a process, and again if the file changes."""
    body = path.read_bytes()
    return _Loaded(read_model(body, str(path)), sha256(body).hexdigest())
