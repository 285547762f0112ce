"""What becomes of the records of a task, by what a deduplication left: fates, removals, cuts, clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..transforms.verdicts import Notes, TextCuts, Verdicts
from .annotations import Marks
from .exchange import sign_key
from .plan import IngestTask
from .stage import Stage
from .views import Fates, View, cuts_of, removals


@dataclass(frozen=True)
class Judge:
    """Say what becomes of a task's records: a value that travels to a worker.

    `stage` is the first one that read the input; its signatures hold the fates. `marks`: where documents are marked
    instead of removed.
    """

    stage: Stage
    view: View
    marks: Marks | None = None

    def __call__(self, task: IngestTask) -> tuple[Verdicts, list[int]]:
        """Give the verdicts, and how many records each of the task's files had."""
        (receipt,) = self.stage.receipts([sign_key(task)])
        counts = [int(count) for count in receipt["pieces"]]
        gone = [removals(listed, task.number).astype(np.int64) for listed in self.view.removed]
        cuts = []
        for listed in self.view.cut:
            found = cuts_of(listed, task.number).astype(np.int64)
            cuts.append(TextCuts(listed.kind, found[:, 0], found[:, 1:]))
        verdicts = Verdicts(
            Fates.documents(self.stage.store, receipt),
            np.unique(np.concatenate([np.zeros(0, np.int64), *gone])),
            tuple(cuts),
            None if self.marks is None else Notes(*self.marks.read(task.number)),
        )
        return verdicts, counts
