"""Language identification against the fastText library's answers, and against a slow reading of its rules."""

from __future__ import annotations

import importlib.util
import json
import math
import pickle
import random
import re
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fasttext_files import NS, OVA, SOFTMAX, Toy
from pydantic import ValidationError

from penstock import InputError, RequestError
from penstock.transforms import labeller as labeller_module
from penstock.transforms.kernels import fasttext, fasttext_wide
from penstock.transforms.kernels.fasttext_model import FastTextModel, read_model
from penstock.transforms.kernels.floats import exp, log
from penstock.transforms.labeller import Labeller, labeller
from penstock.transforms.language import LID_176, LanguageId
from penstock.transforms.step import utf8_buffers

LINES = (Path(__file__).parent / "data" / "language.jsonl").read_text("utf-8").split("\n")
GOLDEN = [json.loads(line) for line in LINES if line]
TEXTS = [record["text"] for record in GOLDEN]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def lid() -> FastTextModel:
    return read_model(LID_176.read_bytes(), "lid.176.ftz")


Answers = list[tuple[str | None, float]]


def answers(model: FastTextModel, texts: Sequence[str | None], memo_bits: int = 14) -> Answers:
    return [row[0] if row else (None, 0.0) for row in ranked(model, texts, 1, memo_bits)]


def ranked(
    model: FastTextModel, texts: Sequence[str | None], top: int, memo_bits: int = 14, narrow: bool | None = None
) -> list[list[tuple[str, float]]]:
    """Label texts: the likeliest first."""
    buffers = utf8_buffers(pa.array(texts, pa.string()))
    if model.narrow if narrow is None else narrow:
        numbers, scores = fasttext.predict(*buffers, model.tables, fasttext.new_memo(memo_bits), top)
    else:
        numbers, scores = fasttext_wide.predict(*buffers, model, fasttext_wide.new_memo(model), top)
    rows = zip(numbers.tolist(), scores.tolist(), strict=True)
    return [[(model.labels[n], s) for n, s in zip(*row, strict=True) if n >= 0] for row in rows]


def batch(texts: Sequence[str | None]) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(texts, pa.string())})


# What the library says


def test_labels_and_scores_are_the_librarys(lid: FastTextModel) -> None:
    for record, (label, score) in zip(GOLDEN, answers(lid, TEXTS), strict=True):
        assert label == record["language"], record["text"]
        assert score == pytest.approx(record["score"], abs=5e-5)


@pytest.mark.skipif(not (SHARED / "langid_dev.jsonl.zst").exists(), reason="the shared data is not here")
def test_development_passages_are_the_librarys(lid: FastTextModel) -> None:
    library = pytest.importorskip("fasttext").load_model(str(LID_176))
    zstandard = pytest.importorskip("zstandard")
    lines = zstandard.ZstdDecompressor().stream_reader((SHARED / "langid_dev.jsonl.zst").open("rb")).read().split(b"\n")
    texts = [json.loads(line)["text"] for line in lines if line][::5]
    compare(library, lid, texts)


def test_random_mixes_are_the_librarys(lid: FastTextModel) -> None:
    library = pytest.importorskip("fasttext").load_model(str(LID_176))
    generator = random.Random(0)
    words = [word for text in TEXTS for word in text.split(" ") if len(word) < 60]
    words += [bytes(lid.tables.names[a:b]).decode() for a, b in zip(lid.tables.starts, lid.tables.ends, strict=True)]
    characters = "aZ09 é\u00a0яß漢字かな한שم👩\u0301\u0001\t\x0b\x00\r\f<>_/s"
    counts = [generator.randrange(9) for _ in range(3_000)]
    texts = ["".join(generator.choice(words) + generator.choice(" \t\n") for _ in range(count)) for count in counts]
    texts += ["".join(generator.choices(characters, k=generator.randrange(60))) for _ in range(3_000)]
    compare(library, lid, texts)


def compare(library: object, model: FastTextModel, texts: list[str]) -> None:
    for text, (label, score) in zip(texts, answers(model, texts), strict=True):
        found = library.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")  # type: ignore[attr-defined]
        assert label == (found[0][1].removeprefix("__label__") if found else None), text
        assert score == pytest.approx(found[0][0] if found else 0.0, abs=5e-5)


# Models made here, and a slow reader of them


