"""Substrings of n tokens: as brute force over token sequences has it, through the exchange, whatever the parts."""

from __future__ import annotations

import base64
import json
import random
import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from test_repeated_parts import dealt, left
from test_repeated_spans import stretches

from penstock import PenstockError, RecipeError, RequestError
from penstock.pipelines.dedup import DedupJob
from penstock.pipelines.dedup_cli import add_dedup, dedup_value
from penstock.pipelines.dedup_manifest import fingerprint
from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.recipe import Recipe
from penstock.pipelines.repeats import repeats_stage, warm_repeats
from penstock.pipelines.token_units import TokenUnits, check_units, open_units
from penstock.sharding.store import Store
from penstock.tokenizer import load_tokenizer
from penstock.tokenizer.gate import PROBES
from penstock.transforms.kernels.tokens import place_tokens
from penstock.transforms.repeated_spans import Substrings

DATA = Path(__file__).parent / "data" / "tokenizers"
BYTE_LEVEL = ["small.tiktoken", "byte_level.json"]


def spelled(name: str) -> dict[int, bytes]:
    """The bytes of every id, straight from the file."""
    body = (DATA / name).read_text()
    if name.endswith(".tiktoken"):
        return {int(rank): base64.b64decode(token) for token, rank in map(str.split, body.splitlines())}
    plain = [byte for byte in range(256) if chr(byte).isprintable() and byte not in (0x20, 0xA0, 0xAD)]
    others = iter(range(0x100, 0x200))
    letters = {chr(byte) if byte in plain else chr(next(others)): byte for byte in range(256)}
    file = json.loads(body)
    found = {place: bytes(letters[letter] for letter in token) for token, place in file["model"]["vocab"].items()}
    return found | {token["id"]: token["content"].encode() for token in file["added_tokens"]}


def brute(texts: list[str], name: str, length: int) -> list[str | None]:
    """Mark the tokens of every window that stood before; take out code points that are marked whole."""
    tokenizer, tokens, seen = load_tokenizer(DATA / name, engine="reference"), spelled(name), set()
    kept: list[str | None] = []
    for text in texts:
        ids = tokenizer.encode(pa.array([text]))[0].as_py()
        assert b"".join(tokens[one] for one in ids) == text.encode()
        again = [False] * len(ids)
        for at in range(len(ids) - length + 1):
            window = tuple(ids[at : at + length])
            if window in seen:
                again[at : at + length] = [True] * length
            seen.add(window)
        marked = [mark for one, mark in zip(ids, again, strict=True) for _ in tokens[one]]
        body, rest, at = text.encode(), b"", 0
        for first, end in stretches(text, marked):
            rest, at = rest + body[at:first], end
        rest += body[at:]
        kept.append(None if rest != body and not rest.split() else rest.decode())
    return kept


def corpus(seed: int, count: int = 40) -> list[str]:
    """Texts of sentences that repeat, with letters that take several tokens, control tokens' names among them."""
    chance = random.Random(seed)
    atoms = [
        "the",
        " wood",
        " of",
        " old",
        " oaks",
        "é",
        " 語",
        "字",
        "👩",
        "\n",
        "|||PHONE|||",
        "<|endoftext|>",
        " 12",
    ]
    lines = ["".join(chance.choices(atoms, k=chance.randrange(1, 12))) for _ in range(12)]
    return ["".join(chance.choices(lines, k=chance.randrange(0, 6))) for _ in range(count)]


def settings(name: str, length: int = 8) -> Substrings:
    return Substrings(length=length, unit="tokens", tokenizer=str(DATA / name))


@pytest.mark.parametrize("name", BYTE_LEVEL)
@pytest.mark.parametrize("length", [2, 9])
def test_as_brute_force_over_token_sequences(tmp_path: Path, name: str, length: int) -> None:
    texts = corpus(length)
    expected = brute(texts, name, length)
    assert expected != texts
    for number, (sizes, batch) in enumerate([([], 1000), ([7, 0, 13], 3)]):
        assert left(tmp_path / str(number), settings(name, length), dealt(texts, sizes, batch)) == expected


