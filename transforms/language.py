"""Name the language of each document with a fastText model (Joulin et al. 2016, arXiv:1607.01759), without fastText.

lid.176 ships with penstock (`transforms/data/lid.176.ftz`, CC BY-SA 3.0, see the licence beside it); any supervised
model can take its place. Labels equal the library's `predict(text.replace("\\n", " "))`, scores lie within 5e-5 of it.
Whole texts are read: cutting them to 1,000 characters would change 4 % of the labels. lid.176 takes some 70 to 100 MB a
second and core on documents, 50 on short passages; models of other shapes, see `kernels/fasttext_wide`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from .kernels.scripts import SCRIPTS, dominant_scripts
from .labeller import Labeller, labeller
from .step import Outcome, Scores, Share, StepModel, first_reason, utf8, with_columns

LID_176 = Path(__file__).parent / "data" / "lid.176.ftz"


class LanguageId(StepModel):
    """Write `language` and `language_score`; drop what is in another language, or too uncertain.

    FineWeb keeps `LanguageId(languages=("en",), minimum=0.65)`: a score exactly at the minimum is dropped, as there
    (datatrove, `filters/language_filter.py`). FineWeb read the uncompressed lid.176.bin; it can be named as `model`. A
    score is a probability up to rounding: fastText's own exceed 1 by up to 1e-4. An empty text gets a label too.

    Labels stand as the model writes them: lid.176 has two letters of ISO 639-1 where there are such (`en`), else three
    of ISO 639-3 (`ceb`); GlotLID and NLLB have ISO 639-3 with a script of ISO 15924 (`eng_Latn`). A wanted language
    without a script, `eng`, stands for the label of that name and for all its scripts. Nothing is translated between
    the two standards.

    >>> batch = pa.record_batch({"text": ["Wo ist der Bahnhof, bitte?", "Where is the station, please?"]})
    >>> outcome = LanguageId(languages=("en",)).apply(batch)
    >>> outcome.batch.column("language").to_pylist(), outcome.reasons.to_pylist()
    (['de', 'en'], ['language_id/not_wanted', None])
    """

    files = ("model",)
    kind: Literal["language_id"] = "language_id"
    languages: tuple[str, ...] | None = None  # labels to keep, as the model writes them; None keeps all
    minimum: Share = 0.0  # kept if score > minimum
    model: str | None = None  # path of another fastText model, .bin or .ftz; None is lid.176.ftz
    top: Annotated[int, Field(ge=1)] = (
        1  # above 1: the columns `languages` and `language_scores`, lists of the likeliest
    )
    script: bool = (
        False  # the column `script`: that of most letters, of ISO 15924 (Latn, Cyrl, Hani…), null without any
    )

    @model_validator(mode="after")
    def _check(self) -> LanguageId:
        """Refuse a model that cannot be read and a language that it does not know, before anything runs."""
        if self.languages is not None:
            known = self._loaded().labels
            unknown = sorted(set(self.languages) - set(known) - {language_of(label) for label in known})
            if unknown or not self.languages:
                some = ", ".join(known[:8])
                raise ValueError(f"languages is {list(self.languages)}, and the model knows {len(known)}: {some}, …")
        elif self.model is not None:
            self._loaded()
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Label each row: `language` (n,) str or None where the model knows nothing of it, `language_score` (n,).

        Where asked for: `languages` and `language_scores` (n,) lists, likeliest first, and `script` (n,) str or None.
        """
        loaded, texts = self._loaded(), utf8(batch)
        numbers, scores = loaded.top(*texts, top=self.top)
        found: dict[str, NDArray[Any]] = {"language": loaded.names[numbers[:, 0]], "language_score": scores[:, 0]}
        if self.top > 1:
            held = (numbers >= 0).sum(axis=1)
            found["languages"] = lists(loaded.names[numbers], held)
            found["language_scores"] = lists(scores, held)
        if self.script:
            found["script"] = np.array([*SCRIPTS, None], object)[dominant_scripts(*texts)]
        return found

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each row is dropped; null where it is kept."""
        rules: dict[str, NDArray[np.bool_]] = {}
        if self.languages is not None:
            wanted = {None: False}
            for label in set(scores["language"]) - {None}:
                wanted[label] = label in self.languages or language_of(label) in self.languages
            rules["language_id/not_wanted"] = np.array([not wanted[name] for name in scores["language"]], bool)
        rules["language_id/below_minimum"] = ~(scores["language_score"] > self.minimum)
        return first_reason(rules)

    def reasons(self, batch: pa.RecordBatch) -> pa.StringArray:
        """Measure and decide."""
        return self.decide(self.measure(batch))

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Set the columns `language` (string) and `language_score` (float64), and give the reasons.

        Where asked for, `languages` (list of string), `language_scores` (list of float64) and `script` (string) too.
        """
        scores = self.measure(batch)
        types = {
            "language": pa.string(),
            "language_score": pa.float64(),
            "languages": pa.list_(pa.string()),
            "language_scores": pa.list_(pa.float64()),
            "script": pa.string(),
        }
        columns = {name: pa.array(values, types[name]) for name, values in scores.items()}
        return Outcome(with_columns(batch, columns), self.decide(scores))

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, with the digest of the model's bytes in place of its path."""
        return {**super().fingerprint(), "model": self._loaded().sha256}

    def _loaded(self) -> Labeller:
        return labeller(self.model if self.model is not None else LID_176)


def language_of(label: str) -> str:
    """Take the script off a label: `eng` of `eng_Latn`; a label without one stays."""
    language, _, script = label.partition("_")
    return language if len(script) == 4 and script.istitle() else label


def lists(values: NDArray[Any], held: NDArray[np.int64]) -> NDArray[np.object_]:
    """Give the first `held` values of each row as a list, in an array of lists (n,)."""
    rows = np.empty(len(values), object)
    for row, count in enumerate(held.tolist()):
        rows[row] = values[row, :count].tolist()
    return rows