NAMES = [f"__label__{name}".encode() for name in ("de", "en", "fr", "it", "ja", "ru", "zh")]
WORDS = ["</s>", "the", "und", "ça", "__label__in", "漢字", "averyveryverylongwordofmorethan32bytes", "a"]
WORD_BYTES = [word.encode() for word in WORDS]
TOYS = {
    "dense": Toy([word.encode() for word in WORDS], NAMES),
    "pruned": Toy([word.encode() for word in WORDS], NAMES, pruned={3 * n + 2: 31 - n for n in range(32)}, seed=1),
    "single characters": Toy([b"</s>", b"x"], NAMES, minn=1, maxn=3, seed=2),
    "words alone": Toy([word.encode() for word in WORDS], NAMES, maxn=0, seed=3),
    "version 11": Toy([word.encode() for word in WORDS], NAMES, version=11, seed=4),
    "every n-gram pruned": Toy([word.encode() for word in WORDS], NAMES, pruned={}, seed=5),
    "no end of sentence": Toy([b"the", b"und"], NAMES, pruned={}, seed=6),
    "two labels, odd names": Toy([b"</s>"], [b"yes", b"no"], seed=7),
    "one label": Toy([b"</s>"], [b"__label__x"], seed=8),
    "other dimensions": Toy(WORD_BYTES, NAMES, dim=37, seed=9),
    "wide and quantised": Toy(WORD_BYTES, NAMES, dim=20, quantised=True, output_quantised=True, seed=10),
    "wide and pruned": Toy(WORD_BYTES, NAMES, dim=20, pruned={3 * n + 2: 31 - n for n in range(32)}, seed=11),
    "softmax": Toy(WORD_BYTES, NAMES, loss=SOFTMAX, seed=12),
    "wide softmax": Toy(WORD_BYTES, NAMES, loss=SOFTMAX, dim=8, minn=3, maxn=6, seed=13),
    "word bigrams": Toy(WORD_BYTES, NAMES[:2], loss=SOFTMAX, dim=100, maxn=0, word_ngrams=2, seed=14),
    "word n-grams and subwords": Toy(WORD_BYTES, NAMES, dim=16, word_ngrams=4, seed=15),
    "pruned word bigrams": Toy(
        WORD_BYTES, NAMES, dim=10, maxn=0, word_ngrams=2, pruned={3 * n: n for n in range(30)}, seed=16
    ),
    "one-vs-all": Toy(WORD_BYTES, NAMES, loss=OVA, scale=9.0, seed=17),
    "negative sampling": Toy(WORD_BYTES, NAMES, loss=NS, dim=33, maxn=0, scale=3.0, seed=18),
}


def mixes(count: int, seed: int = 4) -> list[str]:
    generator = random.Random(seed)
    words = [*WORDS, "yes", "no", "x", "__label__de", "__label__oops", "é", "<", ">", "<>", "ab", "абвг", "q\u0002"]
    words += ["w" * 31, "w" * 32, "ж" * 40, "long" * 300]
    return ["", " ", *(" ".join(generator.choices(words, k=generator.randrange(1, 6))) for _ in range(count))]


@pytest.mark.parametrize("name", TOYS)
def test_models_of_every_kind(name: str, tmp_path: Path) -> None:
    toy = TOYS[name]
    model = read_model(toy.body(), name)
    texts = mixes(60)
    stepped = toy.loss in (NS, OVA)
    for text, (label, score) in zip(texts, answers(model, texts), strict=True):
        expected, share = toy.answer(text)
        if stepped and label != expected:  # many labels score alike
            assert label is not None
            assert (toy.shares(text) or {})[label] == share, text
        else:
            assert label == expected, text
        assert score == pytest.approx(share, rel=5e-5, abs=1e-6)
    if importlib.util.find_spec("fasttext"):
        (tmp_path / "toy.bin").write_bytes(toy.body())
        library = importlib.import_module("fasttext").load_model(str(tmp_path / "toy.bin"))
        compare(library, model, texts)
        for text, row in zip(texts, ranked(model, texts, 3), strict=True):
            found = library.f.predict(text + "\n", 3, 0.0, "strict")
            assert [label for label, _ in row] == [label.removeprefix("__label__") for _, label in found]
            assert [score for _, score in row] == pytest.approx([score for score, _ in found], abs=5e-5)


