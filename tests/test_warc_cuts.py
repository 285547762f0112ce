"""WARC files cut into ranges: the rows of the whole wherever the cuts lie, and no cut in the midst of a record."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from read_rows import errors, rows_of
from warc_files import HTML, PAGES, damage, http, record, write

from penstock import Recipe, RunError, run
from penstock.pipelines.plan import plan_inputs
from penstock.transforms import inflate, warc_cuts
from penstock.transforms.readers import Piece, list_files, read, split

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pack(body: bytes) -> bytes:
    return gzip.compress(body, 6, mtime=0)


def ranges(path: Path, task_bytes: int) -> list[tuple[int, int]]:
    (entry,) = list_files(str(path))
    return split(entry, "warc", task_bytes)


def noise(number: int, size: int) -> bytes:
    """A record that deflate cannot shrink."""
    return record(number, http(random.Random(number).randbytes(size), b"Content-Type: image/png"))


WAYS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "plain": lambda parts: parts,
    "a member a record": lambda parts: [pack(part) for part in parts],
    "members of two": lambda parts: [pack(a + b) for a, b in zip(parts[::2], parts[1::2], strict=True)],
    "zeros between members": lambda parts: [pack(part) + bytes(90) for part in parts],
    "more blank lines": lambda parts: [part + b"\r\n" * 3 for part in parts],
}


@pytest.mark.parametrize("way", WAYS)
def test_ranges_of_any_size_give_the_rows_of_the_whole(tmp_path: Path, way: str) -> None:
    parts = WAYS[way](PAGES)
    path = write(tmp_path / "a.warc.gz", *parts)
    whole = rows_of(path)
    assert len(whole) == 12
    starts = {0, *accumulate(map(len, parts))}
    for task_bytes in (1, 40, 300, 1000, 2500, 7000):
        cut = ranges(path, task_bytes)
        assert [a for a, _ in cut[1:]] == [b for _, b in cut[:-1]]
        assert {a for a, _ in cut} <= starts
        assert rows_of(path, task_bytes=task_bytes) == whole
    assert len(ranges(path, 1)) == len(parts)  # every record is found
    assert ranges(path, path.stat().st_size) == [(0, -1)]


@pytest.mark.long
@pytest.mark.parametrize("chain", [1, 1500, 1 << 17])
@pytest.mark.parametrize("packed", [True, False])
def test_damage_is_read_the_same_however_the_file_is_cut(
    tmp_path: Path, packed: bool, chain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warc_cuts, "CHAIN", chain)
    counts = set()
    for seed in range(60):
        rng = random.Random(seed)
        monkeypatch.setattr(inflate, "BLOCK", rng.choice([1 << 18, 700, 4096]))
        parts = WAYS["a member a record"](PAGES) if packed else list(PAGES)
        for hurt in rng.sample(range(12), rng.choice([1, 1, 2, 3])):
            parts[hurt] = damage(rng, parts[hurt])
        path = write(tmp_path / "a.warc", *parts)
        whole = rows_of(path)
        for task_bytes in (1, rng.randrange(50, 4000)):
            counts.add(len(ranges(path, task_bytes)))
            assert rows_of(path, task_bytes=task_bytes) == whole, seed
    assert max(counts) > 8


def test_no_cut_lies_near_damage(tmp_path: Path) -> None:
    parts = [pack(noise(number, 20_000)) for number in range(60)]
    parts[30] = parts[30][:9000]
    path, starts = write(tmp_path / "a.warc.gz", *parts), [0, *accumulate(map(len, parts))][:-1]
    found = {a for a, _ in ranges(path, 1)}
    assert found == {at for at in starts if at <= starts[29] - warc_cuts.CHAIN or at > starts[30]}
    assert 50 < len(found) < 60
    assert len(errors(rows_of(path, task_bytes=50_000))) == 1


def test_one_large_member_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.warc.gz", pack(b"".join(PAGES)))
    assert ranges(path, 100) == [(0, -1)]
    monkeypatch.setattr(warc_cuts, "WINDOWS", (100, 400))
    path = write(tmp_path / "a.warc.gz", pack(b"".join(PAGES)), pack(PAGES[0]), pack(PAGES[1]))
    assert ranges(path, 100) == [(0, -1)]  # no member ends where one would be looked for


def test_a_record_that_no_window_holds_is_not_cut_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warc_cuts, "WINDOWS", (1000, 3000))
    monkeypatch.setattr(warc_cuts, "CHAIN", 10)
    for parts in (
        [PAGES[1], noise(1, 20_000), *PAGES[2:5]],
        [pack(x) for x in (PAGES[1], noise(1, 20_000), *PAGES[2:5])],
    ):
        starts = [0, *accumulate(map(len, parts))]
        path = write(tmp_path / "a.warc", *parts)
        assert {a for a, _ in ranges(path, 200)} == {0, *starts[2:5]}
        assert rows_of(path, task_bytes=200) == rows_of(path)


def test_an_archive_within_the_archive_is_no_place_to_cut(tmp_path: Path) -> None:
    """Gzip stores its members as they lie where they cannot be shrunk further; they look like records."""
    inner = b"".join(pack(noise(number, 6000)) for number in range(60))
    stored = gzip.compress(record(0, http(inner)), 0)
    parts = [*map(pack, PAGES), stored, *map(pack, PAGES)]
    starts = [0, *accumulate(map(len, parts))][:-1]
    path = write(tmp_path / "a.warc.gz", *parts)
    seen = list(warc_cuts._candidates(path.read_bytes(), "gzip", 0))
    assert len(seen) > len(starts) + 40
    assert seen[-12] - seen[12] > 2 * warc_cuts.CHAIN
    found = [a for a, _ in ranges(path, 10_000)]
    assert set(found) <= set(starts)
    assert rows_of(path, task_bytes=10_000) == rows_of(path)


def test_a_record_in_a_plain_page_is_no_place_to_cut(tmp_path: Path) -> None:
    example = (
        b"\r\n\r\n<pre>\r\n\r\nWARC/1.0\r\nWARC-Type: response\r\nContent-Length: 20\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    )
    parts = [part for number in range(6) for part in (record(number, http(example * 9 + b"</pre>")), PAGES[number])]
    path = write(tmp_path / "a.warc", *parts)
    assert {a for a, _ in ranges(path, 1)} == {0, *accumulate(map(len, parts[:-1]))}
    assert rows_of(path, task_bytes=1) == rows_of(path)


def test_a_cut_in_the_midst_of_a_record_is_an_error(tmp_path: Path) -> None:
    def cut(path: Path, start: int, end: int) -> None:
        list(read(Piece(str(path), "web", path.name, "warc", path.stat().st_size, start, end)))

    plain = write(tmp_path / "a.warc", *PAGES)
    ends = list(accumulate(map(len, PAGES)))
    cut(plain, ends[1], ends[2])
    words = rf"'a.warc': the range of bytes {ends[1]} to {ends[2] - 9} .* begins at byte {ends[2]}; set task_bytes to"
    with pytest.raises(RunError, match=words):
        cut(plain, ends[1], ends[2] - 9)
    with pytest.raises(RunError, match=f"no record begins between there and the end of the file at byte {ends[-1]}"):
        cut(plain, ends[1], ends[-1] - 1)
    spread = PAGES[0] + PAGES[1]
    packed = write(tmp_path / "a.warc.gz", pack(spread[:-40]), pack(spread[-40:] + PAGES[2]))
    first = len(pack(spread[:-40]))
    with pytest.raises(RunError, match=f"begins at byte {first}, 40 bytes into its gzip member; set task_bytes to"):
        cut(packed, 0, first)
    bare = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 0\r\n\r\n\r\n\r\n"
    dense = write(tmp_path / "b.warc.gz", pack(bare * 3000), pack(PAGES[0]))
    with pytest.raises(RunError, match="records share gzip members, and one counts as byte"):
        cut(dense, 0, len(pack(bare * 3000)))


def test_a_record_in_a_record_that_is_taken_for_one_is_found_out(tmp_path: Path) -> None:
    """A plain file cannot tell the records of a large archive within it; the reader before the cut can."""
    inner = b"".join([PAGES[9]] * 80)
    parts = [PAGES[1], record(0, http(inner, HTML)), PAGES[2]]
    path = write(tmp_path / "a.warc", *parts)
    assert len(inner) > warc_cuts.CHAIN
    with pytest.raises(RunError, match=r"set task_bytes to .* or more, so that the file is read as a whole"):
        rows_of(path, task_bytes=20_000)
    assert len(rows_of(path)) == 3


def recipe_over(folder: Path, task_bytes: int) -> dict[str, Any]:
    return {
        "name": "pages",
        "inputs": {"web": {"path": str(folder)}},
        "steps": [{"extract_html": {}}],
        "text": {"format": "jsonl"},
        "task_bytes": task_bytes,
    }


def test_a_task_counts_the_bytes_of_its_range(tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.warc.gz", *map(pack, PAGES))
    tasks = plan_inputs(Recipe.from_value(recipe_over(path.parent, 900)))
    assert len(tasks) > 3
    assert sum(task.bytes for task in tasks) == path.stat().st_size
    assert [task.pieces[0].start for task in tasks[1:]] == [task.pieces[0].end for task in tasks[:-1]]


def test_a_run_gives_the_same_documents_from_a_cut_file(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.warc.gz", pack(PAGES[0]), pack(PAGES[5])[:-9], *map(pack, PAGES), pack(PAGES[3]))
    seen: list[Any] = []
    for name, task_bytes in (("whole", 1 << 30), ("cut", 900)):
        manifest = run(Recipe.from_value(recipe_over(tmp_path / "in", task_bytes)), tmp_path / name, quiet=True)
        rows = []
        for kind in ("documents", "ledger"):
            for file in sorted((tmp_path / name / "documents").rglob(f"{kind}-*.parquet")):
                rows += [(kind, row["id"], row["place"]) for row in pq.read_table(file).to_pylist()]
        parts = pq.read_table(tmp_path / name / manifest["tables"]["parts"]).num_rows
        seen.append((sorted(rows), manifest["funnel"], manifest["kept"], parts > 1))
    assert seen[0][:3] == seen[1][:3]
    assert [parts for *_, parts in seen] == [False, True]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("packed", [True, False])
def test_a_real_crawl_in_ranges(tmp_path: Path, packed: bool) -> None:
    body = (SHARED / "web_small.warc.gz").read_bytes()
    path = write(tmp_path / "a.warc", body if packed else gzip.decompress(body))
    whole = rows_of(path)
    for parts in (2, 7, 40):
        task_bytes = path.stat().st_size // parts
        cut = ranges(path, task_bytes)
        assert len(cut) >= parts
        assert max(b - a for a, b in pairwise([a for a, _ in cut])) < 3 * task_bytes + 40_000
        assert rows_of(path, task_bytes=task_bytes) == whole
