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
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from penstock import InputError, RequestError
from penstock.transforms.kernels.fasttext import exp, log, new_memo, predict
from penstock.transforms.kernels.fasttext_model import DIM, FastTextModel, read_model
from penstock.transforms.language import LID_176, LanguageId
from penstock.transforms.step import utf8_buffers

LINES = (Path(__file__).parent / "data" / "language.jsonl").read_text("utf-8").split("\n")
GOLDEN = [json.loads(line) for line in LINES if line]
TEXTS = [record["text"] for record in GOLDEN]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def lid() -> FastTextModel:
    return read_model(LID_176.read_bytes(), "lid.176.ftz")


def answers(model: FastTextModel, texts: Sequence[str | None], memo_bits: int = 14) -> list[tuple[str | None, float]]:
    numbers, scores = predict(*utf8_buffers(pa.array(texts, pa.string())), model.tables, new_memo(memo_bits))
    return [(model.labels[n] if n >= 0 else None, s) for n, s in zip(numbers.tolist(), scores.tolist(), strict=True)]


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
    words += [bytes(lid.tables.names[a:b]).decode() for a, b in pairwise(lid.tables.starts)]
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


@dataclass
class Toy:
    """A model with random weights, as fastText writes it: dense, or quantised (one centroid a row) where pruned."""

    words: list[bytes]
    labels: list[bytes]
    minn: int = 2
    maxn: int = 4
    bucket: int = 97
    pruned: dict[int, int] | None = None
    version: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        rows = len(self.words) + (self.bucket if self.pruned is None else len(self.pruned))
        self.input = generator.normal(size=(rows, DIM)).astype("<f4")
        self.output = generator.normal(size=(len(self.labels), DIM)).astype("<f4")
        self.counts = sorted((int(count) for count in generator.integers(1, 999, len(self.labels))), reverse=True)

    def body(self, **args: int) -> bytes:
        values = {"dim": DIM, "ws": 5, "epoch": 1, "min_count": 1, "neg": 5, "word_ngrams": 1, "loss": 1, "model": 3}
        values |= {"bucket": self.bucket, "minn": self.minn, "maxn": self.maxn, "lr": 100, **args}
        entries = [*zip(self.words, [5] * len(self.words), [0] * len(self.words), strict=True)]
        entries += zip(self.labels, self.counts, [1] * len(self.labels), strict=True)
        pairs = self.pruned or {}
        return b"".join(
            [
                struct.pack("<ii12id", 793712314, self.version, *values.values(), 1e-4),
                struct.pack("<iii", len(entries), len(self.words), len(self.labels)),
                struct.pack("<qq", 1_000, -1 if self.pruned is None else len(pairs)),
                *(name + b"\0" + struct.pack("<qb", count, kind) for name, count, kind in entries),
                *(struct.pack("<ii", *pair) for pair in pairs.items()),
                self.quantised() if self.pruned is not None else self.dense(self.input),
                self.dense(self.output),
            ]
        )

    def dense(self, matrix: NDArray[np.float32]) -> bytes:
        return struct.pack("<?qq", False, *matrix.shape) + matrix.tobytes()

    def quantised(self) -> bytes:
        """Parts of 3 numbers, the last of 1, over rows halved, with norms of 2."""
        rows = len(self.input)
        centroids = np.zeros((256, DIM), "<f4")
        centroids[:rows] = self.input / 2
        codes = bytes(row for row in range(rows) for _ in range(6))
        parts = b"".join(centroids[:, at : at + 3].tobytes() for at in range(0, DIM, 3))
        norms = np.full(256, 2, "<f4").tobytes()
        head = struct.pack("<??qqi", True, True, rows, DIM, len(codes))
        tail = bytes(rows) + struct.pack("<iiii", 1, 1, 1, 1) + norms
        return head + codes + struct.pack("<iiii", DIM, 6, 3, 1) + parts + tail

    def hidden(self, text: str) -> NDArray[np.float64] | None:
        rows: list[int] = []
        tokens = [token for token in re.split(b"[\0\t\n\v\f\r ]+", text.encode()) if token]
        for token in [*tokens, b"</s>"]:
            if token in self.words:
                rows.append(self.words.index(token))
            elif token in self.labels or token.startswith(b"__label__"):
                continue
            if token == b"</s>":
                break
            rows += self.ngrams("<" + token.decode() + ">")
        return self.input[rows].astype(float).mean(axis=0) if rows else None

    def ngrams(self, word: str) -> list[int]:
        rows = []
        for start in range(len(word)):
            for n in range(self.minn, (0 if self.version == 11 else self.maxn) + 1):
                gram = word[start : start + n]
                if len(gram) < n or n == 0 or (gram in ("<", ">") and start in (0, len(word) - 1)):
                    continue
                value = 2166136261
                for byte in gram.encode():
                    value = (value ^ (byte - 256 if byte > 127 else byte) & 0xFFFFFFFF) * 16777619 % 2**32
                bucket = value % self.bucket
                if self.pruned is None:
                    rows.append(len(self.words) + bucket)
                elif bucket in self.pruned:
                    rows.append(len(self.words) + self.pruned[bucket])
        return rows

    def answer(self, text: str) -> tuple[str | None, float]:
        """The likeliest leaf of all, each path multiplied out."""
        hidden = self.hidden(text)
        if hidden is None:
            return None, 0.0
        nodes: list[tuple[float, object]] = [(count, number) for number, count in enumerate(self.counts)]
        leaves = nodes[::-1]
        inner: list[tuple[float, object]] = []
        for number in range(len(self.labels) - 1):
            pair = []
            for _ in range(2):
                take = leaves if leaves and (not inner or leaves[0][0] < inner[0][0]) else inner
                pair.append(take.pop(0))
            inner.append((pair[0][0] + pair[1][0], (number, pair[0][1], pair[1][1])))
        paths: list[tuple[float, int]] = []
        waiting: list[tuple[float, object]] = [(1.0, (inner or leaves)[0][1])]
        while waiting:
            share, node = waiting.pop()
            if isinstance(node, tuple):
                right = 1 / (1 + math.exp(-float(self.output[node[0]] @ hidden)))
                waiting += [(share * (1 - right + 1e-5), node[1]), (share * (right + 1e-5), node[2])]
            else:
                paths.append((share, node))  # type: ignore[arg-type]
        share, best = max(paths)
        return self.labels[best].decode().removeprefix("__label__"), share


