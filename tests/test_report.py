"""The report: a page that is exact, deterministic, safe against the text it shows, and quiet in a real browser."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.pipelines import dedup_survey, report_survey
from penstock.pipelines.funnel import bytes_text, funnel, percent, visible
from penstock.pipelines.ledger import PartWriter
from penstock.pipelines.report import funnel_table, write_report
from penstock.pipelines.report_charts import histogram, score_axis, stacked
from penstock.pipelines.report_survey import survey
from penstock.pipelines.thresholds import FIELDS, Threshold, thresholds
from penstock.sharding.store import Store
from penstock.transforms import (
    C4Paragraphs,
    C4Quality,
    Decontaminate,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    LanguageId,
    RefinedWebLines,
    UrlFilter,
)
from penstock.transforms.named import dump_step
from penstock.transforms.schema import DOCUMENT, document_ids
from penstock.transforms.step import Outcome

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = [
    "<script>document.title = 'pwned'; console.error('pwned')</script>",
    "</style></pre></td><img src=x onerror=\"console.error('pwned')\"><style>body{display:none}</style>",
    "over\u202eride \u2066isolate\u2069 \u200fmark",
    "nul\0 and bell\a and escape\x1b[31m and C1 \x9b31m",
    "noncharacter \uffff and \ufdd0, and an end tag </html>",
    "مرحبا بالعالم، هذا نص عربي طويل يقرأ من اليمين إلى اليسار",
    "한국어와 日本語と中文 🏳️‍🌈 e\u0301\u0302\u0303\u0304",
    "&lt;b&gt; &amp; \" ' ` ]]> --> <!-- <svg onload=alert(1)>",
]
RULES = ("language_id/below_threshold", "gopher_quality/gopher_short_doc", "gopher_quality/<script>alert(1)</script>")
SCORES = {
    "gopher_quality.words": pa.int64(),
    "gopher_quality.mean_word_length": pa.float64(),
    "language_score": pa.float64(),
}


def batch_of(texts: Sequence[str | None], path: str, first: int, scores: Mapping[str, np.ndarray]) -> pa.RecordBatch:
    rows = len(texts)
    places = range(first, first + rows)
    columns: dict[str, pa.Array] = {name: pa.nulls(rows, DOCUMENT.field(name).type) for name in DOCUMENT.names}
    columns |= {
        "id": document_ids("web", path, places), "source": pa.array(["web"] * rows), "path": pa.array([path] * rows),
        "place": pa.array(places, pa.int64()), "text": pa.array(texts, pa.string()),
        "url": pa.array([f"https://site{place % 7}.example/{path}/{place}?q=<i>&x={place}" for place in places]),
        "language": pa.array([("en", "de", "ja", None)[place % 4] for place in places]),
    }  # fmt: skip
    schema = pa.schema([*DOCUMENT, *(pa.field(name, kind) for name, kind in SCORES.items())])
    arrays = [columns[item.name] if item.name in columns else pa.array(scores[item.name], item.type) for item in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def write_part(
    folder: Path, part: int, rows: int, rejected_text: str
) -> tuple[dict[str, Any], dict[str, list[int]], pa.Table]:
    """One ingest task's two files, written as the pipeline writes them; a record in fifty is broken."""
    rng = np.random.default_rng(part)
    path = f"crawl-{part:02d}.warc.gz"
    texts = [
        f"{HOSTILE[row % len(HOSTILE)]} " + "word " * int(rng.lognormal(4, 1.2)) + f"document {part}/{row}"
        for row in range(rows)
    ]
    counts = np.array([len(text.split()) for text in texts])
    scores = {
        "gopher_quality.words": counts, "gopher_quality.mean_word_length": rng.normal(5, 1.2, rows).round(3),
        "language_score": rng.beta(6, 1, rows).round(4),
    }  # fmt: skip
    batch = batch_of(texts, path, 0, scores)
    working = folder / f"part{part}"
    working.mkdir(parents=True)
    writer = PartWriter(working, batch.schema, ["language"], rejected_text)
    writer.met(Outcome(batch, pa.nulls(rows, pa.string())))
    numbers = np.arange(rows)
    broken = numbers % 50 == 7
    unsure = ~broken & (scores["language_score"] < 0.65)
    short = ~broken & ~unsure & (counts < 50)
    long = ~broken & ~unsure & ~short & (scores["gopher_quality.mean_word_length"] > 7)
    rules = ((unsure, 0, RULES[0]), (short, 1, RULES[1]), (long, 1, RULES[2]))
    for chosen, step, rule in rules:
        writer.reject(batch.filter(pa.array(chosen)), step, pa.array([rule] * int(chosen.sum()), pa.string()))
    gone = broken.sum()
    errors = pa.array([f"{HOSTILE[0]} cannot be decoded" if row % 2 else "the body ends early" for row in range(gone)])
    writer.quarantine(batch.filter(pa.array(broken)), -1, errors, pa.array([b"\x00raw"] * gone))
    kept = batch.filter(pa.array(~(broken | unsure | short | long)))
    writer.keep(kept, 1)
    writer.close()
    names = {}
    for kind in ("documents", "ledger"):
        names[kind] = f"data/{kind}-{part:032x}.parquet"
        target = folder / "documents/abc" / names[kind]
        target.parent.mkdir(parents=True, exist_ok=True)
        (working / f"{kind}.parquet").rename(target)
    row = {"part": part, "source": "web", "path": path, "start": 0, "documents_object": names["documents"],
           "ledger_object": names["ledger"], "documents": len(kept), "bytes": 0, "id_sum": "0"}  # fmt: skip
    return row, writer.tally.funnel, pq.read_table(folder / "documents/abc" / names["documents"])