def test_cuts_end_at_code_points(tmp_path: Path) -> None:
    """A token of a byte each: the five in common end within a letter, which stays."""
    texts = ["語語", "語誢"]  # e8 aa 9e e8 aa 9e, e8 aa 9e e8 aa a2
    first, second = load_tokenizer(DATA / "small.tiktoken").encode(pa.array(texts)).to_pylist()
    assert len(first) == len(second) == 6
    assert first[:5] == second[:5]
    assert left(tmp_path, settings("small.tiktoken", 5), dealt(texts, [1])) == ["語語", "誢"]


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_spans_are_those_of_the_buffer(name: str) -> None:
    """A slice of an array with nulls, and of a column that holds other texts before."""
    encode, tokens = TokenUnits(load_tokenizer(DATA / name)), spelled(name)
    for texts in (pa.array(["x", "the wood", "é", "語 oaks"])[1:], pa.array(["a", None, "", "語"])[1:], pa.array([""])):
        bounds, ids, spans = encode(texts)
        body = bytes(texts.fill_null("").buffers()[2] or b"")
        assert [body[a:b] for a, b in spans.tolist()] == [tokens[one] for one in ids.tolist()]
        counts = [len(ids) for ids in load_tokenizer(DATA / name).encode(texts).to_pylist()]
        assert np.diff(bounds).tolist() == counts
    bounds, ids, spans = encode(pa.array([], pa.string()))
    assert (bounds.tolist(), len(ids), spans.shape) == ([0], 0, (0, 2))


@pytest.mark.parametrize("name", ["bpe.model", "unigram.model", "unigram.json"])
def test_vocabularies_whose_tokens_are_not_the_texts_bytes_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match=rf"{name}.*not byte-level.*unit: bytes"):
        check_units(Dedup(substrings=settings(name)))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"normalizer": {"type": "NFC"}}, "e\\\\u0301|e\u0301"),
        ({"normalizer": {"type": "Lowercase"}}, "Hello"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}}, "Hello"),
    ],
)
def test_one_that_normalises_is_refused_before_anything_is_read(
    tmp_path: Path, changed: dict[str, Any], text: str
) -> None:
    file = json.loads((DATA / "byte_level.json").read_text()) | changed
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(RequestError, match=f"tokenizer.json gives for the text '.*{text}.*do not join.*unit: bytes"):
        check_units(Dedup(substrings=Substrings(unit="tokens", tokenizer=str(tmp_path))))


def test_a_text_that_a_vocabulary_changes_is_named(tmp_path: Path) -> None:
    """The probes pass where only one word is changed: the text that holds it is found, of whatever length."""
    for content in ("oaksoaks", "ash", "pines"):
        file = json.loads((DATA / "byte_level.json").read_text())
        file["normalizer"] = {"type": "Replace", "pattern": {"String": "pines"}, "content": content}
        (tmp_path / "tokenizer.json").write_text(json.dumps(file))
        encode = open_units(load_tokenizer(tmp_path))
        texts = ["old oaks", "", "old pines", "young pines"]
        if content == "pines":
            assert len(encode(pa.array(texts))[0]) == 5
            continue
        with pytest.raises(RequestError, match="'old pines' do not join"):
            encode(pa.array(texts))
    file["normalizer"]["content"] = "sinep"  # as long as what it stands for
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(RequestError, match="'old pines' do not join"):
        open_units(load_tokenizer(tmp_path))(pa.array(texts))


def test_a_text_without_repeats_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    def listening(self: TokenUnits, texts: pa.Array) -> Any:
        encoded.extend(texts.to_pylist())
        return place(self, texts)

    place = TokenUnits.__call__
    monkeypatch.setattr(TokenUnits, "__call__", listening)
    texts = ["", "a wood of old oaks", "nothing of that", "", "a wood of old oaks", "0123456789"]
    assert left(tmp_path, settings("small.tiktoken", 4), dealt(texts, [1])) == [*texts[:4], None, texts[5]]
    assert sorted(encoded) == sorted([*texts, texts[4]])