@pytest.mark.parametrize("name", TOYS)
def test_every_label_has_its_score(name: str, tmp_path: Path) -> None:
    toy = TOYS[name]
    texts = mixes(12, seed=5)
    (tmp_path / "toy.bin").write_bytes(toy.body())
    loaded = labeller(tmp_path / "toy.bin")
    buffers = utf8_buffers(pa.array(texts, pa.string()))
    numbers, scores = loaded.top(*buffers, top=99)
    assert numbers.shape == (len(texts), len(toy.labels))
    alone = np.column_stack([loaded.score(*buffers, number) for number in range(len(toy.labels))])
    for row, text in enumerate(texts):
        shares = toy.shares(text) or {}
        for number, label in enumerate(loaded.labels):
            share = shares.get(label, 0.0)
            if share > 1.01e-5:  # a tree's path below 1e-5 is not followed
                assert alone[row, number] == pytest.approx(share, rel=2e-4, abs=1e-6)
            if number in numbers[row]:
                assert alone[row, number] == scores[row, list(numbers[row]).index(number)]
            else:
                assert alone[row, number] == 0.0
        assert (np.diff(scores[row]) <= 0).all()
    few, fewer = loaded.top(*buffers, top=3)
    assert (few == numbers[:, :3]).all() or toy.loss in (NS, OVA)
    assert (fewer == scores[:, :3]).all()


@pytest.mark.parametrize("name", ["dense", "pruned", "softmax"])
def test_both_kernels_read_a_model_of_sixteen_dimensions(name: str) -> None:
    model = read_model(TOYS[name].body(), name)
    texts = mixes(200, seed=6)
    for one, two in zip(ranked(model, texts, 7, narrow=True), ranked(model, texts, 7, narrow=False), strict=True):
        assert dict(one) == pytest.approx(dict(two), abs=1e-5)


def test_a_threshold_leaves_out_what_is_below() -> None:
    for name in ("dense", "softmax", "one-vs-all", "other dimensions"):
        toy = TOYS[name]
        model = Labeller(toy.body(), name)
        buffers = utf8_buffers(pa.array(mixes(50), pa.string()))
        every, scores = model.top(*buffers, top=7)
        some, some_scores = model.top(*buffers, top=7, threshold=0.2)
        for row in range(len(every)):
            kept = [number for number, score in zip(every[row], scores[row], strict=True) if score >= 0.20001]
            assert sorted(some[row][some[row] >= 0]) == sorted(kept)
            assert (some_scores[row][some[row] < 0] == 0).all()


def test_a_large_model_is_mapped_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = utf8_buffers(pa.array(mixes(100), pa.string()))
    for number, name in enumerate(("dense", "word bigrams", "wide and quantised", "wide and pruned")):
        for shift in range(4):  # wherever the rows begin in the file
            toy = replace(TOYS[name], words=[*WORD_BYTES, b"~" * (shift + 1)])
            path = tmp_path / f"{number}{shift}.bin"
            path.write_bytes(toy.body())
            whole = labeller(path).top(*texts)
            with monkeypatch.context() as patch:
                patch.setattr(labeller_module, "READ_WHOLE", 0)
                labeller_module._load.cache_clear()
                mapped = labeller(path)
                assert all(np.array_equal(a, b) for a, b in zip(mapped.top(*texts), whole, strict=True))
                assert mapped.sha256 == sha256(path.read_bytes()).hexdigest()


def test_quantised_rows_are_read_as_codes_where_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.transforms.kernels import fasttext_model

    texts = mixes(100)
    for name in ("wide and quantised", "wide and pruned", "pruned word bigrams"):
        model = read_model(TOYS[name].body(), name)
        monkeypatch.setattr(fasttext_model, "_MULTIPLIED_OUT", 0)
        coded = read_model(TOYS[name].body(), name)
        monkeypatch.undo()
        assert len(coded.tables.codes)
        assert not len(model.tables.codes)
        assert ranked(coded, texts, 3) == ranked(model, texts, 3)


# Whatever the batch, the thread, the memo


def test_scores_do_not_depend_on_the_memo(lid: FastTextModel) -> None:
    expected = answers(lid, TEXTS)
    for bits in (1, 2, 5, 16):
        assert answers(lid, TEXTS, bits) == expected
    order = random.Random(0).sample(range(len(TEXTS)), len(TEXTS))
    assert answers(lid, [TEXTS[row] for row in order]) == [expected[row] for row in order]
    assert [answers(lid, [text])[0] for text in TEXTS] == expected


def test_slices_and_types_see_their_own_rows() -> None:
    whole = batch(TEXTS)
    step = LanguageId()
    expected = step.apply(whole).batch
    assert step.apply(whole.slice(31, 77)).batch.equals(expected.slice(31, 77))
    large = pa.record_batch({"text": whole.column(0).cast(pa.large_string())}).slice(31, 77)
    assert step.apply(large).batch.column("language_score").equals(expected.slice(31, 77).column("language_score"))