def write_clusters(folder: Path, documents: Sequence[pa.Table]) -> tuple[str, int]:
    """Clusters as the match stage writes them: sizes 9, 4 and many of 2, the first document of each kept."""
    rows: list[dict[str, Any]] = []
    ids = documents[0].column("id").to_pylist()
    start = 0
    for size in (9, 4, *([2] * 20)):
        members = ids[start : start + size]
        for offset in range(1, size):
            rows.append({"id": members[offset], "kept_id": members[0], "cluster": min(members), "cluster_size": size,
                         "part": 0, "row": start + offset, "kind": "near", "similarity": 1 / offset or None,
                         "kept_part": 0, "kept_row": start})  # fmt: skip
        start += size
    kind = pa.binary(16)
    schema = pa.schema(
        [
            ("id", kind),
            ("kept_id", kind),
            ("cluster", kind),
            ("cluster_size", pa.int64()),
            ("part", pa.int32()),
            ("row", pa.int64()),
            ("kind", pa.string()),
            ("similarity", pa.float32()),
            ("kept_part", pa.int32()),
            ("kept_row", pa.int64()),
        ]
    )
    (folder / "duplicates/def").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "duplicates/def/clusters-0.parquet", row_group_size=7)
    return "duplicates/def/clusters-0.parquet", len(rows)


