"""Find benchmark items in documents, and drop the documents or cut the items out: an overlap of word n-grams.

Text and items are normalised alike (lower case, numbers to 0, no punctuation or accents: `kernels/simplify.py`), and an
n-gram is found or is not: no hash decides. 63 MB of text a second on a busy core, where datatrove does 1.9.

Published rules differ, and each can be had by fields:

    this default    13-grams, the longest that GPT-3 used; one is enough; items of 8 to 12 words are matched whole; an
                    n-gram of fewer than 4 different words is none, as any table of numbers is "0 0 0 0"
    GPT-3           (Brown et al. 2020, arXiv:2005.14165, Appendix C) N of 8 to 13 words by benchmark; cuts the n-gram
                    and 200 characters on both sides, drops what falls into more than 10 pieces: `action: cut, margin:
                    200, max_cuts: 9`; it leaves alone n-grams found in more than 10 documents, which needs all of them
    datatrove       12-grams of the answer and those that reach from the query into it; `variant: fineweb`
    DCLM, OLMo      drop by the share that is found: `min_item_share`
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from .benchmark_index import BenchmarkIndex, ItemFields, Rules, benchmark_files, build_index, read_items, simplify_table
from .edits import Cuts, edit
from .held import Held
from .kernels.decontaminate import COLUMNS, contamination, run_bytes
from .step import Filter, Outcome, Scores, Share, above, first_reason, ratio, utf8, with_columns

Paths = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Count = Annotated[int, Field(ge=1)]

_HELD: Held[BenchmarkIndex] = Held()


class Decontaminate(Filter):
    """Drop documents that hold benchmark items, or cut the items out.

    `benchmarks` are files, folders or globs of JSON lines, Parquet or text (a file an item); `fields` says which fields
    hold an item's `text`, its `query` (what stands before the text) and its `id`.

    A document is contaminated if `min_ngrams` of its n-grams are items' and `min_item_share` of one item's is found.
    Scores: `ngrams` found, `share` of the document's words that lie in them, `spans` (runs of such words),
    `item_ngrams` (different ones) of the item of which the largest share was found, and that `item_share`. The column
    `decontaminate.item` names this item; of equal ones, the first.

    `variant="fineweb"` decides as datatrove v0.10.0 does (`pipeline/decont/n_grams.py`), with words split at
    whitespace: 12-grams, of any words, none that lies in the query alone, no shorter item.

    >>> batch = pa.record_batch({"text": ["Q: What is it that has four legs in the MORNING, and two at noon? A: Man."]})
    >>> step = Decontaminate(benchmarks=str(folder / "riddles.jsonl"), fields={"id": "name"})
    >>> outcome = step.apply(batch)
    >>> outcome.reasons.to_pylist(), outcome.batch["decontaminate.item"].to_pylist()
    (['decontaminate/contaminated'], ['sphinx-1'])
    """

    files = ("benchmarks",)
    kind: Literal["decontaminate"] = "decontaminate"
    variant: Literal["penstock", "fineweb"] = "penstock"
    benchmarks: Paths
    fields: ItemFields = ItemFields()
    ngram: Annotated[int, Field(ge=2, le=256)] | None = None  # words; None is 13, and datatrove's 12 for fineweb
    shortest: Count | None = None  # words of an item matched whole; None is 8, GPT-3's least; for fineweb no such item
    different: Count | None = None  # words that an n-gram must have; None is 4, for fineweb 1
    min_ngrams: Count = 1  # datatrove: the first one found is enough
    min_item_share: Share | None = None
    action: Literal["drop", "cut"] = "drop"
    margin: Annotated[int, Field(ge=0)] = 0  # code points cut on both sides; GPT-3: 200
    max_cuts: Count | None = None  # a document with more is dropped; GPT-3: 9, which leave 10 pieces
    record: bool = True  # keep what was cut in the column `edits`

    @model_validator(mode="after")
    def _check(self) -> Decontaminate:
        """Refuse benchmarks that cannot be read, or would match nothing, before anything runs."""
        rules = self._rules()
        if rules.shortest > rules.ngram or rules.different > rules.ngram:
            raise ValueError(
                f"shortest is {rules.shortest}, different is {rules.different} and ngram is {rules.ngram}: an n-gram "
                "has no more words than that"
            )
        if self.action == "drop" and (self.margin or self.max_cuts):
            raise ValueError(
                f"margin is {self.margin} and max_cuts is {self.max_cuts}, and action 'drop' cuts nothing: set action "
                "to 'cut', or leave them out"
            )
        if not self.benchmarks:
            raise ValueError("benchmarks is empty, so nothing would be found: name the files of the items")
        loaded = self._loaded(fresh=True)
        if loaded.left_out == len(loaded.names):
            raise ValueError(
                f"none of the {len(loaded.names)} items in {list(self.benchmarks)} has an n-gram, so "
                "nothing would be found: lower ngram, shortest or different, or map fields.text"
            )
        return self

    def measure(self, batch: pa.RecordBatch) -> Scores:
        """Score each row: counts int64, shares float64."""
        return self._measured(batch)[0]

    def decide(self, scores: Scores) -> pa.StringArray:
        """Say why each row is dropped; null where it is kept."""
        if self.action == "drop":
            return first_reason({"decontaminate/contaminated": self._contaminated(scores)})
        return first_reason(
            {"decontaminate/too_many_cuts": self._contaminated(scores) & above(scores["spans"], self.max_cuts)}
        )

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Add the scores and `decontaminate.item`, cut where that is asked, and give the reasons."""
        scores, items, runs = self._measured(batch)
        columns = {f"{self.kind}.{name}": pa.array(values) for name, values in scores.items()}
        named = self._loaded().names.take(pa.array(items, mask=items < 0))
        columns[f"{self.kind}.item"] = named.cast(pa.string())
        reasons = self.decide(scores)
        made = with_columns(batch, columns)
        if self.action == "cut":
            cut = self._contaminated(scores) & reasons.is_null().to_numpy(zero_copy_only=False)
            made = edit(made, self.kind, self._cuts(batch, runs[cut[runs[:, 0]]]), record=self.record)
        return Outcome(made, reasons)

    def fingerprint(self) -> dict[str, Any]:
        """Name what decides: the fields, with a digest of the items in place of their paths."""
        return {**super().fingerprint(), "benchmarks": self._loaded(fresh=True).sha256}

    def _rules(self) -> Rules:
        """Fill in what the variant decides."""
        fineweb = self.variant == "fineweb"
        ngram = self.ngram or (12 if fineweb else 13)
        return Rules(
            ngram=ngram,
            shortest=self.shortest or (0 if fineweb else min(8, ngram)),
            different=self.different or (1 if fineweb else min(4, ngram)),
            query_ngrams=not fineweb,
        )

    def _contaminated(self, scores: Scores) -> NDArray[np.bool_]:
        enough = np.asarray(scores["ngrams"] >= self.min_ngrams)
        return enough if self.min_item_share is None else enough & (scores["item_share"] >= self.min_item_share)

    def _measured(self, batch: pa.RecordBatch) -> tuple[Scores, NDArray[np.int64], NDArray[np.int64]]:
        """Give the scores, each row's item (-1: none), and the runs of words that were found."""
        held = self._loaded()
        counts, runs = contamination(
            *utf8(batch), *simplify_table(), held.long, held.short, held.key, held.shorter, held.index
        )
        of = {name: np.ascontiguousarray(values) for name, values in zip(COLUMNS, counts.T, strict=True)}
        scores = {
            "ngrams": of["ngrams"],
            "share": ratio(of["matched_words"], of["words"]),
            "spans": of["spans"],
            "item_ngrams": of["item_ngrams_matched"],
            "item_share": ratio(of["item_ngrams_matched"], of["item_ngrams"]),
        }
        return scores, of["item"], runs

    def _cuts(self, batch: pa.RecordBatch, runs: NDArray[np.int64]) -> Cuts:
        """Place runs of words in the text, margins joined where they meet."""
        spans = run_bytes(*utf8(batch), runs, simplify_table()[0], self.margin)
        rows: list[int] = []
        joined: list[list[int]] = []
        for row, (start, end) in zip(runs[:, 0].tolist(), spans.tolist(), strict=True):
            if rows and rows[-1] == row and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                rows.append(row)
                joined.append([start, end])
        return Cuts(np.array(rows, np.int64), np.array(joined, np.int64).reshape(-1, 2))

    def _loaded(self, fresh: bool = False) -> BenchmarkIndex:
        rules = self._rules()
        return _HELD.get(
            (self.benchmarks, self.fields, rules),
            lambda: benchmark_files(self.benchmarks),
            lambda: build_index(read_items(benchmark_files(self.benchmarks), self.fields), rules),
            fresh,
        )
