"""The run's tokenizer: the user's file kept beside the run, or a vocabulary trained on a keyed sample of the
survivors.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
import numpy as np

from .. import InputError, RequestError
from ..sharding.store import Store
from ..tokenizer import load_tokenizer
from ..tokenizer.train import train_sentencepiece
from ..transforms.schema import id_words
from .ledger import keyed
from .recipe import Recipe, digest, step_fingerprint
from .stage import Meter, Receipt, Stage, package_versions, run_task
from .survivors import RowGroup, Survivors

READ_AHEAD = 4  # row groups of this many times the sample's bytes are read, so that the sample is spread


def vocabulary_stage(recipe: Recipe, run: Store, upstream: Sequence[str]) -> Stage:
    """Address the `tokenizer` stage: by the file's content, or by all that decides the trained vocabulary."""
    assert recipe.tokenizer is not None
    if recipe.tokenizer.train is None:
        return Stage.of(run, "tokenizer", {"file": digest(given_file(recipe).hex())}, {})
    value = {
        "train": recipe.tokenizer.train.model_dump(mode="json"),
        "seed": recipe.seed,
        "final": [step_fingerprint(step) for step in recipe.final],
        "upstream": list(upstream),
    }
    return Stage.of(run, "tokenizer", value, package_versions("sentencepiece"))


def given_file(recipe: Recipe) -> bytes:
    """Read the tokenizer file that the recipe names."""
    assert recipe.tokenizer is not None
    path = str(recipe.tokenizer.path)
    try:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except (OSError, ValueError) as error:
        raise InputError(
            f"tokenizer.path: {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error


def make_vocabulary(stage: Stage, recipe: Recipe, survivors: Survivors, row_groups: Sequence[RowGroup]) -> Receipt:
    """Commit the tokenizer file under the run unless it stands."""
    return run_task(stage, "tokenizer", lambda folder, meter: _compute(stage, recipe, survivors, row_groups, meter))


def _compute(
    stage: Stage, recipe: Recipe, survivors: Survivors, row_groups: Sequence[RowGroup], meter: Meter
) -> Receipt:
    assert recipe.tokenizer is not None
    train = recipe.tokenizer.train
    if train is None:
        name = Path(str(recipe.tokenizer.path)).name
        body = given_file(recipe)
        if not body:
            raise InputError(f"tokenizer.path: {recipe.tokenizer.path} is empty")
        at = f"given/{digest(body.hex())}/{name}"
        stage.store.put_named(body, at)
        return {"file": at, "documents": 0, "bytes": 0}
    with meter.on("sample"):
        texts = sample(survivors, row_groups, train.sample_bytes, f"{recipe.seed} vocabulary")
    if not texts:
        raise RequestError(
            "tokenizer.train: no document was kept, so there is nothing to train a vocabulary on; "
            "loosen the steps, or name a tokenizer's path"
        )
    with meter.on("train"):
        body = train_sentencepiece(texts, train.vocab_size, model_type=train.model_type)
    name = stage.store.put(body, "trained-", ".model")
    return {"file": name, "documents": len(texts), "bytes": sum(len(text.encode()) for text in texts)}


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


_copies: dict[tuple[str, str], str] = {}


def local_copy(store: Store, name: str) -> str:
    """Give a path on this machine of a tokenizer file that lies with the run.

    Copied once a process from an object store.
    """
    path = store.local(name)
    if path is not None:
        return str(path)
    if (store.url, name) not in _copies:
        folder = Path(tempfile.mkdtemp(prefix="penstock-tokenizer-"))
        (folder / Path(name).name).write_bytes(store.read(name))
        _copies[store.url, name] = str(folder / Path(name).name)
    return _copies[store.url, name]


def run_tokenizer(directory: str) -> Callable[[Sequence[int]], str]:
    """Give the decoder of a run's own tokenizer."""
    run = Store(directory)
    try:
        stage = json.loads(run.read("manifest.json"))["stages"]["tokenizer"]
    except FileNotFoundError as error:
        raise RequestError(f"{directory} holds no finished run: there is no manifest.json") from error
    if stage is None:
        raise RequestError(f"{directory} holds no tokens: its recipe asked for text alone")
    store = run.child(f"tokenizer/{stage}")
    made = json.loads(store.read("receipts/tokenizer.json"))
    decode: Callable[[Sequence[int]], str] = load_tokenizer(local_copy(store, made["file"])).decode
    return decode
