"""The examples for trainers run: stopped and gone on with, they have the losses of a run that was not stopped."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from loader_files import EOS, PACKS, put_data

from penstock.sharding.format import Vocabulary

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PACK = "best_fit-32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    tiny = Vocabulary("uint16", 300, "5" * 64, eos_id=EOS, bos_id=None, name="tiny")
    return str(put_data(tmp_path_factory.mktemp("trainers") / "set", tiny, PACKS, {"train": (60,)}).store.url)


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_hugging_faces_trainer_resumes_with_equal_losses(folder: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    module = example("train_hf")

    def train(checkpoint: str, steps: int) -> Any:
        return module["train"](folder, PACK, steps, tmp_path / checkpoint, 4, save_steps=2, use_cpu=True)

    def losses(trainer: Any) -> list[tuple[int, float]]:
        return [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]

    whole, _ = train("whole", 4), train("parts", 2)
    parts = train("parts", 4)
    assert [step for step, _ in losses(parts)] == [1, 2, 3, 4]
    assert losses(parts) == losses(whole)
    weights = parts.model.state_dict()
    assert all(value.equal(weights[name]) for name, value in whole.model.state_dict().items())
    assert parts.loader.step == 4
    # Documents do not see each other: what a row begins with decides nothing behind the first document's end.
    batch = parts.loader.at(7)
    within = batch.segment_ids > 1
    assert within.any()
    changed = batch.tokens.where(within, batch.tokens % 7 + 1)
    inputs = [{"input_ids": tokens, "position_ids": batch.position_ids} for tokens in (batch.tokens, changed)]
    first, second = (parts.model.eval()(**given).logits[within] for given in inputs)
    assert first.allclose(second, atol=1e-5)


def test_lightning_resumes_with_equal_losses(folder: str, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    train = example("train_lightning")["train"]
    whole = train(folder, PACK, 6, tmp_path / "whole.ckpt")
    parts = [loss for steps in (2, 3, 6) for loss in train(folder, PACK, steps, tmp_path / "parts.ckpt")]
    assert len(parts) == 6
    assert parts == whole


def test_jax_resumes_with_equal_losses(folder: str, tmp_path: Path) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jax.config.update("jax_platforms", "cpu")
    train = example("train_jax")["train"]
    whole = train(folder, PACK, 6, tmp_path / "whole.npz")
    parts = [loss for steps in (2, 3, 3, 6) for loss in train(folder, PACK, steps, tmp_path / "parts.npz")]
    assert parts == whole
    assert len(set(whole)) == 6
