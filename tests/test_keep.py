"""Who stays: policies, the values they read, and what they refuse."""

from __future__ import annotations

import json
import os
import random
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from matching import Held, kept_texts, matched, parts_of
from pydantic import ValidationError

from penstock import InputError, Recipe, RecipeError, RunError
from penstock.pipelines.dedup import dedup_job
from penstock.pipelines.duplicates import Dedup
from penstock.pipelines.keep import LAST, keep_columns, keep_keys, moment, require_columns, score
from penstock.pipelines.plan import plan_inputs


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here wants to be found after a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


NOON = 1714559400.0  # 2024-05-01 10:30:00 UTC
EXACT = Dedup(minhash=None)


@pytest.mark.parametrize(
    "value",
    [
        "2024-05-01T10:30:00Z",  # WARC-Date
        "2024-05-01T10:30:00.000000000+00:00",
        "2024-05-01T12:30:00+02:00",
        "2024-05-01 05:30:00-05:00",
        "2024-05-01T05:30:00-0500",
        "2024-05-01 10:30:00",
        " 2024-05-01T10:30 ",
        "2024-05-01 10:30:00 UTC",
        "20240501103000",  # of web archives
        "20240501T103000Z",
        "Wed, 01 May 2024 10:30:00 GMT",  # of HTTP
        "Wed, 01 May 2024 12:30:00 +0200",  # of mail
        "Wed May  1 10:30:00 2024",
        "1714559400",
        1714559400,
        1714559400.0,
        1714559400000,  # milliseconds
        1714559400000000,
        1714559400000000000,
        datetime(2024, 5, 1, 10, 30),
        datetime(2024, 5, 1, 12, 30, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_dates_are_read_in_many_forms(value: Any) -> None:
    assert moment(value) == NOON


def test_days_months_and_years_begin_at_midnight() -> None:
    day = 1714521600.0
    assert [moment(value) for value in ("2024-05-01", "20240501", date(2024, 5, 1), "2024-05")] == [day] * 4
    assert moment("2024") == 1704067200.0
    assert moment("0001-01-01") == -62135596800.0
    assert moment("946684800000") == 946684800.0  # no year 9466


@pytest.mark.parametrize("value", [None, "", "yesterday", "2024-13-01", "2024-02-30", True, [], {}, 10**400, b"x"])
def test_what_is_no_date_is_missing(value: Any) -> None:
    assert moment(value) is None


def test_scores_are_numbers_or_texts_of_numbers() -> None:
    assert [score(value) for value in (1, 0.5, " 3e2 ", True, "-inf")] == [1.0, 0.5, 300.0, 1.0, float("-inf")]
    none: list[Any] = [None, "", "high", [], 10**400]
    assert [score(value) for value in none] == [None] * 5


def keys(policy: str, values: list[Any], source: str = "a") -> list[int]:
    """The keys of documents whose `metadata` has these values of `x`."""
    texts = [None if value == "no metadata" else json.dumps({"x": value}) for value in values]
    batch = pa.record_batch({"text": [""] * len(values), "metadata": pa.array(texts, pa.string())})
    return [int(key) for key in keep_keys((policy,), source, batch)[:, 0]]


def ranked(found: list[int]) -> list[int]:
    return [sorted(set(found)).index(key) for key in found]


def test_highest_puts_numbers_in_order_and_what_is_none_last() -> None:
    values = [float("inf"), 2, 1.5, 0, -1, float("-inf"), None, float("nan"), "no metadata", "poor"]
    assert ranked(keys("highest:x", values)) == [0, 1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert keys("highest:x", [0.0]) == keys("highest:x", [-0.0])
    assert keys("highest:x", [None]) == [int(LAST)]


def test_newest_puts_dates_of_several_forms_in_order() -> None:
    values = ["2024-05-01T10:30:00+02:00", "2024-05-01T08:45:00Z", 1714559400, None, "1999"]
    assert ranked(keys("newest:x", values)) == [2, 1, 0, 4, 3]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([3, 1, None], pa.int64()),
        pa.array([0.3, 0.1, float("nan")]),
        pa.array(["3", "1", "x"]),
        pa.array([True, False, None]),
        pa.array(["3", "1", None]).dictionary_encode(),
    ],
)
def test_a_column_is_read_whatever_its_type(column: pa.Array) -> None:
    batch = pa.record_batch({"text": ["a", "b", "c"], "x": column})
    assert ranked([int(key) for key in keep_keys(("highest:x",), "a", batch)[:, 0]]) == [0, 1, 2]


@pytest.mark.parametrize("kind", [pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.date32(), pa.date64()])
def test_a_column_of_dates_is_read(kind: pa.DataType) -> None:
    column = pa.array([datetime(2024, 5, 2), datetime(2024, 5, 1), None], pa.timestamp("us")).cast(kind)
    batch = pa.record_batch({"text": ["a", "b", "c"], "date": column})
    assert ranked([int(key) for key in keep_keys(("newest",), "a", batch)[:, 0]]) == [0, 1, 2]


def test_columns_that_policies_read() -> None:
    assert keep_columns(("longest", "smallest_id", "priority:a,b")) == []
    assert keep_columns(("newest", "highest:q", "newest:q")) == ["date", "q", "metadata"]


def test_priority_ranks_inputs_and_puts_others_last() -> None:
    batch = pa.record_batch({"text": ["x"]})
    assert [keep_keys(("priority:b, a",), source, batch).tolist() for source in ("b", "a", "c")] == [
        [[0]],
        [[1]],
        [[2]],
    ]


def same(texts: str = "one text", **values: list[Any]) -> list[Held]:
    """Exact copies that differ in what else is known of them."""
    count = len(next(iter(values.values())))
    return parts_of([{"text": texts, **{name: held[at] for name, held in values.items()}} for at in range(count)], 2)


def stays(folder: Path, keep: Any, parts: list[Held]) -> Any:
    """The own id of the one that stays."""
    _, _, rows = matched(folder, EXACT.model_copy(update={"keep": (keep,) if isinstance(keep, str) else keep}), parts)
    (kept,) = {row["kept_source_id"] for row in rows}
    return kept


def test_smallest_id_is_the_shorter_own_id_then_by_code_point(tmp_path: Path) -> None:
    assert stays(tmp_path, "smallest_id", same(source_id=["10", "9", None, "é", "z"])) == "9"
    assert stays(tmp_path, "smallest_id", same(source_id=["é", "\U0001f600", "z"])) == "z"
    assert stays(tmp_path, "smallest_id", same(source_id=["\ue000", "\U0001f600", None])) == "\ue000"
    assert stays(tmp_path, "smallest_id", same(source_id=[None, None, "zzzz"])) == "zzzz"
    assert stays(tmp_path, "smallest_id", same(source_id=["", "a"])) == ""


def test_policies_are_asked_in_order(tmp_path: Path) -> None:
    parts = same(source_id=["a", "b", "c", "d"], quality=[0.5, 0.9, 0.9, None], date=["2030", "2001", "2002", "2040"])
    assert stays(tmp_path, "highest:quality", parts) == "b"
    assert stays(tmp_path, ("highest:quality", "newest"), parts) == "c"
    assert stays(tmp_path, ("newest", "highest:quality"), parts) == "d"


def test_priority_goes_before_what_follows(tmp_path: Path) -> None:
    parts = [
        Held(0, ({"text": "t", "source_id": "a"},), "web"), Held(1, ({"text": "t", "source_id": "b"},), "books"),
        Held(2, ({"text": "t", "source_id": "c"},), "wiki"),
    ]  # fmt: skip
    assert stays(tmp_path, "priority:books,wiki", parts) == "b"
    assert stays(tmp_path, ("priority:wiki", "smallest_id"), parts) == "c"


@pytest.mark.parametrize(
    "keep", ["smallest_id", "longest", "newest", "highest:q", ("highest:q", "longest"), "priority:input"]
)
@pytest.mark.parametrize("ids", ["unique", "repeated"])
def test_the_same_texts_stay_in_any_order(tmp_path: Path, keep: Any, ids: str) -> None:
    rng = random.Random(0)
    documents = [
        {
            "text": rng.choice(["Some words", "some words", "SOME words", "other", "Other"]),
            "source_id": str(number if ids == "unique" else number % 3),
            "q": rng.choice([None, 0.5, 0.7, float("nan")]),
            "date": rng.choice(["2024", "2024-01-01", "nothing", None, "2023-12-31T23:59:59Z"]),
        }
        for number in range(30)
    ]
    dedup = EXACT.model_copy(update={"normalisation": "fineweb", "keep": (keep,) if isinstance(keep, str) else keep})
    kept = []
    for turn, count in enumerate((1, 3, 8)):
        rng.shuffle(documents)
        parts = parts_of(documents, count)
        kept.append(kept_texts(parts, matched(tmp_path / str(turn), dedup, parts)[2]))
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 2


def test_an_unknown_column_is_refused_before_anything_runs() -> None:
    tables = [
        Held(0, ({"text": "a", "metadata": '{"date":null,"quality":1}'},) * 2, "x"),
        Held(1, ({"text": "b", "metadata": '{"date":"2024"}'},), "y"),
    ]
    require_columns(("newest", "highest:quality"), tables)
    with pytest.raises(
        InputError, match="keep: 'highest:qality' reads a column that no input has; they have 'date', 'quality'"
    ):
        require_columns(("highest:qality",), tables)
    with pytest.raises(InputError, match="they have none beside the text"):
        require_columns(("newest",), [Held(0, ({"text": "a"},))])


def test_where_fields_come_and_go_nothing_is_refused_too_early() -> None:
    loose = [Held(0, ({"text": "a", "metadata": '{"a":1}'}, {"text": "b", "metadata": '{"b":1}'}))]
    require_columns(("highest:c",), loose)
    require_columns(("highest:c",), [Held(0, ())])
    require_columns(("longest",), [Held(0, ({"text": "a"},))])


def test_a_column_without_any_value_ends_the_match(tmp_path: Path) -> None:
    parts = same(source_id=["a", "b", "c"], x=["good", "bad", None])
    with pytest.raises(RunError, match="'highest:x' found no number in the column 'x' of any document"):
        stays(tmp_path, "highest:x", parts)
    with pytest.raises(RunError, match="'newest:gone' found no date in the column 'gone'"):
        stays(tmp_path, "newest:gone", parts)
    elsewhere = [*parts, Held(2, ({"text": "alone", "x": "3"},))]
    assert stays(tmp_path / "x", "highest:x", elsewhere) == "a"


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("oldest", "'oldest' is no policy"),
        ("newest:", "'newest:' is no policy"),
        ("highest", "'highest' is no policy"),
        ([], "no policy"),
        ("priority:a,,b", "names an input twice, or none"),
        ("priority:a, a", "names an input twice, or none"),
        (["smallest_id", "longest"], "'longest' behind it is never asked"),
    ],
)
def test_policies_are_checked_when_they_are_written(keep: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Dedup(keep=keep)


def test_a_priority_of_an_input_that_is_none_is_refused() -> None:
    value = {
        "inputs": {"web": {"path": "w"}, "books": {"path": "b"}},
        "text": {"format": "jsonl"},
        "dedup": {"keep": "priority:books,wiki"},
    }
    with pytest.raises(
        RecipeError, match="'priority:books,wiki' names the input 'wiki': the inputs are 'web', 'books'"
    ):
        Recipe.from_value(value)
    value["dedup"] = {"keep": "priority:books", "url": {"keep": "priority:wiki"}}
    with pytest.raises(RecipeError, match="names the input 'wiki'"):
        Recipe.from_value(value)
    value["dedup"] = {"keep": "priority:books"}
    assert Recipe.from_value(value).dedup == Dedup(keep=("priority:books",))


def test_a_field_that_only_some_records_have_is_no_unknown_column(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "a", "b": 1}\n{"text": "a", "score": 2}\n')
    job = dedup_job([str(file)], dedup={"keep": "highest:score", "minhash": None})
    require_columns(job.dedup.keep, job.parts(plan_inputs(job)))
    file.write_text('{"text": "a", "b": 1}\n{"text": "a", "b": 2}\n')
    with pytest.raises(InputError, match="'highest:score' reads a column that no input has; they have 'b'"):
        require_columns(job.dedup.keep, job.parts(plan_inputs(job)))


def test_a_job_refuses_a_priority_of_no_input(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(RecipeError, match="names the input 'wiki': the inputs are 'web'"):
        dedup_job([f"web={tmp_path}/in.jsonl"], dedup={"keep": "priority:wiki"})
