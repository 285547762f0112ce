"""What a deduplication tells of itself: the survey of its tables, pairs and their words, page, summary."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import RequestError
from penstock.pipelines import dedup_survey, dedup_texts, word_diff
from penstock.pipelines.clusters import CLUSTERS
from penstock.pipelines.dedup import DedupJob, dedup_job, deduplicate
from penstock.pipelines.dedup_charts import curve, curve_points, size_classes
from penstock.pipelines.dedup_examples import chosen, read_examples
from penstock.pipelines.dedup_plan import plan_value
from penstock.pipelines.dedup_report import duplicates_section, pairs_section
from penstock.pipelines.dedup_summary import dedup_summary, explain
from penstock.pipelines.dedup_survey import Duplicates, Pair, settings_of, survey_duplicates, tables_of
from penstock.pipelines.dedup_texts import DedupTexts, Shown
from penstock.pipelines.plan import plan_inputs
from penstock.pipelines.report import write_report
from penstock.sharding.store import Store
from penstock.transforms import MinHash

HOSTILE = "<script>alert(1)</script> \u202e \x1b[31m </pre></details> &amp; '\"><img src=x onerror=alert(1)>"
WORDS = [f"{a}{b}" for a in ("al", "be", "cor", "den", "el", "fa", "gro") for b in ("da", "ver", "mon", "tis", "kal")]


def documents() -> dict[str, list[dict[str, Any]]]:
    """Two inputs: copies within one and between both, near copies with one to nine words changed, two of one URL."""
    chance = random.Random(5)
    base = [chance.choices(WORDS, k=200) for _ in range(30)]

    def changed(words: list[str], times: int) -> str:
        made = list(words)
        for at in chance.sample(range(len(made)), times):
            made[at] = f"changed{at}"
        return " ".join(made)

    first: list[dict[str, Any]] = [
        {"id": f"a{n}", "text": " ".join(words), "url": f"https://a.example/{n}"} for n, words in enumerate(base)
    ]
    first += [{"id": f"a{30 + n}", "text": " ".join(base[n]), "url": None} for n in range(4)]
    second = [{"id": f"b{n}", "text": changed(base[n], 1 + n % 9), "url": None} for n in range(12)]
    second += [{"id": "b<i>12", "text": f"{' '.join(base[20])} {HOSTILE}", "url": "https://b.example/<b>"}]
    second += [{"id": "b13", "text": "another page altogether " * 30, "url": "https://a.example/25"}]
    return {"first": first, "sec<ond": second}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs, and a deduplication of them in `out`."""
    folder = tmp_path_factory.mktemp("alone")
    for name, rows in documents().items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name.replace('<', '')}.jsonl").write_text(lines, encoding="utf-8")
    inputs = [f"first={folder}/first.jsonl", f"sec<ond={folder}/second.jsonl"]
    job = dedup_job(inputs, fields={"id": "id"}, dedup={"url": {"keep": "smallest_id"}, "keep": ["smallest_id"]})
    deduplicate(job, folder / "out", workers=1, quiet=True)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> tuple[Store, dict[str, Any]]:
    store = Store(folder / "out")
    return store, json.loads(store.read("manifest.json"))


def removals(store: Store, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for name, _ in tables_of(store, manifest) for row in pq.read_table(store.local(name)).to_pylist()]


def test_survey_counts_as_a_plain_reading_of_the_tables_does(run: tuple[Store, dict[str, Any]]) -> None:
    rows, found = removals(*run), survey_duplicates(*run)
    assert found.removed == len(rows) == run[1]["duplicates"] > 15
    assert found.kinds == Counter(row["kind"] for row in rows)
    assert set(found.kinds) == {"url", "exact", "near"}
    inputs = ("first", "sec<ond")
    assert found.lost == Counter((inputs[row["part"]], inputs[row["kept_part"]]) for row in rows)
    assert found.entered == {"first": 34, "sec<ond": 14}
    clusters = {(row["kind"] == "url", row["cluster"]): row["cluster_size"] for row in rows}
    assert found.cluster_sizes == dict(sorted(Counter(clusters.values()).items()))
    known = [row["similarity"] for row in rows if row["kind"] == "near" and row["similarity"] is not None]
    assert int(found.similarities.sum()) == len(known)
    assert found.largest == max(clusters.values())


