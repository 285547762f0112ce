"""The plan of a deduplication: documents counted or estimated, bytes, tasks, memory and the S-curve."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from warc_files import http, record

from penstock.pipelines import dedup_counts
from penstock.pipelines.dedup import dedup_job
from penstock.pipelines.dedup_counts import Count, count_documents
from penstock.pipelines.dedup_plan import bands_of, kinds, plan_lines, plan_text, plan_value
from penstock.pipelines.duplicates import Dedup, Url
from penstock.pipelines.exchange import GROUP_BYTES
from penstock.pipelines.plan import plan_inputs
from penstock.pipelines.views import InputPart, StoredPart
from penstock.sharding.store import Store
from penstock.transforms.repeated_lines import Lines
from penstock.transforms.repeated_spans import Substrings


def parts(pattern: Path, task_bytes: int = 64 << 20) -> list[InputPart]:
    job = dedup_job([str(pattern)]).model_copy(update={"task_bytes": task_bytes})
    return job.parts(plan_inputs(job))


def test_parquet_is_counted_in_footers_by_row_group(tmp_path: Path) -> None:
    for number, rows in enumerate((1_000, 0, 37)):
        table = pa.table({"text": pa.array([f"text {row} " * 20 for row in range(rows)], pa.string())})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=100)
    whole, cut = parts(tmp_path / "*.parquet"), parts(tmp_path / "*.parquet", 2_000)
    assert len(cut) > len(whole)
    for made in (whole, cut):
        assert count_documents(made) == Count(1_037, True, "counted in Parquet footers")


def test_of_very_many_footers_some_stand_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup_counts, "FOOTERS", 4)
    for number in range(12):
        pq.write_table(pa.table({"text": [f"text {row}" for row in range(50)]}), tmp_path / f"{number:02d}.parquet")
    found = count_documents(parts(tmp_path / "*.parquet"))
    assert (found.documents, found.exact) == (600, False)
    assert found.how == "estimated from 4 of 12 Parquet footers"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("ending", ["\n", ""])
def test_lines_are_counted_or_estimated(
    tmp_path: Path, suffix: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "\n".join(json.dumps({"text": f"line {row} " + "word " * (row % 50)}) for row in range(4_000)) + ending
    data = body.encode()
    data = pa.compress(data, "zstd", asbytes=True) if suffix == ".zst" else gzip.compress(data) if suffix else data
    (tmp_path / f"one.jsonl{suffix}").write_bytes(data)
    found = parts(tmp_path / "one.jsonl*")
    assert count_documents(found) == Count(4_000, True, "counted")
    monkeypatch.setattr(dedup_counts, "HEAD_BYTES", 100_000)
    monkeypatch.setattr(dedup_counts, "BLOCK", 10_000)
    guess = count_documents(found)
    assert not guess.exact
    assert guess.how == "estimated from the beginning of 1 file"
    if not suffix:  # of a compressed file as small as this, all is read ahead, and its head seems to be all of it
        assert guess.documents == pytest.approx(4_000, rel=0.1)


def test_pages_are_counted_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"".join(record(row, http(b"<p>x")) for row in range(40))
    (tmp_path / "one.warc").write_bytes(body)
    for block in (7, 64, 1 << 20):
        monkeypatch.setattr(dedup_counts, "BLOCK", block)
        assert count_documents(parts(tmp_path / "one.warc")) == Count(40, True, "counted")


def test_texts_and_stored_parts_and_broken_files_count_too(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("a text" if number else "")
    assert count_documents(parts(tmp_path / "*.txt")) == Count(2, True, "a file a document")
    stored = [StoredPart(number, str(number), Store(tmp_path), "x", 7, "in") for number in range(3)]
    assert count_documents(stored) == Count(21, True, "counted when they were written")
    (tmp_path / "one.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 9))
    broken = parts(tmp_path / "one.jsonl.gz")
    (tmp_path / "one.jsonl.gz").unlink()
    assert count_documents(broken).documents == 0


@pytest.mark.parametrize(
    ("dedup", "bands", "said"),
    [
        (Dedup(), 15, "exact copies → MinHash 14 × 8 of 5-grams of words"),
        (Dedup(minhash=None), 1, "exact copies"),
        (Dedup(url=Url(), verify=0.7), 16, "one document a URL → exact copies → MinHash 14 × 8 of 5-grams of words "
         "verified at 0.7"),
        (Dedup(exact=False, minhash=None, lines=Lines(unit="sentence", window=3), substrings=Substrings()), 0,
         "repeated spans of 3 sentences → substrings of 100 bytes"),
    ],
)  # fmt: skip
def test_kinds_are_named_in_their_order(dedup: Dedup, bands: int, said: str) -> None:
    assert bands_of(dedup) == bands
    assert " → ".join(kinds(dedup)) == said
    assert said in plan_text(dedup, [], 2)


def test_plan_scales_with_the_documents() -> None:
    def plan(documents: int, **fields: Any) -> dict[str, Any]:
        return plan_value(Dedup(**fields), [], 4, None, Count(documents, True, "counted"))

    small, large = plan(1_000_000), plan(100_000_000)
    assert small["exchange"]["bytes"] == 1_000_000 * 15 * 24
    assert small["exchange"]["ranges"] == 1
    assert large["exchange"]["ranges"] == -(-100_000_000 * 24 // GROUP_BYTES)
    assert large["exchange"]["link_tasks"] == 15 * large["exchange"]["ranges"]
    assert large["memory"]["worker_bytes"] < 1_000_000_000  # whatever the input
    assert large["memory"]["client_most_bytes"] == 100 * small["memory"]["client_most_bytes"]  # still one union-find
    assert large["memory"]["client_most_bytes"] < 30 << 30
    against = plan_value(Dedup(), [], 4, 50_000_000, Count(1_000_000, False, "estimated"))
    assert against["exchange"]["index_bytes"] == 50 * against["exchange"]["bytes"]
    assert "about 1,000,000 (estimated)" in plan_lines(against)
    assert "against 50,000,000 in the index" in plan_lines(against)
    json.dumps([small, against])


def test_curve_stands_in_the_plan() -> None:
    plan = plan_value(Dedup(verify=0.75), [], 1, None, Count(10, True, "counted"))
    curve = dict(plan["match"]["curve"])
    assert curve[0.8] == pytest.approx(0.9235, abs=1e-4)
    assert curve[0.7] == 0.0
    lines = plan_lines(plan).splitlines()
    assert lines[-4].split() == ["similarity", *(f"{at / 100:.2f}" for at in range(50, 100, 5))]
    assert lines[-3].replace(" %", "%").split()[1:7] == ["0%"] * 5 + ["77%"]
    assert lines[-1].startswith("threshold    0.719 = (1/14)^(1/8); what meets is compared in full and holds from 0.75")
    assert plan_value(Dedup(minhash=None), [], 1, None, Count(10, True, "counted"))["match"] is None
