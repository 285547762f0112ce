"""Keep a share of the documents, chosen by a keyed hash of the id: the same ones on every machine and in every run.

What a document draws is a number in [0, 1) that depends on its id and the key alone, so a smaller share lies wholly
inside a larger one, and two keys draw independently. (datatrove's sampler draws from a generator in each process:
without a seed no run repeats, with one every process draws alike.)
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from .. import RequestError
from .schema import keyed
from .step import Filter, Scores, first_reason

#: Copies of a document, on average; over 1 every one is kept.
Rate = Annotated[float, Field(ge=0.0, le=1000.0)]


class Sample(Filter):
    """Keep a share of the documents, all alike or by the value of a column; say how often each is to be used.

    `rate` is the share, or the number of copies: 2.5 means two or three. `by` names a column (`source`, `language`, a
    label) and `rates` its values' own rates; other values and null have `rate`.

    A step gives as many rows as it gets, so nothing is written twice: the score `sample.copies` says how often a
    document counts, 0 where it goes. A recipe makes streams of it (`streams: [{column: sample.copies, cuts: [2, 3]}]`)
    and a loader weighs them. Scores: `draw`, in [0, 1) by the keyed hash; `group`, the place of the row's value among
    the sorted `rates`, -1 for the others; `copies`, the whole part of the rate, and one more where the draw lies below
    what is left of it.

    >>> ids = pa.array([bytes([row]) * 16 for row in range(6)], pa.binary(16))
    >>> batch = pa.record_batch({"id": ids, "language": ["en", "en", "en", "sw", "sw", "sw"]})
    >>> outcome = Sample(rate=0.0, by="language", rates={"sw": 2.0}).apply(batch)
    >>> outcome.batch["sample.copies"].to_pylist(), outcome.reasons.to_pylist()[2:4]
    ([0, 0, 0, 2, 2, 2], ['sample/not_drawn', None])
    """

    kind: Literal["sample"] = "sample"
    rate: Rate = 1.0
    key: str = ""  # another key, another draw
    by: str | None = None
    rates: dict[str, Rate] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _both(self) -> Sample:
        """Refuse rates without a column, and a column without rates."""
        if (self.by is None) != (not self.rates):
            raise ValueError(f"by is {self.by!r} and rates is {self.rates}: name a column, and the rates of its values")
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Draw for each row: `draw` float64, `group` and `copies` int64."""
        for column in ("id", self.by or "id"):
            if column not in batch.schema.names:
                raise RequestError(f"sample needs the column {column!r}; the documents have {batch.schema.names}")
        # The hash's upper 53 bits: a float64 holds them exactly.
        draw = (keyed(batch.column("id"), f"{self.key} sample") >> np.uint64(11)).astype(np.float64) * 2.0**-53
        group = self._groups(batch)
        return {"draw": draw, "group": group, "copies": self._copies(draw, group)}

    def decide(self, scores: Scores) -> pa.StringArray:
        """Drop what was drawn no time."""
        gone = self._copies(np.asarray(scores["draw"]), np.asarray(scores["group"])) == 0
        return first_reason({f"{self.kind}/not_drawn": gone})

    def _groups(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        """Find each row's value among the sorted names of `rates`; -1 where it has none."""
        if self.by is None:
            return np.full(len(batch), -1, np.int64)
        values = batch.column(self.by).cast(pa.string())
        found = pc.index_in(values, pa.array(sorted(self.rates), pa.string()), skip_nulls=True)
        return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)

    def _copies(self, draw: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.int64]:
        """Say how often each row is to be used; its mean is the rate, and it never falls where the rate rises."""
        rates = np.array([*(self.rates[name] for name in sorted(self.rates)), self.rate])[group]
        whole = np.floor(rates)
        return np.asarray(whole + (draw < rates - whole), np.int64)
