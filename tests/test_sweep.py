"""Sweep: at the run's own thresholds its own funnel; at any other what a run with that threshold gives."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import Recipe, RequestError, RunError, run
from penstock.pipelines.batches import apply_steps, tally
from penstock.pipelines.cli import main
from penstock.pipelines.directory import RunDirectory
from penstock.pipelines.replay import Replay, replay_steps
from penstock.pipelines.sweep import Clusters, ledger_names, sweep
from penstock.pipelines.sweep_grid import DROPS, find, given, grid, named
from penstock.pipelines.sweep_table import sweep_table
from penstock.transforms.named import parse_step

Value = dict[str, Any]
COUNT = 400
STEPS: list[Any] = [
    {"language_id": {"minimum": 0.2}},
    {"gopher_repetition": {"top_2_gram": 0.3, "duplicated_5_n_grams": 0.4}},
    {"gopher_quality": {"min_doc_words": 12, "min_stop_words": 1, "min_alpha_words_ratio": 0.5}},
    {"c4_quality": {"min_num_sentences": 2, "filter_no_terminal_punct": False}},
    {"fineweb_quality": {"char_duplicates_ratio": 0.1}},
]
ENGLISH = (
    "The river runs to the sea and that is all there is to say of it.",
    "Most of the people who have been there say that it was worth the trip.",
    "A heavy door of oak stood open, and with it came the smell of rain.",
    "Nobody had told them that the train would leave before the others came.",
    "Prices went up in the spring, and the market was quiet for the rest of the year.",
)
OTHER = (
    "Der Zug fährt heute nicht, und niemand weiß warum das so ist.",
    "La casa está cerca del mar y tiene un jardín muy grande.",
    "Ik weet niet waar de sleutel van het huis gebleven is.",
)


def texts(count: int) -> list[str]:
    """Pages that every rule meets now and then; from a fixed seed."""
    chance = random.Random(11)
    made = []
    for number in range(count):
        pool = chance.choice([ENGLISH, ENGLISH, ENGLISH, OTHER, (*ENGLISH, *OTHER)])
        lines = []
        for _ in range(chance.randint(1, 9)):
            line = " ".join(chance.choices(pool, k=chance.randint(1, 3)))
            kind = chance.random()
            if kind < 0.06:
                line = "• " + line
            elif kind < 0.12:
                line = line[:-1] + "..."
            elif kind < 0.18:
                line = " ".join(f"#{chance.randint(0, 99)}" for _ in range(6)) + "."
            elif kind < 0.22:
                line = "x = { y }"
            elif kind < 0.25:
                line = "Lorem ipsum dolor sit amet."
            elif kind < 0.35:
                line = " ".join(str(chance.randint(0, 10**6)) for _ in range(12)) + "."
            elif kind < 0.45:
                line = f"menu {number % 7}"
            lines.append(line)
        made.append(chance.choice(["\n", "\n\n"]).join(lines))
    return made + made[:30]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    with (folder / "pages.jsonl").open("w", encoding="utf-8") as file:
        for text in texts(COUNT):
            file.write(json.dumps({"text": text}) + "\n")
        file.write("this is no JSON\n")
    return folder


def recipe(pages: Path, steps: list[Any] = STEPS, **more: Any) -> Value:
    return {"inputs": {"pages": {"path": str(pages)}}, "steps": steps, "text": {"format": "jsonl"}, **more}


def go(value: Value, output: Path) -> RunDirectory:
    run(Recipe.from_value(value), output, quiet=True)
    return RunDirectory.open(str(output))


@pytest.fixture(scope="module")
def finished(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return go(recipe(pages, dedup={}), tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def scored(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The same run, in which later steps score what earlier ones dropped."""
    return go(recipe(pages, score_rejected=True), tmp_path_factory.mktemp("scored"))


def points(found: Value) -> list[tuple[str, Value]]:
    return [(entry["field"], point) for entry in found["fields"] for point in entry["points"]]


def without_reader(point: Value) -> dict[str, int]:
    return {rule: count for rule, count in point["rejected_by_rule"].items() if rule != "quarantined"}


