"""The quality classifier against a slow reader of its models, and its training, threshold and command line."""

from __future__ import annotations

import importlib.util
import json
import pickle
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fasttext_files import HS, OVA, SOFTMAX, Toy
from pydantic import ValidationError

from penstock import InputError, MissingExtraError, RequestError
from penstock.pipelines.classifier_data import held_out, key_of, line_of, smallest
from penstock.pipelines.classifier_fit import area, calibrate, row_of
from penstock.pipelines.cli import main
from penstock.pipelines.thresholds import thresholds
from penstock.transforms import QualityClassifier
from penstock.transforms.named import dump_step
from penstock.transforms.step import Step

WITH_FASTTEXT = importlib.util.find_spec("fasttext") is not None
LABELS = [b"__label__cc", b"__label__hq"]
WORDS = ["</s>", "the", "quality", "of", "mercy", "ça", "漢字", "__label__in", "a" * 40]
TOYS = {
    "dclm": Toy([word.encode() for word in WORDS], LABELS, loss=SOFTMAX, dim=100, maxn=0, scale=9.0),
    "bigrams": Toy([word.encode() for word in WORDS], LABELS, loss=SOFTMAX, dim=40, maxn=0, word_ngrams=2, seed=1),
    "a tree": Toy([word.encode() for word in WORDS], LABELS, loss=HS, dim=16, seed=2),
    "one-vs-all": Toy([word.encode() for word in WORDS], LABELS, loss=OVA, dim=16, seed=3, scale=3.0),
    "three labels": Toy([word.encode() for word in WORDS], [*LABELS, b"__label__x"], loss=SOFTMAX, dim=9, seed=4),
}
ODD = [
    "",
    " \n\n ",
    "mercy",
    "👩‍🔬",
    "漢字 漢字",
    "שלום עולם",
    "the\0quality",
    "x" * 1_000_000,
    "\n" * 999,
    "the\nquality of",
]


def batch(texts: Sequence[str | None], kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(texts, kind or pa.string())})


