"""Train a small GPT on a run's tokens, on a CPU or a GPU; stop it, start it again, and the losses are the same.

    penstock run examples/quickstart.yaml
    python examples/train_gpt.py runs/quickstart --pack best_fit-512 --steps 60
    python examples/train_gpt.py runs/quickstart --pack best_fit-512 --steps 120      # goes on at step 60

The checkpoint holds model, optimizer and the loader's state: a few integers, the same on every rank. Documents do not
see each other: attention stays within a document, and no loss is taken across its end. On a CPU the losses of a resumed
run equal those of one that was never stopped, bit by bit. With `torchrun --nproc-per-node N` each rank takes its share.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penstock.sharding.torch import TorchBatch, TorchLoader


class Block(nn.Module):
    """Attention within documents, then a feed-forward layer; both read from the residual stream and add to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Rows (b, L, width) and which tokens each token sees (b, 1, L, L)."""
        rows, length, width = x.shape
        parts = self.qkv(self.norm_1(x)).chunk(3, -1)
        q, k, v = (part.view(rows, length, self.heads, -1).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    """A decoder with learned positions, as GPT-2 (Radford et al. 2019), small enough for a laptop."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)

    def forward(self, batch: TorchBatch) -> Tensor:
        """Mean loss over the tokens whose label lies in the same document."""
        documents = batch.document_ids
        visible = (documents[:, :, None] == documents[:, None, :]).tril()[:, None]
        x = self.tokens(batch.tokens) + self.places(batch.position_ids)
        for block in self.blocks:
            x = block(x, visible)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), batch.targets.flatten())


def learning_rate(step: int, peak: float, warmup: int = 20) -> float:
    """Warm up, then fall as the inverse root of the step: it needs no last step, so a run may go on for ever."""
    return peak * min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))


class Training:
    """Model, optimizer and loader, saved and loaded as one."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.loader = TorchLoader(options.run, options.batch_size, pack=options.pack, seed=options.seed, device=device)
        numpy = self.loader.loader
        vocabulary, length = numpy.data.generation.vocabulary.size, numpy.pack.pack.length
        torch.manual_seed(options.seed)
        self.model = GPT(vocabulary, length, options.width, options.layers, options.heads).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
        self.losses: list[float] = []

    def save(self, folder: Path) -> None:
        """Write checkpoint.pt, and beside it the loader's state as JSON for `penstock trace`; whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self.loader.state_dict()
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**parts, "loader": state, "losses": self.losses}, folder / "checkpoint.tmp")
        (folder / "loader.tmp").write_text(json.dumps(state))
        os.replace(folder / "loader.tmp", folder / "loader.json")
        os.replace(folder / "checkpoint.tmp", folder / "checkpoint.pt")

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if not (folder / "checkpoint.pt").exists():
            return
        saved = torch.load(folder / "checkpoint.pt", map_location=self.loader.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.loader.load_state_dict(saved["loader"])
        self.losses = saved["losses"]

    def step(self, batch: TorchBatch) -> float:
        """Learn from one batch; gives its loss, the mean over all ranks."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(batch.step, self.options.learning_rate)
        loss = self.model(batch)
        loss.backward()
        everyone = [weight.grad for weight in self.model.parameters()] + [loss.detach()]
        if torch.distributed.is_initialized():
            for value in everyone:
                torch.distributed.all_reduce(value)
                value /= torch.distributed.get_world_size()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(everyone[-1])


def train(options: argparse.Namespace) -> list[float]:
    """Train up to a step; gives the loss of every step so far."""
    training = Training(options)
    training.load(options.checkpoint)
    batches = iter(training.loader)
    while training.loader.step < options.steps:
        began = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - began
        training.losses.append(training.step(batch))
        whole = time.perf_counter() - began
        if training.loader.rank == 0:
            print(
                f"step {batch.step:5}  loss {training.losses[-1]:.6f}  {batch.tokens.numel() / whole:9,.0f} tokens/s"
                f"  waiting for data {waited / whole:6.2%}",
                flush=True,
            )
            if training.loader.step % options.save_every == 0 or training.loader.step == options.steps:
                training.save(options.checkpoint)
    return training.losses


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small GPT on the tokens of a penstock run.")
    parser.add_argument("run", help="a run's folder, or its tokens/")
    parser.add_argument("--pack", help="name of the pack, where the run has several")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint"), help="folder to save to and go on from")
    parser.add_argument("--steps", type=int, default=100, help="step to train up to, counted from the very first")
    parser.add_argument("--batch-size", type=int, default=8, help="rows of the global batch")
    parser.add_argument("--save-every", type=int, default=20, metavar="STEPS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--device", help="cpu, cuda, cuda:1; a GPU where there is one, unless said")
    return parser.parse_args(arguments)


def main() -> None:
    options = parsed()
    if "RANK" in os.environ:  # Started by torchrun.
        torch.distributed.init_process_group()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    losses = train(options)
    if losses and int(os.environ.get("RANK", "0")) == 0:
        worst = max(range(len(losses)), key=losses.__getitem__)
        place = shlex.join([str(options.run), "--state", str(options.checkpoint / "loader.json"), "--step", str(worst)])
        print(f"The highest loss was that of step {worst}. To see what it learnt from:\n    penstock trace {place}")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
