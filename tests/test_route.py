"""Rules by language: rows come out as they came in, each judged by the steps of its own language alone."""

from __future__ import annotations

import doctest
import json
import pickle
import runpy
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import recipe_over

from penstock import Recipe, RecipeError, RunError, run
from penstock.pipelines.recipe import root_paths
from penstock.pipelines.thresholds import concerns, kind_of_rule, thresholds
from penstock.transforms import fineweb2, function_step, language_score, route
from penstock.transforms.gopher import GopherQuality
from penstock.transforms.language_score import LanguageScore
from penstock.transforms.named import (
    apply_step,
    distinct,
    dump_step,
    inner_steps,
    parse_step,
    step_fingerprint,
    step_kind,
)
from penstock.transforms.route import Multilingual
from penstock.transforms.step import Outcome, Step, with_columns

SHORT = {"gopher_quality": {"min_doc_words": 3, "min_stop_words": None, "min_avg_word_length": None}}


def shout(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Edits, and adds a column of its own."""
    texts = pc.utf8_upper(batch["text"])
    return with_columns(batch, {"text": texts, "shouted": pa.array([True] * len(batch), pa.bool_())})


def first_letter(batch: pa.RecordBatch, letter: str) -> pa.Array:
    return pc.starts_with(batch["text"], letter)


def sets_aside(batch: pa.RecordBatch) -> Outcome:
    odd = pc.if_else(pc.match_substring(batch["text"], "odd"), "odd", pa.scalar(None, pa.string()))
    raw = pc.if_else(pc.is_valid(odd), b"raw", pa.scalar(None, pa.binary()))
    return Outcome(batch, pa.nulls(len(batch), pa.string()), odd, raw)


def sets_beside(batch: pa.RecordBatch) -> Outcome:
    errors = [f"of {len(text)}" if len(text) % 5 == 0 else None for text in batch["text"].to_pylist()]
    return Outcome(batch, pa.nulls(len(batch), pa.string()), pa.array(errors, pa.string()))


def fails(batch: pa.RecordBatch) -> Any:
    return batch if not len(batch) else 1 / 0


def loses(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.drop_columns(["text"])


def types(batch: pa.RecordBatch, number: bool) -> pa.RecordBatch:
    return with_columns(batch, {"own": pa.nulls(len(batch), pa.int64() if number else pa.float64())})


def batch_of(rows: Sequence[tuple[str | None, str | None]]) -> pa.RecordBatch:
    languages, texts = zip(*rows, strict=True) if rows else ((), ())
    return pa.record_batch({
        "row": pa.array(range(len(rows)), pa.int64()),
        "text": pa.array(texts, pa.string()), "language": pa.array(languages, pa.string()),
    })  # fmt: skip


ROWS = [("en", "one two three"), ("fr", "un"), ("en", "one"), (None, "?"), ("de", "eins zwei"),
        ("fr", "une deux trois"), ("en", "three two one"), ("xx", "odd")]  # fmt: skip
MIXED = Multilingual(recipes={
    "en": [SHORT, shout], "fr": [{f"{__name__}:first_letter": {"letter": "u"}}, SHORT], "de": [],
    "default": [sets_aside],
})  # fmt: skip


def oracle(step: Multilingual, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Send each row alone through the steps of its language."""
    found = []
    for number, label in enumerate(batch["language"].to_pylist()):
        row, reason, error = batch.slice(number, 1), None, None
        steps = step.recipes.get(label, step.recipes.get("default")) if label else step.recipes.get("default")
        if steps is None:
            reason = "multilingual/no_recipe" if step.missing == "drop" else None
        for one in steps or ():
            outcome = one.apply(row)
            row, reason = outcome.batch, reason or outcome.reasons[0].as_py()
            error = outcome.errors[0].as_py() if outcome.errors is not None else None
            if error or (reason and not step.score_rejected):
                break
        found.append({**row.to_pylist()[0], "reason": reason, "error": error})
    return found


def rows_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Give what came out, without the columns that a row has not."""
    errors = outcome.errors if outcome.errors is not None else pa.nulls(len(outcome.batch), pa.string())
    rows = outcome.batch.to_pylist()
    return [
        {**row, "reason": reason, "error": error}
        for row, reason, error in zip(rows, outcome.reasons.to_pylist(), errors.to_pylist(), strict=True)
    ]


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for mine, other in zip(found, expected, strict=True):
        assert {name: value for name, value in mine.items() if value is not None} == {
            name: value for name, value in other.items() if value is not None
        }


@pytest.mark.parametrize("module", [route, fineweb2, function_step, language_score], ids=lambda module: module.__name__)
def test_examples_in_docstrings(module: ModuleType) -> None:
    tried = doctest.testmod(module)
    assert tried.attempted >= 1
    assert tried.failed == 0


@pytest.mark.parametrize("score_rejected", [False, True])
def test_each_row_meets_the_steps_of_its_language(score_rejected: bool) -> None:
    step = Multilingual(recipes=MIXED.recipes, score_rejected=score_rejected)
    outcome = step.apply(batch_of(ROWS))
    same(rows_of(outcome), oracle(step, batch_of(ROWS)))
    assert outcome.batch["row"].to_pylist() == list(range(8))
    assert outcome.reasons.to_pylist() == [
        None, "gopher_quality/gopher_short_doc", "gopher_quality/gopher_short_doc", None, None, None, None, None,
    ]  # fmt: skip
    assert outcome.batch["text"].to_pylist()[0] == "ONE TWO THREE"
    assert outcome.batch["text"].to_pylist()[2] == ("ONE" if score_rejected else "one")
    assert outcome.batch["gopher_quality.words"].to_pylist() == [3, 1, 1, None, None, 3, 3, None]
    assert outcome.errors is not None
    assert outcome.raw is not None
    assert outcome.errors.to_pylist() == [None] * 7 + ["odd"]
    assert outcome.raw.to_pylist() == [None] * 7 + [b"raw"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["en", "fr", "de", "xx", None]),
                          st.sampled_from(["", "u", "one two", "un deux trois", "odd", "a b c d"])), max_size=30),
       st.integers(0, 10))  # fmt: skip
def test_any_mixture_of_languages(rows: list[tuple[str | None, str]], skip: int) -> None:
    batch = batch_of(rows)
    whole = MIXED.apply(batch)
    same(rows_of(whole), oracle(MIXED, batch))
    part = MIXED.apply(batch.slice(skip))
    assert part.batch.equals(whole.batch.slice(skip))
    assert part.reasons.equals(whole.reasons.slice(skip))


def test_an_empty_batch_tells_the_columns_of_all_languages() -> None:
    empty, full = MIXED.apply(batch_of([])), MIXED.apply(batch_of(ROWS))
    assert empty.batch.schema == full.batch.schema == MIXED.apply(batch_of([("de", "eins")])).batch.schema
    assert {"shouted", "gopher_quality.words"} <= set(empty.batch.schema.names)
    assert len(empty.reasons) == len(empty.batch) == 0


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({}, [None, "multilingual/no_recipe", "multilingual/no_recipe"]),
        ({"missing": "keep"}, [None, None, None]),
        ({"default": [SHORT]}, [None, "gopher_quality/gopher_short_doc", "gopher_quality/gopher_short_doc"]),
    ],
)
def test_what_has_no_recipe(fields: dict[str, Any], reasons: list[str | None]) -> None:
    recipes: dict[str, Any] = {"en": [], **({"default": fields["default"]} if "default" in fields else {})}
    step = Multilingual(recipes=recipes, **{name: value for name, value in fields.items() if name != "default"})
    assert step.apply(batch_of([("en", "a"), ("fr", "b"), (None, "c")])).reasons.to_pylist() == reasons
    # `default` is a name of ours: a document labelled so has no recipe of its own
    assert step.apply(batch_of([("default", "b")])).reasons.to_pylist() == reasons[1:2]


def test_a_text_may_be_of_two_types_a_number_may_not() -> None:
    def large(batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_columns(batch, {"text": batch["text"].cast(pa.large_string())})

    outcome = Multilingual(recipes={"en": [large], "fr": []}).apply(batch_of(ROWS[:2]))
    assert outcome.batch.schema.field("text").type == pa.large_string()
    assert outcome.batch["text"].to_pylist() == ["one two three", "un"]
    name = f"{__name__}:types"
    with pytest.raises(RecipeError, match="the steps of en give the column 'own' as int64, those of fr as double"):
        Multilingual(recipes={"en": [{name: {"number": True}}], "fr": [{name: {"number": False}}]}).apply(batch_of([]))


def test_faults_name_the_language() -> None:
    with pytest.raises(RunError, match="multilingual, fr: step fails failed on a batch: ZeroDivisionError"):
        Multilingual(recipes={"fr": [fails]}, missing="keep").apply(batch_of(ROWS))
    with pytest.raises(RecipeError, match="multilingual, fr: a step drops the column 'text'"):
        Multilingual(recipes={"fr": [loses]}).apply(batch_of(ROWS))
    with pytest.raises(RecipeError, match="there is no column 'script': put language_id before it"):
        Multilingual(column="script", recipes={"fr": []}).apply(batch_of(ROWS))
    with pytest.raises(RecipeError, match="there is no column 'language_score'"):
        LanguageScore(minimum=0.5).apply(batch_of(ROWS))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "name `recipes` by language"),
        ({"recipes": {"fr": ["gopher"]}}, "recipes.fr.0: there is no step 'gopher'"),
        ({"recipes": {"fr": [{"gopher_quality": {"min_doc_words": -1}}]}}, r"recipes.fr.0.min_doc_words: .*\(is -1\)"),
        ({"recipes": {"fr": "gopher_quality"}}, "the recipe of fr is a list of steps, not 'gopher_quality'"),
        ({"recipes": {False: []}}, "languages have names, not False: put quotes around it"),
        ({"recipes": {"default": []}, "missing": "keep"}, "leave one out"),
        ({"recipes": {"fr": []}, "preset_fields": {"gopher_quality": {}}}, "there is no `preset`"),
        ({"preset": "fineweb2", "preset_fields": {"c4_quality": {}}}, "preset_fields names 'c4_quality'"),
        ({"preset": "fineweb2", "preset_fields": {"gopher_quality": {"min_words": 3}}}, "min_words"),
        ({"preset": "fineweb3"}, "fineweb2"),
    ],
)
def test_what_routes_nowhere_is_refused(fields: dict[str, Any], words: str) -> None:
    value = {"inputs": {"in": {"path": "x"}}, "steps": [{"multilingual": fields}], "text": {}}
    with pytest.raises(RecipeError, match=words):
        Recipe.from_value(value)


def test_what_scores_rejected_documents_does_so_inside_too() -> None:
    value: dict[str, Any] = {"inputs": {"in": {"path": "x"}}, "text": {}, "score_rejected": True}
    inner: dict[str, Any] = {"recipes": {"fr": [SHORT]}}
    with pytest.raises(RecipeError, match=r"false in steps.1.multilingual: set it there too"):
        Recipe.from_value({**value, "steps": ["c4_quality", {"multilingual": inner}]})
    assert Recipe.from_value({**value, "steps": [{"multilingual": {**inner, "score_rejected": True}}]}).score_rejected


def test_travels_is_written_and_read_again() -> None:
    named = Multilingual(recipes={"en": [SHORT], "fr": [{f"{__name__}:first_letter": {"letter": "u"}}]})
    for step in (named, Multilingual(preset="fineweb2", recipes={"en": [SHORT]})):
        again = pickle.loads(pickle.dumps(step))
        assert again == step
        assert hash(again) == hash(step)
        assert parse_step(dump_step(step)) == step
        assert step_fingerprint(again) == step_fingerprint(step)
        rows = with_columns(batch_of(ROWS[:3]), {"language_score": pa.array([1.0] * 3)})
        assert again.apply(rows).reasons.equals(step.apply(rows).reasons)


def test_the_fingerprint_covers_what_is_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prints(**fields: Any) -> Any:
        return Multilingual(**fields).fingerprint()

    assert prints(recipes={"en": [SHORT]}) != prints(recipes={"en": []})
    assert prints(recipes={"en": [SHORT]}) != prints(recipes={"de": [SHORT]})
    assert prints(recipes={"en": [shout]})["recipes"]["en"][0]["source"]
    before = prints(preset="fineweb2")
    table = tmp_path / "table.tsv"
    table.write_bytes(fineweb2.TABLE.read_bytes().replace(b"\t.755\t", b"\t.756\t", 1))
    monkeypatch.setattr(fineweb2, "TABLE", table)
    fineweb2.digest.cache_clear()
    try:
        assert prints(preset="fineweb2") != before
    finally:
        monkeypatch.undo()
        fineweb2.digest.cache_clear()


def test_files_of_inner_steps_are_read_from_the_recipes_folder(tmp_path: Path) -> None:
    inner = {"language_id": {"model": "own.ftz"}}
    deeper = {"multilingual": {"recipes": {"fr": [{"language_id": {"model": "/abs.ftz"}}, inner]}}}
    value: dict[str, Any] = {"steps": ["extract_html", {"multilingual": {"recipes": {"fr": [deeper, 3], "en": None}}}]}
    root_paths(value, tmp_path)
    found = value["steps"][1]["multilingual"]["recipes"]["fr"][0]["multilingual"]["recipes"]["fr"]
    assert [step["language_id"]["model"] for step in found] == ["/abs.ftz", str(tmp_path / "own.ftz")]


def test_a_kernel_is_compiled_once_for_all_languages() -> None:
    steps: list[Step] = [Multilingual(preset="fineweb2", recipes={"en": [SHORT, "c4_quality", shout], "fr": [SHORT]})]
    found = [getattr(step, "kind", "") for step in distinct(inner_steps(steps))]
    assert found == ["gopher_quality", "c4_quality", "shout", "language_score", "gopher_repetition", "fineweb_quality",
                     "gopher_quality"]  # fmt: skip


def test_fineweb2_has_the_published_thresholds() -> None:
    """As in configs/fra_Latn.yml, tha_Thai.yml and deu_Latn.yml of the commit that the table names."""
    assert len(set(fineweb2.languages().values())) == 1929
    assert len(fineweb2.languages()) == 1929 + 175  # lid.176 knows 176, one of which is English
    french = fineweb2.fields("fr")
    assert french == fineweb2.fields("fra_Latn")
    assert french["language_score"] == {"minimum": 0.824}
    assert french["gopher_repetition"] == {
        "dup_para_frac": None, "dup_para_char_frac": None, "dup_line_char_frac": None, "dup_line_frac": 0.264,
        "top_2_gram": 0.161, "top_3_gram": 0.149, "top_4_gram": 0.134, "duplicated_5_n_grams": 0.15,
        "duplicated_6_n_grams": 0.141, "duplicated_7_n_grams": 0.131, "duplicated_8_n_grams": 0.121,
        "duplicated_9_n_grams": 0.111, "duplicated_10_n_grams": 0.1,
    }  # fmt: skip
    assert french["fineweb_quality"] == {"variant": "fineweb2", "line_punct_thr": 0.1, "new_line_ratio": 0.185}
    assert french["gopher_quality"] == {
        "min_avg_word_length": 2, "max_avg_word_length": 11, "min_alpha_words_ratio": 0.812, "min_stop_words": 2,
        "stop_words": ["de", "la", "le", "et", "à", "en", "l'", "des", "du", "les", "est", "d'", "un", "une", "il",
                       "dans", "par", "au"],
    }  # fmt: skip
    assert fineweb2.fields("th")["fineweb_quality"]["line_punct_thr"] == 0.0
    assert fineweb2.fields("aai_Latn")["fineweb_quality"]["line_punct_thr"] is None  # -1 there
    with pytest.raises(ValueError, match="no config for 'en'"):
        fineweb2.fields("en")


def test_decides_as_datatrove_does_with_fineweb2s_configs() -> None:
    data = Path(__file__).parent / "data"
    variants = runpy.run_path(str(data / "make_fineweb2_golden.py"))["variants"]
    passages = [
        json.loads(line) for line in (data / "language.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
    ]
    golden = json.loads((data / "fineweb2.json").read_text())["rules"]
    rows = [(row["language"], text, rule) for row, rules in zip(passages, golden, strict=True) if rules is not None
            for text, rule in zip(variants(row["text"]), rules, strict=True)]  # fmt: skip
    step = Multilingual(preset="fineweb2", preset_fields={"language_score": None})
    reasons = step.apply(batch_of([row[:2] for row in rows])).reasons.to_pylist()
    assert [reason and reason.partition("/")[2] for reason in reasons] == [rule for *_, rule in rows]
    assert len({rule for *_, rule in rows}) >= 10
    assert len({language for language, *_ in rows}) >= 50


def test_every_language_of_fineweb2_makes_its_steps() -> None:
    step = Multilingual(preset="fineweb2")
    for label in [*sorted(set(fineweb2.languages().values()))[::20], "bod_Tibt", "bdq_Latn", "fr"]:
        kinds = list(map(step_kind, step.steps_of(label) or ()))
        assert kinds == ["language_score", "gopher_repetition", "fineweb_quality", "gopher_quality"]
        rows = with_columns(batch_of([(label, "a b"), (label, "")]), {"language_score": pa.array([0.1, 1.0])})
        reasons = step.apply(rows).reasons.to_pylist()
        assert reasons[0] == "language_score/below_minimum"
        assert reasons[1] is not None


def test_a_users_fields_and_recipes_go_before_the_presets() -> None:
    step = Multilingual(preset="fineweb2", recipes={"fr": []}, preset_fields={"gopher_quality": {"min_doc_words": 7}})
    assert step.steps_of("fr") == ()
    (*_, gopher) = step.steps_of("de") or ()
    assert isinstance(gopher, GopherQuality)
    assert (gopher.min_doc_words, gopher.max_avg_word_length) == (7, 15.0)
    scored = with_columns(batch_of([("fr", "?")]), {"language_score": pa.array([0.0])})
    assert apply_step(step, scored).reasons.to_pylist() == [None]
    unscored = Multilingual(preset="fineweb2", preset_fields={"language_score": None})
    assert step_kind((unscored.steps_of("fr") or ())[0]) == "gopher_repetition"
    assert unscored.apply(batch_of([("fr", "")])).reasons.to_pylist() == ["fineweb_quality/empty"]


def test_a_run_routes_quarantines_and_adds_up(corpus: Path, tmp_path: Path) -> None:
    recipes = {"t0": [{"gopher_quality": {"min_doc_words": 200, "min_stop_words": None}}, f"{__name__}:shout"],
               "t1": [f"{__name__}:sets_beside"]}  # fmt: skip
    value = recipe_over(corpus, tokenizer=None, tokens=None, dedup=None, steps=[{"multilingual": {"recipes": recipes}}])
    value["inputs"]["docs"]["fields"]["language"] = "topic"
    manifest = run(Recipe.from_value(value), tmp_path, workers=2, quiet=True)
    assert manifest["steps"] == ["multilingual"]
    assert list(manifest["rejected_by_rule"]) == ["gopher_quality/gopher_short_doc"]
    assert manifest["quarantined"] > 0
    assert manifest["documents_in"] == 240 == sum(manifest[name] for name in ("kept", "rejected", "quarantined"))
    parts = pq.read_table(tmp_path / manifest["tables"]["parts"]).to_pylist()
    folder = tmp_path / "documents" / manifest["stages"]["documents"]
    kept = [row for part in parts for row in pq.read_table(folder / part["documents_object"]).to_pylist()]
    assert {row["language"]: (row["shouted"], row["gopher_quality.words"] is None) for row in kept} == {
        "t0": (True, False), "t1": (None, True),
    }  # fmt: skip
    assert all(row["text"].isupper() == (row["language"] == "t0") for row in kept)


def test_a_report_and_a_trace_know_the_thresholds_of_each_language() -> None:
    recipes: dict[str, Any] = {"en": [{"fineweb_quality": {"new_line_ratio": 0.2}}], "de": [], "default": [SHORT]}
    step = Multilingual(preset="fineweb2", recipes=recipes)
    value = {
        "steps": [step.kind],
        "recipe": {"steps": [dump_step(step)]},
        "languages": {"en": 1, "fr": 1, "fra_Latn": 1},
    }

    def cuts(score: str, language: str | None) -> list[tuple[str, float]]:
        return [(cut.drops, cut.value) for cut in thresholds(value, score, language)]

    ratio, short = "fineweb_quality.list_ratio", "gopher_quality.nonsymbol_words"
    assert [cuts(ratio, name) for name in ("en", "fr", "fra_Latn", "de", "xx", None)] == [
        [("above", 0.2)], [("above", 0.185)], [("above", 0.185)], [], [], [],
    ]  # fmt: skip
    assert [cuts(short, name)[:1] for name in ("fr", "xx", None)] == [[("below", 50)], [("below", 3)], [("below", 50)]]
    assert cuts("language_score", "fr") == [("below", 0.824)]
    assert cuts("fineweb_quality.line_punct_ratio", "fr") == [("below", 0.1)]
    other = {**value, "recipe": {"steps": [dump_step(Multilingual(column="source", recipes=recipes))]}}
    assert [cut.value for cut in thresholds(other, ratio, "fr")] == [0.2]
    assert (concerns("language_score", "language_score"), kind_of_rule("a/b", "multilingual")) == (True, "a")
