"""Exact substrings against brute force: every window compared with every earlier one, over all texts at once."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock.transforms.kernels.digests import REPEAT, SHARED, group_entries
from penstock.transforms.repeated_spans import Substrings, places_of

Cut = tuple[int, int, int]


Unit = Literal["bytes", "words"]


def brute(texts: list[str], length: int, unit: Unit = "bytes") -> list[Cut]:
    """Mark what each window that stood before covers; give (row, first byte, end) of whole code points."""
    seen, cuts = set(), []
    for row, text in enumerate(texts):
        body = text.encode()
        bounds = [(at, at + 1) for at in range(len(body))] if unit == "bytes" else words(text)
        keys = [body[a:b] if unit == "bytes" else body[a:b].decode().split()[0] for a, b in bounds]
        marked = [False] * len(body)
        for at in range(len(keys) - length + 1):
            window = tuple(keys[at : at + length])
            if window in seen:
                first, end = bounds[at][0], bounds[at + length - 1][1]
                marked[first:end] = [True] * (end - first)
            seen.add(window)
        cuts += [(row, first, end) for first, end in stretches(text, marked)]
    return cuts


def words(text: str) -> list[tuple[int, int]]:
    """Words in bytes, each with the space behind it."""
    body, found, at = text.encode(), [], 0
    for word in text.split():
        at = body.index(word.encode(), at)
        found.append(at)
        at += len(word.encode())
    return list(zip(found, [*found[1:], len(body)], strict=False))


def stretches(text: str, marked: list[bool]) -> list[tuple[int, int]]:
    """Join code points whose bytes are all marked."""
    found: list[tuple[int, int]] = []
    at = 0
    for character in text:
        end = at + len(character.encode())
        if all(marked[at:end]):
            if found and found[-1][1] == at:
                found[-1] = (found[-1][0], end)
            else:
                found.append((at, end))
        at = end
    return found


def found(texts: list[str], length: int, unit: Unit = "bytes", batch: int = 1 << 30) -> list[Cut]:
    """The three passes as the pipeline makes them, over batches."""
    method, base = Substrings(length=length, unit=unit), 0
    batches = [pa.array(texts[at : at + batch], pa.string()) for at in range(0, len(texts), batch)]
    places, digests, bases = [], [], []
    for one in batches:
        units = method.units(one)
        place, digest = units.runs()
        places.append(place + np.uint64(base << 16))
        digests.append(digest)
        bases.append(base)
        base += len(units)
    place, digest = np.concatenate(places), np.concatenate(digests)
    entries, flags = group_entries(digest, np.arange(len(place), dtype=np.uint64))
    whole, shared = (place[np.sort(entries[flags == flag, 2]).astype(np.int64)] for flag in (REPEAT, SHARED))
    windows = []
    for one, start in zip(batches, bases, strict=True):
        units = method.units(one)
        inside = shared[(shared >> np.uint64(16) >= start) & (shared >> np.uint64(16) < start + len(units))]
        first, made = units.windows(inside - np.uint64(start << 16))
        windows.append((first + np.uint64(start), made))
    first, made = (np.concatenate(values) for values in zip(*windows, strict=True))
    entries, flags = group_entries(made, first)
    again = np.sort(np.concatenate([whole, places_of(entries[flags == REPEAT, 2])]))
    cuts = []
    for number, (one, start) in enumerate(zip(batches, bases, strict=True)):
        units = method.units(one)
        inside = again[(again >> np.uint64(16) >= start) & (again >> np.uint64(16) < start + len(units))]
        rows, spans = units.cuts(inside - np.uint64(start << 16))
        cuts += [(row + number * batch, a, b) for row, (a, b) in zip(rows.tolist(), spans.tolist(), strict=True)]
    return cuts


CASES = {
    "none": (["abcdef", "ghijkl"], 3, []),
    "the second copy goes": (["abcdef", "abcdef"], 3, [(1, 0, 6)]),
    "in one document": (["abcXabc"], 3, [(0, 4, 7)]),
    "overlapping": (["aaaaa"], 3, [(0, 1, 5)]),
    "shorter than a window": (["ab", "ab"], 3, []),
    "exactly a window": (["abc", "abc"], 3, [(1, 0, 3)]),
    "not over the end of a text": (["abcd", "ab", "cd"], 3, []),
    "at both ends": (["abcdefgh", "abcXfgh"], 3, [(1, 0, 3), (1, 4, 7)]),
    "drawn in to code points": (["aéxy", "bçxy", "bçxy"], 4, [(2, 0, 5)]),
    "half a character stays": (["xyzé", "xyzè"], 4, [(1, 0, 3)]),
    "empty": (["", "", "abc"], 2, []),
    "no text": ([], 2, []),
}


@pytest.mark.parametrize("name", CASES)
def test_named_cases(name: str) -> None:
    texts, length, cuts = CASES[name]
    assert brute(texts, length) == cuts
    if texts:
        assert found(texts, length) == cuts


@settings(deadline=None, max_examples=80)
@given(st.lists(st.text("abé𝄞", max_size=40), min_size=1, max_size=8), st.integers(2, 12), st.integers(1, 4))
def test_any_texts_give_what_brute_force_gives(texts: list[str], length: int, batch: int) -> None:
    assert found(texts, length, batch=batch) == brute(texts, length)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("ab \n\u3000é", max_size=40), min_size=1, max_size=6), st.integers(2, 6), st.integers(1, 4))
def test_words_give_what_brute_force_gives(texts: list[str], length: int, batch: int) -> None:
    assert found(texts, length, "words", batch) == brute(texts, length, "words")


@pytest.mark.parametrize("length", [20, 100])
def test_long_stretches_pasted_into_each_other(length: int) -> None:
    chance = random.Random(length)
    texts: list[str] = []
    for _ in range(60):
        text = "".join(chance.choices("abcdefghijklmnop é語", k=chance.randrange(400)))
        for _ in range(chance.randrange(4)):
            other = chance.choice(texts) if texts else text
            start = chance.randrange(len(other) + 1)
            at = chance.randrange(len(text) + 1)
            text = text[:at] + other[start : start + chance.randrange(length // 2, 3 * length)] + text[at:]
        texts.append(text)
    cuts = brute(texts, length)
    assert len(cuts) > 10
    assert found(texts, length, batch=7) == cuts


def test_flags_are_those_of_a_set_whatever_the_order() -> None:
    chance = np.random.default_rng(3)
    digests = (chance.integers(0, 160, (400, 2)) % [160, 4]).astype(np.uint64)
    addresses = chance.permutation(400).astype(np.uint64) * np.uint64(7)
    smallest: dict[tuple[int, ...], int] = {}
    halves: dict[int, set[int]] = {}
    for digest, address in zip(digests.tolist(), addresses.tolist(), strict=True):
        smallest[tuple(digest)] = min(address, smallest.get(tuple(digest), 1 << 60))
        halves.setdefault(digest[0], set()).add(digest[1])
    expected = [
        REPEAT if smallest[tuple(digest)] != address else SHARED * (len(halves[digest[0]]) > 1)
        for digest, address in zip(digests.tolist(), addresses.tolist(), strict=True)
    ]
    assert set(expected) == {0, REPEAT, SHARED}
    for order in (np.arange(400), chance.permutation(400)):
        entries, flags = group_entries(digests[order], addresses[order])
        assert dict(zip(entries[:, 2].tolist(), flags.tolist(), strict=True)) == dict(
            zip(addresses.tolist(), expected, strict=True)
        )


@pytest.mark.parametrize(("count", "most"), [(2_000, 100), (200_000, 200)])
def test_a_row_of_one_letter_takes_few_runs(count: int, most: int) -> None:
    texts = ["a" * count + "b" * 40, "b" * 60 + "a" * 30]
    cuts = [(0, 1, count), (0, count + 1, count + 40), (1, 0, 90)]
    assert found(texts, 20) == cuts
    assert count > 2_000 or brute(texts, 20) == cuts
    assert len(Substrings(length=20).units(pa.array(texts)).runs()[0]) < most


@pytest.mark.parametrize("length", [0, 1, 10_001])
def test_a_length_out_of_bounds_is_refused(length: int) -> None:
    with pytest.raises(ValidationError, match="length"):
        Substrings(length=length)