def test_neither_order_nor_row_groups_decide_what_is_shown(
    run: tuple[Store, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedup_survey, "POOL", 3)
    monkeypatch.setattr(dedup_survey, "SLICE", 5)
    store, manifest = run
    whole = survey_duplicates(store, manifest)
    table = pa.concat_tables(pq.read_table(store.local(name)) for name, _ in tables_of(store, manifest)[-1:])
    found = []
    for seed, size in ((1, 3), (2, 7), (3, 1000)):
        order = np.random.default_rng(seed).permutation(len(table))
        pq.write_table(table.take(pa.array(order)), tmp_path / "clusters.parquet", row_group_size=size)
        texts = DedupTexts(store, manifest)
        found.append(survey_duplicates(Store(tmp_path), {"tables": {"clusters": "clusters.parquet"}}, texts))
    for one in found:
        assert (one.pairs, one.clusters, one.lost) == (found[0].pairs, found[0].clusters, found[0].lost)
        assert one.cluster_sizes == found[0].cluster_sizes
    assert {pair.ids for pair in found[0].pairs} <= {pair.ids for pair in whole.pairs}


def test_similarities_of_examples_are_those_of_the_definition(run: tuple[Store, dict[str, Any]]) -> None:
    texts, found = DedupTexts(*run), survey_duplicates(*run)
    read_examples(found, texts, settings_of(run[1]))
    by_id = {row["id"]: row["text"] for rows in documents().values() for row in rows}
    near = [pair for pair in found.pairs if pair.kind == "near"]
    assert len(near) >= 6
    assert found.sampled == found.kinds["near"]
    for pair in near:
        assert pair.shown is not None
        assert [shown.text for shown in pair.shown] == [by_id[own] for own in pair.own if own]
        both = [shown.text or "" for shown in pair.shown]
        if not any(HOSTILE in text for text in both):  # its normalisation is another test's matter
            one, two = ({tuple(words[at : at + 5]) for at in range(196)} for words in map(str.split, both))
            assert pair.similarity == pytest.approx(len(one & two) / len(one | two))
    order = [dedup_survey.CLASSES.index(pair.alike) for pair in found.pairs]
    assert order == sorted(order)


def test_examples_are_spread_over_classes_and_kept_documents() -> None:
    def pair(kind: str, similarity: float | None, number: int, kept: int) -> Pair:
        ids = (bytes([number]), bytes([kept]))
        return Pair(kind, similarity, ids, ((0, number), (0, kept)), (None, None), 2)

    many = [pair("exact", 1.0, n, 200) for n in range(40)]
    many += [pair("near", 0.97, 40 + n, 201) for n in range(40)]
    many += [pair("near", 0.85, 80, 202), pair("near", 0.7, 81, 203), pair("near", 0.99, 82, 204)]
    taken = chosen(many, 12)
    counts = Counter(one.alike for one in taken)
    assert counts == {"exact": 2, "≥ 0.95": 8, "0.8 – 0.95": 1, "< 0.8": 1}
    assert pair("near", 0.99, 82, 204) in taken  # the only one of its kept document
    assert len(chosen(many[:40], 12)) == 12  # nothing else to show
    assert Counter(one.alike for one in chosen(many, 4)) == {"exact": 1, "≥ 0.95": 1, "0.8 – 0.95": 1, "< 0.8": 1}


def test_page_shows_pairs_side_by_side_and_nothing_steers_it(run: tuple[Store, dict[str, Any]]) -> None:
    store, manifest = run
    page = store.read("report.html").decode()
    write_report(store, manifest)
    assert store.read("report.html").decode() == page
    assert len(page) < 400_000
    tags = set(re.findall(r"<([a-z0-9]+)[ >]", page))
    assert tags <= {
        "html", "head", "meta", "link", "title", "style", "body", "header", "main", "footer", "nav", "section", "h1",
        "h2", "h3", "p", "a", "ul", "ol", "li", "b", "br", "wbr", "span", "code", "pre", "details", "summary", "div",
        "figure", "table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "svg", "rect", "line",
        "text", "del", "ins",
    }  # fmt: skip
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "sec&lt;ond" in page
    assert re.search(r"<del>changed\d+</del>", page) or re.search(r"<ins>changed\d+</ins>", page)
    assert page.count('<line class="curve"') == 100
    for said in ("the same URL", "nearly the same text", "similarity 0.9", "b&lt;i&gt;12", "near pairs chosen by hash"):
        assert said in page, said


def test_texts_that_are_gone_or_others_now_are_not_shown(folder: Path, run: tuple[Store, dict[str, Any]]) -> None:
    store, manifest = run
    path = folder / "second.jsonl"
    body = path.read_bytes()
    settings = settings_of(manifest)

    def page() -> str:
        texts, found = DedupTexts(store, manifest), survey_duplicates(*run)
        read_examples(found, texts, settings)
        return pairs_section(found)

    try:
        path.rename(folder / "away")
        assert page().count("No text here: the input cannot be read any more") >= 5
        path.write_bytes(body + b"\n")
        assert "has 1 bytes" not in page()
        assert "when it was listed" in page()
    finally:
        path.write_bytes(body)
        (folder / "away").unlink()
    assert "No text here" not in page()
    texts = DedupTexts(store, manifest)
    shown = texts.read([((0, 0), b"x" * 16), ((0, 999), b"y" * 16), ((7, 0), b"z" * 16)])
    assert [shown[place].absent for place in ((0, 0), (0, 999), (7, 0))] == [
        "the input holds another record in its place now",
        "the input has no such record any more",
        "its part is not known",
    ]


def test_reading_of_inputs_is_bounded(run: tuple[Store, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup_texts, "READ_BYTES", 1)
    found = survey_duplicates(*run)
    places = [(place, id_) for pair in found.pairs for place, id_ in zip(pair.places, pair.ids, strict=True) if place]
    absent = {place[0]: shown.absent for place, shown in DedupTexts(*run).read(places).items()}
    assert absent[0] is None
    assert str(absent[1]).startswith("not read: ")


def test_the_run_stayed_within_its_plan(folder: Path, run: tuple[Store, dict[str, Any]]) -> None:
    job = DedupJob.from_value(run[1]["recipe"])
    plan = plan_value(job.dedup, job.parts(plan_inputs(job)), 1)
    assert (plan["documents"], plan["documents_exact"]) == (run[1]["documents_in"], True)
    receipts, size = [], 0
    for name in ("urls", "duplicates"):
        stage = folder / "out" / name / run[1]["stages"][name]
        size += sum(path.stat().st_size - len(b"end") for path in stage.glob("data/digests-*"))
        receipts += [path.name for path in stage.glob("receipts/*.json")]
    assert 0.7 * plan["exchange"]["bytes"] < size <= plan["exchange"]["bytes"]
    assert sum(name.startswith("sign-") for name in receipts) == plan["exchange"]["sign_tasks"] == 4
    assert sum(name.startswith("link-") for name in receipts) == plan["exchange"]["link_tasks"] == 16


def row(**values: Any) -> dict[str, Any]:
    return {"id": b"a" * 16, "part": 0, "row": 0, "kind": "near", **values}


def test_earlier_batches_and_repeated_lines_have_no_kept_document_here(tmp_path: Path) -> None:
    kept = {"kept_id": b"k" * 16, "cluster": b"k" * 16, "cluster_size": 2}
    rows = [
        row(**kept, kept_batch="june", kept_source_id="j7"),
        row(**{**kept, "id": b"d" * 16}, kept_batch="june", kept_source_id="j7"),
        row(
            id=b"b" * 16,
            **{**kept, "cluster": b"b" * 16, "kept_part": 1, "kept_row": 4, "kept_batch": None, "similarity": 0.9},
        ),
        row(id=b"c" * 16, kind="line"),
    ]
    schema = CLUSTERS if "kept_batch" in CLUSTERS.names else CLUSTERS.append(pa.field("kept_batch", pa.string()))
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "clusters.parquet")
    manifest = {"tables": {"clusters": "clusters.parquet"}}
    texts = DedupTexts(Store(tmp_path), manifest)
    texts.sources.update({0: "one", 1: "two"})
    found = survey_duplicates(Store(tmp_path), manifest, texts)
    assert found.lost == {("one", "an earlier batch"): 2, ("one", "two"): 1, ("one", "no one document"): 1}
    assert found.kinds == {"near": 3, "line": 1}
    assert found.cluster_sizes == {2: 2}  # both documents of the one that June has went
    read_examples(found, texts, None)
    page = pairs_section(found)
    assert "it came in the batch june" in page
    assert "j7" in page
    assert len(found.pairs) == 3
    assert "lines that stood before" in duplicates_section(found, 10, None)


def test_summary_says_what_went_and_who_lost_to_whom(run: tuple[Store, dict[str, Any]]) -> None:
    store, manifest = run
    said = dedup_summary(manifest, survey_duplicates(store, manifest), "OUT")
    lines = {line[:14].strip(): line[14:].split() for line in said.splitlines()}
    assert lines["documents"][:2] == ["48", "100.0"]
    assert lines["kept"][0] == str(manifest["kept"])
    gone = sum(int(lines[kind][0]) for kind in ("url", "exact", "near"))
    assert 48 + gone == manifest["kept"]
    assert "sec<ond lost" in said
    assert "of them to first" in said
    assert "warning" not in said
    assert f"OUT/output/{manifest['stages']['output']}/data/" in said
    assert "OUT/report.html" in said


@pytest.mark.parametrize(
    ("removed", "documents", "said"),
    [
        (0, 100, "no document was removed: check that"),
        (91, 100, "91.0 % of the documents were removed: check that"),
        (90, 100, None),
        (0, 1, None),
        (0, 0, None),
    ],
)
def test_nothing_and_nearly_everything_are_warned_of(removed: int, documents: int, said: str | None) -> None:
    found = Duplicates(removed=removed, kinds={"near": removed} if removed else {})
    text = dedup_summary({"documents_in": documents, "kept": documents - removed}, found, "OUT")
    assert (said in text) if said else "warning" not in text


def test_large_clusters_and_an_input_that_lost_everything_are_warned_of() -> None:
    found = Duplicates(removed=40, lost={("small", "large"): 40}, entered={"small": 40, "large": 200})
    found.cluster_sizes = {12: 1, 41: 1}
    found.cuts = {"lines": (3, 1, 2_000)}
    manifest = {"documents_in": 240, "kept": 200, "recipe": {"dedup": {"guard": {"size": 20}}}}
    said = dedup_summary(manifest, found, "OUT")
    assert "the input small lost all of its 40 documents" in said
    assert "1 stretch with 2.00 kB cut out of 3 documents" in said
    assert "1 cluster is larger than 20 documents, or 5 % of all" in said
    assert "larger than 20 documents" in duplicates_section(
        replace(found, kinds={"near": 40}), 240, settings_of(manifest)
    )


def test_explain_prints_pairs_with_their_words(folder: Path) -> None:
    said = explain(str(folder / "out"), 6)
    assert said.count("\n  went    ") == said.count("\n  stayed  ") == 6
    assert re.search(r"\[-changed\d+-\] \{\+\w+\+\}", said)
    assert "6 pairs of " in said
    assert "\x1b" not in said
    with pytest.raises(RequestError, match="no finished run"):
        explain(str(folder), 6)


def test_many_inputs_are_summed_up() -> None:
    lost = {(f"in{one:02d}", f"in{two:02d}"): 1 + (one * two) % 7 for one in range(30) for two in range(30)}
    found = Duplicates(removed=sum(lost.values()), kinds={"exact": sum(lost.values())}, lost=lost)
    page = duplicates_section(found, 10_000, None)
    assert page.count('<th scope="col" class="n">to ') == 20
    assert "others" in page
    assert "10 other inputs" in page


def test_curve_is_the_formula_and_is_cut_where_pairs_are_verified() -> None:
    minhash = MinHash(bands=9, rows=13)
    points = curve_points(minhash, None)
    assert [at for at, _ in points] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert all(chance == pytest.approx(1 - (1 - at**13) ** 9) for at, chance in points)
    assert [chance > 0 for _, chance in curve_points(minhash, 0.7)] == [False] * 4 + [True] * 6
    assert "threshold 0.84" in curve(minhash, None, "t")
    assert "verified from 0.7" in curve(minhash, 0.7, "t")


def test_sizes_fall_into_classes() -> None:
    assert size_classes({2: 5, 3: 1, 5: 2, 1_000: 1, 70_000: 1}) == [
        ("2", 5, 10), ("3", 1, 3), ("4 – 5", 2, 10), ("6 – 10", 0, 0), ("11 – 20", 0, 0), ("21 – 50", 0, 0),
        ("51 – 100", 0, 0), ("101 – 1,000", 1, 1_000), ("1,001 – 10,000", 0, 0), ("10,001 and more", 1, 70_000),
    ]  # fmt: skip
    assert size_classes({}) == []


SHORT = st.lists(st.sampled_from(["one", "two", "three", "日", "本"]), max_size=9).map(" ".join)


@given(SHORT, SHORT)
def test_a_difference_holds_both_texts(removed: str, kept: str) -> None:
    found = word_diff.word_diff(removed, kept)
    for side, text in (("removed", removed), ("kept", kept)):
        shown = [stretch.text for stretch in found.side(side)]  # type: ignore[arg-type]
        assert None not in shown
        assert " ".join(filter(None, shown)).split() == text.split()
    both = sum(stretch.words for stretch in found.stretches if stretch.where == "both")
    assert both + found.removed == len(removed.split())
    assert both + found.kept == len(kept.split())
    assert found.whole


def test_equal_words_far_from_a_difference_are_folded() -> None:
    words = [f"w{n}" for n in range(500)]
    other = [*words[:250], "new", *words[251:]]
    assert word_diff.plain(word_diff.word_diff(" ".join(words), " ".join(other))) == (
        f"… 238 equal words … {' '.join(words[238:250])} [-w250-] {{+new+}} {' '.join(words[251:263])} "
        "… 237 equal words …"
    )
    assert word_diff.plain(word_diff.word_diff("a b\nc", "a b\tc")) == "a b\nc"
    assert word_diff.plain(word_diff.word_diff("日本語", "日本人")) == "日本 [-語-] {+人+}"
    assert word_diff.plain(word_diff.word_diff("", "x")) == "{+x+}"


def test_long_texts_are_compared_in_bounded_time_and_length() -> None:
    chance = random.Random(3)
    one = chance.choices(WORDS, k=30_000)
    two = [word if chance.random() < 0.8 else "other" for word in one]
    found = word_diff.word_diff(" ".join(one), " ".join(two))
    assert not found.whole
    assert sum(stretch.words for stretch in found.stretches if stretch.text is not None) <= word_diff.SHOWN
    assert max(found.removed, found.kept) <= word_diff.MOST_WORDS
    same = word_diff.word_diff("word " * 100_000, "word " * 100_000)
    assert (same.removed, same.kept, same.whole) == (0, 0, False)
    moved = word_diff.word_diff(" ".join(one[:5_000]), " ".join(["start", *one[:5_000], "end"]))
    assert (moved.removed, moved.kept) == (0, 1)  # the rest lies behind what is aligned, and is not called different
    assert not moved.whole


def test_an_example_of_an_empty_survey_is_none() -> None:
    found = Duplicates()
    read_examples(found, DedupTexts(Store("."), {}), None)
    assert found.pairs == []
    assert pairs_section(found) == ""
    assert "No two documents" in duplicates_section(found, 10, None)
    assert Shown("place", url="u").title == "u"