def test_the_runs_own_thresholds_give_its_own_funnel(finished: RunDirectory, scored: RunDirectory) -> None:
    for run_directory in (finished, scored):
        manifest = run_directory.manifest
        found = sweep(run_directory, [])
        own = [point for _, point in points(found) if point["own"]]
        assert len(own) == len(found["fields"]) == 31
        for point in own:
            assert point["passed"]["least"] == point["passed"]["most"] == manifest["kept"] + manifest["duplicates"]
            assert point["kept"] == {"least": manifest["kept"], "most": manifest["kept"], "known": "exact"}
            assert point["bytes"] == {"least": manifest["bytes_kept"], "most": manifest["bytes_kept"]}
            assert point["rejected_by_rule"] == manifest["rejected_by_rule"]
            assert point["dropped_by_a_rule_not_known"] == 0
        assert len(manifest["rejected_by_rule"]) > 12  # the pages meet many rules
        assert not found["held"]


def other(name: str, value: Any) -> tuple[dict[str, int], int]:
    """What the steps themselves drop, by rule, and keep, with one threshold changed: the text is read anew."""
    _, number, kind, field = name.split(".")
    steps = [dict(step) for step in STEPS]
    steps[int(number)] = {kind: {**steps[int(number)][kind], field: value}}
    batch = pa.RecordBatch.from_pylist([{"text": text, "source": "pages", "path": "p"} for text in texts(COUNT)])
    kept, fallen = apply_steps(batch, [parse_step(step) for step in steps])
    rules: dict[str, int] = {}
    for gone in fallen:
        rules.update(tally(gone))
    return rules, len(kept)


REPETITION = ("dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac")
FIELDS = [
    "steps.0.language_id.minimum",
    *(f"steps.1.gopher_repetition.{name}" for name in REPETITION),
    *(f"steps.1.gopher_repetition.top_{n}_gram" for n in (2, 3, 4)),
    *(f"steps.1.gopher_repetition.duplicated_{n}_n_grams" for n in range(5, 11)),
    *(f"steps.2.gopher_quality.{side}_{name}" for name in ("doc_words", "avg_word_length") for side in ("min", "max")),
    "steps.2.gopher_quality.max_symbol_word_ratio",
    "steps.2.gopher_quality.max_bullet_lines_ratio",
    "steps.2.gopher_quality.max_ellipsis_lines_ratio",
    "steps.2.gopher_quality.min_alpha_words_ratio",
    "steps.2.gopher_quality.min_stop_words",
    "steps.3.c4_quality.min_num_sentences",
    "steps.3.c4_quality.filter_lorem_ipsum",
    "steps.3.c4_quality.filter_curly_bracket",
    "steps.4.fineweb_quality.line_punct_thr",
    "steps.4.fineweb_quality.line_punct_exclude_zero",
    "steps.4.fineweb_quality.short_line_thr",
    "steps.4.fineweb_quality.char_duplicates_ratio",
    "steps.4.fineweb_quality.new_line_ratio",
]


def test_every_threshold_of_the_rules_is_found(finished: RunDirectory) -> None:
    fields = named(replay_steps(finished.manifest, ledger_names(finished)))
    assert sorted(field.name for field in fields) == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_another_threshold_gives_what_the_steps_with_it_give(
    name: str, finished: RunDirectory, scored: RunDirectory
) -> None:
    """Every value of the grid: the stricter ones exact by any ledger, all where the run scored what it dropped."""
    (entry,), (full,) = sweep(finished, [name])["fields"], sweep(scored, [name])["fields"]
    moved = [point for point in entry["points"] if not point["own"]]
    assert moved
    for point in moved:
        rules, passed = other(name, point["value"])
        deep = next(each for each in full["points"] if each["value"] == point["value"])
        for each in (point, deep):
            assert each["passed"]["least"] <= passed <= each["passed"]["most"]
            assert passed == each["passed"]["least"] or not each["exact"]
        if point["exact"] and not point["dropped_by_a_rule_not_known"]:
            assert without_reader(point) == rules
        if "c4_quality" not in name:  # what a step that edits dropped was not scored as it would have left it
            assert deep["exact"]
            assert without_reader(deep) == rules


@pytest.mark.parametrize(("name", "value"), [("gopher_quality.min_doc_words", 60), ("line_punct_thr", 0.5)])
def test_what_deduplication_leaves_is_what_a_run_leaves(
    name: str, value: float, finished: RunDirectory, pages: Path, tmp_path: Path
) -> None:
    field = find(named(replay_steps(finished.manifest, ledger_names(finished))), name)
    (entry,) = sweep(finished, [f"{name}={value}"])["fields"]
    (point,) = [point for point in entry["points"] if not point["own"]]
    steps = [dict(step) for step in STEPS]
    kind = field.step.kind
    steps[field.step.number] = {kind: {**steps[field.step.number][kind], field.field: value}}
    manifest = go(recipe(pages, steps, dedup={}), tmp_path).manifest
    assert manifest["duplicates"] <= finished.manifest["duplicates"]
    assert point["passed"]["least"] == manifest["kept"] + manifest["duplicates"]
    assert point["kept"]["least"] <= manifest["kept"] <= point["kept"]["most"]