NAMES = [f"__label__{name}".encode() for name in ("de", "en", "fr", "it", "ja", "ru", "zh")]
WORDS = ["</s>", "the", "und", "ça", "__label__in", "漢字", "averyveryverylongwordofmorethan32bytes", "a"]
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
}


@pytest.mark.parametrize("name", TOYS)
def test_other_models_of_the_kind(name: str, tmp_path: Path) -> None:
    toy = TOYS[name]
    model = read_model(toy.body(), name)
    generator = random.Random(4)
    words = [*WORDS, "yes", "no", "x", "__label__de", "__label__oops", "é", "<", ">", "<>", "ab", "абвг", "q\u0002"]
    words += ["w" * 31, "w" * 32, "ж" * 40, "long" * 300]
    texts = ["", " ", *(" ".join(generator.choices(words, k=generator.randrange(1, 6))) for _ in range(300))]
    for text, (label, score) in zip(texts, answers(model, texts), strict=True):
        expected, share = toy.answer(text)
        assert label == expected, text
        assert score == pytest.approx(share, rel=2e-5)
    if importlib.util.find_spec("fasttext"):
        (tmp_path / "toy.bin").write_bytes(toy.body())
        compare(importlib.import_module("fasttext").load_model(str(tmp_path / "toy.bin")), model, texts)


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
    numbers, scores = predict(*utf8_buffers(texts), lid.tables, new_memo())
    assert numbers[0] == numbers[1]
    assert scores[0] == scores[1]


def test_own_exponential_and_logarithm() -> None:
    for x in np.random.default_rng(0).uniform(-80, 80, 20_000):
        assert exp(x) == pytest.approx(math.exp(x), rel=1e-13)
    for x in np.exp(np.random.default_rng(1).uniform(-12, 1, 20_000)):
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
    "cut in an entry": (BODY[:92] + b"no end", "an entry of the dictionary that starts at byte 92 does not end"),
    "cut at the end": (BODY[:-1], "left"),
    "too long": (BODY + b"\0", f"it ends at byte {len(BODY)} by its own account, and has {len(BODY) + 1}"),
    "skipgram": (TOYS["dense"].body(model=2), "it is a skipgram model, and only supervised ones have labels"),
    "softmax": (TOYS["dense"].body(loss=3), "it was trained with softmax; only hierarchical softmax is supported"),
    "unknown loss": (TOYS["dense"].body(loss=9), "it was trained with 9;"),
    "dimension": (TOYS["dense"].body(dim=100), "its dim is 100; only 16 is supported"),
    "word n-grams": (TOYS["dense"].body(word_ngrams=2), "its wordNgrams is 2; only 1 is supported"),
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
    for _ in range(400):
        body = bytearray(BODY)
        body[generator.randrange(400)] ^= 1 << generator.randrange(8)
        with suppress(RequestError):  # anything else fails
            assert len(answers(read_model(bytes(body), "flipped"), ["the und a </s>", "ça"])) == 2