def test_threads_share_a_model() -> None:
    batches = [batch(TEXTS[start:]) for start in range(40)]
    step = LanguageId()
    alone = [step.apply(part).batch for part in batches]
    with ThreadPoolExecutor(4) as pool:
        assert all(one.equals(two.batch) for one, two in zip(alone, pool.map(step.apply, batches), strict=True))


def test_a_word_of_a_megabyte_and_a_text_of_many(lid: FastTextModel) -> None:
    (long, blank, many) = answers(lid, ["é" * 500_000, " " * 1_000_000 + "hello", "das ist ein Haus\n" * 60_000])
    assert 0 < long[1] <= 1.0
    assert blank == answers(lid, ["hello"])[0]
    assert many[0] == "de"


@pytest.mark.parametrize("body", [b"\xff\xfe", b"caf\xc3", b"\xe6\xbc", b"\x80\x80 \x80", b"\xf0\x9f\x91"])
def test_bytes_that_are_not_utf8_do_no_harm(lid: FastTextModel, body: bytes) -> None:
    offsets = np.array([0, len(body), 2 * len(body)], np.int32)
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(body * 2))
    numbers, scores = fasttext.predict(*utf8_buffers(texts), lid.tables, fasttext.new_memo(), 2)
    assert numbers[0].tolist() == numbers[1].tolist()
    assert scores[0].tolist() == scores[1].tolist()


def test_own_exponential_and_logarithm() -> None:
    for x in np.random.default_rng(0).uniform(-80, 80, 4_000):
        assert exp(x) == pytest.approx(math.exp(x), rel=1e-13)
    for x in np.exp(np.random.default_rng(1).uniform(-12, 1, 4_000)):
        assert log(x) == pytest.approx(math.log(x), rel=1e-12, abs=1e-15)
    assert (exp(0.0), log(1.0)) == (1.0, 0.0)


# The step


def test_columns_and_reasons() -> None:
    texts = ["Das ist ein deutscher Satz über Wasser.", "This is an English sentence.", "ok", None]
    outcome = LanguageId(languages=("en", "fr"), minimum=0.5).apply(batch(texts))
    assert outcome.batch.schema.names == ["text", "language", "language_score"]
    assert outcome.batch.schema.types[1:] == [pa.string(), pa.float64()]
    assert outcome.batch.column("language").to_pylist()[:2] == ["de", "en"]
    assert outcome.reasons.to_pylist()[:2] == ["language_id/not_wanted", None]
    assert outcome.reasons[3].as_py() == "language_id/below_minimum"  # nothing but an end of line: English, 0.12
    assert outcome.batch.column("language_score")[3].as_py() == pytest.approx(0.1245, abs=1e-4)


def test_a_score_at_the_minimum_is_dropped() -> None:
    text = batch(["This is an English sentence."])
    score = LanguageId().apply(text).batch.column("language_score")[0].as_py()
    assert LanguageId(minimum=score).reasons(text).to_pylist() == ["language_id/below_minimum"]
    assert LanguageId(minimum=np.nextafter(score, 0)).reasons(text).to_pylist() == [None]


def test_decisions_can_be_replayed() -> None:
    step = LanguageId(languages=("de", "en"), minimum=0.65)
    outcome = step.apply(batch(TEXTS))
    names = ("language", "language_score")
    columns = {name: outcome.batch.column(name).to_numpy(zero_copy_only=False) for name in names}
    assert step.decide(columns).equals(outcome.reasons)
    assert set(outcome.reasons.to_pylist()) == {"language_id/not_wanted", "language_id/below_minimum", None}
    assert not any(LanguageId().reasons(batch(TEXTS)).to_pylist())


def test_the_likeliest_few_are_lists() -> None:
    step = LanguageId(top=3)
    outcome = step.apply(batch([*TEXTS[:50], None]))
    assert outcome.batch.schema.names == ["text", "language", "language_score", "languages", "language_scores"]
    assert outcome.batch.schema.types[3:] == [pa.list_(pa.string()), pa.list_(pa.float64())]
    assert outcome.batch.schema == step.apply(batch([])).batch.schema
    one = LanguageId().apply(batch([*TEXTS[:50], None])).batch
    assert outcome.batch.select(["text", "language", "language_score"]).equals(one)
    columns = [outcome.batch.column(name).to_pylist() for name in ("language", "languages", "language_scores")]
    for label, labels, scores in zip(*columns, strict=True):
        assert labels[0] == label
        assert 1 <= len(labels) == len(set(labels)) == len(scores) <= 3
        assert scores == sorted(scores, reverse=True)
    assert LanguageId(top=999).measure(batch(["x"]))["languages"][0]
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        LanguageId(top=0)