def test_a_stricter_threshold_is_exact(finished: RunDirectory) -> None:
    for entry in sweep(finished, [])["fields"]:
        values = [point["value"] for point in entry["points"]]
        own = next(at for at, point in enumerate(entry["points"]) if point["own"])
        assert len(set(values)) == len(values)
        if entry["drops"] == "where":
            continue
        for point in entry["points"][: own + 1]:
            assert point["exact"]
            assert point["kept"]["known"] in ("exact", "bounds")
        passed = [point["passed"]["least"] for point in entry["points"]]
        assert passed == sorted(passed)


class OwnScores:
    """A custom filter lives in a module of its own, so that a sweep can import it."""

    SOURCE = '''
from __future__ import annotations
from typing import Literal
import numpy as np
import pyarrow as pa
from penstock.transforms.step import Filter, Scores, first_reason

class Vowels(Filter):
    """Drop what has many vowels; texts of one line are not scored."""

    kind: Literal["vowels"] = "vowels"
    max_share: float = 0.42

    def measure(self, batch: pa.RecordBatch) -> Scores:
        texts = batch.column("text").to_pylist()
        share = [sum(text.count(v) for v in "aeiou") / max(1, len(text)) if "\\n" in text else None for text in texts]
        return {"share": pa.array(share, pa.float64())}

    def decide(self, scores: Scores) -> pa.StringArray:
        values = np.asarray(pa.array(scores["share"]).cast(pa.float64()).fill_null(0.0))
        return first_reason({"vowels/share": values > self.max_share})
'''


