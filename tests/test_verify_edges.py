"""Verification, similarity and the guard: clusters hold together by true Jaccard, or they don't hold."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching import Held, here, kept_texts, matched, parts_of

from penstock import RunError
from penstock.pipelines import shingled, verify_edges
from penstock.pipelines.duplicates import Dedup, Guard
from penstock.pipelines.guard import guard_line
from penstock.pipelines.runners import Job
from penstock.pipelines.verify_edges import fraction
from penstock.transforms.kernels.verified import alike, flatten, join_alike, join_buckets
from penstock.transforms.minhash import MinHash


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small objects, that no test wants back after a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


ANY = MinHash(bands=10, rows=1, ngram=2)  # nearly all pairs that share a shingle or two are candidates


def words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices("bcdfghjklm", k=7)) for _ in range(count)]


def corpus(seed: int, documents: int = 60, length: int = 24) -> list[dict[str, Any]]:
    """A few texts, each edited in up to half of its words, copied, and cut too short for a shingle."""
    rng = random.Random(seed)
    vocabulary = words(rng, 400)
    bases = [rng.choices(vocabulary, k=length) for _ in range(5)]
    made = []
    for number in range(documents):
        text = list(rng.choice(bases))
        for _ in range(rng.choice([0, 1, 2, 3, 6, length // 2])):
            text[rng.randrange(length)] = rng.choice(vocabulary)
        made.append({"text": " ".join(text[: rng.choice([1, length, length, length])]), "source_id": f"d{number}"})
    return made


def shingles(text: str, n: int = 2) -> frozenset[tuple[str, ...]]:
    split = text.split()
    return frozenset(tuple(split[at : at + n]) for at in range(len(split) - n + 1))


def jaccard(a: str, b: str) -> Fraction:
    one, two = shingles(a), shingles(b)
    return Fraction(len(one & two), len(one | two)) if one | two else Fraction(0)


def slow_clusters(texts: Sequence[str], threshold: Fraction) -> list[list[str]]:
    """All pairs, in plain Python."""
    parent = list(range(len(texts)))

    def root(item: int) -> int:
        return item if parent[item] == item else root(parent[item])

    for one, two in combinations(range(len(texts)), 2):
        if texts[one] == texts[two] or jaccard(texts[one], texts[two]) >= threshold:
            parent[max(root(one), root(two))] = min(root(one), root(two))
    groups: dict[int, list[str]] = {}
    for item, text in enumerate(texts):
        groups.setdefault(root(item), []).append(text)
    return sorted(sorted(group) for group in groups.values())


def clusters_of(parts: Sequence[Held], rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Read clusters back from the table, single documents too."""

    def text(part: int, row: int) -> str:
        return str((parts[part].rows[row] or {})["text"])

    groups = {(row["kept_part"], row["kept_row"]): [text(row["kept_part"], row["kept_row"])] for row in rows}
    for row in rows:
        groups[row["kept_part"], row["kept_row"]].append(text(row["part"], row["row"]))
    met = {*groups, *((row["part"], row["row"]) for row in rows)}
    singles = [
        [text(part.number, row)] for part in parts for row in range(len(part.rows)) if (part.number, row) not in met
    ]
    return sorted([*map(sorted, groups.values()), *singles])


@pytest.mark.parametrize("threshold", [0.3, 0.7])
@pytest.mark.parametrize("large", [256, 3])
def test_verified_clusters_are_those_of_all_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float, large: int
) -> None:
    for module in (shingled, verify_edges):
        monkeypatch.setattr(module, "LARGE", large)
    documents = corpus(seed=int(threshold * 10))
    parts = parts_of(documents)
    _, receipt, rows = matched(tmp_path, Dedup(minhash=ANY, verify=threshold), parts)
    expected = slow_clusters([document["text"] for document in documents], Fraction(*fraction(threshold)))
    assert clusters_of(parts, rows) == expected
    assert any(len(set(group)) > 2 for group in expected)
    assert receipt["verified"]["documents"] > receipt["verified"]["joined"]


