"""Vocabularies: every format and engine under one suite, a slow oracle, the gate, fingerprints, training."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import penstock
from penstock import CorruptDataError, InputError, MissingExtraError, RequestError
from penstock.tokenizer import Tokenizer, engines, gate, load_tokenizer, segments, vocab
from penstock.tokenizer.definition import Definition
from penstock.tokenizer.ranks import KNOWN
from penstock.tokenizer.train import describe, train, train_sentencepiece
from penstock.tokenizer.vocab import require_eos, vocabulary_files

DATA = Path(__file__).parent / "data" / "tokenizers"
FILES = ("bpe.model", "unigram.model", "byte_level.json", "unigram.json", "small.tiktoken")
LOSSLESS = ("bpe.model", "unigram.model", "byte_level.json", "small.tiktoken")
HAS_FAST = find_spec("fastokens") is not None
FAST_FILES = ("byte_level.json", "small.tiktoken")
needs_fast = pytest.mark.skipif(not HAS_FAST, reason="fastokens is not installed")

TEXTS = [
    "The water turns the turbine.",
    "",
    None,
    " \n\n\t  ",
    "It isn't 1925's speed: 12.5 + 480.0 = ?",
    "水通过压力管道落下 الماء يسقط 👩‍👩‍👧‍👦 e\u0301",
    "NUL \x00 and \ufeff and \U0010ffff",
    "<|endoftext|></s><s><|startoftext|><unk> <|fim|> [INST]",
    "water " * 500,
]


@pytest.fixture
def fresh() -> Iterator[None]:
    """Open tokenizers anew: one that turned an engine off must not be met by another test."""
    vocab._open.cache_clear()
    yield
    vocab._open.cache_clear()


@pytest.fixture(params=[(name, engine) for name in FILES for engine in ("auto", "reference")], ids="-".join)
def tokenizer(request: pytest.FixtureRequest) -> vocab.FileTokenizer:
    name, engine = request.param
    opened: vocab.FileTokenizer = load_tokenizer(DATA / name, engine=engine)
    return opened


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(pa.array([text]))[0].as_py()
    return found


# --- what every tokenizer keeps


def test_it_is_a_tokenizer_of_uint16_lists(tokenizer: vocab.FileTokenizer) -> None:
    assert isinstance(tokenizer, Tokenizer)
    found = tokenizer.encode(pa.array(TEXTS))
    assert found.type == pa.list_(pa.uint16())
    assert tokenizer.dtype == np.uint16
    assert len(found) == len(TEXTS)
    assert found.null_count == 0
    assert found[1].as_py() == found[2].as_py() == []
    assert max(found.flatten().to_pylist()) < tokenizer.vocab_size


def test_an_empty_array_gives_an_empty_list_array(tokenizer: vocab.FileTokenizer) -> None:
    found = tokenizer.encode(pa.array([], pa.string()))
    assert (len(found), found.type) == (0, pa.list_(pa.uint16()))


def test_order_slices_and_arrow_types_do_not_matter(tokenizer: vocab.FileTokenizer) -> None:
    whole = tokenizer.encode(pa.array(TEXTS)).to_pylist()
    assert tokenizer.encode(pa.array(TEXTS[::-1])).to_pylist() == whole[::-1]
    assert tokenizer.encode(pa.array(TEXTS).slice(3, 4)).to_pylist() == whole[3:7]
    assert [row for text in TEXTS for row in tokenizer.encode(pa.array([text], pa.string())).to_pylist()] == whole
    for array in (
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS).dictionary_encode(),
        pa.chunked_array([TEXTS[:4], TEXTS[4:]]),
    ):
        assert tokenizer.encode(array).to_pylist() == whole
    assert tokenizer.encode(pa.nulls(2)).to_pylist() == [[], []]


@pytest.mark.parametrize("wrong", [pa.array([1, 2]), pa.array([["a"]]), ["a"], "a"])
def test_what_is_no_array_of_strings_is_refused(wrong: Any) -> None:
    opened = load_tokenizer(DATA / "bpe.model")
    if isinstance(wrong, pa.Array) and pa.types.is_integer(wrong.type):
        assert opened.encode(wrong).to_pylist() == opened.encode(pa.array(["1", "2"])).to_pylist()
    else:
        with pytest.raises(RequestError, match="string"):
            opened.encode(wrong)


def test_bytes_that_are_no_utf8_are_damage() -> None:
    array = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], "<i4")), pa.py_buffer(b"\xff\xfe")]
    )
    with pytest.raises(CorruptDataError, match="UTF-8"):
        load_tokenizer(DATA / "bpe.model").encode(array)


@pytest.mark.usefixtures("fresh")
def test_it_pickles_without_its_file(tokenizer: vocab.FileTokenizer, tmp_path: Path) -> None:
    name = tokenizer.name if "." in tokenizer.name else "small.tiktoken"
    for file, body in vocabulary_files(DATA / name).items():
        (tmp_path / file).write_bytes(body)
    moved = load_tokenizer(tmp_path / name)
    expected = moved.encode(pa.array(TEXTS))
    pickled = pickle.dumps(moved)
    for copy in tmp_path.iterdir():
        copy.unlink()
    vocab._open.cache_clear()
    again = pickle.loads(pickled)
    assert again is not moved
    assert again.encode(pa.array(TEXTS)).equals(expected)
    assert (again.fingerprint, again.eos_id, again.engine) == (moved.fingerprint, moved.eos_id, moved.engine)


def test_no_text_becomes_a_control_token(tokenizer: vocab.FileTokenizer) -> None:
    info = tokenizer.describe()
    held = set(tokenizer._definition.control.values()) - {info["unknown_id"]}
    assert {tokenizer.eos_id} <= held
    literals = [*tokenizer._definition.control, "<|endoftext|>", "</s>", "<s>", "<|fim|>"]
    for form in ("{}", " {} ", "x{}x", "{0}{0}", "\n{}\n"):
        for literal in literals:
            assert not held & set(ids(tokenizer, form.format(literal))), literal


@pytest.mark.parametrize("name", LOSSLESS)
def test_decoding_gives_the_text_back(name: str) -> None:
    opened = load_tokenizer(DATA / name)
    for text in (*filter(None, TEXTS), " leading", "trailing ", "a\r\n b", "<0x41> </s>"):
        assert opened.decode(ids(opened, text)) == text


def test_control_tokens_are_decoded_by_name_and_foreign_ids_refused(tokenizer: vocab.FileTokenizer) -> None:
    assert tokenizer.eos_id is not None
    text = ids(tokenizer, "the water")
    end = tokenizer.decode([tokenizer.eos_id])
    assert end in ("</s>", "<|endoftext|>")
    assert tokenizer.decode([*text, tokenizer.eos_id, *text]) == f"the water{end}the water"
    for foreign in (tokenizer.vocab_size, -1):
        with pytest.raises(RequestError, match="no id of"):
            tokenizer.decode([foreign])


def in_child(tokenizer: Tokenizer, pipe: Any) -> None:
    pipe.send(tokenizer.encode(pa.array(TEXTS)).to_pylist())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("name", ["byte_level.json", "small.tiktoken", "bpe.model"])
def test_it_works_after_a_fork(name: str) -> None:
    opened = load_tokenizer(DATA / name)
    expected = opened.encode(pa.array(TEXTS)).to_pylist()
    near, far = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=in_child, args=(opened, far))
    child.start()
    try:
        assert near.poll(60), "the child hangs"
        assert near.recv() == expected
    finally:
        child.kill()
        child.join()


# --- a slow oracle: byte-pair merges by rank, straight from the definition


def oracle(text: str) -> list[int]:
    import regex

    ranks = {}
    for line in (DATA / "small.tiktoken").read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    found = []
    for piece in regex.findall(json.loads((DATA / "small.json").read_text())["pattern"], text):
        parts = [bytes([byte]) for byte in piece.encode()]
        while len(parts) > 1:
            pairs = [(ranks.get(parts[i] + parts[i + 1], 1 << 30), i) for i in range(len(parts) - 1)]
            lowest, place = min(pairs)
            if lowest == 1 << 30:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        found += [ranks[part] for part in parts]
    return found


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_ids_are_those_of_a_slow_oracle(engine: str) -> None:
    opened = load_tokenizer(DATA / "small.tiktoken", engine=engine)
    chance = random.Random(3)
    atoms = [
        "water",
        " the",
        "turbine",
        "'s",
        "'LL",
        " ",
        "  ",
        "\n",
        "\t",
        "1",
        "925",
        ".",
        "!?",
        "ß",
        "水",
        "Ω",
        "👩",
        "\xa0",
        "</s>",
    ]
    texts = ["".join(chance.choices(atoms, k=chance.randint(0, 12))) for _ in range(400)]
    assert opened.encode(pa.array(texts)).to_pylist() == [oracle(text) for text in texts]


@pytest.mark.long
@needs_fast
@pytest.mark.parametrize("name", FAST_FILES)
def test_the_fast_engine_gives_the_ids_of_the_reference_on_real_text(name: str, shared_data: Path) -> None:
    import io

    import zstandard

    texts = []
    for file in ("docs_multilingual", "docs_english", "docs_udhr"):
        with (shared_data / f"{file}.jsonl.zst").open("rb") as raw:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8")
            texts += [json.loads(line)["text"][:5_000] for line, _ in zip(lines, range(100), strict=False)]
    fast, reference = load_tokenizer(DATA / name, engine="fast"), load_tokenizer(DATA / name, engine="reference")
    assert fast.engine == "fastokens"
    assert fast.encode(pa.array(texts)).equals(reference.encode(pa.array(texts)))


# --- very long pieces


LONG = {
    "spaces": " " * 400_000,
    "newlines": "\n" * 400_000,
    "letters": "a" * 400_000,
    "han": "水" * 200_000,
    "spaces, then a word": "x" + " " * 400_000 + "y",
}


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("kind", LONG)
def test_long_pieces_are_encoded_whole(name: str, kind: str) -> None:
    opened = load_tokenizer(DATA / name)
    found = opened.encode(pa.array([LONG[kind]]))
    assert opened.decode(found[0].values.to_numpy()) == LONG[kind]
    assert found.equals(load_tokenizer(DATA / name, engine="reference").encode(pa.array([LONG[kind]])))


CL100K = KNOWN["cl100k_base"].pattern


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    "pattern", [json.loads((DATA / "small.json").read_text())["pattern"], CL100K], ids=["gpt2", "cl100k"]
)
@pytest.mark.parametrize("space", [" ", "\n", " \n  ", "\r\n", "\u3000"])
def test_space_beyond_the_reference_s_stack_is_cut_where_the_pattern_cuts_it(
    pattern: str, space: str, tmp_path: Path
) -> None:
    merged = [b"  ", b"\n\n", b"\r\n", b"\r\n\r\n", b" \n", "\u3000\u3000".encode()]
    opened = load_tokenizer(side_file(tmp_path, merged=merged, pattern=pattern), engine="reference")
    short = ids(opened, f"a{space * 12_000}b,{space * 12_000}c{space * 12_000}")
    reference: Any = opened._reference
    whole = reference._encoding.encode_to_numpy
    failing = 0

    def small_stack(text: str, **how: Any) -> Any:
        nonlocal failing
        if space * 12_000 + "b" in text or space * 12_000 + "c" in text:
            failing += 1
            raise ValueError("Max stack size exceeded for backtracking")
        return whole(text, **how)

    reference._encoding = type("Small", (), {"encode_to_numpy": staticmethod(small_stack)})
    assert ids(opened, f"a{space * 12_000}b,{space * 12_000}c{space * 12_000}") == short
    assert failing


@pytest.mark.long
def test_two_million_spaces_before_a_word(tmp_path: Path) -> None:
    opened = load_tokenizer(side_file(tmp_path, pattern=CL100K), engine="reference")
    found = opened.encode(pa.array([" " * 2_000_000 + "water", " " * 1_999_999, " water"]))
    assert found[0].as_py() == found[1].as_py() + found[2].as_py()


# --- the gate


class Crooked:
    """The reference, but for texts that hold a word: there the first id is another."""

    def __init__(self, definition: Definition, word: str) -> None:
        self.library, self.word = "crooked 1.0", word
        self.real = engines.reference_engine(definition)

    def encode(self, texts: Sequence[str]) -> list[engines.Ids]:
        found = self.real.encode(texts)
        return [
            np.append(row, np.uint32(7)) if self.word in text else row for text, row in zip(texts, found, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        return self.real.decode(ids)


def crooked(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setattr(engines, "fast_engine", lambda definition: Crooked(definition, word))


@pytest.mark.usefixtures("fresh")
def test_an_engine_that_differs_at_load_is_off_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    crooked(monkeypatch, "'s")
    with pytest.warns(RuntimeWarning, match=r"fast engine is off.*crooked 1\.0 and sentencepiece.* differ"):
        opened = load_tokenizer(DATA / "bpe.model")
    assert opened.engine == "sentencepiece"
    assert opened.encode(pa.array(TEXTS)).equals(
        load_tokenizer(DATA / "bpe.model", engine="reference").encode(pa.array(TEXTS))
    )


@pytest.mark.usefixtures("fresh")
def test_check_finds_what_only_the_data_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    crooked(monkeypatch, "xyzzy")
    opened = load_tokenizer(DATA / "bpe.model")
    reference = load_tokenizer(DATA / "bpe.model", engine="reference")
    assert opened.engine == "crooked"
    assert opened.fingerprint == reference.fingerprint
    assert opened.check(pa.array(["plain", None]))
    assert opened.engine == "crooked"
    with pytest.warns(RuntimeWarning, match="xyzzy"):
        assert not opened.check(["plain", "say xyzzy", None])
    assert opened.engine == "sentencepiece"
    assert ids(opened, "say xyzzy") == ids(reference, "say xyzzy")
    assert opened.check(["say xyzzy"]), "there is no second engine left to differ"
    pickled = pickle.dumps(opened)
    vocab._open.cache_clear()
    assert pickle.loads(pickled).engine == "sentencepiece", "an engine that is off stays off elsewhere"


@pytest.mark.usefixtures("fresh")
def test_a_text_that_the_fast_engine_gives_up_on_goes_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = load_tokenizer(DATA / "bpe.model", engine="fast")
    expected = opened.encode(pa.array(TEXTS))

    class Tired(Crooked):
        def encode(self, texts: Sequence[str]) -> list[engines.Ids]:
            raise ValueError("match limit")

    monkeypatch.setattr(opened, "_fast", Tired(opened._definition, "no word"))
    assert opened.encode(pa.array(TEXTS)).equals(expected)


def test_every_engine_is_told_apart_by_one_token() -> None:
    opened = load_tokenizer(DATA / "bpe.model", engine="reference")
    engine, other = opened._reference, Crooked(opened._definition, "one")
    assert gate.difference(engine, engine, gate.adversarial()) is None
    assert "'only one'" in str(gate.difference(other, engine, ["no", "only one"]))
    assert gate.difference(other, engine, ["nothing here"]) is None


def test_the_adversarial_set_is_fixed_and_reaches_all_of_unicode() -> None:
    gate.adversarial.cache_clear()
    first = gate.adversarial()
    gate.adversarial.cache_clear()
    assert gate.adversarial() == first
    characters = set("".join(first))
    assert {chr(point) for point in (0, 0x180E, 0x17F, 0x2028, 0x10FFFF)} <= characters
    assert len(characters) > 5_000


@needs_fast
def test_space_is_what_the_reference_means_by_it(tmp_path: Path) -> None:
    opened = load_tokenizer(
        side_file(tmp_path), engine="fast"
    )  # a pattern without a scanner: PCRE2, whose \s has U+180E
    assert opened.engine == "fastokens"
    for text in ("a \u180e½!", "a\u180e b", "\x1c\x1f x", "\x85\u2028 y"):
        assert ids(opened, text) == oracle(text)


@pytest.mark.parametrize("pattern", [r"[^\s\p{L}]+|\s", r"\\s\S+[\]\s]", r"[^]\s]|\S", r"(?i:'s)|\s+(?!\S)|\s+"])
def test_spelling_space_out_leaves_the_rest_of_a_pattern(pattern: str) -> None:
    spelled = engines._spell_out_space(pattern)
    assert (
        spelled.replace(f"[{engines._SPACE}]", r"\s")
        .replace(f"[^{engines._SPACE}]", r"\S")
        .replace(engines._SPACE, r"\s")
        == pattern
    )
    assert spelled != pattern


@pytest.mark.usefixtures("fresh")
def test_what_the_fast_engine_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no fast engine reads unigram.model: only SentencePiece BPE"):
        load_tokenizer(DATA / "unigram.model", engine="fast")
    with pytest.raises(RequestError, match="engine='quick' is none of auto, fast, reference"):
        load_tokenizer(DATA / "bpe.model", engine="quick")
    if HAS_FAST:
        with pytest.raises(RequestError, match=r"fastokens does not read small: .*contiguous"):
            load_tokenizer(side_file(tmp_path, hole=True), engine="fast")
    monkeypatch.setitem(sys.modules, "fastokens", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'penstock\[fast\]'"):
        load_tokenizer(DATA / "small.tiktoken", engine="fast")
    assert load_tokenizer(DATA / "small.tiktoken").engine == "tiktoken"


# --- SentencePiece by segments


def spm_model(path: Path, **options: Any) -> Path:
    """Train a model on lines that make merges over many kinds of neighbours."""
    import sentencepiece

    plain = {
        "vocab_size": 700,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "hard_vocab_limit": False,
        "num_threads": 1,
        "minloglevel": 3,
    }
    lines = [f"    x{n}=(a+b)*{n};  //the  water,the\t\twater...({n})!!  水水{n} {{}}\u0301" for n in range(200)]
    with path.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=writer, **{**plain, **options}
        )
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"split_by_unicode_script": False, "split_by_number": False},
        {"add_dummy_prefix": False},
        {"user_defined_symbols": ["the water", "..", "x1", "\t\t"]},
    ],
    ids=["plain", "mixed scripts", "no dummy prefix", "user symbols"],
)
def test_segments_have_the_ids_of_the_library(options: dict[str, Any], tmp_path: Path) -> None:
    path = spm_model(tmp_path / "a.model", **options)
    reference = load_tokenizer(path, engine="reference")
    if "the water" in str(options):  # a piece over a space: there is no cut before a word
        with pytest.raises(RequestError, match="no piece across a space"):
            load_tokenizer(path, engine="fast")
        return
    fast = load_tokenizer(path, engine="fast")
    assert fast.engine == "segments"
    chance = random.Random(11)
    atoms = [
        "the",
        "water",
        " ",
        "  ",
        "\t",
        "\n",
        "x1",
        "12",
        "(",
        ")",
        ";",
        "//",
        "..",
        "水",
        "\u0301",
        "\u2581",
        "\x00",
        "👩",
        "{}",
    ]
    texts = ["".join(chance.choices(atoms, k=chance.randint(0, 14))) for _ in range(3_000)]
    for start in range(0, len(texts), 500):
        batch = pa.array(texts[start : start + 500])
        assert fast.encode(batch).equals(reference.encode(batch))


def test_segments_forget_and_still_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(segments, "_KNOWN", 40)
    path = spm_model(tmp_path / "a.model")
    fast, reference = load_tokenizer(path, engine="fast"), load_tokenizer(path, engine="reference")
    for number in range(30):
        batch = pa.array([f"the water {number} and {number * k} more" for k in range(9)] + ["z" * 100])
        assert fast.encode(batch).equals(reference.encode(batch))
        assert isinstance(fast._fast, segments.Segments)
        assert len(fast._fast._known) < 80
        assert "z" * 100 not in fast._fast._known


def test_text_is_cut_only_before_what_pieces_start_with() -> None:
    starts = segments.starters(["▁the", "▁▁", "a(b", "((", "1", "x\t"])
    assert {*b" 1x"} <= set(starts)
    assert not {*b"he(b\t"} & set(starts)
    assert b" " not in segments.starters(["the▁water"])


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram"},
        {"byte_fallback": False},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"treat_whitespace_as_suffix": True},
        {"split_by_whitespace": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_models_that_cannot_be_cut_are_left_to_the_library(options: dict[str, Any], tmp_path: Path) -> None:
    path = spm_model(tmp_path / "a.model", **options)
    assert load_tokenizer(path).engine == "sentencepiece"
    with pytest.raises(RequestError, match=r"no fast engine reads a.model"):
        load_tokenizer(path, engine="fast")


# --- fingerprints


# Pinned: these change only with the format of fingerprints itself, and then every run's vocabulary reads as another.
GOLDEN: dict[str, tuple[str, list[int]]] = {
    "bpe.model": (
        "2d57fce6c5706682a38fce86649cf32637c63536f4d200e4da4b4f860ac40b2e",
        [322, 260, 313, 332, 317, 339, 354, 334, 332, 365, 382, 345, 374, 332, 356],
    ),
    "unigram.model": (
        "8cbaa13acec9187370a85772c630e2405302ba2cc124be969c126f4aaa19b131",
        [315, 321, 300, 319, 281, 267, 263, 259, 274, 309, 261, 294, 259, 271],
    ),
    "byte_level.json": (
        "509aa8aaf5e04ce3c6b078aa2bf6a8dc813f01e523e19a79797bc874f48561cd",
        [53, 259, 326, 356, 79, 471, 349, 19, 15, 22, 222, 275],
    ),
    "unigram.json": (
        "0bfa630567188837c6b23f5bd6b76b87eebe6d84e3ffe204ffbb37b67ee908ff",
        [2, 0, 21, 18, 4, 2, 22, 10, 27, 0, 32, 2, 0, 2, 0],
    ),
    "small.tiktoken": (
        "5d31c73c9c7065afad7bf08ec372b986e1ad3fe862fecac3dd1b28f1406571db",
        [51, 257, 324, 354, 77, 469, 347, 17, 13, 20, 220, 273],
    ),
}


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("name", FILES)
def test_ids_and_fingerprints_are_pinned(name: str, engine: str) -> None:
    opened = load_tokenizer(DATA / name, engine=engine)
    assert (opened.fingerprint, ids(opened, "The water isn't 12.5 水")) == GOLDEN[name]


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None], **layout: Any) -> str:
    file = json.loads((DATA / "byte_level.json").read_text())
    change(file)
    target = folder / "tokenizer.json"
    target.write_text(json.dumps(file, **layout))
    found: str = load_tokenizer(target, engine="reference").fingerprint
    return found


def reorder(file: dict[str, Any]) -> None:
    file["model"]["merges"] = [pair if isinstance(pair, str) else " ".join(pair) for pair in file["model"]["merges"]]
    file["model"] = dict(reversed(file["model"].items())) | {"fuse_unk": None, "dropout": 0.1}
    file["model"].pop("ignore_merges", None)
    file["added_tokens"].reverse()
    file["added_tokens"].sort(key=lambda token: token["id"])
    file["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    file["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


def test_layout_padding_and_training_options_leave_the_fingerprint(tmp_path: Path) -> None:
    plain = load_tokenizer(DATA / "byte_level.json").fingerprint
    assert rewritten(tmp_path, lambda file: None) == plain
    assert rewritten(tmp_path, reorder, indent=3, ensure_ascii=True) == plain


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["model"]["merges"].pop(),
        lambda file: file.update(normalizer={"type": "NFC"}),
        lambda file: file["pre_tokenizer"].update(add_prefix_space=True),
        lambda file: file["added_tokens"].append({**file["added_tokens"][-1], "content": "zzz", "id": 602}),
        lambda file: file["added_tokens"][-1].update(special=True),
    ],
    ids=["merge", "normalizer", "pre-tokenizer", "added", "special"],
)
def test_what_decides_ids_changes_the_fingerprint(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    assert rewritten(tmp_path, change) != load_tokenizer(DATA / "byte_level.json").fingerprint


def test_a_sentencepiece_fingerprint_leaves_out_what_training_noted(tmp_path: Path) -> None:
    body = (DATA / "bpe.model").read_bytes()
    noted = tmp_path / "noted.model"
    noted.write_bytes(body + b"\x12\x00")  # an empty trainer specification: read as one with the last fields seen
    with pytest.raises(CorruptDataError, match="cut short"):
        load_tokenizer(noted)
    at = body.rindex(b"\x12", 0, body.rindex(b"identity") - 4)
    spec = bytes([body[at + 1] + 6])
    noted.write_bytes(body[:at] + b"\x12" + spec + b"\x12\x04/tmp" + body[at + 2 :])  # field 2: model_prefix
    assert load_tokenizer(noted).fingerprint == load_tokenizer(DATA / "bpe.model").fingerprint


# --- EOS, BOS, control tokens


def side_file(folder: Path, hole: bool = False, merged: Sequence[bytes] = (), **side: Any) -> Path:
    """Write the small rank file and its side file, with fields replaced, tokens added or a rank left out."""
    rows = (DATA / "small.tiktoken").read_bytes().splitlines()
    rows += [base64.b64encode(token) + b" %d" % (len(rows) + place) for place, token in enumerate(merged)]
    if hole:
        rows[-1] = rows[-1].split()[0] + b" %d" % (len(rows) + 40)
    (folder / "small.tiktoken").write_bytes(b"\n".join(rows) + b"\n")
    plain = json.loads((DATA / "small.json").read_text())
    specials = {} if hole else {"<|endoftext|>": len(rows)} if merged else plain["special_tokens"]
    (folder / "small.json").write_text(json.dumps({**plain, "special_tokens": specials, **side}))
    return folder / "small.tiktoken"


def test_ends_are_found_named_or_asked_for(tmp_path: Path) -> None:
    assert (load_tokenizer(DATA / "bpe.model").eos_id, load_tokenizer(DATA / "bpe.model").bos_id) == (2, 1)
    ranks = load_tokenizer(DATA / "small.tiktoken")
    assert (ranks.eos_id, ranks.bos_id, ranks.vocab_size) == (598, 599, 600)
    swapped = load_tokenizer(DATA / "small.tiktoken", eos="<|startoftext|>", bos="<|endoftext|>")
    assert (swapped.eos_id, swapped.bos_id) == (599, 598)
    assert load_tokenizer(DATA / "byte_level.json", eos="<|fim|>").eos_id == 600
    with pytest.raises(RequestError, match=r"eos='<end>' is not a token of byte_level.json.*<\|endoftext\|>"):
        load_tokenizer(DATA / "byte_level.json", eos="<end>")
    with pytest.raises(RequestError, match="ordinary piece"):
        load_tokenizer(DATA / "bpe.model", eos="▁the")
    with pytest.raises(RequestError, match="ordinary piece"):
        load_tokenizer(DATA / "byte_level.json", eos="Ġwater")


def test_the_configuration_beside_a_tokenizer_json_names_its_ends(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((DATA / "byte_level.json").read_bytes())
    config = {"eos_token": {"content": "<|startoftext|>"}, "bos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    opened = load_tokenizer(tmp_path)
    assert (opened.eos_id, opened.bos_id) == (1, 1)
    assert set(vocabulary_files(tmp_path)) == {"tokenizer.json", "tokenizer_config.json"}


def test_a_vocabulary_without_an_end_says_so_when_one_is_needed(tmp_path: Path) -> None:
    opened = load_tokenizer(side_file(tmp_path, special_tokens={}))
    assert opened.eos_id is None
    assert opened.describe()["eos"] is None
    with pytest.raises(RequestError, match="small names no end-of-document token"):
        require_eos(opened)
    assert require_eos(load_tokenizer(DATA / "bpe.model")) == 2


def test_added_words_are_vocabulary_and_markers_are_text() -> None:
    for engine in ("auto", "reference"):
        opened = load_tokenizer(DATA / "byte_level.json", engine=engine)
        assert ids(opened, "|||PHONE|||") == [601]  # an added word, unflagged: a step may write it into text
        assert 600 not in ids(opened, "<|fim|>")  # unflagged, but a marker
        assert opened.decode([600]) == "<|fim|>"


def test_user_defined_markers_of_sentencepiece_are_text(tmp_path: Path) -> None:
    import sentencepiece

    target = tmp_path / "marked.model"
    with target.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["some words of text to train on"] * 9),
            model_writer=writer,
            vocab_size=300,
            model_type="bpe",
            byte_fallback=True,
            user_defined_symbols=["<|endoftext|>", "PHONE"],
            control_symbols=["<mask>"],
            eos_id=-1,
            hard_vocab_limit=False,
            minloglevel=3,
        )
    opened = load_tokenizer(target)
    names = opened._definition.control
    assert set(names) == {"<s>", "<mask>", "<|endoftext|>"}
    assert opened.eos_id == names["<|endoftext|>"]
    assert not set(names.values()) & set(ids(opened, "<|endoftext|> <mask> <s>"))
    assert len(ids(opened, "PHONE")) == 2  # the word, after a space
    assert load_tokenizer(target, eos="PHONE").eos_id not in ids(load_tokenizer(target, eos="PHONE"), "PHONE")


def test_a_vocabulary_in_which_text_becomes_a_control_token_is_refused(tmp_path: Path) -> None:
    flags = ("normalized", "single_word", "lstrip", "rstrip")
    file = {
        "added_tokens": [{"id": 1, "content": "[EOS]", "special": True} | dict.fromkeys(flags, False)],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "[EOS]": 1, "water": 2}, "unk_token": "[UNK]"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(RequestError, match=r"'\[EOS\]' becomes the control token"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(("last", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_ids_are_uint16_up_to_65536_of_them(last: int, dtype: type, tmp_path: Path) -> None:
    opened = load_tokenizer(side_file(tmp_path, special_tokens={"<|endoftext|>": last}))
    assert (opened.vocab_size, opened.eos_id, opened.dtype) == (last + 1, last, np.dtype(dtype))
    assert opened.encode(pa.array(["water"])).type == pa.list_(pa.from_numpy_dtype(dtype))
    with pytest.raises(RequestError, match="leaves that id empty"):
        opened.decode([last - 1])


# --- files that are not what they should be


def one_sentence(error: BaseException) -> None:
    text = str(error)
    assert "\n" not in text
    assert 20 < len(text) < 500, text


MODEL = (DATA / "bpe.model").read_bytes()
JSON = (DATA / "byte_level.json").read_bytes()
RANKS = (DATA / "small.tiktoken").read_bytes()


@pytest.mark.parametrize(
    ("name", "body", "kind"),
    [
        ("a.model", b"", InputError),
        ("a.model", b" \n", InputError),
        ("a.model", b"PK\x03\x04 a zip", InputError),
        ("a.model", bytes(range(256)), InputError),
        ("a.model", b"#version: 0.2\n\xc4\xa0 t\n", InputError),
        ("tokenizer.json", b'{"version": 1}', InputError),
        ("a.model", MODEL[:3000], CorruptDataError),
        ("a.model", MODEL[:-20], CorruptDataError),
        ("a.model", MODEL[:600] + b"\xff" * 40 + MODEL[640:], CorruptDataError),
        ("tokenizer.json", JSON[:2000], CorruptDataError),
        ("tokenizer.json", b'{"model": {"vocab": 7}}', CorruptDataError),
        ("tokenizer.json", b'{"model": {"vocab": {}}}', CorruptDataError),
        ("tokenizer.json", b'{"model": {"vocab": [["a"]]}}', CorruptDataError),
        ("tokenizer.json", b'{"model": {"type": "New", "vocab": {"a": 0}}}', CorruptDataError),
        ("small.tiktoken", RANKS[:3000] + b"what\n" + RANKS[3000:], CorruptDataError),
        ("small.tiktoken", RANKS[40:], CorruptDataError),
        ("small.tiktoken", RANKS + b"d2F0ZXJ3YXRlcg== 5\n", CorruptDataError),
    ],
)
def test_damaged_and_foreign_files_are_named(name: str, body: bytes, kind: type[Exception], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(body)
    (tmp_path / "small.json").write_bytes((DATA / "small.json").read_bytes())
    with pytest.raises(kind) as caught:
        load_tokenizer(tmp_path / name)
    one_sentence(caught.value)
    assert name in str(caught.value)


def test_a_path_that_is_wrong_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no vocabulary file at .*none.model") as caught:
        load_tokenizer(tmp_path / "none.model")
    one_sentence(caught.value)
    with pytest.raises(InputError, match=r"folder with 0 vocabulary files"):
        load_tokenizer(tmp_path)
    with pytest.raises(
        InputError, match=r"folder with 3 vocabulary files \(bpe.model, small.tiktoken, unigram.model\)"
    ):
        load_tokenizer(DATA)
    with pytest.raises(InputError, match="cannot read the vocabulary file nowhere://x"):
        load_tokenizer("nowhere://x/tokenizer.json")
    assert load_tokenizer(f"file://{DATA}/bpe.model").eos_id == 2


def test_a_rank_file_needs_a_pattern(tmp_path: Path) -> None:
    path = side_file(tmp_path)
    (tmp_path / "small.json").unlink()
    with pytest.raises(
        RequestError, match=r"without a known split pattern.*cl100k_base.*put small.json beside it"
    ) as caught:
        load_tokenizer(path)
    one_sentence(caught.value)
    (tmp_path / "gpt2.tiktoken").write_bytes(path.read_bytes())  # known by its name; 50256 is the id of its end
    assert load_tokenizer(tmp_path / "gpt2.tiktoken").eos_id == 50_256
    with pytest.raises(RequestError, match=r"special token '<x>' .* has the id 5, which is not free"):
        load_tokenizer(side_file(tmp_path, special_tokens={"<x>": 5}))
    with pytest.raises(RequestError, match="does not compile"):
        load_tokenizer(side_file(tmp_path, pattern="(unclosed"))


# --- training


CORPUS = [
    f"the water of {place} falls through pipe {place * 7} and turns\n\n  the turbine, Größe {chr(0x4E00 + place % 60)}"
    for place in range(300)
]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_gives_the_same_bytes_in_every_process(kind: Any, tmp_path: Path) -> None:
    body = train_sentencepiece(CORPUS, 350, model_type=kind)
    assert train_sentencepiece((text for text in CORPUS), 350, model_type=kind) == body
    code = (
        "import sys, json, hashlib; from penstock.tokenizer.train import train_sentencepiece as train;"
        "print(hashlib.sha256(train(json.load(sys.stdin), 350, model_type=sys.argv[1])).hexdigest())"
    )
    import hashlib

    done = subprocess.run(
        [sys.executable, "-c", code, kind],
        input=json.dumps(CORPUS),
        env={**os.environ, "PYTHONHASHSEED": "99", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256(body).hexdigest()
    assert done.stderr == ""
    assert b"/" not in body.rpartition(b"identity")[2]


def test_a_trained_vocabulary_is_what_its_docstring_says(tmp_path: Path) -> None:
    info = train(iter(CORPUS), tmp_path / "mine.model", 460)
    assert info == describe(tmp_path / "mine.model")
    expected = {"format": "sentencepiece", "model": "bpe", "vocab_size": 460, "dtype": "uint16", "unknown_id": 0}
    assert info.items() >= {**expected, "bos_id": 1, "eos_id": 2, "name": "mine.model"}.items()
    opened = load_tokenizer(tmp_path / "mine.model")
    for text in ("x² ＡＢＣ ﬁ  two  spaces", "\ttab\r\n\n\n", "unseen ✊🏽 Ж", "    indented", "\x00"):
        assert opened.decode(ids(opened, text)) == text
    assert ids(opened, "12") == ids(opened, "1") + ids(opened, "12")[-1:]  # a digit is a piece
    assert all(3 <= place < 460 for place in ids(opened, "unseen ✊🏽 Ж"))


def test_the_end_of_a_long_line_is_trained_on_too(tmp_path: Path) -> None:
    train([*CORPUS, "a " * 60_000 + "qzqzqz " * 900], tmp_path / "long.model", 400)
    assert len(ids(load_tokenizer(tmp_path / "long.model"), "qzqzqz")) < 4


def test_too_little_or_too_varied_text_names_the_size_that_works() -> None:
    with pytest.raises(
        RequestError, match=r"too few for 5,000 pieces: give more text, or a vocab_size of at most"
    ) as few:
        train_sentencepiece(CORPUS[:40], 5_000)
    most = int(str(few.value).rpartition(" ")[2].replace(",", ""))
    assert 300 < most < 5_000
    assert len(train_sentencepiece(CORPUS[:40], most)) > 1_000
    with pytest.raises(
        RequestError, match=r"more characters than 300 pieces hold: give a vocab_size of at least"
    ) as many:
        train_sentencepiece(CORPUS, 300, character_coverage=1.0)
    least = int(str(many.value).partition("at least ")[2].partition(",")[0])
    assert len(train_sentencepiece(CORPUS, least, character_coverage=1.0)) > 1_000


@pytest.mark.parametrize(
    ("texts", "size", "how", "match"),
    [
        ([], 400, {}, "no text to train"),
        (["", "\n\n"], 400, {}, "no text to train"),
        (CORPUS, 259, {}, "vocab_size=259 leaves no piece"),
        (CORPUS, 400, {"model_type": "word"}, "neither bpe nor unigram"),
        (CORPUS, 400, {"character_coverage": 1.5}, "not in"),
    ],
)
def test_training_that_cannot_be_is_refused(texts: list[str], size: int, how: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        train_sentencepiece(texts, size, **how)
    one_sentence(caught.value)


def test_what_the_texts_raise_comes_through() -> None:
    def broken() -> Iterator[str]:
        yield from CORPUS
        raise penstock.StoreError("the store is gone")

    with pytest.raises(penstock.StoreError, match="the store is gone"):
        train_sentencepiece(broken(), 400)


def test_importing_the_room_imports_no_library() -> None:
    code = (
        "import sys, penstock.tokenizer; "
        "print([n for n in ('sentencepiece', 'tokenizers', 'tiktoken', 'fastokens', 'pyarrow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
