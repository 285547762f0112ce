"""Pairs of texts of which the Jaccard similarity of their word n-grams is known."""

from __future__ import annotations

import numpy as np

NGRAM = 5
#: By similarity: n-grams in both texts, and n-grams in one alone.
PLANTED = {0.6: (90, 30), 0.72: (72, 14), 0.8: (80, 10), 0.9: (90, 5)}


def planted(jaccard: float, pairs: int, seed: int) -> list[str]:
    """Make pairs, one after the other, of words that each stand once: the beginning is common to both.

    Words are 13 letters: digits would be folded.
    """
    shared, alone = PLANTED[jaccard]
    chance, texts = np.random.default_rng(seed), []
    head = shared + NGRAM - 1
    for _ in range(pairs):
        letters = chance.integers(97, 123, 13 * (head + 2 * alone), np.uint8).tobytes().decode()
        words = [letters[at : at + 13] for at in range(0, len(letters), 13)]
        texts += [" ".join(words[: head + alone]), " ".join(words[:head] + words[head + alone :])]
    return texts
