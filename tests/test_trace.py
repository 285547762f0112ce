"""Tracing: what a step is said to contain is what the loader gives, and a URL's fate is what the run's tables say."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import RequestError, run
from penstock.pipelines.cli import main
from penstock.pipelines.recipe import Recipe
from penstock.pipelines.thresholds import Threshold
from penstock.pipelines.trace import trace_row, trace_step
from penstock.pipelines.trace_text import step_text, urls_text
from penstock.pipelines.trace_url import trace_url
from penstock.sharding import StreamingLoader
from penstock.sharding.tools import cat
from penstock.sharding.tools.removal import takedown
from penstock.sharding.tools.url_patterns import matching

WORDS = [f"{a}{b}" for a in ("al", "be", "cor", "den", "el", "fa") for b in ("da", "ver", "mon", "tis", "kal")]
SOURCES = ("left", "right")
ODD_URL = "https://odd.example/100%_\\[x]?q=\x1b[2J\u202e<b>"


def write_corpus(folder: Path) -> None:
    """Two sources: unique texts, copies in threes, short ones that a rule drops, lines that are no JSON."""
    chance = np.random.default_rng(5)
    texts = [" ".join(chance.choice(WORDS, chance.integers(60, 300))) for _ in range(120)]
    rows = [(f"https://Site.example/{n}", text) for n, text in enumerate(texts)]
    rows += [(f"https://copy.example/{copy}/{n}", texts[n]) for n in range(12) for copy in range(2)]
    rows += [(f"https://short.example/{n}", "too few words") for n in range(7)]
    rows += [(ODD_URL, texts[0] + " and something more " + " ".join(chance.choice(WORDS, 200)))]
    for part, source in enumerate(SOURCES):
        lines = [
            json.dumps({"url": url, "text": text, "key": f"k{n}"})
            for n, (url, text) in enumerate(rows)
            if n % 2 == part
        ]
        lines.insert(3, '{"url": "https://broken.example/", "text": ')
        lines.append(json.dumps({"text": " ".join(chance.choice(WORDS, 100)), "key": "nameless"}))
        (folder / f"{source}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trace")
    write_corpus(folder)
    inputs = {name: {"path": str(folder / f"{name}.jsonl"), "fields": {"id": "key"}} for name in SOURCES}
    packs = [{"length": 64}, {"length": 128, "policy": "concat"}]
    recipe = {
        "name": "traced",
        "steps": [{"gopher_quality": {"min_stop_words": None, "min_doc_words": 50}}],
        "inputs": inputs,
        "dedup": {},
        "tokenizer": {"train": {"vocab_size": 340}},
        "tokens": {"streams": ["source"], "validation": 0.15, "packs": packs},
    }
    return str(folder / "run"), run(Recipe.from_value(recipe), folder / "run", quiet=True)


@pytest.fixture(scope="module")
def ledger(finished: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every record of the run, read plainly."""
    path, manifest = finished
    parts = pq.read_table(Path(path) / manifest["tables"]["parts"]).to_pylist()
    folder = Path(path) / "documents" / manifest["stages"]["documents"]
    return [row for part in parts for row in pq.read_table(folder / part["ledger_object"]).to_pylist()]