def test_a_custom_filter_is_swept_and_null_is_not_scored(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_vowels.py").write_text(OwnScores.SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    steps = [{"own_vowels:Vowels": {"max_share": 0.28}}]
    made = go(recipe(pages, steps), tmp_path / "out")
    found = sweep(made, ["max_share=0.25,0.28,0.29,0.3"])
    (entry,) = found["fields"]
    assert entry["scores"] == ["vowels.share"]
    for point in entry["points"]:
        batch = pa.RecordBatch.from_pylist([{"text": text, "source": "s", "path": "p"} for text in texts(COUNT)])
        kept, _ = apply_steps(batch, [parse_step({"own_vowels:Vowels": {"max_share": point["value"]}})])
        assert point["passed"] == {"least": len(kept), "most": len(kept)}
        assert point["exact"]
    assert 0 < made.manifest["rejected"] < made.manifest["kept"]
    (tmp_path / "own_vowels.py").write_text(OwnScores.SOURCE + "\n# changed\n")
    sys.modules.pop("own_vowels")
    with pytest.raises(RequestError, match="nothing to sweep"):
        sweep(made, [])
    assert "source has changed" in str(replay_steps(made.manifest, ledger_names(made))[0].why)


def test_what_cannot_be_replayed_is_said(pages: Path, tmp_path: Path) -> None:
    twice: list[dict[str, Any]] = [
        {"gopher_quality": {"min_doc_words": 5}},
        {"gopher_quality": {"min_doc_words": 12, "min_stop_words": None}},
    ]
    made = go(recipe(pages, twice), tmp_path / "out")
    found = sweep(made, ["min_doc_words=5,12,20"])
    assert [entry["field"] for entry in found["fields"]] == ["steps.1.gopher_quality.min_doc_words"]
    assert found["not_swept"] == [
        {"step": "steps.0.gopher_quality", "why": "a later step of the same kind has written over its scores"}
    ]
    tighter = go(
        recipe(pages, [twice[0], {"gopher_quality": {**twice[1]["gopher_quality"], "min_doc_words": 20}}]),
        tmp_path / "b",
    )
    assert found["fields"][0]["points"][0]["passed"]["least"] == tighter.manifest["kept"]
    assert "not swept: steps.0.gopher_quality" in sweep_table(found)


def test_a_cluster_lives_while_one_of_its_members_does() -> None:
    clusters = Clusters(np.arange(6, dtype=np.uint64), np.array([0, 0, 0, 1, 1, 1]), np.array([3, 3]))
    ids = pa.chunked_array([pa.array([int(n).to_bytes(8, "little") + bytes(8) for n in (4, 9, 0)], pa.binary(16))])
    assert clusters.find(ids).tolist() == [1, -1, 0]
    assert clusters.left(6 + 4, np.array([3, 3], np.int32)) == (6, 6)
    assert clusters.left(5 + 4, np.array([3, 2], np.int32)) == (6, 7)  # the one that went may have linked the others
    assert clusters.left(3 + 4, np.array([3, 0], np.int32)) == (5, 5)


def test_values_are_read_and_refused_in_words(finished: RunDirectory) -> None:
    fields = named(replay_steps(finished.manifest, ledger_names(finished)))
    words = find(fields, "min_doc_words")
    assert find(fields, "steps.2.min_doc_words") is words
    assert find(fields, "gopher_quality.min_doc_words") is words
    assert find(fields, "steps.2.gopher_quality.min_doc_words") is words
    assert given(words, "10, 20,off") == [10, 20, None]
    assert given(words, "10:20:3") == [10, 15, 20]
    assert given(words, "10:11:3") == [10, 10, 11]  # of whole numbers
    assert given(find(fields, "line_punct_thr"), "0:1:5") == [0, 0.25, 0.5, 0.75, 1]
    assert given(find(fields, "filter_curly_bracket"), "true,false") == [True, False]
    for field, text, said in (
        ("min_doc_words", "200000", "max_doc_words"),
        ("line_punct_thr", "1.5", "1.5"),
        ("line_punct_thr", "high", "lo:hi:n"),
        ("line_punct_thr", "nan", "no threshold"),
        ("line_punct_thr", "1:0:5", "range rises"),
        ("line_punct_thr", "0:1", "three parts"),
        ("language_id.minimum", "off", "language_id.minimum"),
        ("filter_curly_bracket", "0.5", "filter_curly_bracket"),
    ):
        with pytest.raises(RequestError, match=said):
            given(find(fields, field), text)
    with pytest.raises(RequestError, match=r"no such threshold.*steps\.0\.language_id\.minimum"):
        find(fields, "min_words")


def test_the_grid_stands_at_quantiles_of_what_reaches_the_step(finished: RunDirectory) -> None:
    fields = named(replay_steps(finished.manifest, ledger_names(finished)))
    field = find(fields, "fineweb_quality.line_punct_thr")
    scores = pa.table({"fineweb_quality.line_punct_ratio": np.linspace(0, 1, 1001)})
    assert grid(field, scores) == [pytest.approx(share, abs=2e-3) for share in DROPS]
    high = find(fields, "short_line_thr")
    scores = pa.table({"fineweb_quality.short_line_ratio": [*np.linspace(0, 1, 1001), np.nan]})
    assert grid(high, scores) == [pytest.approx(1 - share, abs=2e-3) for share in DROPS]
    assert grid(high, pa.table({"fineweb_quality.short_line_ratio": pa.array([], pa.float64())})) == []


def test_a_ledger_that_is_not_the_manifests_is_refused(finished: RunDirectory) -> None:
    manifest = json.loads(json.dumps(finished.manifest))
    next(entry for entry in manifest["funnel"] if entry["step"] == 2 and entry["rule"])["documents"] += 1
    with pytest.raises(RunError, match="run its recipe again"):
        sweep(RunDirectory(finished.store, manifest), ["min_doc_words=5"])


def test_the_command_prints_a_table_or_json(finished: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.store.url
    assert main(["report", folder, "--sweep", "min_doc_words=5,12,40", "line_punct_thr"]) == 0
    out = capsys.readouterr().out
    assert "steps.2.gopher_quality.min_doc_words" in out
    assert "→" in out
    assert main(["report", folder, "--sweep", "min_doc_words=5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["value"] for point in found["fields"][0]["points"]] == [12, 5]
    assert main(["report", folder, "--sweep"]) == 0
    assert capsys.readouterr().out.count("drops documents") == 28
    assert main(["report", folder, "--sweep", "no_such_field=3"]) == 2
    error = capsys.readouterr().err
    assert "no_such_field" in error
    assert "steps.4.fineweb_quality.new_line_ratio" in error
    assert main(["report", folder, "--json"]) == 2
    assert "--sweep" in capsys.readouterr().err


def test_a_replay_reads_only_what_it_needs(finished: RunDirectory) -> None:
    columns = Replay(replay_steps(finished.manifest, ledger_names(finished)), score_rejected=False).columns()
    assert not {"text", "raw", "url", "path"} & set(columns)
