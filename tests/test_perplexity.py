"""Perplexity by KenLM against the same model read by hand; cc_net's normalisation, buckets, and what is refused."""

from __future__ import annotations

import importlib.util
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from penstock.pipelines.thresholds import thresholds
from penstock.transforms import Perplexity
from penstock.transforms.named import dump_step
from penstock.transforms.perplexity import bucket, digest, normalise

WITH_KENLM = importlib.util.find_spec("kenlm") is not None
with_kenlm = pytest.mark.skipif(not WITH_KENLM, reason="kenlm is not installed")

#: log10 of probability and of back-off, as an ARPA file has them.
UNIGRAMS = {"<unk>": (-2.5, 0.0), "<s>": (0.0, -0.3), "</s>": (-1.1, 0.0), "the": (-0.7, -0.2), "cat": (-1.3, -0.1)}
BIGRAMS = {("<s>", "the"): -0.2, ("the", "cat"): -0.4, ("cat", "</s>"): -0.5}
ARPA = "\n".join(
    [
        "\\data\\", f"ngram 1={len(UNIGRAMS)}", f"ngram 2={len(BIGRAMS)}", "", "\\1-grams:",
        *(f"{p}\t{word}\t{back}" for word, (p, back) in UNIGRAMS.items()), "", "\\2-grams:",
        *(f"{p}\t{first} {second}" for (first, second), p in BIGRAMS.items()), "", "\\end\\", "",
    ]
)  # fmt: skip


def by_hand(line: str) -> tuple[float, int]:
    """Give log10 of a sentence's probability and its tokens, the end among them."""
    words = ["<s>", *(word if word in UNIGRAMS else "<unk>" for word in line.split()), "</s>"]
    total = 0.0
    for first, second in pairwise(words):
        total += BIGRAMS.get((first, second), UNIGRAMS[first][1] + UNIGRAMS[second][0])
    return total, len(words) - 1


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "toy.arpa").write_text(ARPA, "utf-8")
    return str(tmp_path / "toy.arpa")


def batch(texts: list[str | None], languages: list[str | None] | None = None) -> pa.RecordBatch:
    columns = {"text": pa.array(texts, pa.string())}
    return pa.record_batch(columns if languages is None else {**columns, "language": pa.array(languages, pa.string())})


TEXTS = [
    "the cat",
    "THE cat",
    "the Cat\nthe cat",
    "dog dog",
    "",
    " \n ",
    "the cat " * 500,
    "漢字",
    "👩",
    "the\0cat",
    "שלום",
]


@with_kenlm
@pytest.mark.parametrize("variant", ["cc_net", "datatrove", "lines"])
def test_perplexity_is_ten_to_the_mean_logarithm(variant: str, model: str) -> None:
    step = Perplexity(model=model, variant=variant)  # type: ignore[arg-type]
    for text, found in zip(TEXTS, step.measure(batch(list(TEXTS)))["perplexity"].tolist(), strict=True):
        lines = text.split("\n") if variant == "lines" else [text]
        scored = [by_hand(normalise(line, plain=variant != "datatrove")) for line in lines]
        total, tokens = (sum(values) for values in zip(*scored, strict=True))
        assert found == pytest.approx(10 ** (-total / tokens), abs=0.0501), text


@with_kenlm
def test_cc_net_joins_lines_and_lines_does_not(model: str) -> None:
    rows = batch(["the\ncat"])
    joined, apart = (
        Perplexity(model=model, variant=name).measure(rows)["perplexity"][0] for name in ("cc_net", "lines")
    )
    assert joined == pytest.approx(10 ** (-by_hand("thecat")[0] / 2), abs=0.0501)
    assert apart == pytest.approx(10 ** (-(by_hand("the")[0] + by_hand("cat")[0]) / 4), abs=0.0501)