@pytest.fixture(scope="module")
def clusters(finished: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    path, manifest = finished
    return list(pq.read_table(Path(path) / manifest["tables"]["clusters"]).to_pylist())


@pytest.fixture
def loader(finished: tuple[str, dict[str, Any]]) -> StreamingLoader:
    return StreamingLoader(finished[0], batch_size=7, seed=11, pack="best_fit-64", prefetch=0)


def pieces_of(row: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Cut a row of document ids into (shard, ordinal, first, past the last), the padding left out."""
    cuts = [0, *(np.flatnonzero(row[1:] != row[:-1]) + 1).tolist(), len(row)]
    return [
        (int(row[first]) >> 32, int(row[first]) & 0xFFFFFFFF, first, last)
        for first, last in pairwise(cuts)
        if int(row[first]) != (1 << 64) - 1
    ]


def same_rows(traced: dict[str, Any], batches: list[Any], tokens: dict[tuple[int, int], list[int]]) -> None:
    """Hold what was traced to what loaders gave: places, documents and the very tokens."""
    positions = [int(position) for batch in batches for position in batch.positions]
    assert [row["position"] for row in traced["rows"]] == positions
    ids = [row for batch in batches for row in batch.document_ids]
    given = [row for batch in batches for row in batch.tokens]
    for row, documents, content in zip(traced["rows"], ids, given, strict=True):
        known = [traced["documents"][piece["id"]] for piece in row["pieces"]]
        assert [
            (one["shard"], one["ordinal"], *piece["row_tokens"])
            for one, piece in zip(known, row["pieces"], strict=True)
        ] == pieces_of(documents)
        for one, piece in zip(known, row["pieces"], strict=True):
            (first, last), (start, end) = piece["row_tokens"], piece["document_tokens"]
            whole = [*tokens[one["shard"], one["ordinal"]], None]  # EOS is not among the tokens that cat gives
            assert [
                token if wanted is not None else None
                for token, wanted in zip(content[first:last].tolist(), whole[start:end], strict=True)
            ] == whole[start:end]


@pytest.fixture(scope="module")
def tokens(finished: tuple[str, dict[str, Any]]) -> dict[tuple[int, int], list[int]]:
    return {(document["shard"], document["ordinal"]): document["tokens"] for document in cat(finished[0])}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_step_is_what_the_loader_gives(
    finished: tuple[str, dict[str, Any]],
    loader: StreamingLoader,
    tokens: dict[tuple[int, int], list[int]],
    world_size: int,
) -> None:
    state = json.loads(json.dumps(loader.state_dict()))
    ranks = [
        StreamingLoader(finished[0], batch_size=7, seed=11, pack="best_fit-64", rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for step in (0, 3, 50, 10**6):  # the last ones lie in later epochs
        for rank, mine in enumerate(ranks):
            traced = trace_step(finished[0], state, step, rank=rank, world_size=world_size)
            same_rows(traced, [mine.at(step)], tokens)
        same_rows(trace_step(finished[0], state, step), [mine.at(step) for mine in ranks], tokens)


def test_a_state_may_be_older_or_newer_than_the_step(
    finished: tuple[str, dict[str, Any]], loader: StreamingLoader
) -> None:
    early = loader.state_dict()
    loader.seek(step=40)
    late = loader.state_dict()
    assert early != late
    assert trace_step(finished[0], early, 20) == trace_step(finished[0], late, 20)


@pytest.mark.parametrize("tail", ["short", "pad"])
def test_the_last_batch_is_as_long_as_it_was(
    finished: tuple[str, dict[str, Any]], tokens: dict[tuple[int, int], list[int]], tail: Any
) -> None:
    loader = StreamingLoader(finished[0], 7, seed=11, pack="best_fit-64", prefetch=0, epochs=1, tail=tail)
    assert loader.epoch_rows % 7 > 0
    last = list(loader)[-1]
    state, step, rows = loader.state_dict(), len(loader) - 1, loader.epoch_rows % 7
    traced = trace_step(finished[0], state, step)
    assert [row["position"] for row in traced["rows"]] == last.positions[:rows].tolist()
    assert traced["positions"] == [last.position, loader.epoch_rows]
    with pytest.raises(RequestError, match="which of its rows a rank had depends on the loader's tail"):
        trace_step(finished[0], state, step, rank=0, world_size=2)
    same_rows(trace_step(finished[0], state, step - 1), [loader.at(step - 1)], tokens)


def test_a_plan_that_changed_still_says_what_each_step_was(
    finished: tuple[str, dict[str, Any]], loader: StreamingLoader, tokens: dict[tuple[int, int], list[int]]
) -> None:
    loader.seek(step=5)
    wider = StreamingLoader(finished[0], batch_size=12, seed=11, pack="best_fit-64", prefetch=0)
    wider.load_state_dict(loader.state_dict())
    state = wider.state_dict()
    for step, size in ((4, 7), (5, 12), (6, 12)):
        traced = trace_step(finished[0], state, step)
        assert len(traced["rows"]) == size
        same_rows(traced, [(loader if step < 5 else wider).at(step)], tokens)


def test_a_whole_training_run_is_traced_over_packs_skips_and_documents_left_out(
    finished: tuple[str, dict[str, Any]], tokens: dict[tuple[int, int], list[int]]
) -> None:
    loader = StreamingLoader(finished[0], batch_size=7, seed=11, pack="best_fit-64", prefetch=0)
    straight = [loader.at(step) for step in range(4)]
    loader.seek(4)
    spike = int(loader.at(5).document_ids[2, 0])
    loader.skip(steps=range(6, 8), documents=[spike])
    loader.seek(6)
    loader.change(pack="concat-128", batch_size=5)
    state = json.loads(json.dumps(loader.state_dict()))
    for step, batch in enumerate(straight):
        same_rows(trace_step(finished[0], state, step), [batch], tokens)
    pieces = [piece for row in trace_step(finished[0], state, 5)["rows"] for piece in row["pieces"]]
    out = [piece for piece in pieces if piece["left_out"]]
    known = trace_step(finished[0], state, 5)["documents"]
    assert {(known[piece["id"]]["shard"], known[piece["id"]]["ordinal"]) for piece in out} == {
        (spike >> 32, spike & 0xFFFFFFFF)
    }
    assert trace_step(finished[0], state, 6)["pack"] == "concat-128"
    assert [row["position"] for row in trace_step(finished[0], state, 6)["rows"]] == loader.at(6).positions.tolist()


def test_steps_from_before_a_takedown_are_traced_after_its_purge(
    finished: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "run")
    loader = StreamingLoader(copy, batch_size=7, seed=11, pack="best_fit-64", prefetch=0)
    before = trace_step(str(copy), loader.state_dict(), 2)
    name = before["rows"][0]["pieces"][0]["id"]
    takedown(copy, ids=[name], purge=True)
    after = trace_step(str(copy), loader.state_dict(), 2)
    assert after["rows"] == before["rows"]
    assert (before["documents"][name]["url"] is None, after["documents"][name]["url"]) == (False, None)
    today = StreamingLoader.from_state(copy, loader.state_dict(), generation=1)
    assert trace_step(str(copy), today.state_dict(), 2)["rows"][0]["pieces"][0]["left_out"]


@pytest.mark.parametrize("asked", [{"split": "validation"}, {"weights": {"train/left": 3, "train/right": 1}}])
def test_other_mixtures_are_traced_too(
    finished: tuple[str, dict[str, Any]], tokens: dict[tuple[int, int], list[int]], asked: dict[str, Any]
) -> None:
    mixed = StreamingLoader(finished[0], batch_size=5, seed=2, pack="concat-128", prefetch=0, **asked)
    traced = trace_step(finished[0], mixed.state_dict(), 9)
    same_rows(traced, [mixed.at(9)], tokens)
    streams = {row["stream"] for row in traced["rows"]}
    assert streams <= ({"validation/left", "validation/right"} if "split" in asked else {"train/left", "train/right"})


def test_documents_come_with_identity_scores_and_copies(
    finished: tuple[str, dict[str, Any]],
    loader: StreamingLoader,
    ledger: list[dict[str, Any]],
    clusters: list[dict[str, Any]],
) -> None:
    by_id = {row["id"].hex(): row for row in ledger}
    dropped = Counter(row["kept_id"].hex() for row in clusters)
    met: dict[str, Any] = {}
    for step in range(loader.epoch_rows // 7):
        traced = trace_step(finished[0], loader.state_dict(), step)
        assert traced["passed"] == ["gopher_quality"]
        met |= traced["documents"]
    assert len(met) > 80
    for name, known in met.items():
        row = by_id[name]
        assert row["fate"] == "kept"
        for field in ("url", "source", "path", "place", "source_id", "language"):
            assert known[field] == row[field], field
        assert known["scores"] == {column: row[column] for column in row if "." in column}
        assert known["copies"]["dropped"] == dropped[name]
        assert {copy["id"] for copy in known["copies"].get("some", ())} <= {row["id"].hex() for row in clusters}
        assert all(by_id[copy["id"]]["url"] == copy["url"] for copy in known["copies"].get("some", ()))
    assert max(known["copies"]["dropped"] for known in met.values()) == 2


def test_the_closest_threshold_is_the_one_with_least_room(
    finished: tuple[str, dict[str, Any]], loader: StreamingLoader
) -> None:
    known = next(iter(trace_step(finished[0], loader.state_dict(), 0)["documents"].values()))
    near = known["closest"]
    rooms: dict[str, list[Callable[[float], float]]] = {
        "gopher_quality.nonsymbol_words": [lambda v: (v - 50) / 50, lambda v: (100_000 - v) / 100_000],
        "gopher_quality.mean_word_length": [lambda v: (v - 3) / 3, lambda v: (10 - v) / 10],
        "gopher_quality.alpha_word_ratio": [lambda v: (v - 0.8) / 0.2],
    }
    wanted = min((room(known["scores"][name]), name) for name, all_ in rooms.items() for room in all_)
    assert (near["score"], near["margin"]) == (wanted[1], round(wanted[0], 6))


def test_margins_are_0_at_the_threshold_and_1_at_the_far_end() -> None:
    for cut, far in (
        (Threshold(0.2, "above", ""), 0.0),
        (Threshold(0.8, "below", ""), 1.0),
        (Threshold(50, "below", ""), 100.0),
    ):
        assert cut.margin(cut.value) == 0
        assert cut.margin(far) == pytest.approx(1)
        assert cut.margin(cut.value + (0.1 if cut.drops == "above" else -0.1)) < 0
    assert Threshold(0.0, "above", "").margin(0.5) == -0.5


def test_a_row_is_traced_by_its_shard(finished: tuple[str, dict[str, Any]], loader: StreamingLoader) -> None:
    row = trace_step(finished[0], loader.state_dict(), 1)["rows"][3]
    traced = trace_row(finished[0], row["shard"], row["row"], "best_fit-64")
    assert traced["rows"] == [{name: value for name, value in row.items() if name not in ("position", "epoch")}]


def test_every_url_has_the_fate_that_the_tables_say(
    finished: tuple[str, dict[str, Any]],
    ledger: list[dict[str, Any]],
    clusters: list[dict[str, Any]],
    tokens: dict[tuple[int, int], list[int]],
) -> None:
    path, manifest = finished
    gone = {row["id"].hex(): row for row in clusters}
    urls = {row["id"].hex(): row["url"] for row in ledger}
    found = trace_url(path, "", most=10_000)
    with_url = [row for row in ledger if row["url"] is not None]
    assert found["matched"] == len(found["records"]) == len(with_url)
    fates = Counter(record["fate"] for record in found["records"])
    assert fates == {"kept": fates["kept"], "duplicate": manifest["duplicates"], "rejected": manifest["rejected"]}
    standing = {(document["shard"], document["ordinal"]): document["id"] for document in cat(path)}
    for record in found["records"]:
        if record["fate"] == "kept":
            assert standing[record["shard"], record["ordinal"]] == record["id"]
        elif record["fate"] == "duplicate":
            assert record["kept"]["id"] == gone[record["id"]]["kept_id"].hex()
            assert record["kept"]["url"] == urls[record["kept"]["id"]]
            assert standing[record["kept"]["shard"], record["kept"]["ordinal"]] == record["kept"]["id"]
            assert record["cluster_size"] == gone[record["id"]]["cluster_size"]
        else:
            assert (record["step"], record["kind"], record["rule"]) == (
                0,
                "gopher_quality",
                "gopher_quality/gopher_short_doc",
            )
            assert {
                "score": "gopher_quality.nonsymbol_words",
                "value": 3,
                "drops": "below",
                "threshold": 50.0,
            } in record["beyond"]


def test_what_was_set_aside_says_where_and_why(
    tmp_path: Path, finished: tuple[str, dict[str, Any]], ledger: list[dict[str, Any]]
) -> None:
    """A broken line has no URL, so give it one in a copy of the ledger."""
    path, manifest = finished
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    broken = next(row for row in ledger if row["fate"] == "quarantined")
    for file in (copy / "documents" / manifest["stages"]["documents"] / "data").glob("ledger-*"):
        table = pq.read_table(file)
        urls = [
            "https://broken.example/" if fate == "quarantined" else None for fate in table.column("fate").to_pylist()
        ]
        pq.write_table(table.set_column(table.schema.get_field_index("url"), "url", pa.array(urls, pa.string())), file)
    found = trace_url(str(copy), "broken")
    assert found["records"][0]["fate"] == "quarantined"
    assert (found["records"][0]["kind"], found["records"][0]["error"]) == ("read", broken["error"])
    assert f"quarantined at reading: {broken['error']}" in urls_text(found)


def test_originals_are_found_without_token_files(
    tmp_path: Path, finished: tuple[str, dict[str, Any]], ledger: list[dict[str, Any]]
) -> None:
    path, manifest = finished
    copy = tmp_path / "run"
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns("tokens", "tokenizer"))
    (copy / "manifest.json").write_text(json.dumps({**manifest, "stages": {**manifest["stages"], "tokens": None}}))
    urls = {row["id"].hex(): row["url"] for row in ledger}
    records = trace_url(str(copy), "example", most=1_000)["records"]
    duplicates = [record for record in records if record["fate"] == "duplicate"]
    assert duplicates
    assert all(record["kept"]["url"] == urls[record["kept"]["id"]] for record in duplicates)
    assert all("shard" not in record for record in records)


URLS = ["https://a.b/c", "https://A.b/c", "https://a.b/c?q=1", "https://a.b/100%", "https://a.b/1000", "https://a.b/x_y",
        "https://a.b/x-y", "https://a.b/[z]", "https://a.b/\\n", "https://a.b/é", "", "*", None]  # fmt: skip


@pytest.mark.parametrize(
    "pattern",
    [
        "a.b/c",
        "A.b",
        "*a.b/c",
        "*a.b/c*",
        "https*%",
        "*%",
        "*_y",
        "x_y",
        "*[z]",
        "*\\n",
        "*?q=*",
        "*é",
        "**",
        "*",
        "c*",
    ],
)
def test_patterns_are_substrings_or_globs_of_stars(pattern: str) -> None:
    def wanted(url: str | None) -> bool | None:
        if url is None:
            return None
        if "*" not in pattern:
            return pattern in url
        return fnmatch.fnmatchcase(url, pattern.replace("[", "[[]").replace("?", "[?]"))

    assert matching(pa.chunked_array([URLS], pa.string()), pattern).to_pylist() == [wanted(url) for url in URLS]


def test_a_long_list_is_cut_and_counted(finished: tuple[str, dict[str, Any]]) -> None:
    found = trace_url(finished[0], "https://Site.example/*", most=10)
    assert (found["matched"], len(found["records"])) == (120, 10)
    assert "and 110 more" in urls_text(found)


def test_a_url_never_met_says_so(finished: tuple[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match="none of the 156 records"):
        trace_url(finished[0], "site.example")  # case counts
    assert main(["trace", finished[0], "--url", "nowhere.example"]) == 2
    assert "nowhere.example" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing was given"),
        (["--url", "x", "--shard", "0"], "--shard and --url"),
        (["--shard", "0"], "--row"),
        (["--shard", "99", "--row", "0", "--pack", "best_fit-64"], "99"),
        (["--shard", "0", "--row", "99999", "--pack", "best_fit-64"], "99999"),
        (["--shard", "0", "--row", "0", "--pack", "best_fit-63"], "best_fit-63"),
        (["--state", "STATE"], "--step"),
        (["--state", "nowhere.json", "--step", "1"], "nowhere.json"),
        (["--state", "STATE", "--step", "-4"], "-4"),
        (["--state", "STATE", "--step", "1000000000000000000000"], "beyond position 2^62"),
        (["--state", "STATE", "--step", "1", "--rank", "2", "--world-size", "2"], "no rank 2 of 2"),
        (["--state", "STATE", "--step", "1", "--rank", "2"], "--world-size"),
        (["--state", "STATE", "--step", "1", "--rank", "0", "--world-size", "0"], "0"),
        (["--state", "OTHER", "--step", "1"], "f00d"),
        (["--state", "TEXT", "--step", "1"], "not JSON"),
        (["--state", "LIST", "--step", "1"], "no loader state"),
    ],
)
def test_what_cannot_be_traced_is_refused_in_a_sentence(
    finished: tuple[str, dict[str, Any]], loader: StreamingLoader, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], said: str,
) -> None:  # fmt: skip
    state = loader.state_dict()
    bodies = {"STATE": state, "OTHER": {**state, "tokens_sha256": "f00d"}, "LIST": [1]}
    for name, body in bodies.items():
        (tmp_path / name).write_text(json.dumps(body))
    (tmp_path / "TEXT").write_text("position: 3")
    given = [str(tmp_path / word) if word in {*bodies, "TEXT"} else word for word in words]
    assert main(["trace", finished[0], *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_no_run_no_trace(tmp_path: Path, finished: tuple[str, dict[str, Any]]) -> None:
    with pytest.raises(RequestError, match=r"manifest\.json"):
        trace_url(str(tmp_path), "x")
    tokens = f"{finished[0]}/tokens"
    assert trace_url(tokens, ODD_URL) == trace_url(finished[0], ODD_URL)


@pytest.fixture
def printed(finished: tuple[str, dict[str, Any]], loader: StreamingLoader, tmp_path: Path) -> list[str]:
    (tmp_path / "state.json").write_text(json.dumps({"loader": loader.state_dict(), "model": "elsewhere"}))
    return [
        "trace",
        finished[0],
        "--state",
        str(tmp_path / "state.json"),
        "--step",
        "2",
        "--rank",
        "1",
        "--world-size",
        "2",
    ]


def test_command_prints_text_or_json(
    finished: tuple[str, dict[str, Any]],
    loader: StreamingLoader,
    printed: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = trace_step(finished[0], loader.state_dict(), 2, rank=1, world_size=2)
    assert main([*printed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == wanted
    assert main(printed) == 0
    text = capsys.readouterr().out
    assert text == step_text(wanted) + "\n"
    assert "step 2: positions 14 to 20, pack best_fit-64, generation 0, seed 11, rank 1 of 2: 4 rows" in text
    assert all(known["url"] in text for known in wanted["documents"].values() if known["url"] not in (None, ODD_URL))


def test_terminal_is_not_steered_by_urls(
    finished: tuple[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", finished[0], "--url", "odd.example"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "␛[2J⟨U+202E⟩<b>" in out
    assert "kept: document" in out
