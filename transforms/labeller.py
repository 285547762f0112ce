"""A supervised fastText model as a process holds it: read once, mapped where it is large, a memo for each thread.

What steps share: `LanguageId` and `QualityClassifier` label texts with it.
"""

from __future__ import annotations

import mmap
import threading
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .held import readable, stamp
from .kernels import fasttext, fasttext_wide
from .kernels.fasttext_model import FastTextModel, read_model

#: Files up to here are read; larger ones are mapped, and cost the memory of the rows that texts meet.
READ_WHOLE = 64 << 20

Labels = tuple[NDArray[np.int64], NDArray[np.float64]]


def labeller(path: str | Path) -> Labeller:
    """Load a model once a process, and again if its file changes; InputError or RequestError where it cannot."""
    path = Path(path)
    with readable(f"model {str(path)!r}"):
        return _load(path, *stamp(path))


class Labeller:
    """A loaded model. Answers are the same for any batch, thread and order."""

    def __init__(self, body: Any, name: str) -> None:
        self.model: FastTextModel = read_model(body, name)
        self.labels = self.model.labels
        self._body, self._memos = body, threading.local()

    @cached_property
    def sha256(self) -> str:
        """The digest of the file's bytes."""
        return sha256(self._body).hexdigest()

    @cached_property
    def names(self) -> NDArray[np.object_]:
        """The labels, and behind them, as number -1, None."""
        return np.array([*self.labels, None], object)

    def top(self, offsets: NDArray[np.int64], data: NDArray[np.uint8], top: int = 1, threshold: float = 0.0) -> Labels:
        """Label n texts: numbers into `names` (n, top), likeliest first, -1 where no more are; scores (n, top)."""
        return self._predict(offsets, data, min(top, len(self.labels)), threshold, -1)

    def score(self, offsets: NDArray[np.int64], data: NDArray[np.uint8], label: int) -> NDArray[np.float64]:
        """Score one label for n texts (n,): 0 where the library would not name it at all."""
        return self._predict(offsets, data, 1, 0.0, label)[1][:, 0]

    def _predict(
        self, offsets: NDArray[np.int64], data: NDArray[np.uint8], top: int, threshold: float, wanted: int
    ) -> Labels:
        if self.model.narrow:
            if not hasattr(self._memos, "narrow"):
                self._memos.narrow = fasttext.new_memo()
            tables = self.model.tables
            return fasttext.predict(offsets, data, tables, self._memos.narrow, top, threshold, wanted)
        if not hasattr(self._memos, "wide"):
            self._memos.wide = fasttext_wide.new_memo(self.model)
        return fasttext_wide.predict(offsets, data, self.model, self._memos.wide, top, threshold, wanted)


@lru_cache(4)
def _load(path: Path, _modified: int, size: int) -> Labeller:
    if size <= READ_WHOLE:
        return Labeller(path.read_bytes(), str(path))
    with path.open("rb") as file:
        return Labeller(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), str(path))
