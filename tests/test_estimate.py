"""A dry run: the same numbers every time, nothing written, and totals that lie where they say."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from small_run import recipe_over

from penstock import Recipe, RequestError, run
from penstock.pipelines import estimate_scan
from penstock.pipelines.cli import main
from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.estimate import estimate, size_of
from penstock.pipelines.estimate_cost import makespan
from penstock.pipelines.estimate_sample import Growth, copies
from penstock.pipelines.estimate_scan import Population, choose, mates, sketches, survey_input
from penstock.pipelines.estimate_table import estimate_table
from penstock.pipelines.estimate_weights import draw
from penstock.pipelines.plan import plan_inputs
from penstock.transforms.minhash import MinHash
from penstock.transforms.readers import Piece, read

Value = dict[str, Any]
STEPS: list[Any] = [{"gopher_quality": {"min_stop_words": None, "min_doc_words": 100, "min_alpha_words_ratio": None}}]

WORDS = ["".join(letters) for letters in product("abcdefg", repeat=4)]  # numbers would all be one word


def over(corpus: Path, **more: Any) -> Recipe:
    return Recipe.from_value(recipe_over(corpus, steps=STEPS, **more))


@pytest.fixture(scope="module")
def whole(corpus: Path) -> Value:
    """The estimate of a small run, whose sample is everything."""
    return estimate(over(corpus), None, workers=2)


def steady(found: Value) -> Value:
    """Leave out times and memory."""
    sample = {name: value for name, value in found["sample"].items() if name not in ("wall", "cpu")}
    return {**{k: v for k, v in found.items() if k not in ("cost", "peak_memory_bytes")}, "sample": sample}


def test_where_all_is_sampled_documents_are_exact(whole: Value, corpus: Path, tmp_path: Path) -> None:
    manifest = run(over(corpus), tmp_path, quiet=True)
    assert whole["documents_in"] == {"value": manifest["documents_in"], "error": 0}
    assert whole["kept"] == {"value": manifest["kept"], "error": 0}
    assert whole["duplicates"]["value"] == manifest["duplicates"]
    assert {row["rule"]: row["documents"]["value"] for row in whole["funnel"]} == manifest["rejected_by_rule"]
    assert whole["kept_bytes"]["value"] == pytest.approx(manifest["bytes_kept"], rel=0.05)
    assert whole["tokens"]["value"] == pytest.approx(manifest["tokens"], rel=0.1)
    for stage in ("text", "tokens"):
        files = [path for path in (tmp_path / stage).rglob("*") if path.is_file() and "receipts" not in path.parts]
        assert whole["disk"][stage]["value"] == pytest.approx(sum(path.stat().st_size for path in files), rel=0.3)


def test_the_same_sample_comes_for_any_number_of_workers(corpus: Path) -> None:
    one, five = (estimate(over(corpus), "0.4", workers) for workers in (1, 5))
    assert steady(one) == steady(five)
    assert 60 < one["sample"]["records"] < 140
    assert abs(one["kept"]["value"] - 175) < 60
    assert one["kept"]["error"] > 0
    assert one["cost"]["workers"] == 1
    small_tasks = estimate(over(corpus, task_bytes=20_000), "0.4", 2)
    assert small_tasks["inputs"]["tasks"] > one["inputs"]["tasks"]
    assert small_tasks["sample"]["records"] == pytest.approx(one["sample"]["records"], abs=12)
    other = estimate(over(corpus, seed=9), "0.4", 1)
    assert steady(other)["funnel"] != steady(one)["funnel"]


def test_nothing_is_written_and_the_command_says_so(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe_over(corpus, steps=STEPS)))
    before = sorted(path.name for path in corpus.iterdir())
    assert main(["run", "r.yaml", "--dry-run", "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "passed the rules" in out
    assert "gopher_short_doc" in out
    assert main(["run", "r.yaml", "--dry-run", "--json", "--sample", "30%"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"]["records"] < 120
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml"]
    assert sorted(path.name for path in corpus.iterdir()) == before
    for words, said in (
        (["--dry-run", "--sample", "2"], "--sample 2"),
        (["--dry-run", "--sample", "much"], "20MB"),
        (["--sample", "0.1"], "--dry-run"),
        (["--json"], "--dry-run"),
        (["--dry-run", "--input", str(tmp_path / "none-*.jsonl")], "none-*.jsonl"),
        (["--dry-run", "--runner", "nowhere"], "nowhere"),
    ):
        assert main(["run", "r.yaml", *words]) == 2
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml"]


def test_a_recipe_without_dedup_or_tokens_has_fewer_lines(corpus: Path) -> None:
    value = recipe_over(corpus)
    for name in ("dedup", "tokens", "tokenizer"):
        del value[name]
    found = estimate(Recipe.from_value(value), None, 1)
    assert found["kept"]["value"] == 240
    assert found["tokens"] is None
    assert found["duplicates"] is None
    assert set(found["disk"]) == {"documents", "ledger", "text"}
    assert "duplicates" not in estimate_table(found)


def test_too_little_text_for_a_vocabulary_is_said(corpus: Path) -> None:
    found = estimate(over(corpus, tokenizer={"train": {"vocab_size": 60_000}}), None, 1)
    assert found["tokens"] is None
    assert "60,000" in found["no_tokens"]
    assert "cannot be told" in estimate_table(found)


def population(rng: np.random.Generator, n: int = 3_000) -> tuple[Population, np.ndarray, np.ndarray]:
    """Records sorted by source, as inputs are: sizes and the share that is kept change along the way."""
    sizes = rng.lognormal(8, 1.2, n) * np.repeat([1, 4, 0.5], n // 3)
    kept = rng.random(n) < np.repeat([0.1, 0.8, 0.4], n // 3)
    numbers = np.arange(n)
    made = Population([], 1, 1, np.zeros(n, np.int64), numbers, sizes, sizes, np.zeros(n), np.zeros((0, n), np.uint64))
    return made, kept, np.where(kept, sizes * 0.8, 0.0)


def test_totals_are_unbiased_and_their_errors_hold() -> None:
    rng = np.random.default_rng(5)
    made, kept, size = population(rng)
    for values in (kept.astype(float), size):
        found = []
        for _ in range(150):
            made.draws = rng.random(len(made.contents))
            sample = draw(made, 300)
            assert sample.weights.sum() == pytest.approx(len(made.contents))
            assert sample.weights @ made.contents[sample.rows] == pytest.approx(made.contents.sum())
            total = sample.total(values[sample.rows])
            found.append((total.value, total.error))
        totals, errors = np.array(found).T
        assert totals.mean() == pytest.approx(values.sum(), abs=4 * totals.std() / np.sqrt(len(totals)))
        assert 0.7 < errors.mean() / totals.std() < 1.3
        assert (np.abs(totals - values.sum()) < 2 * errors).mean() > 0.88


def test_all_records_give_totals_without_error() -> None:
    made, kept, _ = population(np.random.default_rng(1))
    made.draws = np.full(len(kept), 0.5)
    total = draw(made, len(kept)).total(kept)
    assert (round(total.value), round(total.error)) == (kept.sum(), 0)


def test_copies_share_a_sketch_whatever_their_tags() -> None:
    words = WORDS[:300]
    text = " ".join(words)
    bodies = [text, " ".join([*words[:-20], *["x"] * 20]), " ".join(reversed(words)), "short", "brief", text]
    banded = sketches([body.encode() for body in bodies], 0)
    assert banded.shape == (24, 6)
    made = Population(
        [], 1, 1, np.zeros(6, np.int64), np.arange(6), np.ones(6), np.ones(6), np.linspace(0, 0.9, 6), banded
    )
    best, many = mates(made, np.array([0, 2, 3]), 4)
    assert best == [[5, 1], [], []]
    assert many == [2, 0, 0]


def test_clusters_are_those_that_a_run_finds() -> None:
    text = " ".join(WORDS[:100])
    labels = copies(Dedup(), [text, text + " end", "other words here", "tiny", "tiny"])
    assert labels[0] == labels[1]
    assert labels[3] == labels[4]
    assert len(set(labels.tolist())) == 3
    apart = copies(Dedup(minhash=None), [text, text + " end", text])
    assert apart[0] == apart[2] != apart[1]
    assert len(set(copies(Dedup(exact=False, minhash=MinHash(ngram=50)), ["a b", "a b"]).tolist())) == 1


def test_disk_grows_between_straight_and_falling() -> None:
    even = Growth(100.0, 50, 50.0, 25)
    assert even.grown(1000.0).value == pytest.approx(500)
    assert even.grown(1000.0).error == pytest.approx(0)
    better = Growth(100.0, 40, 50.0, 25).grown(400.0)
    assert 0.8**3 * 50 < better.value < 40 + 0.3 * 300
    assert better.error > 0
    assert Growth().grown(10.0).value == 0
    assert makespan([4, 1, 1, 1, 1], 2) == 0.5
    assert makespan([10, 1], 8) == pytest.approx(10 / 11)


def test_of_a_large_input_a_keyed_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        lines = [json.dumps({"text": f"file {number} line {row} has some words in it"}) for row in range(40)]
        (tmp_path / f"{number:02d}.jsonl").write_text("\n".join(lines))
    value = {"inputs": {"docs": {"path": str(tmp_path)}}, "text": {}, "dedup": {}}
    monkeypatch.setattr(estimate_scan, "READ_BYTES", 20_000)
    found = estimate(Recipe.from_value(value), None, 1)
    assert not found["whole_input_read"]
    assert 20_000 <= found["sample"]["read_bytes"] < 25_000
    assert found["documents_in"]["value"] == pytest.approx(1200, rel=0.1)
    assert found["documents_in"]["error"] > 0
    assert "chosen by" in estimate_table(found)
    pieces = [piece for task in plan_inputs(Recipe.from_value(value)) for piece in task.pieces]
    assert choose(pieces, 0) == choose(list(reversed(pieces)), 0)
    assert {piece.path for piece in choose(pieces, 0)} != {piece.path for piece in choose(pieces, 1)}


def test_a_reader_passes_over_what_is_not_wanted(corpus: Path, tmp_path: Path, shared_small: Path) -> None:
    table = pa.table({"text": [f"row {number}" for number in range(50)] + [None]})
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.txt").write_text("a text")
    files = [tmp_path / "t.parquet", tmp_path / "t.txt", corpus / "part-0.jsonl", shared_small]
    for path in files:
        kind = {".parquet": "parquet", ".txt": "text", ".jsonl": "jsonl", ".gz": "warc"}[path.suffix]
        piece = Piece(str(path), "s", path.name, kind, path.stat().st_size)
        rows = [batch for outcome in read(piece) for batch in outcome.batch.to_pylist()]
        places = {row["place"] for row in sorted(rows, key=lambda row: row["id"])[::3]}
        met: list[int] = []

        def wanted(place: int, body: bytes, met: list[int] = met, places: set[int] = places) -> bool:
            met.append(place)
            return place in places

        some = [batch for outcome in read(piece, wanted=wanted) for batch in outcome.batch.to_pylist()]
        assert met == [row["place"] for row in rows]
        assert some == [row for row in rows if row["place"] in places]


@pytest.fixture
def shared_small() -> Path:
    return Path(__file__).resolve().parent.parent / "examples" / "data" / "quickstart.warc.gz"


def test_the_survey_counts_what_the_reader_gives(corpus: Path) -> None:
    recipe = over(corpus)
    made = survey_input(recipe, plan_inputs(recipe), sketched=False)
    assert len(made.places) == 240
    assert made.whole
    assert made.sketches.shape == (0, 240)
    assert np.all((made.draws >= 0) & (made.draws < 1))
    assert size_of("50%", made) == 120
    assert size_of("1000MB", made) == 240
    with pytest.raises(RequestError, match="a share of the records"):
        size_of("-1MB", made)


@pytest.mark.parametrize(("name", "kept", "tokens"), [("web_small.warc.gz", 0.15, 0.2)], ids=["a sample of real pages"])
def test_real_pages_are_told_within_their_errors(
    name: str, kept: float, tokens: float, shared_data: Path, tmp_path: Path
) -> None:
    value = {
        "inputs": {"web": {"path": str(shared_data / name)}},
        "steps": ["extract_html", {"gopher_quality": {"min_stop_words": None}}],
        "dedup": {},
        "text": {},
    }
    manifest = run(Recipe.from_value(value), tmp_path / "out", quiet=True)
    found = estimate(Recipe.from_value(value), "0.5", 1)
    assert found["kept"]["value"] == pytest.approx(manifest["kept"], rel=kept)
    assert found["kept_bytes"]["value"] == pytest.approx(manifest["bytes_kept"], rel=tokens)