def test_clusters_are_rebuilt_from_the_edges_that_hold_alone(tmp_path: Path) -> None:
    # text-dedup's bug 21: verified pairs were grouped by the cluster that the candidates had been in.
    rng = random.Random(0)
    one, two = words(rng, 30), words(rng, 30)
    bridge = [*one[:15], *two[:15]]
    texts = [" ".join(held) for held in (one, [*one[:29], "x"], bridge, two, [*two[:29], "y"])]
    parts = parts_of([{"text": text} for text in texts], 2)
    _, before, rows = matched(tmp_path / "a", Dedup(minhash=ANY), parts)
    assert (before["count"], len(rows), before["verified"]) == (1, 4, None)
    _, after, rows = matched(tmp_path / "b", Dedup(minhash=ANY, verify=0.7), parts)
    assert after["verified"] == {"documents": 5, "clusters": 1, "joined": 4}
    assert [row["cluster_size"] for row in rows] == [2, 2]
    assert len({row["cluster"] for row in rows}) == 2
    assert clusters_of(parts, rows) == sorted(map(sorted, [texts[:2], [texts[2]], texts[3:]]))


@pytest.mark.parametrize(
    ("large", "more"),
    [
        (256, {"verify": 0.5}),
        (3, {"guard": {"size": 4, "split": True, "similarity": 0.6}}),
        (3, {"verify": 0.3, "guard": {"size": 4, "split": True, "similarity": 0.6}}),
        (3, {"verify": 0.5, "normalisation": "fineweb", "minhash": ANY.model_copy(update={"normalisation": "none"})}),
    ],
    ids=["verify", "guard", "both", "other texts of one content"],
)
def test_the_result_is_a_function_of_the_set_of_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int, more: dict[str, Any]
) -> None:
    for module in (shingled, verify_edges):
        monkeypatch.setattr(module, "LARGE", large)
    monkeypatch.setattr(verify_edges, "LEADERS", 2)
    documents = corpus(seed=7)
    for document in documents[::3]:
        document["text"] = document["text"].title()
    dedup = Dedup.model_validate({"keep": ("longest", "smallest_id"), "minhash": ANY, **more})
    outcomes = set()
    for number, count in enumerate([1, 3, 5]):
        random.Random(number).shuffle(documents)
        parts = parts_of(documents, count)
        if number == 2:
            monkeypatch.setattr(shingled, "GROUP_BYTES", 2_000)
        _, receipt, rows = matched(tmp_path / str(number), dedup, parts, similarity=True)
        assert len(receipt["guarded"]) == receipt["guarded_count"]
        figures = tuple(sorted((row["source_id"], row["kept_source_id"], row["similarity"]) for row in rows))
        outcomes.add((tuple(kept_texts(parts, rows)), figures, receipt["count"], receipt["largest"]))
    assert len(outcomes) == 1
    assert min(len(texts) for texts, *_ in outcomes) < 60


def test_similarity_is_the_true_one_of_each_pair(tmp_path: Path) -> None:
    documents = corpus(seed=3)
    parts = parts_of(documents)
    texts = {document["source_id"]: document["text"] for document in documents}
    plain = matched(tmp_path / "a", Dedup(minhash=ANY), parts)
    asked = matched(tmp_path / "a", Dedup(minhash=ANY), parts, similarity=True)
    assert plain[0].hash == asked[0].hash
    verified = matched(tmp_path / "a", Dedup(minhash=ANY, verify=0.3), parts)
    for _, _, rows in (asked, verified):
        pairs = [(texts[row["source_id"]], texts[row["kept_source_id"]], row) for row in rows]
        for text, kept, row in pairs:
            expected = 1.0 if text == kept else float(jaccard(text, kept))
            assert row["similarity"] == np.float32(expected)
            assert row["kind"] == ("exact" if text == kept else "near")
        assert len({row["similarity"] for row in rows}) > 5
    assert {row["similarity"] for row in plain[2]} == {1.0, None}
    assert [{**row, "similarity": 0} for row in plain[2]] == [{**row, "similarity": 0} for row in asked[2]]


def test_short_texts_are_like_their_copies_only(tmp_path: Path) -> None:
    texts = ("alpha", "alpha", "beta", "", "gamma delta", "gamma delta epsilon")
    documents = [{"text": text, "source_id": str(number)} for number, text in enumerate(texts)]
    parts = parts_of(documents, 2)
    _, _, rows = matched(tmp_path, Dedup(minhash=ANY, verify=0.01), parts)
    assert kept_texts(parts, rows) == ["", "alpha", "beta", "gamma delta"]
    assert sorted(row["similarity"] for row in rows) == [0.5, 1.0]


