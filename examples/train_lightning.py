"""Train with Lightning on the tokens of a penstock run, and go on from where it was stopped.

    python examples/train_lightning.py runs/quickstart --pack best_fit-512 --steps 60
    python examples/train_lightning.py runs/quickstart --pack best_fit-512 --steps 120     # goes on at step 60

Lightning asks for a batch more than it has used, to know which is the last; so the state of the batch that was used
last is what `Tokens` saves.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from penstock.sharding.torch import TorchLoader


class Tokens(lightning.LightningDataModule):
    """A run's batches, each rank's share: asks torch.distributed once Lightning has started it."""

    def __init__(self, run: str, batch_size: int, pack: str | None = None) -> None:
        super().__init__()
        self.open = partial(TorchLoader, run, batch_size, pack=pack, fields=("targets", "position_ids"), dicts=True)
        self.state: dict[str, Any] = {}

    def train_dataloader(self) -> DataLoader[Any]:
        self.loader = self.open()
        if self.state:
            self.loader.load_state_dict(self.state)
        return DataLoader(self.loader, batch_size=None)  # hides the loader's own state, which is one batch ahead

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        self.state = self.loader.state_at(batch)
        return batch

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict


class Model(lightning.LightningModule):
    """The smallest model there is: the next token from this one and its place."""

    def __init__(self, vocabulary: int, length: int, width: int = 64) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.head, self.losses = nn.Linear(width, vocabulary), list[float]()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        logits = self.head(F.gelu(self.tokens(batch["tokens"]) + self.places(batch["position_ids"])))
        loss = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(run: str, pack: str | None, steps: int, checkpoint: Path, batch_size: int = 8) -> list[float]:
    lightning.seed_everything(0)
    tokens = Tokens(run, batch_size, pack)
    shape = tokens.open(rank=0, world_size=1).loader
    model = Model(shape.data.generation.vocabulary.size, shape.pack.pack.length)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_steps=steps, enable_checkpointing=False, use_distributed_sampler=False, **quiet)
    last = checkpoint if checkpoint.exists() else None
    trainer.fit(model, datamodule=tokens, ckpt_path=last, weights_only=False)
    trainer.save_checkpoint(checkpoint)
    return model.losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a tiny model on a penstock run with Lightning.")
    for name, kind, value in (("run", str, None), ("--pack", str, None), ("--steps", int, 100)):
        parser.add_argument(name, type=kind, default=value)
    parser.add_argument("--checkpoint", type=Path, default=Path("last.ckpt"), help="file to save to and go on from")
    options = parser.parse_args()
    train(options.run, options.pack, options.steps, options.checkpoint)