def make_run(folder: Path, parts: int = 2, rows: int = 400, rejected_text: str = "all") -> dict[str, Any]:
    """A run directory with a ledger, documents and clusters, and its manifest."""
    made = [write_part(folder, part, rows, rejected_text) for part in range(parts)]
    pq.write_table(pa.Table.from_pylist([row for row, _, _ in made]), folder / "documents/abc/parts-0.parquet")
    clusters, duplicates = write_clusters(folder, [table for _, _, table in made])
    summed: dict[str, list[int]] = {}
    for _, tally, _ in made:
        for key, (documents, size) in tally.items():
            entry = summed.setdefault(key, [0, 0])
            summed[key] = [entry[0] + documents, entry[1] + size]
    kinds = {-1: "read", 0: "language_id", 1: "gopher_quality"}
    entries: list[dict[str, Any]] = []
    for key, (documents, size) in sorted(summed.items()):
        step, fate, rule = key.split("|", 2)
        entries.append(
            {
                "step": int(step),
                "kind": kinds[int(step)],
                "fate": fate,
                "rule": rule or None,
                "documents": documents,
                "bytes": size,
            }
        )
    fates = {
        fate: sum(entry["documents"] for entry in entries if entry["fate"] == fate)
        for fate in ("kept", "rejected", "quarantined")
    }
    manifest = {
        "penstock": "0.1.0", "format": 1, "name": "quick<start>", "steps": ["language_id", "gopher_quality"],
        "recipe": {"rejected_text": rejected_text,
                   "steps": [{"language_id": {"minimum": 0.65}}, {"gopher_quality": {}}]},
        "recipe_fingerprint": "f" * 32, "stages": {"documents": "abc", "duplicates": "def", "tokens": "0" * 32},
        "tables": {"parts": "documents/abc/parts-0.parquet", "row_groups": None, "clusters": clusters},
        "documents_in": parts * rows, **fates, "kept": fates["kept"] - duplicates, "duplicates": duplicates,
        "funnel": entries, "languages": {"en": [100, 123_456], "de": [60, 70_000], "": [40, 20_000]},
        "tokens": 123_456, "tokens_sha256": "e" * 64,
        "versions": {"python": "3.11", "pyarrow": "25"}, "models": {"language_id.sha256": "8" * 64},
        "streams": {"train/en": {"documents": 90, "tokens": 100_000}, "validation": {"documents": 3, "tokens": 23_456}},
        "cost": {"documents": {"tasks": 2, "cpu_seconds": 4.5, "by": {"read": 1.25, "0 language_id": 3.0},
                               "peak_rss_bytes": 200_000_000, "input_bytes": 9_000_000}},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("run")
    manifest = make_run(folder)
    store = Store(folder)
    write_report(store, manifest)
    return store, manifest, store.read("report.html").decode()


class Elements(HTMLParser):
    """Every element and attribute of a page, as a browser's parser meets them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def test_table_counts_every_fate(finished: tuple[Store, dict[str, Any], str]) -> None:
    _, manifest, _ = finished
    table = funnel_table(manifest)
    rows = {line[:31].strip(): line[31:].split() for line in table.splitlines()}
    assert rows["records in"][0] == "800"
    assert (
        rows["gopher_short_doc"][0]
        == f"-{sum(e['documents'] for e in manifest['funnel'] if e['rule'] == 'gopher_quality/gopher_short_doc'):,}"
    )
    assert rows["duplicates"][0] == f"-{manifest['duplicates']}"
    assert rows["kept"][0] == f"{manifest['kept']}"
    assert rows["tokens"] == ["123,456"]
    gone = [-int(cells[0].replace(",", "")) for cells in rows.values() if cells and cells[0].startswith("-")]
    assert 800 - sum(gone) == manifest["kept"]


def test_funnel_follows_documents_through_the_steps(finished: tuple[Store, dict[str, Any], str]) -> None:
    account = funnel(finished[1])
    assert account.adds_up
    assert [stage.kind for stage in account.stages] == ["read", "language_id", "gopher_quality"]
    for before, after in zip(account.stages, account.stages[1:], strict=False):
        assert before.documents_out == after.documents_in
    assert account.stages[-1].documents_out == account.passed == account.kept + account.duplicates
    assert not funnel({**finished[1], "kept": 1}).adds_up


def test_bytes_of_kept_text_are_said_only_where_the_manifest_weighed_them() -> None:
    entry = {"step": 0, "kind": "x", "fate": "kept", "rule": None, "documents": 10, "bytes": 1_000}
    base = {"documents_in": 10, "kept": 10, "funnel": [entry], "steps": ["x"]}
    assert funnel(base).kept_bytes == 1_000
    assert funnel({**base, "kept": 8, "duplicates": 2, "bytes_kept": 1_000}).kept_bytes is None
    assert funnel({**base, "kept": 8, "duplicates": 2, "bytes_kept": 700}).kept_bytes == 700


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_000, "999 kB"),
        (5_100_000, "5.10 MB"),
        (2 * 10**12, "2.00 TB"),
    ],
)
def test_sizes_are_said_in_three_digits(size: int, said: str) -> None:
    assert bytes_text(size) == said


def test_a_small_share_never_reads_as_nothing() -> None:
    assert percent(1, 1_000_000) == "< 0.1 %"
    assert percent(0, 10) == "0.0 %"
    assert percent(1, 3) == "33.3 %"
    assert percent(0, 0) == ""


def test_page_holds_no_markup_from_documents(finished: tuple[Store, dict[str, Any], str]) -> None:
    page = finished[2]
    found = Elements(page)
    allowed = {
        "html", "head", "meta", "link", "title", "style", "body", "header", "main", "footer", "nav", "section",
        "article", "h1", "h2", "h3", "p", "a", "ul", "ol", "li", "b", "br", "wbr", "span", "code", "pre", "details",
        "summary", "div", "figure", "table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "svg",
        "rect", "line", "text", "del", "ins",
    }  # fmt: skip
    assert set(found.tags) <= allowed
    assert found.tags.count("style") == 1
    assert not [
        name for name, _ in found.attributes if name.startswith("on") or name in ("src", "style", "action", "srcset")
    ]
    links = [value for name, value in found.attributes if name == "href"]
    assert all(value.startswith("#") or value == "data:," for value in links)
    assert "&lt;script&gt;document.title" in page  # the hostile text is there, as text


def test_page_has_no_character_that_steers_a_browser(finished: tuple[Store, dict[str, Any], str]) -> None:
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]",
        finished[2],
    )
    assert "⟨U+202E⟩" in visible(HOSTILE[2])
    assert visible("a\r\nb\rc\0\x1b") == "a\nb␍c␀␛"
    assert visible("\ud800 \U0001ffff مرحبا") == "\ufffd \ufffd مرحبا"


def test_policy_forbids_everything_but_the_page_itself(finished: tuple[Store, dict[str, Any], str]) -> None:
    page = finished[2]
    style = re.search("<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]


def test_page_says_what_the_run_made(finished: tuple[Store, dict[str, Any], str]) -> None:
    _, manifest, page = finished
    for fact in (
        manifest["tokens_sha256"],
        manifest["recipe_fingerprint"],
        "pyarrow 25",
        "123,456",
        "2.0 MB/s",
        "train/<wbr>en",
        "the body ends early",
    ):
        assert fact in page, fact
    assert "quick&lt;start&gt;" in page
    assert "every record read is accounted for" in page
    broken = {**manifest, "kept": manifest["kept"] - 1}
    store = finished[0].child("elsewhere")
    write_report(store, {**broken, "tables": {}})
    assert "does not add up" in store.read("report.html").decode()


def test_same_run_gives_the_same_page(finished: tuple[Store, dict[str, Any], str], tmp_path: Path) -> None:
    store, _, page = finished
    write_report(store, json.loads(store.read("manifest.json")))
    assert store.read("report.html").decode() == page
    elsewhere = make_run(tmp_path)
    write_report(Store(tmp_path), elsewhere)
    assert Store(tmp_path).read("report.html").decode() == page


def test_survey_counts_as_a_plain_reading_of_the_ledger_does(finished: tuple[Store, dict[str, Any], str]) -> None:
    store, manifest, _ = finished
    rows = [
        row
        for part in range(2)
        for row in pq.read_table(store.local(f"documents/abc/data/ledger-{part:032x}.parquet")).to_pylist()
    ]
    found = survey(store, manifest)
    assert (found.parts, found.parts_read, found.rows_read) == (2, 2, len(rows))
    for fate in ("kept", "rejected"):
        sizes = [row["bytes"] for row in rows if row["fate"] == fate]
        edges = [*report_survey.LENGTH_EDGES.tolist(), 1 << 62]
        assert found.lengths[fate].tolist() == [
            sum(low <= size < high for size in sizes) for low, high in itertools.pairwise(edges)
        ]
    for name in SCORES:
        assert sorted(found.scores[name].tolist()) == sorted(float(row[name]) for row in rows)
    for rule, examples in found.examples.items():
        assert len(examples) == 3
        assert {example.id for example in examples} <= {row["id"].hex() for row in rows if row["rule"] == rule}
        assert all(example.text for example in examples)
    assert {error: group.documents for error, group in found.errors.items()} == {
        "the body ends early": 8, f"{HOSTILE[0]} cannot be decoded": 8
    }  # fmt: skip
    assert [record.where for record in found.errors["the body ends early"].records[:2]] == [
        "web/crawl-00.warc.gz#7",
        "web/crawl-00.warc.gz#107",
    ]


def test_clusters_are_the_largest_with_their_smallest_members(finished: tuple[Store, dict[str, Any], str]) -> None:
    store, manifest, page = finished
    rows = pq.read_table(store.local(manifest["tables"]["clusters"])).to_pylist()
    survey_ = survey(store, manifest)
    found = survey_.duplicates
    assert found.cluster_sizes == {2: 20, 4: 1, 9: 1}
    by_cluster: dict[bytes, list[dict[str, Any]]] = {}
    for row in rows:
        by_cluster.setdefault(row["cluster"], []).append(row)
    wanted = sorted(by_cluster, key=lambda name: (-by_cluster[name][0]["cluster_size"], name))[: dedup_survey.CLUSTERS]
    assert [cluster.cluster for cluster in found.clusters] == wanted
    for cluster in found.clusters:
        members = sorted((row["id"], row["part"], row["row"]) for row in by_cluster[cluster.cluster])[
            : dedup_survey.MEMBERS
        ]
        assert cluster.members == members
        documents = pq.read_table(store.local(f"documents/abc/data/documents-{members[0][1]:032x}.parquet"))
        assert cluster.text == documents.column("text")[members[0][2]].as_py()
        assert {cluster.kept, *(name for name, _, _ in members)} <= set(survey_.found)
    assert "and 4 other copies" in page


def test_duplicates_are_weighed(finished: tuple[Store, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch) -> None:
    store, manifest, page = finished
    clusters = pq.read_table(store.local(manifest["tables"]["clusters"])).column("id").to_pylist()
    ledger = pq.read_table(store.local(f"documents/abc/data/ledger-{0:032x}.parquet")).to_pylist()
    weight = sum(row["bytes"] for row in ledger if row["id"] in clusters)
    assert survey(store, manifest).duplicate_bytes == weight
    kept = sum(entry["bytes"] for entry in manifest["funnel"] if entry["fate"] == "kept") - weight
    assert f"{bytes_text(kept)} of text, cut into" in page
    assert survey(store, {**manifest, "tables": {**manifest["tables"], "clusters": None}}).duplicate_bytes is None
    monkeypatch.setattr(report_survey, "WEIGHED", 5)
    assert survey(store, manifest).duplicate_bytes is None


def test_survey_stays_within_its_bounds(
    finished: tuple[Store, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest, _ = finished
    whole = survey(store, manifest)
    monkeypatch.setattr(report_survey, "SURVEY_ROWS", 1)
    monkeypatch.setattr(report_survey, "SAMPLE_ROWS", 50)
    monkeypatch.setattr(report_survey, "MOST_ERRORS", 1)
    found = survey(store, manifest)
    assert (found.parts, found.parts_read, found.rows_read) == (2, 1, 400)
    assert {len(values) for values in found.scores.values()} == {50}
    assert set(found.scored.values()) == {400}
    assert set(found.errors) >= {report_survey.OTHER_ERRORS}
    assert sum(group.documents for group in found.errors.values()) == 8
    monkeypatch.undo()
    monkeypatch.setattr(report_survey, "SAMPLE_ROWS", 50)
    sampled = survey(store, manifest)
    for name, values in sampled.scores.items():
        assert set(values.tolist()) <= set(whole.scores[name].tolist())


@pytest.mark.parametrize("rejected_text", ["sample", "none"])
def test_examples_come_with_text_where_the_ledger_has_it(tmp_path: Path, rejected_text: str) -> None:
    manifest = make_run(tmp_path, rows=1_500, rejected_text=rejected_text)
    store = Store(tmp_path)
    rows = [
        row
        for part in range(2)
        for row in pq.read_table(store.local(f"documents/abc/data/ledger-{part:032x}.parquet")).to_pylist()
    ]
    for rule, examples in survey(store, manifest).examples.items():
        sampled = sum(row["rule"] == rule and row["text"] is not None for row in rows)
        assert sum(example.text is not None for example in examples) == min(3, sampled)


@pytest.mark.parametrize(
    "manifest", [{}, {"name": "n", "documents_in": 0, "funnel": [], "steps": [], "tables": {}, "stages": {}}]
)
def test_an_empty_run_has_a_page(tmp_path: Path, manifest: dict[str, Any]) -> None:
    store = Store(tmp_path)
    write_report(store, manifest)
    assert b"Of 0 records read" in store.read("report.html")
    assert "kept" in funnel_table(manifest)


def test_text_that_is_not_utf8_is_shown_all_the_same(tmp_path: Path) -> None:
    manifest = make_run(tmp_path, parts=1)
    path = tmp_path / "documents/abc/data" / f"ledger-{0:032x}.parquet"
    table = pq.read_table(path)
    broken = pa.array([b"bad \xff\xfe url"] * len(table), pa.binary()).view(pa.string())
    for name in ("url", "error"):
        table = table.set_column(table.schema.get_field_index(name), name, broken)
    pq.write_table(table, path)
    write_report(Store(tmp_path), manifest)
    assert "bad \ufffd\ufffd url" in Store(tmp_path).read("report.html").decode()


def test_thresholds_are_those_of_the_steps(tmp_path: Path) -> None:
    """Each threshold that the page draws is found by replaying the step's own decision on both sides of it."""
    listed = tmp_path / "listed.txt"
    listed.write_text("bonus\nA riddle of more than eight words, which nobody has solved in all the years.\n")
    text = "The end of that was near, and we have to be with it; so it was said of the others. " * 12
    steps = [
        GopherRepetition(),
        *(GopherQuality(variant=variant) for variant in ("fineweb", "dclm", "dolma")),
        C4Quality(),
        C4Quality(variant="c4"),
        C4Paragraphs(),
        RefinedWebLines(),
        FineWebQuality(),
        UrlFilter(soft_words=(str(listed),)),
        Decontaminate(benchmarks=(str(listed),)),
    ]
    lines = "".join(f"{text[i:]}{i}. It was. So. And. There.\n" for i in range(9))
    batch = pa.record_batch({"text": [lines], "url": ["https://x.example/"]})
    checked = set()
    for step in steps:
        manifest = {"steps": [step.kind], "recipe": {"steps": [dump_step(step)]}}
        scores = {name: np.asarray(values) for name, values in step.measure(batch).items()}
        calm = {
            name: np.zeros_like(values) if np.issubdtype(values.dtype, np.floating) else values
            for name, values in scores.items()
        }
        calm |= {
            "mean_word_length": np.array([5.0]),
            "median_word_length": np.array([5.0]),
            "alpha_word_ratio": np.array([1.0]),
            "line_punct_ratio": np.array([1.0]),
        }
        calm = {name: calm[name] for name in scores}
        assert step.decide(calm).to_pylist() == [None], step.kind
        for name, values in scores.items():
            for cut in thresholds(manifest, f"{step.kind}.{name}"):
                away = 1 if values.dtype.kind in "iu" else 1e-9
                far = cut.value - away if cut.drops == "below" else cut.value + away
                sides = (cut.value - away, cut.value) if cut.drops == "from" else (cut.value, far)
                on, off = ({**calm, name: np.array([value]).astype(values.dtype)} for value in sides)
                assert step.decide(on).to_pylist() == [None], (name, cut)
                assert step.decide(off).to_pylist() != [None], (name, cut)
                checked.add(f"{step.kind}.{name}")
    of_models = {"language_score", "quality_classifier.score", "perplexity"}  # tested with their steps
    assert checked >= set(FIELDS) - of_models - {
        "decontaminate.item_share",
        "decontaminate.spans",
    }  # only beside `ngrams`
    assert len(checked) >= 13 + 8 + 1 + 4


def test_a_language_score_on_the_minimum_goes() -> None:
    step = LanguageId(minimum=0.65)
    manifest = {"steps": [step.kind], "recipe": {"steps": [dump_step(step)]}}
    (cut,) = thresholds(manifest, "language_score")
    scores = np.array([0.65, np.nextafter(0.65, 1), 0.2, 1.0])
    reasons = step.decide({"language": np.array(["en"] * 4, object), "language_score": scores}).to_pylist()
    assert [reason is not None for reason in reasons] == cut.beyond(scores).tolist() == [True, False, True, False]
    everything = {"steps": [step.kind], "recipe": {"steps": [dump_step(LanguageId())]}}
    assert not thresholds(everything, "language_score")


def test_a_rule_that_is_off_has_no_threshold() -> None:
    own = {
        "steps": ["mine"],
        "recipe": {"steps": [{"package.module:Mine": {"min_depth": 3, "max_depth": None, "width": 2.5, "flag": True}}]},
    }
    assert [(cut.value, cut.drops) for cut in thresholds(own, "mine.depth")] == [(3.0, "below")]
    assert [(cut.value, cut.drops) for cut in thresholds(own, "mine.width")] == [(2.5, "above")]
    assert not thresholds(own, "mine.flag")
    assert not thresholds(own, "other.depth")


@pytest.mark.parametrize(
    "values",
    [
        [0.0],
        [5.0, 5.0],
        [0, 1, 2, 3],
        [-3.5, 2.0],
        [0, 10, 1_000, 250_000],
        [1e-12, 1e12],
        [0.2, 0.9999],
        [-1e6, -1e6 + 1],
        list(range(10_000)),
    ],
    ids=["zero", "equal", "few", "negative", "orders", "extremes", "shares", "far", "many"],
)
@pytest.mark.parametrize("cut", [None, 0.0, 0.65, 50.0, 100_000.0])
def test_every_value_and_threshold_stands_on_its_axis(values: list[float], cut: float | None) -> None:
    array = np.array(values, np.float64)
    cuts = [] if cut is None else [cut]
    axis = score_axis(array, cuts)
    assert np.all(np.diff(axis.edges) > 0)
    assert 1 <= len(axis.edges) - 1 <= 64
    for value in (*array, *cuts):
        assert 0 <= axis.at(float(value)) <= 1
    drawn = histogram(array, [Threshold(cut, "below", "minimum")] if cut is not None else [], "title")
    assert drawn.count("<rect") >= 1
    assert ('<line class="cut"' in drawn) == (cut is not None)


def test_bars_show_what_is_not_nothing() -> None:
    bar = stacked([("kept", 999_999), ("rejected", 1), ("quarantined", 0)], 1_000_000, "<title>")
    assert bar.count("<rect") == 2
    assert "&lt;title&gt;" in bar
    assert stacked([("kept", 0)], 0, "none").count("<rect") == 0


#: Whether a part of the page ends inside the window; tables scroll in a box of their own.
WITHIN = "part => part.closest('.scroll, svg') || part.getBoundingClientRect().right <= innerWidth"


class Browser:
    """Headless Chromium, driven over a pipe by its own protocol."""

    FLAGS = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
    )  # fmt: skip

    def __init__(self, profile: Path) -> None:
        theirs, self.out = os.pipe()
        self.into, ours = os.pipe()

        def wire() -> None:  # Chromium reads from descriptor 3 and writes to 4
            copies = os.dup(theirs), os.dup(ours)
            os.dup2(copies[0], 3)
            os.dup2(copies[1], 4)

        command = [str(CHROMIUM), *self.FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            command, preexec_fn=wire, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(ours)
        self.held, self.number, self.session, self.events = b"", 0, "", list[dict[str, Any]]()
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def message(self) -> dict[str, Any]:
        while b"\0" not in self.held:
            more = os.read(self.into, 1 << 20)
            assert more, "Chromium ended"
            self.held += more
        body, _, self.held = self.held.partition(b"\0")
        return dict(json.loads(body))

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        request = {
            "id": self.number,
            "method": method,
            "params": parameters,
            **({"sessionId": self.session} if self.session else {}),
        }
        os.write(self.out, json.dumps(request).encode() + b"\0")
        while (answer := self.message()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def open(self, path: Path, width: int, scheme: str) -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())

    def value(self, code: str) -> Any:
        return self("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")

    def said(self) -> list[Any]:
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [event["params"] for event in self.events if event.get("method") in kinds]

    def asked(self) -> list[str]:
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        os.close(self.into)
        os.close(self.out)


@pytest.mark.long
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not here")
def test_chromium_shows_the_page_without_a_word(finished: tuple[Store, dict[str, Any], str], tmp_path: Path) -> None:
    """No console message, no request, no script; nothing wider than the window, on phone and desk, light and dark."""
    path = finished[0].local("report.html")
    assert path is not None
    browser = Browser(tmp_path / "profile")
    try:
        papers = set()
        for width, scheme in ((375, "light"), (375, "dark"), (1280, "light"), (1280, "dark")):
            browser.open(path, width, scheme)
            browser.value("document.querySelectorAll('details').forEach(part => { part.open = true })")
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert browser.value(f"[...document.querySelectorAll('main *')].every({WITHIN})")
            assert browser.value("document.title") == "quick<start> · penstock report"
            assert browser.value("document.querySelectorAll('script,img,iframe').length") == 0
            assert (
                browser.value("getComputedStyle(document.body).fontSize") == "16px"
            )  # the policy let the style sheet in
            papers.add(browser.value("getComputedStyle(document.body).backgroundColor"))
            assert browser.said() == []
            assert browser.asked() == [path.as_uri()]
        assert len(papers) == 2
        (tmp_path / "noisy.html").write_text(
            "<title>noisy</title><script>console.error(1)</script><img src='gone.png'>"
        )
        browser.open(tmp_path / "noisy.html", 375, "light")
        assert browser.said()  # and would have been heard
        assert len(browser.asked()) == 2
    finally:
        browser.close()