def test_what_is_committed_is_not_compared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shingled, "GROUP_BYTES", 2_000)
    parts, dedup = parts_of(corpus(seed=1)), Dedup(minhash=ANY, verify=0.5)
    jobs: list[Job] = []

    def launch(job: Job) -> None:
        jobs.append(job)
        here(job)

    stage, receipt, rows = matched(tmp_path, dedup, parts, launch)
    assert [job.name for job in jobs if job.name in ("shingles", "verify", "similarity")] == [
        "shingles", "verify", "similarity",
    ]  # fmt: skip
    jobs.clear()
    receipts = tmp_path / "duplicates" / stage.hash / "receipts"
    (receipts / "clusters.json").unlink()
    assert matched(tmp_path, dedup, parts, launch)[2] == rows
    assert jobs == []
    for key in ("clusters", "verify-edges-000001", "verify-sets-000002"):
        (receipts / f"{key}.json").unlink()
    assert matched(tmp_path, dedup, parts, launch)[2] == rows
    assert [job.name for job in jobs] == ["shingles", "verify"]
    assert receipt["clusters"] in stage.store.list()


def test_an_input_that_changed_under_way_is_told(tmp_path: Path) -> None:
    parts = parts_of(corpus(seed=1), 2)

    def launch(job: Job) -> None:
        if job.name == "shingles":
            for task in job.tasks:
                object.__setattr__(task.part, "rows", tuple(None for _ in task.part.rows))
        here(job)

    with pytest.raises(RunError, match=r"part \d gave 0 of \d+ documents a second time: its input has changed"):
        matched(tmp_path, Dedup(minhash=ANY, verify=0.5), parts, launch)


def hub(documents: int) -> list[Held]:
    """Pages of one source: all share a frame, and each its text with the page that follows (marin's issue 6854)."""
    rng = random.Random(0)
    frame = words(rng, 8)
    bodies = [words(rng, 12) for _ in range(documents)]
    pages = [
        {"text": " ".join([*frame, *bodies[number], *bodies[(number + 1) % documents]]), "source_id": f"p{number:04}"}
        for number in range(documents)
    ]
    copies = [{"text": page["text"] + " end", "source_id": page["source_id"] + "c"} for page in pages[:40]]
    others = [{"text": " ".join(words(rng, 20)), "source_id": f"o{number}"} for number in range(50)]
    return [
        Held(0, tuple(pages[::2]), "pages"), Held(1, (*pages[1::2], *copies), "pages"),
        Held(2, tuple(others), "books"),
    ]  # fmt: skip


def test_a_source_that_closes_over_itself_is_named_and_can_be_saved(tmp_path: Path) -> None:
    parts = hub(300)
    guard = Guard(size=200)
    _, receipt, rows = matched(tmp_path / "a", Dedup(minhash=ANY, guard=guard), parts)
    assert len(rows) == 339
    (found,) = receipt["guarded"]
    assert {name: found[name] for name in ("documents", "contents", "removed", "sources")} == {
        "documents": 340, "contents": 340, "removed": 339, "sources": {"pages": [339, 340]},
    }  # fmt: skip
    assert found["cluster"] == rows[0]["cluster"].hex()
    assert guard_line(guard, receipt["guarded_count"], receipt["guarded"]) == (
        "guard: 1 cluster is suspiciously large; the largest joins 340 documents of 340 different texts, by which "
        "'pages' loses 339 of its 340; guard: {split: true} keeps joined only what is alike"
    )
    split = Guard(size=200, split=True)
    _, receipt, rows = matched(tmp_path / "b", Dedup(minhash=ANY, guard=split), parts)
    assert sorted(row["source_id"] for row in rows) == [f"p{number:04}c" for number in range(40)]
    assert {row["source_id"]: row["kept_source_id"] for row in rows} == {
        f"p{number:04}c": f"p{number:04}" for number in range(40)
    }
    assert receipt["guarded"][0]["sources"] == {"pages": [40, 340]}
    assert {row["similarity"] for row in rows} == {None}
    assert str(guard_line(split, 1, receipt["guarded"])).endswith(
        "by which 'pages' loses 40 of its 340, after a split at true similarity 0.7"
    )