@with_kenlm
def test_pieces_of_sentencepiece_are_the_tokens(model: str, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    lines = [f"the cat number {number}" for number in range(50)]
    prefix = str(tmp_path / "pieces")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=prefix, vocab_size=24, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model").encode_as_pieces("the cat")
    found = Perplexity(model=model, tokenizer=f"{prefix}.model").measure(batch(["The cat"]))["perplexity"][0]
    total, tokens = by_hand(" ".join(pieces))
    assert tokens == len(pieces) + 1
    assert found == pytest.approx(10 ** (-total / tokens), abs=0.0501)


@with_kenlm
def test_languages_have_models_and_buckets_of_their_own(model: str, tmp_path: Path) -> None:
    (tmp_path / "cutoff.csv").write_text(",en,fr\n0,0,0\n30,3.0,1.0\n60,10.0,2.0\n100,99,99\n", "utf-8")
    texts, languages = ["the cat", "dog", "the cat cat cat", "the cat", None], ["en", "en", "en", "de", None]
    step = Perplexity(model={"en": model}, cutoffs=str(tmp_path / "cutoff.csv"), keep=("head", "middle", "all"))
    outcome = step.apply(batch(list(texts), list(languages)))
    assert outcome.batch.schema.names == ["text", "language", "perplexity", "perplexity_bucket"]
    values = outcome.batch.column("perplexity").to_pylist()
    assert values[3:] == [None, None]
    assert outcome.batch.column("perplexity_bucket").to_pylist() == [
        *(bucket(value, 3.0, 10.0) for value in values[:3]), "all", "all",
    ]  # fmt: skip
    assert set(outcome.batch.column("perplexity_bucket").to_pylist()) >= {"head", "tail", "all"}
    kept = [name != "tail" for name in outcome.batch.column("perplexity_bucket").to_pylist()]
    assert outcome.reasons.to_pylist() == [None if fine else "perplexity/bucket" for fine in kept]
    scores = {
        name: outcome.batch.column(name).to_numpy(zero_copy_only=False) for name in ("perplexity", "perplexity_bucket")
    }
    assert step.decide(scores).equals(outcome.reasons)
    assert step.apply(batch([], [])).batch.schema == outcome.batch.schema


@with_kenlm
def test_a_document_at_the_maximum_is_kept(model: str) -> None:
    rows = batch(["the cat", "dog dog"])
    value = Perplexity(model=model).measure(rows)["perplexity"][1]
    assert Perplexity(model=model, maximum=value).reasons(rows).to_pylist() == [None, None]
    dropped = Perplexity(model=model, maximum=value - 0.1).reasons(rows).to_pylist()
    assert dropped == [None, "perplexity/above_maximum"]


@with_kenlm
def test_the_report_draws_the_threshold_that_decides(model: str) -> None:
    step = Perplexity(model=model, maximum=100)
    (cut,) = thresholds({"steps": [step.kind], "recipe": {"steps": [dump_step(step)]}}, "perplexity")
    values = np.array([100.0, 100.1, np.nan])
    reasons = step.decide({"perplexity": values, "perplexity_bucket": np.full(3, "all", object)}).to_pylist()
    assert [reason is not None for reason in reasons] == cut.beyond(values).tolist() == [False, True, False]


@with_kenlm
def test_slices_and_order(model: str) -> None:
    step, rows = Perplexity(model=model), batch(list(TEXTS))
    whole = step.apply(rows).batch
    assert step.apply(rows.slice(2, 5)).batch.equals(whole.slice(2, 5))
    turned = step.measure(batch([*TEXTS[::-1]]))["perplexity"][::-1]
    assert np.array_equal(turned, step.measure(rows)["perplexity"])


@with_kenlm
def test_steps_are_values(model: str, tmp_path: Path) -> None:
    step = Perplexity(model={"en": model}, maximum=1500)
    assert pickle.loads(pickle.dumps(step)) == step
    assert Perplexity.model_validate(step.model_dump(mode="json")) == step
    assert step.fingerprint()["model"] == {"en": digest(model)}
    (tmp_path / "copy.arpa").write_text(ARPA, "utf-8")
    assert Perplexity(model={"en": str(tmp_path / "copy.arpa")}, maximum=1500).fingerprint() == step.fingerprint()


@with_kenlm
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "/no/such.bin"}, "'/no/such.bin' cannot be read: No such file"),
        ({"maximum": 0}, "greater than 0"),
        ({"head": 70}, "head is 70 and tail 60"),
        ({"keep": ["head"]}, "without cutoffs every document's bucket is 'all'"),
        ({"keep": ["best"], "cutoffs": "x"}, "'head', 'middle', 'tail' or 'all'"),
        ({"cutoffs": "/no/such.csv"}, "'/no/such.csv' cannot be read"),
        ({"variant": "ccnet"}, "'cc_net', 'datatrove' or 'lines'"),
    ],
)
def test_what_is_refused(model: str, fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Perplexity(**{"model": model, **fields})  # type: ignore[arg-type]


@with_kenlm
def test_damaged_files_are_refused_in_words(model: str, tmp_path: Path) -> None:
    (tmp_path / "bad.arpa").write_text("nothing\n", "utf-8")
    with pytest.raises(ValueError, match="cannot be read by KenLM"):
        Perplexity(model=str(tmp_path / "bad.arpa")).reasons(batch(["x"]))
    (tmp_path / "bad.csv").write_text(",en\nthirty,1\n", "utf-8")
    with pytest.raises(ValidationError, match="is no table of percentiles by language"):
        Perplexity(model=model, cutoffs=str(tmp_path / "bad.csv"))
    (tmp_path / "few.csv").write_text(",en\n30,1\n", "utf-8")
    with pytest.raises(ValidationError, match="has no row for percentile 60"):
        Perplexity(model=model, cutoffs=str(tmp_path / "few.csv"))


@pytest.mark.skipif(WITH_KENLM, reason="kenlm is installed")
def test_without_kenlm_a_recipe_is_refused_with_the_way_out(model: str) -> None:
    with pytest.raises(ValidationError, match=r"kenlm is not installed: pip install 'penstock\[classifier\]'"):
        Perplexity(model=model)


def test_normalisation_is_cc_nets() -> None:
    """The pairs of cc_net's own test of its marks; `１` is a digit before it is a mark."""
    weird = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％"
    assert normalise(weird) == ',.,"""""0""""\'::?!();- - . ~\'...-<>[]%'
    assert normalise("０２３４５６７８９ | 0123456789") == "000000000 | 0000000000"
    assert normalise("  Café\tÉTÉ\n2 ") == "cafeete0"
    assert normalise("  Café\tÉTÉ\n2 ", plain=False) == "CaféÉTÉ0"
    assert normalise("\x00\x1f\x7f\x9f a") == " a"


def test_buckets_are_cut_below_their_bounds() -> None:
    assert [bucket(value, 10.0, 20.0) for value in (9.9, 10.0, 19.9, 20.0)] == ["head", "middle", "middle", "tail"]