def mixes(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    words = [*WORDS[1:], "unknown", "é", "\u2028", "of\nof"]
    return [" ".join(generator.choices(words, k=generator.randrange(9))) for _ in range(count)]


@pytest.fixture
def step(tmp_path: Path) -> QualityClassifier:
    (tmp_path / "toy.bin").write_bytes(TOYS["bigrams"].body())
    return QualityClassifier(model=str(tmp_path / "toy.bin"), minimum=0.5)


def saved(name: str, folder: Path) -> str:
    (folder / "toy.bin").write_bytes(TOYS[name].body())
    return str(folder / "toy.bin")


# Scores


@pytest.mark.parametrize("name", TOYS)
def test_the_score_is_the_wanted_labels(name: str, tmp_path: Path) -> None:
    toy = TOYS[name]
    step = QualityClassifier(model=saved(name, tmp_path))
    texts = [*mixes(100), *ODD]
    for text, score in zip(texts, step.measure(batch(texts))["score"].tolist(), strict=True):
        if len(text) > 10_000:
            continue
        shares = toy.shares(text.replace("\n", " ")) or {}
        best = max(shares, key=lambda label: shares[label])
        expected = shares["hq"]
        if len(shares) == 2 and toy.loss != OVA:  # DCLM: of the likelier, or one minus it
            expected = shares["hq"] if best == "hq" else 1 - shares["cc"]
        assert score == pytest.approx(expected, abs=2e-6), text


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.skipif(not WITH_FASTTEXT, reason="fasttext is not installed")
def test_the_score_is_dclms_with_the_library(name: str, tmp_path: Path) -> None:
    library = importlib.import_module("fasttext").load_model(saved(name, tmp_path))
    step = QualityClassifier(model=saved(name, tmp_path))
    texts = mixes(200, seed=1)
    for text, score in zip(texts, step.measure(batch(texts))["score"].tolist(), strict=True):
        pairs = library.f.predict(text.replace("\n", " ") + "\n", -1, 0.0, "strict")
        found = {label: share for share, label in pairs}
        if len(found) == 2 and TOYS[name].loss != OVA:
            share, label = pairs[0]
            assert score == pytest.approx(1 - share if label == "__label__cc" else share, abs=5e-5)
        else:
            assert score == pytest.approx(found["__label__hq"], abs=5e-5)


def test_a_document_at_the_minimum_is_kept(step: QualityClassifier) -> None:
    text = batch(["the quality of mercy"])
    score = step.measure(text)["score"][0]
    assert step.model_copy(update={"minimum": score}).reasons(text).to_pylist() == [None]
    above = step.model_copy(update={"minimum": np.nextafter(score, 1)})
    assert above.reasons(text).to_pylist() == ["quality_classifier/below_minimum"]


def test_the_report_draws_the_threshold_that_decides(step: QualityClassifier) -> None:
    manifest = {"steps": [step.kind], "recipe": {"steps": [dump_step(step)]}}
    (cut,) = thresholds(manifest, "quality_classifier.score")
    scores = np.array([0.5, np.nextafter(0.5, 0), 0.9])
    reasons = step.decide({"score": scores}).to_pylist()
    assert [reason is not None for reason in reasons] == cut.beyond(scores).tolist() == [False, True, False]


def test_columns_and_replay(step: QualityClassifier) -> None:
    rows = batch([*mixes(50), None])
    outcome = step.apply(rows)
    assert isinstance(step, Step)
    assert outcome.batch.schema.names == ["text", "quality_classifier.score"]
    assert outcome.batch.schema.types[1] == pa.float64()
    assert outcome.batch.schema == step.apply(batch([])).batch.schema
    scores = {"score": outcome.batch.column(1).to_numpy()}
    assert step.decide(scores).equals(outcome.reasons)
    assert set(outcome.reasons.to_pylist()) == {None, "quality_classifier/below_minimum"}
    named = step.model_copy(update={"column": "quality"}).apply(rows)
    assert named.batch.column("quality").equals(outcome.batch.column(1))
    assert not any(step.model_copy(update={"minimum": 0.0}).reasons(rows).to_pylist())


def test_a_text_of_which_the_model_knows_nothing_scores_zero(tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(Toy([b"known"], LABELS, loss=SOFTMAX, dim=8, maxn=0).body())
    step = QualityClassifier(model=str(tmp_path / "toy.bin"), minimum=0.01)
    assert step.measure(batch(["nothing", ""]))["score"].tolist() == [0.0, 0.0]


def test_whatever_the_batch_the_type_and_the_thread(step: QualityClassifier) -> None:
    texts = [*ODD, *mixes(60, seed=2), None]
    whole = step.apply(batch(texts))
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        part = step.apply(batch(texts, kind).slice(3, 20))
        assert part.batch.column(1).equals(whole.batch.column(1).slice(3, 20))
    alone = [step.measure(batch([text]))["score"][0] for text in texts]
    assert alone == whole.batch.column(1).to_pylist()
    turned = step.apply(batch(texts[::-1])).batch.column(1).to_pylist()
    assert turned[::-1] == alone
    with ThreadPoolExecutor(4) as pool:
        assert all(one.batch.equals(whole.batch) for one in pool.map(step.apply, [batch(texts)] * 8))


def test_steps_are_values(step: QualityClassifier, tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(step)) == step
    assert QualityClassifier.model_validate_json(step.model_dump_json()) == step
    assert step.fingerprint()["model"] == sha256(TOYS["bigrams"].body()).hexdigest()
    (tmp_path / "copy.bin").write_bytes(TOYS["bigrams"].body())
    assert step.model_copy(update={"model": str(tmp_path / "copy.bin")}).fingerprint() == step.fingerprint()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label": "good"}, "label is 'good', and the model knows 2: cc, hq"),
        ({"minimum": 1.1}, "less than or equal to 1"),
        ({"model": "/no/such.bin"}, "'/no/such.bin' cannot be read"),
        ({"column": ""}, "at least 1 character"),
        ({"threshold": 0.5}, "Extra inputs"),
    ],
)
def test_what_is_refused(step: QualityClassifier, fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        QualityClassifier(**{"model": step.model, **fields})  # type: ignore[arg-type]


# Examples


def test_a_text_brings_no_label_and_no_end_into_the_training_file() -> None:
    assert line_of("a __label__x b\n__label__hq") == "a  b"
    assert line_of("one </s> two") == "one"
    assert line_of("x</s>y __label_z a__label__b") == "x</s>y __label_z a__label__b"
    assert line_of("\0\n ") == ""


def test_the_sample_knows_no_order_and_no_repeats() -> None:
    texts = [f"text {number}" for number in range(500)]
    mixed = random.Random(0).sample(texts * 2, 1000)
    few = smallest(mixed, "hq", 50, 7)
    assert few == smallest(texts, "hq", 50, 7) == smallest(texts, "hq", None, 7)[:50]
    assert [example.key for example in few] == sorted(key_of(text, 7) for text in texts)[:50]
    assert smallest(texts, "hq", 50, 8) != few
    held = sum(held_out(example, 0.1) for example in smallest(texts, "hq", None, 0))
    assert 25 <= held <= 80


# Thresholds


def test_the_area_and_the_rows_are_counted_as_defined() -> None:
    generator = np.random.default_rng(0)
    scores, wanted = np.round(generator.random(80), 1), generator.random(80) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[wanted] for b in scores[~wanted]]
    assert area(scores, wanted) == pytest.approx(float(np.mean(pairs)), abs=1e-6)
    assert area(scores, np.ones(80, bool)) is None
    row = row_of(0.5, scores, wanted)
    kept = [good for score, good in zip(scores, wanted, strict=True) if score >= 0.5]
    assert row == {
        "threshold": 0.5,
        "kept": pytest.approx(len(kept) / 80, abs=1e-6),
        "precision": pytest.approx(sum(kept) / len(kept), abs=1e-6),
        "recall": pytest.approx(sum(kept) / wanted.sum(), abs=1e-6),
    }
    assert row_of(2.0, scores, wanted)["precision"] is None