def test_a_guard_that_splits_leaves_other_clusters_as_they_are(tmp_path: Path) -> None:
    parts = hub(300)
    rng = random.Random(5)
    one = words(rng, 30)
    loose = [{"text": " ".join([*one[:20], *words(rng, 10)]), "source_id": f"l{number}"} for number in range(4)]
    parts.append(Held(3, tuple(loose), "loose"))
    _, _, rows = matched(tmp_path, Dedup(minhash=ANY, guard=Guard(size=200, split=True)), parts)
    assert {row["source_id"] for row in rows if row["part"] == 3} == {"l1", "l2", "l3"}


def test_a_share_of_all_documents_is_asked_about_from_a_hundred_on(tmp_path: Path) -> None:
    for count, guarded in ((99, 0), (100, 1)):
        parts = parts_of([{"text": "all the same words"}] * count)
        guard = Guard(share=0.5)
        _, receipt, _ = matched(tmp_path / str(count), Dedup(minhash=None, guard=guard), parts)
        assert receipt["guarded_count"] == guarded
    assert receipt["guarded"][0]["contents"] == 1
    assert guard_line(guard, 0, []) is None


sets = st.lists(st.integers(0, 30), unique=True, max_size=20).map(lambda held: np.array(sorted(held), np.uint64))


@settings(max_examples=100, deadline=None)
@given(sets, sets, st.integers(1, 10))
def test_likeness_is_decided_as_fractions_decide_it(a: np.ndarray, b: np.ndarray, numerator: int) -> None:
    one, two = set(a.tolist()), set(b.tolist())
    reached = bool(one | two) and Fraction(len(one & two), len(one | two)) >= Fraction(numerator, 10)
    assert alike(a, b, numerator, 10) == reached


def test_a_threshold_is_what_is_written() -> None:
    assert [fraction(value) for value in (0.7, 1 / 3, 1.0, 0.1 + 0.2)] == [(7, 10), (1, 3), (1, 1), (3, 10)]
    seven = np.arange(7, dtype=np.uint64), np.arange(10, dtype=np.uint64)
    assert alike(*seven, *fraction(0.7))
    assert not alike(*seven, *fraction(0.700001))


def slow_buckets(buckets: list[list[int]], held: list[set[int]], share: Fraction, leaders: int) -> list[int]:
    """Join by leaders in plain Python: the root of each member."""
    parent = list(range(len(held)))

    def root(item: int) -> int:
        return item if parent[item] == item else root(parent[item])

    for bucket in buckets:
        leading: list[int] = []
        for one in bucket:
            like = [two for two in leading if Fraction(len(held[one] & held[two]), len(held[one] | held[two])) >= share]
            known = any(root(one) == root(two) for two in leading)
            for two in like:
                parent[max(root(one), root(two))] = min(root(one), root(two))
            if len(bucket) <= 2 * leaders or (not like and not known and len(leading) < leaders):
                leading.append(one)
    return [root(item) for item in range(len(held))]


@pytest.mark.parametrize("seed", range(5))
def test_leaders_of_buckets_join_what_is_like_them(seed: int) -> None:
    rng = random.Random(seed)
    held = [set(rng.sample(range(12), rng.randint(4, 8))) for _ in range(60)]
    offsets = np.cumsum([0, *map(len, held)])
    values = np.array([value for one in held for value in sorted(one)], np.uint64)
    order = rng.sample(range(60), 60)
    bounds = np.array([0, 1, 4, 20, 20, 60])
    parent = np.arange(60)
    compared = join_buckets(np.array(order), bounds, np.arange(60), offsets, values, 3, 5, 3, parent)
    flatten(parent)
    buckets = [order[first:end] for first, end in pairwise(bounds)]
    assert parent.tolist() == slow_buckets(buckets, held, Fraction(3, 5), 3)
    assert 0 < compared <= 3 * 60


def test_pairs_already_joined_are_not_compared() -> None:
    values = np.tile(np.arange(5, dtype=np.uint64), 100)
    parent = np.arange(100)
    compared = join_alike(np.array([0, 100]), np.arange(100), np.arange(0, 505, 5), values, 1, 1, 256, parent)
    assert compared == 99
