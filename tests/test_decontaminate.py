"""Benchmark items are found where they are and nowhere else, named, dropped or cut."""

from __future__ import annotations

import doctest
import json
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest

from penstock import InputError
from penstock.transforms import decontaminate
from penstock.transforms.benchmark_index import simplify_table
from penstock.transforms.decontaminate import Decontaminate
from penstock.transforms.edits import undo
from penstock.transforms.kernels.simplify import simplify_rows
from penstock.transforms.step import utf8_buffers

GOLDEN = json.loads((Path(__file__).parent / "data" / "datatrove_decontamination.json").read_text("utf-8"))
RIDDLE = "What is it that has four legs in the morning and two at noon?"
OTHER = "Who goes there by night, without a lamp, and is never seen by anyone in the house at all?"
SHORT = "Eight words are enough to match a whole."


def written(path: Path, items: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return str(path)


@pytest.fixture
def riddles(tmp_path: Path) -> str:
    texts = {"sphinx-1": RIDDLE, "night": OTHER, "whole": SHORT, "chance": "too short to tell", "rows": "0 " * 30}
    return written(tmp_path / "riddles.jsonl", [{"name": name, "text": text} for name, text in texts.items()])


def made(path: Any, **fields: Any) -> Decontaminate:
    named: dict[str, Any] = {"benchmarks": path, "fields": {"id": "name"}, **fields}
    return Decontaminate(**named)


def batch(texts: Sequence[str | None], kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.record_batch(
        {"row": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, kind or pa.string())}
    )


def words_of(text: str) -> list[str]:
    """Normalise and split, as the kernel does (its own oracle is in test_minhash)."""
    offsets, data = simplify_rows(*utf8_buffers(pa.array([text])), *simplify_table())
    return bytes(data[: offsets[1]]).decode().split()


# Slow, in plain Python


class Oracle:
    def __init__(self, items: dict[str, str], ngram: int, shortest: int, different: int) -> None:
        self.items: dict[str, set[tuple[str, ...]]] = {}
        for name, text in items.items():
            words = words_of(text)
            grams = {tuple(words[at : at + ngram]) for at in range(len(words) - ngram + 1)}
            if shortest <= len(words) < ngram:
                grams = {tuple(words)}
            self.items[name] = {gram for gram in grams if len(set(gram)) >= different}

    def measure(self, text: str) -> dict[str, Any]:
        words, covered, hits, found = words_of(text), set(), 0, set()
        for gram in {gram for grams in self.items.values() for gram in grams}:
            for at in range(len(words) - len(gram) + 1):
                if tuple(words[at : at + len(gram)]) == gram:
                    hits += 1
                    found.add(gram)
                    covered |= set(range(at, at + len(gram)))
        best, most, share = None, 0, 0.0
        for name, grams in self.items.items():
            if grams and len(grams & found) / len(grams) > share:
                best, most, share = name, len(grams & found), len(grams & found) / len(grams)
        return {
            "ngrams": hits, "share": len(covered) / len(words) if words else 0.0, "item_ngrams": most,
            "item_share": share, "item": best,
        }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_random_texts_are_measured_as_the_oracle_says(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    vocabulary = ["a", "B", "c,", "dé", "3.5", "漢", "e"][: 4 + seed]
    items = {str(n): " ".join(chance.choices(vocabulary, k=chance.randint(0, 9))) for n in range(12)}
    path = written(tmp_path / "items.jsonl", [{"name": name, "text": text} for name, text in items.items()])
    rules = {"ngram": 4, "shortest": 2 + seed % 2, "different": 1 + seed % 3}
    texts = [" ".join(chance.choices(vocabulary, k=chance.randint(0, 40))) for _ in range(120)]
    outcome = made(path, **rules).apply(batch(texts))
    oracle = Oracle(items, **rules)
    for row, text in enumerate(texts):
        for name, value in oracle.measure(text).items():
            assert outcome.batch[f"decontaminate.{name}"][row].as_py() == value, (name, text)


def test_blocks_of_words_and_long_keys_change_nothing(tmp_path: Path) -> None:
    """Texts far longer than what is looked up at once, n-grams across the seams."""
    chance = random.Random(2)
    numbered = [f"w{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(3_000)]
    for ngram in (2, 13, 256):
        starts = [0, 1, 1024 - ngram, 1024 - ngram + 1, 1023, 1024, 2047, 3_000 - ngram]
        items = [{"name": str(at), "text": " ".join(numbered[at : at + ngram])} for at in starts]
        step = made(written(tmp_path / f"{ngram}.jsonl", items), ngram=ngram, different=1)
        scores = step.measure(batch([" ".join(numbered), " ".join(chance.sample(numbered, 3_000))]))
        assert scores["ngrams"].tolist() == [len(set(starts)), 0]


# What others decide


def test_decides_as_datatrove_does(tmp_path: Path) -> None:
    path = written(tmp_path / "items.jsonl", GOLDEN["items"])
    step = made(path, fields={"id": "id", "query": "query"}, variant="fineweb")
    reasons = step.reasons(batch(GOLDEN["texts"])).to_pylist()
    assert reasons == [rule and f"decontaminate/{rule}" for rule in GOLDEN["rules"]]
    assert 50 <= GOLDEN["rules"].count(None) <= 250


# Recall and precision


def spoiled(chance: random.Random, text: str) -> str:
    """Change case, punctuation and space, and no word."""
    words = [chance.choice([str.upper, str.title, str.lower])(word) for word in text.split()]
    return "".join(word + chance.choice([" ", "\n", "  ", ", ", " — ", "\t"]) for word in words)


@pytest.mark.long
@pytest.mark.parametrize("ngram", [8, 13])
def test_every_planted_item_of_the_real_benchmarks_is_found_and_nothing_else(
    shared_data: Path, tmp_path: Path, ngram: int
) -> None:
    zstandard = pytest.importorskip("zstandard")

    def read(name: str, most: int) -> list[dict[str, Any]]:
        with (shared_data / name).open("rb") as file:
            body = zstandard.ZstdDecompressor().stream_reader(file).read(most)
        return [json.loads(line) for line in body.split(b"\n")[:-1]]

    chance = random.Random(ngram)
    items = chance.sample(read("benchmarks.jsonl.zst", 1 << 30), 3_000)
    path = written(tmp_path / "items.jsonl", items)
    step = made(path, fields={"id": "id"}, ngram=ngram)
    known: dict[int, set[tuple[str, ...]]] = {}
    usable = []
    for item in items:
        words = words_of(item["text"])
        long = ngram if len(words) >= ngram else len(words)
        grams = {tuple(words[at : at + long]) for at in range(len(words) - long + 1)} if long >= 8 else set()
        grams = {gram for gram in grams if len(set(gram)) >= 4}
        for gram in grams:
            known.setdefault(len(gram), set()).add(gram)
        if grams:
            usable.append(item["text"])
    texts = [document["text"][:4_000] for document in read("docs_english.jsonl.zst", 1 << 22)[:200]]
    planted = [f"{text}\n{spoiled(chance, item)}\n{text[:200]}" for text, item in zip(texts, usable, strict=False)]
    reasons = step.reasons(batch([*texts, *planted])).to_pylist()
    assert None not in reasons[len(texts) :]  # recall 1.0, case, punctuation and space changed
    for text, reason in zip(texts, reasons, strict=False):
        words = words_of(text)
        held = any(tuple(words[at : at + long]) in known[long] for long in known for at in range(len(words) - long + 1))
        assert held == (reason is not None)  # and no document more than brute force finds


# What is found, and what becomes of it


@pytest.mark.parametrize(
    ("text", "item"),
    [
        (RIDDLE, "sphinx-1"),
        (f"He asked: {RIDDLE.upper()} Nobody knew.", "sphinx-1"),
        (RIDDLE.replace(" ", "\n\n- "), "sphinx-1"),
        (RIDDLE.replace("ó", "o").replace("four", "fóur"), "sphinx-1"),
        (" ".join(RIDDLE.split()[:13]), "sphinx-1"),
        (" ".join(RIDDLE.split()[:12]), None),
        (RIDDLE.replace("legs", "feet"), None),
        (SHORT, "whole"),
        (f"{SHORT[:-1]}some things", None),
        ("too short to tell", None),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", None),
        (OTHER[:-1] + RIDDLE, "night"),  # six of its seven n-grams, and one of two
        ("", None),
        (None, None),
        ("\n\n\n", None),
        ("\x00" + RIDDLE.replace(" ", "\x00"), "sphinx-1"),
        ("👩‍👩‍👧 春眠不觉晓 مرحبا بالعالم", None),
        ("x" * (1 << 20), None),
    ],
)
def test_what_is_found(riddles: str, text: str | None, item: str | None) -> None:
    outcome = made(riddles).apply(batch([text]))
    assert outcome.batch["decontaminate.item"].to_pylist() == [item]
    assert outcome.reasons.to_pylist() == [item and "decontaminate/contaminated"]


def test_shares_decide_where_that_is_asked(riddles: str) -> None:
    half = " ".join(OTHER.split()[:16])  # four of seven n-grams
    step = made(riddles, min_item_share=0.6)
    outcome = step.apply(batch([half, OTHER]))
    assert outcome.reasons.to_pylist() == [None, "decontaminate/contaminated"]
    assert outcome.batch["decontaminate.item_ngrams"].to_pylist() == [4, 7]
    assert outcome.batch["decontaminate.item_share"].to_pylist() == [4 / 7, 1.0]
    assert outcome.batch["decontaminate.share"].to_pylist() == [1.0, 1.0]
    assert made(riddles, min_item_share=4 / 7).reasons(batch([half])).to_pylist() == ["decontaminate/contaminated"]
    assert made(riddles, min_ngrams=5).reasons(batch([half])).to_pylist() == [None]


def test_items_are_cut_with_what_surrounds_them(riddles: str) -> None:
    text = f"Héllo there. {RIDDLE} And on. «{OTHER.upper()}» End 漢字."
    plain = made(riddles, action="cut").apply(batch([text, None, "clean"], pa.large_string()))
    assert plain.reasons.null_count == 3
    assert plain.batch["text"].to_pylist() == ["Héllo there. ? And on. «?» End 漢字.", None, "clean"]
    assert plain.batch["text"].type == pa.large_string()
    assert undo(plain.batch["text"][0].as_py(), plain.batch["edits"][0].as_py()) == text
    assert [each["step"] for each in plain.batch["edits"][0].as_py()] == ["decontaminate"] * 2
    wide = made(riddles, action="cut", margin=6).apply(batch([text]))
    assert wide.batch["text"].to_pylist() == ["Héllo t 漢字."]  # margins that meet are one cut
    assert made(riddles, action="cut", margin=10_000).apply(batch([text])).batch["text"].to_pylist() == [""]
    many = made(riddles, action="cut", max_cuts=1).apply(batch([text, RIDDLE]))
    assert many.reasons.to_pylist() == ["decontaminate/too_many_cuts", None]
    assert many.batch["text"].to_pylist() == [text, "?"]
    assert "edits" not in made(riddles, action="cut", record=False).apply(batch([text])).batch.schema.names


def test_random_cuts_leave_no_ngram_and_can_be_undone(riddles: str) -> None:
    chance = random.Random(3)
    filler = ["é", "漢字", "a\u0301", "\u0301", "3.5", "—", "🙂", "Σίσυφος", "word", "\n"]
    texts = []
    for _ in range(150):
        parts = [" ".join(chance.choices(filler, k=chance.randint(0, 5))) for _ in range(3)]
        texts.append(f"{parts[0]} {spoiled(chance, RIDDLE)} {parts[1]} {spoiled(chance, OTHER)} {parts[2]}")
    for margin in (0, 3):
        outcome = made(riddles, action="cut", margin=margin).apply(batch(texts))
        columns = (outcome.batch[name].to_pylist() for name in ("text", "edits"))
        for text, cut, edits in zip(texts, *columns, strict=True):
            assert undo(cut, edits) == text
            removed = [word for each in edits for word in words_of(each["removed"])]
            assert margin or removed == [*words_of(RIDDLE), *words_of(OTHER)]


# What every filter promises

ODD = ["", RIDDLE, None, f"漢 {OTHER} 🙂", "x" * 999, SHORT, f"{RIDDLE} {OTHER}"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("action", ["drop", "cut"])
def test_a_slice_sees_only_its_rows_and_order_does_not_matter(riddles: str, kind: pa.DataType, action: str) -> None:
    step = made(riddles, action=action)
    whole = step.apply(batch(ODD, kind))
    part = step.apply(batch(ODD, kind).slice(1, 4))
    assert part.reasons.equals(whole.reasons.slice(1, 4))
    assert part.batch.equals(whole.batch.slice(1, 4))
    turned = step.apply(batch(ODD[::-1], kind))
    for name in set(whole.batch.schema.names) - {"row"}:
        assert turned.batch[name].to_pylist()[::-1] == whole.batch[name].to_pylist()
    assert step.apply(batch([], kind)).batch.schema == whole.batch.schema


def test_reasons_replay_from_the_columns(riddles: str) -> None:
    for step in (made(riddles), made(riddles, min_item_share=0.9), made(riddles, action="cut", max_cuts=1)):
        outcome = step.apply(batch(ODD))
        names = ["ngrams", "share", "spans", "item_ngrams", "item_share"]
        scores = {name: outcome.batch[f"decontaminate.{name}"].to_numpy() for name in names}
        assert all(value.dtype in (np.int64, np.float64) for value in scores.values())
        assert step.decide(scores).equals(outcome.reasons)


def test_bytes_that_are_no_utf8_harm_no_neighbour(riddles: str) -> None:
    broken = [b"\xe2\x80", RIDDLE.encode(), b"\xf0\x9f\x98 " + RIDDLE.encode() + b" \xe2", b"\xff"]
    offsets = np.cumsum([0, *map(len, broken)], dtype=np.int32)
    column = pa.StringArray.from_buffers(len(broken), pa.py_buffer(offsets), pa.py_buffer(b"".join(broken)))
    reasons = made(riddles).reasons(pa.record_batch({"text": column})).to_pylist()
    assert reasons == [None, "decontaminate/contaminated", "decontaminate/contaminated", None]


def test_travels_and_is_known_by_what_its_items_say(riddles: str, tmp_path: Path) -> None:
    step = made(riddles)
    again = pickle.loads(pickle.dumps(step))
    assert again == step
    assert len(pickle.dumps(step)) < 2_000
    assert again.fingerprint() == step.fingerprint()
    assert Decontaminate.model_validate_json(step.model_dump_json()) == step
    assert str(tmp_path) not in json.dumps(step.fingerprint())
    rows = [json.loads(line) for line in Path(riddles).read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "riddles.parquet")
    assert made(str(tmp_path / "riddles.parquet")).fingerprint() == step.fingerprint()
    before = step.fingerprint()
    written(Path(riddles), [{"name": "new", "text": OTHER}])
    assert step.fingerprint() != before
    assert step.apply(batch([OTHER])).batch["decontaminate.item"].to_pylist() == ["new"]


def test_items_without_a_name_are_called_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(OTHER)
    step = made([str(tmp_path / "one.txt")], fields={})
    assert step.apply(batch([OTHER])).batch["decontaminate.item"].to_pylist() == ["one.txt#0"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"benchmarks": []}, "benchmarks is empty"),
        ({"benchmarks": "missing.jsonl"}, "missing"),
        ({"fields": {"text": "question"}}, "question"),
        ({"fields": {"query": "name", "answer": "text"}}, "answer"),
        ({"ngram": 1}, "ngram"),
        ({"ngram": 5, "shortest": 6}, "shortest is 6, different is 4 and ngram is 5"),
        ({"ngram": 60}, None),
        ({"ngram": 60, "shortest": 40, "different": 30}, "none of the 5 items"),
        ({"margin": 5}, "action 'drop' cuts nothing"),
        ({"min_item_share": 1.5}, "min_item_share"),
        ({"variant": "gpt3"}, "variant"),
    ],
)
def test_what_means_nothing_is_refused(riddles: str, given: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert made(riddles, **given).reasons(batch([OTHER])).null_count == 0  # whole items, of fewer words
        return
    with pytest.raises((pydantic.ValidationError, InputError), match=said):
        made(riddles, **given)


def test_a_benchmark_with_a_gap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"text": OTHER}) + '\n{"text": \n')
    with pytest.raises((pydantic.ValidationError, InputError), match=r"items.jsonl#\d+: the item cannot be read"):
        made(str(path), fields={})
    path.write_text(json.dumps({"text": OTHER, "query": 5}) + "\n")
    with pytest.raises((pydantic.ValidationError, InputError), match="the field 'query' holds 5 and not a text"):
        made(str(path), fields={"query": "query"})


def test_examples_in_docstrings(riddles: str, tmp_path: Path) -> None:
    tried = doctest.testmod(decontaminate, extraglobs={"folder": tmp_path})
    assert tried.attempted >= 4
    assert tried.failed == 0
