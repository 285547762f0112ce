"""Train with JAX on the tokens of a penstock run, rows cut along all devices of all processes.

    python examples/train_jax.py runs/quickstart --pack best_fit-512 --steps 60
    python examples/train_jax.py runs/quickstart --pack best_fit-512 --steps 120     # goes on at step 60

Where there are several processes each calls `jax.distributed.initialize()` first, and reads the rows of its devices.
The model, one embedding and one projection, is there to be replaced. Parameters are equal on all devices.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from penstock.sharding.jax import JaxLoader

Tree = Any


def loss_of(weights: Tree, batch: dict[str, jax.Array]) -> jax.Array:
    """Mean loss over the tokens whose label lies in the same document."""
    hidden = jax.nn.gelu(weights["tokens"][batch["tokens"]] + weights["places"][batch["position_ids"]])
    logits = jax.nn.log_softmax(hidden @ weights["head"])
    losses = -jnp.take_along_axis(logits, batch["labels"][..., None], axis=-1)[..., 0]
    return (losses * batch["loss_mask"]).sum() / batch["loss_mask"].sum()


@jax.jit
def step(weights: Tree, batch: dict[str, jax.Array]) -> tuple[Tree, jax.Array]:
    """Go down the gradient; the mean over all devices comes with it."""
    loss, slopes = jax.value_and_grad(loss_of)(weights, batch)
    return jax.tree.map(lambda weight, slope: weight - 0.1 * slope, weights, slopes), loss


def train(run: str, pack: str | None, steps: int, checkpoint: Path, batch_size: int = 8) -> list[float]:
    """Train up to a step; gives the loss of every step of this call."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    loader = JaxLoader(run, batch_size, sharding=rows, pack=pack, fields=("position_ids", "loss_mask"))
    sizes = {"tokens": (loader.loader.data.generation.vocabulary.size, 64), "places": (loader.shape[1], 64)}
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {**sizes, "head": sizes["tokens"][::-1]}
    weights: Tree = {name: 0.02 * jax.random.normal(key, shapes[name]) for name, key in zip(shapes, keys, strict=True)}
    if checkpoint.exists():
        saved = np.load(checkpoint)
        weights = {name: saved[name] for name in weights}
        loader.load_state_dict(json.loads(str(saved["loader"])))
    weights, losses = jax.device_put(weights, everywhere), []
    for batch in loader if loader.step < steps else ():
        weights, loss = step(weights, batch)
        losses.append(float(loss))
        if loader.step == steps:
            break
    if jax.process_index() == 0:
        np.savez(checkpoint, loader=json.dumps(loader.state_dict()), **jax.device_get(weights))
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a tiny model on a penstock run with JAX.")
    parser.add_argument("run", help="a run's folder, or its tokens/")
    parser.add_argument("--pack", help="name of the pack, where the run has several")
    parser.add_argument("--steps", type=int, default=100, help="step to train up to, counted from the very first")
    parser.add_argument("--checkpoint", type=Path, default=Path("jax.npz"), help="file to save to and go on from")
    options = parser.parse_args()
    for number, loss in enumerate(train(options.run, options.pack, options.steps, options.checkpoint)):
        print(f"{number:5} {loss:.4f}")
