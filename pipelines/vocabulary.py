"""The run's tokenizer: the user's file kept beside the run, or a vocabulary trained on a keyed sample of the
survivors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from .. import CorruptDataError, RecipeError, RequestError
from ..sharding.store import Store
from ..tokenizer import load_tokenizer
from ..tokenizer.train import train_sentencepiece
from ..tokenizer.vocab import FileTokenizer, vocabulary_files
from ..transforms.named import step_fingerprint
from ..transforms.schema import id_words, keyed
from .directory import RunDirectory
from .recipe import Recipe, TokenizerChoice, digest
from .stage import Meter, Receipt, Stage, package_versions, receipt_name, run_task, spool
from .survivors import RowGroup, Survivors

CHECKED_DOCUMENTS = 500
CHECKED_CHARACTERS = 20_000  # of each: of one 93 MB document whole, the reference took 3.2 GB and 80 s
READ_AHEAD = 4  # row groups of this many times the sample's bytes are read, so that the sample is spread


def vocabulary_stage(recipe: Recipe, run: Store, upstream: Sequence[str]) -> Stage:
    """Address the `tokenizer` stage: by the file's content, or by all that decides the trained vocabulary."""
    assert recipe.tokenizer is not None
    if recipe.tokenizer.train is None:
        return Stage.of(run, "tokenizer", {name: digest(body.hex()) for name, body in given_files(recipe).items()}, {})
    value = {
        "train": recipe.tokenizer.train.model_dump(mode="json"),
        "seed": recipe.seed,
        "final": [step_fingerprint(step) for step in recipe.final],
        "upstream": list(upstream),
    }
    return Stage.of(run, "tokenizer", value, package_versions("sentencepiece"))


def given_files(recipe: Recipe) -> dict[str, bytes]:
    """Read the tokenizer file that the recipe names, first, and the one it is read with, where there is one."""
    assert recipe.tokenizer is not None
    return vocabulary_files(str(recipe.tokenizer.path))


def given_tokenizer(recipe: Recipe) -> FileTokenizer | None:
    """Open the tokenizer file that the recipe names, if any: a wrong one is refused before anything is read."""
    if recipe.tokens is None or recipe.tokenizer is None or recipe.tokenizer.path is None:
        return None
    try:
        return load_tokenizer(recipe.tokenizer.path, eos=recipe.tokenizer.eos)
    except CorruptDataError as error:
        raise RecipeError(f"tokenizer.path: {error}") from error


def make_vocabulary(stage: Stage, recipe: Recipe, survivors: Survivors, row_groups: Sequence[RowGroup]) -> Receipt:
    """Commit the tokenizer file under the run unless it stands."""
    return run_task(stage, "tokenizer", lambda folder, meter: _compute(stage, recipe, survivors, row_groups, meter))


def put_given(store: Store, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Put the files of a vocabulary under a folder of their content, by their own names."""
    folder = f"given/{digest([digest(body.hex()) for body in files.values()])}"
    for name, body in files.items():
        store.put_named(body, f"{folder}/{name}")
    return tuple(f"{folder}/{name}" for name in files)


def _compute(
    stage: Stage, recipe: Recipe, survivors: Survivors, row_groups: Sequence[RowGroup], meter: Meter
) -> Receipt:
    assert recipe.tokenizer is not None
    train = recipe.tokenizer.train
    if train is None:
        return {"files": list(put_given(stage.store, given_files(recipe))), "documents": 0, "bytes": 0}
    with meter.on("sample"):
        texts = sample(survivors, row_groups, train.sample_bytes, f"{recipe.seed} vocabulary")
    if not texts:
        raise RequestError(
            "tokenizer.train: no document was kept, so there is nothing to train a vocabulary on; the ledger under "
            "documents/ says why, record by record: loosen the steps, or mend the input's format or fields"
        )
    with meter.on("train"):
        body = train_sentencepiece(texts, train.vocab_size, model_type=train.model_type)
    name = stage.store.put(body, "trained-", ".model")
    return {"files": [name], "documents": len(texts), "bytes": sum(len(text.encode()) for text in texts)}


def sample(survivors: Survivors, row_groups: Sequence[RowGroup], wanted: int, key: str) -> list[str]:
    """Choose about `wanted` bytes of text by keyed hash: of row groups first, then of documents.

    In the order of the hash.
    """
    ordered = sorted(row_groups, key=lambda group: digest([key, group.part_key, group.number]))
    texts: list[str] = []
    hashes: list[np.ndarray] = []
    ids: list[np.ndarray] = []
    held = 0
    for group in ordered:
        if held >= READ_AHEAD * wanted:
            break
        batch, _ = survivors.read(group)
        texts += batch.column("text").to_pylist()
        hashes.append(keyed(batch.column("id"), key))
        ids.append(id_words(batch.column("id")).byteswap())
        held += group.bytes
    if not texts:
        return []
    words = np.concatenate(ids)
    chosen, size = [], 0
    for row in np.lexsort((words[:, 1], words[:, 0], np.concatenate(hashes))):
        if size >= wanted:
            break
        chosen.append(texts[row])
        size += len(texts[row].encode())
    return chosen


@dataclass(frozen=True)
class RunTokenizer:
    """The tokenizer that a run keeps: where its files lie, and how it is opened."""

    store: Store
    files: tuple[str, ...]  # the vocabulary first
    eos: str | None
    engine: str = "auto"

    @classmethod
    def of(cls, stage: Stage, made: Receipt, choice: TokenizerChoice | None) -> RunTokenizer:
        """Say it from the stage's receipt and the recipe."""
        return cls(stage.store, tuple(made["files"]), choice.eos if choice else None)

    def load(self) -> FileTokenizer:
        """Open it; from an object store once a process."""
        path = self.store.local(self.files[0])
        return _fetched(self) if path is None else load_tokenizer(path, engine=self.engine, eos=self.eos)


@lru_cache(maxsize=4)
def _fetched(tokenizer: RunTokenizer) -> FileTokenizer:
    """Copy a tokenizer's files here for as long as it takes to open them."""
    with spool() as folder:
        for name in tokenizer.files:
            (folder / Path(name).name).write_bytes(tokenizer.store.read(name))
        return load_tokenizer(folder / Path(tokenizer.files[0]).name, engine=tokenizer.engine, eos=tokenizer.eos)


def checked(tokenizer: RunTokenizer, survivors: Survivors, row_groups: Sequence[RowGroup]) -> RunTokenizer:
    """Hold a fast engine to the reference on the first documents' heads, once: no worker decides that for itself."""
    if not row_groups:
        return tokenizer
    batch, _ = survivors.read(row_groups[0])
    heads = pc.utf8_slice_codeunits(batch.column("text").slice(0, CHECKED_DOCUMENTS), 0, CHECKED_CHARACTERS)
    if tokenizer.load().check(heads):
        return tokenizer
    return replace(tokenizer, engine="reference")


def run_tokenizer(directory: str) -> Callable[[Sequence[int]], str]:
    """Give the decoder of a run's own tokenizer; `directory` is the run's folder, its `tokens/` or `tokens/HASH`."""
    run = RunDirectory.open(directory)
    stage = run.manifest["stages"]["tokenizer"]
    if stage is None:
        raise RequestError(f"{directory} holds no tokens: its recipe asked for text alone; add `tokens` to it")
    store = run.store.child(f"tokenizer/{stage}")
    made = json.loads(store.read(receipt_name("tokenizer")))
    return RunTokenizer(store, tuple(made["files"]), run.manifest["recipe"]["tokenizer"]["eos"]).load().decode