def test_calibration_keeps_the_share_asked_for() -> None:
    scores = np.random.default_rng(1).permutation(1000) / 1000
    found = calibrate(scores, 0.1)
    assert found["minimum"] == 0.9
    assert found["kept"] == 0.1
    assert found["between"][0] < 0.9 < found["between"][1]
    assert calibrate(scores, 1.0)["minimum"] == 0.0
    assert calibrate(np.full(10, 0.3), 0.1)["kept"] == 1.0  # equals cannot be parted
    with pytest.raises(RequestError, match="no documents"):
        calibrate(np.zeros(0), 0.5)


# The command


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, word in (("good", "mercy"), ("other", "unknown")):
        lines = [json.dumps({"text": f"{word} {number} of {word}\nthe end"}) for number in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


def train(files: Path, name: str, *words: str) -> int:
    given = [] if "--input" in words else ["--positive", f"{files}/good.jsonl", "--negative", f"{files}/other.jsonl"]
    small = ["--dim", "8", "--epoch", "2", "--held-out", "0.3"]
    return main(["classifier", "train", *given, "--output", str(files / name), *small, *words])


@pytest.mark.skipif(WITH_FASTTEXT, reason="fasttext is installed")
def test_training_says_what_is_missing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(files, "a.bin") == 2
    assert "fasttext is not installed: pip install 'penstock[classifier]'" in capsys.readouterr().err
    assert not (files / "a.bin").exists()
    assert issubclass(MissingExtraError, RequestError)


@pytest.mark.skipif(not WITH_FASTTEXT, reason="fasttext is not installed")
def test_training_gives_the_same_bytes_and_says_what_they_are_worth(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bigrams = ["--preset", "dclm-bigrams", "--bucket", "5000"]
    assert train(files, "a.bin", *bigrams) == 0
    assert "area under the ROC curve" in capsys.readouterr().out
    assert train(files, "b.bin", *bigrams) == 0
    assert (files / "a.bin").read_bytes() == (files / "b.bin").read_bytes()
    report = json.loads((files / "a.json").read_text("utf-8"))
    assert report["sha256"] == sha256((files / "a.bin").read_bytes()).hexdigest()
    assert report["settings"]["wordNgrams"] == 2
    assert sum(report["trained_on"].values()) + report["held_out"]["documents"] == 80
    assert report["held_out"]["auc"] > 0.9
    step = QualityClassifier(model=str(files / "a.bin"))
    scores = step.measure(batch(["mercy of mercy", "unknown of unknown"]))["score"]
    assert scores[0] > scores[1]


@pytest.mark.skipif(not WITH_FASTTEXT, reason="fasttext is not installed")
def test_examples_may_come_from_a_score(files: Path) -> None:
    texts = [f"mercy {number}" for number in range(40)] + [f"unknown {number}" for number in range(40)]
    table = pa.table({"text": texts, "s": pa.array([1.0] * 40 + [0.0] * 40), "x": pa.nulls(80)})
    pq.write_table(table, files / "scored.parquet")
    words = ["--input", f"{files}/scored.parquet", "--score", "s", "--positive-from", "1", "--negative-below", "0.5"]
    assert train(files, "a.bin", *words) == 0
    counts = json.loads((files / "a.json").read_text("utf-8"))["trained_on"]
    assert all(20 <= count <= 40 for count in counts.values())


def test_calibrate_prints_the_threshold(step: QualityClassifier, capsys: pytest.CaptureFixture[str]) -> None:
    texts = mixes(200, seed=3)
    folder = Path(step.model).parent
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    words = ["classifier", "calibrate", step.model, "--input", f"{folder}/in.jsonl"]
    assert main([*words, "--keep", "0.25"]) == 0
    found = json.loads(capsys.readouterr().out)
    lines = sorted({line_of(text) for text in texts} - {""})
    scores = np.sort(step.measure(batch(lines))["score"])[::-1]
    assert found["documents"] == len(lines)
    assert found["minimum"] == scores[-(-len(lines) // 4) - 1]
    assert main([*words, "--keep", "0"]) == 2
    assert main([*words, "--keep", "0.1", "--label", "good"]) == 2
    assert "the model knows cc, hq" in capsys.readouterr().err


def test_cutoffs_are_percentiles_by_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"perplexity": [float(n) for n in range(101)] * 2 + [None], "language": ["en"] * 101 + ["de"] * 102}
    pq.write_table(pa.table(columns), tmp_path / "run.parquet")
    words = ["classifier", "cutoffs", "--input", f"{tmp_path}/run.parquet", "--output", str(tmp_path / "c.csv")]
    assert main(words) == 0
    lines = (tmp_path / "c.csv").read_text("utf-8").splitlines()
    assert lines[0] == ",de,en"
    assert lines[31] == "30,30.0,30.0"
    assert main([*words, "--score", "nothing"]) == 2
    assert "has no column 'nothing'; it has perplexity, language" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--preset", "gpt3"], "known are dclm, dclm-bigrams"),
        (["--held-out", "1"], "a share from 0 to less than 1"),
        (["--other", "hq"], "are both 'hq'"),
        (["--label", "two words"], "is no single word"),
        (["--most", "0"], "at least 1"),
        (["--input", "x.parquet"], "give --positive and --negative files, or"),
        (["--score", "s"], "give --positive and --negative files, or"),
        (["--output", "/no/such/folder/a.bin"], "the folder /no/such/folder is not there"),
    ],
)
def test_a_wrong_request_is_refused_in_words(
    files: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(files, "a.bin", *words) == 2
    assert told in capsys.readouterr().err


def test_an_input_that_is_missing(step: QualityClassifier) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        QualityClassifier.model_construct(model="/gone.bin").measure(batch(["x"]))
