"""A packed row is its documents side by side: a small transformer gives each piece what it gives the piece alone.

Two layers of causal attention with rotary positions, in float64: held apart by `segment_ids` and `position_ids`, or by
`cu_seqlens`, logits of packed rows equal those of separate pieces, and so do, with PyTorch, loss and gradients.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from loader_files import PACKS, VOCABULARY, put_data

from penstock.sharding import StreamingLoader
from penstock.sharding.batch import Batch

WIDTH, HEADS, LAYERS, IDS = 16, 2, 2, 97
WEIGHTS = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, WIDTH), "down": (WIDTH, WIDTH)}
SHAPES = {f"{name}{layer}": shape for layer in range(LAYERS) for name, shape in WEIGHTS.items()}
SHAPES["embedding"] = IDS, WIDTH


def weights() -> dict[str, Any]:
    chance = np.random.default_rng(0)
    return {name: chance.normal(0, 0.4, shape) for name, shape in SHAPES.items()}


def rotated(vectors: Any, positions: Any, library: Any) -> Any:
    """Turn pairs of numbers by angles that grow with the position (Su et al. 2021, arXiv:2104.09864)."""
    half = vectors.shape[-1] // 2
    angles = positions[:, None, None] / 10.0 ** library.arange(half)
    cos, sin = library.cos(angles), library.sin(angles)
    left, right = vectors[..., :half], vectors[..., half:]
    return library.concatenate([left * cos - right * sin, left * sin + right * cos], -1)


def attended(query: Any, key: Any, value: Any, allowed: Any, library: Any) -> Any:
    """Attention over (tokens, heads, width) where `allowed` (tokens, tokens) is True."""
    scores = library.einsum("qhd,khd->hqk", query, key) + library.where(allowed, 0.0, -np.inf)
    shares = library.exp(scores - library.amax(scores, -1)[..., None])
    return library.einsum("hqk,khd->qhd", shares / shares.sum(-1)[..., None], value)


def logits(model: dict[str, Any], tokens: Any, positions: Any, attend: Any, library: Any = np) -> Any:
    """(tokens,) ids and positions to (tokens, IDS); `attend` does what attention is done with."""
    hidden = model["embedding"][tokens]
    for layer in range(LAYERS):
        parts = (hidden @ model[f"qkv{layer}"]).reshape(len(tokens), 3, HEADS, -1)
        query, key = (rotated(parts[:, at], positions, library) for at in (0, 1))
        hidden = hidden + attend(query, key, parts[:, 2]).reshape(len(tokens), WIDTH) @ model[f"out{layer}"]
        hidden = hidden + library.tanh(hidden @ model[f"up{layer}"]) @ model[f"down{layer}"]
    return hidden @ model["embedding"].T


def causal(size: int) -> Any:
    return np.tri(size, dtype=bool)


def plain(query: Any, key: Any, value: Any) -> Any:
    return attended(query, key, value, causal(len(query)), np)


@pytest.fixture(scope="module", params=[pack.name for pack in PACKS])
def batch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Rows with many pieces, cut documents and padding; the last is padding whole."""
    data = put_data(tmp_path_factory.mktemp("attention") / "set", VOCABULARY)
    rows = StreamingLoader(data, 1, pack=request.param).epoch_rows
    size = next(size for size in range(24, rows) if 0 < -rows % size < 4)
    loader = StreamingLoader(data, size, pack=request.param, epochs=1, tail="pad", prefetch=0)
    found = loader.at(len(loader) - 1)
    assert (found.positions < 0).any()
    assert len(found.cu_seqlens) > 1.2 * len(found)
    assert (found.document_positions != found.position_ids).any()
    return found


def alone(model: dict[str, Any], batch: Batch) -> Any:
    """Logits of every piece by itself, one piece behind the other."""
    tokens = batch.tokens.reshape(-1) % IDS
    pieces = [tokens[low:high] for low, high in pairwise(batch.cu_seqlens.tolist())]
    return np.concatenate([logits(model, piece, np.arange(len(piece)), plain) for piece in pieces])


def test_rows_held_apart_by_segments_give_what_pieces_give_alone(batch: Batch) -> None:
    model, found = weights(), []
    for tokens, positions, segments in zip(batch.tokens % IDS, batch.position_ids, batch.segment_ids, strict=True):
        allowed = (segments[:, None] == segments) & causal(len(tokens))
        found.append(logits(model, tokens, positions, lambda q, k, v, allowed=allowed: attended(q, k, v, allowed, np)))
    np.testing.assert_allclose(np.concatenate(found), alone(model, batch), rtol=1e-9, atol=1e-9)
    mixed = np.concatenate([
        logits(model, tokens, np.arange(len(tokens)), plain) for tokens in batch.tokens % IDS
    ])  # fmt: skip
    assert np.abs(mixed - alone(model, batch)).max() > 0.1, "without the segments rows would differ"


def test_lengths_of_a_fixed_shape_give_what_pieces_give_alone(batch: Batch) -> None:
    """All rows as one line, as FlashAttention's variable-length kernels take them; empty pieces change nothing."""
    cuts = batch.varlen(len(batch.cu_seqlens) + 40).cu_seqlens

    def attend(query: Any, key: Any, value: Any) -> Any:
        return np.concatenate([plain(query[a:b], key[a:b], value[a:b]) for a, b in pairwise(cuts.tolist()) if b > a])

    model = weights()
    found = logits(model, batch.tokens.reshape(-1) % IDS, batch.position_ids.reshape(-1), attend)
    np.testing.assert_allclose(found, alone(model, batch), rtol=1e-9, atol=1e-9)


def test_loss_and_gradients_are_those_of_separate_pieces(batch: Batch) -> None:
    torch = pytest.importorskip("torch")

    def learn(lines: list[tuple[Any, ...]]) -> tuple[float, dict[str, Any]]:
        """Summed loss of lines (tokens, labels, mask, positions, segments), and its gradients."""
        model = {name: torch.tensor(value, requires_grad=True) for name, value in weights().items()}
        total = torch.zeros((), dtype=torch.float64)
        for line in lines:
            tokens, labels, mask, positions, segments = map(torch.as_tensor, line)
            allowed = (segments[:, None] == segments) & torch.as_tensor(causal(len(tokens)))
            found = logits(
                model, tokens, positions, lambda q, k, v, allowed=allowed: attended(q, k, v, allowed, torch), torch
            )
            total = total + torch.nn.functional.cross_entropy(found[mask], labels[mask], reduction="sum")
        total.backward()
        return float(total.detach()), {name: value.grad.numpy() for name, value in model.items()}

    wide = (batch.tokens % IDS).astype(np.int64), (batch.labels % IDS).astype(np.int64), batch.loss_mask
    packed = list(zip(*wide, batch.position_ids, batch.segment_ids, strict=True))
    flat = [array.reshape(-1) for array in wide]
    pieces = [
        (*(array[low:high] for array in flat), np.arange(high - low), np.ones(high - low))
        for low, high in pairwise(batch.cu_seqlens.tolist())
    ]
    (loss, gradients), (expected, expected_gradients) = learn(packed), learn(pieces)
    assert loss > 100
    assert abs(loss - expected) < 1e-9 * expected
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected_gradients[name], rtol=1e-8, atol=1e-10, err_msg=name)