def test_scripts_are_those_of_most_characters() -> None:
    texts = [
        "Wo ist der Bahnhof?",
        "Привет, world мир",
        "東京は日本の首都です",
        "ひらがな",
        "123 …",
        None,
        "שלום",
        "한국어",
    ]
    texts += ["👩‍🔬", "ab αβγ", "ab αβ", "\x00e\u0301", "नमस्ते", "ⅷ"]
    outcome = LanguageId(script=True).apply(batch(texts))
    assert outcome.batch.schema.names == ["text", "language", "language_score", "script"]
    found = ["Latn", "Cyrl", "Hani", "Hira", None, None, "Hebr", "Hang", None, "Grek", "Grek", "Latn", "Deva", "Latn"]
    assert outcome.batch.column("script").to_pylist() == found
    assert outcome.batch.schema == LanguageId(script=True).apply(batch([])).batch.schema
    part = LanguageId(script=True).apply(batch(texts).slice(2, 3)).batch
    assert part.column("script").to_pylist() == found[2:5]


def test_a_language_stands_for_its_scripts(tmp_path: Path) -> None:
    labels = [f"__label__{name}".encode() for name in ("eng_Latn", "srp_Cyrl", "srp_Latn", "zho_Hani", "roa_tara")]
    toy = Toy(WORD_BYTES, labels, loss=SOFTMAX, dim=24, scale=4.0)
    (tmp_path / "glot.bin").write_bytes(toy.body())
    model = str(tmp_path / "glot.bin")
    rows = batch(mixes(60))
    named = LanguageId(model=model).apply(rows).batch.column("language").to_pylist()
    assert set(named) == {label.decode().removeprefix("__label__") for label in labels}
    for wanted in (("srp",), ("srp_Latn", "eng"), ("roa_tara",)):
        kept = [reason is None for reason in LanguageId(model=model, languages=wanted).reasons(rows).to_pylist()]
        assert kept == [label in wanted or label[:3] in wanted for label in named]
    for unknown in ("roa", "srp_", "en"):
        with pytest.raises(ValidationError, match="the model knows 5"):
            LanguageId(model=model, languages=(unknown,))


def test_a_language_that_stands_in_the_batch_is_replaced() -> None:
    rows = pa.record_batch({"language": pa.array(["xx"]), "text": pa.array(["Das ist ein deutscher Satz."])})
    found = LanguageId().apply(rows).batch
    assert found.schema.names == ["language", "text", "language_score"]
    assert found.column("language").to_pylist() == ["de"]


def test_no_rows() -> None:
    outcome = LanguageId(languages=("de",)).apply(batch([]))
    assert outcome.batch.schema.names == ["text", "language", "language_score"]
    assert len(outcome.reasons) == 0