def test_workers_compile_before_they_start() -> None:
    """Without the vocabulary, which is not where every worker is."""
    warm_repeats(Substrings(unit="tokens", tokenizer="nowhere.tiktoken"))
    assert len(place_tokens.signatures) == 1  # type: ignore[attr-defined]


def test_probes_join() -> None:
    for name in BYTE_LEVEL:
        bounds, _, _ = open_units(load_tokenizer(DATA / name))(pa.array(PROBES))
        assert len(bounds) == len(PROBES) + 1


def test_stages_know_the_vocabulary_by_its_bytes(tmp_path: Path) -> None:
    store, parts, made = Store(str(tmp_path / "run")), dealt(["a"], []), []
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        for name in ("small.tiktoken", "small.json"):
            shutil.copy(DATA / name, tmp_path / folder / name)
    pattern = json.loads((DATA / "small.json").read_text()) | {"pattern": r"\s+|\S+"}
    (tmp_path / "c" / "small.json").write_text(json.dumps(pattern))
    for folder in ("a", "b", "c"):
        asked = {"length": 50, "unit": "tokens", "tokenizer": str(tmp_path / folder / "small.tiktoken")}
        value = {"inputs": {"web": {"path": "x.jsonl"}}, "dedup": {"substrings": asked}}
        recipe, job = Recipe.from_value({**value, "text": {}}), DedupJob.from_value(value)
        stage = repeats_stage(store, Substrings.model_validate(asked), parts)
        made.append((stage.hash, recipe.fingerprint(), fingerprint(job)))
    assert made[0] == made[1]
    assert not set(made[0]) & set(made[2])


def test_a_recipes_vocabulary_lies_beside_it(tmp_path: Path) -> None:
    asked = "{length: 50, unit: tokens, tokenizer: own.json}"
    (tmp_path / "r.yaml").write_text(f"inputs: {{web: {{path: x}}}}\ntext: {{}}\ndedup: {{substrings: {asked}}}\n")
    dedup = Recipe.from_yaml(tmp_path / "r.yaml").dedup
    assert dedup is not None
    assert dedup.substrings == Substrings(length=50, unit="tokens", tokenizer=str(tmp_path / "own.json"))
    with pytest.raises(PenstockError, match=r"no vocabulary file at .*own\.json"):
        check_units(dedup)
    (tmp_path / "own.json").write_text('{"model": {"vocab": 3}}')
    with pytest.raises(RecipeError, match=r"dedup\.substrings\.tokenizer: own\.json is damaged"):
        check_units(dedup)


def test_a_vocabulary_goes_with_tokens_and_only_with_them() -> None:
    with pytest.raises(ValidationError, match="unit is tokens, of no vocabulary"):
        Substrings(unit="tokens")
    with pytest.raises(ValidationError, match="unit is words, which need no `tokenizer`"):
        Substrings(unit="words", tokenizer="x.tiktoken")
    with pytest.raises(RequestError, match="nothing was given that encodes"):
        settings("small.tiktoken").units(pa.array(["x"]))


def test_the_command_line_says_what_is_counted() -> None:
    parser = ArgumentParser()
    add_dedup(parser.add_subparsers(), lambda _: None)

    def asked(*more: str) -> Any:
        return dedup_value(parser.parse_args(["dedup", "--input", "x", "--output", "y", *more]))["dedup"]

    assert asked("--substrings", "100")["substrings"] == {"length": 100}
    whole = asked("--substrings", "50", "--substring-unit", "tokens", "--substring-tokenizer", "t.json")
    assert whole["substrings"] == {"length": 50, "unit": "tokens", "tokenizer": "t.json"}
    assert "substrings" not in asked()
    with pytest.raises(RequestError, match="--substrings N"):
        asked("--substring-unit", "words")
