"""Train a GPT-2 with Hugging Face's Trainer on the tokens of a penstock run, and go on from where it was stopped.

    python examples/train_hf.py runs/quickstart --pack best_fit-512 --steps 60
    python examples/train_hf.py runs/quickstart --pack best_fit-512 --steps 120     # goes on at step 60

The Trainer's own way to resume is to read and drop every batch it has had. Here each checkpoint holds the loader's
state and nothing is read twice. Position ids that begin at 0 with each document tell the model which documents a row
holds; it keeps attention within them where there is no cache (use_cache=False) and no attention mask. `shift_labels`
are labels one token ahead already, so that the last token of a row learns too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from penstock.sharding.torch import TorchLoader


class TokenTrainer(Trainer):
    """Takes its batches from a loader, which shares them out among ranks itself."""

    def __init__(self, loader: TorchLoader, **arguments: Any) -> None:
        super().__init__(callbacks=[SaveLoader(loader)], **arguments)
        self.loader = loader

    def get_train_dataloader(self) -> Iterator[dict[str, Any]]:
        for batch in self.loader:
            names = {"labels": batch.targets, "shift_labels": batch.targets, "position_ids": batch.position_ids}
            yield {"input_ids": batch.tokens, **names}


class SaveLoader(TrainerCallback):
    """Writes where the loader stands beside each checkpoint; it is the same on every rank."""

    def __init__(self, loader: TorchLoader) -> None:
        self.loader = loader

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / "loader.json").write_text(json.dumps(self.loader.state_dict()))


def train(run: str, pack: str | None, steps: int, checkpoint: Path, batch_size: int = 8, **said: Any) -> TokenTrainer:
    """Train up to a step; `said` goes to TrainingArguments."""
    quiet: dict[str, Any] = {"report_to": "none", "disable_tqdm": True, "logging_steps": 1}
    where: dict[str, Any] = {"output_dir": str(checkpoint), "max_steps": steps, "ignore_data_skip": True}
    arguments = TrainingArguments(lr_scheduler_type="constant", learning_rate=1e-3, **where, **quiet, **said)
    set_seed(arguments.seed)
    loader = TorchLoader(run, batch_size, pack=pack, device=arguments.device, fields=("targets", "position_ids"))
    size, length = loader.loader.data.generation.vocabulary.size, loader.loader.pack.pack.length
    shape: dict[str, Any] = {"vocab_size": size, "n_positions": length, "n_embd": 128, "n_layer": 2, "n_head": 4}
    dropouts: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2LMHeadModel(GPT2Config(use_cache=False, loss_type="ForCausalLM", **shape, **dropouts))
    trainer = TokenTrainer(loader, model=model, args=arguments)
    if last := get_last_checkpoint(str(checkpoint)) if checkpoint.exists() else None:
        loader.load_state_dict(json.loads((Path(last) / "loader.json").read_text()))
    trainer.train(resume_from_checkpoint=last)
    return trainer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a small GPT-2 on a penstock run with Hugging Face's Trainer.")
    parser.add_argument("run", help="a run's folder, or its tokens/")
    parser.add_argument("--pack", help="name of the pack, where the run has several")
    parser.add_argument("--steps", type=int, default=100, help="step to train up to, counted from the very first")
    parser.add_argument("--checkpoint", type=Path, default=Path("hf"), help="folder to save to and go on from")
    options = parser.parse_args()
    train(options.run, options.pack, options.steps, options.checkpoint, save_steps=20)