def test_a_text_of_which_the_model_knows_nothing(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(TOYS["no end of sentence"].body())
    outcome = LanguageId(model=str(tmp_path / "toy.bin")).apply(batch(["zzz", "the"]))
    assert outcome.batch.column("language").to_pylist()[0] is None
    assert outcome.batch.column("language_score")[0].as_py() == 0.0
    assert outcome.reasons.to_pylist() == ["language_id/below_minimum", None]


def test_steps_are_values(tmp_path: Path) -> None:
    step = LanguageId(languages=("en",), minimum=0.65)
    assert pickle.loads(pickle.dumps(step)) == step
    assert LanguageId.model_validate(step.model_dump(mode="json")) == step
    assert step.fingerprint()["model"] == sha256(LID_176.read_bytes()).hexdigest()
    (tmp_path / "copy.ftz").write_bytes(LID_176.read_bytes())
    copy = LanguageId(languages=("en",), minimum=0.65, model=str(tmp_path / "copy.ftz"))
    assert copy.fingerprint() == step.fingerprint()
    (tmp_path / "copy.ftz").write_bytes(TOYS["dense"].body())
    assert copy.fingerprint()["model"] == sha256(TOYS["dense"].body()).hexdigest()


def test_the_shipped_model_is_the_one_its_licence_names() -> None:
    licence = LID_176.with_name("lid.176.LICENSE.txt").read_text("utf-8")
    assert sha256(LID_176.read_bytes()).hexdigest() in licence
    assert "CC BY-SA 3.0" in licence


# What is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"minimum": 1.5}, "less than or equal to 1"),
        ({"minimum": -0.1}, "greater than or equal to 0"),
        ({"languages": ("english",)}, "the model knows 176: en, ru"),
        ({"languages": ()}, "the model knows 176"),
        ({"model": "/no/such/model.bin"}, "'/no/such/model.bin' cannot be read: No such file"),
        ({"threshold": 0.5}, "Extra inputs"),
    ],
)
def test_a_wrong_request(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        LanguageId(**fields)  # type: ignore[arg-type]


def test_a_model_that_has_gone(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(TOYS["dense"].body())
    step = LanguageId(model=str(tmp_path / "toy.bin"))
    (tmp_path / "toy.bin").unlink()
    with pytest.raises(InputError, match=r"toy\.bin' cannot be read"):
        step.apply(batch(["x"]))


BODY = TOYS["pruned"].body()
DAMAGED = {
    "empty": (b"", "the magic need 4 bytes from byte 0 on, and the file has 0 left"),
    "text": (b"not a model at all", "it starts with 6e6f7420 and not with ba164f2f"),
    "another version": (BODY[:4] + struct.pack("<i", 13) + BODY[8:], "its version is 13"),
    "cut in the dictionary": (BODY[:100], "left"),
    "cut in an entry": (BODY[:92] + b"no end", "need more than the"),
    "cut at the end": (BODY[:-1], "left"),
    "too long": (BODY + b"\0", f"it ends at byte {len(BODY)} by its own account, and has {len(BODY) + 1}"),
    "skipgram": (TOYS["dense"].body(model=2), "it is a skipgram model, and only supervised ones have labels"),
    "unknown loss": (TOYS["dense"].body(loss=9), "it was trained with loss 9;"),
    "no loss": (TOYS["dense"].body(loss=0), "it was trained with loss 0;"),
    "dimension": (TOYS["dense"].body(dim=100), "has 105 rows of 16; rows of 100 go with its settings"),
    "no dimension": (TOYS["dense"].body(dim=0), "its dim is 0"),
    "no buckets for words": (TOYS["dense"].body(word_ngrams=2, maxn=0, bucket=0), "its bucket is 0"),
    "no buckets": (TOYS["dense"].body(bucket=0), "its bucket is 0"),
    "endless n-grams": (TOYS["dense"].body(maxn=10**9), "its maxn is 1000000000"),
    "too many buckets": (TOYS["dense"].body(bucket=10**6), "rows are too few for 8 words and 1000000 n-grams"),
    "a bucket outside": (TOYS["pruned"].body(bucket=50), "outside of 0 to 50"),
    "no labels": (BODY[:64] + struct.pack("<iii", 8, 8, 0) + BODY[76:], "8 words and 0 labels"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_unsupported_model(name: str, tmp_path: Path) -> None:
    body, words = DAMAGED[name]
    path = tmp_path / "model.bin"
    path.write_bytes(body)
    with pytest.raises(RequestError, match=re.escape(words)) as error:
        read_model(body, str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(ValidationError, match=re.escape(words)):
        LanguageId(model=str(path))


def test_only_a_word_of_its_own_ends_a_text() -> None:
    """A control character is no separator to fastText, so `</s>` and it are one word, and the text goes on."""
    rest = "bonjour le monde, comment allez-vous aujourd'hui"
    batch = pa.record_batch({"text": [f"</s>\x01 {rest}", rest, f"</s> {rest}", "</s>"]})
    labels = LanguageId().apply(batch).batch.column("language").to_pylist()
    assert labels[:2] == ["fr", "fr"]
    assert labels[2] == labels[3]


def test_every_cut_of_a_model_is_refused_in_words() -> None:
    body = LID_176.read_bytes()
    for size in [*range(0, 400, 7), *range(400, len(body), 39_989), len(body) - 1]:
        with pytest.raises(RequestError, match="is not a usable fastText model"):
            read_model(body[:size], "cut")


def test_flipped_bytes_never_crash() -> None:
    generator = random.Random(0)
    for _ in range(200):
        body = bytearray(BODY)
        body[generator.randrange(400)] ^= 1 << generator.randrange(8)
        with suppress(RequestError):  # anything else fails
            assert len(answers(read_model(bytes(body), "flipped"), ["the und a </s>", "ça"])) == 2
